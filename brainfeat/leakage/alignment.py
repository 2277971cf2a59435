"""Alignment: how one image must be moved to lie on another, and how alike the two are then.

Both are drawn from their signatures, and both are moved, by half of the motion each, in opposite
directions. So neither is smoothed more than the other, and exchanging them changes nothing.
"""

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainfeat.cache.signature import SIDE

Floats = NDArray[np.float32]

# A motion: shift to the right and down, turn, growth, growth of the width over the height, shear.
# The unit of a shift is the side of the image; the others are parts of a matrix L, and the images
# are seen at x + (L x + shift) / 2 and x - (L x + shift) / 2. The limits allow turns of 20°, sides
# of 78 to 128 %, an aspect ratio that differs by a third, and a shear of 3°, as a turned image has
# that is brought to a square.
_LIMITS = np.array([0.25, 0.25, 0.35, 0.25, 0.15, 0.06], np.float32)
MOTION_SIZE = len(_LIMITS)
_LONGEST_STEP = 0.12
# Keeps the equations solvable where a picture does not tell all parts of a motion.
_DAMPING = 1e-3

# Levels of an alignment: highest frequency, pixels of a side, steps.
Levels = tuple[tuple[int, int, int], ...]
COARSE: Levels = ((12, 24, 4), (20, 32, 3))
FINE: Levels = ((28, 48, 3),)
# Aligned images are compared up to this frequency, which a copy keeps that is padded by 10 %.
_COMPARED, _COMPARED_SIDE = 32, 64
# Exponents of the frequency by which pictures are sharpened; 1 is that of signatures. The more,
# the less matter a frame and the brightness, and the more fine detail, in which slices differ.
_ALIGNED_POWER, _COMPARED_POWER = 1.5, 2.0
# Pictures are drawn with so many more pixels than are looked at, and interpolated linearly.
_OVERSAMPLING = 1.5
# What is as close to the border of an image, in sides, is left out: sharpened, it depends on what
# is beyond.
_BORDER = 0.045
# Frequencies of a lower weight are not drawn.
_FAINTEST = 1e-3


def align_images(
    first: NDArray[np.int8], second: NDArray[np.int8], motions: Floats, *, levels: Levels
) -> tuple[Floats, Floats]:
    """Improve the motions that lay the images of each pair on each other.

    Gauss-Newton steps lessen the difference of both pictures, which are standardised where they
    overlap; the slope is the mean of both (Malis, 2004: efficient second-order minimisation).

    Parameters
    ----------
    first, second : ndarray of shape (m, 44, 44), int8
        Signatures of the images of each pair.
    motions : ndarray of shape (m, 6), float32
        Where to start.
    levels : tuple
        :data:`COARSE`, or :data:`FINE` where the motions are nearly right.

    Returns
    -------
    motions : ndarray of shape (m, 6), float32
    agreement : ndarray of shape (m,), float32
        Correlation of the pictures of the last level before the last step.
    """
    for frequency, side, steps in levels:
        pixels = round(side * _OVERSAMPLING)
        gains = _weigh(_radii(), frequency, _ALIGNED_POWER)
        one, other = _draw(first, gains, pixels), _draw(second, gains, pixels)
        for _ in range(steps):
            left, left_seen = _view(one, motions, side)
            right, right_seen = _view(other, -motions, side)
            common = (left_seen & right_seen).astype(np.float32)
            left, right = _standardize(left, common), _standardize(right, common)
            step = np.clip(_solve(left, right, common, side), -_LONGEST_STEP, _LONGEST_STEP)
            motions = np.clip(motions + step, -_LIMITS, _LIMITS)
    return motions, _correlate(left, right)


def compare_aligned(first: NDArray[np.int8], second: NDArray[np.int8], motions: Floats) -> Floats:
    """Compute how alike images are once they lie on each other.

    Parameters
    ----------
    first, second : ndarray of shape (m, 44, 44), int8
    motions : ndarray of shape (m, 6), float32

    Returns
    -------
    ndarray of shape (m,), float32
        Correlation of the sharpened pictures where they overlap.
    """
    pixels = round(_COMPARED_SIDE * _OVERSAMPLING)
    views = []
    for squares, sign in ((first, 1), (second, -1)):
        # The frequencies of a picture are higher ones of the view in which it is smaller.
        zoom = (1 + sign * motions[:, 3, None, None] / 2).astype(np.float32)
        gains = _weigh(_radii() * zoom, _COMPARED, _COMPARED_POWER)
        views.append(_view(_draw(squares, gains, pixels), sign * motions, _COMPARED_SIDE))
    (one, one_seen), (other, other_seen) = views
    common = (one_seen & other_seen).astype(np.float32)
    return _correlate(_standardize(one, common), _standardize(other, common))


def _solve(left: Floats, right: Floats, common: Floats, side: int) -> Floats:
    """Solve for the change of the motion by which both views become equal, to first order."""
    mean = (left + right).reshape(-1, side, side)
    slopes = np.zeros((len(mean), MOTION_SIZE, side, side), np.float32)
    across, down, turned, grown, widened, sheared = slopes.swapaxes(0, 1)
    # Half the sum of both views changes by half of its slope, which spans two pixels.
    across[:, :, 1:-1] = (mean[:, :, 2:] - mean[:, :, :-2]) * (side / 4)
    down[:, 1:-1] = (mean[:, 2:] - mean[:, :-2]) * (side / 4)
    slopes[:, :2] *= common.reshape(-1, 1, side, side)
    x = _centres(side)
    y = x[:, None]
    right_x, right_y, down_x, down_y = across * x, across * y, down * x, down * y
    np.subtract(down_x, right_y, out=turned)
    np.add(right_x, down_y, out=grown)
    np.subtract(right_x, down_y, out=widened)
    np.add(down_x, right_y, out=sheared)
    rows = slopes.reshape(len(mean), MOTION_SIZE, side**2)
    products = rows @ rows.transpose(0, 2, 1)
    trace = np.einsum("ijj->i", products) / MOTION_SIZE
    # The least damping is for pictures that are blank where they overlap.
    damping = (_DAMPING * trace + np.finfo(np.float32).eps)[:, None, None]
    products += damping * np.eye(MOTION_SIZE, dtype=np.float32)
    step: Floats = np.linalg.solve(products, rows @ (right - left)[:, :, None])[:, :, 0]
    return step


def _view(pictures: Floats, motions: Floats, side: int) -> tuple[Floats, NDArray[np.bool_]]:
    """Sample moved pictures on a grid, (m, side²), and tell which pixels they show."""
    pixels = pictures.shape[1]
    x = _centres(side)
    right, down, turn, growth, width, shear = (motions.T[:, :, None] / 2).astype(np.float32)
    column = _lay_out((1 + growth + width) * x, (shear - turn) * x, right, pixels)
    row = _lay_out((shear + turn) * x, (1 + growth - width) * x, down, pixels)
    low, high = (np.float32(place * pixels - 0.5) for place in (_BORDER, 1 - _BORDER))
    seen = (column >= low) & (column <= high) & (row >= low) & (row <= high)
    return interpolate(pictures, column, row), seen


def _lay_out(along: Floats, downward: Floats, shift: Floats, pixels: int) -> Floats:
    """Add what the places along a grid and down it contribute, (m, side), in pixels: (m, side²)."""
    places = along[:, None, :] + downward[:, :, None]
    places += shift[:, :, None]
    places += 0.5
    places *= pixels
    places -= 0.5
    return places.reshape(len(along), -1)


def interpolate(pictures: Floats, column: Floats, row: Floats) -> Floats:
    """Sample square pictures (m, k, k) at places (m, n) in pixels, linearly; (m, n).

    Beyond the border, a picture has the values of its border.
    """
    pixels = pictures.shape[1]
    np.clip(column, 0, pixels - 1.001, out=column)
    np.clip(row, 0, pixels - 1.001, out=row)
    left, top = np.floor(column), np.floor(row)
    column -= left
    row -= top
    # Whole numbers, which float32 holds exactly.
    top *= pixels
    top += left
    place = top.astype(np.intp)
    place += (np.arange(len(pictures)) * pixels**2)[:, None]
    values = pictures.reshape(-1)
    upper = _take_between(values, place, column)
    lower = _take_between(values[pixels:], place, column)
    lower -= upper
    lower *= row
    upper += lower
    return upper


def _take_between(values: Floats, place: NDArray[np.intp], fraction: Floats) -> Floats:
    """Interpolate between values and the next ones."""
    taken: Floats = values.take(place)
    more = values[1:].take(place)
    more -= taken
    more *= fraction
    taken += more
    return taken


def _standardize(views: Floats, common: Floats) -> Floats:
    """Subtract the mean of the common pixels and scale to length 1; 0 elsewhere."""
    number = np.maximum(common.sum(axis=1, keepdims=True), 1).astype(np.float32)
    means = (views * common).sum(axis=1, keepdims=True) / number
    centred: Floats = (views - means) * common
    lengths = np.linalg.norm(centred, axis=1, keepdims=True)
    np.divide(centred, lengths, out=centred, where=lengths > 0)
    return centred


def _correlate(one: Floats, other: Floats) -> Floats:
    """Return the products of standardised views."""
    products: Floats = np.einsum("ij,ij->i", one, other)
    return products


def draw_pictures(
    signatures: NDArray[np.int8], *, frequency: int, power: float, side: int
) -> Floats:
    """Draw pictures of images from their signatures.

    Parameters
    ----------
    signatures : ndarray of shape (m, 44, 44), int8
    frequency : int
        Where the high frequencies fade out.
    power : float
        0 draws the image as it is but for its mean, 1 as sharpened as its signature.
    side : int
        Pixels of a side.

    Returns
    -------
    ndarray of shape (m, side, side), float32
        Their unit differs from image to image.
    """
    return _draw(signatures, _weigh(_radii(), frequency, power), side)


def _draw(squares: NDArray[np.int8], gains: Floats, side: int) -> Floats:
    """Compute the inverse cosine transform of weighed coefficients, (m, side, side)."""
    kept = int(np.flatnonzero(gains.reshape(-1, SIDE, SIDE).any(axis=(0, 1))).max()) + 1
    cosines = _cosines(side)[:kept]
    weighed = squares[:, :kept, :kept] * gains[..., :kept, :kept]
    pictures: Floats = np.matmul(cosines.T, np.matmul(weighed, cosines))
    return pictures


def _weigh(radii: Floats, frequency: int, power: float) -> Floats:
    """Weigh frequencies, in place of the weights that signatures have."""
    gains = ((1 + radii) ** power / (1 + _radii())).astype(np.float32)
    gains *= np.exp(-((radii / frequency) ** 4))
    gains[..., 0, 0] = 0
    gains[gains < _FAINTEST] = 0
    return gains


@cache
def _radii() -> Floats:
    """Return the distance of each frequency from 0, (44, 44)."""
    frequencies = np.arange(SIDE, dtype=np.float32)
    return np.hypot(frequencies[:, None], frequencies)


@cache
def _cosines(side: int) -> Floats:
    """Return the orthogonal cosines of the DCT-II but for one factor, (44, side)."""
    angles = np.pi * np.outer(np.arange(SIDE), 2 * np.arange(side) + 1) / (2 * side)
    cosines: NDArray[Any] = np.cos(angles)
    cosines[0] /= np.sqrt(2)
    return cosines.astype(np.float32)


@cache
def _centres(side: int) -> Floats:
    """Return the places of the pixels along a side, from −½ to ½."""
    half = np.float32(0.5)
    return (np.arange(side, dtype=np.float32) + half) / np.float32(side) - half
