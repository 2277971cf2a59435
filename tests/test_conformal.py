"""Prediction sets against crepes, by hand, and by simulation."""

import numpy as np
import pytest
from crepes import ConformalClassifier
from scipy import stats

from brainfeat.errors import BundleError, ParameterError
from brainfeat.heads.conformal import Conformal, find_quantile


def draw(n, seed, *, k=4, sharpness=2.0):
    """Draw probabilities, and labels that they predict but that are not calibrated."""
    rng = np.random.default_rng(seed)
    logits = sharpness * rng.standard_normal((n, k))
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    y = (0.7 * logits + rng.gumbel(size=logits.shape)).argmax(axis=1)
    return p, y


def test_quantiles_by_hand():
    conformal = Conformal(
        scores=np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.6]), labels=np.array([0, 0, 0, 0, 1, 1])
    )
    # ⌈5 · 0.8⌉ is the 4th of four; ⌈3 · 0.8⌉ would be the 3rd of two.
    assert conformal.quantiles(2, coverage=0.8).tolist() == [0.4, np.inf]
    assert conformal.quantiles(2, coverage=0.6).tolist() == [0.3, 0.6]


@pytest.mark.parametrize(("seed", "coverage"), [(0, 0.8), (1, 0.9), (2, 0.95)])
def test_prediction_sets_are_those_of_crepes(seed, coverage):
    p, y = draw(300, seed)
    new, _ = draw(400, seed + 100)
    classifier = ConformalClassifier()
    classifier.fit(1 - p[np.arange(len(y)), y], bins=y)
    p_values = np.column_stack(
        [
            classifier.predict_p(
                (1 - new)[:, [label]], bins=np.full(len(new), label), smoothing=False
            )[:, 0]
            for label in range(4)
        ]
    )
    # Not the sets of crepes itself: in floating point 1 - 0.8 is less than a fifth.
    expected = p_values > 1 - coverage + 1e-9
    found = Conformal.fit(p, y).predict_sets(new, coverage=coverage)
    assert np.array_equal(found, expected)


def test_the_coverage_of_each_class_is_within_the_binomial_band_over_thirty_seeds():
    hits, n = np.zeros(4), np.zeros(4)
    for seed in range(30):
        p, y = draw(1000, seed)
        new, truth = draw(1000, seed + 1000)
        sets = Conformal.fit(p, y).predict_sets(new, coverage=0.9)
        for label in range(4):
            hits[label] += sets[truth == label, label].sum()
            n[label] += (truth == label).sum()
    for label in range(4):
        # Beside the binomial spread of the new images there is that of the quantile.
        low, high = stats.binom.interval(0.999, int(n[label]), 0.9)
        width = (high - low) / n[label]
        assert 0.9 - width < hits[label] / n[label] < 0.9 + width + 1 / 250


def test_a_class_with_few_images_is_in_every_prediction_set():
    p, y = draw(100, 0)
    few = (y != 3) | (np.cumsum(y == 3) <= 5)
    sets = Conformal.fit(p[few], y[few]).predict_sets(draw(50, 1)[0], coverage=0.9)
    assert sets[:, 3].all()


@pytest.mark.parametrize(
    ("n", "coverage", "place"), [(99, 0.9, 90), (98, 0.9, 90), (9, 0.9, 9), (99, 0.55, 55)]
)
def test_the_quantile_is_one_of_the_scores(n, coverage, place):
    scores = np.random.default_rng(0).permutation(n) + 1.0
    assert find_quantile(scores, coverage) == place


@pytest.mark.parametrize("n", [0, 1, 8])
def test_few_scores_have_no_quantile(n):
    assert find_quantile(np.arange(n, dtype=float), 0.9) == np.inf


def test_more_coverage_makes_larger_sets():
    p, y = draw(500, 0)
    conformal, new = Conformal.fit(p, y), draw(200, 1)[0]
    small, large = (conformal.predict_sets(new, coverage=coverage) for coverage in (0.7, 0.95))
    assert (small <= large).all()
    assert small.sum() < large.sum()


@pytest.mark.parametrize("coverage", [0.0, 1.0, -1, np.nan])
def test_a_coverage_out_of_range_is_refused(coverage):
    with pytest.raises(ParameterError, match="coverage"):
        Conformal.fit(*draw(20, 0)).quantiles(4, coverage=coverage)


@pytest.mark.parametrize(
    ("scores", "labels", "words"),
    [
        ([0.1], [0, 1], "shape"),
        ([], [], "shape"),
        ([1.5], [0], "0 to 1"),
        ([np.nan], [0], "0 to 1"),
        ([0.5], [4], "labels"),
        ([0.5], [-1], "labels"),
    ],
)
def test_arrays_that_do_not_belong_together_are_refused(scores, labels, words):
    with pytest.raises(BundleError, match=words):
        Conformal(scores=np.array(scores), labels=np.array(labels, np.int64)).check(4)
