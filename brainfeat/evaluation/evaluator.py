"""Measure a head on a split of a cache: all images, and those that are new to the head."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from brainfeat.evaluation.abstention import measure_abstention
from brainfeat.evaluation.bootstrap import (
    CONFIDENCE,
    MIN_GROUPS,
    N_RESAMPLES,
    Intervals,
    count_by_group,
    find_intervals,
    score_overall,
)
from brainfeat.evaluation.prevalence import check_prevalence, find_predictive_values
from brainfeat.evaluation.results import (
    Bootstrap,
    ClassEvaluation,
    Evaluation,
    Predictions,
    ScaledReliability,
    Subset,
    Subsets,
)
from brainfeat.evaluation.subsets import (
    SeenImages,
    find_seen,
    match_classes,
    open_both,
    read_column,
    select_images,
)
from brainfeat.heads.calibration import reliability, softmax
from brainfeat.metrics import ClassScores, measure

if TYPE_CHECKING:
    from brainfeat.cache.cache import FeatureCache
    from brainfeat.heads.bundle import HeadBundle
    from brainfeat.leakage.results import Audit


def evaluate(
    bundle: "HeadBundle | str | os.PathLike[str]",
    cache: "FeatureCache | str | os.PathLike[str]",
    *,
    split: str = "test",
    threshold: float | None = None,
    by: Any = None,
    prevalence: Mapping[str, float] | None = None,
    audit: "Audit | None" = None,
    n_resamples: int = N_RESAMPLES,
    random_state: int = 0,
) -> Evaluation:
    """Measure a head on the images of one split of a feature cache.

    Augmented views and unlabelled images are left out. Classes are matched by name, so that the
    cache and the bundle may have them in different orders.

    The metrics are also given without the images of which the head has seen an exact duplicate, and
    without those of which it has seen a near duplicate: these are the metrics on images that are
    new to the head. The 95 % intervals are percentiles of a bootstrap over groups: those of the
    table, or else clusters of near duplicates. There are no intervals where a class has images of
    fewer than 10 groups.

    Parameters
    ----------
    bundle : HeadBundle or path-like
        The fitted head.
    cache : FeatureCache or path-like
        The features and labels.
    split : {"test", "val", "train", "all"}
        Which images; ``"all"`` takes every labelled one. Where the table has no splits, ``"test"``
        and ``"val"`` are the images that the fit of this head held out.
    threshold : float or None
        Least similarity of near duplicates, as in :func:`brainfeat.audit`. None takes its default,
        and looks for them among up to 50,000 images.
    by : str, array-like of shape (rows of the cache,), or None
        A column by whose values the images are divided: ``"source"``, ``"group"``, ``"split"``,
        ``"width"``, ``"height"`` or ``"channels"``; or its values.
    prevalence : mapping of str to float, or None
        Fraction of a class among the people examined, for its predictive values.
    audit : Audit or None
        An audit of this cache by :func:`brainfeat.audit`: near duplicates that it knows are not
        looked for again. It changes no metric.
    n_resamples : int
        Of the bootstrap, at least 1,000.
    random_state : int
        Seed of the bootstrap.

    Returns
    -------
    Evaluation
        Its classes are those of the bundle.

    Raises
    ------
    SpecMismatchError
        If the features have another spec than those that the head was fitted on.
    CacheError
        If no labelled image is in the split.
    BundleError
        If images are of a class that the head does not have.
    ParameterError
        If the audit is that of another cache, or one of the other arguments is out of range.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> from brainfeat import extract, fit_head, read_table
    >>> from brainfeat.phantoms import write_phantoms
    >>> with TemporaryDirectory() as folder:
    ...     table = read_table(write_phantoms(f"{folder}/slices", patients_per_class=6, size=48))
    ...     result = extract(
    ...         table,
    ...         f"{folder}/features.h5",
    ...         backbone="mobilenet-0.75",
    ...         weights="random",
    ...         input_size=32,
    ...     )
    ...     evaluation = evaluate(fit_head(result.output, head="knn"), result.output)
    >>> evaluation.subsets.without_exact_duplicates.n == evaluation.n
    True
    """
    with open_both(cache, bundle) as (features, (head,)):
        rows = select_images(head, features, split)
        y = match_classes(features.y[rows], features.class_names, head.class_names)
        fractions = check_prevalence(prevalence, head.class_names)
        values = None if by is None else read_column(features, by)[rows]
        X = features.X[rows]
        seen = find_seen([head], features, rows, threshold=threshold, audit=audit)
    scores = head.scores(X)
    probabilities = softmax(scores, temperature=head.temperature)
    bootstrap = Bootstrap(
        method="percentile",
        confidence=CONFIDENCE,
        n_resamples=n_resamples,
        random_state=random_state,
    )
    sample = _Sample(
        predictions=Predictions(
            rows=rows,
            y=y,
            probabilities=probabilities,
            groups=seen.groups,
            exact_duplicates=seen.exact_duplicates,
            near_duplicates=seen.near_duplicates,
        ),
        class_names=head.class_names,
        bootstrap=bootstrap,
    )
    found = sample.find_intervals()
    metrics = measure(y, probabilities, class_names=head.class_names)
    return Evaluation(
        **{**vars(metrics), "per_class": _add_intervals(metrics.per_class, found)},
        split=split,
        subsets=_measure_subsets(sample, seen, found),
        bootstrap=bootstrap,
        by={} if values is None else dict(_measure_by(sample, values)),
        prevalence=find_predictive_values(metrics, fractions),
        calibration=ScaledReliability(
            temperature=head.temperature,
            before=reliability(y, softmax(scores)),
            after=reliability(y, probabilities),
        ),
        abstention=measure_abstention(head, X, y, probabilities),
        predictions=sample.predictions,
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class _Sample:
    """The images that are measured, and how subsets of them are."""

    predictions: Predictions
    class_names: tuple[str, ...]
    bootstrap: Bootstrap

    def find_intervals(
        self, chosen: NDArray[np.bool_] | None = None, *, each_class: bool = True
    ) -> Intervals:
        """Find the intervals of the chosen images, or of all."""
        kept = slice(None) if chosen is None else chosen
        return find_intervals(
            self.predictions.y[kept],
            self.predictions.probabilities[kept],
            groups=self.predictions.groups[kept],
            class_names=self.class_names,
            each_class=each_class,
            n_resamples=self.bootstrap.n_resamples,
            random_state=self.bootstrap.random_state,
        )

    def measure(self, chosen: NDArray[np.bool_], found: Intervals | None = None) -> Subset:
        """Measure the chosen images."""
        y = self.predictions.y[chosen]
        found = found or self.find_intervals(chosen, each_class=False)
        if not len(y):
            return Subset(n=0, n_groups=0, reason="there are no images")
        predicted = self.predictions.probabilities[chosen].argmax(axis=1)
        together = np.zeros(len(y), np.intp)
        k = len(self.class_names)
        counts = count_by_group(y, predicted, together, k).reshape(1, k, k)
        metrics = {name: float(values[0]) for name, values in score_overall(counts).items()}
        return Subset(
            n=len(y),
            n_groups=found.n_groups,
            **metrics,
            intervals=found.overall,
            reason=found.reason,
        )


def _add_intervals(
    per_class: Sequence[ClassScores], found: Intervals
) -> tuple[ClassEvaluation, ...]:
    intervals = found.by_class or (None,) * len(per_class)
    return tuple(
        ClassEvaluation(**vars(scores), intervals=ends)
        for scores, ends in zip(per_class, intervals, strict=True)
    )


def _measure_subsets(sample: _Sample, seen: SeenImages, found: Intervals) -> Subsets:
    def measure(kept: NDArray[np.bool_]) -> Subset:
        # The intervals of all images are known.
        return sample.measure(kept, found if kept.all() else None)

    near = seen.near_duplicates
    return Subsets(
        all=measure(np.ones(len(seen.exact_duplicates), np.bool_)),
        without_exact_duplicates=measure(~seen.exact_duplicates),
        without_near_duplicates=(
            Subset(n=0, n_groups=0, reason=seen.reason) if near is None else measure(~near)
        ),
    )


def _measure_by(sample: _Sample, values: NDArray[np.str_]) -> Iterator[tuple[str, Subset]]:
    for value in np.unique(values):
        chosen = values == value
        n_groups = len(np.unique(sample.predictions.groups[chosen]))
        if n_groups < MIN_GROUPS:
            reason = f"too few groups: {n_groups}, and {MIN_GROUPS} are needed"
            yield str(value), Subset(n=int(chosen.sum()), n_groups=n_groups, reason=reason)
        else:
            yield str(value), sample.measure(chosen)
