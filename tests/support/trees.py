"""Fitted trees, and changes to their arrays that must be refused, each with its message."""

import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier

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
    kind, small = KINDS[head]
    return kind(**{"random_state": 0, **small, **params}).fit(*draw(n_classes=n_classes))


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
    "an array too many": (lambda arrays: arrays.update(more=arrays["left"]), "unknown: more"),
    "an array missing": (lambda arrays: arrays.pop("baseline"), "missing or unknown: baseline"),
    "a chain without end": (deep_chain, "more than 2,000 levels deep"),
    "no nodes": (
        lambda arrays: arrays.update({name: arrays[name][:0] for name in arrays}),
        "start must rise",
    ),
}
FOREST = {
    "fractions that do not sum to 1": (put("value", (0, 0), 5.0), "sum to 1"),
    "a negative fraction": (put("value", 0, [-1.0, 1.0, 1.0]), "sum to 1"),
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
