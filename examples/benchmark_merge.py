"""Time and peak memory of merging and reading a large cache, each in a process of its own.

    python examples/benchmark_merge.py --rows 5000000 --folder /scratch     # 21 GB of disk
    python examples/benchmark_merge.py --rows 20000                         # small, as a test

Rows of 512 features go to shards of 1,024 rows, as stage one writes them. They are then merged,
once in the order of the shards and with --shuffled in a random one; verified, opened and read. A
plain copy of the cache in the same run says what the disk can do.
"""

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from brainfeat import FeatureCache
from brainfeat.cache import CHUNK_ROWS, Measured
from brainfeat.index import row_keys
from brainfeat.merging import Output
from brainfeat.shards import parts_folder, write_shard
from brainfeat.spec import FeatureSpec

N_FEATURES = 512
SPEC = FeatureSpec(
    backbone="vgg16", layer="block5_pool", n_features=N_FEATURES, weights_sha256="0" * 64
)
CLASSES = ["glioma", "meningioma", "notumor", "pituitary"]
MEASURED = Measured(width=512, height=512, channels=1, file_bytes=20_000)


def digests_of(start: int, stop: int) -> list[bytes]:
    """Give the digest of each row's made-up file."""
    return [hashlib.sha256(row.to_bytes(8, "little")).digest() for row in range(start, stop)]


def write_shards(output: Path, rows: int) -> None:
    """Write what stage one would leave when it is done but for the merge."""
    rng = np.random.default_rng(0)
    for start in range(0, rows, CHUNK_ROWS):
        size = min(CHUNK_ROWS, rows - start)
        write_shard(
            parts_folder(output),
            spec=SPEC,
            augmentation=None,
            features=rng.standard_normal((size, N_FEATURES), np.float32),
            sha256=digests_of(start, start + size),
            view=[0] * size,
            measured=[MEASURED] * size,
        )


def merge(output: Path, rows: int, *, shuffled: bool = False, relabelled: bool = False) -> None:
    """Merge the shards, or write the cache anew with other labels."""
    keys = np.empty(rows, "S34")
    for start in range(0, rows, CHUNK_ROWS):
        some = b"".join(digests_of(start, min(start + CHUNK_ROWS, rows)))
        sha256 = np.frombuffer(some, np.uint8).reshape(-1, 32)
        keys[start : start + len(sha256)] = row_keys(sha256, np.zeros(len(sha256), np.int16))
    if shuffled:
        np.random.default_rng(0).shuffle(keys)
    numbers = np.arange(rows)
    with ExitStack() as stack:
        found = Output(output, stack, overwrite=False)
        found.merge(
            keys,
            spec=SPEC,
            augmentation=None,
            columns={
                "label": ((numbers + relabelled) % len(CLASSES)).astype(np.int16),
                "path": np.char.mod(b"scans/site-1/image-%08d.png", numbers),
                "split": np.full(rows, b"train"),
                "group": np.char.mod(b"p%07d", numbers // 20),
                "source": np.full(rows, b"site-1"),
            },
            attributes={"class_names": CLASSES, "rejected": []},
            provenance={},
            alone=True,
        )


def read(output: Path, what: str) -> None:
    """Read a cache in one of several ways."""
    with FeatureCache.open(output, verify="full" if what == "verify" else "off") as cache:
        if what == "stream":
            total = sum(float(block.sum()) for block in cache.X.blocks())
            print(f"sum {total}", file=sys.stderr)
        elif what == "columns":
            chosen = cache.mask("train") & (cache.column("group") == b"p0000001")
            print(f"{chosen.sum()} rows of a group", file=sys.stderr)
        elif what == "random rows":
            rows = np.random.default_rng(1).integers(0, len(cache), 10_000)
            print(f"mean {cache.X[rows].mean()}", file=sys.stderr)


def copy(output: Path) -> None:
    """Copy the cache as a program would that writes what it reads, and synchronise it."""
    target = output.with_name("copy.h5")
    with output.open("rb") as source, target.open("wb") as file:
        shutil.copyfileobj(source, file, 8 << 20)
        os.fsync(file.fileno())
    target.unlink()


STEPS = {
    "copy": lambda output, _: copy(output),
    "merge": merge,
    "merge, shuffled": lambda output, rows: merge(output, rows, shuffled=True),
    "merge, other labels": lambda output, rows: merge(output, rows, relabelled=True),
    **{
        name: lambda output, _, name=name: read(output, name)
        for name in ("open", "verify", "stream", "columns", "random rows")
    },
}


def peak_megabytes() -> float:
    """Give the peak memory of this process: its resident set, without what is mapped from files."""
    status = Path("/proc/self/status").read_text()
    fields = dict(line.split(":", 1) for line in status.splitlines())
    return int(fields["VmHWM"].split()[0]) / 1000


def measure(step: str, output: Path, rows: int) -> None:
    """Do one step in a process of its own and print a line."""
    command = [sys.executable, __file__, "--rows", str(rows), "--step", step, "--output", output]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    seconds, peak = map(float, done.stdout.split())
    print(f"{step:<20} {seconds:>8.1f} s {peak:>8,.0f} MB", flush=True)


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=5_000_000)
    parser.add_argument("--folder", type=Path, help="where the files go for a while")
    parser.add_argument("--shuffled", action="store_true", help="merge in a random order, too")
    parser.add_argument("--step", choices=STEPS, help=argparse.SUPPRESS)
    parser.add_argument("--output", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.step:
        started = time.perf_counter()
        STEPS[chosen.step](chosen.output, chosen.rows)
        print(time.perf_counter() - started, peak_megabytes())
        return
    with tempfile.TemporaryDirectory(dir=chosen.folder) as name:
        output = Path(name) / "features.h5"
        for merging in ["merge", *["merge, shuffled"][: chosen.shuffled]]:
            output.unlink(missing_ok=True)
            write_shards(output, chosen.rows)
            measure(merging, output, chosen.rows)
        print(f"{output.stat().st_size / 1e9:.2f} GB")
        for step in ("copy", "open", "verify", "stream", "columns", "random rows"):
            measure(step, output, chosen.rows)
        if not chosen.shuffled:
            measure("merge, other labels", output, chosen.rows)


if __name__ == "__main__":
    main()
