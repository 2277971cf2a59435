"""Tests of the table of images."""

import dataclasses
import os
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from brainfeat.errors import BrainfeatError, TableError
from brainfeat.tables.table import ImageTable, read_table


def make_files(root: Path, *names: str) -> Path:
    for name in names:
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    return root


def make_csv(root: Path, text: str | bytes, *files: str) -> Path:
    make_files(root, *files)
    path = root / "table.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@contextmanager
def as_nobody():
    """Give up the right to read everything, where the tests run as root."""
    was = os.geteuid()
    if was == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(was)


class TestFolders:
    def test_class_folders(self, tmp_path):
        make_files(tmp_path, "b/2.jpg", "a/1.png", "b/1.JPEG", "b/deep/er/3.Jpg")
        table = read_table(tmp_path)
        assert table.paths == ("a/1.png", "b/1.JPEG", "b/2.jpg", "b/deep/er/3.Jpg")
        assert table.labels == ("a", "b", "b", "b")
        assert table.class_names == ("a", "b")
        assert table.splits == table.groups == table.sources == ("", "", "", "")
        assert not table.has_splits
        assert len(table) == 4

    @pytest.mark.parametrize(
        ("name", "split"),
        [
            ("train", "train"),
            ("Training", "train"),
            ("VAL", "val"),
            ("valid", "val"),
            ("Validation", "val"),
            ("test", "test"),
            ("TESTING", "test"),
        ],
    )
    def test_split_folder_names_in_any_case(self, tmp_path, name, split):
        table = read_table(make_files(tmp_path, f"{name}/glioma/1.jpg"))
        assert table.splits == (split,)
        assert table.labels == ("glioma",)
        assert table.has_splits

    def test_classes_of_all_splits_are_joined(self, tmp_path):
        make_files(tmp_path, "Training/a/1.jpg", "Testing/b/x/1.jpg", "Testing/a/1.jpg")
        table = read_table(tmp_path)
        assert table.paths == ("Testing/a/1.jpg", "Testing/b/x/1.jpg", "Training/a/1.jpg")
        assert table.class_names == ("a", "b")
        np.testing.assert_array_equal(table.label_indices, np.array([0, 1, 0], np.int16))
        assert table.label_indices.dtype == np.int16

    def test_images_without_classes_are_unlabelled(self, tmp_path):
        table = read_table(make_files(tmp_path, "2.jpg", "1.png", "notes.txt"))
        assert table.paths == ("1.png", "2.jpg")
        assert table.labels == ("", "")
        assert table.class_names == ()
        assert table.label_indices.tolist() == [-1, -1]
        assert table.skipped == {"not an image": 1}

    def test_what_is_passed_over_is_counted(self, tmp_path):
        make_files(
            tmp_path,
            "a/1.jpg",
            "a/.hidden.jpg",
            ".git/1.jpg",
            "__MACOSX/a/1.jpg",
            "a/Thumbs.db",
            "a/readme",
            "a/.jpg",
            "loose.jpg",
        )
        table = read_table(tmp_path)
        assert table.paths == ("a/1.jpg",)
        assert table.skipped == {"hidden": 4, "not an image": 2, "outside the class folders": 1}

    def test_loose_images_of_a_split_folder_are_counted(self, tmp_path):
        table = read_table(make_files(tmp_path, "train/a/1.jpg", "train/2.jpg", "3.jpg"))
        assert table.paths == ("train/a/1.jpg",)
        assert table.skipped == {"outside the class folders": 2}

    def test_a_folder_without_images_is_not_a_class(self, tmp_path):
        table = read_table(make_files(tmp_path, "train/a/1.jpg", "docs/notes.txt"))
        assert table.class_names == ("a",)
        assert table.skipped == {"not an image": 1}

    def test_order_does_not_depend_on_creation(self, tmp_path):
        names = [f"{c}/{i}.jpg" for c in "abc" for i in range(5)]
        one = read_table(make_files(tmp_path / "one", *names))
        two = read_table(make_files(tmp_path / "two", *reversed(names)))
        assert one.paths == two.paths

    def test_root_is_absolute_and_paths_are_not(self, tmp_path, monkeypatch):
        make_files(tmp_path, "data/a/1.jpg")
        monkeypatch.chdir(tmp_path)
        table = read_table("data")
        monkeypatch.chdir("/")
        assert table.root == tmp_path / "data"
        assert table.paths == ("a/1.jpg",)
        assert table.absolute_path(0) == tmp_path / "data/a/1.jpg"
        assert table.absolute_path(0).is_file()

    def test_link_loops_end(self, tmp_path):
        make_files(tmp_path, "data/a/1.jpg", "data/b/2.jpg", "elsewhere/3.jpg")
        (tmp_path / "data/a/up").symlink_to(tmp_path / "data")
        (tmp_path / "data/a/b").symlink_to(tmp_path / "data/b")
        (tmp_path / "data/b/parent").symlink_to(tmp_path)
        (tmp_path / "data/b/self.jpg").symlink_to("self.jpg")
        table = read_table(tmp_path / "data")
        assert table.paths == ("a/1.jpg", "b/2.jpg")
        assert table.skipped == {"broken link": 1, "folder seen before": 3}

    def test_links_to_folders_elsewhere_are_followed(self, tmp_path):
        make_files(tmp_path, "data/a/1.jpg", "store/2.jpg")
        (tmp_path / "data/b").symlink_to(tmp_path / "store")
        assert read_table(tmp_path / "data").paths == ("a/1.jpg", "b/2.jpg")

    def test_paths_that_are_not_files_are_counted(self, tmp_path):
        make_files(tmp_path, "a/1.jpg", "a/folder.jpg/2.jpg")
        os.mkfifo(tmp_path / "a/pipe.jpg")
        (tmp_path / "a/gone.jpg").symlink_to("nowhere.jpg")
        table = read_table(tmp_path)
        assert table.paths == ("a/1.jpg", "a/folder.jpg/2.jpg")
        assert table.skipped == {"broken link": 1, "not a regular file": 1}

    def test_odd_file_names_are_counted(self, tmp_path):
        make_files(tmp_path, "a/1.jpg", "a/\udcff.jpg", "a/\udcfe/1.jpg", "a/new\nline.jpg")
        table = read_table(tmp_path)
        assert table.paths == ("a/1.jpg",)
        assert table.skipped == {
            "name contains a control character": 1,
            "name is not UTF-8": 2,
        }

    @pytest.mark.parametrize("name", ["glio\nma", "\udcff"])
    def test_odd_class_names_are_refused(self, tmp_path, name):
        make_files(tmp_path, f"{name}/1.jpg", "b/1.jpg")
        with pytest.raises(TableError, match="rename it") as caught:
            read_table(tmp_path)
        assert str(caught.value).isprintable()

    def test_only_odd_names_is_an_error(self, tmp_path):
        with pytest.raises(TableError, match=r"no image has a usable name.*not UTF-8 \(1\)"):
            read_table(make_files(tmp_path, "\udcff.jpg"))

    def test_mixed_folders_are_refused(self, tmp_path):
        make_files(tmp_path, "train/a/1.jpg", "glioma/1.jpg")
        with pytest.raises(TableError, match=r"mixes split folders \('train'\).*'glioma'"):
            read_table(tmp_path)

    def test_empty_split_folder_beside_classes_is_refused(self, tmp_path):
        make_files(tmp_path, "glioma/1.jpg")
        (tmp_path / "test").mkdir()
        with pytest.raises(TableError, match="mixes split folders"):
            read_table(tmp_path)

    @pytest.mark.parametrize("extra", ["test/1.jpg", "test/notes.txt", "test/a/notes.txt"])
    def test_split_folder_without_class_folders_is_refused(self, tmp_path, extra):
        make_files(tmp_path, "train/a/1.jpg", extra)
        with pytest.raises(TableError, match="one folder for each class"):
            read_table(tmp_path)

    def test_splits_below_classes_are_refused(self, tmp_path):
        make_files(tmp_path, "brain-mri/Training/a/1.jpg", "brain-mri/Testing/a/1.jpg")
        with pytest.raises(TableError, match=r"pass '.*brain-mri'"):
            read_table(tmp_path)

    def test_no_images(self, tmp_path):
        make_files(tmp_path, "a/1.ico", ".x")
        with pytest.raises(
            TableError,
            match=r"no images .* and no volumes \(DICOM, .*hidden \(1\), not an image: .ico \(1\)$",
        ):
            read_table(tmp_path)

    def test_missing_path(self, tmp_path):
        with pytest.raises(TableError, match="does not exist"):
            read_table(tmp_path / "nowhere")

    @pytest.mark.parametrize("path", ["a\0b", "x" * 5000])
    def test_impossible_path(self, path):
        with pytest.raises(TableError, match="does not exist"):
            read_table(path)

    def test_pipe_does_not_block(self, tmp_path):
        os.mkfifo(tmp_path / "table.csv")
        with pytest.raises(TableError, match="neither a folder nor a regular file"):
            read_table(tmp_path / "table.csv")

    def test_one_image_is_not_a_table(self, tmp_path):
        with pytest.raises(TableError, match="is one image"):
            read_table(make_files(tmp_path, "1.jpg") / "1.jpg")

    def test_unreadable_folder_is_an_error(self):
        # A folder that is left out in silence would change the data.
        with tempfile.TemporaryDirectory() as name:
            root = make_files(Path(name), "a/1.jpg", "b/2.jpg")
            root.chmod(0o755)
            (root / "b").chmod(0)
            with as_nobody(), pytest.raises(TableError, match=r"b' cannot be listed \(Perm"):
                read_table(root)

    def test_real_data(self, real_data):
        table = read_table(real_data / "data" / "brain-mri")
        assert len(table) == 7019
        assert table.class_names == ("glioma", "meningioma", "notumor", "pituitary")
        assert table.splits.count("test") == 1311
        test = np.array(table.splits) == "test"
        assert np.bincount(table.label_indices[test]).tolist() == [300, 306, 405, 300]


class TestCsv:
    def test_all_columns(self, tmp_path):
        path = make_csv(
            tmp_path,
            "path,label,split,group,source,note\n"
            "b/2.jpg,no tumour,Training,p2,Siemens,x\n"
            '"a,1.jpg",glioma,TEST,p1,GE,y\n',
            "b/2.jpg",
            "a,1.jpg",
        )
        table = read_table(path)
        assert table.root == tmp_path
        assert table.paths == ("b/2.jpg", "a,1.jpg")
        assert table.labels == ("no tumour", "glioma")
        assert table.splits == ("train", "test")
        assert table.groups == ("p2", "p1")
        assert table.sources == ("Siemens", "GE")
        assert table.class_names == ("glioma", "no tumour")
        assert table.skipped == {}

    def test_two_columns_in_any_order_with_unlabelled_rows(self, tmp_path):
        table = read_table(make_csv(tmp_path, "label,path\n,1.jpg\na,2.jpg", "1.jpg", "2.jpg"))
        assert table.labels == ("", "a")
        assert table.label_indices.tolist() == [-1, 0]
        assert table.splits == table.groups == table.sources == ("", "")

    @pytest.mark.parametrize(
        "text",
        [
            "\ufeffpath,label\n1.jpg,a\n",
            "path,label\r\n1.jpg,a\r\n",
            "path,label\r1.jpg,a",
            "\n".join(["path,label", "", "1.jpg,a", "", ""]),
            '"path","label"\n"1.jpg","a"',
            "Path, Label\n1.jpg, a \n",
            "path,label\n./1.jpg,a\n",
        ],
    )
    def test_dialects_that_mean_the_same(self, tmp_path, text):
        table = read_table(make_csv(tmp_path, text, "1.jpg"))
        assert table.paths == ("1.jpg",)
        assert table.labels == ("a",)

    def test_names_beyond_ascii(self, tmp_path):
        table = read_table(make_csv(tmp_path, "path,label\nGehirn/ä.jpg,腫瘍\n", "Gehirn/ä.jpg"))
        assert (table.paths, table.class_names) == (("Gehirn/ä.jpg",), ("腫瘍",))

    def test_repeated_rows_are_counted(self, tmp_path):
        path = make_csv(tmp_path, "path,label\n1.jpg,a\n./1.jpg,a\n2.jpg,a\n", "1.jpg", "2.jpg")
        table = read_table(path)
        assert table.paths == ("1.jpg", "2.jpg")
        assert table.skipped == {"listed twice": 1}

    @pytest.mark.parametrize("column", ["label", "split", "group", "source"])
    def test_contradictions_name_both(self, tmp_path, column):
        rows = [
            {"path": "1.jpg", "label": "a", "split": "train", "group": "g", "source": "s"}
            for _ in range(2)
        ]
        rows[1][column] = "test"
        text = "\n".join(",".join(row) for row in (rows[0], *(row.values() for row in rows)))
        one = rows[0][column]
        with pytest.raises(TableError, match=rf"'1.jpg'.*'{one}' \(line 2\).*'test' \(line 3\)"):
            read_table(make_csv(tmp_path, text, "1.jpg"))

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("", "no column 'path' and no column 'label'.*is empty"),
            ("path,class\n1.jpg,a", "no column 'label'.*is 'path', 'class'"),
            ("1.jpg,a\n", "no column 'path'.*'1.jpg', 'a'"),
            ("x" * 100_000, "no column 'path'.*'xxx"),
            ("path,label\n", "lists no images"),
            ("path;label\n1.jpg;a\n", "separated by ';'"),
            ("path\tlabel\n1.jpg\ta\n", r"separated by '\\t'"),
            ("path,label,Path\n1.jpg,a,b\n", "column 'path' twice"),
            ("path,label\n1.jpg,a\n1.jpg\n", "line 3 has 1 fields where the header has 2"),
            ("path,label\n1.jpg,a,b\n", "line 2 has 3 fields.*quotes"),
            ("path,label,split\n1.jpg,a,dev\n", "line 2: unknown split 'dev'; use train, training"),
            ("path,label,split\n1.jpg,a,test\n2.jpg,a,\n", "1 of 2 rows have no split .*line 3"),
            ("path,label\n/etc/passwd,a\n", "line 2: the path '/etc/passwd' is absolute"),
            ("path,label\nC:/x/1.jpg,a\n", "write it relative to the folder, with /"),
            ("path,label\na\\1.jpg,a\n", "write it relative to the folder, with /"),
            ("path,label\n../1.jpg,a\n", r"line 2: .* leads out of its folder by '\.\.'"),
            ("path,label\na/../../1.jpg,a\n", "leads out of its folder"),
            ("path,label\n,a\n", "line 2: the path '' names no file"),
            ("path,label\n.,a\n", "names no file"),
            ("path,label\n1\0.jpg,a\n", r"'1\\x00.jpg' contains a control character"),
            ('path,label\n"1.jpg\n",a\n', "contains a control character"),
            ('path,label\n1.jpg,"a\nb"\n', r"the label 'a\\nb' contains a control character"),
            ("path,label,group\n1.jpg,a,\x1b[31m\n", "the group .* contains a control"),
            ("path,label,source\n1.jpg,a,\x7f\n", "the source .* contains a control"),
            (f"path,label\n1.jpg,{'a' * 1025}\n", "longer than 1,024 bytes"),
            (f"path,label\n{'a' * 5000},a\n", "longer than 4,096 bytes"),
            (f"path,label\n1.jpg,{'a' * 200_000}\n", "line 2: field larger than field limit"),
            (f"path,label\n{'a,' * 600_000}\n", "line 2 has 1,000,000 characters or more"),
            ('path,label\n"1.jpg,a\n', "unexpected end of data"),
            ('path,label\n"1".jpg,a\n', "line 2: ',' expected after"),
            (b"path,label\n\xe9.jpg,a\n", "not UTF-8"),
            ("path,label\n1.jpg,a\n".encode("utf-16"), "not UTF-8"),
            (b"\x89PNG\r\n\x1a\n\0\0", "not UTF-8"),
        ],
    )
    def test_bad_files_are_refused(self, tmp_path, text, message):
        path = make_csv(tmp_path, text, "1.jpg", "2.jpg")
        with pytest.raises(TableError, match=message) as caught:
            read_table(path)
        assert "table.csv" in str(caught.value)
        assert len(str(caught.value)) < 1500
        assert str(caught.value).isprintable()

    def test_missing_files_are_counted_and_the_first_named(self, tmp_path):
        text = "path,label\n1.jpg,a\n" + "".join(f"no{i}.jpg,a\n" for i in range(5))
        message = (
            r"5 of 6 .* 'no0.jpg' \(line 3\), 'no1.jpg' .*, 'no2.jpg' .* and 2 more; .* relative"
        )
        with pytest.raises(TableError, match=message):
            read_table(make_csv(tmp_path, text, "1.jpg"))

    @pytest.mark.parametrize("name", ["folder.jpg", "pipe.jpg", "loop.jpg", "x" * 300])
    def test_paths_that_are_not_regular_files_are_missing(self, tmp_path, name):
        (tmp_path / "folder.jpg").mkdir()
        os.mkfifo(tmp_path / "pipe.jpg")
        (tmp_path / "loop.jpg").symlink_to("loop.jpg")
        with pytest.raises(TableError, match="1 of 1 listed files are missing"):
            read_table(make_csv(tmp_path, f"path,label\n{name},a\n"))

    @settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(
        st.one_of(
            st.binary(max_size=200),
            st.text(max_size=200).map(lambda text: f"path,label,split\n{text}".encode()),
            st.lists(st.sampled_from(["1.jpg", "a", "train", ",", "\n", '"', "..", "/", "\0"])).map(
                lambda words: ("path,label\n" + "".join(words)).encode()
            ),
        )
    )
    def test_any_bytes_give_a_table_or_a_table_error(self, tmp_path, data):
        path = make_csv(tmp_path, data, "1.jpg")
        with suppress(TableError):
            table = read_table(path)
            assert all(table.absolute_path(i).is_file() for i in range(len(table)))

    def test_unreadable(self):
        with tempfile.TemporaryDirectory() as name:
            path = make_csv(Path(name), "path,label\n1.jpg,a\n", "1.jpg")
            path.parent.chmod(0o755)
            path.chmod(0)
            with as_nobody(), pytest.raises(TableError, match="cannot be read: Permission"):
                read_table(path)


class TestImageTable:
    good = {
        "root": Path("/data"),
        "paths": ("1.jpg", "2.jpg"),
        "labels": ("b", "a"),
        "splits": ("train", ""),
        "groups": ("", ""),
        "sources": ("", ""),
        "class_names": ("a", "b"),
        "skipped": {},
    }

    def test_is_frozen(self):
        with pytest.raises(dataclasses.FrozenInstanceError):
            ImageTable(**self.good).labels = ()

    def test_splits_are_looked_for_once(self):
        """A run asks for each image; looking each time would take quadratic time."""

        class Splits(tuple):
            looks = 0

            def __iter__(self):
                Splits.looks += 1
                return super().__iter__()

        table = ImageTable(**self.good | {"splits": Splits(("", ""))})
        Splits.looks = 0
        assert not table.has_splits
        assert not table.has_splits
        assert Splits.looks == 1

    def test_label_indices(self):
        assert ImageTable(**self.good).label_indices.tolist() == [1, 0]

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"labels": ("a",)}, "equally long"),
            ({"paths": ("/1.jpg", "2.jpg")}, "absolute"),
            ({"paths": ("1.jpg", "../2.jpg")}, "leads out"),
            ({"splits": ("train", "dev")}, "dev"),
            ({"class_names": ("b", "a")}, "sorted"),
            ({"class_names": ("a",)}, "distinct labels"),
        ],
    )
    def test_bad_columns_are_refused(self, change, message):
        with pytest.raises(TableError, match=message):
            ImageTable(**self.good | change)

    def test_more_classes_than_int16(self):
        names = tuple(f"{i:05}" for i in range(2**15))
        blank = ("",) * len(names)
        columns = {"paths": names, "labels": names, "class_names": names}
        columns |= {"splits": blank, "groups": blank, "sources": blank}
        with pytest.raises(TableError, match="32,768 classes"):
            ImageTable(**self.good | columns)

    def test_errors_are_of_the_tree(self):
        assert issubclass(TableError, BrainfeatError)
        assert issubclass(TableError, ValueError)


# Volumes, which are no images yet


@pytest.mark.parametrize("name", ["scan.nii.gz", "scan.NII", "IM0001.dcm", "IM0002"])
def test_a_volume_is_sent_to_slices(tmp_path, name):
    path = tmp_path / "case" / name
    path.parent.mkdir()
    path.write_bytes(bytes(128) + b"DICM" if name.startswith("IM") else b"x")
    kind = "dicom" if name.startswith("IM") else "nifti"
    with pytest.raises(TableError, match=rf"{name}.* is a volume \({kind}\); cut volumes .*slices"):
        read_table(path)
    with pytest.raises(TableError, match=r"has no images .*not an image.*; cut volumes into"):
        read_table(tmp_path)
