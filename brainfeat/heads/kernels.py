"""Support vector machines with an RBF kernel, which is computed by one product of matrices.

libsvm computes a kernel pair by pair, which takes most of the time of a fit and of its scores. Here
scikit-learn's :class:`~sklearn.svm.SVC` gets the whole kernel and solves the same problem.
"""

from copy import copy
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainfeat.heads.kinds import head_scores

# Rows up to which a kernel is held in memory: it takes 512 MiB.
KERNEL_ROWS = 8192
# Rows that are scored at once.
_BLOCK_ROWS = 1024
# Rows of a kernel that fit into a processor's cache.
_CACHED_ROWS = 32

Doubles = NDArray[np.float64]


def takes_kernel(classifier: Any, n_rows: int) -> bool:
    """Return whether a classifier is fitted on a whole kernel.

    Parameters
    ----------
    classifier : scikit-learn classifier
        Not fitted yet.
    n_rows : int
        Number of rows that it is to be fitted on.

    Returns
    -------
    bool
        True for an ``SVC`` with an RBF kernel and at most `KERNEL_ROWS` rows.

    Examples
    --------
    >>> from sklearn.svm import SVC
    >>> takes_kernel(SVC(), 8192), takes_kernel(SVC(), 8193), takes_kernel(SVC(kernel="poly"), 1)
    (True, False, False)
    """
    if getattr(classifier, "kernel", None) != "rbf" or n_rows > KERNEL_ROWS:
        return False
    gamma = classifier.gamma
    return bool(gamma == "scale" or (isinstance(gamma, int | float) and 0 < gamma < np.inf))


def fit_svc(classifier: Any, X: NDArray[np.floating], y: NDArray[np.int64]) -> Any:
    """Fit like ``classifier.fit(X, y)``, on a whole kernel.

    libsvm rounds a kernel to float32 while it solves, so that the other rounding of a product of
    matrices seldom changes anything, and then by some 10⁻⁸ of a coefficient.

    Parameters
    ----------
    classifier : sklearn.svm.SVC
        Not fitted yet; one that :func:`takes_kernel`.
    X : ndarray of shape (n, d), float
        Standardised features.
    y : ndarray of shape (n,), int64
        Classes.

    Returns
    -------
    sklearn.svm.SVC
        The same classifier, fitted; its kernel is still the RBF kernel.

    Raises
    ------
    ValueError
        As in :meth:`sklearn.svm.SVC.fit`.

    Examples
    --------
    >>> from sklearn.svm import SVC
    >>> X, y = np.random.default_rng(0).normal(size=(20, 3)), np.arange(20) % 2
    >>> found, expected = fit_svc(SVC(), X, y), SVC().fit(X, y)
    >>> bool(np.allclose(found.decision_function(X), expected.decision_function(X)))
    True
    """
    from sklearn.base import clone

    X = np.ascontiguousarray(X, np.float64)
    spread = X.var()
    gamma = classifier.gamma
    if gamma == "scale":
        gamma = 1.0 / (X.shape[1] * spread) if spread != 0 else 1.0
    kernel = X @ X.T
    squares = kernel.diagonal().copy()
    _apply_rbf(kernel, squares, squares, gamma=gamma)
    solved = clone(classifier).set_params(kernel="precomputed").fit(kernel, y)
    params = classifier.get_params()
    learned = {name: value for name, value in vars(solved).items() if name not in params}
    learned |= {"_gamma": gamma, "support_vectors_": X[solved.support_]}
    vars(classifier).update(learned, shape_fit_=X.shape, n_features_in_=X.shape[1])
    return classifier


def score_svc(pipeline: Any, X: NDArray[np.float32]) -> Doubles:
    """Compute the scores of a fitted pipeline like :func:`brainfeat.heads.kinds.head_scores`.

    Parameters
    ----------
    pipeline : sklearn.pipeline.Pipeline
        A ``scaler``, and as ``classifier`` an ``SVC`` with an RBF kernel.
    X : ndarray of shape (n, d), float32
        Features.

    Returns
    -------
    ndarray of shape (n, k), float64
        The same to some 10⁻¹³.
    """
    classifier = pipeline["classifier"]
    vectors, gamma = classifier.support_vectors_, classifier._gamma
    squares, n_vectors = _sum_squares(vectors), len(vectors)
    # The columns of a kernel of support vectors are numbered from 0.
    solved = copy(classifier)
    vars(solved).update(
        kernel="precomputed",
        support_=np.arange(n_vectors, dtype=np.int32),
        shape_fit_=(n_vectors, n_vectors),
        n_features_in_=n_vectors,
    )
    scores = []
    for start in range(0, len(X), _BLOCK_ROWS):
        Z = pipeline["scaler"].transform(X[start : start + _BLOCK_ROWS]).astype(np.float64)
        kernel = Z @ vectors.T
        _apply_rbf(kernel, _sum_squares(Z), squares, gamma=gamma)
        scores.append(head_scores(solved, kernel))
    return np.concatenate(scores)


def _apply_rbf(products: Doubles, rows: Doubles, columns: Doubles, *, gamma: float) -> None:
    """Turn scalar products into an RBF kernel in place, given the squares of lengths."""
    for start in range(0, len(products), _CACHED_ROWS):
        block = products[start : start + _CACHED_ROWS]
        block *= -2
        block += rows[start : start + _CACHED_ROWS, None] + columns
        block *= -gamma
        np.exp(block, out=block)


def _sum_squares(X: Doubles) -> Doubles:
    squares: Doubles = np.einsum("ij,ij->i", X, X)
    return squares
