"""MGH files of FreeSurfer: orientation, frames, errors, and that no text of a file is shown."""

import gzip
import itertools
import traceback
import tracemalloc
from pathlib import Path

import nibabel
import numpy as np
import pytest

from brainfeat.errors import ImageReadError
from brainfeat.readers import voxels
from brainfeat.readers.mgh import read_mgh
from brainfeat.readers.volumes import SlicePolicy, cut_slices

PACKAGED = Path(nibabel.__file__).parent / "tests" / "data"


def read(path, volume=None):
    return read_mgh(Path(path), name="volume 1", volume=volume)


def reason(path, volume=None):
    with pytest.raises(ImageReadError) as caught:
        read(path, volume)
    assert caught.value.path == "volume 1"
    assert "CANARY" not in "".join(traceback.format_exception(caught.value))
    return caught.value.reason


def make_image(shape=(3, 4, 5), *, dtype=np.int16):
    values = np.random.default_rng(0).integers(0, 100, shape).astype(dtype)
    return nibabel.MGHImage(values, np.diag([2.0, 3.0, 4.0, 1.0]))


def load(path):
    """Load a file with nibabel; ``nibabel.load`` leaves it open."""
    data = path.read_bytes()
    packed = data.startswith(b"\x1f\x8b")
    return nibabel.MGHImage.from_bytes(gzip.decompress(data) if packed else data)


def save(image, path):
    image.to_filename(path)
    return path


def as_slices(image):
    values = nibabel.as_closest_canonical(image).get_fdata(dtype=np.float32)
    return values.reshape(values.shape[:3])[::-1, ::-1].transpose(2, 1, 0)


def turn_axes(image, axes, flips):
    """Return an image whose stored axes are others, at the same place."""
    turned = nibabel.Nifti1Image(np.asarray(image.dataobj), image.affine).as_reoriented(
        np.column_stack([axes, flips])
    )
    return nibabel.MGHImage(np.asarray(turned.dataobj), turned.affine)


@pytest.mark.parametrize("suffix", [".mgh", ".mgz"])
def test_each_of_48_orientations_is_shown_alike(suffix, tmp_path):
    image = make_image()
    expected = as_slices(image)
    for axes in itertools.permutations(range(3)):
        for flips in itertools.product((1, -1), repeat=3):
            path = save(turn_axes(image, axes, flips), tmp_path / f"a{suffix}")
            assert (as_slices(load(path)) == expected).all()
            volume = read(path)
            assert (volume.values == expected).all()
            assert volume.facts["spacing"] == [2, 3, 4]
            assert volume.facts["affine"] == "ras"


@pytest.mark.parametrize("dtype", ["u1", "i2", "i4", "f4"])
def test_kinds_of_numbers(dtype, tmp_path):
    image = make_image(dtype=dtype)
    volume = read(save(image, tmp_path / "a.mgz"))
    assert volume.values.dtype == np.float32
    assert (volume.values == as_slices(image)).all()
    assert volume.modality == "MGH"


def test_nibabels_own_files_are_read_as_nibabel_reads_them():
    found = sorted(PACKAGED.glob("*.mg[hz]"))
    assert found
    for path in found:
        image = load(path)
        for number in range(1, (*image.shape, 1)[3] + 1):
            alone = image if image.ndim == 3 else image.slicer[..., number - 1]
            assert (read(path, number).values == as_slices(alone)).all()


def test_without_a_stated_orientation_it_is_that_of_freesurfer(tmp_path):
    path = save(make_image(), tmp_path / "a.mgh")
    data = bytearray(path.read_bytes())
    data[28:30] = b"\0\0"
    path.write_bytes(data)
    volume = read(path)
    assert volume.facts["affine"] == "none: default"
    assert (volume.values == as_slices(load(path))).all()


def test_one_of_several_frames_is_read(tmp_path):
    image = make_image((3, 4, 5, 2))
    path = save(image, tmp_path / "a.mgz")
    for number in (1, 2):
        assert (read(path, number).values == as_slices(image.slicer[..., number - 1])).all()
    assert reason(path) == "has 2 volumes (3 × 4 × 5 × 2); pass volume=N, from 1 to 2, for one"


def write_header(path, **fields):
    """Write a header with fields that nibabel would not write, and few voxels."""
    header = nibabel.freesurfer.mghformat.MGHHeader(check=False)
    header["dims"], header["type"] = [2, 2, 2, 1], 4
    for name, value in fields.items():
        header[name] = value
    path.write_bytes(header.binaryblock[:90] + bytes(284 - 90) + bytes(16))
    return path


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"dims": [30000, 30000, 30000, 1]}, "at most 250,000,000"),
        ({"dims": [-2, 2, 2, 1]}, "has no voxels"),
        ({"dims": [0, 2, 2, 1]}, "has no voxels"),
        ({"dims": [2, 2, 2, 0]}, "has 2 × 2 × 2 × 0 voxels"),
        ({"dims": [200, 200, 200, 1]}, "shorter than its header states"),
        ({"dims": [2, 2, 2, 2]}, "shorter than its header states"),
        ({"version": 2}, "is not an MGH file"),
        ({"type": 7}, "of a type that is not read"),
        ({"delta": [0, 1, 1]}, "no usable orientation"),
        ({"Mdc": np.full((3, 3), np.nan)}, "no usable orientation"),
    ],
)
def test_headers_that_cannot_be_true_are_refused(fields, words, tmp_path):
    assert words in reason(write_header(tmp_path / "a.mgh", **fields), volume=1)


@pytest.mark.parametrize("suffix", [".mgh", ".mgz"])
def test_a_file_cut_anywhere_is_refused(suffix, tmp_path):
    whole = save(make_image((8, 8, 8)), tmp_path / f"a{suffix}").read_bytes()
    end = 284 + 2 * 8**3 if suffix == ".mgh" else len(whole) - 1
    for length in range(0, end, 13):
        (tmp_path / f"b{suffix}").write_bytes(whole[:length])
        assert reason(tmp_path / f"b{suffix}")


def test_a_bomb_is_not_unpacked(tmp_path):
    start = write_header(tmp_path / "a.mgh").read_bytes()
    path = tmp_path / "b.mgz"
    path.write_bytes(gzip.compress(start) + gzip.compress(bytes(200_000_000), 9))
    tracemalloc.start()
    assert f"more than {voxels.END_LIMIT:,} bytes after its voxels" in reason(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20_000_000


@pytest.mark.parametrize("packed", [False, True])
def test_damaged_headers_are_errors_of_ours_and_say_nothing(packed, tmp_path, caplog, recwarn):
    for logger in (None, "nibabel", "nibabel.global"):
        caplog.set_level(1, logger)
    rng = np.random.default_rng(0)
    # The tags after the voxels are text, such as the commands that made the file.
    whole = save(make_image((6, 6, 6)), tmp_path / "a.mgh").read_bytes() + b"CANARY" * 9
    path = tmp_path / "CANARY.mgh"
    outcomes, words = {"read": 0, "refused": 0}, []
    for _ in range(300):
        data = bytearray(whole)
        for place in rng.integers(0, 90, rng.integers(1, 4)):
            data[place] = rng.integers(256)
        path.write_bytes(gzip.compress(data, 1) if packed else data)
        try:
            volume = read(path)
        except ImageReadError as error:
            outcomes["refused"] += 1
            words += str(error)
            continue
        outcomes["read"] += 1
        assert "CANARY" not in repr(volume)
        assert all(0 < size < np.inf for size in volume.facts["spacing"])
        assert len(list(cut_slices(volume, SlicePolicy(slices="largest")))) == 1
    assert min(outcomes.values()) > 30
    assert "CANARY" not in "".join(words)
    assert not caplog.records
    assert not recwarn.list
