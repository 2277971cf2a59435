"""Copies of images that were rotated by some degrees, cropped or padded, found by alignment."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from brainfeat.cache.signature import ORIENTATIONS, compute_signature
from brainfeat.errors import ParameterError
from brainfeat.leakage import altered_copies as module
from brainfeat.leakage.alignment import align_images
from brainfeat.leakage.altered_copies import find_altered_copies
from brainfeat.leakage.copies import Copies, find_copies
from brainfeat.leakage.copy_groups import search_copies
from brainfeat.phantoms import CLASS_NAMES, draw_slice
from brainfeat.readers import read_image

INVERSE = {"rotate_90": "rotate_270", "rotate_270": "rotate_90"}


def rotate(degrees):
    return lambda image: image.rotate(degrees, Image.Resampling.BICUBIC)


def crop(fraction):
    return lambda image: ImageOps.crop(image, round(fraction * min(image.size)))


def cut(left, top, right, bottom):
    return lambda image: image.crop((left, top, image.width - right, image.height - bottom))


def pad(fraction):
    return lambda image: ImageOps.expand(image, round(fraction * min(image.size)))


def alter(*steps):
    def apply(image):
        for step in steps:
            image = step(image)
        return image

    return apply


ALTERATIONS = {
    "rotated by 3°": rotate(3),
    "rotated by -8°": rotate(-8),
    "cropped by 3 %": crop(0.03),
    "cropped by 6 %": crop(0.06),
    "cropped at two sides": cut(14, 9, 0, 0),
    "padded by 10 %": pad(0.1),
    "rotated and cropped": alter(rotate(5), crop(0.04)),
    "another aspect ratio, rotated": alter(lambda image: image.resize((200, 170)), rotate(6)),
}


def slices(count):
    """Draw slices of as many patients."""
    return [
        Image.fromarray(draw_slice(CLASS_NAMES[patient % 4], patient=patient, level=4, size=160))
        for patient in range(count)
    ]


def turn(image, name):
    return image if name == "upright" else image.transpose(Image.Transpose[name.upper()])


def sign(images):
    return np.stack([compute_signature(np.asarray(image)) for image in images])


def found(signatures, **options):
    """Return all pairs with the name of their orientation, and their similarity."""
    return {
        (int(first), int(second)): (ORIENTATIONS[turned], float(similarity))
        for block in find_altered_copies(signatures, **options)
        for first, second, similarity, turned in zip(*block, strict=True)
    }


@pytest.mark.parametrize("alteration", ALTERATIONS.values(), ids=list(ALTERATIONS))
def test_altered_slices_are_copies_and_those_of_other_patients_are_not(alteration):
    originals = slices(12)
    signatures = sign([*originals, *(alteration(image) for image in originals)])
    pairs = found(signatures)
    # Some are so little altered that they need no alignment.
    alike = {pair for block in find_copies(signatures) for pair in zip(*block[:2], strict=True)}
    assert set(pairs) | alike == {(row, row + 12) for row in range(12)}
    assert len(pairs) >= 8
    assert {name for name, _ in pairs.values()} == {"upright"}


@pytest.mark.parametrize("name", ORIENTATIONS)
@pytest.mark.parametrize("degrees", [-7, 7])
def test_each_orientation_is_found_by_its_name(name, degrees):
    """The name says how the second image becomes the first, but for the alteration."""
    (image,) = slices(1)
    altered = alter(rotate(degrees), crop(0.03))(turn(image, name))
    ((told, similarity),) = found(sign([altered, image])).values()
    assert told == name
    assert 0.98 <= similarity <= 1.001
    ((back, _),) = found(sign([image, altered])).values()
    assert back == INVERSE.get(name, name)


@pytest.mark.parametrize("name", ORIENTATIONS)
@pytest.mark.parametrize("degrees", [-7, 7])
def test_an_alignment_starts_near_its_end(name, degrees, monkeypatch):
    """Centres, sizes and the angle of the looks alone tell a motion, in any orientation."""
    ways = []

    def record(first, second, motions, *, levels):
        moved, agreement = align_images(first, second, motions, levels=levels)
        ways.append((motions, moved))
        return moved, agreement

    monkeypatch.setattr(module, "align_images", record)
    (image,) = slices(1)
    framed = ImageOps.expand(rotate(degrees)(image), (24, 16, 0, 0))
    assert found(sign([image, turn(framed, name)]))
    starts, ends = ways[0]
    best = np.abs(starts - ends).max(axis=1).argmin()
    assert np.abs(starts - ends)[best].max() < 0.04
    assert np.abs(ends[best, :4]).min() > 0.04


@settings(max_examples=10)
@given(order=st.permutations(range(10)))
def test_the_order_of_the_rows_does_not_matter(order):
    originals = slices(5)
    steps = [rotate(4), crop(0.05), pad(0.07), ImageOps.mirror, alter(ImageOps.flip, rotate(-6))]
    signatures = sign(
        [*originals, *(step(image) for step, image in zip(steps, originals, strict=True))]
    )
    pairs = found(signatures)
    assert set(pairs) == {(0, 5), (1, 6), (2, 7), (4, 9)}
    shuffled = {}
    for (a, b), (name, similarity) in found(signatures[order]).items():
        first, second = sorted((order[a], order[b]))
        told = name if first == order[a] else INVERSE.get(name, name)
        shuffled[first, second] = (told, pytest.approx(similarity, abs=1e-4))
    assert pairs == shuffled


def test_copies_as_they_are_are_left_out():
    (image,) = slices(1)
    signatures = sign([image, ImageOps.mirror(image), image.resize((90, 130))])
    assert sum(len(block.first) for block in find_copies(signatures)) == 3
    assert found(signatures, threshold=0.5) == {}


def test_images_that_show_nothing_are_copies_of_nothing():
    blank = np.full((40, 40), 7, np.uint8)
    (image,) = slices(1)
    assert found(sign([blank, image, blank, blank[:30]])) == {}
    finest = np.zeros((3, 1936), np.int8)
    finest[:, -1], finest[1, -2], finest[2, -45] = 127, 100, 100
    assert found(np.concatenate([finest, sign([image])])) == {}


def test_images_of_noise_are_no_copies():
    rng = np.random.default_rng(0)
    images = [
        Image.fromarray(rng.integers(0, 256, (size, size), np.uint8)).resize((64, 64))
        for size in (3, 4, 6, 12, 32)
        for _ in range(8)
    ]
    assert found(sign(images)) == {}


def test_blocks_of_any_size_give_the_same_pairs(monkeypatch):
    originals = slices(9)
    signatures = sign([*originals, *(rotate(5)(image) for image in originals)])
    pairs = found(signatures)
    assert len(pairs) == 9
    monkeypatch.setattr(module, "_BLOCK_ROWS", 4)
    monkeypatch.setattr(module, "_BLOCK_COLUMNS", 5)
    monkeypatch.setattr(module, "_PAIRS_AT_ONCE", 2)
    blocks = list(find_altered_copies(signatures))
    assert len(blocks) > 1
    assert all(isinstance(block, Copies) for block in blocks)
    told = [pair for block in blocks for pair in zip(block.first, block.second, strict=True)]
    assert sorted(told) == sorted(pairs)


def test_no_rows():
    assert list(find_altered_copies(np.zeros((0, 1936), np.int8))) == []


def test_the_threshold_is_the_least_similarity():
    (image,) = slices(1)
    signatures = sign([image, rotate(5)(image)])
    ((_, similarity),) = found(signatures).values()
    assert found(signatures, threshold=similarity - 1e-4)
    assert not found(signatures, threshold=similarity + 1e-4)


@pytest.mark.parametrize("threshold", [0, -0.5, 1.01, float("nan")])
def test_a_threshold_out_of_range(threshold):
    with pytest.raises(ParameterError, match=f"threshold {threshold}"):
        list(find_altered_copies(np.zeros((2, 1936), np.int8), threshold=threshold))


@pytest.mark.parametrize(
    "signatures",
    [np.zeros((2, 1935), np.int8), np.zeros(1936, np.int8), np.zeros((2, 1936), np.float32)],
)
def test_what_is_no_table_of_signatures(signatures):
    with pytest.raises(ParameterError, match=re.escape("(n, 1936) of int8")):
        list(find_altered_copies(signatures))


@pytest.mark.deep
def test_the_public_set_has_altered_copies_of_one_class_each(real_data):
    """Each of them was looked at; 3 test images more than by signatures alone have a copy."""
    paths = sorted((real_data / "data" / "brain-mri").glob("*/*/*.jpg"))
    signatures = sign(
        np.rint(read_image(path) * np.float32(255)).astype(np.uint8) for path in paths
    )
    train = np.array(["Training" in path.parts for path in paths])
    classes = np.array([path.parent.name for path in paths])
    copied = {}
    for find in (find_copies, find_altered_copies):
        pairs = np.concatenate([np.stack(block[:2], 1) for block in find(signatures)])
        across = pairs[train[pairs[:, 0]] != train[pairs[:, 1]]]
        copied[find] = set(across[~train[across]].tolist())
    assert len(pairs) == pytest.approx(425, abs=10)
    assert (classes[pairs[:, 0]] == classes[pairs[:, 1]]).all()
    assert abs(len(copied[find_altered_copies] - copied[find_copies]) - 3) <= 1


# In groups of copies


def search(signatures, *, seen, y=None, **options):
    n = len(signatures)
    return search_copies(
        signatures,
        np.arange(n),
        y=np.zeros(n, np.int64) if y is None else np.array(y),
        seen=np.isin(np.arange(n), seen),
        **options,
    )


@pytest.fixture(scope="module")
def family():
    """A slice, a cropped copy of it, that mirrored, and a slice of another patient."""
    slice_, other = (draw_slice("glioma", patient=patient, level=4) for patient in (0, 7))
    cropped = slice_[10:-10, 10:-10]
    return np.stack([compute_signature(it) for it in (slice_, cropped, cropped[:, ::-1], other)])


def test_altered_copies_join_groups_and_count_as_seen(family):
    found = search(family, seen=[0])
    assert found.labels[0] == found.labels[1] == found.labels[2] != found.labels[3]
    # The mirrored one is a copy of the cropped one, which stands for both of them.
    assert found.orientation.tolist() == [-1, -1, -1, -1]
    assert found.altered.tolist() == found.seen.tolist() == [False, True, True, False]


def test_an_image_with_a_copy_as_it_is_is_not_counted_as_altered(family):
    found = search(family, seen=[0, 2])
    assert ORIENTATIONS[found.orientation[1]] == "flip_left_right"
    assert found.altered.tolist() == [False] * 4
    assert found.seen.tolist() == [False, True, False, False]


def test_queries_find_the_same_altered_copies(family):
    order = [1, 3, 0, 2]
    found = search(family[order], seen=[2], n_queries=2)
    assert found.altered[:2].tolist() == [True, False]


def test_altered_copies_of_different_labels_are_conflicts(family):
    conflicts = search(family, seen=[0], y=[0, 1, 1, 0]).conflicts
    assert (conflicts.first.tolist(), conflicts.second.tolist()) == ([0], [1])
    assert not len(search(family, seen=[0], y=[0, -1, -1, 0]).conflicts.first)


def test_among_too_many_groups_altered_copies_are_not_looked_for(family, monkeypatch):
    monkeypatch.setattr("brainfeat.leakage.copy_groups.ALTERED_SEARCH_LIMIT", 2)
    found = search(family, seen=[0])
    assert found.altered is None
    assert not found.seen.any()
