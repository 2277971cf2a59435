"""The overall results of an evaluation, in sections; the metrics to believe come first."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from brainfeat.evaluation.bootstrap import MIN_GROUPS
from brainfeat.evaluation.results import Evaluation, Results
from brainfeat.evaluation.units import IMAGE
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
from brainfeat.report.floors import list_floors
from brainfeat.report.wording import (
    FURTHER_METRICS,
    METRIC_NAMES,
    NO_VALUE,
    SHORT_SUBSET_NAMES,
    SUBSET_METRICS,
    SUBSET_NAMES,
    capitalise,
    list_parts,
    name_headline,
    name_noun,
    name_split,
    name_subset,
)
from brainfeat.text import count, format_interval, format_number, name_some

if TYPE_CHECKING:
    from brainfeat.evaluation.results import Subset, Subsets
    from brainfeat.metrics import Metrics


# What a head has seen of the images that a subset leaves out.
_KINDS = {
    "without_copies": "a copy",
    "without_near_duplicates": "a near duplicate",
    "without_exact_duplicates": "an exact duplicate",
}


def make_summary(metrics: "Metrics", *, findings: Sequence[str] = ()) -> Section:
    """Sum up in sentences, the three accuracies, and what an audit found."""
    blocks: list[Block] = [" ".join(summarise(metrics))]
    if isinstance(metrics, Evaluation):
        texts = (*metrics.describe_classes(), *_describe_trust(metrics), *_describe_unit(metrics))
        blocks += [f"{capitalise(text)}." for text in texts]
        blocks.append(Tiles(entries=list(_list_tiles(metrics))))
    if findings:
        blocks += [
            "The audit of the data found:",
            Items(entries=[f"{capitalise(text)}." for text in findings]),
        ]
    return Section(name="summary", title="Summary", blocks=blocks)


def _describe_trust(evaluation: Evaluation) -> Iterator[str]:
    """Yield what does not hold of prediction sets and probabilities, without copies if possible."""
    name, part = list_parts(evaluation)[0]
    where = "" if name == "all" else f"{name_subset(name, part)}, "
    if isinstance(part, Results):
        abstention, errors = part.abstention, part.confident_errors
        for text in (abstention and abstention.describe_coverage(), errors and errors.describe()):
            if text:
                yield f"{where}{text}"


def _describe_unit(evaluation: Evaluation) -> Iterator[str]:
    """Yield what a patient is, and by which rule the head answers for one."""
    if evaluation.unit == IMAGE:
        return
    yield "a patient is a group of the table, and has been seen if any of its images has"
    if evaluation.pooling == "bag":
        yield "the head takes the images of a patient together; its target coverage is of patients"
    else:
        yield (
            "the probabilities of a patient are the mean of those of the images that are not out "
            "of distribution, and classes that are answered for single images join the prediction "
            "set; the target coverage holds for images, and not for patients"
        )


def summarise(metrics: "Metrics") -> list[str]:
    """Describe in sentences how good the head is on new images, on all, and class by class."""
    if isinstance(metrics, Evaluation):
        sentences = list(_describe_accuracy(metrics))
    else:
        sentences = [
            (
                f"On {count(metrics.n, name_noun(metrics))} accuracy is {show(metrics.accuracy)}; "
                "whether the head has seen copies of them is not known."
            )
        ]
    name, part = list_parts(metrics)[0]
    words = f"on {name_subset(name, part)}" if name == "all" else name_subset(name, part)
    few = getattr(part, "few", {}) if name != "all" else {}
    recalls = [
        (entry.recall, entry.name)
        for entry in part.per_class
        if entry.recall is not None and entry.name not in few
    ]
    if len(recalls) > 1:
        each = "every other" if few else "every"
        (worst, worst_name), (best, best_name) = min(recalls), max(recalls)
        sentences.append(
            f"Sensitivity {words} is {show(best)} in {each} class."
            if worst == best
            else f"Sensitivity {words} ranges from {show(worst)} ({worst_name}) to "
            f"{show(best)} ({best_name})."
        )
    return sentences


def _describe_accuracy(evaluation: Evaluation) -> Iterator[str]:
    """Yield the accuracy on images that are new to the head, then that on all images."""
    subsets, everything = evaluation.subsets, evaluation.subsets.all
    noun = name_noun(evaluation)
    name = name_headline(subsets)
    new, kind = getattr(subsets, name), _KINDS.get(name, "")
    of_all = f"On all {_count_all(evaluation)} ({name_split(evaluation.split)}),"
    if name == "all":
        reason = subsets.without_exact_duplicates.reason
        yield f"{of_all} accuracy is {_describe_certainty(everything)}."
        yield f"How much of this is due to images that the head has seen is not known: {reason}."
        return
    if new.n == everything.n:
        yield (
            f"{of_all} accuracy is {_describe_certainty(everything)}; the head has seen {kind} of "
            "none of them."
        )
    elif not new.n:
        yield f"The head has seen {kind} of every {noun}: how it does on new ones is not known."
        yield f"{of_all} accuracy is {_describe_certainty(everything)}."
    else:
        yield (
            f"On {count(new.n, noun)} of which the head has seen no "
            f"{kind.partition(' ')[2]}, accuracy is {_describe_certainty(new)}."
        )
        excess = (everything.accuracy or 0) - (new.accuracy or 0)
        yield (
            f"{of_all} it is {estimate_metric(everything, 'accuracy')}, {show(abs(excess))} "
            f"{'higher' if excess >= 0 else 'lower'}: the head has seen {kind} of "
            f"{everything.n - new.n:,} of them, {_count_files(evaluation)}."
        )
    if subsets.without_copies.reason is not None and name != "without_copies":
        yield f"Copies were not looked for: {subsets.without_copies.reason}."
    yield from _describe_few(evaluation)


def _count_all(evaluation: Evaluation) -> str:
    """Count what was measured; of patients, their images as well."""
    found = count(evaluation.n, name_noun(evaluation))
    if evaluation.unit == IMAGE or evaluation.n_images is None:
        return found
    return f"{found} with {count(evaluation.n_images, 'image')}"


def _count_files(evaluation: Evaluation) -> str:
    """Count the images on whose very file the head was fitted or validated."""
    files = evaluation.seen_files
    seen = evaluation.n - evaluation.subsets.without_exact_duplicates.n
    if files is None or not seen:
        return f"and an exact duplicate of {seen:,}"
    return (
        f"and an exact duplicate of {seen:,} ({files['train']:,} in the train split of its fit, "
        f"{files['val']:,} in val)"
    )


def _describe_few(evaluation: Evaluation) -> Iterator[str]:
    """Yield which classes have too few images that are new to the head."""
    new = evaluation.copy_free
    if new is not None and (few := {k: n for k, n in new.few.items() if k not in evaluation.few}):
        classes = name_some([f"{name} ({number:,})" for name, number in few.items()])
        yield (
            f"Without copies, too few {name_noun(evaluation)}s are left of {classes} to say "
            "anything about them, and means over the classes say little."
        )


def _describe_certainty(subset: "Subset") -> str:
    interval = find_interval(subset, "accuracy")
    certainty = (
        f"95 % interval {format_interval(interval)}"
        if interval
        else f"no interval: {subset.reason}"
    )
    return f"{show(subset.accuracy)} ({certainty})"


def _list_tiles(evaluation: Evaluation) -> Iterator[tuple[str, Cell, str]]:
    for name in SUBSET_NAMES:
        subset, words = getattr(evaluation.subsets, name), name_subset(name, evaluation)
        yield (
            f"Accuracy {'on ' if name == 'all' else ''}{words}",
            estimate_metric(subset, "accuracy"),
            count(subset.n or None, name_noun(evaluation)),
        )


def make_overall(metrics: "Metrics") -> Section:
    """Show the metrics of the whole, without copies of seen images and with them."""
    blocks: list[Block] = [_list_bare(metrics)]
    if isinstance(metrics, Evaluation):
        blocks = [
            (
                "Exact duplicates are files that the head was fitted or validated on; copies show "
                "the same pixels as one of these, re-encoded, mirrored, turned or cropped; near "
                "duplicates have nearly the same features, such as a neighbouring slice. A head "
                "can recognise all three, so they say little about new patients."
            ),
            _list_subsets(metrics),
            *list_floors(metrics),
            _list_further(metrics),
            *_draw_subsets(metrics),
        ]
    return Section(name="overall", title="Overall metrics", blocks=blocks)


def _list_subsets(evaluation: Evaluation) -> Table:
    subsets: list[Subset] = [getattr(evaluation.subsets, name) for name in SUBSET_NAMES]
    rows: list[tuple[Cell, ...]] = [
        (f"{name_noun(evaluation)}s", *(_count(subset.n) for subset in subsets)),
        ("groups", *(_count(subset.n_groups) for subset in subsets)),
    ]
    rows += [
        (METRIC_NAMES[name], *(estimate_metric(subset, name) for subset in subsets))
        for name in SUBSET_METRICS
    ]
    return Table(
        title="With and without copies of seen images",
        head=("metric", *(name_subset(name, evaluation) for name in SUBSET_NAMES)),
        rows=rows,
        note=" ".join([*_explain_intervals(evaluation), *_explain_gaps(evaluation)]),
    )


def _list_bare(metrics: "Metrics") -> Table:
    values = (metrics.accuracy, metrics.balanced_accuracy, metrics.macro.f1)
    further = _list_further(metrics)
    return replace(
        further,
        title=capitalise(name_subset("all", metrics)),
        rows=[
            (f"{name_noun(metrics)}s", f"{metrics.n:,}"),
            *(
                (METRIC_NAMES[name], estimate(value))
                for name, value in zip(SUBSET_METRICS, values, strict=True)
            ),
            *further.rows,
        ],
    )


def _list_further(metrics: "Metrics") -> Table:
    worst = 1 if len(metrics.class_names) == 2 else 2
    parts = list_parts(metrics)
    return Table(
        title="Further metrics",
        head=("metric", *(name_subset(name, part) for name, part in parts)),
        rows=[
            (METRIC_NAMES[name], *(estimate(getattr(part, name)) for _, part in parts))
            for name in FURTHER_METRICS
        ],
        explanation="The macro ROC AUC is the mean over classes, each against the rest. Smaller is "
        f"better for the log loss and the Brier score, which runs from 0 to {worst}.",
    )


def _explain_intervals(evaluation: Evaluation) -> Iterator[str]:
    if _has_intervals(evaluation.subsets):
        yield (
            "In brackets: 95 % intervals, percentiles of "
            f"{evaluation.bootstrap.n_resamples:,} bootstrap resamples of whole groups "
            "(patients of the table, and clusters of copies)."
        )
    if _is_bounded(evaluation):
        yield (
            "Resampling cannot change a metric without an error: its interval is the exact "
            "binomial one (Clopper–Pearson) over groups."
        )


def _is_bounded(evaluation: Evaluation) -> bool:
    """Return whether an interval is a binomial one."""
    subsets = [getattr(evaluation.subsets, name) for name in SUBSET_NAMES]
    classes = [entry for _, part in list_parts(evaluation) for entry in part.per_class]
    found = [getattr(record, "intervals", None) for record in (*subsets, *classes)]
    return any(intervals is not None and intervals.binomial for intervals in found)


def _has_intervals(subsets: "Subsets") -> bool:
    return any(getattr(subsets, name).intervals for name in SUBSET_NAMES)


def _explain_gaps(evaluation: Evaluation) -> Iterator[str]:
    """Give the reasons for missing metrics and intervals, each once."""
    missing: dict[str, list[str]] = {}
    for name in SUBSET_NAMES:
        subset, words = getattr(evaluation.subsets, name), name_subset(name, evaluation)
        if subset.reason is not None:
            what = "metrics" if subset.accuracy is None else "intervals"
            missing.setdefault(f"{what}: {subset.reason}", []).append(words)
    for reason, names in missing.items():
        if len(names) == len(SUBSET_NAMES):
            yield f"No {reason}."
        else:
            yield f"{capitalise(', '.join(names))}: no {reason}."


def _draw_subsets(evaluation: Evaluation) -> Iterator[Chart]:
    subsets = evaluation.subsets
    if not _has_intervals(subsets):
        return
    groups = [
        (
            METRIC_NAMES[name],
            [
                (
                    name_subset(subset, evaluation) if subset == "all" else words,
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
    """Show the metrics by value of a column of the table, without copies first."""
    return Section(
        name="values",
        title="Metrics by value of a column",
        blocks=[
            _list_values(part, name_subset(name, part))
            for name, part in list_parts(evaluation)
            if isinstance(part, Results)
        ],
    )


def _list_values(results: Results, words: str) -> Table:
    by = results.by
    return Table(
        title=f"{capitalise(words)}, by value of the column",
        head=(
            "value",
            f"{name_noun(results)}s",
            "groups",
            METRIC_NAMES["accuracy"],
            METRIC_NAMES["balanced_accuracy"],
        ),
        rows=[
            (
                value or NO_VALUE,
                f"{subset.n:,}",
                f"{subset.n_groups:,}",
                estimate_metric(subset, "accuracy"),
                estimate_metric(subset, "balanced_accuracy"),
            )
            for value, subset in by.items()
        ],
        note=f"Values with fewer than {MIN_GROUPS} groups have no metrics."
        if any(subset.accuracy is None for subset in by.values())
        else "",
    )


def _count(number: int) -> str:
    # A subset that was not looked for has no images either.
    return format_number(number or None)
