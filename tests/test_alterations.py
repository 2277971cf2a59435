"""Altered views: each kind against a formula or a property, and that a view depends on itself."""

import io

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from brainfeat.errors import ParameterError
from brainfeat.extraction import alterations
from brainfeat.extraction.alterations import KINDS, Alterations
from brainfeat.extraction.preprocessing import resize_pixels

RNG = np.random.default_rng(0)
GREY = np.asarray(
    Image.fromarray(RNG.integers(0, 256, (12, 16), np.uint8)).resize((64, 48), 2), np.uint8
)
SIDE = 32
IDENTITIES = {
    "rotation": 0, "shift": 0, "crop": 0, "scale": 100, "aspect": 100, "padding": 0,
    "gamma": 1, "contrast": 1, "bias-field": 0, "noise": 0, "blur": 0, "resolution": 100,
}  # fmt: skip


class Drawn:
    """A generator that draws given numbers."""

    def __init__(self, *values):
        self.values = list(values)

    def random(self, number=None):
        if number is None:
            return self.values.pop(0)
        return np.array([self.values.pop(0) for _ in range(number)])


def alter(kind, strength, *, pixels=GREY, rng=None):
    rng = np.random.default_rng(1) if rng is None else rng
    return np.asarray(KINDS[kind].alter(Image.fromarray(pixels), strength, rng))


def draw(pixels, views=None, *, sha256=bytes(32), chosen=None):
    chosen = chosen or Alterations()
    small = resize_pixels(pixels, size=SIDE)
    wanted = chosen.views if views is None else views
    return dict(chosen.draw(pixels, small, sha256=sha256, views=wanted))


def make_rgb(pixels):
    return np.repeat(pixels[..., None], 3, axis=2)


@pytest.mark.parametrize("kind", IDENTITIES)
def test_the_strength_that_changes_nothing_changes_nothing(kind):
    assert np.array_equal(alter(kind, IDENTITIES[kind]), GREY)


def test_every_kind_has_such_a_strength_or_a_test_of_its_own():
    assert {*KINDS} - {*IDENTITIES} == {"mirrored", "inverted", "jpeg"}


@pytest.mark.parametrize("kind", KINDS)
def test_every_strength_changes_the_image(kind):
    altered = [alter(kind, strength) for strength in KINDS[kind].strengths]
    assert not any(np.array_equal(one, GREY) for one in altered)
    assert len({(one.shape, one.tobytes()) for one in altered}) == len(altered)


def test_inverted_and_mirrored():
    assert np.array_equal(alter("inverted", 1), 255 - GREY)
    assert np.array_equal(alter("inverted", 1, pixels=alter("inverted", 1)), GREY)
    assert np.array_equal(alter("mirrored", 1), GREY[:, ::-1])


@pytest.mark.parametrize(("drawn", "turns"), [(0.4, 1), (0.6, -1)])
def test_rotation_is_to_either_side(drawn, turns):
    square = GREY[:, :48]
    assert np.array_equal(
        alter("rotation", 90, pixels=square, rng=Drawn(drawn)), np.rot90(square, turns)
    )


def test_shift_brings_in_black():
    left = alter("shift", 25, rng=Drawn(0.0))
    assert np.array_equal(left[:, :48], GREY[:, 16:])
    assert not left[:, 48:].any()
    up = alter("shift", 25, rng=Drawn(0.25))
    assert np.array_equal(up[:36], GREY[12:])
    assert not up[36:].any()


def test_crop_keeps_a_window():
    assert np.array_equal(alter("crop", 25, rng=Drawn(0.0, 1.0)), GREY[12:, :48])


def test_padding_adds_a_black_border():
    padded = alter("padding", 50, rng=Drawn(0.25, 1.0))
    assert padded.shape == (72, 96)
    assert np.array_equal(padded[24:, 8:72], GREY)
    assert padded.astype(int).sum() == GREY.astype(int).sum()


def test_scale_is_about_the_centre():
    assert np.array_equal(alter("scale", 200), GREY[12:36, 16:48])
    half = alter("scale", 50)
    assert np.array_equal(half[24:72, 32:96], GREY)
    assert half.shape == (96, 128)


@pytest.mark.parametrize(
    ("drawn", "shape", "window"), [(0.4, (48, 128), (0, 32)), (0.6, (96, 64), (24, 0))]
)
def test_aspect_narrows_one_side(drawn, shape, window):
    narrowed, (top, left) = alter("aspect", 50, rng=Drawn(drawn)), window
    assert narrowed.shape == shape
    assert np.array_equal(narrowed[top : top + 48, left : left + 64], GREY)


def test_jpeg_is_that_of_its_quality():
    file = io.BytesIO()
    Image.fromarray(GREY).save(file, "JPEG", quality=30)
    assert np.array_equal(alter("jpeg", 30), np.asarray(Image.open(file)))


def test_gamma_is_a_power():
    expected = np.rint(255 * (GREY / 255) ** 0.7)
    assert np.array_equal(alter("gamma", 0.7), expected)


def test_contrast_stretches_about_the_mean():
    mean = int(GREY.mean() + 0.5)
    expected = np.clip(mean + 1.5 * (GREY.astype(float) - mean), 0, 255)
    assert np.abs(alter("contrast", 1.5) - expected).max() <= 1


def test_bias_field_is_smooth_and_has_its_range():
    flat = np.full((200, 200), 100, np.uint8)
    field = alter("bias-field", 40, pixels=flat).astype(float)
    assert (field.min(), field.max()) == (80, 120)
    # A polynomial of order 3 fits it, but for rounding.
    x = np.linspace(-1, 1, 200)
    powers = np.polynomial.polynomial.polyvander2d(*np.meshgrid(x, x), [3, 3]).reshape(-1, 16)
    fit = powers @ np.linalg.lstsq(powers, field.ravel())[0]
    assert np.abs(fit - field.ravel()).max() < 1


def test_noise_has_the_moments_of_rice():
    sigma = 0.09 * 255
    without = alter("noise", 9, pixels=np.zeros((400, 400), np.uint8)).astype(float)
    assert without.mean() == pytest.approx(sigma * np.sqrt(np.pi / 2), rel=0.01)
    assert without.var() == pytest.approx((2 - np.pi / 2) * sigma**2, rel=0.02)
    signal = alter("noise", 3, pixels=np.full((400, 400), 100, np.uint8)).astype(float)
    # The second moment of a Rice distribution: that of the signal, and twice the variance.
    assert (signal**2).mean() == pytest.approx(100**2 + 2 * (0.03 * 255) ** 2, rel=0.01)


def test_blur_is_gaussian():
    expected = gaussian_filter(GREY.astype(float), 2, mode="nearest")
    assert np.abs(alter("blur", 2) - expected).mean() < 1


def test_resolution_loses_what_is_fine():
    stripes = np.tile(np.array([0, 255], np.uint8), (64, 32))
    assert np.ptp(alter("resolution", 50, pixels=stripes)[8:-8, 8:-8]) < 40
    halves = np.repeat(np.array([[0, 255]], np.uint8), 32, axis=1).repeat(64, axis=0)
    assert np.abs(alter("resolution", 50, pixels=halves).astype(int) - halves)[:, :28].max() == 0


@pytest.mark.parametrize("shape", [(1, 1), (200, 3), (7, 1000), (150, 150), (90, 70)])
def test_views_have_the_size_of_the_base_whatever_the_image(shape):
    pixels = np.random.default_rng(2).integers(0, 256, (*shape, 3), np.uint8)
    views = draw(pixels)
    assert len(views) == 1 + sum(len(kind.strengths) for kind in KINDS.values())
    assert {view.shape for view in views.values()} == {(SIDE, SIDE, 3)}
    assert {view.dtype for view in views.values()} == {np.dtype(np.uint8)}
    assert np.array_equal(views[0], resize_pixels(pixels, size=SIDE))


def test_a_view_depends_on_image_kind_strength_and_seed_alone():
    pixels = make_rgb(GREY)
    together, listed = draw(pixels), Alterations().listed
    for view in (1, 8, 40, *list(listed)[-12:-8]):
        assert np.array_equal(draw(pixels, [view])[view], together[view])
    few = Alterations(kinds=["noise", "blur"])
    chosen = draw(pixels, chosen=few)
    assert all(np.array_equal(chosen[view], together[view]) for view in few.views)
    noisy = next(view for view, one in listed.items() if one.kind == "noise")
    for other in (
        draw(pixels, [noisy], sha256=bytes(31) + b"1"),
        draw(pixels, [noisy], chosen=Alterations(random_state=1)),
    ):
        assert not np.array_equal(other[noisy], together[noisy])


def test_the_strengths_of_a_kind_share_what_is_drawn():
    pixels = np.full((SIDE, SIDE, 3), 128, np.uint8)
    views = [view for view, one in Alterations().listed.items() if one.kind == "noise"]
    noise = [draw(pixels, [view])[view].astype(float).ravel() - 128 for view in views[1:]]
    assert all(np.corrcoef(noise[0], other)[0, 1] > 0.95 for other in noise[1:])


def test_a_grey_image_is_altered_as_each_channel_of_a_coloured_one():
    """Images of equal channels are altered as one channel, which must not be seen."""
    coloured = make_rgb(GREY).copy()
    coloured[0, 0] = coloured[0, 0] ^ np.array([0, 0, 1], np.uint8)
    grey, other = draw(make_rgb(GREY)), draw(coloured)
    kinds = Alterations().listed
    for view, one in kinds.items():
        if one.kind != "jpeg":  # which stores colour apart
            difference = np.abs(grey[view].astype(int) - other[view])
            assert difference.max() <= 2, one
            assert difference.mean() < 0.1, one


def test_a_large_image_is_reduced_first():
    large = make_rgb(GREY).repeat(20, axis=0).repeat(20, axis=1)
    assert alterations._reduce(large, largest=128).size == (128, 96)
    assert np.array_equal(alterations._reduce(make_rgb(GREY), largest=64), GREY)


def test_kinds_are_checked():
    with pytest.raises(ParameterError, match=r"unknown kind of alteration 'blurrs'; expected some"):
        Alterations(kinds=["blurrs"])
    with pytest.raises(ParameterError, match="random_state -1"):
        Alterations(random_state=-1)
    assert Alterations(kinds="blur") == Alterations(kinds=["blur"])


def test_numbers_of_views_do_not_depend_on_the_choice():
    whole, few = Alterations(), Alterations(kinds=["resolution", "rotation"])
    assert few.kinds == ("rotation", "resolution")
    assert few.listed.items() <= whole.listed.items()
    assert few.to_dict() == whole.to_dict()
    first = whole.to_dict()["alterations"][0]
    assert first == {"kind": "rotation", "strength": 3, "unit": "°"}
