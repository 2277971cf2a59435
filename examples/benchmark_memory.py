"""Peak memory of stage one: whole `brainfeat extract` commands over few and many images.

    python examples/benchmark_memory.py
    python examples/benchmark_memory.py --images brain-mri --backbone vgg16 --size 224

Images are small noise unless a folder or a CSV file is given. A MB is 2²⁰ bytes.
"""

import argparse
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image

from brainfeat import read_table
from brainfeat.cache.spec import POOLINGS, PRECISIONS
from brainfeat.extraction.architectures import BACKBONES

CLASSES = "glioma", "notumor"


def main(arguments: list[str] | None = None) -> None:
    """Print a line for each command."""
    parser = argparse.ArgumentParser(description="Measure the peak memory of stage one.")
    parser.add_argument("--images", help="folder or CSV; small patterns by default")
    parser.add_argument("--backbone", choices=BACKBONES, default="mobilenet-0.75")
    parser.add_argument("--weights", default="random", help="as in brainfeat extract")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--number", type=int, nargs="+", default=[1_000, 20_000])
    parser.add_argument("--precision", nargs="+", choices=PRECISIONS, default=["float32"])
    parser.add_argument("--pooling", choices=POOLINGS, default="mean")
    chosen = parser.parse_args(arguments)
    names = "backbone", "weights", "size", "pooling"
    options = [f"--{name}={vars(chosen)[name]}" for name in names]
    print("precision     images   seconds   peak, MB")
    for wanted in chosen.number:
        with TemporaryDirectory() as scratch:
            folder = Path(scratch, "images")
            number = fill(folder, wanted, chosen.images)
            for precision in chosen.precision:
                command = "extract", folder, "-o", Path(scratch, f"{precision}.h5"), "--force"
                seconds, peak = run(*command, "--precision", precision, *options)
                print(f"{precision:<12}{number:>8,}{seconds:>10.1f}{peak:>11.0f}")


def fill(folder: Path, number: int, images: str | None) -> int:
    """Copy images, taken evenly, or write patterns; return how many there are."""
    for name in CLASSES:
        (folder / name).mkdir(parents=True)
    rng, table = np.random.default_rng(0), read_table(images) if images else None
    number = min(number, len(table)) if table else number
    for place in range(number):
        target = folder / CLASSES[place % 2] / f"{place:07}.png"
        if table:
            source = table.absolute_path(place * len(table) // number)
            shutil.copy(source, target.with_suffix(source.suffix))
        else:
            Image.fromarray(rng.integers(0, 256, (48, 48), np.uint8)).save(target)
    return number


def run(*arguments: str | Path) -> tuple[float, float]:
    """Run a command of brainfeat; return its seconds and its peak memory in MB."""
    started = time.perf_counter()
    command = [sys.executable, "-m", "brainfeat", *map(str, arguments)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, command
    return time.perf_counter() - started, usage.ru_maxrss / 1024


if __name__ == "__main__":
    main()
