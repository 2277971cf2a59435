"""Kills and power cuts at every call that changes the disk: no finished row is lost.

A *boundary* is a call of Python or HDF5 that changes something below the output's folder:
``open`` and ``creat`` that create or truncate, ``write``, ``pwrite``, ``ftruncate``,
``posix_fallocate``, ``fsync``, ``fdatasync``, ``rename``, ``unlink``, ``remove``, ``mkdir``,
``rmdir`` and ``link``, with their 64-bit, ``at`` and second forms. Each run is killed (SIGKILL)
before each boundary, after the last one, and in the middle of each write; without ``--deep``, at a
sample of them with one of each kind. The runs are: a first extraction with its merge; an update
with new, renamed and removed images; the rest of a run that was killed and has a damaged shard; a
change of labels only; signatures for a cache that has none; a bundle that is saved, and one that
replaces another. Replaying the traced calls gives the same files, which shows that no boundary is
missed.

A kill leaves what the kernel knows. What a power cut leaves is derived from the same traces,
in four ways for each boundary: see :meth:`support.powercut.Disk.cut_power`.
"""

import json
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import faults
from support.depth import one_in, thin
from support.faults import Outcome, contents, draw, known_features, rows_of_shards
from support.powercut import Disk, files_in
from support.scenarios import (
    CLASSES,
    OUTPUT,
    Bench,
    Oracle,
    Scenario,
    open_bench,
    record,
    which_bundle,
)

from brainfeat.cache.shards import parts_folder, shard_paths
from brainfeat.phantoms import write_phantoms

EXTRACTIONS = ("fresh", "update", "resume", "relabel", "sign")
SAVES = ("save", "replace")
SCENARIOS = (*EXTRACTIONS, *SAVES)


@pytest.fixture(scope="module")
def bench(tmp_path_factory) -> Iterator[Bench]:
    with open_bench(tmp_path_factory.mktemp("kills")) as bench:
        yield bench


@pytest.fixture(scope="module")
def undisturbed(bench) -> dict[str, Outcome]:
    outcomes = {name: bench.run(name) for name in SCENARIOS}
    for outcome in outcomes.values():
        assert outcome.code == 0, outcome
        assert "value" in outcome.told, outcome
    return outcomes


@pytest.mark.slow
@one_in(8)
@pytest.mark.parametrize("name", EXTRACTIONS)
def test_a_killed_extraction_loses_nothing(name, every, bench, undisturbed):
    oracle = bench.oracle(name)
    counts: Counter[str] = Counter()
    computed = set()
    for outcome in kill_everywhere(bench, name, undisturbed[name], counts, every):
        found = oracle.look(outcome.folder, outcome.acknowledged)
        computed.add(oracle.go_on_once(outcome.folder, found))
        outcome.forget()
    record(name, counts, every)
    assert undisturbed[name].told["value"]["computed"] in computed
    assert 0 in computed


@pytest.mark.slow
@one_in(4)
@pytest.mark.parametrize("name", SAVES)
def test_a_killed_save_leaves_the_old_bundle_or_the_new(name, every, bench, undisturbed):
    """It may leave its temporary file too, which has no name that counts."""
    scenario = bench.scenarios[name]
    counts: Counter[str] = Counter()
    seen = set()
    for outcome in kill_everywhere(bench, name, undisturbed[name], counts, every):
        path = outcome.folder / scenario.output
        seen.add(which_bundle(path, scenario))
        faults.make_bundle(1).save(path, overwrite=True)
        assert which_bundle(path, scenario) == "new"
        left = [name for name in files_in(outcome.folder) if name != scenario.output]
        assert all(re.fullmatch(r"\.[0-9a-f]{16}\.tmp", name) for name in left)
        counts["runs that left a temporary file"] += bool(left)
        outcome.forget()
    record(name, counts, every)
    assert seen == {"none" if scenario.start is None else "old", "new"}


def kill_everywhere(
    bench: Bench, name: str, undisturbed: Outcome, counts: Counter[str], every: int
) -> Iterator[Outcome]:
    """Kill a run in every way at one boundary in so many; yield what is left."""
    kinds = undisturbed.told["kinds"]
    points = [{"number": number, "mode": "before"} for number in range(len(kinds))]
    points.append({"number": len(kinds) - 1, "mode": "after"})
    points += [
        {"number": number, "mode": "torn"} for number, kind in enumerate(kinds) if kind == "write"
    ]

    def kind(point: dict) -> tuple[str, str]:
        return point["mode"], kinds[point["number"]]

    for outcome in bench.run_all(name, thin(points, every, kind)):
        assert outcome.code == -signal.SIGKILL, outcome
        counts[f"{outcome.request['mode']} {kinds[outcome.request['number']]}"] += 1
        yield outcome


def test_the_kill_points_are_many_and_of_every_kind(undisturbed):
    kinds = [kind for outcome in undisturbed.values() for kind in outcome.told["kinds"]]
    assert {"create", "write", "sync", "rename", "unlink", "mkdir", "rmdir"} <= set(kinds)
    assert len(kinds) >= 300


@pytest.mark.parametrize("name", SCENARIOS)
def test_each_boundary_is_seen(name, bench, undisturbed, tmp_path):
    """The traced calls, played again on what was there, give the files that the run left."""
    disk, outcome = play(bench.scenarios[name], undisturbed[name])
    disk.cut_power(tmp_path / "all", "all", random.Random(0))
    assert files_in(tmp_path / "all") == files_in(outcome.folder)


@pytest.mark.parametrize("name", SCENARIOS)
def test_each_file_is_synchronised_before_its_name_and_its_folder_after(name, undisturbed):
    trace = undisturbed[name].trace
    renames = [place for place, call in enumerate(trace) if call.kind == "rename"]
    assert renames
    for place in renames:
        file, folder = trace[place].path, str(Path(trace[place].other).parent)
        if trace[place].other.endswith(".damaged"):
            continue
        before = [call.kind for call in trace[:place] if call.path == file]
        assert before[-1] == "sync", "written to after it was synchronised, or never"
        after = next(call for call in trace[place + 1 :] if call.kind != "unlink")
        assert (after.kind, after.path) == ("sync", folder)


def play(scenario: Scenario, outcome: Outcome) -> tuple[Disk, Outcome]:
    disk = Disk(outcome.folder, scenario.start)
    for call in outcome.trace:
        disk.apply(call)
    return disk, outcome


def cut_everywhere(
    scenario: Scenario, outcome: Outcome, folder: Path, counts: Counter[str], every: int
) -> Iterator[tuple[Path, set[bytes], bool]]:
    """Cut the power in every way after one call in so many; yield what is left and promised."""
    disk = Disk(outcome.folder, scenario.start)
    rng = random.Random(0)
    promised: set[bytes] = set()
    places = thin(range(len(outcome.trace)), every, lambda place: outcome.trace[place].kind)
    for place, call in enumerate(outcome.trace):
        disk.apply(call)
        promised.update(call.marks("rows"))
        if place not in places:
            continue
        done = (call.kind, call.path) == ("mark", "done")
        for how in ("least", "names", "some", "some"):
            target = folder / f"{place}"
            disk.cut_power(target, how, rng)
            yield target, promised, done
            counts[how] += 1
            shutil.rmtree(target)


@pytest.mark.slow
@one_in(5)
@pytest.mark.parametrize("name", EXTRACTIONS)
def test_a_power_cut_loses_no_acknowledged_row(name, every, bench, undisturbed, tmp_path):
    scenario = bench.scenarios[name]
    oracle = bench.oracle(name)
    counts: Counter[str] = Counter()
    for folder, promised, done in cut_everywhere(
        scenario, undisturbed[name], tmp_path, counts, every
    ):
        found = oracle.look(folder, promised)
        if done:
            assert contents(folder / scenario.output) == oracle.whole
        elif counts.total() % 25 == 0:
            oracle.go_on(folder, found)
    record(f"power cuts, {name}", counts, every)


@one_in(5)
@pytest.mark.parametrize("name", SAVES)
def test_a_power_cut_leaves_the_old_bundle_or_the_new(name, every, bench, undisturbed, tmp_path):
    counts: Counter[str] = Counter()
    scenario = bench.scenarios[name]
    for folder, _, done in cut_everywhere(scenario, undisturbed[name], tmp_path, counts, every):
        found = which_bundle(folder / scenario.output, scenario)
        assert found == "new" or not done
    record(f"power cuts, {name}", counts, every)


@pytest.mark.deep
def test_thirty_kills_at_random_times(bench, tmp_path):
    """Each run goes on from the one before, and computes nothing that is there."""
    images = tmp_path / "images-many"
    for seed in range(100):
        draw(images / CLASSES[seed % 3] / f"{seed}.png", seed)
    whole = tmp_path / "whole"
    outcome = bench.server.run("extract", folder=str(whole), options={"images": str(images)})
    assert outcome.code == 0, outcome
    scenario = Scenario("extract", None, {"images": str(images)}, "features.h5", whole / OUTPUT)
    features = known_features(images)
    digest_of = {values: digest for digest, values in features.items()}
    oracle = Oracle(scenario, features)
    options = {**scenario.options, "seconds": 0.01}
    rng = random.Random(0)
    promised: set[bytes] = set()
    found: set[bytes] = set()
    counts: Counter[str] = Counter()
    for _ in range(30):
        outcome = bench.server.run(
            "extract", folder=str(tmp_path / "out"), options=options, kill_after=rng.uniform(0, 0.2)
        )
        counts["killed" if outcome.code else "ended before"] += 1
        computed = {digest_of[values] for values in outcome.computed}
        assert len(computed) == len(outcome.computed)
        assert not computed & found
        promised |= outcome.acknowledged
        before, found = found, oracle.look(outcome.folder, promised)
        assert found >= before
        counts["rows computed in vain"] += len(computed - found)
        # Those of a shard that was not full, of one that was being written, and on the way.
        assert len(computed - found) <= 2 * faults.ROWS_A_SHARD + 4
    oracle.go_on(tmp_path / "out", found)
    record("random kills", counts)
    assert counts["killed"] >= 15


@pytest.mark.deep
def test_the_command_goes_on_after_a_kill(tmp_path):
    """The real command with a real base, killed once a shard is there."""
    slices = write_phantoms(tmp_path / "slices", patients_per_class=20, size=48)
    output = tmp_path / "features.h5"
    options = ["--backbone", "mobilenet-0.75", "--weights", "random", "--size", "32", "--json"]
    command = ["extract", str(slices), "-o", str(output), *options, "--batch-size", "1"]
    script = (
        "import sys; from brainfeat.cli import main; "
        "from brainfeat.extraction import shard_writer; "
        "shard_writer.CHUNK_ROWS = 8; main(sys.argv[1:])"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, *command],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as killed:
        while not shard_paths(parts_folder(output)):
            assert killed.poll() is None, killed.stderr.read()
            time.sleep(0.01)
        killed.kill()
        killed.wait()
    assert not output.exists()
    there = len(rows_of_shards(parts_folder(output)))
    done = subprocess.run(
        [sys.executable, "-m", "brainfeat", *command], capture_output=True, text=True, check=True
    )
    told = json.loads(done.stdout)
    assert 0 < told["computed"] == told["rows"] - there
    assert sorted(path.name for path in tmp_path.iterdir()) == ["features.h5", "slices"]
