"""Repeats of a fit: what is divided anew, what is measured, and what stays the same."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from support.caches import draw_signatures

from brainfeat.cache.signature import orient_signatures
from brainfeat.errors import ParameterError, TableError
from brainfeat.heads.bundle import HeadBundle
from brainfeat.heads.variation import REPEATED
from brainfeat.leakage.splitting import split_rows
from brainfeat.report.training import make_training
from brainfeat.training import fits
from brainfeat.training.fitting import fit_head

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

FRACTIONS = {"val": 0.15, "test": 0.15}


def draw(rows=200, *, seed=0):
    rng = np.random.default_rng(seed)
    y = np.arange(rows) % 4
    X = 0.6 * rng.standard_normal((4, 16))[y] + rng.standard_normal((rows, 16))
    return X.astype(np.float32), y


def refit(X, y, train, test):
    """Return the accuracy of scikit-learn's own head."""
    head = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=1000))
    return accuracy_score(y[test], head.fit(X[train], y[train]).predict(X[test]))


@pytest.fixture
def tasks(monkeypatch):
    """Record the tasks of the fits in this process."""
    seen, original = [], fits._fit

    def fit(task):
        seen.append(task)
        return original(task)

    monkeypatch.setattr(fits, "_fit", fit)
    return seen


def test_without_splits_all_images_are_divided_anew_by_the_function_that_made_them(make_cache):
    X, y = draw()
    found = fit_head(make_cache(X, y), head="logistic", repeats=3, random_state=5, n_jobs=1)
    repeats, expected = found.training.repeats, []
    for seed in (5, 6, 7):
        names = split_rows(y, fractions=FRACTIONS, random_state=seed)
        expected.append(refit(X, y, names == "train", names == "test"))
    accuracy = repeats.test.metrics["accuracy"]
    assert (repeats.n, repeats.resampled, repeats.random_states) == (3, "all", (5, 6, 7))
    assert accuracy.mean == pytest.approx(np.mean(expected))
    assert accuracy.std == pytest.approx(np.std(expected, ddof=1))
    assert (accuracy.low, accuracy.high) == (min(expected), max(expected))
    assert set(repeats.test.metrics) == set(REPEATED)
    assert repeats.heads == ("logistic",) * 3


def test_the_test_split_of_a_table_stays(make_cache):
    X, y = draw()
    splits = np.repeat(["train", "val", "test"], [120, 40, 40])
    path = make_cache(X, y, splits=splits)
    repeats = fit_head(path, head="logistic", repeats=2, n_jobs=1).training.repeats
    expected = []
    for seed in (0, 1):
        names = split_rows(y[:160], fractions={"val": 0.15}, random_state=seed)
        train = np.append(names == "train", np.zeros(40, bool))
        expected.append(refit(X, y, train, np.arange(160, 200)))
    assert repeats.resampled == "train-val"
    assert (repeats.test.n_low, repeats.test.n_high) == (40, 40)
    assert repeats.test.metrics["accuracy"].mean == pytest.approx(np.mean(expected))


def test_no_repeat_divides_a_group(make_cache, tasks):
    X, y = draw()
    groups = np.array([f"p{row // 8}-{label}" for row, label in enumerate(y)])
    fit_head(make_cache(X, y, groups=groups), head="lda", repeats=4, n_jobs=1)
    repeated = [task for task in tasks if task.val is not None]
    assert len(repeated) == 4
    for task in repeated:
        sides = [set(groups[part]) for part in task.partition.splits.values()]
        assert sum(map(len, sides)) == len(set(groups))


def test_the_head_that_is_saved_is_that_of_its_seed(make_cache, tmp_path):
    X, y = draw()
    path = make_cache(X, y)
    one, other = (
        fit_head(path, head="random-forest", params={"n_estimators": 5}, repeats=n, n_jobs=1)
        for n in (None, 2)
    )
    assert (one.predict_proba(X) == other.predict_proba(X)).all()
    assert one.training.test == other.training.test
    assert one.training.repeats is None
    again = HeadBundle.load(other.save(tmp_path / "head.h5"))
    assert again.training.repeats == other.training.repeats


def test_the_seed_of_a_repeat_is_that_of_its_head(make_cache, tasks):
    path = make_cache(*draw())
    small = {"epochs": 2, "hidden_units": (4,)}
    fit_head(path, head="dense", params=small, repeats=2, n_jobs=1)
    assert [task.recipe.random_state for task in tasks] == [0, 1]
    assert all(task.val is task.partition.splits["val"] for task in tasks)


def test_images_of_which_train_or_val_has_a_copy_are_left_out_of_one_column(make_cache):
    X, y = draw()
    signature = draw_signatures(200)
    signature[160:180] = orient_signatures(signature[:20], 1)
    splits = np.repeat(["train", "val", "test"], [120, 40, 40])
    path = make_cache(X, y, splits=splits, signature=signature)
    repeats = fit_head(path, head="lda", repeats=2, n_jobs=1).training.repeats
    assert repeats.test.n_low == 40
    assert repeats.test_without_copies.n_low == repeats.test_without_copies.n_high == 20


def test_where_no_test_image_has_a_copy_there_is_one_column(make_cache):
    X, y = draw()
    path = make_cache(X, y, signature=draw_signatures(200))
    assert (
        fit_head(path, head="lda", repeats=2, n_jobs=1).training.repeats.test_without_copies is None
    )


@pytest.mark.slow
def test_where_heads_are_compared_a_repeat_compares_them_anew(make_cache, tasks):
    calls = []
    path = make_cache(*draw(120))
    options = {"search": True, "n_iter": 2, "cv": 2, "n_jobs": 1}
    bundle = fit_head(
        path, head="knn", repeats=2, progress=lambda *call: calls.append(call), **options
    )
    # Two candidates on two folds, for the head and for each of two repeats, and these themselves.
    assert len(tasks) == 3 * 4 + 2
    assert bundle.training.repeats.heads == ("knn", "knn")
    assert all(done <= total for done, total in calls)


@pytest.mark.parametrize("n", [1, 0, True, 2.5, "3"])
def test_fewer_than_two_repeats_are_refused(make_cache, n):
    with pytest.raises(ParameterError, match="repeats must be an integer of 2 or more"):
        fit_head(make_cache(*draw()), head="lda", repeats=n)


def test_a_table_without_a_test_split_is_refused(make_cache):
    path = make_cache(*draw(), splits=np.repeat(["train", "val"], [160, 40]))
    with pytest.raises(TableError, match="repeats need test images"):
        fit_head(path, head="lda", repeats=2)


def test_groups_that_can_be_divided_in_one_way_are_refused_before_the_fit(make_cache, tasks):
    """Each class has two patients of very different sizes, so that val is always the small one."""
    X, y = draw()
    splits = ["train"] * 160 + ["test"] * 40
    groups = [f"{label}-{'small' if row < 4 else 'large'}" for row, label in enumerate(y)]
    groups[160:] = [""] * 40
    path = make_cache(X, y, groups=groups, splits=splits)
    with pytest.raises(TableError, match="all 3 repeats would be fitted on the same images"):
        fit_head(path, head="lda", repeats=3, group_by="column", n_jobs=1)
    assert not tasks


def test_the_report_and_the_terminal_have_the_spread_and_not_the_best(run, make_cache, tmp_path):
    path = make_cache(*draw())
    command = ("fit-head", path, "-o", tmp_path / "a.h5", "--head", "lda", "--jobs", 1)
    told = run(*command, "--repeats", 3)
    assert "3 repeats on test images" in told.out
    shown = " ".join(told.out.split())
    assert "all images were divided anew into train, val and test" in shown
    assert "the best repeat is best by chance" in shown
    bundle = HeadBundle.load(tmp_path / "a.h5")
    accuracy = bundle.training.repeats.test.metrics["accuracy"]
    assert f"{accuracy.mean:.3f} ± {accuracy.std:.3f}" in told.out
    table = make_training(SimpleNamespace(bundle=bundle)).blocks[-1]
    assert table.rows[1][1].value == f"{accuracy.mean:.3f} ± {accuracy.std:.3f}"
    document = json.loads(run(*command, "--repeats", 3, "--overwrite", "--json").out)
    assert document["repeats"]["test"]["metrics"]["accuracy"]["mean"] == accuracy.mean
    assert "Traceback" not in (refused := run(*command, "--repeats", 1)).err
    assert refused.code == 2
