"""What a head takes of the rows of a cache: their vectors, or their maps."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from brainfeat.cache.spec import FeatureSpec
from brainfeat.heads.kinds import takes_maps
from brainfeat.heads.maps import MapRows

if TYPE_CHECKING:
    from brainfeat.cache.cache import FeatureCache
    from brainfeat.heads.bundle import HeadBundle


def find_spec(head: str, cache: "FeatureCache") -> FeatureSpec:
    """Return the spec of what a head takes of a cache.

    Parameters
    ----------
    head : str
        Name of the head.
    cache : FeatureCache

    Returns
    -------
    FeatureSpec
        That of its maps for a head of maps, else that of its vectors.

    Raises
    ------
    CacheError
        The head takes maps, and the cache has none.
    """
    if not takes_maps(head):
        return cache.spec
    _ = cache.maps  # says what to extract where there are none
    return cache.stored_spec.select(maps=True)


def read_features(
    bundle: "HeadBundle", cache: "FeatureCache", rows: NDArray[np.intp]
) -> NDArray[np.float32] | MapRows:
    """Read what a head of images takes of some rows; maps stay in the file.

    Parameters
    ----------
    bundle : HeadBundle
    cache : FeatureCache
        Open, and of the spec of the head.
    rows : ndarray of int

    Returns
    -------
    ndarray of shape (n, d), float32, or MapRows
    """
    if takes_maps(bundle.head):
        return MapRows(source=cache.maps, rows=rows)
    return cache.X[rows]
