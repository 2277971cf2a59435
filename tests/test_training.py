"""fit_head: the rows that it trains on, what it records, and what it refuses."""

import json
import subprocess
import sys
import textwrap
from dataclasses import asdict, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from support.caches import draw_signatures

from brainfeat.cache.cache import FeatureCache
from brainfeat.cache.signature import orient_signatures
from brainfeat.errors import BrainfeatError, CacheError, HeadError, ParameterError, TableError
from brainfeat.evaluation.evaluator import evaluate
from brainfeat.heads.bundle import HeadBundle
from brainfeat.heads.calibration import fit_temperature, softmax
from brainfeat.heads.kinds import HEAD_NAMES, head_scores, make_head
from brainfeat.heads.recipe import HeadRecipe
from brainfeat.heads.record import FitRecord, SplitSizes
from brainfeat.leakage.splitting import make_folds
from brainfeat.training.fitting import fit_head
from brainfeat.training.grouping import choose_groups
from brainfeat.training.partition import Partition

# TensorFlow's variables do not know the copy argument of NumPy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

# Few trees and epochs: the quality of a head is not tested.
SMALL = {
    "dense": {"epochs": 3, "hidden_units": (8,)},
    "random-forest": {"n_estimators": 5},
    "hist-gradient-boosting": {"max_iter": 3},
}


def draw(rows=120, n_classes=4, *, spread=1.5, seed=0):
    """Draw overlapping clouds, one a class, the classes in turn."""
    rng = np.random.default_rng(seed)
    y = np.arange(rows) % n_classes
    centres = spread * rng.standard_normal((n_classes, 16))
    return (centres[y] + rng.standard_normal((rows, 16))).astype(np.float32), y


def fit(cache, head="logistic", **options):
    return fit_head(cache, head=head, params=SMALL.get(head), **options)


@pytest.fixture
def fitted_rows(monkeypatch):
    """Record the rows of X that each fit of a head is given."""
    calls = []
    original = HeadRecipe.fit_head

    def fit(self, X, y, *, rows, val=None, **given):
        calls.append((X[rows], None if val is None else X[val]))
        return original(self, X, y, rows=rows, val=val, **given)

    monkeypatch.setattr(HeadRecipe, "fit_head", fit)
    return calls


def places(X, rows):
    """Find each row of `rows` in X."""
    found = (X[None, :, :] == rows[:, None, :]).all(axis=2)
    assert (found.sum(axis=1) == 1).all()
    return found.argmax(axis=1).tolist()


# Which rows train, stop and test


def test_splits_of_the_table_are_kept(make_cache, fitted_rows):
    X, y = draw()
    splits = np.repeat(["train", "val", "test"], [72, 24, 24])
    bundle = fit(make_cache(X, y, splits=splits), head="dense")
    ((train, val),) = fitted_rows
    assert places(X, train) == list(range(72))
    assert places(X, val) == list(range(72, 96))
    assert bundle.training.split == SplitSizes(train=72, val=24, test=24)


def test_test_metrics_are_of_the_test_split_of_the_table(make_cache):
    X, y = draw()
    splits = np.repeat(["train", "val", "test"], [72, 24, 24])
    bundle = fit(make_cache(X, y, splits=splits))
    expected = metrics.log_loss(y[96:], bundle.predict_proba(X[96:]))
    assert bundle.training.test.log_loss == pytest.approx(expected, rel=1e-6)
    assert bundle.training.test.n == 24


def test_images_without_a_split_are_left_out_where_others_have_one(make_cache, fitted_rows):
    X, y = draw()
    splits = np.repeat(["train", "val", "test", ""], [60, 20, 20, 20])
    fit(make_cache(X, y, splits=splits))
    assert places(X, fitted_rows[-1][0]) == list(range(80))


def test_val_is_taken_from_train_by_class(make_cache, fitted_rows):
    X, y = draw()
    splits = np.repeat(["train", "test"], [100, 20])
    bundle = fit(make_cache(X, y, splits=splits), val_fraction=0.2)
    assert bundle.training.split == SplitSizes(train=80, val=20, test=20)
    train = places(X, fitted_rows[0][0])
    assert set(train) < set(range(100))
    assert np.bincount(y[train]).tolist() == [20] * 4


@pytest.mark.slow
def test_val_taken_from_train_divides_no_group(make_cache, fitted_rows):
    X, y = draw()
    groups = [f"p{row // 8}-{label}" for row, label in enumerate(y)]
    splits = np.repeat(["train", "test"], [96, 24])
    bundle = fit(make_cache(X, y, splits=splits, groups=groups), head="dense")
    train, val = (places(X, rows) for rows in fitted_rows[0])
    assert val
    assert not {groups[row] for row in train} & {groups[row] for row in val}
    assert bundle.training.group_by == "column"


def test_without_splits_these_are_70_15_15(make_cache):
    X, y = draw(200)
    bundle = fit(make_cache(X, y))
    assert bundle.training.split == SplitSizes(train=140, val=30, test=30)


def test_without_splits_the_fractions_are_followed(make_cache):
    X, y = draw(200)
    bundle = fit(make_cache(X, y), val_fraction=0.1, test_fraction=0.3)
    assert bundle.training.split == SplitSizes(train=120, val=20, test=60)


def test_without_splits_no_group_is_divided(make_cache, fitted_rows):
    X, y = draw(160)
    groups = [f"p{row // 8}-{label}" for row, label in enumerate(y)]
    fit(make_cache(X, y, groups=groups), head="dense")
    parts = [set(places(X, rows)) for rows in fitted_rows[0]]
    parts.append(set(range(160)) - parts[0] - parts[1])
    seen = [{groups[row] for row in part} for part in parts]
    assert sum(map(len, seen)) == len(set(groups))


def test_group_by_none_ignores_the_groups(make_cache):
    X, y = draw(160)
    path = make_cache(X, y, groups=[f"p{label}" for label in y])
    with pytest.raises(TableError, match="1 group"):
        fit(path)
    bundle = fit(path, group_by="none")
    assert bundle.training.group_by == "none"


def test_group_by_column_needs_groups(make_cache):
    with pytest.raises(TableError, match="group column"):
        fit(make_cache(*draw()), group_by="column")


def make_copies(*, kind, dimensions=64):
    """Draw images of four classes, each with two copies: the same vectors, or nearly the same."""
    rng = np.random.default_rng(0)
    y = np.arange(60) % 4
    X = rng.standard_normal((60, dimensions)) + 0.3 * rng.standard_normal((4, dimensions))[y]
    noise = 0.05 if kind == "near" else 0.0
    copies = X[:, None] + noise * rng.standard_normal((60, 3, dimensions))
    return copies.reshape(180, -1).astype(np.float32), np.repeat(y, 3)


@pytest.mark.parametrize("group_by", ["auto", "near-duplicates"])
def test_without_groups_near_duplicates_are_kept_together(make_cache, fitted_rows, group_by):
    X, y = make_copies(kind="near")
    bundle = fit(make_cache(X, y), head="dense", group_by=group_by)
    assert bundle.training.group_by == "near-duplicates"
    train, val = (set(places(X, rows)) for rows in fitted_rows[0])
    for part in (train, val, set(range(180)) - train - val):
        assert part == {row for row in range(180) if row // 3 * 3 in part}


def test_exact_duplicates_are_joined_with_the_groups_of_the_table(make_cache):
    """Without signatures, no copies are known; two patients with the same file are one group."""
    X, y = np.eye(6, dtype=np.float32), np.arange(6) % 2
    groups = ["a", "a", "b", "b", "c", "d"]
    path = make_cache(X, y, groups=groups, contents=["1", "2", "2", "3", "4", "5"])
    with FeatureCache.open(path) as cache:
        found = choose_groups(cache, "auto")
    assert found.kind == "exact-duplicates"
    assert len(set(found.labels[:4])) == 1
    assert len(set(found.labels)) == 3


def test_near_duplicates_are_joined_with_the_groups_of_the_table(make_cache, fitted_rows):
    X, y = make_copies(kind="near")
    # Image 0 is of the patient of image 4, both glioma; other images have no patient.
    groups = ["p1" if row in (0, 12) else "" for row in range(180)]
    path = make_cache(X, y, groups=groups)
    fit(path, head="dense", group_by="near-duplicates")
    train, val = (set(places(X, rows)) for rows in fitted_rows[0])
    for part in (train, val, set(range(180)) - train - val):
        assert ({0, 1, 2} <= part) == ({12, 13, 14} <= part)
    assert fit(path).training.group_by == "column"


def test_an_image_without_a_group_is_not_joined_with_a_group_that_has_a_number_as_its_name(
    make_cache,
):
    X, y = draw()
    groups = ["7", "7", *[""] * 118]
    with FeatureCache.open(
        make_cache(X, y, groups=groups, signature=draw_signatures(120))
    ) as cache:
        labels = choose_groups(cache, "auto").labels
    assert np.flatnonzero(labels == labels[0]).tolist() == [0, 1]


def test_test_images_of_which_train_has_a_copy_are_left_out_of_a_second_measurement(make_cache):
    """Exact duplicates of a blank image too, which are copies of nothing."""
    X, y = draw()
    splits = np.repeat(["train", "val", "test"], [72, 24, 24])
    signature, contents = draw_signatures(120), [f"content {row}" for row in range(120)]
    signature[100:103] = orient_signatures(signature[:3], 1)
    signature[[4, 104]], contents[104], X[104] = 0, contents[4], X[4]
    path = make_cache(X, y, splits=splits, signature=signature, contents=contents)
    bundle = fit(path, group_by="none")
    found = bundle.training.test_without_copies
    assert found.n == evaluate(bundle, path).subsets.without_copies.n == 20


def test_splits_that_the_fit_makes_and_that_divide_copies_are_measured_without_these(make_cache):
    X, y = draw()
    signature = draw_signatures(120)
    signature[60:100] = orient_signatures(signature[:40], 1)
    path = make_cache(X, y, signature=signature)
    assert fit(path).training.test_without_copies is None
    bundle = fit(path, group_by="none")
    found = bundle.training.test_without_copies
    assert found.n == evaluate(bundle, path).subsets.without_copies.n < bundle.training.split.test


def test_where_chains_join_everything_only_exact_duplicates_are_kept_together(make_cache):
    X, y = draw(200)
    X[:100] = X[0] + 0.01 * X[:100]
    bundle = fit(make_cache(X, y))
    assert bundle.training.group_by == "exact-duplicates"
    assert "cannot be told apart" in bundle.training.leakage.findings[0]


def test_the_head_names_no_image_of_a_label_conflict(make_cache):
    X, y = make_copies(kind="near")
    y[0] = 3
    leakage = fit(make_cache(X, y)).training.leakage
    assert leakage.label_conflicts == 1
    assert "image-" not in json.dumps(leakage.to_dict())


def test_views_train_with_their_image_and_are_never_measured(make_cache, fitted_rows):
    X, y = draw(40)
    paths = [f"{row}.png" for row in range(40)]
    both, labels = np.concatenate([X, X + 100]), np.concatenate([y, y])
    splits = np.tile(np.repeat(["train", "val", "test"], [24, 8, 8]), 2)
    path = make_cache(both, labels, splits=splits, paths=paths * 2, view=np.repeat([0, 1], 40))
    bundle = fit(path, head="dense")
    train, val = (places(both, rows) for rows in fitted_rows[0])
    assert sorted(train) == [*range(24), *range(40, 64)]
    assert val == list(range(24, 32))
    assert bundle.training.split == SplitSizes(train=24, val=8, test=8)
    assert bundle.training.rows == SplitSizes(train=48, val=16, test=16)
    assert bundle.training.val.n == bundle.training.test.n == 8


def test_unlabelled_rows_are_ignored(make_cache, fitted_rows):
    X, y = draw()
    y[100:] = -1
    bundle = fit(make_cache(X, y))
    assert sum(asdict(bundle.training.split).values()) == 100
    assert max(places(X, fitted_rows[-1][0])) < 100


@pytest.mark.parametrize("head", HEAD_NAMES)
def test_heads_without_stopping_are_refitted_with_val(make_cache, fitted_rows, head):
    X, y = draw()
    splits = np.repeat(["train", "val", "test"], [72, 24, 24])
    bundle = fit(make_cache(X, y, splits=splits), head=head)
    sizes = [len(train) for train, *_ in fitted_rows]
    assert sizes[0] == 72
    assert sizes[-1] == (72 if head == "dense" else 96)
    assert bundle.training.refitted_on_val is (head != "dense")


def test_val_metrics_are_of_the_head_that_has_not_seen_val(make_cache):
    X, y = draw()
    splits = np.repeat(["train", "val", "test"], [72, 24, 24])
    bundle = fit(make_cache(X, y, splits=splits))
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=1000))
    logits = model.fit(X[:72], y[:72]).decision_function(X[72:96])
    expected = metrics.log_loss(y[72:96], softmax(logits, temperature=bundle.temperature))
    assert bundle.training.val.log_loss == pytest.approx(expected, rel=1e-5)


def test_the_refitted_head_is_that_of_train_and_val(make_cache):
    X, y = draw()
    splits = np.repeat(["train", "val", "test"], [72, 24, 24])
    bundle = fit(make_cache(X, y, splits=splits))
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=1000))
    expected = model.fit(X[:96], y[:96])[-1].coef_
    assert np.array_equal(bundle.estimator[-1].coef_, expected)


@pytest.mark.parametrize("head", ["svm", "logistic"])
def test_the_temperature_is_that_of_scores_that_five_folds_gave_to_unseen_images(make_cache, head):
    X, y = draw(spread=0.6)
    splits = np.repeat(["train", "val", "test"], [72, 24, 24])
    bundle = fit(make_cache(X, y, splits=splits), head=head, group_by="none")
    scores = np.empty((96, 4))
    for train, test in make_folds(y[:96], n_folds=5, random_state=0):
        model = make_head(head, random_state=0).fit(X[train], y[train])
        scores[test] = head_scores(model, X[test])
    assert bundle.temperature == pytest.approx(fit_temperature(scores, y[:96]), rel=1e-4)
    calibration = bundle.training.calibration
    assert (calibration.n, calibration.n_folds) == (96, 5)
    assert calibration.temperature == bundle.temperature
    expected = metrics.log_loss(y[:96], softmax(scores))
    assert calibration.before.log_loss == pytest.approx(expected, rel=1e-4)


def test_the_temperature_of_the_dense_head_is_fitted_on_val(make_cache):
    X, y = draw()
    splits = np.repeat(["train", "val", "test"], [72, 24, 24])
    bundle = fit(make_cache(X, y, splits=splits), head="dense")
    expected = fit_temperature(bundle.scores(X[72:96]), y[72:96])
    assert bundle.temperature == bundle.estimator.temperature_ == pytest.approx(expected)
    assert bundle.training.calibration.n_folds is None
    assert bundle.training.calibration.n == 24


@pytest.mark.parametrize("head", HEAD_NAMES)
def test_every_head_has_a_temperature(make_cache, tmp_path, head):
    bundle = fit(make_cache(*draw(spread=0.6)), head=head, n_jobs=1)
    assert bundle.temperature != 1.0
    assert HeadBundle.load(bundle.save(tmp_path / "head.h5")).temperature == bundle.temperature


def test_folds_of_the_temperature_divide_no_group(make_cache, fitted_rows):
    X, y = draw(160)
    groups = [f"p{row // 8}-{label}" for row, label in enumerate(y)]
    fit(make_cache(X, y, groups=groups), n_jobs=1)
    folds = [set(places(X, train)) for train, _ in fitted_rows[1:-1]]
    everything = set(places(X, fitted_rows[-1][0]))
    assert len(folds) == 5
    for train in folds:
        held_out = everything - train
        assert not {groups[row] for row in train} & {groups[row] for row in held_out}


def test_few_groups_of_a_class_make_fewer_folds(make_cache):
    X, y = draw(120, 2)
    groups = [f"p{row // 40}-{label}" for row, label in enumerate(y)]
    splits = np.where(np.arange(120) < 80, "train", "val")
    path = make_cache(X, y, splits=splits, groups=groups, class_names=("a", "b"))
    assert fit(path).training.calibration.n_folds == 3
    alone = make_cache(
        X[40:],
        y[40:],
        name="two.h5",
        class_names=("a", "b"),
        splits=splits[40:],
        groups=np.where(y[40:] == 0, "one", groups[40:]),
    )
    calibration = fit(alone).training.calibration
    assert (calibration.n_folds, calibration.n) == (None, 40)


@given(
    sizes=st.lists(st.integers(1, 9), min_size=8, max_size=30),
    fraction=st.floats(0.1, 0.5),
    seed=st.integers(0, 2**32 - 1),
)
def test_val_and_train_share_no_group_and_leave_no_image_out(sizes, fraction, seed):
    number = np.repeat(np.arange(len(sizes)), sizes)
    y, rows = number % 2, np.arange(number.size)
    partition = Partition(
        X=np.zeros((rows.size, 1), np.float32),
        y=y,
        image=rows,
        rows=rows,
        class_names=("a", "b"),
        splits={"train": rows, "val": rows[:0], "test": rows[:0]},
        groups=np.char.mod("p%d", number),
        grouped_by="column",
    )
    train, val = partition.take_val(rows, fraction=fraction, random_state=seed)
    assert sorted([*train, *val]) == rows.tolist()
    assert not set(number[train]) & set(number[val])
    for label in (0, 1):
        share = fraction * (y == label).sum()
        assert abs((y[val] == label).sum() - share) <= max(sizes[label::2])


# What cannot be trained on


def refuse(error, path, **options):
    """Return the message of the one-line error of that very type."""
    with pytest.raises(BrainfeatError) as caught:
        fit(path, **options)
    assert caught.type is error
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_single_class_is_refused(make_cache):
    X, _ = draw()
    message = refuse(TableError, make_cache(X, np.ones(120, int)))
    assert "meningioma" in message
    assert "two or more" in message


def test_a_class_in_test_but_not_in_train_is_refused(make_cache):
    X, y = draw()
    splits = np.where(y == 2, "test", np.repeat(["train", "test"], [80, 40]))
    message = refuse(TableError, make_cache(X, y, splits=splits))
    assert "'notumor' has images in test but not in train" in message
    assert "add training images or drop the class" in message


def test_a_class_without_images_is_refused(make_cache):
    X, y = draw(n_classes=3)
    assert "'pituitary' has no images" in refuse(TableError, make_cache(X, y))


def test_more_folds_than_images_of_a_class_are_refused(make_cache):
    X, y = draw(60, 3)
    y[:4] = 3
    splits = np.where(np.arange(60) % 4 == 3, "val", "train")
    message = refuse(TableError, make_cache(X, y, splits=splits), cv=5, group_by="none")
    assert "'pituitary' has 4 images" in message
    assert "fewer folds" in message


def test_a_class_too_small_to_split_is_refused(make_cache):
    X, y = draw(60, 3)
    y[0] = 3
    message = refuse(TableError, make_cache(X, y), group_by="none")
    assert "'pituitary' has 1 image" in message
    assert "add images" in message


def test_an_unknown_head_is_refused(make_cache):
    assert "unknown head 'resnet'" in refuse(HeadError, make_cache(*draw()), head="resnet")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_features_that_are_not_finite_are_refused(make_cache, value):
    X, y = draw()
    X[5, 5] = value
    assert "not finite in 1 of 120 rows" in refuse(CacheError, make_cache(X, y))


def test_features_that_are_the_same_in_all_rows_are_refused(make_cache):
    X, y = draw()
    message = refuse(CacheError, make_cache(np.full_like(X, 0.1), y))
    assert "the same features in all 120 rows" in message
    assert "not all black" in message


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("group_by", "patient"),
        ("random_state", -1),
        ("random_state", 1.5),
        ("random_state", 2**32),
    ],
)
def test_an_option_out_of_range_is_refused_by_name(make_cache, option, value):
    message = refuse(ParameterError, make_cache(*draw()), **{option: value})
    assert option in message
    assert repr(value) in message


def test_folds_that_cannot_be_made_are_refused_before_anything_is_fitted(make_cache, fitted_rows):
    refuse(TableError, make_cache(*draw(40)), cv=20)
    assert not fitted_rows


@pytest.mark.parametrize(
    ("head", "params", "name"),
    [
        ("svm", {"depth": 3}, "depth"),
        ("svm", {"C": -1.0}, "C"),
        ("logistic", {"C": "big"}, "C"),
        ("knn", {"n_neighbors": 0}, "n_neighbors"),
        ("knn", {"n_neighbors": 500}, "n_neighbors = 500"),
        ("lda", {"shrinkage": 0.5}, "shrinkage"),
        ("svm", {"C": 10**400}, "too large"),
        ("svm", {"random_state": 3}, "random_state"),
        ("logistic", {"n_jobs": 3}, "n_jobs"),
        ("logistic", {"name": "svm"}, "no parameter 'name'"),
        ("svm", {"class_weight": {"glioblastoma": 2}}, "'glioblastoma'.*glioma, meningioma"),
        ("svm", {"class_weight": {4: 2}}, "class_weight has 4"),
        ("dense", {"layers": 3}, "layers"),
        ("dense", {"dropout": 2}, "dropout"),
    ],
)
def test_a_bad_parameter_is_refused(make_cache, head, params, name):
    with pytest.raises(HeadError, match=name) as caught:
        fit_head(make_cache(*draw()), head=head, params=params)
    assert "\n" not in str(caught.value)


# Cross-validation


def test_out_of_fold_metrics_are_those_of_scikit_learn(make_cache):
    X, y = draw(spread=0.6)
    splits = np.repeat(["train", "val", "test"], [72, 24, 24])
    path = make_cache(X, y, splits=splits)
    bundle = fit(path, cv=4, n_jobs=1, random_state=3, group_by="none")
    X, y = X[:96], y[:96]
    expected, by_fold = np.empty((96, 4)), []
    for train, test in make_folds(y, n_folds=4, random_state=3):
        model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=1000))
        expected[test] = model.fit(X[train], y[train]).decision_function(X[test])
        by_fold.append(metrics.accuracy_score(y[test], expected[test].argmax(axis=1)))
    logits = expected.copy()
    for train, test in make_folds(y, n_folds=4, random_state=3):
        temperature = fit_temperature(logits[train], y[train])
        expected[test] = softmax(logits[test], temperature=temperature)
    found = bundle.training.cv
    predicted = expected.argmax(axis=1)
    pooled = found.out_of_fold
    assert found.n_folds == 4
    assert pooled.accuracy == metrics.accuracy_score(y, predicted)
    assert np.array_equal(pooled.confusion_matrix, metrics.confusion_matrix(y, predicted))
    assert pooled.log_loss == pytest.approx(metrics.log_loss(y, expected), rel=1e-5)
    assert found.accuracy.mean == pytest.approx(np.mean(by_fold))
    assert found.accuracy.std == pytest.approx(np.std(by_fold, ddof=1))


def test_folds_divide_no_group_and_leave_the_test_split_out(make_cache, fitted_rows):
    X, y = draw(160)
    groups = [f"p{row // 8}-{label}" for row, label in enumerate(y)]
    splits = np.repeat(["train", "test"], [120, 40])
    fit(make_cache(X, y, splits=splits, groups=groups), cv=3, n_jobs=1)
    folds = [places(X, train) for train, *_ in fitted_rows if len(train) == 80]
    assert len(folds) == 3
    for train in folds:
        assert max(train) < 120
        held_out = set(range(120)) - set(train)
        assert not {groups[row] for row in train} & {groups[row] for row in held_out}


def test_folds_train_on_views_and_predict_images(make_cache, fitted_rows):
    X, y = draw(40)
    paths = [f"{row}.png" for row in range(40)]
    both = np.concatenate([X, X + 100])
    path = make_cache(
        both,
        np.concatenate([y, y]),
        splits=np.tile(np.repeat(["train", "test"], [32, 8]), 2),
        paths=paths * 2,
        view=np.repeat([0, 1], 40),
    )
    bundle = fit(path, cv=4, n_jobs=1)
    assert bundle.training.cv.out_of_fold.n == 32
    images = [[row % 40 for row in places(both, train)] for train, *_ in fitted_rows]
    folds = [image for image in images if len(image) == 48]
    assert len(folds) == 4
    assert all(sorted(image) == sorted([*set(image)] * 2) for image in folds)


@pytest.mark.slow
def test_folds_of_the_dense_head_take_its_val_from_their_training_images(make_cache, fitted_rows):
    X, y = draw()
    splits = np.repeat(["train", "val", "test"], [72, 24, 24])
    fit(make_cache(X, y, splits=splits), head="dense", cv=3, n_jobs=1)
    folds = [(places(X, train), places(X, val)) for train, val in fitted_rows[:-1]]
    assert len(folds) == 3
    for train, val in folds:
        assert val
        assert len(train) + len(val) == 64
        assert not set(train) & set(val)


def test_folds_of_a_support_vector_machine_train_on_all_images_of_the_others(
    make_cache, fitted_rows
):
    X, y = draw(spread=0.6)
    splits = np.repeat(["train", "val", "test"], [72, 24, 24])
    path = make_cache(X, y, splits=splits)
    bundle = fit(path, head="svm", cv=3, n_jobs=1, group_by="none")
    assert [len(train) for train, _ in fitted_rows].count(64) == 3
    cv = bundle.training.cv
    folds = make_folds(y[:96], n_folds=3, random_state=0)
    scores = [
        head_scores(make_head("svm", random_state=0).fit(X[train], y[train]), X[test])
        for train, test in folds
    ]
    losses = []
    for place, (_, test) in enumerate(folds):
        others = [other for other in range(3) if other != place]
        temperature = fit_temperature(
            np.concatenate([scores[other] for other in others]),
            np.concatenate([y[folds[other][1]] for other in others]),
        )
        p = softmax(scores[place], temperature=temperature)
        losses.append(metrics.log_loss(y[test], p))
    assert cv.log_loss.mean == pytest.approx(np.mean(losses), rel=1e-4)


def test_number_of_processes_changes_nothing(make_cache):
    path = make_cache(*draw(spread=0.6))
    one, two = (fit(path, head="svm", cv=3, n_jobs=n_jobs) for n_jobs in (1, 2))
    assert one.training.cv == two.training.cv


@pytest.mark.parametrize("n_folds", [0, 1])
def test_too_few_folds_are_refused(make_cache, n_folds):
    assert "at least 2" in refuse(TableError, make_cache(*draw()), cv=n_folds)


# What is recorded


@pytest.mark.parametrize("head", HEAD_NAMES)
def test_the_same_seed_gives_the_same_head_bit_for_bit(make_cache, head):
    X, y = draw(spread=0.6)
    path = make_cache(X, y)
    first, second = (fit(path, head=head, random_state=7) for _ in range(2))
    assert np.array_equal(first.predict_proba(X), second.predict_proba(X))
    assert np.array_equal(first.probe, second.probe)
    recorded = [replace(bundle.training, seconds=0.0) for bundle in (first, second)]
    assert recorded[0] == recorded[1]


def test_another_seed_gives_other_splits(make_cache, fitted_rows):
    path = make_cache(*draw())
    for seed in (0, 1):
        fit(path, random_state=seed)
    assert not np.array_equal(fitted_rows[0][0], fitted_rows[2][0])


def test_the_training_record_names_seed_digest_and_versions(make_cache):
    path = make_cache(*draw())
    bundle = fit(path, random_state=5)
    with FeatureCache.open(path) as cache:
        assert bundle.training.cache_sha256 == cache.content_sha256
        assert bundle.spec == cache.spec
    assert bundle.training.random_state == 5
    assert {"brainfeat", "numpy", "scikit-learn"} <= set(bundle.training.versions)
    assert bundle.training.seconds > 0
    assert bundle.training.cv is None
    assert FitRecord.from_json(json.dumps(bundle.training.to_dict())) == bundle.training


@pytest.mark.parametrize("head", ["dense", "logistic"])
@pytest.mark.parametrize("keys", [("glioma", "pituitary"), (0, 3)])
def test_class_weights_are_by_name_and_survive_the_file(make_cache, tmp_path, head, keys):
    X, y = draw(spread=0.6)
    path = make_cache(X, y, splits=np.repeat(["train", "val", "test"], [72, 24, 24]))
    params = {
        **SMALL.get(head, {}),
        "class_weight": dict(zip(keys, (5.0, np.int64(2)), strict=True)),
    }
    bundle = fit_head(path, head=head, params=params)
    by_name = {"glioma": 5.0, "pituitary": 2}
    assert bundle.training.class_weight == bundle.params["class_weight"] == by_name
    back = HeadBundle.load(bundle.save(tmp_path / "head.h5"))
    assert back.params["class_weight"] == by_name
    by_hand = make_head(head, random_state=0, **{**params, "class_weight": {0: 5.0, 3: 2.0}})
    rows = slice(72) if head == "dense" else slice(96)
    stopping = {"validation_data": (X[72:96], y[72:96])} if head == "dense" else {}
    by_hand.fit(X[rows], y[rows], **stopping)
    assert np.allclose(back.scores(X), by_hand.decision_function(X), atol=1e-6)


def test_parameters_that_are_numpy_numbers_are_stored(make_cache, tmp_path):
    bundle = fit_head(make_cache(*draw()), head="knn", params={"n_neighbors": np.int64(3)})
    assert HeadBundle.load(bundle.save(tmp_path / "head.h5")).params == {"n_neighbors": 3}


def test_the_dense_heads_history_is_recorded(make_cache):
    history = fit(make_cache(*draw()), head="dense").training.history
    assert len(history.loss) == len(history.val_loss) == 3


def test_without_a_test_split_there_are_no_test_metrics(make_cache):
    X, y = draw()
    bundle = fit(make_cache(X, y, splits=np.repeat(["train", "val"], [90, 30])))
    assert bundle.training.test is None


def test_an_open_cache_is_as_good_as_its_path(make_cache):
    X, y = draw()
    path = make_cache(X, y)
    with FeatureCache.open(path) as cache:
        opened = fit(cache)
        assert cache.X[:1].shape == (1, 16)
    assert np.array_equal(opened.predict_proba(X), fit(path).predict_proba(X))


def test_the_probe_vectors_are_of_no_image(make_cache):
    X, y = draw()
    probe = fit(make_cache(X, y)).probe
    assert probe.dtype == np.float32
    assert probe.shape == (16, 16)
    assert not (probe[:, None, :] == X[None]).all(axis=2).any()


@pytest.mark.slow
def test_tensorflow_is_imported_only_to_train_the_dense_head(make_cache, tmp_path):
    path = make_cache(*draw())
    fit(path, head="dense").save(tmp_path / "dense.h5")
    script = f"""
        import sys
        from brainfeat.heads.bundle import HeadBundle
        from brainfeat.evaluation.evaluator import evaluate
        from brainfeat.training.fitting import fit_head
        fit_head({str(path)!r}, head="svm").save({str(tmp_path / "svm.h5")!r})
        for head in ("svm", "dense"):
            bundle = HeadBundle.load({str(tmp_path)!r} + f"/{{head}}.h5")
            evaluate(bundle, {str(path)!r}, split="all")
        print(sorted({{"tensorflow", "keras", "torch", "jax"}} & set(sys.modules)))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_evaluate_takes_the_images_that_the_fit_held_out(make_cache) -> None:
    rng = np.random.default_rng(0)
    y = np.arange(120) % 4
    X = rng.normal(size=(120, 8)) + y[:, None]
    path = make_cache(X, y)
    bundle = fit_head(path, head="lda")
    for split in ("val", "test"):
        assert evaluate(bundle, path, split=split).n == getattr(bundle.training.split, split) == 18
    stored = bundle.training.test.to_dict()
    scores = stored.pop("per_class")
    document = evaluate(bundle, path).to_dict()
    assert document.items() >= stored.items()
    assert all(document["per_class"][name].items() >= scores[name].items() for name in scores)
    with FeatureCache.open(path) as cache:
        assert not any(name in str(bundle.training) for name in cache.paths)


def test_evaluate_takes_a_cache_that_the_fit_held_nothing_out_of_as_a_whole(make_cache) -> None:
    rng = np.random.default_rng(0)
    y = np.arange(120) % 4
    bundle = fit_head(make_cache(rng.normal(size=(120, 8)), y), head="lda")
    names = [f"other-{row}.png" for row in range(120)]
    other = make_cache(rng.normal(size=(120, 8)), y, name="other.h5", paths=names)
    found = evaluate(bundle, other)
    assert (found.split, found.n) == ("all", 120)
    with pytest.raises(CacheError, match="held out none of its images as 'val'"):
        evaluate(bundle, other, split="val")


def test_evaluate_refuses_some_of_the_images_that_the_fit_held_out(make_cache) -> None:
    rng = np.random.default_rng(0)
    y = np.arange(120) % 4
    X = rng.normal(size=(120, 8))
    bundle = fit_head(make_cache(X, y), head="lda")
    part = make_cache(X[:60], y[:60], name="part.h5")
    with pytest.raises(CacheError, match="of the 18 images that this head held out as 'test'"):
        evaluate(bundle, part)
