"""Tests of the dense head."""

import gc
import random
import tracemalloc
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import make_blobs, make_classification
from sklearn.metrics import log_loss
from sklearn.utils.estimator_checks import parametrize_with_checks

from brainfeat import DenseHead
from brainfeat.errors import HeadError
from brainfeat.runtime import import_keras

SMALL: dict[str, Any] = {"epochs": 8, "batch_size": 32, "learning_rate": 0.01, "random_state": 0}


@pytest.fixture(scope="module")
def data() -> tuple[np.ndarray, np.ndarray]:
    X, y = make_classification(
        300, 12, n_informative=6, n_classes=4, class_sep=1.2, flip_y=0.1, random_state=0
    )
    return X.astype(np.float32), y


@pytest.fixture(scope="module")
def fitted(data: tuple[np.ndarray, np.ndarray]) -> DenseHead:
    X, y = data
    head = DenseHead(**{**SMALL, "epochs": 60, "patience": 6})
    return head.fit(X[:200], y[:200], validation_data=(X[200:], y[200:]))


@pytest.mark.slow
@parametrize_with_checks(
    [
        DenseHead(
            hidden_units=(8,),
            dropout=0.1,
            epochs=12,
            batch_size=32,
            learning_rate=0.02,
            random_state=0,
        )
    ]
)
def test_scikit_learn_accepts_it(estimator: Any, check: Any) -> None:
    check(estimator)


@pytest.mark.slow
def test_same_random_state_same_head(data: tuple[np.ndarray, np.ndarray]) -> None:
    first, second = (DenseHead(**SMALL).fit(*data) for _ in range(2))
    for one, other in zip(first.layers_, second.layers_, strict=True):
        np.testing.assert_array_equal(one[0], other[0])
        np.testing.assert_array_equal(one[1], other[1])


def test_the_precision_of_the_session_changes_no_head(data: tuple[np.ndarray, np.ndarray]) -> None:
    config = import_keras().config
    expected = DenseHead(**SMALL).fit(*data).predict_proba(data[0])
    config.set_floatx("float16")
    try:
        found = DenseHead(**SMALL).fit(*data).predict_proba(data[0])
    finally:
        config.set_floatx("float32")
    np.testing.assert_array_equal(found, expected)


@pytest.mark.slow
def test_another_random_state_another_head(data: tuple[np.ndarray, np.ndarray]) -> None:
    first = DenseHead(**SMALL).fit(*data)
    second = DenseHead(**{**SMALL, "random_state": 1}).fit(*data)
    assert not np.array_equal(first.layers_[0][0], second.layers_[0][0])


def test_fit_leaves_global_random_state_alone(data: tuple[np.ndarray, np.ndarray]) -> None:
    random.seed(5)
    np.random.seed(5)  # noqa: NPY002 - the global generator is what is tested
    before = random.getstate(), np.random.get_state()[1].copy()  # noqa: NPY002
    DenseHead(**{**SMALL, "epochs": 1}).fit(*data)
    assert random.getstate() == before[0]
    np.testing.assert_array_equal(np.random.get_state()[1], before[1])  # noqa: NPY002


@pytest.mark.slow
def test_a_fit_lets_go_of_its_training_rows() -> None:
    X = np.random.default_rng(0).normal(size=(40_000, 64))
    y = np.arange(40_000) % 2

    def measure() -> int:
        DenseHead(epochs=1, batch_size=4096, random_state=0).fit(X, y)
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        first, second = measure(), measure()
    finally:
        tracemalloc.stop()
    rows = 0.85 * 40_000 * 64 * 4
    assert second - first < rows / 2


def test_the_best_epoch_is_the_one_of_least_validation_loss(fitted: DenseHead) -> None:
    assert fitted.best_epoch_ == int(np.argmin(fitted.history_["val_loss"]))


def test_training_stops_patience_epochs_after_the_best(fitted: DenseHead) -> None:
    assert fitted.n_iter_ == fitted.best_epoch_ + 1 + fitted.patience < fitted.epochs


def test_the_kept_weights_are_those_of_the_best_epoch(
    fitted: DenseHead, data: tuple[np.ndarray, np.ndarray]
) -> None:
    X, y = data
    loss = log_loss(y[200:], fitted.predict_proba(X[200:]))
    assert loss == pytest.approx(min(fitted.history_["val_loss"]), rel=1e-3)
    accuracy = fitted.score(X[200:], y[200:])
    assert accuracy == pytest.approx(fitted.history_["val_accuracy"][fitted.best_epoch_])


def test_history_follows_every_epoch(fitted: DenseHead) -> None:
    names = {"loss", "accuracy", "val_loss", "val_accuracy"}
    names |= {"val_precision", "val_recall", "val_f1"}
    assert set(fitted.history_) == names
    assert {len(values) for values in fitted.history_.values()} == {fitted.n_iter_}


def test_numpy_computes_what_keras_computes(
    fitted: DenseHead, data: tuple[np.ndarray, np.ndarray]
) -> None:
    keras_model = fitted.to_keras()
    expected = keras_model.predict(data[0], verbose=0)
    np.testing.assert_allclose(fitted.predict_proba(data[0]), expected, atol=1e-5)


def test_architecture_is_that_of_the_method(data: tuple[np.ndarray, np.ndarray]) -> None:
    head = DenseHead(epochs=1, random_state=0).fit(*data)
    assert [kernel.shape for kernel, _ in head.layers_] == [(12, 128), (128, 64), (64, 4)]
    assert head.dropout == 0.5


@pytest.mark.slow
def test_class_weights_change_the_fit(data: tuple[np.ndarray, np.ndarray]) -> None:
    X, y = data
    heavy = DenseHead(**SMALL, class_weight={0: 50.0}).fit(X, y)
    plain = DenseHead(**SMALL).fit(X, y)
    assert (heavy.predict(X) == 0).sum() > (plain.predict(X) == 0).sum()


def test_separable_validation_rows_do_not_make_it_certain() -> None:
    X, y = make_blobs(120, n_features=8, centers=2, cluster_std=0.1, random_state=0)
    head = DenseHead(**SMALL).fit(X[:80], y[:80], validation_data=(X[80:], y[80:]))
    probabilities = head.predict_proba(X[80:])
    assert np.isfinite(probabilities).all()
    assert probabilities.max() < 1 - 1e-6


def test_without_a_validation_part_every_epoch_is_run(
    data: tuple[np.ndarray, np.ndarray],
) -> None:
    head = DenseHead(**{**SMALL, "epochs": 4, "validation_fraction": None}).fit(*data)
    assert head.n_iter_ == 4
    assert head.best_epoch_ == 3
    assert "val_loss" not in head.history_


def test_from_arrays_predicts_the_same(
    fitted: DenseHead, data: tuple[np.ndarray, np.ndarray]
) -> None:
    assert fitted.temperature_ != 1.0
    again = DenseHead.from_arrays(
        fitted.layers_,
        mean=fitted.mean_,
        scale=fitted.scale_,
        classes=fitted.classes_,
        temperature=fitted.temperature_,
    )
    np.testing.assert_array_equal(again.predict_proba(data[0]), fitted.predict_proba(data[0]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scale": np.zeros(12)}, "positive scale"),
        ({"mean": np.zeros(11)}, "shape"),
        ({"classes": [0, 1]}, "classes"),
        ({"params": {"nonsense": 1}}, "nonsense"),
        ({"mean": np.full(12, np.nan)}, "finite"),
    ],
)
def test_from_arrays_refuses_arrays_that_make_no_head(
    fitted: DenseHead, change: dict[str, Any], message: str
) -> None:
    arrays = {"mean": fitted.mean_, "scale": fitted.scale_, "classes": fitted.classes_, **change}
    with pytest.raises(HeadError, match=message):
        DenseHead.from_arrays(fitted.layers_, **arrays)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"dropout": 1.0}, "dropout"),
        ({"epochs": 0}, "epochs"),
        ({"hidden_units": (0,)}, "hidden_units"),
        ({"hidden_units": (8,) * 10}, "nine at most"),
        ({"learning_rate": -1.0}, "learning_rate"),
        ({"class_weight": "heavy"}, "class_weight"),
        ({"validation_fraction": 1.0}, "validation_fraction"),
    ],
)
def test_bad_parameters_are_named(
    data: tuple[np.ndarray, np.ndarray], params: dict[str, Any], message: str
) -> None:
    with pytest.raises(HeadError, match=message):
        DenseHead(**params).fit(*data)


def test_validation_rows_of_an_unknown_class_are_refused(
    data: tuple[np.ndarray, np.ndarray],
) -> None:
    X, y = data
    with pytest.raises(HeadError, match=r"\[9\]"):
        DenseHead(**SMALL).fit(X, y, validation_data=(X[:1], [9]))


def test_with_one_row_per_class_nothing_can_be_held_out() -> None:
    with pytest.raises(HeadError, match="no class has a second row"):
        DenseHead(**SMALL).fit(np.eye(3), ["a", "b", "c"])


def test_class_weights_of_unknown_labels_are_refused(
    data: tuple[np.ndarray, np.ndarray],
) -> None:
    with pytest.raises(HeadError, match=r"class_weight has labels \['glioma'\]"):
        DenseHead(**SMALL, class_weight={"glioma": 2.0}).fit(*data)


def test_a_diverging_fit_is_an_error(data: tuple[np.ndarray, np.ndarray]) -> None:
    with pytest.raises(HeadError, match="lower learning_rate"):
        DenseHead(**{**SMALL, "learning_rate": 1e30}).fit(*data)


def test_a_single_class_is_refused(data: tuple[np.ndarray, np.ndarray]) -> None:
    with pytest.raises(HeadError, match="one class"):
        DenseHead(**SMALL).fit(data[0], np.zeros(len(data[0]), int))
