"""The options of a fit on groups: how their images are taken together, and by which head."""

from brainfeat.cache.groups import SAME_LABEL
from brainfeat.errors import ParameterError
from brainfeat.heads.bags import ATTENTION, POOLINGS, BagRule


def make_rule(bag: str | None, bag_label: str | None) -> BagRule | None:
    """Make the rule of a bag head; None where no bags are asked for.

    Raises
    ------
    ParameterError
        `bag` is not a pooling, or there is a `bag_label` without it.
    """
    if bag is not None:
        return BagRule(pooling=bag, label=SAME_LABEL if bag_label is None else bag_label)
    if bag_label is not None:
        raise ParameterError(
            f"bag_label={bag_label!r} is how a group gets its class; ask for groups with bag"
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
        Another head than the dense one was asked for, and its weights of images.
    """
    if rule is None or rule.pooling != ATTENTION:
        return head
    if head != "dense":
        raise ParameterError(
            f"bag={ATTENTION!r} trains a dense head with weights of the images, and no {head!r}; "
            f"leave the head out, or take {', '.join(POOLINGS)} as bag"
        )
    return ATTENTION
