"""NIfTI files: orientation, values, errors, and that no text of a file is ever shown."""

import gzip
import itertools
import logging
import os
import struct
import traceback
import tracemalloc
import warnings
from pathlib import Path

import nibabel
import numpy as np
import pytest

from brainfeat.errors import ImageReadError
from brainfeat.readers import voxels
from brainfeat.readers.nifti import read_nifti
from brainfeat.readers.volumes import SlicePolicy, cut_slices

PACKAGED = Path(nibabel.__file__).parent / "tests" / "data"


def read(path):
    return read_nifti(Path(path), name="volume 1")


def reason(path):
    with pytest.raises(ImageReadError) as caught:
        read(path)
    assert caught.value.path == "volume 1"
    assert "CANARY" not in "".join(traceback.format_exception(caught.value))
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
        "spacing": [1, 1, 1],
        "bits": 16,
        "volumes": 1,
        "affine": "sform",
        "affine_conflict": False,
    }


@pytest.mark.parametrize(
    ("kind", "suffix", "dtype"),
    [
        *((nibabel.Nifti1Image, ".nii", dtype) for dtype in ["u1", "i2", "f4", "f8", "i4"]),
        *((nibabel.Nifti1Image, ".nii.gz", "i2"), (nibabel.Nifti2Image, ".nii", "i2")),
        (nibabel.Nifti2Image, ".nii.gz", "f4"),
    ],
)
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


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
def test_values_are_scaled_in_both_byte_orders(kind, order, tmp_path):
    stored = np.arange(24).reshape(2, 3, 4)
    header = kind.header_class(endianness=order)
    header.set_data_dtype(np.int16)
    header.set_data_shape(stored.shape)
    header.set_slope_inter(0.5, -10)
    header["vox_offset"] = header.single_vox_offset
    data = header.binaryblock + bytes(4) + stored.astype(f"{order}i2").tobytes("F")
    assert (data[0] == 0) == (order == ">")
    (tmp_path / "a.nii").write_bytes(data)
    # Without an affine, the first axis runs from the left to the right of the picture.
    expected = (stored * 0.5 - 10)[:, ::-1].transpose(2, 1, 0)
    assert (read(tmp_path / "a.nii").values == expected).all()
    assert (as_slices(nibabel.load(tmp_path / "a.nii")) == expected).all()


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
    "analyze.hdr": "perhaps an Analyze file",
    "anatomical.nii": None,
    "example4d.nii.gz": "has 2 volumes (128 × 96 × 24 × 2); pass volume=N, from 1 to 2, for one",
    "example_nifti2.nii.gz": "has 2 volumes",
    "functional.nii": "has 20 volumes",
    "nifti1.hdr": "one of a pair",
    "nifti2.hdr": "one of a pair",
    "reoriented_anat_moved.nii": None,
    "resampled_anat_moved.nii": None,
    "row_major.dconn.nii": "has 6 axes",
    "standard.nii.gz": None,
    "test.mgz": "is not a NIfTI file",
}


def test_every_packaged_file_is_decoded_or_refused_with_its_reason():
    suffixes = (".nii", ".nii.gz", ".hdr", ".img", ".mgz")
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
        (np.complex64, "not real numbers"),
        (np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")]), "not real numbers"),
    ],
)
def test_voxels_that_are_not_real_numbers_are_refused(dtype, words, tmp_path):
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
        ({"dim": [3, 30000, 30000, 30000, 1, 1, 1, 1]}, "at most 250,000,000"),
        ({"dim": [3, -2, 2, 2, 1, 1, 1, 1]}, "voxels"),
        ({"dim": [3, 0, 2, 2, 1, 1, 1, 1]}, "voxels"),
        ({"dim": [2, 2, 2, 1, 1, 1, 1, 1]}, "has 2 axes"),
        ({"dim": [3, 200, 200, 200, 1, 1, 1, 1]}, "shorter than its header states"),
        ({"dim": [-3, 2, 2, 2, 1, 1, 1, 1]}, "has -3 axes"),
        ({"dim": [8, 2, 2, 2, 1, 1, 1, 1]}, "has 8 axes"),
        ({"vox_offset": 1e9}, "voxels that do not begin"),
        ({"vox_offset": np.nan}, "voxels that do not begin"),
        ({"vox_offset": -5e8}, "voxels that do not begin"),
        ({"vox_offset": 0}, "voxels that do not begin"),
        ({"vox_offset": 148}, "voxels that do not begin"),
        ({"vox_offset": 351}, "voxels that do not begin"),
        ({"sform_code": 1, "srow_x": [1e-13, 0, 0, 0]}, "no usable orientation"),
        ({"sform_code": 1, "srow_x": [0, 0, 0, 0]}, "no usable orientation"),
        ({"sform_code": 1, "srow_x": [np.nan, 0, 0, 0]}, "no usable orientation"),
    ],
)
def test_headers_that_cannot_be_true_are_refused(fields, words, tmp_path):
    if "sform_code" in fields:
        fields |= {"srow_y": [0, 1, 0, 0], "srow_z": [0, 0, 1, 0]}
    assert words in reason(write_header(tmp_path / "a.nii", **fields))


def test_paths_that_are_not_regular_files_are_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe.nii")
    assert reason(tmp_path / "pipe.nii") == "is not a regular file"
    assert reason(tmp_path) == "is not a regular file"
    assert reason(tmp_path / "no.nii") == "cannot be read (No such file or directory)"
    (tmp_path / "empty.nii").write_bytes(b"")
    assert reason(tmp_path / "empty.nii") == "is not a NIfTI file"


def test_a_file_cut_anywhere_is_refused(tmp_path):
    for suffix in (".nii", ".nii.gz"):
        whole = save(make_image((8, 8, 8)), tmp_path / f"a{suffix}").read_bytes()
        for length in range(0, len(whole) - 1, 13):
            (tmp_path / f"b{suffix}").write_bytes(whole[:length])
            assert reason(tmp_path / f"b{suffix}")


def trace(path):
    """Read a file; return the outcome and the peak number of bytes in memory."""
    tracemalloc.start()
    try:
        outcome = read(path).values.shape
    except ImageReadError as error:
        outcome = error.reason
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return outcome, peak


def test_a_bomb_is_not_unpacked(tmp_path):
    zeros = gzip.compress(bytes(200_000_000), 9)
    header = write_header(tmp_path / "a.nii").read_bytes()[:352]
    far = write_header(tmp_path / "a.nii", vox_offset=15_999_984).read_bytes()[:348]
    huge = b"\1\0\0\0" + (190_000_000).to_bytes(4, "little") + bytes(4)
    for start in (header, far + huge):
        path = tmp_path / "b.nii.gz"
        path.write_bytes(gzip.compress(start) + zeros)
        outcome, peak = trace(path)
        assert "more than 16,000,000 bytes after its voxels" in outcome
        assert peak < 20_000_000


@pytest.mark.parametrize(
    ("kind", "order", "packed"),
    [
        *((nibabel.Nifti1Image, order, False) for order in "<>"),
        *((nibabel.Nifti2Image, order, False) for order in "<>"),
        (nibabel.Nifti1Image, "<", True),
    ],
)
def test_damaged_headers_are_errors_of_ours_and_say_nothing(
    kind, order, packed, tmp_path, caplog, recwarn
):
    for logger in (None, "nibabel", "nibabel.global"):
        caplog.set_level(1, logger)
    rng = np.random.default_rng(0)
    header = kind.header_class(endianness=order)
    header["descrip"] = b"CANARY" * 13
    header.set_data_dtype(np.int16)
    image = kind(make_image((6, 6, 6)).get_fdata(), np.diag([2.0, 3.0, 4.0, 1.0]), header)
    whole = save(image, tmp_path / "a.nii").read_bytes()
    path = tmp_path / "CANARY.nii"
    outcomes = {"read": 0, "refused": 0}
    words = []
    for _ in range(300):
        data = bytearray(whole)
        for place in rng.integers(0, header.sizeof_hdr + 4, rng.integers(1, 6)):
            data[place] = rng.integers(256)
        path.write_bytes(gzip.compress(data, 1) if packed else data)
        try:
            volume = read(path)
        except ImageReadError as error:
            outcomes["refused"] += 1
            words += traceback.format_exception(error)
            continue
        outcomes["read"] += 1
        assert "CANARY" not in repr(volume)
        assert all(0 < size < np.inf for size in volume.facts["spacing"])
        assert len(list(cut_slices(volume, SlicePolicy(slices="largest")))) == 1
    assert min(outcomes.values()) > 30
    assert "CANARY" not in "".join(words)
    assert not caplog.records
    assert not recwarn.list


def test_no_canary_is_heard_of(tmp_path, caplog, recwarn):
    for logger in (None, "nibabel", "nibabel.global"):
        caplog.set_level(1, logger)
    image = make_image()
    for field in ("descrip", "aux_file", "intent_name", "db_name"):
        image.header[field] = b"CANARY"
    image.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", b"CANARY" * 20))
    folder = tmp_path / "sub-CANARY"
    folder.mkdir()
    path = save(image, folder / "CANARY.nii")
    whole = path.read_bytes()
    assert whole.count(b"CANARY") == 24
    volume = read(path)
    assert volume.patient == f"file\0{path}"
    assert "CANARY" not in repr(volume) + repr(volume.facts)
    hostile = {
        **{f"cut at {length}": whole[:length] for length in range(0, len(whole), 9)},
        "size": b"CANA" + whole[4:],
        "shape": whole[:40] + b"CANARYCANARYCANA" + whole[56:],
        "type": whole[:70] + b"CA" + whole[72:],
        "offset": whole[:108] + b"CANA" + whole[112:],
        "slope": whole[:112] + struct.pack("<2f", 1, np.nan) + whole[120:],
        "magic": whole[:344] + b"CANA" + whole[348:],
    }
    for data in hostile.values():
        path.write_bytes(data)
        assert "CANARY" not in reason(path)
        path.write_bytes(gzip.compress(data))
        assert "CANARY" not in reason(path)
    path.unlink()
    reason(path)
    reason(folder)
    reason(folder / "CANARY\0.nii")
    assert not caplog.records
    assert not recwarn.list


def test_no_text_of_a_header_becomes_voxels(tmp_path):
    for kind, least in ((nibabel.Nifti1Header, 352), (nibabel.Nifti2Header, 544)):
        fields = {"kind": kind, "descrip": b"CANARY" * 13}
        assert read(write_header(tmp_path / "a.nii", vox_offset=least, **fields)).values.max() == 0
        for offset in range(0, least, 7):
            path = write_header(tmp_path / "a.nii", vox_offset=offset, **fields)
            assert "after its header" in reason(path)


UPRIGHT = {
    "sform_code": 1,
    "srow_x": [2, 0, 0, 0],
    "srow_y": [0, 3, 0, 0],
    "srow_z": [0, 0, 4, 0],
}


@pytest.mark.parametrize("size", [np.nan, np.inf, 0, -2, 7])
def test_spacing_is_that_of_the_axes_which_place_the_voxels(size, tmp_path):
    path = write_header(tmp_path / "a.nii", pixdim=[1, size, size, size, 0, 0, 0, 0], **UPRIGHT)
    assert read(path).facts["spacing"] == [2, 3, 4]


@pytest.mark.parametrize(("unit", "scale"), [(0, 1), (1, 1000), (2, 1), (3, 0.001), (1 + 8, 1000)])
def test_spacing_is_in_millimetres(unit, scale, tmp_path):
    path = write_header(tmp_path / "a.nii", xyzt_units=unit, **UPRIGHT)
    assert read(path).facts["spacing"] == pytest.approx([2 * scale, 3 * scale, 4 * scale])


def test_spacing_of_an_oblique_volume_is_that_of_its_voxels(tmp_path):
    turn = nibabel.eulerangles.euler2mat(0.2, 0.1, 0.15)
    image = make_image()
    image.set_sform(nibabel.affines.from_matvec(turn @ np.diag([0.9, 1.1, 2.5])), 1)
    for axes in itertools.permutations(range(3)):
        turned = image.as_reoriented(np.column_stack([axes, (1, -1, 1)]))
        volume = read(save(turned, tmp_path / "a.nii"))
        assert volume.facts["spacing"] == [0.9, 1.1, 2.5]
        assert (volume.values == as_slices(image)).all()


def test_a_packed_file_is_read_as_it_was_written_or_refused(tmp_path):
    whole = save(make_image((8, 8, 8)), tmp_path / "a.nii.gz").read_bytes()
    expected = read(tmp_path / "a.nii.gz").values
    rng = np.random.default_rng(0)
    outcomes = {"read": 0, "refused": 0}
    for _ in range(400):
        data = bytearray(whole)
        data[rng.integers(len(data))] ^= 1 << rng.integers(8)
        (tmp_path / "b.nii.gz").write_bytes(data)
        try:
            found = read(tmp_path / "b.nii.gz").values
            outcomes["read"] += 1
            assert np.array_equal(found, expected)
        except ImageReadError:
            outcomes["refused"] += 1
    # Of the packing's own header some bits mean nothing.
    assert outcomes["refused"] > 300


def test_a_packed_file_without_its_end_is_refused(tmp_path):
    whole = save(make_image((8, 8, 8)), tmp_path / "a.nii.gz").read_bytes()
    for missing in range(1, 12):
        (tmp_path / "b.nii.gz").write_bytes(whole[:-missing])
        assert "damaged" in reason(tmp_path / "b.nii.gz")


def test_what_follows_the_voxels_is_passed_over_up_to_a_limit(tmp_path):
    plain = write_header(tmp_path / "a.nii").read_bytes()
    for extra, words in ((1_000_000, None), (voxels.END_LIMIT + 1, "bytes after its voxels")):
        path = tmp_path / "b.nii.gz"
        path.write_bytes(gzip.compress(plain + bytes(extra)))
        if words:
            assert words in reason(path)
        else:
            assert read(path).values.shape == (2, 2, 2)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_a_small_file_takes_little_memory_whatever_its_header(suffix, tmp_path):
    dim = [3, 700, 700, 500, 1, 1, 1, 1]
    header = write_header(tmp_path / "a.nii", dim=dim, datatype=64, bitpix=64).read_bytes()
    path = tmp_path / f"b{suffix}"
    path.write_bytes(gzip.compress(header) if suffix == ".nii.gz" else header)
    outcome, peak = trace(path)
    assert outcome == "is shorter than its header states"
    assert peak < 2_000_000


@pytest.mark.parametrize("level", [0, 1, 9])
def test_what_is_packed_well_is_read(level, tmp_path):
    image = nibabel.Nifti1Image(np.zeros((128, 128, 128), np.int16), np.eye(4))
    path = tmp_path / "a.nii.gz"
    path.write_bytes(gzip.compress(image.to_bytes(), level))
    assert read(path).values.shape == (128, 128, 128)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read all")
def test_a_file_that_may_not_be_read_is_refused(tmp_path):
    path = save(make_image(), tmp_path / "a.nii")
    path.chmod(0)
    assert reason(path) == "cannot be read (Permission denied)"


@pytest.mark.parametrize(
    ("slope", "inter", "expected"),
    [(2, 1, 15), (0, 5, 7), (np.nan, 5, 7), (np.inf, 5, 7), (-1, 0, -7), (3e38, 0, None)],
)
def test_the_slope_is_that_of_the_standard(slope, inter, expected, tmp_path):
    path = write_header(tmp_path / "a.nii", scl_slope=slope, scl_inter=inter)
    path.write_bytes(path.read_bytes()[:352] + np.full(8, 7, np.int16).tobytes())
    values = read(path).values
    assert np.isnan(values).all() if expected is None else (values == expected).all()


@pytest.mark.parametrize("inter", [np.nan, np.inf])
def test_an_intercept_that_is_not_a_number_is_refused(inter, tmp_path):
    path = write_header(tmp_path / "a.nii", scl_slope=1, scl_inter=inter)
    assert "damaged" in reason(path)


@pytest.mark.parametrize("logger", ["nibabel", "nibabel.global"])
def test_messages_of_nibabel_are_suppressed(logger, tmp_path, caplog, monkeypatch):
    path = save(make_image(), tmp_path / "a.nii")
    caplog.set_level(1, logger)

    def speak(header):
        logging.getLogger(logger).critical("CANARY")
        warnings.warn("CANARY", UserWarning, stacklevel=2)
        raise nibabel.spatialimages.HeaderDataError("CANARY")

    monkeypatch.setattr(nibabel.Nifti1Header, "get_sform", speak)
    assert reason(path) == "is damaged or not a readable NIfTI file"
    assert not caplog.records


def test_a_plain_file_without_its_last_byte_is_too_short(tmp_path):
    path = save(make_image(), tmp_path / "a.nii")
    path.write_bytes(path.read_bytes()[:-1])
    assert reason(path) == "is shorter than its header states"


# What places the voxels


def turn_axes(image, *, axes=(1, 2, 0)):
    """Return an image whose stored axes are others, with sform and qform of the same meaning."""
    turned = image.as_reoriented(np.column_stack([axes, (1, -1, 1)]))
    turned.set_qform(turned.affine, 1)
    turned.set_sform(turned.affine, 1)
    return turned


def edit(path, **fields):
    """Change fields of a header that nibabel would not write."""
    data = bytearray(path.read_bytes())
    header = nibabel.Nifti1Header(data[:348], check=False)
    for name, value in fields.items():
        header[name] = value
    data[:348] = header.binaryblock
    path.write_bytes(data)
    return path


NOTHING = {f"srow_{axis}": [0, 0, 0, 0] for axis in "xyz"}
MISSING = {f"srow_{axis}": [np.nan, 0, 0, 0] for axis in "xyz"}


@pytest.mark.parametrize("rows", [NOTHING, MISSING])
def test_an_sform_that_does_not_span_space_leaves_it_to_the_qform(rows, tmp_path):
    image = turn_axes(make_image())
    path = edit(save(image, tmp_path / "a.nii"), **rows)
    volume = read(path)
    assert (volume.values == as_slices(image)).all()
    assert (volume.facts["affine"], volume.facts["affine_conflict"]) == ("qform", False)
    assert "no usable orientation" in reason(edit(path, qform_code=0))


@pytest.mark.parametrize("excess", [1e-6, 1e-5, -1e-6])
@pytest.mark.parametrize("axis", range(3))
def test_a_quaternion_that_rounding_made_too_long_is_normalised(axis, excess, tmp_path):
    half = np.zeros(3)
    half[axis] = 1 + excess
    path = save(make_image(), tmp_path / "a.nii")
    edit(path, sform_code=0, qform_code=1, **dict(zip(QUATERNION, half, strict=True)))
    volume = read(path)
    # A turn by half a circle around an axis.
    turn = np.diag(np.where(np.arange(3) == axis, 1.0, -1.0) * (2, 3, 4))
    image = nibabel.Nifti1Image(make_image().get_fdata(), nibabel.affines.from_matvec(turn))
    assert (volume.values == as_slices(image)).all()
    assert volume.facts["spacing"] == [2, 3, 4]
    assert volume.facts["affine"] == "qform"


QUATERNION = ("quatern_b", "quatern_c", "quatern_d")


def test_a_quaternion_that_is_no_rotation_is_refused(tmp_path):
    path = save(make_image(), tmp_path / "a.nii")
    for value in (0.9, 1e20, np.nan, np.inf):
        edit(path, sform_code=0, qform_code=1, **dict.fromkeys(QUATERNION, value))
        assert reason(path) == "has no usable orientation"


@pytest.mark.parametrize(("factor", "lowest"), [(1, 0), (0, 0), (-1, 4)])
def test_the_sign_of_the_qform_is_that_of_the_standard(factor, lowest, tmp_path):
    values = np.zeros((3, 4, 5), np.int16)
    values[:, :, lowest] = 7
    path = save(nibabel.Nifti1Image(values, np.eye(4)), tmp_path / "a.nii")
    pixdim = [factor, 2, 3, 4, 0, 0, 0, 0]
    edit(path, sform_code=0, qform_code=1, pixdim=pixdim, **dict.fromkeys(QUATERNION, 0))
    volume = read(path)
    assert (volume.values[0] == 7).all()
    assert (volume.values[1:] == 0).all()


def test_a_good_qform_is_that_of_nibabel(tmp_path):
    rng = np.random.default_rng(0)
    for _ in range(40):
        image = make_image()
        turn = nibabel.eulerangles.euler2mat(*rng.uniform(-3, 3, 3))
        image.set_qform(nibabel.affines.from_matvec(turn @ np.diag([2, 3, 4.0])), 1)
        image.set_sform(None, 0)
        volume = read(save(image, tmp_path / "a.nii"))
        assert (volume.values == as_slices(nibabel.load(tmp_path / "a.nii"))).all()


def test_where_sform_and_qform_disagree_the_sform_is_used_and_that_is_stated(tmp_path):
    image = make_image()
    image.set_sform(image.affine, 2)
    image.set_qform(np.diag([2.0, -3.0, -4.0, 1.0]), 1)
    volume = read(save(image, tmp_path / "a.nii"))
    assert (volume.values == as_slices(image)).all()
    assert (volume.facts["affine"], volume.facts["affine_conflict"]) == ("sform", True)
    image.set_qform(image.affine, 1)
    assert read(save(image, tmp_path / "a.nii")).facts["affine_conflict"] is False


def test_without_sform_and_qform_the_sizes_of_the_voxels_are_used(tmp_path):
    path = edit(save(make_image(), tmp_path / "a.nii"), sform_code=0, qform_code=0)
    volume = read(path)
    assert volume.facts["affine"] == "none: pixdim"
    assert (volume.values == as_slices(nibabel.load(path))).all()


# Several volumes


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("shape", [(3, 4, 5, 6), (3, 4, 5, 1, 6)])
def test_one_of_several_volumes_is_read(suffix, shape, tmp_path):
    image = make_image(shape, zooms=(2, 3, 4))
    image = nibabel.Nifti1Image(image.get_fdata().astype(np.int16), np.diag([2.0, 3, 4, 1]))
    path = save(image, tmp_path / f"a{suffix}")
    for number in range(1, 7):
        alone = nibabel.Nifti1Image(
            np.asarray(image.dataobj)[..., number - 1].reshape(3, 4, 5), image.affine
        )
        volume = read_nifti(path, name="volume 1", volume=number)
        assert (volume.values == as_slices(alone)).all()
        assert volume.facts["volumes"] == 6
    assert reason(path).endswith("; pass volume=N, from 1 to 6, for one")
    with pytest.raises(ImageReadError, match="and volume is 7; expected 1 to 6"):
        read_nifti(path, name="volume 1", volume=7)


def test_the_slope_holds_for_one_of_several_volumes(tmp_path):
    image = nibabel.Nifti1Image(np.arange(48, dtype=np.int16).reshape(2, 3, 4, 2), np.eye(4))
    path = edit(save(image, tmp_path / "a.nii"), scl_slope=0.5, scl_inter=-10)
    alone = nibabel.Nifti1Image(image.get_fdata()[..., 1] * 0.5 - 10, np.eye(4))
    assert (read_nifti(path, name="volume 1", volume=2).values == as_slices(alone)).all()


def test_a_file_of_one_volume_is_that_volume_whatever_the_number(tmp_path):
    image = make_image()
    path = save(image, tmp_path / "a.nii")
    assert (read_nifti(path, name="volume 1", volume=3).values == as_slices(image)).all()


def test_a_packed_file_is_compared_with_its_checksum_after_all_its_volumes(tmp_path):
    path = save(make_image((16, 16, 16, 9)), tmp_path / "a.nii.gz")
    whole = bytearray(path.read_bytes())
    whole[-6] ^= 1
    path.write_bytes(whole)
    with pytest.raises(ImageReadError, match="is damaged"):
        read_nifti(path, name="volume 1", volume=1)


@pytest.mark.parametrize(
    ("dim", "words"),
    [
        ([5, 2, 2, 2, 2, 2, 1, 1], "has 5 axes (2 × 2 × 2 × 2 × 2)"),
        ([4, 2, 2, 2, 0, 1, 1, 1], "has 2 × 2 × 2 × 0 voxels"),
        ([4, 2, 2, 2, -5, 1, 1, 1], "has 2 × 2 × 2 × -5 voxels"),
        ([4, 500, 500, 500, 30000, 1, 1, 1], "expected between 1 and 1,000,000,000"),
        ([4, 2, 2, 2, 9, 1, 1, 1], "is shorter than its header states"),
    ],
)
def test_volumes_that_cannot_be_there_are_refused(dim, words, tmp_path):
    path = write_header(tmp_path / "a.nii", dim=dim)
    with pytest.raises(ImageReadError) as caught:
        read_nifti(path, name="volume 1", volume=1)
    assert words in caught.value.reason


def test_one_of_several_volumes_takes_the_memory_of_one(tmp_path):
    values = np.zeros((64, 64, 64, 40), np.uint8)
    path = save(nibabel.Nifti1Image(values, np.eye(4)), tmp_path / "a.nii.gz")
    tracemalloc.start()
    read_nifti(path, name="volume 1", volume=40)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 16 * 64**3
