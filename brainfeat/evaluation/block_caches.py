"""The caches that a head of several blocks is measured on: which of them is which block."""

import os
from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Union

from brainfeat.errors import ParameterError

if TYPE_CHECKING:
    from brainfeat.cache.cache import FeatureCache
    from brainfeat.cache.joined import JoinedCaches
    from brainfeat.heads.blocks import Blocks

Cache = Union["FeatureCache", str, "os.PathLike[str]"]


def join_blocks(
    blocks: "Blocks", caches: Sequence[Cache], *, names: Sequence[str] | None = None
) -> "JoinedCaches":
    """Join the caches that a head of several blocks takes, in their order.

    Parameters
    ----------
    blocks : Blocks
    caches : sequence of FeatureCache or path-like
        One for each block, in any order.
    names : sequence of str or None
        The block of each cache. None finds it by the name of the file, or else by the spec, where
        that of each block is another one.

    Returns
    -------
    JoinedCaches
        On groups; it closes what was opened here.

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
    from brainfeat.cache.joining import join_caches

    wanted = ", ".join(blocks.names)
    if len(caches) != len(blocks.names):
        raise ParameterError(
            f"the head has the blocks {wanted}, got {len(caches)}; pass a cache for each"
        )
    with ExitStack() as stack:
        found = [stack.enter_context(opened(cache)) for cache in caches]
        chosen = _find_names(blocks, found) if names is None else list(names)
        if sorted(chosen) != sorted(blocks.names):
            raise ParameterError(
                f"the caches are named {', '.join(chosen)}, and the head has the blocks {wanted}; "
                "name each cache by its block"
            )
        ordered = [found[chosen.index(name)] for name in blocks.names]
        blocks.check_specs(blocks.names, [cache.spec for cache in ordered])
        joined = join_caches(ordered, on="group", names=blocks.names)
        joined.hold(stack.pop_all())
        return joined


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
