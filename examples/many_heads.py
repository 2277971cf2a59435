"""Many heads on one cache, ranked by what they are worth on the validation images.

    python examples/many_heads.py
    python examples/many_heads.py features.h5

Without arguments it draws synthetic slices and caches their features under random weights.
"""

import argparse
import tempfile
from pathlib import Path
from typing import NamedTuple

from brainfeat import FeatureCache, extract, fit_head, read_table
from brainfeat.heads import HEAD_NAMES
from brainfeat.phantoms import write_phantoms


class Result(NamedTuple):
    """What one head is worth."""

    head: str
    val: float
    test: float | None
    seconds: float


def main(arguments: list[str] | None = None) -> None:
    """Fit every head on one cache and rank them by their validation figures."""
    parser = argparse.ArgumentParser(description="Rank heads on one cache.")
    parser.add_argument("features", nargs="?", help="cache; of synthetic slices where left out")
    parser.add_argument("--heads", nargs="+", choices=HEAD_NAMES, default=HEAD_NAMES)
    parser.add_argument("--backbone", default="vgg16", help="for synthetic slices")
    parser.add_argument("--weights", default="random", help="for synthetic slices")
    parser.add_argument("--size", type=int, default=224, help="pixels of synthetic slices")
    parser.add_argument("--patients", type=int, default=8, help="synthetic patients of a class")
    chosen = parser.parse_args(arguments)

    with tempfile.TemporaryDirectory() as folder:
        features = Path(chosen.features) if chosen.features else cache_phantoms(folder, chosen)
        with FeatureCache.open(features) as cache:
            results = [rate(cache, head) for head in chosen.heads]
    results.sort(key=lambda result: result.val, reverse=True)

    print(f"{'head':<24}{'balanced accuracy (val)':>24}{'seconds':>9}")
    for result in results:
        print(f"{result.head:<24}{result.val:>24.3f}{result.seconds:>9.1f}")
    best = results[0]
    # The test images are asked about the chosen head alone: else they would have helped to choose.
    if best.test is not None:
        print(f"\n{best.head} on the test images: balanced accuracy {best.test:.3f}")


def cache_phantoms(folder: str, chosen: argparse.Namespace) -> Path:
    """Draw synthetic slices and run stage one over them."""
    slices = Path(folder) / "slices"
    table = write_phantoms(slices, patients_per_class=chosen.patients, size=chosen.size)
    return extract(
        read_table(table),
        Path(folder) / "features.h5",
        backbone=chosen.backbone,
        weights=chosen.weights,
        input_size=chosen.size,
    ).output


def rate(cache: FeatureCache, head: str) -> Result:
    """Fit one head; equal random states give every head the same parts."""
    training = fit_head(cache, head=head, random_state=0).training
    test = training["test"] and training["test"]["balanced_accuracy"]
    return Result(head, training["val"]["balanced_accuracy"], test, training["seconds"])


if __name__ == "__main__":
    main()
