"""Winograd's minimal filtering for tiles of 4 by 4: Lavin and Gray 2016, arXiv:1509.09308."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Shape = tuple[int, ...]

TILE = 4
WINDOW = TILE + 2
INPUT_TRANSFORM = (
    (4, 0, -5, 0, 1, 0),
    (0, -4, -4, 1, 1, 0),
    (0, 4, -4, -1, 1, 0),
    (0, -2, -1, 2, 1, 0),
    (0, 2, -1, -2, 1, 0),
    (0, 4, 0, -5, 0, 1),
)
OUTPUT_TRANSFORM = (
    (1, 1, 1, 1, 1, 0),
    (0, 1, -1, 2, -2, 0),
    (0, 1, 1, 4, 4, 0),
    (0, 1, -1, 8, -8, 1),
)
# Below this number of operations per image, the transforms take as long as they save.
LEAST_FLOP = 5e8

_KERNEL_TRANSFORM = (
    (1 / 4, 0, 0),
    (-1 / 6, -1 / 6, -1 / 6),
    (-1 / 6, 1 / 6, -1 / 6),
    (1 / 24, 1 / 12, 1 / 6),
    (1 / 24, -1 / 12, 1 / 6),
    (0, 0, 1),
)


def transform_kernel(kernel: NDArray[np.float32]) -> NDArray[np.float32]:
    """Transform a kernel, once.

    Parameters
    ----------
    kernel : ndarray of shape (3, 3, c, k), float32

    Returns
    -------
    ndarray of shape (36, c, k), float32
        One matrix for each position in a transformed tile, column by column.
    """
    matrix = np.array(_KERNEL_TRANSFORM)
    tiles = np.einsum("ai,bj,ijck->back", matrix, matrix, kernel.astype(np.float64))
    transformed: NDArray[np.float32] = tiles.reshape(-1, *kernel.shape[2:]).astype(np.float32)
    return transformed


def is_worthwhile(
    kernel: Shape, *, strides: Sequence[int], padding: str, length: int, fewest: tuple[int, int]
) -> bool:
    """Return whether Winograd's method computes a convolution, and saves time.

    Parameters
    ----------
    kernel : tuple of int
        Shape (h, w, c, k).
    strides : sequence of int
        Down and across.
    padding : {"same", "valid"}
        As in Keras.
    length : int
        Height and width of the maps.
    fewest : tuple of int
        Fewest channels on the narrower and on the wider side, below which the transforms take as
        long as they save.

    Examples
    --------
    >>> options = {"strides": (1, 1), "padding": "same", "length": 28, "fewest": (128, 128)}
    >>> is_worthwhile((3, 3, 512, 512), **options), is_worthwhile((1, 1, 512, 512), **options)
    (True, False)
    """
    narrower, wider = sorted(kernel[2:])
    return (
        (*kernel[:2], *strides, padding) == (3, 3, 1, 1, "same")
        and narrower >= fewest[0]
        and wider >= fewest[1]
        and 2 * math.prod(kernel) * length**2 >= LEAST_FLOP
    )


def count_tiles(length: int) -> int:
    """Count the tiles that cover a length.

    Examples
    --------
    >>> count_tiles(56), count_tiles(57)
    (14, 15)
    """
    return -(-length // TILE)
