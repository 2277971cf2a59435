"""Tests of folders of patients: groups, labels of a list, and what of them is doubtful."""

from pathlib import Path

import pytest

from brainfeat.errors import ParameterError, TableError
from brainfeat.tables.inventory import Inventory
from brainfeat.tables.rows import LeftOut
from brainfeat.tables.table import read_table, write_table


def make_files(root: Path, *names: str) -> Path:
    for name in names:
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    return root


def make_patients(root: Path, *names: str, number: int = 3) -> Path:
    """Make folders of images, with a mask beside one."""
    return make_files(root, *(f"{name}/{i}.png" for name in names for i in range(number)))


def warn(root, **options):
    return Inventory.of(read_table(root, **options)).warnings


@pytest.fixture
def scans(tmp_path):
    """Folders as those of kaggle_3m: patients with masks beside the images, and a list."""
    for name in ("TCGA_CS_4941_19960909", "TCGA_DU_5851_19950428", "TCGA_DU_7010_19860307"):
        make_files(tmp_path / "scans", *(f"{name}/{name}_{i}.png" for i in (1, 2)))
        make_files(tmp_path / "scans", *(f"{name}/{name}_{i}_mask.png" for i in (1, 2)))
    (tmp_path / "scans" / "data.csv").write_text(
        "Patient,age,death01\nTCGA_CS_4941,67,1\nTCGA_DU_5851,48,0\nTCGA_DU_7010,58,\n"
    )
    return tmp_path / "scans"


class TestGroupLevel:
    def test_the_folder_below_the_class_is_the_group(self, tmp_path):
        make_patients(tmp_path, "yes/p1", "yes/p2/t1", "no/p3", number=1)
        table = read_table(tmp_path, group_level=2)
        assert table.paths == ("no/p3/0.png", "yes/p1/0.png", "yes/p2/t1/0.png")
        assert table.labels == ("no", "yes", "yes")
        assert table.groups == ("p3", "p1", "p2")
        assert table.notes == ()

    def test_below_split_folders_too(self, tmp_path):
        make_patients(tmp_path, "Training/yes/p1", "Testing/no/p2", number=1)
        table = read_table(tmp_path, group_level=3)
        assert table.groups == ("p2", "p1")
        assert table.splits == ("test", "train")

    def test_a_name_is_one_patient_in_all_classes_and_splits(self, tmp_path):
        make_patients(tmp_path, "train/yes/p1", "train/no/p1", "test/no/p1", "test/no/p2", number=1)
        table = read_table(tmp_path, group_level=3)
        assert table.groups == ("p1", "p2", "p1", "p1")
        assert table.notes == (
            (
                "1 patient folder of one name in several classes, such as 'p1' in 'no', 'yes'; each"
                " name is one group; if they are different patients, rename the folders"
            ),
            (
                "1 patient in several splits, such as 'p1' in 'test', 'train'; write a new split,"
                " which divides no patient"
            ),
        )
        assert Inventory.of(table).warnings[:2] == list(table.notes)

    def test_an_image_beside_the_folders_is_a_group_of_its_own(self, tmp_path):
        make_patients(tmp_path, "yes/p1", "no/p2", number=2)
        make_files(tmp_path, "no/0.png")
        table = read_table(tmp_path, group_level=2)
        assert table.groups == ("", "p2", "p2", "p1", "p1")
        assert table.notes[0].startswith("1 image in no folder of level 2, such as 'no/0.png'")

    def test_groups_are_counted(self, tmp_path):
        make_patients(tmp_path, "yes/p1", "yes/p2", "no/p3")
        make_files(tmp_path, "no/0.png")
        inventory = Inventory.of(read_table(tmp_path, group_level=2))
        assert inventory.to_dict()["groups"] == 3
        assert inventory.describe_classes()[-1] == (
            "3 groups that no split should divide; 1 image in none"
        )
        assert Inventory.of(read_table(tmp_path)).to_dict()["groups"] == 0

    def test_the_table_can_be_written_and_read(self, tmp_path):
        make_patients(tmp_path, "yes/p1", "no/p2")
        table = read_table(tmp_path, group_level=2)
        assert read_table(write_table(table, tmp_path / "table.csv")) == table

    @pytest.mark.parametrize(
        ("level", "message"),
        [
            (0, "group_level is 0; expected 1 for the folders directly below"),
            (-1, "group_level is -1"),
            (1.0, "group_level is 1.0"),
            (True, "group_level is True"),
            ("1", "group_level is '1'"),
        ],
    )
    def test_what_is_no_level_is_refused(self, tmp_path, level, message):
        with pytest.raises(ParameterError, match=message):
            read_table(make_patients(tmp_path, "yes/p1"), group_level=level)

    @pytest.mark.parametrize(
        ("folder", "level", "message"),
        [
            (
                "yes/p1",
                1,
                "level 1 .* are its class folders; expected group_level=2 or higher, or",
            ),
            ("train/yes/p1", 1, "level 1 .* its split folders; expected group_level=3 or higher"),
            ("train/yes/p1", 2, "level 2 .* its class folders; expected group_level=3 or higher"),
            ("yes/p1", 3, "no image in a folder of level 3; the deepest is in one of level 2"),
            (".", 1, "no image in a folder of level 1; the deepest is in one of level 0"),
            ("yes/p1", 10**30, "no image in a folder of level 1000"),
        ],
    )
    def test_a_level_without_patients_is_refused(self, tmp_path, folder, level, message):
        with pytest.raises(TableError, match=message):
            read_table(make_patients(tmp_path, folder), group_level=level)

    def test_a_name_that_cannot_be_a_group_is_refused(self, tmp_path):
        make_patients(tmp_path, "yes/p\n1")
        with pytest.raises(TableError, match="no image has a usable name"):
            read_table(tmp_path, group_level=2)


class TestLabels:
    def test_patients_of_kaggle_3m(self, scans):
        table = read_table(
            scans, group_level=1, labels=scans / "data.csv", label_columns=("Patient", "death01")
        )
        assert len(table) == 6
        assert table.labels == ("1", "1", "0", "0", "", "")
        assert table.groups[::2] == ("TCGA_CS_4941", "TCGA_DU_5851", "TCGA_DU_7010")
        assert table.left_out[LeftOut("mask beside images")] == 6
        assert list(table.notes) == [
            f"1 row of '{scans / 'data.csv'}' without a label",
            (
                f"3 patients matched with '{scans / 'data.csv'}' by the start of their names,"
                " such as 'TCGA_CS_4941_19960909' by 'TCGA_CS_4941'"
            ),
        ]

    def test_visits_of_one_patient_are_one_group(self, tmp_path):
        make_patients(tmp_path, "p1_1996", "p1_1997", "p2", number=1)
        table = read_table(tmp_path, group_level=1, labels={"p1": "a", "p2": "b"})
        assert (table.groups, table.labels) == (("p1", "p1", "p2"), ("a", "a", "b"))

    def test_a_patient_of_a_list_in_two_splits_is_told(self, tmp_path):
        make_files(tmp_path, "train/p1_1.png", "test/p1_2.png", "test/p2_1.png")
        (note, _) = read_table(tmp_path, labels={"p1": "a", "p2": "b"}).notes
        assert note.startswith("1 patient in several splits, such as 'p1' in 'test', 'train'")

    def test_padded_numbers_and_a_patient_without_a_row(self, tmp_path):
        make_patients(tmp_path, "00002", "00005", "00009", number=1)
        table = read_table(tmp_path, group_level=1, labels={"2": "a", "5": "b", "11": "a"})
        assert (table.labels, table.groups) == (("a", "b", ""), ("00002", "00005", "00009"))
        assert table.notes == (
            "1 patient of 3 without a row in 'the labels', such as '00009'; no label is known",
            "no patient matches 1 row of 'the labels', such as '11'",
            "2 patients matched with 'the labels' as numbers, such as '00002' by '2'",
        )
        assert Inventory.of(table).unlabelled == 1

    def test_splits_stay_folders(self, tmp_path):
        make_patients(tmp_path, "train/p1", "test/p2", number=1)
        make_files(tmp_path, "loose.png")
        table = read_table(tmp_path, group_level=2, labels={"p1": "a", "p2": "b"})
        assert table.splits == ("test", "train")
        assert table.labels == ("b", "a")
        assert table.skipped == {"outside the split folders": 1}
        with pytest.raises(TableError, match=r"level 1 .* its split folders; expected"):
            read_table(tmp_path, group_level=1, labels={"p1": "a"})

    def test_a_split_folder_without_images_is_none(self, tmp_path):
        make_files(tmp_path, "p1/1.png", "2.png", "test/readme.txt")
        table = read_table(tmp_path, labels={"1": "a", "2": "b"})
        assert (table.labels, table.splits) == (("b", "a"), ("", ""))

    def test_split_folders_beside_patients_are_refused(self, tmp_path):
        make_patients(tmp_path, "train/p1", "p2")
        with pytest.raises(TableError, match=r"mixes split folders \('train'\) and other folders"):
            read_table(tmp_path, group_level=2, labels={"p1": "a"})

    @pytest.mark.parametrize("key", ["1.png", "1", "x/1.png", "x/1"])
    def test_images_are_found_by_path_and_by_name(self, tmp_path, key):
        make_files(tmp_path, "x/1.png", "x/2.png")
        table = read_table(tmp_path, labels={key: "a", "2": "b"})
        assert (table.labels, table.groups) == (("a", "b"), ("", ""))

    def test_slices_named_after_their_patient_are_a_group(self, tmp_path):
        make_files(tmp_path, "p1_1.png", "p1_2.png", "p2_1.png")
        table = read_table(tmp_path, labels={"p1": "a", "p2": "b"})
        assert (table.labels, table.groups) == (("a", "a", "b"), ("p1", "p1", "p2"))

    def test_labels_of_a_list_replace_those_of_folders(self, tmp_path):
        make_patients(tmp_path, "yes/p1", "no/p2", number=1)
        table = read_table(tmp_path, group_level=2, labels={"p1": "a", "p2": "b"})
        assert table.class_names == ("a", "b")

    def test_a_key_of_several_images_is_refused(self, tmp_path):
        make_files(tmp_path, "x/1.png", "y/1.png", "y/2.png")
        with pytest.raises(TableError, match=r"'1' .* the name of 2 images, 'x/1.png', 'y/1.png'"):
            read_table(tmp_path, labels={"1": "a"})
        assert read_table(tmp_path, labels={"2": "a"}).labels == ("", "", "a")
        table = read_table(tmp_path, labels={"x/1": "a", "y/1": "b"})
        assert table.labels == ("a", "b", "")

    def test_keys_of_folders_name_the_level(self, tmp_path):
        make_files(tmp_path, "00002/a.png", "00003/b.png")
        with pytest.raises(TableError, match=r"but 1 folder of level 1 has one; .*group_level=1"):
            read_table(tmp_path, labels={"2": "a"})

    @pytest.mark.parametrize("level", [None, 1])
    def test_keys_that_match_nothing_are_refused(self, tmp_path, level):
        make_patients(tmp_path, "p1", "p2")
        with pytest.raises(TableError, match=r"no key .*, as '\.\./p1' and 'p1"):
            read_table(tmp_path, group_level=level, labels={"../p1": "a"})

    def test_columns_without_a_list_are_refused(self, tmp_path):
        with pytest.raises(ParameterError, match="label_columns are given without labels"):
            read_table(make_patients(tmp_path, "yes"), label_columns=("a", "b"))

    @pytest.mark.parametrize("name", ["table.csv", "."])
    def test_a_table_has_its_own_labels_and_groups(self, tmp_path, name):
        make_files(tmp_path, "1.png")
        (tmp_path / "table.csv").write_text("path,label\n1.png,a\n")
        (tmp_path / "slices.json").touch()
        for options in ({"group_level": 1}, {"labels": {"1": "a"}}):
            with pytest.raises(ParameterError, match=r"cannot be used with .*, whose table has"):
                read_table(tmp_path / name, **options)

    def test_a_list_in_the_place_of_a_table_is_sent_to_labels(self, tmp_path):
        (tmp_path / "train_labels.csv").write_text("BraTS21ID,MGMT_value\n00002,1\n")
        with pytest.raises(TableError, match=r"no column 'path' .*pass a list of .* labels=FILE"):
            read_table(tmp_path / "train_labels.csv")


class TestDoubtful:
    def test_patients_read_as_classes(self, scans):
        assert warn(scans)[0] == (
            "the 3 classes are named as patients, such as 'TCGA_CS_4941_19960909'; if they are,"
            " pass group_level=1 and labels=FILE with the class of each patient"
        )

    @pytest.mark.parametrize(
        "names",
        [
            ["00002", "00005", "00009"],
            ["sub-01", "sub-02", "sub-03"],
            [str(number) for number in range(1, 13)],
            [f"TCGA_{hospital}_{n}_1996" for hospital in ("CS", "DU") for n in range(4941, 4945)],
        ],
    )
    def test_names_of_patients(self, tmp_path, names):
        make_patients(tmp_path, *names, number=1)
        assert warn(tmp_path)[0].startswith(f"the {len(names)} classes are named as patients")
        assert "group_level=1" in warn(tmp_path)[0]

    def test_the_level_counts_split_folders(self, tmp_path):
        make_patients(tmp_path, *(f"train/patient{n}" for n in range(10, 20)))
        assert "pass group_level=2 and" in warn(tmp_path)[0]

    @pytest.mark.parametrize(
        "names",
        [
            ["grade1", "grade2", "grade3", "grade4"],
            ["0", "1", "2", "3"],
            ["glioma", "meningioma", "notumor", "pituitary"],
            ["Astrocitoma T1", "Astrocitoma T2", "Ependimoma T1", "Ependimoma T1C+"],
            ["T10", "N20", "M30"],
        ],
    )
    def test_names_of_classes(self, tmp_path, names):
        make_patients(tmp_path, *names, number=12)
        assert warn(tmp_path) == []

    def test_classes_that_hold_only_folders(self, tmp_path):
        make_patients(tmp_path, "yes/p1", "yes/p2", "no/p3", number=10)
        assert warn(tmp_path) == [
            (
                "each class has only folders of images, 3 in all; if each is a patient, pass"
                " group_level=2, so that no split divides one"
            )
        ]
        assert warn(tmp_path, group_level=2) == []

    @pytest.mark.parametrize("folders", [["axial", "sagittal"], ["p1", "."]])
    def test_planes_are_no_patients(self, tmp_path, folders):
        make_patients(tmp_path, *(f"{c}/{f}" for c in ("yes", "no") for f in folders), number=12)
        assert warn(tmp_path) == []

    def test_classes_of_one_group_each(self, tmp_path):
        make_patients(tmp_path, "a", "b", "c", number=12)
        rows = [f"{name}/{n}.png,{name},{name}" for name in "abc" for n in range(12)]
        path = tmp_path / "table.csv"
        path.write_text("\n".join(["path,label,group", *rows]))
        assert warn(path) == [
            (
                "the 3 classes have one group each, as where patients are read as classes; if they"
                " are patients, give each its class with labels=FILE where their folders are read,"
                " or in the column of labels"
            )
        ]
        rows[0] = "a/0.png,a,another"
        path.write_text("\n".join(["path,label,group", *rows]))
        assert warn(path) == []
