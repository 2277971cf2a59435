"""The test images of a fit: their metrics, with and without copies of what was fitted on."""

import numpy as np
from numpy.typing import NDArray

from brainfeat.cache.cache import FeatureCache
from brainfeat.errors import ParameterError, TableError
from brainfeat.evaluation.units import select_groups
from brainfeat.heads.bags import BagRule
from brainfeat.heads.recipe import FittedHead
from brainfeat.leakage.results import Audit
from brainfeat.metrics import Metrics, measure
from brainfeat.text import count
from brainfeat.training.partition import Partition
from brainfeat.training.selection import CrossValidation


def measure_test(
    cache: FeatureCache, head: FittedHead, partition: Partition, audit: Audit
) -> tuple[Metrics | None, Metrics | None]:
    """Measure the test images, and those without copies where train and val have some.

    Parameters
    ----------
    cache : FeatureCache
        The cache that the partition was read from.
    head : FittedHead
    partition : Partition
    audit : Audit
        Of the cache.

    Returns
    -------
    tuple of (Metrics or None, Metrics or None)
        None where there are no test images; and where none of them has a copy, or each has one.
    """
    test = partition.splits["test"]
    if not len(test):
        return None, None
    y, probabilities = partition.y[test], head.predict_proba(partition.X[test])
    metrics = measure(y, probabilities, class_names=partition.class_names)
    copied = find_copied(cache, partition, audit)
    if not copied.any() or copied.all():
        return metrics, None
    rest = ~copied
    return metrics, measure(y[rest], probabilities[rest], class_names=partition.class_names)


def check_unit(unit: str | None, rule: BagRule | None, *, folded: bool) -> bool:
    """Return whether a cross-validation of a head of images is to be measured per group, too.

    Raises
    ------
    ParameterError
        The unit is another word, an image for a bag head, or a group without folds.
    """
    if unit not in (None, "image", "group"):
        raise ParameterError(f"unit must be image or group, got {unit!r}")
    if rule is not None and unit == "image":
        raise ParameterError(
            'a bag head is measured on groups of images, and not on images; pass unit="group"'
        )
    if unit == "group" and not folded:
        raise ParameterError(
            'unit="group" measures the folds of a cross-validation per group; ask for one, such as '
            "cv=5, or measure the head with evaluate"
        )
    return rule is None and unit == "group"


def measure_groups(cache: FeatureCache, found: CrossValidation) -> Metrics:
    """Measure a cross-validation per group, such as per patient.

    Parameters
    ----------
    cache : FeatureCache
        The cache whose images the folds scored.
    found : CrossValidation

    Returns
    -------
    Metrics
        Of the mean of the out-of-fold probabilities of the images of each group.

    Raises
    ------
    TableError
        The table has no groups, or one has images of several classes, is in several folds, or has
        images that the folds do not score, such as those of test.
    """
    groups = select_groups(cache, np.sort(found.rows))
    order = np.argsort(found.rows)
    place = order[np.searchsorted(found.rows, groups.rows, sorter=order)]
    folds = found.folds[place]
    divided = groups.any(folds != folds[groups.offsets[:-1]][groups.place])
    if divided.any():
        raise TableError(
            f"folds divide {count(int(divided.sum()), 'group')} of {len(groups):,} (first: "
            f"{str(groups.names[divided][0])!r}), so the heads of a fold have seen images of the "
            'groups that they are measured on; pass group_by="column"'
        )
    probabilities = groups.mean(found.probabilities[place])
    return measure(groups.y, probabilities, class_names=cache.class_names)


def find_copied(cache: FeatureCache, partition: Partition, audit: Audit) -> NDArray[np.bool_]:
    """Find the test images of which train or val has a copy; none without signatures.

    A group is such a one if any of its images is.

    Parameters
    ----------
    cache, partition, audit
        As of :func:`measure_test`.

    Returns
    -------
    ndarray of shape (m,), bool
        Of each test image.
    """
    images = partition.splits["test"]
    if audit.copies is None:
        return np.zeros(len(images), np.bool_)
    test = partition.list_members(images)
    if cache.splits.any():
        copied = audit.seen_copies[test]
    else:
        clusters, fitted = audit.copy_clusters, partition.list_members(partition.fitted_images)
        copied = np.isin(clusters[test], clusters[fitted])
    return copied if partition.members is None else partition.members.any_of(images, copied)
