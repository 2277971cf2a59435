"""Floors: what is reached without learning, by the largest class and by the nearest neighbour."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from brainfeat.errors import ParameterError
from brainfeat.text import count

if TYPE_CHECKING:
    from brainfeat.cache.cache import FeatureCache
    from brainfeat.evaluation.subsets import Plan
    from brainfeat.heads.bundle import HeadBundle

Rows = NDArray[np.intp]
Flags = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class FloorScores:
    """Metrics of a floor on some images.

    Attributes
    ----------
    n : int
        Number of images, or of groups.
    accuracy, balanced_accuracy : float
        As in :class:`brainfeat.metrics.Metrics`.
    """

    n: int
    accuracy: float
    balanced_accuracy: float


@dataclass(frozen=True, kw_only=True)
class Floor:
    """A floor on all images, and on those of which the head has seen no copy.

    Attributes
    ----------
    all : FloorScores or None
        None where it is not known.
    without_copies : FloorScores or None
        None likewise, and where copies were not looked for or no image is left.
    reason : str or None
        Why it is not known.
    """

    all: FloorScores | None = None
    without_copies: FloorScores | None = None
    reason: str | None = None


@dataclass(frozen=True, kw_only=True)
class Floors:
    """What is reached on the same images without learning.

    Attributes
    ----------
    largest_class : Floor
        The class that most of the images have, for all of them: no constant answer is right more
        often.
    nearest_neighbour : Floor
        The class of the image of train and val with the most similar features: the cosine of the
        centred features is largest. An image that the head was fitted on is its own neighbour. Of a
        group, the class that most of its images get so.
    random_weights : Floor or None
        The same by features of the same images in another cache, such as one of random weights;
        None where none was given.
    """

    largest_class: Floor
    nearest_neighbour: Floor
    random_weights: Floor | None


def find_floors(
    head: "HeadBundle",
    cache: "FeatureCache",
    plan: "Plan",
    *,
    copies: Flags | None,
    floor: "FeatureCache | None",
) -> Floors:
    """Find the floors of the images that a head is measured on.

    Parameters
    ----------
    head : HeadBundle
    cache : FeatureCache
    plan : Plan
        Which images, with their classes.
    copies : ndarray of shape (n,), bool, or None
        Of which of these images the head has seen a copy; None where that is not known.
    floor : FeatureCache or None
        A cache of the same images, such as one of random weights.

    Returns
    -------
    Floors

    Raises
    ------
    ParameterError
        `floor` has the features that the head was fitted on.
    """
    if floor is not None and floor.fingerprint == cache.fingerprint:
        raise ParameterError(
            f"{floor.path} has the same features as {cache.path}; a floor needs others, such as "
            'those that extract computes with weights="random"'
        )
    y, new = plan.y, None if copies is None or copies.all() else ~copies
    return Floors(
        largest_class=Floor(
            all=_score(y, np.bincount(y).argmax()),
            without_copies=None if new is None else _score(y[new], np.bincount(y[new]).argmax()),
        ),
        nearest_neighbour=_ask_neighbours(head, cache, plan, new, features=cache),
        random_weights=None
        if floor is None
        else _ask_neighbours(head, cache, plan, new, features=floor),
    )


def _ask_neighbours(
    head: "HeadBundle",
    cache: "FeatureCache",
    plan: "Plan",
    new: Flags | None,
    *,
    features: "FeatureCache",
) -> Floor:
    """Predict the class of the nearest image that was seen, by the features of some cache."""
    from brainfeat.cache.joined import GroupJoin
    from brainfeat.leakage.duplicates import NEAR_SEARCH_LIMIT, find_nearest
    from brainfeat.leakage.images import FeatureRows

    if isinstance(features, GroupJoin):
        return Floor(
            reason="neighbours are those by the features of one cache, and there are several"
        )
    if head.fitted_images is None:
        return Floor(reason="the head does not record what it was fitted on; fit it again to know")
    wanted = cache.sha256[plan.rows]
    seen, missing = _find_rows(features, head.fitted_images.seen)
    asked, absent = _find_rows(features, wanted)
    if missing or absent:
        what = f"{count(missing, 'image')} that the head was fitted on"
        if absent:
            what = f"{count(absent, 'image')} of those that are measured"
        return Floor(reason=f"neighbours are found by features, and the cache does not have {what}")
    seen = seen[features.y[seen] >= 0]
    labels = plan.task.index(features.y[seen], features.class_names)
    seen, labels = seen[labels >= 0], labels[labels >= 0]
    rows = np.union1d(seen, asked)
    if not len(seen):
        return Floor(reason="the cache has no labels of the images that the head was fitted on")
    if len(rows) > NEAR_SEARCH_LIMIT:
        return Floor(
            reason=f"neighbours are looked for among up to {NEAR_SEARCH_LIMIT:,} images, got "
            f"{len(rows):,}"
        )
    nearest = find_nearest(
        FeatureRows(features, rows), np.searchsorted(rows, asked), of=np.searchsorted(rows, seen)
    )
    predicted = _vote(labels[nearest], plan)
    return Floor(
        all=_score(plan.y, predicted),
        without_copies=None if new is None else _score(plan.y[new], predicted[new]),
    )


def _vote(labels: Rows, plan: "Plan") -> Rows:
    """Return the label of each image; of a group, the one that most of its images have."""
    if plan.groups is None:
        return labels
    votes = plan.groups.mean(np.eye(len(plan.task.names))[labels])
    predicted: Rows = votes.argmax(axis=1)
    return predicted


def _find_rows(cache: "FeatureCache", sha256: NDArray[np.uint8]) -> tuple[Rows, int]:
    """Find the first image of each content, in the order of the contents, and count the missing."""
    images = np.flatnonzero(cache.view == 0)
    digests = np.concatenate([cache.sha256[images], sha256]).view("V32").reshape(-1)
    _, content = np.unique(digests, return_inverse=True)
    first = np.full(int(content.max(initial=-1)) + 1, -1, np.intp)
    first[content[: len(images)][::-1]] = images[::-1]
    found: Rows = first[content[len(images) :]]
    return found, int((found < 0).sum())


def _score(y: Rows, predicted: NDArray[np.intp] | np.intp) -> FloorScores:
    right = (y == predicted).astype(np.float64)
    numbers = np.bincount(y)
    present = numbers > 0
    recalls = np.bincount(y, weights=right)[present] / numbers[present]
    return FloorScores(
        n=len(y), accuracy=float(right.mean()), balanced_accuracy=float(recalls.mean())
    )
