"""Conformal sets: the classes that cannot be ruled out at a stated rate of error."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from brainfeat.errors import BundleError, ParameterError

COVERAGE = 0.9
# Type and number of dimensions of each array in a file.
CONFORMAL_ARRAYS = {"scores": ("<f8", 1), "labels": ("<i8", 1)}


def find_quantile(scores: NDArray[np.float64], coverage: float) -> float:
    """Find the conformal quantile of n scores, the ⌈(n + 1) · coverage⌉-th smallest of them.

    Another score that is exchangeable with them is at most as large with a probability of at least
    `coverage` (Vovk et al. 2005, Algorithmic Learning in a Random World, §2.2).

    Parameters
    ----------
    scores : ndarray of shape (n,), float64
    coverage : float
        Above 0 and below 1.

    Returns
    -------
    float
        Infinite where n is too small to say it.

    Examples
    --------
    >>> scores = np.array([0.4, 0.1, 0.2, 0.3])
    >>> find_quantile(scores, 0.8), find_quantile(scores, 0.9)
    (0.4, inf)
    """
    # In floating point 100 · 0.55 is 55.00000000000001, and would be the 56th.
    place = math.ceil((len(scores) + 1) * coverage - 1e-9)
    return float(np.sort(scores)[place - 1]) if place <= len(scores) else math.inf


@dataclass(frozen=True, kw_only=True, eq=False)
class Conformal:
    """Split-conformal prediction, class by class.

    The nonconformity of an image is one minus the probability of its true class (Sadinle et al.
    2019, https://doi.org/10.1080/01621459.2017.1395341); the quantile is taken for each class of
    its own images (Vovk et al. 2005, Algorithmic Learning in a Random World, §4.5).

    Attributes
    ----------
    scores : ndarray of shape (n,), float64
        Nonconformity of images that the head had not seen.
    labels : ndarray of shape (n,), int64
        Their classes.
    """

    scores: NDArray[np.float64]
    labels: NDArray[np.int64]

    @classmethod
    def fit(cls, probabilities: NDArray[np.float64], y: NDArray[np.integer]) -> "Conformal":
        """Keep the nonconformity of images.

        Parameters
        ----------
        probabilities : ndarray of shape (n, k), float64
            Of images that the head had not seen.
        y : ndarray of shape (n,), int
            Their true classes.
        """
        scores = 1 - probabilities[np.arange(len(y)), y]
        order = np.lexsort([scores, y])
        return cls(scores=scores[order], labels=np.asarray(y)[order].astype(np.int64))

    def quantiles(self, n_classes: int, *, coverage: float = COVERAGE) -> NDArray[np.float64]:
        """Return the nonconformity up to which a class belongs to a set, (k,).

        Of a class of few images it is infinite: the class is never ruled out.

        Raises
        ------
        ParameterError
            The coverage is not above 0 and below 1.
        """
        if not 0 < coverage < 1:
            raise ParameterError(f"coverage {coverage}; expected above 0, below 1")
        found = np.empty(n_classes)
        for label in range(n_classes):
            found[label] = find_quantile(self.scores[self.labels == label], coverage)
        return found

    def find_sets(
        self, probabilities: NDArray[np.float64], *, coverage: float = COVERAGE
    ) -> NDArray[np.bool_]:
        """Tell which classes cannot be ruled out.

        Of images of each class that are exchangeable with those that were kept, at least a share of
        `coverage` has its true class in the set. A set may be empty: no class is likely.

        Parameters
        ----------
        probabilities : ndarray of shape (n, k), float64
        coverage : float

        Returns
        -------
        ndarray of shape (n, k), bool

        Examples
        --------
        >>> p = np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7]])
        >>> conformal = Conformal.fit(p, np.array([0, 0, 1]))
        >>> conformal.find_sets(np.array([[0.85, 0.15], [0.1, 0.9]]), coverage=0.5).tolist()
        [[True, False], [False, True]]
        """
        k = probabilities.shape[1]
        sets: NDArray[np.bool_] = 1 - probabilities <= self.quantiles(k, coverage=coverage)
        return sets

    def check(self, n_classes: int) -> None:
        """Refuse arrays that do not belong together.

        Raises
        ------
        BundleError
            Names what is wrong.
        """
        if self.scores.shape != self.labels.shape or not self.scores.size:
            raise BundleError(
                f"conformal/scores has shape {self.scores.shape}, labels {self.labels.shape}"
            )
        if not ((self.scores >= 0) & (self.scores <= 1)).all():
            raise BundleError("conformal/scores must be from 0 to 1")
        if self.labels.min() < 0 or self.labels.max() >= n_classes:
            raise BundleError(f"conformal/labels must be from 0 to {n_classes - 1}")
