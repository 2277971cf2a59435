"""Mutated HDF5 files with valid digests, as an attacker would write them: each is read or refused.

``python -m support.fuzz_storage --cases 20000`` counts how many are refused, are read, raise
another exception or crash the process. Each batch runs in a child process, so that crashes are
counted.
"""

import argparse
import json
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import sklearn.neighbors
import sklearn.pipeline
import sklearn.svm  # noqa: F401
import skops.io  # noqa: F401  imported once, not in each child

from brainfeat.cache import writing
from brainfeat.cache.cache import FeatureCache
from brainfeat.errors import BrainfeatError
from brainfeat.heads.bundle import HeadBundle

BATCH = 50
SECONDS = 20
MEMORY = 2 << 30
BASE = 512
WIDTHS = (1, 2, 4, 8)


def metadata_places(data: bytes) -> list[int]:
    """List the places of a file where its metadata are: its head, and around signatures."""
    places = set(range(BASE, BASE + 1024))
    for signature in (b"TREE", b"SNOD", b"HEAP", b"\x03\x01", b"\x03\x02", b"\x01\x01\x01"):
        start = data.find(signature, BASE)
        while start >= 0 and len(places) < 50_000:
            places.update(range(max(BASE, start - 64), min(len(data), start + 384)))
            start = data.find(signature, start + 1)
    return sorted(place for place in places if place < len(data))


def mutate(data: bytes, places: list[int], rng: random.Random) -> bytes:
    """Change a file in one to four places, mostly in its metadata."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        place = rng.choice(places) if rng.random() < 0.9 else rng.randrange(BASE, len(data))
        kind = rng.randrange(6)
        width = rng.choice(WIDTHS)
        if kind == 0:
            changed[place] ^= 1 << rng.randrange(8)
        elif kind == 1:
            changed[place] = rng.randrange(256)
        elif kind in (2, 3):
            place -= place % width
            old = int.from_bytes(changed[place : place + width], "little")
            value = rng.choice(
                (0, 1, 2**64 - 1, 2**63, 2**31, len(data), old + 8, old - 8, old * 2, old + 1)
            )
            changed[place : place + width] = (value % 256**width).to_bytes(width, "little")
        elif kind == 4:
            source = rng.choice(places)
            length = rng.choice((8, 16, 40, 96))
            changed[place : place + length] = changed[source : source + length]
        else:
            del changed[rng.randrange(place, len(changed)) :]
            size = slice(BASE + 40, BASE + 48)
            if rng.random() < 0.8 and len(changed) > size.stop:
                changed[size] = len(changed).to_bytes(8, "little")
            break
    return bytes(changed)


def open_all(path: Path) -> None:
    """Open a file as a cache and as a head, and read all of it."""
    errors = []
    try:
        with FeatureCache.open(path) as cache:
            np.asarray(cache.X)
            dict(cache.table)
            return
    except BrainfeatError as error:
        errors.append(error)
    try:
        HeadBundle.load(path)
    except BrainfeatError as error:
        raise error from errors[0]


def run_batch(good: list[tuple[bytes, list[int]]], path: Path, seed: int, result: Path) -> None:
    """Try a batch of mutations; what is in the result file survives a crash."""
    warnings.simplefilter("error")
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    rng = random.Random(seed)
    counts: Counter[str] = Counter()
    for case in range(BATCH):
        data, places = rng.choice(good)
        path.write_bytes(mutate(data, places, rng))
        writing.seal(path)
        signal.alarm(SECONDS)
        try:
            open_all(path)
            counts["read"] += 1
        except BrainfeatError:
            counts["refused"] += 1
        except Exception as error:  # noqa: BLE001
            counts[f"{type(error).__name__}: {error} (seed {seed}, case {case})"] += 1
        signal.alarm(0)
        result.write_text(json.dumps(counts))


def fuzz(files: list[Path], cases: int, seed: int = 0) -> Counter[str]:
    """Try mutations of files, a batch a child process, and count what came of them."""
    good = [(data := path.read_bytes(), metadata_places(data)) for path in files]
    total: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        path, result = Path(folder, "mutated.h5"), Path(folder, "result.json")
        for batch in range(-(-cases // BATCH)):
            result.write_text("{}")
            if (child := os.fork()) == 0:
                code = 1
                try:
                    run_batch(good, path, seed * 1_000_003 + batch, result)
                    code = 0
                finally:
                    os._exit(code)
            _, status = os.waitpid(child, 0)
            total.update(json.loads(result.read_text()))
            if os.WIFEXITED(status) and os.WEXITSTATUS(status):
                total["a batch that failed"] += 1
            if os.WIFSIGNALED(status):
                name = signal.Signals(os.WTERMSIG(status)).name
                place = sum(json.loads(result.read_text()).values())
                total[f"{name} (seed {seed * 1_000_003 + batch}, case {place})"] += 1
    return total


def fuzz_apart(folder: Path, cases: int, seed: int = 0) -> Counter[str]:
    """Fuzz in a process that has no threads: one that has, or has used OpenMP, cannot fork."""
    write_files(folder)
    tests = str(Path(__file__).parents[1])
    options = ["--cases", str(cases), "--seed", str(seed), "--files", str(folder)]
    done = subprocess.run(
        [sys.executable, "-m", "support.fuzz_storage", *options],
        check=True,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([tests, *filter(None, sys.path)])},
    )
    return Counter(json.loads(done.stdout))


def write_files(place: Path) -> None:
    """Write a cache of two chunks and three heads, each small."""
    from brainfeat.training.fitting import fit_head
    from support.caches import write_vectors

    rng = np.random.default_rng(0)
    y = np.arange(1100) % 3
    X = rng.normal(size=(1100, 4)) + y[:, None]
    names = ["a", "b", "c"]
    write_vectors(place, X, y, class_names=names)
    small = write_vectors(place, X[:60], y[:60], name="small.h5", class_names=names)
    for head in ("lda", "svm", "knn"):
        fit_head(small, head=head).save(place / f"{head}.h5")


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--files", type=Path, help="mutate the files of a folder; print JSON")
    chosen = parser.parse_args()
    if chosen.files:
        files = sorted(chosen.files.glob("*.h5"))
        print(json.dumps(fuzz(files, chosen.cases, chosen.seed)))
        return
    with tempfile.TemporaryDirectory() as folder:
        counts = fuzz_apart(Path(folder), chosen.cases, chosen.seed)
    for what, number in counts.items():
        print(f"{number:>8,}  {what}")


if __name__ == "__main__":
    main()
