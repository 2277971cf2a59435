"""Arrays of several caches as one, which are read when they are indexed by rows."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainfeat.cache.stored_array import StoredArray

Rows = NDArray[np.intp]


class JoinedRows:
    """The rows of several arrays, one array after another.

    Parameters
    ----------
    arrays : sequence of StoredArray
        Of the same dtype and shape but for the number of rows.

    Attributes
    ----------
    shape : tuple of int
    dtype : numpy.dtype
    """

    def __init__(self, arrays: Sequence[StoredArray]) -> None:
        self._arrays = arrays
        self.shape: tuple[int, ...] = (sum(map(len, arrays)), *arrays[0].shape[1:])
        self.dtype: np.dtype[Any] = arrays[0].dtype
        self.ndim: int = len(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return self[:].astype(dtype or self.dtype, copy=False)

    def __getitem__(self, rows: Any) -> NDArray[Any]:
        index = np.arange(len(self))[rows]
        found = np.empty((*index.shape, *self.shape[1:]), self.dtype)
        start = 0
        for array in self._arrays:
            here = (index >= start) & (index < start + len(array))
            found[here] = array[index[here] - start]
            start += len(array)
        return found


class JoinedColumns:
    """The columns of several arrays side by side.

    Parameters
    ----------
    arrays : sequence of StoredArray
        Of two dimensions.
    places : sequence of ndarray of shape (n,), int
        The row of each array that belongs to each row of the whole.

    Attributes
    ----------
    shape : tuple of int
    dtype : numpy.dtype
    """

    def __init__(self, arrays: Sequence[StoredArray], places: Sequence[Rows]) -> None:
        self._arrays, self._places = arrays, places
        self.shape: tuple[int, ...] = (len(places[0]), sum(array.shape[1] for array in arrays))
        self.dtype: np.dtype[Any] = arrays[0].dtype
        self.ndim: int = len(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return self[:].astype(dtype or self.dtype, copy=False)

    def __getitem__(self, rows: Any) -> NDArray[Any]:
        index = np.arange(len(self))[rows]
        parts = [
            array[places[index]] for array, places in zip(self._arrays, self._places, strict=True)
        ]
        return np.concatenate(parts, axis=-1)
