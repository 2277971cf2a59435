"""Labels in doubt: planted ones are found; copies and test images never vote."""

import csv
import json
import re
from dataclasses import replace

import numpy as np
import pytest
from cleanlab.filter import find_label_issues
from support.caches import draw_signatures, write_vectors

from brainfeat import FeatureCache, find_label_doubts
from brainfeat.cache.signature import orient_signatures
from brainfeat.cli.label_doubts import describe_doubts
from brainfeat.errors import CacheError, ParameterError, TableError
from brainfeat.heads.recipe import HeadRecipe
from brainfeat.leakage.auditing import audit_duplicates
from brainfeat.text import count_columns
from brainfeat.training.confident_learning import doubt_labels, find_confident_classes
from brainfeat.training.label_doubts import LabelDoubts

IMAGES, FEATURES = 400, 32
NAMES = [f"image-{row:05}.png" for row in range(IMAGES)]
CLASSES = ("glioma", "meningioma", "notumor", "pituitary")


def draw(distance=1.5, seed=0, classes=4):
    """Draw vectors of classes in equal numbers, the class of each, and splits."""
    rng = np.random.default_rng(seed)
    y = np.arange(IMAGES) % classes
    centres = distance * rng.standard_normal((classes, FEATURES))
    return (
        rng.standard_normal((IMAGES, FEATURES)) + centres[y],
        y,
        np.repeat(["train", "val", "test"], [240, 60, 100]),
    )


# Confident learning


@pytest.mark.parametrize("classes", [2, 3, 7])
@pytest.mark.parametrize("sharpness", [0.5, 2.0, 6.0])
def test_the_labels_in_doubt_are_those_of_cleanlab(classes, sharpness):
    rng = np.random.default_rng(classes)
    y = np.arange(600) % classes
    scores = rng.standard_normal((600, classes)) + sharpness * np.eye(classes)[y]
    probabilities = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    y = np.where(rng.random(600) < 0.1, rng.integers(0, classes, 600), y)
    found = find_confident_classes(probabilities, y)
    ours = doubt_labels(probabilities, y, found.classes)
    theirs = find_label_issues(y, probabilities, filter_by="confident_learning", n_jobs=1)
    assert ours.any()
    assert not (ours & ~theirs).any()
    # Of several classes whose thresholds are reached, the paper takes the most probable one;
    # cleanlab takes the most probable of all classes, whose own threshold may not be reached.
    reached = probabilities >= found.thresholds - 1e-6
    best = probabilities.argmax(axis=1)
    disputed = (reached.sum(axis=1) > 1) & ~reached[np.arange(600), best]
    np.testing.assert_array_equal(ours[~disputed], theirs[~disputed])
    assert (found.classes[theirs & ~ours] == y[theirs & ~ours]).all()


def test_thresholds_are_those_of_the_images_that_count():
    probabilities = np.array([[0.9, 0.1], [0.5, 0.5], [0.2, 0.8], [0.3, 0.7]])
    y, counted = np.array([0, 0, 1, 1]), np.array([True, False, True, False])
    found = find_confident_classes(probabilities, y, counted=counted)
    assert found.thresholds.tolist() == [0.9, 0.8]
    assert found.classes.tolist() == [0, -1, 1, -1]


# What is found


def test_planted_labels_are_listed_by_rank(make_cache):
    X, y, splits = draw()
    wrong = np.arange(3, IMAGES, 17)
    labels = y.copy()
    labels[wrong] = (y[wrong] + 1) % 4
    found = find_label_doubts(make_cache(X, labels, splits=splits))
    planted, listed = {NAMES[row] for row in wrong}, {doubt.path for doubt in found.doubts}
    # An image that is less typical of its class than most does not reach the threshold.
    assert len(listed & planted) > len(planted) / 2
    assert listed <= planted
    assert {doubt.split for doubt in found.doubts} == {"train", "val", "test"}
    first = found.doubts[0]
    row = NAMES.index(first.path)
    assert (first.rank, first.reason, first.copy) == (1, "confident-learning", "")
    assert (first.label, first.suggested) == (CLASSES[labels[row]], CLASSES[y[row]])
    assert first.split == splits[row]
    assert sum(first.probabilities.values()) == pytest.approx(1)
    own = [doubt.probabilities[doubt.label] for doubt in found.doubts]
    assert own == sorted(own)
    assert sum(pair.images for pair in found.pairs) == found.in_doubt == len(found.doubts)
    assert found.accuracy == pytest.approx(np.mean(found.predicted == labels))


def test_copies_never_vote_for_each_other(make_cache):
    """Labels without a pattern are predicted as by chance, although each image has a copy."""
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((200, 300)), rng.integers(0, 2, 200)
    signature = draw_signatures(200)
    twice = np.concatenate([signature, orient_signatures(signature, 1)])
    cache = make_cache(np.repeat(X[None], 2, axis=0).reshape(400, -1), np.tile(y, 2))
    voting = find_label_doubts(cache, group_by="none")
    assert voting.accuracy > 0.85
    path = write_vectors(
        cache.parent, np.concatenate([X, X]), np.tile(y, 2), name="b.h5", signature=twice
    )
    found = find_label_doubts(path)
    assert found.grouped_by == "near-duplicates"
    assert found.accuracy < 0.65
    assert find_label_doubts(path, group_by="copies").accuracy < 0.65


def test_no_label_of_the_test_split_changes_what_is_said_of_others(make_cache):
    X, y, splits = draw(distance=0.3)
    other = np.where(splits == "test", (y + 1) % 4, y)
    one = find_label_doubts(make_cache(X, y, splits=splits))
    two = find_label_doubts(make_cache(X, other, splits=splits, name="other.h5"))
    np.testing.assert_array_equal(one.predicted, two.predicted)
    assert one.thresholds == two.thresholds
    assert one.fitted_on == two.fitted_on == "all but test"
    assert [d.path for d in one.doubts if d.split != "test"] == [
        d.path for d in two.doubts if d.split != "test"
    ]


@pytest.mark.parametrize("splits", [None, ["test"] * IMAGES])
def test_where_there_is_no_other_split_all_images_are_fitted_on(make_cache, splits):
    X, y, _ = draw()
    found = find_label_doubts(make_cache(X, y, splits=splits))
    assert (found.fitted_on, found.images) == ("all", IMAGES)
    assert found.accuracy > 0.8


def test_copies_with_conflicting_labels_come_first_and_name_each_other(make_cache):
    X, y, splits = draw()
    signature = draw_signatures(IMAGES)
    signature[301] = orient_signatures(signature[8:9], 1)[0]  # of another class
    contents = NAMES.copy()
    contents[42], X[42] = contents[5], X[5]
    signature[42] = signature[5]
    X[61] = X[12]  # near, but no copy
    found = find_label_doubts(
        make_cache(X, y, splits=splits, signature=signature, contents=contents)
    )
    conflicts = [doubt for doubt in found.doubts if doubt.reason == "conflicting-copy"]
    assert found.conflicting_copies == len(conflicts) == 4
    assert list(found.doubts[:4]) == conflicts
    assert {doubt.path: doubt.copy for doubt in conflicts} == {
        NAMES[301]: NAMES[8],
        NAMES[8]: NAMES[301],
        NAMES[42]: NAMES[5],
        NAMES[5]: NAMES[42],
    }
    right = next(doubt for doubt in conflicts if doubt.path == NAMES[5])
    assert right.suggested == right.label
    lines = [line.split("  ")[:3] for line in describe_doubts(found)]
    assert not any(len(cells) > 2 and cells[0] == cells[1].strip() for cells in lines)
    assert "the copies have different labels" in "\n".join(describe_doubts(found))
    long = replace(found, pairs=(replace(found.pairs[0], label="x" * 90, suggested="y" * 90),))
    table = [line for line in describe_doubts(long) if "xx" in line]
    assert [count_columns(line) <= 80 for line in table] == [True]


def test_views_and_unlabelled_images_are_not_checked(make_cache):
    X, y, splits = draw()
    views = np.arange(IMAGES) % 2
    images = np.arange(IMAGES) // 2
    y = np.where(images < 10, -1, images % 4)
    found = find_label_doubts(
        make_cache(
            X, y, splits=splits[images * 2], view=views, paths=[NAMES[row] for row in images]
        )
    )
    assert (found.images, found.unlabelled) == (IMAGES // 2 - 10, 10)
    assert (found.predicted[views == 1] == -1).all()
    assert (found.predicted[:20] == -1).all()


# Too few groups


def test_a_class_of_few_groups_is_not_checked(make_cache):
    X, y, splits = draw()
    y[y == 3] = 2
    few = np.flatnonzero(splits == "train")[:8]
    y[few] = 3
    groups = [f"p{row}" for row in range(IMAGES)]
    for place, row in enumerate(few):
        groups[row] = f"few{place % 4}"
    signature = draw_signatures(IMAGES)
    signature[few[0]] = signature[20]
    found = find_label_doubts(
        make_cache(X, y, splits=splits, groups=groups, signature=signature), group_by="column"
    )
    assert found.not_checked == {"pituitary": 8}
    assert set(found.thresholds) == {"glioma", "meningioma", "notumor"}
    assert (found.predicted[few] == -1).all()
    assert found.images == IMAGES - 8
    last = found.doubts[found.conflicting_copies - 1]
    assert (last.path, last.suggested, last.probabilities) == (NAMES[few[0]], "", {})
    assert last.group == groups[few[0]]


def test_what_cannot_be_checked_is_refused(make_cache):
    X, y, _ = draw()
    with pytest.raises(TableError, match=r"too few classes \(none\)"):
        find_label_doubts(make_cache(X, np.full(IMAGES, -1)))
    with pytest.raises(TableError, match=r"too few classes \(notumor\)"):
        find_label_doubts(make_cache(X, np.full(IMAGES, 2)))
    found = r"found glioma 2 groups, meningioma 2 groups, notumor 2 groups, pituitary 2 groups"
    groups = [f"{label}-{row // 4 % 2}" for row, label in enumerate(y)]
    with pytest.raises(TableError, match=found):
        find_label_doubts(make_cache(X, y, groups=groups), group_by="column")
    X[3, 3] = np.nan
    with pytest.raises(CacheError, match="not finite"):
        find_label_doubts(make_cache(X, y))


def test_an_audit_spares_the_search_and_must_be_that_of_the_cache(make_cache):
    X, y, splits = draw()
    path, other = make_cache(X, y, splits=splits), make_cache(X[::-1], y, name="other.h5")
    with FeatureCache(path) as cache, FeatureCache(other) as second:
        audit = audit_duplicates(cache)
        assert find_label_doubts(cache, audit=audit) == find_label_doubts(cache)
        with pytest.raises(ParameterError, match="the audit is not that of"):
            find_label_doubts(second, audit=audit)


def test_the_counts_come_back_from_json(make_cache):
    found = find_label_doubts(make_cache(*draw()[:2]))
    document = found.to_dict()
    assert "image-" not in json.dumps(document)
    read = LabelDoubts.from_json(json.dumps(document))
    assert (read.to_dict(), read.doubts) == (document, ())
    with pytest.raises(ParameterError, match="in_doubt"):
        LabelDoubts.from_json(json.dumps({**document, "in_doubt": "many"}))


# The command


class TestCommand:
    @pytest.fixture
    def cache(self, make_cache):
        X, y, splits = draw()
        wrong = np.arange(3, IMAGES, 17)
        y[wrong] = (y[wrong] + 1) % 4
        paths = [f"{'=cmd' if row == 3 else 'x'}/{name}" for row, name in enumerate(NAMES)]
        signature = draw_signatures(IMAGES)
        signature[301] = signature[8]
        return make_cache(
            X,
            y,
            splits=splits,
            paths=paths,
            signature=signature,
            class_names=("glioma", "meningioma", "+none", "pituitary"),
        )

    def test_it_writes_a_list_that_no_spreadsheet_evaluates(self, run, cache, tmp_path):
        before, target = cache.read_bytes(), tmp_path / "suspects.csv"
        result = run("audit", cache, "--labels", target)
        assert result.code == 0, result.err
        rows = list(csv.DictReader(target.read_text(encoding="utf-8").splitlines()))
        assert [int(row["rank"]) for row in rows] == list(range(1, len(rows) + 1))
        assert {row["copy"] for row in rows[:2]} == {f"x/{NAMES[8]}", f"x/{NAMES[301]}"}
        named = {row["path"]: row for row in rows}
        assert named[f"'=cmd/{NAMES[3]}"]["label"] == "glioma"
        assert {row["split"] for row in rows} == {"train", "val", "test"}
        assert "probability +none" in rows[0]
        assert all(
            row["suggested"] in {"glioma", "meningioma", "'+none", "pituitary"} for row in rows
        )
        assert cache.read_bytes() == before
        total = f"Labels in doubt: {len(rows)} of 400 images"
        assert total in result.out
        listed = [line for line in result.out.splitlines() if re.match(r" *\d+  \S+/image", line)]
        assert len(listed) == min(10, len(rows))
        assert f"has a copy of another label: x/{NAMES[8]}" in result.out
        heads = [line.split() for line in result.out.splitlines()]
        assert ["label", "suggested", "train", "val", "test"] in heads

    def test_json_has_the_counts_and_no_list(self, run, cache, tmp_path):
        document = json.loads(run("audit", cache, "--labels", tmp_path / "s.csv", "--json").out)
        doubts = document["label_doubts"]
        assert doubts["images"] == IMAGES
        assert "doubts" not in doubts
        assert sum(pair["images"] for pair in doubts["pairs"]) == doubts["in_doubt"]
        assert "label_doubts" not in json.loads(run("audit", cache, "--json").out)

    def test_it_replaces_only_such_a_list(self, run, cache, tmp_path):
        target, pairs = tmp_path / "suspects.csv", tmp_path / "pairs.csv"
        assert run("audit", cache, "--labels", target, "--pairs", pairs).code == 0
        assert run("audit", cache, "--labels", target).code == 1
        assert run("audit", cache, "--labels", target, "--overwrite").code == 0
        refused = run("audit", cache, "--labels", pairs, "--overwrite")
        assert "is not a list of labels in doubt" in refused.err
        same = run("audit", cache, "--labels", tmp_path / "x", "--pairs", tmp_path / "x")
        assert (same.code, "--pairs and --labels name the same file" in same.err) == (2, True)

    def test_labels_of_several_caches_are_refused(self, run, cache, tmp_path):
        result = run("audit", cache, cache, "--labels", tmp_path / "s.csv")
        assert (result.code, "--labels cannot be used with several" in result.err) == (2, True)

    def test_labels_that_cannot_be_checked_are_refused_at_once(
        self, run, make_cache, tmp_path, monkeypatch
    ):
        monkeypatch.setattr("brainfeat.leakage.auditing.audit", lambda *args, **rest: 1 / 0)
        X, _, _ = draw()
        result = run("audit", make_cache(X, np.full(IMAGES, -1)), "--labels", tmp_path / "s.csv")
        assert (result.code, result.err.count("\n")) == (1, 1)
        assert "labelled images of too few classes (none)" in result.err


def test_a_chain_of_copies_is_in_one_fold(tmp_path, monkeypatch):
    rng, y = np.random.default_rng(0), np.arange(320) % 4
    X = rng.standard_normal((320, 8)) + 3 * np.eye(4, 8)[y]
    signature, copies = draw_signatures(320), np.arange(0, 180, 4)
    signature[copies] = signature[0]
    path = write_vectors(tmp_path, X, y, signature=signature)
    fit, shares = HeadRecipe.fit_head, []

    def count(recipe, X, y, *, rows, **options):
        shares.append(np.isin(copies, rows).mean())
        return fit(recipe, X, y, rows=rows, **options)

    monkeypatch.setattr(HeadRecipe, "fit_head", count)
    assert find_label_doubts(path).grouped_by == "copies"
    assert sorted(shares) == [0, 1, 1, 1, 1]
