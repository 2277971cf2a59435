"""What is measured: images, or their groups, such as patients."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from brainfeat.cache.groups import SAME_LABEL, GroupRows, read_groups
from brainfeat.cache.joined import GroupJoin
from brainfeat.errors import CacheError, ParameterError, TableError
from brainfeat.heads.bags import BagRule, Bags
from brainfeat.heads.block_reading import read_blocks
from brainfeat.heads.calibration import softmax
from brainfeat.heads.pooling import Answers, answer, pool, pool_answers
from brainfeat.heads.reading import read_features
from brainfeat.text import count

if TYPE_CHECKING:
    from brainfeat.cache.cache import FeatureCache
    from brainfeat.evaluation.subsets import Plan
    from brainfeat.heads.bundle import HeadBundle

Rows = NDArray[np.intp]

IMAGE, GROUP = "image", "group"
UNITS = (IMAGE, GROUP)


def name_unit(unit: str) -> str:
    """Name what is measured, for people; a group of the table is called a patient.

    Examples
    --------
    >>> name_unit("image"), name_unit("group")
    ('image', 'patient')
    """
    return "patient" if unit == GROUP else unit


@dataclass(frozen=True, kw_only=True)
class UnitRule:
    """What is measured, and how a group gets its class.

    Attributes
    ----------
    unit : {"image", "group"}
    label : str
        As in :func:`brainfeat.cache.groups.read_groups`.
    """

    unit: str = IMAGE
    label: str = SAME_LABEL


IMAGES = UnitRule()


def choose_unit(
    unit: str | None, group_label: str | None, bundles: "Sequence[HeadBundle]"
) -> UnitRule:
    """Choose what heads are measured on: what was asked for, or else what they take.

    Parameters
    ----------
    unit : {"image", "group"} or None
    group_label : str or None
    bundles : sequence of HeadBundle

    Returns
    -------
    UnitRule

    Raises
    ------
    ParameterError
        The unit is another word, or images, which a bag head does not take; groups have a rule and
        are not measured; or bag heads have different rules.
    """
    if unit is not None and unit not in UNITS:
        raise ParameterError(f"unit must be image or group, got {unit!r}")
    labels = {bundle.bag.label for bundle in bundles if bundle.bag is not None}
    if labels and unit == IMAGE:
        raise ParameterError(
            'a bag head answers for groups of images, and not for one; pass unit="group"'
        )
    if len(labels) > 1 and group_label is None:
        raise ParameterError(
            f"the heads have different rules by which a group gets its class, "
            f"{' and '.join(sorted(labels))}; choose one with group_label=RULE"
        )
    chosen = GROUP if labels else unit or IMAGE
    if chosen == IMAGE and group_label is not None:
        raise ParameterError(
            f'group_label="{group_label}" says how a group gets its class, but images are '
            'measured; pass unit="group"'
        )
    return UnitRule(unit=chosen, label=group_label or next(iter(labels), SAME_LABEL))


def name_pooling(bundle: "HeadBundle", plan: "Plan") -> str | None:
    """Name how a head answers for a group: ``"probabilities"`` or ``"bag"``; None for images."""
    if plan.groups is None:
        return None
    return "probabilities" if bundle.bag is None else "bag"


def select_groups(cache: "FeatureCache", rows: Rows, *, label: str = SAME_LABEL) -> GroupRows:
    """Read the groups of images that are measured; each has to be among them as a whole.

    Parameters
    ----------
    cache : FeatureCache
    rows : ndarray of int
        Labelled rows of view 0, such as those of a split.
    label : str
        As in :func:`brainfeat.cache.groups.read_groups`.

    Returns
    -------
    GroupRows

    Raises
    ------
    TableError
        As there; or the fit divided a group among splits.
    """
    names = cache.groups[rows]
    others = np.flatnonzero(cache.mask() & np.isin(cache.groups, names[names != ""]))
    groups = read_groups(cache, np.union1d(rows, others), label=label)
    divided = groups.any(~np.isin(groups.rows, rows))
    if divided.any():
        first = str(groups.names[divided][0])
        raise TableError(
            f"the fit of this head divided {count(int(divided.sum()), 'group')} of "
            f"{len(groups):,} among splits (first: {first!r}); a group, such as a patient, belongs "
            "to one: fit it again with groups of the table kept together"
        )
    return groups


@dataclass(frozen=True, kw_only=True, eq=False)
class UnitAnswers:
    """What a head answers for the n images or groups of a plan.

    Attributes
    ----------
    answers : Answers
    uncalibrated : ndarray of shape (n, k), float64
        Probabilities at a temperature of 1.
    examples : ndarray of shape (n,), int
        Row of each image; of a group, of its image that speaks most for the predicted class, or
        its first for a bag head.
    """

    answers: Answers
    uncalibrated: NDArray[np.float64]
    examples: Rows


def answer_units(bundle: "HeadBundle", cache: "FeatureCache", plan: "Plan") -> UnitAnswers:
    """Find what a head answers for the images or groups of a plan.

    A head of images answers for a group by :func:`brainfeat.heads.pooling.pool_answers`.

    Parameters
    ----------
    bundle : HeadBundle
    cache : FeatureCache
        Of the spec of the head, and open.
    plan : Plan

    Returns
    -------
    UnitAnswers
    """
    if bundle.bag is not None:
        return _answer_bags(bundle, cache, plan)
    X = read_features(bundle, cache, plan.rows)
    # The scores of a head may take most of the time, and probabilities are made of them.
    scores = bundle.scores(X)
    images = answer(bundle, X, softmax(scores, temperature=bundle.temperature))
    uncalibrated = softmax(scores)
    if plan.groups is None:
        return UnitAnswers(answers=images, uncalibrated=uncalibrated, examples=plan.rows)
    offsets, place = plan.groups.offsets, plan.groups.place
    answers = pool_answers(bundle, images, offsets)
    spoken = images.probabilities[np.arange(len(place)), answers.labels[place]]
    # The last of each group, where the images of a group are sorted by their probability.
    best = np.lexsort([spoken, place])[offsets[1:] - 1]
    return UnitAnswers(
        answers=answers,
        uncalibrated=pool(uncalibrated, images.flagged, images.decided, offsets).probabilities,
        examples=plan.rows[best],
    )


def _answer_bags(bundle: "HeadBundle", cache: "FeatureCache", plan: "Plan") -> UnitAnswers:
    if plan.groups is None or bundle.bag is None:
        raise ParameterError("a bag head answers for groups of images, and not for one")
    X = _read_vectors(bundle.bag, cache, plan.groups)
    scores = bundle.scores(X)
    return UnitAnswers(
        answers=answer(bundle, X, softmax(scores, temperature=bundle.temperature)),
        uncalibrated=softmax(scores),
        examples=plan.groups.first,
    )


def _read_vectors(
    rule: BagRule, cache: "FeatureCache", groups: GroupRows
) -> Bags | NDArray[np.float32]:
    """Read the vectors of groups; of joined caches, one of each block side by side."""
    if not isinstance(cache, GroupJoin):
        return Bags(values=cache.X[groups.rows], offsets=groups.offsets)

    def read(part: "FeatureCache", rows: Rows, offsets: Rows) -> NDArray[np.float32]:
        values = part.X[rows]
        # A block of numbers that are not finite would be taken for one that is missing.
        if bad := int((~np.isfinite(values)).any(axis=1).sum()):
            raise CacheError(
                f"{part.path} has features that are not finite in {bad:,} of {len(values):,} rows; "
                "extract them again, in float32"
            )
        return Bags(values=values, offsets=offsets).pool(rule.pooling)

    return read_blocks(cache, groups.rows, groups.offsets, read).values
