"""Exact binomial intervals: of metrics without an error, and of fractions that were promised."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Interval = tuple[float, float]
Flags = NDArray[np.bool_]
Labels = NDArray[np.intp]


def bound_overall(
    y: Labels, predicted: Labels, groups: Labels, *, confidence: float
) -> dict[str, Interval]:
    """Bound the metrics of a whole whose images are all predicted rightly, or all wrongly.

    Parameters
    ----------
    y, predicted : ndarray of shape (n,), int
        True and predicted class of each image.
    groups : ndarray of shape (n,), int
        Images of one group are not independent, and count once.
    confidence : float
        Such as 0.95.

    Returns
    -------
    dict of str to tuple of float
        Low and high end by metric: accuracy, and, as means over the classes that have images of
        bounds that hold together (Bonferroni), balanced accuracy and macro F1. Empty where some
        images are predicted rightly and others wrongly.

    Examples
    --------
    >>> y = np.arange(37) % 2
    >>> found = bound_overall(y, y, np.arange(37), confidence=0.95)
    >>> round(found["accuracy"][0], 3), found["accuracy"][1]
    (0.905, 1.0)
    """
    whole = find_bound(predicted == y, groups, confidence=confidence)
    if whole is None:
        return {}
    classes = np.unique(y)
    together = 1 - (1 - confidence) / len(classes)
    bounds = [
        dict(_bound_class(y == label, predicted == label, groups, confidence=together))
        for label in classes
    ]
    return {
        "accuracy": whole,
        "balanced_accuracy": _average([found["recall"] for found in bounds]),
        "f1_macro": _average([found["f1"] for found in bounds]),
    }


def bound_class(
    is_class: Flags, is_predicted: Flags, groups: Labels, *, confidence: float
) -> dict[str, Interval]:
    """Bound the scores of a class that are 0 or 1.

    Parameters
    ----------
    is_class, is_predicted : ndarray of shape (n,), bool
        Whether each image is of the class, and whether it was predicted as such.
    groups : ndarray of shape (n,), int
    confidence : float

    Returns
    -------
    dict of str to tuple of float
        Low and high end of recall, precision, specificity, negative predictive value and F1, those
        of them that are 0 or 1.

    Examples
    --------
    >>> yes = np.array([True] * 10 + [False] * 10)
    >>> found = bound_class(yes, yes, np.arange(20), confidence=0.95)
    >>> [round(float(end), 3) for end in found["recall"]]
    [0.692, 1.0]
    """
    return dict(_bound_class(is_class, is_predicted, groups, confidence=confidence))


def find_bound(right: Flags, groups: Labels, *, confidence: float) -> Interval | None:
    """Bound a fraction of 0 or 1 by the number of independent groups behind it.

    The interval is that of Clopper & Pearson (1934, Biometrika 26:404) for as many successes as
    there are groups, or for none.

    Parameters
    ----------
    right : ndarray of shape (n,), bool
    groups : ndarray of shape (n,), int
    confidence : float

    Returns
    -------
    tuple of float, or None
        None without images, or where some are right and others are not.

    Examples
    --------
    >>> find_bound(np.array([True, False]), np.arange(2), confidence=0.95) is None
    True
    """
    from scipy.stats import binomtest

    if not len(right) or right.any() != right.all():
        return None
    n = len(np.unique(groups))
    found = binomtest(n if right.all() else 0, n).proportion_ci(confidence, method="exact")
    return float(found.low), float(found.high)


def bound_fraction(flags: Flags, groups: Labels, *, confidence: float) -> Interval | None:
    """Bound a fraction of images by the number of independent groups behind it.

    The interval is that of Clopper & Pearson (1934, Biometrika 26:404), where each image is a group
    of its own. Otherwise the number of groups takes the place of that of images, as an effective
    sample size (Korn & Graubard 1998, Survey Methodology 24:193).

    Parameters
    ----------
    flags : ndarray of shape (n,), bool
        The fraction is that of the images with a flag.
    groups : ndarray of shape (n,), int
        Images of one group are not independent.
    confidence : float
        Such as 0.95.

    Returns
    -------
    tuple of float, or None
        Low and high end; None without images.

    Examples
    --------
    >>> low, high = bound_fraction(np.arange(20) < 18, np.arange(20), confidence=0.95)
    >>> round(low, 3), round(high, 3)
    (0.683, 0.988)
    """
    from scipy.special import betaincinv

    if not len(flags):
        return None
    n, tail = len(np.unique(groups)), (1 - confidence) / 2
    k = float(flags.mean()) * n
    # At the ends a parameter of the beta distribution is 0.
    low = float(betaincinv(k, n - k + 1, tail)) if flags.any() else 0.0
    high = 1.0 if flags.all() else float(betaincinv(k + 1, n - k, 1 - tail))
    return low, high


def _bound_class(
    is_class: Flags, is_predicted: Flags, groups: Labels, *, confidence: float
) -> Iterator[tuple[str, Interval]]:
    either, both = is_class | is_predicted, is_class & is_predicted
    for name, counted, right in (
        ("recall", is_class, is_predicted),
        ("precision", is_predicted, is_class),
        ("specificity", ~is_class, ~is_predicted),
        ("npv", ~is_predicted, ~is_class),
        ("f1", either, both),
    ):
        bound = find_bound(right[counted], groups[counted], confidence=confidence)
        if bound is not None:
            # F1 is 2 J / (1 + J) of the fraction J of the images of either kind that are of both.
            yield name, (_scale(bound[0]), _scale(bound[1])) if name == "f1" else bound


def _scale(jaccard: float) -> float:
    return 2 * jaccard / (1 + jaccard)


def _average(bounds: list[Interval]) -> Interval:
    low, high = np.mean(bounds, axis=0)
    return float(low), float(high)
