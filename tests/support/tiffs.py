"""TIFF files for tests, written tag by tag, so that any property can be chosen or damaged."""

import struct
import zlib
from collections.abc import Sequence

import numpy as np

_TYPES = {1: "B", 3: "H", 4: "I", 12: "d", 16: "Q"}


def pack_samples(pixels: np.ndarray, bits: int, order: str = "<") -> bytes:
    """Pack rows of whole samples, each row from a whole byte on."""
    rows = pixels.reshape(len(pixels), -1)
    if bits < 8:
        places = np.unpackbits(rows.astype(np.uint8)[..., None], axis=-1)[..., 8 - bits :]
        return np.packbits(places.reshape(len(rows), -1), axis=1).tobytes()
    return rows.astype(f"{order}u{bits // 8}").tobytes()


def pack_bits(data: bytes) -> bytes:
    """Compress by PackBits, as runs of literal bytes alone."""
    runs = [data[i : i + 128] for i in range(0, len(data), 128)]
    return b"".join(bytes([len(run) - 1]) + run for run in runs)


def make_tiff(
    pixels: np.ndarray,
    bits: int = 8,
    photometric: int | None = None,
    *,
    order: str = "<",
    compression: int = 1,
    rows: int | None = None,
    tile: int | None = None,
    planar: bool = False,
    large: bool = False,
    parts: Sequence[bytes] | None = None,
    more: dict[int, tuple[int, ...]] | None = None,
) -> bytes:
    """Write an image of shape (h, w) or (h, w, samples) as a TIFF file of one page.

    `more` sets further tags or others, as values of type SHORT or, where they are larger, LONG; a
    tag that is set to ``()`` is left out.
    """
    height, width = pixels.shape[:2]
    samples = pixels.shape[2] if pixels.ndim == 3 else 1
    planes = [pixels[..., i] for i in range(samples)] if planar else [pixels]
    pack = {1: bytes, 8: zlib.compress, 32946: zlib.compress, 32773: pack_bits}.get(
        compression, bytes
    )
    if parts is None and tile:
        parts = []
        for plane in planes:
            for y in range(0, height, tile):
                for x in range(0, width, tile):
                    whole = np.zeros((tile, tile, *plane.shape[2:]), pixels.dtype)
                    cut = plane[y : y + tile, x : x + tile]
                    whole[: len(cut), : cut.shape[1]] = cut
                    parts.append(pack(pack_samples(whole, bits, order)))
    elif parts is None:
        step = rows or height
        parts = [
            pack(pack_samples(plane[y : y + step], bits, order))
            for plane in planes
            for y in range(0, height, step)
        ]
    head = 16 if large else 8
    places = [head + sum(map(len, parts[:i])) for i in range(len(parts))]
    tags: dict[int, tuple[int, ...]] = {
        256: (width,),
        257: (height,),
        258: (bits,) * samples,
        259: (compression,),
        262: ((2 if samples > 2 else 1) if photometric is None else photometric,),
        277: (samples,),
        284: (2 if planar else 1,),
    }
    if tile:
        tags |= {322: (tile,), 323: (tile,), 324: tuple(places), 325: tuple(map(len, parts))}
    else:
        tags |= {273: tuple(places), 278: (rows or height,), 279: tuple(map(len, parts))}
    tags = {tag: values for tag, values in sorted({**tags, **(more or {})}.items()) if values}
    return _assemble(tags, parts, order, large=large)


def _assemble(
    tags: dict[int, tuple[int, ...]],
    parts: Sequence[bytes],
    order: str,
    *,
    large: bool,
) -> bytes:
    word, count, room = ("Q", "Q", 8) if large else ("I", "H", 4)
    body = b"".join(parts)
    place = (16 if large else 8) + len(body)
    entries = []
    for tag, values in tags.items():
        kind = 12 if isinstance(values[0], float) else 3 if max(values) < 1 << 16 else 4
        kind = 16 if kind == 4 and large else kind
        packed = struct.pack(f"{order}{len(values)}{_TYPES[kind]}", *values)
        head = struct.pack(f"{order}HH{word}", tag, kind, len(values))
        if len(packed) > room:
            body, packed, place = (
                body + packed,
                struct.pack(f"{order}{word}", place),
                place + len(packed),
            )
        entries.append(head + packed.ljust(room, b"\0"))
    letters = b"II" if order == "<" else b"MM"
    start = (
        letters + struct.pack(f"{order}HHHQ", 43, 8, 0, place)
        if large
        else letters + struct.pack(f"{order}HI", 42, place)
    )
    number = struct.pack(f"{order}{count}", len(entries))
    end = bytes(room)  # no next page
    return b"".join((start, body, number, *entries, end))
