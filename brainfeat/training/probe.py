"""The probe of a head: vectors of no image, whose probabilities its file keeps to compare."""

import numpy as np
from numpy.typing import NDArray

from brainfeat.heads.bags import BagRule, Bags, Features

_PROBES = 16
# Largest number of vectors in a probe that is a bag.
_BAG_SIZE = 5
# Rows that determine the mean and spread of the probe vectors: more would not change their purpose.
_PROBED_ROWS = 10_000


def draw_probe(X: Features, bag: BagRule | None, random_state: int) -> Features:
    """Draw vectors like the features but of no image: mean plus seeded noise of the same spread.

    Parameters
    ----------
    X : ndarray of shape (n, d), float32, or Bags
        Features of the fit.
    bag : BagRule or None
        That of a bag head; its probe are bags of one to five vectors.
    random_state : int
        Seed.

    Returns
    -------
    ndarray of shape (16, d), float32, or Bags
    """
    values = X.values if isinstance(X, Bags) else X
    rng = np.random.default_rng([random_state, _PROBES])
    sizes = np.ones(_PROBES, np.intp) if bag is None else 1 + np.arange(_PROBES) % _BAG_SIZE
    noise = rng.standard_normal((sizes.sum(), values.shape[1]))
    seen = values[:: -(-len(values) // _PROBED_ROWS)]
    probe: NDArray[np.float32] = (seen.mean(axis=0) + seen.std(axis=0) * noise).astype(np.float32)
    return probe if bag is None else Bags(values=probe, offsets=np.cumsum([0, *sizes]))
