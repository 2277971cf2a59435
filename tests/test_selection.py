"""Candidates: which are drawn, how they are ranked, which is chosen, and how it is reported."""

import json
import warnings
from dataclasses import replace
from types import SimpleNamespace

import joblib
import numpy as np
import pytest
from sklearn import metrics
from sklearn.model_selection import ParameterGrid
from support.depth import one_in, thin

from brainfeat.errors import HeadError, ParameterError, TableError
from brainfeat.heads.bundle import HeadBundle
from brainfeat.heads.grids import GRIDS, draw_candidates
from brainfeat.heads.kinds import HEAD_NAMES, make_head
from brainfeat.heads.recipe import HeadRecipe
from brainfeat.heads.record import Spread
from brainfeat.heads.trees import TREE_HEADS
from brainfeat.training import fits
from brainfeat.training.fitting import fit_head
from brainfeat.training.partition import Partition
from brainfeat.training.selection import cross_validate, select_head

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

NAMES = ("glioma", "meningioma", "notumor", "pituitary")
# Cheap values, which `head="all"` gives to the heads that accept them.
SMALL = {"epochs": 3, "hidden_units": (8,), "n_estimators": 5}


def draw(rows=120, *, spread=0.7, seed=0):
    rng = np.random.default_rng(seed)
    y = np.arange(rows) % 4
    centres = spread * rng.standard_normal((4, 12))
    return (centres[y] + rng.standard_normal((rows, 12))).astype(np.float32), y


def make_partition(n_folds, *, random_state=0, **drawn):
    """Make a partition of 120 images in memory, all of them in train."""
    X, y = draw(**drawn)
    place = np.arange(len(y))
    splits = {"train": place, "val": place[:0], "test": place[:0]}
    partition = Partition(X=X, y=y, image=place, rows=place, class_names=NAMES, splits=splits)
    return partition.with_folds(n_folds, random_state=random_state)


def make_recipe(head, **params):
    return HeadRecipe(head=head, params=params, class_names=NAMES, random_state=0)


# The grids


@pytest.mark.parametrize("head", HEAD_NAMES)
def test_the_first_point_of_a_grid_is_the_heads_default(head):
    estimator = make_head(head)
    classifier = estimator["classifier"] if hasattr(estimator, "steps") else estimator
    (first,) = draw_candidates(head, fixed={}, n_iter=1, random_state=0)
    own = {name: classifier.get_params()[name] for name in first}
    assert json.loads(json.dumps(own)) == first


@pytest.mark.parametrize("head", HEAD_NAMES)
def test_as_many_candidates_as_points_are_the_whole_grid(head):
    grid = list(ParameterGrid(list(GRIDS[head])))
    for n_iter in (len(grid), len(grid) + 10):
        assert draw_candidates(head, fixed={}, n_iter=n_iter, random_state=0) == grid


@pytest.mark.slow
@one_in(5)
@pytest.mark.parametrize("head", sorted(set(HEAD_NAMES) - {"dense"}))
def test_every_point_of_a_grid_can_be_fitted_and_saved(head, every, make_cache, tmp_path):
    cache = make_cache(*draw())
    trees = {"n_estimators": 3, "max_iter": 2}
    for place, point in enumerate(thin(ParameterGrid(list(GRIDS[head])), every)):
        small = trees if head in TREE_HEADS else {}
        params = {**point, **{k: v for k, v in small.items() if k in make_head(head).get_params()}}
        bundle = fit_head(cache, head=head, params=params)
        assert HeadBundle.load(bundle.save(tmp_path / f"{place}.h5")).params == params


def test_candidates_are_drawn_without_replacement_and_by_the_seed():
    first, again, other = (
        draw_candidates("svm", fixed={}, n_iter=8, random_state=seed) for seed in (0, 0, 1)
    )
    assert first == again != other
    assert len({json.dumps(point) for point in first}) == 8
    assert first[0] == other[0] == {"C": 10.0, "gamma": "scale"}


def test_a_fixed_parameter_leaves_the_grid():
    points = draw_candidates("svm", fixed={"C": 5, "kernel": "poly"}, n_iter=99, random_state=0)
    assert len(points) == 4
    assert all(point["C"] == 5 and point["kernel"] == "poly" for point in points)


def test_a_fixed_solver_leaves_the_grids_of_others_out():
    points = draw_candidates("lda", fixed={"solver": "svd"}, n_iter=99, random_state=0)
    assert points == [{"solver": "svd"}]


# Ranking


def test_candidates_rank_by_scikit_learns_balanced_accuracy_of_the_same_folds():
    partition = make_partition(4, random_state=1)
    recipes = [make_recipe("knn", n_neighbors=n) for n in (1, 3, 9)] + [make_recipe("lda")]
    found = select_head(recipes, partition, n_jobs=1)
    expected = []
    for recipe in recipes:
        by_fold = [
            metrics.balanced_accuracy_score(
                partition.y[test],
                recipe.make()
                .fit(partition.X[train], partition.y[train])
                .predict(partition.X[test]),
            )
            for train, test in partition.folds
        ]
        expected.append((np.mean(by_fold), np.std(by_fold, ddof=1)))
    means = [candidate.mean for candidate in found.candidates]
    assert means == sorted(means, reverse=True)
    assert [candidate.rank for candidate in found.candidates] == [1, 2, 3, 4]
    by_params = {json.dumps([c.head, c.params]): (c.mean, c.std) for c in found.candidates}
    for recipe, scores in zip(recipes, expected, strict=True):
        assert by_params[json.dumps([recipe.head, recipe.params])] == pytest.approx(scores)


def test_equal_scores_and_losses_rank_by_order():
    partition = make_partition(3)
    same = [make_recipe("lda", tol=tol) for tol in (1e-4, 1e-5, 1e-6)]
    found = select_head(same, partition, n_jobs=1)
    assert [candidate.params["tol"] for candidate in found.candidates] == [1e-4, 1e-5, 1e-6]


def test_equal_scores_rank_by_log_loss():
    partition = make_partition(3, spread=8.0)
    found = select_head([make_recipe("logistic", C=C) for C in (1e-4, 1.0)], partition, n_jobs=1)
    first, second = found.candidates
    assert first.mean == second.mean == 1.0
    assert first.log_loss < second.log_loss
    assert first.params == {"C": 1.0}


def test_the_scores_of_the_chosen_are_those_of_its_own_cross_validation():
    partition = make_partition(4)
    found = select_head([make_recipe("svm", C=C) for C in (0.01, 1.0)], partition, n_jobs=1)
    alone = cross_validate(found.recipe, partition, n_jobs=1)
    assert found.cv == alone
    best = found.candidates[0]
    assert Spread(mean=best.mean, std=best.std) == alone.scores.balanced_accuracy
    assert best.log_loss == alone.scores.log_loss.mean


def test_number_of_processes_changes_no_rank():
    partition = make_partition(3)
    recipes = [make_recipe("svm", C=C) for C in (0.1, 1.0, 10.0)]
    one, two = (select_head(recipes, partition, n_jobs=n_jobs) for n_jobs in (1, 2))
    assert [replace(row, seconds=0) for row in one.candidates] == [
        replace(row, seconds=0) for row in two.candidates
    ]


@pytest.mark.parametrize(
    ("head", "n_jobs", "limit", "processes"),
    [("svm", None, 8192, 1), ("svm", None, 10, 2), ("svm", 2, 8192, 2), ("lda", None, 8192, 2)],
)
def test_no_process_is_started_for_folds_that_take_less_time(
    head, n_jobs, limit, processes, monkeypatch
):
    asked, parallel = [], joblib.Parallel

    def watch(*, n_jobs, **options):
        asked.append(n_jobs)
        return parallel(n_jobs=1, **options)

    monkeypatch.setattr("brainfeat.heads.kernels.KERNEL_ROWS", limit)
    monkeypatch.setattr("brainfeat.runtime.usable_cores", lambda: 2)
    monkeypatch.setattr(joblib, "Parallel", watch)
    cross_validate(make_recipe(head), make_partition(3), n_jobs=n_jobs)
    assert asked == [processes]


def test_a_candidate_that_fails_is_listed_last_with_its_error():
    partition = make_partition(3)
    recipes = [make_recipe("knn", n_neighbors=500), make_recipe("knn", n_neighbors=3)]
    good, failed = select_head(recipes, partition, n_jobs=1).candidates
    assert (good.rank, good.error, good.params) == (1, None, {"n_neighbors": 3})
    assert (failed.rank, failed.mean, failed.std, failed.log_loss) == (None,) * 4
    assert "n_neighbors = 500" in str(failed.error)


def test_if_all_candidates_fail_it_is_an_error_of_one_line():
    partition = make_partition(3)
    recipes = [make_recipe("svm", C=C) for C in (-1.0, -2.0)]
    with pytest.raises(HeadError, match=r"none of 2 candidates can be fitted: .*'C'") as caught:
        select_head(recipes, partition, n_jobs=1)
    assert "\n" not in str(caught.value)


def test_warnings_of_scikit_learn_are_kept_with_the_candidate():
    partition = make_partition(3)
    recipes = [make_recipe("logistic", max_iter=n) for n in (1, 1000)]
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        found = select_head(recipes, partition, n_jobs=1)
    by_limit = {row.params["max_iter"]: row.warnings for row in found.candidates}
    assert "converge" in by_limit[1][0]
    assert by_limit[1000] == ()


def test_progress_counts_the_fits_of_all_folds():
    partition = make_partition(3)
    calls = []
    select_head(
        [make_recipe("lda"), make_recipe("knn")],
        partition,
        n_jobs=1,
        progress=lambda done, total: calls.append((done, total)),
    )
    assert calls == [(done, 6) for done in range(1, 7)]


# Searches and comparisons through fit_head


def test_a_search_records_its_table_and_fits_its_best(make_cache, tmp_path):
    X, y = draw(160)
    cache = make_cache(X, y, splits=np.repeat(["train", "val", "test"], [100, 30, 30]))
    bundle = fit_head(cache, head="logistic", search=True, n_iter=4, cv=3, n_jobs=1)
    search = bundle.training.search
    assert (search.metric, search.n_folds, search.chosen) == ("balanced_accuracy", 3, 1)
    assert len(search.candidates) == 4
    best = search.candidates[0]
    assert (best.head, best.params) == (bundle.head, bundle.params)
    assert bundle.training.cv.balanced_accuracy.mean == best.mean
    direct = fit_head(cache, head="logistic", params=best.params, cv=3, n_jobs=1)
    assert np.array_equal(direct.predict_proba(X), bundle.predict_proba(X))
    assert direct.training.cv == bundle.training.cv
    assert direct.training.search is None
    back = HeadBundle.load(bundle.save(tmp_path / "head.h5"))
    assert back.training.search == search


@pytest.mark.slow
def test_the_test_images_do_not_change_the_choice(make_cache):
    X, y = draw(160)
    splits = np.repeat(["train", "test"], [120, 40])
    other = X.copy()
    other[120:] = np.random.default_rng(9).standard_normal((40, 12))
    tables = [
        fit_head(
            make_cache(rows, y, splits=splits, name=f"{place}.h5"),
            head="knn",
            search=True,
            n_jobs=1,
        ).training
        for place, rows in enumerate((X, other))
    ]
    rows = [[replace(row, seconds=0) for row in table.search.candidates] for table in tables]
    assert rows[0] == rows[1]
    assert tables[0].test != tables[1].test


@pytest.mark.slow
def test_folds_of_a_search_divide_no_group(make_cache, monkeypatch):
    X, y = draw(160)
    groups = [f"p{row // 8}-{label}" for row, label in enumerate(y)]
    seen = []
    original = fits._fit

    def fit_and_score(task):
        sides = (task.train, task.scored)
        seen.append(tuple({str(group) for group in task.partition.groups[side]} for side in sides))
        return original(task)

    monkeypatch.setattr(fits, "_fit", fit_and_score)
    fit_head(make_cache(X, y, groups=groups), head="lda", search=True, n_jobs=1)
    assert len(seen) == 35
    assert not any(train & test for train, test in seen)


@pytest.mark.slow
def test_all_compares_every_head_with_the_parameters_that_it_accepts(make_cache):
    bundle = fit_head(make_cache(*draw()), head="all", params=SMALL, cv=2, n_jobs=1)
    rows = {row.head: row.params for row in bundle.training.search.candidates}
    assert set(rows) == set(HEAD_NAMES)
    assert rows["dense"] == {"epochs": 3, "hidden_units": (8,)}
    assert rows["random-forest"] == {"n_estimators": 5}
    assert rows["svm"] == {}
    assert bundle.head == bundle.training.search.candidates[0].head


@pytest.mark.parametrize(
    ("error", "options", "message"),
    [
        (HeadError, {"head": "all", "params": {"depth": 3}}, "no head has a parameter 'depth'"),
        (HeadError, {"head": "resnet", "search": True}, "unknown head 'resnet'"),
        (HeadError, {"head": "svm", "search": True, "params": {"depth": 3}}, "'depth'"),
        (ParameterError, {"head": "svm", "search": True, "n_iter": 0}, "n_iter .* got 0"),
        (ParameterError, {"head": "svm", "n_iter": 5}, "ask for one with search"),
        (TableError, {"head": "svm", "search": True, "cv": 60}, "60 folds"),
    ],
)
def test_a_search_that_cannot_be_made_is_refused(make_cache, error, options, message):
    with pytest.raises(error, match=message):
        fit_head(make_cache(*draw()), n_jobs=1, **options)


# The command


@pytest.fixture
def command(make_cache, capsys, tmp_path):
    from brainfeat.cli import main

    X, y = draw(160)
    cache = make_cache(X, y, splits=np.repeat(["train", "test"], [120, 40]))

    def run(*arguments):
        words = ["fit-head", str(cache), "-o", str(tmp_path / "h.h5"), "--jobs", "1", *arguments]
        main(words)
        printed = capsys.readouterr()
        return SimpleNamespace(out=printed.out, err=printed.err, path=tmp_path / "h.h5")

    return run


def test_the_command_prints_the_ranks_and_warns_of_their_bias(command):
    result = command("--head", "knn", "--search", "--n-iter", "3", "--param", "weights=distance")
    lines = result.out.splitlines()
    assert [line.split()[:2] for line in lines[1:4]] == [["1", "knn"], ["2", "knn"], ["3", "knn"]]
    assert all("weights=distance" in line for line in lines[1:4])
    assert "same 5 folds; no test image is in them" in lines[4]
    assert "optimistically biased: report the test metrics" in lines[5]
    assert lines[6].startswith("knn head of 4 classes")
    assert HeadBundle.load(result.path).head == "knn"


@pytest.mark.slow
def test_the_command_gives_the_table_as_json(command):
    document = json.loads(command("--head", "lda", "--search", "--json").out)
    best = document["search"]["candidates"][0]
    assert document["params"] == best["params"]
    assert set(best) == {
        "rank", "head", "params", "mean", "std", "log_loss", "seconds", "warnings", "error"
    }  # fmt: skip


def test_the_command_saves_trees(command, monkeypatch):
    monkeypatch.setattr("brainfeat.training.candidates.HEAD_NAMES", ("knn", "random-forest"))
    result = command("--head", "all", "--param", "n_estimators=60", "--param", "n_neighbors=95")
    assert HeadBundle.load(result.path).head == "random-forest"


def test_the_command_shows_a_failed_candidate_and_a_warning(command, monkeypatch):
    monkeypatch.setattr("brainfeat.training.candidates.HEAD_NAMES", ("logistic", "knn"))
    with warnings.catch_warnings(record=True):
        warnings.simplefilter("default")
        result = command("--head", "all", "--param", "n_neighbors=500", "--param", "max_iter=1")
    (line,) = [line for line in result.out.splitlines() if "failed" in line]
    assert line.split()[:2] == ["–", "knn"]
    assert "n_neighbors=500" in line
    assert "warning: rank 1, logistic: " in result.err


def find_help(name):
    from click.testing import CliRunner

    from brainfeat.cli.main import group

    return CliRunner().invoke(group, [name, "--help"]).output


OLD_OPTION = "--strangers"  # codespell:ignore


@pytest.mark.parametrize("option", ["--ood-examples", OLD_OPTION])
def test_the_command_takes_out_of_distribution_examples_under_both_names(
    command, make_cache, option
):
    X, y = draw(40, seed=5)
    examples = make_cache(X + 6, y, name="examples.h5")
    result = command("--head", "lda", option, str(examples))
    assert HeadBundle.load(result.path).training.ood_examples == 40
    assert OLD_OPTION not in find_help("fit-head")
