"""Several heads against one on the same images: sign flips of groups, with Holm's correction."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from brainfeat.errors import ParameterError
from brainfeat.evaluation.binomial import Interval
from brainfeat.evaluation.bootstrap import find_shortage

Floats = NDArray[np.float64]

# Probability that any difference is called one where there is none.
ALPHA = 0.05
N_FLIPS = 9_999
MARGIN = 0.01

BETTER, WORSE, NOTHING, UNTOLD = "better", "worse", "nothing", "cannot be told"

# Signs that are held at once.
_SIGNS = 2_000_000
# Differences of balanced accuracy are sums of fractions: below this, they are equal.
_EQUAL = 1e-12


@dataclass(frozen=True, kw_only=True)
class PairedDifference:
    """How much better one head is than the plain one.

    Attributes
    ----------
    balanced_accuracy : float
    difference : float
        Of the balanced accuracy, from the plain head.
    interval : tuple of float, or None
        Of the difference; None where a class has too few groups.
    p_value, p_holm : float or None
        Of the paired test, and with Holm's correction over the heads.
    verdict : {"better", "worse", "nothing", "cannot be told"}
        Better or worse where the corrected p-value is at most 0.05, and the interval therefore
        excludes 0; nothing where it is not, and the interval is within the margin on both sides.
    within_margin : bool
        Whether the interval is within the margin on both sides.
    """

    balanced_accuracy: float
    difference: float
    interval: Interval | None
    p_value: float | None
    p_holm: float | None
    verdict: str
    within_margin: bool


@dataclass(frozen=True, kw_only=True)
class PairedDifferences:
    """Several heads against the plain one on the same images.

    Attributes
    ----------
    n, n_groups : int
        Images, and groups whose signs were flipped.
    balanced_accuracy : float
        Of the plain head.
    confidence : float or None
        Of all intervals; None where there are none.
    reason : str or None
        Why there are no intervals and tests.
    heads : tuple of PairedDifference
    """

    n: int
    n_groups: int
    balanced_accuracy: float
    confidence: float | None
    reason: str | None
    heads: tuple[PairedDifference, ...]


def measure_differences(
    y: ArrayLike,
    plain: ArrayLike,
    others: Sequence[ArrayLike],
    *,
    groups: ArrayLike,
    class_names: Sequence[str],
    margin: float = MARGIN,
    n_flips: int = N_FLIPS,
    random_state: int = 0,
) -> PairedDifferences:
    """Tell which heads have another balanced accuracy than the plain one.

    The difference is a sum over groups, such as patients or copies of one image. If two heads are
    equally good, the sign of the part of each group is as likely to be the other one; the p-value
    is the fraction of random signs that give a difference as large (Fisher's permutation test for
    pairs; Phipson & Smyth 2010, Stat. Appl. Genet. Mol. Biol. 9:39 for the +1). The interval is of
    the differences that the same test does not reject, where the part of a group is compared with
    what is expected of its images (sign-flipped score contributions: Hemerik, Goeman & Finos 2020,
    J. R. Stat. Soc. B 82:841).

    Holm's correction (1979, Scand. J. Stat. 6:65) bounds the probability of one false difference
    among all heads by 0.05. All intervals have the confidence of its last step, 1 − 0.05 / r with r
    heads that are not rejected (1 where all are): so they exclude 0 for just the heads whose
    corrected p-value is at most 0.05, and those of the others hold together (Strassburger & Bretz
    2008, Stat. Med. 27:4914). But for the end at 0 of a difference that is one, they are never
    narrower than what as many groups of the smallest class allow that show no difference at all.

    Parameters
    ----------
    y : array-like of int, shape (n,)
        True class of each image.
    plain : array-like of int, shape (n,)
        Classes that the plain head predicts.
    others : sequence of array-like of int, shape (n,)
        Those of each other head.
    groups : array-like, shape (n,)
        Images of one group are not independent.
    class_names : sequence of str
        The k classes.
    margin : float
        A difference that would not matter.
    n_flips : int
        Random signs of each group, at least 999.
    random_state : int
        Seed.

    Returns
    -------
    PairedDifferences
        Without intervals and p-values where a class has images of fewer than 10 groups.

    Raises
    ------
    ParameterError
        `margin` or `n_flips` is out of range.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> y = np.arange(400) % 2
    >>> plain, worse = (np.where(rng.random(400) < right, y, 1 - y) for right in (0.95, 0.8))
    >>> found = measure_differences(
    ...     y, plain, [worse, plain], groups=range(400), class_names=["a", "b"]
    ... )
    >>> [head.verdict for head in found.heads], found.confidence
    (['worse', 'nothing'], 0.95)
    """
    check_margin(margin)
    if n_flips < 999:
        raise ParameterError(f"n_flips must be at least 999, got {n_flips}")
    labels = np.asarray(y, np.intp)
    _, unit = np.unique(np.asarray(groups), return_inverse=True)
    weights = _weigh_images(labels)
    right = np.array([np.asarray(predicted) == labels for predicted in (plain, *others)], float)
    scores, reason = right @ weights, find_shortage(labels, unit, class_names)
    differences = scores[1:] - scores[0]
    if reason is not None or not others:
        tests, confidence = [_Test() for _ in others], None
    else:
        parts = _sum_by_group((right[1:] - right[0]) * weights, unit)
        ends = _flip_signs(parts, _sum_by_group(weights[None], unit)[0], n_flips, random_state)
        tests, level = _test(differences, ends, n_flips, few=_count_fewest(labels, unit))
        confidence = 1 - level
    return PairedDifferences(
        n=len(labels),
        n_groups=int(unit.max(initial=-1)) + 1,
        balanced_accuracy=float(scores[0]),
        confidence=confidence,
        reason=reason,
        heads=tuple(
            PairedDifference(
                balanced_accuracy=float(score),
                difference=float(difference),
                interval=test.interval,
                p_value=test.p_value,
                p_holm=test.p_holm,
                verdict=_find_verdict(float(difference), test, margin),
                within_margin=_is_within(test.interval, margin),
            )
            for score, difference, test in zip(scores[1:], differences, tests, strict=True)
        ),
    )


def adjust_holm(p_values: ArrayLike) -> Floats:
    """Correct p-values for their number, after Holm (1979, Scand. J. Stat. 6:65).

    Parameters
    ----------
    p_values : array-like of float, shape (m,)

    Returns
    -------
    ndarray of shape (m,), float64
        In the order that was given, at most 1.

    Examples
    --------
    >>> adjust_holm([0.01, 0.04, 0.03]).round(3).tolist()
    [0.03, 0.06, 0.06]
    """
    p = np.asarray(p_values, np.float64)
    order = np.argsort(p, kind="stable")
    steps = p[order] * np.arange(len(p), 0, -1)
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return adjusted


def check_margin(margin: float) -> None:
    """Refuse a margin that is no difference of accuracies.

    Raises
    ------
    ParameterError
        It is not between 0 and 1.
    """
    if not isinstance(margin, int | float) or not 0 < margin < 1:
        raise ParameterError(f"margin must be above 0 and below 1, such as 0.01, got {margin!r}")


@dataclass(frozen=True, kw_only=True)
class _Test:
    """What is known of a difference; nothing where a class has too few groups."""

    p_value: float | None = None
    p_holm: float | None = None
    interval: Interval | None = None


def _weigh_images(y: NDArray[np.intp]) -> Floats:
    """Return the part of the balanced accuracy that each image makes up, (n,)."""
    sizes = np.bincount(y)
    weights: Floats = 1 / ((sizes > 0).sum() * sizes[y])
    return weights


def _sum_by_group(values: Floats, unit: NDArray[np.intp]) -> Floats:
    """Add up values (m, n) over the images of each group, (m, groups)."""
    return np.array([np.bincount(unit, row) for row in values])


def _flip_signs(
    parts: Floats, expected: Floats, n_flips: int, random_state: int
) -> tuple[Floats, Floats]:
    """Return the two ends of the differences that each draw of signs does not reject, (m, flips).

    With the sums A of the flipped parts and W of the flipped expectations, a draw supports a
    difference δ if A − δ W is at least as far from 0 as Δ − δ, which is between two roots:
    (Δ − A) / (1 − W) and (Δ + A) / (1 + W).
    """
    both = np.vstack([parts, expected])
    sums = np.concatenate(
        [both @ signs for signs in _draw_signs(both.shape[1], n_flips, random_state)], axis=1
    )
    flipped, weight, whole = sums[:-1], sums[-1], parts.sum(axis=1)[:, None]
    same = 1 - np.abs(weight) < _EQUAL
    with np.errstate(divide="ignore", invalid="ignore"):
        roots = np.stack([(whole - flipped) / (1 - weight), (whole + flipped) / (1 + weight)])
    roots[np.abs(roots) < _EQUAL] = 0.0
    low, high = roots.min(axis=0), roots.max(axis=0)
    # Signs that are all the same reject nothing.
    return np.where(same, -np.inf, low), np.where(same, np.inf, high)


def _draw_signs(n_groups: int, n_flips: int, random_state: int) -> Iterator[Floats]:
    """Yield random signs of each group, (groups, flips), some flips at a time."""
    rng = np.random.default_rng(random_state)
    step = max(1, _SIGNS // n_groups)
    for start in range(0, n_flips, step):
        size = min(step, n_flips - start)
        packed = rng.integers(0, 256, (n_groups, -(-size // 8)), np.uint8)
        signs: Floats = np.unpackbits(packed, axis=1, count=size) * np.float64(2.0) - 1.0
        yield signs


def _test(
    differences: Floats, ends: tuple[Floats, Floats], n_flips: int, *, few: tuple[int, int]
) -> tuple[list[_Test], float]:
    """Test all differences; return the tests, and the level of the intervals."""
    low, high = np.sort(ends[0], axis=1), np.sort(ends[1], axis=1)
    p_values = (1 + ((ends[0] <= 0) & (ends[1] >= 0)).sum(axis=1)) / (n_flips + 1)
    corrected = adjust_holm(p_values)
    rejected = corrected <= ALPHA + _EQUAL
    level = ALPHA / max(1, int((~rejected).sum()))
    # A difference is in the interval if more than this fraction of all draws supports it.
    place = max(0, int(level * (n_flips + 1) + _EQUAL) - 1)
    low, high = low[:, place], high[:, -1 - place]
    # The groups of a small class may show no difference where others would.
    bound = _bound_unseen(*few, level)
    low = np.where(rejected & (differences > 0), low, np.minimum(low, differences - bound))
    high = np.where(rejected & (differences < 0), high, np.maximum(high, differences + bound))
    tests = [
        _Test(
            p_value=float(p_values[number]),
            p_holm=float(corrected[number]),
            interval=(max(float(low[number]), -1.0), min(float(high[number]), 1.0)),
        )
        for number in range(len(differences))
    ]
    return tests, level


def _bound_unseen(n_classes: int, n_groups: int, level: float) -> float:
    """Bound a difference that no group shows, by the groups of the smallest class.

    It is that of Clopper & Pearson (1934, Biometrika 26:404) for no success.
    """
    return float(1 - (level / 2) ** (1 / n_groups)) / n_classes


def _count_fewest(y: NDArray[np.intp], unit: NDArray[np.intp]) -> tuple[int, int]:
    """Return the number of classes, and of the groups of the class that has the fewest."""
    sizes = [len(np.unique(unit[y == label])) for label in np.unique(y)]
    return len(sizes), min(sizes)


def _find_verdict(difference: float, test: _Test, margin: float) -> str:
    if test.p_holm is None:
        return UNTOLD
    if test.p_holm <= ALPHA + _EQUAL:
        return BETTER if difference > 0 else WORSE
    return NOTHING if _is_within(test.interval, margin) else UNTOLD


def _is_within(interval: Interval | None, margin: float) -> bool:
    return interval is not None and -margin <= interval[0] and interval[1] <= margin
