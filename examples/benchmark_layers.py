"""The cost of several layers and of maps: whole extractions, one after another, against one layer.

    python examples/benchmark_layers.py
    python examples/benchmark_layers.py --backbone mobilenet-0.75 --number 512

Each turn extracts the same synthetic slices into new caches: the last layer, three layers, and
three layers with the map of the last. A ratio is the median over the turns of the rate to that of
one layer.
"""

import argparse
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

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
                result = extract(table, Path(folder, f"{way}-{turn}.h5"), backbone=base)
                rates[way] += [result.images_per_second] * bool(turn)  # the first turn compiles
                size = result.output.stat().st_size / result.rows
                result.output.unlink()
                if turn == chosen.repeats:
                    pairs = zip(rates[way], rates["one layer"], strict=True)
                    ratio = median(this / one for this, one in pairs)
                    rate = f"{median(rates[way]):8.1f} images/s in {result.precision}"
                    print(f"{way:<18}{rate}{ratio:8.3f}{size:10,.0f} bytes an image")


if __name__ == "__main__":
    main()
