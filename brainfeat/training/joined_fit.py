"""What a fit on joined caches adds to one on a single cache."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np

from brainfeat.cache.cache import FeatureCache, opened
from brainfeat.cache.joined import GroupJoin, ImageJoin, JoinedCaches, On
from brainfeat.cache.joining import join_caches
from brainfeat.errors import ParameterError, TableError
from brainfeat.heads.blocks import Blocks, BlockVectors
from brainfeat.heads.joins import BlockAblation, BlockCounts, JoinRecord
from brainfeat.heads.recipe import FittedHead
from brainfeat.training.partition import Partition

Cache = FeatureCache | str | os.PathLike[str]
# What caches are joined on for a fit.
JOINS: Mapping[str, On] = {"groups": "group", "images": "image"}
# How the images of a group become one vector of each block, where nothing else is asked for.
POOLING = "mean"


@contextmanager
def opened_join(
    cache: Cache | Sequence[Cache],
    *,
    join: str | None,
    names: Sequence[str] | None,
    layer: str | None,
) -> Iterator[FeatureCache]:
    """Open a cache, or several, and join what a head is fitted on.

    Parameters
    ----------
    cache : FeatureCache, path-like, or sequence of these
    join, names, layer
        As of :func:`join_features`.

    Yields
    ------
    FeatureCache

    Raises
    ------
    BrainfeatError
        As in :func:`join_features`.
    """
    given = [cache] if isinstance(cache, FeatureCache | str | os.PathLike) else cache
    with ExitStack() as stack:
        found = [stack.enter_context(opened(one)) for one in given]
        yield join_features(found, join=join, names=names, layer=layer)


def join_features(
    caches: Sequence[FeatureCache],
    *,
    join: str | None,
    names: Sequence[str] | None = None,
    layer: str | None = None,
) -> FeatureCache:
    """Join several caches, or several layers of one, or take a layer of each.

    Parameters
    ----------
    caches : sequence of FeatureCache
    join : {"groups", "images"} or None
        What several are joined on.
    names : sequence of str or None
        As of :func:`brainfeat.cache.joining.join_caches`.
    layer : str or None
        Name of a layer, or of several of one cache with a plus between them; None takes the
        deepest.

    Returns
    -------
    FeatureCache
        Of the same open files.

    Raises
    ------
    ParameterError
        There are several caches and nothing to join them on, or the reverse; names of one; several
        layers of several; or `layer` is not a text.
    CacheError
        A cache does not have the layer.
    BrainfeatError
        As in :func:`brainfeat.cache.joining.join_caches`.
    """
    if join is not None and join not in JOINS:
        raise ParameterError(f"join must be {' or '.join(JOINS)}, got {join!r}")
    if not isinstance(layer, str | None):
        raise ParameterError(
            f"layer must be one text, with a plus between names of layers, got {layer!r:.80}; such "
            'as "block4_pool+block5_pool"'
        )
    layers = [] if layer is None else layer.split("+")
    if len({*layers}) < len(layers):
        raise ParameterError(f'layer="{layer}" has a layer twice; name each once')
    if len(layers) > 1:
        if len(caches) > 1 or join is not None or names is not None:
            raise ParameterError(
                f'layer="{layer}" joins the layers of one cache alone; name one layer, which each '
                "cache has, or pass one cache without join and names"
            )
        chosen = [caches[0].select(name) for name in layers]
        return join_caches(chosen, on="image", names=layers)
    selected = [cache.select(name) for cache in caches for name in layers] or list(caches)
    if len(selected) > 1:
        if join is None:
            raise ParameterError(
                f'{len(caches)} caches, and a head is fitted on one; pass join="groups" where they '
                'have images of the same patients, such as several modalities, and join="images" '
                "where they have features of the same images by several bases"
            )
        return join_caches(selected, on=JOINS[join], names=names)
    [features] = selected
    on = features.on if isinstance(features, JoinedCaches) else None
    if names is not None or (join is not None and on is None):
        raise ParameterError("one cache alone is no join; pass two or more")
    if join is not None and on != JOINS[join]:
        raise ParameterError(f"join={join!r} of caches that are joined on {on}s; leave it out")
    return features


def choose_pooling(cache: FeatureCache, *, ablate_blocks: bool, ood_examples: object) -> str | None:
    """Return how the images of a group become one vector of each block; None where there are none.

    Parameters
    ----------
    cache : FeatureCache
    ablate_blocks : bool
    ood_examples : object
        As of :func:`brainfeat.fit_head`.

    Raises
    ------
    ParameterError
        There are examples for caches that are joined on groups; or one cache has no blocks to leave
        out.
    """
    if isinstance(cache, GroupJoin):
        if ood_examples is not None:
            raise ParameterError(
                "out-of-distribution examples are of one cache, and this head takes several; leave "
                "them out"
            )
        return POOLING
    if ablate_blocks and not isinstance(cache, ImageJoin):
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
    if not isinstance(cache, JoinedCaches):
        return None
    specs = tuple(part.spec for part in cache.caches)
    return Blocks(names=cache.names, specs=specs, fill=head.fill)


def record_join(
    cache: FeatureCache,
    partition: Partition,
    head: FittedHead,
    *,
    measure: Callable[[Sequence[str], Sequence[int]], BlockAblation] | None,
) -> JoinRecord | None:
    """Record who has each block, and what it was worth; None for a head of one cache.

    Parameters
    ----------
    cache : FeatureCache
    partition : Partition
    head : FittedHead
    measure : callable or None
        Called with the names and the widths of the blocks; None leaves the ablation out.

    Returns
    -------
    JoinRecord or None
    """
    if not isinstance(cache, JoinedCaches):
        return None
    units = np.concatenate(list(partition.splits.values()))
    present = np.ones((len(partition.X), len(cache.names)), np.bool_)
    if isinstance(partition.X, BlockVectors):
        present = partition.X.present
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
        ablation=None if measure is None else measure(cache.names, cache.widths),
    )
