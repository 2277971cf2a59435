"""The out-of-distribution detector of a head, fitted on the images of its partition."""

import os
from collections.abc import Sequence
from contextlib import ExitStack

import numpy as np
from numpy.typing import NDArray

from brainfeat.cache.cache import FeatureCache, opened
from brainfeat.cache.joined import ImageJoin
from brainfeat.cache.joining import find_features, join_images
from brainfeat.errors import CacheError, SpecMismatchError, TableError
from brainfeat.heads.bags import ATTENTION, BagRule, Bags
from brainfeat.heads.ood import OODDetector
from brainfeat.heads.recipe import FittedHead
from brainfeat.training.partition import Partition

Cache = FeatureCache | str | os.PathLike[str]


def read_examples(
    examples: Cache | Sequence[Cache], cache: FeatureCache, bag: BagRule | None
) -> NDArray[np.float32]:
    """Read the features of out-of-distribution examples.

    Parameters
    ----------
    examples : FeatureCache, path-like, or sequence of these
        Of caches that are joined on images, one for each.
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
        The examples have another spec, or lack features of a cache that was joined.
    CacheError
        There are none, their features are not finite, or joined ones are of other images.
    TableError
        Images of the examples have no group, and `bag` is given.
    """
    with ExitStack() as stack:
        given = [examples] if isinstance(examples, FeatureCache | str | os.PathLike) else examples
        caches = [stack.enter_context(opened(one)) for one in given]
        found = _select_examples(caches, cache)
        rows = np.flatnonzero(found.is_image)
        X = np.asarray(found.X[rows], np.float32)
        if not len(X) or not np.isfinite(X).all():
            raise CacheError(f"{found.path} has no images, or features that are not finite")
        return X if bag is None else _pool_groups(X, found, rows, bag)


def _select_examples(examples: Sequence[FeatureCache], cache: FeatureCache) -> FeatureCache:
    """Return the features of examples that are those of a cache; of a join, of each block."""
    blocks = {str(cache.path): cache}
    if isinstance(cache, ImageJoin):
        blocks = dict(zip(cache.names, cache.caches, strict=True))
    chosen = []
    for name, block in blocks.items():
        found = find_features(block.spec, examples)
        if found is None and len(examples) == len(blocks) == 1:
            # The message names each field that differs.
            block.spec.require(examples[0].spec, here=name, there=str(examples[0].path))
        if found is None:
            raise SpecMismatchError(
                f"no cache of out-of-distribution examples has features as those of {name}; pass "
                "one for each cache of the fit"
            )
        chosen.append(found)
    return join_images([*blocks], chosen) if isinstance(cache, ImageJoin) else chosen[0]


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
