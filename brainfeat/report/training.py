"""How a head was fitted, in a section: parameters, curves, validation and search."""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from brainfeat.report import charts
from brainfeat.report.blocks import Block, Cell, Chart, Section, Table, estimate, show
from brainfeat.report.study import Study
from brainfeat.report.wording import METRIC_NAMES
from brainfeat.text import UNDEFINED, count

_VALIDATED = ("accuracy", "balanced_accuracy", "log_loss")
_DROPOUT = 0.5


def make_training(study: Study) -> Section:
    """Show how the head was fitted, and its curves."""
    bundle = study.bundle
    params = [(name, _plain(value)) for name, value in sorted(bundle.params.items())]
    refitted = (
        "After validation it was fitted again on train and val together."
        if bundle.training.get("refitted_on_val")
        else "It was fitted on train; val decided when to stop."
    )
    blocks: list[Block] = [
        (
            f"The head is of the kind {bundle.head!r}; it predicts one of "
            f"{len(bundle.class_names)} classes from the {bundle.spec.n_features:,} features of an "
            f"image. {refitted}"
        ),
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
    return Section(name="training", title="Training", blocks=blocks)


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {entry}" for name, entry in value.items())
    return str(value)


def _draw_history(study: Study) -> Iterator[Block]:
    history = _read_history(study)
    if not history:
        yield "This kind of head is not fitted in epochs: there are no training curves."
        return
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
        if not curves:
            continue
        title = f"{name.capitalize()} while training"
        yield Chart(
            title=title,
            caption=" ".join([f"{title}, {count(len(history[name]), 'epoch')}.", *notes]),
            description=_describe_curves(curves, best),
            draw=partial(charts.draw_history, list(curves.values()), name=name, best_epoch=best),
            legend=list(curves),
        )


def _describe_curves(curves: Mapping[str, list[float]], best: int | None) -> str:
    texts = [
        f"{split}: first {show(values[0])}, last {show(values[-1])}"
        + (f", kept {show(values[best])}" if best is not None else "")
        for split, values in curves.items()
    ]
    return f"{'; '.join(texts)}."


def _read_history(study: Study) -> dict[str, list[float]]:
    """Read the curves of a head file, if they are what curves must be."""
    history = {
        str(name): values
        for name, values in study.training("history").items()
        if isinstance(values, list)
        and values
        and all(isinstance(value, int | float) for value in values)
    }
    same_length = len({len(values) for values in history.values()}) == 1
    return history if same_length and "loss" in history else {}


def _list_validation(study: Study) -> Iterator[Table]:
    columns: dict[str, list[Cell]] = {
        split: [estimate(study.training(split).get(name)) for name in _VALIDATED]
        for split in ("val", "test")
        if study.training(split)
    }
    folds = study.training("cv")
    if folds:
        columns[f"{folds.get('n_folds')}-fold cross-validation"] = [
            _spread(folds.get(name)) for name in _VALIDATED
        ]
    if columns:
        yield Table(
            title="What the fit itself measured",
            head=("metric", *columns),
            rows=[
                (METRIC_NAMES[name], *cells)
                for name, *cells in zip(_VALIDATED, *columns.values(), strict=True)
            ],
            note="Copies are not left out of these."
            + (" After ±: the standard deviation over folds." if folds else ""),
        )


def _spread(found: Any) -> str:
    values = found if isinstance(found, dict) else {}
    return f"{show(values.get('mean'))} ± {show(values.get('std'))}"


def _list_candidates(study: Study) -> Iterator[Table]:
    candidates = study.training("search").get("candidates")
    if not isinstance(candidates, list) or not all(isinstance(row, dict) for row in candidates):
        return
    yield Table(
        title=f"Candidates that were compared ({len(candidates)}), the best first",
        head=("rank", "head", METRIC_NAMES["balanced_accuracy"], "parameters"),
        rows=[
            (
                str(row.get("rank") or UNDEFINED),
                str(row.get("head")),
                _spread(row),
                _plain(row.get("params") or "defaults"),
            )
            for row in candidates
        ],
        note="The best cross-validated score is optimistically biased, because the choice was made "
        "by it. No test image took part.",
        numeric=False,
    )
