"""The cost of several layers and of maps: whole extractions, one after another, against one layer.

    python examples/benchmark_layers.py
    python examples/benchmark_layers.py --backbone mobilenet-0.75 --number 512

Each turn extracts the same synthetic slices into new caches: the last layer, three layers, and
three layers with the map of the last. Ratios to one layer are medians over the turns: of the rate,
and of the images in a second of processor time, which other work on the machine hardly changes.
"""

import argparse
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from brainfeat import extract
from brainfeat.cache.spec import PRECISIONS
from brainfeat.extraction.backbones import load_backbone
from brainfeat.phantoms import write_phantoms

LAYERS = {
    "vgg16": ("block3_pool", "block4_pool", "block5_pool"),
    "mobilenet-0.75": ("conv_pw_5_relu", "conv_pw_11_relu", "conv_pw_13_relu"),
}
WAYS = {"one layer": ("mean", 1), "three layers": ("mean", 3), "three and a map": ("none", 3)}


def main(arguments: list[str] | None = None) -> None:
    """Print the rate of each way and its ratio to that of one layer."""
    parser = argparse.ArgumentParser(description="Measure the cost of layers and maps.")
    parser.add_argument("--backbone", choices=LAYERS, default="vgg16")
    parser.add_argument("--weights", default="random", help="as in brainfeat extract")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--precision", choices=("auto", *PRECISIONS), default="auto")
    parser.add_argument("--number", type=int, default=128, help="of slices")
    parser.add_argument("--repeats", type=int, default=5)
    chosen = parser.parse_args(arguments)
    layers = LAYERS[chosen.backbone]
    bases = {
        way: load_backbone(
            chosen.backbone,
            weights=chosen.weights,
            input_size=chosen.size,
            precision=chosen.precision,
            layers=layers[-number:],
            pooling=pooling,
        )
        for way, (pooling, number) in WAYS.items()
    }
    with TemporaryDirectory() as folder:
        patients = max(2, chosen.number // 16)
        table = write_phantoms(f"{folder}/slices", patients_per_class=patients, size=256)
        rates = {way: [] for way in WAYS}
        for turn in range(chosen.repeats + 1):
            for way, base in bases.items():
                started = time.process_time()
                result = extract(table, Path(folder, f"{way}-{turn}.h5"), backbone=base)
                busy = result.computed / (time.process_time() - started)
                rates[way] += [(result.images_per_second, busy)] * bool(turn)  # the first compiles
                size = result.output.stat().st_size / result.rows
                result.output.unlink()
                if turn == chosen.repeats:
                    show(way, np.array(rates[way]), np.array(rates["one layer"]), size)


def show(way: str, rates: np.ndarray, one: np.ndarray, size: float) -> None:
    """Print the rates of a way, and their ratios to those of one layer."""
    (rate, busy), (ratio, busy_ratio) = np.median(rates, axis=0), np.median(rates / one, axis=0)
    print(
        f"{way:<18}{rate:7.1f} images/s {ratio:.3f}{1e3 / busy:8.2f} ms of processor "
        f"{busy_ratio:.3f}{size:10,.0f} bytes an image"
    )


if __name__ == "__main__":
    main()
