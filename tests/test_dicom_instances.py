"""Which instance each slice of a DICOM volume is in, and whose it is."""

import pydicom
import pytest
from support.dicoms import (
    AXIAL,
    draw_volume,
    make_dataset,
    write_dicom,
    write_enhanced,
    write_series,
)

from brainfeat.errors import ImageReadError
from brainfeat.readers.dicom.instances import locate_slices, read_instance
from brainfeat.readers.series import find_series, read_volume
from brainfeat.readers.volumes import SlicePolicy

FROM_ABOVE = [1, 0, 0, 0, -1, 0]  # its normal points down, so that its slices do, too
SAGITTAL = [0, 1, 0, 0, 0, -1]


def locate(folder, orientation="auto"):
    """Find the one volume of a folder, and where its slices are."""
    (series,), _ = find_series([folder])
    volume = read_volume(series, policy=SlicePolicy(orientation=orientation))
    places = locate_slices(
        series.paths, name=series.name, frames=series.frames, orientation=orientation
    )
    return volume, places


def read_stored(folder):
    """Read the stored pixels of all instances, by UID."""
    datasets = [pydicom.dcmread(path) for path in folder.rglob("*") if path.is_file()]
    return {dataset.SOPInstanceUID: dataset.pixel_array for dataset in datasets}


def match(volume, places, stored):
    """See that each slice has the values of its instance, in any order."""
    for number, values in enumerate(volume.values, 1):
        instance, frame = places.find(number)
        pixels = stored[instance.uid]
        pixels = pixels if frame is None else pixels[frame - 1]
        assert sorted(values.ravel()) == sorted(pixels.ravel())


@pytest.mark.parametrize("orientation", ["auto", "native", "axial"])
@pytest.mark.parametrize("turned", [AXIAL, FROM_ABOVE], ids=["from below", "from above"])
@pytest.mark.parametrize("reverse", [False, True])
def test_slices_are_found_in_their_instances(tmp_path, orientation, turned, reverse):
    write_series(tmp_path, draw_volume(5), reverse=reverse, ImageOrientationPatient=turned)
    volume, places = locate(tmp_path, orientation)
    assert len(places.instances) == len(volume.values) == 5
    match(volume, places, read_stored(tmp_path))


def test_copies_of_an_instance_count_once(tmp_path):
    first, *_ = write_series(tmp_path, draw_volume(3))
    (tmp_path / "copy").write_bytes(first.read_bytes())
    volume, places = locate(tmp_path)
    assert len(places.instances) == 3
    match(volume, places, read_stored(tmp_path))


def test_frames_of_an_enhanced_file_have_numbers(tmp_path):
    frames = [{"ImagePositionPatient": [0, 0, z]} for z in (6, 0, 3)]
    write_enhanced(tmp_path / "e", draw_volume(3), frames)
    volume, places = locate(tmp_path)
    assert [place.frame for place in places.slices] == [2, 3, 1]
    match(volume, places, read_stored(tmp_path))


def test_volumes_of_one_file_are_told_apart(tmp_path):
    frames = [
        {"ImagePositionPatient": [0, 0, z], "EffectiveEchoTime": echo}
        for echo in (10.0, 20.0)
        for z in (0, 3)
    ]
    write_enhanced(tmp_path / "e", draw_volume(4), frames)
    series, _ = find_series([tmp_path])
    found = [locate_slices(one.paths, name="", frames=one.frames).slices for one in series]
    assert [[place.frame for place in slices] for slices in found] == [[1, 2], [3, 4]]


def test_slices_across_the_instances_are_in_none(tmp_path):
    folder = tmp_path / "s"
    for place, pixels in enumerate(draw_volume(4)):
        write_dicom(
            folder / str(place),
            pixels,
            ImageOrientationPatient=SAGITTAL,
            ImagePositionPatient=[3.0 * place, 0, 0],
        )
    volume, places = locate(folder, "axial")
    assert len(volume.values) == 8
    assert len(places.instances) == 4
    assert places.find(1) is None


def test_all_slices_of_a_mosaic_are_in_one_instance(tmp_path):
    write_dicom(tmp_path / "m", draw_volume(1, 16)[0], ImageType=["ORIGINAL", "PRIMARY", "MOSAIC"])
    places = locate_slices([tmp_path / "m"], name="volume 1")
    assert places.find(1) == places.find(4)
    assert places.find(3).frame is None


def read(tmp_path, *, change=None, **elements):
    dataset = make_dataset(draw_volume(1)[0], **elements)
    if change is not None:
        change(dataset)
    dataset.save_as(tmp_path / "one", enforce_file_format=True)
    return read_instance(tmp_path / "one", name="volume 1")


@pytest.mark.parametrize(
    ("character_set", "name"),
    [
        ("ISO_IR 100", "Müller^Änne"),
        ("ISO_IR 192", "山田^太郎"),
        ("GB18030", "王^小东"),
        ("ISO_IR 192", "山田\u3000太郎"),
        ("ISO_IR 144", "Люкceмбypг"),
        (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎=やまだ^たろう"),
    ],
)
def test_names_are_read_in_their_character_set(tmp_path, character_set, name):
    found = read(tmp_path, SpecificCharacterSet=character_set, PatientName=name)
    assert found.identity["PatientName"] == name
    assert "PatientName" not in found.invalid


def test_empty_components_of_a_name_make_no_other_name(tmp_path):
    assert read(tmp_path, PatientName="Doe^Jane^^^=").identity["PatientName"] == "Doe^Jane"


def test_characters_without_a_known_set_are_not_guessed(tmp_path):
    path = tmp_path / "one"
    for stated in (b"", b"ISO_IR 999", b"ISO_IR 192"):  # none, an unknown one, a wrong one
        dataset = make_dataset(
            draw_volume(1)[0], PatientName="Müller^Änne", SpecificCharacterSet="ISO_IR 100"
        )
        dataset.save_as(path, enforce_file_format=True)
        data = path.read_bytes()
        path.write_bytes(data.replace(b"ISO_IR 100", stated.ljust(10)))
        assert "PatientName" in read_instance(path, name="volume 1").invalid


@pytest.mark.parametrize(
    ("keyword", "value", "is_valid"),
    [
        ("StudyInstanceUID", "1.2.3", True),
        ("StudyInstanceUID", "1.02.3", True),  # not valid, but archives know such studies
        ("StudyInstanceUID", "1.2.3-4", False),
        ("StudyInstanceUID", "1." + "2" * 63, False),
        ("SOPInstanceUID", "", False),
        ("PatientID", "", True),
        ("PatientID", "1" * 64, True),
        ("PatientID", "1" * 65, False),
        ("PatientID", "a\\b", False),
        ("PatientID", "a\tb", False),
        ("PatientName", "a" * 64 + "=" + "b" * 64, True),
        ("PatientName", "a=b=c=d", False),
        ("PatientBirthDate", "19700131", True),
        ("PatientBirthDate", "19700132", False),
        ("PatientBirthDate", "1970-1-3", False),
        ("PatientSex", "O", True),
        ("PatientSex", "X", False),
        ("StudyTime", "2359", True),
        ("StudyTime", "101112.123456", True),
        ("StudyTime", "2460", False),
        ("AccessionNumber", "1" * 16, True),
        ("AccessionNumber", "1" * 17, False),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning")  # of pydicom, which writes what it warns of
def test_values_are_checked_before_they_are_copied(tmp_path, keyword, value, is_valid):
    found = read(tmp_path, change=lambda dataset: setattr(dataset, keyword, value))
    assert (keyword not in found.invalid) == is_valid
    if not is_valid:
        copied = {**found.identity, **found.required, "StudyInstanceUID": found.study}
        assert copied.get(keyword, "") == ""


def test_what_is_not_dicom_is_refused(tmp_path):
    (tmp_path / "x").write_bytes(b"nothing")
    with pytest.raises(ImageReadError, match="volume 1: is not a DICOM file"):
        read_instance(tmp_path / "x", name="volume 1")


@pytest.mark.parametrize(
    ("elements", "expected"),
    [
        ({}, False),
        ({"BurnedInAnnotation": "NO"}, False),
        ({"BurnedInAnnotation": "YES"}, True),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"}, True),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7.4"}, True),
    ],
)
def test_what_may_show_a_name_is_told(tmp_path, elements, expected):
    assert read(tmp_path, **elements).may_show_name == expected
