"""Temperature scaling: one number that turns scores into calibrated probabilities."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# Bins of equal width, as in Guo et al. 2017, arXiv:1706.04599, §4.
N_BINS = 15

# Bounds of the logarithm of a temperature. Outside them, probabilities would be 0 and 1, or equal.
_LOG_RANGE = (-6.0, 6.0)


@dataclass(frozen=True, kw_only=True)
class CalibrationScores:
    """How well probabilities agree with the frequencies of the true classes; smaller is better.

    Attributes
    ----------
    ece : float
        Expected calibration error, as :func:`reliability` defines it.
    log_loss, brier : float
        As in :class:`brainfeat.metrics.Metrics`.
    """

    ece: float
    log_loss: float
    brier: float


@dataclass(frozen=True, kw_only=True)
class Bin:
    """The images whose predicted class has a probability between two limits.

    Attributes
    ----------
    low, high : float
        The limits.
    n : int
        Number of images, at least 1.
    confidence : float
        Mean probability of the predicted class.
    accuracy : float
        Fraction of the images whose predicted class is the true one.
    """

    low: float
    high: float
    n: int
    confidence: float
    accuracy: float


@dataclass(frozen=True, kw_only=True)
class Reliability(CalibrationScores):
    """Calibration scores, and the points of a reliability diagram.

    Attributes
    ----------
    ece, log_loss, brier : float
        As in :class:`CalibrationScores`.
    bins : tuple of Bin
        Those that have images, by ascending probability.
    """

    bins: tuple[Bin, ...]


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """A temperature, and what it changes.

    Attributes
    ----------
    temperature : float
        That of all scores.
    n : int
        Number of images.
    n_folds : int or None
        Number of folds; None for images that were held out once.
    before, after : CalibrationScores
        At a temperature of 1, and at that found, each fold at that of the other folds.
    """

    temperature: float
    n: int
    n_folds: int | None
    before: CalibrationScores
    after: CalibrationScores


def softmax(scores: NDArray[np.float64], *, temperature: float = 1.0) -> NDArray[np.float64]:
    """Turn scores into probabilities.

    Parameters
    ----------
    scores : ndarray of shape (n, k), float64
    temperature : float
        Divides the scores first. A value above 1 makes the probabilities less confident, a value
        below 1 more confident.

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

    The targets are smoothed after Platt (1999, §2.2): the true class has a weight of 1 − ε, and a
    weight of ε = 1 / (n + 2) is divided equally among all classes. A head that makes no error on a
    few images is therefore not considered certain.

    Parameters
    ----------
    scores : ndarray of shape (n, k), float64
        Scores of images that the head was not fitted on.
    y : ndarray of shape (n,), int
        Index of the true class of each image.
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


def calibrate(
    scores: Sequence[NDArray[np.float64]], y: Sequence[NDArray[np.integer]]
) -> Calibration:
    """Find the temperature of out-of-fold scores, and measure what it changes.

    Parameters
    ----------
    scores : sequence of ndarray of shape (m, k)
        Of the test images of each fold; a single array is of images that were held out once.
    y : sequence of ndarray of shape (m,), int
        Index of the true class of each image.

    Returns
    -------
    Calibration
    """
    labels, everything = np.concatenate(y), np.concatenate(scores)
    return Calibration(
        temperature=fit_temperature(everything, labels),
        n=len(labels),
        n_folds=len(scores) if len(scores) > 1 else None,
        before=_score(labels, softmax(everything)),
        after=_score(labels, np.concatenate(scale_folds(scores, y))),
    )


def _score(y: NDArray[np.integer], probabilities: NDArray[np.float64]) -> CalibrationScores:
    found = reliability(y, probabilities)
    return CalibrationScores(ece=found.ece, log_loss=found.log_loss, brier=found.brier)


def scale_folds(
    scores: Sequence[NDArray[np.float64]], y: Sequence[NDArray[np.integer]]
) -> list[NDArray[np.float64]]:
    """Turn the scores of each fold into probabilities, at the temperature of the other folds.

    The scores of the other folds are of images that their heads had not seen either, so no fold
    needs to train on fewer images to get a temperature.

    Parameters
    ----------
    scores : sequence of ndarray of shape (m, k), float64
        Of the test images of each fold.
    y : sequence of ndarray of shape (m,), int
        Index of the true class of each image.

    Returns
    -------
    list of ndarray of shape (m, k), float64
        Probabilities of each fold. A single fold has its own temperature.
    """
    if len(scores) == 1:
        return [softmax(scores[0], temperature=fit_temperature(scores[0], y[0]))]
    probabilities = []
    for place, fold in enumerate(scores):
        others = [other for other in range(len(scores)) if other != place]
        temperature = fit_temperature(
            np.concatenate([scores[other] for other in others]),
            np.concatenate([y[other] for other in others]),
        )
        probabilities.append(softmax(fold, temperature=temperature))
    return probabilities


def reliability(
    y: NDArray[np.integer], probabilities: NDArray[np.float64], *, n_bins: int = N_BINS
) -> Reliability:
    """Compare how confident a head is with how often it is right.

    Images are put into bins of equal width by the probability of their predicted class. The
    expected calibration error is the mean over images of the distance between the accuracy of a bin
    and its mean probability (Naeini et al. 2015; Guo et al. 2017, arXiv:1706.04599, §2).

    Parameters
    ----------
    y : ndarray of shape (n,), int
        Index of the true class of each image.
    probabilities : ndarray of shape (n, k), float64
        Rows sum to 1.
    n_bins : int

    Returns
    -------
    Reliability

    Examples
    --------
    >>> found = reliability(np.array([0, 1]), np.array([[0.8, 0.2], [0.8, 0.2]]))
    >>> round(found.ece, 6), [entry.n for entry in found.bins]
    (0.3, [2])
    """
    from sklearn import metrics

    predicted, confidence = probabilities.argmax(axis=1), probabilities.max(axis=1)
    edges = np.linspace(0, 1, n_bins + 1)
    bins = np.searchsorted(edges[1:-1], confidence)
    n = np.bincount(bins, minlength=n_bins)
    total = np.bincount(bins, weights=confidence, minlength=n_bins)
    right = np.bincount(bins, weights=predicted == y, minlength=n_bins)
    classes = np.arange(probabilities.shape[1])
    return Reliability(
        ece=float(abs(total - right).sum() / len(y)),
        log_loss=float(metrics.log_loss(y, probabilities, labels=classes)),
        brier=float(metrics.brier_score_loss(y, probabilities, labels=classes)),
        bins=tuple(
            Bin(
                low=float(edges[place]),
                high=float(edges[place + 1]),
                n=int(n[place]),
                confidence=float(total[place] / n[place]),
                accuracy=float(right[place] / n[place]),
            )
            for place in np.flatnonzero(n)
        ),
    )


def measure_ranking(y: NDArray[np.integer], probabilities: NDArray[np.float64]) -> float | None:
    """Measure whether the confidence of a head tells its right predictions from its wrong ones.

    A head can be calibrated without that: one that is as confident of each image as it is right on
    average has no calibration error.

    Parameters
    ----------
    y : ndarray of shape (n,), int
        Index of the true class of each image.
    probabilities : ndarray of shape (n, k), float64

    Returns
    -------
    float or None
        Area under the ROC curve of the probability of the predicted class, as a score of being
        right; None where all predictions are right, or all wrong.

    Examples
    --------
    >>> p = np.array([[0.9, 0.1], [0.8, 0.2], [0.6, 0.4], [0.7, 0.3]])
    >>> measure_ranking(np.array([0, 0, 1, 1]), p), measure_ranking(np.array([0, 0, 0, 0]), p)
    (1.0, None)
    """
    from sklearn import metrics

    right = probabilities.argmax(axis=1) == y
    if right.all() or not right.any():
        return None
    return float(metrics.roc_auc_score(right, probabilities.max(axis=1)))
