"""STAGE ONE: a table and a backbone become a feature cache; resumable and incremental."""

import hashlib
import io
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, nullcontext, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from brainfeat import runtime
from brainfeat.cache.cache import CHUNK_ROWS, FeatureCache, Measured, Rejected
from brainfeat.cache.locks import lock_folder
from brainfeat.cache.merging import Output, Overtaken, identify
from brainfeat.cache.row_index import RowIndex, row_keys
from brainfeat.cache.shards import parts_folder, write_shard
from brainfeat.cache.spec import FeatureSpec, Precision, Scaling
from brainfeat.cache.writing import as_text
from brainfeat.errors import (
    CacheError,
    ImageReadError,
    ParameterError,
    SpecMismatchError,
    TableError,
)
from brainfeat.extraction.augmentation import VIEW_LIMIT, Augmentation, augment_image
from brainfeat.extraction.backbones import Backbone, load_backbone
from brainfeat.extraction.pipeline import BatchComputer, map_ahead
from brainfeat.extraction.preprocessing import preprocess_image
from brainfeat.readers import read_bytes, read_header, read_image
from brainfeat.tables.origin import Origin, find_origin
from brainfeat.tables.table import ImageTable

Image = NDArray[np.float32]
ChosenPrecision = Precision | Literal["auto"]
Progress = Callable[[int, int, str], None]

_SHARD_SECONDS = 30.0
# Times that other runs may write the output first, where the file system has no locks.
_ATTEMPTS = 5
# Images of a batch where the backbone is a function that does not say what it likes best.
_BATCH_SIZE = 32
# Images of more pixels are decoded one at a time: 64 million of them take 1.5 GB on their way.
_LARGE_PIXELS = 4_000_000
# Views that are decoded ahead: a batch that is full at once when the one before it is taken.
_VIEWS_AHEAD = 32


class FeatureExtractor(Protocol):
    """What stage one asks of a backbone: a callable that says what its features mean."""

    @property
    def spec(self) -> FeatureSpec:
        """What the features mean."""
        ...

    @property
    def recipe(self) -> dict[str, Any]:
        """What determines the spec, known without loading anything."""
        ...

    def __call__(self, images: Image, /) -> Image:
        """Turn images (n, h, w, 3) into features (n, d)."""
        ...


@dataclass(frozen=True, kw_only=True)
class Extraction:
    """What one run of stage one did.

    Attributes
    ----------
    rows : int
        Rows of the cache: images × views.
    computed, reused : int
        Rows whose features were computed by this run, and all others: those of an earlier run, and
        those of files that are identical to another file.
    rejected : tuple of Rejected
        Images that could not be read, with reasons.
    seconds, images_per_second : float
        Duration of the run, and computed rows a second of it.
    precision : str
        What the features were computed in.
    fingerprint : str
        Fingerprint of the spec.
    output : Path
        The cache.
    """

    rows: int
    computed: int
    reused: int
    rejected: tuple[Rejected, ...]
    seconds: float
    images_per_second: float
    precision: str
    fingerprint: str
    output: Path

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, ready for JSON."""
        return {
            **asdict(self),
            "rejected": list(map(asdict, self.rejected)),
            "output": str(self.output),
        }


def extract(
    table: ImageTable,
    output: str | os.PathLike[str],
    *,
    backbone: str | FeatureExtractor = "vgg16",
    weights: str | os.PathLike[str] = "imagenet",
    scaling: Scaling = "weights",
    input_size: int = 224,
    precision: ChosenPrecision = "auto",
    device: str = "auto",
    augment: int = 0,
    augmentation: Augmentation | None = None,
    batch_size: int | None = None,
    n_jobs: int | None = None,
    on_error: Literal["skip", "raise"] = "skip",
    overwrite: bool = False,
    random_state: int = 0,
    read: Callable[..., Image] = read_image,
    progress: Progress | None = None,
) -> Extraction:
    """Run a frozen base over every image of a table once and cache its pooled features.

    Rows are looked up by the content of the image files: what an earlier run computed, finished or
    not, is not computed again. The cache then holds the table's images, in the table's order.

    Parameters
    ----------
    table : ImageTable
        As :func:`brainfeat.read_table` gives it.
    output : path-like
        The cache to write or to bring up to date. Unfinished rows are kept in ``OUTPUT.parts``.
    backbone : str or FeatureExtractor
        Name of a base, which the five options below then complete; or a callable from float32
        images (n, h, w, 3) to float32 features (n, d) with the attributes ``spec`` and ``recipe``.
    weights, scaling, input_size, device
        As in :func:`brainfeat.extraction.backbones.load_backbone`, where `backbone` is a name.
    precision : {"auto", "float32", "bfloat16", "float16"}
        What the convolutions compute in; pooling is in float32. ``"auto"`` goes on in the precision
        of an output that is there, finished or not; for a new one it chooses as
        :func:`brainfeat.extraction.backbones.load_backbone` does.
    augment : int
        Augmented views to add to each image of the train split, or to every labelled image where
        the table has no splits.
    augmentation : Augmentation or None
        Ranges and seed of the views; None takes the defaults with `random_state`.
    batch_size : int or None
        Images that the base sees at once, but no more than the table gives; None takes what suits
        the device and the size of the images.
    n_jobs : int or None
        Threads that read and decode; None takes all cores.
    on_error : {"skip", "raise"}
        Whether an image that cannot be read is listed in the cache or ends the run.
    overwrite : bool
        Whether an output of another spec, a damaged one, or one with images that the table has not
        may be replaced.
    random_state : int
        Seed of ``weights="random"`` and of the views.
    read : callable
        From a binary file object, and a `name` for errors, to a float32 image (h, w, 3) in [0, 1].
    progress : callable or None
        Called with the number of images done, their total, and the precision.

    Returns
    -------
    Extraction

    Raises
    ------
    CacheError
        The output cannot be used or written; it is as it was.
    TableError
        The table is empty, or its images were made of volumes in several ways.
    ImageReadError
        No image could be read, or one could not with ``on_error="raise"``.
    ParameterError
        An option is unknown or out of range.
    WeightsError
        The weights are missing or wrong.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> from brainfeat import read_table
    >>> from brainfeat.phantoms import write_phantoms
    >>> with TemporaryDirectory() as folder:
    ...     table = read_table(write_phantoms(f"{folder}/slices", patients_per_class=2, size=48))
    ...     result = extract(
    ...         table,
    ...         f"{folder}/features.h5",
    ...         backbone="mobilenet-0.75",
    ...         weights="random",
    ...         input_size=32,
    ...     )
    >>> result.rows, result.computed
    (32, 32)
    """
    started = time.perf_counter()
    output = Path(output)
    identify(output)
    _check_options(batch_size=batch_size, augment=augment, n_jobs=n_jobs, on_error=on_error)
    if not len(table):
        raise TableError("the table has no images; expected at least one")
    origin = find_origin(table.root, table.paths)
    views = (augmentation or Augmentation(random_state=random_state)) if augment else None
    computed = 0
    with lock_folder(parts_folder(output)) as alone:
        for _ in range(_ATTEMPTS):
            with suppress(Overtaken), ExitStack() as stack:
                found = Output(output, stack, overwrite=overwrite)
                if isinstance(backbone, str):
                    if precision == "auto":
                        precision = found.precision or "auto"
                    backbone = load_backbone(
                        backbone,
                        weights=weights,
                        scaling=scaling,
                        input_size=input_size,
                        precision=precision,
                        random_state=random_state,
                        device=device,
                        n_images=len(table) * (augment + 1),
                        volumes="" if origin is None else origin.policy,
                    )
                spec = _choose_spec(found.cache, backbone)
                _check_origin(spec, origin)
                found.check_spec(spec)
                run = _Run(
                    table=table,
                    backbone=backbone,
                    spec=spec,
                    index=found.index(spec, views.to_dict() if views else None),
                    parts=parts_folder(output),
                    patient_key=None if origin is None else origin.patient_key,
                    augment=augment,
                    augmentation=views,
                    batch_size=batch_size,
                    read=read,
                )
                run.compute(n_jobs or runtime.usable_cores(), on_error, progress)
                computed += run.computed
                _finish(run, found, alone=alone)
                break
        else:
            raise CacheError(
                f"{output} was written by other runs {_ATTEMPTS} times while this one was at work; "
                "its finished rows are kept: run it again when the others have ended"
            )
    rows = sum(1 for _ in run.rows())
    seconds = time.perf_counter() - started
    return Extraction(
        rows=rows,
        computed=computed,
        reused=max(0, rows - computed),
        rejected=tuple(run.rejected),
        seconds=seconds,
        images_per_second=computed / seconds,
        precision=spec.precision,
        fingerprint=spec.fingerprint,
        output=output,
    )


def _check_options(
    *, batch_size: int | None, augment: int, n_jobs: int | None, on_error: str
) -> None:
    if batch_size is not None and batch_size < 1:
        raise ParameterError(f"batch size {batch_size}; expected at least 1, or None")
    if not 0 <= augment <= VIEW_LIMIT:
        raise ParameterError(f"{augment} views an image; expected 0 to {VIEW_LIMIT:,}")
    if n_jobs is not None and n_jobs < 1:
        raise ParameterError(f"{n_jobs} jobs; expected at least 1, or None for all cores")
    if on_error not in ("skip", "raise"):
        raise ParameterError(f"unknown on_error {on_error!r}; there are skip, raise")


def _choose_spec(cache: FeatureCache | None, backbone: FeatureExtractor) -> FeatureSpec:
    """Take the cache's spec where its recipe is this run's: then the base need not be loaded."""
    if cache is not None and cache.provenance.get("recipe") == backbone.recipe:
        return cache.spec
    return backbone.spec


def _check_origin(spec: FeatureSpec, origin: Origin | None) -> None:
    policy = "" if origin is None else origin.policy
    if spec.volumes != policy:
        raise SpecMismatchError(
            f"the images are {policy or 'image files'}, and the spec of the backbone says that "
            f"they are {spec.volumes or 'image files'}"
        )


@dataclass(frozen=True, kw_only=True)
class _Loaded:
    """One image as a thread gives it: its digest, and the views that are still to be computed."""

    sha256: bytes = b""
    measured: Measured | None = None
    views: Mapping[int, Image] = field(default_factory=dict)
    error: ImageReadError | None = None


@dataclass(kw_only=True)
class _Run:
    """The state of one run over a table."""

    table: ImageTable
    backbone: FeatureExtractor
    spec: FeatureSpec
    index: RowIndex
    parts: Path
    patient_key: str | None
    augment: int
    augmentation: Augmentation | None
    batch_size: int | None
    read: Callable[..., Image]
    computed: int = 0
    rejected: list[Rejected] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.sha256: list[bytes] = [b""] * len(self.table)
        self._large_images = threading.Lock()

    def views_of(self, row: int) -> range:
        """Return the views that the cache has of an image."""
        train = (
            self.table.splits[row] == "train" if self.table.has_splits else self.table.labels[row]
        )
        return range(self.augment + 1 if train else 1)

    def keys(self) -> NDArray[np.bytes_]:
        """Return the identity of each row of the cache, in the table's order."""
        digests = b"".join(self.sha256[row] for row, _ in self.rows())
        views = np.fromiter((view for _, view in self.rows()), np.int16)
        return row_keys(np.frombuffer(digests, np.uint8).reshape(-1, 32), views)

    def rows(self) -> Iterator[tuple[int, int]]:
        """Yield the image and the view of each row of the cache."""
        for row, sha256 in enumerate(self.sha256):
            if sha256:
                yield from ((row, view) for view in self.views_of(row))

    def compute(self, n_jobs: int, on_error: str, progress: Progress | None) -> None:
        """Compute what is missing and write it to shards."""
        shards = _ShardWriter(self)
        computer: BatchComputer[_Item] | None = None
        seen: set[bytes] = set()
        total = len(self.table)
        ahead = n_jobs + _VIEWS_AHEAD // (self.augment + 1)
        try:
            for row, loaded in enumerate(map_ahead(self._load, total, n_jobs=n_jobs, ahead=ahead)):
                if loaded.error is not None:
                    self._reject(row, loaded.error, on_error)
                self.sha256[row] = loaded.sha256
                for view, image in loaded.views.items():
                    key = _key(loaded.sha256, view)
                    if key not in seen:
                        seen.add(key)
                        computer = computer or self._start_computer(shards)
                        computer.add(_Item(row, view, loaded.sha256, loaded.measured), image)
                if progress is not None:
                    waiting = computer and computer.oldest
                    progress(waiting.row if waiting else row + 1, total, self.spec.precision)
            if computer is not None:
                computer.finish()
        finally:
            if computer is not None:
                computer.close()
            shards.save()
        if progress is not None:
            progress(total, total, self.spec.precision)
        if len(self.rejected) == total:
            raise ImageReadError(
                f"none of the {total} images can be read; the first, {self.rejected[0].path}",
                self.rejected[0].reason,
            )

    def _start_computer(self, shards: "_ShardWriter") -> "BatchComputer[_Item]":
        if self.backbone.spec != self.spec:
            self.spec.require(self.backbone.spec, here="the cache", there="this run")
        copies: Sequence[Any] = [self.backbone]
        preferred = _BATCH_SIZE
        if isinstance(self.backbone, Backbone):
            copies, preferred = self.backbone.copies, self.backbone.batch_size
        size = self.spec.input_size
        return BatchComputer(
            copies,
            batch_size=min(self.batch_size or preferred, len(self.table) * (self.augment + 1)),
            image_shape=(size, size, 3),
            n_features=self.spec.n_features,
            receive=shards.receive,
        )

    def _reject(self, row: int, error: ImageReadError, on_error: str) -> None:
        if on_error == "raise":
            raise error
        self.rejected.append(Rejected(path=self.table.paths[row], reason=error.reason))

    def _load(self, row: int) -> _Loaded:
        """Read one file once: the bytes that are hashed are those that are decoded."""
        path = self.table.paths[row]
        try:
            data = read_bytes(self.table.absolute_path(row), name=path)
        except ImageReadError as error:
            return _Loaded(error=error)
        sha256 = hashlib.sha256(data).digest()
        missing = [view for view in self.views_of(row) if _key(sha256, view) not in self.index]
        if not missing:
            return _Loaded(sha256=sha256)
        try:
            header = read_header(io.BytesIO(data), name=path)
            large = header.width * header.height > _LARGE_PIXELS
            with self._large_images if large else nullcontext():
                decoded = self.read(io.BytesIO(data), name=path)
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
            views={view: self._draw(image, sha256, view) for view in missing},
        )

    def _draw(self, image: Image, sha256: bytes, view: int) -> Image:
        if view == 0 or self.augmentation is None:
            return image
        return augment_image(image, sha256=sha256, view=view, augmentation=self.augmentation)


@dataclass(frozen=True)
class _Item:
    """One view of one image on its way from the decoder to a shard."""

    row: int
    view: int
    sha256: bytes
    measured: Measured | None


class _ShardWriter:
    """Features that were computed, on their way to a shard."""

    def __init__(self, run: _Run) -> None:
        self._run = run
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
        self._run.computed += len(items)
        if len(self._items) >= CHUNK_ROWS or time.monotonic() - self._since > _SHARD_SECONDS:
            self.save()

    def save(self) -> None:
        """Write the finished rows to a shard; from then on a kill does not lose them."""
        if not self._items:
            return
        write_shard(
            self._run.parts,
            spec=self._run.spec,
            augmentation=self._run.augmentation.to_dict() if self._run.augmentation else None,
            features=np.concatenate(self._features),
            sha256=[item.sha256 for item in self._items],
            view=[item.view for item in self._items],
            measured=[item.measured for item in self._items if item.measured],
        )
        self._items, self._features, self._since = [], [], time.monotonic()


def _key(sha256: bytes, view: int) -> bytes:
    return sha256 + view.to_bytes(2, "big")


def _finish(run: _Run, found: Output, *, alone: bool) -> None:
    """Merge what there is into the output."""
    keys = run.keys()
    run.index.close()
    found.check_dropped(keys)
    rows = np.fromiter((row for row, _ in run.rows()), np.intp)
    table = run.table
    texts = {
        "path": table.paths,
        "split": table.splits,
        "group": table.groups,
        "source": table.sources,
    }
    kept = found.cache.provenance if found.cache is not None and not run.computed else None
    found.merge(
        keys,
        spec=run.spec,
        augmentation=run.augmentation.to_dict() if run.augmentation else None,
        columns={
            "label": table.label_indices[rows],
            **{name: as_text(values)[rows] for name, values in texts.items()},
        },
        attributes={
            "class_names": list(table.class_names),
            "rejected": [asdict(rejected) for rejected in run.rejected],
        },
        provenance={**(kept or _provenance(run)), **_tell_patient_key(run)},
        alone=alone,
    )


def _tell_patient_key(run: _Run) -> dict[str, str]:
    return {} if run.patient_key is None else {"patient_key": run.patient_key}


def _provenance(run: _Run) -> dict[str, Any]:
    return {
        "recipe": run.backbone.recipe,
        "versions": runtime.versions(),
        "processor": runtime.processor(),
        "batch_size": run.batch_size,
    }
