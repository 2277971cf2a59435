"""RowIndex: where the rows are that exist already, found by content in caches and in shards."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainfeat.storage import Schema, StoredArray, StoredFile

_OPEN_FILES = 16
_KEY_BYTES = 34
# A key, the number of its source and its row there, both big-endian so that they sort as bytes.
_RECORD = np.dtype("S42")


def row_keys(sha256: NDArray[np.uint8], view: NDArray[np.int16]) -> NDArray[np.bytes_]:
    """Return the identity of each row: 32 bytes of SHA-256 and 2 of the view, as ``S34``."""
    joined = np.empty((len(view), _KEY_BYTES), np.uint8)
    joined[:, :32] = sha256
    joined[:, 32:] = np.asarray(view, ">i2").view(np.uint8).reshape(-1, 2)
    return joined.view("S34").reshape(-1)


def split_keys(keys: NDArray[np.bytes_]) -> tuple[NDArray[np.uint8], NDArray[np.int16]]:
    """Return what :func:`row_keys` joined: SHA-256, (n, 32), and view, (n,)."""
    joined = _to_bytes(keys)
    return joined[:, :32], joined[:, 32:].copy().view(">i2").reshape(-1).astype("<i2")


class KeySet:
    """Keys to look others up in; it takes 34 bytes a key.

    Parameters
    ----------
    keys : ndarray of shape (n,), S34
        As :func:`row_keys` gives them.
    """

    def __init__(self, keys: NDArray[np.bytes_]) -> None:
        self._keys = np.sort(keys)

    def contains(self, keys: NDArray[np.bytes_]) -> NDArray[np.bool_]:
        """Tell of each of some keys, (m,), whether it is one of these."""
        if not len(self._keys):
            return np.zeros(len(keys), np.bool_)
        places = np.searchsorted(self._keys, keys)
        found: NDArray[np.bool_] = self._keys.take(places, mode="clip") == keys
        return found


@dataclass(frozen=True, kw_only=True)
class Source:
    """A file that has rows: a cache or a shard.

    Parameters
    ----------
    path : Path
    schema : Schema
    views : bool
        Whether its augmented views count too; view 0 always does.
    """

    path: Path
    schema: Schema
    views: bool


class RowIndex:
    """Rows that exist already, found by content in an older cache and in shards.

    It takes 42 bytes a row. Of rows of the same key, that of the first source counts.

    Parameters
    ----------
    sources : sequence of Source
        Verified files of one spec. No more than a few are open at a time, however many there are.
    """

    def __init__(self, sources: Sequence[Source]) -> None:
        self._sources = sources
        self._open: dict[int, StoredFile] = {}
        self._records = np.empty(0, _RECORD)
        for origin, source in enumerate(sources):
            self._append(origin, views=source.views)
        self._records.sort()  # in place

    def _append(self, origin: int, *, views: bool) -> None:
        arrays = self._arrays(origin)
        view = np.asarray(arrays["view"])
        rows = np.flatnonzero((view == 0) | views)
        start = len(self._records)
        # A larger array beside this one would double the memory that the index takes.
        self._records.resize(start + len(rows), refcheck=False)
        added = _to_bytes(self._records[start:])
        added[:, :_KEY_BYTES] = _to_bytes(row_keys(np.asarray(arrays["sha256"])[rows], view[rows]))
        places = np.column_stack([np.full(len(rows), origin), rows]).astype(">u4")
        added[:, _KEY_BYTES:] = places.view(np.uint8)

    def __contains__(self, key: bytes) -> bool:
        wanted = np.array([key], "S34")
        found = _to_bytes(self._find(wanted))[:, :_KEY_BYTES]
        return np.array_equal(found, _to_bytes(wanted))

    def gather(self, name: str, keys: NDArray[np.bytes_]) -> NDArray[Any]:
        """Read one dataset's values for rows that all exist.

        Parameters
        ----------
        name : str
            A dataset that caches and shards have.
        keys : ndarray of shape (m,), S34
            As :func:`row_keys` gives them.

        Returns
        -------
        ndarray of shape (m, …)

        Raises
        ------
        KeyError
            One of the rows does not exist.
        """
        found = _to_bytes(self._find(keys))
        if not np.array_equal(found[:, :_KEY_BYTES], _to_bytes(keys)):
            raise KeyError("a row that is in no source was asked for")
        origins, rows = found[:, _KEY_BYTES:].copy().view(">u4").T
        if len(rows) and (origins == origins[0]).all():
            return self._arrays(int(origins[0]))[name][rows.astype(np.intp)]
        example = self._arrays(0)[name]
        result = np.empty((len(keys), *example.shape[1:]), example.dtype)
        order = np.argsort(origins, kind="stable")
        present, starts = np.unique(origins[order], return_index=True)
        ends = np.append(starts[1:], len(order))
        for origin, start, end in zip(present, starts, ends, strict=False):
            places = order[start:end]
            result[places] = self._arrays(int(origin))[name][rows[places].astype(np.intp)]
        return result

    def close(self) -> None:
        """Close the files and forget the rows."""
        self._records = np.empty(0, _RECORD)
        while self._open:
            self._open.popitem()[1].close()

    def _find(self, keys: NDArray[np.bytes_]) -> NDArray[np.bytes_]:
        """Return the first record that is not below each key; none where there are no records."""
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


def _to_bytes(values: NDArray[Any]) -> NDArray[np.uint8]:
    """View an array (n,) as its bytes, (n, size of a value)."""
    plain = np.ascontiguousarray(values)
    return plain.view(np.uint8).reshape(len(plain), plain.dtype.itemsize)
