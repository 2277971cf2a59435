"""Signature: what an image looks like in 1,936 bytes that recognise its copies, whatever the base.

The numbers are low-frequency cosine coefficients of the grey image. Mirroring an image changes the
signs of some of them and turning it by 90° also transposes them, so a copy is found in any of the
eight orientations without another look at the image. The steps are in
docs/reference/cache-format.md, bit for bit.
"""

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainfeat.errors import ParameterError

# A change of any constant below is another signature: it takes a new version.
SIGNATURE_VERSION = 1
# Coefficients in each direction; 44² bytes stay below 2 KB.
SIDE = 44
SIGNATURE_SIZE = SIDE * SIDE
# Rows and columns of the grid that the image is brought to.
_GRID = 128
# Fixed-point scales: small enough that all sums are exact in float64, in whatever order.
_ROOT_SCALE = 4095
_COSINE_SCALE = 2048
_LARGEST = 127
# An image is blank where the standard deviation of its square roots is at most one fiftieth of
# their range.
_BLANK_FRACTION = 50

# The orientations of a copy, by the names that Pillow has for them; the place of each is a number
# of three bits: 1 mirrors columns, 2 mirrors rows, 4 then transposes.
ORIENTATIONS = (
    "upright",
    "flip_left_right",
    "flip_top_bottom",
    "rotate_180",
    "transpose",
    "rotate_90",
    "rotate_270",
    "transverse",
)


def compute_signature(pixels: NDArray[np.uint8]) -> NDArray[np.int8]:
    """Compute the signature of an image.

    Parameters
    ----------
    pixels : ndarray of shape (height, width, 3) or (height, width), uint8
        RGB or grey.

    Returns
    -------
    ndarray of shape (1936,), int8
        Coefficients of 44 vertical by 44 horizontal frequencies, row by row; the largest is ±127.
        All are 0 where the image is blank or nearly so: such an image is a copy of nothing.

    Raises
    ------
    ParameterError
        The pixels have another shape or dtype.

    Examples
    --------
    >>> ramp = np.arange(256, dtype=np.uint8).repeat(128).reshape(256, 128)
    >>> signature = compute_signature(ramp)
    >>> signature.shape, int(np.abs(signature).max())
    ((1936,), 127)
    >>> bool(compute_signature(np.zeros((64, 64), np.uint8)).any())
    False
    """
    from PIL import Image

    right = pixels.dtype == np.uint8 and pixels.size and pixels.shape[2:] in ((), (3,))
    if not right or pixels.ndim < 2:
        raise ParameterError(
            f"pixels of shape {pixels.shape} and dtype {pixels.dtype}; expected (height, width, 3) "
            "or (height, width) of uint8"
        )
    if pixels.ndim == 3 and pixels.strides[2] == 0:  # three times one array, which is grey
        pixels = pixels[..., 0]
    grey = Image.fromarray(pixels).convert("L")
    # One side after the other: Pillow itself has changed which comes first.
    width, height = grey.size
    between = (width, _GRID) if height > width else (_GRID, height)
    for size in (between, (_GRID, _GRID)):
        grey = grey.resize(size, Image.Resampling.BILINEAR)
    roots = _square_roots().take(np.asarray(grey))
    if _is_blank(roots):
        return np.zeros(SIGNATURE_SIZE, np.int8)
    coefficients = _transform(_transform(roots).T).T * _weights()
    scaled = coefficients * (_LARGEST / np.abs(coefficients).max())
    signature: NDArray[np.int8] = np.rint(scaled).astype(np.int8).reshape(-1)
    return signature


def orient_signatures(signatures: NDArray[np.generic], orientation: int) -> NDArray[np.generic]:
    """Turn or mirror images, by their signatures alone.

    Parameters
    ----------
    signatures : ndarray of shape (..., 1936)
        Any dtype with a sign.
    orientation : int
        Index into :data:`ORIENTATIONS`.

    Returns
    -------
    ndarray of shape (..., 1936)
        The signatures of the turned images, to within two units of rounding.

    Examples
    --------
    >>> pixels = np.random.default_rng(0).integers(0, 256, (96, 64), np.uint8)
    >>> turned = orient_signatures(compute_signature(pixels), 1)
    >>> bool((turned == compute_signature(pixels[:, ::-1])).all())
    True
    """
    square = signatures.reshape(*signatures.shape[:-1], SIDE, SIDE)
    return np.ascontiguousarray(orient_squares(square, orientation)).reshape(signatures.shape)


def orient_squares(squares: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Turn or mirror images by their coefficients, of as many frequencies as there are.

    Parameters
    ----------
    squares : ndarray of shape (..., k, k)
        Coefficients of vertical by horizontal frequencies.
    orientation : int
        Index into :data:`ORIENTATIONS`.

    Returns
    -------
    ndarray of shape (..., k, k)
    """
    signs = np.where(np.arange(squares.shape[-1]) % 2, -1, 1).astype(squares.dtype)
    if orientation & 1:
        squares = squares * signs
    if orientation & 2:
        squares = squares * signs[:, None]
    return squares.swapaxes(-1, -2) if orientation & 4 else squares


def invert_orientation(orientation: int) -> int:
    """Return the orientation that undoes another: a quarter turn is undone by the other one.

    Examples
    --------
    >>> ORIENTATIONS[invert_orientation(ORIENTATIONS.index("rotate_90"))]
    'rotate_270'
    """
    return {5: 6, 6: 5}.get(orientation, orientation)


def _is_blank(roots: NDArray[np.float64]) -> bool:
    """Compare the variance of whole numbers with a bound, in whole numbers."""
    total, squares = int(roots.sum()), int((roots * roots).sum())
    variance = roots.size * squares - total**2
    return _BLANK_FRACTION**2 * variance <= (_ROOT_SCALE * roots.size) ** 2


def _transform(columns: NDArray[np.float64]) -> NDArray[np.float64]:
    """Multiply columns by the cosines, (128, n) to (44, n).

    The cosines are even or odd about the middle of the grid, so half of each product suffices. The
    halves are so small that BLAS computes them in the caller's thread: images are decoded in as
    many threads as there are cores.
    """
    half = _GRID // 2
    first, mirrored = columns[:half], columns[: half - 1 : -1]
    products = np.empty((SIDE, columns.shape[1]))
    products[0::2] = _cosines()[0::2, :half] @ (first + mirrored)
    products[1::2] = _cosines()[1::2, :half] @ (first - mirrored)
    return products


@cache
def _square_roots() -> NDArray[np.float64]:
    """Return whole numbers in proportion to the square root of each of the 256 grey values."""
    roots: NDArray[np.float64] = np.rint(_ROOT_SCALE * np.sqrt(np.arange(256) / 255))
    return roots


@cache
def _cosines() -> NDArray[np.float64]:
    """Return the cosines of the DCT-II, rounded to whole numbers, (44, 128)."""
    angles = np.pi * np.outer(np.arange(SIDE), 2 * np.arange(_GRID) + 1) / (2 * _GRID)
    cosines: NDArray[np.float64] = np.rint(_COSINE_SCALE * np.cos(angles))
    return cosines


@cache
def _weights() -> NDArray[np.float64]:
    """Return the weight of each frequency, (44, 44): 1 plus its distance from 0; 0 for the mean.

    Neighbouring slices of one head differ in fine detail, which is faint; the weights bring it to
    bear.
    """
    frequencies = np.arange(SIDE)
    weights: NDArray[np.float64] = 1 + np.sqrt(frequencies[:, None] ** 2 + frequencies**2)
    weights[0] /= np.sqrt(2)
    weights[:, 0] /= np.sqrt(2)
    weights[0, 0] = 0
    return weights
