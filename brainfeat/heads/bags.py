"""Bags: the feature vectors of the images of a group, such as a patient, taken together."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from brainfeat.cache.groups import list_places
from brainfeat.errors import ParameterError

Rows = NDArray[np.intp]

# How the vectors of a bag become one, for heads that take one vector a bag.
POOLINGS = ("mean", "max", "median")


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
            parts = np.split(self.values, self.offsets[1:-1])
            return np.array([np.median(part, axis=0) for part in parts], np.float32)
        raise ParameterError(f"bags are pooled by {', '.join(POOLINGS)}, got {how!r}")
