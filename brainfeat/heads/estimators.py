"""Estimators of heads: how one is fitted on rows of features, and how it scores others."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainfeat.errors import HeadError
from brainfeat.heads.bags import Bags, Features
from brainfeat.heads.kernels import fit_svc, score_svc, takes_kernel
from brainfeat.heads.kinds import head_scores
from brainfeat.heads.maps import MapRows

# What scikit-learn raises on parameters that it cannot use.
HEAD_ERRORS = (ArithmeticError, NotImplementedError, TypeError, ValueError)


def fit_estimator(head: Any, X: Features, y: NDArray[np.int64], **given: Any) -> Any:
    """Fit a head like ``head.fit(X, y)``, but standardise X in place where it is a pipeline.

    Parameters
    ----------
    head : scikit-learn classifier
        Not fitted yet.
    X : ndarray of shape (n, d), float32, or Bags
        Features; a copy, where the head is a pipeline.
    y : ndarray of shape (n,), int
        Classes.
    **given
        What else the head takes.

    Returns
    -------
    scikit-learn classifier
        The same head, fitted.

    Raises
    ------
    HeadError
        The head takes vectors, and bags were given.
    """
    if not hasattr(head, "steps"):
        return head.fit(X, y, **given)
    from brainfeat.heads.scaling import fit_scaler

    classifier = classifier_of(head)
    standardised = fit_scaler(head["scaler"], require_vectors(X)).transform(X, copy=False)
    if takes_kernel(classifier, len(standardised)):
        fit_svc(classifier, standardised, y)
    else:
        classifier.fit(standardised, y)
    return head


def score_estimator(head: Any, X: Features) -> NDArray[np.float64]:
    """Compute the scores of a fitted head, those of support vector machines by whole kernels.

    Parameters
    ----------
    head : scikit-learn classifier
        A fitted head, or an ensemble of such.
    X : ndarray of shape (n, d), float32, or Bags
        Features.

    Returns
    -------
    ndarray of shape (n, k), float64
        Those of :func:`brainfeat.heads.kinds.head_scores` to some 10⁻¹³.
    """
    if hasattr(head, "members_"):
        vectors = require_vectors(X)
        found: NDArray[np.float64] = head.combine(
            [score_estimator(member.estimator, member.take(vectors)) for member in head.members_]
        )
        return found
    if takes_kernel(classifier_of(head), 0):
        return score_svc(head, require_vectors(X))
    return head_scores(head, X)


def classifier_of(head: Any) -> Any:
    """Return the classifier of a pipeline, or the head itself."""
    return head["classifier"] if hasattr(head, "steps") else head


def require_vectors(X: Features) -> NDArray[np.float32]:
    """Refuse bags and maps."""
    if isinstance(X, Bags | MapRows):
        given = "bags" if isinstance(X, Bags) else "maps"
        raise HeadError(f"this head takes vectors, and {given} were given; pool them first")
    return X
