"""WebP files: their one picture with its alpha, without metadata."""

import struct
from collections.abc import Iterator

from brainfeat.errors import ImageReadError
from brainfeat.readers.containers import (
    PART_LIMIT,
    Contents,
    ImageHeader,
    check_size,
    damaged,
    read_orientation,
)

_LOSSY, _LOSSLESS = b"VP8 ", b"VP8L"
_ALPHA = b"ALPH"  # codespell:ignore
_ALPHA_FLAG, _ANIMATION_FLAG = 0x10, 0x02
_LOSSY_START, _LOSSLESS_START = b"\x9d\x01\x2a", 0x2F


def is_webp(data: bytes) -> bool:
    r"""Return whether a file starts as WebP files do.

    Examples
    --------
    >>> is_webp(b"RIFF\0\0\0\0WEBPVP8 "), is_webp(b"RIFF\0\0\0\0WAVE")
    (True, False)
    """
    return data[:4] == b"RIFF" and data[8:12] == b"WEBP"


def unpack_webp(data: bytes, *, name: str) -> Contents:
    """Split a WebP file into its parts.

    Parameters
    ----------
    data : bytes
        The file, of which `is_webp` is true.
    name : str
        Name of the image in error messages.

    Returns
    -------
    Contents

    Raises
    ------
    ImageReadError
        If the file is animated, has no picture or several, or ends before its length says; or if
        the sizes that it states differ.
    """
    chunks = list(_chunks(data, name))
    bodies = dict(reversed(chunks))  # the first of each kind
    extended = bodies.get(b"VP8X")
    if extended is not None and len(extended) < 10:
        raise damaged("WebP", name, f"a header of {len(extended)} bytes")
    if b"ANIM" in bodies or b"ANMF" in bodies or (extended and extended[0] & _ANIMATION_FLAG):
        raise ImageReadError(name, "an animated WebP: it holds several images")
    pictures = [(kind, body) for kind, body in chunks if kind in (_LOSSY, _LOSSLESS)]
    if len(pictures) != 1:
        raise damaged("WebP", name, f"it holds {len(pictures)} pictures")
    (kind, body), alpha = pictures[0], bodies.get(_ALPHA) if extended else None
    width, height, has_alpha = _read_size(kind, body, name)
    check_size("WebP", name, width, height)
    parts = [_chunk(kind, body)]
    if kind == _LOSSY and alpha is not None:
        has_alpha = True
        head = struct.pack("<BxxxHBHB", _ALPHA_FLAG, *_split(width), *_split(height))
        parts = [_chunk(b"VP8X", head), _chunk(_ALPHA, alpha), *parts]
    if extended and (width, height) != (_join(extended[4:7]), _join(extended[7:10])):
        raise damaged("WebP", name, f"a picture of {width:,} × {height:,} on another size")
    rest = b"WEBP" + b"".join(parts)
    return Contents(
        ImageHeader(width, height, 4 if has_alpha else 3, "WebP"),
        b"RIFF" + struct.pack("<I", len(rest)) + rest,
        read_orientation(bytes(bodies.get(b"EXIF", b""))),
    )


def _chunks(data: bytes, name: str) -> Iterator[tuple[bytes, memoryview]]:
    """Yield the name and the body of each chunk, up to the length that the file states."""
    view, end = memoryview(data), 8 + int.from_bytes(data[4:8], "little")
    if end > len(data) or end < 20:
        raise ImageReadError(name, "truncated")
    place = 12
    for _ in range(PART_LIMIT):
        if place + 8 > end:
            return
        kind, size = struct.unpack_from("<4sI", data, place)
        if place + 8 + size > end:
            raise ImageReadError(name, "truncated")
        yield kind, view[place + 8 : place + 8 + size]
        place += 8 + size + size % 2
    raise damaged("WebP", name, f"more than {PART_LIMIT:,} chunks")


def _read_size(kind: bytes, body: memoryview, name: str) -> tuple[int, int, bool]:
    """Read width and height of a picture, and whether a lossless one has alpha."""
    if kind == _LOSSY:
        if len(body) < 10 or bytes(body[3:6]) != _LOSSY_START:
            raise damaged("WebP", name, "no start of a picture")
        width, height = struct.unpack_from("<HH", body, 6)
        return width & 0x3FFF, height & 0x3FFF, False
    if len(body) < 5 or body[0] != _LOSSLESS_START:
        raise damaged("WebP", name, "no start of a picture")
    (bits,) = struct.unpack_from("<I", body, 1)
    return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1, bool(bits >> 28 & 1)


def _chunk(kind: bytes, body: bytes | memoryview) -> bytes:
    return b"".join((kind, struct.pack("<I", len(body)), body, bytes(len(body) % 2)))


def _split(side: int) -> tuple[int, int]:
    return (side - 1) & 0xFFFF, (side - 1) >> 16


def _join(stored: memoryview) -> int:
    return int.from_bytes(stored, "little") + 1
