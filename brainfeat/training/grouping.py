"""Groups of images that no split and no fold divides: those of the table, and copies."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainfeat.cache.cache import FeatureCache
from brainfeat.errors import ParameterError, TableError
from brainfeat.leakage.auditing import audit_duplicates
from brainfeat.leakage.copies import COPY_THRESHOLD
from brainfeat.leakage.duplicates import Labels, explain_chain, join_labels, label_exact_duplicates
from brainfeat.leakage.number_blocks import join_number_blocks, read_block_size
from brainfeat.leakage.results import Audit

# What images can be grouped by, beside "numbers:K".
GROUPINGS = ("auto", "column", "copies", "near-duplicates", "none")


@dataclass(frozen=True, kw_only=True, eq=False)
class Grouping:
    """Groups of images that no split and no fold divides.

    Attributes
    ----------
    kind : str
        What a group is: ``"column"``, ``"copies"``, ``"near-duplicates"``, ``"exact-duplicates"``,
        ``"numbers:K"`` or ``"none"``. Copies, near duplicates and blocks of numbers are joined with
        the groups of the table, and the latter two with copies.
    labels : ndarray of shape (n,), str or int, or None
        Group of each row of the cache, valid at the rows of view 0. None where every image is a
        group of its own.
    """

    kind: str
    labels: NDArray[Any] | None


def check_grouping(group_by: object) -> str:
    """Return what images are grouped by.

    Raises
    ------
    ParameterError
        It is not a grouping.

    Examples
    --------
    >>> check_grouping("numbers:40")
    'numbers:40'
    """
    if isinstance(group_by, str) and (group_by in GROUPINGS or read_block_size(group_by)):
        return group_by
    raise ParameterError(
        f"group_by must be one of {', '.join(GROUPINGS)}, or numbers:K with a K of 2 or more, such "
        f"as numbers:40, got {group_by!r}"
    )


def choose_groups(cache: FeatureCache, group_by: str, found: Audit | None = None) -> Grouping:
    """Choose the groups that no split and no fold divides.

    Parameters
    ----------
    cache : FeatureCache
    group_by : {"auto", "column", "copies", "near-duplicates", "numbers:K", "none"}
        Copies, with the table's groups where it has any, else with near duplicates (auto); the
        table's groups (column); copies, or near duplicates and copies, with the table's groups
        (copies, near-duplicates); blocks of K consecutive numbers in file names, a guess at
        patients, with copies and the table's groups (numbers:K); or none.
    found : Audit or None
        The audit of the cache by :func:`brainfeat.leakage.auditing.audit_duplicates`; None makes
        one where it is needed.

    Returns
    -------
    Grouping
        For auto, with exact duplicates in place of copies and near duplicates that were not looked
        for, or that a chain joins; of the table's groups alone where there are no exact duplicates.
        For blocks of numbers likewise.

    Raises
    ------
    TableError
        `group_by` asks for groups of the table, for copies or for blocks of numbers, and the cache
        has no groups, no signatures, or no such file names; or copies join blocks by a chain.
    """
    size = read_block_size(group_by)
    if size is not None:
        same = _find_copies(found or audit_duplicates(cache), even_chained=False)
        return _join_blocks(
            cache, size, label_exact_duplicates(cache.sha256) if same is None else same
        )
    grouped = bool(cache.groups.any())
    if group_by == "none":
        return Grouping(kind="none", labels=None)
    if group_by == "column":
        if not grouped:
            raise TableError(f"{cache.path} has no groups; give the table a group column")
        return Grouping(kind="column", labels=cache.groups)
    if group_by == "copies" and cache.signature is None:
        raise TableError(
            f"{cache.path} has no signatures to find copies with; run extract again to add them"
        )
    found = found or audit_duplicates(cache)
    if group_by != "auto" and found.near_duplicates is None:
        # An audit leaves out what takes long.
        found = audit_duplicates(cache, limit=None)
    kinds = {
        "copies": _find_copies(found, even_chained=group_by != "auto"),
        "near-duplicates": _find_near(found, even_chained=group_by != "auto"),
    }
    if group_by == "copies" or (group_by == "auto" and grouped):
        kinds["near-duplicates"] = None
    return _join(cache, kinds, has_exact=bool(found.exact_duplicates.groups))


def number_groups(labels: NDArray[Any] | None, n: int) -> NDArray[np.intp]:
    """Give each group a number from 0, and each image without a group one of its own.

    Parameters
    ----------
    labels : ndarray of shape (n,), str or int, or None
        Group of each image; an empty text is none. None where no image has one.
    n : int
        Images.

    Returns
    -------
    ndarray of shape (n,), int

    Examples
    --------
    >>> number_groups(np.array(["b", "", "b", ""]), 4).tolist()
    [0, 1, 0, 2]
    """
    if labels is None:
        return np.arange(n)
    _, numbers = np.unique(labels, return_inverse=True)
    alone = np.flatnonzero(labels == "") if labels.dtype.kind in "OSTU" else np.empty(0, np.intp)
    numbers[alone] = n + np.arange(len(alone))
    return np.unique(numbers, return_inverse=True)[1]


def _find_copies(found: Audit, *, even_chained: bool) -> Labels | None:
    if found.copies is None:
        return None
    sizes = np.bincount(found.copy_clusters[found.copy_clusters >= 0])
    chain = explain_chain(int(sizes.max()), found.images, COPY_THRESHOLD)
    return found.copy_clusters if chain is None or even_chained else None


def _find_near(found: Audit, *, even_chained: bool) -> Labels | None:
    near = found.near_duplicates
    return None if near is None or (near.chained and not even_chained) else found.clusters


def _join(cache: FeatureCache, kinds: dict[str, Labels | None], *, has_exact: bool) -> Grouping:
    """Join the groups of the table with the clusters that there are."""
    clusters = {name: labels for name, labels in kinds.items() if labels is not None}
    if not clusters and cache.groups.any() and not has_exact:
        return Grouping(kind="column", labels=cache.groups)
    if not clusters:
        same = label_exact_duplicates(cache.sha256) if has_exact else None
        if same is None or not cache.groups.any():
            return Grouping(kind="exact-duplicates", labels=same)
        clusters = {"exact-duplicates": same}
    # Images without a group are joined with nothing: no group of a table has such a name.
    names = np.where(cache.groups != "", cache.groups, [f"\0{row}" for row in range(len(cache))])
    _, joined = np.unique(names, return_inverse=True)
    for labels in clusters.values():
        # Augmented views are in no cluster.
        own = np.where(labels >= 0, labels, labels.max() + 1 + np.arange(len(labels)))
        joined = join_labels(joined, np.unique(own, return_inverse=True)[1])
    images = joined[cache.is_image]
    alone = len(np.unique(images)) == len(images)
    return Grouping(kind=list(clusters)[-1], labels=None if alone else joined)


def _join_blocks(cache: FeatureCache, size: int, same: Labels) -> Grouping:
    """Join blocks of numbers with copies and the groups of the table."""
    images = np.flatnonzero(cache.is_image)
    joined = join_number_blocks(
        cache.paths[images].tolist(), size, same=same[images], groups=cache.groups[images].tolist()
    )
    labels = np.zeros(len(cache), np.intp)
    labels[images] = joined
    return Grouping(kind=f"numbers:{size}", labels=labels)
