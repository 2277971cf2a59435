"""JPEG and PNG files, decoded by Pillow; no other format that Pillow knows is read.

A file is split into its parts first, and Pillow is given only the pixels. Its plug-ins are called
directly: ``PIL.Image.open`` compares the size with a limit of the whole process and warns about it,
while the limit here belongs to the call and works in threads.
"""

import errno
import os
import struct
import zlib
from collections.abc import Sequence
from functools import cache
from io import BytesIO
from pathlib import Path
from stat import S_ISDIR, S_ISREG
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
import numpy.typing as npt

from brainfeat.errors import BrainfeatError, ImageReadError, ParameterError
from brainfeat.readers.containers import (
    JPEG_SIGNATURE,
    PNG_SIGNATURE,
    Contents,
    ImageHeader,
    has_all_rows,
    unpack_jpeg,
    unpack_png,
)

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageFile import ImageFile

FORMATS = ("JPEG", "PNG")
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")
PIXEL_LIMIT = 64_000_000
BYTE_LIMIT = 600_000_000  # 64 million uncompressed pixels of 16-bit RGBA, and room for metadata

_SIGNATURES = {"JPEG": JPEG_SIGNATURE, "PNG": PNG_SIGNATURE}
_UNPACK = {"JPEG": unpack_jpeg, "PNG": unpack_png}
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
# Shortages of the process, which say nothing about the file.
_SHORTAGES = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
_EXIF_TYPES = {3: "H", 4: "I"}  # SHORT by the standard; LONG occurs as well
_TRANSPOSITIONS = {  # by the EXIF orientation; 1 is upright
    2: "FLIP_LEFT_RIGHT",
    3: "ROTATE_180",
    4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE",
    6: "ROTATE_270",
    7: "TRANSVERSE",
    8: "ROTATE_90",
}


class ImageBytes(BytesIO):
    """The bytes of an image file, split into its parts once by all that read them.

    Parameters
    ----------
    data : bytes
        The whole file.

    Examples
    --------
    >>> from PIL import Image
    >>> file = BytesIO()
    >>> Image.new("L", (3, 2)).save(file, "PNG")
    >>> file = ImageBytes(file.getvalue())
    >>> read_header(file).width, read_image(file).shape
    (3, (2, 3, 3))
    """

    contents: Contents | None = None


def read_image(
    source: str | os.PathLike[str] | BinaryIO,
    *,
    name: str | None = None,
    formats: Sequence[str] = FORMATS,
    pixel_limit: int = PIXEL_LIMIT,
) -> npt.NDArray[np.float32]:
    """Read a JPEG or PNG image as RGB in [0, 1].

    Grey is repeated in the three channels, alpha is dropped, palettes are looked up, and CMYK is
    converted as Pillow does. 8-bit images are divided by 255 and 16-bit grey images by 65,535;
    other 16-bit PNG images are read with their upper 8 bits, as Pillow does. The image is rotated
    upright according to its EXIF block; if that block is unreadable, the image is left as stored.
    The format is determined by the content, not by the file name. If a JPEG file has several
    images (MPO), the first one is read. Damaged and truncated files and animated PNG files are
    rejected.

    Parameters
    ----------
    source : path-like or binary file
        A regular file, or a file object that is read from its current position to its end.
    name : str, optional
        Name of the image in error messages. Default: the path, or ``"<bytes>"`` for a file object.
    formats : sequence of str, default=("JPEG", "PNG")
        Allowed formats.
    pixel_limit : int, default=64_000_000
        Largest number of pixels (width × height) that is decoded.

    Returns
    -------
    ndarray of shape (height, width, 3), float32
        RGB in [0, 1].

    Raises
    ------
    ImageReadError
        If the file cannot be read, is not an image of an allowed format, is damaged or too large.
    ParameterError
        If `formats` has an unknown format.

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
    name = _name(source, name)
    contents = _unpack(source, name=name, formats=formats, pixel_limit=pixel_limit)
    return _to_unit(_decode(contents, name))


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
    ImageHeader(width=3, height=2, channels=1, format='JPEG')
    """
    name = _name(source, name)
    return _unpack(source, name=name, formats=formats, pixel_limit=pixel_limit).header


def read_bytes(
    path: str | os.PathLike[str], *, name: str | None = None, byte_limit: int = BYTE_LIMIT
) -> bytes:
    """Read a whole image file, so that the same bytes can be hashed and decoded.

    Parameters
    ----------
    path : path-like
        A regular file. A pipe or a device is rejected without waiting for it.
    name : str, optional
        Name of the image in error messages. Default: the path.
    byte_limit : int, default=600_000_000
        Largest number of bytes that is read.

    Returns
    -------
    bytes

    Raises
    ------
    ImageReadError
        If the file is missing, empty, too long, not readable, or not a regular file.
    BrainfeatError
        If the process has no file handles or memory left, which says nothing about the file.

    Examples
    --------
    >>> read_bytes("no-such-file.png")
    Traceback (most recent call last):
        ...
    brainfeat.errors.ImageReadError: no-such-file.png: no such file
    """
    name = _name(path, name)
    try:
        _check_file(Path(path).stat(), name, byte_limit)  # opening a device may have effects
        with open(path, "rb", opener=_open_without_waiting) as file:
            status = os.fstat(file.fileno())
            _check_file(status, name, byte_limit)  # it may have been replaced in the meantime
            data = file.read(status.st_size + 1)
            if len(data) > status.st_size:  # it is growing
                data += file.read(byte_limit + 1 - len(data))
    except ImageReadError:
        raise
    except FileNotFoundError as error:
        raise ImageReadError(name, "no such file") from error
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        if error.errno in _SHORTAGES:
            raise BrainfeatError(
                f"{name}: {reason}; the image may be intact; raise the limit or pass a "
                "smaller n_jobs=N, and run again"
            ) from error
        raise ImageReadError(name, reason) from error
    except ValueError as error:  # a NUL in the path
        raise ImageReadError(name, "not a valid path") from error
    return _check_bytes(data, name, byte_limit)


def _open_without_waiting(path: str, flags: int) -> int:
    """Open a file without blocking, even if a pipe has taken its place."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _check_file(status: os.stat_result, name: str, byte_limit: int) -> None:
    if S_ISDIR(status.st_mode):
        raise ImageReadError(name, "a folder, not a file")
    if not S_ISREG(status.st_mode):
        raise ImageReadError(name, "not a regular file")
    if status.st_size > byte_limit:
        raise ImageReadError(name, _too_long(byte_limit))


def _check_bytes(data: bytes, name: str, byte_limit: int) -> bytes:
    if not data:
        raise ImageReadError(name, "empty file")
    if len(data) > byte_limit:
        raise ImageReadError(name, _too_long(byte_limit))
    return data


def _too_long(byte_limit: int) -> str:
    return f"more than the limit of {byte_limit:,} bytes"


def _name(source: str | os.PathLike[str] | BinaryIO, name: str | None) -> str:
    if name is not None:
        return name
    return os.fspath(source) if isinstance(source, (str, os.PathLike)) else "<bytes>"


def _read(source: str | os.PathLike[str] | BinaryIO, name: str) -> bytes:
    if isinstance(source, (str, os.PathLike)):
        return read_bytes(source, name=name)
    return _check_bytes(source.read(BYTE_LIMIT + 1), name, BYTE_LIMIT)


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
        data = source.getvalue() if isinstance(source, ImageBytes) else _read(source, name)
        kind = next((kind for kind, start in _SIGNATURES.items() if data.startswith(start)), None)
        if kind is None or kind not in formats:
            raise ImageReadError(name, f"not a {' or '.join(formats)} image")
        contents = _UNPACK[kind](data, name=name)
        if isinstance(source, ImageBytes):
            source.contents = contents
    header = contents.header
    if header.format not in formats:
        raise ImageReadError(name, f"not a {' or '.join(formats)} image")
    if (pixels := header.width * header.height) > pixel_limit:
        raise ImageReadError(
            name,
            f"{header.width:,} × {header.height:,} = {pixels:,} pixels, more than the limit of"
            f" {pixel_limit:,}",
        )
    return contents


@cache
def _plugins() -> "dict[str, type[ImageFile]]":
    from PIL.JpegImagePlugin import JpegImageFile
    from PIL.PngImagePlugin import PngImageFile

    return {"JPEG": JpegImageFile, "PNG": PngImageFile}


def _decode(contents: Contents, name: str) -> "Image":
    """Decode the pixels and rotate them upright."""
    kind = contents.header.format
    try:
        with _plugins()[kind](BytesIO(contents.stream)) as image:
            image.load()
            if kind == "PNG":
                _check_png(image, contents, name)
            return _turn_upright(image, contents.exif)
    except ImageReadError:
        raise
    except _DAMAGE as error:
        raise ImageReadError(name, _reason(kind, error)) from error


def _turn_upright(image: "Image", exif: bytes) -> "Image":
    from PIL.Image import Transpose

    method = _TRANSPOSITIONS.get(_orientation(exif))
    pixels = image if image.mode in ("RGB", "I;16") else image.convert("RGB")
    return pixels.transpose(Transpose[method]) if method else pixels


def _check_png(image: "Image", contents: Contents, name: str) -> None:
    """Reject what Pillow would invent: missing rows, and colours that the palette does not have."""
    last_rows = [(0, y, image.width, y + 1) for y in range(max(0, image.height - 2), image.height)]
    # Not image.crop(), which warns about sizes above Pillow's limit for the whole process.
    black = any(image.im.crop(row).getbbox(False) is None for row in last_rows)
    if black and not has_all_rows(contents):
        raise ImageReadError(name, "truncated")
    if contents.palette is not None and (highest := np.asarray(image).max()) >= contents.palette:
        reason = f"a pixel of colour {highest} in a palette of {contents.palette}"
        raise ImageReadError(name, f"a damaged or unsupported PNG image ({reason})")


def _orientation(exif: bytes) -> int:
    """Find the orientation in the first directory of an EXIF block; 1 if there is none.

    Pillow's own reader fails on, or warns about, damage in entries that do not matter here.
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


def convert_image(image: "Image", *, name: str) -> npt.NDArray[np.float32]:
    """Convert an image of Pillow as `read_image` does; it raises `ImageReadError` likewise."""
    try:
        image.load()
        return _to_unit(_turn_upright(image, image.info.get("exif", b"")))
    except _DAMAGE as error:
        raise ImageReadError(name, _reason(image.format or "Pillow", error)) from error


def _to_unit(image: "Image") -> npt.NDArray[np.float32]:
    """Scale the full range of the pixels' type to [0, 1]."""
    pixels = np.asarray(image)
    unit = pixels.astype(np.float32)
    unit /= np.iinfo(pixels.dtype).max
    return unit if unit.ndim == 3 else np.repeat(unit[:, :, np.newaxis], 3, axis=2)


def _reason(kind: str, error: BaseException) -> str:
    """Describe in a few words, on one line, why a file cannot be decoded."""
    if "truncated" in str(error).lower():
        return "truncated"
    words = " ".join(str(error).split()) or type(error).__name__
    return f"a damaged or unsupported {kind} image ({words[:120]})"
