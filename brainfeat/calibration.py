"""Temperature scaling: one number that makes scores into probabilities one can believe."""

import numpy as np
from numpy.typing import NDArray

# A temperature outside this range would say that the scores carry no order at all.
_LOG_RANGE = (-6.0, 6.0)


def softmax(scores: NDArray[np.float64], *, temperature: float = 1.0) -> NDArray[np.float64]:
    """Turn scores into probabilities.

    Parameters
    ----------
    scores : ndarray of shape (n, k)
    temperature : float
        Scores are divided by it first: above 1 is less sure, below 1 surer.

    Returns
    -------
    ndarray of shape (n, k), float64
        Rows sum to 1.

    Examples
    --------
    >>> softmax(np.array([[0.0, 0.0]]))
    array([[0.5, 0.5]])
    """
    from scipy.special import softmax as scipy_softmax

    probabilities: NDArray[np.float64] = scipy_softmax(scores / temperature, axis=1)
    return probabilities


def fit_temperature(
    scores: NDArray[np.float64],
    y: NDArray[np.integer],
    *,
    sample_weight: NDArray[np.float64] | None = None,
) -> float:
    """Find the temperature with the least log loss (Guo et al. 2017, arXiv:1706.04599, §4.2).

    The true class counts 1 − ε and all classes share ε = 1 / (n + 2), after Platt's smoothed
    targets (1999, §2.2): a head that errs on none of a few images is not called certain.

    Parameters
    ----------
    scores : ndarray of shape (n, k)
        Scores of images that the head was not fitted on.
    y : ndarray of shape (n,), int
        Index of the true class of each.
    sample_weight : ndarray of shape (n,) or None
        Weight of each image.

    Returns
    -------
    float
        Between e⁻⁶ and e⁶.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> scores = rng.normal(size=(5000, 4))
    >>> y = (scores + rng.gumbel(size=scores.shape)).argmax(axis=1)
    >>> round(fit_temperature(3 * scores, y))
    3
    """
    from scipy.optimize import minimize_scalar
    from scipy.special import log_softmax

    smoothing = 1.0 / (len(y) + 2.0)
    weights = np.ones(len(y)) if sample_weight is None else sample_weight

    def log_loss(log_temperature: float) -> float:
        likelihoods = log_softmax(scores / np.exp(log_temperature), axis=1)
        true = likelihoods[np.arange(len(y)), y]
        smoothed = (1.0 - smoothing) * true + smoothing * likelihoods.mean(axis=1)
        return -float(np.average(smoothed, weights=weights))

    found = minimize_scalar(log_loss, bounds=_LOG_RANGE, method="bounded")
    return float(np.exp(found.x))
