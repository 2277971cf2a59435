"""Siemens mosaics are cut into slices, in the order and direction of their private header."""

import gzip
import struct
import warnings
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
from support.dicoms import AXIAL, draw_volume, make_dataset, write_dicom

from brainfeat.errors import ImageReadError
from brainfeat.readers.dicom import mosaics
from brainfeat.readers.series import find_series, read_volume

PACKAGED = Path(nibabel.__file__).parent / "nicom" / "tests" / "data"


def read_all(*given):
    series, unreadable = find_series(given)
    assert not unreadable
    return [read_volume(entry) for entry in series]


def reason(path):
    (series,), _ = find_series([path])
    with pytest.raises(ImageReadError) as caught:
        read_volume(series)
    return caught.value.reason


def make_csa(**tags):
    """Make a CSA header of version 2: each tag with its representation and its items."""
    parts = [b"SV10\4\3\2\1", struct.pack("<2I", len(tags), 77)]
    for name, (representation, *items) in tags.items():
        values = [str(item).encode() for item in items]
        head = name.encode(), len(values), representation.encode(), 0, len(values), 77
        parts.append(struct.pack("<64si4siii", *head))
        for value in values:
            padded = value + bytes(-len(value) % 4)
            parts.append(struct.pack("<4i", *[len(value)] * 4) + padded)
    return b"".join(parts)


def arrange(volume, side):
    """Arrange slices in rows of a square, from the top left; the last places stay black."""
    n, height, width = volume.shape
    picture = np.zeros((side * height, side * width), volume.dtype)
    for place in range(n):
        row, column = divmod(place, side)
        picture[row * height : (row + 1) * height, column * width : (column + 1) * width] = volume[
            place
        ]
    return picture


def write_mosaic(path, picture, csa, *, creator="SIEMENS CSA HEADER", **elements):
    dataset = make_dataset(
        picture, **{"ImageType": ["ORIGINAL", "PRIMARY", "M", "NORM", "MOSAIC"], **elements}
    )
    if csa is not None:
        dataset.private_block(0x0029, creator, create=True).add_new(0x10, "OB", csa)
    dataset.save_as(path, enforce_file_format=True)
    return path


def make_layout(n, normal):
    return make_csa(
        EchoLinePosition=("IS",),
        NumberOfImagesInMosaic=("US", n),
        SliceNormalVector=("FD", *normal),
    )


@pytest.mark.parametrize("name", ["siemens_dwi_0", "siemens_dwi_1000"])
def test_a_real_mosaic_has_the_slices_of_nibabel_in_their_order_in_space(name, tmp_path):
    path = tmp_path / "a"
    path.write_bytes(gzip.decompress((PACKAGED / f"{name}.dcm.gz").read_bytes()))
    (volume,) = read_all(path)
    dataset = pydicom.dcmread(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # nibabel calls its own readers of DICOM experimental
        from nibabel.nicom.dicomwrappers import wrapper_from_data
    wrapper = wrapper_from_data(dataset)
    data, affine = np.asarray(wrapper.get_data()), wrapper.affine
    assert data.shape == (128, 128, 48)
    # The affine is of RAS+; the standard's normal is of LPS+.
    turned = np.array(dataset.ImageOrientationPatient, float)
    normal = np.cross(turned[:3], turned[3:]) * [-1, -1, 1]
    positions = [normal @ (affine @ [0, 0, place, 1])[:3] for place in range(48)]
    expected = np.moveaxis(data, 2, 0)[np.argsort(positions)]
    assert (volume.values == expected).all()
    assert len(volume.windows) == 48
    assert [volume.facts[name] for name in ("rows", "columns", "frames")] == [128, 128, 48]


@pytest.mark.parametrize(
    ("orientation", "normal", "step", "axes"),
    [
        (AXIAL, [0, 0, 1], 1, "SPL"),
        (AXIAL, [0, 0, -1], -1, "SPL"),
        ([1, 0, 0, 0, 0, -1], [0, 1, 0], 1, "PIL"),
        ([0, 1, 0, 0, 0, -1], [1, 0, 0], -1, "RIP"),
    ],
)
@pytest.mark.parametrize(("n", "side"), [(1, 1), (4, 2), (5, 3), (9, 3), (10, 4)])
def test_slices_are_ordered_along_the_normal_of_the_standard(
    n, side, orientation, normal, step, axes, tmp_path
):
    stored = draw_volume(n, size=6)
    path = write_mosaic(
        tmp_path / "a",
        arrange(stored, side),
        make_layout(n, normal),
        ImageOrientationPatient=orientation,
        RescaleSlope=2,
        RescaleIntercept=-10,
    )
    (volume,) = read_all(path)
    assert (volume.values == stored[::step].astype(float) * 2 - 10).all()
    assert (volume.axes, volume.native_axes) == (axes, axes)
    assert volume.spacing is None
    if n > 1:
        dataset = pydicom.dcmread(path)
        dataset.SpacingBetweenSlices = 3
        dataset.save_as(path)
        assert read_all(path)[0].spacing == (3, 0.5, 0.5)


def test_the_mosaics_of_a_series_are_a_volume_each(tmp_path):
    volumes = [draw_volume(4, seed=seed) for seed in range(3)]
    for place, volume in enumerate(volumes):
        write_mosaic(tmp_path / f"{place}", arrange(volume, 2), make_layout(4, [0, 0, 1]))
    assert [v.values.tolist() for v in read_all(tmp_path)] == [v.tolist() for v in volumes]


def test_without_its_private_header_a_mosaic_is_refused(tmp_path):
    picture = arrange(draw_volume(4), 2)
    write_mosaic(tmp_path / "none", picture, None)
    write_mosaic(tmp_path / "other", picture, make_layout(4, [0, 0, 1]), creator="OTHER")
    write_mosaic(tmp_path / "few", picture, make_csa(NumberOfImagesInMosaic=("US", 4)))
    write_mosaic(tmp_path / "many", picture, make_csa(SliceNormalVector=("FD", 0, 0, 1)))
    for name in ("none", "other", "few", "many"):
        assert reason(tmp_path / name) == (
            "is a Siemens mosaic without the CSA header that says how its slices are arranged; "
            "export the series as enhanced DICOM, or convert it to NIfTI"
        )


@pytest.mark.parametrize(
    ("csa", "words"),
    [
        (make_layout(5, [0, 0, 1]), "of 5 slices, which 16 × 16 pixels cannot hold in rows of 3"),
        (make_layout(2**40, [0, 0, 1]), "cannot hold in rows of 1048576"),
        (make_layout(4, [1, 0, 0]), "no order along their normal"),
        (make_layout(4, ["nan", 0, 1]), "no order along their normal"),
        (make_layout(4, [0, 0, 0]), "no order along their normal"),
        (make_layout(4, [0, 1]), "a damaged CSA header"),
        (make_layout("four", [0, 0, 1]), "a damaged CSA header"),
        (make_layout(-4, [0, 0, 1]), "without the CSA header"),
        (make_layout(4, [0, 0, 1])[:200], "a damaged CSA header"),
        (b"SV10" + bytes(200), "a damaged CSA header"),
        (b"SV10", "a damaged CSA header"),
        (b"", "a damaged CSA header"),
    ],
)
def test_a_layout_that_cannot_be_is_refused(csa, words, tmp_path):
    assert words in reason(write_mosaic(tmp_path / "a", draw_volume(1, size=16)[0], csa))


def test_a_mosaic_that_nibabel_ships_with_pixels_that_do_not_fit_is_refused():
    assert "of 48 slices, which 256 × 256 pixels" in reason(PACKAGED / "0.dcm")


def test_without_an_orientation_slices_have_no_order(tmp_path):
    path = write_mosaic(
        tmp_path / "a",
        arrange(draw_volume(4), 2),
        make_layout(4, [0, 0, 1]),
        ImageOrientationPatient=None,
    )
    assert "no order along their normal" in reason(path)


def test_a_large_private_header_is_not_parsed(tmp_path, monkeypatch):
    monkeypatch.setattr(mosaics, "_CSA_LIMIT", 100)
    path = write_mosaic(tmp_path / "a", arrange(draw_volume(4), 2), make_layout(4, [0, 0, 1]))
    assert "too large" in reason(path)


def test_other_images_of_siemens_are_no_mosaics(tmp_path):
    path = write_mosaic(
        tmp_path / "a",
        draw_volume(1)[0],
        make_layout(4, [0, 0, 1]),
        ImageType=["ORIGINAL", "PRIMARY", "M", "NORM"],
    )
    assert (read_all(path)[0].values == draw_volume(1)).all()


@pytest.mark.slow
def test_damage_of_the_private_header_is_an_error_of_ours_that_quotes_nothing(tmp_path, recwarn):
    rng = np.random.default_rng(0)
    whole = make_csa(
        PatientName=("LO", "CANARY"),
        NumberOfImagesInMosaic=("US", 4),
        SliceNormalVector=("FD", 0, 0, 1),
    )
    picture, errors, n_read = arrange(draw_volume(4), 2), [], 0
    for number in range(300):
        data = bytearray(whole)
        if number % 4 == 0:
            data = data[: rng.integers(len(data))]
        else:
            for place in rng.integers(0, len(data), rng.integers(1, 8)):
                data[place] = rng.integers(256)
        (series,), _ = find_series([write_mosaic(tmp_path / "a", picture, bytes(data))])
        try:
            assert (read_volume(series).values.shape) == (4, 8, 8)
            n_read += 1
        except ImageReadError as error:
            errors.append(str(error))
    assert min(n_read, len(errors)) > 30
    assert not [error for error in errors if "CANARY" in error]
    assert not recwarn.list


def test_files_that_are_not_named_as_mosaics_keep_their_private_header_unread(tmp_path):
    """A file of several frames is no mosaic, whatever its type says."""
    path = write_dicom(
        tmp_path / "a", draw_volume(2), ImageType=["ORIGINAL", "PRIMARY", "M", "MOSAIC"]
    )
    assert (read_all(path)[0].values == draw_volume(2)).all()
