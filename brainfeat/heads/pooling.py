"""What a head answers for images, and from these for their groups, such as patients or volumes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import NDArray

from brainfeat.heads.bags import Features
from brainfeat.heads.conformal import COVERAGE
from brainfeat.heads.ood import FALSE_ALARM_RATE

if TYPE_CHECKING:
    from brainfeat.heads.bundle import HeadBundle

Flags = NDArray[np.bool_]
Rows = NDArray[np.intp]


@dataclass(frozen=True, kw_only=True, eq=False)
class Answers:
    """What a head answers for n images, or for n groups of images.

    Attributes
    ----------
    probabilities : ndarray of shape (n, k), float64
        Calibrated.
    sets : ndarray of shape (n, k), bool, or None
        Prediction sets; None for a head without conformal quantiles.
    flagged : ndarray of shape (n,), bool, or None
        Which are out of distribution; None for a head without a detector.
    """

    probabilities: NDArray[np.float64]
    sets: Flags | None
    flagged: Flags | None

    @property
    def labels(self) -> Rows:
        """The most probable class, (n,) int."""
        labels: Rows = self.probabilities.argmax(axis=1)
        return labels

    @property
    def decided(self) -> Flags:
        """Which classes are answered, (n, k) bool: one of each that the head does not leave open.

        A head leaves open what is out of distribution, and what has a prediction set of several
        classes, or of none.
        """
        labels = self.labels
        answered = np.ones(len(labels), np.bool_)
        if self.sets is not None:
            answered = find_sole(self.sets, labels)
        if self.flagged is not None:
            answered &= ~self.flagged
        decided = np.zeros(self.probabilities.shape, np.bool_)
        decided[answered, labels[answered]] = True
        return decided

    def select(self, chosen: Flags | Rows) -> Self:
        """Return the answers for the images of a mask or of indices."""
        return type(self)(
            probabilities=self.probabilities[chosen],
            sets=None if self.sets is None else self.sets[chosen],
            flagged=None if self.flagged is None else self.flagged[chosen],
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Pooled:
    """What the answers for the images of each of n groups have in common.

    Attributes
    ----------
    probabilities : ndarray of shape (n, k), float64
        The mean of the images that are not out of distribution; of all where all are.
    flagged : ndarray of shape (n,), bool
        Whether all images of the group are out of distribution.
    decided : ndarray of shape (n, k), bool
        Classes that are answered for an image of the group.
    """

    probabilities: NDArray[np.float64]
    flagged: Flags
    decided: Flags


def answer(
    bundle: "HeadBundle",
    X: Features,
    probabilities: NDArray[np.float64],
    *,
    coverage: float = COVERAGE,
    false_alarm_rate: float = FALSE_ALARM_RATE,
) -> Answers:
    """Find what a head answers for images, or a bag head for groups.

    Parameters
    ----------
    bundle : HeadBundle
    X : ndarray of shape (n, d), float32, or Bags
        Features; of a bag head, those of the images of each of n groups.
    probabilities : ndarray of shape (n, k), float64
        Of the head for them.
    coverage : float
        Target coverage of the prediction sets.
    false_alarm_rate : float
        As in :meth:`brainfeat.heads.ood.OODDetector.threshold`.

    Returns
    -------
    Answers
    """
    detector, conformal = bundle.ood_detector, bundle.conformal
    flagged = None
    if detector is not None:
        flagged = detector.score(bundle.vectors(X)).scores > detector.threshold(false_alarm_rate)
    sets = None
    if conformal is not None:
        sets = conformal.predict_sets(probabilities, coverage=coverage)
    return Answers(probabilities=probabilities, sets=sets, flagged=flagged)


def pool(
    probabilities: NDArray[np.float64], flagged: Flags | None, decided: Flags, offsets: Rows
) -> Pooled:
    """Pool the answers for images over their groups: the one rule for patients and volumes.

    Parameters
    ----------
    probabilities : ndarray of shape (m, k), float64
        Of each image, group after group.
    flagged : ndarray of shape (m,), bool, or None
        Which images are out of distribution.
    decided : ndarray of shape (m, k), bool
        Which class is answered for each image, if any.
    offsets : ndarray of shape (n + 1,), int
        The images of group i are ``offsets[i]`` to ``offsets[i + 1]``.

    Returns
    -------
    Pooled

    Examples
    --------
    >>> p = np.array([[0.9, 0.1], [0.7, 0.3], [0.0, 1.0]])
    >>> none = np.zeros((3, 2), np.bool_)
    >>> pool(p, np.array([False, False, True]), none, np.array([0, 3])).probabilities.round(3)
    array([[0.8, 0.2]])
    """
    starts = offsets[:-1]
    strange = np.zeros(len(probabilities), np.bool_) if flagged is None else flagged
    everything = np.logical_and.reduceat(strange, starts)
    kept = ~strange | np.repeat(everything, np.diff(offsets))
    sums = np.add.reduceat(np.where(kept[:, None], probabilities, 0.0), starts, axis=0)
    sizes = np.add.reduceat(kept, starts, dtype=np.intp)
    return Pooled(
        probabilities=sums / sizes[:, None],
        flagged=everything,
        decided=np.logical_or.reduceat(decided, starts, axis=0),
    )


def pool_answers(
    bundle: "HeadBundle", answers: Answers, offsets: Rows, *, coverage: float = COVERAGE
) -> Answers:
    """Find what a head answers for groups of images, from its answers for the images.

    The probabilities are those of :func:`pool`. Classes that are answered for single images join
    the prediction set of the mean probabilities, so that a class is answered for a group only where
    no image contradicts it.

    Parameters
    ----------
    bundle : HeadBundle
    answers : Answers
        For the images, group after group.
    offsets : ndarray of shape (n + 1,), int
        As in :func:`pool`.
    coverage : float
        Target coverage of the prediction sets, which holds for images, and not for groups.

    Returns
    -------
    Answers
    """
    pooled = pool(answers.probabilities, answers.flagged, answers.decided, offsets)
    sets = None
    if bundle.conformal is not None:
        sets = bundle.conformal.predict_sets(pooled.probabilities, coverage=coverage)
        sets |= pooled.decided
    return Answers(
        probabilities=pooled.probabilities,
        sets=sets,
        flagged=None if answers.flagged is None else pooled.flagged,
    )


def join_answers(parts: Sequence[Answers]) -> Answers:
    """Join the answers of one head for several images or groups, one or more parts."""
    sets = [part.sets for part in parts if part.sets is not None]
    flagged = [part.flagged for part in parts if part.flagged is not None]
    return Answers(
        probabilities=np.concatenate([part.probabilities for part in parts]),
        sets=np.concatenate(sets) if sets else None,
        flagged=np.concatenate(flagged) if flagged else None,
    )


def find_sole(sets: Flags, labels: Rows) -> Flags:
    """Find the prediction sets that have the predicted class alone.

    Parameters
    ----------
    sets : ndarray of shape (n, k), bool
        Whether the prediction set of each image has each class.
    labels : ndarray of shape (n,), int
        The most probable class.

    Returns
    -------
    ndarray of shape (n,), bool
    """
    sole: Flags = (sets.sum(axis=1) == 1) & sets[np.arange(len(sets)), labels]
    return sole
