"""Several sets in one table: what the head is worth on each, and what it differs by."""

from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import PurePath
from typing import TYPE_CHECKING

from brainfeat.evaluation.abstention import CONFIDENT
from brainfeat.evaluation.class_mapping import is_coarse
from brainfeat.report import charts
from brainfeat.report.blocks import (
    Block,
    Cell,
    Chart,
    Estimate,
    Items,
    Matrix,
    Section,
    Table,
    estimate,
)
from brainfeat.report.classes import list_classes
from brainfeat.report.results import summarise
from brainfeat.report.wording import METRIC_NAMES, name_noun, name_subset
from brainfeat.text import (
    UNDEFINED,
    count,
    format_interval,
    format_metric,
    format_percent,
    name_some,
    shorten,
)

if TYPE_CHECKING:
    from brainfeat.evaluation.set_results import SetEvaluation, SetRow, SetsEvaluation

# The metric of the differences: each class has the same weight, whatever the mix of a set.
_COMPARED = "balanced_accuracy"
# Columns of the name of a set beside a chart.
_LABEL_WIDTH = 18


def name_sets(evaluation: "SetsEvaluation") -> list[str]:
    """Name each set by its file; folders may contain names of people, and are left out.

    Parameters
    ----------
    evaluation : SetsEvaluation

    Returns
    -------
    list of str
        Those of one name are numbered.
    """
    names = [PurePath(entry.cache).name for entry in evaluation.sets]
    twice = {name for name, number in Counter(names).items() if number > 1}
    numbers = dict.fromkeys(twice, 0)
    labels = []
    for name in names:
        if name in twice:
            numbers[name] += 1
            labels.append(f"{name} ({numbers[name]})")
        else:
            labels.append(name)
    return labels


def make_sets(evaluation: "SetsEvaluation") -> Section:
    """Show what the head is worth on each set, and what a reader must know of it."""
    names = name_sets(evaluation)
    rows = list(zip(names, evaluation.sets, strict=True))
    noun = name_noun(evaluation)
    blocks: list[Block] = [
        Table(
            title=f"Metrics on {noun}s that are new to the head",
            head=("set", "classes", f"{noun}s", "accuracy", "balanced accuracy", "difference"),
            rows=[
                (
                    name,
                    _count_classes(entry),
                    _count_images(entry.row),
                    _estimate(entry.row, "accuracy"),
                    _estimate(entry.row, "balanced_accuracy"),
                    _describe_difference(entry),
                )
                for name, entry in rows
            ],
            note=" ".join(_explain_difference(evaluation)),
            explanation="In brackets, or below: 95 % intervals, of a bootstrap over groups. The "
            "balanced accuracy does not depend on how common each class is in a set.",
        ),
        Table(
            title="What its answers and probabilities are worth there",
            head=(
                "set",
                "answered",
                "right of these",
                _name_coverage(evaluation),
                "calibration error",
                "wrong",
                "confident of these",
            ),
            rows=[(name, *_list_trust(entry.row)) for name, entry in rows],
            explanation=f"Coverage is the fraction of the {noun}s whose prediction set has the "
            "true class, with its exact binomial interval over groups. Of a wrong prediction, the "
            f"head is confident if its probability is above {CONFIDENT:g}.",
        ),
    ]
    if any(entry.row.accuracy_interval for entry in evaluation.sets):
        blocks.insert(1, _draw_sets(names, evaluation))
    if found := evaluation.describe(names):
        blocks.append(Items(entries=[f"{text}." for text in found]))
    return Section(name="sets", title="What it is worth on each set", blocks=blocks)


def _draw_sets(names: list[str], evaluation: "SetsEvaluation") -> Chart:
    groups = [
        (
            METRIC_NAMES[metric],
            [
                (
                    shorten(name, _LABEL_WIDTH),
                    getattr(entry.row, metric),
                    getattr(entry.row, f"{metric}_interval"),
                )
                for name, entry in zip(names, evaluation.sets, strict=True)
            ],
        )
        for metric in ("accuracy", _COMPARED)
    ]
    return Chart(
        title="Each set with 95 % intervals",
        caption="Squares are the metrics of the table above, lines their 95 % intervals.",
        description=charts.describe_intervals(groups),
        draw=partial(charts.draw_intervals, groups, name="sets"),
    )


def make_set(entry: "SetEvaluation", name: str, place: int) -> Section:
    """Show the results of one set: a summary, the confusion matrix and the classes."""
    results = entry.results
    words = name_subset("all" if results is entry.evaluation else "without_copies", results)
    return Section(
        name=f"set-{place}",
        title=f"Results on {name}",
        blocks=[
            " ".join(summarise(entry.evaluation)),
            Matrix(
                title=f"Confusion matrix, {words}",
                names=results.class_names,
                counts=results.confusion_matrix,
            ),
            list_classes(results, words),
        ],
    )


def _count_classes(entry: "SetEvaluation") -> str:
    number = len(entry.evaluation.class_names)
    mapping = entry.evaluation.classes
    coarse = ", coarser" if mapping is not None and is_coarse(mapping) else ""
    present = f"{number - len(entry.evaluation.absent)} of " if entry.evaluation.absent else ""
    return f"{present}{number}{coarse}"


def _count_images(row: "SetRow") -> str:
    return f"{row.n:,} of {row.n + row.left_out:,}" if row.left_out else f"{row.n:,}"


def _estimate(row: "SetRow", name: str) -> Estimate:
    return estimate(getattr(row, name), getattr(row, f"{name}_interval"))


def _describe_difference(entry: "SetEvaluation") -> Cell:
    if entry.is_test_part:
        return "test part"
    if entry.difference is None:
        return UNDEFINED
    found = getattr(entry.difference, _COMPARED)
    ends = format_interval(found.interval, signed=True)
    return Estimate(
        value=format_metric(found.difference, signed=True),
        interval="" if ends == UNDEFINED else ends,
    )


def _explain_difference(evaluation: "SetsEvaluation") -> Iterator[str]:
    found = evaluation.reference
    if found is None:
        return
    which, noun = name_subset(found.images, evaluation), name_noun(evaluation)
    yield (
        f"Difference: in {METRIC_NAMES[_COMPARED]}, to the test part of the fit "
        f"({count(found.n, noun)}, {which}: {format_metric(getattr(found, _COMPARED))}), over "
        "the classes that both have."
    )
    if found.origin == "record":
        yield (
            "That part is not among the sets: its recorded confusion matrix is resampled, each "
            "image as a group of its own, so the intervals are too narrow where it has copies."
        )
    few = {
        name
        for entry in evaluation.sets
        if entry.difference is not None
        and len(entry.difference.classes)
        < len(entry.evaluation.class_names) - len(entry.evaluation.absent)
        for name in entry.evaluation.class_names
        if name not in (*entry.difference.classes, *entry.evaluation.absent)
    }
    if few:
        yield f"Classes of which that part has no {noun}, {which}: {name_some(sorted(few))}."
    for name, entry in zip(name_sets(evaluation), evaluation.sets, strict=True):
        if entry.difference is None or len(entry.difference.classes) == len(
            entry.evaluation.class_names
        ):
            continue
        compared = getattr(entry.difference, _COMPARED)
        yield (
            f"Of {name_some(list(entry.difference.classes))} alone, it is "
            f"{format_metric(compared.second)} on {name} and {format_metric(compared.first)} on "
            "that part."
        )


def _name_coverage(evaluation: "SetsEvaluation") -> str:
    targets = {entry.row.target_coverage for entry in evaluation.sets} - {None}
    return f"coverage (target {targets.pop():g})" if len(targets) == 1 else "coverage"


def _list_trust(row: "SetRow") -> Iterator[Cell]:
    yield estimate(row.answered)
    yield estimate(row.answered_accuracy)
    yield estimate(row.coverage, row.coverage_interval)
    yield estimate(row.calibration_error)
    yield f"{row.wrong:,}" if row.n else UNDEFINED
    fraction = f" ({format_percent(row.confident_errors, row.wrong)})" if row.wrong else ""
    yield f"{row.confident_errors:,}{fraction}" if row.n else UNDEFINED
