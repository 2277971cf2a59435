"""Cache the features of a folder of images, and show what the cache holds.

    python examples/stage_one.py
    python examples/stage_one.py path/to/slices --weights imagenet -o features.h5

Without arguments, it draws synthetic slices and uses random weights.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np

from brainfeat import FeatureCache, extract, read_table
from brainfeat.phantoms import write_phantoms


def main(arguments: list[str] | None = None) -> None:
    """Cache the features of a folder and show them."""
    parser = argparse.ArgumentParser(description="Cache the features of a folder of images.")
    parser.add_argument("data", nargs="?", help="folder or CSV; synthetic slices by default")
    parser.add_argument("-o", "--output", help="cache; a temporary one by default")
    parser.add_argument("--backbone", default="vgg16", help="convolutional base (%(default)s)")
    parser.add_argument("--weights", default="random", help="imagenet, random or a file")
    parser.add_argument("--size", type=int, default=224, help="input size of the base in pixels")
    parser.add_argument("--patients", type=int, default=6, help="synthetic patients of a class")
    chosen = parser.parse_args(arguments)

    with tempfile.TemporaryDirectory() as folder:
        data = chosen.data or write_phantoms(
            Path(folder) / "slices",
            patients_per_class=chosen.patients,
            slices_per_patient=3,
            size=chosen.size,
        )
        output = Path(chosen.output or Path(folder) / "features.h5")
        table = read_table(data)
        for run in ("first run", "second run"):
            result = extract(
                table,
                output,
                backbone=chosen.backbone,
                weights=chosen.weights,
                input_size=chosen.size,
            )
            print(f"{run}: {result.computed} computed, {result.reused} reused")
        show(output)


def show(path: Path) -> None:
    """Print what a cache holds."""
    with FeatureCache.open(path) as cache:
        print(f"\n{len(cache)} rows of {cache.spec.n_features} {cache.spec.backbone} features")
        print(f"fingerprint {cache.fingerprint}")
        for split in ("train", "val", "test"):
            counts = np.bincount(cache.y[cache.mask(split)], minlength=len(cache.class_names))
            classes = zip(cache.class_names, counts, strict=True)
            print(f"{split:<6} {', '.join(f'{name} {count}' for name, count in classes)}")
        print(f"columns: {', '.join(cache.table)}")
        for rejected in cache.rejected:
            print(f"rejected {rejected.path}: {rejected.reason}")
        first = cache.X[:3]
        for name, row in zip(cache.paths[:3], first, strict=True):
            print(f"{name}: mean {row.mean():.3f}, largest {row.max():.3f}")


if __name__ == "__main__":
    main()
