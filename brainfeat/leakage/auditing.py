"""Audit a cache: duplicates across its splits, and labels that can be predicted without looking."""

import os
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainfeat.arithmetic import default_errors
from brainfeat.cache.cache import FeatureCache, opened
from brainfeat.cache.joined import GroupJoin
from brainfeat.cache.signature import ORIENTATIONS
from brainfeat.leakage.controls import permute_labels, try_shortcuts
from brainfeat.leakage.copies import COPY_THRESHOLD, Copies
from brainfeat.leakage.copy_groups import CopySearch, search_copies
from brainfeat.leakage.duplicates import (
    NEAR_SEARCH_LIMIT,
    NEAR_THRESHOLD,
    Labels,
    explain_chain,
    join_labels,
    label_exact_duplicates,
)
from brainfeat.leakage.generated import count_generated
from brainfeat.leakage.images import FeatureRows, Images, Rows, label_near_images
from brainfeat.leakage.results import (
    Audit,
    CopyGroups,
    DuplicateKind,
    ExactDuplicates,
    LabelConflict,
    NearDuplicates,
)
from brainfeat.leakage.sources import find_class_sources


@default_errors
def audit(
    cache: FeatureCache | str | os.PathLike[str],
    *,
    threshold: float = NEAR_THRESHOLD,
    random_state: int = 0,
) -> Audit:
    """Look for what makes metrics on a cache too good to be true.

    Copies show the same pixels, upright, mirrored or turned by quarter turns: their signatures have
    a cosine of 0.92 or more. They are looked for where the cache has signatures, whatever the base;
    among up to 10,000 groups of copies also those that were rotated by some degrees, cropped or
    padded (``brainfeat.leakage.altered_copies.find_altered_copies``).
    Near duplicates are pairs whose centred features have a cosine of `threshold` or more, and what
    chains of such pairs connect. The permutation test shuffles the labels between clusters of
    copies (without signatures, of near duplicates), within which they stay the same, and predicts
    for each test image the label of the most similar image of train and val: with nothing to learn,
    it can only be above chance where duplicates are on both sides. Where the table has no splits,
    five grouped folds take their place.

    Parameters
    ----------
    cache : FeatureCache or path-like
        Pooled features.
    threshold : float
        Least cosine of near duplicates.
    random_state : int
        Seed of folds, forests and shuffles.

    Returns
    -------
    Audit
        With shortcut and permutation test; without the latter where caches are joined on groups,
        of which no two have features to compare.

    Raises
    ------
    CacheError
        The cache holds no images, or features that are not finite.
    ParameterError
        The threshold is out of range.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> from brainfeat import extract, read_table
    >>> from brainfeat.phantoms import write_phantoms
    >>> with TemporaryDirectory() as folder:
    ...     table = read_table(write_phantoms(f"{folder}/slices", patients_per_class=6, size=48))
    ...     result = extract(
    ...         table,
    ...         f"{folder}/features.h5",
    ...         backbone="mobilenet-0.75",
    ...         weights="random",
    ...         input_size=32,
    ...     )
    ...     found = audit(result.output)
    >>> found.images, found.exact_duplicates.groups, found.groups_across_splits
    (96, 0, 0)
    """
    with opened(cache) as features:
        images = Images(features)
        found = _find_duplicates(images, threshold=threshold)
        shown = images.rows[images.y >= 0]
        y = features.y[shown]
        clusters = (found.clusters if found.copies is None else found.copy_clusters)[shown]
        if len(np.unique(y)) < 2:
            return found
        permutation = None
        if not isinstance(features, GroupJoin):
            rows, splits = FeatureRows(features, shown), features.splits[shown]
            permutation = permute_labels(rows, y, splits, clusters, random_state=random_state)
        return replace(
            found,
            shortcut=try_shortcuts(features, shown, clusters, random_state=random_state),
            permutation=permutation,
            class_sources=find_class_sources(y, features.sources[shown], features.class_names),
        )


@default_errors
def audit_duplicates(cache: FeatureCache, *, limit: int | None = NEAR_SEARCH_LIMIT) -> Audit:
    """Look for exact duplicates, copies, near duplicates and their label conflicts alone.

    Parameters
    ----------
    cache : FeatureCache
    limit : int or None
        Images up to which copies and near duplicates are looked for; None looks always.

    Returns
    -------
    Audit
        Without shortcut and permutation test.

    Raises
    ------
    CacheError
        As in :func:`audit`.
    """
    images = Images(cache)
    looked = limit is None or len(images.rows) <= limit
    return _find_duplicates(images, threshold=NEAR_THRESHOLD if looked else None)


def _find_duplicates(images: Images, *, threshold: float | None) -> Audit:
    """Make an audit without controls; without a threshold, of exact duplicates alone."""
    cache, rows = images.cache, images.rows
    same = label_exact_duplicates(cache.sha256[rows])
    found = None if threshold is None else _search_copies(images, same)
    clusters, near = same, None
    if threshold is not None:
        labels = label_near_images(cache, rows, threshold=threshold)
        clusters = join_labels(same, labels)
        near = _describe_clusters(clusters, images.splits, threshold)
    named = images.groups != ""
    _, numbers = np.unique(images.groups[named], return_inverse=True)
    copied: dict[str, Any] = {}
    if found is not None:
        seen = _find_seen(images)
        exact = np.isin(same, same[seen]) & ~seen
        copied = {
            "copy_clusters": _spread(join_labels(same, found.labels), rows, len(cache), -1),
            "seen_copies": _spread(found.seen | exact, rows, len(cache), 0),
        }
    return Audit(
        images=len(rows),
        exact_duplicates=_count_copies(same, images.splits),
        near_duplicates=near,
        groups_across_splits=_count_copies(numbers, images.splits[named]).cross_split_groups,
        patient_key=cache.provenance.get("patient_key"),
        label_conflicts=tuple(_find_conflicts(images, same, found, clusters)),
        shortcut=None,
        permutation=None,
        copies=None if found is None else _describe_copies(found, images.splits),
        clusters=_spread(clusters, rows, len(cache), -1),
        **copied,
        content_sha256=cache.content_sha256,
        generated=count_generated(cache),
    )


def _spread(values: NDArray[Any], rows: Rows, n: int, other: int) -> NDArray[Any]:
    """Return one value per row of a cache: those of some rows, and another one."""
    spread = np.full(n, other, values.dtype)
    spread[rows] = values
    return spread


def _search_copies(images: Images, same: Labels) -> CopySearch | None:
    """Search the copies by pixels, where the cache has signatures."""
    signatures = images.cache.signature
    if signatures is None:
        return None
    return search_copies(signatures[images.rows], same, y=images.y, seen=_find_seen(images))


def _find_seen(images: Images) -> NDArray[np.bool_]:
    return np.isin(images.splits, ("train", "val"))


def _describe_copies(found: CopySearch, splits: NDArray[np.str_]) -> CopyGroups:
    groups, test = _count_copies(found.labels, splits), splits == "test"
    return CopyGroups(
        threshold=COPY_THRESHOLD,
        groups=groups.groups,
        images=groups.files,
        cross_split_groups=groups.cross_split_groups,
        test_files=int(found.seen[test].sum()),
        altered=None if found.altered is None else int(found.altered[test].sum()),
        by_orientation=found.count_orientations(test),
    )


def _describe_clusters(
    clusters: Labels, splits: NDArray[np.str_], threshold: float
) -> NearDuplicates:
    sizes = np.sort(np.bincount(clusters))[::-1]
    largest, copies = int(sizes[0]), _count_copies(clusters, splits)
    return NearDuplicates(
        threshold=threshold,
        clusters=copies.groups,
        images=copies.files,
        largest=largest,
        sizes=tuple(sizes[: max(1, min(5, copies.groups))].tolist()),
        chained=explain_chain(largest, len(clusters), threshold) is not None,
        cross_split_clusters=copies.cross_split_groups,
        test_files=copies.test_files,
    )


def _count_copies(labels: Labels, splits: NDArray[np.str_]) -> ExactDuplicates:
    """Count the groups of several rows, the rows in them, and those on two sides."""
    sizes = np.bincount(labels, minlength=1)
    sides = np.zeros((len(sizes), 3), bool)
    for place, name in enumerate(("train", "val", "test")):
        sides[labels[splits == name], place] = True
    seen = sides[:, 0] | sides[:, 1]
    return ExactDuplicates(
        groups=int((sizes > 1).sum()),
        files=int(sizes[sizes > 1].sum()),
        cross_split_groups=int((sides.sum(axis=1) > 1).sum()),
        test_files=int(seen[labels[splits == "test"]].sum()),
    )


def _find_conflicts(
    images: Images, same: Labels, copies: CopySearch | None, clusters: Labels
) -> Iterator[LabelConflict]:
    """Yield duplicates that have different labels: exact ones, copies, then others of a cluster."""
    known: set[int] = set()
    yield from _name_conflicts(images, "exact-duplicates", same, known)
    if copies is not None:
        yield from _name_copies(images, copies.conflicts, known)
    yield from _name_conflicts(images, "near-duplicates", clusters, known)


def _name_copies(images: Images, copies: Copies, known: set[int]) -> Iterator[LabelConflict]:
    names = images.cache.class_names
    for first, second, _, turn in zip(*copies, strict=True):
        known.update((int(first), int(second)))
        yield LabelConflict(
            kind="copies",
            paths=tuple(images.cache.paths[images.rows[[first, second]]].tolist()),
            labels=(names[images.y[first]], names[images.y[second]]),
            orientation=ORIENTATIONS[turn],
        )


def _name_conflicts(
    images: Images, kind: DuplicateKind, labels: Labels, known: set[int]
) -> Iterator[LabelConflict]:
    names = images.cache.class_names
    for members in _find_mixed(labels, images.y):
        if known.isdisjoint(members.tolist()):
            known.update(members.tolist())
            yield LabelConflict(
                kind=kind,
                paths=tuple(images.cache.paths[images.rows[members]].tolist()),
                labels=tuple(names[label] for label in images.y[members]),
            )


def _find_mixed(labels: Labels, y: NDArray[np.int64]) -> Iterator[Rows]:
    """Yield the labelled members of each group that has several classes."""
    known = np.flatnonzero(y >= 0)
    pairs = np.unique(np.column_stack([labels[known], y[known]]), axis=0)
    groups, classes = np.unique(pairs[:, 0], return_counts=True)
    for group in groups[classes > 1]:
        yield known[labels[known] == group]
