"""Which images of a cache heads have seen: the same file, a copy of it, or a near duplicate."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import NDArray

from brainfeat.text import count

if TYPE_CHECKING:
    from brainfeat.cache.cache import FeatureCache
    from brainfeat.evaluation.subsets import Plan
    from brainfeat.heads.bundle import HeadBundle
    from brainfeat.heads.fitted_images import FittedImages
    from brainfeat.leakage.results import Audit

Rows = NDArray[np.intp]
Flags = NDArray[np.bool_]
Digests = NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class SeenImages:
    """Which of m images one of several heads has seen.

    What is not known is None, and `reasons` has the reason by the name of the attribute.

    Attributes
    ----------
    exact_duplicates : ndarray of shape (m,), bool, or None
        Whether it was fitted or validated on a file of the same content.
    copies : ndarray of shape (m,), bool, or None
        Whether on that or on a copy, by the pixels, in one of eight orientations.
    near_duplicates : ndarray of shape (m,), bool, or None
        Whether on one of these or on a near duplicate, by the features.
    groups : ndarray of shape (m,), int
        Images of one group are not independent: those that chains of copies and groups of the table
        connect. Without signatures, exact duplicates take the place of copies, or near duplicates
        where the table has no groups.
    reasons : dict of str to str
    """

    exact_duplicates: Flags | None
    copies: Flags | None
    near_duplicates: Flags | None
    groups: Rows
    reasons: dict[str, str] = field(default_factory=dict)

    def pool(self, plan: "Plan") -> Self:
        """Find the same of the groups of a plan: one has been seen if any of its images has."""
        exact, copies, near = (
            None if flags is None else plan.any(flags)
            for flags in (self.exact_duplicates, self.copies, self.near_duplicates)
        )
        return replace(
            self,
            exact_duplicates=exact,
            copies=copies,
            near_duplicates=near,
            # All images of a group of the table have one label.
            groups=plan.first(self.groups),
        )


def find_seen(
    bundles: "Sequence[HeadBundle]",
    cache: "FeatureCache",
    rows: Rows,
    *,
    threshold: float | None = None,
    audit: "Audit | None" = None,
) -> SeenImages:
    """Find the images of a cache that one of the heads has seen, or a duplicate of which.

    A head knows the files and the signatures of the images that it was fitted and validated on,
    whatever the table calls them now. The file of an earlier version does not: nothing is known of
    what it has seen, but where its fit made the splits, on this cache, and recorded what it held
    out.

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
    from brainfeat.leakage.duplicates import label_exact_duplicates

    same = label_exact_duplicates(cache.sha256[rows])
    known = [_list_digests(bundle, cache) for bundle in bundles]
    digests = [found for found in known if found is not None]
    if len(digests) < len(bundles):
        reason = (
            "the head is of an earlier version and does not record what it was fitted on; fit it "
            "again to know"
        )
        kinds = ("exact_duplicates", "copies", "near_duplicates")
        among = _find_copies((), cache, rows, cache.sha256[:0]).clusters
        return SeenImages(
            exact_duplicates=None,
            copies=None,
            near_duplicates=None,
            groups=_join_groups(cache, rows, same if among is None else among),
            reasons=dict.fromkeys(kinds, reason),
        )
    seen = np.unique(np.concatenate(digests), axis=0)
    exact = _is_in(cache.sha256[rows], seen)
    copies = _find_copies([bundle.fitted_images for bundle in bundles], cache, rows, seen)
    near = _find_near(cache, rows, seen, threshold=threshold, audit=audit)
    clusters = same
    if copies.clusters is not None:
        clusters = copies.clusters
    elif near.clusters is not None and not cache.groups[rows].any():
        clusters = near.clusters
    flags = exact if copies.flags is None else exact | copies.flags
    return SeenImages(
        exact_duplicates=exact,
        copies=None if copies.flags is None else flags,
        near_duplicates=None if near.flags is None else flags | near.flags,
        groups=_join_groups(cache, rows, clusters),
        reasons={
            name: found.reason
            for name, found in (("copies", copies), ("near_duplicates", near))
            if found.reason is not None
        },
    )


def find_copied_images(
    fitted: "FittedImages", cache: "FeatureCache", rows: Rows
) -> tuple[Flags, Rows]:
    """Find the images of a cache that are copies of some that were fitted on.

    Parameters
    ----------
    fitted : FittedImages
    cache : FeatureCache
    rows : ndarray of int, shape (m,)
        Rows of view 0.

    Returns
    -------
    copied : ndarray of shape (m,), bool
        Exact duplicates alone where there are no signatures.
    groups : ndarray of shape (m,), int
        As in :class:`SeenImages`.
    """
    from brainfeat.leakage.duplicates import label_exact_duplicates

    exact = _is_in(cache.sha256[rows], fitted.seen)
    copies = _find_copies([fitted], cache, rows, fitted.seen)
    same = label_exact_duplicates(cache.sha256[rows])
    return (
        exact if copies.flags is None else exact | copies.flags,
        _join_groups(cache, rows, same if copies.clusters is None else copies.clusters),
    )


@dataclass(frozen=True, kw_only=True)
class _Found:
    """Images of which a head has seen a duplicate, or why that is not known; clusters of all."""

    flags: Flags | None = None
    clusters: Rows | None = None
    reason: str | None = None


def _find_copies(
    fitted: "Sequence[FittedImages | None]", cache: "FeatureCache", rows: Rows, seen: Digests
) -> _Found:
    """Find copies of what the heads have seen, by signatures of theirs or of the cache.

    Where some are not known, copies among the images themselves are found nevertheless.
    """
    from brainfeat.leakage.copy_groups import search_copies
    from brainfeat.leakage.duplicates import label_exact_duplicates

    if cache.signature is None:
        return _Found(reason="the cache has no signatures; run extract again to add them")
    signatures, digests, reason = [cache.signature[rows]], [cache.sha256[rows]], None
    for images in fitted:
        if images is not None and images.signature is not None:
            signatures.append(images.signature)
            digests.append(images.seen)
            continue
        wanted = seen if images is None else images.seen
        found = _find_rows(cache, wanted)
        if missing := _count_missing(cache, wanted):
            reason = (
                f"the head keeps no signatures of {count(missing, 'image')} that it was fitted on "
                "and that the cache does not have"
            )
        signatures.append(cache.signature[found])
        digests.append(cache.sha256[found])
    n = sum(map(len, digests))
    search = search_copies(
        np.concatenate(signatures),
        label_exact_duplicates(np.concatenate(digests)),
        y=np.full(n, -1),
        seen=np.arange(n) >= len(rows),
        n_queries=len(rows),
    )
    flags = search.seen[: len(rows)] if reason is None else None
    return _Found(flags=flags, clusters=search.labels[: len(rows)], reason=reason)


def _find_near(
    cache: "FeatureCache",
    rows: Rows,
    seen: Digests,
    *,
    threshold: float | None,
    audit: "Audit | None",
) -> _Found:
    """Find near duplicates of what the heads have seen, whose features only the cache has."""
    from brainfeat.leakage.duplicates import NEAR_SEARCH_LIMIT, NEAR_THRESHOLD
    from brainfeat.leakage.overlap import find_overlap

    if missing := _count_missing(cache, seen):
        return _Found(
            reason="near duplicates are found by features, and the cache does not have "
            f"{count(missing, 'image')} that the head was fitted on"
        )
    others = _find_rows(cache, seen)
    n_images = len(np.union1d(rows, others))
    if threshold is None and n_images > NEAR_SEARCH_LIMIT:
        return _Found(
            reason=f"near duplicates are looked for among up to {NEAR_SEARCH_LIMIT:,} images, got "
            f"{n_images:,}; pass a threshold to look"
        )
    overlap = find_overlap(
        cache,
        rows,
        others,
        threshold=NEAR_THRESHOLD if threshold is None else threshold,
        audit=audit,
    )
    if threshold is None and overlap.chain is not None:
        return _Found(reason=overlap.chain)
    return _Found(flags=overlap.near_duplicates, clusters=overlap.clusters)


def _list_digests(bundle: "HeadBundle", cache: "FeatureCache") -> Digests | None:
    """List the contents that a head was fitted and validated on; None where that is not known."""
    if bundle.fitted_images is not None:
        return bundle.fitted_images.seen
    held_out = bundle.training.held_out
    if held_out is None or bundle.training.cache_sha256 != cache.content_sha256:
        return None
    rows = np.flatnonzero(cache.view == 0)
    return cache.sha256[rows[~np.isin(cache.image_ids(rows), held_out.test)]]


def _join_groups(cache: "FeatureCache", rows: Rows, clusters: Rows) -> Rows:
    """Label each image by what groups of the table and clusters connect."""
    from brainfeat.leakage.duplicates import join_labels

    named = cache.groups[rows]
    units = np.where(named != "", named, [f"\0{row}" for row in rows])
    return join_labels(clusters, np.unique(units, return_inverse=True)[1])


def _find_rows(cache: "FeatureCache", digests: Digests) -> Rows:
    """List the images of a cache that have one of some contents."""
    return np.flatnonzero((cache.view == 0) & _is_in(cache.sha256, digests))


def _count_missing(cache: "FeatureCache", digests: Digests) -> int:
    return int((~_is_in(digests, cache.sha256)).sum())


def _is_in(sha256: Digests, others: Digests) -> Flags:
    one, other = (np.ascontiguousarray(found).view("V32").reshape(-1) for found in (sha256, others))
    return np.isin(one, other)
