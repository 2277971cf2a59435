"""The copies and near duplicates of a cache, pair by pair."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from brainfeat.cache.cache import FeatureCache
from brainfeat.cache.signature import ORIENTATIONS
from brainfeat.leakage.altered_copies import ALTERED_SEARCH_LIMIT, find_altered_copies
from brainfeat.leakage.copies import Copies, find_copies
from brainfeat.leakage.duplicates import NEAR_THRESHOLD, find_near_duplicates
from brainfeat.leakage.images import FeatureRows, Images

Kind = Literal["copies", "altered-copies", "near-duplicates"]


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two images that are copies, by their pixels, or near duplicates, by their features.

    Attributes
    ----------
    kind : {"copies", "altered-copies", "near-duplicates"}
        Exact duplicates are copies, too. Altered copies are rotated by some degrees, cropped or
        padded.
    first, second : str
        Paths.
    similarity : float
        To four decimals: the cosine of the signatures, the correlation of the aligned images, or
        the cosine of the centred features.
    orientation : str
        How the second copy must be turned to look like the first, one of
        :data:`brainfeat.cache.signature.ORIENTATIONS`; empty for near duplicates.
    split_first, split_second, label_first, label_second : str
        Empty where the table names none.
    """

    kind: Kind
    first: str
    second: str
    similarity: float
    orientation: str
    split_first: str
    split_second: str
    label_first: str
    label_second: str


def list_pairs(cache: FeatureCache, *, threshold: float = NEAR_THRESHOLD) -> Iterator[Pair]:
    """Yield each pair of copies, then of altered copies, then of near duplicates.

    Copies are looked for where the cache has signatures, and altered ones among up to 10,000
    images.

    Parameters
    ----------
    cache : FeatureCache
    threshold : float
        Of near duplicates.

    Yields
    ------
    Pair
        Two images can be both copies and near duplicates.

    Raises
    ------
    CacheError
        As in :func:`brainfeat.audit`.
    """
    names = _Names(Images(cache))
    yield from list_copies(cache)
    if cache.signature is not None and len(names.images.rows) <= ALTERED_SEARCH_LIMIT:
        blocks = find_altered_copies(cache.signature[names.images.rows])
        yield from names.make_copies("altered-copies", blocks)
    rows = FeatureRows(cache, names.images.rows)
    for block in find_near_duplicates(rows, threshold=threshold):
        for first, second, similarity in zip(*block, strict=True):
            yield names.make_pair("near-duplicates", first, second, similarity, "")


def list_copies(cache: FeatureCache) -> Iterator[Pair]:
    """Yield each pair of copies; none where the cache has no signatures.

    Parameters
    ----------
    cache : FeatureCache

    Yields
    ------
    Pair
    """
    if cache.signature is None:
        return
    names = _Names(Images(cache))
    yield from names.make_copies("copies", find_copies(cache.signature[names.images.rows]))


class _Names:
    """Paths, splits and labels of the images of a cache."""

    def __init__(self, images: Images) -> None:
        self.images = images
        self._paths: NDArray[np.str_] = images.cache.paths[images.rows]
        self._labels = np.array([*images.cache.class_names, ""])[images.y]

    def make_copies(self, kind: Kind, blocks: Iterable[Copies]) -> Iterator[Pair]:
        for block in blocks:
            for first, second, similarity, turn in zip(*block, strict=True):
                yield self.make_pair(kind, first, second, similarity, ORIENTATIONS[turn])

    def make_pair(
        self,
        kind: Kind,
        first: int,
        second: int,
        similarity: float,
        orientation: str,
    ) -> Pair:
        splits = self.images.splits
        return Pair(
            kind=kind,
            first=str(self._paths[first]),
            second=str(self._paths[second]),
            similarity=round(float(similarity), 4),
            orientation=orientation,
            split_first=str(splits[first]),
            split_second=str(splits[second]),
            label_first=str(self._labels[first]),
            label_second=str(self._labels[second]),
        )
