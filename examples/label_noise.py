"""Measure how many changed labels the audit finds, and how much of its list was changed.

    python examples/label_noise.py mri.h5 --fraction 0.05 --seeds 3

The labels of some groups of copies are changed in a copy of the table, seeded, until a fraction of
the images is changed. What `find_label_doubts` lists is compared with what was changed, and so is
what cleanlab lists for the same probabilities, and the labels that are not the most probable class.
"""

import argparse

import numpy as np
from cleanlab.filter import find_label_issues
from sklearn.metrics import average_precision_score

from brainfeat import FeatureCache
from brainfeat.leakage.auditing import audit_duplicates
from brainfeat.training.confident_learning import doubt_labels, find_confident_classes
from brainfeat.training.grouping import choose_groups
from brainfeat.training.out_of_fold import predict_out_of_fold
from brainfeat.training.partition import Partition


def change_labels(y: np.ndarray, groups: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """Give whole groups another class, all images of one class of a group the same."""
    rng = np.random.default_rng(seed)
    k, changed = int(y.max()) + 1, y.copy()
    for group in rng.permutation(np.unique(groups)):
        if (changed != y).mean() >= fraction:
            break
        members = groups == group
        changed[members] = (y[members] + rng.integers(1, k)) % k
    return changed


def main(arguments: list[str] | None = None) -> None:
    """Print a line for each method and seed."""
    parser = argparse.ArgumentParser(description="Measure which changed labels are found.")
    parser.add_argument("features")
    parser.add_argument("--fraction", type=float, default=0.05)
    parser.add_argument("--seeds", type=int, default=3)
    chosen = parser.parse_args(arguments)
    with FeatureCache(chosen.features) as cache:
        groups = choose_groups(cache, "auto", audit_duplicates(cache)).labels
        groups = np.arange(len(cache)) if groups is None else groups
        labels, rows = cache.y.copy(), np.flatnonzero(cache.mask())
        print("seed  method                  listed  precision  recall  average precision")
        for seed in range(1, chosen.seeds + 1):
            cache.y[rows] = change_labels(labels[rows], groups[rows], chosen.fraction, seed)
            checked = predict_out_of_fold(
                Partition.read(cache), cache.splits, groups, random_state=seed
            )
            report(checked, cache.y[checked.rows] != labels[checked.rows], seed)


def report(checked, wrong: np.ndarray, seed: int) -> None:
    """Print how many of the changed labels are in each list."""
    p, y = checked.probabilities, checked.y
    confident = find_confident_classes(p, y, counted=checked.fitted)
    lists = {
        "brainfeat": doubt_labels(p, y, confident.classes),
        "cleanlab": find_label_issues(y, p, filter_by="confident_learning", n_jobs=1),
        "cleanlab, its default": find_label_issues(y, p, n_jobs=1),
        "not the most probable": p.argmax(axis=1) != y,
    }
    ranking = average_precision_score(wrong, -p[np.arange(len(y)), y])
    for name, listed in lists.items():
        print(
            f"{seed:4}  {name:22}  {listed.sum():6,}  {wrong[listed].mean():9.3f}  "
            f"{listed[wrong].mean():6.3f}  {ranking:17.3f}"
        )


if __name__ == "__main__":
    main()
