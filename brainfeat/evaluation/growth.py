"""What more data brings: the points of a learning curve, and the gain of its last doubling."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from brainfeat.canonical import write_record

_COVERAGE = 0.95


@dataclass(frozen=True, kw_only=True)
class FitSpread:
    """A metric over the fits of one size.

    Attributes
    ----------
    mean : float
    std : float or None
        Standard deviation over the fits; None where there is one fit.
    least, most : float
        Range.
    """

    mean: float
    std: float | None
    least: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "FitSpread":
        """Describe the values of all fits.

        Examples
        --------
        >>> FitSpread.of([0.5, 0.75])
        FitSpread(mean=0.625, std=0.1767766952966369, least=0.5, most=0.75)
        """
        return cls(
            mean=float(np.mean(values)),
            std=float(np.std(values, ddof=1)) if len(values) > 1 else None,
            least=float(min(values)),
            most=float(max(values)),
        )


@dataclass(frozen=True, kw_only=True)
class FitMetrics:
    """Metrics of some test images over the fits of one size.

    Attributes
    ----------
    accuracy, balanced_accuracy, f1 : FitSpread
        ``f1`` is the macro mean.
    """

    accuracy: FitSpread
    balanced_accuracy: FitSpread
    f1: FitSpread


@dataclass(frozen=True, kw_only=True)
class CurvePoint:
    """The fits of one size.

    Attributes
    ----------
    groups_per_class : int
        Groups of each class that a head was fitted on; a class that has fewer gives all of them.
    images : float
        Training images, the mean over the repeats.
    fits : int
        Fits that were measured: one a repeat, and one where all repeats are the same fit.
    test, test_without_copies : FitMetrics or None
        On all test images, and on those of which train and val have no copy. None where the head
        cannot be fitted on so few images; the second one also where no test image has a copy, or
        all have, or copies were not looked for.
    error : str or None
        Why the head cannot be fitted.
    """

    groups_per_class: int
    images: float
    fits: int
    test: FitMetrics | None
    test_without_copies: FitMetrics | None
    error: str | None


@dataclass(frozen=True, kw_only=True)
class Gain:
    """What the last doubling of the training images brought.

    Attributes
    ----------
    metric : str
        ``"accuracy"``.
    of : str
        The test images: ``"test"`` or ``"test_without_copies"``.
    mean : float
        Difference of the metric for twice as many training images.
    interval : tuple of float, or None
        Of 95 %, over the choice of training groups and that of test images. None for one repeat.
    from_images, to_images : float
        Training images before and after, means over the repeats. Where they differ by more than
        twice, the difference was divided by the number of doublings.
    """

    metric: str
    of: str
    mean: float
    interval: tuple[float, float] | None
    from_images: float
    to_images: float


@dataclass(frozen=True, kw_only=True)
class LearningCurve:
    """How well a head predicts the same test images, fitted on more and more groups.

    Attributes
    ----------
    head : str
        Name of the head.
    params : dict
        Its constructor parameters.
    class_names : tuple of str
        The classes.
    group_by : str
        What a group is, as in :class:`brainfeat.heads.record.FitRecord`.
    repeats : int
        Orders in which groups were drawn.
    random_state : int
        Seed of the first order.
    test_images : int
    test_images_without_copies : int or None
        Test images of which train and val have no copy; None where copies were not looked for.
    points : tuple of CurvePoint
        From one group of each class to all groups.
    gain : Gain or None
        None where fewer than two sizes could be fitted.
    """

    head: str
    params: dict[str, Any]
    class_names: tuple[str, ...]
    group_by: str
    repeats: int
    random_state: int
    test_images: int
    test_images_without_copies: int | None
    points: tuple[CurvePoint, ...]
    gain: Gain | None

    def to_dict(self) -> dict[str, Any]:
        """Return the attributes as what JSON can hold; a point and a gain are dictionaries."""
        return write_record(self)


def estimate_gain(
    before: NDArray[np.bool_],
    after: NDArray[np.bool_],
    *,
    images: tuple[NDArray[np.integer], NDArray[np.integer]],
    groups: NDArray[Any],
    of: str,
) -> Gain:
    """Estimate what twice as many training images bring, from two sizes.

    The variance is the sum of two: that of the mean over the repeats, with Student's t, and that
    of the mean over the test images, whose errors go together within a group (Liang & Zeger 1986,
    Biometrika 73:13). All repeats share the fit on all images, so the first part covers the choice
    of the smaller size alone.

    Parameters
    ----------
    before, after : ndarray of shape (r, n), bool
        Whether the heads of each repeat predict each test image correctly, at two sizes.
    images : tuple of ndarray of shape (r,), int
        Training images of each repeat at both sizes; at the second one, there are more.
    groups : ndarray of shape (n,)
        Group of each test image.
    of : str
        The test images.

    Returns
    -------
    Gain

    Examples
    --------
    >>> before = np.array([[True, False, True, False], [True, False, False, True]])
    >>> after = np.ones((2, 4), bool)
    >>> gain = estimate_gain(
    ...     before,
    ...     after,
    ...     images=(np.array([8, 8]), np.array([16, 16])),
    ...     groups=np.arange(4),
    ...     of="test",
    ... )
    >>> gain.mean, [round(end, 3) for end in gain.interval]
    (0.5, [0.154, 0.846])
    """
    less, more = images
    doublings = np.log2(more / less)
    gains = (after.astype(np.float64) - before) / doublings[:, None]
    mean, repeats = float(gains.mean()), len(gains)
    interval = None
    if repeats > 1:
        drawn = stats.t.ppf((1 + _COVERAGE) / 2, repeats - 1) * stats.sem(gains.mean(axis=1))
        _, group = np.unique(groups, return_inverse=True)
        sums = np.bincount(group, gains.mean(axis=0) - mean)
        tested = stats.norm.ppf((1 + _COVERAGE) / 2) * np.linalg.norm(sums) / len(groups)
        half = float(np.hypot(drawn, tested))
        interval = (mean - half, mean + half)
    return Gain(
        metric="accuracy",
        of=of,
        mean=mean,
        interval=interval,
        from_images=float(less.mean()),
        to_images=float(more.mean()),
    )
