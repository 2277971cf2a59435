"""Fits: heads that are fitted on some images and score others, in parallel processes."""

import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from brainfeat import runtime
from brainfeat.errors import BrainfeatError
from brainfeat.heads.bags import AnyFeatures
from brainfeat.heads.generation import Generated
from brainfeat.heads.kinds import needs_validation
from brainfeat.heads.recipe import FittedHead, HeadRecipe
from brainfeat.training.partition import Partition, Rows

# Called with the number of fits that are done, and of all fits.
Progress = Callable[[int, int], None]

_VAL_FRACTION = 0.15
# Fitted first, so that no process waits at the end for one long fit.
_SLOW_HEADS = (
    "cbam",
    "attention-pool",
    "attention",
    "se",
    "hist-gradient-boosting",
    "dense",
    "random-forest",
    "svm",
)


@dataclass(frozen=True, kw_only=True, eq=False)
class FitTask:
    """A head to fit on images of a partition, and the images that it scores.

    Attributes
    ----------
    recipe : HeadRecipe
    partition : Partition
    train, scored : ndarray of int
        Images to fit on, with their augmented views, and images to score.
    val : ndarray of int or None
        Images that decide when a head stops that needs such; None takes some of train.
    elsewhere : ndarray of shape (n, d), float32, Bags, BlockVectors, or None
        Features of other images to score as well.
    """

    recipe: HeadRecipe
    partition: Partition
    train: Rows
    scored: Rows
    val: Rows | None = None
    elsewhere: AnyFeatures | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class FitResult:
    """What a task came to.

    Attributes
    ----------
    scores : ndarray of shape (m, k), float64, or None
        Of the images to score; None where the head cannot be fitted.
    seconds : float
    warnings : list of str
    error : str or None
        Why it cannot be fitted.
    elsewhere : ndarray of shape (e, k), float64, or None
        Scores of the other images, where the task has such.
    generated : Generated or None
        Rows that were generated for the fit; None without any.
    """

    scores: NDArray[np.float64] | None
    seconds: float
    warnings: list[str]
    error: str | None
    elsewhere: NDArray[np.float64] | None = None
    generated: Generated | None = None


def run_fits(
    tasks: Sequence[FitTask], *, n_jobs: int | None, progress: Progress | None
) -> list[FitResult]:
    """Fit heads in processes that share one memory map of the features.

    Parameters
    ----------
    tasks : sequence of FitTask
        On one matrix of features.
    n_jobs : int or None
        Number of processes. None takes all cores, or one process where all tasks are fits of one
        head that takes less time than the start of another.
    progress : callable or None
        Called with the number of fits that are done, and of all fits.

    Returns
    -------
    list of FitResult
        In the order of the tasks.
    """
    from joblib import Parallel, delayed, parallel_config

    heads = {name: place for place, name in enumerate(_SLOW_HEADS)}
    order = sorted(
        range(len(tasks)), key=lambda place: heads.get(tasks[place].recipe.head, len(heads))
    )
    cores, first = runtime.usable_cores(), tasks[0]
    kinds = {(task.recipe.head, repr(task.recipe.params)) for task in tasks}
    alone = len(kinds) == 1 and first.recipe.takes_kernel(len(first.partition.X))
    workers = min(len(tasks), n_jobs or (1 if alone else cores))
    results: dict[int, FitResult] = {}
    with parallel_config(backend="loky", inner_max_num_threads=max(1, cores // workers)):
        jobs = Parallel(n_jobs=workers, return_as="generator_unordered")
        for place, result in jobs(delayed(_run_fit)(place, tasks[place]) for place in order):
            results[place] = result
            if progress is not None:
                progress(len(results), len(tasks))
    return [results[place] for place in range(len(tasks))]


def _run_fit(place: int, task: FitTask) -> tuple[int, FitResult]:
    started = time.perf_counter()
    scores, elsewhere, error, generated = None, None, None, None
    with warnings.catch_warnings(record=True) as caught:
        try:
            head = _fit(task)
            scores, generated = head.scores(task.partition.X[task.scored]), head.generated
            elsewhere = None if task.elsewhere is None else head.scores(task.elsewhere)
        except BrainfeatError as failure:
            error = " ".join(str(failure).split())
    result = FitResult(
        scores=scores,
        seconds=time.perf_counter() - started,
        # The first line names the problem; scikit-learn's further lines link to its documentation.
        warnings=[str(warning.message).strip().splitlines()[0].rstrip(":") for warning in caught],
        error=error,
        elsewhere=elsewhere,
        generated=generated,
    )
    return place, result


def _fit(task: FitTask) -> FittedHead:
    recipe, partition, train, val = task.recipe, task.partition, task.train, task.val
    if not needs_validation(recipe.head):
        val = None
    elif val is None:
        train, val = partition.take_val(
            train, fraction=_VAL_FRACTION, random_state=recipe.random_state
        )
    return fit_images(recipe, partition, train, val=val)


def fit_images(
    recipe: HeadRecipe, partition: Partition, images: Rows, *, val: Rows | None = None
) -> FittedHead:
    """Fit a head on images of a partition with their views, and on all generated images.

    Parameters
    ----------
    recipe : HeadRecipe
    partition : Partition
    images : ndarray of int
    val : ndarray of int or None
        Images that decide when a head stops that needs such.

    Returns
    -------
    FittedHead

    Raises
    ------
    HeadError
        As in :meth:`brainfeat.heads.recipe.HeadRecipe.fit`.
    """
    return recipe.fit_head(
        partition.X,
        partition.y,
        rows=partition.training_rows(images),
        val=val,
        groups=partition.group_numbers,
        scored=partition.is_unit,
    )
