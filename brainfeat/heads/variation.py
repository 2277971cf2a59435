"""How metrics vary by source and by repeat, as the record of a fit keeps it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Self

import numpy as np

from brainfeat.leakage.sources import ClassSource
from brainfeat.metrics import Metrics

# Metrics of a repeat, by the name of their attribute; f1_macro is the F1 of the mean over classes.
REPEATED = ("accuracy", "balanced_accuracy", "f1_macro", "roc_auc", "log_loss", "brier", "mcc")

Resampled = Literal["all", "train-val"]


@dataclass(frozen=True, kw_only=True)
class SourceScores:
    """Metrics of the images of a source, of a head that was fitted on those of other sources.

    Attributes
    ----------
    source : str
    n, n_train : int
        Its images, and the images of other sources.
    dropped : int
        Images of other sources that were not fitted on, because they are in a group, such as one of
        copies, with an image of this source.
    classes : tuple of str
        The classes that it has, over which the balanced accuracy is a mean.
    accuracy, balanced_accuracy : float or None
        None where nothing could be fitted.
    reason : str or None
        Why nothing could be fitted.
    """

    source: str
    n: int
    n_train: int
    dropped: int
    classes: tuple[str, ...]
    accuracy: float | None
    balanced_accuracy: float | None
    reason: str | None


@dataclass(frozen=True, kw_only=True)
class LeftOutSources:
    """The sources that a cross-validation left out one at a time.

    Attributes
    ----------
    folds : tuple of SourceScores
        In the order of their names, also those without which nothing could be fitted.
    not_evaluated : tuple of ClassSource
        Classes nearly all of whose images are of one source, which leaving sources out cannot
        evaluate.
    without_source : int
        Images without a source, which are in no fold.
    """

    folds: tuple[SourceScores, ...]
    not_evaluated: tuple[ClassSource, ...]
    without_source: int


@dataclass(frozen=True, kw_only=True)
class MetricSpread:
    """A metric over repeats.

    Attributes
    ----------
    mean, std : float
        Mean and standard deviation (n − 1).
    low, high : float
        The range: the least and the largest value.
    """

    mean: float
    std: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class RepeatedSubset:
    """Metrics of test images over repeats.

    Attributes
    ----------
    n_low, n_high : int
        Least and largest number of images of a repeat.
    metrics : dict of str to MetricSpread or None
        By name; None for a metric that is not defined in some repeat.
    """

    n_low: int
    n_high: int
    metrics: Mapping[str, MetricSpread | None]

    @classmethod
    def of(cls, measured: Sequence[Metrics]) -> Self:
        """Sum up the metrics of each repeat.

        Examples
        --------
        >>> from brainfeat.metrics import measure
        >>> names, p = ["none", "glioma"], [[0.9, 0.1], [0.2, 0.8]]
        >>> found = [measure(y, p, class_names=names) for y in ([0, 1], [1, 1])]
        >>> spread = RepeatedSubset.of(found).metrics["accuracy"]
        >>> spread.low, spread.mean, spread.high
        (0.5, 0.75, 1.0)
        """
        sizes = [metrics.n for metrics in measured]
        return cls(
            n_low=min(sizes),
            n_high=max(sizes),
            metrics={
                name: _spread([_read_metric(metrics, name) for metrics in measured])
                for name in REPEATED
            },
        )


@dataclass(frozen=True, kw_only=True)
class Repeats:
    """Fits with other seeds on partitions that were drawn anew.

    Attributes
    ----------
    n : int
        Number of repeats.
    resampled : {"all", "train-val"}
        Whether all images were divided anew, or those other than the test images of the table.
    random_states : tuple of int
        Seed of each repeat.
    heads : tuple of str
        The head of each repeat: where candidates are compared, a repeat compares them anew.
    test : RepeatedSubset
    test_without_copies : RepeatedSubset or None
        Of the test images without those of which train or val has a copy; None where copies were
        not looked for, or leave no image in some repeat.
    """

    n: int
    resampled: Resampled
    random_states: tuple[int, ...]
    heads: tuple[str, ...]
    test: RepeatedSubset
    test_without_copies: RepeatedSubset | None


def _read_metric(metrics: Metrics, name: str) -> float | None:
    found: float | None = metrics.macro.f1 if name == "f1_macro" else getattr(metrics, name)
    return found


def _spread(values: Sequence[float | None]) -> MetricSpread | None:
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        return None
    return MetricSpread(
        mean=float(np.mean(known)),
        std=float(np.std(known, ddof=1)),
        low=min(known),
        high=max(known),
    )
