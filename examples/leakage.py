"""A public test score, with and without copies of training images among the test images.

    python examples/leakage.py mri.h5
    python examples/leakage.py mri.h5 --head dense --random random.h5

The cache holds a table with splits, such as that of the public Brain Tumor MRI Dataset; the second
cache holds the same table under random weights (brainfeat extract … --weights random).
"""

import argparse

import numpy as np

from brainfeat import FeatureCache, audit, evaluate, fit_head
from brainfeat.evaluation.results import Evaluation, Subset
from brainfeat.heads.kinds import HEAD_NAMES
from brainfeat.leakage.splitting import split_rows
from brainfeat.training.grouping import choose_groups


def main(arguments: list[str] | None = None) -> None:
    """Print one line per score."""
    parser = argparse.ArgumentParser(description="Measure a score without copies.")
    parser.add_argument("features", help="cache of a table that has splits")
    parser.add_argument("--head", choices=HEAD_NAMES, default="svm")
    parser.add_argument("--random", help="cache of the same table under random weights")
    chosen = parser.parse_args(arguments)

    with FeatureCache.open(chosen.features) as cache:
        found = audit(cache)
        head = fit_head(cache, head=chosen.head)
        evaluation = evaluate(head, cache, by=name_copies(cache, evaluate(head, cache)))
        show(f"{chosen.head}, the table's test images", evaluation.subsets.all)
        show_new(evaluation)
        if "copy" in evaluation.by:
            show("  the copies alone", evaluation.by["copy"])
        split_anew(cache)
        grouped = evaluate(fit_head(cache, head=chosen.head), cache).subsets.all
        show(f"{chosen.head}, split anew without cutting copies", grouped)
    if chosen.random:
        with FeatureCache.open(chosen.random) as cache:
            memory = fit_head(cache, head="knn", params={"n_neighbors": 1})
            remembered = evaluate(memory, cache)
            show("nearest neighbour, random weights", remembered.subsets.all)
            show_new(remembered)
    print("\nfound by the audit:")
    for finding in found.findings or ["nothing"]:
        print(f"- {finding}")


def show_new(evaluation: Evaluation) -> None:
    """Print the scores on images that are new to the head."""
    for name in ("exact_duplicates", "copies", "near_duplicates"):
        subset = getattr(evaluation.subsets, f"without_{name}")
        show(f"  without {name.replace('_', ' ')} in train", subset)


def show(name: str, subset: Subset) -> None:
    """Print accuracy, its interval and the number of images."""
    accuracy = "n/a" if subset.accuracy is None else f"{subset.accuracy:.3f}"
    interval = subset.intervals and "({:.3f}–{:.3f})".format(*subset.intervals.accuracy)
    print(f"{name:42}{accuracy:>6}  {interval or subset.reason}  {subset.n:,} images")


def split_anew(cache: FeatureCache) -> None:
    """Give the cache a new split of the same sizes that cuts no group of copies."""
    groups = choose_groups(cache, "auto").labels
    labelled = cache.mask()
    fractions = {name: (cache.splits[labelled] == name).mean() for name in ("val", "test")}
    splits = split_rows(
        cache.y[labelled],
        fractions={name: size for name, size in fractions.items() if size},
        groups=None if groups is None else groups[labelled],
        class_names=cache.class_names,
    )
    protocol = dict.fromkeys(cache.paths.tolist(), ("", ""))
    for path, split in zip(cache.paths[labelled], splits, strict=True):
        protocol[path] = (split, "")
    cache.assign(protocol)


def name_copies(cache: FeatureCache, evaluation: Evaluation) -> np.ndarray:
    """Return for each row whether the head has seen a copy of it."""
    found = evaluation.predictions
    values = np.full(len(cache), "not evaluated")
    values[found.rows] = "new" if found.copies is None else np.where(found.copies, "copy", "new")
    return values


if __name__ == "__main__":
    main()
