"""Alignment of two images by their signatures."""

import numpy as np
import pytest
from PIL import Image

from brainfeat.cache.signature import SIDE, compute_signature
from brainfeat.leakage.alignment import (
    COARSE,
    FINE,
    align_images,
    compare_aligned,
    draw_pictures,
)
from brainfeat.phantoms import draw_slice

STILL = np.zeros((1, 6), np.float32)


def square(image):
    return compute_signature(np.asarray(image)).reshape(1, SIDE, SIDE)


@pytest.fixture(scope="module")
def picture():
    return Image.fromarray(draw_slice("meningioma", patient=1, level=4, size=160))


def align(first, second):
    motions, agreement = align_images(first, second, STILL, levels=COARSE + FINE)
    return motions[0], float(agreement[0])


def test_an_image_lies_on_itself(picture):
    motion, agreement = align(square(picture), square(picture))
    assert np.abs(motion).max() < 1e-4
    assert agreement == pytest.approx(1, abs=1e-5)
    assert compare_aligned(square(picture), square(picture), STILL) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("degrees", [-8, -3, 5])
def test_a_rotation_is_measured(picture, degrees):
    """Pillow rotates counterclockwise; so must the second image be seen to look like the first."""
    altered = square(picture.rotate(degrees, Image.Resampling.BICUBIC))
    motion, _ = align(square(picture), altered)
    assert 2 * np.rad2deg(np.arctan(motion[2] / 2)) == pytest.approx(degrees, abs=0.2)
    assert np.abs(np.delete(motion, 2)).max() < 0.005
    assert compare_aligned(square(picture), altered, motion[None])[0] > 0.98
    assert compare_aligned(square(picture), altered, STILL)[0] < 0.95


def test_a_crop_is_a_growth_and_a_shift(picture):
    """10 of 160 columns are cut off at the left, and 10 rows at the top."""
    motion, _ = align(square(picture), square(picture.crop((10, 10, 160, 160))))
    growth = (1 + motion[3] / 2) / (1 - motion[3] / 2)
    assert growth == pytest.approx(150 / 160, abs=0.003)
    # Half of the motion each: where the middle of the view is 0, the first image shows a place
    # that lies 1/32 of a side beside that of the second one.
    assert motion[:2] * 160 == pytest.approx([5, 5], abs=0.6)


def test_exchanging_the_images_reverses_the_motion(picture):
    first, second = square(picture), square(picture.rotate(4).crop((8, 0, 160, 155)))
    there, agreement = align(first, second)
    back, same = align(second, first)
    assert there == pytest.approx(-back, abs=1e-4)
    assert agreement == pytest.approx(same, abs=1e-5)
    assert compare_aligned(first, second, there[None]) == pytest.approx(
        compare_aligned(second, first, back[None]), abs=1e-5
    )


def test_motions_end_at_their_limits(picture):
    """The second image is shifted by 30 % of its side."""
    shifted = picture.transform(picture.size, Image.Transform.AFFINE, (1, 0, 48, 0, 1, 0))
    start = STILL.copy()
    start[0, 0] = 0.24
    motions, _ = align_images(square(picture), square(shifted), start, levels=COARSE + FINE)
    assert motions[0, 0] == 0.25


def test_blank_images_lie_as_they_are():
    blank = np.zeros((1, SIDE, SIDE), np.int8)
    motion, agreement = align(blank, blank)
    assert (motion == 0).all()
    assert agreement == 0
    assert compare_aligned(blank, blank, STILL)[0] == 0


def test_a_picture_is_the_image_without_its_mean(picture):
    """Signatures are of square roots, and of frequencies below 44."""
    (drawn,) = draw_pictures(square(picture), frequency=40, power=0, side=64)
    roots = np.sqrt(np.asarray(picture.resize((64, 64), Image.Resampling.BOX)) / 255)
    assert np.corrcoef(drawn.ravel(), roots.ravel())[0, 1] > 0.98
    assert abs(drawn.mean()) < 1e-3 * drawn.std()
