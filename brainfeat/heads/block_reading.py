"""The vectors of groups in joined caches: one for each group and block, side by side."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from brainfeat.cache.cache import FeatureCache
from brainfeat.cache.joined import GroupJoin
from brainfeat.heads.blocks import BlockVectors

Rows = NDArray[np.intp]

# Reads one vector for each bag: of a cache, its rows, bag after bag, and the offsets of the bags.
ReadBags = Callable[[FeatureCache, Rows, Rows], NDArray[np.float32]]


def read_blocks(cache: GroupJoin, rows: Rows, offsets: Rows, read: ReadBags) -> BlockVectors:
    """Read one vector of each block for each group, where it has images in it.

    Parameters
    ----------
    cache : GroupJoin
    rows : ndarray of shape (m,), int
        Rows of the join, group after group.
    offsets : ndarray of shape (n + 1,), int
        The rows of group i are ``rows[offsets[i]:offsets[i + 1]]``.
    read : callable
        Reads one vector for each bag of rows of one cache.

    Returns
    -------
    BlockVectors
        Of n rows.
    """
    n, block = len(offsets) - 1, cache.block[rows]
    place = np.repeat(np.arange(n), np.diff(offsets))
    parts = []
    for number, part in enumerate(cache.caches):
        here = block == number
        groups, sizes = np.unique(place[here], return_counts=True)
        values = np.full((n, part.spec.n_features), np.nan, np.float32)
        if len(groups):
            own = rows[here] - cache.starts[number]
            values[groups] = read(part, own, np.cumsum([0, *sizes]))
        parts.append(values)
    return BlockVectors(values=np.concatenate(parts, axis=1), widths=cache.widths)
