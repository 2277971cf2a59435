"""Writer of stage one's shards: finished rows are on disk every thousand or thirty seconds."""

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from brainfeat.cache.row_index import row_keys
from brainfeat.cache.schema import CHUNK_ROWS, Measured, list_arrays
from brainfeat.cache.shards import write_shard
from brainfeat.cache.signature import SIGNATURE_SIZE
from brainfeat.extraction.computed_rows import RowLayout

Features = NDArray[np.float32]
Signature = NDArray[np.int8]
Datasets = dict[str, NDArray[Any]]

_SHARD_SECONDS = 30.0
# A shard of maps has fewer rows than one of vectors.
_SHARD_BYTES = 16 << 20
# Rows whose features are read from earlier files at once. They may be scattered over all of those
# files, so that fewer rows would mean more reading.
_READ_ROWS = 8192
_READ_BYTES = 64 << 20


class ReadRows(Protocol):
    """Reads some datasets of rows of earlier files by their keys (n,), S34."""

    def __call__(self, keys: NDArray[np.bytes_], /, *, names: Iterable[str]) -> Datasets:
        """Read them."""


@dataclass(frozen=True)
class Item:
    """One view of one image on its way from the decoder to a shard.

    Parameters
    ----------
    number : int
        Of the file or volume, from 0.
    view : int
    sha256 : bytes
        SHA-256 of the file, 32 bytes.
    measured : Measured
    signature : ndarray of shape (1936,), int8, or None
        None if it is not computed: for an augmented view, or in a run without signatures.
    """

    number: int
    view: int
    sha256: bytes
    measured: Measured
    signature: Signature | None


class ShardWriter:
    """Collects finished rows and writes them to shards.

    Parameters
    ----------
    folder : Path
        The folder of the shards.
    layout : RowLayout
        What the rows mean that the base computes.
    augmentation : mapping of str to JSON value, or None
        The ranges that the views above 0 were drawn from.
    signature : bool
        Whether the shards have signatures.
    read_rows : callable
        Reads rows of earlier files.

    Attributes
    ----------
    computed : int
        Rows whose features were computed.
    signatures : int
        Signatures that were computed.
    """

    def __init__(
        self,
        folder: Path,
        *,
        layout: RowLayout,
        augmentation: Mapping[str, Any] | None,
        signature: bool,
        read_rows: ReadRows,
    ) -> None:
        self.computed = 0
        self.signatures = 0
        self._folder = folder
        self._layout = layout
        self._shard_rows = _fit(CHUNK_ROWS, _SHARD_BYTES, layout)
        self._read_at_once = _fit(_READ_ROWS, _READ_BYTES, layout)
        self._augmentation = augmentation
        self._signature = signature
        self._read_rows = read_rows
        # Rows of one array, and not many arrays that would be copied into one to be written.
        self._items: list[Item] = []
        self._rows: Datasets = {}
        self._room = 0
        self._signatures: Signature = np.empty((0, SIGNATURE_SIZE), np.int8)
        self._known: list[Item] = []
        self._since = time.monotonic()

    def receive(self, items: list[Item], features: Features) -> None:
        """Take the features of a batch.

        Raises
        ------
        CacheError
            The features cannot be kept, or cannot be written.
        """
        rows = self._layout.split(features)
        if len(self._items) + len(items) > self._room:
            self.save()
            self._make_room(max(self._shard_rows, len(items)), rows)
        place = len(self._items)
        for name, values in rows.items():
            self._rows[name][place : place + len(items)] = values
        for row, item in enumerate(items, place):
            if item.signature is not None:
                self._signatures[row] = item.signature
                self.signatures += 1
        self._items.extend(replace(item, signature=None) for item in items)
        self.computed += len(items)
        if len(self._items) == self._room or self._is_due():
            self.save()

    def receive_signature(self, item: Item) -> None:
        """Take the signature of an image whose features an earlier file has.

        Raises
        ------
        CacheError
            The features cannot be read, or cannot be written.
        """
        self._known.append(item)
        if len(self._known) >= self._read_at_once or self._is_due():
            self.save()

    def _is_due(self) -> bool:
        return time.monotonic() - self._since > _SHARD_SECONDS

    def save(self) -> None:
        """Write the finished rows to shards, so that they survive the end of the process."""
        if self._items:
            n = len(self._items)
            rows = {name: values[:n] for name, values in self._rows.items()}
            self._write(self._items, rows, self._signatures[:n])
            self._items, self._rows, self._room = [], {}, 0
        if self._known:
            digests = np.frombuffer(b"".join(item.sha256 for item in self._known), np.uint8)
            views = np.zeros(len(self._known), np.int16)
            keys = row_keys(digests.reshape(-1, 32), views)
            signatures = [item.signature for item in self._known if item.signature is not None]
            self.signatures += len(signatures)
            names = list_arrays(self._layout.spec)
            self._write(self._known, self._read_rows(keys, names=names), np.stack(signatures))
            self._known = []
        self._since = time.monotonic()

    def _make_room(self, room: int, like: Datasets) -> None:
        """Make empty arrays for rows; signatures of augmented views are zeros."""
        self._room = room
        self._rows = {
            name: np.empty((room, *values.shape[1:]), values.dtype) for name, values in like.items()
        }
        self._signatures = np.zeros((room if self._signature else 0, SIGNATURE_SIZE), np.int8)

    def _write(self, items: list[Item], rows: Datasets, signatures: Signature) -> None:
        write_shard(
            self._folder,
            spec=self._layout.spec,
            augmentation=self._augmentation,
            features=rows.pop("features"),
            others=rows,
            sha256=[item.sha256 for item in items],
            view=[item.view for item in items],
            measured=[item.measured for item in items],
            signature=signatures if self._signature else None,
        )


def _fit(rows: int, size: int, layout: RowLayout) -> int:
    """Return a number of rows, or fewer where they would take more bytes than `size`."""
    return max(1, min(rows, size // layout.stored_bytes))
