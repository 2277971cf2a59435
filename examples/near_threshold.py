"""Measure how similar altered copies of slices are, and slices of different classes.

    python examples/near_threshold.py mri.h5 --images brain-mri --backbone mobilenet-0.75

`brainfeat audit` calls two images near duplicates if their centred features have a large enough
cosine. This script measures which copies a threshold finds, and how similar other images are.
"""

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageOps

from brainfeat import FeatureCache, extract, read_table

THRESHOLDS = (0.90, 0.92, 0.94)
QUANTILES = (0.5, 0.99, 0.999, 1.0)


def rotate(degrees: float) -> Callable[[Image.Image], Image.Image]:
    """Rotate a slice about its centre."""
    return lambda image: image.rotate(degrees, Image.Resampling.BICUBIC)


def resize(factor: float) -> Callable[[Image.Image], Image.Image]:
    """Resample a slice."""
    return lambda image: ImageOps.scale(image, factor, Image.Resampling.BICUBIC)


def crop(image: Image.Image) -> Image.Image:
    """Cut 3 % off each side."""
    return ImageOps.crop(image, round(0.03 * min(image.size)))


def add_noise(image: Image.Image) -> Image.Image:
    """Add noise with a standard deviation of 1 % of the range."""
    pixels = np.asarray(image, np.float64)
    noisy = pixels + np.random.default_rng(0).normal(scale=2.55, size=pixels.shape)
    return Image.fromarray(noisy.round().clip(0, 255).astype(np.uint8))


ALTERATIONS: dict[str, tuple[Callable[[Image.Image], Image.Image], str, dict[str, int]]] = {
    "saved as PNG": (lambda image: image, "png", {}),
    "saved as JPEG of quality 90": (lambda image: image, "jpg", {"quality": 90}),
    "saved as JPEG of quality 50": (lambda image: image, "jpg", {"quality": 50}),
    "10 % brighter": (lambda image: ImageEnhance.Brightness(image).enhance(1.1), "png", {}),
    "enlarged by 15 %": (resize(1.15), "png", {}),
    "half as large": (resize(0.5), "png", {}),
    "rotated by 2°": (rotate(2), "png", {}),
    "rotated by 5°": (rotate(5), "png", {}),
    "3 % cropped off each side": (crop, "png", {}),
    "mirrored": (ImageOps.mirror, "png", {}),
    "1 % of noise": (add_noise, "png", {}),
}


def main(arguments: list[str] | None = None) -> None:
    """Print two tables."""
    parser = argparse.ArgumentParser(description="Measure the similarity of copies.")
    parser.add_argument("features", help="cache of the slices")
    parser.add_argument("--images", required=True, help="table or folder that was extracted")
    parser.add_argument("--backbone", default="vgg16")
    parser.add_argument("--weights", default="imagenet")
    parser.add_argument("--number", type=int, default=300, help="number of slices to alter")
    chosen = parser.parse_args(arguments)

    with FeatureCache.open(chosen.features) as cache:
        rows = np.flatnonzero(cache.mask())
        mean = cache.X[rows].mean(axis=0)
        directions = point(cache.X[rows] - mean)
        some = np.random.default_rng(0).permutation(rows)[: chosen.number]
        originals = point(cache.X[some] - mean)
        altered = extract_altered(cache, some, chosen)
        y = cache.y[rows]
    print(f"{len(some)} slices{'median':>27}" + "".join(f"{f'≥ {t}':>9}" for t in THRESHOLDS))
    for name, features in altered.items():
        cosines = (originals * point(features - mean)).sum(axis=1)
        fractions = [f"{(cosines >= threshold).mean():9.0%}" for threshold in THRESHOLDS]
        print(f"{name:28}{np.median(cosines):9.3f}{''.join(fractions)}")
    nearest = [
        np.where(y == label, -1.0, directions[row : row + 1] @ directions.T).max()
        for row, label in enumerate(y)
    ]
    print("\nmost similar slice of another class, quantiles over the slices")
    for quantile, value in zip(QUANTILES, np.quantile(nearest, QUANTILES), strict=True):
        print(f"{quantile:8.1%}{value:9.3f}")


def extract_altered(
    cache: FeatureCache, rows: NDArray[np.intp], chosen: argparse.Namespace
) -> dict[str, NDArray[np.float32]]:
    """Write altered copies and extract their features, in the order of the rows."""
    table = read_table(chosen.images)
    paths = cache.paths[rows].tolist()
    with tempfile.TemporaryDirectory() as place:
        for number, (alter, suffix, options) in enumerate(ALTERATIONS.values()):
            folder = Path(place, "slices", f"{number:02}")
            folder.mkdir(parents=True)
            for position, path in enumerate(paths):
                with Image.open(Path(table.root, path)) as image:
                    alter(image.convert("L")).save(folder / f"{position:05}.{suffix}", **options)
        with FeatureCache.open(
            extract(
                read_table(Path(place, "slices")),
                Path(place, "altered.h5"),
                backbone=chosen.backbone,
                weights=chosen.weights,
                input_size=cache.spec.input_size,
                precision="float32",
            ).output
        ) as copies:
            cache.spec.require(copies.spec, here="the cache", there="the copies")
            order = np.argsort(copies.paths)
            found = copies.X[:][order].reshape(len(ALTERATIONS), len(paths), -1)
    return dict(zip(ALTERATIONS, found, strict=True))


def point(features: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scale each row to length 1."""
    length = np.linalg.norm(features, axis=1, keepdims=True)
    return features / np.maximum(length, np.finfo(np.float32).tiny)


if __name__ == "__main__":
    main()
