"""Volumes straight into a cache: the features of the same slices as files, and nobody's name."""

import gc
import hashlib
import json
import threading
import weakref
from io import BytesIO

import nibabel
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from support.dicoms import draw_volume, write_series
from support.halves import CLASSES, Blocks, draw

from brainfeat import (
    FeatureCache,
    Predictor,
    SlicePolicy,
    extract,
    fit_head,
    read_table,
    read_volumes,
    write_slices,
)
from brainfeat.cli.extract import command
from brainfeat.errors import ImageReadError, ParameterError, TableError
from brainfeat.extraction.preprocessing import repeat_grey, resize_pixels
from brainfeat.tables import cutting
from brainfeat.tables.volume_layouts import holds_volumes

KEY = b"0123456789abcdef"
BASE = ("--backbone", "mobilenet-0.75", "--weights", "random", "--size", "32")


def write_nifti(path, *, seed=0, shape=(20, 24, 4)):
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(seed).integers(0, 999, shape).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(values, np.diag([1, 1, 3, 1.0])), path)
    return path


def write_mixed(root):
    """Two classes of patients by BraTS and by DICOM, with masks and a volume that is damaged."""
    for number, name in enumerate(("healthy", "tumour")):
        for place, ending in enumerate(("t1", "flair", "seg")):
            path = root / name / f"P{number}" / f"P{number}_{ending}.nii.gz"
            write_nifti(path, seed=10 * number + place)
        series = draw_volume(3, 24, seed=number)
        write_series(root / name / "dicom", series, PatientID=f"D{number}", WindowCenter=900)
    (root / "tumour" / "x.nii").write_bytes(b"no volume")
    return root


def read_columns(path):
    """Return what a cache has of its rows, but for the size and content of their files."""
    with FeatureCache.open(path) as cache:
        columns = {name: [*map(str, values)] for name, values in cache.table.items()}
        del columns["file_bytes"]
        return {
            **columns,
            "X": cache.X[:].tobytes(),
            "signature": cache.signature[:].tobytes(),
            "class_names": cache.class_names,
            "spec": cache.spec.fingerprint,
            "patient_key": cache.provenance["patient_key"],
        }


def list_digests(path):
    with FeatureCache.open(path) as cache:
        return [digest.tobytes() for digest in cache.sha256]


@pytest.fixture
def mixed(tmp_path):
    return write_mixed(tmp_path / "in")


@pytest.mark.parametrize(
    "options",
    [
        {"class_folders": True},
        {
            "labels": {"P0": "a", "D1": "b"},
            "policy": SlicePolicy(slices="every:2", window="robust"),
        },
        {"label": "c", "group_level": 1, "policy": SlicePolicy(slices="largest")},
        {"keep_masks": True, "policy": SlicePolicy(slices="middle", orientation="native")},
    ],
)
def test_features_are_those_of_the_same_slices_as_files(mixed, tmp_path, options):
    options |= {"patient_key": KEY}
    slicing = write_slices(mixed, tmp_path / "slices", **options)
    files, direct = Blocks(), Blocks()
    expected = extract(read_table(slicing.output), tmp_path / "files.h5", backbone=files)
    table = read_volumes(mixed, **options)
    found = extract(table, tmp_path / "direct.h5", backbone=direct)
    assert read_columns(found.output) == read_columns(expected.output)
    assert found.fingerprint == expected.fingerprint
    assert direct.shapes == files.shapes
    assert [(entry.path, entry.reason) for entry in found.rejected] == [
        (entry["volume"], entry["reason"]) for entry in slicing.refused
    ]
    assert {*table.notes, *found.warnings} == {*slicing.warnings}


def test_a_crop_is_that_of_the_files(tmp_path):
    values = np.zeros((40, 44, 3), np.int16)
    values[10:30, 8:34] = np.random.default_rng(0).integers(300, 999, (20, 26, 3))
    path = tmp_path / "in.nii"
    nibabel.save(nibabel.Nifti1Image(values, np.diag([1, 1, 3, 1.0])), path)
    slicing = write_slices(path, tmp_path / "slices", patient_key=KEY)
    tables = {"files": read_table(slicing.output), "direct": read_volumes(path, patient_key=KEY)}
    found = {
        name: extract(table, tmp_path / f"{name}.h5", backbone=Blocks(), crop="foreground")
        for name, table in tables.items()
    }
    columns = {name: read_columns(result.output) for name, result in found.items()}
    assert columns["files"] == columns["direct"]
    assert {result.uncropped for result in found.values()} == {0}


def test_a_slice_is_identified_as_its_pgm_file_would_be(mixed, tmp_path):
    slicing = write_slices(mixed, tmp_path / "slices", patient_key=KEY)
    expected = []
    files = read_table(slicing.output)
    for place in range(len(files)):
        buffer = BytesIO()
        with Image.open(files.absolute_path(place)) as image:
            image.save(buffer, "PPM")
        expected.append(hashlib.sha256(buffer.getvalue()).digest())
    one, two = (read_volumes(mixed, patient_key=key) for key in (KEY, None))
    first = extract(one, tmp_path / "one.h5", backbone=Blocks()).output
    assert list_digests(first) == expected
    second = extract(two, tmp_path / "two.h5", backbone=Blocks()).output
    assert list_digests(second) == expected
    assert read_columns(first)["group"] != read_columns(second)["group"]


def test_a_run_that_was_stopped_goes_on(mixed, tmp_path):
    class Stopped(Blocks):
        def __call__(self, images):
            if len(self.shapes) == 2:
                raise KeyboardInterrupt
            return super().__call__(images)

    table, output = read_volumes(mixed, patient_key=KEY), tmp_path / "f.h5"
    with pytest.raises(KeyboardInterrupt):
        extract(table, output, backbone=Stopped(), batch_size=4)
    result = extract(table, output, backbone=Blocks(), batch_size=4)
    assert (result.rows, result.computed) == (22, 14)
    whole = extract(table, tmp_path / "whole.h5", backbone=Blocks()).output
    assert read_columns(output) == read_columns(whole)
    again = Blocks()
    assert extract(table, output, backbone=again).computed == len(again.shapes) == 0


def test_new_volumes_are_added(tmp_path):
    write_nifti(tmp_path / "in" / "b.nii", seed=1)
    extract(read_volumes(tmp_path / "in", patient_key=KEY), tmp_path / "f.h5", backbone=Blocks())
    write_nifti(tmp_path / "in" / "a.nii", seed=2)
    table = read_volumes(tmp_path / "in", patient_key=KEY)
    result = extract(table, tmp_path / "f.h5", backbone=Blocks())
    assert (result.computed, result.reused) == (4, 4)


def test_one_volume_at_a_time_is_in_memory_and_read_by_the_callers_thread(tmp_path, monkeypatch):
    for number in range(6):
        write_nifti(tmp_path / "in" / f"{number}.nii", seed=number)
    alive, most, threads = weakref.WeakSet(), [], set()
    read_volume = cutting.read_volume

    class Watched:
        """An array cannot be referred to weakly."""

    def watch(*arguments, **options):
        gc.collect()
        most.append(len(alive))
        threads.add(threading.current_thread())
        volume = read_volume(*arguments, **options)
        mark = Watched()
        alive.add(mark)
        object.__setattr__(volume, "mark", mark)
        return volume

    monkeypatch.setattr(cutting, "read_volume", watch)
    extract(read_volumes(tmp_path / "in"), tmp_path / "f.h5", backbone=Blocks(), n_jobs=2)
    assert most == [0] * 6
    assert threads == {threading.main_thread()}


@pytest.mark.parametrize("on_error", ["skip", "raise"])
def test_what_cannot_be_read_is_named_by_number(mixed, tmp_path, on_error):
    (mixed / "tumour" / "P1" / "P1_t1.nii.gz").write_bytes(b"\x1f\x8bCANARY")
    table = read_volumes(mixed)
    if on_error == "raise":
        with pytest.raises(ImageReadError, match=r"^volume [0-9]: ") as caught:
            extract(table, tmp_path / "f.h5", backbone=Blocks(), on_error="raise")
        assert "P1" not in str(caught.value)
        assert not (tmp_path / "f.h5").exists()
        return
    result = extract(table, tmp_path / "f.h5", backbone=Blocks())
    assert result.rows == 18
    assert [entry.path for entry in result.rejected] == ["volume 5", "volume 8"]
    with FeatureCache.open(result.output) as cache:
        assert cache.rejected == result.rejected


def test_where_no_volume_can_be_read_nothing_is_written(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.nii").write_bytes(b"x")
    write_nifti(tmp_path / "in" / "b.nii", shape=(4, 4, 4, 3))
    with pytest.raises(ImageReadError, match=r"none of the 2 volumes .*volume 1: is"):
        extract(read_volumes(tmp_path / "in"), tmp_path / "f.h5", backbone=Blocks())
    assert [path.name for path in tmp_path.iterdir()] == ["in"]
    table = read_volumes(tmp_path / "in", policy=SlicePolicy(volume=2))
    assert extract(table, tmp_path / "f.h5", backbone=Blocks()).rows == 4


def test_augmented_views_are_of_labelled_volumes(tmp_path):
    for name in ("a", "b"):
        write_nifti(tmp_path / "in" / f"{name}.nii", seed=ord(name))
    table = read_volumes(tmp_path / "in", labels={"a": "x"})
    assert extract(table, tmp_path / "f.h5", backbone=Blocks(), augment=2).rows == 4 * 3 + 4


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"value_range": "image"}, "value_range is given"),
        ({"read": lambda *_, **__: None}, "read is given"),
        ({"backbone": "mobilenet", "precision": "int8", "weights": "random"}, "cut the volumes"),
    ],
)
def test_what_says_how_image_files_are_read_is_refused(tmp_path, options, words):
    table = read_volumes(write_nifti(tmp_path / "a.nii"))
    with pytest.raises(ParameterError, match=words):
        extract(table, tmp_path / "f.h5", **{"backbone": Blocks(), **options})


def test_paths_become_tables_of_what_is_there(mixed, tmp_path):
    assert extract(mixed, tmp_path / "a.h5", backbone=Blocks()).rows == 22
    assert extract(str(mixed / "tumour" / "P1"), tmp_path / "b.h5", backbone=Blocks()).rows == 8
    slicing = write_slices(mixed, tmp_path / "slices")
    assert not holds_volumes(slicing.output)
    assert not holds_volumes(slicing.table)
    assert not holds_volumes(tmp_path / "missing")


def test_the_command_line_takes_several_volumes_but_no_images_among_them(run, mixed, tmp_path):
    volumes = sorted(mixed.rglob("*_t1.nii*"))
    written = ("-o", tmp_path / "t1.h5", "--backbone", "mobilenet-0.75", "--weights", "random")
    told = run("extract", *volumes, *written, "--size", "32", "--json")
    assert told.code == 0, told.err
    found = json.loads(told.out)
    assert (len(volumes), found["groups"], found["unlabelled"]) == (2, 2, 2)
    Image.new("L", (32, 32)).save(tmp_path / "a.png")
    told = run("extract", *volumes, tmp_path / "a.png", "-o", tmp_path / "x.h5")
    assert f"1 of {len(volumes) + 1} paths has no volumes, and only volumes are" in told.err


def test_images_beside_volumes_are_refused(tmp_path):
    write_nifti(tmp_path / "in" / "a.nii")
    Image.new("L", (32, 32)).save(tmp_path / "in" / "a.png")
    with pytest.raises(TableError, match=r"has 1 file of volumes and 1 image; expected one kind"):
        extract(tmp_path / "in", tmp_path / "f.h5", backbone=Blocks())


def write_bids(root, *, subjects=("01", "02")):
    for number, name in enumerate(subjects):
        for ending in ("T1w", "FLAIR", "label-lesion_mask"):
            file = f"sub-{name}_{ending}.nii.gz"
            folder = "masks-alone" if ending.endswith("mask") else "anat"
            write_nifti(root / f"sub-{name}" / folder / file, seed=number)
        derived = root / "derivatives" / "fmriprep" / f"sub-{name}" / "anat"
        write_nifti(derived / f"sub-{name}_desc-preproc_T1w.nii.gz")
    rows = [f"sub-{name}\t{50}\t{'ab'[n % 2]}\n" for n, name in enumerate(subjects)]
    (root / "participants.tsv").write_text("participant_id\tage\tgroup\n" + "".join(rows))
    return root


class TestLayouts:
    def test_bids(self, tmp_path):
        table = read_volumes(write_bids(tmp_path / "in"))
        assert table.describe().startswith("4 NIfTI volumes of 2 patients (subjects of BIDS), cut ")
        assert table.masks == 4
        masks, derived, participants = table.notes
        assert masks.startswith("2 volumes left out for having the name of a mask")
        assert derived.startswith("2 volumes left out for being in a folder 'derivatives' of BIDS")
        assert participants.startswith("participants.tsv is beside the volumes and not used;")
        assert "'age', 'group'" in participants

    def test_participants_are_labels_where_they_are_named(self, tmp_path):
        path = write_bids(tmp_path / "in") / "participants.tsv"
        columns = ("participant_id", "group")
        table = read_volumes(tmp_path / "in", labels=path, label_columns=columns)
        assert table.labels == ("a", "a", "b", "b")
        assert not any("participants" in note for note in table.notes)

    def test_derivatives_that_were_named_are_read(self, tmp_path):
        table = read_volumes(write_bids(tmp_path / "in") / "derivatives" / "fmriprep")
        assert (len(table), table.masks) == (2, 0)

    def test_brats(self, mixed):
        table = read_volumes(
            [mixed / name / f"P{n}" for n, name in enumerate(("healthy", "tumour"))]
        )
        words = "4 NIfTI volumes of 2 patients (files by sequence as in BraTS: flair, t1), cut by "
        assert table.describe().startswith(words)

    def test_mixed_formats_and_folders(self, mixed):
        words = "5 NIfTI and 2 DICOM volumes of 5 patients, cut by slices=all window=auto "
        assert read_volumes(mixed).describe().startswith(words)
        table = read_volumes(mixed, group_level=2)
        assert "of 4 patients (folders of level 2), cut" in table.describe()

    def test_equal_names_of_two_patients_stay_apart(self, tmp_path):
        for name in ("p1", "p2"):
            write_nifti(tmp_path / name / "scan.nii")
        assert len({*read_volumes(tmp_path).groups}) == 2


@pytest.mark.parametrize(
    ("name", "words"), [("a\x07b", "control character"), ("a\u200b", "look alike")]
)
def test_class_folders_that_can_be_no_class_are_refused_before_any_work(tmp_path, name, words):
    for folder in ("a", name):
        write_nifti(tmp_path / folder / "scan.nii")
    with pytest.raises(TableError, match=words):
        read_volumes(tmp_path, class_folders=True)


def write_patients(root):
    """Class folders of patients whose slices have one bright half."""
    rng = np.random.default_rng(0)
    for place, name in enumerate(CLASSES):
        for number in range(15):
            looks = bool(place) if number % 10 else not place
            slices = [np.asarray(draw(rng, bright=looks)).T[::-1, ::-1] for _ in range(4)]
            path = root / name / f"p{number}" / "scan.nii"
            path.parent.mkdir(parents=True)
            values = np.stack(slices, axis=2).astype(np.int16)
            nibabel.save(nibabel.Nifti1Image(values, np.diag([1, 1, 3, 1.0])), path)
    return root


def test_a_head_of_volumes_predicts_as_one_of_their_slices(tmp_path):
    root = write_patients(tmp_path / "in")
    options = {"class_folders": True, "patient_key": KEY, "group_level": 2}
    slicing = write_slices(root, tmp_path / "slices", **options)
    tables = {"files": read_table(slicing.output), "direct": read_volumes(root, **options)}
    found = {}
    for name, table in tables.items():
        cache = extract(table, tmp_path / f"{name}.h5", backbone=Blocks()).output
        predictor = Predictor(fit_head(cache, head="logistic", n_jobs=1), backbone=Blocks())
        found[name] = [entry.to_dict() for entry in predictor.predict(root / CLASSES[0] / "p3")]
    seen = {name: {entry.pop("seen", None) for entry in entries} for name, entries in found.items()}
    assert found["files"] == found["direct"]
    assert "copy" in seen["files"]
    assert "exact-duplicate" in seen["direct"]


def test_grey_images_are_resized_once_as_rgb_is():
    pixels = np.random.default_rng(0).integers(0, 256, (37, 23), np.uint8)
    copied = np.repeat(pixels[..., None], 3, axis=2)
    for size in (16, 40):
        assert (
            resize_pixels(repeat_grey(pixels), size=size) == resize_pixels(copied, size=size)
        ).all()


class TestCommand:
    def run(self, *arguments):
        return CliRunner().invoke(command, [*map(str, arguments), *BASE], catch_exceptions=True)

    def test_volumes_are_recognised_and_told(self, tmp_path):
        folder = write_bids(tmp_path / "CANARY", subjects=("CANARY1", "CANARY2"))
        output = tmp_path / "f.h5"
        result = self.run(
            *(folder, "-o", output, "--slices", "middle", "--json"),
            *("--labels", folder / "participants.tsv", "--label-columns", "participant_id,group"),
        )
        assert not result.exception
        first, second, *_ = result.stderr.splitlines()
        assert first.startswith(
            "4 NIfTI volumes of 2 patients (subjects of BIDS), cut by slices=mi"
        )
        assert second.startswith("patients were hashed with a random key")
        document = json.loads(result.stdout)
        assert (document["rows"], document["groups"]) == (4, 2)
        assert document["classes"]["a"]["without"] == 2
        document["output"] = ""
        assert "CANARY" not in json.dumps(document) + result.stderr
        assert b"CANARY" not in output.read_bytes()

    def test_options_of_volumes_are_refused_for_images(self, tmp_path):
        (tmp_path / "a").mkdir()
        Image.new("L", (32, 32)).save(tmp_path / "a" / "1.png")
        result = self.run(tmp_path, "-o", tmp_path / "f.h5", "--window", "40,80", "--label", "x")
        assert "has no volumes, which --window and --label would cut" in str(result.exception)

    def test_a_person_reads_of_volumes(self, mixed, tmp_path):
        result = self.run(mixed, "-o", tmp_path / "f.h5", "--class-folders")
        assert "class    volumes\nhealthy        3\ntumour         4\n" in result.stderr
        assert "1 volume rejected" in result.stdout
        assert "rejected volume 5: is not a NIfTI file" in result.stderr
