"""Confident learning: which labels out-of-fold probabilities contradict.

Northcutt, Jiang and Chuang 2021, Journal of Artificial Intelligence Research 70:1373. The
threshold of a class is how confident a classifier is of it on average where it is the label. An
image whose label is one class, and which reaches the threshold of another, is off the diagonal of
the confident joint.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

# Rounding of a mean must not put equal probabilities below it.
_TOLERANCE = 1e-6


class ConfidentClasses(NamedTuple):
    """What out-of-fold probabilities say of labels.

    Attributes
    ----------
    thresholds : ndarray of shape (k,), float64
        Mean probability of each class over the images that have it as their label.
    classes : ndarray of shape (n,), int
        The most probable of the classes whose thresholds an image reaches; −1 where it reaches
        none.
    """

    thresholds: NDArray[np.float64]
    classes: NDArray[np.intp]


def find_confident_classes(
    probabilities: NDArray[np.float64],
    y: NDArray[np.int64],
    *,
    counted: NDArray[np.bool_] | None = None,
) -> ConfidentClasses:
    """Find the class that each image is confidently predicted as.

    Parameters
    ----------
    probabilities : ndarray of shape (n, k), float64
        Out-of-fold probability of each class.
    y : ndarray of shape (n,), int64
        Label of each image, from 0 to k − 1.
    counted : ndarray of shape (n,), bool, or None
        Images whose probabilities make the thresholds, some of each class; None counts all.

    Returns
    -------
    ConfidentClasses

    Examples
    --------
    >>> probabilities = np.array([[0.9, 0.1], [0.7, 0.3], [0.95, 0.05], [0.1, 0.9]])
    >>> found = find_confident_classes(probabilities, np.array([0, 0, 1, 1]))
    >>> found.thresholds.round(3).tolist(), found.classes.tolist()
    ([0.8, 0.475], [0, -1, 0, 1])
    """
    chosen = np.ones(len(y), bool) if counted is None else counted
    labels = range(probabilities.shape[1])
    thresholds = np.array([probabilities[chosen & (y == k), k].mean() for k in labels])
    reached = probabilities >= thresholds - _TOLERANCE
    best = np.where(reached, probabilities, -1.0).argmax(axis=1)
    return ConfidentClasses(thresholds, np.where(reached.any(axis=1), best, -1))


def doubt_labels(
    probabilities: NDArray[np.float64], y: NDArray[np.int64], classes: NDArray[np.intp]
) -> NDArray[np.bool_]:
    """Tell which labels are in doubt: those off the diagonal of the confident joint.

    A label that is the most probable class is not in doubt, although the threshold of its class
    may not be reached and that of another may be.

    Parameters
    ----------
    probabilities : ndarray of shape (n, k), float64
        Out-of-fold probability of each class.
    y : ndarray of shape (n,), int64
        Label of each image.
    classes : ndarray of shape (n,), int
        As :func:`find_confident_classes` returns them.

    Returns
    -------
    ndarray of shape (n,), bool

    Examples
    --------
    >>> probabilities = np.array([[0.9, 0.1], [0.7, 0.3], [0.95, 0.05], [0.1, 0.9]])
    >>> y = np.array([0, 0, 1, 1])
    >>> doubt_labels(probabilities, y, find_confident_classes(probabilities, y).classes).tolist()
    [False, False, True, False]
    """
    in_doubt: NDArray[np.bool_] = (
        (classes >= 0) & (classes != y) & (probabilities.argmax(axis=1) != y)
    )
    return in_doubt
