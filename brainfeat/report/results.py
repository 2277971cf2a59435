"""What an evaluation says, in sections: the honest figure first, then all others."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from brainfeat.report import charts
from brainfeat.report.blocks import (
    FEW_CLASSES,
    Block,
    Chart,
    Columns,
    Items,
    Matrix,
    Section,
    Table,
    Tiles,
    count,
    show,
)
from brainfeat.report.tables import CLASS_FIGURES, SUBSET_FIGURES

if TYPE_CHECKING:
    from brainfeat.cache.cache import FeatureCache
    from brainfeat.evaluation.results import ClassEvaluation, Evaluation, Predictions, Subset
    from brainfeat.heads.bundle import HeadBundle
    from brainfeat.leakage.results import Audit

SUBSET_TITLES = {
    "without_near_duplicates": "Without near duplicates",
    "without_exact_duplicates": "Without identical files",
    "all": "All images",
}
_SHORT_TITLES = {
    "all": "all",
    "without_near_duplicates": "new",
    "without_exact_duplicates": "no identical",
}
# Figures of a class that the two forest plots show.
_FOREST = (("sensitivity", "specificity", "PPV"), ("F1", "ROC AUC", "average precision"))


@dataclass(frozen=True, kw_only=True)
class Study:
    """What a report is about; the predictions are those of the evaluation."""

    evaluation: "Evaluation"
    predictions: "Predictions"
    bundle: "HeadBundle"
    cache: "FeatureCache"
    audit: "Audit"
    command: str | None

    @property
    def is_same_cache(self) -> bool:
        """Whether the head was fitted on the cache that it was measured on."""
        return bool(self.bundle.training.get("cache_sha256") == self.cache.content_sha256)

    @property
    def split_name(self) -> str:
        """The images that were measured, in words."""
        split = self.evaluation.split
        return "all labelled images" if split == "all" else f"the {split} split"

    def training(self, name: str) -> Mapping[str, Any]:
        """Give an object of what the head file says of its training; an empty one for none."""
        value = self.bundle.training.get(name)
        return value if isinstance(value, dict) else {}


def summarise(study: Study) -> list[str]:
    """Say in sentences what the head is worth, the honest figure first."""
    subsets = study.evaluation.subsets
    sentences = [_say_honest(subsets.without_near_duplicates), _say_headline(study)]
    recalls = [
        (entry.recall, entry.name)
        for entry in study.evaluation.per_class
        if entry.recall is not None
    ]
    if len(recalls) > 1:
        (worst, worst_name), (best, best_name) = min(recalls), max(recalls)
        sentences.append(
            f"On all images sensitivity runs from {worst:.3f} ({worst_name}) to {best:.3f} "
            f"({best_name})."
        )
    return sentences


def _say_honest(near: "Subset") -> str:
    if near.accuracy is None:
        return f"There is no honest figure of accuracy: {near.reason or 'no images are left'}."
    interval = getattr(near.intervals, "accuracy", None)
    reliance = (
        f"95 % interval {interval[0]:.3f}–{interval[1]:.3f}"
        if interval
        else f"no interval: {near.reason}"
    )
    return (
        f"On images that are new to the head its accuracy is {near.accuracy:.3f} ({reliance}): "
        f"{count(near.n, 'image')} of which it has seen no near duplicate."
    )


def _say_headline(study: Study) -> str:
    subsets = study.evaluation.subsets
    everything, near = subsets.all, subsets.without_near_duplicates
    start = (
        f"On all {count(everything.n, 'image')} ({study.split_name}) it is "
        f"{show(everything.accuracy, getattr(everything.intervals, 'accuracy', None))}"
    )
    if near.accuracy is None or everything.accuracy is None:
        return f"{start}; how much of this is owed to copies of images that it has seen is unknown."
    if near.n == everything.n:
        return f"{start}: it has seen a copy of none of them."
    excess = everything.accuracy - near.accuracy
    identical = everything.n - subsets.without_exact_duplicates.n
    return (
        f"{start}, {abs(excess):.3f} {'higher' if excess >= 0 else 'lower'}: the head has seen a "
        f"near duplicate of {everything.n - near.n:,} of them, and of {identical:,} an identical "
        "file."
    )


def make_summary(study: Study) -> Section:
    """Give the summary: sentences, the three accuracies, and what was found."""
    tiles = [
        (
            f"Accuracy {'on ' if name == 'all' else ''}{title[0].lower()}{title[1:]}",
            show(subset.accuracy, getattr(subset.intervals, "accuracy", None)),
            count(subset.n, "image"),
        )
        for name, title in SUBSET_TITLES.items()
        for subset in (getattr(study.evaluation.subsets, name),)
    ]
    blocks: list[Block] = [" ".join(summarise(study)), Tiles(entries=tiles)]
    findings = study.audit.findings
    if findings:
        blocks += [
            "The audit of the data found:",
            Items(entries=[f"{text[0].upper()}{text[1:]}." for text in findings]),
        ]
    return Section(name="summary", title="Summary", blocks=blocks)


def make_comparison(study: Study) -> Section:
    """Give the three columns: without near duplicates, without identical files, and all."""
    evaluation = study.evaluation
    subsets = {name: getattr(evaluation.subsets, name) for name in SUBSET_TITLES}
    rows = [
        ("images", *(f"{subset.n:,}" for subset in subsets.values())),
        ("independent groups", *(f"{subset.n_groups:,}" for subset in subsets.values())),
    ]
    for title, name in SUBSET_FIGURES:
        cells = [
            show(getattr(subset, name), getattr(subset.intervals, name, None))
            for subset in subsets.values()
        ]
        rows.append((title, *cells))
    reasons = {
        f"{SUBSET_TITLES[name]}: {subset.reason}."
        for name, subset in subsets.items()
        if subset.reason
    }
    groups = [
        (
            title,
            [
                (
                    _SHORT_TITLES[key],
                    getattr(subset, name),
                    getattr(subset.intervals, name, None),
                )
                for key, subset in subsets.items()
            ],
        )
        for title, name in SUBSET_FIGURES
    ]
    return Section(
        name="comparison",
        title="With and without copies of seen images",
        blocks=[
            (
                "An image has been seen if the head was fitted, or stopped, on it. Identical files "
                "have the same bytes. Near duplicates have image features that are almost alike: "
                "the same slice saved anew, a neighbouring slice, or a slice of the same patient. "
                "A head can recognise them, so that they say little about new patients."
            ),
            Table(
                title="Overall figures",
                head=("figure", *SUBSET_TITLES.values()),
                rows=rows,
                note=" ".join([_say_intervals(evaluation), *sorted(reasons)]).strip(),
            ),
            Chart(
                title="Overall figures with 95 % intervals",
                caption="Squares are the figures of the table above, lines their 95 % intervals. "
                "New: without near duplicates; no identical: without identical files.",
                description=_describe_groups(groups),
                draw=partial(charts.draw_intervals, groups, name="overall"),
            ),
        ],
    )


def _say_intervals(evaluation: "Evaluation") -> str:
    bootstrap = evaluation.bootstrap
    if not any(subset.intervals for subset in vars(evaluation.subsets).values()):
        return ""
    return (
        f"In brackets: 95 % intervals, percentiles of {bootstrap.n_resamples:,} bootstrap "
        "resamples of whole groups (patients of the table, or else near duplicates of each other)."
    )


def _describe_groups(groups: Sequence[tuple[str, Sequence[charts.IntervalRow]]]) -> str:
    return " ".join(
        f"{heading}: {', '.join(f'{label} {show(value, ends)}' for label, value, ends in rows)}."
        for heading, rows in groups
    )


def make_classes(study: Study) -> Section:
    """Give the figures of each class: confusion matrices, table, forest plot and curves."""
    evaluation, predictions = study.evaluation, study.predictions
    names = evaluation.class_names
    matrices: list[Block] = []
    seen = predictions.near_duplicates
    if seen is not None and 0 < seen.sum() < len(seen):
        new = ~seen
        matrices.append(
            Matrix(
                title=f"Confusion matrix: {count(int(new.sum()), 'new image')}",
                names=names,
                counts=charts.count_calls(
                    predictions.y[new], predictions.probabilities[new], len(names)
                ),
            )
        )
    matrices.append(
        Matrix(
            title=f"Confusion matrix: all {count(evaluation.n, 'image')}",
            names=names,
            counts=evaluation.confusion_matrix,
        )
    )
    rows = [
        (entry.name, f"{entry.support:,}", *(_show_score(entry, key) for key in CLASS_FIGURES))
        for entry in evaluation.per_class
    ]
    return Section(
        name="classes",
        title="Class by class",
        blocks=[
            *([Columns(parts=[[m] for m in matrices])] if len(names) <= FEW_CLASSES else matrices),
            Table(
                title="Figures of each class against the rest, all images",
                head=("class", "images", *(title for title, _ in CLASS_FIGURES)),
                rows=rows,
                note="Sensitivity is the share of the images of a class that were called so; "
                "specificity the share of the others that were not. PPV and NPV, the predictive "
                "values, hold for the mix of classes of these images alone.",
            ),
            *_draw_classes(study),
            *_list_prevalence(evaluation),
        ],
    )


def _show_score(entry: "ClassEvaluation", key: tuple[str, str]) -> str:
    _, name = key
    return show(getattr(entry, name), getattr(entry.intervals, name, None))


def _draw_classes(study: Study) -> Iterator[Chart]:
    evaluation = study.evaluation
    for number, titles in enumerate(_FOREST, 1):
        groups = [
            (
                title,
                [
                    (entry.name, getattr(entry, name), getattr(entry.intervals, name, None))
                    for entry in evaluation.per_class
                ],
            )
            for title, name in CLASS_FIGURES
            if title in titles
        ]
        yield Chart(
            title=f"Each class: {titles[0]}, {titles[1]} and {titles[2]}",
            caption="Squares are figures of all images, lines their 95 % intervals: where two "
            "lines overlap widely, the classes may differ by chance.",
            description=_describe_groups(groups),
            draw=partial(charts.draw_intervals, groups, name=f"classes-{number}"),
        )
    ranked = [
        label for label, entry in enumerate(evaluation.per_class) if entry.roc_auc is not None
    ]
    if not ranked:
        return
    entries = [evaluation.per_class[label] for label in ranked]
    areas = [f"{entry.name}: AUC {_show_score(entry, CLASS_FIGURES[5])}" for entry in entries]
    yield Chart(
        title="ROC curves",
        caption="Each class against the rest, all images, as the threshold on its probability "
        "falls. The dotted diagonal is guessing; the upper left corner is without error.",
        description=f"Areas under the curves. {'; '.join(areas)}.",
        draw=partial(charts.draw_roc, study.predictions, ranked),
        legend=areas,
    )
    means = [
        f"{entry.name}: average precision {_show_score(entry, CLASS_FIGURES[6])}"
        for entry in entries
    ]
    yield Chart(
        title="Precision–recall curves",
        caption="Each class against the rest, all images. Precision depends on how common a class "
        "is among these images; guessing gives its share of them.",
        description=f"{'; '.join(means)}.",
        draw=partial(charts.draw_precision_recall, study.predictions, ranked),
        legend=means,
    )


def _list_prevalence(evaluation: "Evaluation") -> Iterator[Table]:
    if evaluation.prevalence:
        yield Table(
            title="Predictive values at another prevalence",
            head=("class", "prevalence", "PPV", "NPV"),
            rows=[
                (name, f"{entry.prevalence:g}", show(entry.ppv), show(entry.npv))
                for name, entry in evaluation.prevalence.items()
            ],
            note="From the sensitivity and the specificity above, by Bayes's rule.",
        )


def make_parts(study: Study) -> Iterator[Section]:
    """Give the figures of parts of the images, where they were told apart."""
    if not study.evaluation.by:
        return
    rows = [
        (
            value or "(none)",
            f"{subset.n:,}",
            f"{subset.n_groups:,}",
            "too few to judge"
            if subset.accuracy is None
            else show(subset.accuracy, getattr(subset.intervals, "accuracy", None)),
            show(subset.balanced_accuracy, getattr(subset.intervals, "balanced_accuracy", None)),
        )
        for value, subset in study.evaluation.by.items()
    ]
    yield Section(
        name="parts",
        title="Parts of the images",
        blocks=[
            Table(
                title="All images by value of a column",
                head=("value", "images", "groups", "accuracy", "balanced accuracy"),
                rows=rows,
            )
        ],
    )
