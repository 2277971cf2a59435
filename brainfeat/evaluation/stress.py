"""Measure a head on altered views of images: what an alteration of an image costs it."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from brainfeat.arithmetic import default_errors
from brainfeat.errors import CacheError
from brainfeat.evaluation.abstention import CONFIDENT
from brainfeat.evaluation.binomial import Interval, find_bound
from brainfeat.evaluation.bootstrap import CONFIDENCE, MIN_GROUPS, N_RESAMPLES, draw_weights
from brainfeat.evaluation.results import Bootstrap
from brainfeat.evaluation.seen_images import find_seen
from brainfeat.evaluation.stress_results import AlteredMetrics, KindSummary, Stress
from brainfeat.evaluation.subsets import Plan, open_both, plan_images
from brainfeat.evaluation.units import GROUP, IMAGE, answer_units, choose_unit, name_unit
from brainfeat.heads.pooling import Answers, answer, join_answers, pool_answers
from brainfeat.heads.reading import read_features
from brainfeat.text import count

if TYPE_CHECKING:
    from brainfeat.cache.cache import FeatureCache
    from brainfeat.heads.bundle import HeadBundle

# Why images are left out.
SEEN = {
    IMAGE: "seen by the head, or a copy of such an image",
    GROUP: "of patients of whom the head has seen an image, or a copy",
}
# Rows that are predicted at once.
_BLOCK_ROWS = 4096

Flags = NDArray[np.bool_]
Rows = NDArray[np.intp]


@default_errors
def measure_stress(
    bundle: "HeadBundle | str | os.PathLike[str]",
    cache: "FeatureCache | str | os.PathLike[str]",
    *,
    unit: str | None = None,
    group_label: str | None = None,
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
    unit : {"image", "group"} or None
        What is measured, as in :func:`brainfeat.evaluate`. The answers for a group are those for
        its images that were altered in the same way.
    group_label : str or None
        As there.
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
    TableError
        Groups are measured, and the table has none, or one is in several classes.
    """
    with open_both(cache, bundle) as (features, (head,)):
        views = _list_views(features)
        if not features.mask().any():
            raise CacheError(f"{features.path} has no labelled images; name a table with labels")
        rule = choose_unit(unit, group_label, [head])
        everything = plan_images(head, features, "all", rule=rule)
        plan, left_out, notes, groups = _leave_out_seen(head, features, everything)
        places = np.searchsorted(np.flatnonzero(features.view == 0), plan.rows)
        rows = np.stack([np.flatnonzero(features.view == view)[places] for view in (0, *views)])
        found = _predict(head, features, plan, rows)
    y = plan.y
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
        noun = name_unit(plan.unit)
        notes += (f"All {noun}s are of the class {present[0]}: accuracy is its sensitivity.",)
    n_groups = len(np.unique(groups))
    few = f"too few groups: {n_groups}, and {MIN_GROUPS} are needed"
    return Stress(
        n=len(y),
        n_groups=n_groups,
        unit=plan.unit,
        n_images=len(plan.rows),
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
    head: "HeadBundle", cache: "FeatureCache", plan: Plan
) -> tuple[Plan, dict[str, int], tuple[str, ...], Rows]:
    """Choose what a head has not seen, and number the groups that are drawn together."""
    seen = find_seen([head], cache, plan.rows).pool(plan)
    flags, notes, noun = seen.copies, tuple[str, ...](), name_unit(plan.unit)
    if flags is None:
        notes = (
            f"Copies of images that the head has seen are not left out: {seen.reasons['copies']}.",
        )
        flags = seen.exact_duplicates
    if flags is None:
        flags = np.zeros(len(plan.y), np.bool_)
    if flags.all():
        raise CacheError(
            f"the head has seen each of the {count(len(plan.y), noun)}, or a copy; name images "
            "that are new to it"
        )
    kept, groups = plan.select(~flags), np.unique(seen.groups[~flags], return_inverse=True)[1]
    n_left_out = len(plan.rows) - len(kept.rows)
    return kept, {SEEN[plan.unit]: n_left_out} if n_left_out else {}, notes, groups


@dataclass(frozen=True, kw_only=True, eq=False)
class _Predicted:
    """What a head predicts for each view (v) of each image or group (n), all of shape (v, n)."""

    label: Rows
    probability: NDArray[np.float64]
    answered: Flags | None
    flagged: Flags | None


def _predict(head: "HeadBundle", cache: "FeatureCache", plan: Plan, rows: Rows) -> _Predicted:
    """Predict each view of the images (v, m) of a plan, and pool those of a group."""
    if head.bag is None:
        views = _answer_images(head, cache, plan, rows)
    else:
        views = [answer_units(head, cache, replace(plan, rows=view)).answers for view in rows]
    can_abstain = head.ood_detector is not None and head.conformal is not None
    decided = [view.decided.any(axis=1) for view in views]
    flags = [view.flagged for view in views if view.flagged is not None]
    return _Predicted(
        label=np.stack([view.labels for view in views]),
        probability=np.stack([view.probabilities.max(axis=1) for view in views]),
        answered=np.stack(decided) if can_abstain else None,
        flagged=np.stack(flags) if flags else None,
    )


def _answer_images(
    head: "HeadBundle", cache: "FeatureCache", plan: Plan, rows: Rows
) -> list[Answers]:
    """Find the answers for each view, read in blocks in the order in which rows are stored."""
    order = np.argsort(rows, axis=None)
    found = []
    for start in range(0, rows.size, _BLOCK_ROWS):
        X = read_features(head, cache, rows.ravel()[order[start : start + _BLOCK_ROWS]])
        found.append(answer(head, X, head.predict_proba(X)))
    images, places = join_answers(found), np.argsort(order).reshape(rows.shape)
    views = [images.select(view) for view in places]
    if plan.groups is None:
        return views
    return [pool_answers(head, view, plan.groups.offsets) for view in views]


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
