"""Joined caches as one: modalities of a patient, or bases of an image, each of them a block."""

import hashlib
import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from copy import copy
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from brainfeat.cache.cache import FeatureCache
from brainfeat.cache.image_matching import match_images
from brainfeat.cache.joined_rows import join_columns, join_rows
from brainfeat.cache.spec import FeatureSpec
from brainfeat.cache.stored_array import StoredArray
from brainfeat.canonical import canonical_json, parse_json
from brainfeat.errors import CacheError, TableError

Rows = NDArray[np.intp]
# What the blocks of a join have in common: the groups of the table, or the images.
On = Literal["group", "image"]

# What the spec of a join has as the name of its base.
JOINED = "joined"
# What a block can be called.
BLOCK_NAME = re.compile(r"[\w.+-]+")


class JoinedCaches(FeatureCache):
    """Several open caches as one; what has features of one spec is a block.

    Attributes
    ----------
    names : tuple of str
        Name of each block.
    caches : tuple of FeatureCache
        The blocks, in the order of their features.
    on : {"group", "image"}
        What they have in common.
    spec : FeatureSpec
        As :func:`join_specs` makes it of theirs.
    class_names : tuple of str
        The classes of all blocks, in the order in which they first appear.
    """

    on: On

    def __init__(self, names: Sequence[str], caches: Sequence[FeatureCache]) -> None:
        self.names, self.caches = tuple(names), tuple(caches)
        self.path = Path(" + ".join(str(cache.path) for cache in caches))
        self.spec = self.stored_spec = join_specs(names, [cache.spec for cache in caches])
        self.class_names = _unite_classes(caches)
        self.rejected = tuple(entry for cache in caches for entry in cache.rejected)
        self.augmentation = None
        keys = {cache.provenance.get("patient_key") for cache in caches} - {None}
        self.provenance = {"patient_key": keys.pop()} if len(keys) == 1 else {}
        self.created_at = max(cache.created_at for cache in caches)
        self._opened = ExitStack()

    def __len__(self) -> int:
        return len(self.view)

    def __repr__(self) -> str:
        return f"<JoinedCaches on {self.on}: {', '.join(self.names)}; {len(self)} rows>"

    @property
    def widths(self) -> tuple[int, ...]:
        """Number of features of each block."""
        return tuple(cache.spec.n_features for cache in self.caches)

    @cached_property
    def content_sha256(self) -> str:
        """Digest of the names of the blocks and of their contents."""
        return _digest(
            [[n, c.content_sha256] for n, c in zip(self.names, self.caches, strict=True)]
        )

    def assign(self, *_: Any, **__: Any) -> None:
        """Refuse another table: each block has its own.

        Raises
        ------
        CacheError
            Always.
        """
        raise CacheError("a join takes the tables of its blocks; assign one to each before joining")

    @property
    def layers(self) -> tuple[str, ...]:
        """Nothing: the layers are those of the blocks."""
        return ()

    @property
    def maps(self) -> StoredArray:
        """Refuse maps: they are those of each block.

        Raises
        ------
        CacheError
            Always.
        """
        raise CacheError("a join has pooled features alone; take the maps of one of its caches")

    def select(self, layer: str) -> Self:
        """Refuse a layer: it is one of a block.

        Raises
        ------
        CacheError
            Always.
        """
        raise CacheError(f"a join has no layer {layer!r}; select that of a cache before joining")

    def hold(self, files: ExitStack) -> None:
        """Take files that were opened for the join, which closes them."""
        self._opened = files

    def close(self) -> None:
        """Close the files that were opened for the join."""
        self._opened.close()

    def _number_labels(self, cache: FeatureCache) -> NDArray[np.int64]:
        """Return the labels of a block as indices into the classes of the join."""
        place = [self.class_names.index(name) for name in cache.class_names]
        numbered: NDArray[np.int64] = np.array([*place, -1], np.int64)[cache.y]
        return numbered


class GroupJoin(JoinedCaches):
    """Caches whose groups, such as patients, are the same: the rows of one after another."""

    on = "group"

    @cached_property
    def starts(self) -> Rows:
        """The first row of each block, and the number of all rows."""
        return np.cumsum([0, *map(len, self.caches)])

    @cached_property
    def block(self) -> Rows:
        """The block of each row, an index into `names`, (n,) int."""
        return np.repeat(np.arange(len(self.caches)), np.diff(self.starts))

    @property
    def X(self) -> Any:  # noqa: N802
        """Refuse features by row: they are those of each block.

        Raises
        ------
        CacheError
            Always.
        """
        raise CacheError(
            f"the rows of {self.path} have features of different blocks; join_caches gives them "
            "by block, as caches"
        )

    @cached_property
    def signature(self) -> Any:
        """As of a cache; None where a block has none."""
        found = [cache.signature for cache in self.caches if cache.signature is not None]
        return join_rows(found) if len(found) == len(self.caches) else None

    @property
    def origin(self) -> NDArray[np.int16]:
        """As of a cache."""
        return np.concatenate([cache.origin for cache in self.caches])

    def column(self, name: str) -> NDArray[Any]:
        """Read a column of all blocks; labels index the classes of the join.

        A path begins with the name of its block.
        """
        if name == "label":
            return np.concatenate([self._number_labels(cache) for cache in self.caches])
        columns = [cache.column(name) for cache in self.caches]
        if name == "path":
            # Files of several blocks may have one name.
            columns = [
                np.strings.add(f"{block}/".encode(), column)
                for block, column in zip(self.names, columns, strict=True)
            ]
        return np.concatenate(columns)

    def blocks(self, name: str) -> Iterator[NDArray[Any]]:
        """Yield a column in order, a few megabytes at a time."""
        if name in ("label", "path"):
            yield self.column(name)
            return
        for cache in self.caches:
            yield from cache.blocks(name)

    def _text(self, name: str) -> NDArray[np.str_]:
        if name == "path":
            return super()._text(name)
        # Not as it is stored: another table may have been assigned to a block.
        return np.concatenate([getattr(cache, f"{name}s") for cache in self.caches])


class ImageJoin(JoinedCaches):
    """Caches of the same images by several bases or layers: the rows of the first."""

    on = "image"

    def __init__(self, names: Sequence[str], caches: Sequence[FeatureCache]) -> None:
        super().__init__(names, caches)
        self._table = caches[0]
        self.augmentation = self._table.augmentation
        # The row of each cache that belongs to each row of the first.
        self.places = [np.arange(len(self._table))]
        self.places += [match_images(self._table, other) for other in caches[1:]]
        self.y = self._number_labels(self._table)

    @cached_property
    def X(self) -> Any:  # noqa: N802
        """Features of all blocks side by side, (n, Σd) float32, read when indexed."""
        return join_columns([cache.X for cache in self.caches], self.places)

    def take(self, block: int, features: FeatureCache | None = None) -> "ImageJoin":
        """Return the features of one block alone, in the rows of the join; its spec is theirs.

        Parameters
        ----------
        block : int
            Place of the block in `names`.
        features : FeatureCache or None
            Those of another layer of the block; None takes those that were joined.

        Returns
        -------
        ImageJoin
            Of the same open files.
        """
        taken, part = copy(self), features or self.caches[block]
        vars(taken).pop("X", None)
        taken.names, taken.caches = (self.names[block],), (part,)
        taken.places, taken.spec = [self.places[block]], part.spec
        return taken

    @property
    def signature(self) -> Any:
        """As of the first block."""
        return self._table.signature

    @property
    def origin(self) -> NDArray[np.int16]:
        """As of the first block."""
        return self.caches[0].origin

    def column(self, name: str) -> NDArray[Any]:
        """Read a column of the first block; labels index the classes of the join."""
        return self.y if name == "label" else self._table.column(name)

    def blocks(self, name: str) -> Iterator[NDArray[Any]]:
        """Yield a column in order, a few megabytes at a time."""
        return self._table.blocks(name)

    def _text(self, name: str) -> NDArray[np.str_]:
        found: NDArray[np.str_] = getattr(self._table, f"{name}s")
        return found


def join_specs(names: Sequence[str], specs: Sequence[FeatureSpec]) -> FeatureSpec:
    """Make one spec of those of several blocks, whose features are side by side.

    Parameters
    ----------
    names : sequence of str
    specs : sequence of FeatureSpec

    Returns
    -------
    FeatureSpec
        Its base has the name ``"joined"``, its layer the names of the blocks, and its digest of
        weights is one of names and specs in their order.

    Examples
    --------
    >>> spec = FeatureSpec(
    ...     backbone="vgg16", layer="block5_pool", n_features=512, weights_sha256="0" * 64
    ... )
    >>> joined = join_specs(["t1", "flair"], [spec, spec])
    >>> joined.backbone, joined.layer, joined.n_features
    ('joined', 't1+flair', 1024)
    """
    parts = [[name, parse_json(spec.to_json())] for name, spec in zip(names, specs, strict=True)]
    return FeatureSpec(
        backbone=JOINED,
        layer="+".join(names),
        n_features=sum(spec.n_features for spec in specs),
        weights_sha256=_digest(parts),
    )


def _unite_classes(caches: Sequence[FeatureCache]) -> tuple[str, ...]:
    """Unite the classes by their names, which all caches must take from one list."""
    largest = max((cache for cache in caches), key=lambda cache: len(cache.class_names))
    for cache in caches:
        if odd := set(cache.class_names) - set(largest.class_names):
            raise TableError(
                f"{cache.path} has the class {min(odd)!r}, and {largest.path} has "
                f"{', '.join(largest.class_names)}; expected the same names of classes in both: "
                "correct the tables"
            )
    return tuple(dict.fromkeys(name for cache in caches for name in cache.class_names))


def _digest(parts: Any) -> str:
    return hashlib.sha256(canonical_json(parts).encode("ascii")).hexdigest()
