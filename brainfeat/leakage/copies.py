"""Copies: images that show the same pixels, upright, mirrored or turned by quarter turns."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from brainfeat.cache.signature import (
    ORIENTATIONS,
    SIDE,
    SIGNATURE_SIZE,
    invert_orientation,
    orient_signatures,
    orient_squares,
)
from brainfeat.errors import ParameterError

# The cosine of two signatures from which on images are copies of each other. Measured by
# examples/copy_threshold.py on 7,019 public slices: from 0.92 to 0.97 the number of test images
# with a copy in train hardly changes, and no two slices of different classes are as similar but
# four pairs that show one slice.
COPY_THRESHOLD = 0.92

# Pairs whose lowest frequencies are less alike are not looked at: all copies there are more so.
_COARSE_SIDE = 10
_COARSE_THRESHOLD = 0.93
_BLOCK_ROWS = 512
_BLOCK_COLUMNS = 4096
# Pairs that are compared in full at once: 16,384 pairs of float32 signatures are 254 MB.
_PAIRS_AT_ONCE = 16_384


class Copies(NamedTuple):
    """Pairs of copies.

    Attributes
    ----------
    first, second : ndarray of shape (p,), int
        Rows of each pair, first < second.
    similarity : ndarray of shape (p,), float32
        Cosine of the signatures in the orientation in which they are most alike.
    orientation : ndarray of shape (p,), int8
        How the second image must be turned to look like the first: an index into
        :data:`brainfeat.cache.signature.ORIENTATIONS`.
    """

    first: NDArray[np.intp]
    second: NDArray[np.intp]
    similarity: NDArray[np.float32]
    orientation: NDArray[np.int8]


def find_copies(
    signatures: NDArray[np.int8],
    *,
    threshold: float = COPY_THRESHOLD,
    n_queries: int | None = None,
) -> Iterator[Copies]:
    """Yield all pairs of images that are copies of each other in one of eight orientations.

    Parameters
    ----------
    signatures : ndarray of shape (n, 1936), int8
        As :func:`brainfeat.cache.signature.compute_signature` returns them. A signature of zeros,
        that of a blank image, is a copy of nothing.
    threshold : float
        Least cosine of two signatures, above 0 and at most 1.
    n_queries : int or None
        Yield only the pairs whose first image is among the first `n_queries`, 0…n: these images
        are compared with each other and with all others, but the others not with each other. None
        compares all.

    Yields
    ------
    Copies
        In blocks; each pair once.

    Raises
    ------
    ParameterError
        The threshold or the number of queries is out of range, or the signatures have another
        shape or dtype.

    Examples
    --------
    >>> from brainfeat.cache.signature import compute_signature
    >>> image = np.random.default_rng(0).integers(0, 256, (64, 64), np.uint8)
    >>> signatures = np.stack([compute_signature(image), compute_signature(image[:, ::-1])])
    >>> [found] = find_copies(signatures)
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
    if n_queries is None:
        n_queries = len(signatures)
    if not 0 <= n_queries <= len(signatures):
        raise ParameterError(
            f"n_queries {n_queries}; expected 0 to {len(signatures)}, the number of signatures"
        )
    coarse = _coarse_directions(signatures)
    for low in range(0, n_queries, _BLOCK_ROWS):
        rows = coarse[low : min(low + _BLOCK_ROWS, n_queries)]
        for start in range(low, len(coarse), _BLOCK_COLUMNS):
            columns = coarse[start : start + _BLOCK_COLUMNS].reshape(-1, _COARSE_SIDE**2)
            candidates = _find_candidates(rows, columns, low=low, start=start)
            yield from _confirm(signatures, *candidates, threshold=threshold)


def _coarse_directions(signatures: NDArray[np.int8]) -> NDArray[np.float32]:
    """Return the lowest frequencies, evened out and scaled to length 1, (n, 10, 10)."""
    frequencies = np.arange(_COARSE_SIDE)
    weights = 1 / np.sqrt(1 + np.hypot(frequencies[:, None], frequencies))
    square = signatures.reshape(-1, SIDE, SIDE)[:, :_COARSE_SIDE, :_COARSE_SIDE]
    directions: NDArray[np.float32] = (square * weights).astype(np.float32)
    lengths = np.linalg.norm(directions, axis=(1, 2), keepdims=True)
    np.divide(directions, lengths, out=directions, where=lengths > 0)
    return directions


def _find_candidates(
    rows: NDArray[np.float32], columns: NDArray[np.float32], *, low: int, start: int
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.int8]]:
    """List pairs (row < column) and orientations whose coarse directions are alike."""
    found = []
    for orientation in range(len(ORIENTATIONS)):
        # The rows are turned, so the columns must be turned back.
        turned = orient_squares(rows, orientation)
        alike = turned.reshape(len(rows), -1) @ columns.T >= np.float32(_COARSE_THRESHOLD)
        first, second = np.nonzero(alike)
        ordered = first + low < second + start
        back = np.full(ordered.sum(), invert_orientation(orientation), np.int8)
        found.append((first[ordered] + low, second[ordered] + start, back))
    first, second, orientations = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return first, second, orientations


def _confirm(
    signatures: NDArray[np.int8],
    first: NDArray[np.intp],
    second: NDArray[np.intp],
    orientation: NDArray[np.int8],
    *,
    threshold: float,
) -> Iterator[Copies]:
    """Compare whole signatures of candidates, and keep the best orientation of each pair."""
    similarity = np.empty(len(first), np.float32)
    for turn in range(len(ORIENTATIONS)):
        places = np.flatnonzero(orientation == turn)
        for start in range(0, len(places), _PAIRS_AT_ONCE):
            some = places[start : start + _PAIRS_AT_ONCE]
            one = signatures[first[some]].astype(np.float32)
            other = orient_signatures(signatures[second[some]], turn).astype(np.float32)
            lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
            similarity[some] = np.einsum("ij,ij->i", one, other) / lengths
    kept = np.flatnonzero(similarity >= np.float32(threshold))
    # The best orientation of each pair comes first, and is the one that is kept.
    order = kept[np.lexsort((-similarity[kept], second[kept], first[kept]))]
    pairs = np.stack([first[order], second[order]], axis=1)
    new = np.ones(len(order), np.bool_)
    new[1:] = (pairs[1:] != pairs[:-1]).any(axis=1)
    best = order[new]
    if len(best):
        yield Copies(first[best], second[best], similarity[best], orientation[best])
