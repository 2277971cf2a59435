"""Bags: the feature vectors of the images of a group, such as a patient, taken together."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from brainfeat.cache.groups import SAME_LABEL, list_places
from brainfeat.errors import ParameterError
from brainfeat.heads.blocks import BlockVectors
from brainfeat.heads.maps import MapRows

Rows = NDArray[np.intp]

# How the vectors of a bag become one, for heads that take one vector a bag.
POOLINGS = ("mean", "max", "median")
# Learned weights of the vectors of a bag, by a head of its own kind.
ATTENTION = "attention"


@dataclass(frozen=True, kw_only=True)
class BagRule:
    """How the images of a group, such as a patient, become one example of a head.

    Attributes
    ----------
    pooling : {"mean", "max", "median", "attention"}
        How their vectors become one.
    label : str
        How the group gets its class: ``"same"``, or ``"any:CLASS"``, as in
        ``brainfeat.cache.groups.read_groups``.

    Raises
    ------
    ParameterError
        The pooling is another word.
    """

    pooling: str
    label: str = SAME_LABEL

    def __post_init__(self) -> None:
        if self.pooling not in (*POOLINGS, ATTENTION):
            raise ParameterError(
                f"bag must be one of {', '.join((*POOLINGS, ATTENTION))}, got {self.pooling!r}"
            )


@dataclass(frozen=True, kw_only=True, eq=False)
class Bags:
    """Vectors of n bags of any number of vectors, one or more each.

    Attributes
    ----------
    values : ndarray of shape (m, d), float32
        The vectors, bag after bag.
    offsets : ndarray of shape (n + 1,), int
        The vectors of bag i are ``values[offsets[i]:offsets[i + 1]]``.

    Examples
    --------
    >>> bags = Bags(values=np.array([[0.0], [4.0], [1.0]], np.float32), offsets=np.array([0, 2, 3]))
    >>> bags.pool("mean").tolist(), len(bags[[1]])
    ([[2.0], [1.0]], 1)
    """

    values: NDArray[np.float32]
    offsets: Rows

    @classmethod
    def collect(
        cls, bags: "ArrayLike | Bags | Sequence[ArrayLike]", n_features: int | None = None
    ) -> Self:
        """Take bags in any form, and check them.

        Parameters
        ----------
        bags : Bags, sequence of array-like of shape (m_i, d), or ndarray of shape (n, m, d)
            The vectors of each bag.
        n_features : int or None
            Number of features, d; None takes that of the first bag.

        Returns
        -------
        Bags

        Raises
        ------
        ParameterError
            A bag is empty or has another shape, or a value is not finite; single vectors were
            given.

        Examples
        --------
        >>> Bags.collect([[[0.0, 1.0]], [[2.0, 3.0], [4.0, 5.0]]], n_features=2).sizes.tolist()
        [1, 2]
        """
        if isinstance(bags, Bags):
            found = cls(values=np.asarray(bags.values, np.float32), offsets=bags.offsets)
        else:
            parts = _list_parts(bags, n_features)
            values = np.concatenate(parts) if parts else np.empty((0, n_features or 0), np.float32)
            offsets = np.cumsum([0, *map(len, parts)])
            found = cls(values=values, offsets=offsets)
        found._check(n_features)
        return found

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def sizes(self) -> Rows:
        """Number of vectors of each bag, (n,) int."""
        return np.diff(self.offsets)

    def __getitem__(self, chosen: NDArray[np.intp] | NDArray[np.bool_] | list[int]) -> "Bags":
        """Return the bags of a mask or of indices, in their order."""
        places = np.arange(len(self))[np.asarray(chosen)]
        offsets = np.concatenate([[0], np.cumsum(self.sizes[places])])
        return Bags(values=self.values[list_places(self.offsets, places)], offsets=offsets)

    def blocks(self, n_vectors: int) -> "Iterator[Bags]":
        """Yield the bags in their order, some at a time, with as many vectors or one bag more."""
        starts = np.searchsorted(self.offsets, np.arange(0, len(self.values), n_vectors))
        for low, high in pairwise(np.unique([*starts, len(self)])):
            some = self.offsets[low : high + 1]
            yield Bags(values=self.values[some[0] : some[-1]], offsets=some - some[0])

    def average(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Average what is given for each vector, (m, …), over each bag, (n, …)."""
        means: NDArray[np.float64] = np.add.reduceat(values, self.offsets[:-1], axis=0)
        means /= self.sizes.reshape(-1, *[1] * (means.ndim - 1))
        return means

    def pool(self, how: str) -> NDArray[np.float32]:
        """Make one vector of each bag.

        Parameters
        ----------
        how : {"mean", "max", "median"}
            Of each feature over the vectors of the bag.

        Returns
        -------
        ndarray of shape (n, d), float32

        Raises
        ------
        ParameterError
            `how` is another word.
        """
        starts = self.offsets[:-1]
        if how == "mean":
            sums = np.add.reduceat(self.values, starts, axis=0, dtype=np.float64)
            return (sums / self.sizes[:, None]).astype(np.float32)
        if how == "max":
            largest: NDArray[np.float32] = np.maximum.reduceat(self.values, starts, axis=0)
            return largest
        if how == "median":
            middle = np.empty((len(self), self.values.shape[1]), np.float32)
            for place, (start, end) in enumerate(pairwise(self.offsets)):
                middle[place] = np.median(self.values[start:end], axis=0)
            return middle
        raise ParameterError(f"bags are pooled by {', '.join(POOLINGS)}, got {how!r}")

    def _check(self, n_features: int | None) -> None:
        values, offsets = self.values, np.asarray(self.offsets)
        if values.ndim != 2 or values.shape[1] != (n_features or values.shape[1]):
            width = "d" if n_features is None else f"{n_features:,}"
            raise ParameterError(
                f"the vectors of the bags have shape {values.shape}; expected (m, {width})"
            )
        if offsets.ndim != 1 or not len(offsets) or offsets[0] != 0 or offsets[-1] != len(values):
            raise ParameterError(
                f"the offsets of bags must be ascending from 0 to their {len(values):,} vectors"
            )
        # Not by their differences, which wrap around where a file has large offsets.
        if len(empty := np.flatnonzero(offsets[1:] <= offsets[:-1])):
            raise ParameterError(f"bag {empty[0]} is empty; a bag has one vector or more")
        if not np.isfinite(values).all():
            raise ParameterError("the bags hold values that are not finite")


# What a head is fitted on and scores: a vector, a bag of vectors or a map each.
Features = NDArray[np.float32] | Bags | MapRows
# The same, or vectors of several blocks, of which some may be missing.
AnyFeatures = Features | BlockVectors


def pool_all(X: Features) -> NDArray[np.float32]:
    """Return the vectors, or the mean vector of each bag or map, (n, d) float32."""
    if isinstance(X, MapRows):
        return X.pool()
    return X.pool("mean") if isinstance(X, Bags) else X


def _list_parts(bags: object, n_features: int | None) -> list[NDArray[np.float32]]:
    width = "d" if n_features is None else f"{n_features:,}"
    expected = f"expected Bags, a list of arrays of shape (m, {width}), or (n, m, d)"
    if not isinstance(bags, Sequence | np.ndarray) or isinstance(bags, str):
        raise ParameterError(f"a {type(bags).__name__} in place of bags; {expected}")
    try:
        parts = [np.asarray(part, np.float32) for part in bags]
    except (TypeError, ValueError) as error:
        raise ParameterError(f"bags are not arrays of numbers ({error}); {expected}") from error
    for place, part in enumerate(parts):
        if part.ndim != 2 or part.shape[1] != (n_features or parts[0].shape[1]):
            raise ParameterError(f"bag {place} has shape {part.shape}; {expected}")
    return parts
