"""Which images a head is measured on: those of a split, with their classes and other columns."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from brainfeat.errors import BundleError, CacheError, ParameterError

if TYPE_CHECKING:
    from brainfeat.cache.cache import FeatureCache
    from brainfeat.heads.bundle import HeadBundle

Rows = NDArray[np.intp]

# Columns of a cache by whose values images can be divided.
COLUMNS = ("source", "group", "split", "width", "height", "channels")


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
