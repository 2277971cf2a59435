"""Generated images that are copies of real ones, which a generator has memorised."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from brainfeat.cache.cache import FeatureCache
from brainfeat.leakage.copies import find_copies
from brainfeat.leakage.duplicates import label_exact_duplicates

Flags = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class GeneratedImages:
    """Generated images of a cache, and how many of them are copies of its real images.

    Attributes
    ----------
    images : int
        Images that a program made.
    copies : int
        Those that are exact duplicates or copies of a real image, of any split. No head is fitted
        on them.
    train, val, test : int
        Those that are copies of an image of this split; one may count in several.
    searched : bool
        Whether copies were looked for; without signatures, only exact duplicates are known.
    """

    images: int
    copies: int
    train: int
    val: int
    test: int
    searched: bool

    def explain(self) -> str | None:
        """Describe the copies in a sentence; None where there are none."""
        if not self.copies:
            return None
        return (
            f"generated images are copies of real ones: {self.copies:,} of {self.images:,}, "
            f"{self.test:,} of them of test images; whatever made them has seen these, and no "
            "head is fitted on such copies"
        )


def find_memorised(cache: FeatureCache) -> Flags:
    """Find the generated images that are exact duplicates or copies of real ones.

    Parameters
    ----------
    cache : FeatureCache
        Without signatures, only exact duplicates are found.

    Returns
    -------
    ndarray of shape (n,), bool
        Of each row, also of augmented views of such images.
    """
    memorised: Flags = np.any(_pair_splits(cache), axis=1)
    return memorised


def count_generated(cache: FeatureCache) -> GeneratedImages | None:
    """Count the generated images of a cache; None where it has none.

    Parameters
    ----------
    cache : FeatureCache

    Returns
    -------
    GeneratedImages or None
    """
    rows = np.flatnonzero(cache.is_generated & (cache.view == 0))
    if not len(rows):
        return None
    pairs = _pair_splits(cache)[rows]
    train, val, test, _ = pairs.sum(axis=0).tolist()
    return GeneratedImages(
        images=len(rows),
        copies=int(pairs.any(axis=1).sum()),
        train=train,
        val=val,
        test=test,
        searched=cache.signature is not None,
    )


def _pair_splits(cache: FeatureCache) -> Flags:
    """Tell of which splits the real images are that each row's generated image is a copy of.

    Returns an array of shape (n, 4): train, val, test, and no split.
    """
    found = np.zeros((len(cache), 4), np.bool_)
    if not cache.is_generated.any():
        return found
    splits = np.array([("train", "val", "test", "").index(name) for name in cache.splits.tolist()])
    contents = label_exact_duplicates(cache.sha256)
    copied = np.zeros((int(contents.max()) + 1, 4), np.bool_)
    real = np.flatnonzero(cache.is_image)
    copied[contents[real], splits[real]] = True
    if cache.signature is not None:
        made = np.flatnonzero(cache.is_generated & (cache.view == 0))
        signatures = cache.signature[np.concatenate([made, real])]
        for pairs in find_copies(signatures, n_queries=len(made)):
            kept = pairs.second >= len(made)
            one, other = made[pairs.first[kept]], real[pairs.second[kept] - len(made)]
            copied[contents[one], splits[other]] = True
    found[cache.is_generated] = copied[contents[cache.is_generated]]
    return found
