"""One run of stage one: which rows are missing, computing them, and shards of what is finished."""

import hashlib
import threading
from collections.abc import Iterator, Mapping
from contextlib import closing, nullcontext
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainfeat import runtime
from brainfeat.cache.cache import FeatureCache
from brainfeat.cache.output import Output
from brainfeat.cache.row_index import make_key, row_keys
from brainfeat.cache.schema import Measured, Rejected
from brainfeat.cache.signature import compute_signature
from brainfeat.cache.spec import OLD_MEANINGS, FeatureSpec
from brainfeat.cache.writing import as_text
from brainfeat.errors import ImageReadError, SpecMismatchError
from brainfeat.extraction.augmentation import augment_pixels
from brainfeat.extraction.backbones import FeatureExtractor, compile_copies
from brainfeat.extraction.pipeline import BatchComputer, map_ahead
from brainfeat.extraction.preprocessing import quantize_image, resize_pixels
from brainfeat.extraction.seen_keys import SeenKeys
from brainfeat.extraction.shard_writer import Item, ShardWriter, Signature
from brainfeat.extraction.sights import Sight, Sights
from brainfeat.extraction.task import Task
from brainfeat.readers import ImageBytes, ImageHeader, read_bytes, read_header

Pixels = NDArray[np.uint8]

# Larger images are decoded one at a time: 64 million pixels take up to 1.8 GB meanwhile.
_LARGE_PIXELS = 4_000_000
# Views that are decoded ahead, so that the next batch is full when the current one is computed.
_VIEWS_AHEAD = 32


@dataclass(frozen=True, kw_only=True)
class _Loaded:
    """One image as a thread returns it: its digest, and what its rows lack.

    The signature is None where it is not wanted or exists already, the sight where nothing is read.
    """

    sha256: bytes = b""
    measured: Measured | None = None
    views: Mapping[int, Pixels] = field(default_factory=dict)
    signature: Signature | None = None
    sight: Sight | None = None
    error: ImageReadError | None = None


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
    sights : Sights
        What was seen of the images.

    Raises
    ------
    SpecMismatchError
        If the output has features of another spec.
    CacheError
        If the output has rows or signatures that this run would drop, as far as is known by now.
    """

    def __init__(self, task: Task, backbone: FeatureExtractor, output: Output) -> None:
        self.rejected: list[Rejected] = []
        self.sights = Sights(task.value_range)
        self._task = task
        self._backbone = backbone
        self._output = output
        # Of the images that were read; a bytes object for each would take three times as much.
        self._sha256 = np.zeros((len(task.table), 32), np.uint8)
        self._has_rows = np.zeros(len(task.table), np.bool_)
        self._seen = SeenKeys(len(task.table) * task.n_views)
        self._large_images = threading.Lock()
        self._computer: BatchComputer[Item] | None = None
        self.spec = self._choose_spec(output.cache)
        output.check_spec(self.spec)
        output.check_signature(self.spec, signature=task.signature)
        output.check_sizes(self._list_sizes(), paths=task.table.paths)
        self._index = output.index(self.spec, task.ranges)
        self._shards = ShardWriter(
            task.parts,
            spec=self.spec,
            augmentation=task.ranges,
            signature=task.signature,
            read_features=partial(output.read_features, self._index),
        )

    @property
    def computed(self) -> int:
        """Number of rows whose features were computed."""
        return self._shards.computed

    @property
    def signatures(self) -> int:
        """Number of signatures that were computed."""
        return self._shards.signatures

    @property
    def engine(self) -> str:
        """What computes the features, or ``""`` for a callable that does not tell."""
        return str(getattr(self._backbone, "engine", ""))

    @property
    def recipe(self) -> dict[str, Any]:
        """What determines the spec, known without loading the base."""
        reading = self._task.reading.items()
        added = {name: text for name, text in reading if text != OLD_MEANINGS[name]}
        return self._backbone.recipe | added

    def list_rows(self) -> Iterator[tuple[int, int]]:
        """Yield the image and the view of each row of the cache."""
        for row in np.flatnonzero(self._has_rows).tolist():
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
        ahead = task.n_jobs + _VIEWS_AHEAD // task.n_views
        try:
            # Closed at once, so that no thread goes on loading after an error.
            with closing(map_ahead(self._load, total, n_jobs=task.n_jobs, ahead=ahead)) as images:
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
            signature=self._task.signature,
            alone=alone,
        )

    def _choose_spec(self, cache: FeatureCache | None) -> FeatureSpec:
        """Take the spec of a cache that has this run's recipe: the base need not be loaded then."""
        if cache is not None and cache.provenance.get("recipe") == self.recipe:
            return cache.spec
        return self._complete_spec()

    def _complete_spec(self) -> FeatureSpec:
        """Add how the images are read to the spec of the backbone."""
        spec = self._backbone.spec
        for name, text in self._task.reading.items():
            if (stated := getattr(spec, name)) not in (OLD_MEANINGS[name], text):
                raise SpecMismatchError(
                    f"{name} is {text!r} for the images and {stated!r} in the spec of the "
                    f"backbone; leave {name} out of that spec"
                )
        return replace(spec, **self._task.reading)

    def _list_sizes(self) -> Iterator[tuple[int | None, int]]:
        """Yield the size of the file and the view of each row of the table."""
        table = self._task.table
        for row in range(len(table)):
            try:
                size = table.absolute_path(row).stat().st_size
            except OSError:  # it is rejected when it is read
                size = None
            yield from ((size, view) for view in self._task.list_views(row))

    def _load(self, row: int) -> _Loaded:
        """Read one file once, so that the bytes that are hashed are those that are decoded."""
        path = self._task.table.paths[row]
        try:
            data = read_bytes(self._task.table.absolute_path(row), name=path)
            sha256 = hashlib.sha256(data).digest()
            views, unsigned = self._list_lacking(row, sha256)
            if not views and not unsigned:
                return _Loaded(sha256=sha256)
            file = ImageBytes(data)
            header = read_header(file, name=path)
            large = header.width * header.height > _LARGE_PIXELS
            with self._large_images if large else nullcontext():
                pixels, sight = self._read(file, header, path)
                signature = compute_signature(pixels) if unsigned else None
                drawn = self._draw(pixels, sha256, views)
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
            views=drawn,
            signature=signature,
            sight=sight,
        )

    def _read(self, file: ImageBytes, header: ImageHeader, path: str) -> tuple[Pixels, Sight]:
        image = self._task.read(file, name=path)
        return quantize_image(image), Sight.of(image, header, in_alpha=file.in_alpha)

    def _list_lacking(self, row: int, sha256: bytes) -> tuple[list[int], bool]:
        """List the views of an image that lack features, and whether it lacks a signature."""
        keys = {view: make_key(sha256, view) for view in self._task.list_views(row)}
        views = [view for view, key in keys.items() if key not in self._index]
        return views, self._task.signature and not self._index.has(keys[0], "signature")

    def _draw(self, pixels: Pixels, sha256: bytes, views: list[int]) -> dict[int, Pixels]:
        """Resize an image, and draw the views of it that must be computed."""
        if not views:
            return {}
        small = resize_pixels(pixels, size=self.spec.input_size, fit=self.spec.fit)
        if (altered := self._task.alterations) is not None:
            return dict(altered.draw(pixels, small, sha256=sha256, views=views))
        ranges = self._task.augmentation
        return {
            view: augment_pixels(small, sha256=sha256, view=view, augmentation=ranges)
            if view and ranges
            else small
            for view in views
        }

    def _take(self, row: int, loaded: _Loaded) -> None:
        """Pass on what the rows of an image lack, each one once."""
        if loaded.error is not None:
            if self._task.on_error == "raise":
                raise loaded.error
            path = self._task.table.paths[row]
            self.rejected.append(Rejected(path=path, reason=loaded.error.reason))
        else:
            self._sha256[row] = np.frombuffer(loaded.sha256, np.uint8)
            self._has_rows[row] = True
        if loaded.sight is not None:
            self.sights.add(loaded.sight)
        if loaded.measured is None:
            return
        views = set(loaded.views) if loaded.signature is None else {0, *loaded.views}
        for view in sorted(views):
            if not self._seen.add(make_key(loaded.sha256, view)):
                continue
            signature = None if view else loaded.signature
            item = Item(row, view, loaded.sha256, loaded.measured, signature)
            if view in loaded.views:
                self._computer = self._computer or self._start_computer()
                self._computer.add(item, loaded.views[view])
            else:
                self._shards.receive_signature(item)

    def _start_computer(self) -> BatchComputer[Item]:
        self.spec.require(self._complete_spec(), here="the cache", there="this run")
        n_images = len(self._task.table) * self._task.n_views
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
            note = f"{self.spec.precision}{self.engine and f' by {self.engine}'}"
            self._task.progress(count, len(self._task.table), note)

    def _list_keys(self) -> NDArray[np.bytes_]:
        """Return the identity of each row of the cache, in the order of the table."""
        rows = np.fromiter((row for row, _ in self.list_rows()), np.intp)
        views = np.fromiter((view for _, view in self.list_rows()), np.int16)
        return row_keys(self._sha256[rows], views)

    def _describe_provenance(self) -> dict[str, Any]:
        """Describe what computed the rows; a cache that needs no new rows keeps its description."""
        origin, cache = self._task.origin, self._output.cache
        patient_key = {} if origin is None else {"patient_key": origin.patient_key}
        if cache is not None and not self.computed and cache.provenance:
            return {**cache.provenance, **patient_key}
        return {
            "recipe": self.recipe,
            "engine": self.engine,
            "versions": runtime.versions(),
            "processor": runtime.processor(),
            "batch_size": self._task.batch_size,
            **patient_key,
        }
