"""Mixup of the dense head: what a step sees, its loss, and what refuses it."""

from typing import Any

import numpy as np
import pytest
from scipy.special import log_softmax
from sklearn.datasets import make_classification

from brainfeat import DenseHead
from brainfeat.errors import HeadError
from brainfeat.heads.kinds import make_head
from brainfeat.heads.mixup import MixedRows, mix_rows
from brainfeat.heads.network import Rows
from brainfeat.runtime import import_keras

SMALL: dict[str, Any] = {"epochs": 20, "batch_size": 32, "learning_rate": 0.01, "random_state": 0}
N, D, K = 40, 6, 3
SEED = (7, 0, 0)


@pytest.fixture(scope="module")
def rows() -> Rows:
    rng = np.random.default_rng(0)
    codes = rng.integers(K, size=N)
    by_class = np.array([0.5, 1.0, 3.0])
    return Rows(rng.standard_normal((N, D)).astype(np.float32), codes, by_class[codes])


@pytest.fixture(scope="module")
def mixed(rows: Rows) -> MixedRows:
    found = mix_rows(rows, 0.4, n_classes=K)
    assert isinstance(found, MixedRows)
    return found


def find_pairs(rows: Rows, mixed: MixedRows, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the partner of each row of a batch and its part, found from what is drawn alone."""
    drawn = mixed.draw(chosen, SEED)
    partner, part = np.empty(len(chosen), int), np.empty(len(chosen))
    for place, row in enumerate(chosen):
        lines = rows.X[row] - rows.X[chosen]
        length = np.maximum((lines**2).sum(axis=1), 1e-12)
        parts = ((drawn[place] - rows.X[chosen]) * lines).sum(axis=1) / length
        distance = np.linalg.norm(drawn[place] - rows.X[chosen] - parts[:, None] * lines, axis=1)
        # Its own line has no length, and every part of it gives the row itself.
        distance[chosen == row] = np.linalg.norm(drawn[place] - rows.X[row])
        best = int(distance.argmin())
        partner[place], part[place] = chosen[best], parts[best]
        assert distance[best] < 1e-5
    return partner, part


def test_without_it_a_step_sees_what_it_saw(rows: Rows) -> None:
    assert mix_rows(rows, 0.0, n_classes=K) is rows
    chosen = np.array([5, 2, 9])
    codes, weights = rows.label(chosen, SEED)
    np.testing.assert_array_equal(rows.draw(chosen, SEED), rows.X[chosen])
    np.testing.assert_array_equal(codes, rows.codes[chosen])
    np.testing.assert_array_equal(weights, rows.weights[chosen].astype(np.float32))
    assert (codes.dtype, weights.dtype, rows.is_soft) == (np.int32, np.float32, False)


def test_a_step_sees_points_between_two_rows_of_its_batch(rows: Rows, mixed: MixedRows) -> None:
    partner, part = find_pairs(rows, mixed, np.arange(5, 35))
    assert ((part >= -1e-5) & (part <= 1 + 1e-5)).all()
    assert (partner != np.arange(5, 35)).any()


def test_the_loss_of_a_mixture_is_the_mixture_of_the_losses(rows: Rows, mixed: MixedRows) -> None:
    chosen = np.arange(5, 35)
    partner, part = find_pairs(rows, mixed, chosen)
    logits = np.random.default_rng(1).standard_normal((len(chosen), K)).astype(np.float32)
    losses = -log_softmax(logits.astype(np.float64), axis=1)
    places = np.arange(len(chosen))
    own = rows.weights[chosen] * losses[places, rows.codes[chosen]]
    other = rows.weights[partner] * losses[places, rows.codes[partner]]
    classes, weights = mixed.label(chosen, SEED)
    loss = import_keras().losses.CategoricalCrossentropy(from_logits=True)
    expected = np.mean(part * own + (1 - part) * other)
    assert float(loss(classes, logits, sample_weight=weights)) == pytest.approx(expected, rel=1e-5)
    np.testing.assert_allclose(classes.sum(axis=1), 1, rtol=1e-6)


def test_parts_follow_the_beta_distribution(mixed: MixedRows) -> None:
    many = np.zeros(20_000, np.intp)
    _, part = mixed._pair(many, SEED)
    # The variance of Beta(a, a) is 1 / (4 (2 a + 1)).
    assert part.var() == pytest.approx(1 / (4 * 1.8), rel=0.03)


def test_classes_that_weigh_nothing_leave_the_loss_finite(rows: Rows) -> None:
    nothing = MixedRows(rows.X, rows.codes, np.zeros(N), alpha=0.4, n_classes=K)
    classes, weights = nothing.label(np.arange(N), SEED)
    assert np.isfinite(classes).all()
    assert not weights.any()


def test_a_mixed_head_learns_and_is_another_one() -> None:
    X, y = make_classification(300, D, n_informative=6, n_redundant=0, class_sep=2, random_state=0)
    plain = DenseHead(**SMALL).fit(X[:200], y[:200])
    first, second = (DenseHead(**SMALL, mixup=0.4).fit(X[:200], y[:200]) for _ in range(2))
    np.testing.assert_array_equal(first.layers_[0][0], second.layers_[0][0])
    assert not np.array_equal(first.layers_[0][0], plain.layers_[0][0])
    assert first.score(X[200:], y[200:]) > 0.85
    assert set(first.history_) == set(plain.history_)


@pytest.mark.parametrize("value", [-0.1, np.inf, True, "much"])
def test_other_values_are_refused(value: Any) -> None:
    with pytest.raises(HeadError, match="'mixup' parameter of the dense head must be a number"):
        make_head("dense", mixup=value)


@pytest.mark.parametrize("name", ["attention", "svm"])
def test_other_heads_do_not_mix(name: str) -> None:
    with pytest.raises(HeadError, match="mixup"):
        make_head(name, mixup=0.2)
