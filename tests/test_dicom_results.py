"""predict --sr and --secondary-capture: what is in the files, who is in them, and what is refused.

The files are opened by pydicom and highdicom, and checked by dciodvfy (dicom3tools) and dsrdump
(DCMTK), where these are installed.
"""

import json
import shutil
import subprocess
from dataclasses import replace
from types import SimpleNamespace

import highdicom
import numpy as np
import pydicom
import pytest
from pydicom.sr.codedict import codes as standard
from support.dicoms import write_enhanced, write_series
from support.halves import Blocks
from support.reported import PERSON, SHOWN, fit_halves, stack

from brainfeat import Predictor
from brainfeat.extraction.cropping import CROPS
from brainfeat.heads.bundle import HeadBundle
from brainfeat.prediction.dicom_results import (
    capture,
    codes,
    collect_volumes,
    write_secondary_capture,
    write_sr,
)
from brainfeat.prediction.dicom_results.painting import HEIGHT, WIDTH, paint
from brainfeat.readers.series import find_inputs

OURS = codes.SCHEME


@pytest.fixture(scope="module")
def head(tmp_path_factory):
    return fit_halves(tmp_path_factory.mktemp("head"))


@pytest.fixture(scope="module")
def predictor(head):
    return Predictor(head, backbone=Blocks(), coverage=0.8)


@pytest.fixture
def cli(head, run, monkeypatch):
    monkeypatch.setattr("brainfeat.prediction.bases.load_backbone", lambda *_, **__: Blocks())
    return lambda *arguments: run("predict", head, *arguments, "--coverage", 0.8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Write a study of three series."""
    study = tmp_path_factory.mktemp("study")
    for kind in ("clear", "doubtful", "odd"):
        write_series(study / kind, stack(kind), **SHOWN, **PERSON)
    return study


@pytest.fixture(scope="module")
def volumes(predictor, folder):
    return gather(predictor, folder)


@pytest.fixture(scope="module")
def report(predictor, volumes, tmp_path_factory):
    return write_sr(volumes, tmp_path_factory.mktemp("sr") / "sr.dcm", predictor=predictor)


@pytest.fixture(scope="module")
def captures(predictor, volumes, tmp_path_factory):
    """Write captures of three volumes and of one."""
    made = tmp_path_factory.mktemp("sc")
    return [
        write_secondary_capture(some, made / f"{len(some)}.dcm", predictor=predictor)
        for some in (volumes, volumes[:1])
    ]


def gather(predictor, *paths):
    return collect_volumes(predictor.predict_inputs(find_inputs(paths), keep_images=True))


def find_errors(path):
    """Return the errors that dciodvfy and dsrdump find in a file."""
    found = []
    for name in ("dciodvfy", "dsrdump"):
        if shutil.which(name) is None:
            pytest.skip(f"{name} is not installed: Debian has it in dicom3tools, DCMTK in dcmtk")
        if name == "dsrdump" and pydicom.dcmread(path).Modality != "SR":
            continue
        done = subprocess.run([name, path], capture_output=True, text=True, check=False)
        lines = (done.stdout + done.stderr).splitlines()
        found += [line for line in lines if line.startswith(("Error", "E:", "F:", "Abort"))]
    return found


def read_groups(path):
    """Read the measurement groups: finding, evaluations and numbers of each."""
    report = highdicom.sr.srread(path)
    groups = report.content.get_image_measurement_groups()
    return [
        (
            group.finding_type,
            [
                (found.name.value, found.value.value)
                for found in group.get_qualitative_evaluations()
            ],
            {found.name.meaning: found.value for found in group.get_measurements()},
            group,
        )
        for group in groups
    ]


def read_texts(item):
    """Read all texts of a content tree, in their order."""
    if item.ValueType == "TEXT":
        yield item.TextValue
    for child in item.get("ContentSequence", ()):
        yield from read_texts(child)


def test_a_report_has_what_the_json_answer_has(cli, folder, tmp_path):
    told = cli(folder, "--json", "--sr", tmp_path / "sr.dcm")
    assert told.code == 0, told.err
    whole = [entry for entry in json.loads(told.out) if "slices" in entry]
    assert [entry["decision"] for entry in whole] == ["glioma", "uncertain", "out-of-distribution"]
    groups = read_groups(tmp_path / "sr.dcm")
    for entry, (_, evaluations, numbers, group) in zip(whole, groups, strict=True):
        assert group.tracking_identifier == entry["path"]
        for name, probability in entry["probabilities"].items():
            assert numbers[f"Probability of {name}"] == probability
        assert numbers["Target coverage of the prediction set"] == 0.8
        ood = entry["out_of_distribution"]
        assert numbers["Out-of-distribution score"] == ood["score"]
        assert numbers["Threshold of the out-of-distribution score"] == ood["threshold"]
        assert numbers["Slices that were predicted"] == entry["slices"]["n"] == 4
        in_set = [value for name, value in evaluations if name == "IN-SET"]
        assert in_set == [codes.code_class(name).value for name in entry["prediction_set"]]
        odd = standard.SCT.Yes if ood["flagged"] else standard.SCT.No
        assert ("IS-OUT-OF-DIST", odd.value) in evaluations


def test_only_a_class_that_is_decided_is_a_finding(report):
    clear, doubtful, odd = read_groups(report)
    glioma = ("393564001", "SCT", "Glioma")
    assert (clear[0].value, clear[0].scheme_designator, clear[0].meaning) == glioma
    assert dict(clear[1])["DECISION"] == "393564001"
    assert doubtful[0] is odd[0] is None
    assert dict(doubtful[1])["DECISION"] == standard.SCT.Indeterminate.value
    assert dict(odd[1])["DECISION"] == "OUT-OF-DIST"


def test_a_forced_class_is_not_a_finding(head, folder, tmp_path):
    predictor = Predictor(head, backbone=Blocks(), coverage=0.8, force=True)
    write_sr(gather(predictor, folder), tmp_path / "sr.dcm", predictor=predictor)
    clear, doubtful, odd = read_groups(tmp_path / "sr.dcm")
    assert "FORCED" not in dict(clear[1])
    assert doubtful[0] is odd[0] is None
    assert dict(doubtful[1])["DECISION"] == standard.SCT.Indeterminate.value
    assert dict(odd[1])["DECISION"] == "OUT-OF-DIST"
    assert {dict(group[1])["FORCED"] for group in (doubtful, odd)} <= {"393564001", "NO-TUMOR"}
    root = pydicom.dcmread(tmp_path / "sr.dcm")
    texts = [text for item in root.ContentSequence for text in read_texts(item)]
    assert sum("the class was forced, and is not a finding" in text for text in texts) == 2


def test_a_report_says_what_made_it_and_what_it_is_not(predictor, report):
    found = highdicom.sr.srread(report)
    assert (found.CompletionFlag, found.VerificationFlag) == ("COMPLETE", "UNVERIFIED")
    assert found.PreliminaryFlag == "PRELIMINARY"
    assert found.Manufacturer == "brainfeat"
    assert found.DeviceSerialNumber == predictor.bundle.content_sha256
    assert found.CodingSchemeIdentificationSequence[0].CodingSchemeDesignator == OURS
    assert len(found.get_evidence()) == 12
    (context,) = found.content.get_observer_contexts()
    assert context.observer_identifying_attributes.serial_number == found.DeviceSerialNumber
    texts = [text for item in found.ContentSequence for text in read_texts(item)]
    first = next(text for text in texts if "iagnosis" in text)
    assert first.startswith("Not for diagnosis.")
    assert f"head: logistic, content SHA-256 {predictor.bundle.content_sha256}" in texts
    algorithm = [text for text in texts if text.startswith("target coverage")]
    assert algorithm == ["target coverage: 0.8"] * 3


def test_a_head_is_one_device_and_each_run_another_instance(predictor, volumes, report, tmp_path):
    again = write_sr(volumes, tmp_path / "again.dcm", predictor=predictor)
    found = [highdicom.sr.srread(path) for path in (report, again)]
    assert len({one.SOPInstanceUID for one in found}) == 2
    assert len({one.SeriesInstanceUID for one in found}) == 2
    devices = {
        context.observer_identifying_attributes.uid
        for one in found
        for context in one.content.get_observer_contexts()
    }
    assert len(devices) == 1
    assert devices.pop().startswith("2.25.")


def test_the_slices_that_carry_a_class_are_named(predictor, tmp_path):
    volume = np.concatenate([stack("clear", 2), stack("odd", 1), stack("doubtful", 1)])
    paths = write_series(tmp_path / "s", volume, reverse=True, **SHOWN, **PERSON)
    (found,) = gather(predictor, tmp_path / "s")
    write_sr([found], tmp_path / "sr.dcm", predictor=predictor)
    ((_, _, numbers, group),) = read_groups(tmp_path / "sr.dcm")
    carried = found.prediction.slices.carried_by["glioma"]
    (number,) = [n for n in group.get_measurements() if "glioma" in n.name.meaning and n.value > 1]
    named = [image.referenced_sop_instance_uid for image in number.referenced_images]
    by_place = [pydicom.dcmread(path).SOPInstanceUID for path in reversed(paths)]
    assert named == [by_place[frame - 1] for frame in carried]
    assert numbers["Slices that are out of distribution"] == 1
    assert len(group.source_images) == 4


def test_frames_of_an_enhanced_file_are_named(predictor, tmp_path):
    volume = np.concatenate([stack("odd", 2), stack("clear", 2)])
    frames = [{"ImagePositionPatient": [0, 0, z], **SHOWN} for z in range(4)]
    write_enhanced(tmp_path / "e.dcm", volume, frames, **PERSON)
    write_sr(gather(predictor, tmp_path / "e.dcm"), tmp_path / "sr.dcm", predictor=predictor)
    ((_, _, _, group),) = read_groups(tmp_path / "sr.dcm")
    (image,) = group.source_images
    assert image.referenced_frame_numbers is None  # all of them
    (number,) = [n for n in group.get_measurements() if "as glioma" in n.name.meaning]
    (image,) = number.referenced_images
    assert sorted(image.referenced_frame_numbers) == [3, 4]


def test_the_validators_find_no_error(report, captures):
    assert [find_errors(path) for path in (report, *captures)] == [[], [], []]


def test_the_validators_find_an_error_that_is_planted(report, tmp_path):
    dataset = pydicom.dcmread(report)
    del dataset.CompletionFlag
    dataset.save_as(tmp_path / "sr.dcm")
    assert find_errors(tmp_path / "sr.dcm")


def test_a_capture_shows_a_frame_of_each_volume(volumes, captures, folder):
    found = pydicom.dcmread(captures[0])
    assert found.SOPClassUID.name == "Multi-frame True Color Secondary Capture Image Storage"
    assert found.pixel_array.shape == (3, HEIGHT, WIDTH, 3)
    assert len({frame.tobytes() for frame in found.pixel_array}) == 3
    assert list(found.ImageType) == ["DERIVED", "SECONDARY"]
    assert "Not for diagnosis" in found.DerivationDescription
    assert "not for diagnosis" in found.SeriesDescription
    assert found.BurnedInAnnotation == "NO"  # no text in it identifies the patient
    sources = [item.ReferencedSOPInstanceUID for item in found.SourceImageSequence]
    by_kind = [
        [pydicom.dcmread(path) for path in sorted((folder / kind).iterdir())]
        for kind in ("clear", "doubtful", "odd")
    ]
    for volume, source, series in zip(volumes, sources, by_kind, strict=True):
        assert source == series[volume.shown.prediction.frame - 1].SOPInstanceUID
    # The text is yellow, in the place of the warning.
    assert (found.pixel_array[0, 8:40, :300] == (255, 220, 0)).all(axis=-1).any()


def test_the_slice_that_is_shown_carries_the_class(volumes):
    clear, doubtful, _ = volumes
    assert clear.shown.prediction.frame == clear.prediction.slices.carried_by["glioma"][0]
    target = doubtful.target
    assert target == max(
        doubtful.prediction.probabilities, key=doubtful.prediction.probabilities.get
    )


def test_one_volume_is_an_image_of_one_frame(captures):
    found = pydicom.dcmread(captures[1])
    assert found.SOPClassUID.name == "Secondary Capture Image Storage"
    assert found.pixel_array.shape == (HEIGHT, WIDTH, 3)
    (source,) = found.SourceImageSequence
    assert source.ReferencedSOPClassUID.name == "MR Image Storage"


def test_a_capture_of_images_that_may_show_a_name_says_so(head, tmp_path):
    predictor = Predictor(head, backbone=Blocks(), allow_burned_in=True)
    write_series(tmp_path / "s", stack("clear"), BurnedInAnnotation="YES", **SHOWN, **PERSON)
    path = tmp_path / "sc.dcm"
    write_secondary_capture(gather(predictor, tmp_path / "s"), path, predictor=predictor)
    assert pydicom.dcmread(path).BurnedInAnnotation == "YES"


def test_heat_is_where_the_head_looked(head, tmp_path, monkeypatch):
    """Of a slice that is cropped, the head is shown its left half: no heat is right of it."""
    bundle = HeadBundle.load(head)
    cropping = replace(
        bundle, spec=replace(bundle.spec, crop=CROPS["foreground"]), content_sha256=""
    ).save(tmp_path / "cropping.h5")
    explained = SimpleNamespace(maps=np.full((1, 8, 8), 0.5, np.float32), method="occlusion")
    monkeypatch.setattr(capture, "explain", lambda *_, **__: explained)
    predictor = Predictor(cropping, backbone=Blocks())
    slices = np.pad(stack("clear"), ((0, 0), (0, 0), (0, 32)))
    write_series(tmp_path / "s", slices, **SHOWN, **PERSON)
    path = tmp_path / "sc.dcm"
    write_secondary_capture(gather(predictor, tmp_path / "s"), path, predictor=predictor)
    picture = pydicom.dcmread(path).pixel_array.astype(int)
    # The right panel, 496 pixels wide: red where there is heat.
    panel = picture[220:440, WIDTH - 506 : WIDTH - 10]
    hot = panel[..., 0] - panel[..., 2] > 60
    assert hot[:, 20:230].all()
    assert not hot[:, 270:].any()


@pytest.mark.parametrize("size", [(1, 200), (200, 1), (7, 5)])
def test_any_shape_and_any_name_are_painted(size, volumes):
    volume, *_ = volumes
    names = {"глиома\n" * 30: 0.6, **{f"class {n}" * 20: 0.04 for n in range(10)}}
    prediction = replace(
        volume.prediction, probabilities=names, prediction_set=(), decision="uncertain"
    )
    painted = paint(
        replace(volume, prediction=prediction),
        pixels=np.full((*size, 3), 255, np.uint8),
        heat=np.zeros((4, 4), np.float32),
        method="occlusion",
        origin="x" * 500,
    )
    assert painted.shape == (HEIGHT, WIDTH, 3)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("glioma", ("SCT", "393564001")),
        ("Glioma Tumor", ("SCT", "393564001")),
        ("meningioma_tumour", ("SCT", "302820008")),
        ("pituitary", ("SCT", "127024001")),
        ("tumor", ("SCT", "108369006")),
        ("no_tumor", (OURS, "NO-TUMOR")),
        ("notumour", (OURS, "NO-TUMOR")),
    ],
)
def test_classes_have_codes_by_their_names(name, expected):
    found = codes.code_class(name)
    assert (found.scheme, found.value) == expected


@pytest.mark.parametrize("name", ["yes", "grade 2", "a\\b", "x" * 300, "глиома" * 20, "a\nb", ""])
def test_other_classes_have_codes_of_their_own(name):
    found = [codes.code_class(name), codes.code_probability(name), codes.code_slices(name)]
    assert {code.scheme for code in found} == {OURS}
    assert len({code.value for code in found}) == 3
    for code in found:
        assert len(code.value) <= 16
        assert len(code.meaning) <= 64
        assert "\\" not in code.meaning
        assert code.meaning.isprintable()
        assert codes.to_concept(code).value == code.value
    assert codes.code_class(name) == codes.code_class(name) != codes.code_class(name + "!")
