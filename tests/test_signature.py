"""The signature of an image: what docs/reference/cache-format.md specifies, bit for bit."""

import hashlib
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from brainfeat.cache.signature import (
    ORIENTATIONS,
    SIGNATURE_SIZE,
    compute_signature,
    invert_orientation,
    orient_signatures,
)
from brainfeat.errors import ParameterError
from brainfeat.phantoms import draw_slice


def blots(seed, size=(64, 64)):
    """Draw an image of a few random blots, grey."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6), np.uint8)
    return np.asarray(Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC))


def turn(pixels, orientation):
    """Mirror or turn an image as Pillow does."""
    name = ORIENTATIONS[orientation].upper()
    if name == "UPRIGHT":
        return pixels
    return np.asarray(Image.fromarray(pixels).transpose(Image.Transpose[name]))


# The specification in plain Python: it shares no code with the package, nor with Pillow.


def weigh(n):
    """Return the whole-number weights that bring n pixels to 128."""
    scale = n / 128
    support = max(scale, 1.0)
    weights = np.zeros((128, n), np.int64)
    for place in range(128):
        centre = (place + 0.5) * scale
        first = max(0, math.floor(centre - support + 0.5))
        end = min(n, math.floor(centre + support + 0.5))
        taps = [max(0.0, 1 - abs((x - centre + 0.5) * (1 / support))) for x in range(first, end)]
        total = 0.0
        for tap in taps:
            total += tap
        for x, tap in zip(range(first, end), taps, strict=True):
            weights[place, x] = math.floor(tap / total * 2**22 + 0.5)
    return weights


def specified(pixels):
    """Compute a signature as the documentation describes it."""
    grey = pixels.astype(np.int64)
    if grey.ndim == 3:
        red, green, blue = grey[..., 0], grey[..., 1], grey[..., 2]
        grey = (19595 * red + 38470 * green + 7471 * blue + 32768) >> 16
    higher = grey.shape[0] > grey.shape[1]
    grey = grey.T if higher else grey
    for _ in "one side", "the other":
        grey = np.clip((grey @ weigh(grey.shape[1]).T + 2**21) >> 22, 0, 255).T
    grey = grey.T if higher else grey
    roots = np.array([round(4095 * math.sqrt(v / 255)) for v in range(256)])[grey]
    if 2500 * (16384 * int((roots**2).sum()) - int(roots.sum()) ** 2) <= (4095 * 16384) ** 2:
        return [0] * 1936
    table = np.array(
        [
            [round(2048 * math.cos(math.pi * k * (2 * j + 1) / 256)) for j in range(128)]
            for k in range(44)
        ]
    )
    coefficients = table @ roots @ table.T
    values = []
    for k in range(44):
        for place in range(44):
            weight = 1 + math.sqrt(k**2 + place**2)
            weight = weight / math.sqrt(2) if k == 0 else weight
            weight = weight / math.sqrt(2) if place == 0 else weight
            values.append(int(coefficients[k, place]) * (weight if k or place else 0.0))
    factor = 127 / max(map(abs, values))
    return [round(value * factor) for value in values]


class TestSpecification:
    @pytest.mark.parametrize(
        "shape",
        [(128, 128), (512, 512), (96, 64), (331, 200), (5, 7), (1, 300), (630, 630), (129, 127)],
    )
    @pytest.mark.parametrize("channels", [(), (3,)])
    def test_of_noise(self, shape, channels):
        pixels = np.random.default_rng(7).integers(0, 256, (*shape, *channels), np.uint8)
        assert compute_signature(pixels).tolist() == specified(pixels)

    @pytest.mark.parametrize("seed", range(4))
    def test_of_phantoms(self, seed):
        pixels = draw_slice("glioma", patient=seed, level=4, size=100 + 37 * seed)
        assert compute_signature(pixels).tolist() == specified(pixels)

    def test_of_colours(self):
        ramp = np.arange(256, dtype=np.uint8)
        pixels = np.stack(np.broadcast_arrays(ramp[:, None], ramp, ramp[::-1]), axis=-1)
        assert compute_signature(pixels).tolist() == specified(pixels)

    def test_of_real_slices(self, real_data):
        paths = sorted((real_data / "data/brain-mri/Testing").glob("*/*.jpg"))[::100]
        for path in paths:
            pixels = np.asarray(Image.open(path).convert("RGB"))
            assert compute_signature(pixels).tolist() == specified(pixels)

    def test_it_never_changes(self):
        """Another digest is another version of the signature."""
        y, x = np.mgrid[:150, :110]
        pixels = np.stack([x * x + y, 3 * y + x * y, x * 2 + y * y], axis=-1) // 7 % 256
        digest = hashlib.sha256(compute_signature(pixels.astype(np.uint8)).tobytes())
        assert digest.hexdigest() == (
            "4b1fa50f2cd4d195eded8b654381463f72eb2e3baf2bfe34c884833c1362e6df"
        )


class TestBlankImages:
    @pytest.mark.parametrize("value", [0, 1, 128, 255])
    def test_one_value(self, value):
        assert not compute_signature(np.full((60, 50, 3), value, np.uint8)).any()

    def test_what_is_nearly_one_value(self):
        noise = np.random.default_rng(0).integers(100, 104, (256, 256), np.uint8)
        assert not compute_signature(noise).any()

    def test_what_is_faint_is_not_blank(self):
        pixels = np.full((128, 128), 100, np.uint8)
        pixels[:, 64:] = 113  # their square roots deviate by 1.97 % of the range
        assert not compute_signature(pixels).any()
        pixels[:, 64:] = 114
        assert compute_signature(pixels).any()


class TestOrientations:
    @pytest.mark.parametrize("orientation", range(8))
    @given(seed=st.integers(0, 10_000), size=st.tuples(*[st.integers(20, 300)] * 2))
    def test_they_are_signs_and_transposition(self, orientation, seed, size):
        pixels = blots(seed, size)
        turned = compute_signature(turn(pixels, orientation)).astype(int)
        told = orient_signatures(compute_signature(pixels), orientation)
        # A quarter turn changes which side is rounded first.
        assert np.abs(turned - told).max() <= (1 if orientation < 4 else 2)

    @pytest.mark.parametrize("orientation", range(8))
    def test_one_undoes_another(self, orientation):
        signatures = np.stack([compute_signature(blots(seed)) for seed in range(3)])
        turned = orient_signatures(signatures, orientation)
        back = orient_signatures(turned, invert_orientation(orientation))
        assert back.dtype == np.int8
        np.testing.assert_array_equal(back, signatures)


class TestInput:
    def test_grey_and_rgb_are_the_same(self):
        grey = blots(1)
        rgb = np.repeat(grey[:, :, None], 3, axis=2)
        np.testing.assert_array_equal(compute_signature(grey), compute_signature(rgb))

    def test_size_compression_and_brightness_matter_little(self):
        pixels = blots(2, (200, 200))
        small = np.asarray(Image.fromarray(pixels).resize((90, 110)))
        dark = (pixels * 0.7).astype(np.uint8)
        one = compute_signature(pixels).astype(float)
        for other in map(compute_signature, (small, dark)):
            cosine = one @ other / np.linalg.norm(one) / np.linalg.norm(other.astype(float))
            assert cosine > 0.97

    def test_a_view_of_an_array_will_do(self):
        pixels = blots(3)
        np.testing.assert_array_equal(
            compute_signature(pixels[::-1, ::-1]), compute_signature(pixels[::-1, ::-1].copy())
        )

    @pytest.mark.parametrize(
        "pixels",
        [
            np.zeros((4, 4, 3), np.float32),
            np.zeros((4, 4, 3), np.int8),
            np.zeros((4, 4, 4), np.uint8),
            np.zeros((4, 4, 1), np.uint8),
            np.zeros((0, 4), np.uint8),
            np.zeros(4, np.uint8),
        ],
    )
    def test_others_are_refused(self, pixels):
        with pytest.raises(ParameterError, match=r"expected \(height, width, 3\)"):
            compute_signature(pixels)

    def test_a_signature_has_1936_numbers_up_to_127(self):
        signature = compute_signature(blots(4))
        assert signature.shape == (SIGNATURE_SIZE,)
        assert signature.dtype == np.int8
        assert np.abs(signature.astype(int)).max() == 127
        assert signature[0] == 0
