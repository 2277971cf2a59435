"""Rate of stage one with the crop to the foreground, against that without.

    python examples/benchmark_crop.py brain-mri --backbone mobilenet-0.75 --number 1200

Both extract the same images in turns in one process, --rounds times each, into new caches, after
one round that does not count. The ratio is the median of those of the rounds.
"""

import argparse
import statistics
import time
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from brainfeat import extract, read_table
from brainfeat.extraction.backbones import load_backbone
from brainfeat.extraction.cropping import CROPS


def main(arguments: list[str] | None = None) -> None:
    """Print the median rate of each, and the ratio."""
    parser = argparse.ArgumentParser(description="Time extraction with and without a crop.")
    parser.add_argument("data")
    parser.add_argument("--backbone", default="mobilenet-0.75")
    parser.add_argument("--weights", default="random")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--number", type=int, default=1200)
    parser.add_argument("--rounds", type=int, default=7)
    chosen = parser.parse_args(arguments)
    whole = read_table(chosen.data)
    number = min(chosen.number, len(whole))
    rows = [place * len(whole) // number for place in range(number)]
    columns = ("paths", "labels", "splits", "groups", "sources")
    taken = {name: tuple(getattr(whole, name)[row] for row in rows) for name in columns}
    table = replace(whole, **taken)
    base = load_backbone(chosen.backbone, weights=chosen.weights, input_size=chosen.size)

    def measure(crop: str) -> float:
        with TemporaryDirectory() as folder:
            started = time.perf_counter()
            found = extract(table, Path(folder, "f.h5"), backbone=base, crop=crop)
            return found.computed / (time.perf_counter() - started)

    rates = {crop: [] for crop in CROPS}
    for turn in range(chosen.rounds + 1):
        for crop in sorted(CROPS, reverse=bool(turn % 2)):
            rate = measure(crop)
            if turn:
                rates[crop].append(rate)
    for crop, measured in rates.items():
        print(f"{crop:10} {statistics.median(measured):7.1f} images/s")
    ratios = [cropped / plain for plain, cropped in zip(*rates.values(), strict=True)]
    print(f"ratio      {statistics.median(ratios):7.2f}")


if __name__ == "__main__":
    main()
