"""An image is cropped to what is bright in it, so that a base does not see the frame around it."""

from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from brainfeat.errors import ParameterError
from brainfeat.readers.thresholds import find_otsu_threshold

Crop = Literal["none", "foreground"]

# By the names of the options: how an image is cropped, as the spec has it. A change of any constant
# below changes pixels: it takes a new text.
CROPS: dict[Crop, str] = {
    "none": "",
    "foreground": "foreground threshold=otsu grid=128px least=0.15 margin=0.02",
}

# Longest side of the reduced image in which the foreground is searched, in pixels.
_GRID = 128
# Percent of the pixels that the foreground has at least: below are single bright spots, such as a
# tumour or an eye, and a crop to them would lose the head.
_LEAST = 15
# Percent of the height and width of the foreground that are kept on each side of it.
_MARGIN = 2


class Box(NamedTuple):
    """A part of an image: rows `top` to `bottom` and columns `left` to `right`, without the last.

    Attributes
    ----------
    top, left, bottom, right : int
        In pixels from the upper left corner.
    """

    top: int
    left: int
    bottom: int
    right: int


def check_crop(name: Crop) -> str:
    """Return how the spec has an option.

    Parameters
    ----------
    name : {"none", "foreground"}
        One of the keys of :data:`CROPS`.

    Returns
    -------
    str
        The text for the field `crop` of the spec.

    Raises
    ------
    ParameterError
        The name is unknown.

    Examples
    --------
    >>> check_crop("none")
    ''
    """
    if not isinstance(name, str) or name not in CROPS:
        raise ParameterError(f"unknown crop {name!r:.80}; expected one of {', '.join(CROPS)}")
    return CROPS[name]


def name_crop(text: str) -> Crop:
    """Return the name of the option that gives a spec its field `crop`.

    Parameters
    ----------
    text : str
        The field.

    Returns
    -------
    {"none", "foreground"}
        A key of :data:`CROPS`.

    Raises
    ------
    ParameterError
        The text is none of :data:`CROPS`.

    Examples
    --------
    >>> name_crop("")
    'none'
    """
    for name, known in CROPS.items():
        if text == known:
            return name
    raise ParameterError(
        f"the spec crops images by {text!r:.80}, which this version of brainfeat does not know; "
        "take the version that extracted the features"
    )


def crop_pixels(
    pixels: npt.NDArray[np.uint8], crop: str, *, grey: npt.NDArray[np.uint8] | None = None
) -> npt.NDArray[np.uint8]:
    """Cut out the part of an image that is kept.

    Parameters
    ----------
    pixels : ndarray of shape (height, width, 3), uint8
        As :func:`brainfeat.extraction.preprocessing.quantize_image` returns them.
    crop : str
        The field of the spec.
    grey : ndarray of shape (height, width), uint8, or None
        What `make_grey` returns of the pixels, where it is at hand.

    Returns
    -------
    ndarray of shape (h, w, 3), uint8
        `pixels` itself where all of it is kept.

    Raises
    ------
    ParameterError
        `crop` is unknown.

    Examples
    --------
    >>> pixels = np.zeros((100, 80, 3), np.uint8)
    >>> pixels[20:80, 10:60] = 200
    >>> crop_pixels(pixels, CROPS["foreground"]).shape
    (62, 52, 3)
    """
    box = find_box(pixels if grey is None else grey, crop)
    if box is None:
        return pixels
    return np.ascontiguousarray(pixels[box.top : box.bottom, box.left : box.right])


def find_box(pixels: npt.NDArray[np.uint8], crop: str) -> Box | None:
    """Find the part of an image that is kept.

    The image becomes grey (ITU-R 601-2, as Pillow converts it) and is reduced by the least whole
    factor with which no side is longer than 128 pixels, to the mean of each block. Pixels above
    Otsu's threshold of the reduced image are bright. The largest region of bright pixels that are
    joined by their sides is the foreground; of several as large, the first by rows. It is kept with
    2 % of its height above and below and 2 % of its width on both sides.

    Parameters
    ----------
    pixels : ndarray of shape (height, width, 3) or (height, width), uint8
        RGB or grey.
    crop : str
        The field of the spec.

    Returns
    -------
    Box or None
        None where the image stays whole: without a crop; where the foreground has less than 15 %
        of the pixels, or the image has none; and where the box is the whole image.

    Raises
    ------
    ParameterError
        `crop` is unknown.

    Examples
    --------
    >>> pixels = np.zeros((100, 80, 3), np.uint8)
    >>> pixels[20:80, 10:60] = 200
    >>> find_box(pixels, CROPS["foreground"])
    Box(top=19, left=9, bottom=81, right=61)
    >>> find_box(pixels, CROPS["none"]) is find_box(pixels * 0, CROPS["foreground"]) is None
    True
    """
    if name_crop(crop) == "none":
        return None
    from PIL import Image
    from scipy.ndimage import label

    height, width = pixels.shape[:2]
    factor = -(-max(height, width) // _GRID)
    reduced = np.asarray(Image.fromarray(make_grey(pixels)).reduce(factor))
    threshold = find_otsu_threshold(np.bincount(reduced.ravel(), minlength=256))
    bright = reduced > threshold
    regions, _ = label(bright)
    # By region, from 1.
    sizes = np.bincount(regions[bright], minlength=2)
    largest = int(sizes.argmax())
    if sizes[largest] == 0 or 100 * int(sizes[largest]) < _LEAST * reduced.size:
        return None
    foreground = regions == largest
    top, bottom = _find_range(foreground.any(axis=1), factor, height)
    left, right = _find_range(foreground.any(axis=0), factor, width)
    box = Box(top, left, bottom, right)
    return None if box == (0, 0, height, width) else box


def make_grey(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Make an image grey, as `find_box` and the signature do.

    Parameters
    ----------
    pixels : ndarray of shape (height, width, 3) or (height, width), uint8

    Returns
    -------
    ndarray of shape (height, width), uint8
        `pixels` itself where it is grey already.

    Examples
    --------
    >>> make_grey(np.array([[[200, 100, 0]]], np.uint8))
    array([[118]], dtype=uint8)
    """
    from PIL import Image

    return pixels if pixels.ndim == 2 else np.asarray(Image.fromarray(pixels).convert("L"))


def _find_range(filled: npt.NDArray[np.bool_], factor: int, length: int) -> tuple[int, int]:
    """Find the first and the last of rows or columns, and add the margin, within the image."""
    places = np.flatnonzero(filled)
    start, stop = int(places[0]) * factor, min((int(places[-1]) + 1) * factor, length)
    margin = (stop - start) * _MARGIN // 100
    return max(0, start - margin), min(length, stop + margin)
