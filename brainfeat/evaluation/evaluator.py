"""What a head is worth on a split of a cache: on all images, and without copies of seen ones."""

import os
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from brainfeat.evaluation.abstention import measure_abstention
from brainfeat.evaluation.bootstrap import (
    CONFIDENCE,
    MIN_GROUPS,
    N_RESAMPLES,
    Intervals,
    check_prevalence,
    count_by_group,
    find_intervals,
    predictive_values,
    score_overall,
)
from brainfeat.evaluation.results import (
    Bootstrap,
    ClassEvaluation,
    Evaluation,
    Predictions,
    PredictiveValues,
    ScaledReliability,
    Subset,
    Subsets,
)
from brainfeat.evaluation.subsets import (
    Copies,
    find_copies,
    match_classes,
    open_both,
    read_column,
    select_images,
)
from brainfeat.heads.calibration import reliability, softmax
from brainfeat.metrics import Metrics, measure

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

    Augmented views and unlabelled images take no part. Classes are matched by name, so that the
    cache and the bundle may order them differently.

    The figures are also given without the images of which the head has seen an identical file, and
    without those of which it has seen a near duplicate: what it is worth on images that are new to
    it. Intervals of 95 % are percentiles of a bootstrap over groups: those of the table, or else
    clusters of near duplicates. There are none where a class has images of fewer than ten groups.

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
        A column by whose values the images are told apart, ``"source"``, ``"group"``, ``"split"``,
        ``"width"``, ``"height"`` or ``"channels"``; or its values.
    prevalence : mapping of str to float, or None
        How common a class is among the people that are looked at, for its predictive values.
    audit : Audit or None
        What :func:`brainfeat.audit` found in this cache, if it has been asked: near duplicates that
        it knows are not looked for again. It changes no figure.
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
        If the features are not of the kind the head was fitted on.
    CacheError
        If no labelled image is in the split.
    BundleError
        If images are of a class that the head does not know.
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
    with open_both(cache, bundle) as (opened, (head,)):
        rows = select_images(head, opened, split)
        y = match_classes(opened.y[rows], opened.class_names, head.class_names)
        shares = check_prevalence(prevalence, head.class_names)
        values = None if by is None else read_column(opened, by)[rows]
        X = opened.X[rows]
        scores = head.scores(X)
        copies = find_copies(head, opened, rows, threshold=threshold, audit=audit)
    judge = _Judge(
        Predictions(
            rows=rows,
            y=y,
            probabilities=softmax(scores, temperature=head.temperature),
            groups=copies.groups,
            exact_duplicates=copies.exact_duplicates,
            near_duplicates=copies.near_duplicates,
        ),
        class_names=head.class_names,
        n_resamples=n_resamples,
        random_state=random_state,
    )
    found = judge.find_intervals()
    measured = measure(y, judge.predictions.probabilities, class_names=head.class_names)
    intervals = found.by_class or (None,) * len(measured.per_class)
    return Evaluation(
        **{
            **vars(measured),
            "per_class": tuple(
                ClassEvaluation(**vars(scores), intervals=ends)
                for scores, ends in zip(measured.per_class, intervals, strict=True)
            ),
        },
        split=split,
        subsets=_judge_subsets(judge, copies, found),
        bootstrap=Bootstrap(
            method="percentile",
            confidence=CONFIDENCE,
            n_resamples=n_resamples,
            random_state=random_state,
        ),
        by={} if values is None else dict(_judge_parts(judge, values)),
        prevalence=_predict_values(measured, shares),
        calibration=ScaledReliability(
            temperature=head.temperature,
            before=reliability(y, softmax(scores)),
            after=reliability(y, judge.predictions.probabilities),
        ),
        abstention=measure_abstention(head, X, y, judge.predictions.probabilities),
        predictions=judge.predictions,
    )


class _Judge:
    """Predictions, and how figures of some of them are found."""

    def __init__(
        self,
        predictions: Predictions,
        *,
        class_names: tuple[str, ...],
        n_resamples: int,
        random_state: int,
    ) -> None:
        self.predictions = predictions
        self._class_names = class_names
        self._options = {"n_resamples": n_resamples, "random_state": random_state}

    def find_intervals(
        self, chosen: NDArray[np.bool_] | None = None, *, each_class: bool = True
    ) -> Intervals:
        """Find the intervals of the chosen images, or of all."""
        kept = slice(None) if chosen is None else chosen
        return find_intervals(
            self.predictions.y[kept],
            self.predictions.probabilities[kept],
            groups=self.predictions.groups[kept],
            class_names=self._class_names,
            each_class=each_class,
            **self._options,
        )

    def describe(self, chosen: NDArray[np.bool_], found: Intervals | None = None) -> Subset:
        """Give the figures of the chosen images."""
        y = self.predictions.y[chosen]
        found = found or self.find_intervals(chosen, each_class=False)
        if not len(y):
            return Subset(n=0, n_groups=0, reason="there are no images")
        called = self.predictions.probabilities[chosen].argmax(axis=1)
        together = np.zeros(len(y), np.intp)
        k = len(self._class_names)
        counts = count_by_group(y, called, together, k).reshape(1, k, k)
        figures = {name: float(values[0]) for name, values in score_overall(counts).items()}
        return Subset(
            n=len(y),
            n_groups=found.n_groups,
            **figures,
            intervals=found.overall,
            reason=found.reason,
        )


def _judge_subsets(judge: _Judge, copies: Copies, found: Intervals) -> Subsets:
    near = Subset(n=0, n_groups=0, reason=copies.reason)
    if copies.near_duplicates is not None:
        near = judge.describe(~copies.near_duplicates)
    return Subsets(
        all=judge.describe(np.ones(len(copies.exact_duplicates), np.bool_), found),
        without_exact_duplicates=judge.describe(~copies.exact_duplicates),
        without_near_duplicates=near,
    )


def _judge_parts(judge: _Judge, values: NDArray[np.str_]) -> Iterator[tuple[str, Subset]]:
    for value in np.unique(values):
        chosen = values == value
        n_groups = len(np.unique(judge.predictions.groups[chosen]))
        if n_groups < MIN_GROUPS:
            reason = f"too few to judge: {n_groups} of {MIN_GROUPS} groups that are needed"
            yield str(value), Subset(n=int(chosen.sum()), n_groups=n_groups, reason=reason)
        else:
            yield str(value), judge.describe(chosen)


def _predict_values(measured: Metrics, shares: Mapping[str, float]) -> dict[str, PredictiveValues]:
    scores = {entry.name: entry for entry in measured.per_class}
    values = {}
    for name, share in shares.items():
        sensitivity, specificity = scores[name].recall, scores[name].specificity
        ppv, npv = (
            (None, None)
            if sensitivity is None or specificity is None
            else predictive_values(sensitivity, specificity, share)
        )
        values[name] = PredictiveValues(prevalence=share, ppv=ppv, npv=npv)
    return values
