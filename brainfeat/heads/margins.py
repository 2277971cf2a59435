"""Scores of classes from the margins between each two of them."""

from itertools import combinations

import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]


def find_least_margins(pairs: Doubles, *, n_classes: int) -> Doubles:
    """Score each class by its least margin over any other class.

    The class that wins against every other one has the only positive score: the distance, in units
    of the margin, to the nearest boundary at which the prediction changes. scikit-learn's own score
    of a class counts the pairs that it wins, so that nearly all images have the same confidence.

    Where no class wins all its pairs, the largest score goes to the class with most wins, and of
    several to the one with the largest of scikit-learn's scores, in exchange for its own. So the
    predicted class is always that of the largest score of a ``SVC(decision_function_shape="ovr")``,
    which is the class that ``SVC.predict`` returns if one class has most wins.

    Parameters
    ----------
    pairs : ndarray of shape (n, k(k − 1)/2), float64
        Margins of the classes 0 over 1, 0 over 2, …, 1 over 2, …, as the ``decision_function`` of a
        ``SVC(decision_function_shape="ovo")`` returns them: negative where the second class wins.
    n_classes : int
        Number of classes, k, at least 3.

    Returns
    -------
    ndarray of shape (n, k), float64

    Examples
    --------
    >>> find_least_margins(np.array([[2.0, 0.5, -1.0]]), n_classes=3)
    array([[ 0.5, -2. , -0.5]])
    """
    scores = np.full((len(pairs), n_classes), np.inf)
    for margins, (first, second) in zip(pairs.T, combinations(range(n_classes), 2), strict=True):
        np.minimum(scores[:, first], margins, out=scores[:, first])
        np.minimum(scores[:, second], -margins, out=scores[:, second])
    undecided = np.flatnonzero(scores.max(axis=1) <= 0)
    best = scores[undecided].argmax(axis=1)
    winner = _count_wins(pairs[undecided], n_classes).argmax(axis=1)
    exchanged = scores[undecided, best], scores[undecided, winner]
    scores[undecided, winner], scores[undecided, best] = exchanged
    return scores


def _count_wins(pairs: Doubles, n_classes: int) -> Doubles:
    """Count the wins of each class, plus less than half a win by the sum of its margins."""
    wins, sums = np.zeros((2, len(pairs), n_classes))
    for margins, (first, second) in zip(pairs.T, combinations(range(n_classes), 2), strict=True):
        # A margin of exactly 0 is a win of the class that comes first.
        wins[:, first] += margins >= 0
        wins[:, second] += margins < 0
        sums[:, first] += margins
        sums[:, second] -= margins
    counts: Doubles = wins + sums / (3 * (np.abs(sums) + 1))
    return counts
