"""What each block of a join is worth: the head on each alone, and on all but each."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainfeat.errors import HeadError, TableError
from brainfeat.evaluation.bootstrap import find_differences, find_intervals
from brainfeat.heads.bags import AnyFeatures, Bags
from brainfeat.heads.blocks import BlockVectors
from brainfeat.heads.calibration import scale_folds
from brainfeat.heads.joins import BlockAblation, BlockVariant, Part
from brainfeat.heads.maps import MapRows
from brainfeat.heads.recipe import HeadRecipe
from brainfeat.training.fits import FitResult, FitTask, Progress, run_fits
from brainfeat.training.partition import Partition

# Folds where the fit has none.
N_FOLDS = 5
_METRIC = "balanced_accuracy"


def measure_blocks(
    recipe: HeadRecipe,
    partition: Partition,
    names: Sequence[str],
    widths: Sequence[int],
    *,
    n_jobs: int | None = None,
    progress: Progress | None = None,
) -> BlockAblation:
    """Cross-validate a head on all blocks, on each alone, and on all but each, in the same folds.

    The differences are paired: each resample of groups is scored with both variants. Groups that
    have none of the blocks of a variant are scored as well, from filled features.

    Parameters
    ----------
    recipe : HeadRecipe
        Of the head on all blocks; each variant has its parameters.
    partition : Partition
        Of joined caches. Without folds of its own, five are made, or as many as can be.
    names : sequence of str
        Name of each block.
    widths : sequence of int
        Number of features of each block.
    n_jobs : int or None
        As of :func:`brainfeat.training.fits.run_fits`.
    progress : callable or None

    Returns
    -------
    BlockAblation

    Raises
    ------
    TableError
        A class of train and val has only one group, which no folds divide.
    HeadError
        A variant cannot be fitted.
    """
    folded = _add_folds(partition, recipe.random_state)
    variants = list(_list_variants(len(names)))
    parts = [replace(folded, X=_take(folded.X, widths, blocks)) for _, _, blocks in variants]
    tasks = [
        FitTask(recipe=recipe, partition=part, train=train, scored=test)
        for part in parts
        for train, test in folded.folds
    ]
    results, step = run_fits(tasks, n_jobs=n_jobs, progress=progress), len(folded.folds)
    images = np.concatenate([test for _, test in folded.folds])
    groups = folded.groups_of(images)
    given: dict[str, Any] = {
        "groups": images if groups is None else groups,
        "class_names": folded.class_names,
        "random_state": int(recipe.random_state),
    }
    y = folded.y[images]
    probabilities = [
        _scale(folded, results[start : start + step]) for start in range(0, len(results), step)
    ]
    found, reason = [], None
    for (kind, block, _), part, p in zip(variants, parts, probabilities, strict=True):
        overall = find_intervals(y, p, each_class=False, **given).overall
        paired = find_differences(y, probabilities[0].argmax(axis=1), p.argmax(axis=1), **given)
        difference = paired.balanced_accuracy
        if kind != "all":
            reason = reason or paired.reason
        found.append(
            BlockVariant(
                part=kind,
                block=None if block is None else names[block],
                missing=_count_missing(part, images),
                balanced_accuracy=difference.second,
                interval=None if overall is None else overall.balanced_accuracy,
                difference=None if kind == "all" else difference.difference,
                difference_interval=None if kind == "all" else difference.interval,
            )
        )
    return BlockAblation(n_folds=step, n=len(images), variants=tuple(found), reason=reason)


def _add_folds(partition: Partition, random_state: int) -> Partition:
    if partition.folds and partition.left_out is None:
        return partition
    n_folds = partition.limit_folds(N_FOLDS)
    if n_folds < 2:
        raise TableError(
            "what each block is worth is measured in folds, and a class of train and val has only "
            "one group; add patients of this class, or leave the ablation out"
        )
    return partition.with_folds(n_folds, random_state=random_state)


def _list_variants(n: int) -> Iterator[tuple[Part, int | None, tuple[int, ...]]]:
    """Yield the blocks of each variant; of two blocks, all but one is the other alone."""
    everything = tuple(range(n))
    yield "all", None, everything
    for block in everything:
        yield "alone", block, (block,)
    for block in everything if n > 2 else ():
        yield "without", block, tuple(other for other in everything if other != block)


def _take(X: AnyFeatures, widths: Sequence[int], blocks: Sequence[int]) -> AnyFeatures:
    """Return the features of some blocks alone."""
    if isinstance(X, BlockVectors):
        return X.take(blocks)
    if isinstance(X, MapRows):
        raise HeadError("a head of maps has no blocks to leave out")
    starts = np.cumsum([0, *widths])
    columns = np.concatenate([np.arange(starts[block], starts[block + 1]) for block in blocks])
    return replace(X, values=X.values[:, columns]) if isinstance(X, Bags) else X[:, columns]


def _count_missing(partition: Partition, images: NDArray[np.intp]) -> int:
    """Count groups that have none of the blocks; no image lacks one."""
    if not isinstance(partition.X, BlockVectors):
        return 0
    return int((~partition.X[images].present.any(axis=1)).sum())


def _scale(partition: Partition, results: Sequence[FitResult]) -> NDArray[np.float64]:
    """Return the out-of-fold probabilities of a variant, fold after fold."""
    if errors := [result.error for result in results if result.error is not None]:
        raise HeadError(f"a part of the blocks cannot be fitted: {errors[0]}")
    scores = [result.scores for result in results if result.scores is not None]
    return np.concatenate(scale_folds(scores, [partition.y[test] for _, test in partition.folds]))
