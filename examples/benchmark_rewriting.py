"""Speed of a base by engine and precision, and how much its features change.

    python examples/benchmark_rewriting.py --batch 4 8 16
    python examples/benchmark_rewriting.py --images brain-mri/Testing --backbone mobilenet-0.75

Images are noise unless a folder is given. Rounds are interleaved, after a warm-up. Cosines and
differences, in units of the mean feature, are relative to Keras's own base. Without ImageNet
weights, Keras scales the input of EfficientNet differently; brainfeat does not.
"""

import argparse
import time
from collections.abc import Callable
from statistics import median

import numpy as np

from brainfeat import read_table, runtime
from brainfeat.cache.spec import FLOATS
from brainfeat.extraction.architectures import BACKBONES
from brainfeat.extraction.backbones import Backbone, load_backbone
from brainfeat.extraction.engines import ENGINES
from brainfeat.extraction.openvino_engine import has_precision
from brainfeat.extraction.preprocessing import preprocess_image
from brainfeat.readers import read_image


def main() -> None:
    """Print one table per batch size."""
    parser = argparse.ArgumentParser(description="Measure the speed of a rewritten base.")
    parser.add_argument("--backbone", choices=BACKBONES, default="vgg16")
    parser.add_argument("--weights", default="random", help="as in brainfeat extract")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--images", help="folder or CSV; noise by default")
    parser.add_argument("--batch", type=int, nargs="+", default=[8])
    parser.add_argument("--rounds", type=int, default=6)
    chosen = parser.parse_args()
    bases = {"plain float32": compile_plain(chosen)}
    for engine in ENGINES:
        for precision in FLOATS:
            if engine == "keras" or has_precision(precision):
                bases[f"{engine} {precision}"] = load(chosen, precision, engine)
    for batch in chosen.batch:
        images = draw(chosen, batch)
        features = {name: base(images) for name, base in bases.items()}
        seconds = take_turns(bases, images, chosen.rounds)
        full, slowest = features["plain float32"], median(seconds["plain float32"])
        print(f"{chosen.backbone}, {chosen.size} pixels, batch of {batch}")
        print(
            f"{'base':<20}{'images/s':>10}{'ratio':>8}{'mean cosine':>13}{'largest difference':>20}"
        )
        for name, found in features.items():
            rate = batch / median(seconds[name])
            ratio = slowest / median(seconds[name])
            lengths = np.linalg.norm(found, axis=1) * np.linalg.norm(full, axis=1)
            cosine = ((found * full).sum(axis=1) / lengths).mean()
            moved = np.abs(found - full).max() / np.abs(full).mean()
            print(f"{name:<20}{rate:>10.2f}{ratio:>8.2f}{cosine:>13.6f}{moved:>20.1e}")


def load(chosen: argparse.Namespace, precision: str, engine: str) -> Backbone:
    """Load the base as brainfeat extract does; it computes one batch at a time."""
    options = {"weights": chosen.weights, "input_size": chosen.size}
    return load_backbone(chosen.backbone, precision=precision, engine=engine, **options)


def compile_plain(chosen: argparse.Namespace) -> Callable:
    """Compile Keras's own base, scaling and pooling without changes."""
    keras, base = runtime.import_keras(), load(chosen, "float32", "keras").base
    images = keras.Input((chosen.size, chosen.size, 3))
    module = getattr(keras.applications, BACKBONES[chosen.backbone].module)
    maps = base(module.preprocess_input(images * 255.0))
    return runtime.compile_forward(keras.Model(images, keras.ops.mean(maps, axis=(1, 2))))


def draw(chosen: argparse.Namespace, number: int) -> np.ndarray:
    """Read images spread evenly over the table, or draw noise."""
    if chosen.images is None:
        shape = number, chosen.size, chosen.size, 3
        return np.random.default_rng(0).random(shape, np.float32)
    table = read_table(chosen.images)
    paths = [table.absolute_path(place * len(table) // number) for place in range(number)]
    return np.stack([preprocess_image(read_image(path), size=chosen.size) for path in paths])


def take_turns(bases: dict[str, Callable], images: np.ndarray, rounds: int) -> dict[str, list]:
    """Time each base once per round."""
    seconds = {name: [] for name in bases}
    for _ in range(rounds):
        for name, base in bases.items():
            started = time.perf_counter()
            base(images)
            seconds[name].append(time.perf_counter() - started)
    return seconds


if __name__ == "__main__":
    main()
