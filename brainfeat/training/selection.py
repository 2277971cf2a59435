"""Candidates for a head: each cross-validated on the same folds, then ranked; one is chosen."""

import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainfeat import runtime
from brainfeat.errors import BrainfeatError, HeadError
from brainfeat.heads.calibration import Calibration, calibrate, scale_folds
from brainfeat.heads.conformal import Conformal
from brainfeat.heads.kinds import needs_validation
from brainfeat.heads.recipe import FittedHead, HeadRecipe, Rows
from brainfeat.metrics import Metrics, measure
from brainfeat.training.partition import LabelledRows, take_val

Fold = tuple[Rows, Rows]
Progress = Callable[[int, int], None]

# Balanced accuracy counts the classes alike and asks nothing of the probabilities. Log loss, each
# fold's at the temperature of the others, breaks ties.
METRIC = "balanced_accuracy"

_CV_VAL_FRACTION = 0.15
# Begun first, so that no process waits at the end for one long fit.
_SLOW_HEADS = ("hist-gradient-boosting", "dense", "random-forest", "svm")


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A head with parameters, and what cross-validation says of it.

    Attributes
    ----------
    rank : int or None
        1 is the best; None where it could not be fitted.
    head : str
        Its name.
    params : dict
        Parameters that it was made with.
    mean, std : float or None
        Balanced accuracy of the folds: mean and standard deviation.
    log_loss : float or None
        Mean of the folds.
    seconds : float
        Time that all folds took together, on however many processes.
    warnings : list of str
        What scikit-learn had to say, such as that a fit did not converge.
    error : str or None
        Why it could not be fitted.
    """

    rank: int | None
    head: str
    params: dict[str, Any]
    mean: float | None
    std: float | None
    log_loss: float | None
    seconds: float
    warnings: list[str]
    error: str | None


@dataclass(frozen=True, kw_only=True)
class CrossValidation:
    """What the folds say of a head.

    Attributes
    ----------
    figures : dict
        ``n_folds``, ``out_of_fold`` (the figures of all images together), and ``mean`` and ``std``
        over the folds of ``accuracy``, ``balanced_accuracy`` and ``log_loss``.
    calibration : Calibration
    conformal : Conformal
        Of the probabilities that the folds gave to the images that they left out.
    """

    figures: dict[str, Any]
    calibration: Calibration
    conformal: Conformal = field(compare=False)


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Which of several candidates is chosen.

    Attributes
    ----------
    candidates : tuple of Candidate
        In the order of their ranks; those that could not be fitted come last.
    recipe : HeadRecipe
        How the first one is made.
    cv : CrossValidation
        Of the first one.
    """

    candidates: tuple[Candidate, ...]
    recipe: HeadRecipe
    cv: CrossValidation

    def to_dict(self) -> dict[str, Any]:
        """Give all but the recipe and its figures as what JSON can hold."""
        return {
            "metric": METRIC,
            "n_folds": self.cv.figures["n_folds"],
            "candidates": [asdict(candidate) for candidate in self.candidates],
        }


@dataclass(frozen=True, kw_only=True)
class _FoldResult:
    """Scores (m, k) of a fold's test images, or why there are none."""

    scores: NDArray[np.float64] | None
    seconds: float
    warnings: list[str]
    error: str | None


def cross_validate(
    recipe: HeadRecipe, data: LabelledRows, folds: Sequence[Fold], *, n_jobs: int | None = None
) -> CrossValidation:
    """Fit on all folds but one and predict that one, for each.

    Parameters
    ----------
    recipe : HeadRecipe
        How the head is made.
    data : LabelledRows
        The rows.
    folds : sequence of (train, test)
        Images of each fold.
    n_jobs : int or None
        Processes; None takes all cores.

    Returns
    -------
    CrossValidation

    Raises
    ------
    HeadError
        The head cannot be fitted on a fold.
    """
    (results,) = _score_folds([recipe], data, folds, n_jobs=n_jobs, progress=None)
    if error := _first_error(results):
        raise HeadError(error)
    for message in _all_warnings(results):
        warnings.warn(message, stacklevel=2)
    return _describe(data, folds, results)


def select_head(
    recipes: Sequence[HeadRecipe],
    data: LabelledRows,
    folds: Sequence[Fold],
    *,
    n_jobs: int | None = None,
    progress: Progress | None = None,
) -> Selection:
    """Cross-validate candidates on the same folds, rank them and choose one.

    Candidates rank by the mean balanced accuracy of the folds, then by the mean log loss, then by
    their order. The figures of the chosen one are a little too good to be true, more so the more
    candidates there are: chance helped to choose it.

    Parameters
    ----------
    recipes : sequence of HeadRecipe
        The candidates.
    data : LabelledRows
        The rows.
    folds : sequence of (train, test)
        Images of each fold; those of a final test are in none.
    n_jobs : int or None
        Processes; None takes all cores.
    progress : callable or None
        Called with the number of fits that are done and of all.

    Returns
    -------
    Selection

    Raises
    ------
    HeadError
        None of the candidates can be fitted.
    """
    results = _score_folds(recipes, data, folds, n_jobs=n_jobs, progress=progress)
    rated = [
        _rate(recipe, data, folds, result) for recipe, result in zip(recipes, results, strict=True)
    ]
    order = sorted(range(len(recipes)), key=lambda place: _sort_key(rated[place]))
    ranked = [place for place in order if rated[place]["error"] is None]
    if not ranked:
        reasons = dict.fromkeys(str(row["error"]) for row in rated)
        raise HeadError(f"none of {len(rated)} candidates can be fitted: {'; '.join(reasons)}")
    candidates = tuple(
        Candidate(rank=rank if place in ranked else None, **rated[place])
        for rank, place in enumerate(order, 1)
    )
    best = ranked[0]
    return Selection(
        candidates=candidates,
        recipe=recipes[best],
        cv=_describe(data, folds, results[best]),
    )


def _sort_key(row: dict[str, Any]) -> tuple[bool, float, float]:
    return (row["error"] is not None, -(row["mean"] or 0.0), row["log_loss"] or 0.0)


def _score_folds(
    recipes: Sequence[HeadRecipe],
    data: LabelledRows,
    folds: Sequence[Fold],
    *,
    n_jobs: int | None,
    progress: Progress | None,
) -> list[list[_FoldResult]]:
    """Fit every recipe on every fold, in processes that share one memory map of the features."""
    from joblib import Parallel, delayed, parallel_config

    heads = {name: place for place, name in enumerate(_SLOW_HEADS)}
    order = sorted(
        range(len(recipes)), key=lambda place: heads.get(recipes[place].head, len(heads))
    )
    tasks = [(place, fold) for place in order for fold in range(len(folds))]
    cores = runtime.usable_cores()
    workers = min(len(tasks), n_jobs or cores)
    results: dict[tuple[int, int], _FoldResult] = {}
    with parallel_config(backend="loky", inner_max_num_threads=max(1, cores // workers)):
        jobs = Parallel(n_jobs=workers, return_as="generator_unordered")
        calls = (
            delayed(_score_fold)(task, recipes[task[0]], data, folds[task[1]]) for task in tasks
        )
        for task, result in jobs(calls):
            results[task] = result
            if progress is not None:
                progress(len(results), len(tasks))
    return [[results[place, fold] for fold in range(len(folds))] for place in range(len(recipes))]


def _score_fold(
    task: tuple[int, int], recipe: HeadRecipe, data: LabelledRows, fold: Fold
) -> tuple[tuple[int, int], _FoldResult]:
    started = time.perf_counter()
    scores, error = None, None
    with warnings.catch_warnings(record=True) as caught:
        try:
            scores = _fit_fold(recipe, data, fold)
        except BrainfeatError as failure:
            error = " ".join(str(failure).split())
    result = _FoldResult(
        scores=scores,
        seconds=time.perf_counter() - started,
        # The first line says what it is; scikit-learn's others, where to read more.
        warnings=[str(warning.message).strip().splitlines()[0].rstrip(":") for warning in caught],
        error=error,
    )
    return task, result


def _fit_fold(recipe: HeadRecipe, data: LabelledRows, fold: Fold) -> NDArray[np.float64]:
    train, test = fold
    val = None
    if needs_validation(recipe.head):
        train, val = take_val(
            data, train, fraction=_CV_VAL_FRACTION, random_state=recipe.random_state
        )
    estimator = recipe.fit(data.X, data.y, rows=data.rows_of(train), val=val)
    return FittedHead(estimator).scores(data.X[test])


def _rate(
    recipe: HeadRecipe, data: LabelledRows, folds: Sequence[Fold], results: list[_FoldResult]
) -> dict[str, Any]:
    """Give all but the rank of a candidate."""
    error = _first_error(results)
    mean = std = log_loss = None
    if error is None:
        evaluations = _measure(data, folds, scale_folds(*_known(data, folds, results)))
        spread = _spread([getattr(evaluation, METRIC) for evaluation in evaluations])
        mean, std = spread["mean"], spread["std"]
        log_loss = float(np.mean([evaluation.log_loss for evaluation in evaluations]))
    return {
        "head": recipe.head,
        "params": recipe.params,
        "mean": mean,
        "std": std,
        "log_loss": log_loss,
        "seconds": sum(result.seconds for result in results),
        "warnings": _all_warnings(results),
        "error": error,
    }


def _measure(
    data: LabelledRows, folds: Sequence[Fold], probabilities: list[NDArray[np.float64]]
) -> list[Metrics]:
    return [
        measure(data.y[test], fold, class_names=data.class_names)
        for (_, test), fold in zip(folds, probabilities, strict=True)
    ]


def _describe(
    data: LabelledRows, folds: Sequence[Fold], results: list[_FoldResult]
) -> CrossValidation:
    scores, y = _known(data, folds, results)
    probabilities = scale_folds(scores, y)
    evaluations = _measure(data, folds, probabilities)
    pooled = measure(np.concatenate(y), np.concatenate(probabilities), class_names=data.class_names)
    figures = {
        "n_folds": len(folds),
        "out_of_fold": pooled.to_dict(),
        **{
            name: _spread([getattr(evaluation, name) for evaluation in evaluations])
            for name in ("accuracy", "balanced_accuracy", "log_loss")
        },
    }
    return CrossValidation(
        figures=figures,
        calibration=calibrate(scores, y),
        conformal=Conformal.fit(np.concatenate(probabilities), np.concatenate(y)),
    )


def _known(
    data: LabelledRows, folds: Sequence[Fold], results: list[_FoldResult]
) -> tuple[list[NDArray[np.float64]], list[NDArray[np.int64]]]:
    """Give the scores and the true classes of the test images of each fold."""
    scores = [result.scores for result in results if result.scores is not None]
    return scores, [data.y[test] for _, test in folds]


def _spread(values: list[float]) -> dict[str, float]:
    return {"mean": float(np.mean(values)), "std": float(np.std(values, ddof=1))}


def _first_error(results: list[_FoldResult]) -> str | None:
    return next((result.error for result in results if result.error is not None), None)


def _all_warnings(results: list[_FoldResult]) -> list[str]:
    return list(dict.fromkeys(message for result in results for message in result.warnings))
