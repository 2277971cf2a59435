"""Attention over the maps of images in NumPy: what it weighs, and the pooled vectors.

Each kind is a pair of functions of standardised maps x, (n, h, w, d) float64, and of the arrays
that it has learned. All of them are followed by the mean over the positions of the map.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from brainfeat.heads.attention_pooling import weigh_vectors
from brainfeat.heads.bags import Bags
from brainfeat.heads.maps import MapRows
from brainfeat.heads.network import Layer

Floats = NDArray[np.float64]


class Weighed(NamedTuple):
    """Maps after attention.

    Attributes
    ----------
    pooled : ndarray of shape (n, d), float64
        Their mean over the positions.
    positions : ndarray of shape (n, h, w), float64, or None
        The weight of each position; None where only channels are weighed.
    """

    pooled: Floats
    positions: Floats | None


def gate_channels(x: Floats, gates: Layer) -> Weighed:
    """Squeeze and excite: weigh each channel of a map (Hu, Shen & Sun 2018, equations 2 to 4).

    z is the mean of each channel over the positions, and its weight is s = σ(W₂ δ(W₁ z)), where δ
    is a ReLU (https://arxiv.org/abs/1709.01507). The mean of the weighed map is s ⊙ z.

    Parameters
    ----------
    x : ndarray of shape (n, h, w, d), float64
        Standardised maps.
    gates : tuple of ndarray, shapes (d, p) and (p, d)
        W₁ and W₂, transposed.

    Returns
    -------
    Weighed
    """
    squeeze, excite = gates
    z = x.mean(axis=(1, 2))
    return Weighed(z * expit(np.maximum(z @ squeeze, 0.0) @ excite), None)


def gate_channels_and_positions(x: Floats, gates: Layer) -> Weighed:
    """Weigh channels, and then positions (CBAM: Woo et al. 2018, equations 1 to 3).

    The weights of the channels are M_c = σ(MLP(mean over positions) + MLP(maximum)), with one MLP
    for both; those of the positions are M_s = σ(f([mean over channels; maximum])), where f is a
    convolution of 7 × 7 (https://arxiv.org/abs/1807.06521).

    Parameters
    ----------
    x : ndarray of shape (n, h, w, d), float64
        Standardised maps.
    gates : tuple of ndarray, shapes (d, p), (p, d), (7, 7, 2) and (1,)
        The two layers of the MLP, transposed; filters and bias of f.

    Returns
    -------
    Weighed
    """
    squeeze, excite, filters, bias = gates
    perceived = (
        np.maximum(pooled @ squeeze, 0.0) @ excite
        for pooled in (x.mean(axis=(1, 2)), x.max(axis=(1, 2)))
    )
    gated = x * expit(sum(perceived))[:, None, None, :]
    described = np.stack([gated.mean(axis=3), gated.max(axis=3)], axis=-1)
    weights = expit(_convolve(described, filters) + bias)
    n, h, w, d = x.shape
    pooled = weights.reshape(n, 1, h * w) @ gated.reshape(n, h * w, d)
    return Weighed(pooled[:, 0] / (h * w), weights)


def _convolve(x: Floats, filters: NDArray[np.float32]) -> Floats:
    """Convolve (n, h, w, c) with (k, k, c), with zeros around, as networks do: not mirrored."""
    side = len(filters) // 2
    padded = np.pad(x, ((0, 0), (side, side), (side, side), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, filters.shape[:2], axis=(1, 2))
    return np.asarray(np.einsum("nhwcij,ijc->nhw", windows, filters, optimize=True))


def weigh_positions(x: Floats, gates: Layer) -> Weighed:
    """Weigh positions by gated attention (Ilse, Tomczak & Welling 2018, equation 9).

    Parameters
    ----------
    x : ndarray of shape (n, h, w, d), float64
        Standardised maps.
    gates : tuple of ndarray, shapes (d, p), (d, p) and (p,)
        V and U, transposed, and w.

    Returns
    -------
    Weighed
        The weights of the positions of a map sum to 1; the pooled vector is the weighted mean.
    """
    n, h, w, d = x.shape
    bags = Bags(values=np.asarray(x.reshape(-1, d)), offsets=np.arange(n + 1) * (h * w))
    found = list(weigh_vectors(bags, gates, mean=np.zeros(d), scale=np.ones(d)))
    weights = np.concatenate([weights for weights, _ in found])
    return Weighed(np.concatenate([means for _, means in found]), weights.reshape(n, h, w))


_KINDS: Mapping[str, Callable[[Floats, Layer], Weighed]] = {
    "attention-pool": weigh_positions,
    "se": gate_channels,
    "cbam": gate_channels_and_positions,
}


def weigh_maps(
    kind: str, maps: MapRows, gates: Layer, *, mean: Floats, scale: Floats
) -> Iterator[Weighed]:
    """Standardise maps and weigh them, some at a time.

    Parameters
    ----------
    kind : str
        ``"attention-pool"``, ``"se"`` or ``"cbam"``.
    maps : MapRows
    gates : tuple of ndarray
        Of this kind.
    mean, scale : ndarray of shape (d,), float64
        Standardise each channel.

    Yields
    ------
    Weighed
        Of the next maps.
    """
    for x in maps.blocks():
        yield _KINDS[kind]((x - mean) / scale, gates)
