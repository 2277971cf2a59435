"""Failing system calls: one clear error, no earlier file changed, and a run that can resume.

Each call that changes the disk fails once, or from then on as on a full disk, in the runs of the
kill matrix; ``faults.c`` makes it fail. Real limits are set where the machine has them: a small
tmpfs, RLIMIT_FSIZE, RLIMIT_NOFILE, a folder without write permission. Without ``--deep``, a sample
of the calls and of the limits is tried.
"""

import errno
import os
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from support import faults
from support.depth import one_in, thin
from support.faults import Outcome
from support.powercut import files_in
from support.scenarios import Bench, Scenario, open_bench, record, which_bundle

RUNS = ("update", "resume", "save", "replace")
FILLED = ("create", "write", "truncate", "allocate", "mkdir")
# Names the image and not the output: BrainfeatError where no file handles are left to read it.
OF_IMAGES = ("ImageReadError", "BrainfeatError")
CALLED = (*FILLED, "sync", "rename", "unlink", "rmdir")


@pytest.fixture(scope="module")
def bench(tmp_path_factory) -> Iterator[Bench]:
    with open_bench(tmp_path_factory.mktemp("limits")) as bench:
        yield bench


def calls_of(bench: Bench, name: str, kinds: tuple[str, ...]) -> list[str]:
    """Count the calls of some kinds that an undisturbed run makes."""
    outcome = bench.run(name, kinds=kinds)
    assert "value" in outcome.told, outcome
    return outcome.told["kinds"]


def check(bench: Bench, name: str, outcome: Outcome, *numbers: int) -> str:
    """Check how a run ended and what it left; return ``"went on"`` or ``"refused"``."""
    scenario = bench.scenarios[name]
    assert outcome.code == 0, outcome
    told = outcome.told
    assert "bug" not in told, outcome
    if "message" in told:
        message = told["message"]
        assert told["error"] in ("CacheError", "BundleError", *OF_IMAGES), message
        assert len(message.splitlines()) == 1, message
        assert not numbers or any(has(message, number) for number in numbers), message
        assert str(outcome.folder) in message or told["error"] in OF_IMAGES, message
    if scenario.task == "save":
        found = which_bundle(outcome.folder / scenario.output, scenario)
        assert found == "new" or "message" in told
    else:
        found = bench.oracle(name).look(outcome.folder, outcome.acknowledged)
    left = [path for path in files_in(outcome.folder) if path.endswith(".tmp")]
    before = files_in(scenario.start) if scenario.start else {}
    assert set(left) <= set(before), "a temporary file is left over"
    return "refused" if "message" in told else "went on"


def has(message: str, number: int) -> bool:
    return os.strerror(number).lower() in message.lower()


def go_on(bench: Bench, name: str, folder: Path, *, again: bool = False) -> None:
    """Run again, undisturbed; after equal files only with `again`."""
    scenario = bench.scenarios[name]
    if scenario.task == "save":
        faults.make_bundle(1).save(folder / scenario.output, overwrite=True)
        assert which_bundle(folder / scenario.output, scenario) == "new"
        assert list(files_in(folder)) == [scenario.output]
    else:
        oracle = bench.oracle(name)
        run = oracle.go_on if again else oracle.go_on_once
        run(folder, oracle.look(folder, set()))


@dataclass
class Place:
    """A folder that a child cannot write to, and what the system says of that."""

    folder: Path
    number: int
    asked: dict

    def run(self, bench: Bench, scenario: Scenario, start: Path | None) -> Outcome:
        """Do a scenario's run on files that are there already."""
        output, images = self.folder / "output", self.folder / "images"
        output.mkdir()
        if start is not None:
            shutil.copytree(start, output, dirs_exist_ok=True)
        options = scenario.options
        if "images" in options:
            shutil.copytree(options["images"], images)
            options = {**options, "images": str(images)}
        if self.number == errno.EROFS:
            remount(self.folder, "ro")
        else:
            for path in [self.folder, *self.folder.rglob("*")]:
                path.chmod(0o555 if path.is_dir() else 0o444)
        asked = {"task": scenario.task, "options": options, "folder": str(output)}
        return bench.server.run(**asked, **self.asked)


def remount(folder: Path, how: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{how}", folder], check=True)


@pytest.mark.parametrize("name", RUNS)
class TestCallsThatFail:
    """What became of the old file is part of the check of each run."""

    @pytest.mark.slow
    @one_in(6)
    def test_a_disk_that_is_full_from_some_call_on(self, bench, name, every):
        number = errno.EDQUOT if name == "update" else errno.ENOSPC
        calls = len(calls_of(bench, name, FILLED))
        faults_of = {"kinds": FILLED, "mode": "fail-on", "error": number}
        ended: Counter[str] = Counter()
        changes = [{**faults_of, "number": place} for place in thin(range(calls), every)]
        for outcome in bench.run_all(name, changes):
            ended[check(bench, name, outcome, number)] += 1
            go_on(bench, name, outcome.folder)
            outcome.forget()
        record(f"{errno.errorcode[number]} from a call on, {name}", ended, every)
        assert set(ended) == {"refused"}

    @pytest.mark.slow
    @one_in(8)
    def test_a_call_that_fails_once(self, bench, name, every):
        calls = calls_of(bench, name, CALLED)
        # Only the lock, what is left over, and the setting aside of what is damaged hang on these.
        spared = {"mkdir", "create", "unlink", "rmdir"} | (
            {"rename"} if name == "resume" else set()
        )
        ended: Counter[str] = Counter()
        fault = {"kinds": CALLED, "mode": "fail", "error": errno.EIO}
        places = thin(range(len(calls)), every, calls.__getitem__)
        changes = [{**fault, "number": place} for place in places]
        kinds = [calls[place] for place in places]
        for outcome, kind in zip(bench.run_all(name, changes), kinds, strict=True):
            result = check(bench, name, outcome, errno.EIO)
            ended[f"{result}, {kind}"] += 1
            assert result == "refused" or kind in spared
            go_on(bench, name, outcome.folder)
            outcome.forget()
        record(f"EIO once, {name}", ended, every)

    def test_a_close_that_fails(self, bench, name):
        calls = len(calls_of(bench, name, ("close",)))
        ended: Counter[str] = Counter()
        fault = {"kinds": ("close",), "mode": "fail", "error": errno.EDQUOT}
        for outcome in bench.run_all(name, [{**fault, "number": it} for it in range(calls)]):
            ended[check(bench, name, outcome, errno.EDQUOT)] += 1
            go_on(bench, name, outcome.folder)
            outcome.forget()
        record(f"EDQUOT at close, {name}", ended)
        assert ended["refused"] >= 2


@pytest.mark.parametrize("name", ["relabel", "replace"])
class TestCallsThatDoOtherwise:
    @pytest.mark.slow
    @one_in(4)
    @pytest.mark.parametrize("mode", ["short", "fail"])
    def test_a_call_that_does_half_or_is_interrupted_is_done_again(self, bench, name, mode, every):
        kinds = ("write",) if mode == "short" else ("write", "create", "sync")
        calls = len(calls_of(bench, name, kinds))
        fault = {"kinds": kinds, "mode": mode, "error": errno.EINTR}
        ended: Counter[str] = Counter()
        places = thin(range(calls), every)
        for outcome in bench.run_all(name, [{**fault, "number": it} for it in places]):
            ended[check(bench, name, outcome, errno.EINTR)] += 1
            outcome.forget()
        record(f"{'half a write' if mode == 'short' else 'EINTR'}, {name}", ended, every)
        assert ended == {"went on": len(places)}

    @pytest.mark.slow
    @one_in(4)
    @pytest.mark.parametrize("mode", ["drop", "flip"])
    def test_a_write_that_is_lost_or_changed_in_silence_is_found(self, bench, name, mode, every):
        """Or it harms nothing, as where a later write is in the same place."""
        calls = len(calls_of(bench, name, ("write",)))
        ended: Counter[str] = Counter()
        fault = {"kinds": ("write",), "mode": mode}
        places = thin(range(calls), every)
        for outcome in bench.run_all(name, [{**fault, "number": it} for it in places]):
            ended[check(bench, name, outcome)] += 1
            go_on(bench, name, outcome.folder)
            outcome.forget()
        record(f"a write, {mode}, {name}", ended, every)
        assert ended["refused"] >= 10 / every


@pytest.mark.parametrize("name", RUNS)
class TestRealLimits:
    @pytest.mark.slow
    @one_in(4)
    def test_a_limit_of_the_size_of_files(self, bench, name, every):
        ended: Counter[str] = Counter()
        changes = [{"limit": ("fsize", size)} for size in range(0, 16 << 10, 512 * every)]
        for outcome in bench.run_all(name, changes):
            ended[check(bench, name, outcome, errno.EFBIG)] += 1
            go_on(bench, name, outcome.folder)
            outcome.forget()
        record(f"RLIMIT_FSIZE, {name}", ended, every)
        assert ended["refused"] >= 4 / every

    @pytest.mark.slow
    @one_in(4)
    def test_a_limit_of_open_files(self, bench, name, every):
        ended: Counter[str] = Counter()
        changes = [{"limit": ("nofile", most)} for most in thin(range(6, 30), every)]
        for outcome in bench.run_all(name, changes):
            ended[check(bench, name, outcome, errno.EMFILE)] += 1
            go_on(bench, name, outcome.folder)
            outcome.forget()
        record(f"RLIMIT_NOFILE, {name}", ended, every)
        assert ended["refused"]
        assert ended["went on"]

    @pytest.mark.slow
    def test_a_full_disk(self, bench, name, small_disk):
        ended: Counter[str] = Counter()
        scenario = bench.scenarios[name]
        asked = {"task": scenario.task, "options": scenario.options}
        for free in range(0, 44 << 10, 4 << 10):
            folder = small_disk / f"{free}"
            if scenario.start is not None:
                shutil.copytree(scenario.start, folder)
            folder.mkdir(exist_ok=True)
            ballast = small_disk / "ballast"
            fill(ballast, free)
            outcome = bench.server.run(**{**asked, "folder": str(folder)})
            ended[check(bench, name, outcome, errno.ENOSPC)] += 1
            ballast.unlink()
            go_on(bench, name, folder, again=True)
            shutil.rmtree(folder)
        record(f"a full disk, {name}", ended)
        assert ended["refused"]


class TestFoldersThatCannotBeWritten:
    @pytest.fixture(params=["without the right", "read-only disk"])
    def place(self, request) -> Iterator[Place]:
        """Give a folder, and what makes all of it read-only to a child."""
        if request.param == "read-only disk":
            yield Place(request.getfixturevalue("small_disk"), errno.EROFS, {})
            return
        folder = Path(tempfile.mkdtemp(prefix="brainfeat-read-only-"))
        yield Place(folder, errno.EACCES, {"uid": 65534} if os.geteuid() == 0 else {})
        for path in [folder, *folder.rglob("*")]:
            path.chmod(0o755)
        shutil.rmtree(folder)

    @pytest.mark.parametrize("name", ["fresh", "relabel", *RUNS])
    def test_a_run_that_must_write_is_refused(self, bench, name, place):
        scenario = bench.scenarios[name]
        outcome = place.run(bench, scenario, scenario.start)
        assert files_in(outcome.folder) == (files_in(scenario.start) if scenario.start else {})
        assert check(bench, name, outcome, place.number) == "refused"

    def test_a_run_that_has_nothing_to_do_is_not(self, bench, place):
        scenario = bench.scenarios["fresh"]
        outcome = place.run(bench, scenario, scenario.whole.parent)
        assert outcome.told.get("value") == {"computed": 0, "rejected": 0}, outcome
        assert files_in(outcome.folder) == files_in(scenario.whole.parent)


@pytest.fixture
def small_disk(mounted) -> Iterator[Path]:
    """Give an empty disk of 512 KiB."""
    yield mounted
    remount(mounted, "rw")
    for path in mounted.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()


@pytest.fixture(scope="module")
def mounted() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="brainfeat-disk-"))
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", folder],
        check=False,
        capture_output=True,
    )
    if done.returncode:
        folder.rmdir()
        pytest.skip("a small disk is mounted for this test, and only root may mount")
    yield folder
    subprocess.run(["umount", folder], check=True)
    folder.rmdir()


def fill(path: Path, free: int) -> None:
    """Write a file that leaves only some bytes of a disk free."""
    with path.open("wb", buffering=0) as file:
        room = os.statvfs(path).f_bavail * os.statvfs(path).f_frsize
        file.write(bytes(max(0, room - free)))
