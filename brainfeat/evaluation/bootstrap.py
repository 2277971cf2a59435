"""Confidence intervals: a bootstrap over groups, of the metrics of one head or of two."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from brainfeat.errors import ParameterError
from brainfeat.evaluation.binomial import Interval, bound_class, bound_overall
from brainfeat.evaluation.results import ClassIntervals, Difference, SubsetIntervals
from brainfeat.text import name_some

# Below this, the groups of a class are too few to estimate their spread.
MIN_GROUPS = 10
N_RESAMPLES = 2000
CONFIDENCE = 0.95
NO_IMAGES = "there are no images"

OVERALL = ("accuracy", "balanced_accuracy", "f1_macro")
BY_CLASS = ("precision", "recall", "f1", "specificity", "npv", "roc_auc", "average_precision")

# Weights that are held at once, one for each image and resample: 2 MB stay in a cache.
_WEIGHTS = 250_000

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Intervals:
    """Intervals of a bootstrap over groups, or why some or all are missing.

    Attributes
    ----------
    n_groups : int
        Groups that were resampled.
    reason : str or None
        Why intervals are missing.
    overall : SubsetIntervals or None
        None where there are too few groups.
    by_class : tuple of ClassIntervals or None, or None
        Of each class, where they were asked for; None for a class of too few groups.
    """

    n_groups: int
    reason: str | None
    overall: SubsetIntervals | None
    by_class: tuple[ClassIntervals | None, ...] | None


def find_intervals(
    y: ArrayLike,
    probabilities: ArrayLike,
    *,
    groups: ArrayLike,
    class_names: Sequence[str],
    each_class: bool = True,
    n_resamples: int = N_RESAMPLES,
    random_state: int = 0,
) -> Intervals:
    """Find 95 % confidence intervals of the metrics of a head.

    Whole groups are drawn with replacement, as many as there are, so that images of one patient, or
    copies of one image, do not count as independent (Davison & Hinkley 1997, Bootstrap Methods and
    Their Application, §3.8). The interval is between the 2.5th and the 97.5th percentile of the
    resampled metrics (Efron & Tibshirani 1993, An Introduction to the Bootstrap, §13.3). A resample
    for which a metric is not defined, because a class has no images, does not count in the
    percentiles of this metric; means over classes are over those that the resample has.

    Parameters
    ----------
    y : array-like of int, shape (n,)
        True class of each image.
    probabilities : array-like of float, shape (n, k)
    groups : array-like, shape (n,)
        Images of one group are drawn together; an image without a group needs a label of its own.
    class_names : sequence of str
        The k classes.
    each_class : bool
        Whether to find the intervals of each class, which takes most of the time.
    n_resamples : int
        At least 1,000.
    random_state : int
        Seed.

    Returns
    -------
    Intervals
        Without intervals where there are fewer than 10 groups; without those of a class, and of
        means over the classes, where a class has images of fewer. A metric that is 0 or 1 has the
        exact binomial interval of :mod:`brainfeat.evaluation.binomial`, as resampling cannot change
        it; a ROC AUC or an average precision of 1 has none.

    Raises
    ------
    ParameterError
        `n_resamples` is too small.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> y = rng.integers(0, 2, 400)
    >>> right = rng.random(400) < 0.9
    >>> found = find_intervals(
    ...     y, np.eye(2)[np.where(right, y, 1 - y)], groups=range(400), class_names=["a", "b"]
    ... )
    >>> low, high = found.overall.accuracy
    >>> bool(low < right.mean() < high)
    True
    """
    _check_resamples(n_resamples)
    labels, p = np.asarray(y, np.intp), np.asarray(probabilities, np.float64)
    _, unit = np.unique(np.asarray(groups), return_inverse=True)
    n_groups = int(unit.max(initial=-1)) + 1
    reason = find_shortage(labels, unit, class_names)
    if n_groups < MIN_GROUPS:
        return Intervals(n_groups=n_groups, reason=reason, overall=None, by_class=None)
    predicted, k = p.argmax(axis=1), len(class_names)
    counts = count_by_group(labels, predicted, unit, k)
    rankings = [_Ranking(labels == label, p[:, label], unit) for label in range(k)]
    sampled: dict[str, list[Floats]] = {name: [] for name in (*OVERALL, *BY_CLASS)}
    for weights in draw_weights(n_groups, len(labels), n_resamples, random_state):
        matrices = (weights @ counts).reshape(-1, k, k)
        scores = score_overall(matrices)
        if each_class:
            scores |= {**score_classes(matrices), **_rank_classes(rankings, weights)}
        for name, values in scores.items():
            sampled[name].append(values)
    whole = {name: np.concatenate(values) for name, values in sampled.items() if values}
    bounds = bound_overall(labels, predicted, unit, confidence=CONFIDENCE)
    overall = {name: bounds.get(name) or find_percentiles(whole[name]) for name in OVERALL}
    by_class = None
    if each_class:
        by_class = tuple(
            _class_intervals(whole, label, labels, predicted, unit) for label in range(k)
        )
    return Intervals(
        n_groups=n_groups,
        reason=reason,
        overall=SubsetIntervals(
            accuracy=overall["accuracy"],
            **{name: None if reason else overall[name] for name in OVERALL[1:]},
            binomial=tuple(name for name in bounds if name == "accuracy" or not reason),
        ),
        by_class=by_class,
    )


@dataclass(frozen=True, kw_only=True)
class Differences:
    """Metrics of two heads, and percentile intervals of their differences.

    Attributes
    ----------
    n_groups : int
        Groups that were resampled.
    accuracy, balanced_accuracy, f1_macro : Difference
    reason : str or None
        Why there are no intervals.
    """

    n_groups: int
    accuracy: Difference
    balanced_accuracy: Difference
    f1_macro: Difference
    reason: str | None


def find_differences(
    y: ArrayLike,
    first: ArrayLike,
    second: ArrayLike,
    *,
    groups: ArrayLike,
    class_names: Sequence[str],
    n_resamples: int = N_RESAMPLES,
    random_state: int = 0,
) -> Differences:
    """Find 95 % confidence intervals of the differences between two heads.

    The groups are drawn as in :func:`find_intervals`; each resample is scored with both heads.

    Parameters
    ----------
    y : array-like of int, shape (n,)
        True class of each image.
    first, second : array-like of int, shape (n,)
        Predicted classes of each head.
    groups : array-like, shape (n,)
    class_names : sequence of str
        The k classes.
    n_resamples : int
        At least 1,000.
    random_state : int
        Seed.

    Returns
    -------
    Differences
        Without intervals where a class has too few groups, or the heads predict the same.

    Raises
    ------
    ParameterError
        `n_resamples` is too small.
    """
    _check_resamples(n_resamples)
    labels = np.asarray(y, np.intp)
    _, unit = np.unique(np.asarray(groups), return_inverse=True)
    n_groups, k = int(unit.max(initial=-1)) + 1, len(class_names)
    counts = [
        count_by_group(labels, np.asarray(predicted, np.intp), unit, k)
        for predicted in (first, second)
    ]
    wholes = [score_overall(count.sum(axis=0).reshape(1, k, k)) for count in counts]
    reason = find_shortage(labels, unit, class_names)
    if reason is None and np.array_equal(counts[0], counts[1]):
        reason = "both heads predict the same, and resampling cannot tell how far they may differ"
    intervals: dict[str, Interval] = {}
    if reason is None:
        weights = draw_weights(n_groups, len(labels), n_resamples, random_state)
        intervals = _resample_differences(counts, weights, k)
    differences = {
        name: Difference(
            first=float(wholes[0][name][0]),
            second=float(wholes[1][name][0]),
            difference=float(wholes[1][name][0] - wholes[0][name][0]),
            interval=intervals.get(name),
        )
        for name in OVERALL
    }
    return Differences(n_groups=n_groups, **differences, reason=reason)


def _resample_differences(
    counts: Sequence[Floats], resamples: Iterator[Floats], k: int
) -> dict[str, Interval]:
    sampled: dict[str, list[Floats]] = {name: [] for name in OVERALL}
    for weights in resamples:
        first, second = (score_overall((weights @ count).reshape(-1, k, k)) for count in counts)
        for name in OVERALL:
            sampled[name].append(second[name] - first[name])
    return {name: find_percentiles(np.concatenate(values)) for name, values in sampled.items()}


def find_shortage(
    y: NDArray[np.intp], groups: NDArray[np.intp], class_names: Sequence[str]
) -> str | None:
    """Return a sentence on the classes with too few groups for an interval; None without any."""
    if not len(y):
        return NO_IMAGES
    sizes = _count_groups(y, groups, len(class_names))
    few = [
        f"{name!r} has {size}"
        for name, size in zip(class_names, sizes, strict=True)
        if 0 < size < MIN_GROUPS
    ]
    return f"each class needs {MIN_GROUPS} groups; {name_some(few)}" if few else None


def count_few(
    y: NDArray[np.intp], groups: NDArray[np.intp], class_names: Sequence[str]
) -> dict[str, int]:
    """Count the images of each class that has images of too few groups, or none."""
    sizes = _count_groups(y, groups, len(class_names))
    return {
        name: int((y == label).sum())
        for label, (name, size) in enumerate(zip(class_names, sizes, strict=True))
        if size < MIN_GROUPS
    }


def _count_groups(y: NDArray[np.intp], groups: NDArray[np.intp], k: int) -> list[int]:
    return [len(np.unique(groups[y == label])) for label in range(k)]


def draw_weights(
    n_groups: int, n_images: int, n_resamples: int, random_state: int | Sequence[int]
) -> Iterator[Floats]:
    """Yield how often each group is drawn, (resamples, groups), some resamples at a time."""
    rng = np.random.default_rng(random_state)
    step = max(1, _WEIGHTS // max(1, n_images))
    even = np.full(n_groups, 1 / n_groups)
    for start in range(0, n_resamples, step):
        size = min(step, n_resamples - start)
        yield rng.multinomial(n_groups, even, size=size).astype(np.float64)


def count_by_group(
    y: NDArray[np.intp], predicted: NDArray[np.intp], groups: NDArray[np.intp], k: int
) -> Floats:
    """Count the confusion matrix of each group, (groups, k²), by true, then by predicted class."""
    counts = np.zeros((int(groups.max()) + 1, k * k))
    np.add.at(counts, (groups, y * k + predicted), 1.0)
    return counts


def score_overall(matrices: Floats) -> dict[str, Floats]:
    """Score confusion matrices (r, k, k): accuracy, balanced accuracy and macro F1, each (r,).

    Means are over the classes that have images.
    """
    true = np.diagonal(matrices, axis1=1, axis2=2)
    support, predicted = matrices.sum(axis=2), matrices.sum(axis=1)
    present = support > 0
    return {
        "accuracy": true.sum(axis=1) / matrices.sum(axis=(1, 2)),
        "balanced_accuracy": np.mean(_divide(true, support), axis=1, where=present),
        "f1_macro": np.mean(_divide(2 * true, support + predicted), axis=1, where=present),
    }


def score_classes(matrices: Floats) -> dict[str, Floats]:
    """Score each class against the rest in confusion matrices (r, k, k): five scores, each (r, k).

    A score is NaN where there is nothing to divide by.
    """
    true = np.diagonal(matrices, axis1=1, axis2=2)
    support, predicted = matrices.sum(axis=2), matrices.sum(axis=1)
    total = matrices.sum(axis=(1, 2))[:, None]
    true_negatives = total - support - predicted + true
    return {
        "precision": _divide(true, predicted),
        "recall": _divide(true, support),
        "f1": np.where(support > 0, _divide(2 * true, support + predicted), np.nan),
        "specificity": _divide(true_negatives, total - support),
        "npv": _divide(true_negatives, total - predicted),
    }


def _check_resamples(n_resamples: int) -> None:
    if n_resamples < 1000:
        raise ParameterError(f"n_resamples must be at least 1000, got {n_resamples}")


class _Ranking:
    """One class against the rest, sorted by score once, so that a resample needs only sums."""

    def __init__(self, positive: NDArray[np.bool_], score: Floats, groups: NDArray[np.intp]):
        order = np.argsort(-score, kind="stable")
        self._groups = groups[order]
        self._positive = positive[order].astype(np.float64)
        # Images of one score are taken together: the last of each run of equals.
        self._ends = np.flatnonzero(np.append(np.diff(score[order]) != 0, len(score) > 0))

    def score(self, weights: Floats) -> tuple[Floats, Floats]:
        """Return the ROC AUC and the average precision of each resample, NaN where not defined."""
        w = weights[:, self._groups]
        true = np.cumsum(w * self._positive, axis=1)[:, self._ends]
        predicted = np.cumsum(w, axis=1)[:, self._ends]
        false = predicted - true
        positives, negatives = true[:, -1:], false[:, -1:]
        new_true = np.diff(true, axis=1, prepend=0.0)
        new_false = np.diff(false, axis=1, prepend=0.0)
        # The trapezoidal rule over the ROC curve, and the step rule over precision and recall.
        area = (new_false * (true - new_true / 2)).sum(axis=1, keepdims=True)
        steps = (new_true * _divide(true, predicted, nothing=0.0)).sum(axis=1, keepdims=True)
        auc = _divide(area, positives * negatives)
        return auc[:, 0], _divide(steps, positives)[:, 0]


def _rank_classes(rankings: Sequence[_Ranking], weights: Floats) -> dict[str, Floats]:
    ranked = [ranking.score(weights) for ranking in rankings]
    names = ("roc_auc", "average_precision")
    return {
        name: np.stack([scores[place] for scores in ranked], axis=1)
        for place, name in enumerate(names)
    }


def _class_intervals(
    sampled: Mapping[str, Floats],
    label: int,
    y: NDArray[np.intp],
    predicted: NDArray[np.intp],
    groups: NDArray[np.intp],
) -> ClassIntervals | None:
    """Find the intervals of a class; None where it, or the rest, has too few groups."""
    is_class = y == label
    if any(0 < len(np.unique(groups[side])) < MIN_GROUPS for side in (is_class, ~is_class)):
        return None
    ends: dict[str, Interval | None] = {}
    for name in BY_CLASS:
        values = sampled[name][:, label]
        found = find_percentiles(values) if np.isfinite(values).any() else None
        ends[name] = None if found in ((0.0, 0.0), (1.0, 1.0)) else found
    bounds = bound_class(is_class, predicted == label, groups, confidence=CONFIDENCE)
    return ClassIntervals(**{**ends, **bounds}, binomial=tuple(bounds))


def _divide(part: Floats, whole: Floats, *, nothing: float = np.nan) -> Floats:
    quotient: Floats = np.full(np.broadcast_shapes(part.shape, whole.shape), nothing)
    return np.divide(part, whole, out=quotient, where=whole > 0)


def find_percentiles(values: Floats) -> Interval:
    """Return the ends between which 95 % of resampled values are; NaN does not count."""
    tail = 50 * (1 - CONFIDENCE)
    low, high = np.nanpercentile(values, [tail, 100 - tail])
    return float(low), float(high)
