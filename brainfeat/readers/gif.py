"""GIF files: their first picture, written anew without the others."""

import struct
from typing import NamedTuple

from brainfeat.errors import ImageReadError
from brainfeat.readers.containers import PART_LIMIT, Contents, ImageHeader, check_size, damaged

GIF_SIGNATURES = (b"GIF87a", b"GIF89a")
GIF_BYTE_LIMIT = 100_000_000  # the largest picture; each byte may be a block by itself

_EXTENSION, _PICTURE, _END = 0x21, 0x2C, 0x3B
_CONTROL = 0xF9  # the extension that says which colour is transparent
_TABLE, _INTERLACED = 0x80, 0x40


class _Picture(NamedTuple):
    """Where the first picture begins, and the colour that it shows as transparent."""

    place: int
    transparent: int | None


def unpack_gif(data: bytes, *, name: str) -> Contents:
    """Split a GIF file into its parts, and leave out all pictures after the first.

    Parameters
    ----------
    data : bytes
        The file, which starts with one of `GIF_SIGNATURES`.
    name : str
        Name of the image in error messages.

    Returns
    -------
    Contents

    Raises
    ------
    ImageReadError
        If the file has more than 100 million bytes, or ends before its last picture does; or if the
        first picture does not fill the screen that the file declares.
    """
    if len(data) > GIF_BYTE_LIMIT:
        raise ImageReadError(name, f"a GIF of more than {GIF_BYTE_LIMIT:,} bytes")
    try:
        width, height, flags = struct.unpack_from("<HHB", data, 6)
        table = _read_table(data, 13, flags)
        first = _find_picture(data, 13 + len(table), name)
        left, top, *size, flags = struct.unpack_from("<HHHHB", data, first.place + 1)
        check_size("GIF", name, *size)
        if (left, top, *size) != (0, 0, width, height):
            raise damaged(
                "GIF",
                name,
                f"a first picture of {size[0]:,} × {size[1]:,} at ({left:,}, {top:,}) on"
                f" {width:,} × {height:,} pixels",
            )
        own = _read_table(data, first.place + 10, flags)
        start = first.place + 10 + len(own)
        end = _skip_blocks(data, start + 1, name)
        _check_end(data, end, name)
    except (struct.error, IndexError) as error:
        raise ImageReadError(name, "truncated") from error
    table = own or table
    if not table:
        raise damaged("GIF", name, "it has no colours")
    pixels = struct.pack("<BHHHHB", _PICTURE, 0, 0, width, height, flags & _INTERLACED)
    screen = GIF_SIGNATURES[1] + struct.pack("<HHBBB", width, height, 0, 0, 0)
    return Contents(
        ImageHeader(width, height, 1, "GIF"),
        b"".join((screen, pixels, data[start:end], bytes([_END]))),
        colours=len(table) // 3,
        palette=table,
        transparent=first.transparent,
    )


def _read_table(data: bytes, place: int, flags: int) -> bytes:
    """Return the colours of the screen or of a picture; ``b""`` if it has none of its own."""
    size = 3 << (flags & 7) + 1 if flags & _TABLE else 0
    (table,) = struct.unpack_from(f"{size}s", data, place)
    return bytes(table)


def _find_picture(data: bytes, place: int, name: str) -> _Picture:
    transparent = None
    for _ in range(PART_LIMIT):
        kind = data[place]
        if kind == _PICTURE:
            return _Picture(place, transparent)
        if kind != _EXTENSION:
            reason = "it holds no picture" if kind == _END else f"a block of kind {kind:#x}"
            raise damaged("GIF", name, reason)
        if data[place + 1] == _CONTROL and data[place + 2] == 4:
            transparent = data[place + 6] if data[place + 3] & 1 else None
        place = _skip_blocks(data, place + 2, name)
    raise damaged("GIF", name, f"more than {PART_LIMIT:,} blocks")


def _check_end(data: bytes, place: int, name: str) -> None:
    """Reject a file that ends before its last picture does."""
    for _ in range(PART_LIMIT):
        kind = data[place]
        if kind == _END:
            return
        if kind == _PICTURE:
            place += 10 + len(_read_table(data, place + 10, data[place + 9])) + 1
        elif kind == _EXTENSION:
            place += 2
        else:
            raise damaged("GIF", name, f"a block of kind {kind:#x}")
        place = _skip_blocks(data, place, name)
    raise damaged("GIF", name, f"more than {PART_LIMIT:,} blocks")


def _skip_blocks(data: bytes, place: int, name: str) -> int:
    """Return where the blocks that begin at a place end; an empty one is the last."""
    while size := data[place]:
        place += 1 + size
        if place >= len(data):
            raise ImageReadError(name, "truncated")
    return place + 1


def add_background(stream: bytes, colour: int) -> bytes:
    r"""Return a stream of `unpack_gif` whose decoder first fills the screen with a colour.

    What such streams with two colours differ in is what the file has no pixels for.

    Examples
    --------
    >>> add_background(b"GIF89a-screen", 5)
    b'GIF89a-screen!\xf9\x04\x01\x00\x00\x05\x00'
    """
    return (
        stream[:13]
        + struct.pack("<BBBBHBB", _EXTENSION, _CONTROL, 4, 1, 0, colour, 0)
        + stream[13:]
    )
