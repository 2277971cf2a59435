"""What a lower precision saves in stage one, and what it does to features and heads.

    python examples/precisions.py brain-mri --weights vgg16.weights.h5
    python examples/precisions.py brain-mri --weights w.h5 --precision float32 bfloat16 --number 400

Features of the same images are extracted in each precision, the first of which the others are
compared with. An SVM is fitted on each cache and tested on the images of which it has seen no copy,
and on all test images. The rate is that of the whole extraction, with decoding, calibration and a
verified cache; other work of the machine slows all of them, but not always by as much.
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from brainfeat import FeatureCache, evaluate, extract, fit_head, read_table
from brainfeat.cache.spec import PRECISIONS
from brainfeat.evaluation.results import Subset
from brainfeat.extraction.architectures import BACKBONES
from brainfeat.tables.table import ImageTable


def main(arguments: list[str] | None = None) -> None:
    """Print one line per precision."""
    parser = argparse.ArgumentParser(description="Compare the precisions of stage one.")
    parser.add_argument("data", help="folder or CSV with splits")
    parser.add_argument("--backbone", choices=BACKBONES, default="vgg16")
    parser.add_argument("--weights", default="imagenet", help="as in brainfeat extract")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--number", type=int, help="images, taken evenly; all by default")
    parser.add_argument(
        "--precision", nargs="+", choices=PRECISIONS, default=["float32", "bfloat16", "int8"]
    )
    chosen = parser.parse_args(arguments)
    table = take(read_table(chosen.data), chosen.number)
    print(f"{chosen.backbone}, {len(table):,} images")
    print("precision    images/s  mean cosine    least  accuracy of the SVM without copies; on all")
    expected = None
    for precision in chosen.precision:
        with TemporaryDirectory() as folder:
            result = extract(
                table,
                Path(folder, "features.h5"),
                backbone=chosen.backbone,
                weights=chosen.weights,
                input_size=chosen.size,
                precision=precision,
                force=True,
                progress=report,
            )
            with FeatureCache.open(result.output) as cache:
                X = np.asarray(cache.X)
                expected = X if expected is None else expected
                cosines = compare(X, expected)
                subsets = evaluate(fit_head(cache, head="svm"), cache).subsets
        scores = "; ".join(describe(found) for found in (subsets.without_copies, subsets.all))
        rate = f"{result.images_per_second:.1f}"
        print(f"{precision:<12}{rate:>9}{cosines.mean():>13.6f}{cosines.min():>9.5f}  {scores}")


def take(table: ImageTable, number: int | None) -> ImageTable:
    """Take images evenly."""
    step = max(1, len(table) // (number or len(table)))
    names = ("paths", "labels", "splits", "groups", "sources")
    return replace(table, **{name: getattr(table, name)[::step] for name in names})


def compare(X: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Compute the cosine of the features of each image to the expected ones."""
    return (X * expected).sum(axis=1) / np.linalg.norm(X, axis=1) / np.linalg.norm(expected, axis=1)


def describe(subset: Subset | None) -> str:
    """Write an accuracy with its interval and the number of images."""
    if subset is None or subset.accuracy is None:
        return "n/a"
    low, high = subset.intervals.accuracy if subset.intervals else (np.nan, np.nan)
    return f"{subset.accuracy:.4f} ({low:.3f}–{high:.3f}) of {subset.n:,}"


def report(done: int, total: int, note: str) -> None:
    """Show the progress on a terminal."""
    if sys.stderr.isatty():
        print(f"\r{note}: {done:,} of {total:,}", end="", file=sys.stderr)


if __name__ == "__main__":
    main()
