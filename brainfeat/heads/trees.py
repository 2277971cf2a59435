"""Fitted tree ensembles as plain arrays: they are stored, checked and applied as such.

No estimator of scikit-learn is rebuilt from a file: its compiled code would follow any index.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from brainfeat.errors import HeadError
from brainfeat.heads.calibration import softmax

TREE_HEADS = ("random-forest", "hist-gradient-boosting")

# Data type and number of dimensions of each dataset of a head file, below ``trees/``.
TREE_ARRAYS: dict[str, tuple[str, int]] = {
    "start": ("<i8", 1),
    "feature": ("<i4", 1),
    "threshold": ("<f8", 1),
    "left": ("<i4", 1),
    "right": ("<i4", 1),
    "value": ("<f8", 2),
    "baseline": ("<f8", 1),
}

_LEAF = -1
# Trees that are fitted on real data have some dozens of levels; each level is a step of prediction.
_DEPTH_LIMIT = 2000
_SUM_TOLERANCE = 1e-6
# Rows times trees that are evaluated at once.
_BLOCK = 1 << 17

Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, eq=False)
class Trees:
    """Binary trees as arrays with one entry per node, one tree after the other.

    Attributes
    ----------
    start : ndarray of shape (t,), int64
        The root of each tree.
    feature : ndarray of shape (m,), int32
        Column that an inner node compares; −1 marks a leaf.
    threshold : ndarray of shape (m,), float64
        A row goes left where its column is not above the threshold.
    left, right : ndarray of shape (m,), int32
        Children of an inner node; 0 at a leaf.
    value : ndarray of shape (m, v), float64
        Output of a leaf: the fractions of the classes, or one number of a boosted tree.
    baseline : ndarray of shape (b,), float64
        Scores that the outputs of boosted trees are added to; empty for a forest.
    """

    start: NDArray[np.int64]
    feature: NDArray[np.int32]
    threshold: NDArray[np.float64]
    left: NDArray[np.int32]
    right: NDArray[np.int32]
    value: NDArray[np.float64]
    baseline: NDArray[np.float64]

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return the arrays by name, with the data types of `TREE_ARRAYS`."""
        return {
            name: np.ascontiguousarray(getattr(self, name), kind)
            for name, (kind, _) in TREE_ARRAYS.items()
        }

    def find_leaves(self, X: NDArray[np.float32]) -> NDArray[np.intp]:
        """Return the leaf of each row in each tree, (n, t)."""
        nodes = np.tile(self.start, (len(X), 1))
        rows = np.arange(len(X))[:, np.newaxis]
        while True:
            column = self.feature[nodes]
            inner = column != _LEAF
            if not inner.any():
                return nodes
            goes_left = X[rows, column] <= self.threshold[nodes]
            nodes = np.where(inner, np.where(goes_left, self.left[nodes], self.right[nodes]), nodes)

    def blocks(self, n: int) -> list[slice]:
        """Divide n rows into blocks whose evaluation takes little memory."""
        step = max(1, _BLOCK // len(self.start))
        return [slice(start, start + step) for start in range(0, n, step)]


class _Ensemble:
    """Trees with the classes of a head."""

    def __init__(self, trees: Trees, n_classes: int) -> None:
        self.trees = trees
        self.classes_ = np.arange(n_classes)

    def predict(self, X: ArrayLike) -> NDArray[np.int64]:
        """Return the most probable class of each row, (n,)."""
        labels: NDArray[np.int64] = self.classes_[self.predict_proba(X).argmax(axis=1)]
        return labels

    def predict_proba(self, X: ArrayLike) -> NDArray[np.float64]:
        """Return the probability of each class, (n, k)."""
        raise NotImplementedError


class Forest(_Ensemble):
    """A forest: the probabilities are the mean of the fractions of the classes in the leaves."""

    def predict_proba(self, X: ArrayLike) -> NDArray[np.float64]:
        """Return the probability of each class, (n, k)."""
        rows = np.asarray(X, np.float32)
        result = np.empty((len(rows), len(self.classes_)))
        for block in self.trees.blocks(len(rows)):
            leaves = self.trees.find_leaves(rows[block])
            result[block] = self.trees.value[leaves].mean(axis=1)
        return result


class BoostedTrees(_Ensemble):
    """Boosted trees: the score of a class is its baseline plus the outputs of its leaves."""

    def decision_function(self, X: ArrayLike) -> NDArray[np.float64]:
        """Return the scores, (n, k); of two classes the score of the second, (n,)."""
        rows = np.asarray(X, np.float32)
        width = len(self.trees.baseline)
        result = np.empty((len(rows), width))
        for block in self.trees.blocks(len(rows)):
            values = self.trees.value[self.trees.find_leaves(rows[block]), 0]
            rounds = values.reshape(len(values), -1, width)
            result[block] = self.trees.baseline + rounds.sum(axis=1)
        return result if width > 1 else result[:, 0]

    def predict_proba(self, X: ArrayLike) -> NDArray[np.float64]:
        """Return the probability of each class, (n, k)."""
        scores = self.decision_function(X)
        if scores.ndim == 1:
            scores = np.column_stack([np.zeros_like(scores), scores])
        return softmax(scores)


def to_arrays(estimator: Any) -> dict[str, NDArray[Any]]:
    """Turn a fitted ensemble into arrays.

    Parameters
    ----------
    estimator : RandomForestClassifier, HistGradientBoostingClassifier, Forest or BoostedTrees

    Returns
    -------
    dict of str to ndarray
        Arrays with the names and data types of `TREE_ARRAYS`.

    Raises
    ------
    HeadError
        A tree splits by a category or a missing value.
    """
    if isinstance(estimator, _Ensemble):
        return estimator.trees.arrays()
    if hasattr(estimator, "estimators_"):
        return _join([_forest_tree(tree.tree_) for tree in estimator.estimators_], baseline=[])
    trees = [_boosted_tree(tree.nodes) for trees in estimator._predictors for tree in trees]
    return _join(trees, baseline=estimator._baseline_prediction.ravel())


def from_arrays(head: str, arrays: Arrays, *, n_features: int, n_classes: int) -> _Ensemble:
    """Rebuild an ensemble from the arrays of a file; every index in them is checked.

    Parameters
    ----------
    head : {"random-forest", "hist-gradient-boosting"}
    arrays : mapping of str to ndarray
        As `to_arrays` returns them.
    n_features, n_classes : int
        Number of features and of classes.

    Returns
    -------
    Forest or BoostedTrees

    Raises
    ------
    HeadError
        Names the array that is wrong, and what it must be.
    """
    _check_shapes(arrays)
    _check_nodes(arrays, n_features)
    _check_depth(arrays)
    boosted = head == "hist-gradient-boosting"
    _check_values(arrays, n_classes, boosted=boosted)
    trees = Trees(**arrays)
    return BoostedTrees(trees, n_classes) if boosted else Forest(trees, n_classes)


def _forest_tree(tree: Any) -> dict[str, NDArray[Any]]:
    leaf = tree.children_left < 0
    return {
        "feature": np.where(leaf, _LEAF, tree.feature),
        "threshold": np.where(leaf, 0, tree.threshold),
        "left": np.where(leaf, 0, tree.children_left),
        "right": np.where(leaf, 0, tree.children_right),
        "value": tree.value[:, 0, :],
    }


def _boosted_tree(nodes: NDArray[Any]) -> dict[str, NDArray[Any]]:
    leaf = nodes["is_leaf"].astype(bool)
    if nodes["is_categorical"].any() or not np.isfinite(nodes["num_threshold"]).all():
        raise HeadError(
            "a tree splits by a category or a missing value, which features do not have"
        )
    return {
        "feature": np.where(leaf, _LEAF, nodes["feature_idx"]),
        "threshold": np.where(leaf, 0, nodes["num_threshold"]),
        "left": np.where(leaf, 0, nodes["left"]),
        "right": np.where(leaf, 0, nodes["right"]),
        "value": nodes["value"][:, np.newaxis],
    }


def _join(trees: list[dict[str, NDArray[Any]]], *, baseline: ArrayLike) -> dict[str, NDArray[Any]]:
    sizes = [len(tree["feature"]) for tree in trees]
    start = np.cumsum([0, *sizes[:-1]])
    for tree, first in zip(trees, start, strict=True):
        inner = tree["feature"] != _LEAF
        for child in ("left", "right"):
            tree[child] = np.where(inner, tree[child] + first, 0)
    joined = {name: np.concatenate([tree[name] for tree in trees]) for name in trees[0]}
    return Trees(start=start, baseline=np.asarray(baseline), **joined).arrays()


def _check_shapes(arrays: Arrays) -> None:
    if set(arrays) != set(TREE_ARRAYS):
        odd = ", ".join(sorted(set(arrays) ^ set(TREE_ARRAYS)))
        raise HeadError(f"the arrays of the trees are missing or unknown: {odd}")
    nodes = len(arrays["feature"])
    for name in ("threshold", "left", "right", "value"):
        if len(arrays[name]) != nodes:
            raise HeadError(f"the trees' {name} has {len(arrays[name])} entries for {nodes} nodes")
    start = arrays["start"]
    if not len(start) or start[0] != 0 or (np.diff(start) < 1).any() or start[-1] >= nodes:
        raise HeadError("the trees' start must rise from 0 to below the number of nodes")


def _check_nodes(arrays: Arrays, n_features: int) -> None:
    """Check that each child comes after its only parent, in the same tree."""
    feature, start = arrays["feature"], arrays["start"]
    nodes = len(feature)
    leaf = feature == _LEAF
    if ((feature < 0) & ~leaf).any() or (feature >= n_features).any():
        raise HeadError(f"the trees' feature must be below {n_features}, or -1 at a leaf")
    ends = np.repeat(np.append(start[1:], nodes), np.diff(np.append(start, nodes)))
    own = np.arange(nodes)
    for name in ("left", "right"):
        child = arrays[name]
        inside = (child > own) & (child < ends)
        if not np.where(leaf, child == 0, inside).all():
            raise HeadError(f"the trees' {name} leads out of its tree, or back")
    children = np.concatenate([arrays["left"][~leaf], arrays["right"][~leaf]])
    parents = np.bincount(children, minlength=nodes)
    parents[start] += 1
    if (parents != 1).any():
        raise HeadError("the trees have nodes with two parents, or none")
    if not np.isfinite(arrays["threshold"]).all():
        raise HeadError("the trees' threshold must be finite")


def _check_depth(arrays: Arrays) -> None:
    level = arrays["start"]
    for _ in range(_DEPTH_LIMIT):
        level = level[arrays["feature"][level] != _LEAF]
        if not len(level):
            return
        level = np.concatenate([arrays["left"][level], arrays["right"][level]])
    raise HeadError(f"the trees are more than {_DEPTH_LIMIT:,} levels deep")


def _check_values(arrays: Arrays, n_classes: int, *, boosted: bool) -> None:
    value, baseline = arrays["value"], arrays["baseline"]
    scores = n_classes if n_classes > 2 else 1
    width, bases = (1, scores) if boosted else (n_classes, 0)
    if value.shape[1] != width or len(baseline) != bases:
        raise HeadError(f"the trees' value must have {width} columns, and baseline {bases} entries")
    if not np.isfinite(value).all() or not np.isfinite(baseline).all():
        raise HeadError("the trees' value and baseline must be finite")
    if boosted:
        if len(arrays["start"]) % scores:
            raise HeadError(f"boosted trees must come in rounds of {scores}")
    elif (value < 0).any() or (abs(value.sum(axis=1) - 1) > _SUM_TOLERANCE).any():
        raise HeadError("the trees' value must be fractions of the classes, which sum to 1")
