"""How far probabilities can be believed, and what a head leaves open, in sections."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from brainfeat.evaluation.results import Results
from brainfeat.report import charts
from brainfeat.report.blocks import (
    Block,
    Chart,
    Columns,
    Section,
    Table,
    estimate,
    estimate_metric,
    show,
)
from brainfeat.report.wording import (
    CALIBRATION_METRICS,
    METRIC_NAMES,
    capitalise,
    list_parts,
    name_noun,
    name_subset,
)
from brainfeat.text import count

if TYPE_CHECKING:
    from brainfeat.evaluation.abstention import Abstention
    from brainfeat.evaluation.results import Evaluation
    from brainfeat.heads.calibration import Bin, Calibration, Reliability


def make_calibration(evaluation: "Evaluation", *, fitted: "Calibration | None" = None) -> Section:
    """Show how far the probabilities can be believed, without copies first.

    Parameters
    ----------
    evaluation : Evaluation
    fitted : Calibration or None
        The record of the images that the temperature was fitted on.
    """
    temperature, noun = evaluation.calibration.temperature, name_noun(evaluation)
    origin = (
        "The temperature of the head is 1: its scores are used as they are."
        if temperature == 1.0
        else f"Scores are divided by a temperature of {show(temperature)}, which was fitted on "
        f"scores of held-out {name_fitted(evaluation)}s."
    )
    blocks: list[Block] = [
        (
            f"{origin} A well calibrated head is right on 80 % of the {noun}s of which it is 80 % "
            "confident."
        )
    ]
    for name, part in list_parts(evaluation):
        if isinstance(part, Results):
            blocks.append(_show_calibration(part, name))
    return Section(
        name="calibration",
        title="Calibration",
        blocks=[*blocks, *_list_fitted_temperature(fitted, name_fitted(evaluation))],
        brief=False,
    )


def name_fitted(evaluation: "Evaluation") -> str:
    """Name what the head was fitted and calibrated on: images, or patients for a bag head."""
    return name_noun(evaluation) if evaluation.pooling == "bag" else "image"


def _show_calibration(part: Results, name: str) -> Columns:
    after, words = part.calibration.after, name_subset(name, part)
    columns = {words: after}
    if part.calibration.temperature != 1.0:
        columns = {"calibrated": after, "uncalibrated": part.calibration.before}
    bins = _list_bins(after.bins, words, name_noun(part))
    tables: list[Block] = [_list_calibration(part, columns, words), bins]
    if part.abstention is not None:
        tables.insert(0, _describe_confidence(part.abstention, name_noun(part)))
    return Columns(parts=[[_draw_reliability(columns, bins, part, name)], tables])


def _describe_confidence(found: "Abstention", noun: str) -> str:
    """Say what a calibration error does not show: whether wrong predictions are confident."""
    auroc = (
        ""
        if found.auroc is None
        else " A right prediction is more confident than a wrong one with a probability of "
        f"{show(found.auroc)}; at 0.5 the confidence would say nothing."
    )
    return f"{_describe_risk(found, noun)}, of all {noun}s {_find_risk(found, 1.0)}.{auroc}"


def _describe_risk(found: "Abstention", noun: str) -> str:
    return f"Of the most confident 80 % of the {noun}s, {_find_risk(found, 0.8)} are wrong"


def _find_risk(found: "Abstention", fraction: float) -> str:
    risks = {entry.fraction: entry.risk for entry in found.risk_coverage}
    return f"{100 * risks[fraction]:.1f} %"


def _list_bins(bins: "Sequence[Bin]", words: str, noun: str) -> Table:
    return Table(
        title=f"Numbers of the reliability diagram, {words}",
        head=("probability", f"{noun}s", "mean probability", METRIC_NAMES["accuracy"]),
        rows=[
            (
                f"{entry.low:.2f}–{entry.high:.2f}",
                f"{entry.n:,}",
                estimate(entry.confidence),
                estimate(entry.accuracy),
            )
            for entry in bins
        ],
    )


def _draw_reliability(
    columns: "Mapping[str, Reliability]", bins: Table, part: Results, name: str
) -> Chart:
    noun = name_noun(part)
    return Chart(
        title=f"Reliability diagram, {name_subset(name, part)}",
        caption=f"{noun.capitalize()}s by the probability of their predicted class. On the dotted "
        "diagonal the head is right as often as its probabilities state; below it, it is "
        f"overconfident. Larger points and higher bars stand for more {noun}s.",
        description=" ".join(
            f"Probability {ends}: {n} {noun}s, mean {mean}, accuracy {accuracy}."
            for ends, n, mean, accuracy in bins.rows
        ),
        draw=partial(
            charts.draw_reliability,
            [found.bins for found in columns.values()],
            noun=noun,
            name=f"reliability-{name.replace('_', '-')}",
        ),
        legend=list(columns) if len(columns) > 1 else (),
    )


def _list_calibration(part: Results, columns: "Mapping[str, Reliability]", words: str) -> Table:
    worst = 1 if len(part.class_names) == 2 else 2
    return Table(
        title=f"Calibration, {words}",
        head=("metric", *columns),
        rows=[
            (METRIC_NAMES[name], *(estimate_metric(found, name) for found in columns.values()))
            for name in CALIBRATION_METRICS
        ],
        explanation="Smaller is better. The expected calibration error is the mean distance of the "
        "points of the reliability diagram from its diagonal, weighted by numbers; the Brier score "
        f"runs from 0 to {worst}.",
    )


def _list_fitted_temperature(fitted: "Calibration | None", noun: str) -> Iterator[Table]:
    if fitted is None:
        return
    folds = fitted.n_folds
    where = "of the val split" if folds is None else f"out of fold in {folds} folds"
    yield Table(
        title="Calibration where the temperature was fitted",
        head=("metric", "calibrated", "uncalibrated"),
        rows=[
            (
                METRIC_NAMES[name],
                estimate_metric(fitted.after, name),
                estimate_metric(fitted.before, name),
            )
            for name in CALIBRATION_METRICS
        ],
        note=f"{count(fitted.n, noun)} {where}.",
    )


def make_abstention(evaluation: "Evaluation") -> Section:
    """Show what the head would answer and leave open, without copies first."""
    return Section(
        name="abstention",
        title="Answers and abstention",
        blocks=[
            _show_abstention(part.abstention, part, name)
            for name, part in list_parts(evaluation)
            if isinstance(part, Results) and part.abstention is not None
        ],
    )


def _show_abstention(found: "Abstention", part: Results, name: str) -> Columns:
    ece, noun = part.calibration.after.ece, name_noun(part)
    target, alarms, words = found.target_coverage, found.false_alarm_rate, name_subset(name, part)
    outcomes = Table(
        title=f"What brainfeat predict would do, {words}",
        head=("outcome", "fraction"),
        rows=[
            ("answered with one class", estimate(found.answered)),
            ("uncertain", estimate(found.uncertain)),
            ("out of distribution", estimate(found.out_of_distribution)),
        ],
        note=f"Accuracy on the {noun}s that are answered: {show(found.accuracy)}. "
        f"{_describe_risk(found, noun)}; the expected calibration error is {show(ece)}.",
        explanation=f"{'An' if noun == 'image' else 'A'} {noun} is uncertain if the prediction "
        "set, the classes that cannot be ruled out, has several classes or none.",
    )
    coverage = Table(
        title=f"Coverage of the prediction set by class, {words} (target {target:g})",
        head=("class", "coverage"),
        rows=[
            (label, estimate(value, found.coverage_intervals.get(label)))
            for label, value in found.coverage_by_class.items()
        ],
        note=f"{capitalise(broken)}." if (broken := found.describe_coverage()) else "",
        explanation=f"Coverage is the fraction of the {noun}s of a class whose prediction set has "
        "that class; in brackets, its exact binomial 95 % interval over groups. The target, and a "
        f"false alarm rate of {alarms:g} of the out-of-distribution detector, hold for images that "
        "are independent of each other and like those of training.",
    )
    points = [(entry.fraction, entry.risk) for entry in found.risk_coverage]
    curve = Chart(
        title=f"Risk and coverage, {words}",
        caption=f"The fraction of wrong predictions if the head answered only the {noun}s of which "
        f"it is most confident, over the fraction of the {noun}s that it answers.",
        description=" ".join(f"Of {x:.0%} of the {noun}s {show(y)} are wrong." for x, y in points),
        draw=partial(charts.draw_risk, points, name=f"risk-{name.replace('_', '-')}"),
    )
    return Columns(parts=[[curve], [outcomes, coverage]])
