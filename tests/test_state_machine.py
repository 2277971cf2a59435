"""Random histories of images, runs, kills and damage, compared with a model that fits on a page.

hypothesis generates the same histories each time; ``BRAINFEAT_HISTORIES=1000`` generates as many
others that are longer.
"""

import hashlib
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from support import faults
from support.depth import one_in
from support.faults import Blocks, Server, draw, flip, known_features, rows_of_shard, rows_of_shards
from support.scenarios import CLASSES, OUTPUT, record

from brainfeat.cache.cache import FeatureCache
from brainfeat.cache.shards import parts_folder, shard_paths
from brainfeat.errors import CacheCorruptError, CacheError, ImageReadError
from brainfeat.extraction.extractor import extract
from brainfeat.tables.table import read_table

CONTENTS = 14
HISTORIES = int(os.environ.get("BRAINFEAT_HISTORIES", "0"))

labels = st.sampled_from(CLASSES)
contents = st.integers(0, CONTENTS - 1)
picks = st.integers(0, 1000)


class Unplugged(Blocks):
    """A backbone that ends the run at some image, and knows what it computed before."""

    def __init__(self, *, at: int | None = None, error: type[BaseException] = RuntimeError) -> None:
        super().__init__()
        self.at, self.error, self.features = at, error, []

    def __call__(self, images):
        if self.images == self.at:
            raise self.error("the plug was pulled")
        features = super().__call__(images)
        self.features.append(features.tobytes())
        return features


class History(RuleBasedStateMachine):
    """The model: what each file holds, what the cache says, and which features are kept.

    `files` maps a path to the bytes of the file. `cached` is what the cache must say, a path, a
    label and a digest a row; None where there is no cache, or a damaged one. `kept` holds the
    digests of the images whose features are in the cache or in a shard: no run computes them again.
    """

    server: Server
    drawn: list[bytes]
    features: dict[bytes, bytes]
    steps: Counter[str]

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(dir=self.server.work))
        self.images = self.folder / "images"
        self.output = self.folder / "out" / OUTPUT
        self.output.parent.mkdir()
        self.files: dict[str, bytes] = {}
        self.cached: list[tuple[str, str, bytes]] | None = None
        self.rejected: list[str] = []
        self.damaged = False
        self.harmed: set[bytes] = set()
        self.kept: set[bytes] = set()
        self.made = 0

    def teardown(self) -> None:
        shutil.rmtree(self.folder)

    def count(self, step: str) -> None:
        self.steps[step] += 1

    # Images ------------------------------------------------------------------------------------

    def put(self, path: str, data: bytes) -> None:
        place = self.images / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)
        self.files[path] = data

    def take(self, path: str) -> bytes:
        place = self.images / path
        place.unlink()
        if not any(place.parent.iterdir()):
            place.parent.rmdir()
        return self.files.pop(path)

    def pick(self, pick: int) -> str:
        return sorted(self.files)[pick % len(self.files)]

    def new_name(self, label: str) -> str:
        self.made += 1
        return f"{label}/{self.made * 7919 % 1000:03}-{self.made}.png"

    @initialize(label=labels, chosen=st.lists(contents, min_size=3, max_size=9))
    def begin(self, label, chosen):
        self.add_images(label, chosen)

    @rule(label=labels, chosen=st.lists(contents, min_size=1, max_size=6))
    def add_images(self, label, chosen):
        for content in chosen:
            self.put(self.new_name(label), self.drawn[content])
        self.count("add images")

    @precondition(lambda self: self.files)
    @rule(pick=picks, label=labels)
    def add_a_duplicate(self, pick, label):
        self.put(self.new_name(label), self.files[self.pick(pick)])
        self.count("add a duplicate")

    @precondition(lambda self: self.files)
    @rule(pick=picks, label=labels)
    def change_the_label(self, pick, label):
        path = self.pick(pick)
        self.put(f"{label}/{Path(path).name}", self.take(path))
        self.count("change a label")

    @precondition(lambda self: self.files)
    @rule(pick=picks)
    def rename(self, pick):
        path = self.pick(pick)
        self.put(self.new_name(path.split("/")[0]), self.take(path))
        self.count("rename")

    @precondition(lambda self: len(self.files) > 1)
    @rule(pick=picks)
    def remove(self, pick):
        self.take(self.pick(pick))
        self.count("remove")

    @precondition(lambda self: len(self.readable()) >= len(self.files) - 1 > 1)
    @rule(pick=picks)
    def corrupt_an_image(self, pick):
        path = self.pick(pick)
        self.put(path, b"no image" + path.encode())
        self.count("corrupt an image")

    # Runs --------------------------------------------------------------------------------------

    def readable(self) -> dict[str, bytes]:
        """Give the digests of the files that are images, in the table's order."""
        digests = {path: hashlib.sha256(data).digest() for path, data in self.files.items()}
        return {path: digests[path] for path in sorted(digests) if digests[path] in self.features}

    def run(self, backbone: Blocks, **options) -> object:
        return extract(
            read_table(self.images), self.output, backbone=backbone, batch_size=1, **options
        )

    def would_drop(self) -> bool:
        cached = {digest for _, _, digest in self.cached or []}
        return not cached <= set(self.readable().values())

    def expect_success(self) -> None:
        """Bring the model to where a run has ended well."""
        rows = self.readable().items()
        self.cached = [(path, path.split("/")[0], digest) for path, digest in rows]
        self.rejected = sorted(set(self.files) - set(self.readable()))
        self.kept = set(self.readable().values())
        self.damaged = False

    @precondition(lambda self: self.files)
    @rule(n_jobs=st.integers(1, 3))
    def extract(self, n_jobs):
        self.extract_and_compare(n_jobs, overwrite=False)

    @precondition(lambda self: self.files)
    @rule(n_jobs=st.integers(1, 3))
    def extract_and_overwrite(self, n_jobs):
        self.extract_and_compare(n_jobs, overwrite=True)

    def extract_and_compare(self, n_jobs: int, *, overwrite: bool) -> None:
        backbone = Unplugged()
        missing = set(self.readable().values()) - self.kept
        if self.damaged and not overwrite:
            with pytest.raises(CacheCorruptError, match="overwrite"):
                self.run(backbone, n_jobs=n_jobs)
            assert not backbone.images
            self.count("extract: refused, damaged")
            return
        if not self.readable():
            # Rows that would be dropped are told before the images are read, if sizes tell of them.
            drops = self.would_drop() and not overwrite
            expected = (ImageReadError, CacheError) if drops else ImageReadError
            reasons = "none of the|the only image|overwrite=True to drop"
            with pytest.raises(expected, match=reasons):
                self.run(backbone, n_jobs=n_jobs, overwrite=overwrite)
            self.count("extract: refused, no image")
            return
        if self.would_drop() and not overwrite:
            with pytest.raises(CacheError, match="overwrite=True to drop"):
                self.run(backbone, n_jobs=n_jobs)
            self.count("extract: refused, rows would be dropped")
            self.kept |= missing
        else:
            done = self.run(backbone, n_jobs=n_jobs, overwrite=overwrite)
            assert done.computed == len(missing)
            assert done.rows == len(self.readable())
            self.expect_success()
            assert os.listdir(self.output.parent) == [OUTPUT]
            self.count("extract: done" if missing else "extract: done, nothing was missing")
        assert {self.features[digest] for digest in missing} == set(backbone.features)
        assert backbone.images == len(missing)

    @precondition(lambda self: self.files and not self.damaged)
    @rule(
        pick=picks,
        error=st.sampled_from([RuntimeError, KeyboardInterrupt]),
        damage=st.booleans(),
    )
    def break_a_run(self, pick, error, damage):
        missing = set(self.readable().values()) - self.kept
        if not missing:
            return
        backbone = Unplugged(at=pick % len(missing), error=error)
        with pytest.raises(error, match="plug"):
            self.run(backbone, n_jobs=1, overwrite=True)
        done = {digest for digest in missing if self.features[digest] in backbone.features}
        assert len(done) == pick % len(missing)
        self.kept |= done
        self.count("break a run")
        if damage and self.whole_shards():
            self.harm(pick, pick * 7919, pick % 8)

    @precondition(lambda self: self.files)
    @rule(number=st.integers(0, 90), mode=st.sampled_from(["before", "after"]))
    def kill_a_run(self, number, mode):
        before = self.output.read_bytes() if self.output.exists() else None
        outcome = self.server.run(
            "extract",
            folder=str(self.output.parent),
            options={"images": str(self.images), "overwrite": True},
            number=number,
            mode=mode,
        )
        assert outcome.code in (0, -9), outcome
        assert "bug" not in outcome.told, outcome
        after = self.output.read_bytes() if self.output.exists() else None
        if after != before or "value" in outcome.told:
            self.expect_success()
        found = self.look()
        assert self.kept | outcome.acknowledged <= found
        self.kept = found
        self.count("kill a run" if outcome.code else "kill a run: too late")

    def look(self) -> set[bytes]:
        """Give the digests of the images whose features are there, all of which are right."""
        rows = rows_of_shards(parts_folder(self.output))
        if self.output.exists() and not self.damaged:
            rows.update(faults.rows_of(self.output))
        assert all(self.features[digest] == values for digest, values in rows.items())
        return set(rows)

    # Damage ------------------------------------------------------------------------------------

    def whole_shards(self) -> list[Path]:
        shards = shard_paths(parts_folder(self.output))
        return [shard for shard in shards if shard.read_bytes() not in self.harmed]

    @precondition(lambda self: self.whole_shards())
    @rule(pick=picks, place=st.integers(0, 10**6), bit=st.integers(0, 7))
    def damage_a_shard(self, pick, place, bit):
        self.harm(pick, place, bit)

    def harm(self, pick: int, place: int, bit: int) -> None:
        shards = self.whole_shards()
        shard = shards.pop(pick % len(shards))
        data = shard.read_bytes()
        shard.write_bytes(flip(data, place % len(data), bit))
        self.harmed.add(shard.read_bytes())
        self.kept = {digest for _, _, digest in self.cached or []}
        for other in shards:
            self.kept |= set(rows_of_shard(other))
        self.count("damage a shard")

    @precondition(lambda self: self.output.exists() and not self.damaged)
    @rule(place=st.integers(0, 10**6), bit=st.integers(0, 7))
    def damage_the_cache(self, place, bit):
        data = self.output.read_bytes()
        # Not what tells that it is a cache at all, so that it is refused as a damaged one.
        self.output.write_bytes(flip(data, 512 + place % (len(data) - 512), bit))
        self.cached, self.damaged = None, True
        self.kept = set(rows_of_shards(parts_folder(self.output)))
        self.count("damage the cache")

    @invariant()
    def the_cache_says_what_the_model_says(self):
        assert self.output.exists() == (self.cached is not None or self.damaged)
        if self.cached is None:
            return
        with FeatureCache.open(self.output) as cache:
            digests = [row.tobytes() for row in cache.sha256]
            told = zip(cache.paths.tolist(), cache.table["label"].tolist(), digests, strict=True)
            assert list(told) == self.cached
            assert [row.tobytes() for row in cache.X[:]] == [self.features[it] for it in digests]
            assert sorted(entry.path for entry in cache.rejected) == self.rejected


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("histories"))
    yield server
    server.close()


@pytest.mark.slow
@one_in(5)
def test_no_history_loses_or_changes_a_row(every, server, tmp_path, monkeypatch):
    faults.small_shards(faults.ROWS_A_SHARD, monkeypatch.setattr)
    for seed in range(CONTENTS):
        draw(tmp_path / f"{seed}.png", seed)
    History.server = server
    History.drawn = [(tmp_path / f"{seed}.png").read_bytes() for seed in range(CONTENTS)]
    History.features = known_features(tmp_path)
    History.steps = Counter()
    run_state_machine_as_test(
        History,
        settings=settings(
            max_examples=HISTORIES or 100 // every,
            stateful_step_count=50 if HISTORIES else 25,
            derandomize=not HISTORIES,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
    record("steps of histories", History.steps, every)
    assert len(History.steps) >= 13
