"""The caches that a head of several blocks is measured on: which of them is which block."""

import os
from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Union

from brainfeat.errors import ParameterError, SpecMismatchError
from brainfeat.heads.kinds import takes_maps
from brainfeat.heads.reading import find_spec
from brainfeat.text import name_some

if TYPE_CHECKING:
    from brainfeat.cache.cache import FeatureCache
    from brainfeat.cache.joined import JoinedCaches
    from brainfeat.heads.blocks import Blocks
    from brainfeat.heads.bundle import HeadBundle

Cache = Union["FeatureCache", str, "os.PathLike[str]"]


def join_blocks(
    blocks: "Blocks", caches: Sequence[Cache], *, names: Sequence[str] | None = None
) -> "JoinedCaches":
    """Join the caches that a head of several blocks takes, in their order.

    Parameters
    ----------
    blocks : Blocks
    caches : sequence of FeatureCache or path-like
        One for each block, in any order; of a head that was fitted on images, one for each base.
    names : sequence of str or None
        The block of each cache. None finds it by the name of the file, or else by the spec, where
        that of each block is another one. Blocks of the same images are found by their specs.

    Returns
    -------
    JoinedCaches
        On what the head was fitted on; it closes what was opened here.

    Raises
    ------
    ParameterError
        There is not one cache for each block, or it is not known which is which.
    SpecMismatchError
        A cache has features of another spec than its block.
    BrainfeatError
        As in :func:`brainfeat.cache.joining.join_caches`.
    """
    from brainfeat.cache.cache import opened
    from brainfeat.cache.joining import join_caches, join_images

    with ExitStack() as stack:
        found = [stack.enter_context(opened(cache)) for cache in caches]
        if blocks.on == "image":
            joined: JoinedCaches = join_images(blocks.names, _find_features(blocks, found))
        else:
            ordered = _order(blocks, found, names)
            blocks.check_specs(blocks.names, [cache.spec for cache in ordered])
            joined = join_caches(ordered, on="group", names=blocks.names)
        joined.hold(stack.pop_all())
        return joined


def select_features(bundle: "HeadBundle", cache: "FeatureCache") -> "FeatureCache":
    """Return the features of a cache that a head takes, in the rows of the cache.

    Parameters
    ----------
    bundle : HeadBundle
    cache : FeatureCache
        Of one base, or several that are joined on images; some of these, or of the layers of a
        cache, may be what the head takes.

    Returns
    -------
    FeatureCache
        Of the same open files.

    Raises
    ------
    SpecMismatchError
        The cache does not have the features.
    CacheError
        The head takes maps, and the cache has none.
    """
    from brainfeat.cache.joined import JoinedCaches
    from brainfeat.cache.joining import find_features, join_images

    if takes_maps(bundle.head):
        bundle.check_spec(find_spec(bundle.head, cache))
        return cache
    if cache.spec == bundle.spec or (isinstance(cache, JoinedCaches) and cache.on == "group"):
        found: FeatureCache | None = cache
    elif bundle.blocks is None:
        found = find_features(bundle.spec, [cache])
    elif bundle.blocks.on == "image":
        found = join_images(bundle.blocks.names, _require_all(bundle.blocks, [cache]))
    else:
        found = None
    chosen = cache if found is None else found
    bundle.check_spec(chosen.spec)
    return chosen


def _find_features(blocks: "Blocks", caches: "Sequence[FeatureCache]") -> "list[FeatureCache]":
    """Find the features of each block by its spec, and refuse a cache that has none of them."""
    from brainfeat.cache.joining import find_features

    found = [find_features(spec, caches) for spec in blocks.specs]
    known = [cache for cache in found if cache is not None]
    used = {cache.content_sha256 for cache in known}
    odd = [str(cache.path) for cache in caches if cache.content_sha256 not in used]
    if len(known) == len(found) and not odd:
        return known
    missing = [name for name, cache in zip(blocks.names, found, strict=True) if cache is None]
    if len(missing) == len(odd) == 1:
        # The message names each field that differs.
        [other] = [cache for cache in caches if str(cache.path) in odd]
        blocks.specs[blocks.names.index(missing[0])].require(
            other.spec, here=f"the block {missing[0]} of the head", there=odd[0]
        )
    _require_all(blocks, caches)
    raise ParameterError(
        f"{name_some(odd)} has features of no block of the head, which are "
        f"{', '.join(blocks.names)}; pass a cache of each base, and no other"
    )


def _require_all(blocks: "Blocks", caches: "Sequence[FeatureCache]") -> "list[FeatureCache]":
    """Find the features of each block by its spec, and refuse caches that lack some."""
    from brainfeat.cache.joining import find_features

    found = [find_features(spec, caches) for spec in blocks.specs]
    if missing := [name for name, one in zip(blocks.names, found, strict=True) if one is None]:
        raise SpecMismatchError(
            f"the head has the blocks {', '.join(blocks.names)}, and no cache has the features of "
            f"{name_some(missing)}; pass a cache of each base, with these layers"
        )
    return [cache for cache in found if cache is not None]


def _order(
    blocks: "Blocks", caches: "Sequence[FeatureCache]", names: Sequence[str] | None
) -> "list[FeatureCache]":
    """Return the caches in the order of their blocks."""
    wanted = ", ".join(blocks.names)
    if len(caches) != len(blocks.names):
        raise ParameterError(
            f"the head has the blocks {wanted}, got {len(caches)}; pass a cache for each"
        )
    chosen = _find_names(blocks, caches) if names is None else list(names)
    if sorted(chosen) != sorted(blocks.names):
        raise ParameterError(
            f"the caches are named {', '.join(chosen)}, and the head has the blocks {wanted}; "
            "name each cache by its block"
        )
    return [caches[chosen.index(name)] for name in blocks.names]


def _find_names(blocks: "Blocks", caches: "Sequence[FeatureCache]") -> list[str]:
    """Find the block of each cache by the names of the files, or else by specs."""
    stems = [cache.path.stem for cache in caches]
    if sorted(stems) == sorted(blocks.names):
        return stems
    known = {spec.fingerprint: name for name, spec in zip(blocks.names, blocks.specs, strict=True)}
    found = [known.get(cache.fingerprint, "") for cache in caches]
    if len(known) == len(blocks.names) and sorted(found) == sorted(blocks.names):
        return found
    raise ParameterError(
        "it is not known which cache is which block of the head, by the names of the files or by "
        f"their specs; name each by its block, such as {blocks.names[0]}=PATH"
    )
