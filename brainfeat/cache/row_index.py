"""An index of existing rows by content, over caches and shards.

The features are never all in memory. Rows that are wanted in another order than that of their files
are sorted on disk, so that each file is read about once.
"""

import math
import secrets
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from brainfeat.cache.storage import Schema, StoredFile
from brainfeat.cache.stored_array import StoredArray

_OPEN_FILES = 16
_KEY_BYTES = 34
# Rows of a source that are read at once: one chunk of features, and fewer rows of maps.
_PIECE_ROWS = 1024
_PIECE_BYTES = 16 << 20
# Rows whose keys are looked up or read at a time.
_BLOCK_ROWS = 64 << 10
# Bytes that are sorted in memory; sorting takes twice as much.
_BUCKET_BYTES = 64 << 20
# A key, the number of its source and the row in it, both big-endian so that they sort as bytes.
_RECORD = np.dtype("S42")

# The number of a source and a row in it, as one number, which sorts in the order of the files.
Places = NDArray[np.uint64]


def row_keys(sha256: NDArray[np.uint8], view: NDArray[np.int16]) -> NDArray[np.bytes_]:
    """Return the identity of each row.

    Parameters
    ----------
    sha256 : ndarray of shape (n, 32), uint8
    view : ndarray of shape (n,), int16

    Returns
    -------
    ndarray of shape (n,), S34
        32 bytes of SHA-256 and 2 of the view.
    """
    joined = np.empty((len(view), _KEY_BYTES), np.uint8)
    joined[:, :32] = sha256
    joined[:, 32:] = np.asarray(view, ">i2").view(np.uint8).reshape(-1, 2)
    return joined.view("S34").reshape(-1)


def make_key(sha256: bytes, view: int) -> bytes:
    """Return the identity of one row, 34 bytes."""
    return sha256 + view.to_bytes(2, "big")


def split_keys(keys: NDArray[np.bytes_]) -> tuple[NDArray[np.uint8], NDArray[np.int16]]:
    """Return what :func:`row_keys` joined: SHA-256, (n, 32) uint8, and view, (n,) int16."""
    joined = _to_bytes(keys)
    return joined[:, :32], joined[:, 32:].copy().view(">i2").reshape(-1).astype("<i2")


class KeySet:
    """A set of keys, which takes 34 bytes per key.

    Parameters
    ----------
    keys : ndarray of shape (n,), S34
        As :func:`row_keys` returns them.
    """

    def __init__(self, keys: NDArray[np.bytes_]) -> None:
        self._keys = np.sort(keys)

    def contains(self, keys: NDArray[np.bytes_]) -> NDArray[np.bool_]:
        """Return for each of some keys, (m,) S34, whether it is in the set, (m,) bool."""
        if not len(self._keys):
            return np.zeros(len(keys), np.bool_)
        places = np.searchsorted(self._keys, keys)
        found: NDArray[np.bool_] = self._keys.take(places, mode="clip") == keys
        return found


@dataclass(frozen=True, kw_only=True)
class Source:
    """A file with rows: a cache or a shard.

    Parameters
    ----------
    path : Path
    schema : Schema
    views : bool
        Whether its augmented views count; view 0 always does.
    """

    path: Path
    schema: Schema
    views: bool


class RowIndex:
    """An index of the rows in an earlier cache and in shards, by content.

    It takes 42 bytes per row. Of several rows with one key, the one in the first source counts. A
    dataset that some sources do not have is read as zeros from those; `lack` finds such rows.

    Parameters
    ----------
    sources : sequence of Source
        Verified files of one spec, any number; at most 16 are open at a time.
    """

    def __init__(self, sources: Sequence[Source]) -> None:
        self._sources = sources
        self._open: dict[int, StoredFile] = {}
        self._records = np.empty(0, _RECORD)
        self._lengths: list[int] = []
        self._kinds: dict[str, tuple[np.dtype[Any], tuple[int, ...]]] = {}
        self._names: list[frozenset[str]] = []
        for origin, source in enumerate(sources):
            self._append(origin, views=source.views)
        self._records.sort()  # in place

    def _append(self, origin: int, *, views: bool) -> None:
        arrays = self._arrays(origin)
        self._names.append(frozenset(arrays))
        self._kinds |= {name: (array.dtype, array.shape[1:]) for name, array in arrays.items()}
        self._lengths.append(len(arrays["view"]))
        for first in range(0, len(arrays["view"]), _BLOCK_ROWS):
            block = slice(first, first + _BLOCK_ROWS)
            view = arrays["view"][block]
            rows = np.flatnonzero((view == 0) | views)
            start = len(self._records)
            # Resized in place: a second array would double the memory of the index.
            self._records.resize(start + len(rows), refcheck=False)
            added = _to_bytes(self._records[start:])
            added[:, :_KEY_BYTES] = _to_bytes(row_keys(arrays["sha256"][block][rows], view[rows]))
            places = np.column_stack([np.full(len(rows), origin), first + rows]).astype(">u4")
            added[:, _KEY_BYTES:] = places.view(np.uint8)

    def __contains__(self, key: bytes) -> bool:
        return self.has(key, "view")

    def has(self, key: bytes, name: str) -> bool:
        """Whether a row exists, in a source that has a dataset."""
        wanted = np.array([key], "S34")
        found = _to_bytes(self._find(wanted))
        if not np.array_equal(found[:, :_KEY_BYTES], _to_bytes(wanted)):
            return False
        return name in self._names[int.from_bytes(found[0, _KEY_BYTES : _KEY_BYTES + 4].tobytes())]

    def locate(self, keys: NDArray[np.bytes_]) -> Places:
        """Find rows.

        Parameters
        ----------
        keys : ndarray of shape (m,), S34
            As :func:`row_keys` returns them.

        Returns
        -------
        ndarray of shape (m,), uint64
            The place of each row, for `read` and `read_blocks`.

        Raises
        ------
        KeyError
            A row is in none of the sources.
        """
        places = np.empty(len(keys), np.uint64)
        for start in range(0, len(keys), _BLOCK_ROWS):
            block = keys[start : start + _BLOCK_ROWS]
            found = _to_bytes(self._find(block))
            if not np.array_equal(found[:, :_KEY_BYTES], _to_bytes(block)):
                raise KeyError("a row is in none of the sources")
            places[start : start + _BLOCK_ROWS] = found[:, _KEY_BYTES:].copy().view(">u8")[:, 0]
        return places

    def lack(self, name: str, places: Places) -> NDArray[np.bool_]:
        """Return for each of some rows whether its source lacks a dataset, (m,) bool."""
        lacking = [origin for origin, names in enumerate(self._names) if name not in names]
        found: NDArray[np.bool_] = np.isin(places >> np.uint64(32), lacking)
        return found

    def read(self, names: Iterable[str], places: Places) -> dict[str, NDArray[Any]]:
        """Read rows.

        Parameters
        ----------
        names : iterable of str
            Datasets of caches and shards.
        places : ndarray of shape (m,), uint64
            From `locate`.

        Returns
        -------
        dict of str to ndarray of shape (m, …)

        Raises
        ------
        CacheError
            A source cannot be read any more.
        """
        result = {name: self._empty(name, len(places)) for name in names}
        piece = min(map(self._count_piece, result), default=_PIECE_ROWS)
        for here, ordered in self._visit(places, piece):
            for name, values in result.items():
                values[here] = self._read(name, ordered)
        return result

    def read_blocks(self, name: str, places: Places, *, folder: Path) -> Iterator[NDArray[Any]]:
        """Read rows of one dataset in order, one block at a time.

        Parameters
        ----------
        name : str
        places : ndarray of shape (m,), uint64
            From `locate`.
        folder : Path
            Folder for a temporary file, in which rows that are scattered over the sources are
            sorted.

        Yields
        ------
        ndarray of shape (k, …)
            Some blocks are empty, so that the writer can stop between two reads.
        """
        piece = self._count_piece(name)
        step = max(piece, _BUCKET_BYTES // self._empty(name, 1).nbytes)
        if not self._are_scattered(places, piece):
            step = piece
        elif len(places) > step:
            yield from self._sort(name, places, step, folder)
            return
        for start in range(0, len(places), step):
            yield self.read([name], places[start : start + step])[name]

    def describe(self, name: str) -> tuple[np.dtype[Any], tuple[int, ...]]:
        """Return the type of a dataset, and its shape without the number of rows."""
        return self._kinds[name]

    def forget(self) -> None:
        """Free the memory of the keys; rows can no longer be located, but still be read."""
        self._records = np.empty(0, _RECORD)

    def _count_piece(self, name: str) -> int:
        """Return the number of rows of a dataset that are read at once."""
        return max(1, min(_PIECE_ROWS, _PIECE_BYTES // self._empty(name, 1).nbytes))

    def _are_scattered(self, places: Places, piece: int) -> bool:
        """Whether reading in blocks would read pieces of the files several times."""
        starts = range(0, len(places), piece)
        pieces = (places[start : start + piece] // piece for start in starts)
        reads = sum(len(np.unique(block)) for block in pieces)
        return reads > 2 * (len(starts) + sum(math.ceil(n / piece) for n in self._lengths))

    def _sort(self, name: str, places: Places, step: int, folder: Path) -> Iterator[NDArray[Any]]:
        """Distribute the rows of each piece over buckets on disk, then read bucket by bucket."""
        number = -(-len(places) // step)
        with _Buckets(folder, number, step * self._empty(name, 1).nbytes) as buckets:
            for here, ordered in self._visit(places, self._count_piece(name)):
                rows = self._read(name, ordered)
                bucket = here // step
                for one in np.unique(bucket):
                    buckets.append(int(one), rows[bucket == one])
                yield rows[:0]
            for start in range(0, len(places), step):
                # The rows of a bucket lie in the order of their places, too.
                here = np.argsort(places[start : start + step], kind="stable")
                result = self._empty(name, len(here))
                rows = np.frombuffer(buckets.take(start // step), result.dtype)
                result[here] = rows.reshape(result.shape)
                yield result

    def _visit(self, places: Places, piece: int) -> Iterator[tuple[NDArray[np.intp], Places]]:
        """Yield the positions and places of the rows in each piece, in the order of the file."""
        order = np.argsort(places, kind="stable")
        for start in range(0, len(order), _BLOCK_ROWS):
            block = order[start : start + _BLOCK_ROWS]
            cuts = np.flatnonzero(np.diff(places[block] // piece)) + 1
            for here in np.split(block, cuts):
                yield here, places[here]

    def _read(self, name: str, places: Places) -> NDArray[Any]:
        """Read rows of one piece, in the order of the file."""
        origin, first = divmod(int(places[0]), 1 << 32)
        offsets = (places - places[0]).astype(np.intp)
        if name not in self._names[origin]:
            return np.zeros_like(self._empty(name, len(places)))
        block = self._arrays(origin)[name][first : first + int(offsets[-1]) + 1]
        rows: NDArray[Any] = block[offsets]
        return rows

    def _empty(self, name: str, rows: int) -> NDArray[Any]:
        dtype, shape = self._kinds[name]
        return np.empty((rows, *shape), dtype)

    def close(self) -> None:
        """Close the files and forget the rows."""
        self.forget()
        while self._open:
            self._open.popitem()[1].close()

    def _find(self, keys: NDArray[np.bytes_]) -> NDArray[np.bytes_]:
        """Return for each key the first record that is not below it; nothing if there are none."""
        if not len(self._records):
            return self._records
        places = np.searchsorted(self._records, keys.astype(_RECORD))
        return self._records.take(places, mode="clip")

    def _arrays(self, origin: int) -> Mapping[str, StoredArray]:
        if origin not in self._open:
            if len(self._open) >= _OPEN_FILES:
                self._open.pop(next(iter(self._open))).close()
            source = self._sources[origin]
            self._open[origin] = StoredFile(source.path, source.schema, verify="off")
        return self._open[origin].arrays


class _Buckets:
    """Buckets of bytes in a temporary file, each in the order in which they were appended.

    Parameters
    ----------
    folder : Path
        Folder of the file, which is unlinked once it is open, so that a killed run leaves nothing.
    number, size : int
        Number of buckets, and the largest number of bytes that one can hold.
    """

    def __init__(self, folder: Path, number: int, size: int) -> None:
        path = folder / f".{secrets.token_hex(8)}.tmp"
        self._file = path.open("x+b")
        path.unlink()
        # The first bucket to be taken lies last, so that the file can be truncated after each.
        self._starts = [size * place for place in reversed(range(number))]
        self._filled = [0] * number
        self._sums = [0] * number

    def append(self, bucket: int, values: NDArray[Any]) -> None:
        """Append values to a bucket."""
        data = values.tobytes()
        self._file.seek(self._starts[bucket] + self._filled[bucket])
        self._file.write(data)
        self._filled[bucket] += len(data)
        self._sums[bucket] = zlib.crc32(data, self._sums[bucket])

    def take(self, bucket: int) -> bytes:
        """Read a bucket, and free its space on disk and that of those taken before."""
        self._file.seek(self._starts[bucket])
        data = self._file.read(self._filled[bucket])
        if len(data) != self._filled[bucket] or zlib.crc32(data) != self._sums[bucket]:
            raise OSError("what was read back is not what was written")
        self._file.truncate(self._starts[bucket])
        return data

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


def _to_bytes(values: NDArray[Any]) -> NDArray[np.uint8]:
    """View an array, (n,), as bytes, (n, size of a value)."""
    plain = np.ascontiguousarray(values)
    return plain.view(np.uint8).reshape(len(plain), plain.dtype.itemsize)
