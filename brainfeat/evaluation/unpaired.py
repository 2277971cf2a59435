"""Differences of a head between two sets of images: an unpaired bootstrap over groups."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from brainfeat.evaluation.binomial import Interval, bound_overall
from brainfeat.evaluation.bootstrap import (
    CONFIDENCE,
    MIN_GROUPS,
    count_by_group,
    draw_weights,
    find_percentiles,
    find_shortage,
    score_overall,
)
from brainfeat.evaluation.results import Difference

# Metrics that do not depend on the mix of classes, or do so openly.
COMPARED = ("accuracy", "balanced_accuracy")

Labels = NDArray[np.intp]


@dataclass(frozen=True, kw_only=True, eq=False)
class Side:
    """What a head predicted for the images of one set.

    Attributes
    ----------
    y, predicted : ndarray of shape (n,), int
        True and predicted class.
    groups : ndarray of shape (n,), int
        Images of one group are drawn together.
    """

    y: Labels
    predicted: Labels
    groups: Labels

    def select(self, chosen: NDArray[np.bool_]) -> "Side":
        """Return the chosen images alone."""
        return Side(y=self.y[chosen], predicted=self.predicted[chosen], groups=self.groups[chosen])


@dataclass(frozen=True, kw_only=True)
class SetDifference:
    """A head on a set and on its own test part: what the images of the same classes differ by.

    Attributes
    ----------
    classes : tuple of str
        Classes of which both have images; others are left out.
    n_first, n_second : int
        Images of these classes in the test part, and in the set.
    accuracy, balanced_accuracy : Difference
        The test part is first, the set second.
    reason : str or None
        Why there are no intervals.
    """

    classes: tuple[str, ...]
    n_first: int
    n_second: int
    accuracy: Difference
    balanced_accuracy: Difference
    reason: str | None


def find_set_difference(
    first: Side,
    second: Side,
    *,
    class_names: Sequence[str],
    n_resamples: int,
    random_state: int,
) -> SetDifference | None:
    """Find the differences between two sets of images, with 95 % intervals.

    The groups of each side are drawn by themselves, as many as it has; the interval is between
    percentiles of the differences of such pairs (Efron & Tibshirani 1993, An Introduction to the
    Bootstrap, §8.3 and §13.3). Resampling cannot change a side that is predicted all rightly, or
    all wrongly: the distances of the ends of each side's interval, here the exact binomial one of
    :mod:`brainfeat.evaluation.binomial`, are then combined (Zou & Donner 2008, Statistics in
    Medicine 27:1693).

    Parameters
    ----------
    first, second : Side
        No image is in both.
    class_names : sequence of str
        The k classes.
    n_resamples : int
    random_state : int

    Returns
    -------
    SetDifference or None
        None where the sets have no class in common. Without intervals where a class has too few
        groups in one of them.

    Examples
    --------
    >>> y = np.arange(200) % 2
    >>> found = find_set_difference(
    ...     Side(y=y, predicted=y, groups=np.arange(200)),
    ...     Side(y=y, predicted=y & (np.arange(200) % 4 == 1), groups=np.arange(200)),
    ...     class_names=["a", "b"],
    ...     n_resamples=1000,
    ...     random_state=0,
    ... )
    >>> found.accuracy.difference
    -0.25
    """
    common = np.intersect1d(first.y, second.y)
    if not len(common):
        return None
    sides = [side.select(np.isin(side.y, common)) for side in (first, second)]
    k = len(class_names)
    counts, reasons, bounds = [], [], []
    for side in sides:
        _, unit = np.unique(side.groups, return_inverse=True)
        counts.append(count_by_group(side.y, side.predicted, unit, k))
        reasons.append(find_shortage(side.y, unit, class_names))
        bounds.append(bound_overall(side.y, side.predicted, unit, confidence=CONFIDENCE))
    wholes = [score_overall(count.sum(axis=0).reshape(1, k, k)) for count in counts]
    reason = next(
        (
            f"{reason} in {where}"
            for reason, where in zip(reasons, ("the test part", "the set"), strict=True)
            if reason is not None
        ),
        None,
    )
    sampled = [
        _resample(count, len(side.y), k, n_resamples, [random_state, place])
        for place, (count, side) in enumerate(zip(counts, sides, strict=True))
        if len(count) >= MIN_GROUPS
    ]
    differences = {}
    for name in COMPARED:
        one, other = (float(whole[name][0]) for whole in wholes)
        known = len(sampled) == 2 and (reason is None or name == "accuracy")
        differences[name] = Difference(
            first=one,
            second=other,
            difference=other - one,
            interval=_find_interval(name, (one, other), sampled, bounds) if known else None,
        )
    return SetDifference(
        classes=tuple(class_names[label] for label in common),
        n_first=len(sides[0].y),
        n_second=len(sides[1].y),
        **differences,
        reason=reason,
    )


def _find_interval(
    name: str,
    values: tuple[float, float],
    sampled: Sequence[dict[str, NDArray[np.float64]]],
    bounds: Sequence[dict[str, Interval]],
) -> Interval:
    """Find the interval of the second of two values minus the first."""
    first, second = (found[name] for found in sampled)
    if not any(bounds):
        return find_percentiles(second - first)
    (low, high), (other_low, other_high) = (
        bound.get(name) or find_percentiles(found[name])
        for bound, found in zip(bounds, sampled, strict=True)
    )
    one, other = values
    return (
        max(-1.0, other - one - math.hypot(other - other_low, high - one)),
        min(1.0, other - one + math.hypot(other_high - other, one - low)),
    )


def _resample(
    counts: NDArray[np.float64], n_images: int, k: int, n_resamples: int, seed: Sequence[int]
) -> dict[str, NDArray[np.float64]]:
    """Score each resample of the groups, whose confusion matrices are (groups, k²)."""
    found = [
        score_overall((weights @ counts).reshape(-1, k, k))
        for weights in draw_weights(len(counts), n_images, n_resamples, seed)
    ]
    return {name: np.concatenate([scores[name] for scores in found]) for name in COMPARED}
