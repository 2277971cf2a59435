"""Join caches: read several modalities of patients, or several bases of images, as one table."""

import os
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from typing import get_args

from brainfeat.cache.cache import FeatureCache, opened
from brainfeat.cache.joined import BLOCK_NAME, GroupJoin, ImageJoin, JoinedCaches, On
from brainfeat.cache.spec import FeatureSpec
from brainfeat.errors import CacheError, ParameterError, SpecMismatchError, TableError
from brainfeat.text import count, name_some


def join_caches(
    caches: Sequence[FeatureCache | str | os.PathLike[str]],
    *,
    on: On = "group",
    names: Sequence[str] | None = None,
) -> JoinedCaches:
    """Join several feature caches into one table.

    On groups, the caches have images of the same groups, such as several modalities of patients:
    the join has the rows of all of them, and a group may be missing in some. On images, they have
    features of the same images by several bases, which are matched by their content; none may be
    missing.

    Parameters
    ----------
    caches : sequence of FeatureCache or path-like
        Two or more. Those that are opened here are closed with the join.
    on : {"group", "image"}
        What the caches have in common.
    names : sequence of str or None
        Name of each block, such as ``"t1"``; None takes the names of the files without the ending.

    Returns
    -------
    JoinedCaches
        A :class:`brainfeat.FeatureCache`; it closes what was opened here.

    Raises
    ------
    ParameterError
        There is one cache alone, a name twice or not one for each, or another value of `on`.
    CacheError
        A cache has altered views, or is given twice; or, on images, these are others, or have
        views that were drawn in another way.
    SpecMismatchError
        On images, two caches have features of the same spec, or of images that were read in
        another way.
    TableError
        The classes have other names, some caches alone have splits, images have no group, or a
        cache shares no group with the others.

    Examples
    --------
    Two modalities of the same patients::

        with join_caches(["t1.h5", "flair.h5"], on="group") as joined:
            print(joined.names, joined.widths)
    """
    if on not in get_args(On):
        raise ParameterError(f"caches are joined on group or image, got {on!r}")
    if isinstance(caches, str | os.PathLike | FeatureCache) or len(caches) < 2:
        raise ParameterError("one cache alone is no join; pass two or more")
    with ExitStack() as stack:
        found = [stack.enter_context(opened(cache)) for cache in caches]
        chosen = check_names(found, names)
        _check_caches(found)
        _check_splits(found)
        if on == "group":
            _check_groups(found)
            joined: JoinedCaches = GroupJoin(chosen, found)
        else:
            joined = join_images(chosen, found)
        joined.hold(stack.pop_all())
        return joined


def join_images(names: Sequence[str], caches: Sequence[FeatureCache]) -> ImageJoin:
    """Join caches of the same images, with labels or without.

    Parameters
    ----------
    names : sequence of str
        As :func:`check_names` returns them.
    caches : sequence of FeatureCache

    Returns
    -------
    ImageJoin

    Raises
    ------
    CacheError
        The images are others, or their views were drawn in another way.
    SpecMismatchError
        Two caches have features of the same spec, or of images that were read in another way.
    TableError
        The tables say different things of an image.
    """
    known: dict[str, FeatureCache] = {}
    for cache in caches:
        same = known.setdefault(cache.fingerprint, cache)
        if same is not cache:
            raise SpecMismatchError(
                f"{same.path} and {cache.path} have features of the same spec, which say nothing "
                "more together; join caches of different bases on images, or modalities on groups"
            )
        for name in ("volumes", "value_range"):
            mine, theirs = (getattr(one.spec, name) or "none" for one in (caches[0], cache))
            if mine != theirs:
                raise SpecMismatchError(
                    f"{caches[0].path} and {cache.path} read images in different ways ({name}: "
                    f"{mine} and {theirs}); extract both with the same options"
                )
        if cache.augmentation != caches[0].augmentation:
            raise CacheError(
                f"{caches[0].path} and {cache.path} have views that were drawn in different ways; "
                "extract both with the same augmentation and seed"
            )
    return ImageJoin(names, caches)


def find_features(spec: FeatureSpec, caches: Sequence[FeatureCache]) -> FeatureCache | None:
    """Find features of a spec among the layers of caches, and of the blocks of joins on images.

    Parameters
    ----------
    spec : FeatureSpec
    caches : sequence of FeatureCache

    Returns
    -------
    FeatureCache or None
        With the rows of the cache that has them; None where none has.
    """
    for cache in caches:
        parts = cache.caches if isinstance(cache, ImageJoin) else (cache,)
        for block, part in enumerate(parts):
            for layer in part.layers:
                found = part.select(layer)
                if found.spec == spec:
                    return cache.take(block, found) if isinstance(cache, ImageJoin) else found
    return None


def check_names(
    caches: Sequence[FeatureCache], names: Sequence[str] | None = None
) -> tuple[str, ...]:
    """Return a name for each block: those that are given, or those of the files.

    Raises
    ------
    ParameterError
        There is not one for each, one is there twice, or one has other characters than letters,
        digits and ``._+-``.
    """
    chosen = tuple(cache.path.stem for cache in caches) if names is None else tuple(names)
    remedy = 'pass names=["t1", "flair"]'
    if len(chosen) != len(caches):
        raise ParameterError(
            f"{count(len(chosen), 'name')} for {count(len(caches), 'cache')}; expected one for each"
        )
    if twice := [name for name, number in Counter(chosen).items() if number > 1]:
        raise ParameterError(
            f"{name_some(twice)} is the name of several blocks; give each its own: {remedy}"
        )
    if odd := [name for name in chosen if not BLOCK_NAME.fullmatch(name)]:
        raise ParameterError(
            f"{odd[0]!r} is no name of a block; expected letters, digits and ._+- alone: {remedy}"
        )
    return chosen


def _check_caches(caches: Sequence[FeatureCache]) -> None:
    known: dict[tuple[str, str], FeatureCache] = {}
    for cache in caches:
        if isinstance(cache, JoinedCaches):
            raise CacheError(f"{cache.path} is a join; join caches that extract wrote")
        if cache.is_altered:
            raise CacheError(
                f"{cache.path} holds altered views of images; a join takes caches that extract "
                "wrote"
            )
        if not cache.mask().any():
            raise TableError(f"{cache.path} has no labelled images; extract a table with labels")
        # Layers of one file are different blocks.
        same = known.setdefault((cache.content_sha256, cache.fingerprint), cache)
        if same is not cache:
            raise CacheError(f"{same.path} and {cache.path} have the same content; join others")


def _check_splits(caches: Sequence[FeatureCache]) -> None:
    """Refuse caches of which some have splits and others have none."""
    has_splits = [bool(cache.splits[cache.mask()].any()) for cache in caches]
    if any(has_splits) and not all(has_splits):
        one, other = (caches[has_splits.index(found)].path for found in (True, False))
        raise TableError(
            f"{one} has splits and {other} has none; extract all caches from tables with splits, "
            "or all from tables without"
        )


def _check_groups(caches: Sequence[FeatureCache]) -> None:
    """Refuse images without a group, and a cache that shares no group with the others."""
    groups = []
    for cache in caches:
        found = cache.groups[cache.mask()]
        if missing := int((found == "").sum()):
            raise TableError(
                f"{cache.path} has {count(missing, 'labelled image')} of {len(found):,} without a "
                "group, such as a patient; a join on groups needs one for each: give the table a "
                "group column"
            )
        groups.append(set(found.tolist()))
    for place, cache in enumerate(caches):
        rest = [entry for other, entry in enumerate(groups) if other != place]
        if groups[place].isdisjoint(set().union(*rest)):
            others = " or ".join(str(one.path) for one in caches if one is not cache)
            raise TableError(
                f"{cache.path} shares none of its {count(len(groups[place]), 'group')} with "
                f"{others}; were they made with the same patient key?"
            )
