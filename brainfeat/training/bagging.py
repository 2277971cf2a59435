"""The options of a fit on groups: how their images are taken together, and by which head."""

import numpy as np

from brainfeat.cache.groups import SAME_LABEL
from brainfeat.errors import ParameterError
from brainfeat.heads.bags import ATTENTION, POOLINGS, BagRule
from brainfeat.heads.record import BagSizes, SplitSizes
from brainfeat.training.partition import Partition


def make_rule(bag: str | None, group_label: str | None) -> BagRule | None:
    """Make the rule of a bag head; None where no bags are asked for.

    Raises
    ------
    ParameterError
        `bag` is not a pooling, or there is a `group_label` without it.
    """
    if bag is not None:
        return BagRule(pooling=bag, label=SAME_LABEL if group_label is None else group_label)
    if group_label is not None:
        raise ParameterError(
            f'group_label="{group_label}" is how a group gets its class; ask for groups, such as '
            'with bag="mean"'
        )
    return None


def choose_head(head: str, rule: BagRule | None) -> str:
    """Choose the head that is fitted.

    Parameters
    ----------
    head : str
        The one that was asked for.
    rule : BagRule or None

    Returns
    -------
    str
        ``"attention"`` where it learns the weights of images, else `head`.

    Raises
    ------
    ParameterError
        Another head than the dense one is to learn weights of images; or the one that learns them
        is to be fitted without.
    """
    if rule is None or rule.pooling != ATTENTION:
        if head == ATTENTION:
            raise ParameterError(f'the head {head} takes bags; ask for it with bag="{ATTENTION}"')
        return head
    if head not in ("dense", ATTENTION):
        raise ParameterError(
            f'bag="attention" trains a dense head with weights of the images, and no {head!r}; '
            "leave the head out, or take " + ", ".join(f'bag="{name}"' for name in POOLINGS)
        )
    return ATTENTION


def measure_bags(partition: Partition) -> BagSizes | None:
    """Return how many images the groups of a partition have; None where its rows are images."""
    if partition.members is None:
        return None
    sizes = partition.members.sizes
    images = {name: int(sizes[groups].sum()) for name, groups in partition.splits.items()}
    return BagSizes(
        images=SplitSizes(**images),
        least=int(sizes.min()),
        median=float(np.median(sizes)),
        most=int(sizes.max()),
    )
