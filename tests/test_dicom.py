import itertools
import logging
import os
import traceback
import warnings
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import RLELossless
from support.dicoms import (
    AXIAL,
    draw_volume,
    make_dataset,
    write_dicom,
    write_enhanced,
    write_series,
)

from brainfeat.errors import ImageReadError
from brainfeat.readers.dicom import files, find_stacks, is_dicom, read_header, read_series
from brainfeat.readers.volumes import SlicePolicy, cut_slices
from brainfeat.readers.windows import Window

PACKAGED = Path(pydicom.__file__).parent / "data"


def read(*paths, **options):
    return read_series(paths, name="volume 1", **options)


def find(*paths):
    return find_stacks([(path, read_header(path, name="file")) for path in paths])


def reason(*paths, **options):
    with pytest.raises(ImageReadError) as caught:
        read(*paths, **options)
    assert caught.value.path == "volume 1"
    return caught.value.reason


def test_values_are_stored_ones_rescaled(tmp_path):
    pixels = draw_volume(1)[0]
    path = write_dicom(tmp_path / "a.dcm", pixels, RescaleSlope=2, RescaleIntercept=-1024)
    volume = read(path)
    assert volume.values.dtype == np.float32
    assert volume.values.tolist() == [(pixels.astype(float) * 2 - 1024).tolist()]
    assert volume.modality == "MR"
    assert volume.windows == (None,)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32])
def test_bits_and_signs(dtype, tmp_path):
    pixels = np.array([[0, 1], [100, 127]], dtype)
    if np.dtype(dtype).kind == "i":
        pixels = pixels - dtype(50)
    assert read(write_dicom(tmp_path / "a", pixels)).values.tolist() == [pixels.tolist()]


@pytest.mark.parametrize("modality", ["MR", "CT", "PT"])
def test_three_modalities_are_read(modality, tmp_path):
    path = write_dicom(tmp_path / "a", draw_volume(1)[0], Modality=modality)
    assert read(path).modality == modality


def test_a_modality_lookup_table_is_applied(tmp_path):
    table = Dataset()
    table.LUTDescriptor = [4, 0, 16]
    table.add_new("LUTData", "US", [10, 20, 30, 40])
    table.ModalityLUTType = "US"
    pixels = np.array([[0, 1], [2, 3]], np.uint16)
    path = write_dicom(tmp_path / "a", pixels, ModalityLUTSequence=Sequence([table]))
    assert read(path).values.tolist() == [[[10, 20], [30, 40]]]


def test_slices_are_sorted_by_position_whatever_files_and_numbers_say(tmp_path):
    stored = draw_volume(5)
    paths = write_series(tmp_path, stored, reverse=True)
    assert (read(*paths).values == stored).all()
    for order in itertools.islice(itertools.permutations(paths), 0, 120, 17):
        assert (read(*order).values == stored).all()


@pytest.mark.parametrize(
    ("orientation", "axis", "sign"),
    [([1, 0, 0, 0, 0, -1], 1, 1), ([0, 1, 0, 0, 0, -1], 0, -1), (AXIAL, 2, 1)],
)
def test_any_plane_is_sorted_along_its_normal(orientation, axis, sign, tmp_path):
    stored = draw_volume(4)
    for place, pixels in enumerate(stored):
        position = [0.0, 0.0, 0.0]
        position[axis] = 5.0 * place
        write_dicom(
            tmp_path / str(place),
            pixels,
            ImageOrientationPatient=orientation,
            ImagePositionPatient=position,
        )
    found = read(*sorted(tmp_path.iterdir())).values
    assert (found == stored[::sign]).all()


def test_without_positions_the_instance_numbers_count(tmp_path):
    stored = draw_volume(3)
    for place in range(3):
        write_dicom(
            tmp_path / "cab"[place],
            stored[place],
            ImagePositionPatient=None,
            InstanceNumber=place + 1,
        )
    assert (read(*sorted(tmp_path.iterdir())).values == stored).all()


def test_a_scout_of_three_planes_is_three_volumes(tmp_path):
    planes = [AXIAL, [1, 0, 0, 0, 0, -1], [0, 1, 0, 0, 0, -1]]
    paths = [
        write_dicom(tmp_path / str(place), pixels, ImageOrientationPatient=plane)
        for place, (pixels, plane) in enumerate(zip(draw_volume(3), planes, strict=True))
    ]
    again = write_dicom(tmp_path / "3", draw_volume(1)[0], ImagePositionPatient=[0, 0, 9])
    found = [stack.paths for stack in find(*paths, again)]
    assert found == [(paths[0], again), (paths[1],), (paths[2],)]


def test_frames_of_one_file_have_positions_windows_and_slopes_of_their_own(tmp_path):
    stored = draw_volume(3) // 8
    order = [2, 0, 1]
    frames = [
        {
            "ImagePositionPatient": [0, 0, float(place)],
            "WindowCenter": 100 + place,
            "WindowWidth": 50,
            "RescaleSlope": place + 1,
            "RescaleIntercept": -7 * place,
        }
        for place in order
    ]
    # The slope at the top of the file is none of these frames'.
    volume = read(write_enhanced(tmp_path / "a", stored, frames, RescaleSlope=100))
    expected = [
        stored[order.index(place)].astype(np.float32) * (place + 1) - 7 * place
        for place in range(3)
    ]
    assert (volume.values == expected).all()
    assert [window.centre for window in volume.windows] == [100, 101, 102]
    assert volume.facts["spacing"] == [0.9, 0.8]
    assert volume.facts["frames"] == 3


def test_each_file_of_several_frames_is_a_volume(tmp_path):
    paths = [write_dicom(tmp_path / name, draw_volume(2)) for name in "ab"]
    assert [stack.paths for stack in find(*paths)] == [(path,) for path in paths]


def test_a_compressed_file_has_the_pixels_of_the_plain_one(tmp_path):
    pixels = draw_volume(1)[0]
    dataset = make_dataset(pixels)
    dataset.compress(RLELossless)
    dataset.save_as(tmp_path / "a", enforce_file_format=True)
    assert (read(tmp_path / "a").values == pixels).all()


@pytest.mark.parametrize(
    "name",
    [
        "MR_small_RLE.dcm",
        "MR_small_bigendian.dcm",
        "MR_small_expb.dcm",
        "MR_small_implicit.dcm",
        "MR_small_jp2klossless.dcm",
        "MR_small_jpeg_ls_lossless.dcm",
        "MR_small_padded.dcm",
    ],
)
def test_one_image_is_the_same_in_each_transfer_syntax(name):
    folder = PACKAGED / "test_files"
    plain = read(folder / "MR_small.dcm")
    assert (read(folder / name).values == plain.values).all()


def call_mr(name, target):
    """Copy a packaged file of another modality as MR."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = pydicom.dcmread(PACKAGED / "test_files" / name)
        dataset.Modality = "MR"
        dataset.save_as(target)
    return dataset


@pytest.mark.parametrize(
    "name",
    ["JPGExtended.dcm", "JPEG2000.dcm", "JPEGLSNearLossless_08.dcm", "JPEGLSNearLossless_16.dcm"],
)
def test_compressed_pixels_are_those_of_pydicom(name, tmp_path):
    dataset = call_mr(name, tmp_path / "a")
    expected = pydicom.pixels.apply_modality_lut(dataset.pixel_array, dataset)
    assert read(tmp_path / "a", allow_burned_in=True).values[0] == pytest.approx(expected)


@pytest.mark.parametrize("name", ["JPEG-lossy.dcm", "JPEG2000-embedded-sequence-delimiter.dcm"])
def test_pixels_that_no_decoder_takes_are_refused(name, tmp_path):
    call_mr(name, tmp_path / "a")
    assert "cannot be decoded (JPEG" in reason(tmp_path / "a", allow_burned_in=True)


def test_the_first_window_of_the_file_is_taken(tmp_path):
    path = write_dicom(
        tmp_path / "a", draw_volume(1)[0], WindowCenter=[40, 400], WindowWidth=[80, 2000]
    )
    assert read(path).windows == (Window(40, 80, "LINEAR"),)
    path = write_dicom(
        tmp_path / "b",
        draw_volume(1)[0],
        WindowCenter=40,
        WindowWidth=80,
        VOILUTFunction="SIGMOID",
    )
    assert read(path).windows == (Window(40, 80, "SIGMOID"),)


@pytest.mark.parametrize(("centre", "width"), [(40, 0), (40, -5), ("", 80), (40, "")])
def test_an_impossible_window_is_none(centre, width, tmp_path):
    path = write_dicom(tmp_path / "a", draw_volume(1)[0], WindowCenter=centre, WindowWidth=width)
    assert read(path).windows == (None,)


def test_monochrome1_is_shown_the_other_way_round(tmp_path):
    pixels = draw_volume(1)[0]
    options = {"WindowCenter": 2000, "WindowWidth": 4000}
    one = read(
        write_dicom(tmp_path / "1", pixels, PhotometricInterpretation="MONOCHROME1", **options)
    )
    two = read(write_dicom(tmp_path / "2", pixels, **options))
    (_, dark), (_, light) = (next(cut_slices(v, SlicePolicy())) for v in (one, two))
    assert abs(255 - dark.astype(int) - light).max() <= 1


def test_padding_has_no_value(tmp_path):
    pixels = np.array([[0, 1], [5, 7]], np.uint16)
    path = write_dicom(tmp_path / "a", pixels, PixelPaddingValue=5, PixelPaddingRangeLimit=7)
    values = read(path).values[0]
    assert values[0].tolist() == [0, 1]
    assert np.isnan(values[1]).all()


@pytest.mark.parametrize(
    ("elements", "words"),
    [
        ({"BurnedInAnnotation": "YES"}, "declares text in its pixels"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"}, "secondary capture"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7.2"}, "secondary capture"),
    ],
)
def test_what_may_show_a_name_is_refused_unless_it_is_allowed(elements, words, tmp_path):
    path = write_dicom(tmp_path / "a", draw_volume(1)[0], **elements)
    assert words in reason(path)
    assert read(path, allow_burned_in=True).values.shape == (1, 8, 8)


@pytest.mark.parametrize(
    ("elements", "words"),
    [
        ({"Modality": "US"}, "modality other than MR, CT, PT"),
        ({"Modality": None}, "modality other than MR, CT, PT"),
        ({"PixelData": None}, "has no pixels"),
        ({"PhotometricInterpretation": "RGB"}, "is not grey"),
        ({"SamplesPerPixel": 3}, "is not grey"),
        ({"Rows": 9}, "cannot be decoded"),
        ({"Rows": 0}, "no voxels"),
        ({"Rows": None}, "damaged"),
        ({"BitsAllocated": 13}, "cannot be decoded"),
        ({"Columns": 65535, "Rows": 65535}, "at most 250,000,000 are read"),
        ({"NumberOfFrames": 2_000_000_000}, "2,000,000,000 frames; at most 100,000 are read"),
        ({"NumberOfFrames": -1}, "no voxels"),
    ],
)
def test_images_that_are_not_grey_are_refused(elements, words, tmp_path):
    path = write_dicom(tmp_path / "a", draw_volume(1)[0], **elements)
    assert words in reason(path)


def test_files_that_differ_are_not_one_volume(tmp_path):
    a = write_dicom(tmp_path / "a", draw_volume(1)[0])
    b = write_dicom(tmp_path / "b", draw_volume(1)[0], PatientID="another")
    assert reason(a, b) == "has files of more than one PatientID"


def test_paths_that_are_not_regular_files_are_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert not is_dicom(tmp_path / "pipe")
    assert not is_dicom(tmp_path)
    with pytest.raises(FileNotFoundError):
        is_dicom(tmp_path / "nothing")
    assert reason(tmp_path / "pipe") == "is not a regular file"
    assert reason(tmp_path) == "is not a regular file"
    assert reason(tmp_path / "nothing") == "cannot be read (No such file or directory)"


def test_a_large_file_is_refused_unread(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "FILE_LIMIT", 100)
    assert "at most 100 are read" in reason(write_dicom(tmp_path / "a", draw_volume(1)[0]))


@pytest.mark.parametrize(
    ("limit", "words"),
    [("ITEM_LIMIT", "more than 20 items in"), ("HEADER_LIMIT", "a header of more than 20 bytes")],
)
def test_a_header_that_would_fill_the_memory_is_not_read(limit, words, tmp_path, monkeypatch):
    frames = [{"ImagePositionPatient": [0, 0, float(place)]} for place in range(40)]
    path = write_enhanced(tmp_path / "a", draw_volume(40), frames)
    assert read(path).values.shape == (40, 8, 8)
    # Smaller files cannot have so many items.
    monkeypatch.setattr(files, "ITEM_LIMIT", path.stat().st_size // 8 - 1)
    assert read(path).values.shape == (40, 8, 8)
    monkeypatch.setattr(files, limit, 20)
    assert words in reason(path)
    with pytest.raises(ImageReadError, match=words):
        read_header(path, name="file 1")


def test_a_deflated_file_is_refused_before_it_is_unpacked():
    path = PACKAGED / "test_files" / "image_dfl.dcm"
    assert "deflated as a whole" in reason(path)


def test_the_patient_is_identified_by_number_and_issuer_or_else_by_the_study(tmp_path):
    pixels = draw_volume(1)[0]
    found = [
        read(write_dicom(tmp_path / str(place), pixels, **elements)).patient
        for place, elements in enumerate(
            [
                {},
                {"PatientID": " P1 "},
                {"IssuerOfPatientID": "elsewhere"},
                {"PatientID": ""},
                {"PatientID": None, "StudyInstanceUID": None},
            ]
        )
    ]
    assert found[0] == found[1]
    assert len(set(found)) == 4


# What becomes of each of pydicom's own test files. A file that is not named is not of MR, CT or PT.
DECODED = {
    *("693_J2KI.dcm", "CT_small.dcm", "J2K_pixelrep_mismatch.dcm", "MR_small.dcm"),
    *("MR_small_RLE.dcm", "MR_small_bigendian.dcm", "MR_small_expb.dcm"),
    *("MR_small_implicit.dcm", "MR_small_jp2klossless.dcm", "MR_small_jpeg_ls_lossless.dcm"),
    *("MR_small_padded.dcm", "examples_overlay.dcm"),
    *("17106", "17136", "17166", "17196", "6293", "6924", "2062", "2392", "2693", "3023", "3353"),
    *("15820", "4919", "5641", "15970", "4950", "4981", "5011", "6273", "6605", "6935"),
    *("4467", "4528", "4558", "4588", "4618", "4648", "4678"),
}
REFUSED = {
    "MR_truncated.dcm": "cannot be decoded",
    "image_dfl.dcm": "deflated as a whole",
}


@pytest.fixture(scope="module")
def packaged():
    files = sorted(path for path in PACKAGED.rglob("*") if is_dicom(path))
    assert len(files) > 150
    return files


@pytest.mark.slow
def test_every_packaged_file_is_decoded_or_refused_with_its_reason(packaged):
    decoded, refused = set(), {}
    for path in packaged:
        try:
            volume = read(path)
        except ImageReadError as error:
            refused[path.name] = error.reason
        else:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                dataset = pydicom.dcmread(path)
                assert volume.values.shape[1:] == (dataset.Rows, dataset.Columns)
                expected = pydicom.pixels.apply_modality_lut(dataset.pixel_array, dataset)
            known = np.isfinite(volume.values[0])
            assert volume.values[0][known] == pytest.approx(expected[known])
            assert known.mean() > 0.3
            assert len(list(cut_slices(volume, SlicePolicy()))) == 1
            decoded.add(path.name)
    assert decoded == DECODED
    for name, words in REFUSED.items():
        assert words in refused.pop(name)
    assert set(refused.values()) == {"has no pixels", "is of a modality other than MR, CT, PT"}


@pytest.mark.slow
def test_damage_is_an_error_of_ours_that_quotes_nothing(tmp_path, caplog, recwarn):
    """Cut, flip and overwrite bytes: nothing else is raised, logged or warned of."""
    rng = np.random.default_rng(0)
    whole = write_dicom(
        tmp_path / "a",
        draw_volume(1)[0],
        WindowCenter=40,
        WindowWidth=80,
        PatientName="CANARY^NAME",
    ).read_bytes()
    compressed = (PACKAGED / "test_files" / "MR_small_jp2klossless.dcm").read_bytes()
    errors, n_read = [], 0
    for source in (whole, compressed):
        for number in range(400):
            data = bytearray(source)
            if number % 4 == 0:
                data = data[: rng.integers(132, len(data))]
            else:
                for place in rng.integers(132, len(data), rng.integers(1, 8)):
                    data[place] = rng.integers(256)
            path = tmp_path / "CANARY.dcm"
            path.write_bytes(data)
            try:
                read_header(path, name="file 1")
                read(path)
                n_read += 1
            except ImageReadError as error:
                errors.append("".join(traceback.format_exception(error)))
    assert min(n_read, len(errors)) > 100
    assert not [error for error in errors if "CANARY" in error]
    assert not caplog.records
    assert not recwarn.list


def test_logs_and_warnings_are_as_they_were_afterwards(tmp_path):
    logger = logging.getLogger("pydicom")
    before = logger.level, list(warnings.filters)
    read(write_dicom(tmp_path / "a", draw_volume(1)[0]))
    reason(tmp_path / "nothing")
    assert (logger.level, list(warnings.filters)) == before
