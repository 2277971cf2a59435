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


def main(arguments: list[str] | None = None) -> None:
    """Print one line per score."""
    parser = argparse.ArgumentParser(description="Measure a score without copies.")
    parser.add_argument("features", help="cache of a table that has splits")
    parser.add_argument("--head", choices=HEAD_NAMES, default="svm")
    parser.add_argument("--random", help="cache of the same table under random weights")
    chosen = parser.parse_args(arguments)

    with FeatureCache.open(chosen.features) as cache:
        found = audit(cache)
        evaluation = evaluate(fit_head(cache, head=chosen.head), cache)
        subsets = evaluation.subsets
        show(f"{chosen.head}, the table's test images", subsets.all)
        show("  without exact duplicates in train", subsets.without_exact_duplicates)
        show("  without near duplicates in train", subsets.without_near_duplicates)
        split_anew(cache, found.clusters)
        grouped = evaluate(fit_head(cache, head=chosen.head), cache).subsets.all
        show(f"{chosen.head}, split anew by clusters", grouped)
    if chosen.random:
        with FeatureCache.open(chosen.random) as cache:
            memory = fit_head(cache, head="knn", params={"n_neighbors": 1})
            remembered = evaluate(memory, cache, by=find_copies(cache, evaluation))
            show("nearest neighbour, random weights", remembered.subsets.all)
            show("  without exact duplicates in train", remembered.subsets.without_exact_duplicates)
            if "new" in remembered.by:
                show("  without near duplicates in train", remembered.by["new"])
    print("\nfound by the audit:")
    for finding in found.findings or ["nothing"]:
        print(f"- {finding}")


def show(name: str, subset: Subset) -> None:
    """Print accuracy, its interval and the number of images."""
    accuracy = "n/a" if subset.accuracy is None else f"{subset.accuracy:.3f}"
    interval = subset.intervals and "({:.3f}–{:.3f})".format(*subset.intervals.accuracy)
    print(f"{name:38}{accuracy:>6}  {interval or subset.reason}  {subset.n:,} images")


def split_anew(cache: FeatureCache, clusters: np.ndarray) -> None:
    """Give the cache a new split of the same sizes that cuts no cluster of near duplicates."""
    labelled = cache.mask()
    fractions = {name: (cache.splits[labelled] == name).mean() for name in ("val", "test")}
    splits = split_rows(
        cache.y[labelled],
        fractions={name: size for name, size in fractions.items() if size},
        groups=clusters[labelled],
        class_names=cache.class_names,
    )
    protocol = dict.fromkeys(cache.paths.tolist(), ("", ""))
    for path, split in zip(cache.paths[labelled], splits, strict=True):
        protocol[path] = (split, "")
    cache.assign(protocol)


def find_copies(cache: FeatureCache, evaluation: Evaluation) -> np.ndarray:
    """Return for each row whether pretrained features find a near duplicate of it in train."""
    found = evaluation.predictions
    values = np.full(len(cache), "not evaluated")
    if found.near_duplicates is not None:
        values[found.rows] = np.where(found.near_duplicates, "copy", "new")
    return values


if __name__ == "__main__":
    main()
