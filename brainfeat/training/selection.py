"""Model selection: candidates are cross-validated on the same folds and ranked; one is chosen."""

import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from brainfeat import runtime
from brainfeat.errors import BrainfeatError, HeadError
from brainfeat.heads.calibration import Calibration, calibrate, scale_folds
from brainfeat.heads.conformal import Conformal
from brainfeat.heads.kinds import needs_validation
from brainfeat.heads.recipe import FittedHead, HeadRecipe
from brainfeat.heads.record import Candidate, CrossValidationScores, SearchRecord, Spread
from brainfeat.metrics import Metrics, measure
from brainfeat.training.partition import Fold, Partition

Progress = Callable[[int, int], None]

# Balanced accuracy gives each class the same weight and needs no calibrated probabilities. The log
# loss, of each fold at the temperature of the other folds, breaks ties.
METRIC = "balanced_accuracy"

_CV_VAL_FRACTION = 0.15
# Fitted first, so that no process waits at the end for one long fit.
_SLOW_HEADS = ("hist-gradient-boosting", "dense", "random-forest", "svm")


@dataclass(frozen=True, kw_only=True)
class CrossValidation:
    """Scores of a head over folds, and the calibration that its out-of-fold scores allow.

    Attributes
    ----------
    scores : CrossValidationScores
        Metrics of all images together, and their spread over the folds.
    calibration : Calibration
        Of the out-of-fold scores.
    conformal : Conformal
        Calibrated on the out-of-fold probabilities.
    """

    scores: CrossValidationScores
    calibration: Calibration
    conformal: Conformal = field(compare=False)


@dataclass(frozen=True, kw_only=True)
class Selection:
    """The recipe that is chosen, and the candidates that it was chosen from.

    Attributes
    ----------
    candidates : tuple of Candidate
        In the order of their ranks; those that could not be fitted come last. Empty where nothing
        was compared.
    recipe : HeadRecipe
        Recipe of the first candidate.
    cv : CrossValidation or None
        Cross-validation of the recipe; None where there are no folds.
    """

    candidates: tuple[Candidate, ...]
    recipe: HeadRecipe
    cv: CrossValidation | None

    def record(self) -> SearchRecord | None:
        """Return the candidates and how they were ranked; None where nothing was compared."""
        if self.cv is None or not self.candidates:
            return None
        return SearchRecord(
            metric=METRIC, n_folds=self.cv.scores.n_folds, chosen=1, candidates=self.candidates
        )


@dataclass(frozen=True, kw_only=True)
class _FoldResult:
    """Scores of a fold's test images, (m, k) float64, or the error of the fit."""

    scores: NDArray[np.float64] | None
    seconds: float
    warnings: list[str]
    error: str | None


def cross_validate(
    recipe: HeadRecipe, partition: Partition, *, n_jobs: int | None = None
) -> CrossValidation:
    """Fit a head on the training images of each fold and score its test images.

    Parameters
    ----------
    recipe : HeadRecipe
        How the head is made.
    partition : Partition
        Rows with folds.
    n_jobs : int or None
        Number of processes. None takes all cores, or one process where a fit takes less time than
        the start of another.

    Returns
    -------
    CrossValidation

    Raises
    ------
    HeadError
        The head cannot be fitted on a fold.
    """
    (results,) = score_folds([recipe], partition, n_jobs=n_jobs, progress=None)
    if error := _first_error(results):
        raise HeadError(error)
    for message in _all_warnings(results):
        warnings.warn(message, stacklevel=2)
    return _summarise(partition, results)


def select_head(
    recipes: Sequence[HeadRecipe],
    partition: Partition,
    *,
    n_jobs: int | None = None,
    progress: Progress | None = None,
) -> Selection:
    """Cross-validate candidates on the same folds, rank them and choose the first.

    Candidates rank by mean balanced accuracy over the folds, then by mean log loss, then by their
    order. The cross-validated score of the chosen candidate is optimistically biased, the more so
    the more candidates there are, because the same folds chose it (Cawley & Talbot 2010, JMLR
    11:2079).

    Parameters
    ----------
    recipes : sequence of HeadRecipe
        The candidates.
    partition : Partition
        Rows with folds; images of the test split are in no fold.
    n_jobs : int or None
        Number of processes; None takes all cores.
    progress : callable or None
        Called with the number of fits that are done, and of all fits.

    Returns
    -------
    Selection

    Raises
    ------
    HeadError
        None of the candidates can be fitted.
    """
    results = score_folds(recipes, partition, n_jobs=n_jobs, progress=progress)
    rated = [
        _rate(recipe, partition, result) for recipe, result in zip(recipes, results, strict=True)
    ]
    order = sorted(range(len(recipes)), key=lambda place: _sort_key(rated[place]))
    ranked = [place for place in order if rated[place].error is None]
    if not ranked:
        reasons = dict.fromkeys(str(candidate.error) for candidate in rated)
        raise HeadError(f"none of {len(rated)} candidates can be fitted: {'; '.join(reasons)}")
    candidates = tuple(
        replace(rated[place], rank=rank if place in ranked else None)
        for rank, place in enumerate(order, 1)
    )
    best = ranked[0]
    return Selection(
        candidates=candidates,
        recipe=recipes[best],
        cv=_summarise(partition, results[best]),
    )


def _sort_key(candidate: Candidate) -> tuple[bool, float, float]:
    return (
        candidate.error is not None,
        -(candidate.mean or 0.0),
        candidate.log_loss or 0.0,
    )


def score_folds(
    recipes: Sequence[HeadRecipe],
    partition: Partition,
    *,
    n_jobs: int | None,
    progress: Progress | None,
) -> list[list[_FoldResult]]:
    """Fit every recipe on every fold, in processes that share one memory map of the features."""
    from joblib import Parallel, delayed, parallel_config

    folds = partition.folds
    heads = {name: place for place, name in enumerate(_SLOW_HEADS)}
    order = sorted(
        range(len(recipes)), key=lambda place: heads.get(recipes[place].head, len(heads))
    )
    tasks = [(place, fold) for place in order for fold in range(len(folds))]
    cores = runtime.usable_cores()
    alone = len(recipes) == 1 and recipes[0].takes_kernel(len(partition.X))
    workers = min(len(tasks), n_jobs or (1 if alone else cores))
    results: dict[tuple[int, int], _FoldResult] = {}
    with parallel_config(backend="loky", inner_max_num_threads=max(1, cores // workers)):
        jobs = Parallel(n_jobs=workers, return_as="generator_unordered")
        calls = (
            delayed(_score_fold)(task, recipes[task[0]], partition, folds[task[1]])
            for task in tasks
        )
        for task, result in jobs(calls):
            results[task] = result
            if progress is not None:
                progress(len(results), len(tasks))
    return [[results[place, fold] for fold in range(len(folds))] for place in range(len(recipes))]


def _score_fold(
    task: tuple[int, int], recipe: HeadRecipe, partition: Partition, fold: Fold
) -> tuple[tuple[int, int], _FoldResult]:
    started = time.perf_counter()
    scores, error = None, None
    with warnings.catch_warnings(record=True) as caught:
        try:
            scores = _fit_fold(recipe, partition, fold)
        except BrainfeatError as failure:
            error = " ".join(str(failure).split())
    result = _FoldResult(
        scores=scores,
        seconds=time.perf_counter() - started,
        # The first line names the problem; scikit-learn's further lines link to its documentation.
        warnings=[str(warning.message).strip().splitlines()[0].rstrip(":") for warning in caught],
        error=error,
    )
    return task, result


def _fit_fold(recipe: HeadRecipe, partition: Partition, fold: Fold) -> NDArray[np.float64]:
    train, test = fold
    val = None
    if needs_validation(recipe.head):
        train, val = partition.take_val(
            train, fraction=_CV_VAL_FRACTION, random_state=recipe.random_state
        )
    rows = partition.rows_of(train)
    estimator = recipe.fit(partition.X, partition.y, rows=rows, val=val)
    return FittedHead(estimator).scores(partition.X[test])


def _rate(recipe: HeadRecipe, partition: Partition, results: list[_FoldResult]) -> Candidate:
    """Score a candidate; its rank is not known yet."""
    error = _first_error(results)
    mean = std = log_loss = None
    if error is None:
        by_fold = _measure_folds(partition, scale_folds(*_pair_with_labels(partition, results)))
        spread = _spread([getattr(fold, METRIC) for fold in by_fold])
        mean, std = spread.mean, spread.std
        log_loss = float(np.mean([fold.log_loss for fold in by_fold]))
    return Candidate(
        rank=None,
        head=recipe.head,
        params=recipe.params,
        mean=mean,
        std=std,
        log_loss=log_loss,
        seconds=sum(result.seconds for result in results),
        warnings=tuple(_all_warnings(results)),
        error=error,
    )


def _measure_folds(partition: Partition, probabilities: list[NDArray[np.float64]]) -> list[Metrics]:
    return [
        measure(partition.y[test], fold, class_names=partition.class_names)
        for (_, test), fold in zip(partition.folds, probabilities, strict=True)
    ]


def _summarise(partition: Partition, results: list[_FoldResult]) -> CrossValidation:
    scores, y = _pair_with_labels(partition, results)
    probabilities = scale_folds(scores, y)
    by_fold = _measure_folds(partition, probabilities)
    pooled = measure(
        np.concatenate(y), np.concatenate(probabilities), class_names=partition.class_names
    )
    return CrossValidation(
        scores=CrossValidationScores(
            n_folds=len(partition.folds),
            out_of_fold=pooled,
            accuracy=_spread([fold.accuracy for fold in by_fold]),
            balanced_accuracy=_spread([fold.balanced_accuracy for fold in by_fold]),
            log_loss=_spread([fold.log_loss for fold in by_fold]),
        ),
        calibration=calibrate(scores, y),
        conformal=Conformal.fit(np.concatenate(probabilities), np.concatenate(y)),
    )


def _pair_with_labels(
    partition: Partition, results: list[_FoldResult]
) -> tuple[list[NDArray[np.float64]], list[NDArray[np.int64]]]:
    """Return the scores and the true classes of the test images of each fold."""
    scores = [result.scores for result in results if result.scores is not None]
    return scores, [partition.y[test] for _, test in partition.folds]


def _spread(values: list[float]) -> Spread:
    return Spread(mean=float(np.mean(values)), std=float(np.std(values, ddof=1)))


def _first_error(results: list[_FoldResult]) -> str | None:
    return next((result.error for result in results if result.error is not None), None)


def _all_warnings(results: list[_FoldResult]) -> list[str]:
    return list(dict.fromkeys(message for result in results for message in result.warnings))
