"""int8 is calibrated on a sample of training images, and checked on others."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainfeat.cache.spec import Precision
from brainfeat.errors import ImageReadError, ParameterError, SpecMismatchError
from brainfeat.extraction.backbones import Backbone
from brainfeat.extraction.cropping import crop_pixels
from brainfeat.extraction.graph import plan_quantization, read_graph
from brainfeat.extraction.openvino_engine import Observed
from brainfeat.extraction.preprocessing import quantize_image, resize_pixels
from brainfeat.extraction.quantization import Quantization
from brainfeat.readers import ImageBytes, read_bytes
from brainfeat.runtime import processor
from brainfeat.tables.table import ImageTable

Pixels = NDArray[np.uint8]
Report = Callable[[int, int], None]

# Images that ranges are taken from and checked on: the ranges of 300 slices cover those of others,
# and a mean over 64 is exact to the digits that count (docs/benchmarks.md).
_CALIBRATED, _CHECKED = 300, 64
_FEWEST = 48
# Of the checked images, the third that is left where there are few.
_CHECKED_FRACTION = 3
# The least mean cosine of the features to those of float32.
LEAST_COSINE = 0.999
_BATCH = 1
_DIGITS = 6


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
        Called with the number of images that were computed, and their total.

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
    images, digests = _read_sample(
        table, base.input_size, read=read, crop=crop, random_state=random_state
    )
    checked = min(_CHECKED, len(images) // _CHECKED_FRACTION)
    calibrated = len(images) - checked
    # What has AMX computes in bfloat16 several times as fast, and ranges need no more digits. The
    # choice must not depend on how fast it is today, as the ranges are part of the spec.
    precision: Precision = "bfloat16" if "amx_bf16" in processor()["features"] else "float32"
    observed: list[Observed] = []
    for found in base.observe(_split(images[:calibrated]), precision):
        observed.append(found)
        report(min(len(observed) * _BATCH, calibrated), len(images))
    quantization = Quantization(
        images=calibrated,
        images_sha256=hashlib.sha256(b"".join(sorted(digests[:calibrated]))).hexdigest(),
        ranges=join_ranges(base.name, [found.ranges for found in observed]),
    )
    int8 = load(precision="int8", quantization=quantization.text)
    full = base.observe(_split(images[calibrated:]), "float32")
    cosine = _compare(
        [found.features for found in full],
        [int8(batch) for batch in _split(images[calibrated:])],
    )
    report(len(images), len(images))
    if cosine < LEAST_COSINE and not force:
        raise SpecMismatchError(
            f"int8 changes the features of {base.name}: their mean cosine to those in float32 is "
            f"{cosine:.4f} on {checked} images, below {LEAST_COSINE}; take another precision or "
            "base, or pass force=True"
        )
    return quantization


def _read_sample(
    table: ImageTable,
    input_size: int,
    *,
    read: Callable[..., NDArray[Any]],
    crop: str,
    random_state: int,
) -> tuple[list[Pixels], list[bytes]]:
    """Read different training images, drawn at random, as far as they can be read."""
    rows = np.array(
        [row for row, split in enumerate(table.splits) if split == "train" or not table.has_splits]
    )
    images: list[Pixels] = []
    digests: list[bytes] = []
    for row in np.random.default_rng(random_state).permutation(rows):
        try:
            data = read_bytes(table.absolute_path(row), name=table.paths[row])
            digest = hashlib.sha256(data).digest()
            if digest not in digests:
                pixels = quantize_image(read(ImageBytes(data), name=table.paths[row]))
                images.append(resize_pixels(crop_pixels(pixels, crop), size=input_size))
                digests.append(digest)
        except ImageReadError:
            continue
        if len(images) == _CALIBRATED + _CHECKED:
            break
    if len(images) < _FEWEST:
        raise ParameterError(
            f"{len(images)} different training images that can be read, too few to calibrate int8 "
            f"on; expected at least {_FEWEST}; take another precision"
        )
    return images, digests


def _split(images: Sequence[Pixels]) -> Iterator[Pixels]:
    """Yield batches of one size; the last images fill up the last one."""
    for end in range(_BATCH, len(images) + _BATCH, _BATCH):
        end_here = min(end, len(images))
        yield np.stack(images[end_here - _BATCH : end_here])


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


def _compare(expected: Sequence[Any], found: Sequence[Any]) -> float:
    """Return the mean cosine of features."""
    first, second = np.concatenate(expected), np.concatenate(found)
    lengths = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    return float(((first * second).sum(axis=1) / lengths).mean())
