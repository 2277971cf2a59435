"""Neighbours: pairs of points that are within a distance of each other."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

# Points up to which all pairs are compared: less than a minute on two cores.
EXACT_LIMIT = 200_000

# Points of a cell, on average, and the number of cells that each point is compared with. On 7,019
# public slices even cells of 8 points miss none of 25,014 pairs of copies.
_CELL_POINTS = 500
_PROBES = 16
# Points for each centre, and rounds, in which the centres are found.
_SAMPLE_POINTS = 64
_ROUNDS = 5
# A block of products, 4 MB of float32, stays in the processor's cache.
_BLOCK_ROWS = 512
_BLOCK_COLUMNS = 2048
# Added to squared distances, which are rounded to float32: 0.0001 for points of length 1.
_SLACK = 1e-4

Rows = NDArray[np.intp]
Points = NDArray[np.float32]


def find_neighbours(
    points: Points, distance: float, *, n_queries: int | None = None
) -> Iterator[tuple[Rows, Rows]]:
    """Yield all pairs of points that are within a distance of each other.

    Among more than :data:`EXACT_LIMIT` points, each is compared with those in the 16 of many cells
    whose centres are nearest to it. The work then grows little faster than the number of points,
    and a pair can be missed if it is in two cells and neither is among the nearest to the other
    point. That is likely only where points are as far from each other as from the centres.

    Parameters
    ----------
    points : ndarray of shape (n, d), float32
        Of lengths up to about 1.
    distance : float
        Largest distance of two points.
    n_queries : int or None
        Yield only pairs of which one point is among the first `n_queries`. None takes all.

    Yields
    ------
    first, second : ndarray of int
        Rows of the pairs, first < second, in blocks; each pair once. A few pairs may be farther
        apart than `distance`, by rounding.

    References
    ----------
    Cells: Sivic and Zisserman, "Video Google", ICCV 2003.

    Examples
    --------
    >>> points = np.array([[0, 0], [0.6, 0.8], [0, 0.2]], np.float32)
    >>> [(first, second)] = find_neighbours(points, 0.4)
    >>> first.tolist(), second.tolist()
    ([0], [2])
    """
    bound = np.float32((distance**2 + _SLACK) / -2)
    queries = len(points) if n_queries is None else n_queries
    if len(points) <= EXACT_LIMIT:
        return _compare_all(points, bound, queries)
    return _compare_cells(points, bound, queries)


def _compare_all(points: Points, bound: np.float32, n_queries: int) -> Iterator[tuple[Rows, Rows]]:
    for low in range(0, n_queries, _BLOCK_ROWS):
        asking = _as_queries(points[low : min(low + _BLOCK_ROWS, n_queries)])
        for start in range(low, len(points), _BLOCK_COLUMNS):
            others = _as_others(points[start : start + _BLOCK_COLUMNS])
            first, second = _find_near(asking, others, bound)
            first, second = first + low, second + start
            ordered = first < second
            if ordered.any():
                yield first[ordered], second[ordered]


def _compare_cells(
    points: Points, bound: np.float32, n_queries: int
) -> Iterator[tuple[Rows, Rows]]:
    centres = _find_centres(points)
    home, probes = _choose_cells(points, centres, n_queries)
    members = _list_places(home, len(centres))
    visitors = _list_places(probes.reshape(-1), len(centres))
    for cell in range(len(centres)):
        for others in _split(members[cell], _BLOCK_COLUMNS):
            extended = _as_others(points[others])
            for asking in _split(visitors[cell] // probes.shape[1], _BLOCK_ROWS):
                one, other = _find_near(_as_queries(points[asking]), extended, bound)
                query, found = asking[one], others[other]
                # Two points that visit each other meet twice.
                again = found < n_queries
                again[again] = (probes[found[again]] == home[query[again], None]).any(axis=1)
                kept = np.where(again, query < found, query != found)
                if kept.any():
                    pair = query[kept], found[kept]
                    yield np.minimum(*pair), np.maximum(*pair)


def _as_queries(points: Points) -> Points:
    """Append −½|x|² and 1: products of queries x and others y are −½|x − y|²."""
    return np.concatenate([points, _half_squares(points), np.ones_like(points[:, :1])], axis=1)


def _as_others(points: Points) -> Points:
    """Append 1 and −½|y|²."""
    return np.concatenate([points, np.ones_like(points[:, :1]), _half_squares(points)], axis=1)


def _half_squares(points: Points) -> Points:
    squares: Points = np.vecdot(points, points)
    return squares[:, None] / np.float32(-2)


def _find_near(asked: Points, others: Points, bound: np.float32) -> tuple[Rows, Rows]:
    """List the pairs of queries and others whose product is as large as a bound."""
    return list_true(asked @ others.T >= bound)


def list_true(table: NDArray[np.bool_]) -> tuple[Rows, Rows]:
    """List the rows and columns of what is true, like ``numpy.nonzero``, where that is rare.

    Parameters
    ----------
    table : ndarray of shape (m, n), bool
        In C order.

    Returns
    -------
    rows, columns : ndarray of int

    Examples
    --------
    >>> rows, columns = list_true(np.array([[False, True], [False, False], [True, False]]))
    >>> rows.tolist(), columns.tolist()
    ([0, 2], [1, 0])
    """
    flat = table.reshape(-1)
    # Eight are looked at together first.
    eights = np.flatnonzero(flat[: len(flat) // 8 * 8].view(np.uint64))
    rest = np.arange(len(flat) // 8 * 8, len(flat))
    places = np.concatenate([(8 * eights[:, None] + np.arange(8)).reshape(-1), rest])
    rows, columns = np.divmod(places[flat[places]], max(1, table.shape[1]))
    return rows, columns


def _find_centres(points: Points) -> Points:
    """Find the centres of cells by a few rounds of k-means on some of the points."""
    number = max(1, len(points) // _CELL_POINTS)
    rows = np.random.default_rng(0).permutation(len(points))[: number * _SAMPLE_POINTS]
    sample = points[rows]
    centres = sample[:number]
    for _ in range(_ROUNDS):
        home = _choose_cells(sample, centres, 0)[0]
        order = np.argsort(home, kind="stable")
        _, starts, counts = np.unique(home[order], return_index=True, return_counts=True)
        sums = np.add.reduceat(sample[order], starts)
        centres = (sums / counts[:, None]).astype(np.float32)
    return centres


def _choose_cells(
    points: Points, centres: Points, n_queries: int
) -> tuple[Rows, NDArray[np.int32]]:
    """Return the nearest centre of each point, and the nearest few of each query, (q, 16)."""
    few = min(_PROBES, len(centres))
    home = np.empty(len(points), np.intp)
    probes = np.empty((n_queries, few), np.int32)
    others = _as_others(centres)
    for start in range(0, len(points), _BLOCK_ROWS):
        stop = min(start + _BLOCK_ROWS, len(points))
        products = _as_queries(points[start:stop]) @ others.T
        home[start:stop] = products.argmax(axis=1)
        asking = products[: max(0, n_queries - start)]
        nearest = np.argpartition(asking, -few, axis=1)[:, -few:]
        probes[start : start + len(asking)] = nearest
    return home, probes


def _list_places(values: NDArray[np.integer], k: int) -> list[Rows]:
    """List the places of each of the values 0…k−1."""
    order = np.argsort(values, kind="stable")
    return np.split(order, np.cumsum(np.bincount(values, minlength=k))[:-1])


def _split(rows: Rows, number: int) -> Iterator[Rows]:
    return (rows[start : start + number] for start in range(0, len(rows), number))
