"""MapRows: the maps of images, which stay in their file and are read some at a time."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from brainfeat.cache.stored_array import StoredArray
from brainfeat.errors import ParameterError

Rows = NDArray[np.intp]
Floats = NDArray[np.float32]

# Positions of maps that are read in one step, at least one map: of 512 channels 4 MB in float32.
BLOCK_POSITIONS = 2048


@dataclass(frozen=True, kw_only=True, eq=False)
class MapRows:
    """Maps of n images, of which only the indices are in memory where they are those of a cache.

    Pickled, it is the indices and the path of the cache, which another process opens again.

    Attributes
    ----------
    source : ndarray or StoredArray, shape (m, h, w, d), floating point
        Maps, such as those of a cache.
    rows : ndarray of shape (n,), int
        The row of each map in `source`.

    Examples
    --------
    >>> maps = MapRows.collect(np.arange(24.0).reshape(3, 2, 2, 2))
    >>> len(maps[[2, 0]]), maps[[2, 0]].pool().tolist()
    (2, [[19.0, 20.0], [3.0, 4.0]])
    """

    source: NDArray[np.floating] | StoredArray
    rows: Rows

    @classmethod
    def collect(cls, maps: "GivenMaps", n_features: int | None = None) -> Self:
        """Take maps in any form, and check their shape.

        Parameters
        ----------
        maps : MapRows, StoredArray, or array-like of shape (n, h, w, d) or (n, d)
            Vectors are maps of one position.
        n_features : int or None
            Number of channels, d; None takes what there is.

        Returns
        -------
        MapRows
            Arrays are rounded to float16, in which caches hold maps; vectors are not.

        Raises
        ------
        ParameterError
            The shape is another one, a map has no position, or a value of an array is not finite,
            or not after it was rounded.
        """
        if isinstance(maps, MapRows):
            found = cls(source=maps.source, rows=maps.rows)
        else:
            source = maps if isinstance(maps, StoredArray) else _to_maps(maps)
            found = cls(source=source, rows=np.arange(len(source)))
        shape = found.source.shape
        if len(shape) != 4 or shape[-1] != (n_features or shape[-1]) or not all(shape[1:]):
            width = "d" if n_features is None else f"{n_features:,}"
            raise ParameterError(f"maps have shape {shape}; expected (n, h, w, {width})")
        return found

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of maps, and rows, columns and channels of each, (n, h, w, d)."""
        return len(self), *self.source.shape[1:]

    def __getitem__(self, chosen: Rows | NDArray[np.bool_] | slice | list[int]) -> "MapRows":
        """Return the maps of a mask, a slice or of indices, in their order; nothing is read."""
        return replace(self, rows=self.rows[chosen])

    def read(self) -> Floats:
        """Read all of the maps.

        Returns
        -------
        ndarray of shape (n, h, w, d), float32

        Raises
        ------
        ParameterError
            A value is not finite.
        """
        maps = np.asarray(self.source[self.rows]).astype(np.float32)
        _check_finite(maps)
        return maps

    def blocks(self) -> Iterator[Floats]:
        """Read the maps in their order, some at a time, (b, h, w, d) float32."""
        _, h, w, _ = self.shape
        step = max(1, BLOCK_POSITIONS // (h * w))
        for start in range(0, len(self), step):
            yield self[start : start + step].read()

    def pool(self) -> Floats:
        """Compute the mean of each map over its positions, (n, d) float32."""
        means = [maps.mean(axis=(1, 2)) for maps in self.blocks()]
        return np.concatenate([np.empty((0, self.shape[-1]), np.float32), *means])


# Maps in any form that MapRows.collect takes.
GivenMaps = ArrayLike | MapRows | StoredArray


def _to_maps(maps: ArrayLike) -> "NDArray[np.floating]":
    try:
        array = np.asarray(maps)
        kind = np.float32 if array.ndim == 2 else np.float16
        with np.errstate(over="ignore"):  # infinite then, and refused
            array = array.astype(kind, copy=False)
    except (TypeError, ValueError) as error:
        raise ParameterError(
            f"maps are not an array of numbers ({error}); expected shape (n, h, w, d)"
        ) from error
    _check_finite(array)
    return array[:, None, None, :] if array.ndim == 2 else array


def _check_finite(maps: "NDArray[np.floating]") -> None:
    if not np.isfinite(maps).all():
        bad = sum(not np.isfinite(one).all() for one in maps)
        raise ParameterError(
            f"{bad:,} of {len(maps):,} maps hold values that are not finite; extract them again"
        )
