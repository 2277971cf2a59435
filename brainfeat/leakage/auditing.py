"""Audit a cache: duplicates across its splits, and labels that can be predicted without looking."""

import os
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from brainfeat.cache.cache import FeatureCache, opened
from brainfeat.cache.signature import ORIENTATIONS
from brainfeat.leakage.controls import permute_labels, try_shortcuts
from brainfeat.leakage.copies import (
    COPY_THRESHOLD,
    Copies,
    count_orientations,
    find_copies,
    label_copies,
)
from brainfeat.leakage.duplicates import (
    NEAR_SEARCH_LIMIT,
    NEAR_THRESHOLD,
    Labels,
    explain_chain,
    join_labels,
    label_exact_duplicates,
    label_near_duplicates,
)
from brainfeat.leakage.images import FeatureRows, Images, Rows
from brainfeat.leakage.results import (
    Audit,
    CopyGroups,
    DuplicateKind,
    ExactDuplicates,
    LabelConflict,
    NearDuplicates,
)


def audit(
    cache: FeatureCache | str | os.PathLike[str],
    *,
    threshold: float = NEAR_THRESHOLD,
    random_state: int = 0,
) -> Audit:
    """Look for what makes metrics on a cache too good to be true.

    Copies show the same pixels, upright, mirrored or turned by quarter turns: their signatures have
    a cosine of 0.92 or more. They are looked for where the cache has signatures, whatever the base.
    Near duplicates are pairs whose centred features have a cosine of `threshold` or more, and what
    chains of such pairs connect. The permutation test shuffles the labels between clusters, within
    which they stay the same, and predicts for each test image the label of the most similar image
    of train and val: with nothing to learn, it can only be above chance where duplicates are on
    both sides. Where the table has no splits, five grouped folds take their place.

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

    Raises
    ------
    CacheError
        The cache holds no images, feature maps, or features that are not finite.
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
        found = _add_copies(_find_duplicates(images, threshold=threshold), images)
        shown = images.rows[images.y >= 0]
        y, clusters = features.y[shown], found.clusters[shown]
        if len(np.unique(y)) < 2:
            return found
        rows, splits = FeatureRows(features, shown), features.splits[shown]
        return replace(
            found,
            shortcut=try_shortcuts(features, shown, clusters, random_state=random_state),
            permutation=permute_labels(rows, y, splits, clusters, random_state=random_state),
        )


def audit_duplicates(cache: FeatureCache, *, limit: int | None = NEAR_SEARCH_LIMIT) -> Audit:
    """Look for duplicates and label conflicts alone.

    Parameters
    ----------
    cache : FeatureCache
    limit : int or None
        Images up to which near duplicates are looked for; None looks always.

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
    """Make an audit without controls; without a threshold, also without near duplicates."""
    cache, rows = images.cache, images.rows
    same = label_exact_duplicates(cache.sha256[rows])
    clusters, near = same, None
    if threshold is not None:
        labels = label_near_duplicates(FeatureRows(cache, rows), threshold=threshold)
        clusters = join_labels(same, labels)
        near = _describe_clusters(clusters, images.splits, threshold)
    named = images.groups != ""
    _, numbers = np.unique(images.groups[named], return_inverse=True)
    every = np.full(len(cache), -1, np.intp)
    every[rows] = clusters
    return Audit(
        images=len(rows),
        exact_duplicates=_count_copies(same, images.splits),
        near_duplicates=near,
        groups_across_splits=_count_copies(numbers, images.splits[named]).cross_split_groups,
        patient_key=cache.provenance.get("patient_key"),
        label_conflicts=tuple(_find_conflicts(images, same, clusters)),
        shortcut=None,
        permutation=None,
        clusters=every,
        content_sha256=cache.content_sha256,
    )


def _add_copies(found: Audit, images: Images) -> Audit:
    """Add the copies by pixels, where the cache has signatures."""
    if images.cache.signature is None:
        return found
    copies = list(find_copies(images.cache.signature[images.rows]))
    groups = _count_copies(label_copies(copies, len(images.rows)), images.splits)
    known = {conflict.paths for conflict in found.label_conflicts}
    conflicts = [c for c in _name_copies(images, copies) if c.paths not in known]
    return replace(
        found,
        copies=CopyGroups(
            threshold=COPY_THRESHOLD,
            groups=groups.groups,
            images=groups.files,
            cross_split_groups=groups.cross_split_groups,
            test_files=groups.test_files,
            by_orientation=count_orientations(copies, images.splits),
        ),
        label_conflicts=(*found.label_conflicts, *conflicts),
    )


def _name_copies(images: Images, copies: list[Copies]) -> Iterator[LabelConflict]:
    """Yield pairs of copies that have different labels."""
    names = images.cache.class_names
    for block in copies:
        for first, second, orientation in zip(
            block.first, block.second, block.orientation, strict=True
        ):
            labels = images.y[first], images.y[second]
            if min(labels) >= 0 and labels[0] != labels[1]:
                yield LabelConflict(
                    kind="copies",
                    paths=tuple(images.cache.paths[images.rows[[first, second]]].tolist()),
                    labels=(names[labels[0]], names[labels[1]]),
                    orientation=ORIENTATIONS[orientation],
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


def _find_conflicts(images: Images, same: Labels, clusters: Labels) -> Iterator[LabelConflict]:
    """Yield duplicates that have different labels; exact ones first, and no image twice."""
    known: set[int] = set()
    yield from _name_conflicts(images, "exact-duplicates", same, known)
    yield from _name_conflicts(images, "near-duplicates", clusters, known)


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
