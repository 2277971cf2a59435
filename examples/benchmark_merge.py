"""Time and peak memory of merging, reading and changing a cache of millions of rows.

    python examples/benchmark_merge.py --rows 5000000 --folder /tmp
    python examples/benchmark_merge.py --rows 500000 --order shuffled

Features are noise, in shards of 1,024 rows as stage one writes them. Each step runs in a process of
its own. Its peak is Linux's VmHWM, which includes the imports and the input of the step: the keys
of the rows and the columns of the table. The last column is the ratio to a plain copy of the shards
into one file, including fsync. The folder needs space for two copies of the features, and for three
where they are shuffled.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from brainfeat.cache.cache import FeatureCache
from brainfeat.cache.output import Output
from brainfeat.cache.row_index import row_keys
from brainfeat.cache.schema import CHUNK_ROWS, Measured
from brainfeat.cache.shards import parts_folder, shard_paths, write_shard
from brainfeat.cache.signature import SIGNATURE_SIZE
from brainfeat.cache.spec import FeatureSpec

Work = Callable[[], None]

CLASSES = ["glioma", "meningioma", "notumor", "pituitary"]
FACTS = Measured(width=512, height=512, channels=3, file_bytes=20_000)
TEXTS = {
    "path": (b"Training/glioma/slice-%08d.png", 1),
    "split": (b"train", 0),
    "group": (b"patient-%06d", 10),
    "source": (b"site-%02d", 100_000),
}


def main(arguments: list[str] | None = None) -> None:
    """Print one line per step."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--dimensions", type=int, default=512)
    parser.add_argument("--order", choices=("table", "shuffled"), default="table")
    parser.add_argument("--signatures", action="store_true", help="write format 2")
    parser.add_argument("--folder", help="folder of the temporary files")
    parser.add_argument("--step", choices=STEPS, help="run one step in this process and folder")
    chosen = parser.parse_args(arguments)
    if chosen.step:
        work = STEPS[chosen.step](Path(chosen.folder) / "features.h5", chosen)
        started = time.perf_counter()
        work()
        seconds = time.perf_counter() - started
        peak = Path("/proc/self/status").read_text(encoding="ascii").split("VmHWM:")[1].split()[0]
        print(seconds, int(peak) / 1024)
        return
    print(f"{chosen.rows:,} rows of {chosen.dimensions} features, in {chosen.order} order")
    print(f"{'step':<26}{'seconds':>10}{'peak MB':>10}{'of a copy':>11}", flush=True)
    words = [sys.executable, __file__, "--order", chosen.order]
    words += ["--rows", str(chosen.rows), "--dimensions", str(chosen.dimensions)]
    words += ["--signatures"] * chosen.signatures
    with tempfile.TemporaryDirectory(dir=chosen.folder) as folder:
        seconds_of = {}
        for step in STEPS:
            command = [*words, "--folder", folder, "--step", step]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            seconds_of[step], peak = map(float, done.stdout.split())
            ratio = seconds_of[step] / seconds_of.get("copy the shards", np.nan)
            print(f"{step:<26}{seconds_of[step]:>10.2f}{peak:>10,.0f}{ratio:>11.2f}", flush=True)
        size = (Path(folder) / "features.h5").stat().st_size
    print(f"the cache has {size / 2**20:,.0f} MB")


def write_shards(output: Path, chosen: argparse.Namespace) -> Work:
    """Write the shards as stage one does."""
    noise, blank = np.random.default_rng(0), np.zeros((CHUNK_ROWS, SIGNATURE_SIZE), np.int8)

    def write() -> None:
        for digests in draw_digests(chosen.rows):
            write_shard(
                parts_folder(output),
                spec=describe(chosen),
                augmentation=None,
                features=noise.random((len(digests), chosen.dimensions), np.float32),
                sha256=[row.tobytes() for row in digests],
                view=[0] * len(digests),
                measured=[FACTS] * len(digests),
                signature=blank[: len(digests)] if chosen.signatures else None,
            )

    return write


def copy_shards(output: Path, _: argparse.Namespace) -> Work:
    """Copy the bytes of all shards into one synchronised file, the least that a merge must do."""

    def copy() -> None:
        with tempfile.TemporaryFile(dir=output.parent) as target:
            for path in shard_paths(parts_folder(output)):
                with path.open("rb") as source:
                    shutil.copyfileobj(source, target, 8 << 20)
            target.flush()
            os.fsync(target.fileno())

    return copy


def merge(output: Path, chosen: argparse.Namespace, *, relabelled: int = 0) -> Work:
    """Do what stage one does when all rows exist: look them up, and write the cache."""
    order = np.arange(chosen.rows, dtype=np.uint32)
    if chosen.order == "shuffled":
        np.random.default_rng(1).shuffle(order)
    digests = np.concatenate(list(draw_digests(chosen.rows)))
    keys = row_keys(digests, np.zeros(chosen.rows, np.int16))
    del digests
    keys = keys[order]
    labels = (order % len(CLASSES)).astype(np.int16)
    labels[:relabelled] = (labels[:relabelled] + 1) % len(CLASSES)
    columns = {name: write_texts(order, *how) for name, how in TEXTS.items()}
    spec = describe(chosen)

    def work() -> None:
        with ExitStack() as stack:
            found = Output(output, stack, overwrite=False)
            found.check_spec(spec)
            found.index(spec, None).close()
            found.check_dropped(keys)
            found.merge(
                keys,
                spec=spec,
                augmentation=None,
                columns={"label": labels, **columns},
                attributes={"class_names": CLASSES, "rejected": []},
                provenance={},
                signature=chosen.signatures,
                alone=True,
            )

    return work


def relabel(output: Path, chosen: argparse.Namespace) -> Work:
    """Change one label, which rewrites the cache from itself."""
    return merge(output, chosen, relabelled=1)


def reading(look: Callable[[FeatureCache], object]) -> Callable[..., Work]:
    """Open the cache without verifying its bytes, and read a part of it."""

    def prepare(output: Path, _: argparse.Namespace) -> Work:
        def read() -> None:
            with FeatureCache.open(output, verify="off") as cache:
                look(cache)

        return read

    return prepare


def read_random_rows(cache: FeatureCache) -> np.ndarray:
    """Read the features of 10,000 random rows."""
    return cache.X[np.random.default_rng(2).integers(len(cache), size=10_000)]


def describe(chosen: argparse.Namespace) -> FeatureSpec:
    """Return the spec of the noise."""
    base = {"backbone": "vgg16", "layer": "block5_pool", "weights_sha256": "0" * 64}
    return FeatureSpec(n_features=chosen.dimensions, **base)


def draw_digests(rows: int) -> Iterator[np.ndarray]:
    """Draw placeholder digests of the image files, one shard at a time."""
    noise = np.random.default_rng(3)
    for start in range(0, rows, CHUNK_ROWS):
        yield noise.integers(256, size=(min(CHUNK_ROWS, rows - start), 32), dtype=np.uint8)


def write_texts(order: np.ndarray, text: bytes, repeats: int) -> np.ndarray:
    """Write a column of texts, numbered where they differ."""
    column = np.full(len(order), text % 0 if repeats else text)
    for start in range(0, len(order) * bool(repeats), CHUNK_ROWS):
        numbers = order[start : start + CHUNK_ROWS] // repeats
        column[start : start + CHUNK_ROWS] = [text % number for number in numbers.tolist()]
    return column


STEPS = {
    "write the shards": write_shards,
    "copy the shards": copy_shards,
    "merge": merge,
    "open, verified": lambda output, _: lambda: FeatureCache.open(output).close(),
    "open, not verified": reading(len),
    "stream the features": reading(lambda cache: sum(map(len, cache.X.blocks()))),
    "labels and splits": reading(lambda cache: cache.y[cache.mask("train")]),
    "groups as texts": reading(lambda cache: cache.groups),
    "paths as texts": reading(lambda cache: cache.paths),
    "10,000 random rows": reading(read_random_rows),
    "change one label": relabel,
    "change nothing": relabel,
}

if __name__ == "__main__":
    main()
