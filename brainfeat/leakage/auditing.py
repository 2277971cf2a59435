"""Audit: what lies on two sides of a split, and what tells the classes apart without a look."""

import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainfeat.cache.cache import FeatureCache
from brainfeat.errors import CacheError, ParameterError
from brainfeat.leakage.controls import permute_labels, try_shortcuts
from brainfeat.leakage.duplicates import (
    NEAR_THRESHOLD,
    Labels,
    Pairs,
    find_near,
    join_labels,
    label_identical,
    label_near,
)

# Images up to which near duplicates are looked for where nobody asked: some 12 s on two cores.
QUICK_LIMIT = 50_000

# A cluster of more images, and of more than this share of them, is a chain and no set of copies.
_CHAINED_IMAGES = 10
_CHAINED_SHARE = 0.1
# What a figure must be above chance by, beside two (or three) of its standard errors.
_SHORTCUT_MARGIN = 0.05
_PERMUTATION_MARGIN = 0.01

PAIR_COLUMNS = (
    "first",
    "second",
    "similarity",
    "split_first",
    "split_second",
    "label_first",
    "label_second",
)

Rows = NDArray[np.intp]


@dataclass(frozen=True, kw_only=True)
class Audit:
    """What a cache has on two sides of its split, and other reasons not to believe a figure.

    Attributes
    ----------
    images : int
        Images that were looked at; augmented views are not.
    identical : dict
        Of files of the same content: ``groups`` of two or more and the ``files`` in them,
        ``cross_split_groups`` that are in several splits, ``test_files`` that are in train or val,
        too.
    near : dict or None
        Of near duplicates: ``threshold``, ``clusters`` of two or more, ``images`` in them, number
        of images in the ``largest`` and in the first few (``sizes``), whether so many are in one
        that chains have joined what is not alike (``chained``), ``cross_split_clusters``,
        ``test_files`` in a cluster with an image of train or val. None where they were not looked
        for.
    groups_across_splits : int
        Groups of the table, such as patients, that are in several splits.
    patient_key : {"site", "random"} or None
        What the patients of volumes were hashed with; a random key gives a patient another group
        in another run. None for image files.
    label_conflicts : tuple of dict
        ``kind`` (identical or near), ``paths`` and ``labels`` of images that show the same and are
        called differently.
    shortcut : dict or None
        Cross-validated ``accuracy`` of a random forest that sees only width, height, channels, file
        size and source, its standard ``error``, and ``chance``: the share of the largest class.
    permutation : dict or None
        Mean ``accuracy`` of the nearest neighbour on labels that are shuffled between the clusters,
        its ``std`` over the shuffles, and ``chance``. Above chance, copies give the answer away.
    clusters : ndarray of shape (n,), int
        Cluster of each row of the cache, −1 for augmented views; where near duplicates were not
        looked for, of identical files.
    content_sha256 : str
        Digest of the cache that was looked at.
    """

    images: int
    identical: dict[str, int]
    near: dict[str, Any] | None
    groups_across_splits: int
    patient_key: str | None
    label_conflicts: tuple[dict[str, Any], ...]
    shortcut: dict[str, Any] | None
    permutation: dict[str, Any] | None
    clusters: Labels = field(repr=False)
    content_sha256: str = field(repr=False)

    @property
    def findings(self) -> list[str]:
        """What is wrong, one sentence each, the gravest first."""
        return list(_find(self))

    def to_dict(self) -> dict[str, Any]:
        """Give all but the clusters and the digest as what JSON can hold, and the findings."""
        document = asdict(self)
        del document["clusters"], document["content_sha256"]
        document["label_conflicts"] = list(self.label_conflicts)
        return {**document, "findings": self.findings}


def audit(
    cache: FeatureCache | str | os.PathLike[str],
    *,
    threshold: float = NEAR_THRESHOLD,
    random_state: int = 0,
) -> Audit:
    """Look for what makes figures on a cache too good to be true.

    Near duplicates are pairs whose centred features have a cosine of `threshold` or more, and what
    chains of such pairs connect. The permutation control shuffles the labels between clusters,
    within which they stay the same, and lets each test image take the label of the most similar
    image of train and val: with nothing to learn, it can only be right above chance where copies
    are on both sides. Where the table has no splits, five grouped folds take their place.

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
    >>> found.images, found.identical["groups"], found.groups_across_splits
    (96, 0, 0)
    """
    if not isinstance(cache, FeatureCache):
        with FeatureCache.open(cache) as opened:
            return audit(opened, threshold=threshold, random_state=random_state)
    images = _Images(cache)
    found = _look(images, threshold=threshold)
    shown = images.rows[images.y >= 0]
    y, clusters = cache.y[shown], found["clusters"][shown]
    if len(np.unique(y)) < 2:
        return Audit(**found, shortcut=None, permutation=None)
    return Audit(
        **found,
        shortcut=try_shortcuts(cache, shown, clusters, random_state=random_state),
        permutation=permute_labels(
            _Selection(cache, shown), y, cache.splits[shown], clusters, random_state=random_state
        ),
    )


def quick_audit(cache: FeatureCache, *, limit: int | None = QUICK_LIMIT) -> Audit:
    """Look for copies and conflicts alone.

    Parameters
    ----------
    cache : FeatureCache
    limit : int or None
        Images up to which near duplicates are looked for; None looks always.

    Returns
    -------
    Audit
        Without shortcut and permutation.

    Raises
    ------
    CacheError
        As in :func:`audit`.
    """
    images = _Images(cache)
    looked = limit is None or len(images.rows) <= limit
    threshold = NEAR_THRESHOLD if looked else None
    return Audit(**_look(images, threshold=threshold), shortcut=None, permutation=None)


@dataclass(frozen=True, kw_only=True)
class Overlap:
    """What some images share with others, such as test images with those that a head has seen.

    Attributes
    ----------
    identical : ndarray of shape (m,), bool
        Whether one of the others has the same content.
    near : ndarray of shape (m,), bool
        Whether one of the others is in the same cluster of near duplicates.
    clusters : ndarray of shape (m,), int
        Cluster of each of the images.
    chain : str or None
        What is said where one cluster has so many of all images that chains have joined what is not
        alike.
    """

    identical: NDArray[np.bool_]
    near: NDArray[np.bool_]
    clusters: Labels
    chain: str | None


def find_overlap(
    cache: FeatureCache,
    rows: Rows,
    others: Rows,
    *,
    threshold: float = NEAR_THRESHOLD,
    audit: Audit | None = None,
) -> Overlap:
    """Tell which images of a cache have a copy among others of it.

    Parameters
    ----------
    cache : FeatureCache
    rows : ndarray of int, shape (m,)
        The images, by rows of view 0.
    others : ndarray of int
        The others; an image that is one of them has a copy there.
    threshold : float
        As in :func:`audit`.
    audit : Audit or None
        An audit of the cache: near duplicates are not looked for again where it did so, at this
        threshold, among the same images.

    Returns
    -------
    Overlap

    Raises
    ------
    ParameterError
        The audit is that of another cache, or the threshold is out of range.
    """
    if audit is not None and audit.content_sha256 != cache.content_sha256:
        raise ParameterError(f"the audit is not that of {cache.path}; audit this cache, or none")
    images, place = np.unique(np.concatenate([rows, others]), return_inverse=True)
    same = label_identical(cache.sha256[images])
    if audit is not None and _has_looked(audit, images, threshold):
        near = audit.clusters[images]
    else:
        near = label_near(_Selection(cache, images), threshold=threshold)
    clusters = join_labels(same, near)
    here, there = place[: len(rows)], place[len(rows) :]
    return Overlap(
        identical=np.isin(same[here], same[there]),
        near=np.isin(clusters[here], clusters[there]),
        clusters=clusters[here],
        chain=_explain_chain(int(np.bincount(clusters).max()), len(images), threshold),
    )


def list_pairs(
    cache: FeatureCache, *, threshold: float = NEAR_THRESHOLD
) -> Iterator[dict[str, Any]]:
    """Yield each pair of near duplicates with its paths, splits and labels.

    Parameters
    ----------
    cache : FeatureCache
    threshold : float

    Yields
    ------
    dict
        With the keys of :data:`PAIR_COLUMNS`.
    """
    images = _Images(cache)
    names = np.array([*cache.class_names, ""])[images.y]
    paths = cache.paths[images.rows]
    pairs: Pairs
    for pairs in find_near(_Selection(cache, images.rows), threshold=threshold):
        for first, second, similarity in zip(*pairs, strict=True):
            yield {
                "first": str(paths[first]),
                "second": str(paths[second]),
                "similarity": round(float(similarity), 4),
                "split_first": str(images.splits[first]),
                "split_second": str(images.splits[second]),
                "label_first": str(names[first]),
                "label_second": str(names[second]),
            }


class _Selection:
    """Rows of a cache's features, read a block at a time."""

    def __init__(self, cache: FeatureCache, rows: Rows) -> None:
        self._X, self._rows = cache.X, rows
        self.shape = (len(rows), cache.X.shape[1])

    def __getitem__(self, rows: slice) -> NDArray[np.float32]:
        block = self._X[self._rows[rows]]
        if bad := int((~np.isfinite(block)).any(axis=1).sum()):
            raise CacheError(
                f"the features are not finite in {bad:,} of {len(block):,} rows that were looked "
                "at; extract them anew, in float32"
            )
        return block


class _Images:
    """The images of a cache: rows of view 0, and what the table says of them."""

    def __init__(self, cache: FeatureCache) -> None:
        if cache.spec.pooling == "none":
            raise CacheError(f"{cache.path} holds feature maps; an audit takes pooled features")
        self.cache = cache
        self.rows = np.flatnonzero(cache.view == 0)
        if not len(self.rows):
            raise CacheError(f"{cache.path} has no images to look at")
        self.y = cache.y[self.rows]
        self.splits = cache.splits[self.rows]
        self.groups = cache.groups[self.rows]


def _look(images: _Images, *, threshold: float | None) -> dict[str, Any]:
    """Give what an audit says of copies; near ones are not looked for without a threshold."""
    cache, rows = images.cache, images.rows
    same = label_identical(cache.sha256[rows])
    clusters, near = same, None
    if threshold is not None:
        clusters = join_labels(same, label_near(_Selection(cache, rows), threshold=threshold))
        sizes = np.sort(np.bincount(clusters))[::-1]
        copies = _count_copies(clusters, images.splits)
        near = {
            "threshold": threshold,
            "clusters": copies["groups"],
            "images": copies["files"],
            "largest": int(sizes[0]),
            "sizes": sizes[: max(1, min(5, copies["groups"]))].tolist(),
            "chained": _explain_chain(int(sizes[0]), len(rows), threshold) is not None,
            "cross_split_clusters": copies["cross_split_groups"],
            "test_files": copies["test_files"],
        }
    named = images.groups != ""
    _, numbers = np.unique(images.groups[named], return_inverse=True)
    every = np.full(len(cache), -1, np.intp)
    every[rows] = clusters
    return {
        "images": len(rows),
        "identical": _count_copies(same, images.splits),
        "near": near,
        "groups_across_splits": _count_copies(numbers, images.splits[named])["cross_split_groups"],
        "patient_key": cache.provenance.get("patient_key"),
        "label_conflicts": tuple(_find_conflicts(images, same, clusters)),
        "clusters": every,
        "content_sha256": cache.content_sha256,
    }


def _has_looked(audit: Audit, images: Rows, threshold: float) -> bool:
    """Tell whether an audit has the near duplicates of just these images."""
    return (
        audit.near is not None
        and audit.near["threshold"] == threshold
        and np.array_equal(np.flatnonzero(audit.clusters >= 0), images)
    )


def _explain_chain(largest: int, images: int, threshold: float) -> str | None:
    if largest <= max(_CHAINED_IMAGES, _CHAINED_SHARE * images):
        return None
    return (
        f"near duplicates cannot be told apart at {threshold}: one chain joins {largest:,} of "
        f"{images:,} images; pass a higher threshold"
    )


def _count_copies(labels: Labels, splits: NDArray[np.str_]) -> dict[str, int]:
    """Count the groups of several rows, the rows in them, and those on two sides."""
    sizes = np.bincount(labels, minlength=1)
    sides = np.zeros((len(sizes), 3), bool)
    for place, name in enumerate(("train", "val", "test")):
        sides[labels[splits == name], place] = True
    seen = sides[:, 0] | sides[:, 1]
    return {
        "groups": int((sizes > 1).sum()),
        "files": int(sizes[sizes > 1].sum()),
        "cross_split_groups": int((sides.sum(axis=1) > 1).sum()),
        "test_files": int(seen[labels[splits == "test"]].sum()),
    }


def _find_conflicts(images: _Images, same: Labels, clusters: Labels) -> Iterator[dict[str, Any]]:
    """Yield the images that show the same and have different labels; identical files first."""
    told: set[int] = set()
    for kind, labels in (("identical", same), ("near", clusters)):
        for members in _mixed(labels, images.y):
            if told.isdisjoint(members.tolist()):
                told.update(members.tolist())
                rows = images.rows[members]
                yield {
                    "kind": kind,
                    "paths": images.cache.paths[rows].tolist(),
                    "labels": [images.cache.class_names[label] for label in images.y[members]],
                }


def _mixed(labels: Labels, y: NDArray[np.int64]) -> Iterator[Rows]:
    """Yield the labelled members of each group that has several classes."""
    known = np.flatnonzero(y >= 0)
    pairs = np.unique(np.column_stack([labels[known], y[known]]), axis=0)
    groups, classes = np.unique(pairs[:, 0], return_counts=True)
    for group in groups[classes > 1]:
        yield known[labels[known] == group]


def _find(audit: Audit) -> Iterator[str]:
    identical, near = audit.identical, audit.near
    conflicts = [conflict["kind"] for conflict in audit.label_conflicts]
    if count := conflicts.count("identical"):
        yield f"identical files have several labels: {_count(count, 'group')}"
    if groups := identical["cross_split_groups"]:
        yield (
            f"identical files are in several splits: {_count(groups, 'group')}, "
            f"{_count(identical['test_files'], 'test image')} with a copy in train"
        )
    if near and (chain := _explain_chain(near["largest"], audit.images, near["threshold"])):
        yield chain
    elif near and (clusters := near["cross_split_clusters"]):
        yield (
            f"near duplicates are in several splits: {_count(clusters, 'cluster')}, "
            f"{_count(near['test_files'], 'test image')} with a copy in train"
        )
    if audit.groups_across_splits:
        yield f"groups are in several splits: {audit.groups_across_splits:,} of the table's"
    if count := conflicts.count("near"):
        yield f"near duplicates have several labels: {_count(count, 'cluster')}"
    yield from _find_in_controls(audit)


def _find_in_controls(audit: Audit) -> Iterator[str]:
    if shortcut := audit.shortcut:
        least = shortcut["accuracy"] - 2 * shortcut["error"]
        if least > shortcut["chance"] + _SHORTCUT_MARGIN:
            yield (
                f"the class can be told without the pixels: {', '.join(shortcut['columns'])} give "
                f"an accuracy of {shortcut['accuracy']:.3f}, where chance is "
                f"{shortcut['chance']:.3f}"
            )
    if permutation := audit.permutation:
        error = permutation["std"] / np.sqrt(permutation["n_permutations"])
        above = permutation["accuracy"] - permutation["chance"]
        if above > max(_PERMUTATION_MARGIN, 3 * error):
            yield (
                f"shuffled labels are guessed with an accuracy of {permutation['accuracy']:.3f}, "
                f"where chance is {permutation['chance']:.3f}: copies give the answer away"
            )


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
