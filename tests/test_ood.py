"""OODDetector: what is flagged, how often by mistake, and what the distances are."""

import dataclasses

import numpy as np
import pytest
from scipy import stats
from scipy.spatial.distance import cdist
from sklearn.covariance import LedoitWolf
from sklearn.linear_model import LogisticRegression

from brainfeat.errors import BundleError, HeadError, ParameterError
from brainfeat.heads.ood import OOD_ARRAYS, OODDetector

WIDTH = 24


def draw(n, seed, *, shift=0.0):
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 3
    centres = 2 * np.random.default_rng(99).standard_normal((3, WIDTH))
    mixing = np.random.default_rng(98).standard_normal((WIDTH, WIDTH))
    X = centres[y] + rng.standard_normal((n, WIDTH)) @ mixing * 0.3 + shift
    return X.astype(np.float32), y


def fit(n=600, held=300, **options):
    X, y = draw(n, 0)
    return OODDetector.fit(X, y, held_out=draw(held, 1)[0], n_classes=3, **options)


def test_the_false_alarm_rate_is_kept_on_images_like_those_of_training():
    flagged = []
    for seed in range(30):
        X, y = draw(400, 10 * seed)
        detector = OODDetector.fit(X, y, held_out=draw(300, 10 * seed + 1)[0], n_classes=3)
        scores = detector.score(draw(500, 10 * seed + 2)[0]).scores
        flagged.append((scores > detector.threshold(0.05)).sum())
    low, high = stats.binom.interval(0.999, 15_000, 0.05)
    # The quantile of 300 images has a spread of its own.
    spread = np.sqrt(0.05 * 0.95 / 300 / 30) * 15_000 * 3.3
    assert low - spread < sum(flagged) < high + spread


def draw_examples(n, seed):
    """Draw out-of-distribution images, moved along the direction of most variance in training."""
    X, y = draw(600, 0)
    within = X - np.stack([X[y == label].mean(axis=0) for label in range(3)])[y]
    _, sizes, directions = np.linalg.svd(within, full_matrices=False)
    return draw(n, seed)[0] + 3 * sizes[0] / np.sqrt(600) * directions[0]


def test_examples_that_were_shown_are_flagged_and_other_images_as_before():
    plain, shown = fit(), fit(ood_examples=draw_examples(300, 7))
    new = draw_examples(300, 8)
    flagged = [(fitted.score(new).scores > fitted.threshold()).mean() for fitted in (plain, shown)]
    assert flagged[1] > flagged[0] + 0.6
    usual = draw(1000, 3)[0]
    assert (shown.score(usual).scores > shown.threshold()).mean() < 0.04
    assert (plain.score(usual).scores <= shown.score(usual).scores).all()
    assert not plain.ood_weights.any()


def test_examples_are_separated_by_the_logistic_regression_of_scikit_learn():
    X, examples = draw(600, 0)[0], draw_examples(300, 7)
    detector = fit(ood_examples=examples)
    z = (np.concatenate([X, examples]) - X.mean(axis=0)) / X.std(axis=0)
    expected = LogisticRegression(C=0.01, max_iter=2000).fit(z, [0] * 600 + [1] * 300)
    new = draw(40, 5)[0]
    similarity = detector._measure(new)[0][:, 3]
    found = expected.decision_function((new - X.mean(axis=0)) / X.std(axis=0))
    assert similarity == pytest.approx(found, rel=1e-3, abs=1e-3)


@pytest.mark.parametrize("shift", [8.0, -8.0])
def test_images_that_are_far_are_flagged(shift):
    detector, far = fit(), draw(200, 3, shift=shift)[0]
    assert (detector.score(far).scores > detector.threshold()).mean() > 0.95


def test_the_distances_are_those_of_scikit_learn_and_scipy():
    X, y = draw(600, 0)
    detector = fit()
    new = draw(40, 5)[0]
    distances, neighbours, apart = detector._measure(new)
    z = (X - X.mean(axis=0)) / X.std(axis=0)
    means = np.stack([z[y == label].mean(axis=0) for label in range(3)])
    covariance = LedoitWolf(assume_centered=True).fit(z - means[y])
    zn = (new - X.mean(axis=0)) / X.std(axis=0)
    mahalanobis = np.min([covariance.mahalanobis(zn - mean) ** 0.5 for mean in means], axis=0)
    assert distances[:, 0] == pytest.approx(mahalanobis, rel=1e-3)
    cosine = np.sort(cdist(new, X, "cosine"), axis=1)[:, :5]
    assert apart == pytest.approx(cosine, abs=1e-5)
    assert distances[:, 1] == pytest.approx(cosine.mean(axis=1), abs=1e-5)
    assert (detector.labels[neighbours[:, 0]] == y[cdist(new, X, "cosine").argmin(axis=1)]).all()


def test_a_training_image_is_nearest_to_itself():
    X, _ = draw(600, 0)
    found = fit().score(X[:30])
    assert found.distances[:, 0] == pytest.approx(0, abs=1e-6)


def test_few_held_out_images_flag_nothing():
    assert fit(held=10).threshold(0.02) == np.inf
    assert np.isfinite(fit(held=60).threshold(0.02))


def test_as_many_references_of_each_class_are_kept_of_many_training_images():
    X, y = draw(9000, 0)
    detector = OODDetector.fit(X, y, held_out=draw(60, 1)[0], n_classes=3)
    assert len(detector.references) == 2000
    assert np.bincount(detector.labels).min() > 600


def test_the_seed_decides():
    one, two = fit(), fit()
    assert all(
        np.array_equal(a, b) for a, b in zip(vars(one).values(), vars(two).values(), strict=True)
    )


def test_constant_features_do_no_harm():
    X, y = draw(100, 0)
    X[:, 3] = 1.0
    detector = OODDetector.fit(X, y, held_out=X, n_classes=3)
    assert np.isfinite(detector.score(X).scores).all()
    assert np.isfinite(detector.score(np.zeros((1, WIDTH))).scores).all()


@pytest.mark.parametrize("rate", [0.0, 1.0, np.nan])
def test_a_rate_out_of_range_is_refused(rate):
    with pytest.raises(ParameterError, match="false_alarm_rate"):
        fit().threshold(rate)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"mean": np.zeros(3)}, "scope/mean has shape"),
        ({"projection": np.zeros((WIDTH, 3))}, "scope/projection"),
        ({"scale": np.zeros(WIDTH)}, "positive"),
        ({"centres": np.full((3, WIDTH), np.nan)}, "finite"),
        ({"labels": np.full(600, 3)}, "from 0 to 2"),
        ({"held_out": np.array([2.0, 1.0])}, "ascend"),
        ({"units": np.zeros((4, 2))}, "positive"),
        ({"references": np.zeros((0, WIDTH))}, "shape"),
        ({"ood_weights": np.zeros(WIDTH)}, "scope/strangers has shape"),  # codespell:ignore
        ({"ood_weights": np.full(WIDTH + 1, np.inf)}, "finite"),
    ],
)
def test_arrays_that_do_not_belong_together_are_refused(change, words):
    fit().check(WIDTH, 3)
    with pytest.raises(BundleError, match=words):
        dataclasses.replace(fit(), **change).check(WIDTH, 3)


def test_the_dataset_names_of_format_1_are_kept():
    detector = fit(ood_examples=draw_examples(300, 7))
    arrays = detector.to_arrays()
    assert set(arrays) == set(OOD_ARRAYS)
    assert arrays["strangers"] is detector.ood_weights  # codespell:ignore
    back = OODDetector.from_arrays(arrays, n_features=WIDTH, n_classes=3)
    new = draw(40, 5)[0]
    assert np.array_equal(back.score(new).scores, detector.score(new).scores)


@pytest.mark.parametrize("value", [0.0, 0.1, 7.3, 1e-30])
def test_a_constant_feature_changes_nothing(value):
    X, y = draw(600, 0)
    held = draw(300, 1)[0]
    constant = [
        np.column_stack([part, np.full(len(part), value, np.float32)]) for part in (X, held)
    ]
    detector = OODDetector.fit(constant[0], y, held_out=constant[1], n_classes=3)
    assert detector.scale[-1] == 1
    assert np.isfinite(detector.projection).all()
    plain = OODDetector.fit(X, y, held_out=held, n_classes=3)
    found = detector.score(constant[1]).scores
    assert np.corrcoef(found, plain.score(held).scores)[0, 1] > 0.99


@pytest.mark.parametrize("classes", ["alike", "different"])
def test_features_without_spread_are_refused_in_one_line(classes):
    y = np.arange(60) % 3
    X = np.tile(y[:, None] if classes == "different" else 0.1, (1, 8)).astype(np.float32)
    X = np.broadcast_to(X, (60, 8)).copy()
    with pytest.raises(HeadError, match=r"^all training images of a class have the same features"):
        OODDetector.fit(X, y, held_out=X, n_classes=3)
