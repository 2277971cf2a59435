"""What is known of an image file before it is decoded: its header and the parts that make pixels.

A module for each format (``jpeg``, ``png``, ``tiff``, ``bmp``, ``gif``, ``webp``) splits a file
into these parts. The decoder is given no others: text, colour profiles, thumbnails, further images
and data appended to the file are skipped without being unpacked.
"""

import struct
from dataclasses import dataclass, field
from typing import NamedTuple

from brainfeat.errors import ImageReadError

PART_LIMIT = 100_000  # chunks, segments or strips; 8 KiB of pixels in each fill the largest file

_EXIF_TYPES = {3: "H", 4: "I"}  # SHORT by the standard; LONG occurs as well


@dataclass(frozen=True)
class ImageHeader:
    """Size, channels and format of an image file, known before it is decoded.

    Parameters
    ----------
    width, height : int
        In pixels, as stored: before any rotation that EXIF asks for.
    channels : int
        1 for grey or a palette, 2 for grey with alpha, 3 for RGB, 4 for RGBA or CMYK. 16-bit grey
        with alpha counts as 4, which is how Pillow opens it.
    format : {"JPEG", "PNG", "TIFF", "BMP", "GIF", "WebP"}
        Determined by the content of the file.
    bits : int
        Of each channel; 8 for everything that is decoded as 8-bit RGB or grey, or looked up in a
        palette.
    """

    width: int
    height: int
    channels: int
    format: str
    bits: int = 8


class RawLayout(NamedTuple):
    """How pixels that are not compressed lie in a stream, in Pillow's words.

    Attributes
    ----------
    mode : str
        Of the image.
    rawmode : str
        Of its pixels in the stream.
    stride : int
        Bytes in a row.
    direction : int
        1 where the first row is the upper one, −1 where it is the lower one.
    """

    mode: str
    rawmode: str
    stride: int
    direction: int


_NOT_RAW = RawLayout("", "", 0, 1)


@dataclass(frozen=True)
class Contents:
    """The parts of an image file.

    Parameters
    ----------
    header : ImageHeader
        Size, channels and format.
    stream : bytes
        A file of the same format and the same pixels, without metadata; of a BMP file, the pixels.
    orientation : int
        As EXIF numbers it; 1 is upright.
    colours : int or None
        Number of colours in a palette.
    palette : bytes
        The palette, three bytes a colour, where `stream` is without it.
    transparent : int or None
        The colour of that palette that is transparent.
    row_bytes : int
        Number of bytes in the inflated rows of a PNG file.
    pixel_place : int
        Where these rows begin in the stream.
    raw : RawLayout
        How the pixels of a BMP file lie in the stream.
    inverted : bool
        Whether 0 is white, and the decoder leaves it at that.
    """

    header: ImageHeader
    stream: bytes = field(repr=False)
    orientation: int = 1
    colours: int | None = None
    palette: bytes = b""
    transparent: int | None = None
    row_bytes: int = 0
    pixel_place: int = 0
    raw: RawLayout = _NOT_RAW
    inverted: bool = False


def damaged(kind: str, name: str, reason: str) -> ImageReadError:
    """Make the error of a file that violates its format, or uses a part of it that is not read."""
    return ImageReadError(name, f"a damaged or unsupported {kind} image ({reason})")


def check_size(kind: str, name: str, width: int, height: int) -> None:
    """Reject an image without pixels.

    Raises
    ------
    ImageReadError
        If the width or the height is 0.
    """
    if not (width and height):
        raise damaged(kind, name, f"{width:,} × {height:,} pixels")


def read_orientation(exif: bytes) -> int:
    r"""Find the orientation in the first directory of an EXIF block; 1 if there is none.

    Pillow's own reader fails on, or warns about, damage in entries that do not matter here.

    Examples
    --------
    >>> read_orientation(b"Exif\0\0 damaged")
    1
    """
    tiff = exif.removeprefix(b"Exif\0\0")
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(tiff[:4])
    if order is None:
        return 1
    try:
        (start,) = struct.unpack_from(f"{order}I", tiff, 4)
        (count,) = struct.unpack_from(f"{order}H", tiff, start)
        for entry in range(start + 2, start + 2 + 12 * count, 12):
            tag, kind = struct.unpack_from(f"{order}HH", tiff, entry)
            if tag == 0x0112 and kind in _EXIF_TYPES:
                return int(struct.unpack_from(order + _EXIF_TYPES[kind], tiff, entry + 8)[0])
    except struct.error:  # the block ends before the entry
        return 1
    return 1
