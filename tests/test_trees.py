"""Trees as arrays: they predict as scikit-learn's do, and no index of a file is trusted."""

import numpy as np
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier
from support.trees import BOOSTED, FOREST, HOSTILE, KINDS, WIDTH, draw, fit

from brainfeat.errors import HeadError
from brainfeat.heads import trees
from brainfeat.heads.trees import from_arrays, to_arrays


def rebuild(head, estimator, n_classes=3, width=WIDTH):
    return from_arrays(head, to_arrays(estimator), n_features=width, n_classes=n_classes)


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize(
    ("head", "params"),
    [
        ("random-forest", {}),
        ("random-forest", {"max_depth": 1}),
        ("random-forest", {"max_features": None, "bootstrap": False}),
        ("random-forest", {"criterion": "entropy", "class_weight": "balanced"}),
        ("random-forest", {"min_samples_leaf": 400}),
        ("random-forest", {"n_estimators": 1, "ccp_alpha": 0.01}),
        ("hist-gradient-boosting", {}),
        ("hist-gradient-boosting", {"learning_rate": 0.5, "l2_regularization": 1.0}),
        ("hist-gradient-boosting", {"max_leaf_nodes": 2, "max_bins": 8}),
        ("hist-gradient-boosting", {"min_samples_leaf": 500}),
        ("hist-gradient-boosting", {"class_weight": "balanced", "max_features": 0.3}),
    ],
)
def test_they_predict_as_scikit_learns_do(head, params, n_classes):
    estimator = fit(head, n_classes, **params)
    rebuilt = rebuild(head, estimator, n_classes)
    X = np.random.default_rng(1).normal(size=(500, WIDTH)).astype(np.float32)
    expected = estimator.predict_proba(X)
    np.testing.assert_allclose(rebuilt.predict_proba(X), expected, rtol=0, atol=1e-14)
    assert np.array_equal(rebuilt.predict(X), estimator.predict(X))
    if head == "hist-gradient-boosting":
        scores = estimator.decision_function(X)
        np.testing.assert_allclose(rebuilt.decision_function(X), scores, rtol=0, atol=1e-13)


@pytest.mark.parametrize("head", KINDS)
def test_a_row_on_a_threshold_goes_the_same_way(head):
    X, y = draw()
    X = np.round(X * 2) / 2
    kind, small = KINDS[head]
    estimator = kind(random_state=0, **small).fit(X, y)
    expected = estimator.predict_proba(X)
    np.testing.assert_allclose(rebuild(head, estimator).predict_proba(X), expected, atol=1e-14)


@pytest.mark.parametrize("head", KINDS)
@pytest.mark.parametrize("block", [1, 40, 10**6])
def test_blocks_change_nothing(head, block, monkeypatch):
    estimator = fit(head)
    monkeypatch.setattr(trees, "_BLOCK", block)
    X, _ = draw()
    expected = estimator.predict_proba(X)
    np.testing.assert_allclose(rebuild(head, estimator).predict_proba(X), expected, atol=1e-14)


@pytest.mark.parametrize("head", KINDS)
def test_what_was_rebuilt_can_be_stored_again(head):
    arrays = to_arrays(fit(head))
    again = to_arrays(from_arrays(head, arrays, n_features=WIDTH, n_classes=3))
    assert all(np.array_equal(arrays[name], again[name]) for name in arrays)
    assert {name: (array.dtype.str, array.ndim) for name, array in arrays.items()} == (
        trees.TREE_ARRAYS
    )


def test_a_split_by_category_is_refused():
    X, y = draw()
    X[:, 0] = np.arange(len(X)) % 5
    estimator = HistGradientBoostingClassifier(max_iter=5, categorical_features=[0])
    y = np.isin(X[:, 0], (1, 3)).astype(int)
    with pytest.raises(HeadError, match="by a category"):
        to_arrays(estimator.fit(X, y))


CASES = [
    (head, name, *case)
    for head, own in (("random-forest", FOREST), ("hist-gradient-boosting", BOOSTED))
    for name, case in {**HOSTILE, **own}.items()
]


@pytest.fixture(scope="module")
def good():
    return {head: to_arrays(fit(head)) for head in KINDS}


@pytest.mark.parametrize(
    ("head", "change", "message"),
    [pytest.param(head, change, text, id=f"{head}-{name}") for head, name, change, text in CASES],
)
def test_hostile_arrays_are_refused(good, head, change, message):
    arrays = {name: array.copy() for name, array in good[head].items()}
    change(arrays)
    with pytest.raises(HeadError, match=message):
        from_arrays(head, arrays, n_features=WIDTH, n_classes=3)


@pytest.mark.parametrize("head", KINDS)
def test_changed_numbers_are_refused_or_predict_finite_numbers(good, head):
    """A change that is let through leads nowhere but to another tree."""
    rng = np.random.default_rng(0)
    X, _ = draw(20)
    refused = 0
    for _ in range(400):
        arrays = {name: array.copy() for name, array in good[head].items()}
        name = rng.choice([name for name in arrays if arrays[name].size])
        raw = arrays[name].reshape(-1).view(np.uint8)
        raw[rng.integers(raw.size)] ^= 1 << int(rng.integers(8))
        try:
            rebuilt = from_arrays(head, arrays, n_features=WIDTH, n_classes=3)
        except HeadError:
            refused += 1
            continue
        with np.errstate(over="ignore", invalid="ignore"):
            assert rebuilt.predict_proba(X).shape == (20, 3)
    assert refused > 100
