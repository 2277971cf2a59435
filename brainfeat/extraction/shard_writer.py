"""Writer of stage one's shards: finished rows are on disk every thousand rows or thirty seconds."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainfeat.cache.row_index import row_keys
from brainfeat.cache.schema import CHUNK_ROWS, Measured
from brainfeat.cache.shards import write_shard
from brainfeat.cache.signature import SIGNATURE_SIZE
from brainfeat.cache.spec import FeatureSpec
from brainfeat.errors import CacheError

Features = NDArray[np.float32]
Signature = NDArray[np.int8]
ReadFeatures = Callable[[NDArray[np.bytes_]], Features]

_SHARD_SECONDS = 30.0
# Rows whose features are read from earlier files at once. They may be scattered over all of those
# files, so that fewer rows would mean more reading.
_READ_ROWS = 8192


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
    spec : FeatureSpec
        What the features mean.
    augmentation : mapping of str to JSON value, or None
        The ranges that the views above 0 were drawn from.
    signature : bool
        Whether the shards have signatures.
    read_features : callable
        From the keys of rows of earlier files, (n,) S34, to their features, (n, d).

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
        spec: FeatureSpec,
        augmentation: Mapping[str, Any] | None,
        signature: bool,
        read_features: ReadFeatures,
    ) -> None:
        self.computed = 0
        self.signatures = 0
        self._folder = folder
        self._spec = spec
        self._augmentation = augmentation
        self._signature = signature
        self._read_features = read_features
        # Rows of one array, and not many arrays that would be copied into one to be written.
        self._items: list[Item] = []
        self._features: Features = np.empty((0, spec.n_features), np.float32)
        self._signatures: Signature = np.empty((0, SIGNATURE_SIZE), np.int8)
        self._known: list[Item] = []
        self._since = time.monotonic()

    def receive(self, items: list[Item], features: Features) -> None:
        """Take the features of a batch.

        Raises
        ------
        CacheError
            The features are not finite, or cannot be written.
        """
        if not np.isfinite(features).all():
            raise CacheError(
                "the backbone gave features that are not finite; "
                'use precision="float32", or other weights'
            )
        if len(self._items) + len(items) > len(self._features):
            self.save()
            self._make_room(max(CHUNK_ROWS, len(items)))
        place = len(self._items)
        self._features[place : place + len(items)] = features
        for row, item in enumerate(items, place):
            if item.signature is not None:
                self._signatures[row] = item.signature
                self.signatures += 1
        self._items.extend(replace(item, signature=None) for item in items)
        self.computed += len(items)
        if len(self._items) == len(self._features) or self._is_due():
            self.save()

    def receive_signature(self, item: Item) -> None:
        """Take the signature of an image whose features an earlier file has.

        Raises
        ------
        CacheError
            The features cannot be read, or cannot be written.
        """
        self._known.append(item)
        if len(self._known) >= _READ_ROWS or self._is_due():
            self.save()

    def _is_due(self) -> bool:
        return time.monotonic() - self._since > _SHARD_SECONDS

    def save(self) -> None:
        """Write the finished rows to shards, so that they survive the end of the process."""
        if self._items:
            n = len(self._items)
            self._write(self._items, self._features[:n], self._signatures[:n])
            self._items = []
            self._make_room(0)
        if self._known:
            digests = np.frombuffer(b"".join(item.sha256 for item in self._known), np.uint8)
            views = np.zeros(len(self._known), np.int16)
            keys = row_keys(digests.reshape(-1, 32), views)
            signatures = [item.signature for item in self._known if item.signature is not None]
            self.signatures += len(signatures)
            self._write(self._known, self._read_features(keys), np.stack(signatures))
            self._known = []
        self._since = time.monotonic()

    def _make_room(self, rows: int) -> None:
        """Make empty arrays for rows; signatures of augmented views are zeros."""
        self._features = np.empty((rows, self._spec.n_features), np.float32)
        self._signatures = np.zeros((rows if self._signature else 0, SIGNATURE_SIZE), np.int8)

    def _write(self, items: list[Item], features: Features, signatures: Signature) -> None:
        write_shard(
            self._folder,
            spec=self._spec,
            augmentation=self._augmentation,
            features=features,
            sha256=[item.sha256 for item in items],
            view=[item.view for item in items],
            measured=[item.measured for item in items],
            signature=signatures if self._signature else None,
        )
