"""Which images a head is measured on: those of a split, with their classes and other columns."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Union

import numpy as np
from numpy.typing import NDArray

from brainfeat.errors import CacheError, ParameterError
from brainfeat.evaluation.block_caches import select_features
from brainfeat.evaluation.class_mapping import Classes, ClassTask, choose_task
from brainfeat.evaluation.units import GROUP, IMAGE, IMAGES, UnitRule, select_groups

if TYPE_CHECKING:
    from brainfeat.cache.cache import FeatureCache
    from brainfeat.cache.groups import GroupRows
    from brainfeat.heads.bundle import HeadBundle

Flags = NDArray[np.bool_]
Rows = NDArray[np.intp]
Cache = Union["FeatureCache", str, "os.PathLike[str]"]
Head = Union["HeadBundle", str, "os.PathLike[str]"]

# Columns of a cache by whose values images can be divided.
COLUMNS = ("source", "group", "split", "width", "height", "channels")

# Value of a column for a group whose images have several.
SEVERAL = "(several)"


@contextmanager
def open_both(
    cache: Cache,
    *heads: Head,
) -> "Iterator[tuple[FeatureCache, list[HeadBundle]]]":
    """Open heads and a cache, those that are paths, and check that they belong together.

    The features of each head are those that
    :func:`brainfeat.evaluation.block_caches.select_features` selects.

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
            select_features(bundle, features)
        yield features, bundles


@dataclass(frozen=True, kw_only=True, eq=False)
class Plan:
    """Which images, or groups of images, a head is measured on, and on which classes.

    Attributes
    ----------
    rows : ndarray of shape (m,), int
        Labelled rows of view 0; group after group where groups are measured.
    split : str
        ``"all"`` where the split that was asked for is that of a set without splits.
    y : ndarray of shape (n,), int
        True classes of the n images or groups, indices into those of the task.
    task : ClassTask
    mapping : int or None
        Place of the mapping that was used.
    groups : GroupRows or None
        The n groups that are measured; None where images are.
    """

    rows: Rows
    split: str
    y: Rows
    task: ClassTask
    mapping: int | None
    groups: "GroupRows | None" = None

    @property
    def unit(self) -> str:
        """What is measured: ``"image"`` or ``"group"``."""
        return IMAGE if self.groups is None else GROUP

    def select(self, chosen: Flags) -> "Plan":
        """Return the chosen images or groups alone."""
        if self.groups is None:
            return replace(self, rows=self.rows[chosen], y=self.y[chosen])
        groups = self.groups.select(chosen)
        return replace(self, rows=groups.rows, y=self.y[chosen], groups=groups)

    def any(self, flags: Flags) -> Flags:
        """Return which images, or which groups with such an image, are flagged, (m,) to (n,)."""
        return flags if self.groups is None else self.groups.any(flags)

    def all(self, flags: Flags) -> Flags:
        """Return which images are flagged, or which groups of such images alone, (m,) to (n,)."""
        return ~self.any(~flags)

    def first(self, values: NDArray[Any]) -> NDArray[Any]:
        """Return the value of each image, or of the first image of each group, (m,) to (n,)."""
        return values if self.groups is None else values[self.groups.offsets[:-1]]


def plan_images(
    bundle: "HeadBundle",
    cache: "FeatureCache",
    split: str,
    mappings: Sequence[Classes] = (),
    *,
    rule: UnitRule = IMAGES,
) -> Plan:
    """Choose the images, or groups, and classes that a head is measured on.

    Parameters
    ----------
    bundle : HeadBundle
    cache : FeatureCache
    split : {"test", "val", "train", "all"}
    mappings : sequence of dict of str to tuple of str
        As :func:`brainfeat.evaluation.class_mapping.check_mappings` returns them.
    rule : UnitRule

    Returns
    -------
    Plan

    Raises
    ------
    CacheError
        There are no images.
    BundleError
        The head does not have one of their classes.
    TableError
        Groups are measured, and there are none, or one is in several splits or classes.
    """
    chosen = "all" if split == "test" and is_from_elsewhere(bundle, cache) else split
    rows = select_images(bundle, cache, chosen)
    groups = None if rule.unit == IMAGE else select_groups(cache, rows, label=rule.label)
    if groups is not None:
        rows = groups.rows
    labels = cache.y[rows] if groups is None else groups.y
    present = [cache.class_names[label] for label in np.unique(labels)]
    task, place = choose_task(present, bundle.class_names, mappings)
    return Plan(
        rows=rows,
        split=chosen,
        y=task.index(labels, cache.class_names),
        task=task,
        mapping=place,
        groups=groups,
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


def read_values(cache: "FeatureCache", by: Any, plan: Plan) -> NDArray[np.str_]:
    """Read the value of a column for each image or group of a plan.

    Parameters
    ----------
    cache : FeatureCache
    by : str or array-like
        As in :func:`read_column`.
    plan : Plan

    Returns
    -------
    ndarray of shape (n,), str
        ``"(several)"`` for a group whose images have several values.
    """
    values = read_column(cache, by)[plan.rows]
    first = plan.first(values)
    if plan.groups is None:
        return first
    return np.where(plan.any(values != first[plan.groups.place]), SEVERAL, first)


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
