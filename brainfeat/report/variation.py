"""How the metrics of a fit vary by source and by repeat, in tables."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from brainfeat.report.blocks import Cell, Estimate, Table, estimate
from brainfeat.report.joins import list_joins
from brainfeat.report.wording import METRIC_NAMES, NO_VALUE, SUBSET_NAMES
from brainfeat.text import UNDEFINED, count, format_interval, format_metric

if TYPE_CHECKING:
    from brainfeat.heads.record import CrossValidationScores, FitRecord
    from brainfeat.heads.variation import LeftOutSources, MetricSpread, RepeatedSubset, Repeats


def list_variation(training: "FitRecord") -> Iterator[Table]:
    """Yield tables of joined caches, of sources that were left out, and of repeats, if any."""
    yield from list_joins(training)
    if training.cv is not None and training.cv.sources is not None:
        yield _list_sources(training.cv.sources)
    if training.repeats is not None:
        yield _list_repeats(training.repeats)


def list_not_evaluated(training: "FitRecord") -> list[str]:
    """List a sentence for each class that leaving sources out cannot evaluate."""
    if training.cv is None or training.cv.sources is None:
        return []
    return [entry.explain() for entry in training.cv.sources.not_evaluated]


def name_folds(scores: "CrossValidationScores") -> str:
    """Name a cross-validation by its folds."""
    if scores.sources is None:
        return f"{scores.n_folds}-fold cross-validation"
    return f"cross-validation leaving out {scores.n_folds} sources, one at a time"


def _list_sources(found: "LeftOutSources") -> Table:
    notes = ["Balanced accuracy is the mean over the classes that a source has."]
    if dropped := sum(fold.dropped for fold in found.folds):
        notes.append(
            f"Not fitted on, as copies of images of the source or of one group with them: "
            f"{count(dropped, 'image')} over all sources."
        )
    if found.without_source:
        notes.append(f"In no fold: {count(found.without_source, 'image')} without a source.")
    notes += [
        f"{fold.source or NO_VALUE} could not be left out: {fold.reason}."
        for fold in found.folds
        if fold.reason is not None
    ]
    return Table(
        title="Each source, by a head that was fitted on the others",
        head=("source", "images", "others", "classes", "accuracy", "balanced accuracy"),
        rows=[
            (
                fold.source,
                f"{fold.n:,}",
                f"{fold.n_train:,}",
                f"{len(fold.classes):,}",
                estimate(fold.accuracy),
                estimate(fold.balanced_accuracy),
            )
            for fold in found.folds
        ],
        note=" ".join(notes),
    )


def _list_repeats(found: "Repeats") -> Table:
    subsets: dict[str, RepeatedSubset] = {"all": found.test}
    if found.test_without_copies is not None:
        subsets = {"without_copies": found.test_without_copies, **subsets}
    rows: list[tuple[Cell, ...]] = [
        ("images", *(_show_sizes(subset) for subset in subsets.values())),
        *(
            (
                METRIC_NAMES[name],
                *(_show_spread(subset.metrics[name]) for subset in subsets.values()),
            )
            for name in found.test.metrics
        ),
    ]
    divided = {
        "all": "all images were divided anew into train, val and test",
        "train-val": "the test images of the table stayed, and the others were divided anew into "
        "train and val",
    }[found.resampled]
    heads = ", ".join(f"{name} {found.heads.count(name)}" for name in dict.fromkeys(found.heads))
    chosen = f" Heads that were chosen: {heads}." if len(set(found.heads)) > 1 else ""
    return Table(
        title=f"{found.n} repeats on test images",
        head=("metric", *(SUBSET_NAMES[name] for name in subsets)),
        rows=rows,
        note=f"Mean ± standard deviation, and range. For each repeat, {divided}, without dividing "
        f"a group; heads are fitted on train alone, with the seeds {found.random_states[0]} to "
        f"{found.random_states[-1]}. Report mean and spread: the best repeat is best by chance."
        f"{chosen}",
    )


def _show_sizes(subset: "RepeatedSubset") -> str:
    ends = dict.fromkeys((f"{subset.n_low:,}", f"{subset.n_high:,}"))
    return "–".join(ends)


def _show_spread(spread: "MetricSpread | None") -> Cell:
    if spread is None:
        return UNDEFINED
    return Estimate(
        value=f"{format_metric(spread.mean)} ± {format_metric(spread.std)}",
        interval=format_interval((spread.low, spread.high)),
    )
