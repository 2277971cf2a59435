"""Another data set, on which the variants of a head are measured: its images, by several bases."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

from brainfeat.cache.cache import FeatureCache
from brainfeat.cache.image_matching import match_contents
from brainfeat.cache.joined import JoinedCaches
from brainfeat.cache.joining import find_features, join_caches
from brainfeat.errors import CacheError, SpecMismatchError
from brainfeat.evaluation.ablation import AblationImages, ComparedImages, OtherImages
from brainfeat.evaluation.bootstrap import MIN_GROUPS, count_few
from brainfeat.evaluation.class_mapping import Classes, ClassTask, choose_task, require_used
from brainfeat.evaluation.seen_images import find_copied_images
from brainfeat.heads.bags import AnyFeatures
from brainfeat.text import count
from brainfeat.training.partition import Partition
from brainfeat.training.variant_fits import Opened

Rows = NDArray[np.intp]


@dataclass(frozen=True, kw_only=True, eq=False)
class Elsewhere:
    """The images of another data set of which train and val have no copy.

    Attributes
    ----------
    caches : tuple of FeatureCache
        Features of the same images, one cache for each spec.
    cache : FeatureCache
        The one of the plain head, or a join.
    rows : ndarray of shape (e,), int
        Rows of it.
    y : ndarray of shape (e,), int
        Classes of the task.
    groups : ndarray of shape (e,), int
        Copies, and groups of the table.
    task : ClassTask
    left_out : int
        Images that were left out as copies.
    few : dict of str to int
        Classes of fewer than 10 groups, and their images, which were left out as well.
    """

    caches: tuple[FeatureCache, ...]
    cache: FeatureCache
    rows: Rows
    y: Rows
    groups: Rows
    task: ClassTask
    left_out: int
    few: dict[str, int]

    @classmethod
    def read(
        cls,
        caches: Sequence[FeatureCache],
        plain: Opened,
        partition: Partition,
        mappings: Sequence[Classes],
    ) -> Self:
        """Choose the images that the variants are measured on.

        Parameters
        ----------
        caches : sequence of FeatureCache
        plain : Opened
            The plain head.
        partition : Partition
            Its images, with splits.
        mappings : sequence of dict of str to tuple of str
            As :func:`brainfeat.evaluation.class_mapping.check_mappings` returns them.

        Raises
        ------
        SpecMismatchError
            None of the caches has the features of the plain head.
        CacheError
            No class has enough images of which train and val have no copy.
        BundleError, ParameterError
            As in :func:`brainfeat.evaluation.class_mapping.choose_task`.
        """
        there = find_images(plain, caches)
        cache, found = there.cache, there.read()
        units = found.splits["train"]
        fitted = partition.collect_images(plain.cache, signature=True)
        copied, groups = find_copied_images(fitted, cache, found.list_members(units))
        if found.members is not None:
            copied, groups = found.members.any_of(units, copied), units
        present = [cache.class_names[label] for label in np.unique(found.y[units])]
        task, place = choose_task(present, partition.class_names, mappings)
        require_used(mappings, [place])
        new, groups = units[~copied], groups[~copied]
        y = task.index(found.y[new], cache.class_names)
        few = {name: n for name, n in count_few(y, groups, task.names).items() if n}
        kept = ~np.isin(y, [task.names.index(name) for name in few])
        if not kept.any():
            raise CacheError(
                f"{cache.path} has {count(len(new), 'image')} of which train and val have no copy, "
                f"and no class with {MIN_GROUPS} groups of them; measure the variants on others"
            )
        return cls(
            caches=tuple(caches),
            cache=cache,
            rows=found.rows[new[kept]],
            y=y[kept],
            groups=groups[kept],
            task=task,
            left_out=int(copied.sum()),
            few=few,
        )

    def read_features(self, own: Opened) -> AnyFeatures:
        """Read the features of the same images that a variant takes.

        Parameters
        ----------
        own : Opened
            What the variant is fitted on.

        Returns
        -------
        ndarray of shape (e, d), float32, Bags, or BlockVectors

        Raises
        ------
        SpecMismatchError
            None of the caches has them.
        CacheError
            They are of other images.
        """
        there = find_images(own, self.caches)
        cache, found = there.cache, there.read()
        units = found.splits["train"]
        wanted = np.isin(_list_digests(cache, found.rows[units]), self._digests)
        chosen = units[wanted]
        places = match_contents(self.cache, self.rows, cache, found.rows[chosen])
        return found.X[chosen[places]]

    @property
    def images(self) -> ComparedImages:
        """The images, as they are compared."""
        return ComparedImages(
            y=self.y,
            groups=self.groups,
            class_names=self.task.names,
            left_out=self.left_out,
        )

    def describe(self, images: AblationImages) -> OtherImages:
        """Add what is known of the images to how they were compared."""
        return OtherImages(**vars(images), classes=self.task.mapping, few=self.few)

    def predict(self, probabilities: NDArray[np.float64]) -> Rows:
        """Predict classes of the task from probabilities of classes of the head, (e, k) to (e,)."""
        predicted: Rows = self.task.add_up(probabilities).argmax(axis=1)
        return predicted

    @property
    def _digests(self) -> NDArray[np.bytes_]:
        return _list_digests(self.cache, self.rows)


def find_images(own: Opened, caches: Sequence[FeatureCache]) -> Opened:
    """Find what a head takes among caches of other images, and join it where it was joined.

    Parameters
    ----------
    own : Opened
        What the head is fitted on.
    caches : sequence of FeatureCache
        Of other images.

    Returns
    -------
    Opened
        The same of these images.

    Raises
    ------
    SpecMismatchError
        None of the caches has the features, or the maps.
    """
    if isinstance(own.cache, JoinedCaches):
        parts = [_require_features(part, caches) for part in own.cache.caches]
        joined = join_caches(parts, on=own.cache.on, names=own.cache.names)
        return replace(own, cache=joined)
    having = [cache for cache in caches if not own.maps or cache.stored_spec.pooling == "none"]
    return replace(own, cache=_require_features(own.cache, having))


def _require_features(own: FeatureCache, caches: Sequence[FeatureCache]) -> FeatureCache:
    found = find_features(own.spec, caches)
    if found is None:
        raise SpecMismatchError(
            f"none of the caches of other images has the features of {own.path} "
            f"({own.spec.backbone}, {own.spec.layer}); extract these images with the same base"
        )
    return found


def _list_digests(cache: FeatureCache, rows: Rows) -> NDArray[np.bytes_]:
    return np.ascontiguousarray(cache.sha256[rows]).view("V32").reshape(-1)
