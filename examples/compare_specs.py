"""Compare two heads whose features have different specs on the same images.

    python examples/compare_specs.py svm.h5 mri.h5 cropped-svm.h5 cropped-mri.h5

`brainfeat compare` takes heads of one spec. Here each head has a cache of its own; the images are
the same files in the same order. Images of which either head has seen a copy are left out, unless
--all-images is given. The 95 % intervals of the differences, of the second less the first, are
those of a paired bootstrap over groups of copies.
"""

import argparse

import numpy as np

from brainfeat import FeatureCache, evaluate
from brainfeat.evaluation.bootstrap import (
    N_RESAMPLES,
    count_by_group,
    draw_weights,
    find_percentiles,
    score_overall,
)
from brainfeat.evaluation.comparison import mcnemar_p_value
from brainfeat.text import format_interval, format_metric


def main(arguments: list[str] | None = None) -> None:
    """Print the accuracies of both heads, and their differences with intervals."""
    parser = argparse.ArgumentParser(description="Compare heads of features of two specs.")
    for name in ("first_head", "first_cache", "second_head", "second_cache"):
        parser.add_argument(name)
    parser.add_argument("--split", default="test")
    parser.add_argument("--classes", help="such as yes=glioma+meningioma,no=notumor")
    parser.add_argument("--all-images", action="store_true")
    chosen = parser.parse_args(arguments)
    found, files = [], []
    for head, path in (
        (chosen.first_head, chosen.first_cache),
        (chosen.second_head, chosen.second_cache),
    ):
        with FeatureCache.open(path) as cache:
            measured = evaluate(head, cache, split=chosen.split, classes=chosen.classes)
            found.append(measured.predictions)
            files.append(cache.sha256[measured.predictions.rows])
    if not np.array_equal(*files):
        raise SystemExit("the caches have other images in this split, or in another order")
    kept = np.ones(len(files[0]), np.bool_)
    if not chosen.all_images:
        kept = ~(found[0].copies | found[1].copies)
    report([entry.select(kept) for entry in found])


def report(found: list) -> None:
    """Print the metrics of two heads on the same images."""
    y, k = found[0].y, found[0].probabilities.shape[1]
    predicted = [entry.probabilities.argmax(axis=1) for entry in found]
    _, groups = np.unique(found[0].groups, return_inverse=True)
    n_groups = int(groups.max()) + 1
    counts = [count_by_group(y, labels, groups, k) for labels in predicted]
    weights = np.concatenate(list(draw_weights(n_groups, len(y), N_RESAMPLES, 0)))
    whole = [score_overall(count.sum(axis=0).reshape(1, k, k)) for count in counts]
    drawn = [score_overall((weights @ count).reshape(-1, k, k)) for count in counts]
    print(f"{len(y):,} images in {n_groups:,} groups")
    for name in ("accuracy", "balanced_accuracy"):
        first, second = (float(scores[name][0]) for scores in whole)
        interval = find_percentiles(drawn[1][name] - drawn[0][name])
        difference = format_metric(second - first, signed=True)
        span = format_interval(interval, signed=True)
        print(f"{name:18} {first:.3f} and {second:.3f}; difference {difference} ({span})")
    right = [labels == y for labels in predicted]
    only = [int((right[place] & ~right[1 - place]).sum()) for place in (0, 1)]
    print(f"right alone        {only[0]} and {only[1]}; McNemar p = {mcnemar_p_value(*only):.3g}")


if __name__ == "__main__":
    main()
