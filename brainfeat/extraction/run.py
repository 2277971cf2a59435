"""One run of stage one: which rows are missing, computing them, and shards of what is finished."""

import hashlib
import io
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainfeat import runtime
from brainfeat.cache.cache import FeatureCache
from brainfeat.cache.merging import Output
from brainfeat.cache.row_index import row_keys
from brainfeat.cache.schema import CHUNK_ROWS, Measured, Rejected
from brainfeat.cache.shards import write_shard
from brainfeat.cache.spec import FeatureSpec
from brainfeat.cache.writing import as_text
from brainfeat.errors import CacheError, ImageReadError, SpecMismatchError
from brainfeat.extraction.augmentation import Augmentation, augment_image
from brainfeat.extraction.backbones import FeatureExtractor, Image, compile_copies
from brainfeat.extraction.pipeline import BatchComputer, map_ahead
from brainfeat.extraction.preprocessing import preprocess_image
from brainfeat.readers import read_bytes, read_header
from brainfeat.tables.origin import Origin
from brainfeat.tables.table import ImageTable

Progress = Callable[[int, int, str], None]

_SHARD_SECONDS = 30.0
# Larger images are decoded one at a time: 64 million pixels take 1.5 GB while they are decoded.
_LARGE_PIXELS = 4_000_000
# Views that are decoded ahead, so that the next batch is full when the current one is computed.
_VIEWS_AHEAD = 32


@dataclass(frozen=True, kw_only=True)
class Task:
    """What a run is asked to do, as :func:`brainfeat.extract` describes it.

    Parameters
    ----------
    table : ImageTable
        The images.
    origin : Origin or None
        How the images were made of volumes.
    parts : Path
        The folder of the shards.
    augment : int
        Augmented views of each image that has views.
    augmentation : Augmentation or None
        None where there are no augmented views.
    batch_size : int or None
        None takes the batch size of the backbone.
    n_jobs : int
        Threads that read and decode.
    on_error : {"skip", "raise"}
        What happens when an image cannot be read.
    read : callable
        Reads an image.
    progress : callable or None
        Reports progress.
    """

    table: ImageTable
    origin: Origin | None
    parts: Path
    augment: int
    augmentation: Augmentation | None
    batch_size: int | None
    n_jobs: int
    on_error: str
    read: Callable[..., Image]
    progress: Progress | None

    @property
    def volumes(self) -> str:
        """How the images were made of volumes, for the spec."""
        return "" if self.origin is None else self.origin.policy

    @property
    def ranges(self) -> dict[str, Any] | None:
        """The parameters of the augmented views, as JSON values."""
        return self.augmentation.to_dict() if self.augmentation else None

    def list_views(self, row: int) -> range:
        """List the views of an image that the cache has: more than one for training images."""
        table = self.table
        train = table.splits[row] == "train" if table.has_splits else table.labels[row]
        return range(self.augment + 1 if train else 1)


@dataclass(frozen=True, kw_only=True)
class _Loaded:
    """One image as a thread returns it: its digest, and the views that must be computed."""

    sha256: bytes = b""
    measured: Measured | None = None
    views: Mapping[int, Image] = field(default_factory=dict)
    error: ImageReadError | None = None


@dataclass(frozen=True)
class _Item:
    """One view of one image on its way from the decoder to a shard."""

    row: int
    view: int
    sha256: bytes
    measured: Measured | None


class Run:
    """One run over a table.

    Parameters
    ----------
    task : Task
        What to do.
    backbone : FeatureExtractor
        What computes the features.
    output : Output
        The rows that exist already, and the cache that is written.

    Attributes
    ----------
    spec : FeatureSpec
        What the features mean.
    rejected : list of Rejected
        Images that could not be read.

    Raises
    ------
    SpecMismatchError
        If the output has features of another spec.
    """

    def __init__(self, task: Task, backbone: FeatureExtractor, output: Output) -> None:
        self.rejected: list[Rejected] = []
        self._task = task
        self._backbone = backbone
        self._output = output
        self._sha256 = [b""] * len(task.table)
        self._seen: set[bytes] = set()
        self._large_images = threading.Lock()
        self._computer: BatchComputer[_Item] | None = None
        self.spec = self._choose_spec(output.cache)
        output.check_spec(self.spec)
        self._index = output.index(self.spec, task.ranges)
        self._shards = _ShardWriter(task, self.spec)

    @property
    def computed(self) -> int:
        """Number of rows that were computed."""
        return self._shards.computed

    @property
    def recipe(self) -> dict[str, Any]:
        """What determines the spec, known without loading the base."""
        volumes = {"volumes": self._task.volumes} if self._task.volumes else {}
        return {**self._backbone.recipe, **volumes}

    def list_rows(self) -> Iterator[tuple[int, int]]:
        """Yield the image and the view of each row of the cache."""
        for row, sha256 in enumerate(self._sha256):
            if sha256:
                yield from ((row, view) for view in self._task.list_views(row))

    def compute(self) -> None:
        """Compute the rows that are missing and write them to shards.

        Raises
        ------
        ImageReadError
            If no image can be read, or if one cannot and the task is to raise its error.
        CacheError
            If the features are not usable, or shards cannot be written.
        """
        task, total = self._task, len(self._task.table)
        ahead = task.n_jobs + _VIEWS_AHEAD // (task.augment + 1)
        images = map_ahead(self._load, total, n_jobs=task.n_jobs, ahead=ahead)
        try:
            for row, loaded in enumerate(images):
                self._take(row, loaded)
                self._report(row + 1)
            if self._computer is not None:
                self._computer.finish()
        finally:
            if self._computer is not None:
                self._computer.close()
                self._computer = None
            self._shards.save()
        self._report(total)
        if len(self.rejected) == total:
            raise ImageReadError(
                f"none of the {total} images can be read; the first, {self.rejected[0].path}",
                self.rejected[0].reason,
            )

    def merge(self, *, alone: bool) -> None:
        """Merge the rows into the output.

        Parameters
        ----------
        alone : bool
            Whether no other run can be at work on the output.

        Raises
        ------
        CacheError
            If the output has rows that this run would drop, or cannot be written.
        Overtaken
            If another run wrote the output in the meantime.
        """
        table, output = self._task.table, self._output
        keys = self._list_keys()
        self._index.close()
        output.check_dropped(keys)
        rows = np.fromiter((row for row, _ in self.list_rows()), np.intp)
        texts = {
            "path": table.paths,
            "split": table.splits,
            "group": table.groups,
            "source": table.sources,
        }
        output.merge(
            keys,
            spec=self.spec,
            augmentation=self._task.ranges,
            columns={
                "label": table.label_indices[rows],
                **{name: as_text(values)[rows] for name, values in texts.items()},
            },
            attributes={
                "class_names": list(table.class_names),
                "rejected": [asdict(rejected) for rejected in self.rejected],
            },
            provenance=self._describe_provenance(),
            alone=alone,
        )

    def _choose_spec(self, cache: FeatureCache | None) -> FeatureSpec:
        """Take the spec of a cache that has this run's recipe: the base need not be loaded then."""
        if cache is not None and cache.provenance.get("recipe") == self.recipe:
            return cache.spec
        return self._complete_spec()

    def _complete_spec(self) -> FeatureSpec:
        """Add how the images were made of volumes to the spec of the backbone."""
        spec, volumes = self._backbone.spec, self._task.volumes
        if spec.volumes not in ("", volumes):
            raise SpecMismatchError(
                f"the images are {volumes or 'image files'}, and the spec of the backbone states "
                f"{spec.volumes}; leave volumes out of that spec"
            )
        return replace(spec, volumes=volumes)

    def _load(self, row: int) -> _Loaded:
        """Read one file once, so that the bytes that are hashed are those that are decoded."""
        path = self._task.table.paths[row]
        try:
            data = read_bytes(self._task.table.absolute_path(row), name=path)
            sha256 = hashlib.sha256(data).digest()
            views = [v for v in self._task.list_views(row) if _key(sha256, v) not in self._index]
            if not views:
                return _Loaded(sha256=sha256)
            header = read_header(io.BytesIO(data), name=path)
            large = header.width * header.height > _LARGE_PIXELS
            with self._large_images if large else nullcontext():
                decoded = self._task.read(io.BytesIO(data), name=path)
                image = preprocess_image(decoded, size=self.spec.input_size, fit=self.spec.fit)
        except ImageReadError as error:
            return _Loaded(error=error)
        return _Loaded(
            sha256=sha256,
            measured=Measured(
                width=header.width,
                height=header.height,
                channels=header.channels,
                file_bytes=len(data),
            ),
            views={view: self._draw(image, sha256, view) for view in views},
        )

    def _draw(self, image: Image, sha256: bytes, view: int) -> Image:
        ranges = self._task.augmentation
        if view == 0 or ranges is None:
            return image
        return augment_image(image, sha256=sha256, view=view, augmentation=ranges)

    def _take(self, row: int, loaded: _Loaded) -> None:
        """Pass the views of an image on to be computed, each one once."""
        if loaded.error is not None:
            if self._task.on_error == "raise":
                raise loaded.error
            path = self._task.table.paths[row]
            self.rejected.append(Rejected(path=path, reason=loaded.error.reason))
        self._sha256[row] = loaded.sha256
        for view, image in loaded.views.items():
            key = _key(loaded.sha256, view)
            if key not in self._seen:
                self._seen.add(key)
                self._computer = self._computer or self._start_computer()
                self._computer.add(_Item(row, view, loaded.sha256, loaded.measured), image)

    def _start_computer(self) -> BatchComputer[_Item]:
        self.spec.require(self._complete_spec(), here="the cache", there="this run")
        n_images = len(self._task.table) * (self._task.augment + 1)
        copies, preferred = compile_copies(self._backbone, n_images=n_images)
        size = self.spec.input_size
        return BatchComputer(
            copies,
            batch_size=min(self._task.batch_size or preferred, n_images),
            image_shape=(size, size, 3),
            n_features=self.spec.n_features,
            receive=self._shards.receive,
        )

    def _report(self, done: int) -> None:
        """Report progress: an image counts once its features have been computed."""
        if self._task.progress is not None:
            waiting = self._computer and self._computer.oldest
            count = waiting.row if waiting else done
            self._task.progress(count, len(self._task.table), self.spec.precision)

    def _list_keys(self) -> NDArray[np.bytes_]:
        """Return the identity of each row of the cache, in the order of the table."""
        digests = b"".join(self._sha256[row] for row, _ in self.list_rows())
        views = np.fromiter((view for _, view in self.list_rows()), np.int16)
        return row_keys(np.frombuffer(digests, np.uint8).reshape(-1, 32), views)

    def _describe_provenance(self) -> dict[str, Any]:
        """Describe what computed the rows; a cache that needs no new rows keeps its description."""
        origin, cache = self._task.origin, self._output.cache
        patient_key = {} if origin is None else {"patient_key": origin.patient_key}
        if cache is not None and not self.computed and cache.provenance:
            return {**cache.provenance, **patient_key}
        return {
            "recipe": self.recipe,
            "versions": runtime.versions(),
            "processor": runtime.processor(),
            "batch_size": self._task.batch_size,
            **patient_key,
        }


class _ShardWriter:
    """Collects computed features and writes them to shards."""

    def __init__(self, task: Task, spec: FeatureSpec) -> None:
        self.computed = 0
        self._task = task
        self._spec = spec
        self._items: list[_Item] = []
        self._features: list[Image] = []
        self._since = time.monotonic()

    def receive(self, items: list[_Item], features: Image) -> None:
        """Take the features of a batch."""
        if not np.isfinite(features).all():
            raise CacheError(
                "the backbone gave features that are not finite; "
                "use --precision float32, or other weights"
            )
        self._items.extend(items)
        self._features.append(features)
        self.computed += len(items)
        if len(self._items) >= CHUNK_ROWS or time.monotonic() - self._since > _SHARD_SECONDS:
            self.save()

    def save(self) -> None:
        """Write the finished rows to a shard, so that they survive the end of the process."""
        if not self._items:
            return
        write_shard(
            self._task.parts,
            spec=self._spec,
            augmentation=self._task.ranges,
            features=np.concatenate(self._features),
            sha256=[item.sha256 for item in self._items],
            view=[item.view for item in self._items],
            measured=[item.measured for item in self._items if item.measured],
        )
        self._items, self._features, self._since = [], [], time.monotonic()


def _key(sha256: bytes, view: int) -> bytes:
    return sha256 + view.to_bytes(2, "big")
