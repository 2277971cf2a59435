"""Arrays of several caches as one, which are read when they are indexed by rows."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainfeat.cache.stored_array import StoredArray

Rows = NDArray[np.intp]


class JoinedArray:
    """An array whose rows are in several others; made by :func:`join_rows` or `join_columns`.

    Parameters
    ----------
    shape : tuple of int
    dtype : numpy.dtype
    read : callable
        Returns the rows of an array of indices, of any shape.

    Attributes
    ----------
    shape : tuple of int
    dtype : numpy.dtype
    ndim : int
    """

    def __init__(
        self, shape: tuple[int, ...], dtype: np.dtype[Any], read: Callable[[Rows], NDArray[Any]]
    ) -> None:
        self.shape, self.dtype, self.ndim = shape, dtype, len(shape)
        self._read = read

    def __len__(self) -> int:
        return self.shape[0]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return self[:].astype(dtype or self.dtype, copy=False)

    def __getitem__(self, rows: Any) -> NDArray[Any]:
        return self._read(np.arange(len(self))[rows])


def join_rows(arrays: Sequence[StoredArray]) -> JoinedArray:
    """Join the rows of several arrays, one array after another.

    Parameters
    ----------
    arrays : sequence of StoredArray
        Of the same dtype and shape but for the number of rows.

    Returns
    -------
    JoinedArray
    """
    shape = (sum(map(len, arrays)), *arrays[0].shape[1:])

    def read(index: Rows) -> NDArray[Any]:
        found = np.empty((*index.shape, *shape[1:]), arrays[0].dtype)
        start = 0
        for array in arrays:
            here = (index >= start) & (index < start + len(array))
            found[here] = array[index[here] - start]
            start += len(array)
        return found

    return JoinedArray(shape, arrays[0].dtype, read)


def join_columns(arrays: Sequence[StoredArray], places: Sequence[Rows]) -> JoinedArray:
    """Join the columns of several arrays, side by side.

    Parameters
    ----------
    arrays : sequence of StoredArray
        Of two dimensions and the same dtype.
    places : sequence of ndarray of shape (n,), int
        The row of each array that belongs to each row of the whole.

    Returns
    -------
    JoinedArray
        Of shape (n, Σd).
    """
    ends = np.cumsum([array.shape[1] for array in arrays])

    def read(index: Rows) -> NDArray[Any]:
        # Filled one array after another, so that the parts are not in memory twice.
        found = np.empty((*index.shape, ends[-1]), arrays[0].dtype)
        for array, place, end in zip(arrays, places, ends, strict=True):
            found[..., end - array.shape[1] : end] = array[place[index]]
        return found

    return JoinedArray((len(places[0]), int(ends[-1])), arrays[0].dtype, read)
