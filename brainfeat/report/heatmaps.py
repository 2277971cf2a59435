"""Heat maps drawn over their images, as PNG; needs matplotlib (the extra ``report``)."""

import os
from typing import Any

import numpy as np
import numpy.typing as npt

from brainfeat.errors import ParameterError
from brainfeat.report.pictures import INK, make_figure, save_figure
from brainfeat.text import make_printable, shorten

CAPTION = "not a diagnosis: shows where the score comes from, not why"
ATTENTION_CAPTION = "not a diagnosis: how much the head weighs each place, whatever the class"
_OUTLINE = "outline: half of the maximum"
_BLANK = "blank: no place raises this score"
_SEEN = "dotted: the part that was seen"

_COLOUR_MAP = "inferno"  # from dark to light in even steps: readable without colour vision
_STRONGEST = 0.7  # opacity at the maximum; at 0 the image is bare
_HALF = 0.5  # level of the outline
_NAME_WIDTH = 40
# Inches of one panel: its area is that of a square of this side, in any aspect up to 1 : 3.
_SIDE = 3.2
_MOST_ASPECT = 3.0
_MOST_PIXELS = 2048  # of a side: a panel has fewer, and a huge scan need not be copied whole


def save_heatmap(
    pixels: npt.ArrayLike,
    heat: npt.ArrayLike,
    path: str | os.PathLike[str],
    *,
    title: str,
    probability: float,
    box: tuple[int, int, int, int] | None = None,
    caption: str = CAPTION,
) -> None:
    """Draw an image beside the same image under its heat map.

    Parameters
    ----------
    pixels : array-like of shape (h, w) or (h, w, 3)
        The image before preprocessing: float in [0, 1] or uint8.
    heat : array-like of shape (s, t), float
        In [0, 1], as :func:`brainfeat.prediction.explanation.explain` returns it; it is stretched
        to h by w.
    path : path-like
        The PNG file; an existing one is replaced.
    title : str
        The class whose score the map explains.
    probability : float
        Its calibrated probability, in [0, 1].
    box : tuple of int or None, default=None
        The part of the image that the base saw and `heat` belongs to: top, left, bottom and right
        in pixels, as :func:`brainfeat.extraction.cropping.find_box` returns them. A dotted line
        shows it. None is the whole image.
    caption : str, default=CAPTION
        What the map shows; ``ATTENTION_CAPTION`` for one of attention.

    Raises
    ------
    ParameterError
        An array, the box or the probability is not as described above.
    MissingDependencyError
        Matplotlib is not installed.
    """
    image, warmth = _check_pixels(pixels), _check_heat(heat)
    seen = _check_box(box, image.shape[0], image.shape[1])
    if not 0 <= probability <= 1:
        raise ParameterError(f"the probability must lie in [0, 1], got {probability!r}")
    width, height = _panel_size(image.shape[1] / image.shape[0])
    step = -(-max(image.shape[:2]) // _MOST_PIXELS)
    image = image[::step, ::step] / np.float32(255 if image.dtype == np.uint8 else 1)
    seen = seen[0] // step, seen[1] // step, -(-seen[2] // step), -(-seen[3] // step)
    warmth = _place(warmth, seen, image.shape[0], image.shape[1])
    # Margins in inches: the title above, the caption below, the colour bar at the right.
    gap, bar, above, below = 0.12, 0.75, 0.4, 0.42
    whole = (2 * width + gap + bar, height + above + below)
    figure = make_figure(*whole)

    def add_axes(left: float, across: float) -> Any:
        return figure.add_axes(
            (left / whole[0], below / whole[1], across / whole[0], height / whole[1])
        )

    plain, covered = add_axes(0.0, width), add_axes(width + gap, width)
    for axes in (plain, covered):
        axes.set_axis_off()
        # The aspect is that of the panel, which is the image's own.
        axes.imshow(image, cmap="gray", vmin=0.0, vmax=1.0, aspect="auto")
    drawn = covered.imshow(
        warmth, cmap=_COLOUR_MAP, vmin=0.0, vmax=1.0, alpha=_STRONGEST * warmth, aspect="auto"
    )
    if min(warmth.shape) > 1 and warmth.min() < _HALF < warmth.max():
        covered.contour(warmth, levels=[_HALF], colors="white", linewidths=0.8)
    if box is not None:
        _outline_box(covered, seen)
    colours = figure.colorbar(_opaque(drawn), cax=add_axes(2 * width + 2 * gap, 0.13))
    colours.set_label("fraction of maximum", fontsize=7, color=INK)
    colours.ax.tick_params(labelsize=7, labelcolor=INK)
    colours.ax.axhline(_HALF, color="white", linewidth=0.8)
    name = shorten(make_printable(title), _NAME_WIDTH)
    heading = f"{name}, probability {probability:.2f}"
    legend = f"{caption}\n{_OUTLINE if warmth.max() > 0 else _BLANK}"
    legend += f"; {_SEEN}" if box is not None else ""
    for x, y, text, size in (
        (0.0, 1 - 0.12 / whole[1], heading, 10),
        (0.0, 0.34 / whole[1], legend, 8),
    ):
        figure.text(x, y, text, ha="left", va="top", fontsize=size, color=INK, parse_math=False)
    save_figure(figure, path)


def _opaque(drawn: Any) -> Any:
    from matplotlib.cm import ScalarMappable

    return ScalarMappable(norm=drawn.norm, cmap=drawn.cmap)


def _panel_size(aspect: float) -> tuple[float, float]:
    """Return the inches of a panel for an aspect of width over height."""
    root = min(max(aspect, 1 / _MOST_ASPECT), _MOST_ASPECT) ** 0.5
    width, height = _SIDE * root, _SIDE / root
    if aspect > _MOST_ASPECT:
        height = width / aspect
    if aspect < 1 / _MOST_ASPECT:
        width = height * aspect
    return width, height


def _outline_box(axes: Any, box: tuple[int, int, int, int]) -> None:
    from matplotlib.patches import Rectangle

    top, left, bottom, right = box
    corner, sides = (left - 0.5, top - 0.5), (right - left, bottom - top)
    axes.add_patch(
        Rectangle(corner, *sides, fill=False, edgecolor="white", linestyle=":", linewidth=0.8)
    )


def _place(
    heat: npt.NDArray[np.float32], box: tuple[int, int, int, int], height: int, width: int
) -> npt.NDArray[np.float32]:
    """Stretch a map to the part of the image that it belongs to; elsewhere it is 0."""
    top, left, bottom, right = box
    placed = np.zeros((height, width), np.float32)
    placed[top:bottom, left:right] = _stretch(heat, bottom - top, right - left)
    return placed


def _stretch(heat: npt.NDArray[np.float32], height: int, width: int) -> npt.NDArray[np.float32]:
    from PIL import Image

    resized = Image.fromarray(heat).resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(resized, np.float32).clip(0, 1)


def _check_pixels(pixels: npt.ArrayLike) -> npt.NDArray[Any]:
    image = np.asarray(pixels)
    if not image.size or image.ndim not in {2, 3} or (image.ndim == 3 and image.shape[2] != 3):
        raise ParameterError(f"pixels must have shape (h, w) or (h, w, 3), got {image.shape}")
    if image.dtype != np.uint8 and not (
        image.min() >= 0 and image.max() <= 1
    ):  # a NaN must not pass
        raise ParameterError(
            f"pixels must be uint8 or lie in [0, 1], got {image.min():g} to {image.max():g}"
        )
    return image


def _check_box(
    box: tuple[int, int, int, int] | None, height: int, width: int
) -> tuple[int, int, int, int]:
    if box is None:
        return 0, 0, height, width
    top, left, bottom, right = box
    if not (0 <= top < bottom <= height and 0 <= left < right <= width):
        raise ParameterError(
            f"a box of rows {top} to {bottom} and columns {left} to {right}; expected a part of an "
            f"image of {height} × {width} pixels"
        )
    return top, left, bottom, right


def _check_heat(heat: npt.ArrayLike) -> npt.NDArray[np.float32]:
    values = np.asarray(heat, np.float32)
    if values.ndim != 2 or not values.size:
        raise ParameterError(f"a heat map must have shape (s, t), got {values.shape}")
    if not (values.min() >= 0 and values.max() <= 1):
        raise ParameterError(
            f"a heat map must lie in [0, 1], got {values.min():g} to {values.max():g}"
        )
    return values
