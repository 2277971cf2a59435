"""The records that an evaluation of a head consists of."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from brainfeat.errors import BrainfeatError, ParameterError
from brainfeat.evaluation.abstention import Abstention, ConfidentErrors
from brainfeat.evaluation.binomial import Interval
from brainfeat.evaluation.class_mapping import describe_mapping, is_coarse
from brainfeat.evaluation.floors import Floors
from brainfeat.evaluation.units import IMAGE, name_unit
from brainfeat.heads.calibration import Reliability
from brainfeat.metrics import ClassScores, Metrics
from brainfeat.text import name_some


@dataclass(frozen=True, kw_only=True)
class ClassIntervals:
    """The 95 % intervals of the scores of a class, low and high end.

    Attributes
    ----------
    precision, recall, f1, specificity, npv, roc_auc, average_precision : tuple of float, or None
        Of the score of the same name in :class:`brainfeat.metrics.ClassScores`; None where that is
        not defined, and of a ROC AUC or an average precision of 1.
    binomial : tuple of str
        The scores that are 0 or 1, whose interval is the exact binomial one over groups.
    """

    precision: Interval | None
    recall: Interval | None
    f1: Interval | None
    specificity: Interval | None
    npv: Interval | None
    roc_auc: Interval | None
    average_precision: Interval | None
    binomial: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ClassEvaluation(ClassScores):
    """Scores of one class against the rest, with their intervals.

    Attributes
    ----------
    intervals : ClassIntervals or None
        None where there are no intervals.
    """

    intervals: ClassIntervals | None


@dataclass(frozen=True, kw_only=True)
class SubsetIntervals:
    """The 95 % intervals of the metrics of a subset, low and high end.

    Attributes
    ----------
    accuracy : tuple of float
    balanced_accuracy, f1_macro : tuple of float, or None
        None where a class has too few groups.
    binomial : tuple of str
        The metrics that are 0 or 1, whose interval is the exact binomial one over groups.
    """

    accuracy: Interval
    balanced_accuracy: Interval | None
    f1_macro: Interval | None
    binomial: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Subset:
    """Metrics of some of the images, and their intervals.

    Attributes
    ----------
    n, n_groups : int
        Number of images, and of the groups that they form.
    accuracy, balanced_accuracy, f1_macro : float or None
        None if there are no images, or too few to measure.
    intervals : SubsetIntervals or None
        None where there are no intervals.
    reason : str or None
        Why there are no intervals, or no metrics.
    """

    n: int
    n_groups: int
    accuracy: float | None = None
    balanced_accuracy: float | None = None
    f1_macro: float | None = None
    intervals: SubsetIntervals | None = None
    reason: str | None = None


@dataclass(frozen=True, kw_only=True)
class Subsets:
    """Metrics with and without the images that the head has seen, each subset within the former.

    Attributes
    ----------
    all : Subset
        Of all images.
    without_exact_duplicates : Subset
        Of those of which the head has not seen the same file.
    without_copies : Subset
        Nor a copy, by the pixels, in any of eight orientations, altered or not.
    without_near_duplicates : Subset
        Nor a near duplicate, by the features.
    """

    all: Subset
    without_exact_duplicates: Subset
    without_copies: Subset
    without_near_duplicates: Subset


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A metric of two heads.

    Attributes
    ----------
    first, second : float
        The metric of each head.
    difference : float
        The second's less the first's.
    interval : tuple of float, or None
        Low and high end of the 95 % interval of the difference; None where there is none.
    """

    first: float
    second: float
    difference: float
    interval: Interval | None


@dataclass(frozen=True, kw_only=True)
class Bootstrap:
    """How intervals were computed.

    Attributes
    ----------
    method : str
        ``"percentile"``.
    confidence : float
        Such as 0.95.
    n_resamples : int
    random_state : int
        Seed.
    """

    method: str
    confidence: float
    n_resamples: int
    random_state: int


@dataclass(frozen=True, kw_only=True)
class PredictiveValues:
    """Predictive values of a class at a prevalence.

    Attributes
    ----------
    prevalence : float
        Fraction of the class among the people examined.
    ppv, npv : float or None
        Positive and negative predictive value; None where they are not defined.
    """

    prevalence: float
    ppv: float | None
    npv: float | None


@dataclass(frozen=True, kw_only=True)
class ScaledReliability:
    """Reliability of the probabilities before and after the scores are divided by a temperature.

    Attributes
    ----------
    temperature : float
        That of the head.
    before, after : Reliability
    """

    temperature: float
    before: Reliability
    after: Reliability


@dataclass(frozen=True, kw_only=True, eq=False)
class Predictions:
    """The images, or groups of images, that were measured, one by one.

    Attributes
    ----------
    rows : ndarray of shape (n,), int
        Row of each image in the cache; of a group, of its image that speaks most for the predicted
        class.
    y : ndarray of shape (n,), int
        True class.
    probabilities : ndarray of shape (n, k), float64
    groups : ndarray of shape (n,), int
        What has one label is resampled together.
    exact_duplicates : ndarray of shape (n,), bool, or None
        Whether the head has seen the same file; None where that is not known.
    copies : ndarray of shape (n,), bool, or None
        Whether it has seen that or a copy; None likewise.
    near_duplicates : ndarray of shape (n,), bool, or None
        Whether it has seen one of these or a near duplicate; None likewise.
    """

    rows: NDArray[np.intp]
    y: NDArray[np.intp]
    probabilities: NDArray[np.float64]
    groups: NDArray[np.intp]
    exact_duplicates: NDArray[np.bool_] | None
    copies: NDArray[np.bool_] | None
    near_duplicates: NDArray[np.bool_] | None

    def select(self, chosen: NDArray[np.bool_]) -> Self:
        """Return the chosen images alone."""
        kept: dict[str, Any] = {
            name: None if array is None else array[chosen] for name, array in vars(self).items()
        }
        return type(self)(**kept)


@dataclass(frozen=True, kw_only=True)
class Results(Metrics):
    """All that is measured of some images.

    Attributes
    ----------
    per_class : tuple of ClassEvaluation
        As in :class:`brainfeat.metrics.Metrics`, with intervals.
    few : dict of str to int
        Number of images (or groups) of each class that has images of fewer than 10 groups: its
        scores, and its part in a mean over the classes, say little.
    by : dict of str to Subset
        Subsets of the images by value of a column; empty where none was given.
    prevalence : dict of str to PredictiveValues
        By class, at the prevalences that were given.
    calibration : ScaledReliability
        Reliability of the probabilities, and what the head's temperature changes.
    abstention : Abstention or None
        What the head answers and when it abstains; None for a head that cannot.
    confident_errors : ConfidentErrors or None
        Images on which the head is wrong, and confident; None in JSON of an earlier version.
    unit : str
        What was measured, and counted in `n`: ``"image"``, or ``"group"``, such as patients.
    n_images : int or None
        Number of images; None in JSON of an earlier version.
    predictions : Predictions or None
        What was measured, one by one; `to_dict` leaves it out, and None is what is read from JSON.
    """

    per_class: tuple[ClassEvaluation, ...]
    few: Mapping[str, int]
    by: Mapping[str, Subset]
    prevalence: Mapping[str, PredictiveValues]
    calibration: ScaledReliability
    abstention: Abstention | None
    confident_errors: ConfidentErrors | None = None
    unit: str = IMAGE
    n_images: int | None = None
    predictions: Predictions | None = field(default=None, repr=False, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """Return all but the predictions as what JSON can hold.

        Returns
        -------
        dict
            The attributes by name, as in :meth:`brainfeat.metrics.Metrics.to_dict`.
        """
        document = Metrics.to_dict(replace(self, predictions=None))
        del document["predictions"]
        return document


@dataclass(frozen=True, kw_only=True)
class Evaluation(Results):
    """Metrics of a head on images of a cache, with intervals and what they depend on.

    Attributes
    ----------
    split : str
        Which images of the cache were measured.
    seen_files : dict of str to int, or None
        Number of these images on whose file the head was fitted (``"train"``) and validated
        (``"val"``), whatever the table calls them; None where its file does not record that.
    subsets : Subsets
        The images with and without those that the head has seen.
    copy_free : Results or None
        All that is measured of the images of which the head has seen no copy; None where these are
        all images, or none, or where copies were not looked for.
    bootstrap : Bootstrap
        How intervals were computed.
    classes : dict of str to tuple of str, or None
        Classes of the head by class of the images, where a mapping was given that fits them.
    floors : Floors or None
        What is reached without learning; None in JSON of an earlier version.
    pooling : str or None
        How the head answers for a group: ``"probabilities"``, the mean of those of its images, or
        ``"bag"``, by a bag head; None where images were measured.
    """

    split: str
    seen_files: Mapping[str, int] | None
    subsets: Subsets
    copy_free: Results | None
    bootstrap: Bootstrap
    classes: Mapping[str, tuple[str, ...]] | None = None
    floors: Floors | None = None
    pooling: str | None = None

    @property
    def absent(self) -> tuple[str, ...]:
        """Classes of which there is no image."""
        return tuple(entry.name for entry in self.per_class if not entry.support)

    def describe_classes(self) -> list[str]:
        """Say on which classes the head was measured, if not on its own, one sentence each."""
        found, absent, noun = [], self.absent, name_unit(self.unit)
        present = [name for name in self.class_names if name not in absent]
        if self.classes is not None:
            task = "on coarser classes" if is_coarse(self.classes) else "by other names"
            found.append(f"measured {task}: {describe_mapping(self.classes)}")
        if len(present) == 1:
            found.append(
                f"all {noun}s are of one class, {present[0]}; what needs two, such as specificity, "
                "ROC AUC and Matthews correlation, is not defined"
            )
        elif absent:
            found.append(
                f"{noun}s of {len(present)} of {len(self.class_names)} classes; none of "
                f"{name_some(absent)}, which count as wrong where they are predicted"
            )
        return found

    def to_dict(self) -> dict[str, Any]:
        """Return all but the predictions as what JSON can hold.

        Returns
        -------
        dict
            The attributes by name, as in :meth:`brainfeat.metrics.Metrics.to_dict`.
        """
        document = Results.to_dict(replace(self, copy_free=None))
        return {
            **document,
            "copy_free": None if self.copy_free is None else self.copy_free.to_dict(),
        }

    @classmethod
    def from_dict(
        cls, document: Mapping[str, Any], *, error: type[BrainfeatError] = ParameterError
    ) -> Self:
        """Read what :meth:`to_dict` returned.

        Raises
        ------
        BrainfeatError
            A metric is missing or of another type, or not every class has its scores.
        """
        found = document.get("copy_free") if isinstance(document, Mapping) else None
        copy_free = None if found is None else Results.from_dict(found, error=error)
        evaluation = super().from_dict({**document, "copy_free": None}, error=error)
        return replace(evaluation, copy_free=copy_free)
