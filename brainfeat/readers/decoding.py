"""The parts of an image file, decoded by Pillow into pixels that stand upright.

Pillow's plug-ins are called directly: ``PIL.Image.open`` compares the size with a limit of the
whole process and warns about it, while the limit here belongs to the call and works in threads.
"""

import struct
import zlib
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from io import BytesIO
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from brainfeat.errors import ImageReadError
from brainfeat.readers.containers import Contents, damaged, read_orientation
from brainfeat.readers.gif import add_background
from brainfeat.readers.png import has_all_rows
from brainfeat.readers.ranges import scale_values

if TYPE_CHECKING:
    from PIL.Image import Image

# What Pillow's plug-ins raise on damaged files.
_DAMAGE = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    IndexError,
    KeyError,
    EOFError,
    OverflowError,
    MemoryError,
    NotImplementedError,
    struct.error,
    zlib.error,
)
_DEEP = ("I;16", "I;16B")  # modes of 16-bit grey
_WHITE_16 = np.uint16(65_535)
_TRANSPOSITIONS = {  # by the EXIF orientation; 1 is upright
    2: "FLIP_LEFT_RIGHT",
    3: "ROTATE_180",
    4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE",
    6: "ROTATE_270",
    7: "TRANSVERSE",
    8: "ROTATE_90",
}


class Decoded(NamedTuple):
    """The pixels of an image.

    Attributes
    ----------
    image : PIL.Image.Image
        8-bit RGB, or 16-bit grey.
    in_alpha : bool
        Whether they were the alpha channel.
    """

    image: "Image"
    in_alpha: bool


def decode(contents: Contents, *, name: str) -> Decoded:
    """Decode the pixels of a file and rotate them upright.

    Where all pixels that are not fully clear have one colour, and alpha varies, the picture is in
    the alpha channel and becomes grey; any other alpha channel is dropped.

    Parameters
    ----------
    contents : Contents
    name : str
        Name of the image in error messages.

    Returns
    -------
    Decoded

    Raises
    ------
    ImageReadError
        If the file is damaged, or of a kind that Pillow does not decode.
    """
    from PIL.Image import DecompressionBombError, fromarray

    kind = contents.header.format
    try:
        image = _DECODERS[kind](contents, name) if kind in _DECODERS else _decode_plain(contents)
        if contents.inverted:
            image = fromarray(_WHITE_16 - np.asarray(image).astype(np.uint16))
        return _stand_upright(image, contents.orientation)
    except ImageReadError:
        raise
    except (*_DAMAGE, DecompressionBombError) as error:
        raise ImageReadError(name, _reason(kind, error)) from error


def convert_image(
    image: "Image", *, name: str, value_range: str = "dtype"
) -> npt.NDArray[np.float32]:
    """Convert an image of Pillow as `brainfeat.readers.read_image` converts a file.

    Parameters
    ----------
    image : PIL.Image.Image
    name : str
        Name of the image in error messages.
    value_range : str, default="dtype"
        As for `brainfeat.readers.read_image`.

    Returns
    -------
    ndarray of shape (height, width, 3), float32
        RGB in [0, 1].

    Raises
    ------
    ImageReadError
        If the file of the image is damaged.
    """
    try:
        image.load()
        upright = _stand_upright(image, read_orientation(image.info.get("exif", b"")))
    except _DAMAGE as error:
        raise ImageReadError(name, _reason(image.format or "Pillow", error)) from error
    return to_unit(upright.image, value_range, name=name)


def to_unit(image: "Image", value_range: str, *, name: str) -> npt.NDArray[np.float32]:
    """Scale decoded pixels to RGB in [0, 1].

    Parameters
    ----------
    image : PIL.Image.Image
        8-bit RGB or 16-bit grey.
    value_range : str
        As in :func:`brainfeat.readers.ranges.scale_values`.
    name : str
        Name of the image in error messages.

    Returns
    -------
    ndarray of shape (height, width, 3), float32

    Raises
    ------
    ImageReadError
        If a value is beyond the range.
    """
    unit = scale_values(np.asarray(image), value_range, name=name)
    return unit if unit.ndim == 3 else np.repeat(unit[:, :, np.newaxis], 3, axis=2)


def _stand_upright(image: "Image", orientation: int) -> Decoded:
    """Convert an image to RGB or 16-bit grey, and rotate it upright."""
    from PIL.Image import Transpose

    method = _TRANSPOSITIONS.get(orientation)
    pixels, in_alpha = _drop_alpha(image)
    return Decoded(pixels.transpose(Transpose[method]) if method else pixels, in_alpha)


def _drop_alpha(image: "Image") -> tuple["Image", bool]:
    if image.mode == "RGB" or image.mode in _DEEP:
        return image, False
    if not image.has_transparency_data:
        return image.convert("RGB"), False
    if image.mode == "La":
        image = image.convert("LA")
    coloured = image if image.mode == "RGBA" else image.convert("RGBA")
    alpha = coloured.getchannel("A")
    clearest, densest = alpha.getextrema()
    # The colour of fully clear pixels, which the mask leaves out, may be anything.
    in_alpha = clearest != densest and all(
        np.count_nonzero(coloured.getchannel(colour).histogram(alpha)) == 1 for colour in "RGB"
    )
    return (alpha if in_alpha else coloured).convert("RGB"), in_alpha


def _decode_plain(contents: Contents) -> "Image":
    with _plugins()[contents.header.format](BytesIO(contents.stream)) as image:
        image.load()
        return image


def _decode_png(contents: Contents, name: str) -> "Image":
    image = _decode_plain(contents)
    # What Pillow would invent: missing rows, and colours that the palette does not have.
    last_rows = [(0, y, image.width, y + 1) for y in range(max(0, image.height - 2), image.height)]
    # Not image.crop(), which warns about sizes above Pillow's limit for the whole process.
    black = any(image.im.crop(row).getbbox(False) is None for row in last_rows)
    if black and not has_all_rows(contents):
        raise ImageReadError(name, "truncated")
    if contents.colours is not None:
        _check_colours(np.asarray(image), contents, name)
    return image


def _decode_bmp(contents: Contents, name: str) -> "Image":
    from PIL.Image import frombytes

    header, raw = contents.header, contents.raw
    size = header.width, header.height
    image = frombytes(
        raw.mode, size, contents.stream, "raw", raw.rawmode, raw.stride, raw.direction
    )
    return _add_palette(image, contents, name) if contents.palette else image


def _decode_gif(contents: Contents, name: str) -> "Image":
    """Decode twice on different grounds: what differs has no pixels in the file."""
    from PIL.Image import fromarray

    first, second = (
        np.asarray(_decode_plain(replace(contents, stream=add_background(contents.stream, colour))))
        for colour in (0, 1)
    )
    if not np.array_equal(first, second):
        raise ImageReadError(name, "truncated")
    return _add_palette(fromarray(first), contents, name)


def _add_palette(image: "Image", contents: Contents, name: str) -> "Image":
    """Give an image of numbers its colours, one of which may be transparent."""
    _check_colours(np.asarray(image), contents, name)
    image.putpalette(contents.palette)
    if contents.transparent is not None:
        image.info["transparency"] = contents.transparent
    return image


def _check_colours(numbers: npt.NDArray[np.uint8], contents: Contents, name: str) -> None:
    """Reject colours that the palette does not have."""
    colours = contents.colours
    if colours is not None and (highest := int(numbers.max())) >= colours:
        reason = f"a pixel of colour {highest} in a palette of {colours}"
        raise damaged(contents.header.format, name, reason)


_DECODERS: dict[str, Callable[[Contents, str], "Image"]] = {
    "PNG": _decode_png,
    "BMP": _decode_bmp,
    "GIF": _decode_gif,
}


@cache
def _plugins() -> "dict[str, Callable[[BytesIO], Image]]":
    from PIL.GifImagePlugin import GifImageFile
    from PIL.Image import core  # type: ignore[attr-defined]
    from PIL.ImageFile import ImageFile
    from PIL.JpegImagePlugin import JpegImageFile
    from PIL.PngImagePlugin import PngImageFile
    from PIL.TiffImagePlugin import TiffImageFile
    from PIL.WebPImagePlugin import WebPImageFile

    class Tiff(TiffImageFile):
        """A TIFF file whose size is not compared with Pillow's limit for the whole process."""

        def load_prepare(self) -> None:
            self.im = core.new(self.mode, self.size)
            ImageFile.load_prepare(self)

    return {
        "JPEG": JpegImageFile,
        "PNG": PngImageFile,
        "TIFF": Tiff,
        "GIF": GifImageFile,
        "WebP": WebPImageFile,
    }


def _reason(kind: str, error: BaseException) -> str:
    """Describe in a few words, on one line, why a file cannot be decoded."""
    if "truncated" in str(error).lower():
        return "truncated"
    words = " ".join(str(error).split()) or type(error).__name__
    return f"a damaged or unsupported {kind} image ({words[:120]})"
