"""Verification: everything that is wrong with a file is listed, and nothing else."""

import json

import numpy as np
import pytest

from brainfeat.cache.cache import FeatureCache
from brainfeat.cache.schema import Measured
from brainfeat.cache.shards import parts_folder, write_shard
from brainfeat.cli.wording import find_option, name_options
from brainfeat.heads.bundle import HeadBundle
from brainfeat.training.fitting import fit_head
from brainfeat.verification import find_problems

ROWS, WIDTH = 3000, 8


@pytest.fixture
def cache(make_cache):
    rng = np.random.default_rng(0)
    y = np.arange(ROWS) % 4
    return make_cache(rng.normal(size=(ROWS, WIDTH)) + y[:, None], y)


@pytest.fixture
def shard(cache):
    with FeatureCache.open(cache) as opened:
        return write_shard(
            parts_folder(cache),
            spec=opened.spec,
            augmentation=None,
            features=np.ones((2, WIDTH), np.float32),
            sha256=[b"a" * 32, b"b" * 32],
            view=[0, 0],
            measured=[Measured(width=8, height=8, channels=1, file_bytes=64)] * 2,
        )


def flip(path, place):
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


def find(path, values):
    """Find where a float of a file lies."""
    return path.read_bytes().index(np.float32(values).tobytes())


def test_an_intact_cache_shard_and_head_have_no_problems(cache, shard, tmp_path):
    head = fit_head(cache, head="lda").save(tmp_path / "head.h5")
    assert [find_problems(path) for path in (cache, shard, head)] == [[], [], []]


def test_the_rows_of_a_damaged_chunk_are_named(cache):
    with FeatureCache.open(cache) as opened:
        value = opened.X[1500][3]
    flip(cache, find(cache, value))
    problems = find_problems(cache)
    assert len(problems) == 2
    assert "its SHA-256 is not the one it was written with" in problems[0]
    assert f"{cache}: features, rows 1,024 to 2,047: cannot be read" in problems[1]


def test_damage_that_no_checksum_of_a_chunk_covers_is_found(cache):
    data = cache.read_bytes()
    flip(cache, data.index(b"image-00007.png"))
    problems = find_problems(cache)
    assert "its SHA-256 is not the one it was written with" in problems[0]
    assert problems[1] == f"{cache}: the digest of its content is not its content_sha256"


def test_a_damaged_shard_beside_a_cache_is_named(cache, shard):
    flip(shard, -1)
    assert find_problems(cache)
    assert all(str(shard) in problem for problem in find_problems(cache))


def test_values_that_are_not_finite_are_named(make_cache):
    X = np.ones((5, WIDTH))
    X[4, 2] = np.nan
    path = make_cache(X, np.zeros(5))
    assert find_problems(path) == [f"{path}: features, rows 0 to 4: values that are not finite"]


def test_a_damaged_head_is_named(cache, tmp_path):
    head = fit_head(cache, head="lda").save(tmp_path / "head.h5")
    flip(head, -1)
    assert f"{head}: damaged or truncated" in find_problems(head)[0]


@pytest.mark.parametrize("content", [b"", b"nonsense" * 1000])
def test_a_file_of_another_program_is_named(tmp_path, content):
    path = tmp_path / "other.h5"
    path.write_bytes(content)
    (problem,) = find_problems(path)
    assert "not a file that brainfeat wrote" in problem


@pytest.mark.parametrize("size", [0, 100, 512, 5000, -1])
def test_a_truncated_cache_is_named(cache, size):
    cache.write_bytes(cache.read_bytes()[:size])
    assert find_problems(cache)


class TestCommands:
    """The same on the command line."""

    def test_info_lists_what_is_wrong(self, run, cache):
        assert run("info", cache, "--verify").code == 0
        flip(cache, cache.read_bytes().index(b"image-00007.png"))
        result = run("info", cache, "--verify")
        assert result.code == 1
        assert result.out.splitlines() == [
            name_options(line, find_option) for line in find_problems(cache)
        ]
        result = run("info", cache, "--verify", "--json")
        assert result.code == 1
        assert '"whole": false' in result.out

    def test_info_knows_each_file_by_its_format(self, run, cache, shard, tmp_path):
        head = fit_head(cache, head="lda").save(tmp_path / "head.h5")
        kinds = [json.loads(run("info", path, "--json").out)["kind"] for path in (cache, head)]
        assert kinds == ["feature cache", "fitted head"]
        assert "not a brainfeat-features file" in run("info", shard).err
        flip(head, -1)
        assert "fit it again" in run("info", head).err

    @pytest.mark.slow
    @pytest.mark.parametrize(("verify", "code"), [("full", 1), ("off", 0)])
    def test_a_reader_may_trust_a_file(self, run, cache, tmp_path, verify, code):
        head = fit_head(cache, head="lda").save(tmp_path / "head.h5")
        flip(cache, cache.read_bytes().index(b"image-00007.png"))
        fit = run("fit-head", cache, "-o", tmp_path / "h.h5", "--head", "lda", "--verify", verify)
        measured = run("evaluate", head, cache, "--split", "all", "--verify", verify)
        assert (fit.code, measured.code) == (code, code)
        assert HeadBundle.load(head).head == "lda"
