"""Rows as a base computes them: the vectors of its layers side by side, and then a map."""

from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainfeat.cache.schema import MAPS, name_array
from brainfeat.cache.spec import FeatureSpec
from brainfeat.errors import CacheError, ParameterError

_LARGEST = float(np.finfo(np.float16).max)


@dataclass(frozen=True)
class RowLayout:
    """What the columns of computed rows are.

    Parameters
    ----------
    spec : FeatureSpec
        What a cache of them states.
    map_shape : tuple of int
        Height and width of the map of the deepest layer; (0, 0) where it is not kept.

    Examples
    --------
    >>> spec = FeatureSpec(
    ...     backbone="vgg16", layer="block5_pool", n_features=512, weights_sha256="0" * 64,
    ...     layers="block3_pool:256,block5_pool:512", pooling="none",
    ... )
    >>> layout = RowLayout(spec, (7, 7))
    >>> layout.width, layout.stored_bytes
    (25856, 53248)
    """

    spec: FeatureSpec
    map_shape: tuple[int, int] = (0, 0)

    @property
    def n_values(self) -> int:
        """Number of values of the map of an image."""
        return prod(self.map_shape) * self.spec.n_features

    @property
    def width(self) -> int:
        """Number of columns."""
        return sum(self.spec.widths.values()) + self.n_values

    @property
    def stored_bytes(self) -> int:
        """Bytes of a row in a file: vectors are float32 and maps float16."""
        return 4 * self.width - 2 * self.n_values

    def split(self, rows: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
        """Split computed rows into the datasets of a cache.

        Parameters
        ----------
        rows : ndarray of shape (n, width), float32

        Returns
        -------
        dict of str to ndarray of shape (n, …)
            Views of the vectors, float32, and the maps in float16.

        Raises
        ------
        CacheError
            The values are not finite, or those of a map are too large for float16.
        """
        if not np.isfinite(rows).all():
            raise CacheError(
                "the backbone gave features that are not finite; "
                'use precision="float32", or other weights'
            )
        found: dict[str, NDArray[Any]] = {}
        start = 0
        for layer, width in self.spec.widths.items():
            found[name_array(self.spec, layer)] = rows[:, start : start + width]
            start += width
        if self.n_values:
            maps = rows[:, start:].reshape(-1, *self.map_shape, self.spec.n_features)
            if max(maps.max(initial=0.0), -maps.min(initial=0.0)) > _LARGEST:
                raise CacheError(
                    f"maps of layer {self.spec.layer} have values above {_LARGEST:,.0f}, which "
                    'float16 does not hold; take another layer, or pooling="mean"'
                )
            found[MAPS] = maps.astype(np.float16)
        return found


def choose_layout(spec: FeatureSpec, backbone: object) -> RowLayout:
    """Find how the rows that a backbone computes are laid out.

    Parameters
    ----------
    spec : FeatureSpec
        What it computes.
    backbone : FeatureExtractor
        Its attribute ``map_shape`` is needed for maps alone.

    Returns
    -------
    RowLayout

    Raises
    ------
    ParameterError
        The backbone computes maps and does not state their height and width.
    """
    if spec.pooling != "none":
        return RowLayout(spec)
    shape = getattr(backbone, "map_shape", None)
    if shape is None or not all(isinstance(length, int) and length > 0 for length in shape):
        raise ParameterError(
            f"a backbone of pooling 'none' with map_shape {shape!r}; expected the height and width "
            "of its maps as a tuple of two positive numbers"
        )
    height, width = shape
    return RowLayout(spec, (height, width))
