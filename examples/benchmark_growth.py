"""Time and peak memory of stage two, by the number of images.

    python examples/benchmark_growth.py --rows 10000 100000 1000000 --heads logistic dense

Features are random, with classes that overlap. Each fit runs in a process of its own; the peak is
Linux's VmHWM. The dense head runs ten epochs, so its time depends only on the number of rows.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from brainfeat import fit_head
from brainfeat.cache.schema import CACHE_SCHEMA, select_schema
from brainfeat.cache.spec import FeatureSpec
from brainfeat.cache.writing import Blocks, as_text, write_file

BLOCK, WIDTH = 50_000, 512  # rows drawn at a time, features per row


def main(arguments: list[str] | None = None) -> None:
    """Print one line for each number of rows and each head."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", nargs="+", type=int, default=[10_000, 100_000])
    parser.add_argument("--heads", nargs="+", default=["logistic", "dense"])
    parser.add_argument("--fit", help="fit the head on this cache and print only its line")
    chosen = parser.parse_args(arguments)
    if chosen.fit:
        fit(chosen.fit, chosen.heads[0])
        return
    print(f"{'rows':>10}{'seconds':>10}{'peak MB':>10}  head", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for rows in chosen.rows:
            features = write_features(Path(folder) / "features.h5", rows)
            for head in chosen.heads:
                words = [sys.executable, __file__, "--heads", head, "--fit", str(features)]
                line = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True).stdout
                print(line, end="", flush=True)


def fit(features: str, head: str) -> None:
    """Fit one head in this process and print its line."""
    started, params = time.perf_counter(), {"epochs": 10} if head == "dense" else {}
    split = fit_head(features, head=head, params=params).training.split
    rows = split.train + split.val + split.test
    peak = int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024
    print(f"{rows:>10,}{time.perf_counter() - started:>10.1f}{peak:>10,.0f}  {head}")


def write_features(path: Path, rows: int, *, slices: int = 0) -> Path:
    """Write a cache of random features without images; of patients of so many slices, if any."""
    rng = np.random.default_rng(0)
    y = np.repeat(rng.integers(4, size=rows // max(slices, 1)), max(slices, 1))
    centres, mix = rng.normal(size=(4, 40)) / 2, rng.normal(size=(40, WIDTH)) / 6

    def draw(y: np.ndarray) -> np.ndarray:
        latent = centres[y] + rng.normal(size=(len(y), 40))
        return np.maximum(latent @ mix + rng.normal(size=(len(y), WIDTH)) / 2, 0).astype("<f4")

    blocks = (draw(y[start : start + BLOCK]) for start in range(0, rows, BLOCK))
    base = {"backbone": "vgg16", "layer": "block5_pool", "weights_sha256": "0" * 64}
    spec = FeatureSpec(n_features=WIDTH, **base)
    schema = select_schema(CACHE_SCHEMA, ["features"])
    types = {name: rule.dtype for name, rule in schema.datasets.items() if rule.ndim == 1}
    datasets = {name: np.zeros(rows, kind.replace("S", "S1")) for name, kind in types.items()}
    datasets["features"] = Blocks((rows, WIDTH), np.dtype("<f4"), blocks)
    datasets["sha256"] = rng.integers(256, size=(rows, 32), dtype=np.uint8)
    datasets["label"] = y.astype("<i2")
    datasets["path"] = as_text(f"image-{row:08}.png" for row in range(rows))
    if slices:
        datasets["group"] = as_text(f"patient-{row // slices:06}" for row in range(rows))
    attributes = dict.fromkeys(schema.attributes, "{}") | {"rejected": "[]"}
    attributes |= {"spec": spec.to_json(), "fingerprint": spec.fingerprint}
    attributes["class_names"] = '["glioma", "meningioma", "notumor", "pituitary"]'
    return write_file(path, schema, datasets=datasets, attributes=attributes)


if __name__ == "__main__":
    main()
