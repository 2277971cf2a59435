"""Charts of an evaluation as SVG elements for a page; needs matplotlib (the extra ``report``).

Text stays text, and no colour is fixed: colours are variables of the page's style sheet, so that a
chart is legible in light, in dark and in print.
"""

import re
from collections.abc import Sequence
from io import StringIO
from typing import TYPE_CHECKING, Any
from xml.sax.saxutils import escape

import numpy as np

from brainfeat.report.blocks import show
from brainfeat.report.pictures import make_figure
from brainfeat.text import make_printable, shorten

if TYPE_CHECKING:
    from brainfeat.evaluation.binomial import Interval
    from brainfeat.evaluation.results import Predictions
    from brainfeat.heads.calibration import Bin

# Series that differ in colour; further ones differ in their dashes.
N_COLOURS = 8
DASHES = ("none", "6 3", "1.5 2.5", "8 3 1.5 3")

_WIDTH = 4.2
_POINTS = 9.0
# Colours that stand for variables of the style sheet until the drawing is text.
_INK = "#010101"
_FAINT = "#020202"
_GRID = "#030303"
_SERIES = tuple(f"#04040{place}" for place in range(N_COLOURS))
_VARIABLES = {
    _INK: "currentColor",
    _FAINT: "var(--faint)",
    _GRID: "var(--grid)",
    **{colour: f"var(--series-{place})" for place, colour in enumerate(_SERIES)},
}
# Of a forest plot: columns of a label, and where the axes are between labels and numbers.
_LABEL_WIDTH = 19
_AXES_LEFT, _AXES_WIDTH = 0.355, 0.285
# Of a heat map: height of a row in inches, room for labels, and opacity of cells.
_CELL_HEIGHT, _HEAT_LEFT = 0.34, 0.22
_LIGHTEST, _SHADES = 0.06, 0.6

IntervalRow = tuple[str, "float | None", "Interval | None"]


def draw_roc(predictions: "Predictions", classes: Sequence[int], *, name: str = "roc") -> str:
    """Draw a ROC curve for each of some classes against the rest."""
    from sklearn.metrics import roc_curve

    figure, axes = _make_square("1 − specificity", "sensitivity")
    axes.plot([0, 1], [0, 1], color=_FAINT, linewidth=0.8, linestyle=(0, (2, 3)))
    for place, label in enumerate(classes):
        truth = predictions.y == label
        x, y, _ = roc_curve(truth, predictions.probabilities[:, label])
        axes.plot(x, y, **_line(place))
    return _to_svg(figure, name)


def draw_precision_recall(
    predictions: "Predictions", classes: Sequence[int], *, name: str = "precision-recall"
) -> str:
    """Draw precision over recall for each of some classes against the rest."""
    from sklearn.metrics import precision_recall_curve

    figure, axes = _make_square("recall (sensitivity)", "precision (PPV)")
    for place, label in enumerate(classes):
        truth = predictions.y == label
        precision, recall, _ = precision_recall_curve(
            truth, predictions.probabilities[:, label], drop_intermediate=True
        )
        axes.plot(recall, precision, drawstyle="steps-post", **_line(place))
    return _to_svg(figure, name)


def draw_reliability(
    curves: Sequence[Sequence["Bin"]], *, noun: str = "image", name: str = "reliability"
) -> str:
    """Draw accuracy over the mean probability of each bin, and the number of its images.

    Parameters
    ----------
    curves : sequence of bins
        One or two lists of the ``bins`` of :func:`brainfeat.heads.calibration.reliability`; the
        numbers of images are those of the first.
    noun : str
        What a bin counts.
    name : str
        What the ids of the drawing start with.
    """
    figure = make_figure(_WIDTH, 4.6, layout="constrained")
    axes, below = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
    _style(axes, "", "accuracy")
    axes.plot([0, 1], [0, 1], color=_FAINT, linewidth=0.8, linestyle=(0, (2, 3)))
    most = max(entry.n for bins in curves for entry in bins)
    for place, bins in enumerate(curves):
        x, y = [entry.confidence for entry in bins], [entry.accuracy for entry in bins]
        axes.plot(x, y, **{**_line(place), "linewidth": 1.0})
        sizes = [16 + 60 * entry.n / most for entry in bins]
        axes.scatter(x, y, sizes, color=_SERIES[place], linewidths=0, clip_on=False, zorder=3)
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    _style(below, "mean probability of the predicted class", f"{noun}s")
    for entry in curves[0]:
        below.bar(
            entry.low, entry.n, entry.high - entry.low, align="edge",
            color=_SERIES[0], alpha=0.55, linewidth=0,
        )  # fmt: skip
    below.set_ylim(bottom=0)
    below.locator_params(axis="y", nbins=3, integer=True)
    return _to_svg(figure, name)


def draw_risk(points: Sequence[tuple[float, float]], *, name: str = "risk") -> str:
    """Draw the fraction of wrong predictions over the fraction of answered images."""
    figure = make_figure(_WIDTH, 3.0, layout="constrained")
    axes = figure.subplots()
    _style(axes, "fraction answered, the most confident first", "fraction wrong")
    axes.plot(*zip(*points, strict=True), **_line(0))
    axes.set(xlim=(0, 1.02), ylim=(0, 1.1 * max(0.01, *(risk for _, risk in points))))
    return _to_svg(figure, name)


def draw_history(
    curves: Sequence[Sequence[float]], *, name: str, best_epoch: int | None = None
) -> str:
    """Draw a metric over epochs, one curve for each series, and a line at the epoch kept."""
    figure = make_figure(_WIDTH, 3.0, layout="constrained")
    axes = figure.subplots()
    _style(axes, "epoch", name)
    if best_epoch is not None:
        axes.axvline(best_epoch + 1, color=_FAINT, linewidth=0.8, linestyle=(0, (2, 3)))
    for place, values in enumerate(curves):
        axes.plot(np.arange(1, len(values) + 1), values, **_line(place))
    axes.locator_params(axis="x", integer=True)
    return _to_svg(figure, f"history-{name}")


def draw_intervals(groups: Sequence[tuple[str, Sequence[IntervalRow]]], *, name: str) -> str:
    """Draw a forest plot: metrics with their intervals below one another, and as text beside.

    Parameters
    ----------
    groups : sequence of (str, sequence of (str, float or None, (float, float) or None))
        Headings, and the rows below each: label, metric and interval.
    name : str
        Name of the chart; two charts of a page need different ones.
    """
    lines = sum(len(rows) + bool(heading) for heading, rows in groups)
    figure = make_figure(_WIDTH, 0.32 + 0.2 * lines)
    height = figure.get_figheight()
    axes = figure.add_axes((_AXES_LEFT, 0.28 / height, _AXES_WIDTH, 0.2 * lines / height))
    _style(axes, "", "")
    axes.spines["left"].set_visible(False)
    axes.set(xlim=_find_range(groups), ylim=(lines - 0.5, -0.5), yticks=[])
    axes.locator_params(axis="x", nbins=4)
    place = 0
    labels: list[str] = []
    for heading, rows in groups:
        if heading:
            _write(axes, -_AXES_LEFT / _AXES_WIDTH, place, heading, weight="bold")
            place += 1
        for label, value, interval in rows:
            # Names that others chose are put into the drawing after it is text.
            _write(axes, -0.06, place, f"label-{len(labels)}-label", ha="right")
            labels.append(escape(shorten(make_printable(label), _LABEL_WIDTH)))
            _write(axes, 1.08, place, show(value, interval), ha="left")
            if interval is not None:
                axes.plot(interval, (place, place), color=_SERIES[0], linewidth=1.8)
            if value is not None:
                axes.plot([value], [place], color=_SERIES[0], marker="s", markersize=4)
            place += 1
    svg = _to_svg(figure, name)
    return re.sub(r"label-(\d+)-label", lambda found: labels[int(found[1])], svg)


def describe_intervals(groups: Sequence[tuple[str, Sequence[IntervalRow]]]) -> str:
    """Describe a forest plot in sentences."""
    return " ".join(
        f"{heading}: {', '.join(f'{label} {show(value, ends)}' for label, value, ends in rows)}."
        for heading, rows in groups
    )


def draw_heat_map(
    rows: Sequence[tuple[str, Sequence[tuple[str, float]]]], *, best: float, name: str
) -> str:
    """Draw cells that have the more colour the lower a metric is, in rows of a label.

    Parameters
    ----------
    rows : sequence of (str, sequence of (str, float))
        The label of each row, and of each of its cells a label and the metric.
    best : float
        The metric of cells with the least colour; those of 0 have the most.
    name : str
        What the ids of the drawing start with.
    """
    n_columns = max(len(cells) for _, cells in rows)
    figure = make_figure(_WIDTH, _CELL_HEIGHT * len(rows))
    axes = figure.add_axes((_HEAT_LEFT, 0, 1 - _HEAT_LEFT, 1))
    axes.set(xlim=(0, n_columns), ylim=(len(rows), 0))
    axes.set_axis_off()
    for row, (label, cells) in enumerate(rows):
        _write(axes, -0.02, row + 0.5, label, ha="right")
        for column, (above, value) in enumerate(cells):
            loss = min(1.0, max(0.0, 1 - value / best)) if best else 0.0
            axes.fill_between(
                (column + 0.02, column + 0.98), row + 0.03, row + 0.97,
                color=_SERIES[0], alpha=_LIGHTEST + _SHADES * loss, linewidth=0,
            )  # fmt: skip
            place = (column + 0.5) / n_columns
            _write(axes, place, row + 0.27, above, ha="center", size=_POINTS - 2.5)
            _write(axes, place, row + (0.67 if above else 0.5), f"{value:.2f}", ha="center")
    return _to_svg(figure, name)


def _find_range(groups: Sequence[tuple[str, Sequence[IntervalRow]]]) -> tuple[float, float]:
    values = [
        end
        for _, rows in groups
        for _, value, interval in rows
        for end in (value, *(interval or ()))
        if end is not None
    ]
    least = min(values, default=0.0)
    low = np.floor((least - 0.01) * 20) / 20
    return max(0.0, float(low)) - 0.005, 1.005


def _write(
    axes: Any, x: float, y: float, text: str, *, size: float = _POINTS, **style: Any
) -> None:
    axes.text(
        x, y, text, transform=axes.get_yaxis_transform(), va="center_baseline",
        fontsize=size, color=_INK, parse_math=False, **style,
    )  # fmt: skip


def _make_square(x_label: str, y_label: str) -> tuple[Any, Any]:
    figure = make_figure(_WIDTH, _WIDTH, layout="constrained")
    axes = figure.subplots()
    _style(axes, x_label, y_label)
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
    return figure, axes


def _style(axes: Any, x_label: str, y_label: str) -> None:
    axes.set_facecolor("none")
    axes.grid(color=_GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set(color=_FAINT, linewidth=0.8)
    axes.tick_params(labelsize=_POINTS, labelcolor=_INK, color=_FAINT, length=3)
    axes.set_xlabel(x_label, fontsize=_POINTS, color=_INK)
    axes.set_ylabel(y_label, fontsize=_POINTS, color=_INK)


def _line(place: int) -> dict[str, Any]:
    dashes = DASHES[place % len(DASHES)]
    lengths = () if dashes == "none" else tuple(float(part) / 1.6 for part in dashes.split())
    return {
        "color": _SERIES[place % N_COLOURS],
        "linewidth": 1.6,
        "linestyle": (0, lengths) if lengths else "solid",
        "clip_on": False,
    }


def _to_svg(figure: Any, name: str) -> str:
    """Write a figure as an SVG element; equal figures give equal bytes, and ids are unique."""
    import matplotlib as mpl

    written = StringIO()
    figure.patch.set_visible(False)
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(written, format="svg", metadata={"Date": None, "Creator": None})
    svg = written.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    # Its style element would apply to the whole page.
    svg = re.sub(r"<style.*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<svg [^>]*?(viewBox=\"[^\"]*\")[^>]*>", r"<svg \1>", svg, count=1)
    svg = svg.replace("xlink:href", "href")
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(colour, variable)
    used = set(re.findall(r"url\(#([^)]+)\)|href=\"#([^\"]+)\"", svg))
    kept = {reference for pair in used for reference in pair if reference}
    svg = re.sub(
        r" id=\"([^\"]*)\"",
        lambda found: f' id="{name}-{found[1]}"' if found[1] in kept else "",
        svg,
    )
    svg = re.sub(r"url\(#([^)]+)\)", rf"url(#{name}-\1)", svg)
    svg = re.sub(r"href=\"#([^\"]+)\"", rf'href="#{name}-\1"', svg)
    return "\n".join(line.rstrip() for line in svg.splitlines() if line.strip())


def describe_svg(svg: str, *, name: str, title: str, description: str) -> str:
    """Add the title and the description that a screen reader reads."""
    opening = (
        f'<svg role="img" aria-labelledby="{name}-title" aria-describedby="{name}-desc" '
        f'focusable="false"'
    )
    texts = (
        f'<title id="{name}-title">{escape(make_printable(title))}</title>'
        f'<desc id="{name}-desc">{escape(make_printable(description))}</desc>'
    )
    head, _, body = svg.removeprefix("<svg").partition(">")
    return f"{opening}{head}>{texts}{body}"
