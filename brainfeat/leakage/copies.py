"""Copies: images that show the same pixels, upright, mirrored or turned by quarter turns."""

from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from brainfeat.cache.signature import ORIENTATIONS, SIDE, SIGNATURE_SIZE, orient_squares
from brainfeat.errors import ParameterError
from brainfeat.leakage.folding import Signatures, describe_signatures
from brainfeat.leakage.neighbours import find_neighbours

# The cosine of two signatures from which on images are copies of each other. Measured by
# examples/copy_threshold.py on 7,019 public slices: from 0.92 to 0.97 the number of test images
# with a copy in train hardly changes, and no two slices of different classes are as similar but
# four pairs that show one slice.
COPY_THRESHOLD = 0.92

# Pairs whose signatures are read at once, 16 MB, and compared at once: 1 MB of float32 each.
_PAIRS_READ = 4096
_PAIRS_AT_ONCE = 128


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
    signatures: Signatures,
    *,
    threshold: float = COPY_THRESHOLD,
    n_queries: int | None = None,
) -> Iterator[Copies]:
    """Yield all pairs of images that are copies of each other in one of eight orientations.

    The pairs are those of a comparison of all signatures in all orientations: whatever cannot be a
    copy is ruled out by a bound. Only among more than
    :data:`brainfeat.leakage.neighbours.EXACT_LIMIT` images are not all compared, and a pair could
    be missed; of planted copies at a cosine of 0.93 or more, none is.

    Parameters
    ----------
    signatures : array-like of shape (n, 1936), int8
        As :func:`brainfeat.cache.signature.compute_signature` returns them. A signature of zeros,
        that of a blank image, is a copy of nothing. A dataset that is indexed by rows is read a
        block at a time.
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
    if signatures.shape[1:] != (SIGNATURE_SIZE,) or signatures.dtype != np.int8:
        raise ParameterError(
            f"signatures of shape {signatures.shape} and dtype {signatures.dtype}; expected "
            f"(n, {SIGNATURE_SIZE}) of int8"
        )
    if n_queries is None:
        n_queries = signatures.shape[0]
    if not 0 <= n_queries <= signatures.shape[0]:
        raise ParameterError(
            f"n_queries {n_queries}; expected 0 to {signatures.shape[0]}, the number of signatures"
        )
    rows, descriptions = describe_signatures(signatures)
    distance = np.sqrt(2 - 2 * threshold)
    asked = int(np.searchsorted(rows, n_queries))
    for first, second in find_neighbours(descriptions, distance, n_queries=asked):
        yield from _confirm(signatures, rows[first], rows[second], threshold=threshold)


def _confirm(
    signatures: Signatures,
    first: NDArray[np.intp],
    second: NDArray[np.intp],
    *,
    threshold: float,
) -> Iterator[Copies]:
    """Compare whole signatures, and keep the pairs that are copies."""
    for start in range(0, len(first), _PAIRS_READ):
        some = slice(start, start + _PAIRS_READ)
        rows, places = np.unique([first[some], second[some]], return_inverse=True)
        similarity, orientation = _compare(signatures[rows], *places)
        kept = np.flatnonzero(similarity >= np.float32(threshold))
        if len(kept):
            one, other = rows[places[:, kept]]
            yield Copies(one, other, similarity[kept], orientation[kept])


def _compare(
    signatures: NDArray[np.int8], first: NDArray[np.intp], second: NDArray[np.intp]
) -> tuple[NDArray[np.float32], NDArray[np.int8]]:
    """Return the largest cosine of each pair of rows, and the orientation that gives it.

    The products are whole numbers and exact, so where two are equal the least turned one wins.
    """
    lengths = np.sqrt(np.square(signatures, dtype=np.int32).sum(axis=1))
    similarity = np.empty(len(first), np.float32)
    orientation = np.empty(len(first), np.int8)
    for start in range(0, len(first), _PAIRS_AT_ONCE):
        some = slice(start, start + _PAIRS_AT_ONCE)
        one, other = (
            signatures[rows[some]].astype(np.float32).reshape(-1, SIDE, SIDE)
            for rows in (first, second)
        )
        sums = np.concatenate(
            [_sum_kinds(one * other), _sum_kinds(one * other.swapaxes(1, 2))], axis=1
        )
        products = sums @ _signs().T
        orientation[some] = products.argmax(axis=1)
        similarity[some] = products.max(axis=1) / (lengths[first[some]] * lengths[second[some]])
    return similarity, orientation


def _sum_kinds(products: NDArray[np.float32]) -> NDArray[np.float64]:
    """Sum products over the coefficients of each kind, (p, 44, 44) to (p, 4).

    The kind is whether either frequency is odd. Sums of 484 products of two int8 are below 2²⁴, so
    float32 holds them exactly. The sums are too small for the threads of a matrix product.
    """
    half = SIDE // 2
    rows = products.reshape(-1, half, 2 * SIDE).sum(axis=1)
    sums: NDArray[np.float32] = np.einsum("prcs->prs", rows.reshape(-1, 2, half, 2))
    return sums.reshape(-1, 4).astype(np.float64)


@cache
def _signs() -> NDArray[np.float64]:
    """Return the signs of four kinds, and of four kinds transposed, by orientation, (8, 8)."""
    signs = np.zeros((len(ORIENTATIONS), 8))
    for turn in range(len(ORIENTATIONS)):
        ones = orient_squares(np.ones((1, SIDE, SIDE), np.float32), turn)
        start = 4 * (turn >= 4)
        signs[turn, start : start + 4] = np.sign(_sum_kinds(ones))
    return signs
