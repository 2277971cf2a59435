"""Integrity of a scikit-learn head that was read from a file: types, shapes and ranges.

The compiled code of scikit-learn trusts the arrays of a fitted estimator; an array of the wrong
shape makes it read memory out of bounds. No method of a stored head is called before this check.
"""

from numbers import Real
from typing import Any

import numpy as np

from brainfeat.errors import HeadError
from brainfeat.heads.classical import CLASSIFIERS

_KERNELS = ("linear", "poly", "rbf", "sigmoid")
_WEIGHTS = ("uniform", "distance")


def check_fitted(head: str, estimator: Any, *, n_features: int, n_classes: int) -> None:
    """Refuse a fitted scikit-learn head whose parts are not what its prediction needs.

    Parameters
    ----------
    head : str
        Name of a head that consists of a scaler and a classifier.
    estimator : object
        The object that was read.
    n_features, n_classes : int
        Number of features and of classes; the classes must be 0…k−1.

    Raises
    ------
    HeadError
        Names the part that is wrong, and what it must be.

    Examples
    --------
    >>> check_fitted("svm", object(), n_features=512, n_classes=4)
    Traceback (most recent call last):
    brainfeat.errors.HeadError: the svm head must be a pipeline of a scaler and SVC; got object
    """
    scaler, classifier = _unpack(head, estimator)
    for part in (estimator, scaler, classifier):
        _check_names(part)
    _check_array(scaler, "mean_", (n_features,))
    _check_array(scaler, "scale_", (n_features,))
    if not (scaler.scale_ > 0).all():
        raise HeadError("scale_ of StandardScaler must be positive")
    _check_array(classifier, "classes_", (n_classes,), kind="i")
    if (classifier.classes_ != np.arange(n_classes)).any():
        raise HeadError(
            f"the classes of the head must be 0 to {n_classes - 1}, one for each of class_names"
        )
    _CHECKS.get(head, _check_linear)(classifier, n_features, n_classes)


def _unpack(head: str, estimator: Any) -> tuple[Any, Any]:
    from sklearn.pipeline import Pipeline

    wanted = CLASSIFIERS[head][0].rpartition(".")[2]
    steps: Any = getattr(estimator, "steps", None) if type(estimator) is Pipeline else None
    try:
        (first, scaler), (second, classifier) = steps
    except (TypeError, ValueError):
        first = second = scaler = classifier = None
    names = [first, type(scaler).__name__, second, type(classifier).__name__]
    if names != ["scaler", "StandardScaler", "classifier", wanted]:
        raise HeadError(
            f"the {head} head must be a pipeline of a scaler and {wanted}; got "
            f"{' and '.join(names[1::2]) if steps else type(estimator).__name__}"
        )
    return scaler, classifier


def _check_names(part: Any) -> None:
    """Refuse attributes that hide a method or a constant of the class."""
    hidden = sorted(name for name in vars(part) if hasattr(type(part), name))
    if hidden:
        raise HeadError(f"{type(part).__name__} must not store {', '.join(hidden)}")


def _check_array(part: Any, name: str, shape: tuple[int, ...], *, kind: str = "f") -> None:
    array: Any = getattr(part, name, None)
    fits = type(array) is np.ndarray and array.dtype.kind == kind and array.shape == shape
    if not fits or not np.isfinite(array).all():
        got = f"{array.dtype} of shape {array.shape}" if type(array) is np.ndarray else array
        raise HeadError(
            f"{name} of {type(part).__name__} must hold finite numbers of kind {kind!r} and have "
            f"shape {shape}; got {str(got)[:60]}"
        )


def _check_value(part: Any, name: str, *, valid: bool) -> None:
    if not valid:
        raise HeadError(
            f"{name} of {type(part).__name__} cannot be {str(getattr(part, name, None))[:60]}"
        )


def _length(part: Any, name: str) -> int:
    """Return the number of rows of an array, at least 1, which other arrays must match."""
    array = getattr(part, name, None)
    _check_value(part, name, valid=type(array) is np.ndarray and array.ndim > 0 and len(array) > 0)
    return len(part.__dict__[name])


def _check_linear(classifier: Any, n_features: int, n_classes: int) -> None:
    columns = 1 if n_classes == 2 else n_classes
    _check_array(classifier, "coef_", (columns, n_features))
    # Without an intercept, LinearSVC stores a plain 0.
    if isinstance(getattr(classifier, "intercept_", None), float):
        _check_value(classifier, "intercept_", valid=classifier.intercept_ == 0.0)
    else:
        _check_array(classifier, "intercept_", (columns,))


def _check_neighbours(classifier: Any, n_features: int, n_classes: int) -> None:
    rows = _length(classifier, "_fit_X")
    _check_array(classifier, "_fit_X", (rows, n_features))
    _check_array(classifier, "_y", (rows,), kind="i")
    labels = classifier._y
    _check_value(classifier, "_y", valid=labels.min() >= 0 and labels.max() < n_classes)
    _check_value(classifier, "n_samples_fit_", valid=classifier.n_samples_fit_ == rows)
    neighbours = classifier.n_neighbors
    _check_value(
        classifier, "n_neighbors", valid=type(neighbours) is int and 1 <= neighbours <= rows
    )
    _check_value(classifier, "outputs_2d_", valid=classifier.outputs_2d_ is False)
    _check_value(classifier, "_fit_method", valid=classifier._fit_method == "brute")
    _check_value(classifier, "weights", valid=classifier.weights in _WEIGHTS)
    for name in ("metric", "effective_metric_"):
        metric = getattr(classifier, name)
        _check_value(classifier, name, valid=type(metric) is str and metric != "precomputed")


def _check_support_vectors(classifier: Any, n_features: int, n_classes: int) -> None:
    pairs = n_classes * (n_classes - 1) // 2
    rows = _length(classifier, "support_")
    _check_array(classifier, "support_", (rows,), kind="i")
    _check_array(classifier, "support_vectors_", (rows, n_features))
    _check_array(classifier, "_n_support", (n_classes,), kind="i")
    counts = classifier._n_support
    _check_value(classifier, "_n_support", valid=counts.min() >= 0 and counts.sum() == rows)
    for name in ("dual_coef_", "_dual_coef_"):
        _check_array(classifier, name, (n_classes - 1, rows))
    for name in ("intercept_", "_intercept_"):
        _check_array(classifier, name, (pairs,))
    # Probabilities are not those of libsvm, so there are no parameters of Platt scaling.
    for name in ("_probA", "_probB"):
        _check_array(classifier, name, (0,))
    _check_array(classifier, "class_weight_", (n_classes,))
    _check_value(classifier, "kernel", valid=classifier.kernel in _KERNELS)
    gamma = getattr(classifier, "_gamma", None)
    _check_value(classifier, "_gamma", valid=isinstance(gamma, Real) and np.isfinite(float(gamma)))
    _check_value(classifier, "_sparse", valid=classifier._sparse is False)
    shape = classifier.decision_function_shape
    _check_value(classifier, "decision_function_shape", valid=shape in ("ovr", "ovo"))


_CHECKS = {"knn": _check_neighbours, "svm": _check_support_vectors}
