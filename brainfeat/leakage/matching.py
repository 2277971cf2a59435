"""Images of several caches that are exact duplicates or copies of each other."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from brainfeat.cache.cache import FeatureCache
from brainfeat.cache.signature import ORIENTATIONS, SIGNATURE_SIZE, invert_orientation
from brainfeat.errors import CacheError, ParameterError
from brainfeat.files import is_same_file
from brainfeat.leakage.copies import Copies, find_copies
from brainfeat.leakage.duplicates import Labels, label_exact_duplicates
from brainfeat.leakage.images import Rows

_INVERSE = np.array([invert_orientation(turn) for turn in range(len(ORIENTATIONS))], np.int8)


class SignedImages:
    """The images of a cache, which are its rows of view 0, where it has their signatures.

    Parameters
    ----------
    cache : FeatureCache
        Of any base; the features are not read.
    rows : ndarray of int, or None
        Rows of view 0 to which the images are limited.

    Attributes
    ----------
    name : str
        Path of the cache.
    rows : ndarray of shape (n,), int

    Raises
    ------
    CacheError
        The cache has no signatures, or no images.
    """

    def __init__(self, cache: FeatureCache, rows: Rows | None = None) -> None:
        signatures = cache.signature
        if signatures is None:
            raise CacheError(
                f"{cache.path} has no signatures, by which copies are found; run brainfeat extract "
                "again on its images, which adds them without computing a feature"
            )
        self.cache, self.name = cache, str(cache.path)
        self._signatures = signatures
        self.rows: Rows = np.flatnonzero(cache.is_image) if rows is None else rows
        if not len(self.rows):
            raise CacheError(f"{cache.path} has no images to look at")

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def paths(self) -> NDArray[np.str_]:
        """Path of each image, (n,) str."""
        return self.cache.paths[self.rows]

    @cached_property
    def labels(self) -> NDArray[np.str_]:
        """Class of each image by its name, (n,) str; ``""`` where it is unknown."""
        return np.array([*self.cache.class_names, ""])[self.cache.y[self.rows]]

    @cached_property
    def splits(self) -> NDArray[np.str_]:
        """Split of each image, (n,) str; ``""`` without one."""
        return self.cache.splits[self.rows]

    @cached_property
    def groups(self) -> NDArray[np.str_]:
        """Group of each image, (n,) str; ``""`` where it is unknown."""
        return self.cache.groups[self.rows]

    @cached_property
    def sources(self) -> NDArray[np.str_]:
        """Source of each image, (n,) str; ``""`` where it is unknown."""
        return self.cache.sources[self.rows]

    def read_signatures(self, images: Rows) -> NDArray[np.int8]:
        """Read the signatures of some images, (m, 1936) int8."""
        return self._signatures[self.rows[images]]


class Matches(NamedTuple):
    """Pairs of images, or of contents, of two caches.

    Attributes
    ----------
    first, second : ndarray of shape (p,), int
        Places among the images of each cache.
    similarity : ndarray of shape (p,), float32
        Cosine of the signatures; 1 for exact duplicates.
    orientation : ndarray of shape (p,), int8
        How the second must be turned to look like the first: an index into
        :data:`brainfeat.cache.signature.ORIENTATIONS`; 0 for exact duplicates.
    exact : ndarray of shape (p,), bool
        Whether the two are exact duplicates.
    """

    first: Rows
    second: Rows
    similarity: NDArray[np.float32]
    orientation: NDArray[np.int8]
    exact: NDArray[np.bool_]

    def take(self, chosen: "Rows | NDArray[np.bool_] | slice") -> "Matches":
        """Return some of the pairs."""
        return Matches(
            self.first[chosen],
            self.second[chosen],
            self.similarity[chosen],
            self.orientation[chosen],
            self.exact[chosen],
        )

    def rank(self) -> Rows:
        """Return the order of the pairs: exact, then the most similar, then the least turned."""
        keys = (self.second, self.first, self.orientation, -self.similarity, ~self.exact)
        return np.lexsort(keys)


@dataclass(frozen=True, kw_only=True, eq=False)
class Matching:
    """The images of several caches by content, and which contents are copies of each other.

    Attributes
    ----------
    images : tuple of SignedImages
        Of each cache.
    contents : tuple of ndarray of int
        Content of each image of each cache: images of one number are exact duplicates.
    blank : ndarray of shape (k,), bool
        Of each content, whether it is blank and thereby a copy of nothing.
    copies : Copies
        Pairs of contents, of which two caches have one each.
    """

    images: tuple[SignedImages, ...]
    contents: tuple[Labels, ...]
    blank: NDArray[np.bool_]
    copies: Copies

    def match_contents(self, first: int, second: int) -> Matches:
        """List the pairs of contents of two caches, by the places of these among the caches."""
        here, there = self._mark(first), self._mark(second)
        both, copies = np.flatnonzero(here & there), self.copies
        onward = here[copies.first] & there[copies.second]
        back = here[copies.second] & there[copies.first]
        return Matches(
            first=np.concatenate([both, copies.first[onward], copies.second[back]]),
            second=np.concatenate([both, copies.second[onward], copies.first[back]]),
            similarity=np.concatenate(
                [np.ones(len(both), np.float32), copies.similarity[onward], copies.similarity[back]]
            ),
            orientation=np.concatenate(
                [
                    np.zeros(len(both), np.int8),
                    copies.orientation[onward],
                    _INVERSE[copies.orientation[back]],
                ]
            ),
            exact=np.arange(len(both) + onward.sum() + back.sum()) < len(both),
        )

    def match_images(
        self, first: int, second: int, *, of: Rows | None = None, among: Rows | None = None
    ) -> Matches:
        """List the pairs of images of two caches.

        Parameters
        ----------
        first, second : int
            Places of the caches.
        of, among : ndarray of int or None
            Images of the first and of the second cache that are paired; None takes all.

        Returns
        -------
        Matches
        """
        contents = self.match_contents(first, second)
        return self.expand(contents, first, second, of=of, among=among)

    def expand(
        self,
        pairs: Matches,
        first: int,
        second: int,
        *,
        of: Rows | None = None,
        among: Rows | None = None,
    ) -> Matches:
        """Replace each pair of contents by the pairs of images that have them."""
        one, other = self._sort(first, of), self._sort(second, among)
        across = other.counts[pairs.second]
        sizes = one.counts[pairs.first] * across
        pair = np.repeat(np.arange(len(sizes)), sizes)
        place = np.arange(len(pair)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        row, column = np.divmod(place, across[pair])
        found = pairs.take(pair)
        return found._replace(
            first=one.images[one.starts[found.first] + row],
            second=other.images[other.starts[found.second] + column],
        )

    def find_first(self, place: int, values: NDArray[np.str_] | None = None) -> Rows:
        """List the first image of each content of a cache, or of each content and known value."""
        contents = self.contents[place]
        if values is None:
            return np.unique(contents, return_index=True)[1]
        known = np.flatnonzero(values != "")
        _, number = np.unique(values[known], return_inverse=True)
        both = np.stack([contents[known], number], axis=1)
        return np.sort(known[np.unique(both, axis=0, return_index=True)[1]])

    def are_same(self, first: int, second: int) -> bool:
        """Return whether two caches have the same contents."""
        return bool((self._mark(first) == self._mark(second)).all())

    def _mark(self, place: int) -> NDArray[np.bool_]:
        """Return which contents a cache has, (k,)."""
        held = np.zeros(len(self.blank), np.bool_)
        held[self.contents[place]] = True
        return held

    def _sort(self, place: int, chosen: Rows | None) -> "_ByContent":
        contents = self.contents[place]
        images = np.arange(len(contents)) if chosen is None else chosen
        order = np.argsort(contents[images], kind="stable")
        counts = np.bincount(contents[images], minlength=len(self.blank))
        return _ByContent(images[order], np.cumsum(counts) - counts, counts)


class _ByContent(NamedTuple):
    """Images in the order of their contents, and where and how many those of each content are."""

    images: Rows
    starts: Rows
    counts: Rows


def match_caches(caches: Sequence[FeatureCache], rows: Sequence[Rows] | None = None) -> Matching:
    """Find the exact duplicates and the copies between caches.

    Each content is searched once, however many images and caches have it, and those that only the
    largest cache has are not compared with each other.

    Parameters
    ----------
    caches : sequence of FeatureCache
        Two or more, with signatures, of any bases.
    rows : sequence of ndarray of int, or None
        Rows of view 0 of each cache to which its images are limited.

    Returns
    -------
    Matching

    Raises
    ------
    ParameterError
        There are fewer than two caches, or two of them are one file.
    CacheError
        A cache has no signatures, or no images.
    """
    if len(caches) < 2:
        raise ParameterError(f"{len(caches)} caches; expected two or more")
    require_different(caches)
    chosen = [None] * len(caches) if rows is None else rows
    images = tuple(SignedImages(cache, some) for cache, some in zip(caches, chosen, strict=True))
    contents, n_queries = _number_contents(images)
    signatures = _read_signatures(images, contents)
    only = _find_only_cache(contents, len(signatures))
    return Matching(
        images=images,
        contents=contents,
        blank=np.asarray(~signatures.any(axis=1)),
        copies=_search(signatures, only, n_queries=n_queries),
    )


def require_different(caches: Sequence[FeatureCache]) -> None:
    """Refuse caches of which two are one file.

    Raises
    ------
    ParameterError
        It names both.
    """
    for one, other in combinations(caches, 2):
        if one is other or is_same_file(one.path, other.path):
            raise ParameterError(
                f"{one.path} and {other.path} are the same file; expected different caches"
            )


def _number_contents(images: Sequence[SignedImages]) -> tuple[tuple[Labels, ...], int]:
    """Assign numbers to contents, the last ones to those that only the largest cache has.

    Returns those of the images of each cache, and how many contents are not among these last.
    """
    sizes = [len(some) for some in images]
    labels = label_exact_duplicates(
        np.concatenate([some.cache.sha256[some.rows] for some in images])
    )
    elsewhere = np.repeat(np.arange(len(sizes)) != np.argmax(sizes), sizes)
    queried = np.zeros(labels.max() + 1, np.bool_)
    queried[labels[elsewhere]] = True
    number = np.argsort(np.argsort(~queried, kind="stable"))
    contents = np.split(number[labels], np.cumsum(sizes)[:-1])
    return tuple(contents), int(queried.sum())


def _read_signatures(
    images: Sequence[SignedImages], contents: Sequence[Labels]
) -> NDArray[np.int8]:
    """Read the signature of an image of each content, (k, 1936)."""
    signatures = np.empty((1 + max(held.max() for held in contents), SIGNATURE_SIZE), np.int8)
    missing = np.ones(len(signatures), np.bool_)
    for some, held in zip(images, contents, strict=True):
        numbers, first = np.unique(held, return_index=True)
        new = missing[numbers]
        signatures[numbers[new]] = some.read_signatures(first[new])
        missing[numbers] = False
    return signatures


def _find_only_cache(contents: Sequence[Labels], k: int) -> Rows:
    """Return the place of the only cache that has each content, (k,); −1 where several have it."""
    only = np.full(k, -1, np.intp)
    number = np.zeros(k, np.intp)
    for place, held in enumerate(map(np.unique, contents)):
        only[held] = place
        number[held] += 1
    only[number > 1] = -1
    return only


def _search(signatures: NDArray[np.int8], only: Rows, *, n_queries: int) -> Copies:
    """Find the copies among contents, but for pairs within one cache."""
    none = np.empty(0, np.intp)
    found = [Copies(none, none, none.astype(np.float32), none.astype(np.int8))]
    for block in find_copies(signatures, n_queries=n_queries):
        across = (only[block.first] != only[block.second]) | (only[block.first] < 0)
        found.append(Copies(*(column[across] for column in block)))
    return Copies(*(np.concatenate(columns) for columns in zip(*found, strict=True)))
