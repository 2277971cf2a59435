"""Conformal prediction: sets of classes that hold the true class at a stated rate."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from brainfeat.errors import BundleError, ParameterError

# Target coverage of the prediction set, per class.
COVERAGE = 0.9
# Data type and number of dimensions of each dataset of a head file, below ``conformal/``.
CONFORMAL_ARRAYS = {"scores": ("<f8", 1), "labels": ("<i8", 1)}


def find_quantile(scores: NDArray[np.float64], coverage: float) -> float:
    """Find the conformal quantile of n scores: the ⌈(n + 1) · coverage⌉-th smallest of them.

    A further score that is exchangeable with these is not larger than the quantile with a
    probability of at least `coverage` (Vovk et al. 2005, Algorithmic Learning in a Random World,
    §2.2).

    Parameters
    ----------
    scores : ndarray of shape (n,), float64
    coverage : float
        Above 0 and below 1.

    Returns
    -------
    float
        Infinite where n is too small for this coverage.

    Examples
    --------
    >>> scores = np.array([0.4, 0.1, 0.2, 0.3])
    >>> find_quantile(scores, 0.8), find_quantile(scores, 0.9)
    (0.4, inf)
    """
    # In floating point 100 · 0.55 is 55.00000000000001, whose ceiling is 56.
    place = math.ceil((len(scores) + 1) * coverage - 1e-9)
    return float(np.sort(scores)[place - 1]) if place <= len(scores) else math.inf


@dataclass(frozen=True, kw_only=True, eq=False)
class Conformal:
    """Split conformal prediction, calibrated class by class.

    The nonconformity score of an image is one minus the probability of its true class (Sadinle et
    al. 2019, https://doi.org/10.1080/01621459.2017.1395341). The quantile of each class is taken
    over the images of this class (Vovk et al. 2005, Algorithmic Learning in a Random World, §4.5).

    Attributes
    ----------
    scores : ndarray of shape (n,), float64
        Nonconformity scores of images that the head had not seen, from 0 to 1.
    labels : ndarray of shape (n,), int64
        Their true classes.
    """

    scores: NDArray[np.float64]
    labels: NDArray[np.int64]

    @classmethod
    def fit(cls, probabilities: NDArray[np.float64], y: NDArray[np.integer]) -> Self:
        """Compute the nonconformity scores of images.

        Parameters
        ----------
        probabilities : ndarray of shape (n, k), float64
            Of images that the head had not seen.
        y : ndarray of shape (n,), int
            Their true classes, from 0 to k − 1.

        Returns
        -------
        Conformal
        """
        scores = 1 - probabilities[np.arange(len(y)), y]
        order = np.lexsort([scores, y])
        return cls(scores=scores[order], labels=np.asarray(y)[order].astype(np.int64))

    def quantiles(self, n_classes: int, *, coverage: float = COVERAGE) -> NDArray[np.float64]:
        """Return the nonconformity score up to which a class belongs to a prediction set.

        Parameters
        ----------
        n_classes : int
            Number of classes, k.
        coverage : float
            Target coverage, above 0 and below 1.

        Returns
        -------
        ndarray of shape (k,), float64
            Infinite for a class with too few images: it is in every prediction set.

        Raises
        ------
        ParameterError
            The coverage is out of range.
        """
        if not 0 < coverage < 1:
            raise ParameterError(f"coverage must be above 0 and below 1, got {coverage}")
        found = np.empty(n_classes)
        for label in range(n_classes):
            found[label] = find_quantile(self.scores[self.labels == label], coverage)
        return found

    def predict_sets(
        self, probabilities: NDArray[np.float64], *, coverage: float = COVERAGE
    ) -> NDArray[np.bool_]:
        """Predict the set of classes that hold the true class at the target coverage.

        Of the images of each class that are exchangeable with those of the calibration, at least a
        fraction of `coverage` have their true class in their prediction set. A set may be empty
        where no class is probable enough.

        Parameters
        ----------
        probabilities : ndarray of shape (n, k), float64
        coverage : float
            Target coverage, above 0 and below 1.

        Returns
        -------
        ndarray of shape (n, k), bool
            True for the classes in the prediction set of each image.

        Raises
        ------
        ParameterError
            The coverage is out of range.

        Examples
        --------
        >>> p = np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7]])
        >>> conformal = Conformal.fit(p, np.array([0, 0, 1]))
        >>> conformal.predict_sets(np.array([[0.85, 0.15], [0.1, 0.9]]), coverage=0.5).tolist()
        [[True, False], [False, True]]
        """
        k = probabilities.shape[1]
        sets: NDArray[np.bool_] = 1 - probabilities <= self.quantiles(k, coverage=coverage)
        return sets

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return the datasets of a head file by name, those of `CONFORMAL_ARRAYS`."""
        return dict(vars(self))

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]], *, n_classes: int) -> Self:
        """Rebuild a calibration from the datasets of a head file.

        Parameters
        ----------
        arrays : mapping of str to ndarray
            As `to_arrays` returns them.
        n_classes : int
            Number of classes of the head.

        Raises
        ------
        BundleError
            Names the array that is out of range.
        """
        conformal = cls(**arrays)
        conformal.check(n_classes)
        return conformal

    def check(self, n_classes: int) -> None:
        """Refuse arrays that do not belong together.

        Parameters
        ----------
        n_classes : int
            Number of classes of the head.

        Raises
        ------
        BundleError
            Names the array, its shape or range, and what was expected.
        """
        if self.scores.shape != self.labels.shape or not self.scores.size:
            raise BundleError(
                f"conformal/scores has shape {self.scores.shape} and conformal/labels "
                f"{self.labels.shape}; expected one score and one label per image"
            )
        if not ((self.scores >= 0) & (self.scores <= 1)).all():
            raise BundleError("conformal/scores must be from 0 to 1")
        if self.labels.min() < 0 or self.labels.max() >= n_classes:
            raise BundleError(f"conformal/labels must be from 0 to {n_classes - 1}")
