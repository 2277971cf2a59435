"""Image files of six formats, decoded by Pillow; no other format that Pillow knows is read.

A file is split into its parts first, and Pillow is given only those that make pixels.
"""

import os
from collections.abc import Callable, Sequence
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from brainfeat.errors import ImageReadError, ParameterError
from brainfeat.readers.archives import detect_archive
from brainfeat.readers.bmp import BMP_SIGNATURE, unpack_bmp
from brainfeat.readers.containers import Contents, ImageHeader
from brainfeat.readers.decoding import decode, to_unit
from brainfeat.readers.gif import GIF_SIGNATURES, unpack_gif
from brainfeat.readers.jpeg import JPEG_SIGNATURE, unpack_jpeg
from brainfeat.readers.png import PNG_SIGNATURE, unpack_png
from brainfeat.readers.ranges import DTYPE, check_range, scale_values
from brainfeat.readers.sources import ImageBytes, name_source, read_source
from brainfeat.readers.tiff import TIFF_SIGNATURES, unpack_tiff
from brainfeat.readers.webp import is_webp, unpack_webp

FORMATS = ("JPEG", "PNG", "TIFF", "BMP", "GIF", "WebP")
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".jfif", ".png", ".tif", ".tiff", ".bmp", ".gif", ".webp")
PIXEL_LIMIT = 64_000_000

_SIGNATURES = {
    "JPEG": (JPEG_SIGNATURE,),
    "PNG": (PNG_SIGNATURE,),
    "TIFF": TIFF_SIGNATURES,
    "BMP": (BMP_SIGNATURE,),
    "GIF": GIF_SIGNATURES,
}
_UNPACK: dict[str, Callable[..., Contents]] = {
    "JPEG": unpack_jpeg,
    "PNG": unpack_png,
    "TIFF": unpack_tiff,
    "BMP": unpack_bmp,
    "GIF": unpack_gif,
    "WebP": unpack_webp,
}


def read_image(
    source: str | os.PathLike[str] | BinaryIO,
    *,
    name: str | None = None,
    formats: Sequence[str] = FORMATS,
    pixel_limit: int = PIXEL_LIMIT,
    value_range: str = DTYPE,
) -> npt.NDArray[np.float32]:
    """Read a JPEG, PNG, TIFF, BMP, GIF or WebP image as RGB in [0, 1].

    Grey is repeated in the three channels, palettes are looked up, and CMYK is converted as Pillow
    does. Alpha is dropped, except where it varies and all pixels that are not fully clear have one
    colour: the picture is in the alpha channel then, and is read as grey. 8-bit images are divided
    by 255, and 16-bit grey images by what `value_range` says; other 16-bit images are read with
    their upper 8 bits, as Pillow does. The image is rotated upright according to its EXIF block or
    its TIFF tag; if that is unreadable, the image is left as stored. The format is determined by
    the content, not by the file name. The first picture is read of a GIF and of a JPEG file with
    several images (MPO).

    Rejected are damaged and truncated files; animated PNG and WebP; TIFF files of several pages, of
    floating-point, signed or 32-bit numbers, and with JPEG or CCITT compression; and compressed
    BMP files.

    Parameters
    ----------
    source : path-like or binary file
        A regular file, or a file object that is read from its current position to its end.
    name : str, optional
        Name of the image in error messages. Default: the path, or ``"<bytes>"`` for a file object.
    formats : sequence of str
        Allowed formats. Default: all of them.
    pixel_limit : int, default=64_000_000
        Largest number of pixels (width × height) that is decoded.
    value_range : str, default="dtype"
        What 16-bit grey is divided by: ``"dtype"``, 65,535; ``"image"``, the largest value of the
        image; ``"bits:N"``, 2^N − 1, with N from 8 to 16. Images of 8 bits are not affected.

    Returns
    -------
    ndarray of shape (height, width, 3), float32
        RGB in [0, 1].

    Raises
    ------
    ImageReadError
        If the file cannot be read, is not an image of an allowed format, is damaged or too large;
        if it has a value beyond `value_range`, or has 16-bit colours, of which only the upper 8
        bits are read, and `value_range` is not ``"dtype"``.
    ParameterError
        If `formats` has an unknown format, or `value_range` is unknown.

    Examples
    --------
    >>> from io import BytesIO
    >>> from PIL import Image
    >>> file = BytesIO()
    >>> Image.new("L", (3, 2), 51).save(file, "PNG")
    >>> image = read_image(BytesIO(file.getvalue()))
    >>> image.shape, image.dtype, float(image.max())
    ((2, 3, 3), dtype('float32'), 0.20000000298023224)
    """
    name = name_source(source, name)
    pixels = read_pixels(
        source, name=name, formats=formats, pixel_limit=pixel_limit, value_range=value_range
    )
    return pixels if pixels.dtype == np.float32 else scale_values(pixels, DTYPE, name=name)


def read_pixels(
    source: str | os.PathLike[str] | BinaryIO,
    *,
    name: str | None = None,
    formats: Sequence[str] = FORMATS,
    pixel_limit: int = PIXEL_LIMIT,
    value_range: str = DTYPE,
) -> npt.NDArray[Any]:
    """Read an image as `read_image` does, but leave its 8-bit pixels as they are.

    Parameters
    ----------
    source, name, formats, pixel_limit, value_range
        As for `read_image`.

    Returns
    -------
    ndarray of shape (height, width, 3), uint8 or float32
        RGB in 8 bits; or, for 16-bit grey, in [0, 1].

    Raises
    ------
    ImageReadError, ParameterError
        As for `read_image`.

    Examples
    --------
    >>> from io import BytesIO
    >>> from PIL import Image
    >>> file = BytesIO()
    >>> Image.new("L", (3, 2), 51).save(file, "PNG")
    >>> read_pixels(BytesIO(file.getvalue())).max()
    np.uint8(51)
    """
    name = name_source(source, name)
    check_range(value_range)
    contents = _unpack(source, name=name, formats=formats, pixel_limit=pixel_limit)
    decoded = decode(contents, name=name)
    if isinstance(source, ImageBytes):
        source.in_alpha = decoded.in_alpha
    if value_range != DTYPE and contents.header.bits > 8 and decoded.image.mode == "RGB":
        raise ImageReadError(
            name,
            f"16-bit colours, which are read in the range dtype only, not in {value_range}; convert"
            " it to 16-bit grey or to 8 bits",
        )
    if decoded.image.mode == "RGB":
        return np.asarray(decoded.image)
    return to_unit(decoded.image, value_range, name=name)


def read_header(
    source: str | os.PathLike[str] | BinaryIO,
    *,
    name: str | None = None,
    formats: Sequence[str] = FORMATS,
    pixel_limit: int = PIXEL_LIMIT,
) -> ImageHeader:
    """Read the size, channels and format of an image without decoding it.

    Parameters
    ----------
    source, name, formats, pixel_limit
        As for `read_image`.

    Returns
    -------
    ImageHeader

    Raises
    ------
    ImageReadError
        As for `read_image`, as far as the header shows it.
    ParameterError
        If `formats` has an unknown format.

    Examples
    --------
    >>> from io import BytesIO
    >>> from PIL import Image
    >>> file = BytesIO()
    >>> Image.new("L", (3, 2)).save(file, "JPEG")
    >>> read_header(BytesIO(file.getvalue()))
    ImageHeader(width=3, height=2, channels=1, format='JPEG', bits=8)
    """
    name = name_source(source, name)
    return _unpack(source, name=name, formats=formats, pixel_limit=pixel_limit).header


def _unpack(
    source: str | os.PathLike[str] | BinaryIO,
    *,
    name: str,
    formats: Sequence[str],
    pixel_limit: int,
) -> Contents:
    """Split a file of an allowed format and size into its parts, without decoding it."""
    if isinstance(formats, str) or not set(formats) <= set(FORMATS):
        raise ParameterError(f"formats {formats!r}; expected some of {', '.join(FORMATS)}")
    contents = source.contents if isinstance(source, ImageBytes) else None
    if contents is None:
        data = read_source(source, name=name)
        kind = _detect_format(data)
        if kind is None or kind not in formats:
            archive = detect_archive(data)
            raise ImageReadError(
                name,
                f"an archive ({archive}); unpack it first"
                if archive
                else f"not a {_join(formats)} image",
            )
        contents = _UNPACK[kind](data, name=name)
        if isinstance(source, ImageBytes):
            source.contents = contents
    header = contents.header
    if header.format not in formats:
        raise ImageReadError(name, f"not a {_join(formats)} image")
    if (pixels := header.width * header.height) > pixel_limit:
        raise ImageReadError(
            name,
            f"{header.width:,} × {header.height:,} = {pixels:,} pixels, more than the limit of"
            f" {pixel_limit:,}",
        )
    return contents


def _detect_format(data: bytes) -> str | None:
    found = (kind for kind, starts in _SIGNATURES.items() if data.startswith(starts))
    return next(found, "WebP" if is_webp(data) else None)


def _join(formats: Sequence[str]) -> str:
    return " or ".join([*filter(None, [", ".join(formats[:-1])]), *formats[-1:]])
