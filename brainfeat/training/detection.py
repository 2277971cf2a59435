"""The out-of-distribution detector of a head, fitted on the images of its partition."""

import os

import numpy as np
from numpy.typing import NDArray

from brainfeat.cache.cache import FeatureCache, opened
from brainfeat.errors import CacheError, TableError
from brainfeat.heads.bags import ATTENTION, BagRule, Bags
from brainfeat.heads.ood import OODDetector
from brainfeat.heads.recipe import FittedHead
from brainfeat.training.partition import Partition


def read_examples(
    examples: FeatureCache | str | os.PathLike[str], cache: FeatureCache, bag: BagRule | None
) -> NDArray[np.float32]:
    """Read the features of out-of-distribution examples.

    Parameters
    ----------
    examples : FeatureCache or path-like
    cache : FeatureCache
        Its spec must be theirs.
    bag : BagRule or None
        How the images of a group become one example; None takes each image as one.

    Returns
    -------
    ndarray of shape (m, d), float32

    Raises
    ------
    SpecMismatchError
        The examples have another spec.
    CacheError
        There are none, or their features are not finite.
    TableError
        Images of the examples have no group, and `bag` is given.
    """
    with opened(examples) as found:
        cache.spec.require(found.spec, here=str(cache.path), there=str(found.path))
        rows = np.flatnonzero(found.is_image)
        X = np.asarray(found.X[rows], np.float32)
        if not len(X) or not np.isfinite(X).all():
            raise CacheError(f"{found.path} has no images, or features that are not finite")
        return X if bag is None else _pool_groups(X, found, rows, bag)


def _pool_groups(
    X: NDArray[np.float32], cache: FeatureCache, rows: NDArray[np.intp], bag: BagRule
) -> NDArray[np.float32]:
    groups = cache.groups[rows]
    if (groups == "").any():
        raise TableError(
            f"{cache.path} has images without a group, such as a patient; a head of bags takes "
            "out-of-distribution examples that are groups, too"
        )
    _, place = np.unique(groups, return_inverse=True)
    bags = Bags(
        values=X[np.argsort(place, kind="stable")],
        offsets=np.concatenate([[0], np.cumsum(np.bincount(place))]),
    )
    return bags.pool("mean" if bag.pooling == ATTENTION else bag.pooling)


def fit_detector(
    partition: Partition,
    head: FittedHead,
    examples: NDArray[np.float32] | None,
    *,
    random_state: int,
) -> OODDetector:
    """Fit the detector on the images of train, with those of val and examples that it has to flag.

    Parameters
    ----------
    partition : Partition
    head : FittedHead
        Makes one vector of each row.
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
        head.vectors(partition.X[train]),
        partition.y[train],
        held_out=head.vectors(partition.X[val]),
        n_classes=len(partition.class_names),
        ood_examples=examples,
        random_state=random_state,
    )
