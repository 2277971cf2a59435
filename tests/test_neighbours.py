"""Pairs of points that are near each other, among few points and among many."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from brainfeat.leakage import neighbours
from brainfeat.leakage.neighbours import find_neighbours


def draw(n, d=4, seed=0):
    return np.random.default_rng(seed).normal(scale=0.3, size=(n, d)).astype(np.float32)


def list_pairs(points, distance, n_queries=None):
    """List the pairs that are found, and fail if one comes twice or the wrong way round."""
    pairs = [
        (int(one), int(other))
        for first, second in find_neighbours(points, distance, n_queries=n_queries)
        for one, other in zip(first, second, strict=True)
    ]
    assert len(set(pairs)) == len(pairs)
    assert all(one < other for one, other in pairs)
    return set(pairs)


def compare(points, distance):
    exact = np.linalg.norm(points[:, None].astype(float) - points, axis=2)
    return set(zip(*np.nonzero(np.triu(exact <= distance, 1)), strict=True))


@given(n=st.integers(0, 60), d=st.integers(1, 6), distance=st.floats(0.01, 2))
def test_all_pairs_within_the_distance_are_found(n, d, distance):
    points = draw(n, d, seed=n)
    found = list_pairs(points, distance)
    assert compare(points, distance) <= found
    assert found <= compare(points, np.sqrt(distance**2 + 3e-4))


@pytest.mark.parametrize("many", [False, True])
@pytest.mark.parametrize("n_queries", [None, 0, 1, 37, 99, 100])
def test_blocks_and_queries_do_not_change_the_pairs(monkeypatch, many, n_queries):
    points = draw(100)
    pairs = compare(points, 0.4)
    assert len(pairs) > 300
    monkeypatch.setattr(neighbours, "_BLOCK_ROWS", 7)
    monkeypatch.setattr(neighbours, "_BLOCK_COLUMNS", 13)
    if many:
        cut_into_cells(monkeypatch, points=10, probes=10)
    limit = 100 if n_queries is None else n_queries
    found = list_pairs(points, 0.4, n_queries)
    assert found == {pair for pair in pairs if pair[0] < limit}


def cut_into_cells(monkeypatch, *, points, probes):
    monkeypatch.setattr(neighbours, "EXACT_LIMIT", 0)
    monkeypatch.setattr(neighbours, "_CELL_POINTS", points)
    monkeypatch.setattr(neighbours, "_PROBES", probes)


@pytest.mark.parametrize("probes", [1, 2, 3])
def test_each_pair_in_visited_cells_comes_once(monkeypatch, probes):
    points = draw(300, seed=1)
    cut_into_cells(monkeypatch, points=20, probes=probes)
    assert list_pairs(points, 3) < compare(points, 3)


def test_near_pairs_among_many_points_are_found_in_a_few_cells(monkeypatch):
    points = draw(2000, d=16)
    points[1000:] = points[:1000] + draw(1000, d=16, seed=1) / 10
    cut_into_cells(monkeypatch, points=10, probes=16)
    compared = []
    find = neighbours._find_near
    monkeypatch.setattr(
        neighbours,
        "_find_near",
        lambda one, other, bound: compared.append(len(one) * len(other)) or find(one, other, bound),
    )
    assert list_pairs(points, 0.4) >= {(row, row + 1000) for row in range(1000)}
    assert sum(compared) < 0.15 * 2000**2


def test_the_same_points_have_one_cell(monkeypatch):
    points = np.zeros((50, 3), np.float32)
    cut_into_cells(monkeypatch, points=5, probes=2)
    assert len(list_pairs(points, 0.1)) == 50 * 49 / 2
