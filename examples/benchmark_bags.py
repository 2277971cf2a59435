"""Time and peak memory of heads whose examples are patients: whole `brainfeat fit-head` commands.

    python examples/benchmark_bags.py
    python examples/benchmark_bags.py --patients 500 --slices 200 --heads logistic

Features are random, 512 a slice, with classes that overlap. Attention runs all of its epochs. A MB
is 2²⁰ bytes.
"""

import argparse
import tempfile
from pathlib import Path

from benchmark_growth import write_features
from benchmark_memory import run


def main(arguments: list[str] | None = None) -> None:
    """Print a line for each command."""
    parser = argparse.ArgumentParser(description="Time fits on patients.")
    parser.add_argument("--patients", type=int, default=2_000)
    parser.add_argument("--slices", type=int, default=60)
    parser.add_argument("--heads", nargs="+", default=["logistic", "dense"])
    parser.add_argument("--epochs", type=int, default=50, help="of attention")
    chosen = parser.parse_args(arguments)
    attention = ["--epochs", chosen.epochs, "--param", f"patience={chosen.epochs}"]
    ways = [(head, "mean", ["--head", head]) for head in chosen.heads]
    print("bag         head          seconds   peak, MB", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        features, output = Path(folder) / "features.h5", Path(folder) / "head.h5"
        write_features(features, chosen.patients * chosen.slices, slices=chosen.slices)
        for head, bag, options in [*ways, ("attention", "attention", attention)]:
            words = ["fit-head", features, "-o", output, "--overwrite", "--bag", bag, *options]
            seconds, peak = run(*map(str, words))
            print(f"{bag:<12}{head:<12}{seconds:>9.1f}{peak:>11,.0f}", flush=True)


if __name__ == "__main__":
    main()
