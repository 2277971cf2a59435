"""The overall results of an evaluation, in sections; the metrics to believe come first."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from brainfeat.evaluation.bootstrap import MIN_GROUPS
from brainfeat.evaluation.results import Evaluation
from brainfeat.report import charts
from brainfeat.report.blocks import (
    Block,
    Cell,
    Chart,
    Items,
    Section,
    Table,
    Tiles,
    estimate,
    estimate_metric,
    find_interval,
    show,
)
from brainfeat.report.wording import (
    FURTHER_METRICS,
    METRIC_NAMES,
    NO_VALUE,
    SHORT_SUBSET_NAMES,
    SUBSET_METRICS,
    SUBSET_NAMES,
    capitalise,
    name_split,
)
from brainfeat.text import count, format_interval, format_number

if TYPE_CHECKING:
    from brainfeat.evaluation.results import Subset, Subsets
    from brainfeat.metrics import Metrics


def make_summary(metrics: "Metrics", *, findings: Sequence[str] = ()) -> Section:
    """Sum up in sentences, the three accuracies, and what an audit found."""
    blocks: list[Block] = [" ".join(summarise(metrics))]
    if isinstance(metrics, Evaluation):
        blocks.append(Tiles(entries=list(_list_tiles(metrics.subsets))))
    if findings:
        blocks += [
            "The audit of the data found:",
            Items(entries=[f"{capitalise(text)}." for text in findings]),
        ]
    return Section(name="summary", title="Summary", blocks=blocks)


def summarise(metrics: "Metrics") -> list[str]:
    """Describe in sentences how good the head is on new images, on all, and class by class."""
    if isinstance(metrics, Evaluation):
        sentences = list(_describe_accuracy(metrics))
    else:
        sentences = [
            (
                f"On {count(metrics.n, 'image')} accuracy is {show(metrics.accuracy)}; "
                "whether the head has seen copies of them is not known."
            )
        ]
    recalls = [
        (entry.recall, entry.name) for entry in metrics.per_class if entry.recall is not None
    ]
    if len(recalls) > 1:
        (worst, worst_name), (best, best_name) = min(recalls), max(recalls)
        sentences.append(
            f"Sensitivity on all images is {show(best)} in every class."
            if worst == best
            else f"Sensitivity on all images ranges from {show(worst)} ({worst_name}) to "
            f"{show(best)} ({best_name})."
        )
    return sentences


def _describe_accuracy(evaluation: Evaluation) -> Iterator[str]:
    """Yield the accuracy without near duplicates, then that on all images."""
    near, everything = evaluation.subsets.without_near_duplicates, evaluation.subsets.all
    of_all = f"On all {count(everything.n, 'image')} ({name_split(evaluation.split)}),"
    accuracy = estimate_metric(everything, "accuracy")
    if near.accuracy is None or everything.accuracy is None:
        reason = near.reason or "there are no images"
        yield f"Accuracy without near duplicates is not known: {reason}."
        yield f"{of_all} it is {accuracy}; how much of this is due to copies is not known."
        return
    n_near = everything.n - near.n
    if not n_near:
        yield (
            f"{of_all} accuracy is {_describe_certainty(everything)}; the head has seen a near "
            "duplicate of none of them."
        )
        return
    n_exact = everything.n - evaluation.subsets.without_exact_duplicates.n
    excess = everything.accuracy - near.accuracy
    yield (
        f"On {count(near.n, 'image')} of which the head has seen no near duplicate, accuracy is "
        f"{_describe_certainty(near)}."
    )
    yield (
        f"{of_all} it is {accuracy}, {show(abs(excess))} {'higher' if excess >= 0 else 'lower'}: "
        f"the head has seen a near duplicate of {n_near:,} of them, and an exact duplicate of "
        f"{n_exact:,}."
    )


def _describe_certainty(subset: "Subset") -> str:
    interval = find_interval(subset, "accuracy")
    certainty = (
        f"95 % interval {format_interval(interval)}"
        if interval
        else f"no interval: {subset.reason}"
    )
    return f"{show(subset.accuracy)} ({certainty})"


def _list_tiles(subsets: "Subsets") -> Iterator[tuple[str, Cell, str]]:
    for name, words in SUBSET_NAMES.items():
        subset = getattr(subsets, name)
        yield (
            f"Accuracy {'on ' if name == 'all' else ''}{words}",
            estimate_metric(subset, "accuracy"),
            count(subset.n or None, "image"),
        )


def make_overall(metrics: "Metrics") -> Section:
    """Show the metrics of the whole, without copies of seen images and with them."""
    blocks: list[Block] = [_list_bare(metrics)]
    if isinstance(metrics, Evaluation):
        blocks = [
            (
                "Exact duplicates are files with the same bytes as an image that the head has seen "
                "in train or val; near duplicates have nearly the same features, such as the same "
                "slice saved again or a neighbouring slice. A head can recognise both, so they say "
                "little about new patients."
            ),
            _list_subsets(metrics),
            _list_further(metrics),
            *_draw_subsets(metrics.subsets),
        ]
    return Section(name="overall", title="Overall metrics", blocks=blocks)


def _list_subsets(evaluation: Evaluation) -> Table:
    subsets: list[Subset] = [getattr(evaluation.subsets, name) for name in SUBSET_NAMES]
    rows: list[tuple[Cell, ...]] = [
        ("images", *(_count(subset.n) for subset in subsets)),
        ("groups", *(_count(subset.n_groups) for subset in subsets)),
    ]
    rows += [
        (METRIC_NAMES[name], *(estimate_metric(subset, name) for subset in subsets))
        for name in SUBSET_METRICS
    ]
    return Table(
        title="With and without copies of seen images",
        head=("metric", *SUBSET_NAMES.values()),
        rows=rows,
        note=" ".join([*_explain_intervals(evaluation), *_explain_gaps(evaluation.subsets)]),
    )


def _list_bare(metrics: "Metrics") -> Table:
    values = (metrics.accuracy, metrics.balanced_accuracy, metrics.macro.f1)
    further = _list_further(metrics)
    return replace(
        further,
        title="All images",
        rows=[
            ("images", f"{metrics.n:,}"),
            *(
                (METRIC_NAMES[name], estimate(value))
                for name, value in zip(SUBSET_METRICS, values, strict=True)
            ),
            *further.rows,
        ],
    )


def _list_further(metrics: "Metrics") -> Table:
    worst = 1 if len(metrics.class_names) == 2 else 2
    return Table(
        title="Further metrics, all images",
        head=("metric", SUBSET_NAMES["all"]),
        rows=[(METRIC_NAMES[name], estimate(getattr(metrics, name))) for name in FURTHER_METRICS],
        explanation="The macro ROC AUC is the mean over classes, each against the rest. Smaller is "
        f"better for the log loss and the Brier score, which runs from 0 to {worst}.",
    )


def _explain_intervals(evaluation: Evaluation) -> Iterator[str]:
    if _has_intervals(evaluation.subsets):
        yield (
            "In brackets: 95 % intervals, percentiles of "
            f"{evaluation.bootstrap.n_resamples:,} bootstrap resamples of whole groups "
            "(patients of the table, or else clusters of near duplicates)."
        )


def _has_intervals(subsets: "Subsets") -> bool:
    return any(getattr(subsets, name).intervals for name in SUBSET_NAMES)


def _explain_gaps(subsets: "Subsets") -> Iterator[str]:
    """Give the reasons for missing metrics and intervals, each once."""
    missing: dict[str, list[str]] = {}
    for name, words in SUBSET_NAMES.items():
        subset = getattr(subsets, name)
        if subset.reason is not None:
            what = "metrics" if subset.accuracy is None else "intervals"
            missing.setdefault(f"{what}: {subset.reason}", []).append(words)
    for reason, names in missing.items():
        if len(names) == len(SUBSET_NAMES):
            yield f"No {reason}."
        else:
            yield f"{capitalise(', '.join(names))}: no {reason}."


def _draw_subsets(subsets: "Subsets") -> Iterator[Chart]:
    if not _has_intervals(subsets):
        return
    groups = [
        (
            METRIC_NAMES[name],
            [
                (
                    words,
                    getattr(getattr(subsets, subset), name),
                    find_interval(getattr(subsets, subset), name),
                )
                for subset, words in SHORT_SUBSET_NAMES.items()
            ],
        )
        for name in SUBSET_METRICS
    ]
    yield Chart(
        title="Overall metrics with 95 % intervals",
        caption="Squares are the metrics of the table above, lines their 95 % intervals.",
        description=charts.describe_intervals(groups),
        draw=partial(charts.draw_intervals, groups, name="overall"),
    )


def make_values(evaluation: Evaluation) -> Section:
    """Show the metrics by value of a column of the table."""
    rows = [
        (
            value or NO_VALUE,
            f"{subset.n:,}",
            f"{subset.n_groups:,}",
            estimate_metric(subset, "accuracy"),
            estimate_metric(subset, "balanced_accuracy"),
        )
        for value, subset in evaluation.by.items()
    ]
    return Section(
        name="values",
        title="Metrics by value of a column",
        blocks=[
            Table(
                title="All images, by value of the column",
                head=(
                    "value",
                    "images",
                    "groups",
                    METRIC_NAMES["accuracy"],
                    METRIC_NAMES["balanced_accuracy"],
                ),
                rows=rows,
                note=f"Values with fewer than {MIN_GROUPS} groups have no metrics."
                if any(subset.accuracy is None for subset in evaluation.by.values())
                else "",
            )
        ],
    )


def _count(number: int) -> str:
    # A subset that was not looked for has no images either.
    return format_number(number or None)
