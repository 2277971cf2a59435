"""Tests of whose volumes files are, by BraTS, BIDS, FreeSurfer, folders and lists."""

import csv
import hashlib
import hmac
import json

import nibabel
import numpy as np
import pytest
from support.dicoms import draw_volume, write_series

from brainfeat import read_table, write_slices
from brainfeat.errors import ImageReadError, ParameterError, TableError
from brainfeat.readers.series import find_series
from brainfeat.tables.volume_patients import find_mask_volumes, find_patients

KEY = b"0123456789abcdef"
BRATS = ("t1", "t1ce", "t2", "flair")


def write_nifti(path, *, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(seed).integers(0, 999, (6, 5, 2)).astype(np.int16)
    kind = nibabel.MGHImage if path.suffix == ".mgz" else nibabel.Nifti1Image
    nibabel.save(kind(values, np.diag([1, 1, 3, 1.0])), path)
    return path


def write_files(root, *names):
    for seed, name in enumerate(names):
        write_nifti(root / f"{name}.nii.gz", seed=seed)
    return root


def write_brats(root, patients=("BraTS_001", "BraTS_002"), endings=(*BRATS, "seg")):
    return write_files(root, *(f"{p}/{p}_{ending}" for p in patients for ending in endings))


def cut(root, tmp_path, **options):
    return write_slices(root, tmp_path / "out", patient_key=KEY, **options)


def group_of(text):
    """Hash a patient as `write_slices` does."""
    return hmac.new(KEY, b"patient\0" + text.encode(), hashlib.sha256).hexdigest()[:16]


def rows_of(found):
    with found.table.open(newline="") as file:
        return list(csv.DictReader(file))


class TestBraTS:
    def test_the_files_of_a_patient_are_one_group_and_masks_are_left_out(self, tmp_path):
        found = cut(write_brats(tmp_path / "in"), tmp_path)
        assert (found.volumes, found.patients, found.slices, found.masks) == (8, 2, 16, 2)
        rows = rows_of(found)
        assert {row["source"] for row in rows} == set(BRATS)
        base = tmp_path / "in" / "BraTS_001" / "BraTS_001"
        assert {row["group"] for row in rows[:8]} == {group_of(f"file\0{base}")}

    def test_masks_are_kept_on_request(self, tmp_path):
        found = cut(write_brats(tmp_path / "in"), tmp_path, keep_masks=True)
        assert (found.volumes, found.patients, found.masks) == (10, 2, 0)

    @pytest.mark.parametrize(
        ("endings", "sequences"),
        [
            (("-t1n", "-t1c", "-t2w", "-t2f"), ["t1", "t1ce", "t2", "flair"]),
            (("_T1", "_T1Gd", "_T2", "_FLAIR"), ["t1", "t1ce", "t2", "flair"]),
            (("_T1", "_T1_bias", "_ADC"), ["t1", "NIfTI", "adc"]),
        ],
    )
    def test_names_of_other_years_and_sets(self, tmp_path, endings, sequences):
        write_files(tmp_path / "in", *(f"x/P 1-2{ending}" for ending in endings))
        found = cut(tmp_path / "in", tmp_path)
        assert found.patients == 1
        assert sorted({row["source"] for row in rows_of(found)}) == sorted(sequences)

    def test_files_that_are_only_named_by_sequence_are_their_folder(self, tmp_path):
        names = [f"{patient}/{name}" for patient in ("a", "b") for name in ("t1", "flair", "seg")]
        found = cut(write_files(tmp_path / "in", *names), tmp_path)
        assert (found.patients, found.volumes, found.masks) == (2, 4, 2)

    def test_patients_of_one_folder_stay_apart(self, tmp_path):
        write_files(tmp_path / "in", "p1_t1", "p1_t2", "p10_t1", "p10_t2", "p1_2_t1", "p1_2_t2")
        assert cut(tmp_path / "in", tmp_path).patients == 3

    def test_sequences_in_folders_of_their_own(self, tmp_path):
        ixi = ("IXI-T1/IXI002-Guys-T1", "IXI-T1/IXI012-HH-T1", "IXI-T2/IXI002-Guys-T2")
        write_files(tmp_path / "in", *ixi, "IXI-T2/IXI013-HH-T2")
        found = cut(tmp_path / "in", tmp_path)
        assert (found.volumes, found.patients) == (4, 3)
        base = tmp_path / "in" / "IXI002-Guys"
        assert [row["group"] for row in rows_of(found)].count(group_of(f"file\0{base}")) == 4

    @pytest.mark.parametrize(
        "names",
        [
            ["p1/scan_t1", "p2/scan_t2"],
            ["p1/scan_t1", "p1/notes", "p2/scan_t2", "p2/notes"],
            ["p1/t1", "p2/t1"],
        ],
    )
    def test_folders_with_other_files_stay_apart(self, tmp_path, names):
        assert cut(write_files(tmp_path / "in", *names), tmp_path).patients == len(names)

    def test_channels_of_nnunet(self, tmp_path):
        names = [f"imagesTr/BRATS_{n:03}_{channel:04}" for n in (1, 2) for channel in range(4)]
        found = cut(write_files(tmp_path / "in", *names), tmp_path)
        assert (found.volumes, found.patients) == (8, 2)

    @pytest.mark.parametrize(("folder", "number"), [("imagesTr", 10), ("images", 4)])
    def test_numbers_of_files_are_no_channels(self, tmp_path, folder, number):
        names = [f"{folder}/scan_{n:04}" for n in range(number)]
        assert cut(write_files(tmp_path / "in", *names), tmp_path).patients == number

    def test_the_note_names_nobody(self, tmp_path):
        write_brats(tmp_path / "in", ["CANARY_001"])
        found = cut(tmp_path / "in", tmp_path)
        text = (found.output / "slices.json").read_text() + found.table.read_text()
        assert "CANARY" not in text
        note = json.loads((found.output / "slices.json").read_text())
        assert [volume["modality"] for volume in note["volumes"]] == ["flair", "t1", "t1ce", "t2"]

    def test_no_split_divides_a_patient(self, tmp_path, run):
        for grade in ("HGG", "LGG"):
            write_brats(tmp_path / "in" / grade, [f"{grade}_{n:03}" for n in range(8)])
        found = cut(tmp_path / "in", tmp_path, class_folders=True)
        assert found.patients == 16
        result = run("split", found.output, "-o", found.output / "clean.csv")
        assert result.code == 0, result.err
        sides = {}
        with (found.output / "clean.csv").open(newline="") as file:
            for row in csv.DictReader(file):
                sides.setdefault(row["group"], set()).add(row["split"])
        assert len(sides) == 16
        assert [group for group, splits in sides.items() if len(splits) > 1] == []


class TestOtherFiles:
    def test_a_file_alone_is_the_patient_that_it_was(self, tmp_path):
        files = [write_nifti(tmp_path / "in" / f"{name}.nii") for name in ("p1", "p2", "p3_t1")]
        groups = [row["group"] for row in rows_of(cut(tmp_path / "in", tmp_path))]
        assert groups == [group for file in files for group in [group_of(f"file\0{file}")] * 2]

    def test_a_file_with_its_mask_is_the_patient_that_it_was(self, tmp_path):
        write_files(tmp_path / "in", "p1_t1", "p1_seg")
        found = cut(tmp_path / "in", tmp_path)
        file = tmp_path / "in" / "p1_t1.nii.gz"
        assert {row["group"] for row in rows_of(found)} == {group_of(f"file\0{file}")}

    def test_subjects_of_bids(self, tmp_path):
        write_files(
            tmp_path / "in",
            *("sub-01/anat/sub-01_T1w", "sub-01/anat/sub-01_ce-gad_T1w", "sub-02/anat/sub-02_T1w"),
        )
        rows = rows_of(cut(tmp_path / "in", tmp_path))[::2]
        assert [row["source"] for row in rows] == ["t1", "t1ce", "t1"]
        expected = [group_of(f"subject\0sub-0{n}") for n in (1, 1, 2)]
        assert sorted(row["group"] for row in rows) == sorted(expected)

    def test_subjects_of_freesurfer(self, tmp_path):
        files = ["sub-1/mri/T1.mgz", "b/mri/T1.mgz", "b/mri/orig/001.mgz", "c/T1.mgz", "c/x.mgz"]
        for name in (*files, "d/mri/p1.nii", "d/mri/p2.nii"):
            write_nifti(tmp_path / "in" / name)
        found = cut(tmp_path / "in", tmp_path, labels={"b": "glioma"})
        groups = {row["group"]: row["label"] for row in rows_of(found)}
        own = [tmp_path / "in" / name for name in ("c/T1.mgz", "c/x.mgz", "d/mri/p1.nii")]
        own.append(tmp_path / "in" / "d/mri/p2.nii")
        assert groups == {
            group_of("subject\0sub-1"): "",
            group_of(f"file\0{tmp_path / 'in' / 'b'}"): "glioma",
            **{group_of(f"file\0{path}"): "" for path in own},
        }

    def test_the_decathlon_has_masks_and_hidden_files(self, tmp_path):
        write_files(tmp_path / "in", "imagesTr/BRATS_001", "imagesTr/BRATS_002")
        write_files(tmp_path / "in", "labelsTr/BRATS_001", "labelsTr/BRATS_002")
        (tmp_path / "in" / "imagesTr" / "._BRATS_001.nii.gz").write_bytes(bytes(100))
        found = cut(tmp_path / "in", tmp_path)
        assert (found.volumes, found.patients, found.masks, found.refused) == (2, 2, 2, ())


class TestMasks:
    def find(self, root, given=()):
        series, _ = find_series([root, *given])
        return sorted(entry.paths[0].name for entry in find_mask_volumes(series, {root, *given}))

    def test_by_name_beside_other_volumes(self, tmp_path):
        write_files(tmp_path, "p_seg", "p_t1", "p_brain_mask", "mask", "p_dseg_2", "maskless")
        names = ["mask", "p_brain_mask", "p_dseg_2", "p_seg"]
        assert self.find(tmp_path) == [f"{name}.nii.gz" for name in names]

    def test_by_folder(self, tmp_path):
        root = write_files(tmp_path / "masks" / "in", "seg/p1", "labelsTs/p2", "images/p3")
        assert self.find(root) == ["p1.nii.gz", "p2.nii.gz"]

    def test_regions_of_freesurfer(self, tmp_path):
        regions = ("aseg", "aparc+aseg", "aparc.DKTatlas+aseg", "aseg.auto", "lh.ribbon", "wm")
        for name in (*regions, "T1", "brainmask", "orig/001"):
            write_nifti(tmp_path / "bert" / "mri" / f"{name}.mgz")
        write_nifti(tmp_path / "other" / "wm.mgz")
        assert self.find(tmp_path) == sorted(f"{name}.mgz" for name in regions)

    def test_names_of_masks_alone_are_volumes(self, tmp_path):
        assert self.find(write_files(tmp_path, "p1_seg", "p2_seg", "x/p1")) == []

    def test_what_was_named_is_cut(self, tmp_path):
        write_files(tmp_path, "p_seg", "p_t1")
        assert cut([tmp_path / "p_seg.nii.gz"], tmp_path).volumes == 1

    def test_masks_alone_are_refused(self, tmp_path):
        write_files(tmp_path / "in", "labelsTr/p1")
        with pytest.raises(ImageReadError, match=r"only files .* as masks; .*keep_masks"):
            cut(tmp_path / "in", tmp_path)


class TestGroupLevel:
    def test_the_folder_is_the_patient_whatever_the_files_say(self, tmp_path):
        write_series(tmp_path / "in" / "a" / "p1" / "s1", draw_volume(1), PatientID="X")
        write_series(tmp_path / "in" / "a" / "p2", draw_volume(1), PatientID="X")
        write_files(tmp_path / "in", "b/p1/one", "b/p1/two")
        found = cut(tmp_path / "in", tmp_path, group_level=2, class_folders=True)
        assert found.patients == 2
        groups = {row["label"] + row["group"] for row in rows_of(found)}
        one, two = group_of("folder\0p1"), group_of("folder\0p2")
        assert groups == {"a" + one, "a" + two, "b" + one}

    def test_a_volume_above_the_level_keeps_its_own_patient(self, tmp_path):
        write_files(tmp_path / "in", "p1/a", "b")
        found = cut(tmp_path / "in", tmp_path, group_level=1)
        alone = group_of(f"file\0{tmp_path / 'in' / 'b.nii.gz'}")
        assert {row["group"] for row in rows_of(found)} == {alone, group_of("folder\0p1")}
        assert found.warnings == (
            "1 volume in no folder of level 1; the patient is what the file says",
        )

    @pytest.mark.parametrize(
        ("options", "error", "message"),
        [
            ({"group_level": 0}, ParameterError, "group_level is 0; expected 1"),
            ({"group_level": 3}, TableError, "no volume is in a folder of level 3; .* level 2"),
            (
                {"group_level": 1, "class_folders": True},
                ParameterError,
                "group_level=1 .* expected group_level=2",
            ),
        ],
    )
    def test_what_is_no_level_is_refused(self, tmp_path, options, error, message):
        write_files(tmp_path / "in", "a/p1/x")
        with pytest.raises(error, match=message):
            cut(tmp_path / "in", tmp_path, **options)
        assert not (tmp_path / "out").exists()


class TestLabels:
    def test_patient_ids_of_rsna_miccai(self, tmp_path):
        for patient in ("00002", "00005", "00109"):
            for sequence in ("FLAIR", "T1w"):
                folder = tmp_path / "train" / patient / sequence
                write_series(folder, draw_volume(1), PatientID=patient)
        path = tmp_path / "train_labels.csv"
        path.write_text("BraTS21ID,MGMT_value\n2,1\n00005,0\n00999,1\n")
        found = cut(tmp_path / "train", tmp_path, labels=path)
        labels = {row["group"]: row["label"] for row in rows_of(found)}
        assert sorted(labels.values()) == ["", "0", "1"]
        assert [note.split(f" '{path}'")[0] for note in found.warnings] == [
            "1 patient of 3 without a row in",
            "no patient matches 1 row of",
            "1 patient matched with",
        ]
        assert "00109" not in json.dumps(found.to_dict())
        assert read_table(found.output).class_names == ("0", "1")

    @pytest.mark.parametrize("key", ["BraTS_001", "BraTS_1"])
    def test_names_of_brats(self, tmp_path, key):
        write_brats(tmp_path / "in")
        labels = {key: "HGG", "BraTS_002": "LGG"}
        if key == "BraTS_1":
            found = cut(tmp_path / "in", tmp_path, labels=labels)
            assert {row["label"] for row in rows_of(found)} == {"", "LGG"}
            return
        found = cut(tmp_path / "in", tmp_path, labels=labels)
        assert [row["label"] for row in rows_of(found)] == ["HGG"] * 8 + ["LGG"] * 8
        assert len(found.warnings) == 1
        assert found.warnings[0].startswith("2 volumes left out for having the name of a mask;")

    def test_folders_subjects_and_files(self, tmp_path):
        write_files(tmp_path / "in", "p1/x", "sub-07/anat/sub-07_T1w", "scan")
        labels = {"p1": "a", "sub-07": "b", "scan.nii.gz": "c"}
        assert [row["label"] for row in rows_of(cut(tmp_path / "in", tmp_path, labels=labels))] == [
            *("c", "c"),
            *("", ""),
            *("b", "b"),
        ]
        found = write_slices(tmp_path / "in", tmp_path / "by-level", labels=labels, group_level=1)
        assert [row["label"] for row in rows_of(found)] == [*"ccaabb"]

    def test_columns_of_a_list(self, tmp_path):
        write_brats(tmp_path / "in", ["P1", "P2"])
        path = tmp_path / "name_mapping.csv"
        path.write_text("Grade,Old,New\nHGG,x,P1\nLGG,y,P2\n")
        found = cut(tmp_path / "in", tmp_path, labels=path, label_columns=("New", "Grade"))
        assert {row["label"] for row in rows_of(found)} == {"HGG", "LGG"}

    def test_keys_that_match_nothing_are_refused_without_a_name(self, tmp_path):
        write_brats(tmp_path / "in", ["CANARY_1", "CANARY_2"])
        with pytest.raises(TableError, match="no key of 'the labels' is the name of a") as caught:
            cut(tmp_path / "in", tmp_path, labels={"CANARY-9": "a"})
        assert "CANARY" not in str(caught.value)
        assert [path.name for path in tmp_path.iterdir()] == ["in"]

    @pytest.mark.parametrize("other", [{"label": "glioma"}, {"class_folders": True}])
    def test_labels_come_from_one_place(self, tmp_path, other):
        with pytest.raises(ParameterError, match=r"both .* and labels are given; expected one"):
            cut(tmp_path, tmp_path, labels={"p1": "a"}, **other)

    def test_the_list_is_not_replaced(self, tmp_path):
        write_files(tmp_path / "in", "p1")
        cut(tmp_path / "in", tmp_path, label="a")
        with pytest.raises(TableError, match="that this run reads"):
            cut(
                tmp_path / "in",
                tmp_path,
                labels=tmp_path / "out" / "table.csv",
                label_columns=("path", "label"),
                overwrite=True,
            )


def test_places_tell_nothing_of_dicom(tmp_path):
    write_series(tmp_path / "p1_t1", draw_volume(1))
    series, _ = find_series([tmp_path])
    (patient,) = find_patients(series)
    assert patient.identify("patient\0X\0") == "patient\0X\0"
    assert patient.list_names("patient\0X\0") == ("X",)
    assert patient.list_names("study\0" + "1.2.3") == ()
    assert patient.sequence == ""
