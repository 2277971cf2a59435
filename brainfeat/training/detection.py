"""The out-of-distribution detector of a head, fitted on the images of its partition."""

import os

import numpy as np
from numpy.typing import NDArray

from brainfeat.cache.cache import FeatureCache, opened
from brainfeat.errors import CacheError
from brainfeat.heads.ood import OODDetector
from brainfeat.training.partition import Partition


def read_examples(
    examples: FeatureCache | str | os.PathLike[str], cache: FeatureCache
) -> NDArray[np.float32]:
    """Read the features of out-of-distribution examples.

    Parameters
    ----------
    examples : FeatureCache or path-like
    cache : FeatureCache
        Its spec must be theirs.

    Returns
    -------
    ndarray of shape (m, d), float32

    Raises
    ------
    SpecMismatchError
        The examples have another spec.
    CacheError
        There are none, or their features are not finite.
    """
    with opened(examples) as found:
        cache.spec.require(found.spec, here=str(cache.path), there=str(found.path))
        X = np.asarray(found.X[np.flatnonzero(found.view == 0)], np.float32)
        if not len(X) or not np.isfinite(X).all():
            raise CacheError(f"{found.path} has no images, or features that are not finite")
        return X


def fit_detector(
    partition: Partition, examples: NDArray[np.float32] | None, *, random_state: int
) -> OODDetector:
    """Fit the detector on the images of train, with those of val and examples that it has to flag.

    Parameters
    ----------
    partition : Partition
    examples : ndarray of shape (m, d), float32, or None
        As :func:`read_examples` returns them.
    random_state : int
        Seed.

    Returns
    -------
    OODDetector
    """
    train, val = partition.splits["train"], partition.splits["val"]
    return OODDetector.fit(
        partition.X[train],
        partition.y[train],
        held_out=partition.X[val],
        n_classes=len(partition.class_names),
        ood_examples=examples,
        random_state=random_state,
    )
