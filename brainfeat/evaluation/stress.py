"""Measure a head on altered views of images: what an alteration of an image costs it."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from brainfeat.arithmetic import default_errors
from brainfeat.errors import CacheError
from brainfeat.evaluation.abstention import CONFIDENT, is_sole
from brainfeat.evaluation.binomial import Interval, find_bound
from brainfeat.evaluation.bootstrap import CONFIDENCE, MIN_GROUPS, N_RESAMPLES, draw_weights
from brainfeat.evaluation.class_mapping import choose_task
from brainfeat.evaluation.results import Bootstrap
from brainfeat.evaluation.seen_images import find_seen
from brainfeat.evaluation.stress_results import AlteredMetrics, KindSummary, Stress
from brainfeat.evaluation.subsets import open_both
from brainfeat.heads.conformal import COVERAGE
from brainfeat.heads.ood import FALSE_ALARM_RATE

if TYPE_CHECKING:
    from brainfeat.cache.cache import FeatureCache
    from brainfeat.heads.bundle import HeadBundle

# Rows that are predicted at once.
_BLOCK_ROWS = 4096

Flags = NDArray[np.bool_]
Rows = NDArray[np.intp]


@default_errors
def measure_stress(
    bundle: "HeadBundle | str | os.PathLike[str]",
    cache: "FeatureCache | str | os.PathLike[str]",
    *,
    n_resamples: int = N_RESAMPLES,
    random_state: int = 0,
) -> Stress:
    """Measure a head on a cache of altered views, which :func:`brainfeat.stress` wrote.

    Images that the head has seen, or a copy of which, are left out. The intervals are those of
    :func:`brainfeat.evaluate`, and all alterations share the resamples.

    Parameters
    ----------
    bundle : HeadBundle or path-like
        The fitted head.
    cache : FeatureCache or path-like
        With altered views of each image.
    n_resamples : int
        Of the bootstrap, at least 1,000.
    random_state : int
        Seed of the bootstrap.

    Returns
    -------
    Stress

    Raises
    ------
    SpecMismatchError
        The features have another spec than those that the head was fitted on.
    CacheError
        The cache has no altered views, or no labelled image that the head has not seen.
    BundleError
        Images are of a class that the head does not have.
    """
    with open_both(cache, bundle) as (features, (head,)):
        views = _list_views(features)
        labelled = np.flatnonzero(features.mask())
        kept, left_out, notes, groups = _leave_out_seen(head, features, labelled)
        rows = np.stack([np.flatnonzero(features.view == view)[kept] for view in (0, *views)])
        labels = features.y[rows[0]]
        names = [features.class_names[label] for label in np.unique(labels)]
        task, _ = choose_task(names, head.class_names, [])
        y = task.index(labels, features.class_names)
        found = _predict(head, features, rows)
    bootstrap = Bootstrap(
        method="percentile",
        confidence=CONFIDENCE,
        n_resamples=n_resamples,
        random_state=random_state,
    )
    reference, *altered = _measure(found, y, groups, list(views.values()), bootstrap)
    sizes = {name: int((y == label).sum()) for label, name in enumerate(head.class_names)}
    present = [name for name, size in sizes.items() if size]
    if len(present) == 1:
        notes += (
            f"All images are of the class {present[0]}: accuracy is the sensitivity of this class.",
        )
    n_groups = len(np.unique(groups))
    few = f"too few groups: {n_groups}, and {MIN_GROUPS} are needed"
    return Stress(
        n=len(y),
        n_groups=n_groups,
        classes=sizes,
        left_out=left_out,
        reference=reference,
        altered=tuple(sorted(altered, key=lambda entry: entry.change)),
        kinds=_summarise_kinds(altered),
        confident=CONFIDENT,
        bootstrap=bootstrap,
        reason=few if n_groups < MIN_GROUPS else None,
        notes=notes,
    )


def _list_views(cache: "FeatureCache") -> dict[int, Mapping[str, Any]]:
    """List what was done to the images in each altered view of a cache."""
    if not cache.is_altered or cache.augmentation is None:
        raise CacheError(f"{cache.path} has no altered views; name a cache that stress wrote")
    known = dict(enumerate(cache.augmentation["alterations"], start=1))
    views = [int(view) for view in np.unique(cache.view) if view]
    n_images = int((cache.view == 0).sum())
    whole = all(
        view in known
        and isinstance(known[view], dict)
        and {*known[view]} == {"kind", "strength", "unit"}
        and (cache.view == view).sum() == n_images
        for view in views
    )
    if not views or not whole:
        raise CacheError(f"{cache.path} does not have the same altered views of each image")
    return {view: known[view] for view in views}


def _leave_out_seen(
    head: "HeadBundle", cache: "FeatureCache", rows: Rows
) -> tuple[Rows, dict[str, int], tuple[str, ...], Rows]:
    """Choose the images that a head has not seen: their places among all, and their groups."""
    if not len(rows):
        raise CacheError(f"{cache.path} has no labelled images; name a table with labels")
    seen = find_seen([head], cache, rows)
    flags, notes = seen.copies, tuple[str, ...]()
    if flags is None:
        notes = (
            f"Copies of images that the head has seen are not left out: {seen.reasons['copies']}.",
        )
        flags = seen.exact_duplicates
    if flags is None:
        flags = np.zeros(len(rows), np.bool_)
    if flags.all():
        raise CacheError(
            f"the head has seen each of the {len(rows):,} images, or a copy of it; name images "
            "that are new to it"
        )
    places = np.searchsorted(np.flatnonzero(cache.view == 0), rows[~flags])
    left_out = {"seen by the head, or a copy of such an image": int(flags.sum())}
    groups = np.unique(seen.groups[~flags], return_inverse=True)[1]
    return places, {name: n for name, n in left_out.items() if n}, notes, groups


@dataclass(frozen=True, kw_only=True, eq=False)
class _Predicted:
    """What a head predicts for each view (v) of each image (n), all of shape (v, n)."""

    label: Rows
    probability: NDArray[np.float64]
    answered: Flags | None
    flagged: Flags | None


def _predict(head: "HeadBundle", cache: "FeatureCache", rows: Rows) -> _Predicted:
    """Predict rows of a cache, in the order in which they are stored, a block at a time."""
    order = np.argsort(rows, axis=None)
    label = np.empty(rows.size, np.intp)
    probability = np.empty(rows.size)
    detector, conformal = head.ood_detector, head.conformal
    flagged, sole = np.zeros(rows.size, np.bool_), np.zeros(rows.size, np.bool_)
    for start in range(0, rows.size, _BLOCK_ROWS):
        places = order[start : start + _BLOCK_ROWS]
        X = cache.X[rows.ravel()[places]]
        p = head.predict_proba(X)
        label[places], probability[places] = p.argmax(axis=1), p.max(axis=1)
        if detector is not None:
            limit = detector.threshold(FALSE_ALARM_RATE)
            flagged[places] = detector.score(X).scores > limit
        if conformal is not None:
            sets = conformal.predict_sets(p, coverage=COVERAGE)
            sole[places] = is_sole(sets, label[places])
    can_abstain = detector is not None and conformal is not None
    shape = rows.shape
    return _Predicted(
        label=label.reshape(shape),
        probability=probability.reshape(shape),
        answered=(sole & ~flagged).reshape(shape) if can_abstain else None,
        flagged=flagged.reshape(shape) if detector is not None else None,
    )


def _measure(
    found: _Predicted,
    y: Rows,
    groups: Rows,
    alterations: Sequence[Mapping[str, Any]],
    bootstrap: Bootstrap,
) -> list[AlteredMetrics]:
    """Measure the images as they are, and then each alteration."""
    right = found.label == y
    accuracy, change = _find_intervals(right, groups, bootstrap)
    unaltered = {"kind": "none", "strength": None, "unit": ""}
    return [
        AlteredMetrics(
            **alteration,
            accuracy=float(right[view].mean()),
            accuracy_interval=accuracy[view],
            change=float(right[view].mean() - right[0].mean()),
            change_interval=change[view],
            flips=float((found.label[view] != found.label[0]).mean()),
            confident_errors=_average(found.probability[view] > CONFIDENT, ~right[view]),
            answered=_average(_take(found.answered, view)),
            answered_errors=_average(_take(found.answered, view), ~right[view]),
            out_of_distribution=_average(_take(found.flagged, view)),
        )
        for view, alteration in enumerate((unaltered, *alterations))
    ]


def _take(flags: Flags | None, view: int) -> Flags | None:
    return None if flags is None else flags[view]


def _average(flags: Flags | None, chosen: Flags | None = None) -> float | None:
    """Return which fraction of the chosen images is flagged; None where that is not defined."""
    if flags is None or (chosen is not None and not chosen.any()):
        return None
    return float(flags.mean() if chosen is None else flags[chosen].mean())


def _find_intervals(
    right: Flags, groups: Rows, bootstrap: Bootstrap
) -> tuple[list[Interval | None], list[Interval | None]]:
    """Find the intervals of each view's accuracy, and of its change against the first view."""
    n_views, n = right.shape
    n_groups = int(groups.max()) + 1
    if n_groups < MIN_GROUPS:
        return [None] * n_views, [None] * n_views
    sums = np.zeros((n_groups, n_views))
    np.add.at(sums, groups, right.T)
    sizes = np.bincount(groups)
    resamples = draw_weights(n_groups, n, bootstrap.n_resamples, bootstrap.random_state)
    sampled = np.concatenate(
        [(weights @ sums) / (weights @ sizes)[:, None] for weights in resamples]
    )
    accuracy = [
        find_bound(flags, groups, confidence=CONFIDENCE) or ends
        for flags, ends in zip(right, _bound(sampled), strict=True)
    ]
    change = [
        None if np.array_equal(flags, right[0]) else ends
        for flags, ends in zip(right, _bound(sampled - sampled[:, :1]), strict=True)
    ]
    return list(accuracy), change


def _bound(sampled: NDArray[np.float64]) -> list[Interval]:
    """Return the ends of the percentile interval of each column."""
    tail = 50 * (1 - CONFIDENCE)
    low, high = np.percentile(sampled, [tail, 100 - tail], axis=0)
    return list(zip(low.tolist(), high.tolist(), strict=True))


def _summarise_kinds(altered: Sequence[AlteredMetrics]) -> tuple[KindSummary, ...]:
    names = dict.fromkeys(entry.kind for entry in altered)
    summaries = []
    for name in names:
        entries = [entry for entry in altered if entry.kind == name]
        worst = min(entries, key=lambda entry: entry.accuracy)
        summaries.append(
            KindSummary(
                kind=name,
                mean_change=float(np.mean([entry.change for entry in entries])),
                least_accuracy=worst.accuracy,
                at=float(worst.strength or 0.0),
                unit=worst.unit,
            )
        )
    return tuple(sorted(summaries, key=lambda summary: summary.mean_change))
