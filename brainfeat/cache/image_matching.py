"""Images of two caches, matched by their content."""

from collections import Counter

import numpy as np
from numpy.typing import NDArray

from brainfeat.cache.cache import FeatureCache
from brainfeat.cache.schema import TEXTS
from brainfeat.errors import CacheError, TableError
from brainfeat.text import count

Rows = NDArray[np.intp]


def match_images(first: FeatureCache, other: FeatureCache) -> Rows:
    """Find the row of each row of one cache in another, by content and view.

    Parameters
    ----------
    first, other : FeatureCache
        Of the same images.

    Returns
    -------
    ndarray of shape (n,), int
        A row of `other` for each row of `first`.

    Raises
    ------
    CacheError
        An image or a view is in one of them alone; the message counts them.
    TableError
        The tables say different things of an image.
    """
    if first.content_sha256 == other.content_sha256:
        return np.arange(len(first))
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
    places[_sort(mine, first.paths)] = _sort(theirs, other.paths)
    _compare_tables(first, other, places)
    return places


def match_contents(first: FeatureCache, rows: Rows, other: FeatureCache, candidates: Rows) -> Rows:
    """Find images of one cache among those of another, by content, whatever the tables say.

    Parameters
    ----------
    first : FeatureCache
    rows : ndarray of shape (n,), int
        Rows of its images.
    other : FeatureCache
    candidates : ndarray of shape (n,), int
        Rows of the images of the other.

    Returns
    -------
    ndarray of shape (n,), int
        For each of `rows`, a place in `candidates`.

    Raises
    ------
    CacheError
        An image is in one of them alone; the message counts them.
    """
    wanted, found = (
        np.ascontiguousarray(cache.sha256[chosen]).view("V32").reshape(-1)
        for cache, chosen in ((first, rows), (other, candidates))
    )
    missing, more = _count_missing(wanted, found), _count_missing(found, wanted)
    if missing or more:
        raise CacheError(
            f"{other.path} lacks {missing:,} of the {len(wanted):,} images of {first.path}, and "
            f"has {more:,} others; extract both from one table"
        )
    places = np.empty(len(wanted), np.intp)
    places[_sort(wanted, first.paths[rows])] = _sort(found, other.paths[candidates])
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


def _sort(keys: NDArray[np.bytes_], paths: NDArray[np.str_]) -> Rows:
    # Files of one content have the same features: their paths decide, if they are the same.
    return np.lexsort([paths, np.unique(keys, return_inverse=True)[1]])


def _compare_tables(first: FeatureCache, other: FeatureCache, places: Rows) -> None:
    """Refuse tables that say different things of an image."""
    named = [np.array([*cache.class_names, ""])[cache.y] for cache in (first, other)]
    columns = {
        "class": named,
        **{name: [getattr(cache, f"{name}s") for cache in (first, other)] for name in TEXTS[1:]},
        "origin": [np.where(cache.is_generated, "generated", "") for cache in (first, other)],
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
