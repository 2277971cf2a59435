"""The records that a stress test of a head consists of."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from brainfeat.evaluation.binomial import Interval
from brainfeat.evaluation.results import Bootstrap


@dataclass(frozen=True, kw_only=True)
class AlteredMetrics:
    """What a head makes of images that were altered in one way.

    Attributes
    ----------
    kind : str
        Of the alteration; ``"none"`` for the images as they are.
    strength : float or None
    unit : str
        Of the strength; ``""`` where it has none.
    accuracy : float
    accuracy_interval : tuple of float, or None
        Its 95 % interval; None where there are too few groups.
    change : float
        The accuracy less that on the same images as they are.
    change_interval : tuple of float, or None
        Its 95 % interval, of a paired bootstrap; None also where no prediction became right or
        wrong.
    flips : float
        Fraction of the images whose predicted class is another one than that of the image as it
        is.
    confident_errors : float or None
        Fraction of the wrong predictions whose probability is above 0.9; None without any.
    answered : float or None
        Fraction of the images for which the head does not abstain, at the defaults of
        :class:`brainfeat.Predictor`; None for a head that cannot abstain.
    answered_errors : float or None
        Fraction of the wrong predictions for which it does not abstain; None also without any.
    out_of_distribution : float or None
        Fraction of the images that it flags as out of distribution.
    """

    kind: str
    strength: float | None
    unit: str
    accuracy: float
    accuracy_interval: Interval | None
    change: float
    change_interval: Interval | None
    flips: float
    confident_errors: float | None
    answered: float | None
    answered_errors: float | None
    out_of_distribution: float | None


@dataclass(frozen=True, kw_only=True)
class KindSummary:
    """What a kind of alteration costs.

    Attributes
    ----------
    kind : str
    mean_change : float
        Mean of the changes of accuracy over its strengths.
    least_accuracy : float
        The lowest accuracy.
    at : float
        The strength that gives it.
    unit : str
    """

    kind: str
    mean_change: float
    least_accuracy: float
    at: float
    unit: str


@dataclass(frozen=True, kw_only=True)
class Stress:
    """A head on altered images.

    Attributes
    ----------
    n, n_groups : int
        Images, and the groups that they form.
    classes : dict of str to int
        Images of each class of the head.
    left_out : dict of str to int
        How many images were left out, by reason.
    reference : AlteredMetrics
        The images as they are.
    altered : tuple of AlteredMetrics
        Each kind in each strength, by falling loss of accuracy.
    kinds : tuple of KindSummary
        By falling mean loss of accuracy.
    confident : float
        Probability above which a wrong prediction is a confident one.
    bootstrap : Bootstrap
        How intervals were computed.
    reason : str or None
        Why there are no intervals.
    notes : tuple of str
        What must be known to read the numbers, a sentence each.
    unit : str
        What was measured, and counted in `n`: ``"image"``, or ``"group"``, such as patients.
    n_images : int or None
        Number of images.
    """

    n: int
    n_groups: int
    classes: Mapping[str, int]
    left_out: Mapping[str, int]
    reference: AlteredMetrics
    altered: tuple[AlteredMetrics, ...]
    kinds: tuple[KindSummary, ...]
    confident: float
    bootstrap: Bootstrap
    reason: str | None
    notes: tuple[str, ...]
    unit: str = "image"
    n_images: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the attributes as plain values for JSON."""
        return asdict(self)
