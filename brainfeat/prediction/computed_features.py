"""What a head takes of the rows that its base computes: the vectors, or the maps behind them."""

import numpy as np
from numpy.typing import NDArray

from brainfeat.cache.schema import MAPS
from brainfeat.cache.spec import FeatureSpec
from brainfeat.extraction.computed_rows import choose_layout
from brainfeat.extraction.feature_extractors import FeatureExtractor
from brainfeat.heads.maps import MapRows


def count_columns(spec: FeatureSpec, backbone: FeatureExtractor) -> int:
    """Count the columns of the rows that the base of a head computes.

    Parameters
    ----------
    spec : FeatureSpec
        Of the head.
    backbone : FeatureExtractor

    Returns
    -------
    int

    Raises
    ------
    ParameterError
        As in :func:`brainfeat.extraction.computed_rows.choose_layout`.
    """
    return choose_layout(spec, backbone).width


def take_features(
    spec: FeatureSpec, backbone: FeatureExtractor, rows: NDArray[np.float32]
) -> NDArray[np.float32] | MapRows:
    """Take the features of a head out of the rows that its base computed.

    Parameters
    ----------
    spec : FeatureSpec
        Of the head.
    backbone : FeatureExtractor
    rows : ndarray of shape (n, width), float32

    Returns
    -------
    ndarray of shape (n, d), float32, or MapRows
        The rows themselves; for a head of maps, these in float16, as in a cache.

    Raises
    ------
    CacheError
        As in :meth:`brainfeat.extraction.computed_rows.RowLayout.split`.
    ParameterError
        As in :func:`brainfeat.extraction.computed_rows.choose_layout`.
    """
    if spec.pooling != "none":
        return rows
    return MapRows.collect(choose_layout(spec, backbone).split(rows)[MAPS])
