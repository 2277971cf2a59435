"""Scores of classes from pairwise margins: the calls of scikit-learn, with a confidence."""

from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import make_blobs
from sklearn.metrics import roc_auc_score
from sklearn.svm import SVC

from brainfeat import HeadBundle
from brainfeat.heads.calibration import fit_temperature, softmax
from brainfeat.heads.kinds import head_scores, make_head
from brainfeat.heads.margins import find_least_margins

VOTES = Path(__file__).parent / "data" / "head-format-2-votes.h5"


def make_pairs(margins: dict[tuple[int, int], float], n_classes: int) -> np.ndarray:
    order = zip(*np.triu_indices(n_classes, 1), strict=True)
    return np.array([[margins[pair] for pair in order]])


def test_the_score_of_a_class_is_its_least_margin() -> None:
    pairs = make_pairs({(0, 1): 2.0, (0, 2): 0.5, (1, 2): -1.0}, 3)
    np.testing.assert_array_equal(find_least_margins(pairs, n_classes=3), [[0.5, -2.0, -0.5]])


def test_a_class_that_wins_no_pair_alone_gives_its_score_to_the_one_with_most_wins() -> None:
    # Class 0 has three wins; the others have two, two, two and one. It loses to class 4, by most.
    first = {(0, 1): 1.0, (0, 2): 1.0, (0, 3): 1.0, (0, 4): -4.0}
    others = {(1, 2): 2.0, (1, 3): -2.0, (1, 4): 2.0, (2, 3): 2.0, (2, 4): 2.0, (3, 4): -2.0}
    pairs = make_pairs({**first, **others}, 5)
    found = find_least_margins(pairs, n_classes=5)
    assert sorted(found[0]) == [-4.0, -2.0, -2.0, -2.0, -2.0]
    assert found.argmax() == 0


@pytest.mark.parametrize("n_classes", [3, 4, 5, 8])
def test_the_predicted_class_is_that_of_scikit_learn(n_classes: int) -> None:
    rng = np.random.default_rng(n_classes)
    y = np.arange(400) % n_classes
    # Labels in disorder: cycles, in which no class wins against every other one.
    X, Z = rng.standard_normal((400, 3)), rng.standard_normal((4000, 3))
    head = make_head("svm", C=1.0).fit(X, y)
    by_votes = head["classifier"].set_params(decision_function_shape="ovr", break_ties=True)
    standardised = head["scaler"].transform(Z)
    votes, tied = by_votes.decision_function(standardised), by_votes.predict(standardised)
    by_votes.set_params(decision_function_shape="ovo", break_ties=False)
    scores = head_scores(head, Z)
    assert (scores.max(axis=1) <= 0).sum() > 10
    np.testing.assert_array_equal(scores.argmax(axis=1), votes.argmax(axis=1))
    np.testing.assert_array_equal(scores.argmax(axis=1), tied)


@pytest.mark.parametrize("value", [0.0, -0.0])
def test_a_margin_of_zero_is_a_win_of_the_first_class(value: float) -> None:
    assert find_least_margins(np.full((1, 6), value), n_classes=4).argmax() == 0


def test_margins_tell_right_from_wrong_better_than_votes() -> None:
    X, y = make_blobs(3000, 4, centers=4, cluster_std=5.0, random_state=0)
    fit, calibration, test = np.split(np.arange(3000), 3)
    head = make_head("svm").fit(X[fit], y[fit])
    classifier: SVC = head["classifier"]
    found = {}
    for shape in ("ovr", "ovo"):
        classifier.set_params(decision_function_shape=shape)
        temperature = fit_temperature(head_scores(head, X[calibration]), y[calibration])
        probabilities = softmax(head_scores(head, X[test]), temperature=temperature)
        right = probabilities.argmax(axis=1) == y[test]
        found[shape] = roc_auc_score(right, probabilities.max(axis=1))
    assert found["ovo"] > found["ovr"] + 0.02


def test_an_earlier_head_keeps_its_scores() -> None:
    bundle = HeadBundle.load(VOTES)
    assert bundle.estimator["classifier"].decision_function_shape == "ovr"
    votes = bundle.scores(bundle.probe)
    np.testing.assert_array_equal(np.sort(np.round(votes), axis=1)[:, -1], 3.0)
    np.testing.assert_array_equal(votes, bundle.estimator.decision_function(bundle.probe))
