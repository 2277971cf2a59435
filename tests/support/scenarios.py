"""The runs into which faults are injected, and the checks of what they leave."""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from brainfeat.cache.shards import parts_folder
from brainfeat.extraction.extractor import extract
from brainfeat.heads.bundle import HeadBundle
from brainfeat.tables.table import read_table
from support import faults
from support.faults import Outcome, Server, contents, draw, known_features, rows_of, rows_of_shards
from support.powercut import files_in

CLASSES = ("glioma", "notumor", "pituitary")
OUTPUT = "features.h5"


@dataclass(frozen=True)
class Scenario:
    """What a run finds, does, and is to leave."""

    task: str
    start: Path | None
    options: dict
    output: str
    whole: Path

    @property
    def images(self) -> Path:
        return Path(self.options["images"])

    def request(self, **changes: Any) -> dict[str, Any]:
        """Ask a server for this run."""
        asked = {"task": self.task, "options": self.options, **changes}
        return asked if self.start is None else {**asked, "start": str(self.start)}


@dataclass
class Bench:
    """The server, the runs that it is to break, and the features of all their images."""

    server: Server
    scenarios: dict[str, Scenario]
    features: dict[bytes, bytes]
    oracles: "dict[str, Oracle]" = field(default_factory=dict)

    def run(self, name: str, **changes: Any) -> Outcome:
        """Do one scenario, disturbed as `changes` say."""
        return self.server.run(**self.scenarios[name].request(**changes))

    def run_all(self, name: str, changes: Iterable[dict[str, Any]]) -> Iterator[Outcome]:
        """Do one scenario many times."""
        return self.server.run_all([self.scenarios[name].request(**it) for it in changes])

    def oracle(self, name: str) -> "Oracle":
        if name not in self.oracles:
            self.oracles[name] = Oracle(self.scenarios[name], self.features)
        return self.oracles[name]


@contextmanager
def open_bench(work: Path) -> Iterator[Bench]:
    """Start a server and make the scenarios."""
    (work / "runs").mkdir()
    server = Server(work / "runs")
    try:
        scenarios = make_scenarios(work, server)
        yield Bench(server, scenarios, known_features(*work.glob("images*")))
    finally:
        server.close()


def make_scenarios(work: Path, server: Server) -> dict[str, Scenario]:
    """Draw the images, and make what each run is to find and to leave."""
    images, more, moved = work / "images", work / "images-more", work / "images-moved"
    for seed in range(12):
        draw(images / CLASSES[seed % 3] / f"{seed}.png", seed)
    shutil.copytree(images, more)
    for seed in range(12, 17):
        draw(more / CLASSES[seed % 3] / f"{seed}.png", seed)
    (more / "glioma/0.png").unlink()
    (more / "glioma/3.png").rename(more / "pituitary/renamed.png")
    shutil.copytree(images, moved)
    (moved / "notumor/1.png").rename(moved / "pituitary/1.png")
    wholes = {folder: work / f"whole-{folder.name}" for folder in (images, more, moved)}
    for folder, whole in wholes.items():
        whole.mkdir()
        outcome = server.run("extract", folder=str(whole), options={"images": str(folder)})
        assert outcome.code == 0, outcome
    broken = break_off(server, images)
    unsigned = work / "unsigned"
    unsigned.mkdir()
    outcome = server.run(
        "extract", folder=str(unsigned), options={"images": str(images), "signature": False}
    )
    assert outcome.code == 0, outcome
    saved = [work / f"saved-{seed}" for seed in range(2)]
    for seed, folder in enumerate(saved):
        folder.mkdir()
        faults.make_bundle(seed).save(folder / "head.h5")

    def extraction(start: Path | None, folder: Path, **options) -> Scenario:
        asked = {"images": str(folder), **options}
        return Scenario("extract", start, asked, OUTPUT, wholes[folder] / OUTPUT)

    def save(start: Path | None, **options) -> Scenario:
        return Scenario("save", start, {"seed": 1, **options}, "head.h5", saved[1] / "head.h5")

    return {
        "fresh": extraction(None, images),
        "update": extraction(wholes[images], more, overwrite=True),
        "resume": extraction(broken, images),
        "relabel": extraction(wholes[images], moved),
        "sign": extraction(unsigned, images),
        "save": save(None),
        "replace": save(saved[0], overwrite=True),
    }


def break_off(server: Server, images: Path) -> Path:
    """Kill a run before its merge, and damage one of its shards."""
    outcome = server.run(
        "extract", options={"images": str(images)}, kinds=["rename"], number=2, mode="after"
    )
    shards = sorted(parts_folder(outcome.folder / OUTPUT).glob("*.h5"))
    assert len(shards) == 3
    data = bytearray(shards[0].read_bytes())
    data[-1] ^= 1
    shards[0].write_bytes(data)
    (shards[0].parent / f".{'0' * 16}.tmp").write_bytes(b"half a sh")
    return outcome.folder


def record(name: str, counts: Mapping[str, int], every: int = 1) -> None:
    """Append the counts to the file that BRAINFEAT_COUNTS names, unless they are of a sample."""
    if every == 1 and (place := os.environ.get("BRAINFEAT_COUNTS")):
        with Path(place).open("a") as file:
            file.write(json.dumps({name: dict(counts)}) + "\n")


class Oracle:
    """What must be true of an extraction's folder after a kill or a power cut."""

    def __init__(self, scenario: Scenario, features: dict[bytes, bytes]) -> None:
        self.scenario = scenario
        self.features = features
        self.gone_on: dict[frozenset[tuple[str, bytes]], int] = {}
        self.whole = contents(scenario.whole)
        self.wanted = set(rows_of(scenario.whole))
        self.before = None
        if scenario.start is not None and (scenario.start / scenario.output).exists():
            self.before = (scenario.start / scenario.output).read_bytes()

    def look(self, folder: Path, acknowledged: set[bytes]) -> set[bytes]:
        """Check the rows that are there, and return the digests of their images."""
        output = folder / self.scenario.output
        rows = rows_of_shards(parts_folder(output))
        if self.before is None and not output.exists():
            pass
        elif self.before is None or output.read_bytes() != self.before:
            assert contents(output) == self.whole, "the output is neither the old nor the new"
            rows.update(rows_of(output))
        else:
            rows.update(rows_of(output))
        assert acknowledged <= set(rows), "an acknowledged row is lost"
        for digest, values in rows.items():
            assert self.features[digest] == values, "a row is wrong"
        return set(rows)

    def go_on_once(self, folder: Path, found: set[bytes]) -> int:
        """Run again as `go_on` does, but once from equal files: what is left there decides."""
        state = frozenset(
            (re.sub(r"[0-9a-f]{16}(?=\.tmp$)", "", name), hashlib.sha256(data).digest())
            for name, data in files_in(folder).items()
        )
        if state not in self.gone_on:
            self.gone_on[state] = self.go_on(folder, found)
        return self.gone_on[state]

    def go_on(self, folder: Path, found: set[bytes]) -> int:
        """Run again, and check that only what is missing is computed and all is as it should be."""
        output = folder / self.scenario.output
        backbone = faults.Blocks()
        options = {key: value for key, value in self.scenario.options.items() if key != "images"}
        table = read_table(self.scenario.images)
        done = extract(table, output, backbone=backbone, batch_size=1, n_jobs=1, **options)
        assert done.computed == backbone.images == len(self.wanted - found)
        assert contents(output) == self.whole
        assert list(files_in(folder)) == [self.scenario.output], "something is left over"
        return backbone.images


def which_bundle(path: Path, scenario: Scenario) -> str:
    """Return whether a bundle is the old one, byte for byte, or the complete new one."""
    if scenario.start is None and not path.exists():
        return "none"
    if scenario.start and path.read_bytes() == (scenario.start / scenario.output).read_bytes():
        return "old"
    loaded, meant = HeadBundle.load(path), faults.make_bundle(1)
    assert loaded.training == meant.training
    np.testing.assert_array_equal(
        loaded.predict_proba(meant.probe), meant.predict_proba(meant.probe)
    )
    return "new"
