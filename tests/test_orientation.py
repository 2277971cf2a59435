"""Orientation: native and axial slices of the same scan, whatever the format and stored order."""

import itertools

import nibabel
import numpy as np
import pytest
from support.dicoms import write_dicom

from brainfeat import SlicePolicy
from brainfeat.errors import ImageReadError
from brainfeat.readers.orientation import PLANES, find_plane, name_axes, orient_volume
from brainfeat.readers.series import find_series, read_volume
from brainfeat.readers.volumes import Volume, cut_slices
from brainfeat.readers.windows import Window

# In RAS.
VALUES = np.random.default_rng(0).integers(0, 4000, (7, 8, 9)).astype(np.int16)
# Spacings of a thick scan in each plane, in RAS.
THICK = {"sagittal": (6, 1, 1.5), "coronal": (1, 6, 1.5), "axial": (1, 1.5, 6)}
# The axes to the left, posterior and superior, as DICOM has them.
UNITS = {"L": (1, 0, 0), "R": (-1, 0, 0), "P": (0, 1, 0), "A": (0, -1, 0), "S": (0, 0, 1),
         "I": (0, 0, -1)}  # fmt: skip
PAIRS = [
    (row, column)
    for row, column in itertools.permutations(UNITS, 2)
    if np.dot(UNITS[row], UNITS[column]) == 0
]


def as_plane(plane):
    """Return the slices of a plane: (slices, rows, columns), by nibabel."""
    codes = PLANES[plane]
    image = nibabel.Nifti1Image(VALUES, np.eye(4))
    # The letters of nibabel are where an axis leads to, too.
    wanted = nibabel.orientations.axcodes2ornt(codes)
    start = nibabel.io_orientation(image.affine)
    turned = image.as_reoriented(nibabel.orientations.ornt_transform(start, wanted))
    return np.asarray(turned.dataobj)


def write_nifti(path, plane, *, axes=(0, 1, 2), flips=(1, 1, 1)):
    image = nibabel.Nifti1Image(VALUES, np.diag([*map(float, THICK[plane]), 1.0]))
    image.as_reoriented(np.column_stack([axes, flips])).to_filename(path)
    return path


def write_stack(folder, row, column, *, thick=6.0, gaps=(), turn=None, **elements):
    """Write the scan as DICOM images with these directions of rows and columns."""
    turn = np.eye(3) if turn is None else turn
    normal = np.cross(UNITS[row], UNITS[column])
    away = next(letter for letter, unit in UNITS.items() if tuple(normal) == unit)
    wanted = nibabel.orientations.axcodes2ornt(away + column + row)
    image = nibabel.Nifti1Image(VALUES, np.eye(4))
    start = nibabel.io_orientation(image.affine)
    stack = np.asarray(
        image.as_reoriented(nibabel.orientations.ornt_transform(start, wanted)).dataobj
    )
    for place, pixels in enumerate(stack):
        own = {name: values[place] for name, values in elements.items()}
        write_dicom(
            folder / f"{place:03}",
            pixels,
            ImagePositionPatient=[*map(float, turn @ normal * (thick * place + sum(gaps[:place])))],
            ImageOrientationPatient=[*map(float, [*(turn @ UNITS[row]), *(turn @ UNITS[column])])],
            PixelSpacing=[1.5, 1.0],
            **own,
        )
    return stack


def read(path, orientation="auto"):
    (series,), unreadable = find_series([path])
    assert not unreadable
    return read_volume(series, policy=SlicePolicy(orientation=orientation))


@pytest.mark.parametrize("plane", PLANES)
def test_nifti_is_cut_alike_in_each_of_48_stored_orders(plane, tmp_path):
    for axes in itertools.permutations(range(3)):
        for flips in itertools.product((1, -1), repeat=3):
            path = write_nifti(tmp_path / "a.nii", plane, axes=axes, flips=flips)
            assert (read(path, "auto").values == as_plane("axial")).all()
            assert (read(path, "axial").values == as_plane("axial")).all()
            native = read(path, "native")
            assert (native.values == as_plane(plane)).all()
            assert native.facts["plane"] == plane
            sizes = dict(zip("RASLPI", THICK[plane] * 2, strict=True))
            assert native.spacing == tuple(sizes[letter] for letter in PLANES[plane])
            shape = tuple(native.facts[name] for name in ("frames", "rows", "columns"))
            assert shape == native.values.shape
            assert native.windows == (None,) * shape[0]


def test_a_volume_of_equal_spacings_is_cut_axially(tmp_path):
    image = nibabel.Nifti1Image(VALUES, np.diag([1.0, 1.004, 1.0, 1.0]))
    for axes in itertools.permutations(range(3)):
        turned = image.as_reoriented(np.column_stack([axes, (1, -1, 1)]))
        turned.to_filename(tmp_path / "a.nii")
        assert (read(tmp_path / "a.nii", "native").values == as_plane("axial")).all()


@pytest.mark.parametrize(("row", "column"), PAIRS)
def test_dicom_is_native_as_stored_and_axial_by_its_cosines(row, column, tmp_path):
    stack = write_stack(tmp_path / "s", row, column)
    for orientation in ("auto", "native"):
        assert (read(tmp_path / "s", orientation).values == stack).all()
    volume = read(tmp_path / "s", "axial")
    assert (volume.values == as_plane("axial")).all()
    assert volume.facts["plane"] == "axial"
    assert volume.axes == "SPL"


@pytest.mark.parametrize("plane", PLANES)
def test_a_scan_is_cut_alike_from_dicom_and_from_nifti(plane, tmp_path):
    _, column, row = PLANES[plane]
    write_stack(tmp_path / "s", row, column)
    write_nifti(tmp_path / "a.nii", plane)
    for orientation in ("native", "axial"):
        dicom = read(tmp_path / "s", orientation)
        nifti = read(tmp_path / "a.nii", orientation)
        assert (dicom.values == nifti.values).all()
        assert dicom.axes == nifti.axes
        assert dicom.facts["plane"] == nifti.facts["plane"]


@pytest.mark.parametrize("seed", range(4))
def test_an_oblique_stack_is_turned_to_the_nearest_axes(seed, tmp_path):
    rng = np.random.default_rng(seed)
    turn = nibabel.eulerangles.euler2mat(*rng.uniform(-0.4, 0.4, 3))
    write_stack(tmp_path / "s", "P", "I", turn=turn)
    assert (read(tmp_path / "s", "axial").values == as_plane("axial")).all()


def test_directions_are_named_as_nibabel_names_them():
    rng = np.random.default_rng(0)
    for _ in range(500):
        turn = nibabel.eulerangles.euler2mat(*rng.uniform(-4, 4, 3))
        row, column, normal = turn.T
        # To RAS, for nibabel.
        affine = np.diag([-1, -1, 1]) @ np.column_stack([normal, column, row])
        codes = nibabel.aff2axcodes(nibabel.affines.from_matvec(affine))
        nearness = np.sort(abs(affine), axis=0)
        if (nearness[-1] - nearness[-2] > 0.05).all():
            assert name_axes(row, column) == "".join(codes)


@pytest.mark.parametrize(
    ("row", "column"),
    [([0, 0, 0], [0, 1, 0]), ([1, 0, 0], [1, 0, 0]), ([np.nan, 0, 0], [0, 1, 0])],
)
def test_directions_that_span_no_plane_have_no_names(row, column):
    assert name_axes(row, column) == ""
    assert find_plane("") is None


def test_slices_at_uneven_distances_are_not_cut_in_another_plane(tmp_path):
    write_stack(tmp_path / "s", "P", "I", gaps=(0, 0, 6, 0, 0, 0))
    assert read(tmp_path / "s", "native").spacing is None
    with pytest.raises(ImageReadError, match='not known or not even; pass orientation="native"'):
        read(tmp_path / "s", "axial")
    write_stack(tmp_path / "a", "L", "P", gaps=(0, 0, 6, 0, 0, 0, 0, 0))
    assert (read(tmp_path / "a", "axial").values == as_plane("axial")).all()


def test_a_stack_that_does_not_state_how_it_lies_is_native_only(tmp_path):
    write_dicom(tmp_path / "s" / "a", VALUES[0], ImageOrientationPatient=None)
    volume = read(tmp_path / "s", "native")
    assert (volume.values == VALUES[:1]).all()
    assert volume.facts["plane"] is None
    with pytest.raises(ImageReadError, match='how it lies in space; pass orientation="native"'):
        read(tmp_path / "s", "axial")


def make_volume(windows, axes="RIP"):
    return Volume(
        values=VALUES.astype("f4"),
        modality="MR",
        windows=windows,
        patient="",
        facts={},
        axes=axes,
        native_axes=axes,
        spacing=(6, 1, 1),
    )


def test_windows_go_with_their_slices_and_across_them_only_where_all_are_equal():
    own = tuple(Window(place, 10) for place in range(7))
    turned = orient_volume(make_volume(own), "axial", name="volume 1")
    assert turned.windows == (None,) * 8
    same = (Window(5, 10),) * 7
    assert orient_volume(make_volume(same), "axial", name="v").windows == same + same[:1]
    flipped = orient_volume(make_volume(own, "IPL"), "axial", name="volume 1")
    assert flipped.windows == own[::-1]


def test_an_inverted_volume_stays_inverted(tmp_path):
    write_stack(tmp_path / "s", "P", "I", PhotometricInterpretation=["MONOCHROME1"] * 7)
    volume = read(tmp_path / "s", "axial")
    (first, *_) = cut_slices(volume, SlicePolicy(orientation="axial", window="2000,4000"))
    assert (first.pixels == np.rint(255 * (1 - as_plane("axial")[0] / 4000))).all()
