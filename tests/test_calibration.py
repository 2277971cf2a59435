"""Temperature scaling against closed forms and against the loss that it minimises."""

import numpy as np
import pytest
from scipy.special import log_softmax
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV, calibration_curve
from sklearn.frozen import FrozenEstimator

from brainfeat.heads.calibration import (
    calibrate,
    fit_temperature,
    reliability,
    scale_folds,
    softmax,
)


def log_loss(scores, y, temperature):
    return -log_softmax(scores / temperature, axis=1)[np.arange(len(y)), y].mean()


def draw_logits(temperature, rows=20_000):
    """Draw scores that are `temperature` times too large for labels drawn from their softmax."""
    rng = np.random.default_rng(0)
    logits = 2 * rng.standard_normal((rows, 3))
    chances = softmax(logits).cumsum(axis=1)
    y = (rng.random((rows, 1)) > chances).sum(axis=1)
    return temperature * logits, y


def test_softmax_by_hand():
    scores = np.log([[1.0, 2.0, 5.0]])
    assert softmax(scores) == pytest.approx(np.array([[0.125, 0.25, 0.625]]))
    assert softmax(2 * scores, temperature=2.0) == pytest.approx(softmax(scores))


def test_softmax_of_huge_scores_is_finite():
    assert softmax(np.array([[1e4, 0.0], [-1e4, 0.0]])).tolist() == [[1.0, 0.0], [0.0, 1.0]]


def test_a_temperature_above_one_is_less_confident():
    scores = np.array([[3.0, 1.0, 0.0]])
    warm, plain = softmax(scores, temperature=4.0), softmax(scores)
    assert warm.max() < plain.max()
    assert warm.argsort().tolist() == plain.argsort().tolist()


def test_the_closed_form_of_two_classes_is_found():
    # Margin 4, three of four right, ε = 1/6: 4 / T is the log odds of 5/6 · 3/4 + 1/6 · 1/2.
    scores = np.array([[4.0, 0.0], [4.0, 0.0], [4.0, 0.0], [0.0, 4.0]])
    found = fit_temperature(scores, np.array([0, 0, 1, 1]))
    target = 5 / 6 * 3 / 4 + 1 / 6 * 1 / 2
    assert found == pytest.approx(4 / np.log(target / (1 - target)), rel=1e-4)


def test_a_few_images_without_an_error_make_no_certainty():
    scores, y = 5 * np.eye(3), np.arange(3)
    confidence = softmax(scores, temperature=fit_temperature(scores, y)).max()
    # ε = 1/5: the best fit is the smoothed target itself.
    assert confidence == pytest.approx(4 / 5 + 1 / 5 * 1 / 3, rel=1e-4)


def test_more_images_without_an_error_make_it_more_confident():
    few, many = (
        fit_temperature(np.tile(5 * np.eye(3), (times, 1)), np.tile(np.arange(3), times))
        for times in (1, 100)
    )
    assert many < few


def test_a_weight_counts_an_image_as_often():
    scores, y = draw_logits(2.0, rows=200)
    heavy = np.where(np.arange(200) < 100, 1.0, 0.0)
    weighed = fit_temperature(scores, y, sample_weight=heavy)
    # Each image twice, so that ε, which depends on the number of images, is the same.
    twice = fit_temperature(np.tile(scores[:100], (2, 1)), np.tile(y[:100], 2))
    assert weighed == pytest.approx(twice, rel=1e-4)
    assert weighed != pytest.approx(fit_temperature(scores, y), rel=1e-3)


def test_equal_weights_change_nothing():
    scores, y = draw_logits(2.0, rows=200)
    weighed = fit_temperature(scores, y, sample_weight=np.full(200, 3.0))
    assert weighed == pytest.approx(fit_temperature(scores, y), rel=1e-6)


@pytest.mark.parametrize("temperature", [0.2, 1.0, 5.0])
def test_the_temperature_of_simulated_scores_is_found(temperature):
    found = fit_temperature(*draw_logits(temperature))
    assert found == pytest.approx(temperature, rel=0.05)


def test_no_temperature_nearby_has_less_loss():
    scores, y = draw_logits(3.0)
    least = log_loss(scores, y, fit_temperature(scores, y))
    assert all(log_loss(scores, y, temperature) > least for temperature in (1.0, 2.8, 3.2, 9.0))


def test_scores_that_are_always_wrong_stay_in_range():
    found = fit_temperature(5 * np.eye(3), np.array([1, 2, 0]))
    assert 1.0 < found <= np.exp(6.0)


class Scores(ClassifierMixin, BaseEstimator):
    """A fitted classifier of three classes whose decision function is its input."""

    classes_ = np.arange(3)

    def fit(self, X, y):
        return self

    def predict(self, X):
        return X.argmax(axis=1)

    def decision_function(self, X):
        return X

    def __sklearn_is_fitted__(self):
        return True


@pytest.mark.filterwarnings("ignore:Since FrozenEstimator:UserWarning")
def test_the_temperature_is_scikit_learns_on_smoothed_targets():
    scores, y = draw_logits(2.5, rows=500)
    # Each image stands in every class, with the weight that the smoothed target gives it. A class
    # without a column of scores would make scikit-learn's compiled loss read past the array.
    k = scores.shape[1]
    smoothing = 1 / (len(y) + 2)
    weights = smoothing / k + (1 - smoothing) * (np.arange(k) == y[:, None])
    calibrated = CalibratedClassifierCV(FrozenEstimator(Scores()), method="temperature").fit(
        np.repeat(scores, k, axis=0), np.tile(np.arange(k), 500), sample_weight=weights.ravel()
    )
    (fold,) = calibrated.calibrated_classifiers_
    assert fit_temperature(scores, y) == pytest.approx(1 / fold.calibrators[0].beta_, rel=1e-5)


# Folds


def test_each_fold_has_the_temperature_of_the_others():
    scores, y = draw_logits(3.0, rows=900)
    folds = [slice(0, 300), slice(300, 600), slice(600, 900)]
    scaled = scale_folds([scores[fold] for fold in folds], [y[fold] for fold in folds])
    for fold, found in zip(folds, scaled, strict=True):
        others = np.ones(900, bool)
        others[fold] = False
        temperature = fit_temperature(scores[others], y[others])
        assert np.array_equal(found, softmax(scores[fold], temperature=temperature))


def test_scores_are_measured_before_and_after():
    scores, y = draw_logits(3.0, rows=3000)
    found = calibrate(np.split(scores, 3), np.split(y, 3))
    assert (found.n, found.n_folds) == (3000, 3)
    assert found.temperature == fit_temperature(scores, y)
    assert found.before.log_loss == pytest.approx(log_loss(scores, y, 1.0))
    assert found.after.log_loss == pytest.approx(log_loss(scores, y, found.temperature), rel=1e-3)
    for name in ("log_loss", "brier", "ece"):
        assert getattr(found.after, name) < getattr(found.before, name)


def test_a_single_fold_has_its_own_temperature():
    scores, y = draw_logits(3.0, rows=300)
    found = calibrate([scores], [y])
    assert found.n_folds is None
    assert found.after.log_loss == pytest.approx(log_loss(scores, y, found.temperature))


# Reliability


def test_reliability_is_scikit_learns_curve():
    scores, y = draw_logits(2.0, rows=2000)
    p = softmax(scores)
    found = reliability(y, p, n_bins=15)
    right = p.argmax(axis=1) == y
    accuracy, confidence = calibration_curve(right, p.max(axis=1), n_bins=15)
    assert [entry.accuracy for entry in found.bins] == pytest.approx(accuracy.tolist())
    assert [entry.confidence for entry in found.bins] == pytest.approx(confidence.tolist())
    assert sum(entry.n for entry in found.bins) == 2000
    gaps = [entry.n * abs(entry.accuracy - entry.confidence) for entry in found.bins]
    assert found.ece == pytest.approx(sum(gaps) / 2000)


def test_calibrated_probabilities_have_little_error():
    scores, y = draw_logits(1.0)
    assert reliability(y, softmax(scores)).ece < 0.02
    assert reliability(y, softmax(5 * scores)).ece > 0.1


def test_a_probability_of_one_is_in_the_last_bin():
    (entry,) = reliability(np.array([0, 1]), np.array([[1.0, 0.0], [1.0, 0.0]])).bins
    assert (entry.high, entry.n, entry.confidence, entry.accuracy) == (1.0, 2, 1.0, 0.5)
