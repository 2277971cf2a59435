"""Containers of PNG and JPEG images: their header, their EXIF block, and where they end.

The decoder is given only the parts of a file that make pixels. Text, colour profiles, thumbnails,
further images and data appended to the file are skipped without being unpacked.
"""

import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from brainfeat.errors import ImageReadError

PART_LIMIT = 100_000  # chunks or segments; 8 KiB of pixels in each fill the largest file
SCAN_LIMIT = 100  # of a progressive JPEG: each costs a pass over all pixels, and may be 10 bytes

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
JPEG_SIGNATURE = b"\xff\xd8\xff"

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
_SOI, _EOI, _SOS, _APP0, _APP1, _APP14, _COM = 0xD8, 0xD9, 0xDA, 0xE0, 0xE1, 0xEE, 0xFE
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # the other three are tables
_BARE = {0x01, *range(0xD0, 0xD8)}  # markers without a segment
_SKIPPED = {*range(_APP0, _APP0 + 16), _COM} - {_APP0, _APP14}  # these two define the colours
_MARKER = re.compile(rb"\xff[^\x00\xff]")
# Within a scan, 0xFF belongs to the pixels where 0 or a restart marker follows it.
_MARKER_AFTER_SCAN = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")


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
    format : {"JPEG", "PNG"}
        Determined by the content of the file.
    """

    width: int
    height: int
    channels: int
    format: str


@dataclass(frozen=True)
class Contents:
    """The parts of an image file.

    Parameters
    ----------
    header : ImageHeader
        Size, channels and format.
    stream : bytes
        A file of the same format and the same pixels, without metadata.
    exif : bytes
        The EXIF block; ``b""`` where there is none.
    palette : int or None
        Number of colours in the palette of a PNG file.
    row_bytes : int
        Number of bytes in the inflated rows of a PNG file.
    """

    header: ImageHeader
    stream: bytes
    exif: bytes
    palette: int | None = None
    row_bytes: int = 0


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
            raise _damaged("PNG", name, f"a palette of {len(palette):,} bytes before the pixels")
        needed.append((b"PLTE", palette))
    needed.append((b"IDAT", b"".join(body for _, body in chunks[start : start + number])))
    return Contents(
        ImageHeader(width, height, 4 if (depth, colour) == (16, 4) else _CHANNELS[colour], "PNG"),
        PNG_SIGNATURE + b"".join(_chunk(*part) for part in [*needed, (b"IEND", b"")]),
        bytes(bodies.get(b"eXIf", b"")),
        colours,
        _count_row_bytes(width, height, depth * _CHANNELS[colour], interlaced=interlaced),
    )


def has_all_rows(png: Contents) -> bool:
    """Return whether a PNG file has all bytes of its rows; Pillow leaves missing rows black."""
    palette = 0 if png.palette is None else 12 + 3 * png.palette
    pixels = memoryview(png.stream)[len(PNG_SIGNATURE) + 25 + palette + 8 : -16]
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
        raise _damaged("PNG", name, "it holds no pixels")
    if kinds[0] != b"IHDR" or kinds.count(b"IHDR") > 1:
        raise _damaged("PNG", name, "its first chunk, and no other, must be IHDR")
    if kinds.count(b"PLTE") > 1:
        raise _damaged("PNG", name, "it holds two palettes")
    if set(kinds[start : start + number]) != {b"IDAT"}:
        raise _damaged("PNG", name, "other chunks are between its pixels")
    if unknown := {kind for kind in kinds if kind[:1].isupper()} - _CRITICAL:
        raise _damaged("PNG", name, f"unknown critical chunk {min(unknown).decode()}")
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
            raise _damaged("PNG", name, f"invalid chunk type {kind!r}")
        if end + 4 > len(data):
            raise ImageReadError(name, "truncated")
        if zlib.crc32(view[place + 4 : end]) != int.from_bytes(view[end : end + 4]):
            raise _damaged("PNG", name, f"wrong checksum of its chunk {kind.decode()}")
        yield kind, view[place + 8 : end]
        if kind == b"IEND":
            return
        place = end + 4
    raise _damaged("PNG", name, f"more than {PART_LIMIT:,} chunks")


def _chunk(kind: bytes, body: bytes | memoryview) -> bytes:
    checksum = zlib.crc32(body, zlib.crc32(kind))
    return b"".join((struct.pack(">I4s", len(body), kind), body, struct.pack(">I", checksum)))


def _read_header(header: bytes, name: str) -> tuple[int, int, int, int, bool]:
    """Read width, height, bit depth, colour type and interlacing; reject invalid ones."""
    if len(header) != 13:
        raise _damaged("PNG", name, f"a header of {len(header):,} bytes")
    width, height, depth, colour, *methods = struct.unpack(">IIBBBBB", header)
    if not (width and height):
        raise _damaged("PNG", name, f"{width:,} × {height:,} pixels")
    if depth not in _DEPTHS.get(colour, ()):
        raise _damaged("PNG", name, f"bit depth {depth} with colour type {colour}")
    if methods not in ([0, 0, 0], [0, 0, 1]):
        compression, prediction, interlace = methods
        raise _damaged(
            "PNG", name, f"compression {compression}, filter {prediction}, interlace {interlace}"
        )
    return width, height, depth, colour, bool(methods[2])


def unpack_jpeg(data: bytes, *, name: str) -> Contents:
    """Split the first image of a JPEG file into its parts.

    Parameters
    ----------
    data : bytes
        The file, which starts with `JPEG_SIGNATURE`.
    name : str
        Name of the image in error messages.

    Returns
    -------
    Contents

    Raises
    ------
    ImageReadError
        If the file ends before the image does, has no frame or no pixels, or has too many scans.
    """
    header, exif = None, b""
    kept: list[memoryview] = [memoryview(data)[:2]]
    scans = 0
    for marker, body, part in _segments(data, name):
        if marker in _FRAMES:
            if header:
                raise _damaged("JPEG", name, "it holds two frames")
            header = _read_frame(body, name)
        elif marker == _SOS:
            scans += 1
            if not header or scans > SCAN_LIMIT:
                raise _damaged(
                    "JPEG", name, f"more than {SCAN_LIMIT} scans" if header else "no frame header"
                )
        elif marker == _APP1 and bytes(body[:6]) == b"Exif\0\0":
            exif = exif or bytes(body)
        if marker not in _SKIPPED:
            kept.append(part)
    if not header or not scans:
        raise _damaged("JPEG", name, "it holds no pixels")
    return Contents(header, b"".join(kept), exif)


def _segments(data: bytes, name: str) -> Iterator[tuple[int, memoryview, memoryview]]:
    """Yield the marker of each segment, its body, and the segment with any pixels after it."""
    view = memoryview(data)
    place, expected = 2, _MARKER
    for _ in range(PART_LIMIT):
        found = expected.search(data, place)
        if not found:
            raise ImageReadError(name, "truncated")
        marker, start, place = data[found.end() - 1], found.start(), found.end()
        if marker in _BARE:
            continue
        if marker == _EOI:
            yield marker, view[:0], view[start:place]
            return
        if place + 2 > len(data):
            raise ImageReadError(name, "truncated")
        end = place + int.from_bytes(view[place : place + 2])
        if end < place + 2 or marker == _SOI:
            raise _damaged("JPEG", name, f"no segment can follow the marker {marker:#x}")
        if end > len(data):
            raise ImageReadError(name, "truncated")
        body, place = view[place + 2 : end], end
        if marker == _SOS:
            expected = _MARKER_AFTER_SCAN
            after = expected.search(data, end)
            place = after.start() if after else len(data)
        yield marker, body, view[start:place]
    raise _damaged("JPEG", name, f"more than {PART_LIMIT:,} segments")


def _read_frame(body: memoryview, name: str) -> ImageHeader:
    if len(body) < 6:
        raise _damaged("JPEG", name, f"a frame header of {len(body)} bytes")
    _, height, width, channels = struct.unpack_from(">BHHB", body)
    if not (width and height):
        raise _damaged("JPEG", name, f"{width:,} × {height:,} pixels")
    return ImageHeader(width, height, channels, "JPEG")


def _damaged(kind: str, name: str, reason: str) -> ImageReadError:
    return ImageReadError(name, f"a damaged or unsupported {kind} image ({reason})")
