"""Tests of lists of labels: what is read, and what is refused with its line or column."""

import os
import tempfile
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brainfeat.errors import ParameterError, TableError
from brainfeat.tables.labels import Labels, read_labels, take_labels


def write(folder, text, name="labels.csv"):
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


READ = {
    "commas": "BraTS21ID,MGMT_value\n00002,1\n00003,0\n",
    "semicolons": "id;class\n00002;1\n00003;0\n",
    "tabs": "id\tclass\n00002\t1\n00003\t0\n",
    "a byte order mark": b"\xef\xbb\xbfid,class\r\n00002,1\r\n00003,0\r\n",
    "blanks and an apostrophe": "id , class\n 00002, '1\n00003,0\n",
    "quotes": '"id","class"\n"00002","1"\n"00003","0"\n',
    "names with commas between semicolons": '"id";"class, by WHO, 2021"\n00002;1\n00003;0\n',
    "a name with a comma before a tab": "id\tclass, WHO\n00002\t1\n00003\t0\n",
    "a name with a comma before a semicolon": "id;class, WHO\n00002;1\n00003;0\n",
    "blank rows": "id,class\n\n00002,1\n,\n00003,0\n",
}


@pytest.mark.parametrize("what", READ)
def test_what_spreadsheets_write_is_read(what, tmp_path):
    found = read_labels(write(tmp_path, READ[what]))
    assert found.classes["00003"] == "0"
    assert set(found.classes) == {"00002", "00003"}
    assert found.header == ("BraTS21ID" if what == "commas" else "id")
    assert not found.repeated


def test_columns_are_chosen_by_name(tmp_path):
    path = write(tmp_path, "Grade,Age,Patient\nHGG,61,p1\nLGG,n/a,p2\n")
    assert read_labels(path, ("patient", "GRADE")).classes == {"p1": "HGG", "p2": "LGG"}
    assert read_labels(path, ("Patient", "Age")).classes == {"p1": "61", "p2": ""}


def test_rows_that_repeat_others_are_counted(tmp_path):
    found = read_labels(write(tmp_path, "id,class\np1,a\np1,a\np2,b\np1,a\n"))
    assert (found.classes, found.repeated) == ({"p1": "a", "p2": "b"}, 2)


REFUSED = {
    "empty": ("", "is empty"),
    "blank first line": ("\np1,a\n", "is empty, or its first line is"),
    "only a header": ("id,class\n", "a header and no rows"),
    "one column": ("id\np1\n", "has one column; expected one of keys and one of labels"),
    "no header": ("00002,1\n00003,0\n", "has the number '00002' in its first line"),
    "a decimal for a header": ("p1,1.0\np2,0.0\n", "has the number '1.0' in its first line"),
    "three columns": ("id,age,class\np1,61,a\n", "'id', 'age', 'class'; name .*=KEY,LABEL"),
    "two labels": ("id,class\np1,a\np2,b\np1,b\n", "lines 2 and 4 give one key .*'a' and 'b'"),
    "a short row": ("id,class\np1\n", "line 2 has 1 fields where the header has 2"),
    "a long row": ("id,class\np1,a,b\n", "line 2 has 3 fields"),
    "no key": ("id,class\n,a\n", "line 2 has no key"),
    "an open quote": ('id,class\n"p1,a\n', "quote is left open"),
    "UTF-16": ("id,class\np1,a\n".encode("utf-16"), "is not UTF-8 text"),
    "UTF-16 without mark": ("id,class\np1,a\n".encode("utf-16-le"), "is not UTF-8 text"),
    "Latin-1": ("id,class\np1,é\n".encode("latin-1"), "is not UTF-8 text"),
    "a picture": (b"\x89PNG\r\n\x1a\n" + bytes(40), "is not UTF-8 text"),
    "a control character": ("id,class\np1,a\x1b[2J\n", "contains a control character"),
    "a control character in a key": ("id,class\np\x07,a\n", "line 2: the key contains"),
    "a long label": (f"id,class\np1,{'x' * 1100}\n", "longer than 1,024 bytes"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_no_list_of_labels_is_refused(what, tmp_path):
    text, message = REFUSED[what]
    with pytest.raises(TableError, match=message) as caught:
        read_labels(write(tmp_path, text))
    assert str(caught.value).isprintable()


def test_a_contradiction_names_lines_and_no_patient(tmp_path):
    with pytest.raises(TableError) as caught:
        read_labels(write(tmp_path, "id,class\nCANARY,a\nCANARY,b\n"))
    assert "CANARY" not in str(caught.value)


@pytest.mark.parametrize(
    ("columns", "error", "message"),
    [
        (("id", "grade"), TableError, "expected one called 'grade'"),
        (("id", "twice"), TableError, "expected one called 'twice'"),
        (("id", "ID"), TableError, "cannot be both"),
        (("id",), ParameterError, "expected the names of two columns"),
        (("id", " "), ParameterError, "expected the names of two columns"),
        ("id", ParameterError, "expected the names of two columns"),
    ],
)
def test_wrong_columns_are_refused(columns, error, message, tmp_path):
    path = write(tmp_path, "id,class,twice,twice\np1,a,b,c\n")
    with pytest.raises(error, match=message):
        read_labels(path, columns)


def test_what_is_no_file_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for name, message in (
        ("pipe", "not a regular file"),
        (".", "not a regular"),
        ("x", "not exist"),
    ):
        with pytest.raises(TableError, match=message):
            read_labels(tmp_path / name)


def test_a_file_that_cannot_be_opened_is_refused(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    path = write(tmp_path, "id,class\np1,a\n")
    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(TableError, match=r"labels.csv' cannot be read: Permission denied"):
        read_labels(path)


def test_a_mapping_is_taken_as_it_is(tmp_path):
    assert take_labels({"p1": "a"}) == Labels("the labels", {"p1": "a"})
    assert take_labels(None) is None
    for wrong in ({}, {1: "a"}, {"p1": 1}, {"p1": "a\n"}):
        with pytest.raises(ParameterError, match="label"):
            take_labels(wrong)
    for labels in ({"p1": "a"}, None):
        with pytest.raises(ParameterError, match="label_columns are given"):
            take_labels(labels, ("id", "class"))


PIECES = st.sampled_from(
    [
        *(b"id", b"class", b"p1", b"2", b",", b";", b"\t", b"\n", b"\r\n"),
        *(b'"', b"'", b"\0", b"\xff"),
    ]
)


@given(st.lists(PIECES, max_size=40).map(b"".join))
def test_any_file_gives_labels_or_one_clear_error(data):
    with tempfile.TemporaryDirectory() as folder, suppress(TableError):
        found = read_labels(write(Path(folder), data))
        assert found.classes
        assert all(found.classes)
        assert all("\0" not in key + label for key, label in found.classes.items())


@pytest.mark.parametrize("data", [b"x" * 1_100_000, b'id,class\np1,"' + b"x" * 200_000 + b'"\n'])
def test_a_line_that_does_not_end_is_refused(data, tmp_path):
    with pytest.raises(TableError, match=r"characters or more|quote is left open"):
        read_labels(write(tmp_path, data))
