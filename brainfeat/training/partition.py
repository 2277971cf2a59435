"""Partition: the units of a cache in memory, and which of them train, stop and test a head."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from brainfeat.cache.cache import FeatureCache
from brainfeat.cache.groups import GroupRows
from brainfeat.errors import TableError
from brainfeat.heads.bags import AnyFeatures, BagRule
from brainfeat.heads.fitted_images import FittedImages
from brainfeat.heads.record import HeldOut
from brainfeat.leakage.sources import SourceFolds, make_source_folds
from brainfeat.leakage.splitting import count_folds, make_folds, split_rows
from brainfeat.training.grouping import Grouping, number_groups
from brainfeat.training.units import read_units

Rows = NDArray[np.intp]
# Training and test images of a fold.
Fold = tuple[Rows, Rows]

SPLITS = ("train", "val", "test")


@dataclass(frozen=True, kw_only=True, eq=False)
class Partition:
    """The labelled rows of a cache in memory, and the splits and folds of their images.

    An image is a row of view 0; its augmented views are further rows. Splits and folds hold images,
    as indices into the rows of the partition. Where groups of images are taken together as bags, a
    group stands in the place of an image.

    Attributes
    ----------
    X : ndarray of shape (n, d), float32, Bags, or MapRows
        Features; the vectors of each group where these are not pooled.
    y : ndarray of shape (n,), int64
        Class of each row, an index into `class_names`.
    image : ndarray of shape (n,), int
        The image that each row is a view of.
    rows : ndarray of shape (n,), int
        Row of the cache of each row; of a group, that of its first image.
    class_names : tuple of str
        The classes.
    splits : dict of str to ndarray of int
        Images of ``"train"``, ``"val"`` and ``"test"``.
    folds : tuple of (ndarray of int, ndarray of int)
        Training and test images of each fold of train and val; empty without folds.
    groups : ndarray of shape (n,), str or int, or None
        Group of each row, valid for images; None where every image is a group of its own.
    grouped_by : str
        What a group is, as in :class:`Grouping`.
    left_out : SourceFolds or None
        The sources that folds leave out one at a time; None for folds of another kind.
    members : GroupRows or None
        The images of each group, which are the first rows; None where the rows are images.
    generated : ndarray of int
        The rows that are of generated images, which are units of no split and no fold.
    """

    X: AnyFeatures
    y: NDArray[np.int64]
    image: Rows
    rows: Rows
    class_names: tuple[str, ...]
    splits: Mapping[str, Rows]
    folds: tuple[Fold, ...] = ()
    groups: NDArray[Any] | None = None
    grouped_by: str = "none"
    left_out: SourceFolds | None = None
    members: GroupRows | None = None
    generated: Rows = field(default_factory=lambda: np.empty(0, np.intp))

    @classmethod
    def read(
        cls,
        cache: FeatureCache,
        bag: BagRule | None = None,
        *,
        maps: bool = False,
        generated: bool = False,
    ) -> Self:
        """Read the labelled rows of a cache.

        Parameters
        ----------
        cache : FeatureCache
            Features.
        bag : BagRule or None
            How the images of a group become one row; None makes a row of each image.
        generated : bool
            Whether generated images are read, too, on which a head is fitted beside any others.
        maps : bool
            Whether the maps of images are taken, and not their vectors.

        Returns
        -------
        Partition
            All images are in train; there are no groups and no folds.

        Raises
        ------
        TableError, CacheError, ParameterError
            As in :func:`brainfeat.training.units.read_units`.
        """
        units, none = read_units(cache, bag, maps=maps, generated=generated), np.empty(0, np.intp)
        found = cls(
            X=units.X,
            y=units.y,
            image=units.image,
            rows=units.rows,
            class_names=cache.class_names,
            splits={},
            members=units.members,
            generated=units.generated,
        )
        images = np.flatnonzero(found.is_unit)
        return replace(found, splits={"train": images, "val": none, "test": none})

    def split(
        self,
        cache: FeatureCache,
        grouping: Grouping,
        *,
        val_fraction: float,
        test_fraction: float,
        random_state: int,
    ) -> Self:
        """Divide the images into train, val and test; no group is divided.

        The splits of the table are kept. Where it has no validation split, one is taken from train;
        where it has no splits, all three are made.

        Parameters
        ----------
        cache : FeatureCache
            The cache that the partition was read from.
        grouping : Grouping
            Groups of its rows.
        val_fraction : float
            Fraction of the training images, or of all images without splits, for validation.
        test_fraction : float
            Fraction of all images for the test, without splits.
        random_state : int
            Seed of the splits that are made.

        Returns
        -------
        Partition
            The same rows with splits and groups.

        Raises
        ------
        TableError
            A class has no training images, or too few images or groups to be divided.
        """
        labels = None if grouping.labels is None else grouping.labels[self.rows]
        if labels is None and self.members is not None:
            labels = self.image
        grouped = replace(self, groups=labels, grouped_by=grouping.kind)
        images = self.splits["train"]
        names = cache.splits[self.rows[images]]
        if not names.any():
            fractions = {"val": val_fraction, "test": test_fraction}
            names = grouped._assign(images, fractions, random_state)
        splits = {name: images[names == name] for name in SPLITS}
        grouped._check_classes(splits)
        if not len(splits["val"]):
            splits["train"], splits["val"] = grouped.take_val(
                splits["train"], fraction=val_fraction, random_state=random_state
            )
        return replace(grouped, splits=splits)

    def with_folds(self, n_folds: int, *, random_state: int) -> Self:
        """Return the same partition with folds of train and val; test images are in no fold.

        Parameters
        ----------
        n_folds : int
            Number of folds, at least 2.
        random_state : int
            Seed of the folds.

        Raises
        ------
        TableError
            A class has images of fewer groups than there are folds.
        """
        images = np.sort(self.fitted_images)
        folds = make_folds(
            self.y[images],
            n_folds=n_folds,
            groups=self.groups_of(images),
            class_names=self.class_names,
            random_state=random_state,
        )
        pairs = tuple((images[train], images[test]) for train, test in folds)
        return replace(self, folds=pairs, left_out=None)

    def with_source_folds(self, cache: FeatureCache) -> Self:
        """Return the same partition with a fold for each source of train and val.

        Parameters
        ----------
        cache : FeatureCache
            The cache that the partition was read from.

        Raises
        ------
        TableError
            As in :func:`brainfeat.leakage.sources.make_source_folds`; or a group that is one row
            has images of several sources.
        """
        images = np.sort(self.fitted_images)
        if self.members is not None:
            self.members.check_sources(cache.sources)
        found = make_source_folds(
            self.y[images],
            cache.sources[self.rows[images]],
            groups=self.groups_of(images),
            class_names=self.class_names,
        )
        folds = [
            replace(fold, train=images[fold.train], test=images[fold.test]) for fold in found.folds
        ]
        return replace(
            self,
            folds=tuple((fold.train, fold.test) for fold in folds if fold.reason is None),
            left_out=replace(found, folds=tuple(folds)),
        )

    def resample(
        self, *, keep_test: bool, val_fraction: float, test_fraction: float, random_state: int
    ) -> Self:
        """Divide the images of the splits anew; no group is divided.

        Parameters
        ----------
        keep_test : bool
            Whether the test images stay; the others are then divided into train and val.
        val_fraction, test_fraction : float
            Fractions of the images that are divided; the latter where the test images do not stay.
        random_state : int
            Seed.

        Returns
        -------
        Partition
            The same rows and groups, without folds.

        Raises
        ------
        TableError
            A class has too few images or groups to be divided.
        """
        own = SPLITS[:2] if keep_test else SPLITS
        images = np.sort(np.concatenate([self.splits[name] for name in own]))
        fractions = {"val": val_fraction}
        if not keep_test:
            fractions["test"] = test_fraction
        names = self._assign(images, fractions, random_state)
        splits = {name: images[names == name] for name in own}
        return replace(self, splits={**self.splits, **splits}, folds=(), left_out=None)

    @property
    def fitted_images(self) -> Rows:
        """The images of train and val, which a head may be fitted on."""
        return np.concatenate([self.splits["train"], self.splits["val"]])

    def limit_folds(self, n_folds: int) -> int:
        """Return how many folds of train and val can be made, up to a number."""
        images = self.fitted_images
        return min(n_folds, count_folds(self.y[images], groups=self.groups_of(images)))

    def take_val(self, images: Rows, *, fraction: float, random_state: int) -> tuple[Rows, Rows]:
        """Divide images into those to train on and those to validate on.

        Parameters
        ----------
        images : ndarray of int
            The images.
        fraction : float
            Fraction of them to validate on; no group is divided.
        random_state : int
            Seed.

        Returns
        -------
        tuple of (ndarray of int, ndarray of int)
            Training and validation images.

        Raises
        ------
        TableError
            A class has images of only one group.
        """
        names = self._assign(images, {"val": fraction}, random_state)
        return images[names == "train"], images[names == "val"]

    def list_members(self, images: Rows) -> Rows:
        """List the rows of the cache of images, or of all images of groups."""
        return self.rows[images] if self.members is None else self.members.rows_of(images)

    def rows_of(self, images: Rows) -> Rows:
        """Return the rows of images with their augmented views."""
        return np.flatnonzero(np.isin(self.image, images))

    def training_rows(self, images: Rows) -> Rows:
        """Return the rows that a head is fitted on: those of images, and all generated ones."""
        return np.union1d(self.rows_of(images), self.generated)

    def groups_of(self, images: Rows) -> NDArray[Any] | None:
        """Return the group of each image, or None where every image is a group of its own."""
        return None if self.groups is None else self.groups[images]

    @property
    def group_numbers(self) -> Rows:
        """Number of the group of each row, (n,) int; views have that of their image.

        An image without a group has a number of its own, and so has a generated one.
        """
        numbers = number_groups(self.groups, len(self.y))[self.image]
        numbers[self.generated] = len(self.y) + self.image[self.generated]
        return numbers

    @property
    def is_unit(self) -> NDArray[np.bool_]:
        """Whether each row is an image, or a group, and no view or generated one, (n,) bool."""
        own: NDArray[np.bool_] = self.image == np.arange(len(self.y))
        own[self.generated] = False
        return own

    def name_held_out(self, cache: FeatureCache) -> HeldOut | None:
        """Name the images of val and test where the table has no splits, for `evaluate`.

        Parameters
        ----------
        cache : FeatureCache
            The cache that the partition was read from.

        Returns
        -------
        HeldOut or None
            None where the table has splits.
        """
        if cache.splits.any():
            return None
        val, test = (
            tuple(cache.image_ids(self.list_members(self.splits[name]))) for name in SPLITS[1:]
        )
        return HeldOut(val=val, test=test)

    def collect_images(self, cache: FeatureCache, *, signature: bool) -> FittedImages:
        """Collect what a head records of its images, so that it knows what it has seen.

        Parameters
        ----------
        cache : FeatureCache
            The cache that the partition was read from.
        signature : bool
            Whether signatures are kept, where the cache has any.

        Returns
        -------
        FittedImages
        """
        rows = {name: self.list_members(images) for name, images in self.splits.items()}
        made = self.generated[self.image[self.generated] == self.generated]
        rows["train"] = np.concatenate([rows["train"], self.rows[made]])
        digests, signatures = {name: cache.sha256[found] for name, found in rows.items()}, None
        if signature and cache.signature is not None:
            signatures = {name: cache.signature[rows[name]] for name in ("train", "val")}
        return FittedImages.collect(digests, signatures)

    def _assign(
        self, images: Rows, fractions: Mapping[str, float], random_state: int
    ) -> NDArray[np.str_]:
        return split_rows(
            self.y[images],
            fractions=fractions,
            groups=self.groups_of(images),
            class_names=self.class_names,
            random_state=random_state,
        )

    def _check_classes(self, splits: Mapping[str, Rows]) -> None:
        """Refuse a class without training images: a head cannot learn it."""
        trained = set(self.y[splits["train"]])
        for label, name in enumerate(self.class_names):
            if label not in trained:
                where = [split for split in ("val", "test") if label in self.y[splits[split]]]
                reason = (
                    f"has images in {' and '.join(where)} but not in train"
                    if where
                    else "has no images"
                )
                raise TableError(f"class {name!r} {reason}; add training images or drop the class")
