"""Time of one evaluation on several caches, against that of as many evaluations.

    python examples/benchmark_sets.py HEAD CACHE CACHE CACHE CACHE CACHE

Both are timed in turns in one process, --rounds times each, from the files of the head and of the
caches. The ratio is that of the medians. The several caches give the same results as each alone,
and beyond them what they have in common and the differences to the test part of the fit.
"""

import argparse
import statistics
import time
from collections.abc import Callable

from brainfeat import FeatureCache, evaluate


def main(arguments: list[str] | None = None) -> None:
    """Print the rows of the caches, the times of both, and their ratio."""
    parser = argparse.ArgumentParser(description="Time an evaluation on several caches.")
    parser.add_argument("head")
    parser.add_argument("caches", nargs="+")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--split", default="all")
    chosen = parser.parse_args(arguments)
    for path in chosen.caches:
        with FeatureCache(path) as cache:
            print(f"{len(cache):7,} rows  {path}")

    def evaluate_together() -> list[float]:
        found = evaluate(chosen.head, chosen.caches, split=chosen.split)
        return [entry.evaluation.accuracy for entry in found.sets]

    def evaluate_alone() -> list[float]:
        return [
            evaluate(chosen.head, cache, split=chosen.split).accuracy for cache in chosen.caches
        ]

    together, alone = [], []
    for _ in range(chosen.rounds):
        seconds, one = measure(evaluate_alone)
        alone.append(seconds)
        seconds, other = measure(evaluate_together)
        together.append(seconds)
        if one != other:
            raise SystemExit("the accuracies differ")
    print(f"each alone {statistics.median(alone):6.1f} s")
    print(f"together   {statistics.median(together):6.1f} s")
    print(f"ratio      {statistics.median(together) / statistics.median(alone):6.2f}")


def measure(work: Callable[[], list[float]]) -> tuple[float, list[float]]:
    """Return the seconds that a piece of work takes, and what it gives."""
    started = time.perf_counter()
    found = work()
    return time.perf_counter() - started, found


if __name__ == "__main__":
    main()
