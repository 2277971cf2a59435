"""Folded signatures: what stays of an image that may be mirrored or turned by quarter turns."""

from functools import cache
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from brainfeat.cache.signature import SIDE, SIGNATURE_SIZE

# Numbers of a description. Among public slices, 192 leave half as many pairs that are no copies to
# be compared in full as 128 do.
_SIZE = 192
# Rows that the axes of a description are drawn from, and rounds in which they are improved.
_SAMPLE_ROWS = 4096
_ROUNDS = 2
# 256 folded signatures are 2 MB.
_BLOCK_ROWS = 256
_ROOT_HALF = np.float32(np.sqrt(0.5))


class Signatures(Protocol):
    """Rows of signatures, (n, 1936) of int8, in memory or in a file."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows and 1936."""
        ...

    @property
    def dtype(self) -> np.dtype[np.int8]:
        """int8."""
        ...

    def __getitem__(self, rows: slice | NDArray[np.intp], /) -> NDArray[np.int8]:
        """Return some rows: a slice, or numbers in ascending order."""
        ...


def describe_signatures(signatures: Signatures) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """Describe images by few numbers, the same in all eight orientations.

    A description is a folded signature in those coordinates in which folded signatures differ
    most. It is a projection: two images that are copies at a cosine of c have descriptions at most
    √(2 − 2c) apart.

    Parameters
    ----------
    signatures : array-like of shape (n, 1936), int8
        A dataset that is sliced by rows is read a block at a time.

    Returns
    -------
    rows : ndarray of shape (m,), int
        The images that are not blank, in order.
    descriptions : ndarray of shape (m, k), float32
        k is 192, or m if that is less.

    Examples
    --------
    >>> from brainfeat.cache.signature import compute_signature
    >>> image = np.random.default_rng(0).integers(0, 256, (64, 64), np.uint8)
    >>> blank = np.zeros_like(image)
    >>> signatures = np.stack([compute_signature(one) for one in (image, blank, image.T)])
    >>> rows, descriptions = describe_signatures(signatures)
    >>> rows.tolist(), bool(np.abs(descriptions[0] - descriptions[1]).max() < 0.1)
    ([0, 2], True)
    """
    n = signatures.shape[0]
    blocks = [slice(start, start + _BLOCK_ROWS) for start in range(0, n, _BLOCK_ROWS)]
    seen = [np.flatnonzero(signatures[block].any(axis=1)) + block.start for block in blocks]
    rows = np.concatenate([np.empty(0, np.intp), *seen])
    sample = rows[:: max(1, -(-len(rows) // _SAMPLE_ROWS))]
    centre, axes = _find_axes(fold_signatures(signatures[sample]))
    descriptions = np.empty((len(rows), axes.shape[1]), np.float32)
    for start in range(0, len(rows), _BLOCK_ROWS):
        some = slice(start, start + _BLOCK_ROWS)
        np.matmul(fold_signatures(signatures[rows[some]]) - centre, axes, out=descriptions[some])
    return rows, descriptions


def fold_signatures(signatures: NDArray[np.int8]) -> NDArray[np.float32]:
    """Return numbers that are the same for an image in all eight orientations.

    Mirroring and turning change the sign of coefficients, and exchange those on both sides of the
    diagonal. Of two such coefficients, or of their sum and difference, these are reflections, and
    an absolute value undoes a reflection without bringing any two numbers further apart. So two
    folded signatures are at most as far apart as the signatures, scaled to length 1, are in any
    orientation.

    Parameters
    ----------
    signatures : ndarray of shape (n, 1936), int8
        None of them all zeros.

    Returns
    -------
    ndarray of shape (n, 1936), float32
        Of length 1.

    Examples
    --------
    >>> from brainfeat.cache.signature import compute_signature, orient_signatures
    >>> image = np.random.default_rng(0).integers(0, 256, (64, 64), np.uint8)
    >>> signatures = compute_signature(image)[None]
    >>> turned = orient_signatures(signatures, 5)
    >>> bool((fold_signatures(signatures) == fold_signatures(turned)).all())
    True
    """
    places = _places()
    one = signatures.take(places.above, axis=1).astype(np.int16)
    other = signatures.take(places.below, axis=1).astype(np.int16)
    for side in (one, other):
        np.abs(side[:, places.mixed], out=side[:, places.mixed])
    total, difference = one + other, np.abs(one - other)
    np.abs(total[:, places.odd], out=total[:, places.odd])
    diagonal = signatures[:, :: SIDE + 1].astype(np.float32)
    np.abs(diagonal[:, 1::2], out=diagonal[:, 1::2])
    folded = np.concatenate([total * _ROOT_HALF, difference * _ROOT_HALF, diagonal], axis=1)
    folded /= np.linalg.norm(folded, axis=1, keepdims=True)
    return folded


class _Places(NamedTuple):
    """Places of coefficients above the diagonal and across it, by whether frequencies are odd."""

    above: NDArray[np.intp]
    below: NDArray[np.intp]
    odd: slice
    mixed: slice


@cache
def _places() -> _Places:
    """List pairs of coefficients: first two even frequencies, then two odd ones, then mixed."""
    rows, columns = np.triu_indices(SIDE, 1)
    kind = np.where(rows % 2 != columns % 2, 2, rows % 2)
    order = np.argsort(kind, kind="stable")
    above, below = (rows * SIDE + columns)[order], (columns * SIDE + rows)[order]
    _, odd, mixed = np.searchsorted(kind[order], range(3))
    return _Places(above, below, slice(odd, mixed), slice(mixed, None))


def _find_axes(folded: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Find a centre, (1936,), and orthonormal axes of nearly the most variance, (1936, k).

    Power iteration from a seeded start. What the axes are decides how many pairs a description
    rules out, never whether a copy is found.
    """
    centre = folded.sum(axis=0) / np.float32(max(1, len(folded)))
    centred = folded - centre
    shape = SIGNATURE_SIZE, min(_SIZE, len(folded))
    axes = np.random.default_rng(0).standard_normal(shape, np.float32)
    for _ in range(_ROUNDS):
        axes = centred.T @ (centred @ axes)
    return centre, np.linalg.qr(axes)[0]
