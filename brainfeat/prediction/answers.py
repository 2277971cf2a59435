"""What a head predicts for one image, and from the slices of a volume, for the volume."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from brainfeat.canonical import parse_json, read_record, write_record
from brainfeat.errors import ParameterError
from brainfeat.heads.pooling import Pooled, pool
from brainfeat.readers.series import Series

# How a head has seen an image: it was fitted or validated on the same file, or on a copy.
Seen = Literal["exact-duplicate", "copy"]

UNCERTAIN = "uncertain"
OUT_OF_DISTRIBUTION = "out-of-distribution"
_NAMING = {"path", "frame", "group", "volume"}
NOTICE = "This is not a diagnosis: brainfeat is research software and not a medical device."


@dataclass(frozen=True, kw_only=True)
class OutOfDistribution:
    """How far an image is from the training images.

    Attributes
    ----------
    score : float
        As in :class:`brainfeat.heads.ood.OODScores`.
    threshold : float or None
        The score above which an image is flagged. None flags no image: too few were held out.
    flagged : bool
        Whether the image is out of distribution.
    """

    score: float
    threshold: float | None
    flagged: bool


@dataclass(frozen=True, kw_only=True)
class Neighbour:
    """One of the training images that are most similar.

    Attributes
    ----------
    label : str
        Its class.
    distance : float
        One minus the cosine of the features.
    """

    label: str
    distance: float


@dataclass(frozen=True, kw_only=True)
class WeightedSlice:
    """An image of a patient, and how much it counts in a head that weighs by attention.

    Attributes
    ----------
    path : str
        Of the image, or the number of its volume.
    frame : int or None
        Number of the slice in its volume, from 1.
    weight : float
        Its part of the weighted mean; the weights of a patient sum to 1. It says neither that there
        is a finding in the image nor that there is none in the others.
    """

    path: str
    frame: int | None
    weight: float


@dataclass(frozen=True, kw_only=True)
class SliceSummary:
    """The slices of a volume, or the images of a patient.

    Attributes
    ----------
    n : int
        Number of slices.
    decisions : dict of str to int
        Number of slices with each decision; empty for a bag head, which has none of single slices.
    carried_by : dict of str to tuple of int
        By predicted class, the most probable first: the frames of its slices, the most confident
        first; empty likewise.
    seen : int
        Number of slices that the head was fitted or validated on, or on a copy of which.
    pooling : str or None
        How a bag head takes them together; None for another head.
    most_weighted : tuple of WeightedSlice
        The slices that count most in a head that weighs by attention, the first most.
    """

    n: int
    decisions: Mapping[str, int]
    carried_by: Mapping[str, tuple[int, ...]]
    seen: int = 0
    pooling: str | None = None
    most_weighted: tuple[WeightedSlice, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What a head predicts for one image, one slice or one volume; a bag head, for one patient.

    Attributes
    ----------
    path : str
        As it was given; of a volume, whose path can contain a name, its number instead; of an image
        in memory its place among what was given, such as ``"image 1"``. Of a patient, the folder or
        the volumes.
    frame : int or None
        Number of the slice in a volume, from 1.
    group, volume : str or None
        Hashes of the patient and of the volume under a key, as :func:`brainfeat.write_slices`
        writes them; None for image files, and without a key. The patient of a volume that cannot be
        read is not known.
    decision : str or None
        A class; ``"uncertain"`` where the prediction set has several classes, or none;
        ``"out-of-distribution"`` where the image is unlike the training images; None where it
        cannot be read.
    probabilities : dict of str to float
        Of each class, calibrated.
    prediction_set : tuple of str, or None
        Classes that hold the true one at the target coverage, the most probable first; None for a
        head without conformal quantiles.
    out_of_distribution : OutOfDistribution or None
        None for a head without an out-of-distribution detector.
    forced : bool
        Whether the decision is the most probable class although the head would abstain.
    nearest : tuple of Neighbour
        The most similar of the training images that the head keeps.
    seen : {"exact-duplicate", "copy"} or None
        Whether the head was fitted or validated on this file, or on a copy of it by the pixels: the
        prediction then says nothing about new images. None also where that is not known.
    error : str or None
        Why the image cannot be read.
    slices : SliceSummary or None
        Only of a volume, and of a patient.
    missing : tuple of str, or None
        The blocks, such as modalities, that the patient does not have, whose features have been
        filled; None for a head of one cache.
    """

    path: str
    frame: int | None = None
    group: str | None = None
    volume: str | None = None
    decision: str | None = None
    probabilities: Mapping[str, float] = field(default_factory=dict)
    prediction_set: tuple[str, ...] | None = None
    out_of_distribution: OutOfDistribution | None = None
    forced: bool = False
    nearest: tuple[Neighbour, ...] = ()
    seen: Seen | None = None
    error: str | None = None
    slices: SliceSummary | None = None
    missing: tuple[str, ...] | None = None

    @property
    def is_flagged(self) -> bool:
        """Whether the image is out of distribution."""
        return self.out_of_distribution is not None and self.out_of_distribution.flagged

    @property
    def unforced(self) -> str | None:
        """The decision that is taken where none is forced."""
        if not self.forced:
            return self.decision
        return OUT_OF_DISTRIBUTION if self.is_flagged else UNCERTAIN

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON can hold; of an image that cannot be read, only its name and the error.

        Returns
        -------
        dict
            The attributes by name, without ``error``; ``slices`` only for a volume, ``missing``
            only for a patient, and ``group`` and ``volume`` only where there is a key.
        """
        document = write_record(self)
        left_out = {"error"} if self.error is None else {*document} - _NAMING - {"error"}
        left_out |= {
            name for name in ("group", "volume", "slices", "missing") if document[name] is None
        }
        return {name: value for name, value in document.items() if name not in left_out}

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read the JSON of what :meth:`to_dict` returned.

        Raises
        ------
        ParameterError
            The text is not JSON, or an attribute is missing or of another type.
        """
        return read_record(cls, parse_json(text, error=ParameterError), error=ParameterError)


@dataclass(frozen=True, kw_only=True, eq=False)
class Answer:
    """A prediction, and the image that it is for.

    Attributes
    ----------
    prediction : Prediction
    pixels : ndarray of shape (h, w, 3), uint8, or None
        The image as it was read; None for a volume, for an image that cannot be read, and where
        images are not kept.
    image : ndarray of shape (s, s, 3), float32, or None
        The same as the base saw it, RGB in [0, 1]; None likewise.
    series : Series or None
        The files of the volume that it is for, or a slice of; None for an image.
    """

    prediction: Prediction
    pixels: NDArray[np.uint8] | None = None
    image: NDArray[np.float32] | None = None
    series: Series | None = field(default=None, repr=False)


def decide(
    most_probable: str, prediction_set: Sequence[str] | None, ood: OutOfDistribution | None
) -> str:
    """Return the most probable class, or the reason to abstain.

    Examples
    --------
    >>> decide("glioma", ["glioma"], None), decide("glioma", ["glioma", "pituitary"], None)
    ('glioma', 'uncertain')
    """
    if ood is not None and ood.flagged:
        return OUT_OF_DISTRIBUTION
    alone = prediction_set is None or list(prediction_set) == [most_probable]
    return most_probable if alone else UNCERTAIN


def average_slices(answers: Sequence[Prediction], names: Sequence[str]) -> Pooled:
    """Pool the predictions for slices by the rule of :func:`brainfeat.heads.pooling.pool`.

    Parameters
    ----------
    answers : sequence of Prediction
        For the slices of a volume.
    names : sequence of str
        The k classes.

    Returns
    -------
    Pooled
        Of one volume.
    """
    return pool(
        np.array([[answer.probabilities[name] for name in names] for answer in answers]),
        np.array([answer.is_flagged for answer in answers]),
        np.array([[answer.unforced == name for name in names] for answer in answers]),
        np.array([0, len(answers)]),
    )


def pool_slices(
    answers: Sequence[Prediction],
    names: Sequence[str],
    *,
    prediction_set: Sequence[str] | None,
    force: bool = False,
) -> Prediction:
    """Make one prediction of those for the slices of a volume.

    The rule is that of :func:`brainfeat.heads.pooling.pool_answers`, which evaluations per patient
    follow, too. The target coverage holds for images, and not for volumes.

    Parameters
    ----------
    answers : sequence of Prediction
        For the slices.
    names : sequence of str
        The classes.
    prediction_set : sequence of str or None
        Of the mean probabilities.
    force : bool
        Whether the most probable class is the decision although the head would abstain.

    Returns
    -------
    Prediction
    """
    decisions = [str(answer.unforced) for answer in answers]
    pooled = average_slices(answers, names)
    p = dict(zip(names, map(float, pooled.probabilities[0]), strict=True))
    decided = {
        name for name, is_decided in zip(names, pooled.decided[0], strict=True) if is_decided
    }
    ranked = sorted(names, key=lambda name: -p[name])
    carried_by = {name: _rank_frames(answers, name) for name in ranked if name in decisions}
    ood = _pool_ood(answers)
    joined = None
    if prediction_set is not None:
        joined = tuple(name for name in ranked if name in {*prediction_set, *decided})
    decision = decide(ranked[0], joined, ood)
    forced = force and decision in (UNCERTAIN, OUT_OF_DISTRIBUTION)
    return Prediction(
        path=answers[0].path,
        decision=ranked[0] if forced else decision,
        probabilities=p,
        prediction_set=joined,
        out_of_distribution=ood,
        forced=forced,
        slices=SliceSummary(
            n=len(answers),
            decisions=dict(Counter(decisions)),
            carried_by=carried_by,
            seen=sum(answer.seen is not None for answer in answers),
        ),
    )


def _rank_frames(answers: Sequence[Prediction], name: str) -> tuple[int, ...]:
    """Return the frames of the slices for which a class was predicted, most confident first."""
    chosen = [answer for answer in answers if answer.unforced == name]
    ranked = sorted(chosen, key=lambda answer: -answer.probabilities[name])
    return tuple(answer.frame for answer in ranked if answer.frame is not None)


def _pool_ood(answers: Sequence[Prediction]) -> OutOfDistribution | None:
    """Take the slice that is most similar to the training images."""
    known = [answer.out_of_distribution for answer in answers if answer.out_of_distribution]
    return min(known, key=lambda ood: ood.score) if known else None
