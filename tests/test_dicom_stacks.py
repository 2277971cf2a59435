"""Which files and frames are one volume: what parts them, what joins them, and what is refused."""

import itertools
import random
import shutil
from functools import partial

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid
from support.dicoms import (
    AXIAL,
    draw_volume,
    make_dataset,
    write_dicom,
    write_enhanced,
    write_series,
)

from brainfeat import write_slices
from brainfeat.errors import ImageReadError
from brainfeat.readers.dicom import headers
from brainfeat.readers.series import find_series, read_volume
from brainfeat.readers.volumes import SlicePolicy, cut_slices
from brainfeat.readers.windows import find_robust_window, paint_slice

SERIES = "1.2.3.4.5"


def read_all(*given):
    series, unreadable = find_series(given)
    assert not unreadable
    return [read_volume(entry) for entry in series]


def find_reasons(*given):
    series, unreadable = find_series(given)
    assert not unreadable
    reasons = []
    for entry in series:
        with pytest.raises(ImageReadError) as caught:
            read_volume(entry)
        assert caught.value.path == entry.name
        reasons.append(caught.value.reason)
    return reasons


def write_volumes(folder, volumes, elements, *, edit=None, **shared):
    """Write the volumes of one series into a folder, under names that tell nothing."""
    rng = random.Random(0)
    for volume, own in zip(volumes, elements, strict=True):
        for place, pixels in enumerate(volume):
            dataset = make_dataset(
                pixels,
                **{
                    "ImagePositionPatient": [0, 0, 3.0 * place],
                    "InstanceNumber": rng.randrange(10_000),
                    **shared,
                    **own,
                },
            )
            if edit is not None:
                edit(dataset, own)
            folder.mkdir(parents=True, exist_ok=True)
            path = folder / f"{rng.randrange(10**9):09}"
            dataset.save_as(path, enforce_file_format=True)


def two(name, first, second):
    return [{name: first}, {name: second}]


PARTED = {
    "echo times": two("EchoTime", "4.92", "20"),
    "echo numbers": two("EchoNumbers", 1, 2),
    "b-values": two("DiffusionBValue", 0.0, 1000.0),
    "magnitude and phase": two(
        "ImageType", ["ORIGINAL", "PRIMARY", "M"], ["ORIGINAL", "PRIMARY", "P"]
    ),
    "real and imaginary": two("ComplexImageComponent", "IMAGINARY", "REAL"),
    "time points": two("TemporalPositionIdentifier", 2, 10),
    "trigger times": two("TriggerTime", "9.5", "40"),
    "inversion times": two("InversionTime", "90", "400"),
    "flip angles": two("FlipAngle", "5", "15"),
    "gradient directions": two("DiffusionGradientOrientation", [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]),
    "acquisitions": two("AcquisitionNumber", 9, 10),
    "frame times of PET": two("FrameReferenceTime", "500", "1500"),
}


@pytest.mark.parametrize("elements", PARTED.values(), ids=PARTED)
def test_volumes_of_one_series_are_parted_by_what_differs(elements, tmp_path):
    volumes = [draw_volume(5, seed=seed) // (1 + 9 * seed) for seed in range(2)]
    write_volumes(tmp_path, volumes, elements)
    found = read_all(tmp_path)
    assert [volume.values.tolist() for volume in found] == [each.tolist() for each in volumes]
    # Each has a window of its own.
    for volume in found:
        window = find_robust_window(volume.values)
        (middle,) = cut_slices(volume, SlicePolicy(slices="middle"))
        assert (middle.pixels == paint_slice(volume.values[2], window)).all()


PRIVATE = {
    "Siemens": (0x0019, "SIEMENS MR HEADER", 0x0C, "IS", ("0", "1000")),
    "Siemens, of unknown representation": (0x0019, "SIEMENS MR HEADER", 0x0C, "UN", (b"0 ", b"50")),
    "GE": (0x0043, "GEMS_PARM_01", 0x39, "IS", (["0", "8", "0"], ["1000", "8", "0"])),
    "Philips": (0x2001, "Philips Imaging DD 001", 0x03, "FL", (0.0, 1000.0)),
    "GE, components": (0x0043, "GEMS_PARM_01", 0x2F, "SS", (0, 1)),
}


@pytest.mark.parametrize("private", PRIVATE.values(), ids=PRIVATE)
def test_private_b_values_and_components_count_where_there_is_no_standard_one(private, tmp_path):
    group, creator, element, vr, values = private

    def edit(dataset, own, creator=creator):
        value = values[own["InstanceNumber"] - 1]
        dataset.private_block(group, creator, create=True).add_new(element, vr, value)

    volumes = [draw_volume(4, seed=seed) for seed in range(2)]
    numbers = two("InstanceNumber", 1, 2)
    write_volumes(tmp_path / "a", volumes, numbers, edit=edit)
    found = read_all(tmp_path / "a")
    assert [volume.values.tolist() for volume in found] == [each.tolist() for each in volumes]
    write_volumes(tmp_path / "b", volumes, numbers, edit=partial(edit, creator="OTHER"))
    assert len(find_reasons(tmp_path / "b")) == 1


def test_several_things_can_differ_at_once(tmp_path):
    elements = [
        {"EchoTime": echo, "EchoNumbers": number, "ImageType": ["ORIGINAL", "PRIMARY", component]}
        for component in "MP"
        for number, echo in enumerate((5, 10, 15), 1)
    ]
    volumes = [draw_volume(3, seed=seed) for seed in range(6)]
    write_volumes(tmp_path, volumes, elements)
    assert [each.values.tolist() for each in read_all(tmp_path)] == [v.tolist() for v in volumes]


def test_an_echo_time_that_trembles_is_passed_over_for_the_echo_number(tmp_path):
    volumes = [draw_volume(4, seed=seed) for seed in range(2)]
    for (echo, volume), place in itertools.product(enumerate(volumes), range(4)):
        write_dicom(
            tmp_path / f"{place}{echo}",
            volume[place],
            ImagePositionPatient=[0, 0, place],
            EchoTime=5 + 5 * echo + place / 1000,
            EchoNumbers=echo + 1,
        )
    assert [each.values.tolist() for each in read_all(tmp_path)] == [v.tolist() for v in volumes]


@pytest.mark.parametrize(
    "acquisitions",
    [[1, 2, 3, 4, 5, 6], [1, 2, 1, 2, 1, 2], [1, 1, 1, 2, 2, 2]],
    ids=["of each slice", "of odd and even slices", "of packages"],
)
def test_an_acquisition_number_does_not_break_a_volume(acquisitions, tmp_path):
    for echo, place in itertools.product((1, 2), range(6)):
        write_dicom(
            tmp_path / "two" / f"{echo}{place}",
            draw_volume(6, seed=echo)[place],
            ImagePositionPatient=[0, 0, place],
            AcquisitionNumber=acquisitions[place] + (10 * echo if acquisitions[1] == 2 else 0),
            EchoNumbers=echo,
        )
    shutil.copytree(tmp_path / "two", tmp_path / "one", ignore=shutil.ignore_patterns("2*"))
    (one,) = read_all(tmp_path / "one")
    assert (one.values == draw_volume(6, seed=1)).all()
    found = read_all(tmp_path / "two")
    assert [volume.values.tolist() for volume in found] == [
        draw_volume(6, seed=echo).tolist() for echo in (1, 2)
    ]


def test_a_time_point_that_was_broken_off_is_a_volume_of_its_own(tmp_path):
    volumes = [draw_volume(5), draw_volume(5, seed=1), draw_volume(2, seed=2)]
    write_volumes(tmp_path, volumes, [{"TemporalPositionIdentifier": n} for n in (1, 2, 3)])
    assert [each.values.tolist() for each in read_all(tmp_path)] == [v.tolist() for v in volumes]


@pytest.mark.parametrize("elements", [{}, {"AcquisitionNumber": 1, "EchoTime": "5"}])
def test_positions_that_repeat_without_a_difference_are_refused_by_name(elements, tmp_path):
    write_volumes(tmp_path, [draw_volume(4), draw_volume(4, seed=1)], [elements, elements])
    (reason,) = find_reasons(tmp_path)
    assert reason == (
        "has slices at the same position, and nothing tells the volumes apart; put the files of "
        "each volume into a folder of its own"
    )


def test_an_acquisition_number_of_each_slice_does_not_part_time_points(tmp_path):
    for number in range(8):
        write_dicom(
            tmp_path / str(number),
            draw_volume(8)[number],
            ImagePositionPatient=[0, 0, number % 4],
            AcquisitionNumber=number,
        )
    assert "at the same position" in find_reasons(tmp_path)[0]


def test_positions_are_the_same_to_a_hundredth_of_a_millimetre(tmp_path):
    volumes = [draw_volume(4), draw_volume(4, seed=1)]
    write_volumes(tmp_path / "a", volumes, PARTED["echo times"])
    for path in sorted((tmp_path / "a").iterdir())[::2]:
        dataset = headers.open_dataset(path, "", [], pixels=True)
        dataset.ImagePositionPatient[2] += 0.004
        dataset.save_as(path, enforce_file_format=True)
    assert [v.values.tolist() for v in read_all(tmp_path / "a")] == [v.tolist() for v in volumes]
    for place, pixels in enumerate(volumes[0]):
        write_dicom(tmp_path / "b" / str(place), pixels, ImagePositionPatient=[0, 0, place / 50])
    assert (read_all(tmp_path / "b")[0].values == volumes[0]).all()


def test_without_positions_echoes_are_parted_and_numbers_that_repeat_are_refused(tmp_path):
    volumes = [draw_volume(3), draw_volume(3, seed=1)]
    numbers = itertools.count(1)
    for volume, echo in zip(volumes, (1, 2), strict=True):
        for pixels in volume:
            write_dicom(
                tmp_path / "a" / f"{next(numbers)}",
                pixels,
                ImagePositionPatient=None,
                InstanceNumber=next(numbers),
                EchoNumbers=echo,
            )
    assert [v.values.tolist() for v in read_all(tmp_path / "a")] == [v.tolist() for v in volumes]
    for name, pixels in zip("ab", volumes[0][:2], strict=True):
        write_dicom(tmp_path / "b" / name, pixels, ImagePositionPatient=None, InstanceNumber=1)
    assert "instance numbers are missing or repeat" in find_reasons(tmp_path / "b")[0]


def test_order_and_keys_depend_on_no_file_name_and_no_folder(tmp_path):
    write_volumes(tmp_path / "a", [draw_volume(3), draw_volume(3, seed=1)], PARTED["b-values"])
    files = sorted((tmp_path / "a").iterdir())
    found = []
    for turn in range(6):
        random.Random(turn).shuffle(files)
        folder = tmp_path / str(turn) / "deep"
        folder.mkdir(parents=True)
        for number, path in enumerate(files):
            shutil.copy(path, folder / f"{number}.dcm")
        series, _ = find_series([folder])
        assert [entry.name for entry in series] == ["volume 1", "volume 2"]
        keys = [entry.key for entry in series]
        found.append((keys, [read_volume(entry).values.tolist() for entry in series]))
    assert all(entry == found[0] for entry in found)
    assert len({*found[0][0]}) == 2


def test_a_volume_that_is_not_parted_has_the_key_that_it_always_had(tmp_path):
    write_series(tmp_path, draw_volume(3), SeriesInstanceUID=SERIES)
    (series,), _ = find_series([tmp_path])
    assert series.key == repr((SERIES, 8, 8, *map(float, AXIAL)))


# Copies


def test_a_copy_of_an_instance_counts_once(tmp_path):
    paths = write_series(tmp_path, draw_volume(3), WindowCenter=40, WindowWidth=80)
    for path in paths:
        shutil.copy(path, path.with_name(f"{path.name} (1).dcm"))
    (volume,) = read_all(tmp_path)
    assert (volume.values == draw_volume(3)).all()
    assert len(volume.windows) == 3


def test_what_is_given_twice_counts_once(tmp_path):
    """So that the same slices are not written twice."""
    (tmp_path / "a").mkdir()
    paths = write_series(tmp_path / "a", draw_volume(3))
    (tmp_path / "b").mkdir()
    shutil.copy(paths[0], tmp_path / "b")
    shutil.move(paths[2], tmp_path / "b")
    (volume,) = read_all(tmp_path / "b", tmp_path / "a", paths[1])
    assert (volume.values == draw_volume(3)).all()
    (series,), _ = find_series([tmp_path / "b", tmp_path / "a"])
    assert series.name == "argument 1, volume 1"
    given = [tmp_path / "a", tmp_path / "b", tmp_path / "a"]
    assert write_slices(given, tmp_path / "out").slices == 3


def test_a_copy_of_a_file_of_several_frames_counts_once(tmp_path):
    path = write_dicom(tmp_path / "a", draw_volume(3))
    shutil.copy(path, tmp_path / "b")
    (volume,) = read_all(tmp_path)
    assert (volume.values == draw_volume(3)).all()


@pytest.mark.parametrize("changed", ["pixels", "position"])
def test_one_identity_of_two_contents_is_refused_by_name(changed, tmp_path):
    paths = write_series(tmp_path, draw_volume(3))
    dataset = headers.open_dataset(paths[1], "", [], pixels=True)
    if changed == "pixels":
        dataset.PixelData = bytes(len(dataset.PixelData))
    else:
        dataset.ImagePositionPatient = [0, 0, 100]
    dataset.save_as(tmp_path / "edited", enforce_file_format=True)
    assert find_reasons(tmp_path) == [
        "has two files with one SOPInstanceUID and different content; leave one of them out"
    ]


# A series for each slice


def write_single_slices(folder, positions, *, frame_of_reference="1.9", **elements):
    for number, position in enumerate(positions):
        write_dicom(
            folder / f"{number}",
            draw_volume(len(positions))[number],
            SeriesInstanceUID=generate_uid(),
            FrameOfReferenceUID=frame_of_reference,
            ImagePositionPatient=[0, 0, position],
            **{name: values[number] for name, values in elements.items()},
        )


def test_slices_that_have_a_series_each_are_joined(tmp_path):
    write_single_slices(tmp_path, [6, 0, 9, 3])
    (volume,) = read_all(tmp_path)
    assert (volume.values == draw_volume(4)[[1, 3, 0, 2]]).all()
    keys = set()
    for order in ("0123", "3120"):
        folder = tmp_path / order
        folder.mkdir()
        for place, name in enumerate(order):
            shutil.copy(tmp_path / name, folder / f"{place}")
        keys |= {series.key for series in find_series([folder])[0]}
    assert len(keys) == 1


@pytest.mark.parametrize(
    ("positions", "elements"),
    [
        ([0, 3, 6, 12], {}),
        ([0, 3, 6, 6], {}),
        ([0, 3], {}),
        ([0, 3, 6, 9], {"EchoTime": [5, 5, 20, 20]}),
        ([0, 3, 6, 9], {"SeriesNumber": [1, 2, 3, 4]}),
        ([0, 3, 6, 9], {"PatientID": ["P1", "P2", "P1", "P2"]}),
        ([0, 3, 6, 9], {"StudyInstanceUID": ["1.1", "1.2", "1.1", "1.2"]}),
        ([0, 3, 6, 9], {"frame_of_reference": ""}),
        ([0, 3, 6], {"ImageOrientationPatient": [AXIAL, AXIAL, [1, 0, 0, 0, 0, -1]]}),
    ],
)
def test_single_slices_that_may_be_several_acquisitions_are_not_joined(
    positions, elements, tmp_path
):
    write_single_slices(tmp_path, positions, **elements)
    assert [len(volume.values) for volume in read_all(tmp_path)] == [1] * len(positions)


def test_single_slices_of_a_patient_that_nothing_joins_are_told_of(tmp_path):
    write_single_slices(tmp_path / "in", [0, 3, 6, 9], frame_of_reference="")
    write_series(tmp_path / "in" / "whole", draw_volume(4), PatientID="P2")
    found = write_slices([tmp_path / "in"], tmp_path / "out")
    assert found.volumes == 5
    (warning,) = found.warnings
    assert warning == (
        "4 of 5 volumes have one slice each, several of one patient in one plane, such as volume 1;"
        " nothing in their files joins them, so if they are one volume, export it again as one"
        " series"
    )


def test_the_planes_of_a_scout_are_no_slices_to_join(tmp_path):
    for number, turned in enumerate((AXIAL, [1, 0, 0, 0, 0, -1], [0, 1, 0, 0, 0, -1])):
        write_dicom(
            tmp_path / "in" / f"{number}", draw_volume(3)[number], ImageOrientationPatient=turned
        )
    found = write_slices([tmp_path / "in"], tmp_path / "out")
    assert (found.volumes, found.warnings) == (3, ())


# Several volumes in one enhanced file

ENHANCED = {
    "time points": two("TemporalPositionIndex", 1, 2),
    "time offsets": two("TemporalPositionTimeOffset", 0.0, 2.5),
    "echoes": two("EffectiveEchoTime", 5.0, 20.0),
    "b-values": two("DiffusionBValue", 0.0, 1000.0),
    "frame types": two("FrameType", ["ORIGINAL", "PRIMARY", "M"], ["ORIGINAL", "PRIMARY", "P"]),
    "components": two("ComplexImageComponent", "MAGNITUDE", "PHASE"),
    "trigger delays": two("NominalCardiacTriggerDelayTime", 0.0, 40.0),
    "acquisitions": two("FrameAcquisitionNumber", 1, 2),
    "stacks": two("StackID", "1", "2"),
}


def make_frames(elements, n):
    """Make frames in the order in which a scanner may write them: both volumes at each position."""
    return [
        {"ImagePositionPatient": [0, 0, 2.0 * place], "WindowCenter": 100 * number + place}
        | {"WindowWidth": 50, **own}
        for place in range(n)
        for number, own in enumerate(elements)
    ]


def interleave(volumes):
    return np.stack([slices for pair in zip(*volumes, strict=True) for slices in pair])


@pytest.mark.parametrize("elements", ENHANCED.values(), ids=ENHANCED)
def test_volumes_of_one_file_are_parted_by_what_differs(elements, tmp_path):
    volumes = [draw_volume(10), draw_volume(10, seed=1) // 5]
    path = write_enhanced(tmp_path / "a", interleave(volumes), make_frames(elements, 10))
    found = read_all(path)
    assert [volume.values.tolist() for volume in found] == [each.tolist() for each in volumes]
    for number, volume in enumerate(found):
        assert [window.centre for window in volume.windows] == [
            100 * number + place for place in range(10)
        ]
        assert volume.facts["frames"] == 10
        assert volume.facts["spacing"] == [0.9, 0.8]


def test_dimension_indices_part_frames_that_nothing_else_tells_apart(tmp_path):
    volumes = [draw_volume(4), draw_volume(4, seed=1)]
    frames = make_frames([{}, {}], 4)
    for number, frame in enumerate(frames):
        frame["DimensionIndexValues"] = [1, number // 2 + 1, number % 2 + 1]
    found = read_all(write_enhanced(tmp_path / "a", interleave(volumes), frames))
    assert [volume.values.tolist() for volume in found] == [each.tolist() for each in volumes]


def test_frames_at_one_position_that_nothing_tells_apart_are_refused(tmp_path):
    write_enhanced(tmp_path / "a", draw_volume(8), make_frames([{}, {}], 4))
    assert "at the same position" in find_reasons(tmp_path)[0]


def test_stacks_of_other_orientations_are_other_volumes(tmp_path):
    planes = [[0, 1, 0, 0, 0, -1], [1, 0, 0, 0, 0, -1], AXIAL]
    frames = [
        {"ImageOrientationPatient": plane, "ImagePositionPatient": [place] * 3}
        for plane in planes
        for place in (2.0, 1.0, 3.0)
    ]
    stored = draw_volume(9)
    write_enhanced(tmp_path / "a", stored, frames)
    # Sorted by orientation; along the normal of the first two, positions run the other way.
    orders = [[2, 0, 1], [4, 3, 5], [7, 6, 8]]
    expected = [stored[order].tolist() for order in orders]
    assert [volume.values.tolist() for volume in read_all(tmp_path)] == expected


def test_two_stacks_of_one_orientation_are_two_volumes_but_a_stack_of_one_frame_is_none(tmp_path):
    stored = draw_volume(4)
    for name, stacks in (("two", "1122"), ("each", "1234")):
        frames = [
            {"ImagePositionPatient": [0, 0, float(place)], "StackID": stack}
            for place, stack in enumerate(stacks)
        ]
        write_enhanced(tmp_path / name / "a", stored, frames)
    assert [len(volume.values) for volume in read_all(tmp_path / "two")] == [2, 2]
    assert [len(volume.values) for volume in read_all(tmp_path / "each")] == [4]


def test_numbers_in_the_stack_stand_in_for_positions(tmp_path):
    frames = [{"StackID": "1", "InStackPositionNumber": number} for number in (3, 1, 2)]
    stored = draw_volume(3)
    (volume,) = read_all(write_enhanced(tmp_path / "a", stored, frames))
    assert (volume.values == stored[[1, 2, 0]]).all()


def test_a_slice_at_several_times_is_a_volume_each_time(tmp_path):
    frames = [{"ImagePositionPatient": [0, 0, 5], "TemporalPositionIndex": n} for n in (2, 1, 3)]
    stored = draw_volume(3)
    found = read_all(write_enhanced(tmp_path / "a", stored, frames))
    assert [volume.values.tolist() for volume in found] == stored[[1, 0, 2]][:, None].tolist()


def test_the_header_of_a_file_of_many_volumes_is_parsed_once_for_all(tmp_path, monkeypatch):
    frames = make_frames([{"TemporalPositionIndex": n} for n in range(12)], 3)
    path = write_enhanced(tmp_path / "a", draw_volume(36), frames)
    described = []
    describe = headers.describe
    monkeypatch.setattr(headers, "describe", lambda *given: described.append(1) or describe(*given))
    assert len(read_all(path)) == 12
    assert len(described) == 2
    # Another file at the same path is another one.
    write_enhanced(path, draw_volume(2), make_frames(ENHANCED["echoes"], 1))
    assert len(read_all(path)) == 2


def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path):
    path = write_enhanced(tmp_path / "a", draw_volume(8), make_frames(ENHANCED["echoes"], 4))
    series, _ = find_series([path])
    write_enhanced(path, draw_volume(2), make_frames(ENHANCED["echoes"], 1))
    with pytest.raises(ImageReadError, match="changed while it was read"):
        read_volume(series[1])
    path.unlink()
    with pytest.raises(ImageReadError, match="No such file"):
        read_volume(series[1])


# Damage


def test_a_damaged_header_makes_its_series_refused_and_no_volume_has_a_gap(tmp_path):
    write_series(tmp_path / "a", draw_volume(4), SeriesInstanceUID=SERIES)
    write_series(tmp_path / "b", draw_volume(2))
    victim = sorted((tmp_path / "a").iterdir())[1]
    data = victim.read_bytes()
    position = b"\x20\x00\x32\x00DS"
    assert data.count(position) == 1
    place = data.index(position) + 8
    victim.write_bytes(data[:place] + b"x" + data[place + 1 :])
    series, unreadable = find_series([tmp_path])
    assert not unreadable
    with pytest.raises(ImageReadError, match="has a damaged element ImagePositionPatient"):
        read_volume(series[0])
    assert len(read_volume(series[1]).values) == 2
    assert len(series) == 2


def test_a_damaged_slope_is_no_slope_of_one(tmp_path):
    path = write_dicom(tmp_path / "a", draw_volume(1)[0], RescaleSlope="12.5")
    path.write_bytes(path.read_bytes().replace(b"12.5", b"1x.5"))
    assert find_reasons(path) == ["has a damaged element RescaleSlope"]


def test_a_file_of_too_many_frames_is_refused_before_they_are_listed(tmp_path):
    write_dicom(tmp_path / "a", draw_volume(1)[0], NumberOfFrames=2_000_000_000)
    assert "at most 100,000 are read" in find_reasons(tmp_path)[0]


def test_far_positions_are_unknown(tmp_path):
    for place, pixels in enumerate(draw_volume(3)):
        write_dicom(
            tmp_path / str(place),
            pixels,
            ImagePositionPatient=[0, 0, f"-1e{300 + place}"],
            InstanceNumber=3 - place,
        )
    (volume,) = read_all(tmp_path)
    assert (volume.values == draw_volume(3)[::-1]).all()


def test_an_empty_group_is_no_group(tmp_path):
    frames = [{"ImagePositionPatient": [0, 0, float(place)]} for place in (1, 0)]
    path = write_enhanced(tmp_path / "a", draw_volume(2), frames)
    dataset = headers.open_dataset(path, "", [], pixels=True)
    dataset.PerFrameFunctionalGroupsSequence[0] = Dataset()
    dataset.save_as(path, enforce_file_format=True)
    (volume,) = read_all(path)
    assert (volume.values == draw_volume(2)).all()


@pytest.mark.slow
def test_damage_of_an_enhanced_file_is_an_error_of_ours_that_quotes_nothing(
    tmp_path, caplog, recwarn
):
    """Cut, flip and overwrite bytes: nothing else is raised, logged or warned of."""
    rng = np.random.default_rng(2)
    frames = make_frames([{"StackID": "CANARY 1"}, {"EffectiveEchoTime": 7.0}], 4)
    path = write_enhanced(tmp_path / "CANARY.dcm", draw_volume(8), frames, PatientName="CANARY")
    whole = path.read_bytes()
    told, n_read = [], 0
    for number in range(200):
        data = bytearray(whole)
        if number % 4 == 0:
            data = data[: rng.integers(132, len(data))]
        else:
            for place in rng.integers(132, len(data) - 1024, rng.integers(1, 4)):
                data[place] = rng.integers(256)
        path.write_bytes(data)
        series, unreadable = find_series([path])
        told += [entry.reason for entry in unreadable]
        for entry in series:
            try:
                assert read_volume(entry).values.ndim == 3
                n_read += 1
            except ImageReadError as error:
                told.append(str(error))
    assert min(n_read, len(told)) > 40
    assert not [text for text in told if "CANARY" in text]
    assert not caplog.records
    assert not recwarn.list


@pytest.mark.parametrize("described", [3, 5])
def test_groups_of_another_number_than_the_frames_are_refused(tmp_path, described):
    frames = [
        {"ImagePositionPatient": [0, 0, 3.0 * place], "RescaleSlope": 2.0}
        for place in range(described)
    ]
    write_enhanced(tmp_path / "enhanced", draw_volume(4), frames)
    with pytest.raises(ImageReadError, match=f"describes {described} of 4 frames; the file is"):
        write_slices(tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()
