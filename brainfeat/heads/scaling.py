"""Standardisation of many rows in blocks, without a copy of them in float64."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

# A block of 512 features in float64 takes 32 MiB, whatever the number of rows.
_BLOCK_ROWS = 8192


def fit_scaler(scaler: Any, X: NDArray[Any]) -> Any:
    """Fit a ``StandardScaler`` block by block.

    Parameters
    ----------
    scaler : sklearn.preprocessing.StandardScaler
        Not fitted yet.
    X : ndarray of shape (n, d), float
        Feature vectors.

    Returns
    -------
    StandardScaler
        The same scaler, fitted.

    Examples
    --------
    >>> from sklearn.preprocessing import StandardScaler
    >>> fit_scaler(StandardScaler(), np.array([[1.0], [3.0]])).mean_
    array([2.])
    """
    for start in range(0, len(X), _BLOCK_ROWS):
        scaler.partial_fit(X[start : start + _BLOCK_ROWS])
    return scaler


def standardise(
    X: NDArray[Any], *, mean: NDArray[np.float64], scale: NDArray[np.float64]
) -> NDArray[np.float32]:
    """Subtract the mean and divide by the scale, block by block, into a new array.

    Parameters
    ----------
    X : ndarray of shape (n, d), float
        Feature vectors.
    mean, scale : ndarray of shape (d,), float64
        Mean and scale of each column.

    Returns
    -------
    ndarray of shape (n, d), float32
        Standardised feature vectors.

    Examples
    --------
    >>> standardise(np.array([[1.0], [3.0]]), mean=np.array([2.0]), scale=np.array([1.0])).tolist()
    [[-1.0], [1.0]]
    """
    scaled = np.empty(X.shape, np.float32)
    for start in range(0, len(X), _BLOCK_ROWS):
        block = slice(start, start + _BLOCK_ROWS)
        scaled[block] = (X[block] - mean) / scale
    return scaled
