"""Which images a head is measured on: those of a split, and those that are new to the head."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from brainfeat.errors import BundleError, CacheError, ParameterError

if TYPE_CHECKING:
    from brainfeat.cache.cache import FeatureCache
    from brainfeat.heads.bundle import HeadBundle
    from brainfeat.leakage.results import Audit

Rows = NDArray[np.intp]
Flags = NDArray[np.bool_]

# Columns of a cache by whose values images can be divided.
COLUMNS = ("source", "group", "split", "width", "height", "channels")


@dataclass(frozen=True, kw_only=True)
class SeenImages:
    """Which images one of several heads has seen a duplicate of.

    Attributes
    ----------
    exact_duplicates : ndarray of shape (m,), bool
        Whether it has seen a file of the same content.
    near_duplicates : ndarray of shape (m,), bool, or None
        Whether it has seen a near duplicate; None where these were not looked for.
    reason : str or None
        Why near duplicates were not looked for.
    groups : ndarray of shape (m,), int
        Images of one group are not independent: those of a group of the table; where it has no
        groups, near duplicates of each other, or else exact duplicates.
    """

    exact_duplicates: Flags
    near_duplicates: Flags | None
    reason: str | None
    groups: NDArray[np.intp]


@contextmanager
def open_both(
    cache: "FeatureCache | str | os.PathLike[str]",
    *heads: "HeadBundle | str | os.PathLike[str]",
) -> "Iterator[tuple[FeatureCache, list[HeadBundle]]]":
    """Open heads and a cache, those that are paths, and check that they belong together.

    Parameters
    ----------
    cache : FeatureCache or path-like
        One that is opened here is closed at the end.
    *heads : HeadBundle or path-like

    Yields
    ------
    FeatureCache
    list of HeadBundle

    Raises
    ------
    SpecMismatchError
        The features have another spec than those that a head was fitted on.
    """
    from brainfeat.cache.cache import opened
    from brainfeat.heads.bundle import loaded

    bundles = [loaded(head) for head in heads]
    with opened(cache) as features:
        for bundle in bundles:
            bundle.check_spec(features.spec)
        yield features, bundles


def select_images(bundle: "HeadBundle", cache: "FeatureCache", split: str) -> Rows:
    """List the images of a split of the table, or else those that the fit of the head held out.

    Parameters
    ----------
    bundle : HeadBundle
    cache : FeatureCache
    split : {"test", "val", "train", "all"}

    Returns
    -------
    ndarray of int
        Labelled rows of view 0.

    Raises
    ------
    CacheError
        There are none; the message explains why.
    """
    labelled = cache.mask()
    chosen = cache.mask(split) if split != "all" else labelled
    held_out = _held_out(bundle, split)
    if held_out and not cache.splits[labelled].any():
        rows = np.flatnonzero(labelled)
        chosen = np.zeros_like(labelled)
        found = rows[np.isin(cache.image_ids(rows), held_out)]
        if 0 < len(found) < len(held_out):
            raise CacheError(
                f"the cache has {len(found)} of the {len(held_out)} images that this head held out "
                f"as {split!r}; files were renamed or removed: fit the head again"
            )
        chosen[found] = True
    if not chosen.any():
        raise CacheError(_explain_no_rows(cache, split))
    return np.flatnonzero(chosen)


def match_classes(
    y: NDArray[np.integer], cache_names: Sequence[str], bundle_names: Sequence[str]
) -> Rows:
    """Translate indices into the cache's classes to indices into the bundle's, by name.

    Parameters
    ----------
    y : ndarray of shape (n,), int
    cache_names, bundle_names : sequence of str

    Returns
    -------
    ndarray of shape (n,), int

    Raises
    ------
    BundleError
        The head does not have one of the classes.

    Examples
    --------
    >>> match_classes(np.array([0, 1]), ["glioma", "notumor"], ["notumor", "glioma"]).tolist()
    [1, 0]
    """
    known = {name: index for index, name in enumerate(bundle_names)}
    unknown = [cache_names[label] for label in np.unique(y) if cache_names[label] not in known]
    if unknown:
        raise BundleError(
            f"the images have the class {', '.join(map(repr, unknown))}; expected one of the "
            f"head's, {', '.join(map(repr, bundle_names))}: fit a head on a cache that has it"
        )
    index = np.array([known.get(name, -1) for name in cache_names], dtype=np.intp)
    matched: Rows = index[y]
    return matched


def find_seen(
    bundles: "Sequence[HeadBundle]",
    cache: "FeatureCache",
    rows: Rows,
    *,
    threshold: float | None = None,
    audit: "Audit | None" = None,
) -> SeenImages:
    """Find the images that have a duplicate among those that one of the heads has seen.

    A head has seen the images of train and val; where the table has no splits, those that its fit
    did not hold out as a test. An image that it has seen is a copy of itself.

    Parameters
    ----------
    bundles : sequence of HeadBundle
    cache : FeatureCache
    rows : ndarray of int, shape (m,)
        Rows of view 0.
    threshold : float or None
        Least similarity of near duplicates. None takes the default of :func:`brainfeat.audit`, does
        not look for them among more than 50,000 images, and does not take a chain for copies.
    audit : Audit or None
        As in :func:`brainfeat.leakage.overlap.find_overlap`.

    Returns
    -------
    SeenImages
    """
    from brainfeat.leakage.duplicates import (
        NEAR_SEARCH_LIMIT,
        NEAR_THRESHOLD,
        label_exact_duplicates,
    )
    from brainfeat.leakage.overlap import find_overlap

    seen = np.unique(np.concatenate([_list_seen(bundle, cache) for bundle in bundles]))
    same = label_exact_duplicates(cache.sha256)
    exact = np.isin(same[rows], same[seen])
    clusters, near, reason = same[rows], None, None
    n_images = len(np.union1d(rows, seen))
    if threshold is None and n_images > NEAR_SEARCH_LIMIT:
        reason = (
            f"near duplicates are looked for among up to {NEAR_SEARCH_LIMIT:,} images, got "
            f"{n_images:,}; pass a threshold to look"
        )
    else:
        overlap = find_overlap(
            cache,
            rows,
            seen,
            threshold=NEAR_THRESHOLD if threshold is None else threshold,
            audit=audit,
        )
        reason = overlap.chain if threshold is None else None
        if reason is None:
            clusters, near = overlap.clusters, overlap.near_duplicates
    named = cache.groups[rows]
    units = np.where(named != "", named, [f"\0{cluster}" for cluster in clusters])
    return SeenImages(
        exact_duplicates=exact,
        near_duplicates=near,
        reason=reason,
        groups=np.unique(units, return_inverse=True)[1],
    )


def read_column(cache: "FeatureCache", by: Any) -> NDArray[np.str_]:
    """Read a column of a cache as texts, or check values that are given.

    Parameters
    ----------
    cache : FeatureCache
    by : str, or array-like of shape (rows of the cache,)
        The name of a column, or its values.

    Returns
    -------
    ndarray of shape (rows of the cache,), str

    Raises
    ------
    ParameterError
        There is no such column, or not one value per row.
    """
    if isinstance(by, str):
        if by not in COLUMNS:
            raise ParameterError(f"no column {by!r}; expected one of {', '.join(COLUMNS)}")
        plural = {"source": "sources", "group": "groups", "split": "splits"}
        return np.asarray(getattr(cache, plural[by]) if by in plural else cache.column(by), np.str_)
    values = np.asarray(by, np.str_)
    if values.shape != (len(cache),):
        raise ParameterError(
            f"by has the shape {values.shape}; expected one value for each of {len(cache):,} rows"
        )
    return values


def _held_out(bundle: "HeadBundle", split: str) -> list[str]:
    held_out = bundle.training.held_out
    if held_out is None or split not in ("val", "test"):
        return []
    return list(held_out.val if split == "val" else held_out.test)


def _list_seen(bundle: "HeadBundle", cache: "FeatureCache") -> Rows:
    labelled = cache.mask()
    if cache.splits[labelled].any():
        return np.flatnonzero(cache.mask("train") | cache.mask("val"))
    rows = np.flatnonzero(labelled)
    kept = np.isin(cache.image_ids(rows), _held_out(bundle, "test"))
    # A head that held none of these images out was fitted on others.
    return rows[~kept] if kept.any() else rows[:0]


def _explain_no_rows(cache: "FeatureCache", split: str) -> str:
    names, counts = np.unique(cache.splits[cache.mask(None)], return_counts=True)
    found = [f"{name} ({count})" for name, count in zip(names, counts, strict=True) if name]
    if not counts.size:
        return "the cache has no labelled images; extract a table with labels"
    if not found:
        return (
            f"the cache has no splits, and this head held out none of its images as {split!r}; "
            "pass split 'all' where the head has seen none of them, or extract a table with a "
            "split column"
        )
    return (
        f"the cache has no labelled images in split {split!r}; pass one that it has, "
        f"{', '.join(found)}, or 'all'"
    )
