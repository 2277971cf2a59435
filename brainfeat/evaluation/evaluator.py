"""Measure a head on a split of a cache: all images, and those that are new to the head."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from brainfeat.arithmetic import default_errors
from brainfeat.evaluation.abstention import measure_abstention
from brainfeat.evaluation.bootstrap import (
    CONFIDENCE,
    MIN_GROUPS,
    N_RESAMPLES,
    NO_IMAGES,
    Intervals,
    count_by_group,
    count_few,
    find_intervals,
    score_overall,
)
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
from brainfeat.evaluation.subsets import (
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


@default_errors
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

    The metrics are also given for the images that are new to the head: without those whose file it
    was fitted or validated on (exact duplicates); without those of which it has seen a copy, by the
    pixels, also one that was mirrored, turned, cropped or padded; and without those of which it has
    seen a near duplicate, by the features. The file of a head records what it has seen, so the
    table cannot hide it, and the cache may be another one than that of the fit.

    The 95 % intervals are percentiles of a bootstrap over groups: what groups of the table, such as
    patients, and copies connect. A class with images of fewer than 10 groups has no intervals, and
    means over the classes then have none. A metric of 0 or 1 has the exact binomial interval over
    groups.

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
    bootstrap = Bootstrap(
        method="percentile",
        confidence=CONFIDENCE,
        n_resamples=n_resamples,
        random_state=random_state,
    )
    with open_both(cache, bundle) as (features, (head,)):
        rows = select_images(head, features, split)
        y = match_classes(features.y[rows], features.class_names, head.class_names)
        sample = _Sample(
            head=head,
            X=features.X[rows],
            values=None if by is None else read_column(features, by)[rows],
            prevalence=check_prevalence(prevalence, head.class_names),
            bootstrap=bootstrap,
        )
        seen = find_seen([head], features, rows, threshold=threshold, audit=audit)
        seen_files = None
        if head.fitted_images is not None:
            seen_files = head.fitted_images.count(features.sha256[rows])
    predictions = Predictions(
        rows=rows,
        y=y,
        probabilities=head.predict_proba(sample.X),
        groups=seen.groups,
        exact_duplicates=seen.exact_duplicates,
        copies=seen.copies,
        near_duplicates=seen.near_duplicates,
    )
    results, everything = sample.measure(predictions)
    copy_free, without_copies = sample.measure_copy_free(predictions, everything, seen.reasons)
    return Evaluation(
        **vars(results),
        split=split,
        seen_files=seen_files,
        subsets=Subsets(
            all=everything,
            without_copies=without_copies,
            **{
                f"without_{name}": sample.summarise_new(predictions, name, everything, seen.reasons)
                for name in ("exact_duplicates", "near_duplicates")
            },
        ),
        copy_free=copy_free,
        bootstrap=bootstrap,
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class _Sample:
    """The images that are measured, and how they and subsets of them are."""

    head: "HeadBundle"
    X: NDArray[np.float32]
    values: NDArray[np.str_] | None
    prevalence: Mapping[str, float]
    bootstrap: Bootstrap

    def measure(
        self, predictions: Predictions, chosen: NDArray[np.bool_] | None = None
    ) -> tuple[Results, Subset]:
        """Measure all, or the chosen, of the images in all respects; and sum them up."""
        kept = np.ones(len(predictions.y), np.bool_) if chosen is None else chosen
        some, X = predictions.select(kept), self.X[kept]
        y, names = some.y, self.head.class_names
        found = self._find_intervals(some, each_class=True)
        metrics = measure(y, some.probabilities, class_names=names)
        results = Results(
            **{**vars(metrics), "per_class": _add_intervals(metrics.per_class, found)},
            few=count_few(y, some.groups, names),
            by={} if self.values is None else dict(self._measure_by(some, self.values[kept])),
            prevalence=find_predictive_values(metrics, self.prevalence),
            calibration=ScaledReliability(
                temperature=self.head.temperature,
                before=reliability(y, softmax(self.head.scores(X))),
                after=reliability(y, some.probabilities),
            ),
            abstention=measure_abstention(self.head, X, y, some.probabilities),
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
            class_names=self.head.class_names,
            each_class=each_class,
            n_resamples=self.bootstrap.n_resamples,
            random_state=self.bootstrap.random_state,
        )

    def _summarise(self, some: Predictions, found: Intervals | None = None) -> Subset:
        """Measure images in the few respects of a subset."""
        if not len(some.y):
            return Subset(n=0, n_groups=0, reason=NO_IMAGES)
        found = found or self._find_intervals(some, each_class=False)
        predicted, k = some.probabilities.argmax(axis=1), len(self.head.class_names)
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


def _add_intervals(
    per_class: Sequence[ClassScores], found: Intervals
) -> tuple[ClassEvaluation, ...]:
    intervals = found.by_class or (None,) * len(per_class)
    return tuple(
        ClassEvaluation(**vars(scores), intervals=ends)
        for scores, ends in zip(per_class, intervals, strict=True)
    )
