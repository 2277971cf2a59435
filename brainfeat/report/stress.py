"""A stress test in sections: what an alteration of the images costs a head."""

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from brainfeat.evaluation.abstention import CONFIDENT
from brainfeat.report import charts
from brainfeat.report.blocks import Chart, Columns, Items, Section, Table, estimate, show
from brainfeat.report.wording import METRIC_NAMES, name_noun
from brainfeat.text import count, format_metric, name_some

if TYPE_CHECKING:
    from brainfeat.evaluation.stress_results import AlteredMetrics, Stress
    from brainfeat.report.blocks import Block, Cell

# What the title of the page starts with.
STRESS_TITLE = "Stress test of a brain MRI classifier"

# What each kind of alteration does; percentages are of the width and of the height.
MEANINGS = {
    "rotation": "rotated about the centre to either side; corners are black",
    "shift": "moved in any direction by this percentage; what comes in is black",
    "crop": "this percentage cut away, divided at random between opposite sides",
    "scale": "shown at this percentage of its size in the same frame, centred",
    "aspect": "narrowed to this percentage of its width or of its height in the same frame",
    "padding": "this percentage added in black, divided at random between opposite sides",
    "mirrored": "mirrored left to right",
    "inverted": "black shown as white, and white as black",
    "jpeg": "written as JPEG of this quality",
    "gamma": "grey values in [0, 1] raised to this power",
    "contrast": "distances of grey values from their mean multiplied by this factor",
    "bias-field": "multiplied by a smooth random field; 40 % is a field from 0.8 to 1.2",
    "noise": "Rician noise; its standard deviation is this percentage of the range of grey values",
    "blur": "blurred by a Gaussian of this standard deviation, in pixels of the base's input",
    "resolution": "reduced to this percentage of the base's input, and enlarged again",
}


def list_stress(found: "Stress") -> "list[Section]":
    """List the sections of a stress test.

    Parameters
    ----------
    found : Stress

    Returns
    -------
    list of Section
    """
    return [
        Section(name="summary", title="Summary", blocks=_summarise(found)),
        Section(name="kinds", title="By kind of alteration", blocks=_list_kinds(found)),
        Section(name="strengths", title="By kind and strength", blocks=[_list_all(found)]),
        Section(name="alterations", title="Alterations", blocks=[_explain(found)], brief=False),
    ]


def make_stress_subtitle(found: "Stress", *, head: str, backbone: str) -> str:
    """State in a line what was measured."""
    names = ", ".join(name for name, n in found.classes.items() if n)
    return f"{head} on {backbone}: {count(found.n, name_noun(found))}, {names}"


def name_alteration(entry: "AlteredMetrics") -> str:
    """Name an alteration and its strength.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> name_alteration(SimpleNamespace(kind="blur", strength=2.0, unit="px"))
    'blur 2 px'
    """
    return f"{entry.kind} {name_strength(entry)}".strip()


def name_strength(entry: "AlteredMetrics") -> str:
    """Name a strength with its unit; an alteration that has one strength alone has no name."""
    if entry.strength is None or entry.kind in ("mirrored", "inverted"):
        return ""
    if entry.unit == "quality":
        return f"quality {entry.strength:g}"
    return f"{entry.strength:g}{entry.unit and f' {entry.unit}'}".replace(" °", "°")


def _summarise(found: "Stress") -> "list[Block]":
    reference, worst, noun = found.reference, found.altered[0], name_noun(found)
    sentence = (
        f"On {count(found.n, noun)} in {count(found.n_groups, 'group')}, accuracy is "
        f"{show(reference.accuracy, reference.accuracy_interval)} as they are"
    )
    if worst.change < 0:
        costly = [summary.kind for summary in found.kinds if summary.mean_change < 0]
        sentence += (
            f", and {show(worst.accuracy, worst.accuracy_interval)} at the lowest, "
            f"{name_alteration(worst)}"
        )
        if costly:
            sentence += (
                ". By the mean over their strengths, these kinds of alterations cost most: "
                f"{name_some(costly[:3])}"
            )
    remarks = [
        f"{count(n, 'image')} {'is' if n == 1 else 'are'} left out: {reason}."
        for reason, n in found.left_out.items()
    ]
    if found.reason is not None:
        remarks.append(f"There are no intervals: {found.reason}.")
    remarks += found.notes
    return [f"{sentence}.", *([Items(entries=remarks)] if remarks else [])]


def _list_kinds(found: "Stress") -> "list[Block]":
    strengths = {
        summary.kind: sorted(
            (entry for entry in found.altered if entry.kind == summary.kind),
            key=lambda entry: entry.strength or 0.0,
        )
        for summary in found.kinds
    }
    rows: list[Sequence[Cell]] = []
    for summary in found.kinds:
        worst = min(strengths[summary.kind], key=lambda entry: entry.accuracy)
        rows.append(
            (
                summary.kind,
                format_metric(summary.mean_change, signed=True),
                format_metric(summary.least_accuracy),
                name_strength(worst) or "–",
            )
        )
    table = Table(
        title="Kinds of alterations, by falling mean loss of accuracy",
        head=("alteration", "mean change of accuracy", "lowest accuracy", "at"),
        rows=rows,
        note="The mean is over the strengths below, so it depends on their choice.",
    )
    cells = [
        (kind, [(name_strength(entry), entry.accuracy) for entry in entries])
        for kind, entries in strengths.items()
    ]
    words = ", ".join(
        f"{kind} {' '.join(f'{name} {value:.2f}'.strip() for name, value in entries)}"
        for kind, entries in cells
    )
    chart = Chart(
        title="Accuracy on altered images",
        caption="Each cell has a strength and the accuracy at it, and the more colour the more "
        f"accuracy is lost. On the images as they are, it is {show(found.reference.accuracy)}.",
        description=f"Accuracy by kind and strength: {words}.",
        draw=partial(
            charts.draw_heat_map, cells, best=found.reference.accuracy, name="alterations"
        ),
    )
    return [Columns(parts=[[chart], [table]])]


def _list_all(found: "Stress") -> Table:
    noun = name_noun(found)
    rows = [
        (
            "as they are" if entry is found.reference else name_alteration(entry),
            estimate(entry.accuracy, entry.accuracy_interval),
            format_metric(entry.flips),
            format_metric(entry.confident_errors),
            format_metric(entry.answered_errors),
            format_metric(None if entry.answered is None else 1 - entry.answered),
            format_metric(entry.out_of_distribution),
        )
        for entry in (found.reference, *found.altered)
    ]
    return Table(
        title="Altered images, by falling loss of accuracy",
        head=(
            "alteration",
            METRIC_NAMES["accuracy"],
            "flips",
            f"errors above {CONFIDENT:g}",
            "errors answered",
            "abstains",
            "OOD",
        ),
        rows=rows,
        note=f"Flips: fraction of the {noun}s whose predicted class changes. Errors above "
        f"{CONFIDENT:g}, and errors answered: fractions of the wrong predictions that have such a "
        "probability, and for which the head does not abstain. Abstains, and OOD: fractions of the "
        f"{noun}s for which it abstains, and that it flags as out of distribution.",
    )


def _explain(found: "Stress") -> Table:
    present = {summary.kind for summary in found.kinds}
    return Table(
        title="What was done to the images",
        head=("alteration", "meaning of its strength"),
        rows=[(kind, meaning) for kind, meaning in MEANINGS.items() if kind in present],
        numeric=False,
    )
