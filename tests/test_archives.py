"""Archives are refused by name, with what to do."""

import gzip
import io
import tarfile
import zipfile

import pytest

from brainfeat.errors import ImageReadError, TableError
from brainfeat.readers import read_image
from brainfeat.readers.archives import detect_archive, find_archive
from brainfeat.tables.slicing import write_slices
from brainfeat.tables.table import read_table


def zipped():
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("yes/1.png", b"x")
    return file.getvalue()


def tarred():
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("yes/1.png"))
    return file.getvalue()


ARCHIVES = {
    "set.zip": (zipped(), "zip"),
    "set.tar": (tarred(), "tar"),
    "set.tar.gz": (gzip.compress(tarred()), "gzip"),
    "set.tgz": (gzip.compress(tarred()), "gzip"),
    "set.rar": (b"Rar!\x1a\x07\x01\0", "rar"),
    "set.7z": (b"7z\xbc\xaf\x27\x1c", "7z"),
    "without suffix": (zipped(), "zip"),
    "set.zip.part": (zipped(), "zip"),
    "damaged.zip": (b"", "zip"),
    "old.tar": (bytes(600), "tar"),
}


@pytest.mark.parametrize("name", ARCHIVES)
def test_a_table(tmp_path, name):
    data, kind = ARCHIVES[name]
    (tmp_path / name).write_bytes(data)
    with pytest.raises(TableError) as caught:
        read_table(tmp_path / name)
    assert str(caught.value) == (
        f"'{tmp_path / name}' is an archive ({kind}); unpack it first, and pass the folder"
    )


def test_a_workbook_is_no_archive(tmp_path):
    for name in ("table.csv", "table.xlsx"):
        (tmp_path / name).write_bytes(zipped())
        assert find_archive(tmp_path / name) is None


def test_an_image():
    with pytest.raises(ImageReadError, match=r"x: an archive \(zip\); unpack it first$"):
        read_image(io.BytesIO(zipped()), name="x")


def test_volumes(tmp_path):
    (tmp_path / "set.zip").write_bytes(zipped())
    with pytest.raises(ImageReadError, match=r"argument 1: is an archive \(zip\); unpack it first"):
        write_slices([tmp_path / "set.zip"], tmp_path / "slices")


def test_what_is_none(tmp_path):
    (tmp_path / "x.gz").mkdir()
    for path in (tmp_path / "x.gz", tmp_path / "nowhere.zip", tmp_path):
        assert find_archive(path) is None
    assert detect_archive(b"path,label\n") is None
