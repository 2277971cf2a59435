"""The copies of a cache's images: their groups, which of them are across splits, and how turned."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from brainfeat.cache.signature import ORIENTATIONS, invert_orientation
from brainfeat.leakage.altered_copies import ALTERED_SEARCH_LIMIT, find_altered_copies
from brainfeat.leakage.copies import COPY_THRESHOLD, Copies, find_copies
from brainfeat.leakage.duplicates import Labels, Pairs, connect_pairs

Rows = NDArray[np.intp]

_INVERSE = np.array([invert_orientation(turn) for turn in range(len(ORIENTATIONS))], np.int8)
# Cosines are at most 1: an exact duplicate is more similar than any other copy.
_EXACT = 2.0


@dataclass(frozen=True, kw_only=True, eq=False)
class CopySearch:
    """What is known of the copies among some images.

    Attributes
    ----------
    labels : ndarray of shape (n,), int
        Group of each image: those that a chain of copies, altered or not, or exact duplicates
        connects. A blank image has a group of its own.
    orientation : ndarray of shape (n,), int8
        Of each image, how its most similar copy among the images that were seen must be turned to
        look like it, an index into :data:`brainfeat.cache.signature.ORIENTATIONS`; −1 without such
        a copy, and for the images that were seen.
    altered : ndarray of shape (n,), bool, or None
        Whether an image that has no such copy has an altered one: rotated by some degrees, cropped
        or padded. None where altered copies were not looked for.
    conflicts : Copies
        Pairs that are not exact duplicates, whose labels differ.
    """

    labels: Labels
    orientation: NDArray[np.int8]
    altered: NDArray[np.bool_] | None
    conflicts: Copies

    @property
    def seen(self) -> NDArray[np.bool_]:
        """Whether an image was not seen but has a copy that was, altered or not, (n,) bool."""
        copied = self.orientation >= 0
        return copied if self.altered is None else copied | self.altered

    def count_orientations(self, chosen: NDArray[np.bool_]) -> dict[str, int]:
        """Count the chosen images that have a copy by its orientation; none that is 0."""
        counts = Counter(self.orientation[chosen].tolist())
        return {name: counts[turn] for turn, name in enumerate(ORIENTATIONS) if counts[turn]}


def search_copies(
    signatures: NDArray[np.int8],
    same: Labels,
    *,
    y: NDArray[np.int64],
    seen: NDArray[np.bool_],
    threshold: float = COPY_THRESHOLD,
    n_queries: int | None = None,
) -> CopySearch:
    """Search the copies among some images.

    Each content is searched once, however many files have it, and pairs are not kept. Altered
    copies are looked for among one image of each group, where there are at most 10,000 groups.

    Parameters
    ----------
    signatures : ndarray of shape (n, 1936), int8
    same : ndarray of shape (n,), int
        Labels 0…k−1 of the contents, as
        :func:`brainfeat.leakage.duplicates.label_exact_duplicates` gives them.
    y : ndarray of shape (n,), int
        Classes; −1 is unknown.
    seen : ndarray of shape (n,), bool
        Images that others are compared with, such as those of train and val.
    threshold : float
        As in :func:`brainfeat.leakage.copies.find_copies`.
    n_queries : int or None
        Pairs without one of the first images are not looked for; None looks for all.

    Returns
    -------
    CopySearch
    """
    first, same = _represent(same)
    shown = _choose_labelled(same, y)
    # The contents are in the order of the images.
    n_contents = None if n_queries is None else int(same[:n_queries].max(initial=-1)) + 1
    blank = ~signatures.any(axis=1)
    was_seen = np.zeros(len(first), np.bool_)
    was_seen[same[seen & ~blank]] = True
    best = np.where(was_seen, _EXACT, -1.0)
    turns = np.where(was_seen, 0, -1).astype(np.int8)
    conflicts: list[Copies] = []

    def look() -> Iterator[Pairs]:
        for block in find_copies(signatures[first], threshold=threshold, n_queries=n_contents):
            back = block._replace(
                first=block.second, second=block.first, orientation=_INVERSE[block.orientation]
            )
            for pairs in (block, back):
                _keep_best(best, turns, _take(pairs, was_seen[pairs.second]))
            conflicts.append(_take(block, _differ(y[shown], block)))
            yield Pairs(*block[:3])

    contents = connect_pairs(look(), len(first))
    altered, pairs = _find_altered(signatures[first], contents, was_seen, n_queries=n_contents)
    labels = connect_pairs([Pairs(*pairs[:3])], len(first), labels=contents)[same]
    conflicts.append(_take(pairs, _differ(y[shown], pairs)))
    labels[blank] = len(first) + np.arange(blank.sum())
    mixed = _join(conflicts)
    return CopySearch(
        labels=np.unique(labels, return_inverse=True)[1],
        orientation=np.where(seen | blank, np.int8(-1), turns[same]),
        altered=None if altered is None else altered[same] & (turns[same] < 0) & ~seen & ~blank,
        conflicts=mixed._replace(first=shown[mixed.first], second=shown[mixed.second]),
    )


def _find_altered(
    signatures: NDArray[np.int8],
    labels: Labels,
    was_seen: NDArray[np.bool_],
    *,
    n_queries: int | None,
) -> tuple[NDArray[np.bool_] | None, Copies]:
    """Find the contents whose group has an altered copy in a group that was seen, and the pairs.

    One content stands for each group, the first one: so those of queries come first.
    """
    _, representatives = np.unique(labels, return_index=True)
    order = np.sort(representatives)
    if len(order) > ALTERED_SEARCH_LIMIT:
        return None, _join([])
    n_groups = None if n_queries is None else int((order < n_queries).sum())
    pairs = _join(list(find_altered_copies(signatures[order], n_queries=n_groups)))
    pairs = pairs._replace(first=order[pairs.first], second=order[pairs.second])
    seen_groups = np.zeros(labels.max(initial=-1) + 1, np.bool_)
    seen_groups[labels[was_seen]] = True
    altered = np.zeros(len(seen_groups), np.bool_)
    for one, other in ((pairs.first, pairs.second), (pairs.second, pairs.first)):
        altered[labels[one[seen_groups[labels[other]]]]] = True
    return altered[labels], pairs


def _represent(same: Labels) -> tuple[Rows, Labels]:
    """List the first image of each content, in order, and the place of each image's content."""
    _, first = np.unique(same, return_index=True)
    order = np.argsort(first)
    return first[order], np.argsort(order)[same]


def _choose_labelled(same: Labels, y: NDArray[np.int64]) -> Rows:
    """List the first labelled image of each content, or the first one where none is labelled."""
    order = np.lexsort((y < 0, same))
    first: Rows = order[np.unique(same[order], return_index=True)[1]]
    return first


def _differ(y: NDArray[np.int64], pairs: Copies) -> NDArray[np.bool_]:
    """Return which pairs have two different classes, both known."""
    one, other = y[pairs.first], y[pairs.second]
    differ: NDArray[np.bool_] = (one != other) & (one >= 0) & (other >= 0)
    return differ


def _join(blocks: list[Copies]) -> Copies:
    if not blocks:
        none = np.empty(0, np.intp)
        return Copies(none, none, none.astype(np.float32), none.astype(np.int8))
    return Copies(
        np.concatenate([block.first for block in blocks]),
        np.concatenate([block.second for block in blocks]),
        np.concatenate([block.similarity for block in blocks]),
        np.concatenate([block.orientation for block in blocks]),
    )


def _take(copies: Copies, chosen: NDArray[np.bool_]) -> Copies:
    return Copies(
        copies.first[chosen],
        copies.second[chosen],
        copies.similarity[chosen],
        copies.orientation[chosen],
    )


def _keep_best(best: NDArray[np.float64], turns: NDArray[np.int8], pairs: Copies) -> None:
    """Note for the first image of each pair the most similar second one, the least turned first."""
    order = np.lexsort((pairs.orientation, -pairs.similarity, pairs.first))
    images, place = np.unique(pairs.first[order], return_index=True)
    similarity, turn = pairs.similarity[order][place], pairs.orientation[order][place]
    better = similarity > best[images]
    best[images[better]] = similarity[better]
    turns[images[better]] = turn[better]
