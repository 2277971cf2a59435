"""Pictures of an evaluation and of images, as PNG; needs matplotlib (the extra ``report``).

Class names in a script that matplotlib's font lacks are drawn as boxes, with a warning by
matplotlib; its ``rcParams["font.family"]`` chooses another font.
"""

import math
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from brainfeat.errors import MissingDependencyError, ParameterError
from brainfeat.text import format_metric, make_printable, shorten

if TYPE_CHECKING:
    from brainfeat.metrics import Metrics

_DPI = 200
_COLOUR_MAP = "Blues"  # one hue from light to dark: readable without colour vision and in print
INK = "#1a1a1a"
_FAINT_INK = "#6b6b6b"
_NAME_WIDTH = 30
# Above this fraction, white on the cell's colour has more contrast than ink.
_DARK_FRACTION = 0.69
# Longer names would touch their neighbours' if they were not slanted.
_LEVEL_NAME = 10


def save_confusion_matrix(evaluation: "Metrics", path: str | os.PathLike[str]) -> None:
    """Draw the confusion matrix: counts, and percentages of the true class as text and colour.

    Parameters
    ----------
    evaluation : Metrics
        The result of :func:`brainfeat.evaluate`, or of :func:`brainfeat.metrics.measure`.
    path : path-like
        The PNG file; an existing one is replaced.

    Raises
    ------
    MissingDependencyError
        Matplotlib is not installed.
    """
    counts = np.array(evaluation.confusion_matrix)
    support = counts.sum(axis=1, keepdims=True)
    fractions = counts / np.maximum(support, 1)
    names = [shorten(make_printable(name), _NAME_WIDTH) for name in evaluation.class_names]
    # Inches of a cell, and points: twelve classes must still fit the width of a page.
    cell, points = (0.85, 8.0) if len(names) <= 6 else (0.54, 6.5)
    figure = make_figure(cell * len(names), cell * len(names))
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.imshow(fractions, cmap=_COLOUR_MAP, vmin=0.0, vmax=1.0)
    for (row, column), count in np.ndenumerate(counts):
        text, style = _describe_cell(int(count), fractions[row, column], on_diagonal=row == column)
        axes.text(column, row, text, ha="center", va="center", fontsize=points, **style)
    _label_axes(axes, names, support[:, 0].tolist(), points)
    axes.set_title(_title(evaluation, len(names)), fontsize=points + 0.5, color=INK)
    save_figure(figure, path)


def save_contact_sheet(
    images: Sequence[npt.ArrayLike],
    path: str | os.PathLike[str],
    *,
    titles: Sequence[str],
    columns: int = 6,
) -> None:
    """Draw images side by side, each under its title.

    Parameters
    ----------
    images : sequence of array-like, each of shape (h, w) or (h, w, 3)
        Float in [0, 1] or uint8; sizes may differ.
    path : path-like
        The PNG file; an existing one is replaced.
    titles : sequence of str
        One for each image.
    columns : int, default=6
        Images a row.

    Raises
    ------
    ParameterError
        There are no images, another number of titles, or an array of another shape.
    MissingDependencyError
        Matplotlib is not installed.
    """
    pixels = [np.asarray(image) for image in images]
    if not pixels or len(pixels) != len(titles):
        raise ParameterError(
            f"got {len(pixels)} images and {len(titles)} titles; expected as many titles as "
            "images, and at least one image"
        )
    for image in pixels:
        if image.ndim not in {2, 3} or (image.ndim == 3 and image.shape[2] != 3):
            raise ParameterError(f"images must have shape (h, w) or (h, w, 3), got {image.shape}")
    n_columns = min(columns, len(pixels))
    n_rows = math.ceil(len(pixels) / n_columns)
    figure = make_figure(1.5 * n_columns, 1.7 * n_rows, layout="constrained")
    grid = figure.subplots(n_rows, n_columns, squeeze=False).ravel()
    for axes in grid:
        axes.set_axis_off()
    for axes, image, title in zip(grid, pixels, titles, strict=False):
        axes.imshow(image, cmap="gray", vmin=0, vmax=255 if image.dtype == np.uint8 else 1)
        shown = shorten(make_printable(title), _NAME_WIDTH)
        axes.set_title(shown, fontsize=8, color=INK, parse_math=False)
    save_figure(figure, path)


def make_figure(
    width: float, height: float, *, layout: Literal["constrained"] | None = None
) -> Any:
    """Make a figure of a size in inches; pyplot would keep it in a global list."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingDependencyError(
            "pictures need matplotlib, which is not installed: pip install 'brainfeat[report]'"
        ) from error
    return Figure(figsize=(width, height), layout=layout, facecolor="white")


def save_figure(figure: Any, path: str | os.PathLike[str]) -> None:
    """Write a figure as PNG; the same numbers give the same bytes."""
    figure.savefig(
        path,
        format="png",
        dpi=_DPI,
        bbox_inches="tight",
        pad_inches=0.08,
        # Not matplotlib's version, so that the bytes depend on the figure alone.
        metadata={"Software": None},
    )


def _describe_cell(count: int, fraction: float, *, on_diagonal: bool) -> tuple[str, dict[str, Any]]:
    """Return the text of a cell and its style."""
    if not count:
        return "0", {"color": _FAINT_INK}
    return f"{count:,}\n{fraction:.1%}", {
        "color": "white" if fraction > _DARK_FRACTION else INK,
        "fontweight": "bold" if on_diagonal else "normal",
        "linespacing": 1.3,
    }


def _title(evaluation: "Metrics", n_classes: int) -> str:
    # Three columns leave no room for one line.
    break_or_comma = "\n" if n_classes < 4 else ", "
    return (
        f"{evaluation.n:,} images{break_or_comma}accuracy {format_metric(evaluation.accuracy)}, "
        f"balanced {format_metric(evaluation.balanced_accuracy)}"
    )


def _label_axes(axes: Any, names: Sequence[str], support: Sequence[int], points: float) -> None:
    places = range(len(names))
    axes.set_xticks(places, names)
    if max(map(len, names)) > _LEVEL_NAME:
        for label in axes.get_xticklabels():
            label.set(rotation=40, ha="right", rotation_mode="anchor")
    axes.set_yticks(
        places, [f"{name}\n(n = {n:,})" for name, n in zip(names, support, strict=True)]
    )
    for label in [*axes.get_xticklabels(), *axes.get_yticklabels()]:
        label.set_parse_math(False)
    axes.tick_params(length=0, labelsize=points, labelcolor=INK)
    axes.set_xlabel("predicted class (% of row)", fontsize=points + 1, color=INK, labelpad=6)
    axes.set_ylabel("true class", fontsize=points + 1, color=INK, labelpad=6)
    # White lines between the cells keep light cells apart.
    between = np.arange(0.5, len(names) - 1)
    axes.set_xticks(between, minor=True)
    axes.set_yticks(between, minor=True)
    axes.grid(which="minor", color="white", linewidth=1.5)
    axes.tick_params(which="minor", length=0)
    axes.spines[:].set_visible(False)
