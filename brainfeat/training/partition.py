"""The labelled rows of a cache, and the parts (train, val, test, folds) that its images form."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from brainfeat.cache.cache import FeatureCache
from brainfeat.errors import CacheError, TableError
from brainfeat.leakage.auditing import audit_duplicates
from brainfeat.leakage.duplicates import join_labels, label_exact_duplicates
from brainfeat.leakage.results import Audit
from brainfeat.leakage.splitting import count_folds, make_folds, split_rows

GroupBy = Literal["auto", "column", "near-duplicates", "none"]
Rows = NDArray[np.intp]

# Rows that are looked at in one step, so that a million need no copy of themselves.
_BLOCK_ROWS = 8192


@dataclass(frozen=True, kw_only=True)
class LabelledRows:
    """The labelled rows of a cache in memory; an image is a row of view 0 with its views.

    Attributes
    ----------
    X : ndarray of shape (n, d), float32
    y : ndarray of shape (n,), int
    image : ndarray of shape (n,), int
        Of each row, the row of its view 0.
    images : ndarray of shape (m,), int
        The rows of view 0.
    rows : ndarray of shape (n,), int
        The rows of the cache that they are.
    groups : ndarray of shape (n,), str or int, or None
        Of each row, right at the rows of view 0; None where groups are not looked at.
    class_names : tuple of str
    """

    X: NDArray[np.float32]
    y: NDArray[np.int64]
    image: Rows
    images: Rows
    rows: Rows
    groups: NDArray[Any] | None
    class_names: tuple[str, ...]

    @classmethod
    def read(cls, cache: FeatureCache) -> "LabelledRows":
        """Read the labelled rows of a cache, refusing what no head can be fitted on."""
        if cache.spec.pooling == "none":
            raise TableError(f"{cache.path} holds feature maps; heads take pooled features")
        rows = np.flatnonzero(cache.mask(views=True))
        y = cache.y[rows]
        present = np.unique(y)
        if len(present) < 2:
            names = ", ".join(cache.class_names[label] for label in present) or "none"
            raise TableError(
                f"{cache.path} has labelled images of too few classes ({names}); "
                "a classifier needs two or more"
            )
        X = cache.X[:] if len(rows) == len(cache) else cache.X[rows]
        if bad := _count_not_finite(X):
            raise CacheError(
                f"{cache.path} has features that are not finite in {bad:,} of {len(X):,} rows; "
                "extract them anew, in float32"
            )
        view = cache.view[rows]
        _, place = np.unique(cache.column("path")[rows], return_inverse=True)
        first = np.zeros(place.max() + 1, np.intp)
        first[place[view == 0]] = np.flatnonzero(view == 0)
        return cls(
            X=X,
            y=y,
            image=first[place],
            images=np.flatnonzero(view == 0),
            rows=rows,
            groups=None,
            class_names=cache.class_names,
        )

    def group(self, groups: NDArray[Any] | None) -> "LabelledRows":
        """Return the same rows with groups, given for each row of the cache."""
        return replace(self, groups=None if groups is None else groups[self.rows])

    def rows_of(self, images: Rows) -> Rows:
        """Return the rows of images with their augmented views."""
        return np.flatnonzero(np.isin(self.image, images))

    def groups_of(self, images: Rows) -> NDArray[Any] | None:
        """Return the group of each image, or None where groups are not looked at."""
        return None if self.groups is None else self.groups[images]


def choose_groups(
    cache: FeatureCache, group_by: GroupBy, found: Audit
) -> tuple[NDArray[Any] | None, str]:
    """Choose what no part and no fold may cut.

    Parameters
    ----------
    cache : FeatureCache
    group_by : {"auto", "column", "near-duplicates", "none"}
        The table's groups where there are any, else clusters of near duplicates (auto); the table's
        (column); clusters joined with the table's groups (near-duplicates); nothing.
    found : Audit
        What :func:`brainfeat.leakage.auditing.audit_duplicates` found in the cache.

    Returns
    -------
    tuple of (ndarray of shape (n,) or None, str)
        Group of each row of the cache, right at the rows of view 0, and what groups are: "column",
        "near-duplicates", "identical" where those cannot be told, or "none".

    Raises
    ------
    TableError
        The table has no groups and must have.
    """
    grouped = bool(cache.groups.any())
    if group_by == "none":
        return None, "none"
    if group_by == "column" and not grouped:
        raise TableError(f"{cache.path} has no groups; give the table a group column")
    if group_by == "column" or (group_by == "auto" and grouped):
        return cache.groups, "column"
    near = found.near_duplicates
    if group_by == "auto" and (near is None or near.chained):
        copies = label_exact_duplicates(cache.sha256)
        return (copies if found.exact_duplicates.groups else None), "identical"
    clusters = found.clusters if near else audit_duplicates(cache, limit=None).clusters
    if not grouped and near is not None and not near.clusters:
        return None, "near-duplicates"
    if grouped:
        # Images of no group are joined with nothing.
        names = np.where(cache.groups != "", cache.groups, np.arange(len(cache)).astype(np.str_))
        _, numbers = np.unique(names, return_inverse=True)
        clusters = join_labels(clusters + 1, numbers)
    return clusters, "near-duplicates"


def split_images(
    data: LabelledRows,
    cache: FeatureCache,
    *,
    val_fraction: float,
    test_fraction: float,
    random_state: int,
) -> dict[str, Rows]:
    """Return the images (rows of view 0) of train, val and test."""
    names = cache.splits[np.flatnonzero(cache.mask(views=True))][data.images]
    if not names.any():
        fractions = {"val": val_fraction, "test": test_fraction}
        names = _assign(data, data.images, fractions, random_state)
    parts = {name: data.images[names == name] for name in ("train", "val", "test")}
    _check_classes(data, parts)
    if not len(parts["val"]):
        parts["train"], parts["val"] = take_val(
            data, parts["train"], fraction=val_fraction, random_state=random_state
        )
    return parts


def name_held_out(cache: FeatureCache, parts: Mapping[str, Rows]) -> dict[str, list[str]] | None:
    """Name the images that were held out where the table does not say it, for `evaluate`."""
    if cache.splits.any():
        return None
    rows = np.flatnonzero(cache.mask(views=True))
    return {name: cache.image_ids(rows[parts[name]]) for name in ("val", "test")}


def take_val(
    data: LabelledRows, images: Rows, *, fraction: float, random_state: int
) -> tuple[Rows, Rows]:
    """Split images into those to train on and those to validate on."""
    names = _assign(data, images, {"val": fraction}, random_state)
    return images[names == "train"], images[names == "val"]


def fold_images(
    data: LabelledRows, parts: Mapping[str, Rows], *, n_folds: int, random_state: int
) -> list[tuple[Rows, Rows]]:
    """Return the images of each fold's train and test; the test part of the table is in none."""
    images = np.sort(np.concatenate([parts["train"], parts["val"]]))
    folds = make_folds(
        data.y[images],
        n_folds=n_folds,
        groups=data.groups_of(images),
        class_names=data.class_names,
        random_state=random_state,
    )
    return [(images[train], images[test]) for train, test in folds]


def limit_folds(data: LabelledRows, parts: Mapping[str, Rows], *, n_folds: int) -> int:
    """Return how many folds of train and val can be made, up to a number."""
    images = np.concatenate([parts["train"], parts["val"]])
    return min(n_folds, count_folds(data.y[images], groups=data.groups_of(images)))


def _count_not_finite(X: NDArray[np.float32]) -> int:
    blocks = (X[start : start + _BLOCK_ROWS] for start in range(0, len(X), _BLOCK_ROWS))
    return sum(int((~np.isfinite(block)).any(axis=1).sum()) for block in blocks)


def _assign(
    data: LabelledRows, images: Rows, fractions: Mapping[str, float], random_state: int
) -> NDArray[np.str_]:
    return split_rows(
        data.y[images],
        fractions=fractions,
        groups=data.groups_of(images),
        class_names=data.class_names,
        random_state=random_state,
    )


def _check_classes(data: LabelledRows, parts: Mapping[str, Rows]) -> None:
    """Refuse a class that a head could not learn, or would be asked about without having seen."""
    trained = set(data.y[parts["train"]])
    for label, name in enumerate(data.class_names):
        if label not in trained:
            where = [part for part in ("val", "test") if label in data.y[parts[part]]]
            place = (
                f"exists in {' and '.join(where)} but not in train" if where else "has no images"
            )
            raise TableError(f"class {name!r} {place}; add training images or drop the class")
