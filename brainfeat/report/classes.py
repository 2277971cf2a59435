"""The results of each class, in a section: confusion matrices, metrics and curves."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING

from brainfeat.evaluation.results import Results
from brainfeat.report import charts
from brainfeat.report.blocks import (
    FEW_CLASSES,
    Block,
    Cell,
    Chart,
    Columns,
    Estimate,
    Matrix,
    Section,
    Table,
    estimate,
    estimate_metric,
    find_interval,
)
from brainfeat.report.wording import (
    CLASS_METRIC_NAMES,
    describe_few,
    list_parts,
    name_noun,
    name_subset,
)
from brainfeat.text import UNDEFINED

if TYPE_CHECKING:
    from brainfeat.evaluation.results import ClassEvaluation
    from brainfeat.metrics import Metrics

# Metrics that the two forest plots show.
_FOREST = (("recall", "specificity", "precision"), ("f1", "roc_auc", "average_precision"))
# What stands where a mean over the classes is not taken.
_NO_MEAN = "–"


def make_classes(metrics: "Metrics") -> Section:
    """Show confusion matrices, the metrics of each class, and its curves, without copies first."""
    parts = list_parts(metrics)
    matrices: list[Block] = [
        Matrix(
            title=f"Confusion matrix, {name_subset(name, part)}",
            names=part.class_names,
            counts=part.confusion_matrix,
        )
        for name, part in parts
    ]
    few = len(metrics.class_names) <= FEW_CLASSES
    blocks: list[Block] = [Columns(parts=[[matrix] for matrix in matrices])] if few else matrices
    for name, part in parts:
        blocks.append(list_classes(part, name_subset(name, part)))
        if isinstance(part, Results):
            blocks += [
                *_draw_intervals(part, name),
                *_draw_curves(part, name),
                *_list_prevalence(part, name_subset(name, part)),
            ]
    return Section(name="classes", title="Metrics by class", blocks=blocks)


def list_classes(metrics: "Metrics", words: str) -> Table:
    """List the scores of each class against the rest, and their means."""
    rows: list[tuple[Cell, ...]] = [
        (
            entry.name,
            f"{entry.support:,}",
            *(estimate_metric(entry, name) for name in CLASS_METRIC_NAMES),
        )
        for entry in metrics.per_class
    ]
    macro = {**asdict(metrics.macro), "roc_auc": metrics.roc_auc}
    for title, means in (("macro mean", macro), ("weighted mean", asdict(metrics.weighted))):
        cells = [
            estimate(means[name]) if name in means else _NO_MEAN for name in CLASS_METRIC_NAMES
        ]
        rows.append((title, f"{metrics.n:,}", *cells))
    noun = name_noun(metrics)
    return Table(
        title=f"Each class against the rest, {words}",
        head=("class", f"{noun}s", *CLASS_METRIC_NAMES.values()),
        rows=rows,
        note=" ".join(_explain_gaps(metrics, rows)),
        explanation=f"Sensitivity is the fraction of the {noun}s of a class that were predicted as "
        f"such; specificity is the fraction of the other {noun}s that were not. PPV and NPV, the "
        "positive and negative predictive values, hold only for the mix of classes of these "
        f"{noun}s.",
    )


def _explain_gaps(metrics: "Metrics", rows: Sequence[Sequence[Cell]]) -> Iterator[str]:
    noun = name_noun(metrics)
    if any(cell == Estimate(value=UNDEFINED) for row in rows for cell in row):
        yield (
            f"{UNDEFINED}: not defined, because no {noun}, or every {noun}, is of the class or was "
            "predicted as such."
        )
    if few := getattr(metrics, "few", {}):
        yield f"{describe_few(few, noun)}; such scores, and means over the classes, say little."


def _draw_intervals(evaluation: Results, part: str) -> Iterator[Chart]:
    per_class = evaluation.per_class
    if not any(entry.intervals for entry in per_class):
        return
    words = name_subset(part, evaluation)
    for number, chosen in enumerate(_FOREST, 1):
        groups = [
            (
                CLASS_METRIC_NAMES[name],
                [
                    (entry.name, getattr(entry, name), find_interval(entry, name))
                    for entry in per_class
                ],
            )
            for name in chosen
        ]
        titles = [heading for heading, _ in groups]
        yield Chart(
            title=f"Each class, {words}: {titles[0]}, {titles[1]} and {titles[2]}",
            caption="Squares are metrics, lines their 95 % intervals. Where two lines overlap "
            "widely, classes may differ by chance.",
            description=charts.describe_intervals(groups),
            draw=partial(
                charts.draw_intervals, groups, name=_name_chart(f"classes-{number}", part)
            ),
        )


def _draw_curves(evaluation: Results, part: str) -> Iterator[Chart]:
    """Draw the curves of the classes that have images, and of which not all images are."""
    predictions, words = evaluation.predictions, name_subset(part, evaluation)
    ranked = [
        label for label, entry in enumerate(evaluation.per_class) if entry.roc_auc is not None
    ]
    if predictions is None or not ranked:
        return
    entries = [evaluation.per_class[label] for label in ranked]
    areas = [_describe_score(entry, "roc_auc") for entry in entries]
    yield Chart(
        title=f"ROC curves, {words}",
        caption="Each class against the rest, as the threshold on its probability "
        "falls. The dotted diagonal is guessing; the upper left corner is without error.",
        description=f"{'; '.join(areas)}.",
        draw=partial(charts.draw_roc, predictions, ranked, name=_name_chart("roc", part)),
        legend=areas,
    )
    means = [_describe_score(entry, "average_precision") for entry in entries]
    yield Chart(
        title=f"Precision–recall curves, {words}",
        caption="Each class against the rest. Precision depends on how common a class "
        "is in this mix of classes; guessing has a precision of the fraction of the class.",
        description=f"{'; '.join(means)}.",
        draw=partial(
            charts.draw_precision_recall,
            predictions,
            ranked,
            name=_name_chart("precision-recall", part),
        ),
        legend=means,
    )


def _describe_score(entry: "ClassEvaluation", name: str) -> str:
    return f"{entry.name}: {CLASS_METRIC_NAMES[name]} {estimate_metric(entry, name)}"


def _name_chart(name: str, part: str) -> str:
    """Name a chart of the images of a subset; names start the ids of a page."""
    return f"{name}-{part.replace('_', '-')}"


def _list_prevalence(evaluation: Results, words: str) -> Iterator[Table]:
    if evaluation.prevalence:
        yield Table(
            title=f"Predictive values at another prevalence, {words}",
            head=("class", "prevalence", "PPV", "NPV"),
            rows=[
                (name, f"{entry.prevalence:g}", estimate(entry.ppv), estimate(entry.npv))
                for name, entry in evaluation.prevalence.items()
            ],
            explanation="From the sensitivity and the specificity above, by Bayes' rule.",
        )
