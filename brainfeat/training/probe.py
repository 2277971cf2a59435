"""The probe of a head: vectors of no image, whose probabilities its file keeps to compare."""

import numpy as np
from numpy.typing import NDArray

from brainfeat.heads.bags import AnyFeatures, BagRule, Bags, Features
from brainfeat.heads.blocks import BlockVectors, Fill
from brainfeat.heads.maps import MapRows

_PROBES = 16
# Maps are some hundred times as large.
_PROBE_MAPS = 4
# Largest number of vectors in a probe that is a bag.
_BAG_SIZE = 5
# Rows that determine the mean and spread of the probe vectors: more would not change their purpose.
_PROBED_ROWS = 10_000


def draw_probe(X: AnyFeatures, bag: BagRule | None, random_state: int) -> Features:
    """Draw vectors like the features but of no image: mean plus seeded noise of the same spread.

    Parameters
    ----------
    X : ndarray of shape (n, d), float32, Bags, MapRows, or BlockVectors
        Features of the fit.
    bag : BagRule or None
        That of a bag head; its probe are bags of one to five vectors.
    random_state : int
        Seed.

    Returns
    -------
    ndarray of shape (16, d), float32, Bags, or MapRows
        Four maps for maps. Where there are blocks, each is missing in some vectors.
    """
    if isinstance(X, BlockVectors):
        return _draw_blocks(X, random_state)
    if isinstance(X, MapRows):
        return _draw_maps(X, random_state)
    if isinstance(X, Bags):
        X = X.values
    rng = np.random.default_rng([random_state, _PROBES])
    if bag is None:
        return _draw(X, _PROBES, rng)
    sizes = 1 + np.arange(_PROBES) % _BAG_SIZE
    return Bags(values=_draw(X, sizes.sum(), rng), offsets=np.cumsum([0, *sizes]))


def _draw(X: NDArray[np.float32], n: int, rng: np.random.Generator) -> NDArray[np.float32]:
    noise = rng.standard_normal((n, X.shape[1]))
    seen = X[:: -(-len(X) // _PROBED_ROWS)]
    drawn: NDArray[np.float32] = (seen.mean(axis=0) + seen.std(axis=0) * noise).astype(np.float32)
    return drawn


def _draw_maps(X: MapRows, random_state: int) -> MapRows:
    rng = np.random.default_rng([random_state, _PROBES])
    seen = X[:: -(-len(X) // _PROBES)].read().astype(np.float64)
    noise = rng.standard_normal((_PROBE_MAPS, *seen.shape[1:]))
    return MapRows.collect(seen.mean(axis=(0, 1, 2)) + seen.std(axis=(0, 1, 2)) * noise)


def _draw_blocks(X: BlockVectors, random_state: int) -> NDArray[np.float32]:
    d, b = X.values.shape[1], len(X.widths)
    rng = np.random.default_rng([random_state, _PROBES])
    probe = _draw(Fill.fit(X).apply(X)[:, :d], _PROBES, rng)
    missing = np.arange(_PROBES)[:, None] % (b + 1) == np.arange(b)
    probe[np.repeat(missing, X.widths, axis=1)] = np.nan
    return probe
