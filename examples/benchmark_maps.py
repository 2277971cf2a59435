"""Time and peak memory of heads on maps: whole `brainfeat fit-head` commands.

    python examples/benchmark_maps.py
    python examples/benchmark_maps.py --images 1000 4000 --heads cbam

Maps are random, 7 × 7 of 512 channels, half of them zero as behind a ReLU, with classes that
overlap. All epochs are run. A MB is 2²⁰ bytes.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
from benchmark_memory import run

from brainfeat.cache.schema import CACHE_SCHEMA, select_schema
from brainfeat.cache.spec import FeatureSpec
from brainfeat.cache.writing import Blocks, as_text, write_file

SHAPE, BLOCK = (7, 7, 512), 64


def draw_maps(y: np.ndarray, number: int) -> np.ndarray:
    """Draw the maps of a block of images, the same whenever it is drawn."""
    rng, centres = np.random.default_rng(number), np.random.default_rng(0).normal(size=(4, 512))
    noise = rng.standard_normal((len(y), *SHAPE), dtype="<f4")
    return np.maximum(noise + centres[y][:, None, None, :] / 10, 0).astype("<f2")


def write_maps(path: Path, rows: int) -> Path:
    """Write a cache of random maps without images."""
    rng, starts = np.random.default_rng(0), range(0, rows, BLOCK)
    y = rng.integers(4, size=rows)
    base = {"backbone": "vgg16", "layer": "block5_pool", "weights_sha256": "0" * 64}
    spec = FeatureSpec(n_features=SHAPE[-1], pooling="none", **base)

    def maps(*, mean: bool) -> Blocks:
        drawn = (draw_maps(y[start : start + BLOCK], start) for start in starts)
        if mean:
            means = (block.astype("<f4").mean(axis=(1, 2)) for block in drawn)
            return Blocks((rows, SHAPE[-1]), np.dtype("<f4"), means)
        return Blocks((rows, *SHAPE), np.dtype("<f2"), drawn)

    first = CACHE_SCHEMA.earlier[0]  # whose columns every cache has
    types = {name: rule.dtype for name, rule in first.datasets.items() if rule.ndim == 1}
    datasets = {name: np.zeros(rows, kind.replace("S", "S1")) for name, kind in types.items()}
    datasets |= {"features": maps(mean=True), "maps": maps(mean=False)}
    datasets["sha256"] = rng.integers(256, size=(rows, 32), dtype=np.uint8)
    datasets["label"] = y.astype("<i2")
    datasets["path"] = as_text(f"image-{row:08}.png" for row in range(rows))
    datasets["split"] = as_text("train" if row % 20 < 17 else "val" for row in range(rows))
    schema = select_schema(CACHE_SCHEMA, datasets)
    attributes = dict.fromkeys(schema.attributes, "{}") | {"rejected": "[]"}
    attributes |= {"spec": spec.to_json(), "fingerprint": spec.fingerprint}
    attributes["signature_version"] = 1
    attributes["class_names"] = '["glioma", "meningioma", "notumor", "pituitary"]'
    return write_file(path, schema, datasets=datasets, attributes=attributes)


def main(arguments: list[str] | None = None) -> None:
    """Print a line for each command."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, nargs="+", default=[2_854, 5_708])
    parser.add_argument("--heads", nargs="+", default=["dense", "se", "attention-pool", "cbam"])
    parser.add_argument("--epochs", type=int, default=30)
    chosen = parser.parse_args(arguments)
    print("images  head            seconds  peak, MB", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for number in chosen.images:
            features = write_maps(Path(folder) / f"{number}.h5", number)
            for head in chosen.heads:
                words = ["fit-head", features, "-o", f"{folder}/head.h5", "--overwrite", "--head"]
                words += [head, "--epochs", chosen.epochs, "--param", f"patience={chosen.epochs}"]
                seconds, peak = run(*map(str, words))
                print(f"{number:>6}  {head:<15}{seconds:>8.1f}{peak:>10,.0f}", flush=True)


if __name__ == "__main__":
    main()
