"""Tests of joined caches: what is matched, what is refused, and what reads as one cache."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from brainfeat import FeatureCache
from brainfeat.cache.groups import read_groups
from brainfeat.cache.joined import GroupJoin, ImageJoin, join_specs
from brainfeat.cache.joined_rows import JoinedArray
from brainfeat.cache.joining import join_caches
from brainfeat.errors import (
    BrainfeatError,
    CacheError,
    ParameterError,
    SpecMismatchError,
    TableError,
)
from tests.support.caches import draw_signatures, write_vectors

CLASSES = ("glioma", "notumor")


def write(folder: Path, name: str, units: str, width: int = 3, **changes: Any) -> Path:
    """Write a cache with a row for each letter, which is its group; small letters are glioma."""
    names = units.split()
    rng = np.random.default_rng(len(units) + width)
    given: dict[str, Any] = {
        "class_names": CLASSES,
        "groups": names,
        "paths": [f"{row}.png" for row in range(len(names))],
        "contents": [f"{name}{row}" for row in range(len(names))],
        **changes,
    }
    y = given.pop("y", [int(group < "c") for group in names])
    X = given.pop("X", rng.normal(size=(len(names), width)))
    return write_vectors(folder, X, y, name=f"{name}.h5", **given)


def test_groups_read_as_one_cache(tmp_path: Path) -> None:
    t1 = write(tmp_path, "t1", "a a b c", sources=["x"] * 4, splits=["train"] * 3 + ["test"])
    flair = write(
        tmp_path,
        "flair",
        "c a d",
        width=2,
        class_names=CLASSES[::-1],
        y=[1, 0, 1],
        splits=["test", "train", "train"],
        sources=["x", "y", "y"],
    )
    with join_caches([t1, flair]) as joined:
        assert isinstance(joined, GroupJoin)
        assert joined.names == ("t1", "flair")
        assert joined.widths == (3, 2)
        assert joined.class_names == CLASSES
        assert joined.y.tolist() == [1, 1, 1, 0, 0, 1, 0]
        assert joined.groups.tolist() == ["a", "a", "b", "c", "c", "a", "d"]
        assert joined.sources.tolist() == ["x"] * 5 + ["y"] * 2
        assert joined.block.tolist() == [0, 0, 0, 0, 1, 1, 1]
        assert len(joined) == len(joined.sha256) == 7
        assert joined.mask("test").nonzero()[0].tolist() == [3, 4]
        assert joined.paths[[0, 4]].tolist() == ["t1/0.png", "flair/0.png"]
        assert len(set(joined.image_ids(np.arange(7)))) == 7
        groups = read_groups(joined, np.flatnonzero(joined.mask()))
        assert groups.names.tolist() == ["a", "b", "c", "d"]
        assert groups.rows_of(np.array([0])).tolist() == [0, 1, 5]
        assert groups.splits.tolist() == ["train", "train", "test", "train"]
        with pytest.raises(CacheError, match="features of different blocks"):
            _ = joined.X
        with pytest.raises(CacheError, match="assign one to each"):
            joined.assign({})
        stored = joined.caches[1]
    with pytest.raises(BrainfeatError, match="closed"):
        _ = stored.X[:]


def test_an_open_cache_stays_open(tmp_path: Path) -> None:
    paths = [write(tmp_path, "t1", "a c"), write(tmp_path, "flair", "a c", width=2)]
    with FeatureCache.open(paths[0]) as cache:
        join_caches([cache, paths[1]]).close()
        assert cache.X[:].shape == (2, 3)


def test_what_identifies_a_join_is_names_and_contents(tmp_path: Path) -> None:
    paths = [write(tmp_path, "t1", "a c"), write(tmp_path, "flair", "a c", width=2)]
    with join_caches(paths) as one, join_caches(paths, names=["x", "y"]) as other:
        assert one.content_sha256 != other.content_sha256
        assert one.fingerprint != other.fingerprint
        specs = [cache.spec for cache in one.caches]
        assert one.spec == join_specs(["t1", "flair"], specs)
        assert one.fingerprint != join_specs(["t1", "flair"], specs[::-1]).fingerprint


def test_signatures_of_all_or_none(tmp_path: Path) -> None:
    signatures = draw_signatures(5)
    t1 = write(tmp_path, "t1", "a b c", signature=signatures[:3])
    flair = write(tmp_path, "flair", "a c", signature=signatures[3:])
    bare = write(tmp_path, "bare", "a c")
    with join_caches([t1, flair]) as joined:
        assert isinstance(joined.signature, JoinedArray)
        assert np.array_equal(joined.signature, signatures)
        for key in (np.array([4, 0, 3]), slice(2, 4), signatures[:, 0] > 0, 4):
            assert np.array_equal(joined.signature[key], signatures[key])
    with join_caches([t1, bare]) as joined:
        assert joined.signature is None


def test_images_are_matched_by_content(tmp_path: Path) -> None:
    X = np.arange(12, dtype=np.float32).reshape(4, 3)
    X[2] = X[1]
    contents = ["p", "q", "q", "r"]
    one = write(tmp_path, "one", "a b b c", X=X, contents=contents, paths=list("1234"))
    order = [2, 3, 0, 1]
    two = write(
        tmp_path,
        "two",
        "b c a b",
        X=X[order, :2] + 100,
        y=[1, 0, 1, 1],
        contents=[contents[row] for row in order],
        paths=[list("1234")[row] for row in order],
        backbone="mobilenet",
    )
    with join_caches([one, two], on="image", names=["a", "b"]) as joined:
        assert isinstance(joined, ImageJoin)
        expected = np.hstack([X, X[:, :2] + 100])
        assert np.array_equal(joined.X, expected)
        assert np.array_equal(joined.X[[3, 1]], expected[[3, 1]])
        assert joined.X.shape == (4, joined.spec.n_features) == (4, 5)
        assert joined.paths.tolist() == list("1234")
        assert joined.y.tolist() == [1, 1, 1, 0]


def refuse_images(folder: Path, **changes: Any) -> list[Path]:
    one = write(folder, "one", "a b c", contents=list("pqr"))
    two = write(folder, "two", "a b c", **{"contents": list("pqr"), "width": 2, **changes})
    return [one, two]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"contents": list("pqx")}, "two.h5 lacks 1 of the 3 images and views of .*, and has 1"),
        ({"contents": list("pqq")}, "two.h5 lacks 1 of the 3 .*, and has 1 that are not there"),
        ({"view": [0, 0, 1]}, "two.h5 lacks 1 of the 3 images and views"),
        ({"y": [0, 1, 0]}, "another class in .*first: 0.png, 'notumor' and 'glioma'"),
        ({"splits": ["train", "test", "train"]}, "has splits and .* has none"),
        ({"origin": [0, 0, 1]}, r"1 image.* another origin .*, '' and 'generated'\)"),
        ({"groups": list("abx")}, r"1 image.* another group .*first: 2.png, 'c' and 'x'"),
        ({"width": 3, "X": np.ones((3, 3))}, "features of the same spec"),
    ],
)
def test_other_images_are_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises((CacheError, TableError, SpecMismatchError), match=message):
        join_caches(refuse_images(tmp_path, **changes), on="image")


def test_images_that_are_missing_in_the_first_are_counted(tmp_path: Path) -> None:
    one = write(tmp_path, "one", "a c", contents=list("pr"))
    two = write(tmp_path, "two", "a b c", contents=list("pqr"), width=2)
    with pytest.raises(CacheError, match=r"one.h5 lacks 1 of the 3 images and views of .*two"):
        join_caches([one, two], on="image")


Prepare = Callable[[Path], dict[str, Any]]


def two_caches(**changes: Any) -> Prepare:
    """Prepare T1 and FLAIR, the latter with changes."""

    def prepare(folder: Path) -> dict[str, Any]:
        flair = {"units": "a b c", "width": 2, **changes}
        names = flair.pop("names", None)
        paths = [write(folder, "t1", "a b c"), write(folder, flair.pop("name", "flair"), **flair)]
        return {"caches": paths, "names": names}

    return prepare


@pytest.mark.parametrize(
    ("prepare", "error", "message"),
    [
        (
            lambda folder: {"caches": [write(folder, "t1", "a c")]},
            ParameterError,
            "one cache alone",
        ),
        (two_caches(names=["t1", "t1"]), ParameterError, "t1 is the name of several blocks"),
        (two_caches(names=["t1"]), ParameterError, "1 name for 2 caches"),
        (two_caches(names=["t1", "a=b"]), ParameterError, "'a=b' is no name of a block"),
        (two_caches(units="d e f"), TableError, "shares none of its 3 groups .* same patient key"),
        (
            two_caches(class_names=("Glioma", "notumor")),
            TableError,
            "the class 'Glioma', .*expected the same names",
        ),
        (two_caches(splits=["train"] * 3), TableError, "has splits and .* has none"),
        (two_caches(y=[-1] * 3), TableError, "flair.h5 has no labelled images"),
    ],
)
def test_what_is_refused(
    tmp_path: Path, prepare: Prepare, error: type[BrainfeatError], message: str
) -> None:
    with pytest.raises(error, match=message):
        join_caches(**prepare(tmp_path))


def test_images_without_a_group_are_refused(tmp_path: Path) -> None:
    t1, flair = write(tmp_path, "t1", "a b"), write(tmp_path, "flair", "a b", groups=["a", ""])
    with pytest.raises(TableError, match=r"flair.h5 has 1 labelled image of 2 without a group"):
        join_caches([t1, flair])


def test_the_same_cache_twice_is_refused(tmp_path: Path) -> None:
    t1 = write(tmp_path, "t1", "a b c")
    with pytest.raises(CacheError, match="have the same content"):
        join_caches([t1, t1], names=["a", "b"])
    joined = join_caches([t1, write(tmp_path, "flair", "a b")])
    with joined, pytest.raises(CacheError, match="is a join"):
        join_caches([joined, t1])


def test_another_word_for_on_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match="group or image, got 'patient'"):
        join_caches([tmp_path, tmp_path], on="patient")


def test_contradictions_between_caches_are_named(tmp_path: Path) -> None:
    t1 = write(tmp_path, "t1", "a b c", splits=["train", "train", "test"])
    other = write(tmp_path, "other", "a b c", y=[0, 1, 0], splits=["train"] * 3, width=2)
    moved = write(tmp_path, "moved", "a b c", splits=["train"] * 3, width=2)
    with join_caches([t1, other]) as joined, pytest.raises(TableError, match=r"'a', .*glioma"):
        read_groups(joined, np.flatnonzero(joined.mask()))
    with join_caches([t1, moved]) as joined, pytest.raises(TableError, match="'c', in 'test'"):
        read_groups(joined, np.flatnonzero(joined.mask()))
