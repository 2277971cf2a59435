"""Time and memory of the searches for near duplicates and for copies, by the number of rows.

    python examples/benchmark_audit.py --rows 5000 20000 100000 1000000

Near duplicates: features are normal vectors with planted near copies; the ratio is to the time of
the matrix products of the features with themselves, block by block, which any exact search has to
compute. It is left out above 100,000 rows.

Copies: signatures are mixtures of those of phantoms, and one in twenty is another one turned or
mirrored, with noise. They are read from a file. The ratios are to one orientation by brute force,
all products of whole signatures, and to the search for near duplicates.

Each search runs in a process of its own; the peak is Linux's VmHWM. Growth is the power of the
number of rows by which the time has grown since the size before.
"""

import argparse
import json
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from brainfeat.cache.signature import SIGNATURE_SIZE, compute_signature, orient_signatures
from brainfeat.leakage.copies import COPY_THRESHOLD, find_copies
from brainfeat.leakage.duplicates import label_near_duplicates
from brainfeat.phantoms import CLASS_NAMES, draw_slice

WIDTH = 512
SQUARE_LIMIT = 100_000
_BLOCK = 2048
_PATIENTS = 100


class Stored:
    """Signatures in a file, of which no more is in memory than what is asked for."""

    dtype = np.dtype(np.int8)

    def __init__(self, path: Path) -> None:
        self.path = path
        self.shape = path.stat().st_size // SIGNATURE_SIZE, SIGNATURE_SIZE

    def __getitem__(self, rows: slice | np.ndarray) -> np.ndarray:
        return np.array(np.memmap(self.path, np.int8, "r", shape=self.shape)[rows])


def main(arguments: list[str] | None = None) -> None:
    """Print one line per size for either search."""
    parser = argparse.ArgumentParser(description="Time the searches of the audit.")
    parser.add_argument("--rows", type=int, nargs="+", default=[5_000, 20_000, 100_000])
    parser.add_argument("--alone", choices=sorted(STEPS), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args(arguments)
    if chosen.alone:
        print(json.dumps(STEPS[chosen.alone](chosen.rows[0], chosen.folder)))
        return
    small = [rows for rows in chosen.rows if rows <= SQUARE_LIMIT]
    print(f"{'near':>9}{'seconds':>10}{'MB':>8}{'clusters':>10}{'products':>10}{'ratio':>8}")
    near = {rows: print_near(rows) for rows in small}
    print(f"{'copies':>9}{'seconds':>10}{'MB':>8}{'pairs':>10}{'missed':>8}", end="")
    print(f"{'brute':>10}{'ratio':>8}{'to near':>9}{'growth':>8}")
    before = None
    for rows in chosen.rows:
        before = print_copies(rows, near.get(rows), before)


def print_near(rows: int) -> float:
    """Measure the search for near duplicates, and return its seconds."""
    found = run_alone("near", rows)
    print(
        f"{rows:9,}{found['seconds']:10.1f}{found['peak_mb']:8,.0f}{found['clusters']:10,}"
        f"{found['products']:10.1f}{found['seconds'] / found['products']:8.2f}"
    )
    return found["seconds"]


def print_copies(
    rows: int, near: float | None, before: tuple[int, float] | None
) -> tuple[int, float]:
    """Measure the search for copies, and return rows and seconds."""
    with tempfile.TemporaryDirectory() as folder:
        run_alone("draw", rows, folder)
        found = run_alone("copies", rows, folder)
        seconds = found["seconds"]
        print(f"{rows:9,}{seconds:10.1f}{found['peak_mb']:8,.0f}", end="")
        print(f"{found['pairs']:10,}{found['missed']:8,}", end="")
        if near is None:
            print(f"{'':27}", end="")
        else:
            brute = run_alone("brute", rows, folder)["seconds"]
            print(f"{brute:10.1f}{seconds / brute:8.2f}{seconds / near:9.2f}", end="")
    growth = before and math.log(seconds / before[1]) / math.log(rows / before[0])
    print(f"{growth:8.2f}" if growth else "")
    return rows, seconds


def run_alone(step: str, rows: int, folder: str = ".") -> dict[str, float]:
    """Run one step in a process of its own."""
    words = ["--alone", step, "--rows", str(rows), "--folder", folder]
    done = subprocess.run(
        [sys.executable, __file__, *words], check=True, stdout=subprocess.PIPE, text=True
    )
    return json.loads(done.stdout)


def search_near(rows: int, _folder: Path) -> dict[str, float]:
    """Search for near duplicates among some rows, and compute the products alone."""
    X = draw_features(rows)
    started = time.perf_counter()
    labels = label_near_duplicates(X)
    seconds = time.perf_counter() - started
    peak = read_peak()
    started = time.perf_counter()
    for start in range(0, rows, _BLOCK):
        X[start : start + _BLOCK] @ X[start:].T
    return {
        "seconds": seconds,
        "peak_mb": peak,
        "clusters": int((np.bincount(labels) > 1).sum()),
        "products": time.perf_counter() - started,
    }


def draw_features(rows: int) -> np.ndarray:
    """Draw features of which one in twenty is a near copy of another."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((rows, WIDTH), dtype=np.float32)
    copies = rng.permutation(rows)[: rows // 20]
    X[copies] = X[rng.permutation(rows)[: len(copies)]]
    X[copies] += 0.1 * rng.standard_normal((len(copies), WIDTH), dtype=np.float32)
    return X


def draw_signatures(rows: int, folder: Path) -> dict[str, float]:
    """Write signatures to a file: mixtures, then copies of some of them."""
    rng = np.random.default_rng(0)
    slices = [
        draw_slice(name, patient=patient, level=patient % 9)
        for name in CLASS_NAMES
        for patient in range(min(_PATIENTS, 20 + rows // 100))
    ]
    phantoms = scale(np.stack([compute_signature(slice_) for slice_ in slices]))
    copies = rows // 20
    sources = np.sort(rng.integers(0, rows - copies, copies))
    np.save(folder / "sources.npy", sources)
    with (folder / "signatures").open("wb") as file:
        for start in range(0, rows - copies, _BLOCK):
            some = min(_BLOCK, rows - copies - start)
            file.write(quantise(mix(phantoms, some, rng)).tobytes())
        file.flush()
        stored = Stored(folder / "signatures")
        for start in range(0, copies, _BLOCK):
            block = stored[sources[start : start + _BLOCK]]
            for turn in range(8):
                block[turn::8] = orient_signatures(block[turn::8], turn)
            noise = scale(rng.standard_normal(block.shape, np.float32))
            # Cosines of 0.995 down to 0.93.
            noise *= rng.uniform(0.1, 0.39, (len(block), 1)).astype(np.float32)
            file.write(quantise(scale(block) + noise).tobytes())
    return {}


def mix(phantoms: np.ndarray, rows: int, rng: np.random.Generator) -> np.ndarray:
    """Draw mixtures of four phantoms, which look alike, with three tenths of what does not."""
    parts = rng.dirichlet(np.ones(4), rows).astype(np.float32)
    alike = sum(parts[:, [k]] * phantoms[rng.integers(len(phantoms), size=rows)] for k in range(4))
    weights = rng.standard_normal((rows, 64), np.float32)
    other = weights @ phantoms[rng.permutation(len(phantoms))[:64]]
    return math.sqrt(0.7) * scale(alike) + math.sqrt(0.3) * scale(other)


def scale(vectors: np.ndarray) -> np.ndarray:
    """Scale rows to length 1."""
    vectors = vectors.astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def quantise(vectors: np.ndarray) -> np.ndarray:
    """Round rows so that the largest number of each is ±127."""
    return np.rint(vectors * (127 / np.abs(vectors).max(axis=1, keepdims=True))).astype(np.int8)


def search_copies(rows: int, folder: Path) -> dict[str, float]:
    """Search for copies, and count the planted ones that were not found."""
    started = time.perf_counter()
    blocks = list(find_copies(Stored(folder / "signatures")))
    seconds = time.perf_counter() - started
    peak = read_peak()
    found = np.concatenate([block.first * rows + block.second for block in blocks])
    sources = np.load(folder / "sources.npy")
    planted = sources * rows + np.arange(rows - len(sources), rows)
    return {
        "seconds": seconds,
        "peak_mb": peak,
        "pairs": len(found),
        "missed": len(np.setdiff1d(planted, found)),
    }


def compare_all(rows: int, folder: Path) -> dict[str, float]:
    """Compare all whole signatures with each other in one orientation."""
    directions = scale(Stored(folder / "signatures")[:])
    started = time.perf_counter()
    for low in range(0, rows, _BLOCK):
        for start in range(low, rows, _BLOCK):
            products = directions[low : low + _BLOCK] @ directions[start : start + _BLOCK].T
            (products >= COPY_THRESHOLD).any()
    return {"seconds": time.perf_counter() - started}


def read_peak() -> float:
    """Read the peak memory of this process in MB."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


STEPS: dict[str, Callable[[int, Path], dict[str, float]]] = {
    "near": search_near,
    "draw": draw_signatures,
    "copies": search_copies,
    "brute": compare_all,
}

if __name__ == "__main__":
    main()
