"""Altered copies: images that were rotated by some degrees, cropped or padded, in any orientation.

Two images may be copies where their pictures look alike once each is brought to the centre and the
size of what it shows. Such pairs are aligned, and compared in detail: slices of one head that lie
side by side look alike, too, but not in detail.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from brainfeat.cache.signature import ORIENTATIONS, SIDE, SIGNATURE_SIZE, orient_squares
from brainfeat.errors import ParameterError
from brainfeat.leakage.alignment import (
    COARSE,
    FINE,
    MOTION_SIZE,
    Floats,
    align_images,
    compare_aligned,
    draw_pictures,
    interpolate,
)
from brainfeat.leakage.copies import COPY_THRESHOLD, Copies
from brainfeat.leakage.neighbours import list_true

# The correlation of two aligned images from which on they are copies. Measured by
# examples/copy_threshold.py on 7,019 public slices: neighbouring slices of a head reach 0.972,
# slices of different classes 0.88, and no pair is between 0.979 and 0.982.
ALTERED_THRESHOLD = 0.98
# Groups of copies up to which altered copies are looked for: some 10 s on two cores.
ALTERED_SEARCH_LIMIT = 10_000

# What an image shows is looked at in a box around it, this many standard deviations to each side,
# rotated by these angles; an angle on one image and its opposite on the other add up.
_BOX = 1.2
_ANGLES = np.deg2rad([-3.5, 0.0, 3.5])
_PICTURE_SIDE, _BOX_SIDE, _FREQUENCIES = 48, 24, 8
# Pairs that look less alike are not aligned at all, and those that agree less not finely.
_LOOK_THRESHOLD = 0.82
_COARSE_THRESHOLD = 0.90
_BLOCK_ROWS = 512
_BLOCK_COLUMNS = 4096
# Pairs that are aligned at once: their pictures fit into a processor's cache.
_PAIRS_AT_ONCE = 32


class _Looks(NamedTuple):
    """What is looked at of each image.

    Attributes
    ----------
    directions : ndarray of shape (3, n, 8, 8), float32
        Low frequencies of the box at each angle, scaled to length 1.
    centres, sizes : ndarray of shape (n, 2), float32
        Mean and standard deviation of the places of what is bright, to the right and down, in
        sides of the image from its centre.
    """

    directions: Floats
    centres: Floats
    sizes: Floats


class _Pairs(NamedTuple):
    """Pairs that look alike.

    Attributes
    ----------
    first, second : ndarray of shape (p,), int
        Rows, first < second.
    orientation : ndarray of shape (p,), int8
        How the second image is to be turned.
    angle : ndarray of shape (p,), float32
        By how much the first one is rotated against the second one then, in radians.
    """

    first: NDArray[np.intp]
    second: NDArray[np.intp]
    orientation: NDArray[np.int8]
    angle: Floats

    def take(self, chosen: NDArray[np.bool_] | NDArray[np.intp]) -> "_Pairs":
        """Choose some of the pairs."""
        return _Pairs(
            self.first[chosen], self.second[chosen], self.orientation[chosen], self.angle[chosen]
        )


def find_altered_copies(
    signatures: NDArray[np.int8],
    *,
    threshold: float = ALTERED_THRESHOLD,
    n_queries: int | None = None,
) -> Iterator[Copies]:
    """Yield pairs of images that are copies once one is moved, in one of eight orientations.

    Found are most images that were rotated by at most 12°, cropped by at most 8 % a side or padded
    by at most 12 %, and many where several of these were done. Pairs that
    :func:`brainfeat.leakage.copies.find_copies` finds by default are left out. The time grows with
    the number of pairs that look alike: 7,019 public slices take some 10 s, and slices that all
    look alike take longer.

    Parameters
    ----------
    signatures : ndarray of shape (n, 1936), int8
        As :func:`brainfeat.cache.signature.compute_signature` returns them. A signature of zeros,
        that of a blank image, is a copy of nothing.
    threshold : float
        Least correlation of two aligned images, above 0 and at most 1.
    n_queries : int or None
        Only pairs with one of the first images are looked for; None looks for all.

    Yields
    ------
    Copies
        In blocks; each pair once, in the orientation in which it lies best. The similarity is the
        correlation of the aligned images.

    Raises
    ------
    ParameterError
        The threshold is out of range, or the signatures have another shape or dtype.

    Examples
    --------
    >>> from brainfeat.cache.signature import compute_signature
    >>> from brainfeat.phantoms import draw_slice
    >>> slice_ = draw_slice("glioma", patient=0, level=4)
    >>> cropped = slice_[10:-10, -10:10:-1]
    >>> signatures = np.stack([compute_signature(slice_), compute_signature(cropped)])
    >>> [found] = find_altered_copies(signatures)
    >>> found.first.tolist(), found.second.tolist(), ORIENTATIONS[found.orientation[0]]
    ([0], [1], 'flip_left_right')
    """
    if not 0 < threshold <= 1:
        raise ParameterError(f"threshold {threshold}; expected above 0 and at most 1")
    if signatures.ndim != 2 or signatures.shape[1] != SIGNATURE_SIZE or signatures.dtype != np.int8:
        raise ParameterError(
            f"signatures of shape {signatures.shape} and dtype {signatures.dtype}; expected "
            f"(n, {SIGNATURE_SIZE}) of int8"
        )
    squares = signatures.reshape(-1, SIDE, SIDE)
    looks = _look(squares)
    end = len(squares) if n_queries is None else min(n_queries, len(squares))
    for low in range(0, end, _BLOCK_ROWS):
        for start in range(low, len(squares), _BLOCK_COLUMNS):
            pairs = _find_candidates(looks.directions, low=low, start=start)
            pairs = pairs.take(pairs.first < end)
            yield from _confirm(squares, looks, pairs, threshold=threshold)


def _look(squares: NDArray[np.int8]) -> _Looks:
    """Find what images show, and describe it."""
    count = len(squares)
    looks = _Looks(
        np.zeros((len(_ANGLES), count, _FREQUENCIES, _FREQUENCIES), np.float32),
        np.zeros((count, 2), np.float32),
        np.ones((count, 2), np.float32),
    )
    shown = np.flatnonzero(squares.any(axis=(1, 2)))
    for start in range(0, len(shown), _BLOCK_ROWS):
        some = shown[start : start + _BLOCK_ROWS]
        pictures = draw_pictures(squares[some], frequency=20, power=0, side=_PICTURE_SIDE)
        centres, sizes = _measure(pictures)
        looks.centres[some], looks.sizes[some] = centres, sizes
        for place, angle in enumerate(_ANGLES):
            looks.directions[place, some] = _describe(pictures, centres, sizes, angle=angle)
    return looks


def _measure(pictures: Floats) -> tuple[Floats, Floats]:
    """Return the mean and the standard deviation of the places of what is bright."""
    darkest = np.quantile(pictures, 0.02, axis=(1, 2), keepdims=True)
    # Pictures show square roots: this is the square of the brightness, so that noise is dark.
    bright = np.maximum(pictures - darkest, 0) ** 4
    places = (np.arange(_PICTURE_SIDE) + 0.5) / _PICTURE_SIDE - 0.5
    sums = np.stack([bright.sum(axis=1), bright.sum(axis=2)], 1)
    # Where only frequencies are bright that are not drawn, the picture is of one colour.
    sums /= np.maximum(sums.sum(axis=2, keepdims=True), np.finfo(np.float32).tiny)
    centres = sums @ places
    sizes = np.sqrt(sums @ places**2 - centres**2)
    return centres.astype(np.float32), sizes.astype(np.float32)


def _describe(pictures: Floats, centres: Floats, sizes: Floats, *, angle: float) -> Floats:
    """Return the low frequencies of the rotated box around what is shown, scaled to length 1."""
    offsets = 2 * _BOX * ((np.arange(_BOX_SIDE) + 0.5) / _BOX_SIDE - 0.5)
    x, y = np.tile(offsets, _BOX_SIDE), np.repeat(offsets, _BOX_SIDE)
    x, y = np.cos(angle) * x - np.sin(angle) * y, np.sin(angle) * x + np.cos(angle) * y
    column, row = (
        ((centres[:, [axis]] + sizes[:, [axis]] * places + 0.5) * _PICTURE_SIDE - 0.5)
        for axis, places in enumerate([x, y])
    )
    box = interpolate(pictures, column.astype(np.float32), row.astype(np.float32))
    frequencies = np.arange(_FREQUENCIES)
    cosines = np.cos(np.pi * np.outer(frequencies, np.arange(_BOX_SIDE) + 0.5) / _BOX_SIDE)
    cosines[0] /= np.sqrt(2)
    weights = np.sqrt(1 + np.hypot(frequencies[:, None], frequencies))
    weights[0, 0] = 0
    spectra = cosines @ box.reshape(-1, _BOX_SIDE, _BOX_SIDE) @ cosines.T * weights
    lengths = np.linalg.norm(spectra, axis=(1, 2), keepdims=True)
    np.divide(spectra, lengths, out=spectra, where=lengths > 0)
    directions: Floats = spectra.astype(np.float32)
    return directions


def _find_candidates(directions: Floats, *, low: int, start: int) -> _Pairs:
    """List pairs (row < column) and orientations that look alike, at their best angle."""
    rows = directions[:, low : low + _BLOCK_ROWS].reshape(len(_ANGLES), -1, _FREQUENCIES**2)
    columns = directions[:, start : start + _BLOCK_COLUMNS]
    found = []
    for orientation in range(len(ORIENTATIONS)):
        # The columns are rotated by the opposite angle, which a mirrored image shows as it is.
        mirrored = orientation.bit_count() % 2
        turned = orient_squares(columns if mirrored else columns[::-1], orientation)
        turned = turned.reshape(len(_ANGLES), -1, _FREQUENCIES**2)
        alike = rows @ turned.transpose(0, 2, 1)
        first, second = list_true(alike.max(axis=0) >= np.float32(_LOOK_THRESHOLD))
        ordered = first + low < second + start
        first, second = first[ordered], second[ordered]
        angle = 2 * _ANGLES[alike[:, first, second].argmax(axis=0)]
        turns = np.full(len(first), orientation, np.int8)
        found.append(_Pairs(first + low, second + start, turns, angle.astype(np.float32)))
    return _Pairs(*(np.concatenate(column) for column in zip(*found, strict=True)))


def _confirm(
    squares: NDArray[np.int8], looks: _Looks, pairs: _Pairs, *, threshold: float
) -> Iterator[Copies]:
    """Align candidates, and keep the best orientation of each pair that lies well."""
    pairs = _leave_out_copies(squares, pairs)
    motions = _estimate_motions(looks, pairs)
    agreement = np.empty(len(motions), np.float32)
    for some in _divide(len(motions)):
        one, other = _take_squares(squares, pairs.take(some))
        motions[some], agreement[some] = align_images(one, other, motions[some], levels=COARSE)
    near = agreement >= np.float32(_COARSE_THRESHOLD)
    pairs, motions = pairs.take(near), motions[near]
    similarity = np.empty(len(motions), np.float32)
    for some in _divide(len(motions)):
        one, other = _take_squares(squares, pairs.take(some))
        moved, _ = align_images(one, other, motions[some], levels=FINE)
        similarity[some] = compare_aligned(one, other, moved)
    # The best orientation of each pair comes first, and is the one that is kept.
    order = np.lexsort((-similarity, pairs.second, pairs.first))
    _, place = np.unique(_number(pairs, len(squares))[order], return_index=True)
    best = order[place]
    best = best[similarity[best] >= np.float32(threshold)]
    if len(best):
        first, second, orientation, _ = pairs.take(best)
        yield Copies(first, second, similarity[best], orientation)


def _leave_out_copies(squares: NDArray[np.int8], pairs: _Pairs) -> _Pairs:
    """Leave out pairs that are copies as they are, in whatever orientation they were listed."""
    similarity = np.empty(len(pairs.first), np.float32)
    for some in _divide(len(similarity)):
        one, other = (
            taken.reshape(-1, SIGNATURE_SIZE).astype(np.float32)
            for taken in _take_squares(squares, pairs.take(some))
        )
        lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
        similarity[some] = np.einsum("ij,ij->i", one, other) / lengths
    number = _number(pairs, len(squares))
    return pairs.take(~np.isin(number, number[similarity >= np.float32(COPY_THRESHOLD)]))


def _number(pairs: _Pairs, count: int) -> NDArray[np.intp]:
    """Return a number for each pair of rows, whatever the orientation."""
    numbers: NDArray[np.intp] = pairs.first * count + pairs.second
    return numbers


def _divide(count: int) -> Iterator[NDArray[np.intp]]:
    """Divide places into so many as are aligned at once."""
    for start in range(0, count, _PAIRS_AT_ONCE):
        yield np.arange(start, min(start + _PAIRS_AT_ONCE, count))


def _take_squares(
    squares: NDArray[np.int8], pairs: _Pairs
) -> tuple[NDArray[np.int8], NDArray[np.int8]]:
    """Return the coefficients of both images of each pair, those of the second one turned."""
    second = squares[pairs.second]
    for orientation in np.unique(pairs.orientation).tolist():
        places = pairs.orientation == orientation
        second[places] = orient_squares(second[places], orientation)
    return squares[pairs.first], second


def _estimate_motions(looks: _Looks, pairs: _Pairs) -> Floats:
    """Derive the motion of each pair from centres, sizes and the angle at which they look alike."""
    signs = np.stack([1 - 2 * (pairs.orientation & 1), 1 - 2 * (pairs.orientation >> 1 & 1)], 1)
    other, other_size = looks.centres[pairs.second] * signs, looks.sizes[pairs.second].copy()
    swapped = (pairs.orientation & 4) > 0
    other[swapped], other_size[swapped] = other[swapped, ::-1], other_size[swapped, ::-1]
    one, one_size = looks.centres[pairs.first], looks.sizes[pairs.first]
    larger = 2 * (one_size - other_size) / (one_size + other_size)
    middle = (one + other) / 2
    motions = np.zeros((len(one), MOTION_SIZE), np.float32)
    motions[:, 2] = pairs.angle
    motions[:, 3], motions[:, 4] = larger.mean(axis=1), (larger[:, 0] - larger[:, 1]) / 2
    crossed = np.stack([-pairs.angle * middle[:, 1], pairs.angle * middle[:, 0]], 1)
    motions[:, :2] = one - other - larger * middle - crossed
    return motions
