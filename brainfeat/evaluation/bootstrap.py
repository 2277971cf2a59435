"""How far figures may be off: a bootstrap over groups, and what it says of each class."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from brainfeat.errors import ParameterError
from brainfeat.evaluation.results import ClassIntervals, Interval, SubsetIntervals

# Below this, the groups of a class are too few for their spread to be seen in them.
MIN_GROUPS = 10
N_RESAMPLES = 2000
CONFIDENCE = 0.95

OVERALL = ("accuracy", "balanced_accuracy", "f1_macro")
BY_CLASS = ("precision", "recall", "f1", "specificity", "npv", "roc_auc", "average_precision")

# Weights that are held at once, one for each image and resample: 2 MB stay in a cache.
_WEIGHTS = 250_000

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Intervals:
    """Percentile intervals of a bootstrap over groups, or why there are none.

    Attributes
    ----------
    n_groups : int
        Groups that were resampled.
    reason : str or None
        Why there are no intervals.
    overall : SubsetIntervals or None
    by_class : tuple of ClassIntervals, or None
        Of each class, where they were asked for.
    """

    n_groups: int
    reason: str | None
    overall: SubsetIntervals | None
    by_class: tuple[ClassIntervals, ...] | None


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
    """Find 95 % intervals of the figures of a head.

    Whole groups are drawn with replacement, as many as there are, so that images of one patient, or
    copies of one image, do not count as independent (Davison & Hinkley 1997, Bootstrap Methods and
    Their Application, §3.8). The interval runs from the 2.5th to the 97.5th percentile of the
    figures of the resamples (Efron & Tibshirani 1993, An Introduction to the Bootstrap, §13.3). A
    resample in which a figure is not defined, for want of images of a class, is left out of that
    figure's percentiles; means over classes are of those that the resample has.

    Parameters
    ----------
    y : array-like of int, shape (n,)
        True class of each image.
    probabilities : array-like of float, shape (n, k)
    groups : array-like, shape (n,)
        What an image cannot be drawn without; an image of no group needs a label of its own.
    class_names : sequence of str
        The k classes.
    each_class : bool
        Whether the classes get intervals, which takes most of the time.
    n_resamples : int
        At least 1,000.
    random_state : int
        Seed.

    Returns
    -------
    Intervals
        Without intervals where a class has images of fewer than ten groups.

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
    if reason := find_shortage(labels, unit, class_names):
        return Intervals(n_groups=n_groups, reason=reason, overall=None, by_class=None)
    k = len(class_names)
    counts = count_by_group(labels, p.argmax(axis=1), unit, k)
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
    return Intervals(
        n_groups=n_groups,
        reason=None,
        overall=SubsetIntervals(**{name: _interval(whole[name]) for name in OVERALL}),
        by_class=tuple(_class_intervals(whole, label) for label in range(k))
        if each_class
        else None,
    )


@dataclass(frozen=True, kw_only=True)
class Differences:
    """Figures of two heads, and percentile intervals of their differences.

    Attributes
    ----------
    n_groups : int
        Groups that were resampled.
    figures : dict
        First and second head's ``accuracy``, ``balanced_accuracy`` and ``f1_macro``.
    intervals : SubsetIntervals or None
        Of the second head's metrics less the first's.
    reason : str or None
        Why there are no intervals.
    """

    n_groups: int
    figures: dict[str, Interval]
    intervals: SubsetIntervals | None
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
    """Find 95 % intervals of what lies between two heads, as `find_intervals` does of one.

    Parameters
    ----------
    y : array-like of int, shape (n,)
        True class of each image.
    first, second : array-like of int, shape (n,)
        What each head called it.
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
        count_by_group(labels, np.asarray(called, np.intp), unit, k) for called in (first, second)
    ]
    wholes = [score_overall(count.sum(axis=0).reshape(1, k, k)) for count in counts]
    figures = {name: (float(wholes[0][name][0]), float(wholes[1][name][0])) for name in OVERALL}
    reason = find_shortage(labels, unit, class_names)
    if reason is not None:
        return Differences(n_groups=n_groups, figures=figures, intervals=None, reason=reason)
    sampled: dict[str, list[Floats]] = {name: [] for name in OVERALL}
    for weights in draw_weights(n_groups, len(labels), n_resamples, random_state):
        scores = [score_overall((weights @ count).reshape(-1, k, k)) for count in counts]
        for name in OVERALL:
            sampled[name].append(scores[1][name] - scores[0][name])
    intervals = SubsetIntervals(
        **{name: _interval(np.concatenate(values)) for name, values in sampled.items()}
    )
    return Differences(n_groups=n_groups, figures=figures, intervals=intervals, reason=None)


def find_shortage(
    y: NDArray[np.intp], groups: NDArray[np.intp], class_names: Sequence[str]
) -> str | None:
    """Say which class has images of too few groups for an interval; None where none has."""
    for label, name in enumerate(class_names):
        n_groups = len(np.unique(groups[y == label]))
        if 0 < n_groups < MIN_GROUPS:
            return (
                f"class {name!r} has images of {n_groups} group{'s' if n_groups != 1 else ''}; "
                f"an interval needs {MIN_GROUPS}"
            )
    return None if len(y) else "there are no images"


def draw_weights(
    n_groups: int, n_images: int, n_resamples: int, random_state: int
) -> Iterator[Floats]:
    """Yield how often each group is drawn, (resamples, groups), some resamples at a time."""
    rng = np.random.default_rng(random_state)
    step = max(1, _WEIGHTS // max(1, n_images))
    even = np.full(n_groups, 1 / n_groups)
    for start in range(0, n_resamples, step):
        size = min(step, n_resamples - start)
        yield rng.multinomial(n_groups, even, size=size).astype(np.float64)


def count_by_group(
    y: NDArray[np.intp], called: NDArray[np.intp], groups: NDArray[np.intp], k: int
) -> Floats:
    """Count the confusion matrix of each group, (groups, k²), true class before called."""
    counts = np.zeros((int(groups.max()) + 1, k * k))
    np.add.at(counts, (groups, y * k + called), 1.0)
    return counts


def score_overall(matrices: Floats) -> dict[str, Floats]:
    """Score confusion matrices (r, k, k): accuracy, balanced accuracy and macro F1, each (r,).

    Means are over the classes that have images.
    """
    true = np.diagonal(matrices, axis1=1, axis2=2)
    support, called = matrices.sum(axis=2), matrices.sum(axis=1)
    present = support > 0
    return {
        "accuracy": true.sum(axis=1) / matrices.sum(axis=(1, 2)),
        "balanced_accuracy": np.mean(_divide(true, support), axis=1, where=present),
        "f1_macro": np.mean(_divide(2 * true, support + called), axis=1, where=present),
    }


def score_classes(matrices: Floats) -> dict[str, Floats]:
    """Score each class against the rest in confusion matrices (r, k, k): five figures, each (r, k).

    A score is NaN where there is nothing to divide by.
    """
    true = np.diagonal(matrices, axis1=1, axis2=2)
    support, called = matrices.sum(axis=2), matrices.sum(axis=1)
    total = matrices.sum(axis=(1, 2))[:, None]
    spared = total - support - called + true
    return {
        "precision": _divide(true, called),
        "recall": _divide(true, support),
        "f1": np.where(support > 0, _divide(2 * true, support + called), np.nan),
        "specificity": _divide(spared, total - support),
        "npv": _divide(spared, total - called),
    }


def predictive_values(
    sensitivity: float, specificity: float, prevalence: float
) -> tuple[float | None, float | None]:
    """Give PPV and NPV where a class is as common as stated (Altman & Bland 1994, BMJ 309:102).

    Parameters
    ----------
    sensitivity, specificity : float
        Of the class against the rest.
    prevalence : float
        Share of the class among the people that are looked at, above 0 and below 1.

    Returns
    -------
    tuple of float or None
        PPV and NPV; None where no image would be called so.

    Examples
    --------
    >>> ppv, npv = predictive_values(0.9, 0.9, 0.01)
    >>> round(ppv, 3), round(npv, 4)
    (0.083, 0.9989)
    """
    found, missed = sensitivity * prevalence, (1 - sensitivity) * prevalence
    alarms, spared = (1 - specificity) * (1 - prevalence), specificity * (1 - prevalence)
    ppv = found / (found + alarms) if found + alarms else None
    npv = spared / (spared + missed) if spared + missed else None
    return ppv, npv


def check_prevalence(
    prevalence: Mapping[str, float] | None, class_names: Sequence[str]
) -> dict[str, float]:
    """Refuse a prevalence of a class that is not there, or that is no share."""
    for name, share in (prevalence or {}).items():
        if name not in class_names:
            raise ParameterError(
                f"prevalence of {name!r}, which is none of {', '.join(map(repr, class_names))}"
            )
        if not 0 < share < 1:
            raise ParameterError(
                f"the prevalence of {name!r} is {share}; expected above 0, below 1"
            )
    return dict(prevalence or {})


def _check_resamples(n_resamples: int) -> None:
    if n_resamples < 1000:
        raise ParameterError(f"n_resamples must be at least 1000, got {n_resamples}")


class _Ranking:
    """One class against the rest, sorted by score once: each resample then needs only sums."""

    def __init__(self, positive: NDArray[np.bool_], score: Floats, groups: NDArray[np.intp]):
        order = np.argsort(-score, kind="stable")
        self._groups = groups[order]
        self._positive = positive[order].astype(np.float64)
        # Images of one score are taken together: the last of each run of equals.
        self._ends = np.flatnonzero(np.append(np.diff(score[order]) != 0, len(score) > 0))

    def score(self, weights: Floats) -> tuple[Floats, Floats]:
        """Give the ROC AUC and the average precision of each resample, NaN where not defined."""
        w = weights[:, self._groups]
        found = np.cumsum(w * self._positive, axis=1)[:, self._ends]
        called = np.cumsum(w, axis=1)[:, self._ends]
        alarms = called - found
        positives, negatives = found[:, -1:], alarms[:, -1:]
        new_found = np.diff(found, axis=1, prepend=0.0)
        new_alarms = np.diff(alarms, axis=1, prepend=0.0)
        # The trapezoidal rule over the ROC curve, and the step rule over precision and recall.
        area = (new_alarms * (found - new_found / 2)).sum(axis=1, keepdims=True)
        steps = (new_found * _divide(found, called, nothing=0.0)).sum(axis=1, keepdims=True)
        auc = _divide(area, positives * negatives)
        return auc[:, 0], _divide(steps, positives)[:, 0]


def _rank_classes(rankings: Sequence[_Ranking], weights: Floats) -> dict[str, Floats]:
    ranked = [ranking.score(weights) for ranking in rankings]
    names = ("roc_auc", "average_precision")
    return {
        name: np.stack([scores[place] for scores in ranked], axis=1)
        for place, name in enumerate(names)
    }


def _class_intervals(sampled: Mapping[str, Floats], label: int) -> ClassIntervals:
    columns = {name: sampled[name][:, label] for name in BY_CLASS}
    return ClassIntervals(
        **{
            name: _interval(values) if np.isfinite(values).any() else None
            for name, values in columns.items()
        }
    )


def _divide(part: Floats, whole: Floats, *, nothing: float = np.nan) -> Floats:
    quotient: Floats = np.full(np.broadcast_shapes(part.shape, whole.shape), nothing)
    np.divide(part, whole, out=quotient, where=whole > 0)
    return quotient


def _interval(values: Floats) -> Interval:
    tail = 50 * (1 - CONFIDENCE)
    low, high = np.nanpercentile(values, [tail, 100 - tail])
    return float(low), float(high)
