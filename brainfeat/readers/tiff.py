"""TIFF files: one page of whole numbers, checked and written anew with nothing but its pixels.

Tags are those of TIFF 6.0 (Adobe, 1992); BigTIFF has the same ones at 64-bit offsets.
"""

import math
import struct
from collections.abc import Collection, Iterator, Sequence
from typing import NamedTuple

from brainfeat.errors import ImageReadError
from brainfeat.readers.containers import (
    PART_LIMIT,
    Contents,
    ImageHeader,
    check_size,
    damaged,
)

TIFF_SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
PAGE_LIMIT = 100  # directories that are looked at; thumbnails count
TAG_LIMIT = 65_535  # of a directory, as TIFF has it; BigTIFF could have a file full of them
TILE_LIMIT = 4096 * 4096  # pixels of a tile, which is decoded as a whole however small the image

_SUBFILE, _OLD_SUBFILE, _WIDTH, _HEIGHT, _BITS, _COMPRESSION = 254, 255, 256, 257, 258, 259
_PHOTOMETRIC, _FILL_ORDER, _STRIP_PLACES, _ORIENTATION = 262, 266, 273, 274
_SAMPLES, _STRIP_ROWS, _STRIP_SIZES, _PLANES, _PREDICTOR = 277, 278, 279, 284, 317
_PALETTE, _TILE_WIDTH, _TILE_HEIGHT, _TILE_PLACES, _TILE_SIZES = 320, 322, 323, 324, 325
_EXTRA, _FORMAT = 338, 339
_SUBFILE_TAGS = frozenset((_SUBFILE, _OLD_SUBFILE))
_PAGE_TAGS = frozenset(
    (*range(256, 260), 262, 266, 273, 274, 277, 278, 279, 284, 317, 320, *range(322, 326), 338, 339)
)
_COPIED = (_COMPRESSION, _FILL_ORDER, _SAMPLES, _PREDICTOR, _PALETTE, _EXTRA)

_TYPES = {1: "B", 3: "H", 4: "I", 16: "Q"}
_COMPRESSIONS = (1, 5, 8, 32773, 32946)  # none, LZW, Deflate, PackBits, Deflate by its old number
_NAMES = {2: "CCITT", 3: "CCITT", 4: "CCITT", 6: "JPEG", 7: "JPEG", 34712: "JPEG 2000"}
_COLOURS = {0: 1, 1: 1, 2: 3, 3: 1, 5: 4}  # channels: grey twice, RGB, palette, CMYK
_OTHER_COLOURS = {6: "YCbCr", 8: "Lab", 9: "Lab", 10: "Lab"}
_FORMATS = {2: "signed integers", 3: "floating-point numbers"}

_Tags = dict[int, tuple[int, ...]]


class _Form(NamedTuple):
    """How a directory is written: in TIFF, or in BigTIFF."""

    order: str
    number: str
    place: str
    entry: int

    def read(self, kind: str, data: bytes, place: int) -> int:
        return int(struct.unpack_from(self.order + kind, data, place)[0])


class _Grid(NamedTuple):
    """The strips or tiles of a page: their sizes in pixels, and how many each plane has."""

    width: int
    height: int
    number: int
    tags: tuple[int, int]


def unpack_tiff(data: bytes, *, name: str) -> Contents:
    """Split a TIFF file into its parts.

    Pages that are smaller versions of another one, such as thumbnails, and transparency masks are
    left out.

    Parameters
    ----------
    data : bytes
        The file, which starts with one of `TIFF_SIGNATURES`.
    name : str
        Name of the image in error messages.

    Returns
    -------
    Contents

    Raises
    ------
    ImageReadError
        If the file has several pages, or values other than whole numbers from 0 in 1 to 16 bits;
        if its compression or its colours are not read; or if its strips or tiles are not all in the
        file.
    """
    order = "<" if data[:1] == b"I" else ">"
    large = data[2:4] in (b"+\0", b"\0+")
    form = _Form(order, "Q" if large else "H", "Q" if large else "I", 20 if large else 12)
    try:
        page = _find_page(data, form, name)
        return _unpack_page(page, data, form, name)
    except (struct.error, OverflowError) as error:  # a place that is beyond the end
        raise ImageReadError(name, "truncated") from error


def _find_page(data: bytes, form: _Form, name: str) -> _Tags:
    """Find the one page that is no smaller version of another and no mask."""
    pages = []
    for place in _list_directories(data, form, name):
        kind = _read_tags(data, form, place, _SUBFILE_TAGS, name)
        smaller = kind.get(_SUBFILE, (0,))[0] & 0b101 or kind.get(_OLD_SUBFILE) == (2,)
        if not smaller:
            pages.append(place)
        if len(pages) > 1:
            raise ImageReadError(name, "a TIFF of several pages; save each page as a file")
    if not pages:
        raise damaged("TIFF", name, "it holds no page at full size")
    return _read_tags(data, form, pages[0], _PAGE_TAGS, name)


def _list_directories(data: bytes, form: _Form, name: str) -> Iterator[int]:
    place = form.read(form.place, data, 8 if form.place == "Q" else 4)
    seen: set[int] = set()
    while place:
        if place in seen or len(seen) == PAGE_LIMIT:
            reason = "a loop of" if place in seen else f"more than {PAGE_LIMIT:,}"
            raise damaged("TIFF", name, f"{reason} directories")
        seen.add(place)
        yield place
        number = form.read(form.number, data, place)
        start = place + struct.calcsize("<" + form.number)
        place = form.read(form.place, data, start + number * form.entry)


def _read_tags(data: bytes, form: _Form, place: int, wanted: Collection[int], name: str) -> _Tags:
    """Read the values of some tags of a directory; the first of each counts."""
    number = form.read(form.number, data, place)
    start = place + struct.calcsize("<" + form.number)
    tags: _Tags = {}
    if start + number * form.entry > len(data):
        raise ImageReadError(name, "truncated")
    if number > TAG_LIMIT:
        raise damaged("TIFF", name, f"a directory of {number:,} tags")
    for entry in range(start, start + number * form.entry, form.entry):
        tag, kind = struct.unpack_from(f"{form.order}HH", data, entry)
        if tag not in wanted or tag in tags:
            continue
        if kind not in _TYPES:
            raise damaged("TIFF", name, f"tag {tag} is of type {kind}")
        count = form.read(form.place, data, entry + 4)
        if not 1 <= count <= PART_LIMIT:
            raise damaged("TIFF", name, f"{count:,} values of tag {tag}")
        values = f"{form.order}{count}{_TYPES[kind]}"
        width = struct.calcsize("<" + form.place)
        inline = struct.calcsize(values) <= width
        first = entry + 4 + width if inline else form.read(form.place, data, entry + 4 + width)
        tags[tag] = struct.unpack_from(values, data, first)
    return tags


def _unpack_page(page: _Tags, data: bytes, form: _Form, name: str) -> Contents:
    width, height = _one(page, _WIDTH, 0, name), _one(page, _HEIGHT, 0, name)
    check_size("TIFF", name, width, height)
    bits, samples = _check_samples(page, name)
    photometric = _check_colours(page, bits, samples, name)
    planes = _count_planes(page, bits, samples, name)
    grid = _measure_grid(page, width, height, name)
    parts: Sequence[bytes | memoryview] = _list_parts(page, grid, planes, data, name)
    if _one(page, _COMPRESSION, 1, name) == 1:
        parts = _cut_parts(parts, grid, height, bits * samples // planes, name)
        if grid.tags[0] == _STRIP_PLACES:  # one strip a plane, so that none is decoded by itself
            number = grid.number
            parts = [b"".join(parts[i : i + number]) for i in range(0, len(parts), number)]
            grid = grid._replace(height=height)
    inverted = photometric == 0 and bits == 16  # Pillow inverts what has fewer bits
    tags = {tag: page[tag] for tag in _COPIED if tag in page}
    tags |= {
        _WIDTH: (width,),
        _HEIGHT: (height,),
        _BITS: (bits,) * samples,
        _PHOTOMETRIC: (1,) if inverted else (photometric,),
        _PLANES: (1,) if planes == 1 else (2,),
    }
    if photometric == 3 and max(tags[_PALETTE]) < 256:  # of 8 bits, as old programs write it
        tags[_PALETTE] = tuple(257 * value for value in tags[_PALETTE])
    return Contents(
        ImageHeader(width, height, min(samples, 4), "TIFF", 16 if bits == 16 else 8),
        _write(form.order, tags, grid, parts),
        _one(page, _ORIENTATION, 1, name),
        inverted=inverted,
    )


def _count_planes(page: _Tags, bits: int, samples: int, name: str) -> int:
    """Return 1 where the samples of a pixel lie together, or else the number of samples."""
    planes, filled = _one(page, _PLANES, 1, name), _one(page, _FILL_ORDER, 1, name)
    compressed = _one(page, _COMPRESSION, 1, name) != 1
    if planes not in (1, 2) or filled not in (1, 2) or (compressed and filled == 2):
        raise damaged("TIFF", name, f"planar configuration {planes}, fill order {filled}")
    if planes == 1 or samples == 1:
        return 1
    if bits == 16 and filled == 1:
        raise ImageReadError(
            name, "a TIFF of 16-bit colours in planes; save each pixel's colours together"
        )
    if bits != 8 or filled == 2:
        raise damaged("TIFF", name, f"planes of {bits} bits, fill order {filled}")
    return samples


def _one(page: _Tags, tag: int, default: int, name: str) -> int:
    """Return the value of a tag that has one."""
    values = page.get(tag, (default,))
    if len(values) > 1:
        raise damaged("TIFF", name, f"{len(values):,} values of tag {tag}")
    return values[0]


def _check_samples(page: _Tags, name: str) -> tuple[int, int]:
    """Return the bits of each sample and the samples of each pixel."""
    for number in page.get(_FORMAT, (1,)):
        if number in _FORMATS:
            raise ImageReadError(
                name,
                f"a TIFF of {_FORMATS[number]}, whose black and white are not known; convert it to"
                " whole numbers of 8 or 16 bits",
            )
        if number != 1:
            raise damaged("TIFF", name, f"sample format {number}")
    samples = _one(page, _SAMPLES, 1, name)
    depths = set(page.get(_BITS, (1,)))
    if depths & {32, 64}:
        raise ImageReadError(
            name,
            f"a TIFF of {max(depths)}-bit integers, whose white is not known; convert it to 8 or 16"
            " bits",
        )
    if len(depths) > 1 or not depths <= {1, 2, 4, 8, 16} or not 1 <= samples <= 6:
        raise damaged("TIFF", name, f"{samples:,} samples of {_join(depths)} bits")
    return depths.pop(), samples


def _check_colours(page: _Tags, bits: int, samples: int, name: str) -> int:
    """Return how samples become colours; reject what is not read."""
    compression = _one(page, _COMPRESSION, 1, name)
    if compression not in _COMPRESSIONS:
        raise ImageReadError(
            name,
            f"a TIFF with {_NAMES.get(compression, f'compression {compression}')}"
            f"{' compression' * (compression in _NAMES)}; save it with LZW or Deflate, or without"
            " compression",
        )
    if (predictor := _one(page, _PREDICTOR, 1, name)) not in (1, 2):
        raise damaged("TIFF", name, f"predictor {predictor}")
    photometric = _one(page, _PHOTOMETRIC, -1, name)
    if other := _OTHER_COLOURS.get(photometric):
        raise ImageReadError(name, f"a TIFF of {other} colours; save it as RGB")
    channels = _COLOURS.get(photometric)
    if channels is None or samples < channels:
        raise damaged("TIFF", name, f"colours of kind {photometric} with {samples} samples")
    if photometric == 3 and len(page.get(_PALETTE, ())) != 3 << bits:
        raise damaged("TIFF", name, f"a palette of {len(page.get(_PALETTE, ())):,} values")
    return photometric


def _measure_grid(page: _Tags, width: int, height: int, name: str) -> _Grid:
    """Measure the strips or tiles that the page is divided into."""
    if _TILE_PLACES not in page:
        rows = min(_one(page, _STRIP_ROWS, height, name), height)
        if not rows:
            raise damaged("TIFF", name, "strips of 0 rows")
        return _Grid(width, rows, math.ceil(height / rows), (_STRIP_PLACES, _STRIP_SIZES))
    sides = _one(page, _TILE_WIDTH, 0, name), _one(page, _TILE_HEIGHT, 0, name)
    if any(not side or side % 16 for side in sides) or math.prod(sides) > TILE_LIMIT:
        raise damaged("TIFF", name, f"tiles of {sides[0]:,} × {sides[1]:,} pixels")
    number = math.ceil(width / sides[0]) * math.ceil(height / sides[1])
    return _Grid(*sides, number, (_TILE_PLACES, _TILE_SIZES))


def _list_parts(page: _Tags, grid: _Grid, planes: int, data: bytes, name: str) -> list[memoryview]:
    """Return the strips or tiles, each of which must be in the file."""
    places, sizes = (page.get(tag, ()) for tag in grid.tags)
    number = grid.number * planes
    if number > PART_LIMIT or min(len(places), len(sizes)) < number:
        raise damaged(
            "TIFF", name, f"{min(len(places), len(sizes)):,} of {number:,} strips or tiles"
        )
    view = memoryview(data)
    pairs = list(zip(places[:number], sizes[:number], strict=True))
    if any(not size or place + size > len(data) for place, size in pairs):
        raise ImageReadError(name, "truncated")
    if sum(size for _, size in pairs) > len(data):  # copies of one part would fill the memory
        raise damaged("TIFF", name, "strips or tiles that overlap")
    return [view[place : place + size] for place, size in pairs]


def _cut_parts(
    parts: Sequence[bytes | memoryview], grid: _Grid, height: int, bits: int, name: str
) -> list[bytes | memoryview]:
    """Return as much of each strip or tile as its pixels take where they are not compressed."""
    stride = (grid.width * bits + 7) // 8
    rows = [grid.height] * len(parts)
    if grid.tags[0] == _STRIP_PLACES:
        left = height - (grid.number - 1) * grid.height
        rows = [
            left if i % grid.number == grid.number - 1 else grid.height for i in range(len(rows))
        ]
    if any(len(part) < stride * n for part, n in zip(parts, rows, strict=True)):
        raise ImageReadError(name, "truncated")
    return [part[: stride * n] for part, n in zip(parts, rows, strict=True)]


def _write(order: str, tags: _Tags, grid: _Grid, parts: Sequence[bytes | memoryview]) -> bytes:
    """Write a TIFF file of one page with these tags and parts alone."""
    body: list[bytes | memoryview] = []
    places, place = [], 8
    for part in parts:
        places.append(place)
        body.append(part)
        place += len(part)
    tags[grid.tags[0]], tags[grid.tags[1]] = tuple(places), tuple(map(len, parts))
    if grid.tags[0] == _STRIP_PLACES:
        tags[_STRIP_ROWS] = (grid.height,)
    else:
        tags[_TILE_WIDTH], tags[_TILE_HEIGHT] = (grid.width,), (grid.height,)
    entries = []
    for tag, values in sorted(tags.items()):
        short = max(values) < 1 << 16 and tag not in grid.tags
        packed = struct.pack(f"{order}{len(values)}{'H' if short else 'I'}", *values)
        head = struct.pack(f"{order}HHI", tag, 3 if short else 4, len(values))
        if len(packed) > 4:
            body.append(packed)
            packed, place = struct.pack(f"{order}I", place), place + len(packed)
        entries.append(head + packed.ljust(4, b"\0"))
    start = struct.pack(f"{order}2sHI", b"II" if order == "<" else b"MM", 42, place)
    return b"".join((start, *body, struct.pack(f"{order}H", len(entries)), *entries, bytes(4)))


def _join(numbers: Collection[int]) -> str:
    return " and ".join(map(str, sorted(numbers)))
