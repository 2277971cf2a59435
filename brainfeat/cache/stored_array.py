"""Arrays of an open HDF5 file, which are read when they are indexed, as NumPy indexes."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from brainfeat.errors import BrainfeatError

if TYPE_CHECKING:
    from brainfeat.cache.storage import Schema

_BLOCK_BYTES = 8 << 20
# What h5py raises on a damaged file depends on where the damage is.
HDF5_ERRORS = (OSError, RuntimeError, KeyError, ValueError, TypeError, OverflowError)


class StoredArray:
    """An array in an open file, read from disk when it is indexed.

    It is indexed as an array of NumPy, and every result is a new array: ``array[10:20]``,
    ``array[mask]`` and ``array[indices, :10]`` read only the chunks of these rows, and
    ``numpy.asarray(array)`` reads the whole array. scikit-learn takes it as ``X``, in other
    processes too: pickled, it is its path, and the file is opened again there, verified as it was
    here, and refused if its content has changed.

    Attributes
    ----------
    shape : tuple of int
    dtype : numpy.dtype
    ndim : int
    """

    def __init__(
        self,
        dataset: Any,
        path: Path,
        schema: "Schema",
        *,
        reopen: "Callable[[], StoredArray]",
    ) -> None:
        self._dataset = dataset
        self._path = path
        self._schema = schema
        self._reopen = reopen
        self._name = str(dataset.name)
        self.shape: tuple[int, ...] = dataset.shape
        self.dtype: np.dtype[Any] = dataset.dtype
        self.ndim: int = len(self.shape)

    def __reduce__(self) -> "tuple[Callable[[], StoredArray], tuple[()]]":
        return self._reopen, ()

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        return f"<StoredArray {self._name}: shape {self.shape}, dtype {self.dtype}>"

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        if copy is False:
            raise ValueError("a stored array can only be read into a new array")
        return self[:].astype(dtype or self.dtype, copy=False)

    def __iter__(self) -> Iterator[NDArray[Any]]:
        for block in self.blocks():
            yield from block

    def __getitem__(self, key: Any) -> NDArray[Any]:
        rows, *others = key if isinstance(key, tuple) and key else (key,)
        if others and (rows is None or rows is Ellipsis or isinstance(rows, bool | np.bool)):
            return np.asarray(self[:][key])
        if not others or (len(others) == 1 and others[0] is Ellipsis):
            return self._select(rows)
        if isinstance(rows, slice):
            return self._select_columns(rows, others)
        # NumPy decides how rows and columns combine, on the rows that are needed.
        index = np.arange(len(self))[rows]
        needed, places = np.unique(index, return_inverse=True)
        return np.asarray(self._gather(needed)[(places.reshape(index.shape)[()], *others)])

    def _select_columns(self, rows: slice, others: list[Any]) -> NDArray[Any]:
        if len(others) > 1:
            return np.asarray(self._select(rows)[(slice(None), *others)])
        # A block at a time, because few columns may be left of many rows.
        index, step = np.arange(len(self))[rows], self._block_rows()
        starts = range(0, max(1, len(index)), step)
        blocks = (self._gather(index[start : start + step]) for start in starts)
        return np.concatenate([block[:, others[0]] for block in blocks])

    def _select(self, rows: Any) -> NDArray[Any]:
        if isinstance(rows, slice):
            start, stop, step = rows.indices(len(self))
            if step != 1:
                return self._gather(np.arange(start, stop, step))
            block: NDArray[Any] = self._read(slice(start, max(start, stop)))
            return block
        # NumPy itself decides what an index selects.
        index = np.arange(len(self))[rows]
        if index.ndim == 0:
            row: NDArray[Any] = self._read(int(index))
            return row
        return self._gather(index.reshape(-1)).reshape(index.shape + self.shape[1:])

    def blocks(self) -> Iterator[NDArray[Any]]:
        """Yield the rows in order, a few megabytes at a time."""
        step = self._block_rows()
        for start in range(0, len(self), step):
            yield self._read(slice(start, start + step))

    def _block_rows(self) -> int:
        row_bytes = max(1, self.dtype.itemsize * int(np.prod(self.shape[1:])))
        chunk = self._dataset.chunks[0] if self._dataset.chunks else 1
        return int(max(chunk, _BLOCK_BYTES // row_bytes // chunk * chunk))

    def _gather(self, index: NDArray[np.intp]) -> NDArray[Any]:
        result = np.empty((len(index), *self.shape[1:]), self.dtype)
        order = np.argsort(index, kind="stable")
        ordered = index[order]
        step = self._dataset.chunks[0] if self._dataset.chunks else self._block_rows()
        starts = np.unique(ordered // step) * step
        bounds = np.searchsorted(ordered, np.append(starts, len(self)))
        for start, low, high in zip(starts, bounds[:-1], bounds[1:], strict=True):
            block = self._read(slice(int(start), int(start) + step))
            result[order[low:high]] = block[ordered[low:high] - start]
        return result

    def _read(self, rows: int | slice) -> Any:
        if not self._dataset:
            raise self._schema.error(f"{self._path}: the file is closed; open it again")
        try:
            return self._dataset[rows]
        except HDF5_ERRORS as error:
            raise translate_error(error, self._path, self._schema) from error


def translate_error(error: Exception, path: Path, schema: "Schema") -> BrainfeatError:
    """Distinguish a failure of the system, which has an errno, from a damaged file."""
    if getattr(error, "errno", None):
        return schema.error(f"{path}: cannot be read ({error})")
    return schema.corrupt_error(f"{path}: damaged ({error}); {schema.remedy}")
