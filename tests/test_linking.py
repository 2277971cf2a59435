"""What is known of copies in another cache is carried over, and nothing is guessed."""

import json
import re
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from support.caches import write_vectors
from support.halves import Blocks, draw
from support.signed import SHOWN, write_signed

from brainfeat import FeatureCache, extract, link_caches, read_table
from brainfeat.cache.signature import SIGNATURE_SIZE
from brainfeat.errors import CacheError, ParameterError
from brainfeat.leakage.linking import LinkConflict, LinkedColumn, LinkedCopy, Linking
from brainfeat.tables.csv_rows import read_rows


@pytest.fixture
def make(tmp_path):
    """Give a function that writes a cache of images, of which it is said what they show."""
    return partial(write_signed, tmp_path)


def test_values_of_copies_are_taken(make):
    a = make(
        "a",
        ["0", "1/1", "2/5", "3", "4"],
        contents=["x", *"abcd"],
        sources=["", "", "south", "", ""],
        splits=["test", "train", "train", "train", "val"],
        labels=["glioma", "", "glioma", "", "notumor"],
    )
    b = make(
        "b",
        ["0", "1", "2", "4", "5"],
        contents=["x", *"ABCD"],
        groups=["p0", "p1", "p2", "", "p5"],
        sources=["north"] * 5,
        labels=["glioma", "pituitary", "notumor", "", "glioma"],
        splits=["train"] * 5,
    )
    found = link_caches(a, b, take=["group", "source", "label"])
    assert found.table == {
        "path": tuple(f"a-{row}.png" for row in range(5)),
        "label": ("glioma", "pituitary", "glioma", "", "notumor"),
        "split": ("test", "train", "train", "train", "val"),
        "group": ("p0", "p1", "p2", "", ""),
        "source": ("north", "north", "south", "", "north"),
    }
    assert (found.images, found.copies, found.exact_duplicates, found.blank) == (5, 4, 1, 0)
    assert found.columns == {
        "group": LinkedColumn(taken=3, agreed=0, conflicts=0, unknown=1, without_copy=1),
        "source": LinkedColumn(taken=3, agreed=0, conflicts=1, unknown=0, without_copy=1),
        "label": LinkedColumn(taken=1, agreed=1, conflicts=1, unknown=1, without_copy=1),
    }
    assert found.conflicts == (
        LinkConflict(
            column="source",
            path="a-2.png",
            value="south",
            copies=(LinkedCopy(path="b-2.png", value="north", orientation="rotate_90"),),
        ),
        LinkConflict(
            column="label",
            path="a-2.png",
            value="glioma",
            copies=(LinkedCopy(path="b-2.png", value="notumor", orientation="rotate_90"),),
        ),
    )
    assert {conflict.reason for conflict in found.conflicts} == {"other-value"}


def test_only_the_columns_that_are_asked_for_are_taken(make):
    a = make("a", ["0"])
    b = make("b", ["0"], groups=["p"], sources=["s"], labels=["glioma"])
    found = link_caches(a, b, take=["source", "source"])
    assert list(found.columns) == ["source"]
    assert [found.table[name] for name in ("label", "group", "source")] == [("",), ("",), ("s",)]


def test_copies_that_disagree_give_nothing(make):
    a = make("a", ["0", "0/1", "1"], groups=["", "p1", ""])
    b = make("b", ["0", "0/2", "0/3", "1", "1/1"], groups=["p1", "p2", "", "p3", "p3"])
    found = link_caches(a, b, take=["group"])
    assert found.table["group"] == ("", "p1", "p3")
    assert found.columns["group"] == LinkedColumn(
        taken=1, agreed=0, conflicts=2, unknown=0, without_copy=0
    )
    first, second = found.conflicts
    assert (first.path, first.value, first.reason) == ("a-0.png", "", "copies-disagree")
    assert [(copy.path, copy.value, copy.orientation) for copy in first.copies] == [
        ("b-0.png", "p1", "upright"),
        ("b-1.png", "p2", "flip_top_bottom"),
    ]
    assert (second.path, second.value, second.reason) == ("a-1.png", "p1", "copies-disagree")


def test_exact_duplicates_count_before_copies(make):
    a = make("a", ["0", "1", "2"], contents=["x", "y", "z"])
    b = make(
        "b",
        ["0", "0/1", "1", "1/1", "2", "2", "2"],
        contents=["x", "B", "y", "C", "z", "z", "D"],
        groups=["p1", "p2", "", "p3", "p4", "p5", "p4"],
    )
    found = link_caches(a, b, take=["group"])
    assert found.table["group"] == ("p1", "p3", "")
    (conflict,) = found.conflicts
    assert conflict.copies == (
        LinkedCopy(path="b-4.png", value="p4", orientation=None),
        LinkedCopy(path="b-5.png", value="p5", orientation=None),
    )


def test_a_conflict_names_the_most_similar_copy_of_each_value(make, tmp_path):
    noise = np.random.default_rng(1).integers(-8, 9, (3, SIGNATURE_SIZE)) * [[2], [1], [0]]
    signature = (SHOWN[0] // 2 + noise).astype(np.int8)
    a = make("a", ["0"])
    b = write_vectors(
        tmp_path,
        np.zeros((3, 4)),
        np.full(3, -1),
        name="b.h5",
        signature=signature,
        groups=["p1", "p2", "p2"],
    )
    (conflict,) = link_caches(a, b, take=["group"]).conflicts
    assert [(copy.path, copy.value) for copy in conflict.copies] == [
        ("image-00002.png", "p2"),
        ("image-00000.png", "p1"),
    ]


def test_blank_images_get_nothing_even_from_exact_duplicates(make):
    a = make("a", ["", "0"], contents=["blank", "a"])
    b = make("b", ["", "0/1"], contents=["blank", "b"], groups=["p1", "p2"])
    found = link_caches(a, b, take=["group"])
    assert found.table["group"] == ("", "p2")
    assert (found.blank, found.exact_duplicates, found.copies) == (1, 0, 1)
    assert found.columns["group"].without_copy == 1


def test_a_cache_of_the_same_images_is_told(make):
    a = make("a", ["0", "1"], contents=["x", "y"])
    b = make("b", ["1", "0"], contents=["y", "x"], groups=["p1", "p0"])
    found = link_caches(a, b, take=["group"])
    assert found.same_images
    assert found.table["group"] == ("p0", "p1")


def test_the_record_comes_back_from_json_without_its_table(make):
    a = make("a", ["0", "1"], groups=["", "other"])
    b = make("b", ["0", "1/1"], groups=["p0", "p1"])
    found = link_caches(a, b, take=["group"])
    document = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert "table" not in document
    assert document["conflicts"][0]["reason"] == "other-value"
    assert Linking.from_json(json.dumps(document)) == found


def test_no_copies_at_all(make):
    found = link_caches(make("a", ["0", "1"]), make("b", ["2"], groups=["p"]), take=["group"])
    assert found.columns["group"] == LinkedColumn(
        taken=0, agreed=0, conflicts=0, unknown=0, without_copy=2
    )
    assert found.table["group"] == ("", "")


def test_caches_that_cannot_be_linked(make, make_cache):
    plain, signed = make_cache(np.zeros((2, 4)), [0, 1], groups=["p", "p"]), make("a", ["0"])
    for pair in ((signed, plain), (plain, signed)):
        with pytest.raises(CacheError, match=re.escape(f"{plain} has no signatures")):
            link_caches(*pair, take=["group"])
    with pytest.raises(ParameterError, match="are the same file"):
        link_caches(signed, signed, take=["group"])


@pytest.mark.parametrize(
    ("take", "message"),
    [
        ([], "no column to take; expected one or more of group, source, label"),
        (["group", "patient"], "unknown columns 'patient'; expected one or more of group"),
        (["split"], "a split cannot be taken, because it belongs to an experiment"),
        (["path"], "unknown columns 'path'"),
    ],
)
def test_columns_that_cannot_be_taken(make, take, message):
    with pytest.raises(ParameterError, match=message):
        link_caches(make("a", ["0"]), make("b", ["0"], groups=["p"]), take=take)


@pytest.mark.parametrize("column", ["group", "source", "label"])
def test_a_column_that_the_other_cache_does_not_know(make, column):
    known = {"group": "groups", "source": "sources", "label": "labels"}
    columns = {name: ["glioma"] for other, name in known.items() if other != column}
    with pytest.raises(CacheError, match=f"b.h5 knows the {column} of no image"):
        link_caches(
            make("a", ["0"]), make("b", ["0"], **columns), take=["group", "source", "label"]
        )


# The command


def refused(result, *words, code=1):
    assert result.code == code, result
    assert result.out == ""
    if code == 1:
        assert len(result.err.splitlines()) == 1
    for word in words:
        assert word in result.err


class TestCommand:
    @pytest.fixture
    def pair(self, make):
        a = make("a", ["0", "1", "2", ""], sources=["", "south", "", ""], splits=["train"] * 4)
        b = make("b", ["0/1", "1"], groups=["=p0", "p1"], sources=["north", "north"])
        return a, b

    def test_it_writes_a_table_that_is_read_again(self, run, pair, tmp_path):
        target = tmp_path / "linked.csv"
        result = run("link", *pair, "--take", "group, source", "-o", target)
        assert result.code == 0
        assert [(row.path, row.split, row.group, row.source) for row in read_rows(target)] == [
            ("a-0.png", "train", "=p0", "north"),
            ("a-1.png", "train", "p1", "south"),
            ("a-2.png", "train", "", ""),
            ("a-3.png", "train", "", ""),
        ]
        assert "'=p0" in target.read_text()

    def test_it_says_what_became_of_each_image(self, run, pair, tmp_path):
        result = run("link", *pair, "--take", "group,source", "-o", tmp_path / "linked.csv")
        assert "2 have a copy in" in result.out
        assert "2 have none, 1 of them blank" in result.out
        lines = [line.split() for line in result.out.splitlines()]
        assert ["group", "2", "0", "0", "0", "2"] in lines
        assert ["source", "1", "0", "1", "0", "2"] in lines
        assert "source of a-1.png: it has south; b-1.png (upright) has north" in result.out

    def test_more_conflicts_are_left_to_json(self, run, make, tmp_path):
        a = make("a", [str(n) for n in range(8)], groups=["other"] * 8)
        b = make("b", [str(n) for n in range(8)], groups=["p"] * 8)
        arguments = ("link", a, b, "--take", "group", "-o")
        assert "and 3 more, which --json lists" in run(*arguments, tmp_path / "t.csv").out
        document = json.loads(run(*arguments, tmp_path / "u.csv", "--json").out)
        assert len(document["conflicts"]) == 8

    def test_caches_of_the_same_images_are_told(self, run, make, tmp_path):
        a, b = make("a", ["0"], contents=["x"]), make("b", ["0"], contents=["x"], groups=["p"])
        printed = run("link", a, b, "--take", "group", "-o", tmp_path / "t.csv").out
        assert f"{a} and {b} are caches of the same images" in printed

    def test_another_command_takes_the_table(self, run, make, tmp_path):
        a = make("a", ["0", "1"], labels=["glioma", "notumor"])
        b = make("b", ["0", "1"], groups=["p", "p"], labels=["glioma", "glioma"])
        table = tmp_path / "linked.csv"
        assert run("link", a, b, "--take", "group", "-o", table).code == 0
        with FeatureCache.open(a) as cache:
            cache.assign({row.path: (row.split, row.group) for row in read_rows(table)})
            assert cache.groups.tolist() == ["p", "p"]

    @pytest.mark.parametrize("take", ["", ",", "group,patient", "split"])
    def test_take_must_name_columns(self, run, pair, tmp_path, take):
        result = run("link", *pair, "--take", take, "-o", tmp_path / "t.csv")
        refused(result, "--take", "expected one or more of group, source, label", code=2)
        assert not (tmp_path / "t.csv").exists()

    def test_bad_input_is_one_line(self, run, pair, make, make_cache, saved, tmp_path):
        a, b = pair
        options = ("--take", "group", "-o", tmp_path / "t.csv")
        plain = make_cache(np.zeros((2, 4)), [0, 1], groups=["p", "p"])
        refused(run("link", a, a, *options), "are the same file")
        refused(run("link", a, plain, *options), "has no signatures", "run brainfeat extract")
        refused(run("link", a, tmp_path / "no.h5", *options), "no.h5", "does not exist")
        refused(run("link", a, saved["svm"], *options), "not a brainfeat-features file")
        refused(run("link", b, a, *options), "a.h5 knows the group of no image")
        refused(run("link", a, b, *options[:2], "-o", b), "is an input of this run")
        refused(
            run("link", a, b, *options[:2], "-o", tmp_path / "no" / "t.csv"), "there is no folder"
        )
        assert not (tmp_path / "t.csv").exists()

    def test_an_existing_table_is_replaced_only_on_demand(self, run, pair, tmp_path):
        target = tmp_path / "t.csv"
        arguments = ("link", *pair, "--take", "group", "-o", target)
        target.write_text("my notes")
        refused(run(*arguments), "--overwrite")
        refused(run(*arguments, "--overwrite"), "is not a table")
        target.write_text("path,label\nx.png,\n")
        assert run(*arguments, "--overwrite").code == 0
        assert len(read_rows(target)) == 4

    def test_a_table_that_could_not_be_read_again_is_not_written(self, run, make, tmp_path):
        a = make("a", ["0", "1"], splits=["train", ""])
        b = make("b", ["0"], groups=["p"], labels=["gli\u200boma"], class_names=["gli\u200boma"])
        target = tmp_path / "t.csv"
        options = ("-o", target, "--take")
        refused(run("link", a, b, *options, "group"), "only some images of", "have a split")
        c = make("c", ["0", "1"], labels=["", "glioma"])
        refused(run("link", c, b, *options, "label"), "look alike")
        assert not target.exists()


def test_patients_of_the_origin_reach_a_set_without_them(run, tmp_path):
    """From images to folds: mirrored and re-encoded copies in another folder get their patients."""
    rng = np.random.default_rng(0)
    lines = ["path,label,group"]
    for name in ("origin", "found"):
        (tmp_path / name).mkdir()
    for number in range(12):
        label = ("glioma", "notumor")[number % 2]
        image = draw(rng, bright=bool(number % 2)).resize((96, 96))
        image.save(tmp_path / "origin" / f"{number}.png")
        lines.append(f"{number}.png,{label},patient-{number // 3}")
        if number < 6:
            folder = tmp_path / "found" / label
            folder.mkdir(exist_ok=True)
            image.transpose(0).save(folder / f"{number}.jpg", quality=90)
    (tmp_path / "origin" / "table.csv").write_text("\n".join(lines))
    extract(read_table(tmp_path / "origin" / "table.csv"), tmp_path / "o.h5", backbone=Blocks())
    found = Path("found")
    extract(read_table(tmp_path / found), tmp_path / "f.h5", backbone=Blocks(precision="bfloat16"))
    target = tmp_path / "found" / "table.csv"
    result = run("link", tmp_path / "f.h5", tmp_path / "o.h5", "--take", "group", "-o", target)
    assert result.code == 0
    table = read_table(target)
    assert {
        Path(path).stem: group for path, group in zip(table.paths, table.groups, strict=True)
    } == {str(number): f"patient-{number // 3}" for number in range(6)}
    assert set(table.labels) == {"glioma", "notumor"}
