"""Stored pixels become values of the modality as PS3.3 has it, where libraries differ."""

import numpy as np
import pydicom
import pytest
from support.dicoms import draw_volume, make_dataset, write_dicom, write_enhanced

from brainfeat.readers.dicom import read_series
from brainfeat.readers.volumes import SlicePolicy, cut_slices


def read(path, **options):
    return read_series([path], name="volume 1", **options)


def show(path, window="auto"):
    (found,) = cut_slices(read(path), SlicePolicy(window=window))
    return found.pixels.tolist()


def test_monochrome1_is_inverted_after_rescaling_and_window(tmp_path):
    """PS3.3 C.7.6.3.1.2: white is the lowest value *after* all VOI transformations."""
    elements = {
        "PhotometricInterpretation": "MONOCHROME1",
        "RescaleSlope": 2,
        "RescaleIntercept": -100,
        "WindowCenter": 0,
        "WindowWidth": 200,
        "VOILUTFunction": "LINEAR_EXACT",
    }
    stored = np.array([[0, 25, 50, 75, 100, 200]], np.uint16)
    path = write_dicom(tmp_path / "a", stored, **elements)
    assert read(path).values.tolist() == [[[-100, -50, 0, 50, 100, 300]]]
    assert show(path) == [[255, 191, 128, 64, 0, 0]]
    # A negative slope turns values, and not what is white.
    falling = write_dicom(tmp_path / "b", stored, **elements | {"RescaleSlope": -2})
    assert read(falling).values.tolist() == [[[-100, -150, -200, -250, -300, -500]]]
    assert show(falling, "-200,200") == [[0, 64, 128, 191, 255, 255]]


PADDING = {
    "one value": (np.uint16, "MONOCHROME2", 7, None, [7]),
    "a range from below": (np.uint16, "MONOCHROME2", 0, 7, [0, 7]),
    # C.7.5.1.1.2: the limit is above the value in MONOCHROME2, and below it in MONOCHROME1.
    "a range from above": (np.uint16, "MONOCHROME1", 4095, 4000, [4000, 4095]),
    "a signed value": (np.int16, "MONOCHROME2", -2000, None, [-2000]),
    "a signed range": (np.int16, "MONOCHROME2", -2000, -1024, [-2000, -1500, -1024]),
    "a signed range from above": (np.int16, "MONOCHROME1", 3000, -5, [-5, 0, 7, 3000]),
}


@pytest.mark.parametrize("implicit", [False, True])
@pytest.mark.parametrize(
    ("dtype", "shown", "first", "limit", "padded"), PADDING.values(), ids=PADDING
)
def test_padding_is_recognised_by_its_stored_value(
    dtype, shown, first, limit, padded, implicit, tmp_path
):
    """PS3.3 C.7.5.1.1.2: padding is compared before it is rescaled, and has no value."""
    levels = [-2000, -1500, -1024, -5, 0, 7, 3000] if dtype == np.int16 else [0, 7, 8, 4000, 4095]
    stored = np.array([levels], dtype)
    dataset = make_dataset(
        stored,
        PhotometricInterpretation=shown,
        RescaleSlope=2,
        RescaleIntercept=-7,
        PixelPaddingValue=first,
        **({} if limit is None else {"PixelPaddingRangeLimit": limit}),
    )
    path = tmp_path / "a"
    if implicit:
        del dataset.file_meta
        pydicom.dcmwrite(path, dataset, implicit_vr=True, little_endian=True)
    else:
        dataset.save_as(path, enforce_file_format=True)
    expected = [np.nan if level in padded else 2.0 * level - 7 for level in levels]
    assert np.array_equal(read(path).values[0, 0], expected, equal_nan=True)
    # Background is black, also where low values are white.
    (painted,) = show(path)
    assert not any(painted[levels.index(level)] for level in padded)


@pytest.mark.parametrize(
    ("dtype", "bits", "vr"), [(np.int16, 63536, "US"), (np.uint16, -2000, "SS")]
)
def test_padding_of_the_wrong_sign_has_the_bits_that_it_has(dtype, bits, vr, tmp_path):
    value = -2000 if dtype == np.int16 else 63536
    dataset = make_dataset(np.array([[value, 5, 900]], dtype))
    dataset.add_new("PixelPaddingValue", vr, bits)
    dataset.save_as(tmp_path / "a", enforce_file_format=True)
    expected = [np.nan, 5, 900]
    assert np.array_equal(read(tmp_path / "a").values[0, 0], expected, equal_nan=True)


def test_padding_does_not_widen_the_window(tmp_path):
    stored = np.arange(100, 200, dtype=np.int16).reshape(10, 10)
    stored[:5] = -2000
    path = write_dicom(tmp_path / "a", stored, PixelPaddingValue=-2000)
    (found,) = cut_slices(read(path), SlicePolicy())
    assert found.pixels[:5].max() == 0
    assert np.ptp(found.pixels[5:].astype(int)) == 255


def test_each_frame_has_its_own_slope_and_padding_is_of_stored_values(tmp_path):
    """PS3.3 C.7.6.16.2.9: the pixel value transformation can differ from frame to frame."""
    stored = np.array([[[0, 1, 9]], [[0, 1, 9]], [[0, 1, 9]]], np.uint16)
    frames = [
        {
            "ImagePositionPatient": [0, 0, -float(place)],
            "RescaleSlope": 10**place,
            "RescaleIntercept": place,
        }
        for place in range(3)
    ]
    path = write_enhanced(tmp_path / "a", stored, frames, PixelPaddingValue=9)
    expected = [[[2, 102, np.nan]], [[1, 11, np.nan]], [[0, 1, np.nan]]]
    assert np.array_equal(read(path).values, expected, equal_nan=True)


def test_chosen_frames_are_those_of_the_file(tmp_path):
    stored = draw_volume(5)
    frames = [{"ImagePositionPatient": [0, 0, float(place)]} for place in range(5)]
    path = write_enhanced(tmp_path / "a", stored, frames)
    assert (read(path, frames=[4, 0, 2]).values == stored[[0, 2, 4]]).all()
    dataset = pydicom.dcmread(path)
    dataset.compress(pydicom.uid.RLELossless)
    dataset.save_as(tmp_path / "b", enforce_file_format=True)
    assert (read(tmp_path / "b", frames=[4, 0, 2]).values == stored[[0, 2, 4]]).all()
