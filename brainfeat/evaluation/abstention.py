"""What a head answers and when it abstains: prediction sets, out-of-distribution images, risk."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from brainfeat.evaluation.binomial import Interval, bound_fraction
from brainfeat.heads.calibration import measure_ranking
from brainfeat.heads.conformal import COVERAGE
from brainfeat.heads.ood import FALSE_ALARM_RATE
from brainfeat.heads.pooling import find_sole
from brainfeat.text import count, format_interval, format_metric, format_percent, name_some

if TYPE_CHECKING:
    from brainfeat.evaluation.class_mapping import ClassTask
    from brainfeat.heads.pooling import Answers

# A head is called confident of an image above this probability of the predicted class.
CONFIDENT = 0.9
_CONFIDENCE = 0.95
# Fractions of the images that are answered in the risk-coverage curve.
_FRACTIONS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0)


@dataclass(frozen=True, kw_only=True)
class RiskCoverage:
    """A point of the risk-coverage curve (El-Yaniv & Wiener 2010, JMLR 11:1605).

    Attributes
    ----------
    fraction : float
        Fraction of the images that are answered, the most confident first: the coverage.
    risk : float
        Fraction of these whose predicted class is wrong.
    """

    fraction: float
    risk: float


@dataclass(frozen=True, kw_only=True)
class Abstention:
    """What a head answers, and when it abstains, at the defaults of :class:`brainfeat.Predictor`.

    Attributes
    ----------
    answered, uncertain, out_of_distribution : float
        Fractions of the images for which one class is predicted, which are left uncertain, and
        which are out of distribution; their sum is 1.
    accuracy : float or None
        Of the images that are answered; None where there are none.
    target_coverage : float
        Least fraction of the images of each class whose prediction set has to have the true class.
    false_alarm_rate : float
        Largest fraction of images like the held-out ones that may be flagged as out of
        distribution.
    coverage : float or None
        Fraction of all images whose prediction set has the true class; None in JSON of an earlier
        version.
    coverage_interval : tuple of float, or None
        Its exact binomial 95 % interval over groups.
    coverage_by_class : dict of str to float or None
        The same of the images of a class; None without images.
    coverage_intervals : dict of str to tuple of float or None
        Their intervals.
    risk_coverage : tuple of RiskCoverage
        By ascending fraction.
    auroc : float or None
        Area under the ROC curve of the confidence, the probability of the predicted class, as a
        score of being right: the probability that a right prediction is more confident than a wrong
        one. 0.5 tells nothing. None where all predictions are right, or all wrong.
    mean_set_size : float or None
        Mean number of classes in a prediction set. None in the JSON of earlier versions.
    """

    answered: float
    uncertain: float
    out_of_distribution: float
    accuracy: float | None
    target_coverage: float
    false_alarm_rate: float
    coverage_by_class: Mapping[str, float | None]
    risk_coverage: tuple[RiskCoverage, ...]
    coverage: float | None = None
    coverage_interval: Interval | None = None
    coverage_intervals: Mapping[str, Interval | None] = field(default_factory=dict)
    auroc: float | None = None
    mean_set_size: float | None = None

    def describe_coverage(self) -> str | None:
        """Say for which classes the target coverage does not hold; None where it may."""
        broken = self.broken_coverage
        if not broken:
            return None
        classes = [
            f"{format_metric(self.coverage_by_class[name])} "
            f"({format_interval(self.coverage_intervals[name])}) for {name}"
            for name in broken
        ]
        return (
            f"the promised coverage of {self.target_coverage:g} does not hold: {name_some(classes)}"
        )

    @property
    def broken_coverage(self) -> tuple[str, ...]:
        """Classes for which the target coverage does not hold: their interval is below it."""
        return tuple(
            name
            for name, ends in self.coverage_intervals.items()
            if ends is not None and ends[1] < self.target_coverage
        )


@dataclass(frozen=True, kw_only=True)
class ConfidentErrors:
    """Wrong predictions of which a head is confident.

    Attributes
    ----------
    threshold : float
        A head is confident of an image above this probability of the predicted class.
    confident : int
        Images of which it is confident.
    wrong : int
        Images whose predicted class is wrong.
    both : int
        Images that are both.
    """

    threshold: float
    confident: int
    wrong: int
    both: int

    def describe(self) -> str | None:
        """Say how many wrong predictions were confident; None where none was."""
        if not self.both:
            return None
        return (
            f"{self.both:,} of {count(self.wrong, 'wrong prediction')} "
            f"({format_percent(self.both, self.wrong)}) had a probability above {self.threshold:g}"
        )


def count_confident_errors(
    y: NDArray[np.intp], probabilities: NDArray[np.float64], *, threshold: float = CONFIDENT
) -> ConfidentErrors:
    """Count the wrong predictions of which a head is confident.

    Parameters
    ----------
    y : ndarray of shape (n,), int
        True class of each image.
    probabilities : ndarray of shape (n, k), float64
    threshold : float

    Returns
    -------
    ConfidentErrors

    Examples
    --------
    >>> p = np.array([[0.95, 0.05], [0.95, 0.05], [0.6, 0.4]])
    >>> count_confident_errors(np.array([0, 1, 1]), p)
    ConfidentErrors(threshold=0.9, confident=2, wrong=2, both=1)
    """
    confident = probabilities.max(axis=1) > threshold
    wrong = probabilities.argmax(axis=1) != y
    return ConfidentErrors(
        threshold=threshold,
        confident=int(confident.sum()),
        wrong=int(wrong.sum()),
        both=int((confident & wrong).sum()),
    )


def measure_abstention(
    answers: "Answers",
    y: NDArray[np.intp],
    *,
    groups: NDArray[np.intp],
    task: "ClassTask",
) -> Abstention | None:
    """Measure what a head answers at the defaults of :class:`brainfeat.Predictor`.

    Parameters
    ----------
    answers : Answers
        For n images, or n groups of images, of each class of the head.
    y : ndarray of shape (n,), int
        True classes.
    groups : ndarray of shape (n,), int
        What has one label is not independent.
    task : ClassTask
        The classes that `y` is about, whose prediction sets are those of their members united.

    Returns
    -------
    Abstention or None
        None where the head has no conformal quantiles or no out-of-distribution detector.
    """
    flagged = answers.flagged
    if flagged is None or answers.sets is None:
        return None
    found, sets = task.add_up(answers.probabilities), task.unite(answers.sets)
    predicted, every = found.argmax(axis=1), np.arange(len(y))
    alone = find_sole(sets, predicted)
    answered = alone & ~flagged
    right, covered = predicted == y, sets[every, y]
    ranked = np.argsort(-found.max(axis=1), kind="stable")
    of_class = {name: y == label for label, name in enumerate(task.names)}
    return Abstention(
        answered=float(answered.mean()),
        uncertain=float((~alone & ~flagged).mean()),
        out_of_distribution=float(flagged.mean()),
        accuracy=float(right[answered].mean()) if answered.any() else None,
        target_coverage=COVERAGE,
        false_alarm_rate=FALSE_ALARM_RATE,
        coverage=float(covered.mean()),
        coverage_interval=bound_fraction(covered, groups, confidence=_CONFIDENCE),
        coverage_by_class={
            name: float(covered[chosen].mean()) if chosen.any() else None
            for name, chosen in of_class.items()
        },
        coverage_intervals={
            name: bound_fraction(covered[chosen], groups[chosen], confidence=_CONFIDENCE)
            for name, chosen in of_class.items()
        },
        risk_coverage=tuple(
            RiskCoverage(
                fraction=fraction, risk=float(1 - right[ranked[: _count(fraction, len(y))]].mean())
            )
            for fraction in _FRACTIONS
        ),
        auroc=measure_ranking(y, found),
        mean_set_size=float(sets.sum(axis=1).mean()),
    )


def _count(fraction: float, n: int) -> int:
    return max(1, round(fraction * n))
