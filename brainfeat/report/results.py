"""The overall results of an evaluation, in sections; the metrics to believe come first."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from brainfeat.evaluation.bootstrap import MIN_GROUPS
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
    from brainfeat.metrics import Evaluation, Subset


def make_summary(evaluation: "Evaluation", *, findings: Sequence[str] = ()) -> Section:
    """Sum up in sentences, the three accuracies, and what an audit found."""
    blocks: list[Block] = [" ".join(summarise(evaluation))]
    if evaluation.subsets:
        blocks.append(Tiles(entries=list(_list_tiles(evaluation.subsets))))
    if findings:
        blocks += [
            "The audit of the data found:",
            Items(entries=[f"{capitalise(text)}." for text in findings]),
        ]
    return Section(name="summary", title="Summary", blocks=blocks)


def summarise(evaluation: "Evaluation") -> list[str]:
    """Describe in sentences how good the head is on new images, on all, and class by class."""
    subsets = evaluation.subsets
    if subsets:
        near, everything = subsets["without_near"], subsets["all"]
        n_exact = everything.n - subsets["without_identical"].n
        sentences = [
            _describe_new(near),
            _describe_all(everything, near, n_exact=n_exact, split=name_split(evaluation.split)),
        ]
    else:
        sentences = [
            (
                f"On {count(evaluation.n, 'image')} accuracy is {show(evaluation.accuracy)}; "
                "whether the head has seen copies of them is not known."
            )
        ]
    recalls = [
        (entry.recall, entry.name) for entry in evaluation.per_class if entry.recall is not None
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


def _describe_new(near: "Subset") -> str:
    if near.accuracy is None:
        return (
            "Accuracy without near duplicates is not known: "
            f"{near.reason or 'there are no images'}."
        )
    interval = (near.intervals or {}).get("accuracy")
    certainty = (
        f"95 % interval {format_interval(interval)}" if interval else f"no interval: {near.reason}"
    )
    return (
        f"On {count(near.n, 'image')} of which the head has seen no near duplicate, accuracy is "
        f"{show(near.accuracy)} ({certainty})."
    )


def _describe_all(everything: "Subset", near: "Subset", *, n_exact: int, split: str) -> str:
    start = (
        f"On all {count(everything.n, 'image')} ({split}) it is "
        f"{show(everything.accuracy, (everything.intervals or {}).get('accuracy'))}"
    )
    if near.accuracy is None or everything.accuracy is None:
        return f"{start}; how much of this is due to copies of seen images is not known."
    n_near = everything.n - near.n
    if not n_near:
        return f"{start}: the head has seen a copy of none of them."
    excess = everything.accuracy - near.accuracy
    return (
        f"{start}, {show(abs(excess))} {'higher' if excess >= 0 else 'lower'}: the head has seen a "
        f"near duplicate of {n_near:,} of them, and an exact duplicate of {n_exact:,}."
    )


def _list_tiles(subsets: Mapping[str, "Subset"]) -> Iterator[tuple[str, Cell, str]]:
    for name, words in SUBSET_NAMES.items():
        subset = subsets[name]
        yield (
            f"Accuracy {'on ' if name == 'all' else ''}{words}",
            _cell(subset, "accuracy"),
            count(subset.n or None, "image"),
        )


def make_overall(evaluation: "Evaluation") -> Section:
    """Show the metrics of the whole, without copies of seen images and with them."""
    blocks: list[Block] = []
    if evaluation.subsets:
        blocks += [
            (
                "Exact duplicates are files with the same bytes as an image that the head has seen "
                "in train or val; near duplicates have nearly the same features, such as the same "
                "slice saved again or a neighbouring slice. A head can recognise both, so they say "
                "little about new patients."
            ),
            _list_subsets(evaluation),
            _list_further(evaluation),
            _draw_subsets(evaluation),
        ]
    else:
        blocks.append(_list_bare(evaluation))
    return Section(name="overall", title="Overall metrics", blocks=blocks)


def _list_subsets(evaluation: "Evaluation") -> Table:
    subsets = [evaluation.subsets[name] for name in SUBSET_NAMES]
    return Table(
        title="With and without copies of seen images",
        head=("metric", *SUBSET_NAMES.values()),
        rows=[
            ("images", *(_count(subset.n) for subset in subsets)),
            ("groups", *(_count(subset.n_groups) for subset in subsets)),
            *(
                (METRIC_NAMES[name], *(_cell(subset, name) for subset in subsets))
                for name in SUBSET_METRICS
            ),
        ],
        note=" ".join([*_explain_intervals(evaluation), *_explain_gaps(evaluation)]),
    )


def _list_bare(evaluation: "Evaluation") -> Table:
    values = (evaluation.accuracy, evaluation.balanced_accuracy, evaluation.macro.f1)
    further = _list_further(evaluation)
    return replace(
        further,
        title="All images",
        rows=[
            ("images", f"{evaluation.n:,}"),
            *(
                (METRIC_NAMES[name], estimate(value))
                for name, value in zip(SUBSET_METRICS, values, strict=True)
            ),
            *further.rows,
        ],
    )


def _list_further(evaluation: "Evaluation") -> Table:
    worst = 1 if len(evaluation.class_names) == 2 else 2
    return Table(
        title="Further metrics, all images",
        head=("metric", SUBSET_NAMES["all"]),
        rows=[
            (METRIC_NAMES[name], estimate(getattr(evaluation, name))) for name in FURTHER_METRICS
        ],
        explanation="The macro ROC AUC is the mean over classes, each against the rest. Smaller is "
        f"better for the log loss and the Brier score, which runs from 0 to {worst}.",
    )


def _explain_intervals(evaluation: "Evaluation") -> Iterator[str]:
    if any(subset.intervals for subset in evaluation.subsets.values()):
        yield (
            "In brackets: 95 % intervals, percentiles of "
            f"{evaluation.bootstrap['n_resamples']:,} bootstrap resamples of whole groups "
            "(patients of the table, or else clusters of near duplicates)."
        )


def _explain_gaps(evaluation: "Evaluation") -> Iterator[str]:
    """Give the reasons for missing metrics and intervals, each once."""
    missing: dict[str, list[str]] = {}
    for name, words in SUBSET_NAMES.items():
        subset = evaluation.subsets[name]
        if subset.reason is not None:
            what = "metrics" if subset.accuracy is None else "intervals"
            missing.setdefault(f"{what}: {subset.reason}", []).append(words)
    for reason, names in missing.items():
        if len(names) == len(SUBSET_NAMES):
            yield f"No {reason}."
        else:
            yield f"{capitalise(', '.join(names))}: no {reason}."


def _draw_subsets(evaluation: "Evaluation") -> Chart:
    groups = [
        (
            METRIC_NAMES[name],
            [
                (
                    words,
                    getattr(evaluation.subsets[subset], name),
                    (evaluation.subsets[subset].intervals or {}).get(name),
                )
                for subset, words in SHORT_SUBSET_NAMES.items()
            ],
        )
        for name in SUBSET_METRICS
    ]
    return Chart(
        title="Overall metrics with 95 % intervals",
        caption="Squares are the metrics of the table above, lines their 95 % intervals.",
        description=charts.describe_intervals(groups),
        draw=partial(charts.draw_intervals, groups, name="overall"),
    )


def make_values(evaluation: "Evaluation") -> Section:
    """Show the metrics by value of a column of the table."""
    rows = [
        (
            value or NO_VALUE,
            f"{subset.n:,}",
            f"{subset.n_groups:,}",
            _cell(subset, "accuracy"),
            _cell(subset, "balanced_accuracy"),
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


def _cell(subset: "Subset", name: str) -> Cell:
    return estimate(getattr(subset, name), (subset.intervals or {}).get(name))
