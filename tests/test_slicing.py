"""slices: volumes become a folder that names nobody, and stage one and predict go on from it."""

import csv
import json
import logging
import os
import shutil
import sys
import traceback
from dataclasses import replace

import h5py
import nibabel
import numpy as np
import pydicom
import pytest
from click.testing import CliRunner
from PIL import Image
from pydicom.datadict import DicomDictionary
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from support.dicoms import draw_volume, make_dataset, make_groups, write_dicom, write_series
from support.halves import Blocks, draw

from brainfeat import (
    FeatureCache,
    Predictor,
    SlicePolicy,
    audit,
    extract,
    fit_head,
    read_table,
    read_volumes,
    write_slices,
)
from brainfeat.cache.spec import FeatureSpec
from brainfeat.cli.audit import command as audit_command
from brainfeat.cli.info import command as info_command
from brainfeat.cli.predict import command as predict_command
from brainfeat.cli.slices import command as slices_command
from brainfeat.errors import (
    ImageReadError,
    MissingDependencyError,
    ParameterError,
    SpecMismatchError,
    TableError,
)
from brainfeat.prediction.answers import (
    NOTICE,
    OUT_OF_DISTRIBUTION,
    UNCERTAIN,
    OutOfDistribution,
    Prediction,
    SliceSummary,
    pool_slices,
)
from brainfeat.readers.series import find_inputs, find_series, read_volume
from brainfeat.readers.volumes import cut_slices
from brainfeat.readers.windows import find_robust_window, paint_slice
from brainfeat.tables.origin import find_origin
from brainfeat.tables.pseudonyms import read_patient_key
from brainfeat.tables.volume_table import _suspect_class_folders

KEY = b"0123456789abcdef"
CLASSES = ("glioma", "notumor")
PATIENTS = 60
MATLAB_73 = b"MATLAB 7.3".ljust(512) + b"\x89HDF\r\n\x1a\n"


def draw_head(rng, *, bright, n=4):
    return np.stack([np.asarray(draw(rng, bright=bright)) for _ in range(n)]).astype(np.uint16) * 16


@pytest.fixture(scope="module")
def hospital(tmp_path_factory):
    """Class folders of patients with a series of four slices each."""
    folder, rng = tmp_path_factory.mktemp("hospital"), np.random.default_rng(0)
    for place, name in enumerate(CLASSES):
        for number in range(PATIENTS):
            looks = bool(place) if number % 10 else not place
            patient = f"{name}-{number}"
            write_series(
                folder / name / patient / "s1",
                draw_head(rng, bright=looks),
                PatientID=patient,
                WindowCenter=2040,
                WindowWidth=4080,
                VOILUTFunction="LINEAR_EXACT",
            )
    return folder


@pytest.fixture(scope="module")
def sliced(hospital, tmp_path_factory):
    output = tmp_path_factory.mktemp("sliced") / "slices"
    return write_slices([hospital], output, class_folders=True, patient_key=KEY)


@pytest.fixture(scope="module")
def cache(sliced):
    path = sliced.output.parent / "features.h5"
    return extract(read_table(sliced.output), path, backbone=Blocks()).output


@pytest.fixture(scope="module")
def bundle(cache):
    return fit_head(cache, head="logistic", n_jobs=1)


@pytest.fixture
def predictor(bundle):
    return Predictor(bundle, backbone=Blocks())


def test_each_slice_is_a_row_with_its_patient_and_modality(sliced, hospital):
    table = read_table(sliced.table)
    assert len(table) == sliced.slices == 2 * PATIENTS * 4
    assert sliced.volumes == sliced.patients == len(set(table.groups)) == 2 * PATIENTS
    assert set(table.sources) == {"MR"}
    assert table.class_names == CLASSES
    assert read_table(sliced.output) == table
    series, unreadable = find_series([hospital])
    assert not unreadable
    volume = read_volume(series[0])
    for frame, pixels in cut_slices(volume, SlicePolicy()):
        with Image.open(table.absolute_path(frame - 1)) as image:
            assert image.mode == "L"
            assert (np.asarray(image) == pixels).all()
            assert not image.info


def test_one_path_is_one_input(hospital, tmp_path):
    one = hospital / "glioma" / "glioma-7"
    alone = write_slices(str(one), tmp_path / "alone", patient_key=KEY)
    listed = write_slices(iter([one]), tmp_path / "listed", patient_key=KEY)
    assert alone.slices == listed.slices == 4
    assert alone.table.read_bytes() == listed.table.read_bytes()


def test_the_note_describes_the_slices_but_not_the_patients(sliced):
    note = json.loads((sliced.output / "slices.json").read_text())
    assert note["policy"] == SlicePolicy().text
    assert note["patient_key"] == "site"
    assert len(note["volumes"]) == 2 * PATIENTS
    assert set(note["volumes"][0]) == {
        *("group", "modality", "rows", "columns", "frames", "spacing", "bits", "photometric"),
        *("field_strength", "volume", "plane"),
    }


def test_a_site_that_keeps_its_key_gets_the_same_groups(hospital, sliced, tmp_path):
    one = hospital / "glioma" / "glioma-7"
    groups = [
        read_table(write_slices([one], tmp_path / str(number), patient_key=key).output).groups[0]
        for number, key in enumerate([KEY, b"another key of 24 bytes.", None, None])
    ]
    assert groups[0] in read_table(sliced.output).groups
    assert len(set(groups)) == 4


def test_a_patient_is_one_group_in_all_series(tmp_path):
    for name, patient in (("a", "P1"), ("b", "P1"), ("c", "P2")):
        write_series(tmp_path / "in" / name, draw_volume(2), PatientID=patient)
    found = write_slices([tmp_path / "in"], tmp_path / "out")
    assert (found.volumes, found.patients, found.slices) == (3, 2, 6)
    assert found.patient_key == "random"


@pytest.mark.parametrize(("slices", "n"), [("all", 5), ("middle", 1), ("every:2", 2)])
def test_the_policy_chooses(slices, n, tmp_path):
    write_series(tmp_path / "in", draw_volume(5))
    policy = SlicePolicy(slices=slices)
    assert write_slices([tmp_path / "in"], tmp_path / "out", policy=policy).slices == n


def test_unreadable_volumes_are_listed_by_number_and_the_others_are_cut(tmp_path):
    write_series(tmp_path / "in" / "a", draw_volume(2))
    write_dicom(tmp_path / "in" / "b", draw_volume(1)[0], Modality="US", SeriesInstanceUID="1.9")
    (tmp_path / "in" / "c.nii").write_bytes(b"no volume")
    (tmp_path / "in" / "d").write_bytes(bytes(128) + b"DICM" + b"nothing else")
    (tmp_path / "in" / "report.pdf").write_bytes(b"%PDF")
    found = write_slices([tmp_path / "in"], tmp_path / "out")
    assert found.slices == 2
    assert {entry["volume"]: entry["reason"] for entry in found.refused} == {
        "volume 1": "is of a modality other than MR, CT, PT",
        "volume 2": "is not a NIfTI file",
        "volume 3": "is of a modality other than MR, CT, PT",
    }


def test_where_nothing_can_be_read_nothing_is_made(tmp_path):
    write_dicom(tmp_path / "in" / "b", draw_volume(1)[0], Modality="US")
    with pytest.raises(ImageReadError, match="the only volume cannot be read; volume 1: is of"):
        write_slices([tmp_path / "in"], tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ImageReadError, match="no DICOM, NIfTI, MGH or MATLAB"):
        write_slices([tmp_path / "empty"], tmp_path / "out")
    for name, words in (("missing", "does not exist"), ("text", "is not a DICOM, NIfTI")):
        (tmp_path / "text").write_text("text")
        with pytest.raises(ImageReadError, match=f"argument 2: .*{words}"):
            write_slices([tmp_path / "in", tmp_path / name], tmp_path / "out")
    assert {path.name for path in tmp_path.iterdir()} == {"in", "empty", "text"}


def test_a_run_that_is_stopped_leaves_nothing(tmp_path):
    write_series(tmp_path / "in", draw_volume(2))

    def stop(done, total):
        assert (done, total) == (1, 1)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_slices([tmp_path / "in"], tmp_path / "out", progress=stop)
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_only_a_folder_of_slices_is_replaced_and_only_with_overwrite(tmp_path):
    write_series(tmp_path / "in", draw_volume(2))
    source, output = tmp_path / "in", tmp_path / "out"
    write_slices([source], output)
    with pytest.raises(TableError, match="exists"):
        write_slices([source], output)
    assert write_slices([source], output, policy=SlicePolicy(slices="middle"), overwrite=True)
    assert len(read_table(output)) == 1
    with pytest.raises(TableError, match="is not replaced"):
        write_slices([source], source, overwrite=True)
    (tmp_path / "link").symlink_to(output)
    with pytest.raises(TableError, match="is not replaced"):
        write_slices([source], tmp_path / "link", overwrite=True)
    with pytest.raises(TableError, match="is not a folder"):
        write_slices([source], tmp_path / "no" / "out")
    assert {path.name for path in tmp_path.iterdir()} == {"in", "out", "link"}


def test_a_key_is_long_and_read_without_white_space(tmp_path):
    path = tmp_path / "key"
    path.write_bytes(KEY + b"\n")
    assert read_patient_key(path) == KEY
    path.write_bytes(b" " * 40 + b"short")
    with pytest.raises(ParameterError, match="5 bytes is too short"):
        read_patient_key(path)
    path.write_bytes(bytes(70_000))
    with pytest.raises(ParameterError, match="longer than 65,536"):
        read_patient_key(path)
    with pytest.raises(ParameterError, match="cannot be read"):
        read_patient_key(tmp_path / "missing")
    with pytest.raises(ParameterError, match="too short"):
        write_slices([tmp_path], tmp_path / "out", patient_key=b"short")


def test_labels_come_from_one_place(tmp_path):
    with pytest.raises(ParameterError, match="both label and class_folders"):
        write_slices([tmp_path], tmp_path / "out", label="glioma", class_folders=True)
    write_series(tmp_path / "in", draw_volume(1))
    found = write_slices([tmp_path / "in"], tmp_path / "out", label="glioma")
    assert read_table(found.output).labels == ("glioma",)


@pytest.mark.parametrize(("library", "name"), [("pydicom", "a.dcm"), ("nibabel", "a.nii")])
def test_without_a_library_the_extra_is_named(library, name, tmp_path, monkeypatch):
    write_dicom(tmp_path / name, draw_volume(1)[0])
    if library == "nibabel":
        (tmp_path / name).write_bytes(b"nothing")
    for module in [module for module in sys.modules if module.partition(".")[0] == library]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(MissingDependencyError, match=rf"{library}, which is not .*\[medical\]"):
        write_slices([tmp_path / name], tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_the_table_has_the_number_of_each_frame(tmp_path):
    write_series(tmp_path / "in", draw_volume(5))
    policy = SlicePolicy(slices="every:2")
    found = write_slices([tmp_path / "in"], tmp_path / "out", policy=policy)
    with found.table.open(newline="") as file:
        assert [row["frame"] for row in csv.DictReader(file)] == ["2", "4"]


def test_files_that_are_only_named_dicom_are_listed_by_number(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "CANARY.dcm").write_bytes(b"nothing")
    (tmp_path / "CANARY.IMA").write_bytes(b"nothing")
    series, unreadable = find_series([tmp_path / "in", tmp_path / "CANARY.IMA"])
    assert not series
    assert [entry.name for entry in unreadable] == ["argument 1, file 1", "argument 2, file 1"]
    assert [entry.reason for entry in unreadable] == ["is not a DICOM file"] * 2
    assert "CANARY" not in repr(unreadable)


def test_what_cannot_be_opened_or_listed_is_not_passed_over(tmp_path, monkeypatch):
    write_series(tmp_path / "in", draw_volume(1))
    (tmp_path / "in" / "broken").symlink_to(tmp_path / "nowhere")
    (tmp_path / "in" / "closed").mkdir()
    scandir = os.scandir

    def refuse(path):
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    series, unreadable = find_series([tmp_path / "in"])
    assert len(series) == 1
    assert {entry.reason for entry in unreadable} == {
        "cannot be listed (Permission denied)",
        "cannot be read (No such file or directory)",
    }


def test_images_and_volumes_are_found_in_one_walk(tmp_path, monkeypatch):
    write_series(tmp_path / "in" / "s", draw_volume(2))
    for name in ("b.png", "deep/a.JPG", ".hidden.png", "notes.txt"):
        (tmp_path / "in" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "in" / name).write_bytes(b"")
    listed = []
    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: listed.append(path) or scandir(path))
    found = find_inputs([tmp_path / "in", tmp_path / "named.txt"])
    assert sorted(map(str, listed)) == [str(tmp_path / name) for name in ("in", "in/deep", "in/s")]
    names = [path.relative_to(tmp_path).as_posix() for path in found.images]
    assert names == ["in/b.png", "in/deep/a.JPG", "named.txt"]
    assert [entry.name for entry in found.series] == ["argument 1, volume 1"]
    assert not found.unreadable


# NIfTI, MGH and MATLAB

THICK = np.random.default_rng(0).integers(0, 4000, (4, 24, 24)).astype(np.int16)


def write_thick(path, *, sizes=(6, 1, 1)):
    """Write a scan of thick sagittal slices."""
    path.parent.mkdir(exist_ok=True)
    nibabel.Nifti1Image(THICK, np.diag([*map(float, sizes), 1.0])).to_filename(path)


def test_thick_scans_are_told_of_and_cut_as_they_were_acquired(tmp_path):
    write_thick(tmp_path / "in" / "a.nii")
    write_thick(tmp_path / "in" / "b.nii.gz", sizes=(1, 1, 1))
    found = write_slices([tmp_path / "in"], tmp_path / "axial")
    assert found.slices == 48
    (warning,) = found.warnings
    assert warning == (
        "1 of 2 volumes have pixels more than 2 times as long as wide, such as volume 1 "
        "(1 × 6 mm), because they were acquired in another plane; pass "
        'orientation="native" to cut them in that'
    )
    native = SlicePolicy(orientation="native")
    found = write_slices([tmp_path / "in"], tmp_path / "native", policy=native)
    assert not found.warnings
    assert found.slices == 4 + 24
    note = json.loads((found.output / "slices.json").read_text())
    assert [volume["plane"] for volume in note["volumes"]] == ["sagittal", "axial"]
    assert note["volumes"][0]["frames"] == 4
    assert note["volumes"][0]["rows"] == note["volumes"][0]["columns"] == 24
    assert find_origin(tmp_path, ["native/x.png"]).policy == native.text


LONE = np.zeros((4, 16, 16), np.int16)
LONE[1, 2, 3] = 900
EVEN = {
    "equal values": np.full((3, 5, 5), 7, np.int16),
    "no values": np.full((3, 5, 5), np.nan, np.float32),
    "values beyond single precision": np.full((3, 5, 5), 1e300),
    "one voxel in a thousand": LONE,
}


@pytest.mark.parametrize("what", EVEN)
def test_volumes_that_show_nothing_are_told_of(what, tmp_path):
    (tmp_path / "in").mkdir()
    nibabel.Nifti1Image(EVEN[what], np.eye(4)).to_filename(tmp_path / "in" / "a.nii")
    write_thick(tmp_path / "in" / "b.nii", sizes=(1, 1, 1))
    (warning,) = write_slices([tmp_path / "in"], tmp_path / "out").warnings
    assert warning == (
        "1 of 2 volumes became slices of one grey value each, such as volume 1, because nearly all"
        " of their values are equal, missing, or outside the window; leave them out, or pass"
        " window=CENTRE,WIDTH to show other values"
    )
    arguments = [str(tmp_path / "in"), "-o", str(tmp_path / "cli")]
    result = CliRunner().invoke(slices_command, arguments)
    assert result.exit_code == 0
    assert "or pass --window CENTRE,WIDTH to show other values\n" in result.stderr


def test_scans_whose_sform_and_qform_disagree_are_told_of(tmp_path):
    image = nibabel.Nifti1Image(THICK, np.eye(4))
    image.set_qform(np.diag([-1.0, -1.0, 1.0, 1.0]), 1)
    image.to_filename(tmp_path / "a.nii")
    found = write_slices([tmp_path / "a.nii"], tmp_path / "out")
    assert [warning.partition(";")[0] for warning in found.warnings] == [
        "1 of 1 volumes have an sform and a qform along different axes, such as volume 1"
    ]
    note = json.loads((found.output / "slices.json").read_text())
    assert note["volumes"][0]["affine"] == "sform"


def test_one_of_several_volumes_is_cut_and_hidden_files_are_left_out(tmp_path):
    (tmp_path / "in").mkdir()
    image = nibabel.Nifti1Image(np.stack([THICK, THICK // 2], -1), np.eye(4))
    image.to_filename(tmp_path / "in" / "BRATS_001.nii.gz")
    (tmp_path / "in" / "._BRATS_001.nii.gz").write_bytes(b"\0\5\x16\7" + bytes(100))
    source, output = str(tmp_path / "in"), str(tmp_path / "out")
    refused = CliRunner().invoke(slices_command, [source, "-o", output])
    assert refused.exception.reason == (
        "has 2 volumes (4 × 24 × 24 × 2); pass volume=N, from 1 to 2, for one"
    )
    write_thick(tmp_path / "in" / "one.nii")
    result = CliRunner().invoke(slices_command, [source, "-o", output])
    assert "rejected 1: has 2 volumes (4 × 24 × 24 × 2); pass --volume N, from" in result.stderr
    options = ["--overwrite", "--volume", "2", "--window", "2000,4000", "--json"]
    result = CliRunner().invoke(slices_command, [source, "-o", output, *options])
    document = json.loads(result.stdout)
    assert (document["volumes"], document["slices"], document["refused"]) == (2, 48, [])
    with Image.open(read_table(output).absolute_path(0)) as shown:
        lowest = (THICK // 2)[::-1, ::-1, 0].T
        assert (np.asarray(shown) == np.rint(255 * (lowest / 4000))).all()
    assert (
        find_origin(tmp_path, ["out/x.png"]).policy
        == SlicePolicy(volume=2, window="2000,4000").text
    )


def write_mat(path, *, number=1, pid="100360", image=None):
    """Write a file of the brain tumour data of Cheng et al."""
    image = THICK[0] if image is None else image
    path.parent.mkdir(exist_ok=True)
    with h5py.File(path, "w", userblock_size=512) as file:
        group = file.create_group("cjdata")
        group["image"] = image.T
        group["label"] = np.array([[float(number)]])
        group["PID"] = np.array([[ord(letter)] for letter in pid], np.uint16)
        group["tumorMask"] = (image.T > 3000).astype(np.uint8)
        group["CANARY"] = np.array([[1.0]])
    return path


def test_matlab_files_have_their_own_classes_and_patients(tmp_path):
    numbers = (1, 2, 3, 3)
    for place, number in enumerate(numbers):
        write_mat(tmp_path / "in" / f"{place}.mat", number=number, pid=f"P{place // 2}")
    found = write_slices([tmp_path / "in"], tmp_path / "out", patient_key=KEY)
    assert (found.slices, found.patients, found.warnings) == (4, 2, ())
    table = read_table(found.output)
    assert sorted(table.labels) == ["glioma", "meningioma", "pituitary", "pituitary"]
    assert set(table.sources) == {"MATLAB"}
    with Image.open(table.absolute_path(0)) as shown:
        window = find_robust_window(THICK[:1].astype(np.float32))
        assert (np.asarray(shown) == paint_slice(THICK[0].astype(np.float32), window)).all()


def test_lists_of_classes_know_the_patients_of_matlab_files(tmp_path):
    for place in range(3):
        write_mat(tmp_path / "in" / f"{place}.mat", number=1, pid=f"P{place // 2}")
    found = write_slices(tmp_path / "in", tmp_path / "out", labels={"P0": "benign"})
    assert read_table(found.output).labels == ("benign", "benign", "meningioma")
    assert [text.partition(" '")[0] for text in found.warnings] == [
        "1 patient of 2 without a row in"
    ]


def test_other_matlab_files_of_a_folder_are_passed_over(predictor, run, tmp_path):
    image = draw_head(np.random.default_rng(5), bright=True, n=1)[0].astype(np.int16)
    write_mat(tmp_path / "in" / "1.mat", image=image)
    other = tmp_path / "in" / "results.mat"
    other.write_bytes(b"MATLAB 5.0 MAT-file".ljust(2000))
    assert [entry.error for entry in predictor.predict(tmp_path / "in")] == [None, None]
    found = write_slices(tmp_path / "in", tmp_path / "out")
    assert (found.volumes, found.refused) == (1, ())
    # One that was named is not, nor is one that may be read.
    assert "cannot be read: is a MATLAB file of version 5 to 7" in run(other).stdout
    other.write_bytes(MATLAB_73 + bytes(2000))
    whole, only, error = predictor.predict(tmp_path / "in")
    assert "expected MATLAB 7.3 with cjdata.image" in str(error.error or whole.error or only.error)
    other.write_bytes(b"MATLAB 5.0 MAT-file".ljust(2000))
    (tmp_path / "in" / "1.mat").unlink()
    with pytest.raises(ImageReadError, match=r"has no DICOM, NIfTI, MGH or MATLAB 7\.3 file"):
        write_slices(tmp_path / "in", tmp_path / "out", overwrite=True)


def test_a_given_class_comes_before_that_of_the_file_but_does_not_contradict_it(tmp_path):
    write_mat(tmp_path / "in" / "1.mat", number=1)
    for label in ("tumour", "meningioma", "Meningioma"):
        found = write_slices([tmp_path / "in"], tmp_path / label, label=label)
        assert read_table(found.output).labels == (label,)
    words = "states the class meningioma, and is given as glioma; leave the label out"
    with pytest.raises(ImageReadError, match=words):
        write_slices([tmp_path / "in"], tmp_path / "out", label="glioma")


@pytest.mark.parametrize("name", ["1.mat", "a.nii", "a.mgz"])
def test_commands_for_images_send_volumes_to_slices(name, tmp_path):
    write_mat(tmp_path / "in" / "1.mat")
    path = (tmp_path / "in" / "1.mat").rename(tmp_path / name)
    for given in (path, tmp_path):
        with pytest.raises(TableError, match="cut volumes into slices first, with brainfeat slice"):
            read_table(given)
    result = CliRunner().invoke(info_command, [str(path)])
    assert "is a volume (" in str(result.exception)
    assert "cut volumes into slices first" in str(result.exception)


# Stage one


def test_the_spec_states_how_slices_were_made(cache, sliced):
    with FeatureCache.open(cache) as opened:
        assert opened.spec.volumes == SlicePolicy().text
        assert opened.provenance["patient_key"] == "site"
    assert find_origin(sliced.output.parent, ["slices/x.png"]).policy == SlicePolicy().text


def test_the_spec_of_image_files_is_what_it_was():
    spec = Blocks().spec
    assert "volumes" not in spec.to_json()
    assert FeatureSpec.from_json(spec.to_json()) == spec
    cut = replace(spec, volumes=SlicePolicy().text)
    assert FeatureSpec.from_json(cut.to_json()) == cut
    assert cut.fingerprint != spec.fingerprint


def test_images_made_in_two_ways_are_refused(tmp_path):
    write_series(tmp_path / "in", draw_volume(2))
    for name, window in (("a", "auto"), ("b", "40,80")):
        write_slices([tmp_path / "in"], tmp_path / name, policy=SlicePolicy(window=window))
    (tmp_path / "c").mkdir()
    Image.new("L", (8, 8)).save(tmp_path / "c" / "plain.png")
    paths = [path.relative_to(tmp_path).as_posix() for path in tmp_path.glob("[abc]/**/*.png")]
    for chosen in ("ab", "ac", "abc"):
        with pytest.raises(TableError, match="made in several ways"):
            find_origin(tmp_path, [path for path in paths if path[0] in chosen])
    assert find_origin(tmp_path, [path for path in paths if path[0] == "c"]) is None
    assert find_origin(tmp_path, []) is None


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "{}",
        "not JSON",
        '{"format":"brainfeat-slices","format_version":2,"policy":"x","patient_key":"site"}',
        '{"format":"brainfeat-slices","format_version":1,"policy":"x","patient_key":"site"}',
    ],
)
def test_an_invalid_note_is_refused(text, tmp_path):
    (tmp_path / "slices.json").write_text(text)
    with pytest.raises(TableError, match="does not describe how the slices were made"):
        find_origin(tmp_path, ["a.png"])


def test_a_backbone_of_other_images_is_refused(sliced, hospital, tmp_path):
    backbone = Blocks()
    backbone.spec = replace(backbone.spec, volumes=SlicePolicy(window="40,80").text)
    with pytest.raises(SpecMismatchError, match="leave volumes out of that spec"):
        extract(read_table(sliced.output), tmp_path / "f.h5", backbone=backbone)
    Image.new("L", (8, 8)).save(tmp_path / "plain.png")
    with pytest.raises(SpecMismatchError, match="volumes is '' for the images and"):
        extract(read_table(tmp_path), tmp_path / "f.h5", backbone=backbone)


def test_a_second_run_over_slices_does_not_load_the_base(cache, sliced):
    class Unloaded(Blocks):
        spec = property(lambda self: pytest.fail("the base was loaded"), lambda self, spec: None)

    result = extract(read_table(sliced.output), cache, backbone=Unloaded())
    assert (result.computed, result.reused) == (0, result.rows)


@pytest.mark.slow
def test_an_audit_reports_that_groups_are_random(hospital, tmp_path):
    for name in CLASSES:
        shutil.copytree(hospital / name / f"{name}-1", tmp_path / "in" / name)
    for how, key in (("site", KEY), ("random", None)):
        found = write_slices([tmp_path / "in"], tmp_path / how, class_folders=True, patient_key=key)
        cache = tmp_path / f"{how}.h5"
        extract(read_table(found.output), cache, backbone=Blocks())
        assert audit(cache).patient_key == how
        told = CliRunner().invoke(audit_command, [str(cache)]).stdout
        assert ("hashed with a random key" in told) == (how == "random")


# Predictions


def test_a_slice_is_predicted_as_its_png_is(predictor, hospital, sliced):
    series, _ = find_series([hospital / "glioma" / "glioma-3"])
    whole, *answers = predictor.predict_series(series[0])
    assert [answer.frame for answer in answers] == [1, 2, 3, 4]
    assert whole.frame is None
    table = read_table(sliced.output)
    group = find_group(sliced, hospital)
    rows = [row for row in range(len(table)) if table.groups[row] == group]
    expected = predictor.predict([table.absolute_path(row) for row in rows])
    assert [it.probabilities for it in answers] == [it.probabilities for it in expected]
    seen = [it.seen for it in expected]
    assert "exact-duplicate" in seen
    # A slice has no file, so that it is recognised by its pixels.
    assert all(it.seen == "copy" for it, how in zip(answers, seen, strict=True) if how is not None)
    assert whole.slices.seen == sum(it.seen is not None for it in answers)


def find_group(sliced, hospital):
    one = hospital / "glioma" / "glioma-3"
    output = sliced.output.parent / "one"
    return read_table(write_slices([one], output, patient_key=KEY, overwrite=True).output).groups[0]


def test_a_head_keeps_to_its_window_but_looks_at_other_slices(bundle, hospital):
    with pytest.raises(SpecMismatchError, match="in the window auto"):
        Predictor(bundle, backbone=Blocks(), window="40,80")
    with pytest.raises(ParameterError, match=r"slices 'first'"):
        Predictor(bundle, backbone=Blocks(), slices="first")
    predictor = Predictor(bundle, backbone=Blocks(), slices="middle")
    series, _ = find_series([hospital / "notumor" / "notumor-3"])
    whole, only = predictor.predict_series(series[0])
    assert only.frame == 3
    assert whole.probabilities == only.probabilities


def fit_policy(hospital, folder, policy):
    """Fit a head on slices that were cut by another policy."""
    found = write_slices([hospital], folder / "s", class_folders=True, policy=policy)
    cache = extract(read_table(found.output), folder / "f.h5", backbone=Blocks()).output
    return fit_head(cache, head="logistic", n_jobs=1)


@pytest.mark.slow
def test_a_head_takes_volumes_as_it_was_fitted_on_them(hospital, tmp_path):
    policy = SlicePolicy(orientation="native", volume=2)
    bundle = fit_policy(hospital, tmp_path, policy)
    assert bundle.spec.volumes == policy.text
    predictor = Predictor(bundle, backbone=Blocks())
    assert predictor.policy == policy
    values = np.stack([0 * THICK, THICK], -1)
    nibabel.Nifti1Image(values, np.diag([6.0, 1, 1, 1])).to_filename(tmp_path / "a.nii")
    whole, *answers = predictor.predict([tmp_path / "a.nii"])
    assert [answer.frame for answer in answers] == [1, 2, 3, 4]
    assert whole.slices.n == 4
    cut = write_slices([tmp_path / "a.nii"], tmp_path / "cut", policy=policy)
    table = read_table(cut.output)
    expected = predictor.predict([table.absolute_path(row) for row in range(4)])
    assert [it.probabilities for it in answers] == [it.probabilities for it in expected]
    with pytest.raises(SpecMismatchError, match=r"orientation is axial, .* leave the orientation"):
        Predictor(bundle, backbone=Blocks(), orientation="axial")
    other = Predictor(bundle, backbone=Blocks(), volume=1)
    assert other.policy == replace(policy, volume=1)


def test_matlab_files_are_predicted(predictor, run, tmp_path):
    image = draw_head(np.random.default_rng(5), bright=True, n=1)[0].astype(np.int16)
    path = write_mat(tmp_path / "in" / "1.mat", image=image)
    whole, only = predictor.predict(path)
    found = write_slices(path, tmp_path / "out")
    (expected,) = predictor.predict(read_table(found.output).absolute_path(0))
    assert whole.probabilities == only.probabilities == expected.probabilities
    image = nibabel.Nifti1Image(np.stack([THICK, THICK], -1), np.eye(4))
    image.to_filename(tmp_path / "in" / "b.nii")
    result = run(tmp_path / "in")
    assert "volume 2: cannot be read: has 2 volumes" in result.stdout
    assert "pass --volume N, from 1 to 2" in result.stdout


def make_answer(frame, decision, p, *, score=1.0, forced=False):
    most_probable = "a" if p >= 0.5 else "b"
    return Prediction(
        path="volume 1",
        frame=frame,
        decision=most_probable if forced else decision,
        probabilities={"a": p, "b": 1 - p},
        prediction_set=(),
        out_of_distribution=OutOfDistribution(score=score, threshold=2.0, flagged=score > 2),
        forced=forced,
    )


def test_slices_are_pooled_by_the_mean_of_those_in_distribution():
    answers = [
        make_answer(1, "a", 0.8),
        make_answer(2, "a", 0.9),
        make_answer(3, OUT_OF_DISTRIBUTION, 0.0, score=3),
        make_answer(4, UNCERTAIN, 0.7),
    ]
    whole = pool_slices(answers, ["a", "b"], prediction_set=["a"])
    assert whole.decision == "a"
    assert whole.probabilities == pytest.approx({"a": 0.8, "b": 0.2})
    assert whole.slices == SliceSummary(
        n=4,
        decisions={"a": 2, OUT_OF_DISTRIBUTION: 1, UNCERTAIN: 1},
        carried_by={"a": (2, 1)},
    )
    assert whole.frame is None
    assert whole.out_of_distribution.score == 1


def test_slices_that_differ_make_a_volume_uncertain():
    answers = [make_answer(n, "a", 0.95) for n in range(9)] + [make_answer(9, "b", 0.1)]
    whole = pool_slices(answers, ["a", "b"], prediction_set=["a"])
    assert (whole.decision, whole.prediction_set) == (UNCERTAIN, ("a", "b"))
    assert whole.slices.carried_by["b"] == (9,)
    forced = pool_slices(answers, ["a", "b"], prediction_set=["a"], force=True)
    assert (forced.decision, forced.forced) == ("a", True)


def test_a_volume_is_out_of_distribution_where_every_slice_is():
    answers = [make_answer(n, OUT_OF_DISTRIBUTION, 0.9, score=3 + n) for n in range(3)]
    whole = pool_slices(answers, ["a", "b"], prediction_set=["a"])
    assert whole.decision == OUT_OF_DISTRIBUTION
    assert whole.out_of_distribution == OutOfDistribution(score=3, threshold=2.0, flagged=True)


def test_forced_slices_do_not_speak_for_the_volume():
    answers = [
        make_answer(1, UNCERTAIN, 0.4, forced=True),
        make_answer(2, OUT_OF_DISTRIBUTION, 0.1, score=3, forced=True),
        make_answer(3, "a", 0.9),
    ]
    whole = pool_slices(answers, ["a", "b"], prediction_set=["a"])
    assert whole.slices.decisions == {UNCERTAIN: 1, OUT_OF_DISTRIBUTION: 1, "a": 1}
    assert whole.decision == "a"
    assert whole.probabilities["a"] == pytest.approx(0.65)


@pytest.fixture
def run(bundle, tmp_path, monkeypatch):
    monkeypatch.setattr("brainfeat.prediction.bases.load_backbone", lambda *_, **__: Blocks())
    bundle.save(tmp_path / "head.h5")

    def run(*arguments):
        return CliRunner().invoke(
            predict_command, [str(tmp_path / "head.h5"), *map(str, arguments)]
        )

    return run


def test_a_person_reads_of_a_volume_and_a_program_of_each_slice(run, hospital, tmp_path):
    one, other = (hospital / name / f"{name}-3" for name in CLASSES)
    result = run(one, other, "-o", tmp_path / "found.csv")
    assert result.exit_code == 0
    first, slices, second, _, notice = result.stdout.splitlines()
    assert first.startswith("argument 1, volume 1: glioma (0.")
    assert slices.startswith("  4 slices: ")
    assert second.startswith("argument 2, volume 1: notumor (0.")
    assert notice == NOTICE
    document = json.loads(run(one, "--json").stdout)
    assert [entry["frame"] for entry in document] == [None, 1, 2, 3, 4]
    assert document[0]["slices"]["n"] == 4
    assert "slices" not in document[1]
    assert {entry["path"] for entry in document} == {"volume 1"}
    with (tmp_path / "found.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["frame"] for row in rows] == ["", "1", "2", "3", "4"] * 2


def test_a_volume_with_heat_maps_is_read_once(run, hospital, tmp_path, monkeypatch):
    read = []

    def count(series, **options):
        read.append(series.name)
        return read_volume(series, **options)

    monkeypatch.setattr("brainfeat.prediction.feature_source.read_volume", count)
    volumes = [hospital / name / f"{name}-3" for name in CLASSES]
    result = run(*volumes, "--heatmap", tmp_path / "maps")
    assert result.exit_code == 0, result.exception
    assert read == ["argument 1, volume 1", "argument 2, volume 1"]
    names = sorted(path.name for path in (tmp_path / "maps").iterdir())
    assert names[:2] == [f"00001-argument-{n}-volume-1-0001.png" for n in (1, 2)]
    assert len(names) == len(set(names)) == 8


def test_images_and_volumes_are_predicted_together(run, hospital, tmp_path):
    rng = np.random.default_rng(5)
    (tmp_path / "mixed").mkdir()
    draw(rng, bright=False).save(tmp_path / "mixed" / "clear.png")
    (tmp_path / "mixed" / "bad.nii").write_bytes(b"nothing")
    write_series(tmp_path / "mixed" / "s", draw_head(rng, bright=True))
    document = json.loads(run(tmp_path / "mixed", "--json").stdout)
    assert document[0]["path"].endswith("clear.png")
    assert document[1] == {
        "path": "volume 1",
        "frame": None,
        "error": "is not a NIfTI file",
        **{name: document[1][name] for name in ("spec", "bundle", "engine", "precision", "notice")},
    }
    assert [entry["frame"] for entry in document[2:]] == [None, 1, 2, 3, 4]


def test_predictions_join_with_the_table_of_slices(run, hospital, sliced, tmp_path):
    (tmp_path / "key").write_bytes(KEY + b"\n")
    mixed = tmp_path / "mixed"
    shutil.copytree(hospital / "glioma" / "glioma-3" / "s1", mixed / "s1")
    draw(np.random.default_rng(5), bright=False).save(mixed / "clear.png")
    write_dicom(mixed / "t" / "us", draw_volume(1)[0], Modality="US", SeriesInstanceUID="1.9")
    with sliced.table.open(newline="") as file:
        rows = {row["path"]: row for row in csv.DictReader(file)}
    keyed = ["--patient-key", tmp_path / "key"]
    image, whole, *slices, refused = json.loads(run(mixed, *keyed, "--json").stdout)
    assert not {"group", "volume"} & {*image}
    assert "group" not in refused
    assert len(refused["volume"]) == 16
    assert len(slices) == 4
    for entry in slices:
        row = rows[f"{entry['group']}/{entry['volume']}-{entry['frame']:04}.png"]
        assert (row["group"], row["frame"]) == (whole["group"], str(entry["frame"]))
        assert entry["volume"] == whole["volume"]
    text = run(mixed, *keyed, "-o", tmp_path / "found.csv").stdout
    assert f"volume 1 (group {whole['group']}, volume {whole['volume']}): " in text
    assert f"volume 2 (volume {refused['volume']}): cannot be read" in text
    with (tmp_path / "found.csv").open(newline="") as file:
        table = [*csv.DictReader(file)]
    found = [(row["group"], row["volume"]) for row in table]
    hashes = (whole["group"], whole["volume"])
    assert found == [("", ""), *[hashes] * 5, ("", refused["volume"])]


def write_brats(folder, endings):
    for patient in ("BraTS_1", "BraTS_2"):
        for ending in endings:
            path = folder / patient / f"{patient}_{ending}.nii.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            values = draw_head(np.random.default_rng(3), bright=True, n=2).T
            nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), path)
    return folder


def test_predicted_patients_of_brats_are_those_of_slices(run, tmp_path):
    (tmp_path / "key").write_bytes(KEY)
    write_brats(tmp_path / "in", ("t1", "flair"))
    cut = write_slices(tmp_path / "in", tmp_path / "out", patient_key=KEY)
    with cut.table.open(newline="") as file:
        table = {(row["group"], row["path"][:33]) for row in csv.DictReader(file)}
    document = json.loads(run(tmp_path / "in", "--patient-key", tmp_path / "key", "--json").stdout)
    found = {(entry["group"], f"{entry['group']}/{entry['volume']}") for entry in document}
    assert found == table
    assert len({group for group, _ in found}) == 2


def test_masks_of_volumes_are_left_out_of_predictions(run, predictor, tmp_path):
    folder = write_brats(tmp_path / "in", ("t1", "seg"))
    assert len(predictor.predict(folder)) == 6
    result = run(folder)
    assert result.stderr == (
        "warning: 2 files left out for having the name of a mask, or having two values only, as"
        " masks have, beside images of the same size; if that is wrong, pass --keep-masks\n"
    )
    assert run(folder, "--keep-masks").stderr == ""
    assert len(predictor.predict(folder, keep_masks=True)) == 12
    (folder / "masks").mkdir()
    (folder / "BraTS_1" / "BraTS_1_seg.nii.gz").rename(folder / "masks" / "1.nii.gz")
    message = "2 files in what was given, and all are masks by their names"
    (folder / "BraTS_2").rename(folder / "masks" / "2")
    for path in folder.rglob("*_t1.nii.gz"):
        path.unlink()
    with pytest.raises(ParameterError, match=message):
        predictor.predict(folder)


def test_masks_that_slices_leaves_out_are_told_of(tmp_path):
    folder = write_brats(tmp_path / "in", ("t1", "seg"))
    result = CliRunner().invoke(slices_command, [str(folder), "-o", str(tmp_path / "out")])
    assert result.stderr.startswith(
        "warning: 2 volumes left out for having the name of a mask; if that is wrong, pass"
        " --keep-masks\n"
    )


def test_without_a_key_predictions_have_no_hashes(run, hospital, tmp_path):
    patient = hospital / "glioma" / "glioma-3"
    document = json.loads(run(patient, "--json").stdout)
    assert not any({"group", "volume"} & {*entry} for entry in document)
    assert run(patient, "-o", tmp_path / "found.csv").stdout.startswith("volume 1: ")
    header = (tmp_path / "found.csv").read_text().splitlines()[0].split(",")
    assert not {"group", "volume"} & {*header}


def test_a_key_that_is_too_short_is_refused_before_anything_is_loaded(bundle):
    with pytest.raises(ParameterError, match="5 bytes is too short"):
        Predictor(bundle, patient_key=b"short")


def test_the_command_reports_what_it_made_and_what_it_rejected(tmp_path):
    for number in range(2):
        write_series(tmp_path / "in" / f"a{number}", draw_volume(3), PatientID=f"P{number}")
    for number in range(2):
        write_dicom(
            tmp_path / "in" / f"b{number}",
            draw_volume(1)[0],
            BurnedInAnnotation="YES",
            SeriesInstanceUID=f"1.{number}",
        )
    (tmp_path / "key").write_bytes(KEY)
    source, output = str(tmp_path / "in"), str(tmp_path / "out")
    result = CliRunner().invoke(slices_command, [source, "-o", output])
    assert result.stdout == (
        f"{output}: 6 slices of 2 volumes of 2 patients; go on with brainfeat extract {output}\n"
    )
    assert "rejected 2: declares text in its pixels" in result.stderr
    assert "; the first is volume 1\n" in result.stderr
    assert "random key" in result.stderr
    result = CliRunner().invoke(
        slices_command,
        [
            *(source, "-o", output, "--overwrite", "--allow-burned-in", "--slices", "middle"),
            *("--window", "robust", "--patient-key", str(tmp_path / "key"), "--json"),
        ],
    )
    document = json.loads(result.stdout)
    assert document["slices"] == document["volumes"] == 4
    assert document["patient_key"] == "site"
    assert document["refused"] == []
    assert "random key" not in result.stderr


# No patient data leaves

CANARY = "CANARY"
# The text of a value of each representation; all of them hold what is looked for.
TEXTS = {
    **dict.fromkeys(("LO", "LT", "ST", "UT", "UC", "PN", "SH"), "CANARY^NAME"),
    **dict.fromkeys(("AE", "CS"), "CANARY"),
    "UR": "http://canary.example/CANARY",
    "UI": "1.2.840.77377377.1",
    "DA": "19370717",
    "DT": "19370717101010.773773",
    "TM": "101010.773773",
    "AS": "773Y",
    "IS": "77377377",
    "DS": "77377377.5",
}
# What the reader takes numbers or words of the standard from.
TAKEN = {
    *("SOPClassUID", "Modality", "BurnedInAnnotation", "PhotometricInterpretation"),
    *("NumberOfFrames", "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"),
    *("WindowCenter", "WindowWidth", "VOILUTFunction", "RescaleSlope", "RescaleIntercept"),
    *("SpecificCharacterSet", "TransferSyntaxUID", "MagneticFieldStrength"),
    *("LossyImageCompression",),
}


def plant_canaries(dataset):
    """Put a canary into each attribute of the standard that holds text, a date, a UID or a number.

    Those of PS3.15, table E.1-1, are among them: all that has such a representation is.
    """
    planted = 0
    for tag, (vr, vm, _, _, keyword) in DicomDictionary.items():
        group = tag >> 16
        if vr not in TEXTS or keyword in TAKEN or group in (0x0000, 0x0002) or not keyword:
            continue
        value = TEXTS[vr]
        dataset.add_new(tag, vr, [value, value] if vm.startswith("2") else value)
        planted += 1
    inner = Dataset()
    inner.PatientName = inner.StudyDescription = "CANARY^INNER"
    for name in ("ReferencedStudySequence", "RequestAttributesSequence", "OtherPatientIDsSequence"):
        setattr(dataset, name, Sequence([inner]))
    private = dataset.private_block(0x4321, "CANARY CREATOR", create=True)
    private.add_new(1, "LO", "CANARY PRIVATE")
    dataset.ImageComments = dataset.PatientComments = "CANARY COMMENT"
    return planted


@pytest.fixture
def planted(tmp_path):
    """A folder, a file name and every attribute with a canary in it."""
    rng = np.random.default_rng(3)
    folder = tmp_path / "CANARY-folder" / "CANARY-patient"
    folder.mkdir(parents=True)
    for place, pixels in enumerate(draw_head(rng, bright=True)):
        dataset = make_dataset(pixels, ImagePositionPatient=[0, 0, place])
        assert plant_canaries(dataset) > 2500
        dataset.SOPInstanceUID = f"1.2.840.77377377.{place}"
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        dataset.save_as(folder / f"CANARY{place}.dcm", enforce_file_format=True)
    write_dicom(folder / "CANARY-bad.dcm", pixels, Modality="US", PatientName="CANARY^BAD")
    dataset.SeriesInstanceUID = "1.2.840.77377377.2"
    dataset.save_as(folder / "CANARY-torn.dcm", enforce_file_format=True)
    os.truncate(folder / "CANARY-torn.dcm", (folder / "CANARY-torn.dcm").stat().st_size - 99)
    (folder / "CANARY.nii.gz").write_bytes(b"CANARY")
    write_mat(folder / "CANARY-1.mat", pid="CANARY 77377377", image=draw_head(rng, bright=True)[0])
    write_mat(folder / "CANARY-2.mat", pid="CANARY 77377377", number=9)
    (folder / "CANARY-3.mat").write_bytes(MATLAB_73 + b"CANARY 77377377" * 9)
    image = nibabel.MGHImage(THICK[..., :2], np.eye(4))
    (folder / "CANARY.mgh").write_bytes(image.to_bytes() + b"CANARY 77377377")
    return tmp_path / "CANARY-folder"


@pytest.fixture
def planted_volumes(tmp_path):
    """Canaries in the files that become volumes in other ways than as a plain series."""
    folder = tmp_path / "CANARY-folder"
    stored = draw_head(np.random.default_rng(3), bright=True)

    def write(name, pixels, *, bare=False, **elements):
        dataset = make_dataset(pixels)
        plant_canaries(dataset)
        dataset.SOPInstanceUID = f"1.2.840.77377377.{len([*folder.rglob('*')])}"
        dataset.SeriesInstanceUID = f"1.2.840.77377377.{name}"
        for keyword, value in elements.items():
            setattr(dataset, keyword, value)
        path = folder / f"CANARY-{name}" / f"CANARY{len([*folder.rglob('*')])}"
        path.parent.mkdir(parents=True, exist_ok=True)
        if bare:
            del dataset.file_meta, dataset[0x00040000:0x00050000]  # these would come first
            pydicom.dcmwrite(path, dataset, implicit_vr=True, little_endian=True)
        else:
            dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
            dataset.save_as(path, enforce_file_format=True)

    for place, pixels in enumerate(stored):
        here = {"ImagePositionPatient": [0, 0, place]}
        write("1", pixels, bare=True, **here)
        for echo in ("CANARY 1", "CANARY 2"):
            write("2", pixels, ImageType=["ORIGINAL", "PRIMARY", echo], **here)
        # Refused: they differ.
        write("3", pixels, SOPInstanceUID="1.2.840.77377377.3", SeriesNumber=3, **here)
        write("4", pixels)  # refused: at one position
        write("5", pixels, SeriesInstanceUID=f"1.2.840.77377377.5.{place}", **here)
    write("6", pixels, ImageType=["ORIGINAL", "PRIMARY", "CANARY", "MOSAIC"])  # refused
    frames = [
        make_groups({"ImagePositionPatient": [0, 0, place], "StackID": f"CANARY{place // 2}"})
        for place in range(4)
    ]
    write("7", stored, PerFrameFunctionalGroupsSequence=Sequence(frames))
    (folder / "CANARY.dcm").write_bytes(b"CANARY")
    return folder


def find_canaries(text):
    lowered = text.lower()
    words = (b"canary", b"77377377", b"19370717", b"773773", b"773y")
    return [word for word in words if word in lowered]


@pytest.mark.slow
def test_no_canary_leaves_by_any_output(planted, run, tmp_path, caplog, recwarn, monkeypatch):
    caplog.set_level(logging.DEBUG)
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    monkeypatch.setenv("TMPDIR", str(work))
    seen = []
    monkeypatch.setattr(
        "brainfeat.tables.slicing.shutil.rmtree", lambda path, **_: seen.append(path)
    )
    cut = CliRunner().invoke(slices_command, [str(planted), "-o", "slices"])
    assert cut.exit_code == 0, cut.exception
    # Of DICOM, MATLAB and MGH.
    assert len(read_table("slices")) == 4 + 1 + 2
    extract(read_table("slices"), work / "features.h5", backbone=Blocks())
    extract(read_volumes(planted), work / "direct.h5", backbone=Blocks())
    told = [
        run(planted, *options)
        for options in (["-o", work / "found.csv"], ["--json"], ["--heatmap", work / "maps"])
    ]
    assert [result.exit_code for result in told] == [0, 0, 0]
    assert len(list((work / "maps").iterdir())) == 7
    audited = CliRunner().invoke(audit_command, ["features.h5", "--json"])
    results = [cut, *told, audited]
    texts = [(number, result.output.encode()) for number, result in enumerate(results)]
    files = [path for path in work.rglob("*") if path.is_file()]
    texts += [(path.name, path.read_bytes() + bytes(path.relative_to(work))) for path in files]
    assert len(texts) == len(results) + len(files) == 5 + 7 + 2 + 7 + 2 + 1
    assert not {name: words for name, text in texts if (words := find_canaries(text))}
    assert len(find_canaries((planted / "CANARY-patient" / "CANARY0.dcm").read_bytes())) == 5
    assert not find_canaries(caplog.text.encode())
    assert not recwarn.list
    assert seen


@pytest.mark.slow
def test_nobody_is_named_by_any_kind_of_volume(planted_volumes, run, tmp_path, caplog, recwarn):
    caplog.set_level(logging.DEBUG)
    (tmp_path / "site.key").write_bytes(KEY)
    keyed = ["--patient-key", tmp_path / "site.key"]
    output = tmp_path / "slices"
    cut = CliRunner().invoke(slices_command, [str(planted_volumes), "-o", str(output), "--json"])
    document = json.loads(cut.stdout)
    assert (document["volumes"], document["slices"]) == (6, 20)
    assert [entry["reason"].split(";")[0] for entry in document["refused"]] == [
        "is not a DICOM file",
        "has two files with one SOPInstanceUID and different content",
        "has slices at the same position, and nothing tells the volumes apart",
        "is a Siemens mosaic without the CSA header that says how its slices are arranged",
    ]
    told = [
        run(planted_volumes, *keyed, *options)
        for options in ([], ["--json"], ["-o", tmp_path / "found.csv"])
    ]
    assert [result.exit_code for result in told] == [0, 0, 0]
    texts = [result.output.encode() for result in (cut, *told)]
    table = read_volumes(planted_volumes)
    direct = extract(table, tmp_path / "direct.h5", backbone=Blocks())
    assert direct.rows == document["slices"]
    texts.append(f"{table} {table.describe()} {direct.to_dict()['rejected']}".encode())
    for path in (tmp_path / "found.csv", direct.output, *output.rglob("*")):
        texts += [path.name.encode(), path.read_bytes() if path.is_file() else b""]
    assert not [words for text in texts if (words := find_canaries(text))]
    assert not find_canaries(caplog.text.encode())
    assert not recwarn.list


def test_no_canary_leaves_by_an_error(planted, bundle, tmp_path):
    (planted / "CANARY-patient" / "CANARY0.dcm").unlink()
    errors = []
    for path in [
        planted / "CANARY-patient" / name for name in ("CANARY-bad.dcm", "CANARY-torn.dcm")
    ]:
        with pytest.raises(ImageReadError) as caught:
            write_slices([path], tmp_path / "out")
        errors.append("".join(traceback.format_exception(caught.value)))
    # The lines of a traceback that show the test's own code are not meant.
    assert all("CANARY" not in error.splitlines()[-1] for error in errors)
    predictor = Predictor(bundle, backbone=Blocks())
    series, unreadable = find_series([planted])
    told = [answer.to_dict() for entry in series for answer in predictor.predict_series(entry)]
    assert not find_canaries(json.dumps(told).encode())
    assert not find_canaries(repr(unreadable).encode())
    assert not find_canaries(repr([read_or_none(entry) for entry in series]).encode())


def read_or_none(series):
    try:
        return read_volume(series)
    except ImageReadError:
        return None


@pytest.mark.parametrize(("folders", "warned"), [(3, True), (2, False)])
def test_class_folders_of_one_patient_each_are_suspect(folders, warned):
    labels, groups = [f"case {n}" for n in range(folders)], [f"g{n}" for n in range(folders)]
    found = _suspect_class_folders(labels, groups)
    assert any("one patient each" in text for text in found) == warned
    assert not [*_suspect_class_folders([*labels, "case 0"], [*groups, "another"])]
