"""Exact duplicates, near duplicates, and the clusters that they form."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from brainfeat.errors import ParameterError
from brainfeat.leakage.neighbours import list_true

# Measured in docs/explanation/leakage.md: no two of 7,019 slices of different classes are as
# similar; re-saved, rescaled and brightened copies are.
NEAR_THRESHOLD = 0.92

# Images up to which near duplicates are looked for by default: some 12 s on two cores.
NEAR_SEARCH_LIMIT = 50_000

# A cluster of more images, and of more than this fraction of them, is taken for a chain of images
# that are not all alike.
_CHAINED_IMAGES = 10
_CHAINED_FRACTION = 0.1
# 2,048² similarities of float32 are 16 MiB.
_BLOCK_ROWS = 2048
# Pairs that are kept before they are reduced to the clusters that they join: 160 MB.
_PAIR_LIMIT = 10_000_000

Labels = NDArray[np.intp]


class Matrix(Protocol):
    """Rows of features, in memory or in a file."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(n, d)."""
        ...

    def __getitem__(self, rows: slice, /) -> NDArray[np.float32]:
        """Return some rows."""
        ...


class Pairs(NamedTuple):
    """Near duplicates: rows i < j of each pair, and their similarity."""

    first: NDArray[np.intp]
    second: NDArray[np.intp]
    similarity: NDArray[np.float32]


def label_exact_duplicates(sha256: NDArray[np.uint8]) -> Labels:
    """Label rows by content: those of the same file content have one label.

    Parameters
    ----------
    sha256 : ndarray of shape (n, 32), uint8
        Digests.

    Returns
    -------
    ndarray of shape (n,), int
        Labels 0…k−1 of the k different contents.

    Examples
    --------
    >>> label_exact_duplicates(np.array([[1] * 32, [0] * 32, [1] * 32], np.uint8)).tolist()
    [1, 0, 1]
    """
    digests = np.ascontiguousarray(sha256).view("V32").reshape(-1)
    _, labels = np.unique(digests, return_inverse=True)
    return labels.reshape(-1)


def find_near_duplicates(X: Matrix, *, threshold: float = NEAR_THRESHOLD) -> Iterator[Pairs]:
    """Yield all pairs of rows that are as similar as a threshold.

    The similarity is the cosine of the angle between two rows from which the mean row was
    subtracted. Each pair of rows is compared: the work grows with the square of their number.

    Parameters
    ----------
    X : array-like of shape (n, d), float32
        Features of view 0; a dataset that is sliced by rows is read a block at a time.
    threshold : float
        Least similarity, above 0 and at most 1.

    Yields
    ------
    Pairs
        In blocks.

    Raises
    ------
    ParameterError
        The threshold is out of range.
    """
    if not 0 < threshold <= 1:
        raise ParameterError(f"threshold {threshold}; expected above 0 and at most 1")
    directions = _directions(X)
    n = len(directions)
    for low in range(0, n, _BLOCK_ROWS):
        block = directions[low : low + _BLOCK_ROWS]
        for start in range(low, n, _BLOCK_ROWS):
            similarity = block @ directions[start : start + _BLOCK_ROWS].T
            if start == low:
                similarity[np.tril_indices(len(block))] = -1
            rows, columns = list_true(similarity >= np.float32(threshold))
            if len(rows):
                yield Pairs(rows + low, columns + start, similarity[rows, columns])


def find_nearest(X: Matrix, rows: NDArray[np.intp], *, of: NDArray[np.intp]) -> NDArray[np.intp]:
    """Find the most similar of some rows for each of other rows.

    Parameters
    ----------
    X : array-like of shape (n, d), float32
        Features of view 0, as in :func:`find_near_duplicates`.
    rows : ndarray of int, shape (m,)
        The rows whose neighbours are wanted.
    of : ndarray of int
        The rows that can be neighbours.

    Returns
    -------
    ndarray of shape (m,), int
        Indices into `of`.

    Examples
    --------
    >>> X = np.array([[1, 0], [-1, 0.1], [1, 0.2]], np.float32)
    >>> find_nearest(X, np.array([0]), of=np.array([1, 2])).tolist()
    [1]
    """
    directions = _directions(X)
    best = np.full(len(rows), -np.inf, np.float32)
    nearest = np.zeros(len(rows), np.intp)
    for low in range(0, len(rows), _BLOCK_ROWS):
        some = slice(low, low + _BLOCK_ROWS)
        block = directions[rows[some]]
        for start in range(0, len(of), _BLOCK_ROWS):
            similarity = block @ directions[of[start : start + _BLOCK_ROWS]].T
            place = similarity.argmax(axis=1)
            value = similarity[np.arange(len(block)), place]
            better = value > best[some]
            nearest[some][better] = place[better] + start
            best[some][better] = value[better]
    return nearest


def label_near_duplicates(X: Matrix, *, threshold: float = NEAR_THRESHOLD) -> Labels:
    """Label rows by cluster: those that a chain of near duplicates connects have one label.

    Parameters
    ----------
    X, threshold
        As in :func:`find_near_duplicates`.

    Returns
    -------
    ndarray of shape (n,), int
        Labels 0…k−1 of the k clusters; most clusters are a single row.

    Examples
    --------
    >>> X = np.array([[1, 0], [-1, 0.1], [1, 0.001]], np.float32)
    >>> label_near_duplicates(X).tolist()
    [0, 1, 0]
    """
    return connect_pairs(find_near_duplicates(X, threshold=threshold), X.shape[0])


def connect_pairs(blocks: Iterable[Pairs], n: int, *, labels: Labels | None = None) -> Labels:
    """Label rows by what chains of pairs connect, holding few of the pairs at a time.

    Parameters
    ----------
    blocks : iterable of Pairs
        Pairs in blocks, which are read once.
    n : int
        Number of rows.
    labels : ndarray of shape (n,), int, or None
        Labels that rows have already; None gives each its own.

    Returns
    -------
    ndarray of shape (n,), int
        Labels 0…k−1; most of them of a single row.
    """
    labels = np.arange(n) if labels is None else labels
    waiting: list[Pairs] = []
    held = 0
    for pairs in blocks:
        new = labels[pairs.first] != labels[pairs.second]
        waiting.append(Pairs(*(column[new] for column in pairs)))
        held += int(new.sum())
        if held > _PAIR_LIMIT:
            labels, held = _join(labels, waiting), 0
            waiting.clear()
    return _join(labels, waiting)


def explain_chain(largest: int, images: int, threshold: float) -> str | None:
    """Return a sentence where one cluster has too many images to be duplicates of each other.

    Parameters
    ----------
    largest, images : int
        Images in the largest cluster, and all.
    threshold : float
        Least similarity of a pair.

    Examples
    --------
    >>> explain_chain(10, 20, 0.92) is None
    True
    """
    if largest <= max(_CHAINED_IMAGES, _CHAINED_FRACTION * images):
        return None
    return (
        f"near duplicates cannot be told apart at {threshold}: one chain joins {largest:,} of "
        f"{images:,} images; pass a higher threshold"
    )


def join_labels(first: Labels, second: Labels) -> Labels:
    """Join two labellings: rows that either connects, over any number of steps, have one label.

    Parameters
    ----------
    first, second : ndarray of shape (n,), int

    Returns
    -------
    ndarray of shape (n,), int
        Labels 0…k−1.

    Examples
    --------
    >>> join_labels(np.array([0, 0, 1, 2]), np.array([0, 1, 1, 2])).tolist()
    [0, 0, 0, 1]
    """
    members = np.arange(len(first))
    _, representative = np.unique(second, return_index=True)
    _, place = np.unique(second, return_inverse=True)
    pairs = Pairs(members, representative[place], np.empty(0, np.float32))
    return _join(first, [pairs])


def _join(labels: Labels, pairs: list[Pairs]) -> Labels:
    """Merge the labels that pairs of rows connect."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    k = int(labels.max(initial=-1)) + 1
    first = np.concatenate([labels[pair.first] for pair in pairs] or [np.empty(0, np.intp)])
    second = np.concatenate([labels[pair.second] for pair in pairs] or [np.empty(0, np.intp)])
    edges = coo_array((np.ones(len(first), bool), (first, second)), shape=(k, k))
    _, component = connected_components(edges, directed=False)
    joined: Labels = component.astype(np.intp)[labels]
    return joined


def _directions(X: Matrix) -> NDArray[np.float32]:
    """Subtract the mean row and scale each row to length 1, in one new array."""
    rows = np.empty(X.shape, np.float32)
    total = np.zeros(X.shape[1])
    for start in range(0, len(rows), _BLOCK_ROWS):
        rows[start : start + _BLOCK_ROWS] = X[start : start + _BLOCK_ROWS]
        total += rows[start : start + _BLOCK_ROWS].sum(axis=0, dtype=np.float64)
    mean = (total / max(1, len(rows))).astype(np.float32)
    for start in range(0, len(rows), _BLOCK_ROWS):
        block = rows[start : start + _BLOCK_ROWS]
        block -= mean
        length = np.linalg.norm(block, axis=1, keepdims=True)
        # A row that is the mean itself has no direction and is near to none.
        np.divide(block, length, out=block, where=length > 0)
    return rows
