"""JPEG files: their segments up to the end of the first image, without metadata."""

import re
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

SCAN_LIMIT = 100  # of a progressive JPEG: each costs a pass over all pixels, and may be 10 bytes
JPEG_SIGNATURE = b"\xff\xd8\xff"

_SOI, _EOI, _SOS, _APP0, _APP1, _APP14, _COM = 0xD8, 0xD9, 0xDA, 0xE0, 0xE1, 0xEE, 0xFE
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # the other three are tables
_BARE = {0x01, *range(0xD0, 0xD8)}  # markers without a segment
_SKIPPED = {*range(_APP0, _APP0 + 16), _COM} - {_APP0, _APP14}  # these two define the colours
_MARKER = re.compile(rb"\xff[^\x00\xff]")
# Within a scan, 0xFF belongs to the pixels where 0 or a restart marker follows it.
_MARKER_AFTER_SCAN = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")


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
                raise damaged("JPEG", name, "it holds two frames")
            header = _read_frame(body, name)
        elif marker == _SOS:
            scans += 1
            if not header or scans > SCAN_LIMIT:
                raise damaged(
                    "JPEG", name, f"more than {SCAN_LIMIT} scans" if header else "no frame header"
                )
        elif marker == _APP1 and bytes(body[:6]) == b"Exif\0\0":
            exif = exif or bytes(body)
        if marker not in _SKIPPED:
            kept.append(part)
    if not header or not scans:
        raise damaged("JPEG", name, "it holds no pixels")
    return Contents(header, b"".join(kept), read_orientation(exif))


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
            raise damaged("JPEG", name, f"no segment can follow the marker {marker:#x}")
        if end > len(data):
            raise ImageReadError(name, "truncated")
        body, place = view[place + 2 : end], end
        if marker == _SOS:
            expected = _MARKER_AFTER_SCAN
            after = expected.search(data, end)
            place = after.start() if after else len(data)
        yield marker, body, view[start:place]
    raise damaged("JPEG", name, f"more than {PART_LIMIT:,} segments")


def _read_frame(body: memoryview, name: str) -> ImageHeader:
    if len(body) < 6:
        raise damaged("JPEG", name, f"a frame header of {len(body)} bytes")
    _, height, width, channels = struct.unpack_from(">BHHB", body)
    check_size("JPEG", name, width, height)
    return ImageHeader(width, height, channels, "JPEG")
