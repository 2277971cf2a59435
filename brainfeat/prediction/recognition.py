"""Recognise images that a head was fitted on: predictions for these say nothing about new ones."""

from collections.abc import Sequence

import numpy as np

from brainfeat.cache.signature import SIGNATURE_SIZE
from brainfeat.heads.fitted_images import FittedImages
from brainfeat.leakage.copies import find_copies
from brainfeat.prediction.answers import Seen
from brainfeat.prediction.images import InputImage


def recognise(entries: Sequence[InputImage], fitted: FittedImages | None) -> list[Seen | None]:
    """Find out which images a head was fitted or validated on, or on a copy of which.

    Parameters
    ----------
    entries : sequence of InputImage
        With the digests and signatures that there are.
    fitted : FittedImages or None
        What the head records of the images of its fit.

    Returns
    -------
    list of {"exact-duplicate", "copy"} or None
        For each image. None is also what is not known: of a head that records no images, or no
        signatures of them.

    Examples
    --------
    >>> from brainfeat.cache.signature import compute_signature
    >>> pixels = np.random.default_rng(0).integers(0, 256, (32, 32), np.uint8)
    >>> digests = np.zeros((1, 32), np.uint8)
    >>> none = {"val": digests[:0], "test": digests[:0]}
    >>> signature = {"train": compute_signature(pixels)[None], "val": np.zeros((0, 1936), np.int8)}
    >>> fitted = FittedImages.collect({"train": digests, **none}, signature)
    >>> mirrored = InputImage(name="a.png", signature=compute_signature(pixels[:, ::-1]))
    >>> recognise([mirrored], fitted)
    ['copy']
    """
    if fitted is None:
        return [None] * len(entries)
    known = {digest.tobytes() for digest in fitted.seen}
    copied = _find_copied(entries, fitted)
    return [
        "exact-duplicate" if entry.sha256 in known else "copy" if is_copy else None
        for entry, is_copy in zip(entries, copied, strict=True)
    ]


def _find_copied(entries: Sequence[InputImage], fitted: FittedImages) -> list[bool]:
    if fitted.signature is None or not entries:
        return [False] * len(entries)
    blank = np.zeros(SIGNATURE_SIZE, np.int8)
    own = [blank if entry.signature is None else entry.signature for entry in entries]
    found = np.zeros(len(own), np.bool_)
    signatures = np.concatenate([np.stack(own), fitted.signature])
    for pairs in find_copies(signatures, n_queries=len(own)):
        found[pairs.first[pairs.second >= len(own)]] = True
    return list(found)
