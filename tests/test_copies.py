"""Copies of images in any of eight orientations, found by their signatures."""

import re
from collections import Counter
from functools import cache

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from brainfeat.cache.signature import ORIENTATIONS, compute_signature, orient_signatures
from brainfeat.errors import ParameterError
from brainfeat.leakage import copies as module
from brainfeat.leakage import folding, neighbours
from brainfeat.leakage.copies import Copies, find_copies
from brainfeat.phantoms import CLASS_NAMES, draw_slice
from brainfeat.readers import read_image

INVERSE = {"rotate_90": "rotate_270", "rotate_270": "rotate_90"}


def blots(seed, size=64):
    """Draw an image of a few random blots, grey."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6), np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC))


def turn(pixels, name):
    """Mirror or turn an image as Pillow does."""
    if name == "upright":
        return pixels
    return np.asarray(Image.fromarray(pixels).transpose(Image.Transpose[name.upper()]))


def sign(images):
    return np.stack([compute_signature(image) for image in images])


def found(signatures, **options):
    """Return all pairs with the name of their orientation, and their similarity."""
    blocks = list(find_copies(signatures, **options))
    return {
        (int(first), int(second)): (ORIENTATIONS[turned], float(similarity))
        for block in blocks
        for first, second, similarity, turned in zip(*block, strict=True)
    }


@pytest.mark.parametrize("name", ORIENTATIONS)
@given(seed=st.integers(0, 10_000))
def test_each_orientation_is_found_by_its_name(name, seed):
    """The name says how the second image becomes the first."""
    image = blots(seed)
    pairs = found(sign([turn(image, name), blots(seed + 20_000), image]))
    assert set(pairs) == {(0, 2)}
    told, similarity = pairs[0, 2]
    assert told == name
    assert 0.99 < similarity <= 1.001
    (back, _) = found(sign([image, turn(image, name)]))[0, 1]
    assert back == INVERSE.get(name, name)


@given(
    seeds=st.lists(st.integers(0, 3), min_size=2, max_size=7),
    turns=st.lists(st.integers(0, 7), min_size=7, max_size=7),
    order=st.permutations(range(7)),
)
def test_the_order_of_the_rows_does_not_matter(seeds, turns, order):
    signatures = sign(
        turn(blots(seed), ORIENTATIONS[turned]) for seed, turned in zip(seeds, turns, strict=False)
    )
    order = [row for row in order if row < len(seeds)]
    pairs = found(signatures)
    assert set(pairs) == {
        (a, b) for b in range(len(seeds)) for a in range(b) if seeds[a] == seeds[b]
    }
    shuffled = {}
    for (a, b), (name, similarity) in found(signatures[order]).items():
        first, second = order[a], order[b]
        told = name if first < second else INVERSE.get(name, name)
        shuffled[min(first, second), max(first, second)] = (told, pytest.approx(similarity, 1e-5))
    assert pairs == shuffled


def test_blank_images_are_copies_of_nothing():
    blank = np.full((40, 40), 7, np.uint8)
    assert found(sign([blank, blots(1), blank, blank[:30]])) == {}


def test_slices_of_different_patients_are_no_copies():
    slices = [
        draw_slice(name, patient=patient, level=4) for name in CLASS_NAMES for patient in range(5)
    ]
    assert found(sign(slices)) == {}


def test_an_altered_slice_is_a_copy():
    slice_ = draw_slice("glioma", patient=0, level=4)
    picture = Image.fromarray(slice_)
    altered = [
        np.asarray(picture.resize((100, 140))),
        np.asarray(picture.point(lambda value: min(255, int(value * 1.3)))),
        np.asarray(picture.transpose(Image.Transpose.ROTATE_270).resize((160, 160))),
    ]
    pairs = found(sign([slice_, *altered]))
    assert {pair for pair in pairs if pair[0] == 0} == {(0, 1), (0, 2), (0, 3)}


def test_blocks_of_any_size_give_the_same_pairs(monkeypatch):
    signatures = sign(turn(blots(row % 9), ORIENTATIONS[row % 8]) for row in range(40))
    pairs = found(signatures)
    assert len(pairs) == sum(size * (size - 1) // 2 for size in Counter(np.arange(40) % 9).values())
    monkeypatch.setattr(neighbours, "_BLOCK_ROWS", 7)
    monkeypatch.setattr(neighbours, "_BLOCK_COLUMNS", 5)
    monkeypatch.setattr(folding, "_BLOCK_ROWS", 3)
    monkeypatch.setattr(module, "_PAIRS_READ", 5)
    monkeypatch.setattr(module, "_PAIRS_AT_ONCE", 2)
    blocks = list(find_copies(signatures))
    assert len(blocks) > 10
    assert all(isinstance(block, Copies) for block in blocks)
    told = [pair for block in blocks for pair in zip(block.first, block.second, strict=True)]
    assert sorted(told) == sorted(pairs)


def compare(signatures, threshold):
    """Compare all whole signatures with each other in all orientations."""
    directions = signatures / np.linalg.norm(signatures.astype(float), axis=1, keepdims=True)
    cosines = np.stack([directions @ orient_signatures(directions, turn).T for turn in range(8)])
    best = cosines.max(axis=0)
    return {
        (int(a), int(b)): (ORIENTATIONS[cosines[:, a, b].argmax()], pytest.approx(best[a, b], 1e-6))
        for a, b in zip(*np.nonzero(np.triu(best >= threshold, 1)), strict=True)
    }


def blend(signatures, seed):
    """Draw signatures between pairs of others, turned: from copies to unlike images."""
    rng = np.random.default_rng(seed)
    one, other = (signatures[rng.integers(len(signatures), size=200)] for _ in range(2))
    part = rng.uniform(0, 0.6, (200, 1))
    blended = np.rint((1 - part) * one + part * other).astype(np.int8)
    turns = rng.integers(8, size=200)
    return np.stack(
        [orient_signatures(row, turn) for row, turn in zip(blended, turns, strict=True)]
    )


@cache
def sign_phantoms():
    """Compute the signatures of 16 slices of different patients."""
    return sign(
        draw_slice(name, patient=patient, level=4) for name in CLASS_NAMES for patient in range(4)
    )


@pytest.mark.parametrize("threshold", [0.8, 0.92, 0.97])
@pytest.mark.parametrize("drawn", ["noise", "phantoms"])
def test_all_pairs_are_those_of_brute_force(drawn, threshold):
    noise = np.random.default_rng(0).integers(-127, 128, (20, 1936)).astype(np.int8)
    signatures = blend(noise if drawn == "noise" else sign_phantoms(), seed=int(100 * threshold))
    pairs = compare(signatures, threshold)
    assert len(pairs) > 100
    assert found(signatures, threshold=threshold) == pairs


def test_among_many_images_copies_are_found_in_cells(monkeypatch):
    signatures = sign(turn(blots(row % 150), ORIENTATIONS[row % 8]) for row in range(400))
    pairs = found(signatures)
    monkeypatch.setattr(neighbours, "EXACT_LIMIT", 399)
    monkeypatch.setattr(neighbours, "_CELL_POINTS", 10)
    monkeypatch.setattr(neighbours, "_PROBES", 3)
    assert found(signatures) == pairs
    assert found(signatures, n_queries=90) == {pair: pairs[pair] for pair in pairs if pair[0] < 90}


def test_signatures_are_read_from_a_file(tmp_path):
    signatures = sign(turn(blots(row % 20), ORIENTATIONS[row % 8]) for row in range(60))
    with h5py.File(tmp_path / "signatures.h5", "w") as file:
        file["signature"] = signatures
        assert found(file["signature"]) == found(signatures)


def test_turned_signatures_have_a_similarity_of_1():
    signature = sign([blots(3)])
    signatures = np.concatenate([orient_signatures(signature, turn) for turn in range(8)])
    pairs = found(signatures, threshold=1)
    assert len(pairs) == 28
    assert {similarity for _, similarity in pairs.values()} == {1}


@pytest.mark.parametrize("n_queries", [0, 1, 7, 12, 40])
def test_queries_are_the_first_images_of_pairs(monkeypatch, n_queries):
    signatures = sign(turn(blots(row % 9), ORIENTATIONS[row % 8]) for row in range(40))
    pairs = found(signatures)
    monkeypatch.setattr(neighbours, "_BLOCK_ROWS", 7)
    queried = found(signatures, n_queries=n_queries)
    assert set(queried) == {pair for pair in pairs if pair[0] < n_queries}
    assert {pair: queried[pair][0] for pair in queried} == {
        pair: pairs[pair][0] for pair in queried
    }


@pytest.mark.parametrize("n_queries", [-1, 3])
def test_a_number_of_queries_out_of_range(n_queries):
    with pytest.raises(ParameterError, match=f"n_queries {n_queries}; expected 0 to 2, the number"):
        list(find_copies(np.zeros((2, 1936), np.int8), n_queries=n_queries))


def test_no_rows():
    assert list(find_copies(np.zeros((0, 1936), np.int8))) == []


def test_the_threshold_is_the_least_similarity():
    one = sign([blots(1)])
    noise = np.random.default_rng(0).integers(-9, 10, one.shape)
    signatures = np.concatenate([one, np.clip(one + noise, -127, 127).astype(np.int8)])
    ((_, similarity),) = found(signatures, threshold=0.5).values()
    assert found(signatures, threshold=similarity - 1e-4)
    assert not found(signatures, threshold=similarity + 1e-4)
    upright = signatures.astype(float) / np.linalg.norm(signatures.astype(float), axis=1)[:, None]
    assert similarity == pytest.approx(upright[0] @ upright[1], abs=1e-5)


@pytest.mark.parametrize("threshold", [0, -0.5, 1.01, float("nan")])
def test_a_threshold_out_of_range(threshold):
    with pytest.raises(ParameterError, match=f"threshold {threshold}"):
        list(find_copies(np.zeros((2, 1936), np.int8), threshold=threshold))


@pytest.mark.parametrize(
    "signatures",
    [np.zeros((2, 1935), np.int8), np.zeros(1936, np.int8), np.zeros((2, 1936), np.float32)],
)
def test_what_is_no_table_of_signatures(signatures):
    with pytest.raises(ParameterError, match=re.escape("(n, 1936) of int8")):
        list(find_copies(signatures))


def test_turned_signatures_are_as_similar_as_turned_images():
    one, other = sign([blots(1), blots(1, 90)])
    base = found(np.stack([one, other]))[0, 1][1]
    for orientation in range(8):
        turned = orient_signatures(np.stack([one, other]), orientation)
        assert found(turned)[0, 1][1] == pytest.approx(base, abs=1e-5)


@cache
def sign_public_set(root):
    """Compute the signatures of the public set, with the paths of its slices."""
    paths = sorted(root.glob("*/*/*.jpg"))
    return paths, sign(
        np.rint(read_image(path) * np.float32(255)).astype(np.uint8) for path in paths
    )


@pytest.mark.deep
def test_the_public_set_has_992_test_images_with_a_copy_in_train(real_data):
    """And four pairs whose labels contradict each other."""
    paths, signatures = sign_public_set(real_data / "data" / "brain-mri")
    train = np.array(["Training" in path.parts for path in paths])
    classes = np.array([path.parent.name for path in paths])
    copied, conflicts = set(), []
    for block in find_copies(signatures):
        across = train[block.first] != train[block.second]
        pairs = np.stack([block.first, block.second], axis=1)[across]
        copied.update(pairs[~train[pairs]].tolist())
        for a, b in zip(block.first, block.second, strict=True):
            if classes[a] != classes[b]:
                conflicts.append({paths[a].stem, paths[b].stem})
    assert abs(len(copied) - 992) <= 5
    assert len(conflicts) == 4
    assert {"Te-me_0156", "Te-piTr_0002"} in conflicts
    assert {"Tr-me_0831", "Tr-pi_0520"} in conflicts
    assert {"Tr-me_0942", "Tr-pi_0515"} in conflicts
    assert {"Tr-me_1311", "Tr-pi_0043"} in conflicts


@pytest.mark.deep
@pytest.mark.parametrize("points", [100, 25, 8])
def test_cells_miss_no_copy_in_the_public_set(real_data, monkeypatch, points):
    _, signatures = sign_public_set(real_data / "data" / "brain-mri")
    pairs = found(signatures)
    assert len(pairs) > 25_000
    monkeypatch.setattr(neighbours, "EXACT_LIMIT", 0)
    monkeypatch.setattr(neighbours, "_CELL_POINTS", points)
    assert found(signatures) == pairs
