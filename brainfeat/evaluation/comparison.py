"""Compare two heads on the same images: differences with intervals, and McNemar's test."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from brainfeat.arithmetic import default_errors
from brainfeat.canonical import parse_json, read_record, write_record
from brainfeat.errors import BundleError, ParameterError
from brainfeat.evaluation.block_caches import select_features
from brainfeat.evaluation.bootstrap import N_RESAMPLES, find_differences
from brainfeat.evaluation.class_mapping import (
    Classes,
    ClassesArgument,
    check_mappings,
    require_used,
)
from brainfeat.evaluation.results import Difference
from brainfeat.evaluation.seen_images import SeenImages, find_seen
from brainfeat.evaluation.subsets import Cache, Head, Plan, open_both, plan_images
from brainfeat.evaluation.units import IMAGE, UnitRule, answer_units, choose_unit, name_unit
from brainfeat.heads.reading import read_features
from brainfeat.text import format_interval, format_metric

if TYPE_CHECKING:
    from brainfeat.cache.cache import FeatureCache
    from brainfeat.heads.bundle import HeadBundle

Rows = NDArray[np.intp]

# The metric of the verdict: each class has the same weight.
METRIC = "balanced_accuracy"


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two heads on the same images.

    Attributes
    ----------
    n, n_groups : int
        Number of images (or of groups, where these are measured), and of groups that are resampled
        as a whole.
    accuracy, balanced_accuracy, f1_macro : Difference
    first_only, second_only : int
        Images that only this head predicts correctly.
    p_value : float
        McNemar's exact test of these two numbers (McNemar 1947, Psychometrika 12:153): the
        probability that they differ at least as much if each such image were equally likely to be
        either head's. The test takes images for independent, and its p-value is too small where
        they are copies of one another.
    left_out : int
        Number of images that were left out because one of the heads has seen them.
    left_out_as : str or None
        As what it has seen them: ``"copies"``, which exact duplicates are too; where copies were
        not looked for ``"near_duplicates"`` or ``"exact_duplicates"``; None where no image was to
        be left out, or it is not known which.
    warning : str or None
        Why that is not known.
    reason : str or None
        Why there are no intervals.
    unit : str
        What was measured, and counted in `n`: ``"image"``, or ``"group"``, such as patients.
    n_images : int or None
        Number of images; None in JSON of an earlier version.
    """

    n: int
    n_groups: int
    left_out: int
    left_out_as: str | None
    warning: str | None
    accuracy: Difference
    balanced_accuracy: Difference
    f1_macro: Difference
    first_only: int
    second_only: int
    p_value: float
    reason: str | None
    unit: str = IMAGE
    n_images: int | None = None

    @property
    def noun(self) -> str:
        """What was measured, in a word: ``"image"`` or ``"patient"``."""
        return name_unit(self.unit)

    @property
    def verdict(self) -> str:
        """Whether one head has the better balanced accuracy, in one sentence."""
        found: Difference = getattr(self, METRIC)
        if found.interval is None:
            return f"No verdict: {self.reason}."
        low, high = found.interval
        span = (
            f"{format_metric(found.difference, signed=True)}, 95 % interval "
            f"{format_interval(found.interval, signed=True)}"
        )
        if low > 0 or high < 0:
            better = "second" if low > 0 else "first"
            return f"The {better} head has the better balanced accuracy ({span})."
        return f"Neither head has a better balanced accuracy beyond chance ({span})."

    def to_dict(self) -> dict[str, Any]:
        """Return the attributes and the verdict as what JSON can hold.

        Returns
        -------
        dict
            The attributes by name, and ``verdict``.
        """
        return {**write_record(self), "verdict": self.verdict}

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read the JSON of what :meth:`to_dict` returned.

        Raises
        ------
        ParameterError
            The text is not JSON, or an attribute is missing or of another type.
        """
        return read_record(cls, parse_json(text, error=ParameterError), error=ParameterError)


@default_errors
def compare(
    first: Head,
    second: Head,
    cache: Cache,
    *,
    split: str = "test",
    classes: ClassesArgument = None,
    new: bool = True,
    unit: str | None = None,
    group_label: str | None = None,
    n_resamples: int = N_RESAMPLES,
    random_state: int = 0,
) -> Comparison:
    """Compare two heads on the same images of a feature cache.

    The intervals are those of a paired bootstrap over groups: each resample is scored with both
    heads, and the interval is between percentiles of the differences (Efron & Tibshirani 1993, An
    Introduction to the Bootstrap, §13.3). An image that is hard for one head is often hard for the
    other, so that heads can differ although their own intervals overlap.

    Parameters
    ----------
    first, second : HeadBundle or path-like
        Fitted heads of the same classes.
    cache : FeatureCache or path-like
        The features and labels.
    split : {"test", "val", "train", "all"}
        Which images, as in :func:`brainfeat.evaluate`.
    classes : mapping of str to str or sequence of str, str, or None
        Classes of the heads by class of the cache, as there.
    new : bool
        Whether images are left out of which a head has seen a copy, by the pixels; where the cache
        has no signatures, a near duplicate, by the features, or the same file. A head that
        memorises images would win on them.
    unit : {"image", "group"} or None
        What is measured, as in :func:`brainfeat.evaluate`.
    group_label : str or None
        As there.
    n_resamples : int
        At least 1,000.
    random_state : int
        Seed of the bootstrap.

    Returns
    -------
    Comparison
        Metrics of each head, their differences with intervals, and a verdict.

    Raises
    ------
    SpecMismatchError
        The features have another spec than those that one of the heads was fitted on.
    BundleError
        The heads have different classes, or their fits held out different images.
    CacheError
        No labelled image is in the split.
    TableError
        Groups are measured, and the table has none, or one is in several splits or classes.
    ParameterError
        `n_resamples` is too small.

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
    ...     heads = [fit_head(result.output, head=name) for name in ("knn", "lda")]
    ...     found = compare(*heads, result.output)
    >>> found.n, found.verdict[:40]
    (16, 'No verdict: each class needs 10 groups; ')
    """
    with open_both(cache, first, second) as (opened, heads):
        names = _require_same_classes(*heads)
        rule = choose_unit(unit, group_label, heads)
        plans = _plan_common(heads, opened, split, check_mappings(classes, names), rule)
        plan, noun = plans[0], name_unit(rule.unit)
        seen = find_seen(heads, opened, plan.rows).pool(plan)
        left_out_as = _choose_kind(seen) if new else None
        kept = np.ones(len(plan.y), np.bool_)
        if left_out_as is not None:
            kept = ~getattr(seen, left_out_as)
        if not kept.any():
            raise BundleError(
                f"the heads have seen every {noun} of split {split!r}, or a copy; compare them on "
                "another split or cache, or on all images nevertheless (new=False)"
            )
        groups, y, names = seen.groups[kept], plan.y[kept], plan.task.names
        predicted = [
            _predict(head, select_features(head, opened), other.select(kept), names)
            for head, other in zip(heads, plans, strict=True)
        ]
    found = find_differences(
        y,
        *predicted,
        groups=groups,
        class_names=names,
        n_resamples=n_resamples,
        random_state=random_state,
    )
    right = [labels == y for labels in predicted]
    first_only, second_only = (int((right[i] & ~right[1 - i]).sum()) for i in (0, 1))
    return Comparison(
        n=len(y),
        n_groups=found.n_groups,
        unit=rule.unit,
        n_images=len(plan.select(kept).rows),
        left_out=int((~kept).sum()),
        left_out_as=left_out_as,
        warning=seen.reasons["exact_duplicates"] if new and left_out_as is None else None,
        accuracy=found.accuracy,
        balanced_accuracy=found.balanced_accuracy,
        f1_macro=found.f1_macro,
        first_only=first_only,
        second_only=second_only,
        p_value=mcnemar_p_value(first_only, second_only),
        reason=found.reason,
    )


def mcnemar_p_value(first_only: int, second_only: int) -> float:
    """Compute the p-value of McNemar's exact test: two-sided, binomial.

    Examples
    --------
    >>> mcnemar_p_value(1, 8)
    0.0390625
    """
    from scipy.stats import binomtest

    either = first_only + second_only
    return float(binomtest(first_only, either).pvalue) if either else 1.0


def _choose_kind(seen: SeenImages) -> str | None:
    """Choose as what images are left out: as copies, if these were looked for."""
    kinds = ("copies", "near_duplicates", "exact_duplicates")
    return next((kind for kind in kinds if getattr(seen, kind) is not None), None)


def _require_same_classes(first: "HeadBundle", second: "HeadBundle") -> tuple[str, ...]:
    if set(first.class_names) != set(second.class_names):
        known = [", ".join(map(repr, head.class_names)) for head in (first, second)]
        raise BundleError(
            f"the first head has the classes {known[0]}, the second {known[1]}; compare heads of "
            "the same classes"
        )
    return first.class_names


def _plan_common(
    heads: Sequence["HeadBundle"],
    cache: "FeatureCache",
    split: str,
    mappings: Sequence[Classes],
    rule: UnitRule,
) -> list[Plan]:
    plans = [plan_images(head, cache, split, mappings, rule=rule) for head in heads]
    require_used(mappings, [plan.mapping for plan in plans])
    first, second = (plan.rows for plan in plans)
    if not np.array_equal(first, second):
        raise BundleError(
            f"the heads held different images out as {split!r}, {len(first):,} and {len(second):,} "
            f"of which {len(np.intersect1d(first, second)):,} are the same; fit both with one "
            "random_state=SEED and group_by=RULE on one table, or give the table splits"
        )
    return plans


def _predict(head: "HeadBundle", cache: "FeatureCache", plan: Plan, names: Sequence[str]) -> Rows:
    """Predict the class of each image or group, as an index into the names."""
    place = np.array([names.index(name) for name in plan.task.names])
    if plan.groups is None:
        found = head.predict_proba(read_features(head, cache, plan.rows))
    else:
        found = answer_units(head, cache, plan).answers.probabilities
    predicted: Rows = place[plan.task.add_up(found).argmax(axis=1)]
    return predicted
