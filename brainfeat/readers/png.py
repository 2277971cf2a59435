"""PNG files: their chunks, checked and reduced to those that make pixels."""

import struct
import zlib
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

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"

_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by the colour type of PNG
_DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
_PASSES = (  # of an interlaced PNG: where each begins, and its steps
    (0, 0, 8, 8),
    (4, 0, 8, 8),
    (0, 4, 4, 8),
    (2, 0, 4, 4),
    (0, 2, 2, 4),
    (1, 0, 2, 2),
    (0, 1, 1, 2),
)
_BYTES_AT_ONCE = 65_536
_CRITICAL = {b"IHDR", b"PLTE", b"IDAT", b"IEND"}


def unpack_png(data: bytes, *, name: str) -> Contents:
    """Split a PNG file into its parts.

    Parameters
    ----------
    data : bytes
        The file, which starts with `PNG_SIGNATURE`.
    name : str
        Name of the image in error messages.

    Returns
    -------
    Contents

    Raises
    ------
    ImageReadError
        If a checksum is wrong; if a chunk is missing, misplaced, or critical and unknown; if the
        header violates the standard; or if the file is animated.
    """
    chunks = list(_chunks(data, name))
    kinds = [kind for kind, _ in chunks]
    start, number = _find_pixels(kinds, name)
    bodies = dict(reversed(chunks))  # the first of each kind
    width, height, depth, colour, interlaced = _read_header(bytes(bodies[b"IHDR"]), name)
    needed: list[tuple[bytes, bytes | memoryview]] = [(b"IHDR", bodies[b"IHDR"])]
    colours = None
    if colour == 3:
        palette = bytes(bodies.get(b"PLTE", b""))
        colours, rest = divmod(len(palette), 3)
        if rest or not 1 <= colours <= 256 or b"PLTE" not in kinds[:start]:
            raise damaged("PNG", name, f"a palette of {len(palette):,} bytes before the pixels")
        needed.append((b"PLTE", palette))
        if b"tRNS" in kinds[:start] and len(bodies[b"tRNS"]) <= colours:
            needed.append((b"tRNS", bodies[b"tRNS"]))
    parts = [_chunk(*part) for part in needed]
    pixels = _chunk(b"IDAT", b"".join(body for _, body in chunks[start : start + number]))
    channels = 4 if (depth, colour) == (16, 4) else _CHANNELS[colour]
    return Contents(
        ImageHeader(width, height, channels, "PNG", 16 if depth == 16 else 8),
        b"".join((PNG_SIGNATURE, *parts, pixels, _chunk(b"IEND", b""))),
        read_orientation(bytes(bodies.get(b"eXIf", b""))),
        colours,
        row_bytes=_count_row_bytes(width, height, depth * _CHANNELS[colour], interlaced=interlaced),
        pixel_place=len(PNG_SIGNATURE) + sum(map(len, parts)) + 8,
    )


def has_all_rows(png: Contents) -> bool:
    """Return whether a PNG file has all bytes of its rows; Pillow leaves missing rows black."""
    pixels = memoryview(png.stream)[png.pixel_place : -16]
    inflater = zlib.decompressobj()
    count = 0
    for place in range(0, len(pixels), _BYTES_AT_ONCE):
        left = bytes(pixels[place : place + _BYTES_AT_ONCE])
        while left and count < png.row_bytes and not inflater.eof:
            count += len(inflater.decompress(left, _BYTES_AT_ONCE))
            left = inflater.unconsumed_tail
        if inflater.eof:
            break
    return count >= png.row_bytes


def _count_row_bytes(width: int, height: int, bits: int, *, interlaced: bool) -> int:
    """Count the bytes of all rows, including the filter byte of each row."""
    count = 0
    for x, y, dx, dy in _PASSES if interlaced else [(0, 0, 1, 1)]:
        columns, rows = -((x - width) // dx), -((y - height) // dy)
        count += rows * (1 + (columns * bits + 7) // 8) if columns > 0 else 0
    return count


def _find_pixels(kinds: list[bytes], name: str) -> tuple[int, int]:
    """Find the index of the first pixel chunk and their count; reject an invalid order."""
    number = kinds.count(b"IDAT")
    start = kinds.index(b"IDAT") if number else len(kinds)
    if b"acTL" in kinds[:start]:  # it has no meaning after the pixels
        raise ImageReadError(name, "an animated PNG: it holds several images")
    if not number:
        raise damaged("PNG", name, "it holds no pixels")
    if kinds[0] != b"IHDR" or kinds.count(b"IHDR") > 1:
        raise damaged("PNG", name, "its first chunk, and no other, must be IHDR")
    if kinds.count(b"PLTE") > 1:
        raise damaged("PNG", name, "it holds two palettes")
    if set(kinds[start : start + number]) != {b"IDAT"}:
        raise damaged("PNG", name, "other chunks are between its pixels")
    if unknown := {kind for kind in kinds if kind[:1].isupper()} - _CRITICAL:
        raise damaged("PNG", name, f"unknown critical chunk {min(unknown).decode()}")
    return start, number


def _chunks(data: bytes, name: str) -> Iterator[tuple[bytes, memoryview]]:
    """Yield the type and the body of each chunk, up to the end of the image."""
    view = memoryview(data)
    place = len(PNG_SIGNATURE)
    for _ in range(PART_LIMIT):
        if place + 12 > len(data):
            raise ImageReadError(name, "truncated")
        length, kind = struct.unpack_from(">I4s", data, place)
        end = place + 8 + length
        if not kind.isalpha():
            raise damaged("PNG", name, f"invalid chunk type {kind!r}")
        if end + 4 > len(data):
            raise ImageReadError(name, "truncated")
        if zlib.crc32(view[place + 4 : end]) != int.from_bytes(view[end : end + 4]):
            raise damaged("PNG", name, f"wrong checksum of its chunk {kind.decode()}")
        yield kind, view[place + 8 : end]
        if kind == b"IEND":
            return
        place = end + 4
    raise damaged("PNG", name, f"more than {PART_LIMIT:,} chunks")


def _chunk(kind: bytes, body: bytes | memoryview) -> bytes:
    checksum = zlib.crc32(body, zlib.crc32(kind))
    return b"".join((struct.pack(">I4s", len(body), kind), body, struct.pack(">I", checksum)))


def _read_header(header: bytes, name: str) -> tuple[int, int, int, int, bool]:
    """Read width, height, bit depth, colour type and interlacing; reject invalid ones."""
    if len(header) != 13:
        raise damaged("PNG", name, f"a header of {len(header):,} bytes")
    width, height, depth, colour, *methods = struct.unpack(">IIBBBBB", header)
    check_size("PNG", name, width, height)
    if depth not in _DEPTHS.get(colour, ()):
        raise damaged("PNG", name, f"bit depth {depth} with colour type {colour}")
    if methods not in ([0, 0, 0], [0, 0, 1]):
        compression, prediction, interlace = methods
        raise damaged(
            "PNG", name, f"compression {compression}, filter {prediction}, interlace {interlace}"
        )
    return width, height, depth, colour, bool(methods[2])
