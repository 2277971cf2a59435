"""One run of stage one: which rows are missing, computing them, and shards of what is finished."""

import threading
from array import array
from collections import deque
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing, nullcontext
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainfeat import runtime
from brainfeat.cache.cache import FeatureCache
from brainfeat.cache.output import Output
from brainfeat.cache.row_index import make_key, row_keys
from brainfeat.cache.schema import Measured, Rejected
from brainfeat.cache.signature import compute_signature
from brainfeat.cache.spec import FeatureSpec
from brainfeat.errors import ImageReadError
from brainfeat.extraction.columns import list_sizes, make_columns
from brainfeat.extraction.computed_rows import choose_layout
from brainfeat.extraction.cropping import crop_pixels, make_grey
from brainfeat.extraction.feature_extractors import FeatureExtractor, compile_copies
from brainfeat.extraction.inputs import Input, list_inputs
from brainfeat.extraction.pipeline import BatchComputer, map_ahead
from brainfeat.extraction.preprocessing import resize_pixels
from brainfeat.extraction.shard_writer import Item, ShardWriter, Signature
from brainfeat.extraction.sights import Sight, Sights
from brainfeat.extraction.task import Task
from brainfeat.tables.rows import Row
from brainfeat.tables.table import ImageTable
from brainfeat.text import describe_unreadable

Pixels = NDArray[np.uint8]

# Larger images are decoded one at a time: 64 million pixels take up to 1.8 GB meanwhile.
_LARGE_PIXELS = 4_000_000
# Views that are decoded ahead, so that the next batch is full when the current one is computed.
_VIEWS_AHEAD = 32
# Views of volumes that are held, and their bytes: before the base is loaded, to find whether there
# are so few that batches are smaller; and later to keep it busy while the next volume is decoded.
_HELD_VIEWS = 200
_HELD_BYTES = 64_000_000


@dataclass(frozen=True, kw_only=True)
class _Loaded:
    """One image as a thread returns it: its digest, and what its rows lack.

    The signature is None where it is not wanted or exists already, the sight where nothing is read.
    """

    place: int
    number: int
    done: int
    path: str
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
        self._inputs = list_inputs(task.table, task.read)
        self._backbone = backbone
        self._output = output
        # Of the images that were read; a bytes object for each would take three times as much.
        self._sha256 = bytearray()
        self._places = array("q")
        self._seen: set[bytes] = set()
        self._large_images = threading.Lock()
        self._computer: BatchComputer[Item] | None = None
        self._most_rows: int | None = None  # None for many
        self.spec = self._choose_spec(output.cache)
        output.check_spec(self.spec)
        output.check_signature(self.spec, signature=task.signature)
        if isinstance(task.table, ImageTable):
            sizes = list_sizes(task.table, task.list_views)
            output.check_sizes(sizes, paths=task.table.paths)
        self._index = output.index(self.spec, task.ranges)
        self._layout = choose_layout(self.spec, backbone)
        self._shards = ShardWriter(
            task.parts,
            layout=self._layout,
            augmentation=task.ranges,
            signature=task.signature,
            read_rows=partial(output.read_rows, self._index),
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
        return self._task.complete_recipe(self._backbone.recipe)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is probably a mistake in the images that were read."""
        return (*self._inputs.describe(), *self.sights.warnings)

    def list_rows(self) -> Iterator[tuple[int, int]]:
        """Yield the place in the table and the view of each row of the cache."""
        table = self._inputs.build_table()
        for place in self._places:
            yield from ((place, view) for view in self._task.list_views(table.row(place)))

    def compute(self) -> None:
        """Compute the rows that are missing and write them to shards.

        Raises
        ------
        ImageReadError
            If no image can be read, or if one cannot and the task is to raise its error.
        CacheError
            If the features are not usable, or shards cannot be written.
        """
        inputs = self._inputs
        for refused in inputs.refused:
            self._reject(refused, ImageReadError(refused.path, refused.reason))
        try:
            # Closed at once, so that no thread goes on loading after an error.
            with closing(self._load_ahead()) as images:
                for loaded in images:
                    self._take(loaded)
                    self._report(loaded.done)
            if self._computer is not None:
                self._computer.finish()
        finally:
            if self._computer is not None:
                self._computer.close()
                self._computer = None
            self._shards.save()
        self._report(len(inputs))
        if not self._places:
            raise ImageReadError(
                describe_unreadable(len(self.rejected), inputs.noun, self.rejected[0].path),
                self.rejected[0].reason,
            )

    @property
    def _held(self) -> int:
        return min(_HELD_VIEWS, _HELD_BYTES // (3 * self.spec.input_size**2))

    def _load_ahead(self) -> Generator[_Loaded, None, None]:
        """Load images in threads, and find how many there are if they are few."""
        n_jobs, n_views, n_images = self._task.n_jobs, self._task.n_views, self._inputs.n_images
        ahead = n_jobs + _VIEWS_AHEAD // n_views
        with (
            closing(iter(self._inputs)) as inputs,
            closing(map_ahead(self._load, inputs, n_jobs=n_jobs, ahead=ahead)) as images,
        ):
            first: deque[_Loaded] = deque()
            if n_images is None:
                held = max(1, self._held // n_views)
                first.extend(islice(images, held))
                if len(first) < held:
                    n_images = sum(loaded.error is None for loaded in first)
            self._most_rows = None if n_images is None else n_images * n_views
            while first:
                yield first.popleft()
            yield from images

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
        table, output = self._inputs.build_table(), self._output
        keys = self._list_keys()
        self._index.close()
        output.check_dropped(keys)
        rows = np.fromiter((row for row, _ in self.list_rows()), np.intp)
        output.merge(
            keys,
            spec=self.spec,
            augmentation=self._task.ranges,
            columns=make_columns(table, rows),
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
            return cache.stored_spec
        return self._task.complete_spec(self._backbone.spec)

    def _load(self, image: Input) -> _Loaded:
        """Open one image once, so that what is hashed is what is decoded."""
        loaded = _Loaded(
            place=image.place, number=image.number, done=image.done, path=image.row.path
        )
        try:
            opened = image.open()
            views, unsigned = self._list_lacking(image.row, opened.sha256)
            if not views and not unsigned:
                return replace(loaded, sha256=opened.sha256)
            measured = opened.measure()
            large = measured.width * measured.height > _LARGE_PIXELS
            with self._large_images if large else nullcontext():
                pixels, sight = opened.read()
                # One grey image serves both.
                grey = make_grey(pixels) if self.spec.crop else pixels
                signature = compute_signature(grey) if unsigned else None
                kept = crop_pixels(pixels, self.spec.crop, grey=grey) if views else pixels
                drawn = self._draw(pixels, kept, opened.sha256, views)
        except ImageReadError as error:
            return replace(loaded, error=error)
        return replace(
            loaded,
            sha256=opened.sha256,
            measured=measured,
            views=drawn,
            signature=signature,
            sight=sight._replace(uncropped=bool(views) and self.spec.crop != "" and kept is pixels),
        )

    def _list_lacking(self, row: Row, sha256: bytes) -> tuple[list[int], bool]:
        """List the views of an image that lack features, and whether it lacks a signature."""
        keys = {view: make_key(sha256, view) for view in self._task.list_views(row)}
        views = [view for view, key in keys.items() if key not in self._index]
        return views, self._task.signature and not self._index.has(keys[0], "signature")

    def _draw(
        self, pixels: Pixels, kept: Pixels, sha256: bytes, views: list[int]
    ) -> dict[int, Pixels]:
        """Resize what is kept of an image, and draw the views of it that must be computed."""
        if not views:
            return {}
        small = resize_pixels(kept, size=self.spec.input_size, fit=self.spec.fit)
        if (altered := self._task.alterations) is not None:
            crop = self.spec.crop
            return dict(altered.draw(pixels, small, sha256=sha256, views=views, crop=crop))
        return {view: self._task.draw_view(small, sha256=sha256, view=view) for view in views}

    def _reject(self, rejected: Rejected, error: ImageReadError) -> None:
        if self._task.on_error == "raise":
            raise error
        self.rejected.append(rejected)

    def _take(self, loaded: _Loaded) -> None:
        """Pass on what the rows of an image lack, each one once."""
        if loaded.error is not None:
            self._reject(Rejected(path=loaded.path, reason=loaded.error.reason), loaded.error)
        else:
            self._sha256 += loaded.sha256
            self._places.append(loaded.place)
        if loaded.sight is not None:
            self.sights.add(loaded.sight)
        if loaded.measured is None:
            return
        views = set(loaded.views) if loaded.signature is None else {0, *loaded.views}
        for view in sorted(views):
            if (key := make_key(loaded.sha256, view)) in self._seen:
                continue
            self._seen.add(key)
            signature = None if view else loaded.signature
            item = Item(loaded.number, view, loaded.sha256, loaded.measured, signature)
            if view in loaded.views:
                self._computer = self._computer or self._start_computer()
                self._computer.add(item, loaded.views[view])
            else:
                self._shards.receive_signature(item)

    def _start_computer(self) -> BatchComputer[Item]:
        self.spec.require(
            self._task.complete_spec(self._backbone.spec), here="the cache", there="this run"
        )
        copies, preferred = compile_copies(self._backbone, n_images=self._most_rows)
        batch_size = self._task.batch_size or preferred
        size = self.spec.input_size
        return BatchComputer(
            copies,
            batch_size=batch_size if self._most_rows is None else min(batch_size, self._most_rows),
            image_shape=(size, size, 3),
            n_features=self._layout.width,
            receive=self._shards.receive,
            queued=0 if self._inputs.n_images else self._held,
        )

    def _report(self, done: int) -> None:
        """Report progress: an image counts once its features have been computed."""
        if self._task.progress is not None:
            waiting = self._computer and self._computer.oldest
            count = waiting.number if waiting else done
            note = f"{self.spec.precision}{self.engine and f' by {self.engine}'}"
            self._task.progress(count, len(self._inputs), note)

    def _list_keys(self) -> NDArray[np.bytes_]:
        """Return the identity of each row of the cache, in the order of the table."""
        table = self._inputs.build_table()
        n_views = [len(self._task.list_views(table.row(place))) for place in self._places]
        sha256 = np.frombuffer(self._sha256, np.uint8).reshape(-1, 32)
        views = np.fromiter((view for _, view in self.list_rows()), np.int16)
        return row_keys(np.repeat(sha256, n_views, axis=0), views)

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
