"""A learning curve as text, as Markdown and as a picture."""

import os
from typing import TYPE_CHECKING

from brainfeat.report.blocks import Block, Cell, Estimate, Section, Table
from brainfeat.report.markdown import write_sections
from brainfeat.report.pictures import INK, make_figure, save_figure
from brainfeat.report.text import write_section
from brainfeat.text import UNDEFINED, count, format_interval, format_metric

if TYPE_CHECKING:
    from brainfeat.evaluation.growth import CurvePoint, FitSpread, LearningCurve

_SUBSETS = {"test_without_copies": "test without copies", "test": "test"}
# Two hues that differ in lightness: readable without colour vision and in print.
_COLOURS = {"test_without_copies": "#08519c", "test": "#d9822b"}
_GROUPS = {
    "column": "groups of the table",
    "copies": "clusters of copies",
    "near-duplicates": "clusters of near duplicates and copies",
    "exact-duplicates": "clusters of exact duplicates",
    "none": "images",
}


def write_curve(curve: "LearningCurve") -> str:
    """Write a learning curve for a terminal of 80 columns.

    Parameters
    ----------
    curve : LearningCurve
        The result of :func:`brainfeat.learning_curve`.

    Returns
    -------
    str
        A table for each part of the test images, and what more data would bring.
    """
    return write_section(_make_section(curve))


def write_curve_markdown(curve: "LearningCurve") -> str:
    """Write a learning curve as Markdown, as :func:`write_curve` does for a terminal.

    Parameters
    ----------
    curve : LearningCurve
        The result of :func:`brainfeat.learning_curve`.

    Returns
    -------
    str
        Below a heading of the second level.
    """
    return "\n\n".join(write_sections([_make_section(curve)]))


def draw_curve(curve: "LearningCurve", path: str | os.PathLike[str]) -> None:
    """Draw accuracy over training images: the mean, and the range over the repeats.

    Parameters
    ----------
    curve : LearningCurve
        The result of :func:`brainfeat.learning_curve`.
    path : path-like
        The PNG file; an existing one is replaced.

    Raises
    ------
    MissingDependencyError
        Matplotlib is not installed.
    """
    figure = make_figure(5.2, 3.6, layout="constrained")
    axes = figure.subplots()
    for name, label in _SUBSETS.items():
        found = [
            (point.images, spread)
            for point in curve.points
            if (spread := _find_spread(point, name, "accuracy")) is not None
        ]
        if not found:
            continue
        images, spreads = zip(*found, strict=True)
        colour = _COLOURS[name]
        axes.fill_between(
            images,
            [spread.least for spread in spreads],
            [spread.most for spread in spreads],
            color=colour,
            alpha=0.18,
            linewidth=0,
        )
        axes.plot(
            images,
            [spread.mean for spread in spreads],
            color=colour,
            linewidth=1.6,
            marker="o",
            markersize=3.5,
            label=label,
        )
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.set_xlabel("training images (logarithmic)", color=INK)
    axes.set_ylabel("accuracy", color=INK)
    axes.set_ylim(top=1.0)
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="lower right")
    axes.set_title(_make_title(curve), fontsize=10, color=INK)
    save_figure(figure, path)


def name_groups(group_by: str) -> str:
    """Say what a group is, in the plural.

    Examples
    --------
    >>> name_groups("copies"), name_groups("none")
    ('clusters of copies', 'images')
    """
    return _GROUPS.get(group_by, group_by)


def _make_title(curve: "LearningCurve") -> str:
    return f"{curve.head} head, {count(curve.repeats, 'repeat')}: mean and range"


def _make_section(curve: "LearningCurve") -> Section:
    blocks: list[Block] = [
        _make_table(curve, name, label)
        for name, label in _SUBSETS.items()
        if name == "test" or any(point.test_without_copies for point in curve.points)
    ]
    how = (
        f"Groups are {name_groups(curve.group_by)}, drawn from train and validation"
        f" in {count(curve.repeats, 'order')}. Metrics: mean ± standard deviation (range) over the "
        "repeats. All sizes are measured on the same test images."
    )
    blocks += [how, describe_gain(curve)]
    return Section(name="learning-curve", title="Learning curve", blocks=blocks)


def _make_table(curve: "LearningCurve", name: str, label: str) -> Table:
    n = curve.test_images if name == "test" else curve.test_images_without_copies
    failed = [
        f"{count(point.groups_per_class, 'group')} a class: {point.error}"
        for point in curve.points
        if point.error is not None
    ]
    return Table(
        title=f"Accuracy on {label} ({count(n, 'image')})",
        head=("groups a class", "images", "accuracy", "balanced accuracy", "macro F1"),
        rows=[
            (
                f"{point.groups_per_class:,}",
                f"{point.images:,.0f}",
                *(
                    _show(_find_spread(point, name, metric))
                    for metric in ("accuracy", "balanced_accuracy", "f1")
                ),
            )
            for point in curve.points
        ],
        note=f"Not fitted: {'; '.join(failed)}." if failed else "",
    )


def _find_spread(point: "CurvePoint", name: str, metric: str) -> "FitSpread | None":
    measured = getattr(point, name)
    spread: FitSpread | None = None if measured is None else getattr(measured, metric)
    return spread


def _show(spread: "FitSpread | None") -> Cell:
    if spread is None:
        return UNDEFINED
    if spread.std is None:
        return format_metric(spread.mean)
    return Estimate(
        value=f"{format_metric(spread.mean)} ± {format_metric(spread.std)}",
        interval=format_interval((spread.least, spread.most)),
    )


def describe_gain(curve: "LearningCurve") -> str:
    """Say in sentences what more data would bring, and not beyond twice the data.

    Parameters
    ----------
    curve : LearningCurve

    Returns
    -------
    str
        ``Cannot be told`` is among the answers: where the interval of the last doubling holds 0.
    """
    gain = curve.gain
    if gain is None:
        return (
            "What more data would bring cannot be told: the head was not fitted both on all images "
            "and on half of them or fewer."
        )
    brought = (
        f"from {gain.from_images:,.0f} to {gain.to_images:,.0f} training images, accuracy on "
        f"{_SUBSETS[gain.of]} changed by {format_metric(gain.mean, signed=True)} for twice the "
        "images"
    )
    if gain.interval is None:
        return f"What more data would bring cannot be told from one repeat: {brought}."
    low, high = gain.interval
    brought += f" (95 % interval {format_interval(gain.interval, signed=True)})"
    if low <= 0 <= high:
        return f"Whether more data would raise the accuracy cannot be told: {brought}."
    if high < 0:
        return f"More data of this kind did not raise the accuracy: {brought}."
    return (
        f"More data would probably raise the accuracy: {brought}. Curves flatten, so twice the "
        "data would hardly bring more than that; nothing can be said beyond."
    )
