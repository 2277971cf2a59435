"""What a learning curve costs, compared with a call of fit_head for each of its sizes.

    python examples/benchmark_curve.py --features mri.h5

Both run in turns in processes of their own: `learning_curve` of a support vector machine, with five
repeats of all sizes; and eight calls of `fit_head`, which fit eight heads on all images. The times
are those of the calls, without imports. A ratio compares two runs of one round.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from benchmark_growth import write_features

from brainfeat import FeatureCache, fit_head, learning_curve

ROWS = 5708
CALLS = 8
WAYS = ("curve", "calls")


def main(arguments: list[str] | None = None) -> None:
    """Print the median of each way, and the ratio."""
    parser = argparse.ArgumentParser(description="Time learning curves.")
    parser.add_argument("--features", type=Path, help="a cache that extract wrote")
    parser.add_argument("--rows", type=int, default=ROWS, help="rows of random features")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--alone", choices=WAYS, help=argparse.SUPPRESS)
    chosen = parser.parse_args(arguments)
    if chosen.alone:
        measure(chosen.features, chosen.alone)
        return
    with tempfile.TemporaryDirectory() as folder:
        features = chosen.features or write_features(Path(folder) / "features.h5", chosen.rows)
        rounds = [[run(features, way) for way in WAYS] for _ in range(chosen.rounds)]
    for place, way in enumerate(WAYS):
        print(f"{way}: {median(row[place] for row in rounds):.1f} s")
    print(f"calls to curve: {median(calls / curve for curve, calls in rounds):.1f}")


def run(features: Path, way: str) -> float:
    """Measure one way in a process of its own."""
    words = [sys.executable, __file__, "--features", str(features), "--alone", way]
    return float(subprocess.run(words, check=True, stdout=subprocess.PIPE).stdout)


def measure(features: Path, way: str) -> None:
    """Measure one way in this process, and print the seconds."""
    with FeatureCache(features) as cache:
        started = time.perf_counter()
        if way == "curve":
            learning_curve(cache, head="svm")
        else:
            for _ in range(CALLS):
                fit_head(cache, head="svm")
        print(time.perf_counter() - started)


if __name__ == "__main__":
    main()
