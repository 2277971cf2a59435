"""Ensembles from a cache to a file: what is fitted, calibrated, recorded, refused and shown."""

import json

import h5py
import numpy as np
import pytest
from click.testing import CliRunner
from support.bundles import CLASSES, craft_head, make_bundle, refuse
from support.caches import draw_groups, write_vectors
from support.layered import write_layered

from brainfeat import FeatureCache, fit_head
from brainfeat.cli.fit_head import command as fit_command
from brainfeat.cli.heads import HeadName
from brainfeat.cli.info import command as info_command
from brainfeat.errors import BundleError, HeadError, ParameterError
from brainfeat.evaluation.evaluator import evaluate
from brainfeat.heads.bundle import HeadBundle
from brainfeat.heads.ensemble_archive import from_arrays, to_arrays
from brainfeat.heads.ensembles import EnsembleHead
from brainfeat.training.block_votes import choose_ensemble
from brainfeat.training.candidates import make_recipes
from brainfeat.training.learning_curve import learning_curve
from brainfeat.training.partition import Partition

NAME = "stack:lda+random-forest"
PARAMS = {"random-forest.n_estimators": 3, "n_folds": 3}


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """A cache of 60 patients with one to four images of one class each, and a view more of each."""
    X, y, groups = draw_groups(60)
    rows = np.concatenate([X, X + 0.1])
    return write_vectors(
        tmp_path_factory.mktemp("cache"),
        rows,
        np.tile(y, 2),
        groups=[*groups, *groups],
        paths=[f"{row % len(X)}.png" for row in range(len(rows))],
        view=np.repeat([0, 1], len(X)),
    )


@pytest.fixture(scope="module")
def stack(cache):
    return fit_head(cache, head=NAME, params=PARAMS, n_jobs=1)


@pytest.fixture(scope="module")
def saved(stack, tmp_path_factory):
    return stack.save(tmp_path_factory.mktemp("head") / "stack.h5")


def test_groups_and_views_stay_together(cache, monkeypatch) -> None:
    seen = []
    fit = EnsembleHead.fit

    def remember(self, X, y, *, groups, scored):
        seen.append((X, groups, scored))
        return fit(self, X, y, groups=groups, scored=scored)

    monkeypatch.setattr(EnsembleHead, "fit", remember)
    fit_head(cache, head="vote:lda+knn", params={"n_folds": 2}, n_jobs=1)
    with FeatureCache.open(cache) as opened:
        patients = {
            row.tobytes(): group for row, group in zip(opened.X, opened.groups, strict=True)
        }
    # On train, in five folds, and on train and val.
    assert len(seen) == 7
    for X, groups, scored in seen:
        assert 2 * scored.sum() == len(X)
        names = [patients[row.tobytes()] for row in X]
        assert len({*zip(names, groups, strict=True)}) == len({*names}) == len({*groups})
        assert len(X) > 1.5 * len({*names})


def test_rows_without_a_group_are_numbered_by_their_images(cache) -> None:
    with FeatureCache.open(cache) as opened:
        partition = Partition.read(opened)
    assert partition.group_numbers.tolist() == partition.image.tolist()
    labels = np.array(["", "a", "a"])
    some = Partition(
        X=np.zeros((4, 1), np.float32),
        y=np.zeros(4, np.int64),
        image=np.array([0, 1, 2, 0]),
        rows=np.arange(4),
        class_names=("x",),
        splits={},
        groups=np.array([*labels, ""]),
    )
    numbers = some.group_numbers.tolist()
    assert (numbers[0], numbers[1]) == (numbers[3], numbers[2])
    assert numbers[0] != numbers[1]


def test_the_whole_ensemble_is_calibrated_out_of_fold(stack, cache) -> None:
    record = stack.training
    assert record.calibration.n_folds == 5
    assert record.calibration.n == record.split.train + record.split.val
    assert len(stack.conformal.labels) == record.calibration.n
    assert record.refitted_on_val is True
    assert stack.ood_detector is not None
    # Two members in three folds and on all rows; and that in five folds, on train, and on both.
    assert record.member_fits == 2 * (3 + 1) * 7
    assert evaluate(stack, cache).accuracy == record.test.accuracy


def test_a_file_gives_the_same_head(stack, saved) -> None:
    loaded = HeadBundle.load(saved)
    X = stack.probe + np.float32(0.5)
    np.testing.assert_allclose(loaded.predict_proba(X), stack.predict_proba(X), rtol=1e-12)
    assert (loaded.head, loaded.params, loaded.training) == (NAME, PARAMS, stack.training)
    assert loaded.estimator.n_folds_ == 3
    with h5py.File(saved) as file:
        assert set(file["members"]) == {"0", "1", "temperatures", "columns", "n_folds", "stack"}
        assert set(file["members/0"]) == {"skops"}


@pytest.mark.parametrize("name", ["folds:svm", "vote:logistic+hist-gradient-boosting"])
def test_other_ensembles_are_kept(name, cache, tmp_path) -> None:
    params = {"hist-gradient-boosting.max_iter": 4} if "boosting" in name else {"C": 1.0}
    head = fit_head(cache, head=name, params={**params, "n_folds": 2}, n_jobs=1)
    loaded = HeadBundle.load(head.save(tmp_path / "head.h5"))
    np.testing.assert_allclose(
        loaded.predict_proba(head.probe), head.predict_proba(head.probe), rtol=1e-12
    )
    assert len(loaded.estimator.members_) == 2


def test_parameters_go_to_the_members_that_take_them(cache) -> None:
    given = {"class_weight": {"glioma": 2.0}, "svm.class_weight": "balanced", "n_folds": 2}
    head = fit_head(cache, head="vote:svm+logistic+knn", params=given, n_jobs=1)
    assert head.params == {
        "n_folds": 2,
        "logistic.class_weight": {"glioma": 2.0},
        "svm.class_weight": "balanced",
    }
    svm, logistic, _ = (member.estimator for member in head.estimator.members_)
    assert svm[-1].class_weight == "balanced"
    assert logistic[-1].class_weight == {0: 2.0}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"head": NAME, "search": True}, "search its members alone first"),
        ({"head": NAME, "params": {"epochs": 3}}, "has no parameter 'epochs'"),
        ({"head": NAME, "params": {"lda.random_state": 3}}, "'lda.random_state'; the seed"),
        ({"head": "vote:lda+tree"}, "has the member 'tree'"),
    ],
)
def test_what_is_refused(options, message, cache) -> None:
    with pytest.raises(HeadError, match=message):
        fit_head(cache, n_jobs=1, **options)


def test_one_member_for_each_block(cache) -> None:
    with FeatureCache.open(cache) as opened:
        X, y = np.asarray(opened.X[:]), np.asarray(opened.y[:])
        with pytest.raises(ParameterError, match='how="vote" combines caches that are joined'):
            choose_ensemble("lda", "vote", opened)
        with pytest.raises(ParameterError, match="has one member, and these are the features of"):
            choose_ensemble("vote:lda", None, opened)
        assert choose_ensemble("lda", None, opened) == ("lda", ())
    (recipe,) = make_recipes(
        "stack:lda",
        {"lda.solver": "lsqr"},
        class_names=CLASSES,
        n_iter=None,
        random_state=0,
        widths=(3, 5),
    )
    head = recipe.fit_head(X, y, rows=np.arange(len(X)))
    assert [member.columns for member in head.estimator.members_] == [(0, 3), (3, 8)]
    arrays = to_arrays("stack:lda", head.estimator)
    size = {"n_features": 8, "n_classes": 4, "temperature": 1.0, "params": {}}
    again = from_arrays(arrays, name="stack:lda", n_blocks=2, **size)
    np.testing.assert_allclose(again.predict_proba(X), head.predict_proba(X))
    with pytest.raises(BundleError, match="one member for each block"):
        from_arrays(arrays, name="stack:lda", **size)


def test_repeats_bags_and_learning_curves(cache) -> None:
    head = fit_head(cache, head="vote:lda+knn", params={"n_folds": 2}, repeats=2, n_jobs=1)
    assert head.training.repeats.heads == ("vote:lda+knn",) * 2
    bags = fit_head(cache, head="vote:lda+knn", params={"n_folds": 2}, bag="mean", n_jobs=1)
    assert bags.training.split.train < head.training.split.train
    curve = learning_curve(cache, head="vote:logistic+knn", repeats=2, n_jobs=1)
    assert "two groups or more" in curve.points[0].error
    # The folds are drawn, so that even the fits on all groups differ.
    assert [point.fits for point in curve.points] == [2] * len(curve.points)
    assert curve.points[-1].error is None


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"head": {"name": "stack:lda"}}, "one member for each block"),
        ({"head": {"name": "stack:lda+random-forest+knn"}}, "expected 3, numbered from 0"),
        ({"head": {"name": "folds:lda"}}, "expected 3, numbered from 0"),
        ({"head": {"name": "stack:lda+vote:lda"}}, "has the member 'vote:lda'"),
        ({"head": {"name": "stack:random-forest+lda"}}, "member 0, random-forest, of"),
        ({"head": {"name": "vote:lda+random-forest"}}, "has the unknown arrays stack/"),
        ({"head": {"name": "lda"}}, "a lda head is a skops archive alone"),
        ({"class_names": CLASSES[:3]}, "members/stack/kernel has shape (8, 4); expected (6, 3)"),
        ({"members/n_folds": np.array([10**9])}, "must be from 2 to 20, got 1000000000"),
        ({"members/n_folds": np.array([5, 5])}, "members/n_folds has shape (2,)"),
        ({"members/temperatures": np.array([1.0, 0.0])}, "must be positive and finite"),
        ({"members/temperatures": np.array([1.0])}, "has shape (1,); expected (2,)"),
        ({"members/columns": np.array([[0, 8], [0, 9]])}, "must be ranges of 0 to 8"),
        ({"members/columns": np.array([[0, 7], [0, 8]])}, "member 0, lda, of"),
        ({"members/columns": np.array([[-1, 8], [0, 8]])}, "must be ranges of 0 to 8"),
        ({"members/stack/bias": np.full(4, np.nan)}, "must have finite numbers only"),
        ({"members/stack/bias": None}, "has no array members/stack/bias"),
        ({"members/1": None}, "has the members [0]; expected 2"),
        ({"skops": np.zeros(9, np.uint8)}, "an ensemble has arrays of members alone"),
        ({"members/99/skops": np.zeros(9, np.uint8)}, "members/99/skops"),
        ({"members/0/members/0/skops": np.zeros(9, np.uint8)}, "members/0/members"),
        ({"members/0/skops": np.zeros(9, np.uint8)}, "member 0, lda, of"),
    ],
)
def test_a_crafted_file_is_refused(changed, message, saved, tmp_path) -> None:
    arrays = {name: array for name, array in changed.items() if "/" in name or name == "skops"}
    attributes = {name: value for name, value in changed.items() if name not in arrays}
    if "head" in attributes:
        attributes["head"] = json.dumps({"params": {}, **attributes["head"]})
    if "class_names" in attributes:
        attributes["class_names"] = json.dumps(attributes["class_names"])
    crafted = craft_head(
        {"stack": saved},
        tmp_path / "crafted.h5",
        "stack",
        arrays={name: array for name, array in arrays.items() if array is not None},
        remove=[name for name, array in arrays.items() if array is None],
        **attributes,
    )
    assert message in refuse(crafted)


def test_a_member_of_other_classes_is_refused(saved, cache, tmp_path) -> None:
    two = make_bundle("lda", 2, spec=HeadBundle.load(saved).spec).save(tmp_path / "two.h5")
    with h5py.File(two) as file:
        archive = file["skops"][()]
    crafted = craft_head(
        {"stack": saved}, tmp_path / "crafted.h5", "stack", arrays={"members/0/skops": archive}
    )
    assert "member 0, lda, of" in refuse(crafted)


def test_the_command(cache, tmp_path) -> None:
    output = tmp_path / "head.h5"
    options = ["--head", "vote:lda+knn", "--param", "knn.n_neighbors=3", "--param", "n_folds=2"]
    run = CliRunner().invoke(
        fit_command, [str(cache), "-o", str(output), *options, "--jobs", "1", "--json"]
    )
    assert run.exit_code == 0, run.output
    assert "fitted 7 times to be measured and calibrated, 6 fits of its members" in run.stderr
    assert json.loads(run.stdout)["params"] == {"knn.n_neighbors": 3, "n_folds": 2}
    described = json.loads(CliRunner().invoke(info_command, [str(output), "--json"]).stdout)
    assert described["ensemble"] == {
        "how": "vote",
        "members": ["lda", "knn"],
        "temperatures": [pytest.approx(1, abs=30)] * 2,
        "n_folds": 2,
        "fits": 42,
    }


def test_the_command_counts_a_member_for_each_layer(tmp_path) -> None:
    options = ["--layer", "block3_pool+block5_pool", "--how", "vote", "--head", "lda"]
    output = str(tmp_path / "head.h5")
    run = CliRunner().invoke(
        fit_command, [str(write_layered(tmp_path)), "-o", output, *options, "--jobs", "1"]
    )
    assert run.exit_code == 0, run.output
    assert "vote:lda: the ensemble is fitted 7 times" in run.stderr
    assert "12 fits of its members each time" in run.stderr
    assert HeadBundle.load(output).training.member_fits == 7 * 12


@pytest.mark.parametrize(
    ("head", "message"),
    [("vote:lda+tree", "a member is one of dense, logistic"), ("tree", "is not one of 'dense'")],
)
def test_the_command_names_what_is_allowed(head, message, cache, tmp_path) -> None:
    run = CliRunner().invoke(
        fit_command, [str(cache), "-o", str(tmp_path / "h.h5"), "--head", head]
    )
    assert (run.exit_code, message in run.stderr) == (2, True)


def test_names_are_completed() -> None:
    def complete(text):
        return [item.value for item in HeadName().shell_complete(None, None, text)]

    assert complete("l") == ["logistic", "linear-svm", "lda"]
    assert complete("vo") == ["vote:"]
    assert complete("vote:svm+l") == ["vote:svm+logistic", "vote:svm+linear-svm", "vote:svm+lda"]
    assert complete("vote:lda+ld") == []
