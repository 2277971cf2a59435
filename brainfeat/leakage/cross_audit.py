"""Audit several caches against each other: which images of one are copies of images of another."""

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Self

import numpy as np

from brainfeat.arithmetic import default_errors
from brainfeat.cache.cache import FeatureCache, opened
from brainfeat.cache.signature import ORIENTATIONS
from brainfeat.canonical import parse_json, read_record, write_record
from brainfeat.errors import ParameterError
from brainfeat.leakage.copies import COPY_THRESHOLD
from brainfeat.leakage.images import Rows
from brainfeat.leakage.matching import Matching, match_caches
from brainfeat.leakage.results import DuplicateKind, LabelConflict
from brainfeat.text import count

# Pairs of contents whose images are listed at a time.
_PAIRS_AT_ONCE = 4096


@dataclass(frozen=True, kw_only=True)
class CacheSide:
    """The images of one cache that another cache has, too.

    Attributes
    ----------
    cache : str
        Path of the cache.
    images : int
        All its images.
    exact_duplicates : int
        Images of which the other cache has an exact duplicate.
    copies : int
        Images of which the other cache has a copy. Exact duplicates are copies, too, but for blank
        images, which are copies of nothing.
    by_orientation : dict of str to int
        These images by the orientation of their most similar copy.
    """

    cache: str
    images: int
    exact_duplicates: int
    copies: int
    by_orientation: Mapping[str, int]


@dataclass(frozen=True, kw_only=True)
class CacheOverlap:
    """What two caches have in common.

    Attributes
    ----------
    first, second : CacheSide
    same_images : bool
        Whether each content of one cache is in the other.
    label_conflicts : tuple of LabelConflict
        One image of each cache, that of the first cache first, which are exact duplicates or copies
        and have classes of different names; the most similar come first. Of images with one content
        and one class, the first stands for all.
    """

    first: CacheSide
    second: CacheSide
    same_images: bool
    label_conflicts: tuple[LabelConflict, ...]


@dataclass(frozen=True, kw_only=True)
class CrossAudit:
    """What each two of several caches have in common.

    Attributes
    ----------
    threshold : float
        Least similarity of copies: the cosine of their signatures.
    overlaps : tuple of CacheOverlap
        One for each two caches, in the order in which these were given.
    """

    threshold: float
    overlaps: tuple[CacheOverlap, ...]

    @property
    def findings(self) -> list[str]:
        """What is wrong, one sentence each, cache by cache."""
        return [finding for overlap in self.overlaps for finding in _list_findings(overlap)]

    def to_dict(self) -> dict[str, Any]:
        """Return the attributes as what JSON can hold, and the findings.

        Returns
        -------
        dict
            The attributes by name, and ``findings``, a list of sentences.
        """
        return {**write_record(self), "findings": self.findings}

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read the JSON of what :meth:`to_dict` returned.

        Raises
        ------
        ParameterError
            The text is not JSON, or an attribute is missing or of another type.
        """
        return read_record(cls, parse_json(text, error=ParameterError), error=ParameterError)


@dataclass(frozen=True, kw_only=True)
class CrossPair:
    """An image of one cache and an exact duplicate or copy of it in another.

    Attributes
    ----------
    cache_first, cache_second : str
        Paths of the caches.
    first, second : str
        Paths of the images.
    kind : {"exact-duplicates", "copies"}
    similarity : float
        To four decimals.
    orientation : str
        How the second must be turned to look like the first, such as ``"flip_left_right"``.
    split_first, split_second, label_first, label_second : str
        Empty where the table names none.
    """

    cache_first: str
    cache_second: str
    first: str
    second: str
    kind: DuplicateKind
    similarity: float
    orientation: str
    split_first: str
    split_second: str
    label_first: str
    label_second: str


@default_errors
def audit_between(caches: Sequence[FeatureCache | str | os.PathLike[str]]) -> CrossAudit:
    """Look for images that several caches have in common, and for labels that contradict.

    A head that was fitted on one cache has seen what another cache has in common with it. Exact
    duplicates have the same SHA-256; copies show the same pixels, upright, mirrored or turned by
    quarter turns. Both are found whatever the bases of the caches, which may differ. Copies within
    one cache are not looked for: :func:`brainfeat.audit` does that.

    Parameters
    ----------
    caches : sequence of FeatureCache or path-like
        Two or more, with signatures.

    Returns
    -------
    CrossAudit
        With an overlap for each two of them.

    Raises
    ------
    ParameterError
        There are fewer than two caches, or two of them are one file.
    CacheError
        A cache has no signatures, or no images, or cannot be opened.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> from brainfeat import extract, read_table
    >>> from brainfeat.phantoms import write_phantoms
    >>> options = {"backbone": "mobilenet-0.75", "weights": "random"}
    >>> with TemporaryDirectory() as folder:
    ...     table = read_table(write_phantoms(f"{folder}/slices", patients_per_class=2, size=48))
    ...     small = extract(table, f"{folder}/small.h5", input_size=32, **options)
    ...     large = extract(table, f"{folder}/large.h5", input_size=64, **options)
    ...     found = audit_between([small.output, large.output])
    >>> [overlap] = found.overlaps
    >>> overlap.first.images, overlap.first.copies, overlap.same_images
    (32, 32, True)
    """
    with ExitStack() as stack:
        matching = match_caches([stack.enter_context(opened(cache)) for cache in caches])
        return describe_matching(matching)


def describe_matching(matching: Matching) -> CrossAudit:
    """Count what each two caches have in common, and name labels that contradict."""
    places = range(len(matching.images))
    return CrossAudit(
        threshold=COPY_THRESHOLD,
        overlaps=tuple(
            CacheOverlap(
                first=_describe_side(matching, first, second),
                second=_describe_side(matching, second, first),
                same_images=matching.are_same(first, second),
                label_conflicts=tuple(_find_conflicts(matching, first, second)),
            )
            for first, second in combinations(places, 2)
        ),
    )


def list_cross_pairs(matching: Matching) -> Iterator[CrossPair]:
    """Yield each two images of different caches that are exact duplicates or copies.

    Parameters
    ----------
    matching : Matching
        Of caches that are still open.

    Yields
    ------
    CrossPair
        By caches, the most similar contents first.
    """
    for first, second in combinations(range(len(matching.images)), 2):
        contents = matching.match_contents(first, second)
        contents = contents.take(contents.rank())
        one, other = matching.images[first], matching.images[second]
        for start in range(0, len(contents.first), _PAIRS_AT_ONCE):
            block = contents.take(slice(start, start + _PAIRS_AT_ONCE))
            for i, j, similarity, turn, exact in zip(
                *matching.expand(block, first, second), strict=True
            ):
                yield CrossPair(
                    cache_first=one.name,
                    cache_second=other.name,
                    first=str(one.paths[i]),
                    second=str(other.paths[j]),
                    kind=_name_kind(exact),
                    similarity=round(float(similarity), 4),
                    orientation=ORIENTATIONS[turn],
                    split_first=str(one.splits[i]),
                    split_second=str(other.splits[j]),
                    label_first=str(one.labels[i]),
                    label_second=str(other.labels[j]),
                )


def _name_kind(exact: bool) -> DuplicateKind:
    return "exact-duplicates" if exact else "copies"


def _describe_side(matching: Matching, here: int, there: int) -> CacheSide:
    images, contents = matching.images[here], matching.contents[here]
    pairs = matching.match_images(here, there, among=matching.find_first(there))
    shown = pairs.take(~matching.blank[contents[pairs.first]])
    # The most similar copy of each image comes first, and the least turned of these.
    best = shown.take(shown.rank())
    _, place = np.unique(best.first, return_index=True)
    turns = Counter(best.orientation[place].tolist())
    return CacheSide(
        cache=images.name,
        images=len(images),
        exact_duplicates=len(np.unique(pairs.first[pairs.exact])),
        copies=len(place),
        by_orientation={name: turns[turn] for turn, name in enumerate(ORIENTATIONS) if turns[turn]},
    )


def _find_conflicts(matching: Matching, first: int, second: int) -> Iterator[LabelConflict]:
    one, other = matching.images[first], matching.images[second]
    pairs = matching.match_images(
        first, second, of=_find_labelled(matching, first), among=_find_labelled(matching, second)
    )
    mixed = pairs.take(one.labels[pairs.first] != other.labels[pairs.second])
    for i, j, _, turn, exact in zip(*mixed.take(mixed.rank()), strict=True):
        yield LabelConflict(
            kind=_name_kind(exact),
            paths=(str(one.paths[i]), str(other.paths[j])),
            labels=(str(one.labels[i]), str(other.labels[j])),
            orientation=None if exact else ORIENTATIONS[turn],
        )


def _find_labelled(matching: Matching, place: int) -> Rows:
    """List the first image of each content and class."""
    return matching.find_first(place, matching.images[place].labels)


def _list_findings(overlap: CacheOverlap) -> Iterator[str]:
    first, second = overlap.first, overlap.second
    if number := len(overlap.label_conflicts):
        yield (
            f"{first.cache} and {second.cache} have different labels for "
            f"{count(number, 'pair')} of copies"
        )
    if overlap.same_images:
        yield f"{first.cache} and {second.cache} are caches of the same images"
    elif first.exact_duplicates:
        yield (f"exact duplicates are in both caches: {_count_parts(overlap, 'exact_duplicates')}")
    if first.copies and not overlap.same_images:
        turned = sum(n for name, n in first.by_orientation.items() if name != "upright")
        yield (
            f"copies are in both caches: {_count_parts(overlap, 'copies')}; {turned:,} of the "
            "former mirrored or turned"
        )


def _count_parts(overlap: CacheOverlap, name: str) -> str:
    return ", ".join(
        f"{getattr(side, name):,} of {count(side.images, 'image')} of {side.cache}"
        for side in (overlap.first, overlap.second)
    )
