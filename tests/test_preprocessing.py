"""Tests of preprocessing."""

from io import BytesIO

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from brainfeat.errors import ParameterError
from brainfeat.extraction.preprocessing import (
    preprocess_image,
    quantize_image,
    resize_pixels,
    scale_pixels,
)
from brainfeat.readers import read_image

RNG = np.random.default_rng(0)


def unit(height: int, width: int) -> np.ndarray:
    return scale_pixels(RNG.integers(0, 256, (height, width, 3), dtype=np.uint8))


def as_load_img(data: bytes, size: int) -> np.ndarray:
    """Do what keras.utils.load_img(target_size=(size, size), interpolation="bilinear") does."""
    with Image.open(BytesIO(data)) as image:
        rgb = image.convert("RGB")
    if rgb.size != (size, size):
        rgb = rgb.resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(rgb, np.float32) / np.float32(255)


def encode(kind: str, mode: str, width: int, height: int) -> bytes:
    pixels = RNG.integers(0, 256, (height, width, 3), dtype=np.uint8)
    file = BytesIO()
    Image.fromarray(pixels).convert(mode).save(file, kind)
    return file.getvalue()


SIZES = [(224, 224), (512, 512), (300, 201), (17, 400), (1, 1), (100, 100)]
KINDS = [("JPEG", "L"), ("JPEG", "CMYK"), ("PNG", "P")]


@pytest.mark.parametrize(
    ("kind", "size"),
    [*((("JPEG", "RGB"), size) for size in SIZES), *((kind, (300, 201)) for kind in KINDS)],
)
def test_equals_load_img_for_8_bit_files(kind, size):
    data = encode(*kind, *size)
    image = preprocess_image(read_image(BytesIO(data)))
    np.testing.assert_array_equal(image, as_load_img(data, 224))


@pytest.mark.parametrize("channel", [None, 0, 1, 2])
def test_grey_pixels_are_resized_as_colours_are(channel):
    pixels = np.repeat(RNG.integers(0, 256, (60, 50, 1), dtype=np.uint8), 3, axis=2)
    if channel is not None:
        pixels[30, 20, channel] ^= 255
    expected = Image.fromarray(pixels).resize((32, 32), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(resize_pixels(pixels, size=32), np.asarray(expected))


@pytest.mark.slow
def test_equals_load_img_of_keras_itself():
    from keras.utils import load_img

    data = encode("PNG", "RGB", 300, 201)
    expected = load_img(BytesIO(data), target_size=(96, 96), interpolation="bilinear")
    image = preprocess_image(read_image(BytesIO(data)), size=96)
    np.testing.assert_array_equal(image, np.asarray(expected, np.float32) / np.float32(255))


def test_equals_load_img_on_real_slices(real_data):
    files = sorted((real_data / "data" / "brain-mri" / "Testing").rglob("*.jpg"))[::60]
    assert len(files) > 16
    for file in files:
        data = file.read_bytes()
        for size in (224, 96):
            image = preprocess_image(read_image(BytesIO(data)), size=size)
            np.testing.assert_array_equal(image, as_load_img(data, size))


def test_shape_and_type_and_range():
    image = preprocess_image(unit(50, 80), size=32)
    assert image.shape == (32, 32, 3)
    assert image.dtype == np.float32
    assert image.flags.writeable
    assert image.min() >= 0
    assert image.max() <= 1


def test_shrinking_is_antialiased():
    board = np.indices((512, 512)).sum(axis=0) % 2
    image = np.repeat(board[..., np.newaxis], 3, axis=2).astype(np.float32)
    assert np.ptp(preprocess_image(image, size=64)) < 0.05


def test_16_bit_images_are_rounded_even_when_they_fit():
    image = np.full((8, 8, 3), 100.4 / 255, np.float32)
    np.testing.assert_array_equal(
        preprocess_image(image, size=8), np.float32(100) / np.float32(255)
    )


def test_input_is_left_alone():
    image = unit(20, 20)
    before = image.copy()
    preprocess_image(image, size=20)[:] = 0
    preprocess_image(image, size=10)
    np.testing.assert_array_equal(image, before)


def test_views_of_other_arrays_are_fine():
    image = unit(20, 30)
    turned = np.ascontiguousarray(image.swapaxes(0, 1))
    np.testing.assert_array_equal(
        preprocess_image(image.swapaxes(0, 1), size=9), preprocess_image(turned, size=9)
    )


@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 60))
def test_a_flat_image_stays_flat(height, width, size):
    image = preprocess_image(np.full((height, width, 3), 51 / 255, np.float32), size=size)
    np.testing.assert_array_equal(image, np.full((size, size, 3), 51 / 255, np.float32))


def test_all_levels_survive_quantization():
    levels = np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3)
    np.testing.assert_array_equal(quantize_image(scale_pixels(levels)), levels)


@pytest.mark.parametrize("size", [0, -1, 224.0, "224", True, None])
def test_bad_sizes(size):
    with pytest.raises(ParameterError, match=r"size .*; expected a whole number"):
        preprocess_image(unit(4, 4), size=size)


@pytest.mark.parametrize("fit", ["pad", "", None])
def test_unknown_fits(fit):
    with pytest.raises(ParameterError, match=r"unknown fit .*; expected one of stretch"):
        preprocess_image(unit(4, 4), fit=fit)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((4, 4, 3)), "image of float64; expected"),
        (np.zeros((4, 4, 3), np.uint16), "image of uint16; expected"),
        ([[[0.0, 0.0, 0.0]]], "image of list; expected"),
        (np.zeros((4, 4), np.float32), r"image of shape \(4, 4\)"),
        (np.zeros((4, 4, 4), np.float32), r"image of shape \(4, 4, 4\)"),
        (np.zeros((1, 4, 4, 3), np.float32), r"image of shape \(1, 4, 4, 3\)"),
        (np.zeros((0, 4, 3), np.float32), r"image of shape \(0, 4, 3\)"),
        (np.full((4, 4, 3), 255, np.float32), "from 255 to 255"),
        (np.full((4, 4, 3), -0.01, np.float32), "from -0.01 to"),
        (np.full((4, 4, 3), np.nan, np.float32), "from nan to"),
        (np.full((4, 4, 3), np.inf, np.float32), "from inf to"),
        (np.full((4, 4, 3), 3e38, np.float32), "from 3e[+]38 to"),
    ],
)
def test_invalid_images(image, message):
    with pytest.raises(ParameterError, match=message):
        preprocess_image(image)
