"""Joined caches: modalities of a patient, or bases of an image, as one table of several blocks."""

import hashlib
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from brainfeat.cache.cache import FeatureCache, opened
from brainfeat.cache.joined_rows import JoinedColumns, JoinedRows
from brainfeat.cache.schema import TEXTS
from brainfeat.cache.spec import FeatureSpec
from brainfeat.canonical import canonical_json, parse_json
from brainfeat.errors import CacheError, ParameterError, SpecMismatchError, TableError
from brainfeat.text import count, name_some

Rows = NDArray[np.intp]
# What the blocks of a join have in common: the groups of the table, or the images.
On = Literal["group", "image"]

# What the spec of a join has as the name of its base.
JOINED = "joined"
_NAME = re.compile(r"[\w.+-]+")


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
        self.spec = join_specs(names, [cache.spec for cache in caches])
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
        return JoinedRows(found) if len(found) == len(self.caches) else None

    def column(self, name: str) -> NDArray[Any]:
        """Read a column of all blocks; labels index the classes of the join."""
        if name == "label":
            return np.concatenate([self._number_labels(cache) for cache in self.caches])
        return np.concatenate([cache.column(name) for cache in self.caches])

    def blocks(self, name: str) -> Iterator[NDArray[Any]]:
        """Yield a column in order, a few megabytes at a time."""
        for cache in self.caches:
            yield from cache.blocks(name)

    def _text(self, name: str) -> NDArray[np.str_]:
        # Not as it is stored: another table may have been assigned to a block.
        return np.concatenate([getattr(cache, f"{name}s") for cache in self.caches])


class ImageJoin(JoinedCaches):
    """Caches of the same images by several bases: the rows of the first."""

    on = "image"

    def __init__(self, names: Sequence[str], caches: Sequence[FeatureCache]) -> None:
        super().__init__(names, caches)
        self.augmentation = caches[0].augmentation
        self._places = [np.arange(len(caches[0]))]
        self._places += [_match_images(caches[0], other) for other in caches[1:]]
        self.y = self._number_labels(caches[0])

    @cached_property
    def X(self) -> Any:  # noqa: N802
        """Features of all blocks side by side, (n, Σd) float32, read when indexed."""
        return JoinedColumns([cache.X for cache in self.caches], self._places)

    @property
    def signature(self) -> Any:
        """As of the first block."""
        return self.caches[0].signature

    def column(self, name: str) -> NDArray[Any]:
        """Read a column of the first block; labels index the classes of the join."""
        return self.y if name == "label" else self.caches[0].column(name)

    def blocks(self, name: str) -> Iterator[NDArray[Any]]:
        """Yield a column in order, a few megabytes at a time."""
        return self.caches[0].blocks(name)

    def _text(self, name: str) -> NDArray[np.str_]:
        found: NDArray[np.str_] = getattr(self.caches[0], f"{name}s")
        return found


def join_caches(
    caches: Sequence[FeatureCache | str | os.PathLike[str]],
    *,
    on: On = "group",
    names: Sequence[str] | None = None,
) -> JoinedCaches:
    """Join several feature caches into one table.

    On groups, the caches have images of the same groups, such as several modalities of patients:
    the join has the rows of all of them, and a group may be missing in some. On images, they have
    features of the same images by several bases, which are matched by their content; none may be
    missing.

    Parameters
    ----------
    caches : sequence of FeatureCache or path-like
        Two or more. Those that are opened here are closed with the join.
    on : {"group", "image"}
        What the caches have in common.
    names : sequence of str or None
        Name of each block, such as ``"t1"``; None takes the names of the files without the ending.

    Returns
    -------
    JoinedCaches
        A :class:`brainfeat.FeatureCache`; it closes what was opened here.

    Raises
    ------
    ParameterError
        There is one cache alone, a name twice or not one for each, or another value of `on`.
    CacheError
        A cache has feature maps or altered views, or is given twice; or the images are others.
    SpecMismatchError
        On images, two caches have features of the same spec.
    TableError
        The classes have other names, some caches alone have splits, images have no group, or a
        cache shares no group with the others.

    Examples
    --------
    Two modalities of the same patients::

        with join_caches(["t1.h5", "flair.h5"], on="group") as joined:
            print(joined.names, joined.widths)
    """
    if on not in get_args(On):
        raise ParameterError(f"caches are joined on group or image, got {on!r}")
    if isinstance(caches, str | os.PathLike | FeatureCache) or len(caches) < 2:
        raise ParameterError("one cache alone is no join; pass two or more")
    with ExitStack() as stack:
        found = [stack.enter_context(opened(cache)) for cache in caches]
        chosen = check_names(found, names)
        _check_caches(found)
        _check_splits(found)
        if on == "group":
            _check_groups(found)
            joined: JoinedCaches = GroupJoin(chosen, found)
        else:
            _check_specs(found)
            joined = ImageJoin(chosen, found)
        joined._opened = stack.pop_all()
        return joined


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


def check_names(
    caches: Sequence[FeatureCache], names: Sequence[str] | None = None
) -> tuple[str, ...]:
    """Return a name for each block: those that are given, or those of the files.

    Raises
    ------
    ParameterError
        There is not one for each, one is there twice, or one has other characters than letters,
        digits and ``._+-``.
    """
    chosen = tuple(cache.path.stem for cache in caches) if names is None else tuple(names)
    remedy = 'pass names=["t1", "flair"]'
    if len(chosen) != len(caches):
        raise ParameterError(
            f"{count(len(chosen), 'name')} for {count(len(caches), 'cache')}; expected one for each"
        )
    if twice := [name for name, number in Counter(chosen).items() if number > 1]:
        raise ParameterError(
            f"{name_some(twice)} is the name of several blocks; give each its own: {remedy}"
        )
    if odd := [name for name in chosen if not _NAME.fullmatch(name)]:
        raise ParameterError(
            f"{odd[0]!r} is no name of a block; expected letters, digits and ._+- alone: {remedy}"
        )
    return chosen


def _digest(parts: Any) -> str:
    return hashlib.sha256(canonical_json(parts).encode("ascii")).hexdigest()


def _check_caches(caches: Sequence[FeatureCache]) -> None:
    known: dict[str, FeatureCache] = {}
    for cache in caches:
        if isinstance(cache, JoinedCaches):
            raise CacheError(f"{cache.path} is a join; join caches that extract wrote")
        if cache.spec.pooling == "none":
            raise CacheError(f"{cache.path} holds feature maps; a join takes pooled features")
        if cache.is_altered:
            raise CacheError(
                f"{cache.path} holds altered views of images; a join takes caches that extract "
                "wrote"
            )
        if not cache.mask().any():
            raise TableError(f"{cache.path} has no labelled images; extract a table with labels")
        same = known.setdefault(cache.content_sha256, cache)
        if same is not cache:
            raise CacheError(f"{same.path} and {cache.path} have the same content; join others")


def _check_splits(caches: Sequence[FeatureCache]) -> None:
    """Refuse caches of which some have splits and others have none."""
    has_splits = [bool(cache.splits[cache.mask()].any()) for cache in caches]
    if any(has_splits) and not all(has_splits):
        one, other = (caches[has_splits.index(found)].path for found in (True, False))
        raise TableError(
            f"{one} has splits and {other} has none; extract all caches from tables with splits, "
            "or all from tables without"
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


def _check_groups(caches: Sequence[FeatureCache]) -> None:
    """Refuse images without a group, and a cache that shares no group with the others."""
    groups = []
    for cache in caches:
        found = cache.groups[cache.mask()]
        if missing := int((found == "").sum()):
            raise TableError(
                f"{cache.path} has {count(missing, 'labelled image')} of {len(found):,} without a "
                "group, such as a patient; a join on groups needs one for each: give the table a "
                "group column"
            )
        groups.append(set(found.tolist()))
    for place, cache in enumerate(caches):
        rest = [entry for other, entry in enumerate(groups) if other != place]
        if groups[place].isdisjoint(set().union(*rest)):
            others = " or ".join(str(one.path) for one in caches if one is not cache)
            raise TableError(
                f"{cache.path} shares none of its {count(len(groups[place]), 'group')} with "
                f"{others}; were they made with the same --patient-key?"
            )


def _check_specs(caches: Sequence[FeatureCache]) -> None:
    known: dict[str, FeatureCache] = {}
    for cache in caches:
        same = known.setdefault(cache.fingerprint, cache)
        if same is not cache:
            raise SpecMismatchError(
                f"{same.path} and {cache.path} have features of the same spec, which say nothing "
                "more together; join caches of different bases on images, or modalities on groups"
            )


def _match_images(first: FeatureCache, other: FeatureCache) -> Rows:
    """Find the row of each row of the first cache in another, by content and view."""
    mine, theirs = (_list_keys(cache) for cache in (first, other))
    if missing := _count_missing(mine, theirs):
        raise CacheError(
            f"{other.path} lacks {missing:,} of the {len(mine):,} images and views of "
            f"{first.path}, and has {_count_missing(theirs, mine):,} that are not there; extract "
            "both from one table, with the same augmentation"
        )
    if len(theirs) > len(mine):
        raise CacheError(
            f"{first.path} lacks {_count_missing(theirs, mine):,} of the {len(theirs):,} images "
            f"and views of {other.path}; extract both from one table, with the same augmentation"
        )
    places = np.empty(len(mine), np.intp)
    places[_sort(mine, first)] = _sort(theirs, other)
    _compare_tables(first, other, places)
    return places


def _list_keys(cache: FeatureCache) -> NDArray[np.bytes_]:
    views = cache.view.astype(">u2")[:, None].view(np.uint8)
    keys = np.concatenate([cache.sha256, views], axis=1)
    return np.ascontiguousarray(keys).view("V34").reshape(-1)


def _count_missing(wanted: NDArray[np.bytes_], found: NDArray[np.bytes_]) -> int:
    """Count what is wanted and not found, each as often as it is wanted."""
    rest = Counter(wanted.tolist())
    rest.subtract(Counter(found.tolist()))
    return sum(number for number in rest.values() if number > 0)


def _sort(keys: NDArray[np.bytes_], cache: FeatureCache) -> Rows:
    # Files of one content have the same features: their paths decide, if they are the same.
    return np.lexsort([cache.paths, np.unique(keys, return_inverse=True)[1]])


def _compare_tables(first: FeatureCache, other: FeatureCache, places: Rows) -> None:
    """Refuse tables that say different things of an image."""
    named = [np.array([*cache.class_names, ""])[cache.y] for cache in (first, other)]
    columns = {
        "class": named,
        **{name: [getattr(cache, f"{name}s") for cache in (first, other)] for name in TEXTS[1:]},
    }
    for name, (mine, theirs) in columns.items():
        differs = np.flatnonzero(mine != theirs[places])
        if len(differs):
            row = differs[0]
            raise TableError(
                f"{count(len(differs), 'image')} have another {name} in {first.path} than in "
                f"{other.path} (first: {first.paths[row]}, {str(mine[row])!r} and "
                f"{str(theirs[places[row]])!r}); extract both from one table"
            )
