"""predict --sr and --secondary-capture: one patient and one study, and no name elsewhere."""

import json
import logging
import resource
from dataclasses import replace
from types import SimpleNamespace

import nibabel
import numpy as np
import pydicom
import pytest
from support.dicoms import make_dataset, write_dicom, write_series
from support.halves import Blocks, draw
from support.reported import PERSON, SHOWN, fit_halves, stack

from brainfeat import Predictor
from brainfeat.errors import BrainfeatError, MissingDependencyError, ParameterError
from brainfeat.heads.bundle import HeadBundle
from brainfeat.prediction.dicom_results import (
    check_inputs,
    collect_volumes,
    document,
    objects,
    study,
    write_secondary_capture,
    write_sr,
)
from brainfeat.readers.series import find_inputs


@pytest.fixture(scope="module")
def head(tmp_path_factory):
    return fit_halves(tmp_path_factory.mktemp("head"))


@pytest.fixture(scope="module")
def predictor(head):
    return Predictor(head, backbone=Blocks())


@pytest.fixture
def cli(head, run, monkeypatch):
    monkeypatch.setattr("brainfeat.prediction.bases.load_backbone", lambda *_, **__: Blocks())
    return lambda *arguments: run("predict", head, *arguments)


def write_study(folder, **elements):
    return write_series(folder, stack("clear"), **{**SHOWN, **PERSON, **elements})


def gather(predictor, *paths):
    return collect_volumes(predictor.predict_inputs(find_inputs(paths), keep_images=True))


def plant(folder):
    """Write a study with a canary in what names people, and in what is nobody's business here."""
    write_study(
        folder,
        PatientName="CANARY^NAME",
        PatientID="CANARY-ID",
        AccessionNumber="CANARY-A",
        StudyID="CANARY-S",
        ReferringPhysicianName="CANARY^DOCTOR",
        InstitutionName="CANARY HOSPITAL",
        StudyDescription="CANARY STUDY",
        PatientComments="CANARY COMMENT",
        OtherPatientIDs="CANARY-OTHER",
        SeriesDescription="CANARY SERIES",
    )
    for path in folder.iterdir():
        dataset = pydicom.dcmread(path)
        block = dataset.private_block(0x0011, "CANARY CREATOR", create=True)
        block.add_new(1, "LO", "CANARY PRIVATE")
        dataset.save_as(path.rename(folder / f"CANARY-{path.name}"))


def test_names_are_in_the_named_files_alone(cli, tmp_path, caplog, recwarn, monkeypatch):
    caplog.set_level(logging.DEBUG)
    plant(tmp_path / "CANARY-in")
    (tmp_path / "CANARY-in" / "CANARY.dcm").write_bytes(b"CANARY")
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    outputs = ["-o", "found.csv", "--sr", "sr.dcm", "--secondary-capture", "sc.dcm", "--json"]
    told = cli(tmp_path / "CANARY-in", *outputs)
    assert told.code == 0, told.err
    table = (tmp_path / "work" / "found.csv").read_text()
    logged = " ".join(record.getMessage() for record in caplog.records)
    texts = [told.out, told.err, table, logged, *(str(entry.message) for entry in recwarn)]
    assert not [text for text in texts if "CANARY" in text.upper()]
    assert {path.name for path in (tmp_path / "work").iterdir()} == {
        *("found.csv", "sr.dcm", "sc.dcm")
    }
    for name in ("sr.dcm", "sc.dcm"):
        found = pydicom.dcmread(tmp_path / "work" / name)
        planted = {e.keyword for e in found.iterall() if "CANARY" in str(e.value) and e.VR != "SQ"}
        assert planted == {"PatientName", "PatientID", "AccessionNumber", "StudyID"}
        assert found.ReferringPhysicianName == ""


def test_a_name_that_highdicom_would_show_is_not_shown(predictor, tmp_path, caplog, recwarn):
    caplog.set_level(logging.DEBUG)
    write_study(tmp_path / "s", PatientName="CANARY")  # no caret
    path = write_sr(gather(predictor, tmp_path / "s"), tmp_path / "sr.dcm", predictor=predictor)
    assert pydicom.dcmread(path).PatientName == "CANARY"
    assert "CANARY" not in caplog.text
    assert not recwarn.list


def test_errors_of_the_libraries_are_not_passed_on(predictor, tmp_path, monkeypatch):
    write_study(tmp_path / "s")
    volumes = gather(predictor, tmp_path / "s")

    def fail(*_):
        raise ValueError("CANARY^NAME")

    monkeypatch.setattr(document, "_make_report", fail)
    with pytest.raises(ParameterError, match="cannot be described in DICOM") as caught:
        write_sr(volumes, tmp_path / "sr.dcm", predictor=predictor)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_patient_and_study_are_those_of_the_images(predictor, tmp_path):
    name = "Müller^Änne"
    write_study(
        tmp_path / "s", PatientName=name, SpecificCharacterSet="ISO_IR 100", IssuerOfPatientID="H"
    )
    volumes = gather(predictor, tmp_path / "s")
    for write in (write_sr, write_secondary_capture):
        found = pydicom.dcmread(write(volumes, tmp_path / write.__name__, predictor=predictor))
        assert found.SpecificCharacterSet == "ISO_IR 192"
        expected = {**PERSON, "PatientName": name, "IssuerOfPatientID": "H"}
        assert {keyword: found[keyword].value for keyword in expected} == expected
        assert found.StudyInstanceUID == "1.2.3.4"


def test_what_is_missing_is_empty(predictor, tmp_path):
    write_study(tmp_path / "s", **dict.fromkeys(PERSON, ""))
    found = pydicom.dcmread(
        write_sr(gather(predictor, tmp_path / "s"), tmp_path / "sr.dcm", predictor=predictor)
    )
    assert not any(found[keyword].value for keyword in PERSON)
    assert "IssuerOfPatientID" not in found


@pytest.mark.filterwarnings("ignore::UserWarning")  # of pydicom, which writes what it warns of
def test_what_is_not_valid_is_left_empty_and_told_without_its_value(predictor, tmp_path, caplog):
    write_study(tmp_path / "s", PatientBirthDate="CANARY", AccessionNumber="CANARY" * 4)
    found = pydicom.dcmread(
        write_sr(gather(predictor, tmp_path / "s"), tmp_path / "sr.dcm", predictor=predictor)
    )
    assert (found.PatientBirthDate, found.AccessionNumber) == ("", "")
    assert found.PatientSex == "F"
    (record,) = (entry for entry in caplog.records if entry.name.startswith("brainfeat"))
    assert record.getMessage().startswith(
        "no PatientBirthDate, AccessionNumber is copied into the structured report; not valid"
    )


OTHERS = {
    "patients": ({"PatientID": "4712"}, "more than one PatientID"),
    "names": ({"PatientName": "Roe^Jane"}, "more than one PatientName"),
    "issuers": ({"IssuerOfPatientID": "X"}, "more than one IssuerOfPatientID"),
    "studies": ({"StudyInstanceUID": "1.2.3.5"}, "are of 2 studies"),
    "no study": ({"StudyInstanceUID": None}, "StudyInstanceUID is missing, not valid"),
    "no series": ({"SOPInstanceUID": "1.2-3"}, "SOPInstanceUID is missing, not valid"),
    "a long ID": ({"PatientID": "1" * 65}, "PatientID is missing, not valid"),
}


@pytest.mark.parametrize("kind", OTHERS)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_what_is_not_one_study_is_refused_before_any_work(cli, tmp_path, kind):
    elements, expected = OTHERS[kind]
    write_study(tmp_path / "in" / "a")
    single = {**SHOWN, **PERSON, "SeriesInstanceUID": "1.9", **elements}
    write_dicom(tmp_path / "in" / "b" / "one", stack("clear", 1)[0], **single)
    told = cli(tmp_path / "in", "--sr", tmp_path / "sr.dcm")
    assert (told.code, told.out) == (1, "")
    (line,) = told.err.splitlines()
    assert expected in line
    assert not [name for name in ("Doe", "Roe", "4711", "4712") if name in line]
    assert {path.name for path in tmp_path.iterdir()} == {"in"}


@pytest.mark.parametrize("kind", ["png", "nifti", "array"])
def test_only_dicom_has_dicom_results(predictor, tmp_path, kind):
    write_study(tmp_path / "s")
    draw(np.random.default_rng(0), bright=True).save(tmp_path / "x.png")
    image = nibabel.Nifti1Image(np.zeros((8, 8, 8), np.int16), np.eye(4))
    nibabel.save(image, tmp_path / "x.nii")
    given = {"png": tmp_path / "x.png", "nifti": tmp_path / "x.nii"}.get(kind)
    if given is None:
        (answer,) = predictor.predict_inputs(find_inputs([tmp_path / "x.png"]))
        with pytest.raises(ParameterError, match="is not a volume; DICOM results are of DICOM"):
            collect_volumes([answer])
        return
    with pytest.raises(ParameterError, match="1 file in what was given is not DICOM"):
        check_inputs(find_inputs([tmp_path / "s", given]))


def test_a_volume_of_another_format_is_refused_in_python(predictor, tmp_path):
    values = np.random.default_rng(0).integers(0, 99, (8, 8, 8)).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), tmp_path / "x.nii")
    with pytest.raises(ParameterError, match="volume 1 is not DICOM"):
        write_sr(gather(predictor, tmp_path / "x.nii"), tmp_path / "sr.dcm", predictor=predictor)


def test_a_volume_that_cannot_be_read_is_told_in_the_report(cli, tmp_path):
    write_study(tmp_path / "in" / "a")
    write_study(tmp_path / "in" / "b", BurnedInAnnotation="YES")
    write_dicom(tmp_path / "in" / "c" / "x", stack("clear", 1)[0], Modality="US", PatientID="P2")
    told = cli(tmp_path / "in", "--json", "--sr", tmp_path / "sr.dcm")
    assert told.code == 0, told.err
    refused = [entry for entry in json.loads(told.out) if "error" in entry]
    assert len(refused) == 2
    found = pydicom.dcmread(tmp_path / "sr.dcm")
    assert found.CompletionFlag == "PARTIAL"
    notes = [str(element.value) for element in found.iterall() if element.keyword == "TextValue"]
    for entry in refused:
        assert any(note.startswith(f"Not predicted: {entry['path']} ") for note in notes)


def test_where_nothing_can_be_read_nothing_is_written(cli, predictor, tmp_path):
    write_study(tmp_path / "in", BurnedInAnnotation="YES")
    told = cli(tmp_path / "in", "--sr", tmp_path / "sr.dcm")
    assert told.code == 1
    assert "warning: no volume could be read; no DICOM file was written" in told.err
    assert not (tmp_path / "sr.dcm").exists()
    with pytest.raises(ParameterError, match="no volume could be read"):
        write_sr(gather(predictor, tmp_path / "in"), tmp_path / "sr.dcm", predictor=predictor)


def test_a_head_of_patients_has_no_dicom_results(head, predictor, tmp_path):
    write_study(tmp_path / "in")
    volumes = gather(predictor, tmp_path / "in")
    bags = SimpleNamespace(bundle=SimpleNamespace(bag="mean"), policy=predictor.policy)
    for write in (write_sr, write_secondary_capture):
        with pytest.raises(ParameterError, match="takes all images of a patient together; take a"):
            write(volumes, tmp_path / "sr.dcm", predictor=bags)
    assert not (tmp_path / "sr.dcm").exists()


def test_only_a_result_of_brainfeat_of_the_same_kind_is_replaced(cli, tmp_path):
    write_study(tmp_path / "in")
    outputs = ("--sr", tmp_path / "sr.dcm", "--secondary-capture", tmp_path / "sc.dcm")
    assert cli(tmp_path / "in", *outputs).code == 0
    first = (tmp_path / "sr.dcm").read_bytes()
    assert "exists; name another output or pass --overwrite" in cli(tmp_path / "in", *outputs).err
    assert (tmp_path / "sr.dcm").read_bytes() == first
    assert cli(tmp_path / "in", *outputs, "--overwrite").code == 0
    assert (tmp_path / "sr.dcm").read_bytes() != first
    told = cli(tmp_path / "in", "--sr", tmp_path / "sc.dcm", "--overwrite")
    assert "is not a structured report that brainfeat wrote and is not replaced" in told.err
    foreign = pydicom.dcmread(tmp_path / "sr.dcm")
    foreign.Manufacturer = "another"
    foreign.save_as(tmp_path / "sr.dcm")
    told = cli(tmp_path / "in", "--sr", tmp_path / "sr.dcm", "--overwrite")
    assert "is not a structured report that brainfeat wrote and is not replaced" in told.err
    told = cli(tmp_path / "in", "--sr", tmp_path / "x", "--secondary-capture", tmp_path / "x")
    assert told.code == 2
    assert "--sr and --secondary-capture name the same file" in told.err


def test_where_one_result_fails_neither_is_written(cli, tmp_path, monkeypatch):
    write_study(tmp_path / "in")
    outputs = ("--sr", tmp_path / "sr.dcm", "--secondary-capture", tmp_path / "sc.dcm")
    told = cli(tmp_path / "in", *outputs)
    assert "sr.dcm written; it names the patient\nsc.dcm written; it names" in told.err
    for path in outputs[1::2]:
        path.unlink()

    def fail(*_, **__):
        raise BrainfeatError("no picture")

    monkeypatch.setattr("brainfeat.prediction.dicom_results.capture.paint", fail)
    told = cli(tmp_path / "in", *outputs)
    assert "no picture" in told.err
    assert {path.name for path in tmp_path.iterdir()} == {"in"}


def test_a_file_that_cannot_be_written_is_one_line(predictor, tmp_path):
    with pytest.raises(BrainfeatError, match="cannot be written"):
        objects.save({tmp_path / "no" / "x.dcm": b"content"})


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path):
    large = objects.encode(make_dataset(np.zeros((400, 400), np.uint16)))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(BrainfeatError, match=r"cannot be written \(File too large\)"):
            objects.save({tmp_path / "a.dcm": b"small", tmp_path / "x.dcm": large})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not [*tmp_path.iterdir()]


def test_a_head_without_a_file_has_no_name_in_a_result(head, tmp_path):
    write_study(tmp_path / "s")
    unsaved = Predictor(replace(HeadBundle.load(head), content_sha256=""), backbone=Blocks())
    volumes = gather(unsaved, tmp_path / "s")
    for write in (write_sr, write_secondary_capture):
        with pytest.raises(ParameterError, match="the head has not been saved"):
            write(volumes, tmp_path / "x.dcm", predictor=unsaved)


def test_a_capture_needs_the_images(predictor, tmp_path):
    write_study(tmp_path / "s")
    volumes = collect_volumes(predictor.predict_inputs(find_inputs([tmp_path / "s"])))
    with pytest.raises(ParameterError, match="keep the images of the answers"):
        write_secondary_capture(volumes, tmp_path / "x.dcm", predictor=predictor)


def test_without_highdicom_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(study, "find_spec", lambda _: None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'brainfeat\[dicom-out\]'"):
        check_inputs(find_inputs([tmp_path]))


def test_paths_are_not_in_the_text_of_a_volume(predictor, tmp_path):
    write_study(tmp_path / "CANARY")
    assert "CANARY" not in repr(gather(predictor, tmp_path / "CANARY"))
