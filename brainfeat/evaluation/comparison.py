"""Two heads on the same images: what lies between them, and whether chance could do as much."""

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from brainfeat.errors import BundleError
from brainfeat.evaluation.bootstrap import N_RESAMPLES, Differences, find_differences
from brainfeat.evaluation.results import Interval
from brainfeat.evaluation.subsets import find_copies, match_classes, open_both, select_images
from brainfeat.text import format_interval, format_metric

if TYPE_CHECKING:
    from brainfeat.cache.cache import FeatureCache
    from brainfeat.heads.bundle import HeadBundle

Rows = NDArray[np.intp]
Floats = NDArray[np.float64]

# What a verdict is about: it counts the classes alike.
METRIC = "balanced_accuracy"


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One figure of two heads.

    Attributes
    ----------
    first, second : float
        The figure of each head.
    difference : float
        The second's less the first's.
    interval : tuple of float, or None
        Low and high end of the 95 % interval of the difference; None where there is none.
    """

    first: float
    second: float
    difference: float
    interval: Interval | None


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two heads on some images.

    Attributes
    ----------
    n, n_groups : int
        Number of images, and of groups, which the bootstrap draws as one.
    accuracy, balanced_accuracy, f1_macro : Difference
    first_only, second_only : int
        Images that one head alone called what they are.
    p_value : float
        McNemar's exact test of these two numbers (McNemar 1947, Psychometrika 12:153): how often
        they would be at least as different if each such image were as likely to be either head's.
        It takes images for independent, and is too small where they are copies of one another.
    reason : str or None
        Why there are no intervals.
    """

    n: int
    n_groups: int
    accuracy: Difference
    balanced_accuracy: Difference
    f1_macro: Difference
    first_only: int
    second_only: int
    p_value: float
    reason: str | None

    @property
    def verdict(self) -> str:
        """What can be said of the balanced accuracy, in one sentence."""
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
        return f"No head can be said to have the better balanced accuracy ({span})."

    def to_dict(self) -> dict[str, Any]:
        """Give the attributes and the verdict as what JSON can hold."""
        document = asdict(self)
        for entry in document.values():
            if isinstance(entry, dict) and entry["interval"] is not None:
                entry["interval"] = list(entry["interval"])
        return {**document, "verdict": self.verdict}


def compare(
    first: "HeadBundle | str | os.PathLike[str]",
    second: "HeadBundle | str | os.PathLike[str]",
    cache: "FeatureCache | str | os.PathLike[str]",
    *,
    split: str = "test",
    new: bool = True,
    n_resamples: int = N_RESAMPLES,
    random_state: int = 0,
) -> Comparison:
    """Compare two heads on the same images of a feature cache.

    The intervals are those of a paired bootstrap over groups: each resample is scored with both
    heads, and the interval runs between percentiles of the differences (Efron & Tibshirani 1993,
    An Introduction to the Bootstrap, §13.3). An image that is hard for one head is mostly hard for
    the other, so that heads whose own intervals overlap may still differ.

    Parameters
    ----------
    first, second : HeadBundle or path-like
        Fitted heads of the same classes.
    cache : FeatureCache or path-like
        The features and labels.
    split : {"test", "val", "train", "all"}
        Which images, as in :func:`brainfeat.evaluate`.
    new : bool
        Whether images are left out of which the heads have seen a near duplicate, or, where these
        are not looked for, an identical file. A head that learns by heart would win on them.
    n_resamples : int
        At least 1,000.
    random_state : int
        Seed of the bootstrap.

    Returns
    -------
    Comparison

    Raises
    ------
    SpecMismatchError
        The features are not of the kind that one of the heads was fitted on.
    BundleError
        The heads know different classes, or held different images out.
    CacheError
        No labelled image is in the split.
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
    (16, "No verdict: class 'glioma' has images of")
    """
    with open_both(cache, first, second) as (opened, heads):
        names = _require_same_classes(*heads)
        rows = _select_common(heads, opened, split)
        copies = find_copies(heads[0], opened, rows)
        kept = np.ones(len(rows), np.bool_)
        if new:
            seen = copies.near_duplicates
            kept = ~(copies.exact_duplicates if seen is None else seen)
        rows, groups = rows[kept], copies.groups[kept]
        if not len(rows):
            raise BundleError(f"the heads have seen every image of split {split!r}, or a copy")
        y = match_classes(opened.y[rows], opened.class_names, names)
        called = [_call(head, opened.X[rows], names) for head in heads]
    found = find_differences(
        y,
        *called,
        groups=groups,
        class_names=names,
        n_resamples=n_resamples,
        random_state=random_state,
    )
    right = [calls == y for calls in called]
    first_only, second_only = (int((right[i] & ~right[1 - i]).sum()) for i in (0, 1))
    return Comparison(
        n=len(rows),
        n_groups=found.n_groups,
        accuracy=_describe("accuracy", found),
        balanced_accuracy=_describe("balanced_accuracy", found),
        f1_macro=_describe("f1_macro", found),
        first_only=first_only,
        second_only=second_only,
        p_value=judge_mcnemar(first_only, second_only),
        reason=found.reason,
    )


def judge_mcnemar(first_only: int, second_only: int) -> float:
    """Give the p-value of McNemar's exact test: two-sided, binomial.

    Examples
    --------
    >>> judge_mcnemar(1, 8)
    0.0390625
    """
    from scipy.stats import binomtest

    either = first_only + second_only
    return float(binomtest(first_only, either).pvalue) if either else 1.0


def _require_same_classes(first: "HeadBundle", second: "HeadBundle") -> tuple[str, ...]:
    if set(first.class_names) != set(second.class_names):
        known = [", ".join(map(repr, head.class_names)) for head in (first, second)]
        raise BundleError(
            f"the first head knows the classes {known[0]}, the second {known[1]}; compare heads of "
            "the same classes"
        )
    return first.class_names


def _select_common(heads: Sequence["HeadBundle"], cache: "FeatureCache", split: str) -> Rows:
    first, second = (select_images(head, cache, split) for head in heads)
    if not np.array_equal(first, second):
        raise BundleError(
            f"the heads held different images out as {split!r}, {len(first):,} and {len(second):,} "
            f"of which {len(np.intersect1d(first, second)):,} are the same; fit both with one "
            "random state, --group-by and table, or give the table splits"
        )
    return first


def _call(head: "HeadBundle", X: NDArray[np.float32], names: Sequence[str]) -> Rows:
    """Call each row a class, by its place among the names."""
    place = np.array([names.index(name) for name in head.class_names])
    called: Rows = place[head.predict_proba(X).argmax(axis=1)]
    return called


def _describe(name: str, found: Differences) -> Difference:
    first, second = found.figures[name]
    return Difference(
        first=first,
        second=second,
        difference=second - first,
        interval=getattr(found.intervals, name, None),
    )
