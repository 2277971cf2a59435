"""Style targets: the training images whose style views of images of other sources are given."""

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from brainfeat.errors import ImageReadError, ParameterError, TableError
from brainfeat.extraction.augmentation import Augmentation
from brainfeat.extraction.cropping import crop_pixels
from brainfeat.extraction.feature_extractors import FeatureExtractor
from brainfeat.extraction.pipeline import map_ahead
from brainfeat.extraction.preprocessing import quantize_image, resize_pixels
from brainfeat.extraction.styles import Pixels, Style, Target
from brainfeat.extraction.task import Task
from brainfeat.readers import ImageBytes, read_bytes, read_header
from brainfeat.tables.rows import quote, some
from brainfeat.tables.table import ImageTable
from brainfeat.tables.volume_table import VolumeTable

Read = Callable[..., NDArray[Any]]
Rows = NDArray[np.intp]

# Of what is kept of the targets; one takes 2 kB with a histogram or a beta of 0.05.
_HELD_BYTES = 64_000_000
# Larger targets are decoded one at a time, as other images are.
_LARGE_PIXELS = 4_000_000
# Files that are hashed ahead, for each thread.
_AHEAD = 4


@dataclass(frozen=True, kw_only=True, eq=False)
class Contents:
    """Distinct contents of images, with their sources; those of one source alone are targets.

    Attributes
    ----------
    keys : ndarray of shape (k,), S32
        Digest of each content and source, sorted.
    codes : ndarray of shape (k,), int
        Number of the source.
    rows : ndarray of shape (m,), int
        Row of the table of each target, in the order of sources and then of digests.
    digests : ndarray of shape (m, 32), uint8
        Digest of each target.
    starts : ndarray of shape (n + 1,), int
        Place of the first target of each source, and m.
    """

    keys: NDArray[np.bytes_]
    codes: Rows
    rows: Rows
    digests: NDArray[np.uint8]
    starts: Rows

    @classmethod
    def of(cls, digests: NDArray[np.uint8], codes: Rows, rows: Rows, *, n_sources: int) -> Self:
        """Collect the contents of images.

        Parameters
        ----------
        digests : ndarray of shape (n, 32), uint8
        codes, rows : ndarray of shape (n,), int
            Number of the source, and row of the table, of each image.
        n_sources : int
        """
        keys = np.ascontiguousarray(digests).view("S32").ravel()
        order = np.lexsort((rows, codes, keys))
        differs = _find_steps(keys[order]) | _find_steps(codes[order])
        order = order[differs]
        keys, codes, rows, digests = keys[order], codes[order], rows[order], digests[order]
        steps = _find_steps(keys)
        alone = np.flatnonzero(steps & np.append(steps[1:], True))
        targets = alone[np.argsort(codes[alone], kind="stable")]
        return cls(
            keys=keys,
            codes=codes,
            rows=rows[targets],
            digests=digests[targets],
            starts=np.searchsorted(codes[targets], np.arange(n_sources + 1)),
        )

    def find_sources(self, sha256: bytes) -> Rows:
        """Find the sources of an image by its content; none where it is not among these."""
        key = np.bytes_(sha256)
        low, high = (int(np.searchsorted(self.keys, key, side)) for side in ("left", "right"))
        return self.codes[low:high]

    def count_targets(self, excluded: Rows) -> int:
        """Count the targets that are of none of some sources, given by their numbers."""
        return len(self.rows) - int(np.diff(self.starts)[excluded].sum())

    def draw(self, excluded: Rows, random: np.random.Generator) -> Iterator[int]:
        """Draw a target that is of none of some sources, and then yield the ones after it.

        Parameters
        ----------
        excluded : ndarray of int
            Numbers of sources, sorted.
        random : numpy.random.Generator

        Yields
        ------
        int
            Place of a target; each one once.
        """
        sizes, number = np.diff(self.starts), self.count_targets(excluded)
        first = int(random.integers(number))
        for step in range(number):
            place = (first + step) % number
            for source in excluded:
                place += int(sizes[source]) if place >= self.starts[source] else 0
            yield place

    def digest(self, names: Sequence[str]) -> str:
        """Compute the SHA-256 of the targets with the names of their sources.

        Returns
        -------
        str
            64 hexadecimal digits.
        """
        found = hashlib.sha256()
        for name, (start, stop) in zip(names, pairwise(self.starts.tolist()), strict=True):
            if stop > start:
                found.update(f"{name}\0{stop - start}\0".encode())
                found.update(self.digests[start:stop].tobytes())
        return found.hexdigest()


class StyleTargets:
    """The images whose style views are given; each is decoded when it is first needed.

    The targets of a view are the training images of other sources than those of its image. One is
    drawn by the digest of the image, the number of the view and the seed, so that a view is the
    same in any order, run or machine. Images whose content is in several sources are no targets,
    nor are generated ones. In the place of a target that cannot be decoded, the next one is taken
    in the order of sources and digests. An image without a target, because it is of the source that
    is named, keeps its style.

    Parameters
    ----------
    table : ImageTable
        With splits, and with the source of each training image.
    augmentation : Augmentation
        With a style.
    read : callable
        Reads an image file.
    crop : str
        What images are cropped to, as the spec has it.
    n_jobs : int
        Threads that read all files once, to hash them.

    Attributes
    ----------
    augmentation : Augmentation
        With the digest of the targets.

    Raises
    ------
    TableError
        If the table has no splits, training images without a source, one source only, or not the
        source that is named; or if `augmentation` has the digest of other targets.
    """

    def __init__(
        self, table: ImageTable, augmentation: Augmentation, *, read: Read, crop: str, n_jobs: int
    ) -> None:
        self._table, self._read, self._crop = table, read, crop
        self._style = Style.parse(augmentation.style or "")
        names, rows, codes = _list_sources(table)
        wanted = augmentation.style_from.partition(":")[2]
        _check_sources(names, wanted)
        if wanted:
            rows, codes = rows[codes == names.index(wanted)], codes[codes == names.index(wanted)]
        digests, found = _hash_files(table, rows, n_jobs)
        self._contents = Contents.of(digests, codes[found], rows[found], n_sources=len(names))
        if not len(self._contents.rows):
            raise TableError("none of the images whose style views would be given can be read")
        self.augmentation = replace(augmentation, style_targets=self._contents.digest(names))
        if augmentation.style_targets not in (None, self.augmentation.style_targets):
            raise TableError(
                "the images whose style views are given are not those of style_targets; leave it"
                " out, so that the training images of this table are taken"
            )
        self._held: OrderedDict[int, Target | None] = OrderedDict()
        self._held_bytes = 0
        self._access, self._large = threading.Lock(), threading.Lock()

    def restyle(self, pixels: Pixels, *, sha256: bytes, view: int) -> Pixels:
        """Give an image the style of the target of one of its views.

        Parameters
        ----------
        pixels : ndarray of shape (size, size, 3), uint8
            Cropped and resized.
        sha256 : bytes
            Of its file.
        view : int
            From 1.

        Returns
        -------
        ndarray of shape (size, size, 3), uint8
            `pixels` itself where there is no target.

        Raises
        ------
        TableError
            If no target can be decoded, or one has changed since its file was hashed.
        """
        excluded = self._contents.find_sources(sha256)
        if not self._contents.count_targets(excluded):
            return pixels
        words = np.frombuffer(sha256, ">u4").tolist()
        # One word more than of the draws of the angle, so that those stay as without a style.
        seed = np.random.SeedSequence([self.augmentation.random_state, view, *words, 1])
        random = np.random.Generator(np.random.PCG64(seed))
        for place in self._contents.draw(excluded, random):
            target = self._take(place, len(pixels))
            if target is not None:
                return self._style.apply(pixels, target)
        raise TableError("none of the images whose style views are given can be decoded")

    def _take(self, place: int, size: int) -> Target | None:
        """Return a target, or None for one that cannot be decoded; the latest ones are kept."""
        with self._access:
            if place in self._held:
                self._held.move_to_end(place)
                return self._held[place]
        target = self._read_target(place, size)
        with self._access:
            if place not in self._held:
                self._held[place] = target
                self._held_bytes += 0 if target is None else target.nbytes
            while self._held_bytes > _HELD_BYTES and len(self._held) > 1:
                _, dropped = self._held.popitem(last=False)
                self._held_bytes -= 0 if dropped is None else dropped.nbytes
        return target

    def _read_target(self, place: int, size: int) -> Target | None:
        row = int(self._contents.rows[place])
        name = self._table.paths[row]
        try:
            data = read_bytes(self._table.absolute_path(row), name=name)
            if hashlib.sha256(data).digest() != self._contents.digests[place].tobytes():
                raise TableError(f"{quote(name)} has changed while it was in use; run it again")
            file = ImageBytes(data)
            header = read_header(file, name=name)
            large = header.width * header.height > _LARGE_PIXELS
            with self._large if large else nullcontext():
                pixels = crop_pixels(quantize_image(self._read(file, name=name)), self._crop)
                return self._style.read_target(resize_pixels(pixels, size=size))
        except ImageReadError:
            return None


def add_targets(task: Task, backbone: str | FeatureExtractor, *, input_size: int) -> Task:
    """Find the images whose style views are given, where they are given any.

    Parameters
    ----------
    task : Task
    backbone : str or FeatureExtractor
    input_size : int
        Height and width in pixels of what a base sees that is given by name.

    Returns
    -------
    Task
        The same without a style.

    Raises
    ------
    ParameterError
        If there are no views, or the style changes nothing of images of this size.
    TableError
        As of :class:`StyleTargets`; or if the table is one of volumes, which have no splits.
    """
    table, augmentation = task.table, task.augmentation
    if augmentation is None or augmentation.style is None:
        return task
    if not task.augment:
        raise ParameterError("a style is one of views, and there are none; pass augment=1 or more")
    seen = input_size if isinstance(backbone, str) else backbone.spec.input_size
    Style.parse(augmentation.style).check_size(seen)
    if isinstance(table, VolumeTable):
        raise TableError(
            "volumes have no splits, and styles are those of training images alone; cut them into"
            " slices with brainfeat slices, split these with brainfeat split, and extract that"
            " table"
        )
    found = StyleTargets(table, augmentation, read=task.read, crop=task.crop, n_jobs=task.n_jobs)
    return replace(task, augmentation=found.augmentation, restyle=found.restyle)


def _find_steps(values: NDArray[Any]) -> NDArray[np.bool_]:
    """Find where a value differs from the one before it, and the first."""
    steps = np.ones(len(values), np.bool_)
    steps[1:] = values[1:] != values[:-1]
    return steps


def _list_sources(table: ImageTable) -> tuple[list[str], Rows, Rows]:
    """List the sources of the training images, sorted; and the row and source of each of them."""
    if not table.has_splits:
        raise TableError(
            "styles are those of training images alone, and the table has no splits, so that any"
            " image may become a test image; write splits with brainfeat split, and extract that"
            " table"
        )
    pairs = enumerate(zip(table.splits, table.origins, strict=True))
    rows = np.array([row for row, (split, made) in pairs if split == "train" and not made], np.intp)
    without = [row for row in rows if not table.sources[row]]
    if without:
        raise TableError(
            f"{len(without):,} of {len(rows):,} training images have no source (first:"
            f" {quote(table.paths[without[0]])}), and styles are those of other sources; fill the"
            " column source of the table, or leave the style out"
        )
    names = sorted({table.sources[row] for row in rows})
    numbers = {name: number for number, name in enumerate(names)}
    return names, rows, np.array([numbers[table.sources[row]] for row in rows], np.intp)


def _check_sources(names: Sequence[str], wanted: str) -> None:
    """Refuse sources of which none is another one."""
    if wanted and wanted not in names:
        raise TableError(
            f"no training image is of the source {quote(wanted)}; expected one of {some(names)}"
        )
    if len(names) < 2:
        raise TableError(
            f"the training images are of {'one source' if names else 'no source'}"
            f" ({some(names) or 'there are none'}), and styles are those of other sources; expected"
            " two or more in the column source of the table"
        )


def _hash_files(
    table: ImageTable, rows: Rows, n_jobs: int
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Hash files; also tell which can be read, whose digests are returned."""
    hashed = map_ahead(
        partial(_hash_file, table), rows.tolist(), n_jobs=n_jobs, ahead=_AHEAD * n_jobs
    )
    digests, found = bytearray(), np.zeros(len(rows), np.bool_)
    for number, digest in enumerate(hashed):
        if digest is not None:
            digests += digest
            found[number] = True
    return np.frombuffer(bytes(digests), np.uint8).reshape(-1, 32), found


def _hash_file(table: ImageTable, row: int) -> bytes | None:
    try:
        return hashlib.sha256(read_bytes(table.absolute_path(row), name=table.paths[row])).digest()
    except ImageReadError:
        return None
