"""Model selection: candidates are cross-validated on the same folds and ranked; one is chosen."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from brainfeat.cache.cache import FeatureCache
from brainfeat.errors import HeadError
from brainfeat.heads.calibration import Calibration, calibrate, scale_folds
from brainfeat.heads.conformal import Conformal
from brainfeat.heads.generation import explain_skipped
from brainfeat.heads.recipe import HeadRecipe
from brainfeat.heads.record import Candidate, CrossValidationScores, SearchRecord, Spread
from brainfeat.heads.variation import LeftOutSources, SourceScores
from brainfeat.metrics import Metrics, measure
from brainfeat.training.fits import FitResult, FitTask, Progress, run_fits
from brainfeat.training.partition import Partition

# Balanced accuracy gives each class the same weight and needs no calibrated probabilities. The log
# loss, of each fold at the temperature of the other folds, breaks ties.
METRIC = "balanced_accuracy"

# Folds that leave one source out each.
LEAVE_ONE_SOURCE_OUT = "leave-one-source-out"


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
    rows : ndarray of shape (m,), int
        Row of the cache of each image that a fold scored, fold after fold.
    folds : ndarray of shape (m,), int
        Its fold.
    probabilities : ndarray of shape (m, k), float64
        Out of fold.
    skipped : tuple of dict of str to int
        Classes of each fold that had too few training rows to generate more, with their number;
        empty where nothing was generated.
    """

    scores: CrossValidationScores
    calibration: Calibration
    conformal: Conformal = field(compare=False)
    rows: NDArray[np.intp] = field(compare=False)
    folds: NDArray[np.intp] = field(compare=False)
    probabilities: NDArray[np.float64] = field(compare=False)
    skipped: tuple[Mapping[str, int], ...] = ()


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


def cross_validate(
    recipe: HeadRecipe,
    partition: Partition,
    *,
    n_jobs: int | None = None,
    progress: Progress | None = None,
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
    progress : callable or None
        Called with the number of fits that are done, and of all fits.

    Returns
    -------
    CrossValidation

    Raises
    ------
    HeadError
        The head cannot be fitted on a fold.
    """
    (results,) = score_folds([recipe], partition, n_jobs=n_jobs, progress=progress)
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


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The candidates of a fit, and how they are compared.

    Attributes
    ----------
    cache : FeatureCache
    recipes : list of HeadRecipe
        One or more.
    cv : int, str or None
        As of :func:`brainfeat.fit_head`.
    compare : bool
        Whether the best recipe is chosen; otherwise there is one.
    n_jobs : int or None
    """

    cache: FeatureCache
    recipes: Sequence[HeadRecipe]
    cv: int | str | None
    compare: bool
    n_jobs: int | None

    def add_folds(self, partition: Partition, seed: int) -> Partition:
        """Add the folds that were asked for, if any."""
        if self.cv == LEAVE_ONE_SOURCE_OUT:
            return partition.with_source_folds(self.cache)
        return (
            partition if self.cv is None else partition.with_folds(int(self.cv), random_state=seed)
        )

    def choose(self, partition: Partition, seed: int, progress: Progress | None) -> Selection:
        """Choose the best recipe, or take the only one; cross-validate it where there are folds."""
        recipes = [replace(recipe, random_state=seed) for recipe in self.recipes]
        if self.compare:
            return select_head(recipes, partition, n_jobs=self.n_jobs, progress=progress)
        folded = bool(partition.folds)
        found = (
            cross_validate(recipes[0], partition, n_jobs=self.n_jobs, progress=progress)
            if folded
            else None
        )
        return Selection(candidates=(), recipe=recipes[0], cv=found)

    def choose_anew(self, partition: Partition, seed: int, progress: Progress | None) -> HeadRecipe:
        """Choose the recipe of a repeat, by folds of its own where candidates are compared."""
        folded = self.add_folds(partition, seed) if self.compare else partition
        return self.choose(folded, seed, progress).recipe


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
) -> list[list[FitResult]]:
    """Fit every recipe on every fold."""
    tasks = [
        FitTask(recipe=recipe, partition=partition, train=train, scored=test)
        for recipe in recipes
        for train, test in partition.folds
    ]
    results, step = run_fits(tasks, n_jobs=n_jobs, progress=progress), len(partition.folds)
    return [results[start : start + step] for start in range(0, len(results), step)]


def _rate(recipe: HeadRecipe, partition: Partition, results: list[FitResult]) -> Candidate:
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
        warnings=(*_all_warnings(results), *list_skipped(results)),
        error=error,
    )


def _measure_folds(partition: Partition, probabilities: list[NDArray[np.float64]]) -> list[Metrics]:
    return [
        measure(partition.y[test], fold, class_names=partition.class_names)
        for (_, test), fold in zip(partition.folds, probabilities, strict=True)
    ]


def _summarise(partition: Partition, results: list[FitResult]) -> CrossValidation:
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
            sources=_list_sources(partition, by_fold),
        ),
        calibration=calibrate(scores, y),
        conformal=Conformal.fit(np.concatenate(probabilities), np.concatenate(y)),
        rows=partition.rows[np.concatenate([test for _, test in partition.folds])],
        folds=np.repeat(np.arange(len(y)), [len(labels) for labels in y]),
        probabilities=np.concatenate(probabilities),
        skipped=tuple(
            result.generated.skipped for result in results if result.generated is not None
        ),
    )


def _list_sources(partition: Partition, by_fold: Sequence[Metrics]) -> LeftOutSources | None:
    """List the sources that folds left out, with their metrics."""
    if partition.left_out is None:
        return None
    measured = iter(by_fold)
    folds = []
    for fold in partition.left_out.folds:
        metrics = next(measured) if fold.reason is None else None
        folds.append(
            SourceScores(
                source=fold.source,
                n=len(fold.test),
                n_train=len(fold.train),
                dropped=fold.dropped,
                classes=tuple(
                    partition.class_names[label] for label in np.unique(partition.y[fold.test])
                ),
                accuracy=None if metrics is None else metrics.accuracy,
                balanced_accuracy=None if metrics is None else metrics.balanced_accuracy,
                reason=fold.reason,
            )
        )
    return LeftOutSources(
        folds=tuple(folds),
        not_evaluated=partition.left_out.not_evaluated,
        without_source=partition.left_out.without_source,
    )


def _pair_with_labels(
    partition: Partition, results: list[FitResult]
) -> tuple[list[NDArray[np.float64]], list[NDArray[np.int64]]]:
    """Return the scores and the true classes of the test images of each fold."""
    scores = [result.scores for result in results if result.scores is not None]
    return scores, [partition.y[test] for _, test in partition.folds]


def _spread(values: list[float]) -> Spread:
    return Spread(mean=float(np.mean(values)), std=float(np.std(values, ddof=1)))


def _first_error(results: list[FitResult]) -> str | None:
    return next((result.error for result in results if result.error is not None), None)


def list_skipped(results: Sequence[FitResult]) -> list[str]:
    """List a sentence for each set of classes that were too small to generate rows of."""
    skipped = [result.generated.skipped for result in results if result.generated is not None]
    return list(dict.fromkeys(explain_skipped(classes) for classes in skipped if classes))


def _all_warnings(results: list[FitResult]) -> list[str]:
    return list(dict.fromkeys(message for result in results for message in result.warnings))
