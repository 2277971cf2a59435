"""Caches against each other: their copies, and labels that contradict."""

import csv
import json
import re
from functools import partial

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.caches import write_vectors
from support.signed import sign, write_signed

from brainfeat import FeatureCache, audit_between
from brainfeat.cache import writing
from brainfeat.cache.signature import ORIENTATIONS
from brainfeat.errors import CacheError, CacheFormatError, ParameterError
from brainfeat.leakage import matching
from brainfeat.leakage.copies import find_copies
from brainfeat.leakage.cross_audit import CrossAudit, list_cross_pairs
from brainfeat.leakage.matching import match_caches
from brainfeat.leakage.results import LabelConflict

QUARTER = ORIENTATIONS.index("rotate_90")


@pytest.fixture
def make(tmp_path):
    """Give a function that writes a cache of images, of which it is said what they show."""
    return partial(write_signed, tmp_path)


def overlap_of(*caches):
    (overlap,) = audit_between(caches).overlaps
    return overlap


def count(side):
    return (side.images, side.exact_duplicates, side.copies, dict(side.by_orientation))


# Copies between caches


def test_copies_between_caches_are_counted_on_both_sides(make):
    a = make("a", ["0", "1", "2", "3", "3"], contents=["x", "a1", "a2", "a3", "a4"])
    b = make("b", ["0", "1/1", "2/5", "4", "2/1", "0"], contents=["x", *"bcdef"], input_size=299)
    found = overlap_of(a, b)
    assert (found.first.cache, found.second.cache) == (str(a), str(b))
    # Image 2 of a has two copies that are as similar, and the less turned one counts.
    assert count(found.first) == (5, 1, 3, {"upright": 1, "flip_left_right": 2})
    assert count(found.second) == (
        6,
        1,
        5,
        {"upright": 2, "flip_left_right": 2, "rotate_90": 1},
    )
    assert not found.same_images
    assert found.label_conflicts == ()


def test_copies_within_a_cache_are_no_matter(make):
    found = overlap_of(make("a", ["0", "0", "1/1", "1"]), make("b", ["2", "2/1"]))
    assert count(found.first) == (4, 0, 0, {})
    assert count(found.second) == (2, 0, 0, {})
    assert audit_between([make("c", ["0", "0"]), make("d", ["1"])]).findings == []


def test_blank_images_are_exact_duplicates_but_no_copies(make):
    a = make("a", ["", "0", ""], contents=["blank", "a", "blank"])
    b = make("b", ["", "1"], contents=["blank", "b"])
    found = overlap_of(a, b)
    assert count(found.first) == (3, 2, 0, {})
    assert count(found.second) == (2, 1, 0, {})


def test_each_two_of_several_caches_are_compared(make):
    caches = [make("a", ["0", "1"]), make("b", ["0/1", "2"]), make("c", ["1/2", "2/3", "0"])]
    overlaps = audit_between(caches).overlaps
    assert [(o.first.cache, o.second.cache) for o in overlaps] == [
        (str(caches[i]), str(caches[j])) for i, j in ((0, 1), (0, 2), (1, 2))
    ]
    assert [(o.first.copies, o.second.copies) for o in overlaps] == [(1, 1), (2, 2), (2, 2)]


def test_contents_that_only_the_largest_cache_has_are_not_compared_with_each_other(
    make, monkeypatch
):
    searched = []

    def count(signatures, *, n_queries):
        searched.append((len(signatures), n_queries))
        return find_copies(signatures, n_queries=n_queries)

    monkeypatch.setattr(matching, "find_copies", count)
    a = make("a", ["0", "1/1", "2", "2", "3"], contents=["x", "a", "y", "y", "b"])
    b = make("b", ["0", "1"], contents=["x", "c"])
    for pair in ((a, b), (b, a)):
        found = overlap_of(*pair)
        assert {found.first.copies, found.second.copies} == {2}
    assert searched == [(5, 2)] * 2


def test_views_are_no_images(make):
    a = make("a", ["0", "1"], view=[0, 1], contents=["a", "a"])
    b = make("b", ["1", "0"])
    found = overlap_of(a, b)
    assert (found.first.images, found.first.copies, found.second.copies) == (1, 1, 1)


def test_labels_that_contradict_are_named_by_class_and_orientation(make):
    a = make(
        "a",
        ["0", "1", "2", "3", "4", "5"],
        contents=["x", *"abcde"],
        labels=["glioma", "glioma", "notumor", "", "pituitary", "glioma"],
    )
    b = make(
        "b",
        ["0", f"1/{QUARTER}", "2/1", "3", "4", "6"],
        contents=["x", *"ABCDE"],
        labels=["meningioma", "tumour", "notumor", "tumour", "", "meningioma"],
        class_names=("meningioma", "notumor", "tumour"),
    )
    expected = (
        LabelConflict(
            kind="exact-duplicates",
            paths=("a-0.png", "b-0.png"),
            labels=("glioma", "meningioma"),
        ),
        LabelConflict(
            kind="copies",
            paths=("a-1.png", "b-1.png"),
            labels=("glioma", "tumour"),
            orientation="rotate_270",
        ),
    )
    assert overlap_of(a, b).label_conflicts == expected
    turned = overlap_of(b, a).label_conflicts[1]
    assert (turned.paths, turned.labels) == (("b-1.png", "a-1.png"), ("tumour", "glioma"))
    assert turned.orientation == "rotate_90"


def test_many_files_of_one_content_are_one_conflict(make):
    a = make("a", ["0"] * 40, contents=["x"] * 40, labels=["glioma"] * 20 + ["notumor"] * 20)
    b = make("b", ["0/1"] * 30, contents=["y"] * 30, labels=["glioma"] * 30)
    found = overlap_of(a, b)
    assert (found.first.copies, found.second.copies) == (40, 30)
    assert [conflict.paths for conflict in found.label_conflicts] == [("a-20.png", "b-0.png")]


def test_two_caches_of_the_same_images_are_told(make):
    a = make("a", ["0", "1", "1"], contents=["x", "y", "y"])
    b = make("b", ["1", "0"], contents=["y", "x"], backbone="mobilenet")
    found = audit_between([a, b])
    assert found.overlaps[0].same_images
    assert found.findings == [f"{a} and {b} are caches of the same images"]
    c = make("c", ["1", "0", "2"], contents=["y", "x", "z"])
    assert not overlap_of(a, c).same_images


def test_findings_are_sentences(make):
    a = make("a", ["0", "1", "2"], contents=["x", "y", "z"], labels=["glioma", "glioma", ""])
    b = make("b", ["0", "1/1"], contents=["x", "w"], labels=["glioma", "notumor"])
    assert audit_between([a, b]).findings == [
        f"{a} and {b} have different labels for 1 pair of copies",
        f"exact duplicates are in both caches: 1 of 3 images of {a}, 1 of 2 images of {b}",
        (
            f"copies are in both caches: 2 of 3 images of {a}, 2 of 2 images of {b}; 1 of the "
            "former mirrored or turned"
        ),
    ]


def test_the_audit_comes_back_from_json(make):
    a = make("a", ["0", "1"], labels=["glioma", "glioma"])
    b = make("b", ["0/1", "1"], labels=["notumor", ""])
    found = audit_between([a, b])
    text = json.dumps(found.to_dict(), allow_nan=False)
    assert CrossAudit.from_json(text) == found
    assert CrossAudit.from_json(text).findings == found.findings == json.loads(text)["findings"]


@given(
    first=st.lists(st.sampled_from(["0", "1", "1/1", "2/6", ""]), min_size=1, max_size=8),
    second=st.lists(st.sampled_from(["0", "0/3", "1", "2", "5"]), min_size=1, max_size=8),
    shared=st.lists(st.integers(0, 7), max_size=4),
)
def test_pairs_are_all_images_that_show_the_same(tmp_path_factory, first, second, shared):
    """Against a plain comparison of each two images."""
    folder, first, second = tmp_path_factory.mktemp("pairs"), list(first), list(second)
    contents = [[f"a{row}" for row in range(len(first))], [f"b{row}" for row in range(len(second))]]
    for row in shared:
        if row < min(len(first), len(second)):
            second[row], contents[1][row] = first[row], contents[0][row]
    paths = [
        write_vectors(
            folder,
            np.zeros((len(shows), 4)),
            np.full(len(shows), -1),
            name=f"{name}.h5",
            contents=held,
            signature=np.array([sign(what) for what in shows]),
        )
        for name, shows, held in zip("ab", (first, second), contents, strict=True)
    ]
    with FeatureCache.open(paths[0]) as a, FeatureCache.open(paths[1]) as b:
        pairs = list(list_cross_pairs(match_caches([a, b])))
    told = [(pair.first, pair.second, pair.kind) for pair in pairs]
    expected = {
        (
            f"image-{i:05}.png",
            f"image-{j:05}.png",
            "exact-duplicates" if contents[0][i] == contents[1][j] else "copies",
        )
        for i, one in enumerate(first)
        for j, other in enumerate(second)
        if contents[0][i] == contents[1][j] or (one and one.split("/")[0] == other.split("/")[0])
    }
    assert len(told) == len(set(told))
    assert set(told) == expected


# What cannot be compared


def test_one_file_is_not_compared_with_itself(make, tmp_path):
    path = make("a", ["0", "1"])
    (tmp_path / "link.h5").symlink_to(path)
    (tmp_path / "hard.h5").hardlink_to(path)
    for other in (path, tmp_path / "link.h5", tmp_path / "hard.h5"):
        with pytest.raises(ParameterError, match="are the same file; expected different caches"):
            audit_between([path, make("b", ["0"]), other])
    with FeatureCache.open(path) as cache, pytest.raises(ParameterError, match="the same file"):
        audit_between([cache, cache])


@pytest.mark.parametrize("number", [0, 1])
def test_fewer_than_two_caches(make, number):
    with pytest.raises(ParameterError, match=f"{number} caches; expected two or more"):
        audit_between([make("a", ["0"])][:number])


def test_a_cache_without_signatures_says_how_to_add_them(make, make_cache):
    plain, signed = make_cache(np.zeros((2, 4)), [0, 1], groups=["p", "p"]), make("a", ["0"])
    message = re.escape(
        f"{plain} has no signatures, by which copies are found; run brainfeat extract"
    )
    with pytest.raises(CacheError, match=message):
        audit_between([signed, plain])


def test_signatures_of_another_version_are_refused(make):
    one, other = make("a", ["0"]), make("b", ["0"])
    with h5py.File(other, "r+", libver=("earliest", "v108")) as file:
        file.attrs["signature_version"] = 2
    writing.seal(other)
    with pytest.raises(CacheFormatError, match="signatures of version 2"):
        audit_between([one, other])


def test_a_cache_without_images(make):
    with pytest.raises(CacheError, match="has no images to look at"):
        audit_between([make("a", ["0"]), make("b", ["0"], view=[1])])


def test_another_pooling_is_compared_by_signatures(make):
    found = overlap_of(make("a", ["0"]), make("b", ["0/1"], pooling="max"))
    assert found.first.copies == 1


# The command


def refused(result, *words, code=1):
    assert result.code == code, result
    assert result.out == ""
    if code == 1:
        assert len(result.err.splitlines()) == 1
    for word in words:
        assert word in result.err


class TestCommand:
    def test_it_prints_a_table_of_both_sides_and_what_was_found(self, run, make):
        a = make("a", ["0", "1", "2"], labels=["glioma", "glioma", ""])
        b = make("b", ["0/1", "1"], labels=["glioma", "notumor"])
        result = run("audit", a, b)
        assert result.code == 0
        lines = [line.split() for line in result.out.splitlines()]
        assert ["with", "a", "copy", "in", "the", "other", "2", "2"] in lines
        assert ["flip", "left", "right", "1", "1"] in lines
        assert "label conflicts: 1\n  upright: a-1.png (glioma), b-1.png (notumor)" in result.out
        assert "Copies within one cache were not looked for" in result.out
        assert "copies are in both caches: 2 of 3 images" in result.out.split("Found:")[1]

    def test_more_conflicts_are_left_to_json(self, run, make):
        shows = [str(number) for number in range(8)]
        a = make("a", shows, labels=["glioma"] * 8)
        b = make("b", shows, labels=["notumor"] * 8)
        assert "  and 3 more, which --json lists" in run("audit", a, b).out
        (overlap,) = json.loads(run("audit", a, b, "--json").out)["overlaps"]
        assert len(overlap["label_conflicts"]) == 8

    def test_strict_ends_with_3_where_a_copy_is_found(self, run, make):
        a, b, c = make("a", ["0", "1"]), make("b", ["0/1"]), make("c", ["2"])
        assert run("audit", a, b, "--strict").code == 3
        clean = run("audit", a, c, "--strict")
        assert (clean.code, "Nothing was found." in clean.out) == (0, True)
        assert run("audit", a, c, b, "--strict").code == 3

    def test_pairs_go_to_a_csv(self, run, make, tmp_path):
        a = make("a", ["0", "1"], contents=["x", "a"], labels=["glioma", ""], splits=["test"] * 2)
        b = make("b", ["1/1", "0"], contents=["b", "x"], labels=["notumor", "glioma"])
        target = tmp_path / "pairs.csv"
        assert run("audit", a, b, "--pairs", target).code == 0
        with target.open(newline="") as file:
            exact, turned = csv.DictReader(file)
        assert exact == {
            "cache_first": str(a),
            "cache_second": str(b),
            "first": "a-0.png",
            "second": "b-1.png",
            "kind": "exact-duplicates",
            "similarity": "1.0",
            "orientation": "upright",
            "split_first": "test",
            "split_second": "",
            "label_first": "glioma",
            "label_second": "glioma",
        }
        assert (turned["kind"], turned["orientation"]) == ("copies", "flip_left_right")
        refused(run("audit", a, b, "--pairs", target), "--overwrite")
        assert run("audit", a, b, "--pairs", target, "--overwrite").code == 0
        assert run("audit", a, "--pairs", target, "--overwrite").code == 0

    @pytest.mark.parametrize(
        "option", [("--table", "t.csv"), ("--threshold", "0.9"), ("--random-state", "1")]
    )
    def test_options_of_one_file_are_refused_with_several(self, run, make, option):
        result = run("audit", make("a", ["0"]), make("b", ["0"]), *option)
        refused(result, option[0], "cannot be used with several FEATURES", code=2)

    def test_bad_input_is_one_line(self, run, make, make_cache, saved, tmp_path):
        a, plain = make("a", ["0"]), make_cache(np.zeros((2, 4)), [0, 1])
        refused(run("audit", a, a), "are the same file")
        refused(run("audit", a, plain), str(plain), "has no signatures", "run brainfeat extract")
        refused(run("audit", a, tmp_path / "no.h5"), "no.h5", "does not exist")
        refused(run("audit", saved["svm"], a), "not a brainfeat-features file")
        refused(run("audit", "--json"), "FEATURES", code=2)

    def test_the_same_images_are_told_in_plain_words(self, run, make):
        a, b = make("a", ["0"], contents=["x"]), make("b", ["0"], contents=["x"])
        assert f"{a} and {b} are caches of the same images" in run("audit", a, b).out
