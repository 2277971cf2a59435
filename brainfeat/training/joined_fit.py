"""What a fit on joined caches adds to one on a single cache."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from brainfeat.cache.cache import FeatureCache, opened
from brainfeat.cache.joined import GroupJoin, JoinedCaches
from brainfeat.cache.joining import join_caches
from brainfeat.errors import ParameterError, TableError
from brainfeat.heads.blocks import Blocks, BlockVectors
from brainfeat.heads.joins import BlockAblation, BlockCounts, JoinRecord
from brainfeat.heads.recipe import FittedHead
from brainfeat.training.partition import Partition

Cache = FeatureCache | str | os.PathLike[str]
# What caches are joined on for a fit.
JOINS = ("groups",)
# How the images of a group become one vector of each block, where nothing else is asked for.
POOLING = "mean"


@contextmanager
def opened_join(
    cache: Cache | Sequence[Cache], join: str | None, names: Sequence[str] | None
) -> Iterator[FeatureCache]:
    """Open a cache, or join several.

    Parameters
    ----------
    cache : FeatureCache, path-like, or sequence of these
    join : {"groups"} or None
        What several are joined on.
    names : sequence of str or None
        As of :func:`brainfeat.cache.joining.join_caches`.

    Yields
    ------
    FeatureCache

    Raises
    ------
    ParameterError
        There are several caches and nothing to join them on, or the reverse; or names of one.
    BrainfeatError
        As in :func:`brainfeat.cache.joining.join_caches`.
    """
    if join is not None and join not in JOINS:
        raise ParameterError(f"join must be {' or '.join(JOINS)}, got {join!r}")
    several = isinstance(cache, Sequence) and not isinstance(cache, str)
    if isinstance(cache, Sequence) and not isinstance(cache, str):
        if join is None:
            raise ParameterError(
                f'{len(cache)} caches, and a head is fitted on one; pass join="groups" where they '
                "have images of the same patients, such as several modalities"
            )
        with join_caches(cache, on="group", names=names) as joined:
            yield joined
        return
    if not several and (names is not None or (join and not isinstance(cache, GroupJoin))):
        raise ParameterError("one cache alone is no join; pass two or more")
    with opened(cache) as features:
        if isinstance(features, JoinedCaches) and not isinstance(features, GroupJoin):
            raise ParameterError("a join on images; a head is fitted on caches joined on groups")
        yield features


def choose_pooling(cache: FeatureCache, *, ablate_blocks: bool, ood_examples: object) -> str | None:
    """Return how the images of a group become one vector of each block; None for one cache.

    Parameters
    ----------
    cache : FeatureCache
    ablate_blocks : bool
    ood_examples : object
        As of :func:`brainfeat.fit_head`.

    Raises
    ------
    ParameterError
        There are examples for joined caches; or one cache has no blocks to leave out.
    """
    if isinstance(cache, GroupJoin):
        if ood_examples is not None:
            raise ParameterError(
                "out-of-distribution examples are of one cache, and this head takes several; leave "
                "them out"
            )
        return POOLING
    if ablate_blocks:
        raise ParameterError(
            "ablate_blocks=True leaves out one of several joined caches, got one cache"
        )
    return None


def check_blocks(cache: FeatureCache, partition: Partition) -> None:
    """Refuse joined caches of which one has no group in train; others pass.

    Parameters
    ----------
    cache : FeatureCache
    partition : Partition
        With splits.

    Raises
    ------
    TableError
        No group of train has one of the blocks.
    """
    if not isinstance(cache, GroupJoin) or not isinstance(partition.X, BlockVectors):
        return
    in_train = partition.X[partition.splits["train"]].present.any(axis=0)
    for name, part, is_there in zip(
        cache.names, cache.caches, np.atleast_1d(in_train), strict=True
    ):
        if not is_there:
            raise TableError(
                f"no group in train has images in {part.path}; add training images of the block "
                f"{name}, or leave it out"
            )


def name_blocks(cache: FeatureCache, head: FittedHead) -> Blocks | None:
    """Return the blocks of a head that was fitted on joined caches, or None."""
    if not isinstance(cache, GroupJoin) or head.fill is None:
        return None
    specs = tuple(part.spec for part in cache.caches)
    return Blocks(names=cache.names, specs=specs, fill=head.fill)


def record_join(
    cache: FeatureCache,
    partition: Partition,
    head: FittedHead,
    *,
    measure: Callable[[Sequence[str]], BlockAblation] | None,
) -> JoinRecord | None:
    """Record which groups have each block, and what it was worth; None for a head of one cache.

    Parameters
    ----------
    cache : FeatureCache
    partition : Partition
    head : FittedHead
    measure : callable or None
        Called with the names of the blocks; None leaves the ablation out.

    Returns
    -------
    JoinRecord or None
    """
    if not isinstance(cache, GroupJoin) or not isinstance(partition.X, BlockVectors):
        return None
    present = partition.X.present
    units = np.concatenate(list(partition.splits.values()))
    marked = np.zeros(len(cache.names), np.bool_) if head.fill is None else head.fill.marked
    blocks = []
    for place, (name, part) in enumerate(zip(cache.names, cache.caches, strict=True)):
        counts: dict[str, Any] = {
            split: int(present[found, place].sum()) for split, found in partition.splits.items()
        }
        blocks.append(
            BlockCounts(
                name=name,
                n_features=part.spec.n_features,
                images=int(part.mask().sum()),
                unlabelled=int((part.is_image & (part.y < 0)).sum()),
                missing=int((~present[units, place]).sum()),
                is_marked=bool(marked[place]),
                **counts,
            )
        )
    return JoinRecord(
        on=cache.on,
        groups=len(units),
        complete=int(present[units].all(axis=1).sum()),
        blocks=tuple(blocks),
        ablation=None if measure is None else measure(cache.names),
    )
