"""How a head was fitted, in a section: parameters, curves, validation and search."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from brainfeat.report import charts
from brainfeat.report.blocks import Block, Cell, Chart, Items, Section, Table, estimate_metric, show
from brainfeat.report.generation import list_generated, list_skipped
from brainfeat.report.study import Study
from brainfeat.report.variation import list_not_evaluated, list_variation, name_folds
from brainfeat.report.wording import METRIC_NAMES, capitalise
from brainfeat.text import UNDEFINED, count

if TYPE_CHECKING:
    from brainfeat.heads.record import FitRecord, Spread

_VALIDATED = ("accuracy", "balanced_accuracy", "log_loss")
_DROPOUT = 0.5


def make_training(study: Study) -> Section:
    """Show how the head was fitted, and its curves."""
    bundle = study.bundle
    params = [(name, _plain(value)) for name, value in sorted(bundle.params.items())]
    refitted = {
        True: "After validation it was fitted again on train and val together.",
        False: "It was fitted on train; val decided when to stop.",
        None: "Whether it was fitted again after validation is not recorded.",
    }[bundle.training.refitted_on_val]
    blocks: list[Block] = [
        (
            f"The head is of the kind {bundle.head!r}; it predicts one of "
            f"{len(bundle.class_names)} classes from the {bundle.spec.n_features:,} features of "
            f"{'an image' if bundle.bag is None else 'a patient'}. {refitted}"
        ),
        *_describe_generated(bundle.training),
        *(f"{capitalise(text)}." for text in list_generated(bundle.training)),
        *_draw_history(study),
    ]
    if params:
        blocks.append(
            Table(
                title="Parameters that were set",
                head=("parameter", "value"),
                rows=params,
                note="All others have the defaults of this version.",
                numeric=False,
            )
        )
    else:
        blocks.append("All of its parameters have the defaults of this version.")
    blocks += [*_list_validation(study), *_list_candidates(study)]
    blocks += [*list_variation(bundle.training)]
    if left_out := [*list_not_evaluated(bundle.training), *list_skipped(bundle.training)]:
        blocks.append(Items(entries=[f"{capitalise(text)}." for text in left_out]))
    return Section(name="training", title="Training", blocks=blocks)


def _describe_generated(record: "FitRecord") -> Iterator[Block]:
    made = record.generated
    if made is not None:
        yield (
            f"It was also fitted on {count(made.images, 'image')} that a program generated, which "
            f"are in no other number of this report; {made.copies:,} more were left out as copies "
            f"of real images, {made.test_copies:,} of them of test images. Whether that program "
            "had been trained on test images is not known."
        )


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {entry}" for name, entry in value.items())
    return str(value)


def _draw_history(study: Study) -> Iterator[Block]:
    recorded = study.bundle.training.history
    if recorded is None:
        yield "This kind of head is not fitted in epochs: there are no training curves."
        return
    history = recorded.curves()
    loss = history.get("val_loss")
    best = loss.index(min(loss)) if loss else None
    notes = [] if best is None else [f"The vertical line is the epoch that was kept, {best + 1}."]
    if study.bundle.params.get("dropout", _DROPOUT):
        notes.insert(0, "Dropout makes the curve of train look worse.")
    for name in ("loss", "accuracy"):
        curves = {
            split: history[key]
            for split, key in (("train", name), ("val", f"val_{name}"))
            if key in history
        }
        title = f"{name.capitalize()} while training"
        yield Chart(
            title=title,
            caption=" ".join([f"{title}, {count(len(history[name]), 'epoch')}.", *notes]),
            description=_describe_curves(curves, best),
            draw=partial(charts.draw_history, list(curves.values()), name=name, best_epoch=best),
            legend=list(curves),
        )


def _describe_curves(curves: Mapping[str, Sequence[float]], best: int | None) -> str:
    texts = [
        f"{split}: first {show(values[0])}, last {show(values[-1])}"
        + (f", kept {show(values[best])}" if best is not None else "")
        for split, values in curves.items()
    ]
    return f"{'; '.join(texts)}."


def _list_validation(study: Study) -> Iterator[Table]:
    training = study.bundle.training
    columns: dict[str, list[Cell]] = {
        split: [estimate_metric(found, name) for name in _VALIDATED]
        for split, found in (
            ("test without copies", training.test_without_copies),
            ("test", training.test),
            ("val", training.val),
        )
        if found is not None
    }
    if training.cv is not None and training.cv.groups is not None:
        columns["out of fold, per patient"] = [
            estimate_metric(training.cv.groups, name) for name in _VALIDATED
        ]
    if training.cv is not None:
        spreads: list[Spread] = [getattr(training.cv, name) for name in _VALIDATED]
        columns[name_folds(training.cv)] = [
            _show_spread(spread.mean, spread.std) for spread in spreads
        ]
    if columns:
        yield Table(
            title="What the fit itself measured",
            head=("metric", *columns),
            rows=[
                (METRIC_NAMES[name], *cells)
                for name, *cells in zip(_VALIDATED, *columns.values(), strict=True)
            ],
            note="Copies are left out of no other column than “test without copies”."
            + (" After ±: the standard deviation over folds." if training.cv else ""),
        )


def _show_spread(mean: float | None, std: float | None) -> str:
    return f"{show(mean)} ± {show(std)}"


def _list_candidates(study: Study) -> Iterator[Table]:
    search = study.bundle.training.search
    if search is None:
        return
    yield Table(
        title=f"Candidates that were compared ({len(search.candidates)}), the best first",
        head=("rank", "head", METRIC_NAMES["balanced_accuracy"], "parameters"),
        rows=[
            (
                str(row.rank or UNDEFINED),
                row.head,
                _show_spread(row.mean, row.std),
                _plain(row.params or "defaults"),
            )
            for row in search.candidates
        ],
        note="The best cross-validated score is optimistically biased, because the same folds "
        "chose it. No test image took part.",
        numeric=False,
    )
