"""Units: what the rows of a partition are; the images of a cache, or its groups taken together."""

from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from brainfeat.cache.cache import FeatureCache
from brainfeat.cache.groups import GroupRows, list_places, read_groups
from brainfeat.cache.joined import GroupJoin, ImageJoin, JoinedCaches
from brainfeat.errors import CacheError, ParameterError, TableError
from brainfeat.heads.bags import ATTENTION, POOLINGS, AnyFeatures, BagRule, Bags
from brainfeat.heads.block_reading import read_blocks
from brainfeat.heads.maps import MapRows
from brainfeat.leakage.generated import find_memorised
from brainfeat.text import count

Rows = NDArray[np.intp]

# Rows that are checked in one step, so that a million rows are not copied.
_BLOCK_ROWS = 8192


@dataclass(frozen=True, kw_only=True, eq=False)
class Units:
    """The units that a head is fitted on, with their views, one row each.

    Attributes
    ----------
    X : ndarray of shape (n, d), float32, Bags, MapRows, or BlockVectors
        Features; the vectors of each group where these are not pooled; those of each block where
        caches are joined on groups.
    y : ndarray of shape (n,), int64
        Class of each row.
    image : ndarray of shape (n,), int
        The row that each row is a view of; its own where it is view 0.
    rows : ndarray of shape (n,), int
        Row of the cache of each row; of a group, that of its first image.
    members : GroupRows or None
        The images of each group; None where the units are images.
    generated : ndarray of int
        The rows that are of generated images.
    """

    X: AnyFeatures
    y: NDArray[np.int64]
    image: Rows
    rows: Rows
    members: GroupRows | None = None
    generated: Rows = field(default_factory=lambda: np.empty(0, np.intp))


def read_units(
    cache: FeatureCache, bag: BagRule | None, *, maps: bool = False, generated: bool = False
) -> Units:
    """Read the labelled images of a cache with their views, or its groups.

    Parameters
    ----------
    cache : FeatureCache
    bag : BagRule or None
        How the images of a group become one unit; None takes each image as one.
    generated : bool
        Whether generated images are read, too: those of train, or all where there are no splits,
        but for copies of real images.
    maps : bool
        Whether the maps of images are taken, which stay in the file, and not their vectors.

    Returns
    -------
    Units
        Groups come first, in the order in which they first appear, and then their views: view k
        of a group is a row where each of its images has a view k.

    Raises
    ------
    TableError
        As in :func:`check_labels` and :func:`brainfeat.cache.groups.read_groups`.
    CacheError
        The features are not finite, or all the same; or maps are asked for that the cache does not
        have.
    ParameterError
        `bag` has a rule that names no class of the cache, or maps of groups are asked for.
    """
    wanted = cache.mask(views=True)
    check_labels(cache, cache.y[wanted])
    if generated and cache.is_generated.any():
        _check_units(cache, bag)
        wanted |= _select_generated(cache)
    rows = np.flatnonzero(wanted)
    view = cache.view[rows]
    _, place = np.unique(cache.column("path")[rows], return_inverse=True)
    first = np.zeros(place.max() + 1, np.intp)
    first[place[view == 0]] = np.flatnonzero(view == 0)
    if bag is None and isinstance(cache, GroupJoin):
        raise ParameterError("caches that are joined on groups have one vector a group; pass a bag")
    if maps:
        if isinstance(cache, JoinedCaches):
            raise ParameterError(
                "a head of maps takes the maps of one cache, and several are joined; take a head "
                "of vectors"
            )
        if bag is not None:
            raise ParameterError(
                "a head of maps takes single images, and a bag groups of them; leave the bag out, "
                "or take a head of vectors"
            )
    if bag is None:
        return Units(
            X=MapRows(source=cache.maps, rows=rows) if maps else _read_features(cache, rows),
            y=cache.y[rows],
            image=first[place],
            rows=rows,
            generated=np.flatnonzero(cache.is_generated[rows]),
        )
    members = read_groups(cache, rows[view == 0], label=bag.label)
    group, offsets, chosen = _list_views(members, rows, view, rows[first[place]])
    return Units(
        X=_read_vectors(cache, chosen, offsets, bag.pooling),
        y=members.y[group],
        image=group,
        rows=chosen[offsets[:-1]],
        members=members,
    )


def _check_units(cache: FeatureCache, bag: BagRule | None) -> None:
    """Refuse generated images for heads of groups, of which these have none."""
    if bag is not None:
        number = int((cache.is_generated & (cache.view == 0)).sum())
        raise TableError(
            f"{cache.path} has {count(number, 'generated image')}, which are in no group, and this "
            "head is fitted on groups; extract a table without them"
        )


def _select_generated(cache: FeatureCache) -> NDArray[np.bool_]:
    """Select the labelled rows of generated images that a head may be fitted on."""
    chosen = cache.is_generated & (cache.y >= 0) & ~find_memorised(cache)
    return chosen & (cache.splits == "train") if cache.splits.any() else chosen


def check_labels(cache: FeatureCache, y: NDArray[np.int64]) -> None:
    """Refuse a cache that no classifier can be fitted on.

    Parameters
    ----------
    cache : FeatureCache
    y : ndarray of shape (m,), int64
        Classes of its labelled rows.

    Raises
    ------
    TableError
        The cache holds altered views, or labelled images of fewer than two classes.
    """
    if cache.is_altered:
        raise TableError(
            f"{cache.path} holds altered views of images, on which heads are tried; fit the head "
            "on a cache that extract wrote"
        )
    present = np.unique(y)
    if len(present) < 2:
        names = ", ".join(cache.class_names[label] for label in present) or "none"
        raise TableError(
            f"{cache.path} has labelled images of too few classes ({names}); "
            "a classifier needs two or more"
        )


def _list_views(
    members: GroupRows, rows: Rows, view: NDArray[np.int16], image: Rows
) -> tuple[Rows, Rows, Rows]:
    """List groups and their views: the group of each, offsets, and the rows of the cache."""
    groups, chosen = [np.arange(len(members))], [members.rows]
    sizes = [members.sizes]
    for number in np.unique(view[view > 0]):
        seen = np.full(int(rows.max()) + 1, -1, np.intp)
        seen[image[view == number]] = rows[view == number]
        found = seen[members.rows]
        whole = np.flatnonzero(~members.any(found < 0))
        groups.append(whole)
        chosen.append(found[list_places(members.offsets, whole)])
        sizes.append(members.sizes[whole])
    offsets = np.concatenate([[0], np.cumsum(np.concatenate(sizes))])
    return np.concatenate(groups), offsets, np.concatenate(chosen)


def _read_vectors(cache: FeatureCache, rows: Rows, offsets: Rows, pooling: str) -> AnyFeatures:
    """Read the vectors of bags, one for each bag where they are pooled, and for each block."""
    if isinstance(cache, GroupJoin):
        if pooling == ATTENTION:
            raise ParameterError(
                "caches that are joined on groups have one vector a group and cache, and attention "
                f"weighs many; pass another bag: {', '.join(POOLINGS)}"
            )
        return read_blocks(cache, rows, offsets, partial(_pool_bags, pooling=pooling))
    if pooling == ATTENTION:
        ordered, place = np.unique(rows, return_inverse=True)
        X, in_order = _read_features(cache, ordered), bool((place == np.arange(len(place))).all())
        return Bags(values=X if in_order else X[place], offsets=offsets)
    return _pool_bags(cache, rows, offsets, pooling)


def _pool_bags(cache: FeatureCache, rows: Rows, offsets: Rows, pooling: str) -> NDArray[np.float32]:
    """Pool bags, some at a time, so that their vectors are not copied at once."""
    ordered, place = np.unique(rows, return_inverse=True)
    X = _read_features(cache, ordered)
    starts = np.searchsorted(offsets, np.arange(0, len(rows), _BLOCK_ROWS))
    bounds = np.unique([*starts, len(offsets) - 1])
    pooled = np.empty((len(offsets) - 1, X.shape[1]), np.float32)
    for low, high in pairwise(bounds):
        some = offsets[low : high + 1]
        bags = Bags(values=X[place[some[0] : some[-1]]], offsets=some - some[0])
        pooled[low:high] = bags.pool(pooling)
    return pooled


def _read_features(cache: FeatureCache, rows: Rows) -> NDArray[np.float32]:
    """Read features, of joined caches one cache after another, so that an error names it."""
    if isinstance(cache, ImageJoin):
        ends = np.cumsum(cache.widths)
        X = np.empty((len(rows), ends[-1]), np.float32)
        for part, place, end in zip(cache.caches, cache.places, ends, strict=True):
            X[:, end - part.spec.n_features : end] = _read_features(part, place[rows])
        return X
    X = cache.X[:] if np.array_equal(rows, np.arange(len(cache))) else cache.X[rows]
    blocks = (X[start : start + _BLOCK_ROWS] for start in range(0, len(X), _BLOCK_ROWS))
    if bad := sum(int((~np.isfinite(block)).any(axis=1).sum()) for block in blocks):
        raise CacheError(
            f"{cache.path} has features that are not finite in {bad:,} of {len(X):,} rows; "
            "extract them again, in float32"
        )
    if len(X) > 1 and (X[0] == X).all():
        raise CacheError(
            f"{cache.path} has the same features in all {len(X):,} rows, from which nothing can be "
            "learned; check that its images are not all black, and that its weights are not zeros"
        )
    return X
