"""Duplicates between two sets of images of a cache."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from brainfeat.cache.cache import FeatureCache
from brainfeat.errors import ParameterError
from brainfeat.leakage.duplicates import (
    NEAR_THRESHOLD,
    Labels,
    explain_chain,
    join_labels,
    label_exact_duplicates,
)
from brainfeat.leakage.images import Rows, label_near_images
from brainfeat.leakage.results import Audit


@dataclass(frozen=True, kw_only=True, eq=False)
class Overlap:
    """Which images have duplicates among others, such as test images among those of train.

    Attributes
    ----------
    exact_duplicates : ndarray of shape (m,), bool
        Whether one of the others has the same content.
    near_duplicates : ndarray of shape (m,), bool
        Whether one of the others is in the same cluster of near duplicates.
    clusters : ndarray of shape (m,), int
        Cluster of each of the images.
    chain : str or None
        A sentence where one cluster has so many of all images that chains have joined images that
        are not alike.
    """

    exact_duplicates: NDArray[np.bool_]
    near_duplicates: NDArray[np.bool_]
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
    """Find out which images of a cache have a duplicate among others of it.

    Parameters
    ----------
    cache : FeatureCache
    rows : ndarray of int, shape (m,)
        The images, by rows of view 0.
    others : ndarray of int
        The others; an image that is one of them has a duplicate there.
    threshold : float
        As in :func:`brainfeat.audit`.
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
    same = label_exact_duplicates(cache.sha256[images])
    if audit is not None and _has_looked(audit, images, threshold):
        near = audit.clusters[images]
    else:
        near = label_near_images(cache, images, threshold=threshold)
    clusters = join_labels(same, near)
    here, there = place[: len(rows)], place[len(rows) :]
    return Overlap(
        exact_duplicates=np.isin(same[here], same[there]),
        near_duplicates=np.isin(clusters[here], clusters[there]),
        clusters=clusters[here],
        chain=explain_chain(int(np.bincount(clusters).max()), len(images), threshold),
    )


def _has_looked(audit: Audit, images: Rows, threshold: float) -> bool:
    """Return whether an audit has the near duplicates of just these images."""
    return (
        audit.near_duplicates is not None
        and audit.near_duplicates.threshold == threshold
        and np.array_equal(np.flatnonzero(audit.clusters >= 0), images)
    )
