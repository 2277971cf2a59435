"""One member of an ensemble for each block of caches that are joined on images."""

from brainfeat.cache.cache import FeatureCache
from brainfeat.cache.joined import JoinedCaches
from brainfeat.errors import ParameterError
from brainfeat.heads.kinds import parse_ensemble

# How the blocks of a join on images become one answer.
HOWS = ("features", "vote", "stack")


def choose_ensemble(
    head: str, how: str | None, cache: FeatureCache, *, ablate_blocks: bool = False
) -> tuple[str, tuple[int, ...]]:
    """Choose the head of joined caches: one of all features, or one for each block.

    Parameters
    ----------
    head : str
        The one that was asked for.
    how : {"features", "vote", "stack"} or None
        None takes the features of all blocks side by side.
    cache : FeatureCache
    ablate_blocks : bool
        Whether blocks are to be left out in turn.

    Returns
    -------
    tuple of (str, tuple of int)
        The name of the head, such as ``"vote:svm"``; and the number of features of each block,
        empty for a head of all features.

    Raises
    ------
    ParameterError
        `how` is unknown, the caches are not joined on images, or the head is an ensemble already;
        or blocks are to be left out of an ensemble with a member for each.
    """
    if how is not None and how not in HOWS:
        raise ParameterError(f"how must be one of {', '.join(HOWS)}, got {how!r}")
    joined = cache if isinstance(cache, JoinedCaches) and cache.on == "image" else None
    if how is not None and joined is None:
        raise ParameterError(
            f'how="{how}" combines caches that are joined on images; pass several of the same '
            'images with join="images"'
        )
    if how in ("vote", "stack"):
        if parse_ensemble(head) is not None:
            raise ParameterError(
                f'how="{how}" makes an ensemble with one member for each cache, and {head} is one '
                "already; name a single head"
            )
        head = f"{how}:{head}"
    ensemble = parse_ensemble(head)
    if ensemble is None or not ensemble.is_by_block:
        return head, ()
    if joined is None:
        raise ParameterError(
            f"the ensemble {head} has one member, and these are the features of one cache; name "
            f"two heads or more, such as {head}+logistic, or take folds:{ensemble.members[0]}"
        )
    if ablate_blocks:
        raise ParameterError(
            f"ablate_blocks=True leaves out caches, and {head} has one member for each; take "
            'how="features"'
        )
    return head, tuple(part.spec.n_features for part in joined.caches)
