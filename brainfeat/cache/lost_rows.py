"""Rows of a cache that a run over another table would lose, which is refused."""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator

import numpy as np

from brainfeat.cache.cache import FeatureCache
from brainfeat.cache.merging import Keys
from brainfeat.cache.row_index import KeySet, row_keys
from brainfeat.errors import CacheError

_KEEP_ROWS = "pass overwrite=True to drop them and keep the others, or choose another output"


def check_sizes(
    cache: FeatureCache, sizes: Iterable[tuple[int | None, int]], *, paths: Collection[str]
) -> None:
    """Refuse before any work to lose rows, as far as the sizes of files tell.

    Equal contents have equal sizes: of rows of one size and view, no more can be kept than the
    table has. Those that :func:`check_keys` finds by content are as many or more.

    Parameters
    ----------
    cache : FeatureCache
    sizes : iterable of (int or None, int)
        Bytes and view of each row of the table; None where the size is not known.
    paths : collection of str
        Of the table, to name an image that it lacks.

    Raises
    ------
    CacheError
        The cache holds such rows.
    """
    wanted = Counter(sizes)
    keys = np.concatenate([np.empty(0, "S34"), *iterate_keys(cache)])
    _, rows = np.unique(keys, return_index=True)
    held = cache.column("file_bytes")[rows].tolist(), cache.view[rows].tolist()
    pairs = dict(zip(rows.tolist(), zip(*held, strict=True), strict=True))
    lost = Counter(pairs.values()) - wanted
    unknown = sum(number for (size, _), number in wanted.items() if size is None)
    if lost.total() <= unknown:
        return
    names, known = cache.column("path"), set(paths)
    seen = (
        f" (see {name}, view {pairs[row][1]})"
        for row in sorted(row for row, pair in pairs.items() if pair in lost)
        if (name := names[row].decode("utf-8")) not in known or pairs[row] not in wanted
    )
    raise CacheError(
        f"{cache.path} holds at least {lost.total() - unknown:,} rows that this run would drop"
        f"{next(seen, '')}; {_KEEP_ROWS}"
    )


def check_keys(cache: FeatureCache, keys: Keys) -> None:
    """Refuse to lose rows of images that are not in the table.

    Parameters
    ----------
    cache : FeatureCache
    keys : ndarray of shape (n,), S34
        Identity of each row of the table.

    Raises
    ------
    CacheError
        The cache holds other rows.
    """
    wanted = KeySet(keys)
    kept = [wanted.contains(block) for block in iterate_keys(cache)]
    lost = np.flatnonzero(~np.concatenate([np.empty(0, np.bool_), *kept]))
    if len(lost):
        first = cache.column("path")[lost[0]].decode("utf-8")
        raise CacheError(
            f"{cache.path} holds {len(lost):,} rows that this run would drop (first: "
            f"{first}, view {cache.view[lost[0]]}); {_KEEP_ROWS}"
        )


def iterate_keys(cache: FeatureCache) -> Iterator[Keys]:
    """Yield the identities of the rows, a few megabytes at a time."""
    start = 0
    for sha256 in cache.blocks("sha256"):
        yield row_keys(sha256, cache.view[start : start + len(sha256)])
        start += len(sha256)
