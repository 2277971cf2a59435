"""What stays of a signature that may be mirrored or turned."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from brainfeat.cache.signature import SIDE, orient_signatures
from brainfeat.leakage.folding import describe_signatures, fold_signatures


def draw(seed, rows, least=-127):
    return np.random.default_rng(seed).integers(least, 128, (rows, 1936)).astype(np.int8)


def scale(signatures):
    vectors = signatures.astype(np.float64)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def measure(one, other):
    """Return the smallest distance of each pair in any orientation."""
    turned = [np.linalg.norm(one - orient_signatures(other, turn), axis=1) for turn in range(8)]
    return np.min(turned, axis=0)


@pytest.mark.parametrize("turn", range(8))
def test_all_orientations_fold_to_the_same(turn):
    signatures = draw(0, 5)
    folded = fold_signatures(orient_signatures(signatures, turn))
    np.testing.assert_array_equal(folded, fold_signatures(signatures))


def test_a_folded_signature_has_length_1():
    folded = fold_signatures(draw(0, 5, least=3))
    assert folded.shape == (5, 1936)
    np.testing.assert_allclose(np.linalg.norm(folded, axis=1), 1, rtol=1e-6)


@given(seed=st.integers(0, 10_000), noise=st.floats(0, 2), turn=st.integers(0, 7))
def test_folding_brings_no_two_signatures_further_apart(seed, noise, turn):
    one = draw(seed, 6)
    other = one + noise * np.random.default_rng(seed + 1).normal(scale=60, size=one.shape)
    other = orient_signatures(np.clip(np.rint(other), -127, 127).astype(np.int8), turn)
    folded = np.linalg.norm(fold_signatures(one) - fold_signatures(other), axis=1)
    assert (folded <= measure(scale(one), scale(other)) + 1e-5).all()


@pytest.mark.parametrize("kind", [(0, 2), (1, 3), (0, 3), (1, 2), (4, 4), (5, 5)])
def test_two_coefficients_fold_to_the_nearest_of_their_orientations(kind):
    """So folding a single pair of coefficients loses nothing of their distance."""
    rng = np.random.default_rng(0)
    squares = np.zeros((2, 40, SIDE, SIDE), np.int8)
    row, column = kind
    for place in ((row, column), (column, row)):
        squares[:, :, *place] = rng.integers(1, 128, (2, 40)) * rng.choice([-1, 1], (2, 40))
    one, other = squares.reshape(2, 40, 1936)
    folded = np.linalg.norm(fold_signatures(one) - fold_signatures(other), axis=1)
    np.testing.assert_allclose(folded, measure(scale(one), scale(other)), atol=1e-6)


@pytest.mark.parametrize("rows", [1, 3, 250])
def test_descriptions_are_at_most_as_far_apart(rows):
    signatures = draw(rows, rows)
    signatures[1::2] = np.clip(signatures[0 : rows - rows % 2 : 2] // 2 + 5, -127, 127)
    described, descriptions = describe_signatures(signatures)
    folded = fold_signatures(signatures)
    assert described.tolist() == list(range(rows))
    assert descriptions.shape == (rows, min(rows, 192))
    assert descriptions.dtype == np.float32
    near, far = (np.linalg.norm(rows[1:] - rows[:-1], axis=1) for rows in (descriptions, folded))
    assert (near <= far + 1e-5).all()
    if rows == 3:
        np.testing.assert_allclose(near, far, atol=1e-5)


def test_blank_images_have_no_description():
    signatures = draw(0, 5)
    signatures[[0, 3]] = 0
    described, descriptions = describe_signatures(signatures)
    assert described.tolist() == [1, 2, 4]
    assert len(descriptions) == 3
    assert describe_signatures(signatures[:0])[1].shape == (0, 0)


def test_descriptions_tell_images_apart():
    """Copies with noise stay nearer than 0.4, other images are mostly further apart."""
    signatures = draw(0, 400)
    noise = np.random.default_rng(1).normal(scale=10, size=(200, 1936))
    signatures[200:] = np.clip(np.rint(signatures[:200] + noise), -127, 127)
    _, descriptions = describe_signatures(signatures)
    distances = np.linalg.norm(descriptions[:, None] - descriptions, axis=2)
    assert distances[np.arange(200), np.arange(200, 400)].max() < 0.15
    assert (distances[:200, :200] < 0.15).sum() == 200
