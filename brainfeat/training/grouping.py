"""Groups of images that no split and no fold divides: those of the table, and copies."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from brainfeat.cache.cache import FeatureCache
from brainfeat.errors import TableError
from brainfeat.leakage.auditing import audit_duplicates
from brainfeat.leakage.copies import COPY_THRESHOLD
from brainfeat.leakage.duplicates import Labels, explain_chain, join_labels, label_exact_duplicates
from brainfeat.leakage.results import Audit

GroupBy = Literal["auto", "column", "copies", "near-duplicates", "none"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Grouping:
    """Groups of images that no split and no fold divides.

    Attributes
    ----------
    kind : str
        What a group is: ``"column"``, ``"copies"``, ``"near-duplicates"``, ``"exact-duplicates"``
        or ``"none"``. Copies and near duplicates are joined with the groups of the table, and near
        duplicates with copies.
    labels : ndarray of shape (n,), str or int, or None
        Group of each row of the cache, valid at the rows of view 0. None where every image is a
        group of its own.
    """

    kind: str
    labels: NDArray[Any] | None


def choose_groups(cache: FeatureCache, group_by: GroupBy, found: Audit | None = None) -> Grouping:
    """Choose the groups that no split and no fold divides.

    Parameters
    ----------
    cache : FeatureCache
    group_by : {"auto", "column", "copies", "near-duplicates", "none"}
        Copies, with the table's groups where it has any, else with near duplicates (auto); the
        table's groups (column); copies, or near duplicates and copies, with the table's groups
        (copies, near-duplicates); or none.
    found : Audit or None
        The audit of the cache by :func:`brainfeat.leakage.auditing.audit_duplicates`; None makes
        one where it is needed.

    Returns
    -------
    Grouping
        For auto, without copies and near duplicates that were not looked for, or that a chain
        joins; of exact duplicates where neither these nor groups are left.

    Raises
    ------
    TableError
        `group_by` asks for groups of the table, or for copies, and the cache has no groups, or no
        signatures.
    """
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
    if not clusters and cache.groups.any():
        return Grouping(kind="column", labels=cache.groups)
    if not clusters:
        same = label_exact_duplicates(cache.sha256) if has_exact else None
        return Grouping(kind="exact-duplicates", labels=same)
    # Images without a group are joined with nothing: no group of a table has such a name.
    names = np.where(cache.groups != "", cache.groups, [f"\0{row}" for row in range(len(cache))])
    _, joined = np.unique(names, return_inverse=True)
    for labels in clusters.values():
        # Augmented views are in no cluster.
        own = np.where(labels >= 0, labels, labels.max() + 1 + np.arange(len(labels)))
        joined = join_labels(joined, np.unique(own, return_inverse=True)[1])
    images = joined[cache.view == 0]
    alone = len(np.unique(images)) == len(images)
    return Grouping(kind=list(clusters)[-1], labels=None if alone else joined)
