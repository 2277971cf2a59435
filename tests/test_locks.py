"""The lock of an output: held by one, waited for by others, gone with its process."""

import errno
import fcntl
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import pytest

from brainfeat.cache.locks import LOCK_NAME, lock_folder


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "features.h5.parts"


def test_the_folder_is_there_while_it_is_held_and_gone_after(folder):
    with lock_folder(folder) as alone:
        assert alone
        assert [path.name for path in folder.iterdir()] == [LOCK_NAME]
    assert not folder.exists()


def test_a_folder_that_holds_something_stays(folder):
    with lock_folder(folder):
        (folder / "shard.h5").touch()
    assert [path.name for path in folder.iterdir()] == ["shard.h5"]


def test_it_is_let_go_of_where_a_run_fails(folder):
    with pytest.raises(RuntimeError), lock_folder(folder):
        raise RuntimeError
    with lock_folder(folder) as alone:
        assert alone


def test_a_leftover_of_a_killed_run_is_no_lock(folder):
    folder.mkdir()
    (folder / LOCK_NAME).touch()
    with lock_folder(folder) as alone:
        assert alone


def test_many_that_wait_hold_it_one_after_the_other(folder):
    """Each removes the folder on leaving: who waited must not hold a file that is gone."""
    inside, most = [], []

    def hold(number):
        with lock_folder(folder) as alone:
            inside.append(number)
            most.append(len(inside))
            Event().wait(0.002)
            inside.remove(number)
            return alone

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(hold, range(64)))
    assert most == [1] * 64
    assert not folder.exists()


def test_a_folder_that_is_removed_before_it_is_held_is_made_again(folder, monkeypatch):
    """``mkdir`` finds the folder of another run, which ends before the file is opened."""
    real, failures = Path.mkdir, iter([FileExistsError(errno.EEXIST, "File exists")])

    def mkdir(path, **options):
        for error in failures:
            raise error
        real(path, **options)

    monkeypatch.setattr(Path, "mkdir", mkdir)
    with lock_folder(folder) as alone:
        assert alone
    assert not folder.exists()


def test_a_link_that_leads_nowhere_is_no_folder(folder):
    folder.symlink_to(folder.with_name("missing"))
    with lock_folder(folder) as alone:
        assert not alone
    assert folder.is_symlink()


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_file_system_without_locks_says_so(folder, monkeypatch, code):
    def flock(descriptor, operation):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", flock)
    descriptors = len(os.listdir("/proc/self/fd"))
    with lock_folder(folder) as alone:
        assert not alone
    assert not folder.exists()
    assert len(os.listdir("/proc/self/fd")) == descriptors


def test_where_nothing_can_be_written_there_is_no_lock(folder):
    folder.write_text("a file of that name")
    with lock_folder(folder) as alone:
        assert not alone
    assert folder.read_text() == "a file of that name"


def test_a_parent_that_is_not_there_is_not_made(tmp_path):
    with lock_folder(tmp_path / "missing" / "features.h5.parts") as alone:
        assert not alone
    assert not (tmp_path / "missing").exists()


def test_an_interrupt_while_waiting_leaves_nothing_open(folder, monkeypatch):
    real = fcntl.flock

    def flock(descriptor, operation):
        if operation == fcntl.LOCK_EX:
            raise KeyboardInterrupt
        real(descriptor, operation)

    with lock_folder(folder):
        descriptors = len(os.listdir("/proc/self/fd"))
        monkeypatch.setattr(fcntl, "flock", flock)
        with pytest.raises(KeyboardInterrupt), lock_folder(folder):
            pass
        assert len(os.listdir("/proc/self/fd")) == descriptors
        assert (folder / LOCK_NAME).exists()
