"""Two files that need each other are written together, or not at all; and which are one."""

import errno
from pathlib import Path

import pytest

from brainfeat.files import atomic_write_all, atomic_write_pair, is_same_file


@pytest.fixture
def pair(tmp_path):
    return tmp_path / "model.xml", tmp_path / "model.bin"


def write(pair, text):
    with atomic_write_pair(*pair) as temporary:
        assert temporary.parent == pair[0].parent
        temporary.write_text(f"graph of {text}")
        temporary.with_suffix(".bin").write_text(f"weights of {text}")


def write_all(targets, text):
    with atomic_write_all(targets) as temporaries:
        for temporary in temporaries:
            temporary.write_text(text)


class Unwritable:
    def __str__(self):
        raise AttributeError


def read(folder):
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_both_appear(pair, tmp_path):
    write(pair, "one")
    assert read(tmp_path) == {"model.xml": "graph of one", "model.bin": "weights of one"}
    write(pair, "two")
    assert read(tmp_path) == {"model.xml": "graph of two", "model.bin": "weights of two"}


def test_a_body_that_fails_changes_nothing(pair, tmp_path):
    write(pair, "one")
    with pytest.raises(AttributeError):
        write(pair, Unwritable())
    assert read(tmp_path) == {"model.xml": "graph of one", "model.bin": "weights of one"}


@pytest.mark.parametrize("missing", [".xml", ".bin"])
def test_a_body_that_writes_one_file_changes_nothing(missing, pair, tmp_path):
    write(pair, "one")
    with pytest.raises(FileNotFoundError), atomic_write_pair(*pair) as temporary:
        temporary.with_suffix({".xml": ".bin", ".bin": ".xml"}[missing]).write_text("half")
    assert read(tmp_path) == {"model.xml": "graph of one", "model.bin": "weights of one"}


@pytest.mark.parametrize("failing", [1, 2])
def test_where_one_cannot_get_its_name_there_is_no_pair(failing, pair, tmp_path, monkeypatch):
    calls, replace = iter(range(1, 3)), Path.replace

    def fail(path, target):
        if next(calls) == failing:
            raise OSError(errno.EIO, "Input/output error")
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="Input/output"):
        write(pair, "one")
    assert read(tmp_path) == {}


def test_an_old_graph_is_never_beside_new_weights(pair, monkeypatch):
    write(pair, "one")
    seen, replace = [], Path.replace

    def look(path, target):
        seen.append((pair[0].exists(), pair[1].read_text()))
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", look)
    write(pair, "two")
    assert seen == [(False, "weights of one"), (False, "weights of two")]


def test_of_several_new_files_none_appears_where_one_cannot(tmp_path, monkeypatch):
    targets, replace = [tmp_path / name for name in ("a", "b", "c")], Path.replace
    targets[0].write_text("old")

    def fail(path, target):
        if target == targets[2]:
            raise OSError(errno.EIO, "Input/output error")
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="Input/output"):
        write_all(targets, "new")
    assert read(tmp_path) == {"a": "new"}


def test_files_that_are_to_come_can_be_the_same(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path)
    names = ("new.h5", "link/new.h5", "none/../new.h5")
    assert all(is_same_file(tmp_path / "new.h5", tmp_path / name) for name in names)
    assert not is_same_file(tmp_path / "new.h5", tmp_path / "other.h5")
