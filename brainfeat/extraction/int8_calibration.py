"""int8 is calibrated on a sample of training images, and checked on others."""

import hashlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from brainfeat.cache.spec import FeatureSpec, Precision
from brainfeat.errors import ImageReadError, ParameterError, SpecMismatchError
from brainfeat.extraction.backbones import Backbone
from brainfeat.extraction.cropping import crop_pixels
from brainfeat.extraction.graph import plan_quantization, read_graph
from brainfeat.extraction.preprocessing import quantize_image, resize_pixels
from brainfeat.extraction.quantization import Quantization
from brainfeat.extraction.task import Task
from brainfeat.readers import ImageBytes, read_bytes
from brainfeat.runtime import processor
from brainfeat.tables.table import ImageTable
from brainfeat.tables.volume_table import VolumeTable

ChosenPrecision = Precision | Literal["auto"]
Pixels = NDArray[np.uint8]
# An image of shape (1, h, w, 3), and the digest of its file.
Sampled = tuple[Pixels, bytes]
Report = Callable[[int, int], None]

# Images that ranges are taken from and checked on: the ranges of 300 slices cover those of others,
# and a mean over 64 is exact to the digits that count (docs/benchmarks.md).
_CALIBRATED, _CHECKED = 300, 64
# No more than are checked, which are held until all ranges are taken.
_FEWEST = 48
# Of the checked images, the third that is left where there are few.
_CHECKED_FRACTION = 3
# The least mean cosine of the features to those of float32.
LEAST_COSINE = 0.999
_DIGITS = 6


def load_calibrated(
    load: Callable[..., Backbone],
    earlier: FeatureSpec | None,
    task: Task,
    precision: ChosenPrecision,
    *,
    force: bool,
) -> Backbone:
    """Load a base in the precision of an earlier run or the wanted one, int8 with its ranges.

    Parameters
    ----------
    load : callable
        Loads the base, with the keyword arguments `precision` and `quantization`.
    earlier : FeatureSpec or None
        That of the rows that exist.
    task : Task
        Has the images that int8 is calibrated on.
    precision : {"auto", "float32", "bfloat16", "float16", "int8"}
    force : bool
        As for `calibrate`.

    Returns
    -------
    Backbone

    Raises
    ------
    ParameterError, SpecMismatchError
        As of `calibrate`; or there are volumes in place of image files.
    """
    if precision == "auto" and earlier is not None:
        precision = earlier.precision
    if precision != "int8":
        return load(precision=precision)
    quantization = "" if earlier is None else earlier.quantization
    if not quantization:
        if isinstance(task.table, VolumeTable):
            raise ParameterError(
                "int8 is calibrated on image files; cut the volumes into slices first, with"
                " brainfeat slices or write_slices, or take another precision"
            )
        found = calibrate(
            load,
            task.table,
            read=task.read,
            crop=task.crop,
            random_state=task.random_state,
            force=force,
            report=partial(_report_calibration, task),
        )
        quantization = found.text
    return load(precision="int8", quantization=quantization)


def _report_calibration(task: Task, done: int, number: int) -> None:
    if task.progress is not None:
        note = f"int8 by openvino, calibrating on {done:,} of {number:,} images"
        task.progress(0, len(task.table), note)


def calibrate(
    load: Callable[..., Backbone],
    table: ImageTable,
    *,
    read: Callable[..., NDArray[Any]],
    crop: str,
    random_state: int,
    force: bool,
    report: Report = lambda _done, _total: None,
) -> Quantization:
    """Take the ranges of a base from training images, and check its features on others.

    Parameters
    ----------
    load : callable
        Loads the base, with the keyword arguments `precision` and `quantization`.
    table : ImageTable
        The images; those of val and test are not used, and without splits all are.
    read : callable
        Reads an image.
    crop : str
        What images are cropped to, as in the spec.
    random_state : int
        Seed of the sample.
    force : bool
        Whether a base is accepted whose features int8 changes.
    report : callable
        Called with the number of images that were computed, and the largest that it can become.

    Returns
    -------
    Quantization

    Raises
    ------
    ParameterError
        If there are too few images, or OpenVINO cannot compute in int8 here.
    SpecMismatchError
        If the features change by too much.
    """
    base = load(precision="float32")
    rows = _list_training_rows(table)
    expected = min(len(rows), _CALIBRATED + _CHECKED)
    sample = _read_sample(
        table, rows, base.input_size, read=read, crop=crop, random_state=random_state
    )
    held = deque(islice(sample, _CHECKED))
    if len(held) < _FEWEST:
        raise ParameterError(
            f"{len(held)} different training images that can be read, too few to calibrate int8 "
            f"on; expected at least {_FEWEST}; take another precision"
        )
    digests: list[bytes] = []
    # What has AMX computes in bfloat16 several times as fast, and ranges need no more digits. The
    # choice must not depend on how fast it is today, as the ranges are part of the spec.
    precision: Precision = "bfloat16" if "amx_bf16" in processor()["features"] else "float32"
    ranges = []
    for found in base.observe(_take_calibrated(sample, held, digests), precision):
        ranges.append(found.ranges)
        report(len(ranges), expected)
    quantization = Quantization(
        images=len(ranges),
        images_sha256=hashlib.sha256(b"".join(sorted(digests))).hexdigest(),
        ranges=join_ranges(base.name, ranges),
    )
    checked = [pixels for pixels, _ in held]
    full = [found.features for found in base.observe(checked, "float32")]
    widths = [*base.taps.widths.values()]
    name = base.name
    # Its memory is free before that of the base in int8 is taken.
    del base
    int8 = load(precision="int8", quantization=quantization.text)
    cosine = _compare(full, [_cut(int8(pixels), widths) for pixels in checked])
    report(expected, expected)
    if cosine < LEAST_COSINE and not force:
        raise SpecMismatchError(
            f"int8 changes the features of {name}: their mean cosine to those in float32 is "
            f"{cosine:.4f} on {len(checked)} images, below {LEAST_COSINE}; take another precision "
            "or base, or pass force=True"
        )
    return quantization


def _list_training_rows(table: ImageTable) -> NDArray[np.intp]:
    """List the rows of train, without splits all, but for generated images."""
    wanted = {"train"} if table.has_splits else {""}
    pairs = enumerate(zip(table.splits, table.origins, strict=True))
    return np.array([row for row, (split, made) in pairs if split in wanted and not made], np.intp)


def _read_sample(
    table: ImageTable,
    rows: NDArray[np.intp],
    input_size: int,
    *,
    read: Callable[..., NDArray[Any]],
    crop: str,
    random_state: int,
) -> Iterator[Sampled]:
    """Read different images, drawn at random, as far as they can be read, when they are needed."""
    seen: set[bytes] = set()
    for row in np.random.default_rng(random_state).permutation(rows):
        try:
            data = read_bytes(table.absolute_path(row), name=table.paths[row])
            digest = hashlib.sha256(data).digest()
            if digest in seen:
                continue
            pixels = quantize_image(read(ImageBytes(data), name=table.paths[row]))
            resized = resize_pixels(crop_pixels(pixels, crop), size=input_size)
        except ImageReadError:
            continue
        seen.add(digest)
        yield resized[None], digest
        if len(seen) == _CALIBRATED + _CHECKED:
            break


def _take_calibrated(
    sample: Iterator[Sampled], held: deque[Sampled], digests: list[bytes]
) -> Iterator[Pixels]:
    """Yield the images to calibrate on, note their digests, and leave those to check in `held`."""

    def take() -> Pixels:
        pixels, digest = held.popleft()
        digests.append(digest)
        return pixels

    for entry in sample:
        held.append(entry)
        yield take()
    checked = min(_CHECKED, (len(digests) + len(held)) // _CHECKED_FRACTION)
    while len(held) > checked:
        yield take()


def join_ranges(name: str, ranges: Sequence[NDArray[np.float32]]) -> dict[str, tuple[float, float]]:
    """Take the least and the largest of all batches, by source."""
    limits = np.stack(ranges)
    lows, highs = limits[:, :, 0].min(axis=0), limits[:, :, 1].max(axis=0)
    sources = plan_quantization(read_graph(name)).sources
    return {
        source: (_round(low), _round(high))
        for source, low, high in zip(sources, lows, highs, strict=True)
    }


def _round(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")


def _cut(rows: NDArray[np.float32], widths: Sequence[int]) -> list[NDArray[np.float32]]:
    """Cut computed rows into the vectors of each layer, without the map after them."""
    return np.split(rows, np.cumsum(widths), axis=1)[: len(widths)]


def _compare(expected: Sequence[Any], found: Sequence[Any]) -> float:
    """Return the mean cosine of the features of batches, of the layer that has the lowest."""
    cosines = []
    for layer in range(len(expected[0])):
        first, second = (
            np.concatenate([rows[layer] for rows in batches]) for batches in (expected, found)
        )
        lengths = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
        cosines.append(float(((first * second).sum(axis=1) / lengths).mean()))
    return min(cosines)
