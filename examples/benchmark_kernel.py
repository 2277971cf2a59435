"""What a whole kernel gains when a support vector machine is fitted, and what it changes.

    python examples/benchmark_kernel.py                        # random features
    python examples/benchmark_kernel.py --features mri.h5      # your own

`fit_head` runs in turns, each time in a process of its own: with the kernel by one product of
matrices, and pair by pair inside libsvm, as above 8,192 rows. Folds run in the same process. The
time is that of `fit_head`, without imports; the peak is Linux's VmHWM. A ratio compares two runs of
one round.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
from benchmark_growth import write_features

from brainfeat import FeatureCache, fit_head
from brainfeat.heads import kernels

ROWS = 5708
WAYS = ("kernel", "pairs")


def main(arguments: list[str] | None = None) -> None:
    """Print the medians of each way, the ratio and the largest difference of a probability."""
    parser = argparse.ArgumentParser(description="Time support vector machines.")
    parser.add_argument("--features", type=Path, help="a cache that extract wrote")
    parser.add_argument("--rows", type=int, default=ROWS, help="rows of random features")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--alone", choices=WAYS, help=argparse.SUPPRESS)
    chosen = parser.parse_args(arguments)
    if chosen.alone:
        fit(chosen.features, chosen.alone)
        return
    with tempfile.TemporaryDirectory() as folder:
        features = chosen.features or write_features(Path(folder) / "features.h5", chosen.rows)
        rounds = [[run(features, way) for way in WAYS] for _ in range(chosen.rounds)]
    for place, way in enumerate(WAYS):
        seconds, peak = (median(row[place][name] for row in rounds) for name in ("seconds", "peak"))
        print(f"{way}: {seconds:.2f} s, {peak:,.0f} MB")
    print(f"ratio: {median(one['seconds'] / other['seconds'] for one, other in rounds):.2f}")
    one, other = (np.array(found["probabilities"]) for found in rounds[0])
    print(f"largest difference of a probability: {np.abs(one - other).max():.0e}")


def run(features: Path, way: str) -> dict:
    """Fit a head in a process of its own."""
    words = [sys.executable, __file__, "--features", str(features), "--alone", way]
    return json.loads(subprocess.run(words, check=True, stdout=subprocess.PIPE).stdout)


def fit(features: Path, way: str) -> None:
    """Fit a head in this process, and print what was measured as JSON."""
    if way == "pairs":
        kernels.KERNEL_ROWS = -1
    with FeatureCache(features) as cache:
        started = time.perf_counter()
        head = fit_head(cache, head="svm", n_jobs=1)
        seconds = time.perf_counter() - started
        status = Path("/proc/self/status").read_text()
        peak = int(status.split("VmHWM:")[1].split()[0]) / 1024
        probabilities = head.predict_proba(cache.X[:1000])
    print(json.dumps({"seconds": seconds, "peak": peak, "probabilities": probabilities.tolist()}))


if __name__ == "__main__":
    main()
