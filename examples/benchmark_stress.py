"""Rate at which stage one computes altered images, as a ratio to that of images as they are.

    python examples/benchmark_stress.py brain-mri --backbone mobilenet-0.75 --number 30
    python examples/benchmark_stress.py brain-mri --number 4

A round computes both, in turn and as many rows of each: altered views of the number of images, and
other images of the folder as they are, the first among them the same.
"""

import argparse
import statistics
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from brainfeat import extract, read_table
from brainfeat.extraction.alterations import Alterations
from brainfeat.extraction.backbones import load_backbone
from brainfeat.tables.table import ImageTable


def main(arguments: list[str] | None = None) -> None:
    """Print the rates of each round, and the median of their ratios."""
    parser = argparse.ArgumentParser()
    parser.add_argument("data", help="folder or CSV of images")
    parser.add_argument("--backbone", default="vgg16")
    parser.add_argument("--weights", default="imagenet")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--number", type=int, default=4, help="images that are altered")
    parser.add_argument("--rounds", type=int, default=3)
    chosen = parser.parse_args(arguments)

    base = load_backbone(chosen.backbone, weights=chosen.weights, input_size=chosen.size)
    alterations = Alterations()
    table = shuffle(read_table(chosen.data))
    plain = take(table, chosen.number * len(alterations.views))
    few = take(table, max(1, len(plain) // len(alterations.views)))
    ratios = []
    print(f"{'round':>5}{'as they are':>14}{'altered':>10}{'ratio':>8}   rows a second")
    with tempfile.TemporaryDirectory() as folder:
        for number in range(1, chosen.rounds + 1):
            rates = [
                extract(some, Path(folder, f"{number}-{name}.h5"), backbone=base, alterations=added)
                for name, some, added in (("plain", plain, None), ("altered", few, alterations))
            ]
            before, after = (rate.images_per_second for rate in rates)
            ratios.append(after / before)
            print(f"{number:>5}{before:>14.1f}{after:>10.1f}{ratios[-1]:>8.2f}", flush=True)
    print(f"median ratio {statistics.median(ratios):.2f}")


def shuffle(table: ImageTable) -> ImageTable:
    """Order the images of a table at random."""
    return reorder(table, np.random.default_rng(0).permutation(len(table)).tolist())


def take(table: ImageTable, number: int) -> ImageTable:
    """Take the first images of a table."""
    return reorder(table, list(range(min(number, len(table)))))


def reorder(table: ImageTable, rows: list[int]) -> ImageTable:
    """Take rows of a table in an order, without their classes."""
    return replace(
        table,
        paths=tuple(table.paths[row] for row in rows),
        class_names=(),
        **dict.fromkeys(("labels", "splits", "groups", "sources"), ("",) * len(rows)),
    )


if __name__ == "__main__":
    main()
