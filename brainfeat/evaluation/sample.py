"""The images that a head is measured on: all of them, and those that are new to the head."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from brainfeat.evaluation.abstention import count_confident_errors, measure_abstention
from brainfeat.evaluation.bootstrap import (
    MIN_GROUPS,
    NO_IMAGES,
    Intervals,
    count_by_group,
    count_few,
    find_intervals,
    score_overall,
)
from brainfeat.evaluation.floors import find_floors
from brainfeat.evaluation.prevalence import check_prevalence, find_predictive_values
from brainfeat.evaluation.results import (
    Bootstrap,
    ClassEvaluation,
    Evaluation,
    Predictions,
    Results,
    ScaledReliability,
    Subset,
    Subsets,
)
from brainfeat.evaluation.seen_images import find_seen
from brainfeat.evaluation.subsets import Plan, read_values
from brainfeat.evaluation.units import answer_units, name_pooling
from brainfeat.heads.calibration import reliability
from brainfeat.heads.pooling import Answers
from brainfeat.metrics import ClassScores, measure

if TYPE_CHECKING:
    from brainfeat.cache.cache import FeatureCache
    from brainfeat.heads.bundle import HeadBundle
    from brainfeat.leakage.results import Audit


@dataclass(frozen=True, kw_only=True, eq=False)
class Protocol:
    """How images are measured: the arguments of :func:`evaluate`."""

    split: str
    threshold: float | None
    by: Any
    prevalence: Mapping[str, float] | None
    audit: "Audit | None"
    floor: "FeatureCache | None"
    bootstrap: Bootstrap
    unit: str | None = None
    group_label: str | None = None


def measure_images(
    head: "HeadBundle", cache: "FeatureCache", plan: Plan, protocol: Protocol
) -> Evaluation:
    """Measure a head on the images of a plan.

    Parameters
    ----------
    head : HeadBundle
    cache : FeatureCache
        Of the spec of the head, and open.
    plan : Plan
        As :func:`brainfeat.evaluation.subsets.plan_images` returns it.
    protocol : Protocol

    Returns
    -------
    Evaluation
    """
    rows = plan.rows
    found = answer_units(head, cache, plan)
    sample = _Sample(
        head=head,
        plan=plan,
        answers=found.answers,
        uncalibrated=found.uncalibrated,
        values=None if protocol.by is None else read_values(cache, protocol.by, plan),
        prevalence=check_prevalence(protocol.prevalence, plan.task.names),
        bootstrap=protocol.bootstrap,
    )
    images = find_seen([head], cache, rows, threshold=protocol.threshold, audit=protocol.audit)
    seen = images.pool(plan)
    predictions = Predictions(
        rows=found.examples,
        y=plan.y,
        probabilities=plan.task.add_up(found.answers.probabilities),
        groups=seen.groups,
        exact_duplicates=seen.exact_duplicates,
        copies=seen.copies,
        near_duplicates=seen.near_duplicates,
    )
    results, everything = sample.measure(predictions)
    copy_free, without_copies = sample.measure_copy_free(predictions, everything, seen.reasons)
    return Evaluation(
        **vars(results),
        split=plan.split,
        classes=plan.task.mapping,
        seen_files=_count_seen(head, cache, plan),
        subsets=Subsets(
            all=everything,
            without_copies=without_copies,
            **{
                f"without_{name}": sample.summarise_new(predictions, name, everything, seen.reasons)
                for name in ("exact_duplicates", "near_duplicates")
            },
        ),
        copy_free=copy_free,
        bootstrap=protocol.bootstrap,
        pooling=name_pooling(head, plan),
        floors=find_floors(head, cache, plan, copies=seen.copies, floor=protocol.floor),
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class _Sample:
    """The images that are measured, and how they and subsets of them are."""

    head: "HeadBundle"
    plan: Plan
    answers: Answers
    uncalibrated: NDArray[np.float64]
    values: NDArray[np.str_] | None
    prevalence: Mapping[str, float]
    bootstrap: Bootstrap

    def measure(
        self, predictions: Predictions, chosen: NDArray[np.bool_] | None = None
    ) -> tuple[Results, Subset]:
        """Measure all, or the chosen, of the images in all respects; and sum them up."""
        kept = np.ones(len(predictions.y), np.bool_) if chosen is None else chosen
        some = predictions.select(kept)
        y, names = some.y, self.plan.task.names
        uncalibrated = self.plan.task.add_up(self.uncalibrated[kept])
        found = self._find_intervals(some, each_class=True)
        metrics = measure(y, some.probabilities, class_names=names)
        results = Results(
            **{**vars(metrics), "per_class": _add_intervals(metrics.per_class, found)},
            few=count_few(y, some.groups, names),
            by={} if self.values is None else dict(self._measure_by(some, self.values[kept])),
            prevalence=find_predictive_values(metrics, self.prevalence),
            calibration=ScaledReliability(
                temperature=self.head.temperature,
                before=reliability(y, uncalibrated),
                after=reliability(y, some.probabilities),
            ),
            abstention=measure_abstention(
                self.answers.select(kept), y, groups=some.groups, task=self.plan.task
            ),
            confident_errors=count_confident_errors(y, some.probabilities),
            unit=self.plan.unit,
            n_images=len(self.plan.select(kept).rows),
            predictions=some,
        )
        return results, self._summarise(some, found)

    def measure_copy_free(
        self, predictions: Predictions, everything: Subset, reasons: Mapping[str, str]
    ) -> tuple[Results | None, Subset]:
        """Measure the images of which the head has seen no copy in all respects, if it has any."""
        copies = predictions.copies
        if copies is None or not copies.any() or copies.all():
            return None, self.summarise_new(predictions, "copies", everything, reasons)
        return self.measure(predictions, ~copies)

    def summarise_new(
        self,
        predictions: Predictions,
        name: str,
        everything: Subset,
        reasons: Mapping[str, str],
    ) -> Subset:
        """Measure the images that are new to the head, where it is known which these are."""
        seen: NDArray[np.bool_] | None = getattr(predictions, name)
        if seen is None:
            return Subset(n=0, n_groups=0, reason=reasons[name])
        if not seen.any():
            # The intervals of all images are known.
            return everything
        return self._summarise(predictions.select(~seen))

    def _find_intervals(self, some: Predictions, *, each_class: bool) -> Intervals:
        return find_intervals(
            some.y,
            some.probabilities,
            groups=some.groups,
            class_names=self.plan.task.names,
            each_class=each_class,
            n_resamples=self.bootstrap.n_resamples,
            random_state=self.bootstrap.random_state,
        )

    def _summarise(self, some: Predictions, found: Intervals | None = None) -> Subset:
        """Measure images in the few respects of a subset."""
        if not len(some.y):
            return Subset(n=0, n_groups=0, reason=NO_IMAGES)
        found = found or self._find_intervals(some, each_class=False)
        predicted, k = some.probabilities.argmax(axis=1), len(self.plan.task.names)
        together = np.zeros(len(some.y), np.intp)
        counts = count_by_group(some.y, predicted, together, k).reshape(1, k, k)
        metrics = {name: float(values[0]) for name, values in score_overall(counts).items()}
        return Subset(
            n=len(some.y),
            n_groups=found.n_groups,
            **metrics,
            intervals=found.overall,
            reason=found.reason,
        )

    def _measure_by(
        self, some: Predictions, values: NDArray[np.str_]
    ) -> Iterator[tuple[str, Subset]]:
        for value in np.unique(values):
            chosen = some.select(values == value)
            n_groups = len(np.unique(chosen.groups))
            if n_groups < MIN_GROUPS:
                reason = f"too few groups: {n_groups}, and {MIN_GROUPS} are needed"
                yield str(value), Subset(n=len(chosen.y), n_groups=n_groups, reason=reason)
            else:
                yield str(value), self._summarise(chosen)


def _count_seen(head: "HeadBundle", cache: "FeatureCache", plan: Plan) -> dict[str, int] | None:
    """Count what has a file that the head was fitted on (train), and validated on (val)."""
    if head.fitted_images is None:
        return None
    flags = head.fitted_images.find_splits(cache.sha256[plan.rows])
    return {name: int(plan.any(found).sum()) for name, found in flags.items()}


def _add_intervals(
    per_class: Sequence[ClassScores], found: Intervals
) -> tuple[ClassEvaluation, ...]:
    intervals = found.by_class or (None,) * len(per_class)
    return tuple(
        ClassEvaluation(**vars(scores), intervals=ends)
        for scores, ends in zip(per_class, intervals, strict=True)
    )
