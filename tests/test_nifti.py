"""NIfTI files: orientation, values, refusals, and that no text of theirs is heard of."""

import gzip
import itertools
import os
import traceback
import tracemalloc
from pathlib import Path

import nibabel
import numpy as np
import pytest

from brainfeat.errors import ImageReadError
from brainfeat.readers import nifti
from brainfeat.readers.nifti import read_nifti

PACKAGED = Path(nibabel.__file__).parent / "tests" / "data"


def read(path):
    return read_nifti(Path(path), name="volume 1")


def reason(path):
    with pytest.raises(ImageReadError) as caught:
        read(path)
    assert caught.value.path == "volume 1"
    assert "CANARY" not in "".join(traceback.format_exception(caught.value)[-1:])
    return caught.value.reason


def make_image(shape=(3, 4, 5), *, dtype=np.int16, kind=nibabel.Nifti1Image, zooms=(2, 3, 4)):
    values = np.random.default_rng(0).integers(0, 100, shape).astype(dtype)
    return kind(values, np.diag([*map(float, zooms), 1.0]))


def save(image, path):
    image.to_filename(path)
    return path


def as_slices(image):
    values = nibabel.as_closest_canonical(image).get_fdata(dtype=np.float32)
    return values.reshape(values.shape[:3])[::-1, ::-1].transpose(2, 1, 0)


def test_each_of_48_orientations_is_shown_alike(tmp_path):
    image = make_image()
    expected = as_slices(image)
    for axes in itertools.permutations(range(3)):
        for flips in itertools.product((1, -1), repeat=3):
            turned = image.as_reoriented(np.column_stack([axes, flips]))
            volume = read(save(turned, tmp_path / "a.nii"))
            assert (volume.values == expected).all()
            assert volume.facts["spacing"] == [2, 3, 4]


def test_anterior_is_above_and_the_right_side_on_the_left(tmp_path):
    values = np.zeros((3, 4, 5), np.int16)
    values[2, 3, 0] = 7  # most to the right, most anterior, lowest
    volume = read(save(nibabel.Nifti1Image(values, np.eye(4)), tmp_path / "a.nii"))
    assert volume.values[0, 0, 0] == 7
    assert volume.values.shape == (5, 4, 3)
    assert volume.facts == {
        "rows": 4,
        "columns": 3,
        "frames": 5,
        "spacing": [1, 1, 1],
        "bits": 16,
    }


@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32, np.float64, np.int32])
def test_kinds_of_files_and_numbers(kind, suffix, dtype, tmp_path):
    image = make_image(dtype=dtype, kind=kind)
    volume = read(save(image, tmp_path / f"a{suffix}"))
    assert volume.values.dtype == np.float32
    assert (volume.values == as_slices(image)).all()
    assert volume.modality == "NIfTI"
    assert volume.windows == (None,) * 5


def test_what_is_packed_is_known_by_its_content(tmp_path):
    image = make_image()
    path = save(image, tmp_path / "a.nii.gz").rename(tmp_path / "a.nii")
    assert (read(path).values == as_slices(image)).all()


def test_values_are_scaled_in_both_byte_orders(tmp_path):
    for order in "<>":
        image = nibabel.Nifti1Image(
            np.arange(24, dtype=f"{order}i2").reshape(2, 3, 4), np.eye(4), dtype=f"{order}i2"
        )
        image.header.set_slope_inter(0.5, -10)
        path = save(image, tmp_path / "a.nii")
        header = bytearray(path.read_bytes())
        data = bytes(header[:352]) + np.arange(24, dtype=image.get_data_dtype()).tobytes("F")
        slope = np.array(
            [0.5, -10],
            image.header.structarr["scl_slope"].dtype.newbyteorder(image.header.endianness),
        ).tobytes()
        path.write_bytes(data[:112] + slope + data[120:])
        stored = np.arange(24).reshape((2, 3, 4), order="F")
        expected = (stored * 0.5 - 10)[::-1, ::-1].transpose(2, 1, 0)
        assert (read(path).values == expected).all()


def test_what_is_not_finite_has_no_value(tmp_path):
    values = np.zeros((2, 2, 2), np.float32)
    values[0, 0, 0], values[1, 1, 1] = np.inf, np.nan
    found = read(save(nibabel.Nifti1Image(values, np.eye(4)), tmp_path / "a.nii")).values
    assert np.isnan(found).sum() == 2
    assert not np.isinf(found).any()


def test_a_fourth_axis_of_one_volume_is_dropped(tmp_path):
    image = make_image((3, 4, 5, 1))
    assert (read(save(image, tmp_path / "a.nii")).values == as_slices(image)).all()


# What becomes of each of nibabel's own test files.
PACKAGED_FILES = {
    "analyze.hdr": "perhaps an Analyze one",
    "anatomical.nii": None,
    "example4d.nii.gz": "has 4 axes (128 × 96 × 24 × 2)",
    "example_nifti2.nii.gz": "has 4 axes",
    "functional.nii": "has 4 axes",
    "nifti1.hdr": "one of a pair",
    "nifti2.hdr": "one of a pair",
    "reoriented_anat_moved.nii": None,
    "resampled_anat_moved.nii": None,
    "row_major.dconn.nii": "has 6 axes",
    "standard.nii.gz": None,
    "test.mgz": "is no NIfTI file",
}


def test_every_packaged_file_is_decoded_or_refused_with_its_reason():
    suffixes = (".nii", ".nii.gz", ".hdr", ".mgz")
    files = [path for path in PACKAGED.iterdir() if path.name.endswith(suffixes)]
    assert {path.name for path in files} == set(PACKAGED_FILES)
    for path in files:
        if words := PACKAGED_FILES[path.name]:
            assert words in reason(path)
        else:
            assert read(path).values == pytest.approx(
                as_slices(nibabel.load(path)), rel=1e-6, nan_ok=True
            )


@pytest.mark.parametrize(
    ("dtype", "words"),
    [
        (np.complex64, "no plain numbers"),
        (np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")]), "no plain numbers"),
    ],
)
def test_voxels_that_are_no_numbers_are_refused(dtype, words, tmp_path):
    image = nibabel.Nifti1Image(np.zeros((2, 2, 2), dtype), np.eye(4))
    assert words in reason(save(image, tmp_path / "a.nii"))


def write_header(path, *, kind=nibabel.Nifti1Header, **fields):
    """Write a header alone, with fields that nibabel would not write."""
    header = kind()
    header.set_data_dtype(np.int16)
    header["magic"] = b"n+1" if kind is nibabel.Nifti1Header else header["magic"]
    header["dim"] = [3, 2, 2, 2, 1, 1, 1, 1]
    header["vox_offset"] = 352
    for name, value in fields.items():
        header[name] = value
    path.write_bytes(header.binaryblock + bytes(4) + bytes(64))
    return path


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"dim": [3, 30000, 30000, 30000, 1, 1, 1, 1]}, "at most 500,000,000"),
        ({"dim": [3, -2, 2, 2, 1, 1, 1, 1]}, "voxels"),
        ({"dim": [3, 0, 2, 2, 1, 1, 1, 1]}, "voxels"),
        ({"dim": [2, 2, 2, 1, 1, 1, 1, 1]}, "has 2 axes"),
        ({"dim": [3, 200, 200, 200, 1, 1, 1, 1]}, "shorter than its header says"),
        ({"dim": [-3, 2, 2, 2, 1, 1, 1, 1]}, "has -3 axes"),
        ({"dim": [8, 2, 2, 2, 1, 1, 1, 1]}, "has 8 axes"),
        ({"vox_offset": 1e9}, "voxels do not begin"),
        ({"vox_offset": np.nan}, "voxels do not begin"),
        ({"vox_offset": -5e8}, "voxels do not begin"),
        ({"vox_offset": 0}, "voxels do not begin"),
        ({"vox_offset": 148}, "voxels do not begin"),
        ({"vox_offset": 351}, "voxels do not begin"),
        ({"sform_code": 1, "srow_x": [0, 0, 0, 0]}, "no usable orientation"),
        ({"sform_code": 1, "srow_x": [np.nan, 0, 0, 0]}, "no usable orientation"),
    ],
)
def test_headers_that_cannot_be_true_are_refused(fields, words, tmp_path):
    if "sform_code" in fields:
        fields |= {"srow_y": [0, 1, 0, 0], "srow_z": [0, 0, 1, 0]}
    assert words in reason(write_header(tmp_path / "a.nii", **fields))


def test_what_is_no_regular_file_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe.nii")
    assert reason(tmp_path / "pipe.nii") == "is not a regular file"
    assert reason(tmp_path) == "is not a regular file"
    assert reason(tmp_path / "no.nii") == "cannot be read (No such file or directory)"
    (tmp_path / "empty.nii").write_bytes(b"")
    assert reason(tmp_path / "empty.nii") == "is no NIfTI file"


def test_a_file_cut_anywhere_is_refused(tmp_path):
    for suffix in (".nii", ".nii.gz"):
        whole = save(make_image((8, 8, 8)), tmp_path / f"a{suffix}").read_bytes()
        for length in range(0, len(whole) - 1, 13):
            (tmp_path / f"b{suffix}").write_bytes(whole[:length])
            assert reason(tmp_path / f"b{suffix}")


def test_a_bomb_is_not_unpacked(tmp_path):
    zeros = gzip.compress(bytes(200_000_000), 9)
    header = write_header(tmp_path / "a.nii").read_bytes()[:352]
    far = write_header(tmp_path / "a.nii", vox_offset=15_999_984).read_bytes()[:348]
    huge = b"\1\0\0\0" + (190_000_000).to_bytes(4, "little") + bytes(4)
    data = {"data": gzip.compress(header) + zeros, "extension": gzip.compress(far + huge) + zeros}
    for name, packed in data.items():
        path = tmp_path / f"{name}.nii.gz"
        path.write_bytes(packed)
        tracemalloc.start()
        try:
            outcome = read(path).values.shape
        except ImageReadError as error:
            outcome = error.reason
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert outcome
        assert peak < 60_000_000, name


def test_damaged_headers_are_errors_of_ours_and_say_nothing(tmp_path, caplog, recwarn):
    rng = np.random.default_rng(0)
    image = make_image((6, 6, 6))
    image.header["descrip"] = b"CANARY"
    whole = save(image, tmp_path / "a.nii").read_bytes()
    outcomes = {"read": 0, "refused": 0}
    errors = []
    for _ in range(600):
        data = bytearray(whole)
        for place in rng.integers(0, 352, rng.integers(1, 6)):
            data[place] = rng.integers(256)
        (tmp_path / "CANARY.nii").write_bytes(data)
        try:
            read(tmp_path / "CANARY.nii")
            outcomes["read"] += 1
        except ImageReadError as error:
            outcomes["refused"] += 1
            errors.append(str(error))
    assert min(outcomes.values()) > 100
    assert not [error for error in errors if "CANARY" in error]
    assert not caplog.records
    assert not recwarn.list


def test_no_canary_is_heard_of(tmp_path, caplog, recwarn):
    caplog.set_level(0)
    image = make_image()
    for field in ("descrip", "aux_file", "intent_name", "db_name"):
        image.header[field] = b"CANARY"
    image.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", b"CANARY" * 20))
    folder = tmp_path / "sub-CANARY"
    folder.mkdir()
    volume = read(save(image, folder / "CANARY.nii"))
    assert "CANARY" not in repr(volume) + repr(volume.facts)
    whole = (folder / "CANARY.nii").read_bytes()
    for length in (100, 360, 500):
        (folder / "CANARY.nii").write_bytes(whole[:length])
        assert "CANARY" not in reason(folder / "CANARY.nii")
    assert "CANARY" not in caplog.text
    assert not recwarn.list


def test_the_subject_is_that_of_bids_or_else_the_file(tmp_path):
    paths = [
        *("sub-01/anat/sub-01_T1w.nii", "sub-01/anat/T2w.nii", "sub-02/anat/sub-02_T1w.nii"),
        *("plain/a.nii", "plain/b.nii"),
    ]
    found = []
    for path in paths:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        found.append(read(save(make_image(), tmp_path / path)).patient)
    assert found[0] == found[1]
    assert len(set(found)) == 4
    assert nifti.OFFSET_LIMIT < 20_000_000
