"""One picture: a slice beside its heat map, with the decision and a warning in the pixels."""

from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainfeat.extraction.cropping import Box
from brainfeat.prediction.answers import NOTICE
from brainfeat.prediction.description import describe, describe_caveats
from brainfeat.prediction.dicom_results.volumes import PredictedVolume
from brainfeat.text import make_printable, shorten

WIDTH, HEIGHT = 1024, 768
WARNING = "NOT FOR DIAGNOSIS"

_SIDE = 496  # of each of the two panels
_MARGIN = 10
_TOP = 84
_TEXT_WIDTH = 110  # characters of a line
_CLASSES = 8  # with a probability in the picture
_STRONGEST = 0.7  # opacity of the heat at its maximum
_WHITE, _YELLOW, _GREY, _BLACK = (255, 255, 255), (255, 220, 0), (170, 170, 170), (0, 0, 0)


def paint(
    volume: PredictedVolume,
    *,
    pixels: NDArray[np.uint8],
    heat: NDArray[np.float32],
    method: str,
    origin: str,
    box: Box | None = None,
) -> NDArray[np.uint8]:
    """Paint a slice of a volume beside its heat map.

    Parameters
    ----------
    volume : PredictedVolume
        What is predicted.
    pixels : ndarray of shape (h, w, 3), uint8
        The slice.
    heat : ndarray of shape (s, s), float32
        In [0, 1]; it is stretched to the part that the head was shown.
    method : str
        How it was computed.
    origin : str
        What predicted.
    box : Box or None, default=None
        The part of the slice that the head was shown, which gets an outline; None for all of it.

    Returns
    -------
    ndarray of shape (768, 1024, 3), uint8
    """
    from PIL import Image, ImageDraw

    picture = Image.new("RGB", (WIDTH, HEIGHT))
    drawing = ImageDraw.Draw(picture)
    plain = Image.fromarray(pixels)
    for left, panel in (
        (_MARGIN, plain),
        (WIDTH - _SIDE - _MARGIN, Image.fromarray(_cover(plain, heat, box))),
    ):
        scale = _SIDE / max(panel.size)
        width, height = (max(1, round(side * scale)) for side in panel.size)
        shown = panel.resize((width, height), Image.Resampling.BICUBIC)
        corner = left + (_SIDE - width) // 2, _TOP + (_SIDE - height) // 2
        picture.paste(shown, corner)
    if box is not None:
        _outline(drawing, box, corner=corner, scale=scale)
    _write(drawing, _MARGIN, 8, WARNING, size=26, colour=_YELLOW)
    _write(drawing, _MARGIN, 44, NOTICE, size=16, colour=_YELLOW)
    for left in (_MARGIN, WIDTH - _SIDE - _MARGIN):
        _write(drawing, left + 6, _TOP + _SIDE - 26, WARNING, size=16, colour=_YELLOW)
    y = _TOP + _SIDE + 8
    for text, size, colour in _list_lines(volume, method, origin, is_part=box is not None):
        _write(drawing, _MARGIN, y, text, size=size, colour=colour)
        y += size + 8
    return np.asarray(picture)


def _list_lines(
    volume: PredictedVolume, method: str, origin: str, *, is_part: bool
) -> Iterator[tuple[str, int, tuple[int, int, int]]]:
    prediction, shown = volume.prediction, volume.shown
    yield f"{prediction.path}: {describe(prediction)}", 20, _WHITE
    for caveat in describe_caveats(prediction):
        yield caveat, 16, _YELLOW
    ranked = sorted(prediction.probabilities.items(), key=lambda entry: -entry[1])
    parts = [f"{shorten(name, 30)} {probability:.2f}" for name, probability in ranked[:_CLASSES]]
    parts += ["…"] if len(ranked) > _CLASSES else []
    yield f"probabilities of the volume: {', '.join(parts)}", 16, _WHITE
    if shown is not None:
        number = f"slice {shown.prediction.frame}{', outlined part' if is_part else ''}"
        yield f"{number}: {describe(shown.prediction)}", 16, _WHITE
    target = shorten(volume.target, 30)
    right = f"right: where the score of {target} comes from ({method})"
    yield f"{right}, neither why nor where a tumour is", 16, _GREY
    yield f"brainfeat {version('brainfeat')}, {origin}", 16, _GREY


def _cover(plain: Any, heat: NDArray[np.float32], box: Box | None) -> NDArray[np.uint8]:
    """Cover a slice with its heat: from transparent over red and yellow to white."""
    from PIL import Image

    top, left, bottom, right = box or (0, 0, plain.height, plain.width)
    stretched = Image.fromarray(heat).resize(
        (right - left, bottom - top), Image.Resampling.BILINEAR
    )
    warmth = np.zeros((plain.height, plain.width, 1), np.float32)
    warmth[top:bottom, left:right, 0] = np.asarray(stretched, np.float32).clip(0, 1)
    colours = (3 * warmth - np.arange(3, dtype=np.float32)).clip(0, 1)
    opacity = _STRONGEST * warmth
    mixed = (1 - opacity) * np.asarray(plain, np.float32) + opacity * 255 * colours
    return np.asarray(np.rint(mixed), np.uint8)


def _outline(drawing: Any, box: Box, *, corner: tuple[int, int], scale: float) -> None:
    """Outline the part of a slice that the head was shown, in the panel with this corner."""
    across, down = corner
    left, right = (across + round(side * scale) for side in (box.left, box.right))
    top, bottom = (down + round(side * scale) for side in (box.top, box.bottom))
    drawing.rectangle((left, top, max(left, right - 1), max(top, bottom - 1)), outline=_GREY)


def _write(
    drawing: Any, x: int, y: int, text: str, *, size: int, colour: tuple[int, int, int]
) -> None:
    """Write a line; the font has the letters of Western Europe, and others become escapes."""
    from PIL import ImageFont

    legible = shorten(make_printable(text), _TEXT_WIDTH)
    legible = legible.replace("…", "...").encode("latin-1", "backslashreplace").decode("latin-1")
    font = ImageFont.load_default(size)
    drawing.text((x, y), legible, fill=colour, font=font, stroke_width=2, stroke_fill=_BLACK)
