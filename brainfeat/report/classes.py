"""The results of each class, in a section: confusion matrices, metrics and curves."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from brainfeat.evaluation.results import Evaluation
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
from brainfeat.report.wording import CLASS_METRIC_NAMES, SUBSET_NAMES
from brainfeat.text import UNDEFINED

if TYPE_CHECKING:
    from brainfeat.evaluation.results import ClassEvaluation, Predictions
    from brainfeat.metrics import Metrics

# Metrics that the two forest plots show.
_FOREST = (("recall", "specificity", "precision"), ("f1", "roc_auc", "average_precision"))
# What stands where a mean over the classes is not taken.
_NO_MEAN = "–"


def make_classes(metrics: "Metrics") -> Section:
    """Show confusion matrices, the metrics of each class, and its curves."""
    evaluation = metrics if isinstance(metrics, Evaluation) else None
    matrices: list[Block] = [*_count_new(evaluation)] if evaluation else []
    matrices.append(
        Matrix(
            title=f"Confusion matrix, {SUBSET_NAMES['all']}",
            names=metrics.class_names,
            counts=metrics.confusion_matrix,
        )
    )
    few = len(metrics.class_names) <= FEW_CLASSES
    blocks: list[Block] = [
        *([Columns(parts=[[matrix] for matrix in matrices])] if few else matrices),
        _list_classes(metrics),
    ]
    if evaluation:
        blocks += [
            *_draw_intervals(evaluation.per_class),
            *_draw_curves(evaluation),
            *_list_prevalence(evaluation),
        ]
    return Section(name="classes", title="Metrics by class", blocks=blocks)


def _count_new(evaluation: Evaluation) -> Iterator[Matrix]:
    """Yield the confusion matrix without near duplicates, where there are some but not all."""
    names, predictions = evaluation.class_names, evaluation.predictions
    if predictions is None or predictions.near_duplicates is None:
        return
    new = ~predictions.near_duplicates
    if 0 < new.sum() < len(new):
        yield Matrix(
            title=f"Confusion matrix {SUBSET_NAMES['without_near_duplicates']}",
            names=names,
            counts=_count_predictions(predictions, new, len(names)),
        )


def _count_predictions(
    predictions: "Predictions", chosen: NDArray[np.bool_], n_classes: int
) -> list[list[int]]:
    """Count the chosen images by true class and by predicted class."""
    counts = np.zeros((n_classes, n_classes), np.intp)
    predicted = predictions.probabilities[chosen].argmax(axis=1)
    np.add.at(counts, (predictions.y[chosen], predicted), 1)
    found: list[list[int]] = counts.tolist()
    return found


def _list_classes(metrics: "Metrics") -> Table:
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
    is_gap = any(cell == Estimate(value=UNDEFINED) for row in rows for cell in row)
    return Table(
        title="Each class against the rest, all images",
        head=("class", "images", *CLASS_METRIC_NAMES.values()),
        rows=rows,
        note=f"{UNDEFINED}: not defined, because no image, or every image, is of the class or was "
        "predicted as such."
        if is_gap
        else "",
        explanation="Sensitivity is the fraction of the images of a class that were predicted as "
        "such; specificity is the fraction of the other images that were not. PPV and NPV, the "
        "positive and negative predictive values, hold only for the mix of classes of these "
        "images.",
    )


def _draw_intervals(per_class: "Sequence[ClassEvaluation]") -> Iterator[Chart]:
    if not any(entry.intervals for entry in per_class):
        return
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
            title=f"Each class: {titles[0]}, {titles[1]} and {titles[2]}",
            caption="Squares are the metrics on all images, lines their 95 % intervals. Where two "
            "lines overlap widely, classes may differ by chance.",
            description=charts.describe_intervals(groups),
            draw=partial(charts.draw_intervals, groups, name=f"classes-{number}"),
        )


def _draw_curves(evaluation: Evaluation) -> Iterator[Chart]:
    """Draw the curves of the classes that have images, and of which not all images are."""
    predictions = evaluation.predictions
    ranked = [
        label for label, entry in enumerate(evaluation.per_class) if entry.roc_auc is not None
    ]
    if predictions is None or not ranked:
        return
    entries = [evaluation.per_class[label] for label in ranked]
    areas = [_describe_score(entry, "roc_auc") for entry in entries]
    yield Chart(
        title="ROC curves",
        caption="Each class against the rest, all images, as the threshold on its probability "
        "falls. The dotted diagonal is guessing; the upper left corner is without error.",
        description=f"{'; '.join(areas)}.",
        draw=partial(charts.draw_roc, predictions, ranked),
        legend=areas,
    )
    means = [_describe_score(entry, "average_precision") for entry in entries]
    yield Chart(
        title="Precision–recall curves",
        caption="Each class against the rest, all images. Precision depends on how common a class "
        "is among these images; guessing has a precision of the fraction of the class.",
        description=f"{'; '.join(means)}.",
        draw=partial(charts.draw_precision_recall, predictions, ranked),
        legend=means,
    )


def _describe_score(entry: "ClassEvaluation", name: str) -> str:
    return f"{entry.name}: {CLASS_METRIC_NAMES[name]} {estimate_metric(entry, name)}"


def _list_prevalence(evaluation: Evaluation) -> Iterator[Table]:
    if evaluation.prevalence:
        yield Table(
            title="Predictive values at another prevalence",
            head=("class", "prevalence", "PPV", "NPV"),
            rows=[
                (name, f"{entry.prevalence:g}", estimate(entry.ppv), estimate(entry.npv))
                for name, entry in evaluation.prevalence.items()
            ],
            explanation="From the sensitivity and the specificity above, by Bayes' rule.",
        )
