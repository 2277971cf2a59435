"""Tables from unknown sources: hostile and odd CSV files, folder layouts and class names."""

import codecs
import csv
import os
import sys
import unicodedata
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.fuzz_table import fuzz

from brainfeat import read_table, write_table
from brainfeat.errors import TableError
from brainfeat.tables import table
from brainfeat.tables.csv_cells import cell_text, csv_cell
from brainfeat.tables.table import ImageTable

COLUMNS = ("paths", "labels", "splits", "groups", "sources")
_opened: list[str] | None = None


def _listen(event, arguments):
    if _opened is not None and event in ("open", "os.listdir", "os.scandir"):
        _opened.append(os.fsdecode(arguments[0]) if not isinstance(arguments[0], int) else "")


sys.addaudithook(_listen)
codecs.lookup("utf-8-sig")  # its module is opened now, and not where a test listens


@contextmanager
def listening():
    """Return the paths that are opened or listed in the body."""
    global _opened  # noqa: PLW0603 - an audit hook is for good
    _opened = []
    try:
        yield _opened
    finally:
        _opened = None


def make_csv(root: Path, text: str | bytes, *files: str) -> Path:
    for name in files:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    path = root / "table.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass"))
    return path


def make_table(root: Path, paths, labels, splits=(), groups=(), sources=()) -> ImageTable:
    columns = [paths, labels, splits, groups, sources]
    full = [tuple(column) or ("",) * len(paths) for column in columns]
    names = tuple(sorted(set(labels) - {""}))
    return ImageTable(root, *full, class_names=names, skipped={})


@contextmanager
def nested(root: Path, name: str, depth: int):
    """Be within so many folders; no path could name the innermost, so each is removed from it."""
    here = Path.cwd()
    os.chdir(root)
    made = 0
    try:
        for _ in range(depth):
            os.mkdir(name)
            os.chdir(name)
            made += 1
        yield
    finally:
        for _ in range(made):
            os.chdir("..")
            os.rmdir(name)
        os.chdir(here)


def refusal(path: Path) -> str:
    with pytest.raises(TableError) as caught:
        read_table(path)
    message = str(caught.value)
    assert message.isprintable()
    assert len(message) < 2000
    return message


LEADING_OUT = {
    "parent": ("../secret.jpg", "leads out of its folder by '..'"),
    "parent of a folder": ("a/../../secret.jpg", "leads out"),
    "parent and back": ("a/../1.jpg", "leads out"),
    "parent behind a dot": ("./../secret.jpg", "leads out"),
    "parent behind two slashes": ("a//../..//secret.jpg", "leads out"),
    "parent at the end": ("a/..", "leads out"),
    "parent in quotes": ('"../secret.jpg"', "leads out"),
    "parent behind blanks": ("  ../secret.jpg", "leads out"),
    "parent behind an apostrophe": ("' ../secret.jpg", "missing"),
    "backslashes": ("..\\secret.jpg", "write it relative to the folder, with /"),
    "mixed slashes": ("a\\../secret.jpg", "write it relative to the folder, with /"),
    "absolute": ("/etc/passwd", "is absolute"),
    "absolute with two slashes": ("//etc/passwd", "is absolute"),
    "absolute with three slashes": ("///etc/passwd", "is absolute"),
    "UNC": ("\\\\server\\share\\1.jpg", "write it relative to the folder, with /"),
    "UNC with slashes": ("//server/share/1.jpg", "is absolute"),
    "drive": ("C:\\1.jpg", "write it relative to the folder, with /"),
    "drive with a slash": ("c:/1.jpg", "write it relative to the folder, with /"),
    "drive without a slash": ("C:1.jpg", "write it relative to the folder, with /"),
    "device of Windows": ("\\\\.\\PhysicalDrive0", "write it relative to the folder, with /"),
    "file URL": ("file:///etc/passwd", "1 listed files are missing"),
    "web address": ("https://example.org/1.jpg", "1 listed files are missing"),
    "home": ("~/secret.jpg", "1 listed files are missing"),
    "home of root": ("~root/secret.jpg", "1 listed files are missing"),
    "variable": ("$HOME/secret.jpg", "1 listed files are missing"),
    "escaped dots": ("%2e%2e/secret.jpg", "1 listed files are missing"),
    "escaped slash": ("..%2fsecret.jpg", "1 listed files are missing"),
    "wide dots": ("．．/secret.jpg", "1 listed files are missing"),
    "overlong dots": (b"\xc0\xae\xc0\xae/secret.jpg", "is not UTF-8"),
    "NUL": ("1.jpg\0.txt", "contains a control character"),
    "NUL first": ("\0../secret.jpg", "contains a control character"),
    "newline": ('"..\n/secret.jpg"', "contains a control character"),
    "escape": ("\x1b]0;x\x07.jpg", "contains a control character"),
    "C1 control": ("\x9b31m.jpg", "contains a control character"),
    "pattern": ("*.jpg", "1 listed files are missing"),
    "command": ("$(touch pwned).jpg", "1 listed files are missing"),
    "nothing": ("", "names no file"),
    "dot": (".", "names no file"),
    "dots and slashes": ("././/", "names no file"),
    "the folder itself": ("a", "1 listed files are missing"),
    "very long": ("a" * 5000, "longer than 4,096 bytes"),
    "very deep": ("a/" * 2000 + "1.jpg", "1 of 1 listed files are missing"),
    "very deep, existing folder": ("./" * 2000 + "nowhere.jpg", "1 of 1 listed files are missing"),
}


@pytest.mark.parametrize("what", LEADING_OUT)
def test_paths_stay_in_the_folder(tmp_path, what):
    path, expected = LEADING_OUT[what]
    (tmp_path / "secret.jpg").write_bytes(b"secret")
    root = tmp_path / "data"
    root.mkdir()
    encoded = path if isinstance(path, bytes) else path.encode()
    make_csv(root, b"path,label\n" + encoded + b",a\n", "1.jpg", "a/1.jpg")
    with listening() as opened:
        message = refusal(root / "table.csv")
    assert expected in message
    assert "missing" in message or "line 2" in message or "UTF-8" in message
    assert set(opened) == {str(root / "table.csv")}


def test_odd_names_of_files_that_are_there_are_taken_as_they_are(tmp_path):
    names = ("~/1.jpg", "%2e%2e/1.jpg", "file:/1.jpg", "$HOME/1.jpg", "＝1.jpg", "..a/1.jpg")
    make_csv(tmp_path, "path,label\n" + "".join(f"{name},a\n" for name in names), *names)
    assert read_table(tmp_path / "table.csv").paths == names


class TestLinks:
    """Links are followed, as data sets are often put together of them; `..` never is."""

    def test_a_csv_may_name_a_link_that_leads_out(self, tmp_path):
        (tmp_path / "store").mkdir()
        (tmp_path / "store/1.jpg").touch()
        (tmp_path / "data").mkdir()
        (tmp_path / "data/file.jpg").symlink_to(tmp_path / "store/1.jpg")
        (tmp_path / "data/folder").symlink_to(tmp_path / "store")
        make_csv(tmp_path / "data", "path,label\nfile.jpg,a\nfolder/1.jpg,b\n")
        assert read_table(tmp_path / "data/table.csv").paths == ("file.jpg", "folder/1.jpg")

    def test_links_to_anything_but_a_file_are_missing(self, tmp_path):
        os.mkfifo(tmp_path / "pipe")
        for name, target in (("1.jpg", "pipe"), ("2.jpg", "/dev/zero"), ("3.jpg", "3.jpg")):
            (tmp_path / name).symlink_to(target)
        make_csv(tmp_path, "path,label\n1.jpg,a\n2.jpg,a\n3.jpg,a\n")
        assert "3 of 3 listed files are missing" in refusal(tmp_path / "table.csv")

    def test_class_folder_that_is_a_link_is_a_class(self, tmp_path):
        (tmp_path / "store").mkdir()
        (tmp_path / "store/1.jpg").touch()
        (tmp_path / "data/a").mkdir(parents=True)
        (tmp_path / "data/a/1.jpg").touch()
        (tmp_path / "data/b").symlink_to(tmp_path / "store")
        assert read_table(tmp_path / "data").labels == ("a", "b")

    def test_folder_that_two_links_lead_to_is_walked_once(self, tmp_path):
        (tmp_path / "data/a").mkdir(parents=True)
        (tmp_path / "data/a/1.jpg").touch()
        for number in range(50):
            (tmp_path / f"data/a/loop-{number}").symlink_to(tmp_path / "data/a")
            (tmp_path / f"data/up-{number}").symlink_to("/")
        read = read_table(tmp_path / "data")
        assert read.paths == ("a/1.jpg",)
        assert read.skipped == {"folder seen before": 100}


HEADER = "path,label\n"
REFUSED = {
    "nothing": ("", "no column 'path' and no column 'label'"),
    "blank lines": ("\n\n\n", "no column 'path'"),
    "header only": (HEADER, "lists no images"),
    "header and blank lines": (HEADER + "\n\n", "lists no images"),
    "semicolons": ("path;label\n1.jpg;a\n", "separated by ';'"),
    "tabs": ("path\tlabel\n1.jpg\ta\n", "separated by '\\t'"),
    "bars": ("path|label\n1.jpg|a\n", "separated by '|'"),
    "semicolons and a comma": ("path;label;note, long\n", "separated by ';'"),
    "line of 2 MB": (HEADER + "a" * 2_000_000 + "\n", "line 2 has 1,000,000 characters or more"),
    "header of 2 MB": ("path,label," + "x," * 1_000_000, "line 1 has 1,000,000 characters"),
    "field of 200 KB": (HEADER + f"1.jpg,{'a' * 200_000}\n", "line 2: field larger than"),
    "quotes that join a thousand lines": (
        f"{HEADER}1.jpg,a\n2.jpg,{','.join([chr(34) + chr(10) * 999 + chr(34)] * 1100)}\n",
        "line 3 has 1,000,000 characters or more, including lines that its quotes join",
    ),
    "quote left open": (
        f'{HEADER}1.jpg,a\n2.jpg,"b\n' + "1.jpg,a\n" * 50_000,
        "line 3: field larger than field limit (131072); check whether a quote is left open",
    ),
    "quote left open at the end": (f'{HEADER}1.jpg,"a\n', "line 2: unexpected end of data"),
    "quote in a quoted field": (f'{HEADER}1.jpg,"a"b"\n', "line 2: ',' expected after"),
    "quoted newline in a label": (f'{HEADER}1.jpg,"a\nb"\n', "label 'a\\nb' contains a control"),
    "NUL in a label": (HEADER + "1.jpg,a\0b\n", "the label 'a\\x00b' contains a control"),
    "tab in a label": (f'{HEADER}1.jpg,"a\tb"\n', "the label 'a\\tb' contains a control"),
    "escape in a label": (HEADER + "1.jpg,\x1b[31ma\n", "the label '\\x1b[31ma' contains"),
    "control in a group": (
        "path,label,group\n1.jpg,a,\x07\n",
        "line 2: the group '\\x07' contains",
    ),
    "control in a source": ("path,label,source\n1.jpg,a,\x85\n", "line 2: the source"),
    "surrogate": (HEADER + "1.jpg,\ud800\n", "is not UTF-8"),
    "UTF-16": ((HEADER + "1.jpg,a\n").encode("utf-16"), "is not UTF-8"),
    "UTF-16 without a mark": ((HEADER + "1.jpg,a\n").encode("utf-16-le"), "NUL characters, as"),
    "UTF-32": ((HEADER + "1.jpg,a\n").encode("utf-32"), "is not UTF-8"),
    "UTF-32 without a mark": ((HEADER + "1.jpg,a\n").encode("utf-32-be"), "NUL characters, as"),
    "Latin-1": ((HEADER + "1.jpg,é\n").encode("latin-1"), "is not UTF-8"),
    "image": (b"\x89PNG\r\n\x1a\n" + bytes(99), "is not UTF-8"),
    "workbook": (b"PK\x03\x04\x14\0\x06\0\x08\0\0\0!\0", "NUL characters, as"),
    "HTML": ("<html><body>404</body></html>", "no column 'path' and no column 'label'"),
    "JSON": ('[{"path": "1.jpg"}]', "no column 'path'"),
    "no header": ("1.jpg,a\n2.jpg,b\n", "no column 'path'"),
    "column twice": ("path,label,label\n1.jpg,a,b\n", "the column 'label' twice"),
    "column twice in another case": ("path,label,LABEL\n1.jpg,a,b\n", "the column 'label' twice"),
    "no labels": ("path,split\n1.jpg,train\n", "no column 'label'"),
    "row too short": (HEADER + "1.jpg,a\n2.jpg\n", "line 3 has 1 fields where the header has 2"),
    "row too long": (HEADER + "1.jpg,a,b\n", "line 2 has 3 fields where the header has 2"),
    "unknown split": ("path,label,split\n1.jpg,a,dev\n", "line 2: unknown split 'dev'"),
    "split that is markup": ("path,label,split\n1.jpg,a,<b>\n", "line 2: unknown split '<b>'"),
    "split in one row": (
        "path,label,split\n1.jpg,a,train\n2.jpg,a,\n",
        "1 of 2 rows have no split",
    ),
    "one path, two labels": (HEADER + "1.jpg,a\n1.jpg,b\n", "'a' (line 2) and the label 'b' (line"),
    "one path, spelt twice": (HEADER + "1.jpg,a\n.//1.jpg,b\n", "'1.jpg' is listed with the label"),
    "very long label": (HEADER + f"1.jpg,{'é' * 600}\n", "is longer than 1,024 bytes"),
    "very long split": (f"path,label,split\n1.jpg,a,{'s' * 9999}\n", "line 2: unknown split 's"),
    "composed and decomposed": (
        HEADER + "1.jpg,\xe9\n2.jpg,e\u0301\n",
        "'e\\u0301' and '\\xe9' look alike",
    ),
    "zero-width space": (HEADER + "1.jpg,gli\u200boma\n2.jpg,glioma\n", "look alike"),
    "word joiner": (HEADER + "1.jpg,glioma\u2060\n2.jpg,glioma\n", "look alike"),
    "direction mark": (HEADER + "1.jpg,\u202eglioma\n2.jpg,glioma\n", "look alike"),
    "mark within the file": (HEADER + "1.jpg,\ufeffa\n2.jpg,a\n", "look alike"),
    "no-break space": (HEADER + "1.jpg,no\xa0tumour\n2.jpg,no tumour\n", "look alike"),
    "two spaces": (HEADER + "1.jpg,no  tumour\n2.jpg,no tumour\n", "look alike"),
    "nothing to see": (HEADER + "1.jpg,\u200b\n2.jpg,a\n", "'\\u200b' shows nothing"),
    "wide space only": (HEADER + "1.jpg,\u3000\n", "'\\u3000' shows nothing"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_bad_files_are_refused_with_their_reason(tmp_path, what):
    text, expected = REFUSED[what]
    with listening() as opened:
        message = refusal(make_csv(tmp_path, text, "1.jpg", "2.jpg"))
    assert expected in message
    assert "table.csv" in message
    assert set(opened) <= {str(tmp_path / name) for name in ("table.csv", "1.jpg", "2.jpg")}


TAKEN = {
    "byte order mark": "\ufeffpath,label\n1.jpg,a\n",
    "ends of Windows": "path,label\r\n1.jpg,a\r\n",
    "ends of old Macs": "path,label\r1.jpg,a\r",
    "mixed ends": "path,label\r1.jpg,a\n\r\n",
    "no end": "path,label\n1.jpg,a",
    "blanks around": " path , label \n 1.jpg , a \n",
    "upper case": "PATH,LaBeL\n1.jpg,a\n",
    "further columns": "x,path,y,label\n<b>,1.jpg,=1,a\n",
    "further columns of one name": "x,path,x,label,,\n1,1.jpg,2,a,,\n",
    "quoted newline elsewhere": 'path,label,note\n1.jpg,a,"x\ny\n\nz"\n',
    "control characters elsewhere": "path,label,note\n1.jpg,a,\x1b[2J\x07\n",
    "one image twice": "path,label\n1.jpg,a\n1.jpg,a\n./1.jpg,a\n1.jpg/,a\n",
    "blank splits": "path,label,split\n1.jpg,a,\n1.jpg,a, \n",
}


@pytest.mark.parametrize("what", TAKEN)
def test_odd_files_that_mean_one_thing_are_taken(tmp_path, what):
    read = read_table(make_csv(tmp_path, TAKEN[what], "1.jpg"))
    assert (read.paths, read.labels, read.splits) == (("1.jpg",), ("a",), ("",))


HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "'; DROP TABLE images;--",
    "../x",
    "CON",
    "nul.jpg",
    "=cmd|' /C calc'!A0",
    '=HYPERLINK("https://example.org?"&A1)',
    "+1+1",
    "-1",
    "@SUM(A1)",
    '"=1+1"',
    "'=1+1",
    "''=1+1",
    "'",
    "'tis",
    "＝1+1",
    "|x|",
    "$\\frac{1}{0}$",
    "%s%n{0}{__class__}",
    "{{7*7}}",
    "${jndi:ldap://example.org}",
    "\u202eamoilg",
    "gli\u200boma",
    "e\u0301",
    "👩‍⚕️",
    "腫瘍",
    "a,b;c",
    "NaN",
    "null",
    "-1e999",
    "None",
    "x" * 1024,
)


def test_hostile_labels_are_texts_and_no_more(tmp_path):
    names = [f"{number}.jpg" for number in range(len(HOSTILE))]
    with (tmp_path / "table.csv").open("w", encoding="utf-8", newline="") as file:
        cells = map(csv_cell, HOSTILE)
        csv.writer(file).writerows([("path", "label"), *zip(names, cells, strict=True)])
    make_csv(tmp_path, (tmp_path / "table.csv").read_bytes(), *names)
    with listening() as opened:
        read = read_table(tmp_path / "table.csv")
    assert read.labels == HOSTILE
    assert set(opened) == {str(tmp_path / "table.csv")}


def test_class_folders_of_hostile_names_are_classes(tmp_path):
    names = [name for name in HOSTILE if "/" not in name and len(name) < 200]
    for name in names:
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.jpg").touch()
    assert read_table(tmp_path).class_names == tuple(sorted(names))


def test_paths_that_differ_in_case_are_two(tmp_path):
    make_csv(tmp_path, HEADER + "a.jpg,x\nA.jpg,y\n", "a.jpg", "A.jpg")
    assert read_table(tmp_path / "table.csv").paths == ("a.jpg", "A.jpg")


def test_classes_that_differ_in_case_are_two(tmp_path):
    make_csv(tmp_path, HEADER + "1.jpg,Glioma\n2.jpg,glioma\n", "1.jpg", "2.jpg")
    assert read_table(tmp_path / "table.csv").class_names == ("Glioma", "glioma")


def test_40_000_classes_are_refused(tmp_path):
    names = tuple(map(str, range(40_000)))
    with pytest.raises(TableError, match=r"40,000 classes; expected at most 32,767") as caught:
        make_table(tmp_path, names, names)
    assert len(str(caught.value)) < 300


@pytest.mark.slow
def test_many_rows_of_one_image_are_one(tmp_path):
    make_csv(tmp_path, HEADER + "1.jpg,a\n" * 200_000, "1.jpg")
    read = read_table(tmp_path / "table.csv")
    assert (len(read), read.skipped) == (1, {"listed twice": 199_999})


def test_many_missing_files_are_counted(tmp_path):
    make_csv(tmp_path, HEADER + "".join(f"{i}.jpg,a\n" for i in range(20_000)))
    message = refusal(tmp_path / "table.csv")
    assert "20,000 of 20,000 listed files are missing: '0.jpg' (line 2)" in message
    assert "and 19,997 more" in message


@pytest.mark.parametrize("kind", ["folder", "pipe", "device", "loop", "dangling", "image"])
def test_files_that_are_not_csv_are_refused(tmp_path, kind):
    path = tmp_path / "table.csv"
    match kind:
        case "folder":
            path.mkdir()
        case "pipe":
            os.mkfifo(path)
        case "device":
            path.symlink_to("/dev/zero")
        case "loop":
            path.symlink_to("table.csv")
        case "dangling":
            path.symlink_to("nowhere.csv")
        case "image":
            path = tmp_path / "1.jpg"
            path.touch()
    assert refusal(path)


class TestFolders:
    def test_newline_in_a_class_folder(self, tmp_path):
        (tmp_path / "a\nb").mkdir()
        (tmp_path / "a\nb/1.jpg").touch()
        assert "'a\\nb' contains a control character; rename it" in refusal(tmp_path)

    def test_classes_that_look_alike(self, tmp_path):
        for name in ("\xe9", "e\u0301"):
            (tmp_path / name).mkdir()
            (tmp_path / name / "1.jpg").touch()
        message = refusal(tmp_path)
        assert "'e\\u0301' and '\\xe9' look alike" in message
        assert str(tmp_path) in message

    def test_one_decomposed_class_is_kept_as_it_is(self, tmp_path):
        (tmp_path / "e\u0301").mkdir()
        (tmp_path / "e\u0301/1.jpg").touch()
        assert read_table(tmp_path).class_names == ("e\u0301",)

    def test_a_thousand_levels(self, tmp_path):
        with nested(tmp_path, "d", 1000):
            Path("1.jpg").touch()
            try:
                read = read_table(tmp_path)
            finally:
                Path("1.jpg").unlink()
        assert read.paths == ("d/" * 1000 + "1.jpg",)

    def test_deeper_than_a_path_can_say(self, tmp_path):
        with nested(tmp_path, "d" * 200, 25):
            assert "cannot be listed (File name too long)" in refusal(tmp_path)

    def test_very_many_files_that_are_not_images(self, tmp_path):
        (tmp_path / "a").mkdir()
        for number in range(3000):
            (tmp_path / f"a/{number}.exe").touch()
        (tmp_path / "a/1.jpg").touch()
        assert read_table(tmp_path).skipped == {"not an image": 3000}

    def test_names_that_differ_in_case_are_two_splits_of_one_name(self, tmp_path):
        for name in ("train/a", "TRAIN/a"):
            (tmp_path / name).mkdir(parents=True)
            (tmp_path / name / "1.jpg").touch()
        read = read_table(tmp_path)
        assert (read.paths, set(read.splits)) == (("TRAIN/a/1.jpg", "train/a/1.jpg"), {"train"})


# ------------------------------------------------------------------------------- spreadsheets

RUN = "=+-@＝＋－＠\t\r"


@given(st.text())
def test_cells_hold_their_text(text):
    assert cell_text(csv_cell(text)) == text


@given(st.text(alphabet=st.sampled_from("'\"=+-@＝ \t\r\na\xa0")))
def test_no_cell_can_be_run(text):
    cell = csv_cell(text)
    assert cell_text(cell) == text
    assert not cell.lstrip().lstrip("\"'").startswith(tuple(RUN)) or cell.startswith("'")


@pytest.mark.parametrize(
    ("cell", "text"),
    [
        ("glioma", "glioma"),
        (" glioma\t", "glioma"),
        ("=1+1", "=1+1"),
        ("'=1+1", "=1+1"),
        ("''=1+1", "'=1+1"),
        ("' glioma ", " glioma "),
        ("'tis", "'tis"),
        ("'", "'"),
        ("''", "''"),
        ("", ""),
    ],
)
def test_an_apostrophe_is_taken_away_where_it_was_put(cell, text):
    assert cell_text(cell) == text


# --------------------------------------------------------------------------- writing and reading

words = st.one_of(
    st.sampled_from(HOSTILE),
    st.text(
        st.characters(exclude_categories=("Cs", "Cc")) | st.sampled_from("=+-@'\" ,;"), max_size=12
    ),
)
names = words.filter(
    lambda name: (
        name not in ("", ".", "..")
        and not set(name) & set("/\\\0")
        and ":" not in name[1:2]
        and len(name.encode()) < 200
    )
)


def looks(label: str) -> str:
    visible = "".join(c for c in label if unicodedata.category(c) != "Cf")
    return " ".join(unicodedata.normalize("NFC", visible).split())


@st.composite
def rows(draw):
    paths = draw(
        st.lists(st.lists(names, min_size=1, max_size=3).map("/".join), min_size=1, unique=True)
    )
    # No file is another one's folder.
    paths = [path for path in paths if not any(o.startswith(f"{path}/") for o in paths)]
    labels = draw(st.lists(words.filter(looks), min_size=1, max_size=4, unique_by=looks))
    splits = draw(st.sampled_from([("",), ("train", "val", "test")]))
    return [
        (
            path,
            draw(st.sampled_from(["", *labels])),
            draw(st.sampled_from(splits)),
            draw(words),
            draw(st.sampled_from(["", draw(words)])),
        )
        for path in paths
    ]


class TestWriteTable:
    @pytest.mark.slow
    @given(rows())
    def test_what_is_written_is_read(self, tmp_path_factory, rows):
        root = tmp_path_factory.mktemp("table")
        columns = list(zip(*rows, strict=True))
        written = make_table(root, *columns)
        for path in written.paths:
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).touch()
        target = write_table(written, root / ".csv")
        assert read_table(target) == written
        with target.open(encoding="utf-8", newline="") as file:
            cells = [cell for row in csv.reader(file, strict=True) for cell in row]
        assert not any(cell.lstrip().startswith(tuple(RUN)) for cell in cells)

    def test_columns_of_nothing_are_left_out(self, tmp_path):
        make_csv(tmp_path, "path,label,split,group\n1.jpg,,,p1\n", "1.jpg")
        target = write_table(read_table(tmp_path / "table.csv"), tmp_path / "out.csv")
        assert target.read_text() == "path,label,group\n1.jpg,,p1\n"

    def test_a_csv_above_the_root_names_the_folders_between(self, tmp_path):
        (tmp_path / "=a/b").mkdir(parents=True)
        make_csv(tmp_path / "=a/b", "path,label\n1.jpg,x\n", "1.jpg")
        written = read_table(tmp_path / "=a/b/table.csv")
        again = read_table(write_table(written, tmp_path / "all.csv"))
        assert again.paths == ("=a/b/1.jpg",)
        assert again.absolute_path(0) == written.absolute_path(0)

    def test_links_to_the_root_are_the_root(self, tmp_path):
        (tmp_path / "data").mkdir()
        make_csv(tmp_path / "data", "path,label\n1.jpg,x\n", "1.jpg")
        (tmp_path / "link").symlink_to("data")
        written = read_table(tmp_path / "link/table.csv")
        assert read_table(write_table(written, tmp_path / "data/out.csv")).paths == ("1.jpg",)
        (tmp_path / "above").mkdir()
        (tmp_path / "above/link").symlink_to(tmp_path / "data")
        written = read_table(tmp_path / "above/link/table.csv")
        again = read_table(write_table(written, tmp_path / "above/out.csv"))
        assert again.paths == ("link/1.jpg",)

    def test_a_csv_elsewhere_is_refused(self, tmp_path):
        (tmp_path / "data").mkdir()
        (tmp_path / "other").mkdir()
        written = make_table(tmp_path / "data", ("1.jpg",), ("a",))
        with pytest.raises(
            TableError, match="not below the folder of the file; write the table there or"
        ):
            write_table(written, tmp_path / "other/table.csv")

    def test_an_existing_file_is_replaced_only_with_overwrite(self, tmp_path):
        written = make_table(tmp_path, ("1.jpg",), ("a",))
        target = tmp_path / "out.csv"
        target.write_text("path,label\nold.jpg,a\n")
        with pytest.raises(TableError, match=r"out\.csv exists"):
            write_table(written, target)
        assert target.read_text() == "path,label\nold.jpg,a\n"
        write_table(written, target, overwrite=True)
        assert target.read_text() == "path,label\n1.jpg,a\n"
        (tmp_path / "dangling.csv").symlink_to("nowhere")
        with pytest.raises(TableError, match="is a link to nothing"):
            write_table(written, tmp_path / "dangling.csv")
        (tmp_path / "folder.csv").mkdir()
        with pytest.raises(TableError, match="is not a regular file"):
            write_table(written, tmp_path / "folder.csv", overwrite=True)
        assert sorted(p.name for p in tmp_path.iterdir()) == [
            "dangling.csv",
            "folder.csv",
            "out.csv",
        ]

    def test_a_link_is_replaced_and_not_written_through(self, tmp_path):
        (tmp_path / "mine.csv").write_text("path,label\n")
        (tmp_path / "out.csv").symlink_to("mine.csv")
        write_table(make_table(tmp_path, ("1.jpg",), ("a",)), tmp_path / "out.csv", overwrite=True)
        assert (tmp_path / "mine.csv").read_text() == "path,label\n"
        assert not (tmp_path / "out.csv").is_symlink()

    def test_a_write_that_fails_changes_nothing(self, tmp_path, monkeypatch):
        def fail(_):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(table.os, "fsync", fail)
        (tmp_path / "out.csv").write_text("path,label\n")
        with pytest.raises(TableError, match="cannot be written: No space left on device"):
            write_table(
                make_table(tmp_path, ("1.jpg",), ("a",)), tmp_path / "out.csv", overwrite=True
            )
        assert [p.name for p in tmp_path.iterdir()] == ["out.csv"]
        assert (tmp_path / "out.csv").read_text() == "path,label\n"

    def test_no_folder(self, tmp_path):
        with pytest.raises(TableError, match="there is no folder"):
            write_table(make_table(tmp_path, ("1.jpg",), ("a",)), tmp_path / "no/out.csv")

    @pytest.mark.parametrize("path", ["a\\b.jpg", "c:/1.jpg"])
    def test_paths_that_would_be_read_as_others_are_refused(self, tmp_path, path):
        with pytest.raises(TableError, match="rename the file or its folder"):
            write_table(make_table(tmp_path, (path,), ("a",)), tmp_path / "out.csv")

    def test_splits_of_some_rows_are_refused(self, tmp_path):
        mixed = make_table(tmp_path, ("1.jpg", "2.jpg"), ("a", "a"), ("train", ""))
        with pytest.raises(TableError, match="only some rows have a split"):
            write_table(mixed, tmp_path / "out.csv")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": ["a\nb"]}, "label 'a\\\\nb' contains a control"),
        ({"labels": ["\ud800"]}, "is not UTF-8"),
        ({"labels": ["a"], "groups": ["\0"]}, "group '\\\\x00' contains"),
        ({"labels": ["a"], "sources": ["x" * 1025]}, "longer than 1,024"),
        ({"labels": ["a"], "paths": ["./1.jpg"]}, "plainer form; write '1.jpg'"),
        ({"labels": ["a", "a"], "paths": ["1.jpg", "1.jpg"]}, "'1.jpg' is listed 2 times"),
        ({"labels": ["a"], "splits": ["x" * 5000]}, "unknown splits"),
    ],
)
def test_tables_made_by_hand_keep_to_the_same_rules(tmp_path, change, message):
    with pytest.raises(TableError, match=message) as caught:
        make_table(tmp_path, **{"paths": ["1.jpg"]} | change)
    assert len(str(caught.value)) < 500
    assert str(caught.value).isprintable()


def test_mutated_files_give_a_table_or_an_error():
    outcomes = fuzz(600, seed=1)
    assert outcomes.total() == 600
    assert min(outcomes["read"], outcomes["refused"]) > 60
