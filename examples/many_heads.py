"""Rank many heads on one cache by cross-validation on the same folds, and test the best.

    python examples/many_heads.py
    python examples/many_heads.py features.h5 --head svm --search

Without a cache, it draws synthetic slices and caches their features under random weights.
"""

import argparse
import tempfile
from pathlib import Path

from brainfeat import extract, fit_head, read_table
from brainfeat.heads.kinds import HEAD_NAMES
from brainfeat.phantoms import write_phantoms


def main(arguments: list[str] | None = None) -> None:
    """Compare heads, or parameters of one head, on one cache."""
    parser = argparse.ArgumentParser(description="Rank heads on one cache.")
    parser.add_argument("features", nargs="?", help="cache; synthetic slices by default")
    parser.add_argument("--head", choices=["all", *HEAD_NAMES], default="all")
    parser.add_argument("--search", action="store_true", help="try parameters of the head's grid")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--backbone", default="vgg16", help="for synthetic slices")
    parser.add_argument("--weights", default="random", help="for synthetic slices")
    parser.add_argument("--size", type=int, default=224, help="pixels of synthetic slices")
    parser.add_argument("--patients", type=int, default=8, help="synthetic patients of a class")
    chosen = parser.parse_args(arguments)

    with tempfile.TemporaryDirectory() as folder:
        features = Path(chosen.features) if chosen.features else cache_phantoms(folder, chosen)
        bundle = fit_head(features, head=chosen.head, search=chosen.search, cv=chosen.folds)
    # One head without a search has no table of candidates.
    search = bundle.training.search
    for row in search.candidates if search else ():
        score = row.error or f"{row.mean:.3f} ± {row.std:.3f}"
        print(f"{row.rank or '–':>4}  {row.head:<24}{score}  {row.params or ''}")
    folds = bundle.training.cv.balanced_accuracy
    print(f"\n{bundle.head}: balanced accuracy {folds.mean:.3f} over {chosen.folds} folds", end="")
    # Only the chosen head is evaluated on the test images; otherwise they would help to choose.
    test = bundle.training.test
    print(f", {test.balanced_accuracy:.3f} on the test images" if test else "")


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


if __name__ == "__main__":
    main()
