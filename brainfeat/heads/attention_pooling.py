"""Gated attention in NumPy: the weights of the vectors of a bag, and their weighted mean."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from brainfeat.heads.bags import Bags
from brainfeat.heads.network import Layer

# Vectors of one step, at least one bag: memory does not grow with their number.
_BLOCK_ROWS = 8192

Floats = NDArray[np.float64]


def weigh_vectors(
    bags: Bags, gates: Layer, *, mean: Floats, scale: Floats
) -> Iterator[tuple[Floats, Floats]]:
    """Compute the weight of each vector, and the weighted mean of each bag, some bags at a time.

    The weights are the softmax over the vectors h of a bag of wᵀ (tanh(V h) ⊙ σ(U h)) (Ilse,
    Tomczak & Welling 2018, equation 9).

    Parameters
    ----------
    bags : Bags
    gates : tuple of ndarray, shapes (d, p), (d, p) and (p,)
        V and U, transposed, and w.
    mean, scale : ndarray of shape (d,), float64
        Standardise the vectors.

    Yields
    ------
    ndarray of shape (m,), float64
        Weights of the vectors of the next bags; those of a bag sum to 1.
    ndarray of shape (b, d), float64
        Weighted mean of the standardised vectors of each of these bags.

    Examples
    --------
    >>> bags = Bags.collect([[[1.0], [3.0]]])
    >>> gates = (np.zeros((1, 2)), np.zeros((1, 2)), np.zeros(2))
    >>> for weights, means in weigh_vectors(bags, gates, mean=np.zeros(1), scale=np.ones(1)):
    ...     print(weights, means)
    [0.5 0.5] [[2.]]
    """
    v, u, w = gates
    for some in bags.blocks(_BLOCK_ROWS):
        vectors, starts = (some.values - mean) / scale, some.offsets[:-1]
        scores = (np.tanh(vectors @ v) * expit(vectors @ u)) @ w
        scores -= np.repeat(np.maximum.reduceat(scores, starts), some.sizes)
        weights = np.exp(scores)
        weights /= np.repeat(np.add.reduceat(weights, starts), some.sizes)
        vectors *= weights[:, None]
        yield weights, np.add.reduceat(vectors, starts, axis=0)


def measure_spread(bags: Bags) -> tuple[Floats, Floats]:
    """Measure mean and standard deviation of each feature, in which each bag counts the same.

    Parameters
    ----------
    bags : Bags

    Returns
    -------
    tuple of (ndarray of shape (d,), ndarray of shape (d,)), float64
        The scale of a constant feature is 1.

    Examples
    --------
    >>> mean, scale = measure_spread(Bags.collect([[[0.0], [0.0], [0.0]], [[4.0]]]))
    >>> mean.tolist(), scale.tolist()
    ([2.0], [2.0])
    """
    mean = np.zeros(bags.values.shape[1])
    square = mean.copy()
    for some in bags.blocks(_BLOCK_ROWS):
        mean += some.average(some.values.astype(np.float64)).sum(axis=0)
    mean /= len(bags)
    for some in bags.blocks(_BLOCK_ROWS):
        square += some.average((some.values - mean) ** 2).sum(axis=0)
    scale = np.sqrt(square / len(bags))
    # The mean of a constant feature is not exact.
    constant = scale <= 10 * np.finfo(np.float64).eps * np.abs(mean)
    return mean, np.where(constant, 1.0, scale)
