"""learning_curve: which groups each fit gets, what is measured, and what more data would bring."""

import json
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from support.caches import draw_signatures, write_vectors

from brainfeat.cache.cache import FeatureCache
from brainfeat.cli.main import group
from brainfeat.errors import ParameterError, TableError
from brainfeat.evaluation.growth import estimate_gain
from brainfeat.heads.recipe import HeadRecipe
from brainfeat.report.learning_curve import describe_gain, write_curve, write_curve_markdown
from brainfeat.training.fitting import fit_head
from brainfeat.training.learning_curve import learning_curve

CLASSES = ("glioma", "meningioma", "notumor")
SPLITS = np.repeat(["train", "val", "test"], (132, 24, 84))


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """Write overlapping clouds: images of a class in turn, patients of two neighbouring images."""
    folder = tmp_path_factory.mktemp("curve")
    rng = np.random.default_rng(0)
    y = np.arange(240) // 2 % 3
    X = rng.standard_normal((3, 8))[y] + rng.standard_normal((240, 8))
    patients = [f"patient-{row // 2}" for row in range(240)]
    signature = draw_signatures(240)
    # 60 test images are copies of training images.
    signature[156:216] = signature[:60]
    return write_vectors(
        folder,
        X,
        y,
        class_names=CLASSES,
        splits=SPLITS,
        groups=patients,
        signature=signature,
    )


@pytest.fixture(scope="module")
def curve(path):
    return learning_curve(path, head="svm", group_by="column", repeats=3)


def test_each_fit_is_that_of_scikit_learn_on_whole_nested_groups(path, monkeypatch):
    fitted = []
    original = HeadRecipe.fit_head

    def fit(self, X, y, *, rows, val=None, **given):
        fitted.append(rows)
        return original(self, X, y, rows=rows, val=val, **given)

    monkeypatch.setattr(HeadRecipe, "fit_head", fit)
    curve = learning_curve(path, head="logistic", group_by="column", repeats=2, n_jobs=1)
    sizes = [point.groups_per_class for point in curve.points]
    assert sizes == [1, 2, 4, 8, 16, 26]
    # All groups are fitted on once: the same images in every order.
    assert [point.fits for point in curve.points] == [2, 2, 2, 2, 2, 1]
    first, second = fitted[:6], [*fitted[6:], fitted[5]]
    with FeatureCache(path) as cache:
        X, y, groups = cache.X[:], cache.y[:], cache.groups
    assert any(set(one) != set(other) for one, other in zip(first, second, strict=True))
    for order in (first, second):
        for size, rows, larger in zip(sizes, order, [*order[1:], np.arange(156)], strict=True):
            assert set(rows) <= set(larger)
            assert set(SPLITS[rows]) <= {"train", "val"}
            names, counts = np.unique(groups[rows], return_counts=True)
            assert len(names) == 3 * size
            assert set(counts) == {2}
    test, model = SPLITS == "test", LogisticRegression(C=0.1, max_iter=1000)
    for place, point in enumerate(curve.points):
        runs = [first[place], second[place]][: point.fits]
        found = [
            make_pipeline(StandardScaler(), model).fit(X[rows], y[rows]).predict(X[test])
            for rows in runs
        ]
        for name, score in (
            ("accuracy", accuracy_score),
            ("balanced_accuracy", balanced_accuracy_score),
            ("f1", lambda truth, predicted: f1_score(truth, predicted, average="macro")),
        ):
            expected = [score(y[test], predicted) for predicted in found]
            spread = getattr(point.test, name)
            assert spread.mean == pytest.approx(np.mean(expected))
            assert (spread.least, spread.most) == pytest.approx((min(expected), max(expected)))
        accuracies = [accuracy_score(y[test], predicted) for predicted in found]
        std = np.std(accuracies, ddof=1) if point.fits > 1 else None
        assert point.test.accuracy.std == (std and pytest.approx(std))


def test_all_groups_give_the_head_of_fit_head(path, curve):
    training = fit_head(path, head="svm", group_by="column").training
    last = curve.points[-1]
    assert last.images == training.split.train + training.split.val
    assert last.test.accuracy.mean == training.test.accuracy
    assert last.test_without_copies.f1.mean == training.test_without_copies.macro.f1
    assert (curve.test_images, curve.test_images_without_copies) == (84, 24)
    assert training.test_without_copies.n == 24


def test_the_seed_decides(path, curve):
    again = learning_curve(path, head="svm", group_by="column", repeats=3)
    other = learning_curve(path, head="svm", group_by="column", repeats=3, random_state=1)
    assert again == curve
    assert other.points[0] != curve.points[0]
    assert other.points[-1] == curve.points[-1]


def test_a_head_that_draws_numbers_is_repeated_on_all_groups(path):
    curve = learning_curve(
        path, head="random-forest", params={"n_estimators": 3}, repeats=2, n_jobs=1
    )
    assert [point.fits for point in curve.points] == [2] * len(curve.points)


def test_a_size_that_cannot_be_fitted_is_told_and_the_others_are_kept(path):
    few = learning_curve(
        path, head="knn", params={"n_neighbors": 9}, group_by="column", repeats=2, n_jobs=1
    )
    assert "n_neighbors" in few.points[0].error
    assert few.points[0].test is None
    assert few.points[-1].error is None
    assert "Not fitted: 1 group a class: " in write_curve(few)


def test_groups_are_images_copies_or_patients(path):
    images = learning_curve(path, head="lda", group_by="none", repeats=1, n_jobs=1)
    assert images.group_by == "none"
    assert images.points[-1].groups_per_class == 52
    copies = learning_curve(path, head="lda", group_by="copies", repeats=1, n_jobs=1)
    assert copies.group_by == "copies"


def test_a_class_that_has_fewer_groups_gives_all(tmp_path):
    y = np.repeat([0, 1], (4, 16))
    X = y[:, None] + np.random.default_rng(0).standard_normal((20, 3))
    splits = ["train", "test", *["train"] * 3, *["train"] * 7, *["test"] * 8]
    path = write_vectors(tmp_path, X, y, class_names=("a", "b"), splits=splits)
    curve = learning_curve(path, head="svm", group_by="none", repeats=1, val_fraction=0.2)
    assert [point.images for point in curve.points] == [2, 4, 7, 11]


def test_what_cannot_be_drawn_is_refused(path, tmp_path):
    with pytest.raises(ParameterError, match='head="all" compares heads'):
        learning_curve(path, head="all")
    with pytest.raises(ParameterError, match="repeats must be an integer of 1 or more, got 0"):
        learning_curve(path, head="svm", repeats=0)
    y = np.arange(12) % 2
    X = np.random.default_rng(0).standard_normal((12, 3)) + y[:, None]
    splits = ["train"] * 8 + ["val"] * 4
    found = write_vectors(tmp_path, X, y, class_names=("a", "b"), splits=splits)
    with pytest.raises(TableError, match="has splits but no test images"):
        learning_curve(found, head="svm")
    with pytest.raises(TableError, match="has no groups"):
        learning_curve(found, head="svm", group_by="column")
    splits = ["train"] * 4 + ["val"] * 4 + ["test"] * 4
    patients = [f"{side}{'ab'[row % 2]}" for row, side in enumerate(["one"] * 8 + ["two"] * 4)]
    found = write_vectors(
        tmp_path, X, y, name="few.h5", class_names=("a", "b"), splits=splits, groups=patients
    )
    with pytest.raises(TableError, match="one group of images of each class"):
        learning_curve(found, head="svm", group_by="column")


def test_the_interval_covers_groups_and_test_images():
    rng = np.random.default_rng(0)
    sizes = np.full(5, 100), np.full(5, 200)
    before, after = rng.random((5, 400)) < 0.6, np.broadcast_to(rng.random(400) < 0.9, (5, 400))
    gain = estimate_gain(before, after, images=sizes, groups=np.arange(400), of="test")
    assert gain.mean == pytest.approx(after.mean() - before.mean())
    low, high = gain.interval
    assert low > 0.2
    # Images of one group are wrong together, so that they tell less.
    wide = estimate_gain(before, after, images=sizes, groups=np.arange(400) // 40, of="test")
    same = estimate_gain(after, after, images=sizes, groups=np.arange(400), of="test")
    assert same.interval == (0, 0)
    assert wide.mean == gain.mean
    # Four times the images are two doublings.
    sizes = np.full(5, 100), np.full(5, 400)
    half = estimate_gain(before, after, images=sizes, groups=np.arange(400), of="test")
    assert half.mean == pytest.approx(gain.mean / 2)
    assert half.interval == pytest.approx((low / 2, high / 2))


@pytest.mark.parametrize(
    ("mean", "interval", "sentence"),
    [
        (0.03, (0.01, 0.05), "More data would probably raise the accuracy: "),
        (0.03, (-0.01, 0.07), "Whether more data would raise the accuracy cannot be told: "),
        (-0.03, (-0.05, -0.01), "More data of this kind did not raise the accuracy: "),
        (0.03, None, "What more data would bring cannot be told from one repeat: "),
    ],
)
def test_the_sentence_says_no_more_than_the_interval(curve, mean, interval, sentence):
    gain = replace(curve.gain, mean=mean, interval=interval)
    assert describe_gain(replace(curve, gain=gain)).startswith(sentence)
    assert "cannot be told" in describe_gain(replace(curve, gain=None))


def test_text_and_markdown(curve):
    text = write_curve(curve)
    assert max(map(len, text.splitlines())) <= 80
    assert "Accuracy on test without copies (24 images)" in text
    assert "in 3 orders" in text
    markdown = write_curve_markdown(curve)
    assert "| groups a class | images | accuracy |" in markdown
    assert json.loads(json.dumps(curve.to_dict()))["points"][0]["groups_per_class"] == 1


def run(*words):
    return CliRunner().invoke(group, ["fit-head", *map(str, words)])


def test_the_command_draws_a_plot_beside_the_head(path, tmp_path):
    head, plot = tmp_path / "head.h5", tmp_path / "curve.png"
    words = (path, "-o", head, "--head", "svm", "--learning-curve", "--curve-repeats", 2)
    found = run(*words, "--curve-plot", plot)
    assert found.exit_code == 0, found.output
    assert "Learning curve" in found.output
    assert head.exists()
    assert plot.read_bytes().startswith(b"\x89PNG")
    plot.write_text("a note")
    again = run(*words, "--curve-plot", plot, "--overwrite")
    assert again.exit_code == 1
    assert "is not a PNG and is not replaced" in str(again.exception)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--head", "all", "--learning-curve"), "leave out --search and --head all"),
        (("--head", "svm", "--search", "--learning-curve"), "leave out --search and --head all"),
        (("--head", "svm", "--curve-repeats", 3), "need --learning-curve"),
        (("--learning-curve", "--curve-plot", "head.h5"), "name the same file"),
    ],
)
def test_the_command_refuses_what_has_no_curve(path, tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    found = run(path, "-o", "head.h5", *words)
    assert found.exit_code == 2
    assert message in " ".join(found.output.split())
