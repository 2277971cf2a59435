"""Trees as arrays: they predict as scikit-learn's do, and no index of a file is trusted."""

import numpy as np
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier

from brainfeat.errors import HeadError
from brainfeat.heads import trees
from brainfeat.heads.trees import from_arrays, to_arrays

WIDTH = 12
KINDS = {
    "random-forest": (RandomForestClassifier, {"n_estimators": 9}),
    "hist-gradient-boosting": (HistGradientBoostingClassifier, {"max_iter": 6}),
}


def draw(n=400, n_classes=3, width=WIDTH):
    rng = np.random.default_rng(0)
    y = np.arange(n) % n_classes
    X = rng.normal(size=(n, width)) + 0.7 * y[:, None] * (np.arange(width) < 3)
    return X.astype(np.float32), y


def fit(head, n_classes=3, **params):
    kind, quick = KINDS[head]
    return kind(**{"random_state": 0, **quick, **params}).fit(*draw(n_classes=n_classes))


def rebuild(head, estimator, n_classes=3, width=WIDTH):
    return from_arrays(head, to_arrays(estimator), n_features=width, n_classes=n_classes)


@pytest.mark.parametrize("n_classes", [2, 3, 4])
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
    kind, quick = KINDS[head]
    estimator = kind(random_state=0, **quick).fit(X, y)
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


def put(name, place, value):
    def change(arrays):
        arrays[name][place] = value

    return change


def replace(name, make):
    def change(arrays):
        arrays[name] = make(arrays[name])

    return change


def first_inner(arrays):
    return int(np.flatnonzero(arrays["feature"] >= 0)[1])


def to_itself(arrays):
    node = first_inner(arrays)
    arrays["left"][node] = node


def to_its_parent(arrays):
    arrays["right"][first_inner(arrays)] = 0


def to_another_tree(arrays):
    arrays["right"][0] = arrays["start"][1] + 1


def two_parents(arrays):
    arrays["right"][0] = arrays["left"][0]


def leaf_with_a_child(arrays):
    arrays["left"][np.flatnonzero(arrays["feature"] < 0)[0]] = 1


def deep_chain(arrays):
    """A chain of 5,000 levels, each index of it in bounds."""
    levels = 5000
    nodes = 2 * levels + 1
    inner = np.arange(nodes) % 2 == 0
    inner[-1] = False
    own = np.arange(nodes)
    arrays.update(
        start=np.zeros(1, np.int64),
        feature=np.where(inner, 0, -1).astype(np.int32),
        threshold=np.zeros(nodes),
        left=np.where(inner, own + 1, 0).astype(np.int32),
        right=np.where(inner, own + 2, 0).astype(np.int32),
        value=np.tile(arrays["value"][:1], (nodes, 1)),
    )


LEFT, RIGHT = "left leads out of its tree, or back", "right leads out of its tree, or back"
HOSTILE = {
    "a child that is its parent": (to_itself, LEFT),
    "a child that lies before": (to_its_parent, RIGHT),
    "a child in another tree": (to_another_tree, RIGHT),
    "a child beyond the end": (put("left", 0, 2**31 - 1), LEFT),
    "a negative child": (put("right", 0, -5), RIGHT),
    "a child of two": (two_parents, "two parents, or none"),
    "a leaf with a child": (leaf_with_a_child, LEFT),
    "a column beyond the features": (put("feature", 0, WIDTH), "feature must be below 12"),
    "a column far beyond": (put("feature", 0, 2**31 - 1), "feature must be below 12"),
    "a negative column": (put("feature", 0, -2), "feature must be below 12"),
    "a root that is a leaf": (put("feature", 0, -1), "left leads out"),
    "a threshold of NaN": (put("threshold", 0, np.nan), "threshold must be finite"),
    "a threshold without end": (put("threshold", 0, np.inf), "threshold must be finite"),
    "a value of NaN": (put("value", (0, 0), np.nan), "must be finite"),
    "a value without end": (put("value", (-1, 0), -np.inf), "must be finite"),
    "trees that start twice": (put("start", 1, 0), "start must rise"),
    "trees that start late": (put("start", 0, 1), "start must rise"),
    "trees that start beyond the end": (put("start", -1, 2**40), "start must rise"),
    "trees that start before": (put("start", 1, -1), "start must rise"),
    "no trees": (replace("start", lambda old: old[:0]), "start must rise"),
    "a tree that is cut in two": (put("start", 1, 1), "leads out of its tree|two parents"),
    "thresholds missing": (replace("threshold", lambda old: old[:-1]), "threshold has"),
    "values missing": (replace("value", lambda old: old[:-1]), "value has"),
    "too many children": (replace("left", lambda old: np.append(old, old)), "left has"),
    "a column of values too many": (replace("value", lambda old: np.hstack([old, old])), "columns"),
    "no columns of values": (replace("value", lambda old: old[:, :0]), "columns"),
    "an array too many": (lambda arrays: arrays.update(more=arrays["left"]), "too many: more"),
    "an array missing": (lambda arrays: arrays.pop("baseline"), "missing or too many: baseline"),
    "a chain without end": (deep_chain, "more than 2,000 levels deep"),
    "no nodes": (
        lambda arrays: arrays.update({name: arrays[name][:0] for name in arrays}),
        "start must rise",
    ),
}
FOREST = {
    "shares that do not sum to 1": (put("value", (0, 0), 5.0), "sum to 1"),
    "a negative share": (put("value", 0, [-1.0, 1.0, 1.0]), "sum to 1"),
    "a baseline": (replace("baseline", lambda old: np.zeros(3)), "baseline 0 entries"),
}
BOOSTED = {
    "a round that is not whole": (
        lambda arrays: arrays.update(start=np.delete(arrays["start"], 1)),
        "two parents, or none|rounds of 3",
    ),
    "a baseline of NaN": (put("baseline", 0, np.nan), "must be finite"),
    "a baseline too long": (replace("baseline", lambda old: np.append(old, old)), "baseline 3"),
    "no baseline": (replace("baseline", lambda old: old[:0]), "baseline 3"),
}
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
