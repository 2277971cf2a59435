"""What a head records of the caches that were joined for it, and what each was worth."""

from dataclasses import dataclass
from typing import Literal

Interval = tuple[float, float]
# Which blocks a variant has: all, one alone, or all but one.
Part = Literal["all", "alone", "without"]


@dataclass(frozen=True, kw_only=True)
class BlockCounts:
    """How many groups, such as patients, have a block, such as a modality; or how many images.

    Attributes
    ----------
    name : str
    n_features : int
    images : int
        Labelled images in the block, without augmented views.
    unlabelled : int
        Images without a class, which are left out.
    train, val, test : int
        Groups, or images where these are joined, of each split that have the block.
    missing : int
        Groups of all splits that do not have it; 0 where images are joined.
    is_marked : bool
        Whether a column of the joined features tells where it is missing, as it is in a group that
        the head was fitted on.
    """

    name: str
    n_features: int
    images: int
    unlabelled: int
    train: int
    val: int
    test: int
    missing: int
    is_marked: bool


@dataclass(frozen=True, kw_only=True)
class BlockVariant:
    """The head on some of the blocks, cross-validated in the same folds as on all of them.

    Attributes
    ----------
    part : {"all", "alone", "without"}
    block : str or None
        The block that is alone, or left out; None for all.
    missing : int
        Groups that have none of its blocks, for which all features are filled.
    balanced_accuracy : float
        Of the out-of-fold predictions of all groups of train and val.
    interval : tuple of float, or None
        Low and high end of its 95 % interval; None where there are too few groups.
    difference : float or None
        Its balanced accuracy less that of all blocks; None for all.
    difference_interval : tuple of float, or None
        Low and high end of the 95 % interval of the paired difference; None likewise.
    """

    part: Part
    block: str | None
    missing: int
    balanced_accuracy: float
    interval: Interval | None
    difference: float | None
    difference_interval: Interval | None


@dataclass(frozen=True, kw_only=True)
class BlockAblation:
    """What each block was worth to the head.

    Attributes
    ----------
    n_folds : int
    n : int
        Number of groups, or images, in the folds.
    variants : tuple of BlockVariant
        All blocks first, then each alone, then each left out.
    reason : str or None
        Why a difference has no interval, of the first that has none.
    """

    n_folds: int
    n: int
    variants: tuple[BlockVariant, ...]
    reason: str | None


@dataclass(frozen=True, kw_only=True)
class JoinRecord:
    """The caches that were joined for a head.

    Attributes
    ----------
    on : {"group", "image"}
        What they have in common.
    groups : int
        Number of groups of all splits; of images, or of bags of these, where images are joined.
    complete : int
        Those that have all blocks.
    blocks : tuple of BlockCounts
        In the order of their features.
    ablation : BlockAblation or None
        None where it was not asked for.
    """

    on: str
    groups: int
    complete: int
    blocks: tuple[BlockCounts, ...]
    ablation: BlockAblation | None = None
