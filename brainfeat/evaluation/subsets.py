"""Which images a head is measured on: those of a split, with their classes and other columns."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Union

import numpy as np
from numpy.typing import NDArray

from brainfeat.errors import CacheError, ParameterError
from brainfeat.evaluation.class_mapping import Classes, ClassTask, choose_task

if TYPE_CHECKING:
    from brainfeat.cache.cache import FeatureCache
    from brainfeat.heads.bundle import HeadBundle

Rows = NDArray[np.intp]
Cache = Union["FeatureCache", str, "os.PathLike[str]"]
Head = Union["HeadBundle", str, "os.PathLike[str]"]

# Columns of a cache by whose values images can be divided.
COLUMNS = ("source", "group", "split", "width", "height", "channels")


@contextmanager
def open_both(
    cache: Cache,
    *heads: Head,
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


@dataclass(frozen=True, kw_only=True, eq=False)
class Plan:
    """Which images a head is measured on, and on which classes.

    Attributes
    ----------
    rows : ndarray of shape (n,), int
        Labelled rows of view 0.
    split : str
        ``"all"`` where the split that was asked for is that of a set without splits.
    y : ndarray of shape (n,), int
        True classes, indices into those of the task.
    task : ClassTask
    mapping : int or None
        Place of the mapping that was used.
    """

    rows: Rows
    split: str
    y: Rows
    task: ClassTask
    mapping: int | None


def plan_images(
    bundle: "HeadBundle", cache: "FeatureCache", split: str, mappings: Sequence[Classes] = ()
) -> Plan:
    """Choose the images and classes that a head is measured on.

    Parameters
    ----------
    bundle : HeadBundle
    cache : FeatureCache
    split : {"test", "val", "train", "all"}
    mappings : sequence of dict of str to tuple of str
        As :func:`brainfeat.evaluation.class_mapping.check_mappings` returns them.

    Returns
    -------
    Plan

    Raises
    ------
    CacheError
        There are no images.
    BundleError
        The head does not have one of their classes.
    """
    chosen = "all" if split == "test" and is_from_elsewhere(bundle, cache) else split
    rows = select_images(bundle, cache, chosen)
    labels = cache.y[rows]
    present = [cache.class_names[label] for label in np.unique(labels)]
    task, place = choose_task(present, bundle.class_names, mappings)
    return Plan(
        rows=rows,
        split=chosen,
        y=task.index(labels, cache.class_names),
        task=task,
        mapping=place,
    )


def is_from_elsewhere(bundle: "HeadBundle", cache: "FeatureCache") -> bool:
    """Return whether a cache has no splits, and the fit of the head made none of its images.

    All its images are then test images. The file of a head of an earlier version does not record
    what it was fitted on, and nothing is known.
    """
    labelled = cache.mask()
    if bundle.fitted_images is None or not labelled.any() or cache.splits[labelled].any():
        return False
    held_out = _held_out(bundle, "test")
    return not np.isin(cache.image_ids(np.flatnonzero(labelled)), held_out).any()


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
