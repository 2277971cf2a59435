"""Link a cache with another: what is known of images there is known of their copies here."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from brainfeat.arithmetic import default_errors
from brainfeat.cache.cache import FeatureCache, opened
from brainfeat.cache.signature import ORIENTATIONS
from brainfeat.canonical import parse_json, read_record, write_record
from brainfeat.errors import CacheError, ParameterError
from brainfeat.leakage.images import Rows
from brainfeat.leakage.matching import Matches, Matching, SignedImages, match_caches

# What can be taken. A split cannot: it belongs to an experiment and not to an image.
LINKED_COLUMNS = ("group", "source", "label")


@dataclass(frozen=True, kw_only=True)
class LinkedCopy:
    """A copy of an image in the other cache, and what is known of it there.

    Attributes
    ----------
    path, value : str
        Path of the copy, and its group, source or label.
    orientation : str or None
        How the copy must be turned to look like the image, such as ``"flip_left_right"``; None for
        an exact duplicate.
    """

    path: str
    value: str
    orientation: str | None


@dataclass(frozen=True, kw_only=True)
class LinkConflict:
    """An image for which a value was not taken, because there are several.

    Attributes
    ----------
    column : {"group", "source", "label"}
    path, value : str
        Path of the image, and the value that it has and keeps; ``""`` where it has none.
    copies : tuple of LinkedCopy
        The most similar copy of each value.
    """

    column: str
    path: str
    value: str
    copies: tuple[LinkedCopy, ...]

    @property
    def reason(self) -> Literal["copies-disagree", "other-value"]:
        """Whether copies have different values, or one value that is not that of the image."""
        return "copies-disagree" if len(self.copies) > 1 else "other-value"


@dataclass(frozen=True, kw_only=True)
class LinkedColumn:
    """What became of a column: each image is counted once.

    Attributes
    ----------
    taken : int
        Images that had no value, and got that of their copies.
    agreed : int
        Images that had the value of their copies already.
    conflicts : int
        Images whose copies have different values, or another one than the image.
    unknown : int
        Images of whose copies the value is not known.
    without_copy : int
    """

    taken: int
    agreed: int
    conflicts: int
    unknown: int
    without_copy: int


@dataclass(frozen=True, kw_only=True)
class Linking:
    """What the images of one cache got from their copies in another.

    Attributes
    ----------
    images : int
        Images of the cache.
    exact_duplicates : int
        Images of which the other cache has an exact duplicate. Blank images have none here.
    copies : int
        Images of which the other cache has a copy; exact duplicates are copies, too.
    blank : int
        Blank images, which are copies of nothing.
    same_images : bool
        Whether each content of one cache is in the other.
    columns : dict of str to LinkedColumn
        By name, in the order in which they were asked for.
    conflicts : tuple of LinkConflict
        By column, in the order of the images.
    table : dict of str to tuple of str
        The linked table of the cache: path, label, split, group and source of each image. Empty
        where the record was read from JSON.
    """

    images: int
    exact_duplicates: int
    copies: int
    blank: int
    same_images: bool
    columns: Mapping[str, LinkedColumn]
    conflicts: tuple[LinkConflict, ...]
    table: Mapping[str, tuple[str, ...]] = field(default_factory=dict, repr=False, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """Return all but the table as what JSON can hold.

        Returns
        -------
        dict
            The attributes by name; each conflict has its ``reason``, too.
        """
        document = write_record(self)
        del document["table"]
        for entry, conflict in zip(document["conflicts"], self.conflicts, strict=True):
            entry["reason"] = conflict.reason
        return document

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read the JSON of what :meth:`to_dict` returned.

        Raises
        ------
        ParameterError
            The text is not JSON, or an attribute is missing or of another type.
        """
        return read_record(cls, parse_json(text, error=ParameterError), error=ParameterError)


@default_errors
def link_caches(
    cache: FeatureCache | str | os.PathLike[str],
    origin: FeatureCache | str | os.PathLike[str],
    *,
    take: Iterable[str],
) -> Linking:
    """Carry over what is known of the images of one cache to their copies in another.

    A value is taken where the image has none and all its copies, of which something is known, have
    the same; nothing is guessed. Where an image has exact duplicates with a value, its other copies
    do not count. Values mean the same in both caches: a patient must have one group in both.

    Parameters
    ----------
    cache : FeatureCache or path-like
        The cache whose images get values, with signatures.
    origin : FeatureCache or path-like
        The cache that they are taken from, with signatures; its base may be another.
    take : iterable of str
        What is taken: one or more of ``"group"``, ``"source"`` and ``"label"``. A split is not
        taken: it belongs to an experiment and not to an image.

    Returns
    -------
    Linking
        With the table of the cache. No file changes.

    Raises
    ------
    ParameterError
        A column cannot be taken, or both caches are one file.
    CacheError
        A cache has no signatures or no images, or cannot be opened; or the origin knows a column of
        no image.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> from brainfeat import extract, read_table
    >>> from brainfeat.phantoms import write_phantoms
    >>> options = {"backbone": "mobilenet-0.75", "weights": "random", "input_size": 32}
    >>> with TemporaryDirectory() as folder:
    ...     path = write_phantoms(f"{folder}/slices", patients_per_class=2, size=48)
    ...     origin = extract(read_table(path), f"{folder}/origin.h5", **options)
    ...     found = extract(read_table(path.parent / "Testing"), f"{folder}/found.h5", **options)
    ...     linking = link_caches(found.output, origin.output, take=["group"])
    >>> linking.columns["group"].taken, linking.table["group"][0]
    (16, 'glioma-001')
    """
    columns = check_columns(take)
    with opened(cache) as features, opened(origin) as known:
        matching = match_caches([features, known])
        return _link(matching, columns)


def check_columns(take: Iterable[str]) -> tuple[str, ...]:
    """Check which columns are to be taken.

    Parameters
    ----------
    take : iterable of str
        Names; one that is repeated counts once.

    Returns
    -------
    tuple of str

    Raises
    ------
    ParameterError
        There is no name, or one that cannot be taken.

    Examples
    --------
    >>> check_columns(["group", "source"])
    ('group', 'source')
    """
    names = tuple(dict.fromkeys(take))
    expected = f"expected one or more of {', '.join(LINKED_COLUMNS)}"
    if "split" in names:
        raise ParameterError(
            f"a split cannot be taken, because it belongs to an experiment and not to an image; "
            f"{expected}"
        )
    if unknown := [name for name in names if name not in LINKED_COLUMNS]:
        raise ParameterError(f"unknown columns {', '.join(map(repr, unknown))}; {expected}")
    if not names:
        raise ParameterError(f"no column to take; {expected}")
    return names


class _Linked(NamedTuple):
    """A column after linking, its counts and its conflicts."""

    values: NDArray[np.str_]
    counts: LinkedColumn
    conflicts: tuple[LinkConflict, ...]


def _link(matching: Matching, columns: tuple[str, ...]) -> Linking:
    images, origin = matching.images
    for column in columns:
        if not (_get_column(origin, column) != "").any():
            raise CacheError(
                f"{origin.name} knows the {column} of no image, so none can be taken; take another "
                f"column, or extract it again from a table with a {column} column"
            )
    blank = matching.blank[matching.contents[0]]
    pairs = matching.match_images(0, 1, of=np.flatnonzero(~blank), among=matching.find_first(1))
    copied = _mark(pairs.first, len(images))
    linked = {column: _link_column(matching, column, ~blank, copied) for column in columns}
    table = {"path": images.paths, "label": images.labels, "split": images.splits}
    table |= {"group": images.groups, "source": images.sources}
    table |= {column: found.values for column, found in linked.items()}
    return Linking(
        images=len(images),
        exact_duplicates=int(_mark(pairs.first[pairs.exact], len(images)).sum()),
        copies=int(copied.sum()),
        blank=int(blank.sum()),
        same_images=matching.are_same(0, 1),
        columns={column: found.counts for column, found in linked.items()},
        conflicts=tuple(conflict for found in linked.values() for conflict in found.conflicts),
        table={name: tuple(values.tolist()) for name, values in table.items()},
    )


def _link_column(
    matching: Matching, column: str, shown: NDArray[np.bool_], copied: NDArray[np.bool_]
) -> _Linked:
    images, origin = matching.images
    own, known = _get_column(images, column), _get_column(origin, column)
    pairs = _find_values(matching, known, np.flatnonzero(shown))
    number = np.bincount(pairs.first, minlength=len(images))
    # An image with a single value has a single pair.
    found = np.full(len(images), "", known.dtype)
    found[pairs.first] = known[pairs.second]
    single = number == 1
    taken, agreed = single & (own == ""), single & (own == found)
    conflicts = (number > 0) & ~taken & ~agreed
    chosen = conflicts[pairs.first]
    return _Linked(
        values=np.where(taken, found, own),
        counts=LinkedColumn(
            taken=int(taken.sum()),
            agreed=int(agreed.sum()),
            conflicts=int(conflicts.sum()),
            unknown=int((copied & (number == 0)).sum()),
            without_copy=int((~copied).sum()),
        ),
        conflicts=_name_conflicts(images, origin, column, pairs.take(chosen)),
    )


def _find_values(matching: Matching, known: NDArray[np.str_], shown: Rows) -> Matches:
    """List for each image the most similar copy of each value; exact duplicates come alone."""
    pairs = matching.match_images(0, 1, of=shown, among=matching.find_first(1, known))
    has_exact = _mark(pairs.first[pairs.exact], len(matching.images[0]))
    pairs = pairs.take(pairs.exact | ~has_exact[pairs.first])
    pairs = pairs.take(pairs.rank())
    _, number = np.unique(known[pairs.second], return_inverse=True)
    both = np.stack([pairs.first, number], axis=1)
    _, best = np.unique(both, axis=0, return_index=True)
    # By image, and of each image by similarity.
    best.sort()
    return pairs.take(best[np.argsort(pairs.first[best], kind="stable")])


def _name_conflicts(
    images: SignedImages, origin: SignedImages, column: str, pairs: Matches
) -> tuple[LinkConflict, ...]:
    own, known = _get_column(images, column), _get_column(origin, column)
    copies: dict[int, list[LinkedCopy]] = {}
    for image, copy, _, turn, exact in zip(*pairs, strict=True):
        copies.setdefault(int(image), []).append(
            LinkedCopy(
                path=str(origin.paths[copy]),
                value=str(known[copy]),
                orientation=None if exact else ORIENTATIONS[turn],
            )
        )
    return tuple(
        LinkConflict(
            column=column, path=str(images.paths[image]), value=str(own[image]), copies=tuple(found)
        )
        for image, found in copies.items()
    )


def _get_column(images: SignedImages, column: str) -> NDArray[np.str_]:
    values: NDArray[np.str_] = getattr(images, f"{column}s")
    return values


def _mark(places: Rows, n: int) -> NDArray[np.bool_]:
    marked = np.zeros(n, np.bool_)
    marked[places] = True
    return marked
