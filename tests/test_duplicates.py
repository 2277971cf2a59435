"""Duplicates: what is near, what is joined, and that a block more or less changes nothing."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from brainfeat.errors import ParameterError
from brainfeat.leakage import duplicates
from brainfeat.leakage.duplicates import (
    find_near_duplicates,
    find_nearest,
    join_labels,
    label_exact_duplicates,
    label_near_duplicates,
)


def blobs(n_groups, size, *, spread, seed=0, width=16):
    """Draw groups of points around directions that are far from each other."""
    rng = np.random.default_rng(seed)
    centres = np.repeat(rng.normal(size=(n_groups, width)), size, axis=0)
    return (centres + spread * rng.normal(size=centres.shape)).astype(np.float32)


def similarities(X):
    centred = X.astype(np.float64) - X.mean(axis=0, dtype=np.float64)
    unit = centred / np.linalg.norm(centred, axis=1, keepdims=True)
    return unit @ unit.T


def all_pairs(X, **options):
    found = list(find_near_duplicates(X, **options))
    return {(int(i), int(j)): float(s) for pairs in found for i, j, s in zip(*pairs, strict=True)}


@pytest.mark.parametrize("rows", [1, 7, 64, 2048])
def test_pairs_are_those_of_the_whole_matrix(monkeypatch, rows):
    monkeypatch.setattr(duplicates, "_BLOCK_ROWS", rows)
    X = blobs(20, 5, spread=0.2)
    expected = similarities(X)
    pairs = all_pairs(X, threshold=0.9)
    i, j = np.nonzero(np.triu(expected >= 0.9, 1))
    assert set(pairs) == set(zip(i.tolist(), j.tolist(), strict=True))
    assert len(pairs) > 100
    assert all(abs(s - expected[pair]) < 1e-5 for pair, s in pairs.items())


def test_clusters_are_chains():
    """Each step of the chain is near; its ends are not."""
    angles = np.linspace(0, np.pi, 40, endpoint=False)
    X = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    X = np.concatenate([X, -X])
    assert len(set(label_near_duplicates(X, threshold=0.99))) == 1
    assert len(set(label_near_duplicates(X, threshold=0.9999))) == 80


@pytest.mark.parametrize("limit", [1, 10, 10_000])
def test_clusters_are_those_of_the_groups_however_few_pairs_are_held(monkeypatch, limit):
    monkeypatch.setattr(duplicates, "_PAIR_LIMIT", limit)
    monkeypatch.setattr(duplicates, "_BLOCK_ROWS", 16)
    labels = label_near_duplicates(blobs(12, 6, spread=0.05))
    assert len(set(labels)) == 12
    assert all(len(set(labels[start : start + 6])) == 1 for start in range(0, 72, 6))


def test_a_row_that_is_the_mean_is_near_to_none():
    X = np.array([[1, 0], [-1, 0], [0, 0]], np.float32)
    assert not all_pairs(X)


@pytest.mark.parametrize("n", [0, 1])
def test_few_rows_have_no_pairs(n):
    X = np.ones((n, 4), np.float32)
    assert not all_pairs(X)
    assert label_near_duplicates(X).tolist() == list(range(n))


@pytest.mark.slow
def test_many_copies_of_one_image_are_one_cluster():
    X = np.concatenate([np.tile([[1, 2, 3, 4]], (5000, 1)), -np.ones((5, 4))])
    labels = label_near_duplicates(X.astype(np.float32))
    assert np.bincount(labels)[labels[0]] == 5000


@pytest.mark.parametrize("threshold", [0, -1, 1.01, np.nan])
def test_a_threshold_out_of_range_is_refused(threshold):
    with pytest.raises(ParameterError, match="expected above 0 and at most 1"):
        label_near_duplicates(np.ones((2, 2), np.float32), threshold=threshold)


def test_identical_files_have_one_label():
    rng = np.random.default_rng(0)
    digests = rng.integers(0, 256, (6, 32), np.uint8)
    digests[4], digests[5] = digests[1], digests[1]
    digests[3, :31] = digests[2, :31]  # the last byte alone differs
    digests[3, 31] = digests[2, 31] ^ 1
    labels = label_exact_duplicates(digests)
    assert len(set(labels)) == 4
    assert labels[1] == labels[4] == labels[5]
    assert labels[2] != labels[3]


@given(
    st.integers(1, 30).flatmap(
        lambda n: st.tuples(*[hnp.arrays(np.intp, n, elements=st.integers(0, n - 1))] * 2)
    )
)
def test_joined_labels_are_the_finest_that_either_connects(pair):
    first, second = (np.unique(labels, return_inverse=True)[1].reshape(-1) for labels in pair)
    joined = join_labels(first, second)
    component = np.arange(len(first))
    for _ in component:
        for labels in (first, second):
            for label in set(labels):
                component[labels == label] = component[labels == label].min()
    same = component[:, None] == component[None, :]
    assert np.array_equal(joined[:, None] == joined[None, :], same)
    assert set(joined) == set(range(joined.max() + 1))


@pytest.mark.parametrize("rows", [1, 7, 64, 2048])
def test_the_nearest_is_that_of_the_whole_matrix(monkeypatch, rows):
    monkeypatch.setattr(duplicates, "_BLOCK_ROWS", rows)
    X = blobs(20, 5, spread=0.8)
    asked, offered = np.arange(0, 100, 3), np.arange(1, 100, 3)[::-1]
    expected = similarities(X)[np.ix_(asked, offered)].argmax(axis=1)
    np.testing.assert_array_equal(find_nearest(X, asked, of=offered), expected)
