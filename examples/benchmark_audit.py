"""Time and memory of the search for near duplicates, by the number of rows.

    python examples/benchmark_audit.py --rows 25000 50000 100000

Features are normal vectors with planted near copies. Each size runs in a process of its own; the
peak is Linux's VmHWM. The last column is the ratio to the time of the matrix products of the
features with themselves, block by block, which any exact search has to compute.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from brainfeat.leakage.duplicates import label_near_duplicates

WIDTH = 512
_BLOCK = 2048


def main(arguments: list[str] | None = None) -> None:
    """Print one line per size."""
    parser = argparse.ArgumentParser(description="Time the search for near duplicates.")
    parser.add_argument("--rows", type=int, nargs="+", default=[5_000, 20_000, 100_000])
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    chosen = parser.parse_args(arguments)
    if chosen.alone:
        print(json.dumps(measure(chosen.rows[0])))
        return
    print(f"{'rows':>9}{'seconds':>10}{'MB':>8}{'clusters':>10}{'products':>10}{'ratio':>8}")
    for rows in chosen.rows:
        command = [sys.executable, __file__, "--alone", "--rows", str(rows)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        found = json.loads(done.stdout)
        print(
            f"{rows:9,}{found['seconds']:10.1f}{found['peak_mb']:8,.0f}{found['clusters']:10,}"
            f"{found['product_seconds']:10.1f}{found['seconds'] / found['product_seconds']:8.2f}"
        )


def measure(rows: int) -> dict[str, float]:
    """Search for near duplicates among some rows."""
    X = draw(rows)
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
        "product_seconds": time.perf_counter() - started,
    }


def draw(rows: int) -> np.ndarray:
    """Draw features of which one in twenty is a near copy of another."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((rows, WIDTH), dtype=np.float32)
    copies = rng.permutation(rows)[: rows // 20]
    X[copies] = X[rng.permutation(rows)[: len(copies)]]
    X[copies] += 0.1 * rng.standard_normal((len(copies), WIDTH), dtype=np.float32)
    return X


def read_peak() -> float:
    """Read the peak memory of this process in MB."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


if __name__ == "__main__":
    main()
