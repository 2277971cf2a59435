"""Scope: what is refused, how often by mistake, and what the distances are."""

import dataclasses

import numpy as np
import pytest
from scipy import stats
from scipy.spatial.distance import cdist
from sklearn.covariance import LedoitWolf
from sklearn.linear_model import LogisticRegression

from brainfeat.errors import BundleError, ParameterError
from brainfeat.heads.ood import Scope

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
    return Scope.fit(X, y, held_out=draw(held, 1)[0], n_classes=3, **options)


def test_what_is_like_the_training_images_is_refused_as_rarely_as_stated():
    refused = []
    for seed in range(30):
        X, y = draw(400, 10 * seed)
        scope = Scope.fit(X, y, held_out=draw(300, 10 * seed + 1)[0], n_classes=3)
        scores = scope.look(draw(500, 10 * seed + 2)[0]).scores
        refused.append((scores > scope.threshold(0.05)).sum())
    low, high = stats.binom.interval(0.999, 15_000, 0.05)
    # The quantile of 300 images has a spread of its own.
    spread = np.sqrt(0.05 * 0.95 / 300 / 30) * 15_000 * 3.3
    assert low - spread < sum(refused) < high + spread


def draw_strangers(n, seed):
    """Draw images that are moved along the direction in which training images vary most."""
    X, y = draw(600, 0)
    within = X - np.stack([X[y == label].mean(axis=0) for label in range(3)])[y]
    _, sizes, directions = np.linalg.svd(within, full_matrices=False)
    return draw(n, seed)[0] + 3 * sizes[0] / np.sqrt(600) * directions[0]


def test_strangers_that_were_shown_are_refused_and_others_as_before():
    plain, shown = fit(), fit(strangers=draw_strangers(300, 7))
    new = draw_strangers(300, 8)
    refused = [(scope.look(new).scores > scope.threshold()).mean() for scope in (plain, shown)]
    assert refused[1] > refused[0] + 0.6
    usual = draw(1000, 3)[0]
    assert (shown.look(usual).scores > shown.threshold()).mean() < 0.04
    assert (plain.look(usual).scores <= shown.look(usual).scores).all()
    assert not plain.strangers.any()


def test_strangers_are_told_by_the_logistic_regression_of_scikit_learn():
    X, strangers = draw(600, 0)[0], draw_strangers(300, 7)
    scope = fit(strangers=strangers)
    z = (np.concatenate([X, strangers]) - X.mean(axis=0)) / X.std(axis=0)
    expected = LogisticRegression(C=0.01, max_iter=2000).fit(z, [0] * 600 + [1] * 300)
    new = draw(40, 5)[0]
    likeness = scope._measure(new)[0][:, 3]
    found = expected.decision_function((new - X.mean(axis=0)) / X.std(axis=0))
    assert likeness == pytest.approx(found, rel=1e-3, abs=1e-3)


@pytest.mark.parametrize("shift", [8.0, -8.0])
def test_what_is_far_is_refused(shift):
    scope = fit()
    assert (scope.look(draw(200, 3, shift=shift)[0]).scores > scope.threshold()).mean() > 0.95


def test_the_distances_are_those_of_scikit_learn_and_scipy():
    X, y = draw(600, 0)
    scope = fit()
    new = draw(40, 5)[0]
    distances, neighbours, apart = scope._measure(new)
    z = (X - X.mean(axis=0)) / X.std(axis=0)
    means = np.stack([z[y == label].mean(axis=0) for label in range(3)])
    covariance = LedoitWolf(assume_centered=True).fit(z - means[y])
    zn = (new - X.mean(axis=0)) / X.std(axis=0)
    mahalanobis = np.min([covariance.mahalanobis(zn - mean) ** 0.5 for mean in means], axis=0)
    assert distances[:, 0] == pytest.approx(mahalanobis, rel=1e-3)
    cosine = np.sort(cdist(new, X, "cosine"), axis=1)[:, :5]
    assert apart == pytest.approx(cosine, abs=1e-5)
    assert distances[:, 1] == pytest.approx(cosine.mean(axis=1), abs=1e-5)
    assert (scope.labels[neighbours[:, 0]] == y[cdist(new, X, "cosine").argmin(axis=1)]).all()


def test_a_training_image_is_nearest_to_itself():
    X, _ = draw(600, 0)
    near = fit().look(X[:30])
    assert near.distances[:, 0] == pytest.approx(0, abs=1e-6)


def test_few_held_out_images_refuse_nothing():
    assert fit(held=10).threshold(0.02) == np.inf
    assert np.isfinite(fit(held=60).threshold(0.02))


def test_many_training_images_are_thinned_alike_by_class():
    X, y = draw(9000, 0)
    scope = Scope.fit(X, y, held_out=draw(60, 1)[0], n_classes=3)
    assert len(scope.references) == 2000
    assert np.bincount(scope.labels).min() > 600


def test_the_seed_decides():
    one, two = fit(), fit()
    assert all(
        np.array_equal(a, b) for a, b in zip(vars(one).values(), vars(two).values(), strict=True)
    )


def test_constant_features_do_no_harm():
    X, y = draw(100, 0)
    X[:, 3] = 1.0
    scope = Scope.fit(X, y, held_out=X, n_classes=3)
    assert np.isfinite(scope.look(X).scores).all()
    assert np.isfinite(scope.look(np.zeros((1, WIDTH))).scores).all()


@pytest.mark.parametrize("rate", [0.0, 1.0, np.nan])
def test_what_is_no_rate_is_refused(rate):
    with pytest.raises(ParameterError, match="false_refusals"):
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
        ({"strangers": np.zeros(WIDTH)}, "shape"),
        ({"strangers": np.full(WIDTH + 1, np.inf)}, "finite"),
    ],
)
def test_arrays_that_do_not_belong_together_are_refused(change, words):
    fit().check(WIDTH, 3)
    with pytest.raises(BundleError, match=words):
        dataclasses.replace(fit(), **change).check(WIDTH, 3)
