"""How a head was fitted, and how far its probabilities can be believed, in sections."""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from brainfeat.heads.calibration import Reliability
from brainfeat.report import charts
from brainfeat.report.blocks import Block, Chart, Columns, Rows, Section, Table, count, show
from brainfeat.report.results import Study
from brainfeat.report.tables import UNDEFINED

_FIGURES = (
    ("expected calibration error", "ece"),
    ("log loss", "log_loss"),
    ("Brier score", "brier"),
)


def make_calibration(study: Study) -> Section:
    """Give how far the probabilities can be believed."""
    found = study.evaluation.calibration
    temperature, before, after = found.temperature, found.before, found.after
    said = (
        "Probabilities are those of the head as they come; its temperature is 1."
        if temperature == 1.0
        else f"Scores were divided by a temperature of {temperature:.3f}, fitted on images that "
        "the head was not fitted on."
    )
    columns = (
        {"Head": after} if temperature == 1.0 else {"Scaled": after, "Scores as they are": before}
    )
    bins = [
        (
            f"{entry.low:.2f}–{entry.high:.2f}",
            f"{entry.n:,}",
            show(entry.confidence),
            show(entry.accuracy),
        )
        for entry in after.bins
    ]
    numbers = Table(
        title="Numbers of the reliability diagram",
        head=("probability", "images", "mean probability", "share right"),
        rows=bins,
    )
    tables = [_list_calibration(study, columns), *_list_fitted_temperature(study), numbers]
    return Section(
        name="calibration",
        title="Calibration",
        blocks=[
            f"{said} A well calibrated head is right on 80 % of the images it is 80 % sure of.",
            Columns(parts=[[_draw_reliability(columns, bins)], tables]),
        ],
    )


def _draw_reliability(columns: Mapping[str, Reliability], bins: Rows) -> Chart:
    return Chart(
        title="Reliability diagram",
        caption="All images, by the probability of the class that each was called. On the dotted "
        "diagonal the head is as sure as it is right; below it, it is too sure. Points are the "
        "larger the more images they stand for, and so are the bars.",
        description=" ".join(
            f"Probability {ends}: {n} images, mean {sure}, share right {right}."
            for ends, n, sure, right in bins
        ),
        draw=partial(charts.draw_reliability, [found.bins for found in columns.values()]),
        legend=list(columns) if len(columns) > 1 else (),
    )


def _list_calibration(study: Study, columns: Mapping[str, Reliability]) -> Table:
    worst = 1 if len(study.evaluation.class_names) == 2 else 2
    return Table(
        title="Calibration, all images",
        head=("figure", *columns),
        rows=[
            (title, *(show(getattr(found, name)) for found in columns.values()))
            for title, name in _FIGURES
        ],
        note="Smaller is better. The expected calibration error is the mean distance of the points "
        f"from the diagonal, weighted by images; the Brier score runs from 0 to {worst}.",
    )


def _list_fitted_temperature(study: Study) -> Iterator[Table]:
    fitted = study.training("calibration")
    if not isinstance(fitted.get("before"), dict) or not isinstance(fitted.get("after"), dict):
        return
    folds = fitted.get("n_folds")
    where = f"out of fold in {folds} folds" if isinstance(folds, int) else "validation images"
    yield Table(
        title=f"Where the temperature was fitted ({where})",
        head=("figure", "Scaled", "Scores as they are"),
        rows=[
            (title, *(show(fitted[part].get(name)) for part in ("after", "before")))
            for title, name in _FIGURES
        ],
        note=f"{count(fitted.get('n'), 'image')}.",
    )


def make_abstention(study: Study) -> Iterator[Section]:
    """Give what the head would answer and leave open, if it can leave anything open."""
    found = study.evaluation.abstention
    if found is None:
        return
    missed, refused = 100 * (1 - found.target_coverage), 100 * found.false_alarm_rate
    shares = Table(
        title="What brainfeat predict would do, all images",
        head=("outcome", "share of the images"),
        rows=[
            ("one class is named", show(found.answered)),
            ("several classes, or none, are left", show(found.uncertain)),
            ("out of scope", show(found.out_of_distribution)),
        ],
        note=f"Accuracy of the images that are answered: {show(found.accuracy)}. The class of "
        f"an image is ruled out in at most {missed:.0f} % of those of each class, and "
        f"{refused:.0f} % of images like the held-out ones are refused, as long as images are "
        "independent of each other and like those of training.",
    )
    coverage = Table(
        title="Share of the images whose class is not ruled out",
        head=("class", f"share (nominal {found.target_coverage:g})"),
        rows=[(name, show(share)) for name, share in found.coverage_by_class.items()],
    )
    points = [(entry.fraction, entry.risk) for entry in found.risk_coverage]
    curve = Chart(
        title="Risk and coverage",
        caption="If the head answered for the surest images alone: the share of them that it would "
        "get wrong, over the share that it would answer for.",
        description=" ".join(f"Of {x:.0%} of the images {y:.3f} are wrong." for x, y in points),
        draw=partial(charts.draw_risk, points),
    )
    yield Section(
        name="abstention",
        title="Answers and abstention",
        blocks=[Columns(parts=[[curve], [shares, coverage]])],
    )


def make_training(study: Study) -> Section:
    """Give how the head was fitted, and its curves."""
    bundle = study.bundle
    training = bundle.training
    params = [(name, _plain(value)) for name, value in sorted(bundle.params.items())]
    refitted = (
        "Once its validation figures were taken, it was fitted again on train and validation."
        if training.get("refitted_on_val")
        else "It was fitted on train alone; validation decided when to stop, or was held out."
    )
    blocks: list[Block] = [
        (
            f"The head is of the kind {bundle.head!r}, fitted to tell "
            f"{len(bundle.class_names)} classes apart by {bundle.spec.n_features} features of an "
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
    kept = f" The vertical line is the epoch that was kept, {best + 1}." if best is not None else ""
    for name, title in (("loss", "Loss"), ("accuracy", "Accuracy")):
        curves = {
            part: history[key]
            for part, key in (("train", name), ("validation", f"val_{name}"))
            if key in history
        }
        if not curves:
            continue
        last = "; ".join(
            f"{part}: first {values[0]:.3f}, last {values[-1]:.3f}"
            + (f", kept {values[best]:.3f}" if best is not None else "")
            for part, values in curves.items()
        )
        yield Chart(
            title=f"{title} while training",
            caption=f"{title} over {count(len(history[name]), 'epoch')}; of train with dropout, "
            f"which makes it look worse.{kept}",
            description=f"{last}.",
            draw=partial(charts.draw_history, list(curves.values()), name=name, best_epoch=best),
            legend=list(curves),
        )


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
    figures = (
        ("accuracy", "accuracy"),
        ("balanced accuracy", "balanced_accuracy"),
        ("log loss", "log_loss"),
    )
    columns: dict[str, Mapping[str, Any]] = {}
    for name, title in (("val", "Validation"), ("test", "Test")):
        if study.training(name):
            columns[title] = study.training(name)
    validated = study.training("cv")
    rows = [
        [title, *(show(column.get(name)) for column in columns.values())] for title, name in figures
    ]
    head = ["figure", *columns]
    if isinstance(validated.get("mean"), dict) and isinstance(validated.get("std"), dict):
        head.append(f"{validated.get('n_folds')}-fold cross-validation")
        for row, (_, name) in zip(rows, figures, strict=True):
            mean, std = validated["mean"].get(name), validated["std"].get(name)
            row.append(f"{show(mean)} ± {show(std)}")
    if len(head) > 1:
        yield Table(
            title="What the fit itself measured",
            head=head,
            rows=rows,
            note="Copies are not taken out of these. After ±: the standard deviation over folds.",
        )


def _list_candidates(study: Study) -> Iterator[Table]:
    search = study.training("search")
    candidates = search.get("candidates")
    if not isinstance(candidates, list) or not all(isinstance(row, dict) for row in candidates):
        return
    yield Table(
        title=f"Candidates that were compared ({len(candidates)}), the best first",
        head=("rank", "head", "balanced accuracy", "parameters"),
        rows=[
            (
                str(row.get("rank") or UNDEFINED),
                str(row.get("head")),
                f"{show(row.get('mean'))} ± {show(row.get('std'))}",
                _plain(row.get("params") or "defaults"),
            )
            for row in candidates
        ],
        note="The best of many is in part the luckiest: its cross-validated figure is optimistic. "
        "No test image took part.",
    )
