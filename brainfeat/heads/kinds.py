"""The heads by name, with one estimator interface for networks and classical classifiers."""

from typing import Any

import numpy as np
import numpy.typing as npt

from brainfeat.errors import HeadError
from brainfeat.heads.bags import ATTENTION, Bags
from brainfeat.heads.classical import CLASSIFIERS, check_names, classical_names, make_classical
from brainfeat.heads.margins import find_least_margins

__all__ = ["HEAD_NAMES", "accepted_names", "head_scores", "make_head", "needs_validation"]

HEAD_NAMES = ("dense", *CLASSIFIERS)
# Heads that Keras trains; that of attention takes bags, and is asked for by them.
TRAINED = ("dense", ATTENTION)


def make_head(
    name: str, *, random_state: int | None = None, n_jobs: int | None = None, **params: Any
) -> Any:
    """Make an unfitted head.

    Parameters
    ----------
    name : str
        One of `HEAD_NAMES`, or ``"attention"``, which takes bags.
    random_state : int or None
        Seed of the heads that draw random numbers.
    n_jobs : int or None
        Number of processes or threads of the heads that take one.
    **params
        Constructor parameters of the classifier, such as ``C=10`` or ``epochs=50``.

    Returns
    -------
    scikit-learn classifier
        A :class:`brainfeat.DenseHead`, a pipeline of a scaler and a classifier, or trees; or a
        :class:`brainfeat.heads.attention.AttentionHead`.

    Raises
    ------
    HeadError
        The name or a parameter is unknown, or a parameter of the dense head is out of range.

    Examples
    --------
    >>> make_head("svm", C=1.0)["classifier"].C
    1.0
    """
    check_names(name, params, accepted=accepted_names(name))
    if name not in TRAINED:
        return make_classical(name, params=params, random_state=random_state, n_jobs=n_jobs)
    from brainfeat.heads.parameters import check_params

    check_params(params, head=name)
    return _trained_class(name)(random_state=random_state, **params)


def accepted_names(name: str) -> list[str]:
    """List the constructor parameters that a head accepts.

    Parameters
    ----------
    name : str
        One of `HEAD_NAMES`, or ``"attention"``.

    Returns
    -------
    list of str
        In alphabetical order.

    Raises
    ------
    HeadError
        The name is unknown.

    Examples
    --------
    >>> "C" in accepted_names("svm"), "C" in accepted_names("knn")
    (True, False)
    """
    if name not in (*HEAD_NAMES, ATTENTION):
        raise HeadError(f"unknown head {name!r}; there are {', '.join(HEAD_NAMES)}")
    if name not in TRAINED:
        return classical_names(name)
    return sorted(set(_trained_class(name)().get_params()) - {"random_state"})


def needs_validation(name: str) -> bool:
    """Return whether a head needs validation images to decide when to stop training."""
    return name in TRAINED


def _trained_class(name: str) -> Any:
    if name == ATTENTION:
        from brainfeat.heads.attention import AttentionHead

        return AttentionHead
    from brainfeat.heads.dense import DenseHead

    return DenseHead


def head_scores(estimator: Any, X: npt.ArrayLike | Bags) -> npt.NDArray[np.float64]:
    """Compute the scores of a fitted head; their softmax gives its probabilities.

    Parameters
    ----------
    estimator : scikit-learn classifier
        A fitted head.
    X : array-like of shape (n, d), or Bags
        Features; bags for a head that weighs vectors by attention.

    Returns
    -------
    ndarray of shape (n, k), float64
        Columns in the order of ``classes_``. Logits where the head has them; margins of support
        vector machines, whose softmax is a probability only after temperature scaling; logarithms
        of the probabilities of nearest neighbours and trees. The margins of an ``svm`` are those of
        :func:`brainfeat.heads.margins.find_least_margins`; one that an earlier version fitted has
        the shape ``"ovr"`` and keeps its scores, which count votes.
    """
    if hasattr(estimator, "decision_function"):
        scores = np.asarray(estimator.decision_function(X), np.float64)
        if scores.ndim == 1:
            return np.column_stack([np.zeros_like(scores), scores])
        classifier = estimator[-1] if hasattr(estimator, "steps") else estimator
        if getattr(classifier, "decision_function_shape", None) == "ovo":
            return find_least_margins(scores, n_classes=len(classifier.classes_))
        return scores
    probabilities = np.asarray(estimator.predict_proba(X), np.float64)
    tiny = np.finfo(np.float64).eps
    logarithms: npt.NDArray[np.float64] = np.log(np.clip(probabilities, tiny, 1.0))
    return logarithms
