"""Measure which altered copies the signatures of images find, and what a threshold joins.

    python examples/copy_threshold.py mri.h5 --images brain-mri

Two images are copies if their signatures have a large enough cosine in one of eight orientations,
or if one lies on the other once it is moved. No base is loaded; the cache must have signatures and
splits.
"""

import argparse
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from brainfeat import FeatureCache, read_table
from brainfeat.cache.signature import ORIENTATIONS, compute_signature, orient_signatures
from brainfeat.leakage.altered_copies import find_altered_copies
from brainfeat.leakage.copies import Copies, find_copies

THRESHOLDS = (0.86, 0.88, 0.90, 0.92, 0.94, 0.96, 0.98)
ALIGNED_THRESHOLDS = (0.88, 0.90, 0.92, 0.94, 0.96, 0.97, 0.98, 0.99)


def save_as_jpeg(image: Image.Image) -> Image.Image:
    """Save a slice with JPEG quality 30 and read it back."""
    file = BytesIO()
    image.save(file, "JPEG", quality=30)
    return Image.open(BytesIO(file.getvalue()))


def add_noise(image: Image.Image) -> Image.Image:
    """Add noise with a standard deviation of 2 % of the range."""
    pixels = np.asarray(image, np.float64)
    noisy = pixels + np.random.default_rng(0).normal(scale=0.02 * 255, size=pixels.shape)
    return Image.fromarray(noisy.round().clip(0, 255).astype(np.uint8))


def crop(fraction: float) -> Callable[[Image.Image], Image.Image]:
    """Cut a fraction off each side."""
    return lambda image: ImageOps.crop(image, round(fraction * min(image.size)))


def rotate(degrees: float) -> Callable[[Image.Image], Image.Image]:
    """Rotate a slice about its centre."""
    return lambda image: image.rotate(degrees, Image.Resampling.BICUBIC)


ALTERATIONS: dict[str, Callable[[Image.Image], Image.Image]] = {
    "half as large": lambda image: ImageOps.scale(image, 0.5),
    "another aspect ratio": lambda image: image.resize((280, 200)),
    "JPEG of quality 30": save_as_jpeg,
    "brightness 1.4": lambda image: image.point(lambda value: min(255, round(1.4 * value))),
    "gamma 0.6": lambda image: image.point(lambda value: round(255 * (value / 255) ** 0.6)),
    "2 % of noise": add_noise,
    "mirrored": ImageOps.mirror,
    "upside down": ImageOps.flip,
    "turned by 90°": lambda image: image.transpose(Image.Transpose.ROTATE_90),
    "turned by 180°": lambda image: image.transpose(Image.Transpose.ROTATE_180),
    "turned by 270°": lambda image: image.transpose(Image.Transpose.ROTATE_270),
    "rotated by 3°": rotate(3),
    "rotated by 8°": rotate(8),
    "3 % cropped off each side": crop(0.03),
    "6 % cropped off each side": crop(0.06),
    "padded by 10 %": lambda image: ImageOps.expand(image, round(0.1 * min(image.size))),
    "5°, 4 % cropped, mirrored": lambda image: ImageOps.mirror(crop(0.04)(rotate(5)(image))),
}


def main(arguments: list[str] | None = None) -> None:
    """Print three tables."""
    parser = argparse.ArgumentParser(description="Measure which copies signatures find.")
    parser.add_argument("features", help="cache of the slices, with signatures and splits")
    parser.add_argument("--images", required=True, help="table or folder that was extracted")
    parser.add_argument("--number", type=int, default=300, help="number of slices to alter")
    chosen = parser.parse_args(arguments)

    with FeatureCache.open(chosen.features) as cache:
        if cache.signature is None:
            parser.error(f"{chosen.features} has no signatures; run brainfeat extract again")
        rows = np.flatnonzero(cache.mask())
        signatures, y, splits = cache.signature[rows], cache.y[rows], cache.splits[rows]
        names = cache.class_names
        some = np.random.default_rng(0).permutation(len(rows))[: chosen.number]
        paths = [Path(read_table(chosen.images).root, path) for path in cache.paths[rows[some]]]
    print(f"{len(some)} slices{'least':>26}{'median':>9}{'≥ 0.92':>9}{'or aligned':>13}")
    for name, alter in ALTERATIONS.items():
        altered = np.stack([sign(path, alter) for path in paths])
        cosines = compare(signatures[some], altered)
        found = (cosines >= 0.92) | align(signatures[some], altered)
        print(
            f"{name:28}{cosines.min():8.3f}{np.median(cosines):9.3f}{(cosines >= 0.92).mean():9.1%}"
            f"{found.mean():13.1%}"
        )
    aligned = join(find_altered_copies(signatures, threshold=ALIGNED_THRESHOLDS[0]))
    print("\nthreshold               pairs found by alignment  pairs of two classes")
    for threshold in ALIGNED_THRESHOLDS:
        _, conflicts = count(aligned, splits, y, threshold)
        print(f"{threshold:9.2f}{(aligned.similarity >= threshold).sum():35,}{conflicts:22,}")
    copies = join(find_copies(signatures, threshold=THRESHOLDS[0]))
    print("\nthreshold  test images with a copy in train  pairs of two classes")
    for threshold in THRESHOLDS:
        copied, conflicts = count(copies, splits, y, threshold)
        print(f"{threshold:9.2f}{len(copied):35,}{conflicts:22,}")
        if threshold == 0.92:
            moved, _ = count(aligned, splits, y, 0.98)
            together = np.union1d(copied, moved)
            left = np.setdiff1d(np.flatnonzero(splits == "test"), copied)
    print(f"\ntest images with a copy at 0.92, or aligned at 0.98, in train: {len(together):,}")
    counts = np.bincount(y[left], minlength=len(names))
    print("test images without a copy at 0.92:", dict(zip(names, counts.tolist(), strict=True)))


def sign(path: Path, alter: Callable[[Image.Image], Image.Image]) -> NDArray[np.int8]:
    """Compute the signature of an altered slice."""
    with Image.open(path) as image:
        return compute_signature(np.asarray(alter(image.convert("L"))))


def compare(first: NDArray[np.int8], second: NDArray[np.int8]) -> NDArray[np.float32]:
    """Return the largest cosine of each pair over the eight orientations."""
    turned = np.stack([orient_signatures(second, turn) for turn in range(len(ORIENTATIONS))])
    one, others = (array.astype(np.float32) for array in (first, turned))
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(others[0], axis=1)
    cosines: NDArray[np.float32] = (one * others).sum(axis=2).max(axis=0) / lengths
    return cosines


def align(first: NDArray[np.int8], second: NDArray[np.int8]) -> NDArray[np.bool_]:
    """Tell which of the pairs are copies once one of the images is moved."""
    found = np.zeros(len(first), np.bool_)
    for block in find_altered_copies(np.concatenate([first, second])):
        found[block.first[block.second == block.first + len(first)]] = True
    return found


def join(blocks: Iterator[Copies]) -> Copies:
    """Join all blocks of copies; there may be none."""
    none = np.empty(0, np.intp)
    empty = Copies(none, none, none.astype(np.float32), none.astype(np.int8))
    return Copies(*(np.concatenate(part) for part in zip(empty, *blocks, strict=True)))


def count(
    copies: Copies, splits: NDArray[np.str_], y: NDArray[np.int64], threshold: float
) -> tuple[NDArray[np.intp], int]:
    """List the test images that have a copy in train, and count the pairs of two classes."""
    kept = copies.similarity >= threshold
    first, second = copies.first[kept], copies.second[kept]
    test = [
        one[(splits[one] == "test") & (splits[other] == "train")]
        for one, other in ((first, second), (second, first))
    ]
    return np.unique(np.concatenate(test)), int((y[first] != y[second]).sum())


if __name__ == "__main__":
    main()
