"""Sources that are left out: folds, classes of one source, and the split and the record of them."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, balanced_accuracy_score
from sklearn.model_selection import LeaveOneGroupOut, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from support.caches import draw_signatures

from brainfeat.cache.cache import FeatureCache
from brainfeat.cache.signature import compute_signature, orient_signatures
from brainfeat.errors import BrainfeatError, ParameterError, TableError
from brainfeat.heads.bundle import HeadBundle
from brainfeat.leakage.auditing import audit
from brainfeat.leakage.number_blocks import label_number_blocks
from brainfeat.leakage.results import Audit
from brainfeat.leakage.sources import find_class_sources, leave_source_out, make_source_folds
from brainfeat.report.training import make_training
from brainfeat.tables.csv_rows import read_rows, write_rows
from brainfeat.tables.rows import Row
from brainfeat.training.fitting import fit_head

NAMES = ("glioma", "meningioma", "notumor", "pituitary")
LEAVE = "leave-one-source-out"


def draw(rows=120, *, seed=0):
    """Draw vectors of four classes and three sources, both in turn, with what each source adds."""
    rng = np.random.default_rng(seed)
    y, place = np.arange(rows) % 4, np.arange(rows) // 4 % 3
    X = rng.standard_normal((4, 16))[y] + 0.7 * rng.standard_normal((3, 16))[place]
    sources = np.array(["east", "north", "south"])[place]
    return (X + 0.5 * rng.standard_normal((rows, 16))).astype(np.float32), y, sources.tolist()


def leave(y, sources, groups=None, names=NAMES):
    return make_source_folds(y, sources, groups=groups, class_names=names)


# Folds


def test_folds_are_those_of_scikit_learn():
    _, y, sources = draw()
    folds = leave(y, sources).folds
    expected = list(LeaveOneGroupOut().split(y, groups=sources))
    assert [fold.source for fold in folds] == ["east", "north", "south"]
    for fold, (train, test) in zip(folds, expected, strict=True):
        assert fold.train.tolist() == train.tolist()
        assert fold.test.tolist() == test.tolist()
        assert fold.dropped == 0


@pytest.mark.parametrize("kind", ["names", "numbers"])
def test_a_group_of_two_sources_is_fitted_on_in_no_fold_that_tests_it(kind):
    _, y, sources = draw()
    groups = np.arange(120) + 1
    groups[3] = groups[4]  # south and north
    if kind == "names":
        groups = np.array([str(group) if group in (groups[4], 9) else "" for group in groups])
    for fold in leave(y, sources, groups).folds:
        tested = {3, 4} & set(fold.test.tolist())
        assert not {3, 4} & set(fold.train.tolist()) or not tested
        assert fold.dropped == len(tested)


def test_images_without_a_source_are_in_no_fold():
    _, y, sources = draw()
    sources[:8] = [""] * 8
    found = leave(y, sources)
    assert found.without_source == 8
    assert all(set(fold.train) | set(fold.test) == set(range(8, 120)) for fold in found.folds)


def test_a_source_without_which_a_class_is_gone_has_a_reason_and_no_figure():
    _, y, sources = draw()
    sources = ["north" if label == 2 else source for label, source in zip(y, sources, strict=True)]
    found = leave(y, sources)
    reasons = {fold.source: fold.reason for fold in found.folds}
    assert reasons["east"] is reasons["south"] is None
    assert reasons["north"] == "without it no image of notumor is left"


# Classes of one source


def test_a_source_of_one_class_is_told_from_one_across_classes():
    _, y, sources = draw()
    own = ["web" if label == 2 else source for label, source in zip(y, sources, strict=True)]
    (found,) = find_class_sources(y, own, NAMES)
    assert (found.name, found.source, found.images, found.of) == ("notumor", "web", 30, 30)
    assert found.alone
    assert "by its source" in found.explain()
    shared = ["east" if label == 2 else source for label, source in zip(y, sources, strict=True)]
    (found,) = find_class_sources(y, shared, NAMES)
    assert not found.alone
    assert "too few are left" in found.explain()
    assert find_class_sources(y, sources, NAMES) == ()


@pytest.mark.parametrize(("others", "is_found"), [(1, True), (2, False)])
def test_nearly_all_is_95_percent(others, is_found):
    y, sources = [0] * 20 + [1] * 20, ["web"] * (20 - others) + ["north"] * others
    found = find_class_sources(y, [*sources, *["north", "south"] * 10], ["none", "glioma"])
    assert [entry.name for entry in found] == (["none"] if is_found else [])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda y, sources: [""] * len(y),
            "no image has a source; give the table that was extracted a source column",
        ),
        (lambda y, sources: ["a"] * len(y), "all images that have a source are of 'a'"),
        (lambda y, sources: [f"s{label}" for label in y], "each class has a source of its own"),
        (
            lambda y, sources: ["a" if label < 2 else "b" for label in y],
            "fewer than two of 2 sources can be left out",
        ),
    ],
)
def test_sources_that_cannot_be_left_out(change, message):
    _, y, sources = draw()
    with pytest.raises(TableError, match=message):
        leave(y, change(y, sources))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (
            "",
            r"a source to leave out is needed; name one .* source=east: east \(40\), north \(40\)",
        ),
        ("west", "no image is of source 'west'"),
    ],
)
def test_a_source_that_is_not_there_gets_the_list(source, message):
    _, y, sources = draw()
    with pytest.raises(TableError, match=message):
        leave_source_out(y, sources, source, groups=None, class_names=NAMES)


def test_an_audit_finds_a_class_with_a_source_of_its_own(make_cache):
    X, y, sources = draw()
    own = ["web" if label == 2 else source for label, source in zip(y, sources, strict=True)]
    found = audit(make_cache(X, y, sources=own))
    assert found.class_sources == find_class_sources(y, own, NAMES)
    assert found.class_sources[0].explain() in found.findings
    assert Audit.from_json(json.dumps(found.to_dict())).class_sources == found.class_sources


# fit_head


def test_each_source_is_scored_by_a_head_that_was_fitted_on_the_others(make_cache):
    X, y, sources = draw()
    path = make_cache(X, y, sources=sources, splits=["train"] * 100 + ["test"] * 20)
    bundle = fit_head(path, head="logistic", cv=LEAVE, group_by="none", n_jobs=1)
    cv = bundle.training.cv
    head = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=1000))
    expected = cross_val_predict(
        head, X[:100], y[:100], groups=sources[:100], cv=LeaveOneGroupOut()
    )
    assert cv.n_folds == 3
    assert cv.out_of_fold.accuracy == pytest.approx(accuracy_score(y[:100], expected))
    for fold in cv.sources.folds:
        own = np.flatnonzero(np.array(sources[:100]) == fold.source)
        assert (fold.n, fold.n_train) == (len(own), 100 - len(own))
        assert fold.balanced_accuracy == balanced_accuracy_score(y[own], expected[own])
        assert fold.classes == NAMES


def test_the_head_is_the_same_as_without(make_cache):
    X, y, sources = draw()
    path = make_cache(X, y, sources=sources)
    one, other = (
        fit_head(path, head="logistic", cv=cv, group_by="none", n_jobs=1) for cv in (LEAVE, None)
    )
    assert one.temperature == other.temperature
    assert (one.predict_proba(X) == other.predict_proba(X)).all()


def test_copies_of_the_source_that_is_left_out_are_not_fitted_on(make_cache):
    """Image 4 is of north, and its mirrored copy, image 0, is of east."""
    X, y, sources = draw()
    signature = draw_signatures(120)
    signature[0] = orient_signatures(signature[4:5], 1)[0]
    path = make_cache(X, y, sources=sources, signature=signature, splits=["train"] * 120)
    found = fit_head(path, head="lda", cv=LEAVE, group_by="copies", n_jobs=1).training.cv.sources
    assert {fold.source: fold.dropped for fold in found.folds} == {
        "east": 1,
        "north": 1,
        "south": 0,
    }


def test_it_is_kept_in_the_file_and_shown_in_the_report(make_cache, tmp_path):
    X, y, sources = draw()
    own = ["web" if label == 2 else source for label, source in zip(y, sources, strict=True)]
    path = make_cache(X, y, sources=own)
    bundle = fit_head(path, head="lda", cv=LEAVE, group_by="none", n_jobs=1)
    again = HeadBundle.load(bundle.save(tmp_path / "head.h5"))
    assert again.training.cv == bundle.training.cv
    blocks = make_training(SimpleNamespace(bundle=again)).blocks
    (table,) = [block for block in blocks if getattr(block, "head", [""])[0] == "source"]
    assert [row[0] for row in table.rows] == ["east", "north", "south", "web"]
    assert "web could not be left out: without it no image of notumor is left." in table.note
    assert "cannot be evaluated by leaving sources out" in blocks[-1].entries[0]


def test_cv_of_another_name_is_refused(make_cache):
    with pytest.raises(ParameterError, match="leave-one-source-out"):
        fit_head(make_cache(*draw()[:2]), head="lda", cv="leave-one-out")


def test_real_slices_of_made_up_sources(real_data, make_cache):
    """Tumours are dealt to three sources by numbers; images without one are of a fourth."""
    folder = real_data / "data" / "brain-mri" / "Testing"
    X, y, paths, sources, signature = [], [], [], [], []
    for label, name in enumerate(NAMES):
        for place, path in enumerate(sorted((folder / name).iterdir())[:60]):
            image = np.asarray(Image.open(path).convert("L"))
            X.append(image[7::14, 7::14].reshape(-1) / 255)
            y.append(label)
            paths.append(f"{name}/{path.name}")
            sources.append(
                "web" if name == "notumor" else ("east", "north", "south")[place // 5 % 3]
            )
            signature.append(compute_signature(image))
    path = make_cache(
        np.array(X), np.array(y), paths=paths, sources=sources, signature=np.stack(signature)
    )
    found = fit_head(path, head="lda", cv=LEAVE, group_by="copies", n_jobs=1).training.cv.sources
    (alone,) = found.not_evaluated
    assert (alone.name, alone.source, alone.alone) == ("notumor", "web", True)
    assert [fold.reason is None for fold in found.folds] == [True, True, True, False]
    blocks = label_number_blocks(paths, 20)
    for block in np.unique(blocks):
        members = [paths[row] for row in np.flatnonzero(blocks == block)]
        assert len({member.split("_")[0] for member in members}) == 1
        assert len(members) <= 20


# The command line


def test_fit_head_lists_the_sources(run, make_cache, tmp_path):
    X, y, sources = draw()
    own = ["web" if label == 2 else source for label, source in zip(y, sources, strict=True)]
    told = run(
        *("fit-head", make_cache(X, y, sources=own), "-o", tmp_path / "a.h5", "--head", "lda"),
        *("--cv", LEAVE, "--group-by", "none", "--jobs", 1),
    )
    assert told.code == 0
    assert "cross-validation leaving out 3 sources, one at a time: accuracy" in told.out
    assert "web could not be left out" in " ".join(told.out.split())
    assert "images of class 'notumor' are of source 'web'" in told.err


def test_sources_of_a_table_replace_those_of_the_cache(run, make_cache, tmp_path):
    X, y, sources = draw()
    path = make_cache(X, y, sources=["one"] * 120)
    with FeatureCache.open(path) as cache:
        rows = [
            Row(path=name, label=NAMES[label], source=source)
            for name, label, source in zip(cache.paths.tolist(), cache.y, sources, strict=True)
        ]
    table = write_rows(rows, tmp_path / "table.csv")
    options = ("--head", "lda", "--cv", LEAVE, "--group-by", "none", "--jobs", 1)
    command = ("fit-head", path, "-o", tmp_path / "a.h5", *options)
    assert "all images that have a source are of 'one'" in run(*command).err
    found = json.loads(run(*command, "--table", table, "--json").out)["cv"]["sources"]
    assert [fold["source"] for fold in found["folds"]] == ["east", "north", "south"]


def test_split_leaves_a_source_out_and_its_copies_out_of_all_splits(run, make_cache, tmp_path):
    X, y, sources = draw()
    sources[8], signature = "", draw_signatures(120)
    signature[0] = orient_signatures(signature[4:5], 1)[0]
    path = make_cache(X, y, sources=sources, signature=signature)
    table = tmp_path / "table.csv"
    told = run("split", path, "-o", table, "--leave-out", "source=north", "--group-by", "copies")
    assert "test is source 'north'; in no split: 1 image of other sources" in told.out
    rows = read_rows(table)
    for place, row in enumerate(rows):
        assert (row.split == "test") == (sources[place] == "north")
        assert (row.split == "") == (place in (0, 8))
    assert {row.split for row in rows} == {"train", "val", "test", ""}
    fitted = run(
        *("fit-head", path, "-o", tmp_path / "a.h5", "--head", "lda", "--table", table, "--json"),
        *("--jobs", 1),
    )
    assert sum(json.loads(fitted.out)["split"].values()) == 118


@pytest.mark.parametrize(
    ("options", "word", "code"),
    [
        (("--leave-out", "source"), "east (40), north (40), south (40)", 1),
        (("--leave-out", "source=west", "--group-by", "copies"), "no image is of source 'west'", 1),
        (("--leave-out", "source="), "east (40), north (40), south (40)", 1),
        (("--leave-out", "group=p1"), "is not source=VALUE", 2),
        (("--leave-out", "source=east", "--test-fraction", "0.2"), "exclude each other", 2),
    ],
)
def test_split_says_what_leave_out_takes(run, make_cache, tmp_path, options, word, code):
    X, y, sources = draw()
    path, table = make_cache(X, y, sources=sources), tmp_path / "table.csv"
    told = run("split", path, "-o", table, *options)
    assert told.code == code
    assert word in " ".join(told.err.split())
    assert not table.exists()


def test_a_row_in_no_split_is_read_back_as_it_was_written(tmp_path):
    rows = [Row(path="a.png", label="x", split="train"), Row(path="b.png", label="x")]
    table = write_rows(rows, tmp_path / "table.csv")
    assert table.read_text().splitlines()[1:] == ["a.png,x,train", "b.png,x,none"]
    assert read_rows(table) == rows
    table.write_text("path,label,split\na.png,x,train\nb.png,x,\n")
    with pytest.raises(BrainfeatError, match="'none' where it has none"):
        read_rows(table)
