"""Volumes: which slices a policy chooses, and how values become grey."""

import warnings
from io import BytesIO

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pydicom.pixels import apply_windowing
from support.dicoms import draw_volume, make_dataset

from brainfeat.errors import ImageReadError, ParameterError
from brainfeat.readers import read_image, windows
from brainfeat.readers.thresholds import find_otsu_threshold
from brainfeat.readers.volumes import (
    VOXEL_LIMIT,
    SlicePolicy,
    Volume,
    check_shape,
    cut_slices,
    grey_image,
)
from brainfeat.readers.windows import Window, find_robust_window, paint_slice


def make_volume(values, **fields):
    values = np.asarray(values, np.float32)
    given = {"modality": "MR", "windows": (None,) * len(values), "patient": "P", "facts": {}}
    return Volume(values=values, **{**given, **fields})


@pytest.mark.parametrize(
    ("slices", "window"),
    [
        *((slices, "auto") for slices in ("all", "middle", "largest", "every:1", "every:250")),
        *(("middle", window) for window in ("robust", "40,80", "-600,1500", "0.5,0.25")),
    ],
)
def test_a_policy_is_read_as_it_was_written(slices, window):
    policy = SlicePolicy(slices=slices, window=window)
    assert SlicePolicy.parse(policy.text) == policy


@pytest.mark.parametrize(
    ("window", "spelt", "unit"),
    [
        ("ct:brain", "ct:40,80", "HU"),
        ("ct:subdural", "ct:80,200", "HU"),
        ("ct:stroke", "ct:40,40", "HU"),
        ("ct:bone", "ct:600,2800", "HU"),
        ("ct:+040.0,80", "ct:40,80", "HU"),
        ("ct:-600,1500.50", "ct:-600,1500.5", "HU"),
        ("ct:-0,1", "ct:0,1", "HU"),
        ("suv:0-10", "suv:0-10", "SUVbw"),
        ("suv:00.0-10.0", "suv:0-10", "SUVbw"),
        ("suv:0.5-2.25", "suv:0.5-2.25", "SUVbw"),
        ("40,80", "40,80", ""),
        ("robust", "robust", ""),
    ],
)
def test_windows_of_a_unit_are_written_alike_where_they_are_equal(window, spelt, unit):
    policy = SlicePolicy(window=window)
    assert (policy.window, policy.unit) == (spelt, unit)
    assert policy.text == OLD.replace("auto", spelt)
    assert SlicePolicy.parse(policy.text) == policy == SlicePolicy(window=spelt)


@given(
    centre=st.decimals(-(10**6), 10**6, places=6),
    width=st.decimals(0, 10**6, places=6),
    prefix=st.sampled_from(["ct:", "suv:", ""]),
)
def test_any_window_is_read_as_it_was_written(centre, width, prefix):
    if prefix == "suv:":
        window = f"suv:{abs(centre)}-{abs(centre) + width}"
    else:
        window = f"{prefix}{centre},{width}"
    if width == 0:
        with pytest.raises(ParameterError, match=r"above 0|below HIGH"):
            SlicePolicy(window=window)
        return
    policy = SlicePolicy(window=window)
    assert SlicePolicy.parse(policy.text) == policy
    assert SlicePolicy(window=policy.window) == policy
    found = policy.fixed_window
    if prefix == "suv:":
        low, high = found.centre - found.width / 2, found.centre + found.width / 2
        assert (low, high) == pytest.approx((float(abs(centre)), float(abs(centre) + width)))
    else:
        assert (found.centre, found.width) == (float(centre), float(width))


OLD = "slices=all window=auto orientation=stored-or-ras-axial percentiles=0.5-99.5"


def test_the_text_of_a_policy_stays_where_its_meaning_does():
    assert SlicePolicy().text == SlicePolicy(orientation="auto").text == OLD
    assert SlicePolicy.parse(OLD) == SlicePolicy()
    assert SlicePolicy(volume=2).text == OLD + " volume=2"
    for orientation in ("native", "axial"):
        turned = OLD.replace("stored-or-ras-axial", orientation)
        assert SlicePolicy(orientation=orientation).text == turned


@pytest.mark.parametrize("orientation", ["auto", "native", "axial"])
@pytest.mark.parametrize("volume", [None, 1, 40, 1_000_000])
def test_orientation_and_volume_are_read_as_they_were_written(orientation, volume):
    policy = SlicePolicy(window="40,80", orientation=orientation, volume=volume)
    assert SlicePolicy.parse(policy.text) == policy


@pytest.mark.parametrize("orientation", ["", "sagittal", "stored-or-ras-axial", "Native", None, 1])
def test_other_orientations_are_refused(orientation):
    with pytest.raises(ParameterError, match="expected auto, native, axial"):
        SlicePolicy(orientation=orientation)


@pytest.mark.parametrize("volume", [0, -1, 1.0, "1", True, 1_000_001, [1]])
def test_volumes_are_counted_from_one(volume):
    with pytest.raises(ParameterError, match="expected a number from 1 to 1,000,000"):
        SlicePolicy(volume=volume)


@pytest.mark.parametrize("window", ["40,80", "040,80", "+40,80.0", "40.000000,80"])
def test_equal_windows_are_one_policy(window):
    assert SlicePolicy(window=window) == SlicePolicy(window="40,80")
    assert SlicePolicy(window=window).text == SlicePolicy(window="40,80").text


@pytest.mark.parametrize("slices", ["", "first", "every", "every:0", "every:-1", "every:.5", "All"])
def test_other_slices_are_refused(slices):
    with pytest.raises(ParameterError, match="all, middle, largest or every:K"):
        SlicePolicy(slices=slices)


@pytest.mark.parametrize(
    "window",
    [
        *(
            "",
            "40",
            "40,",
            "40,80,1",
            "a,b",
            "nan,1",
            "1e9,1",
            "40, 80",
            "ct:",
            "ct:lung",
            "ct:auto",
        ),
        *("CT:brain", "ct:brain ", "ct:40", "ct:40-80", "hu:40,80", "suv:", "suv:10", "suv:0,10"),
        *("suv:-1-10", "suv:0-inf", "suv:0--1", "suv:auto", "ct:suv:0-10", "ct:٤٠,80", "suv:0-1e1"),
    ],
)
def test_other_windows_are_refused(window):
    with pytest.raises(ParameterError, match="expected auto, robust, CENTRE,WIDTH"):
        SlicePolicy(window=window)


@pytest.mark.parametrize("window", ["40,0", "40,-80"])
def test_a_window_has_a_width(window):
    with pytest.raises(ParameterError, match="above 0"):
        SlicePolicy(window=window)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "slices=all window=auto",
        SlicePolicy().text + " ",
        SlicePolicy().text.replace("99.5", "99.0"),
        SlicePolicy().text.replace("all", "none"),
        "slices=all window=auto\n",
        SlicePolicy().text.replace("stored-or-ras-axial", "auto"),
        SlicePolicy().text.replace("stored-or-ras-axial", "sagittal"),
        *(SlicePolicy().text + f" volume={number}" for number in ("0", "01", "-1", "9999999", "")),
    ],
)
def test_a_foreign_text_is_not_a_policy(text):
    with pytest.raises(ParameterError):
        SlicePolicy.parse(text)


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
@pytest.mark.parametrize(("centre", "width"), [(2000, 1500), (100.5, 300.25), (4000, 2), (-50, 90)])
def test_windows_are_those_of_pydicom(function, centre, width):
    pixels = draw_volume(1, 64)[0]
    dataset = make_dataset(
        pixels,
        WindowCenter=centre,
        WindowWidth=width,
        VOILUTFunction=function,
        BitsStored=12,
        HighBit=11,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = apply_windowing(pixels, dataset) / 4095 * 255
    found = paint_slice(pixels.astype(np.float32), Window(centre, width, function))
    assert abs(found - expected).max() <= 0.51


def test_a_width_of_one_is_a_step():
    values = np.array([39, 39.5, 40, 41], np.float32)
    assert paint_slice(values, Window(40, 1, "LINEAR")).tolist() == [0, 128, 255, 255]


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
def test_what_has_no_value_is_black_and_inversion_turns_the_rest(function):
    values = np.array([np.nan, 0, 500, 1000, 1e30, -1e30], np.float32)
    window = Window(500, 1000, function)
    plain, inverted = (paint_slice(values, window, inverted=flag) for flag in (False, True))
    assert plain[0] == inverted[0] == 0
    assert abs(255 - plain[1:].astype(int) - inverted[1:]).max() <= 1
    assert (plain[4], plain[5]) == (255, 0)


def test_the_robust_window_leaves_out_a_hundredth():
    values = np.random.default_rng(0).normal(0, 1, (4, 50, 50)).astype(np.float32)
    values[0, 0] = np.nan
    window = find_robust_window(values)
    low, high = np.nanpercentile(values, [0.5, 99.5])
    assert window.centre - window.width / 2 == pytest.approx(low)
    assert window.centre + window.width / 2 == pytest.approx(high)


@pytest.mark.parametrize("value", [0.0, 7.0, np.nan])
def test_a_constant_volume_is_black(value):
    volume = make_volume(np.full((2, 3, 3), value))
    for policy in (SlicePolicy(), SlicePolicy(slices="largest")):
        assert not any(pixels.any() for _, pixels in cut_slices(volume, policy))


def frames(n, slices):
    volume = make_volume(draw_volume(n))
    return [frame for frame, _ in cut_slices(volume, SlicePolicy(slices=slices))]


@pytest.mark.parametrize(
    ("n", "slices", "expected"),
    [
        (1, "all", [1]),
        (3, "all", [1, 2, 3]),
        (1, "middle", [1]),
        (2, "middle", [2]),
        (5, "middle", [3]),
        (5, "every:1", [1, 2, 3, 4, 5]),
        (10, "every:4", [3, 7]),
        (3, "every:9", [3]),
        (1, "every:999999", [1]),
    ],
)
def test_the_policy_chooses(n, slices, expected):
    assert frames(n, slices) == expected


@pytest.mark.parametrize("place", range(5))
def test_the_largest_slice_has_most_of_the_head(place):
    rng = np.random.default_rng(place)
    values = rng.normal(20, 5, (5, 64, 64))
    y, x = np.mgrid[:64, :64] - 32
    for number in range(5):
        radius = 26 if number == place else 12 + number
        values[number][x**2 + y**2 < radius**2] += 300
    chosen = cut_slices(make_volume(values), SlicePolicy(slices="largest"))
    assert [frame for frame, _ in chosen] == [place + 1]


def test_otsu_is_that_of_brute_force():
    rng = np.random.default_rng(0)
    levels = np.arange(256)
    for _ in range(50):
        counts = rng.integers(0, 50, 256) * (rng.random(256) < rng.random())
        variances = []
        for threshold in range(256):
            low, high = counts[: threshold + 1], counts[threshold + 1 :]
            if not low.sum() or not high.sum():
                variances.append(0.0)
                continue
            means = (
                np.average(levels[: threshold + 1], weights=low),
                np.average(levels[threshold + 1 :], weights=high),
            )
            variances.append(low.sum() * high.sum() * (means[0] - means[1]) ** 2)
        found = find_otsu_threshold(counts)
        assert variances[found] == pytest.approx(max(variances))


def test_slices_have_their_own_windows_or_one_for_all():
    values = np.stack([np.full((2, 2), 100.0), np.full((2, 2), 300.0)])
    values[:, 0, 0] = 0
    volume = make_volume(values, windows=(Window(100, 400), None))
    robust = find_robust_window(volume.values)
    own, other = (pixels for _, pixels in cut_slices(volume, SlicePolicy()))
    assert (own == paint_slice(values[0].astype("f4"), Window(100, 400))).all()
    assert (other == paint_slice(values[1].astype("f4"), robust)).all()
    for policy, window in (("robust", robust), ("200,50", Window(200, 50))):
        found = [pixels for _, pixels in cut_slices(volume, SlicePolicy(window=policy))]
        expected = [paint_slice(v.astype("f4"), window) for v in values]
        assert all((a == b).all() for a, b in zip(found, expected, strict=True))


def test_a_slice_is_what_its_file_is_read_as():
    pixels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    file = BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    file.seek(0)
    assert (grey_image(pixels) == read_image(file)).all()


def test_a_volume_shows_neither_whom_it_is_of_nor_its_values():
    text = repr(make_volume(np.zeros((1, 2, 2)), patient="CANARY"))
    assert "CANARY" not in text
    assert "array" not in text


@pytest.mark.parametrize("shape", [(0, 1, 1), (1, 0, 1), (1, 1, -1), (1, VOXEL_LIMIT, 2)])
def test_impossible_shapes_are_refused(shape):
    with pytest.raises(ImageReadError, match="voxels"):
        check_shape("volume 1", *shape)
    check_shape("volume 1", 1, 1, VOXEL_LIMIT)


@pytest.mark.parametrize("value", [None, 3, 2.5, True, b"all", ("40", "80"), (40, 80), ["all"]])
def test_options_that_are_not_texts_are_refused(value):
    for options in ({"slices": value}, {"window": value}):
        with pytest.raises(ParameterError, match="expected"):
            SlicePolicy(**options)
    with pytest.raises(ParameterError, match="does not describe how slices are made"):
        SlicePolicy.parse(value)


@pytest.mark.parametrize("seed", range(5))
def test_the_robust_window_is_that_of_numpy(seed):
    rng = np.random.default_rng(seed)
    values = (rng.lognormal(0, 3, (3, 20, 20)) * rng.choice([-1, 1], (3, 20, 20))).astype("f4")
    values[rng.random(values.shape) < 0.1] = np.nan
    before = values.copy()
    window = find_robust_window(values)
    low, high = np.percentile(before[~np.isnan(before)], [0.5, 99.5])
    assert window.centre - window.width / 2 == pytest.approx(low, rel=1e-6)
    assert window.centre + window.width / 2 == pytest.approx(high, rel=1e-6)
    assert np.array_equal(values, before, equal_nan=True)


@pytest.mark.parametrize("seed", range(40))
def test_percentiles_are_those_of_numpy_bit_for_bit(seed, monkeypatch):
    """A sample leads to the values near them; where it misleads, all values are taken."""
    monkeypatch.setattr(windows, "_SAMPLE", 64)
    rng = np.random.default_rng(seed)
    values = rng.normal(0, 10.0 ** rng.integers(-2, 30), int(rng.integers(2, 5000))).astype("f4")
    if seed % 3 == 0:
        values = np.rint(values)
    if seed % 4 == 0:
        values[rng.random(values.size) < 0.6] = 0
    if seed % 5 == 0:
        values.sort()
    if seed % 7 == 0:  # the sample has only these
        values[:: -(-values.size // 64)] = 1e6
    low, high = (
        2 * float(half) for half in np.percentile(values * np.float32(0.5), windows.PERCENTILES)
    )
    expected = Window((low + high) / 2, high - low) if high > low else None
    assert find_robust_window(values) == expected


def test_values_as_far_apart_as_they_can_be_have_a_window():
    most = np.finfo(np.float32).max
    values = np.array([[[-most, most, most, most]]], np.float32)
    (only,) = cut_slices(make_volume(values), SlicePolicy())
    assert only.pixels.tolist() == [[0, 255, 255, 255]]


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
@pytest.mark.parametrize("centre", [0, 1e300, -1e300])
def test_windows_out_of_all_proportion_are_steps(function, centre):
    values = np.array([-3e38, 3e38], np.float32)
    found = paint_slice(values, Window(centre, 1e-300, function), inverted=False)
    assert found.tolist() == np.where(values.astype(float) > centre, 255, 0).tolist()


@pytest.mark.parametrize("inverted", [False, True])
def test_an_inverted_volume_is_shown_inverted(inverted):
    values = np.array([[[0, 50, 100, np.nan]]], np.float32)
    volume = make_volume(values, inverted=inverted)
    (only,) = cut_slices(volume, SlicePolicy(window="50,100"))
    assert only.pixels.tolist() == [[[0, 128, 255, 0], [255, 128, 0, 0]][inverted]]


def test_what_is_at_the_threshold_is_background():
    values = np.full((2, 8, 8), 40.0)
    values[0] = 50
    values[1, :3, :3] = 200
    chosen = cut_slices(make_volume(values), SlicePolicy(slices="largest", window="127.5,255"))
    assert [frame for frame, _ in chosen] == [2]
