"""Damaged files: all damage is detected when a file is opened, and no damaged file is used.

One bit of every byte is flipped, or without ``--deep`` of one byte in ten; files are truncated,
extended, partly filled with zeros, renamed and swapped. With ``verify="off"``, the tests count what
HDF5's own checks detect.
"""

import random
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from support import faults
from support.depth import one_in
from support.faults import ROWS_A_SHARD, Blocks, contents, draw, flip, open_bundle, open_cache
from support.powercut import files_in
from support.scenarios import CLASSES, OUTPUT, record

from brainfeat.cache.shards import list_shards, parts_folder, shard_paths
from brainfeat.errors import BundleError, CacheCorruptError, CacheError, CacheFormatError
from brainfeat.extraction.extractor import extract
from brainfeat.tables.table import read_table

IMAGES = 12
FILES = ("cache", "shard", "bundle")
REMEDIES = {
    "cache": "extract again with .*overwrite|(expected|not) a brainfeat-features file",
    "shard": "",
    "bundle": "fit-head|(expected|not) a brainfeat-head file",
}


class Broken(Blocks):
    """A backbone that ends the run with the last image."""

    def __call__(self, images):
        if self.images == IMAGES - 1:
            raise RuntimeError("the plug was pulled")
        return super().__call__(images)


def run(images: Path, output: Path, backbone: Blocks, **options):
    return extract(read_table(images), output, backbone=backbone, batch_size=1, n_jobs=1, **options)


@pytest.fixture(scope="module")
def good(tmp_path_factory) -> Path:
    """Give a folder with images, a whole cache, the shards of a broken run, and a bundle."""
    folder = tmp_path_factory.mktemp("good")
    for seed in range(IMAGES):
        draw(folder / "images" / CLASSES[seed % 3] / f"{seed}.png", seed)
    (folder / "whole").mkdir()
    (folder / "broken").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        faults.small_shards(ROWS_A_SHARD, patch.setattr)
        run(folder / "images", folder / "whole" / OUTPUT, Blocks())
        with pytest.raises(RuntimeError, match="plug"):
            run(folder / "images", folder / "broken" / OUTPUT, Broken())
    faults.make_bundle(0).save(folder / "whole" / "head.h5")
    assert len(shard_paths(parts_folder(folder / "broken" / OUTPUT))) == 3
    return folder


def path_of(good: Path, kind: str) -> Path:
    if kind == "shard":
        return shard_paths(parts_folder(good / "broken" / OUTPUT))[0]
    return good / "whole" / {"cache": OUTPUT, "bundle": "head.h5"}[kind]


@pytest.fixture(params=FILES)
def kind(request) -> str:
    return request.param


@pytest.fixture
def is_found(kind, good, tmp_path) -> Callable[[bytes], None]:
    """Give a function that fails where a damaged file is not refused as it should be."""
    original = path_of(good, kind)
    if kind == "shard":
        folder = parts_folder(tmp_path / OUTPUT)
        folder.mkdir()
        path = folder / original.name

        def check_shard(data: bytes) -> None:
            path.write_bytes(data)
            assert list_shards(folder) == []
            aside = path.with_suffix(".damaged")
            assert files_in(folder) == {aside.name: data}
            aside.unlink()

        return check_shard
    path = tmp_path / original.name
    read = open_cache if kind == "cache" else open_bundle
    errors = (CacheCorruptError, CacheFormatError) if kind == "cache" else (BundleError,)

    def check_file(data: bytes) -> None:
        path.write_bytes(data)
        with pytest.raises(errors, match=REMEDIES[kind]) as caught:
            read(path)
        assert str(caught.value).startswith(f"{path}: ")
        assert len(str(caught.value).splitlines()) == 1

    return check_file


class TestEachIsFound:
    def test_the_files_are_whole_to_begin_with(self, good):
        open_cache(path_of(good, "cache"))
        open_bundle(path_of(good, "bundle"))
        assert len(list_shards(parts_folder(good / "broken" / OUTPUT))) == 3

    @pytest.mark.slow
    @one_in(10)
    def test_one_bit_of_each_byte(self, kind, good, is_found, every):
        data = path_of(good, kind).read_bytes()
        rng = random.Random(0)
        places = range(0, len(data), every)
        for place in places:
            is_found(flip(data, place, rng.randrange(8)))
        record(f"flips, {kind}", {"found": len(places)}, every)
        assert len(data) > 2000

    def test_truncation(self, kind, good, is_found):
        data = path_of(good, kind).read_bytes()
        rng = random.Random(0)
        edges = {0, 1, 16, 511, 512, 513, 608, len(data) - 1, len(data) - 512}
        lengths = edges | set(rng.sample(range(len(data)), 60))
        for length in sorted(lengths):
            is_found(data[:length])
        record(f"truncations, {kind}", {"found": len(lengths)})

    @pytest.mark.parametrize("size", [64, 512, 4096])
    def test_zeros(self, kind, good, is_found, size):
        data = path_of(good, kind).read_bytes()
        found = 0
        for place in range(0, len(data), min(size, 256)):
            changed = data[:place] + bytes(len(data[place : place + size])) + data[place + size :]
            if changed != data:
                is_found(changed)
                found += 1
        record(f"zeros {size}, {kind}", {"found": found})
        assert found >= 10

    @pytest.mark.parametrize("tail", [b"\0", b"x", bytes(512), b"\xff" * 4096])
    def test_more_at_the_end(self, kind, good, is_found, tail):
        is_found(path_of(good, kind).read_bytes() + tail)

    def test_a_block_that_moved(self, kind, good, is_found):
        data = path_of(good, kind).read_bytes()
        is_found(data[:1024] + data[1536:2048] + data[1024:1536] + data[2048:])

    def test_a_file_of_another_kind(self, kind, good, is_found):
        for other in set(FILES) - {kind}:
            is_found(path_of(good, other).read_bytes())

    def test_a_whole_file_with_another_users_block(self, kind, good, is_found):
        """The digest of one file before the bytes of another."""
        data = path_of(good, kind).read_bytes()
        other = path_of(good, next(iter(set(FILES) - {kind}))).read_bytes()
        is_found(other[:512] + data[512:])


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["cache", "bundle"])
def test_without_verification_nothing_crashes(kind, good, tmp_path):
    """In a process of its own; what is still found is counted, and is most."""
    server = faults.Server(tmp_path)
    options = {"file": str(path_of(good, kind)), "places": 700, "seed": 0}
    try:
        outcome = server.run("probe", options=options)
    finally:
        server.close()
    assert outcome.code == 0, outcome
    counts = outcome.told.get("value")
    assert counts, outcome
    record(f"flips without verification, {kind}", counts)
    assert counts["found"] > counts["not found"]


def one_bit(shards: list[Path]) -> None:
    shards[1].write_bytes(flip(shards[1].read_bytes(), 3000, 0))


def cut_short(shards: list[Path]) -> None:
    shards[1].write_bytes(shards[1].read_bytes()[:2048])


def emptied(shards: list[Path]) -> None:
    shards[1].write_bytes(b"")


def zeroed(shards: list[Path]) -> None:
    data = shards[1].read_bytes()
    shards[1].write_bytes(data[:1024] + bytes(512) + data[1536:])


def lengthened(shards: list[Path]) -> None:
    shards[1].write_bytes(shards[1].read_bytes() + b"x")


def renamed(shards: list[Path]) -> None:
    shards[1].rename(shards[1].with_name("0" * 64 + ".h5"))


def copied_over(shards: list[Path]) -> None:
    shutil.copy(shards[0], shards[1])


@pytest.mark.parametrize(
    "damage", [one_bit, cut_short, emptied, zeroed, lengthened, renamed, copied_over]
)
def test_a_damaged_shard_costs_its_rows_alone(good, tmp_path, damage):
    shutil.copytree(good / "broken", tmp_path, dirs_exist_ok=True)
    shards = shard_paths(parts_folder(tmp_path / OUTPUT))
    rows = sorted(len(faults.rows_of_shard(shard)) for shard in shards)
    lost = len(faults.rows_of_shard(shards[1]))
    damage(shards)
    backbone = Blocks()
    done = run(good / "images", tmp_path / OUTPUT, backbone)
    assert rows == [ROWS_A_SHARD - 1, ROWS_A_SHARD, ROWS_A_SHARD]
    assert done.computed == backbone.images == lost + 1
    assert contents(tmp_path / OUTPUT) == contents(good / "whole" / OUTPUT)
    assert list(files_in(tmp_path)) == [OUTPUT]


def test_shards_that_were_swapped_cost_both(good, tmp_path):
    shutil.copytree(good / "broken", tmp_path, dirs_exist_ok=True)
    shards = shard_paths(parts_folder(tmp_path / OUTPUT))
    lost = sum(len(faults.rows_of_shard(shard)) for shard in shards[:2])
    data = [shard.read_bytes() for shard in shards[:2]]
    for shard, other in zip(shards, reversed(data), strict=False):
        shard.write_bytes(other)
    backbone = Blocks()
    assert run(good / "images", tmp_path / OUTPUT, backbone).computed == lost + 1
    assert contents(tmp_path / OUTPUT) == contents(good / "whole" / OUTPUT)


@pytest.mark.parametrize("place", [5, 100, 600, 3000, -1])
def test_a_damaged_cache_is_left_as_it_is_and_replaced_only_where_that_is_asked_for(
    good, tmp_path, place
):
    output = tmp_path / OUTPUT
    whole = good / "whole" / OUTPUT
    output.write_bytes(damaged := flip(whole.read_bytes(), place, 3))
    backbone = Blocks()
    with pytest.raises(CacheError, match=r"features\.h5"):
        run(good / "images", output, backbone)
    assert files_in(tmp_path) == {OUTPUT: damaged}
    assert backbone.images == 0
    run(good / "images", output, backbone, overwrite=True)
    assert backbone.images == IMAGES
    assert contents(output) == contents(whole)


def test_what_is_damaged_while_it_is_open_is_an_error_or_what_it_was(good, tmp_path):
    """A digest taken at opening cannot know what comes after; Fletcher-32 of the features does."""
    path = tmp_path / OUTPUT
    counts: Counter[str] = Counter()
    data = path_of(good, "cache").read_bytes()
    features = faults.rows_of(path_of(good, "cache"))
    wanted = next(iter(features.values()))
    place = data.index(wanted)
    for bit in range(8):
        path.write_bytes(data)
        with faults.FeatureCache.open(path) as cache:
            with path.open("r+b") as file:
                file.write(flip(data, place, bit))
            with pytest.raises(CacheCorruptError, match=r"features\.h5"):
                cache.X[:]
            counts["found"] += 1
    record("flips after opening", counts)
