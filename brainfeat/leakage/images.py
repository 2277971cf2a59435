"""The images of a cache, as an audit reads them."""

import numpy as np
from numpy.typing import NDArray

from brainfeat.cache.cache import FeatureCache
from brainfeat.cache.joined import GroupJoin, ImageJoin
from brainfeat.errors import CacheError
from brainfeat.leakage.duplicates import Labels, label_near_duplicates

Rows = NDArray[np.intp]


class FeatureRows:
    """Some rows of a cache's features, read a block at a time.

    Of caches that are joined on images, these are the features of the first, as its signatures are:
    side by side, those with the largest numbers would decide what is near.

    Parameters
    ----------
    cache : FeatureCache
    rows : ndarray of int, shape (m,)
    """

    def __init__(self, cache: FeatureCache, rows: Rows) -> None:
        self._X = cache.take(0).X if isinstance(cache, ImageJoin) else cache.X
        self._rows = rows
        self.shape = (len(rows), self._X.shape[1])

    def __getitem__(self, rows: slice) -> NDArray[np.float32]:
        block = self._X[self._rows[rows]]
        if bad := int((~np.isfinite(block)).any(axis=1).sum()):
            raise CacheError(
                f"the features are not finite in {bad:,} of {len(block):,} rows that were looked "
                "at; extract them anew, in float32"
            )
        return block


class Images:
    """The images of a cache, which are its rows of view 0, with their labels, splits and groups.

    Parameters
    ----------
    cache : FeatureCache

    Raises
    ------
    CacheError
        It has no images.
    """

    def __init__(self, cache: FeatureCache) -> None:
        self.cache = cache
        self.rows: Rows = np.flatnonzero(cache.is_image)
        if not len(self.rows):
            raise CacheError(f"{cache.path} has no images to look at")
        self.y = cache.y[self.rows]
        self.splits = cache.splits[self.rows]
        self.groups = cache.groups[self.rows]


def label_near_images(cache: FeatureCache, rows: Rows, *, threshold: float) -> Labels:
    """Label images by cluster of near duplicates; in joined caches, each block by itself.

    Features of several blocks cannot be compared.

    Parameters
    ----------
    cache : FeatureCache
    rows : ndarray of int, shape (m,)
    threshold : float
        As of :func:`brainfeat.leakage.duplicates.label_near_duplicates`.

    Returns
    -------
    ndarray of shape (m,), int
        Labels 0…k−1 of the k clusters.
    """
    if not isinstance(cache, GroupJoin):
        return label_near_duplicates(FeatureRows(cache, rows), threshold=threshold)
    labels, number = np.empty(len(rows), np.intp), 0
    for block, part in enumerate(cache.caches):
        here = cache.block[rows] == block
        own = FeatureRows(part, rows[here] - cache.starts[block])
        found = label_near_duplicates(own, threshold=threshold)
        labels[here] = found + number
        number += int(found.max(initial=-1)) + 1
    return labels
