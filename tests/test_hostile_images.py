"""Images from unknown sources: each is read correctly or refused with its reason, without harm.

Every file is made here. `GOOD` maps a name to the file and to the pixels that it must give,
`BAD` to the file and to a part of the reason.
"""

import json
import os
import random
import re
import resource
import socket
import stat
import struct
import subprocess
import sys
import tempfile
import textwrap
import threading
import zlib
from contextlib import suppress
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from brainfeat.errors import BrainfeatError, ImageReadError
from brainfeat.readers import containers, jpeg, raster, read_bytes, read_header, read_image

RNG = np.random.default_rng(0)
WIDTH, HEIGHT = 13, 10
GREY = RNG.integers(0, 256, (HEIGHT, WIDTH), np.uint8)
RGB = RNG.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
SIGNATURE = b"\x89PNG\r\n\x1a\n"
LIMIT = raster.PIXEL_LIMIT

# ------------------------------------------------------------------------------ making files


def chunk(kind: bytes, body: bytes = b"", *, wrong: bool = False) -> bytes:
    checksum = zlib.crc32(kind + body) ^ wrong
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", checksum)


def header(width=WIDTH, height=HEIGHT, depth=8, colour=0, methods=(0, 0, 0)) -> bytes:
    return struct.pack(">IIBBBBB", width, height, depth, colour, *methods)


def rows_of(pixels: np.ndarray, depth: int = 8) -> bytes:
    """Write rows of whole samples, each after its filter byte."""
    if depth < 8:
        bits = np.unpackbits(pixels[..., None], axis=-1)[..., 8 - depth :]
        rows = np.packbits(bits.reshape(len(pixels), -1), axis=1)
    else:
        rows = pixels.reshape(len(pixels), -1).astype(">u2" if depth == 16 else np.uint8)
    return b"".join(b"\0" + row.tobytes() for row in rows)


IDAT = zlib.compress(rows_of(GREY))


def png(head=None, *, before=b"", idat=IDAT, after=b"", end=None) -> bytes:
    pixels = b"" if idat is None else chunk(b"IDAT", idat)
    head = chunk(b"IHDR", header() if head is None else head)
    return SIGNATURE + head + before + pixels + after + (chunk(b"IEND") if end is None else end)


def picture(pixels: np.ndarray, colour: int, *, depth=8, before=b"") -> bytes:
    height, width = pixels.shape[:2]
    body = zlib.compress(rows_of(pixels, depth))
    return png(header(width, height, depth, colour), before=before, idat=body)


def interlaced(pixels: np.ndarray, colour: int, *, missing: int = 0) -> bytes:
    passes = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2))
    parts = [pixels[y::dy, x::dx] for y, x, dy, dx in (*passes, (1, 0, 2, 1))]
    rows = b"".join(rows_of(part) for part in parts if part.size)
    head = header(*pixels.shape[1::-1], colour=colour, methods=(0, 0, 1))
    return png(head, idat=zlib.compress(rows[: len(rows) - missing]))


def encode(pixels, kind: str = "JPEG", **options) -> bytes:
    file = BytesIO()
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(file, kind, **options)
    return file.getvalue()


def segment(marker: int, body: bytes = b"") -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


def exif(orientation: int) -> bytes:
    return b"MM\0*\0\0\0\x08\0\1" + struct.pack(">HHIH", 0x0112, 3, 1, orientation) + bytes(6)


def decoded(data: bytes) -> np.ndarray:
    with Image.open(BytesIO(data)) as image:
        return np.asarray(image.convert("RGB"))


def after_soi(data: bytes, extra: bytes) -> bytes:
    return data[:2] + extra + data[2:]


def patched(data: bytes, marker: bytes, offset: int, value: bytes) -> bytes:
    place = data.index(marker) + offset
    return data[:place] + value + data[place + len(value) :]


def scans_of(data: bytes) -> list[bytes]:
    parts = jpeg._segments(data, "")
    return [bytes(part) for marker, _, part in parts if marker == 0xDA]


SMOOTH = np.add.outer(np.arange(40), np.arange(48)).astype(np.uint8) * 2
COLOURS = np.dstack([SMOOTH, SMOOTH[::-1], SMOOTH[:, ::-1]])
JPEG = encode(COLOURS)
GREY_JPEG = encode(SMOOTH)
PROGRESSIVE = encode(COLOURS, progressive=True)
CMYK = encode(Image.fromarray(COLOURS).convert("CMYK"))
SOF = b"\xff\xc0"
BOMB = zlib.compress(bytes(50_000_000))
ELF = b"\x7fELF" + bytes(range(256)) * 8
ZIP = b"PK\x03\x04" + bytes(26) + b"evil.py" + b"PK\x05\x06" + bytes(18)
HTML = b"<html><script>alert(1)</script></html>"
PLTE = RNG.integers(0, 256, (256, 3), np.uint8)
NOISE = random.Random(0).randbytes(5000)

# ------------------------------------------------------------------------- what must be read


def shades(depth: int) -> tuple[bytes, np.ndarray]:
    values = GREY >> (8 - depth)
    return picture(values, 0, depth=depth), values * (255 // (2**depth - 1))


def indexed(depth: int, before=b"") -> tuple[bytes, np.ndarray]:
    values = GREY >> (8 - depth)
    palette = chunk(b"PLTE", PLTE[: 2**depth].tobytes())
    return picture(values, 3, depth=depth, before=palette + before), PLTE[values]


def deep(colour: int, channels: int) -> bytes:
    pixels = RGB if channels > 2 else GREY[..., None]
    alpha = GREY[..., None] if channels in (2, 4) else np.empty((HEIGHT, WIDTH, 0), np.uint8)
    samples = np.concatenate([pixels, alpha], axis=2).astype(np.uint16) << 8
    return picture(samples + 77, colour, depth=16)


def with_chunks(*extra: bytes, after=b"") -> tuple[bytes, np.ndarray]:
    return png(before=b"".join(extra), after=after), GREY


def split_idat(sizes) -> bytes:
    parts, place = [], 0
    for size in sizes:
        parts.append(chunk(b"IDAT", IDAT[place : place + size]))
        place += size
    return png(idat=None, before=b"".join([*parts, chunk(b"IDAT", IDAT[place:])]))


def turned(orientation: int) -> np.ndarray:
    upright = decoded(JPEG)
    turns = (
        upright,
        upright[:, ::-1],
        upright[::-1, ::-1],
        upright[::-1],
        upright.transpose(1, 0, 2),
        np.rot90(upright, -1),
        upright[::-1, ::-1].transpose(1, 0, 2),
        np.rot90(upright),
    )
    return turns[orientation - 1]


GOOD: dict[str, tuple[bytes, np.ndarray]] = {
    "1-bit grey": shades(1),
    "2-bit grey": shades(2),
    "4-bit grey": shades(4),
    "8-bit grey": (png(), GREY),
    "16-bit grey": (
        picture(GREY.astype(np.uint16) * 257, 0, depth=16),
        GREY,
    ),
    "8-bit RGB": (picture(RGB, 2), RGB),
    "16-bit RGB": (deep(2, 3), RGB),
    "16-bit RGBA": (deep(6, 4), RGB),
    "16-bit grey with alpha": (deep(4, 2), GREY),
    "grey with alpha": (picture(np.dstack([GREY, GREY[::-1]]), 4), GREY),
    "RGBA": (picture(np.dstack([RGB, GREY]), 6), RGB),
    "1-bit palette": indexed(1),
    "2-bit palette": indexed(2),
    "4-bit palette": indexed(4),
    "8-bit palette": indexed(8),
    "palette with transparency": indexed(8, chunk(b"tRNS", bytes(range(0, 250, 5)))),
    "palette with one clear colour": indexed(4, chunk(b"tRNS", b"\xff\0\xff")),
    "palette of a grey image": with_chunks(chunk(b"PLTE", bytes(range(6)))),
    "transparent grey": with_chunks(chunk(b"tRNS", b"\0\x07")),
    "tRNS that is too short": with_chunks(chunk(b"tRNS", b"\0")),
    "interlaced grey": (interlaced(GREY, 0), GREY),
    "interlaced RGB": (interlaced(RGB, 2), RGB),
    **{
        f"interlaced {n} × {n}, black": (interlaced(zero, 0), zero)
        for n in (1, 2, 3, 4, 5, 8, 9)
        for zero in [np.zeros((n, n), np.uint8)]
    },
    "black": (picture(np.zeros((7, 5), np.uint8), 0), np.zeros((7, 5))),
    "black, 2 bits": (picture(np.zeros((7, 5), np.uint8), 0, depth=2), np.zeros((7, 5))),
    "black, transparent": (picture(np.zeros((7, 5, 4), np.uint8), 6), np.zeros((7, 5))),
    "gamma": with_chunks(chunk(b"gAMA", struct.pack(">I", 45455))),
    "gamma that is too short": with_chunks(chunk(b"gAMA", b"\0")),
    "chromaticities": with_chunks(chunk(b"cHRM", struct.pack(">8I", *range(8)))),
    "sRGB": with_chunks(chunk(b"sRGB", b"\x09")),
    "damaged colour profile": with_chunks(chunk(b"iCCP", b"x\0\0nonsense")),
    "colour profile of an unknown method": with_chunks(chunk(b"iCCP", b"x\0\x07nonsense")),
    "colour profile of nothing": with_chunks(chunk(b"iCCP", b"")),
    "chunks that mean nothing": with_chunks(*(chunk(b"abCd", bytes([i])) for i in range(200))),
    "huge text": with_chunks(chunk(b"tEXt", b"k\0" + NOISE * 1000)),
    "bomb in zTXt": with_chunks(chunk(b"zTXt", b"k\0\0" + BOMB)),
    "bomb in iCCP": with_chunks(chunk(b"iCCP", b"k\0\0" + BOMB)),
    "bomb in iTXt": with_chunks(chunk(b"iTXt", b"k\0\1\0\0\0" + BOMB)),
    "thirty bombs": with_chunks(chunk(b"zTXt", b"k\0\0" + BOMB) * 30),
    "bomb after the pixels": with_chunks(after=chunk(b"zTXt", b"k\0\0" + BOMB)),
    "IDAT of one byte each": (split_idat([1] * 60), GREY),
    "IDAT of no bytes": (split_idat([0] * 50 + [9, 0, 0, 9]), GREY),
    "acTL after the pixels": with_chunks(after=chunk(b"acTL", struct.pack(">II", 2, 0))),
    "acTL in a text": with_chunks(chunk(b"tEXt", b"k\0acTL and IDAT")),
    "fcTL without acTL": with_chunks(chunk(b"fcTL", bytes(26))),
    "fdAT without acTL": with_chunks(after=chunk(b"fdAT", bytes(9))),
    "broken fcTL": with_chunks(chunk(b"fcTL", b"\xff")),
    "PNG and ZIP": (png() + ZIP, GREY),
    "PNG and a program": (png() + ELF, GREY),
    "PNG and a second PNG": (png() + picture(RGB, 2), GREY),
    "PNG with HTML": with_chunks(chunk(b"tEXt", b"k\0" + HTML)),
    "PNG turned by eXIf": (png(before=chunk(b"eXIf", exif(3))), GREY[::-1, ::-1]),
    "PNG turned by eXIf at its end": (png(after=chunk(b"eXIf", exif(3))), GREY[::-1, ::-1]),
    "one pixel": (picture(GREY[:1, :1], 0), GREY[:1, :1]),
    "one row": (picture(np.full((1, 60_000), 7, np.uint8), 0), np.full((1, 60_000), 7)),
    "one column": (picture(np.full((60_000, 1), 7, np.uint8), 0), np.full((60_000, 1), 7)),
    "more pixels than the header says": (png(header(height=4)), GREY[:4]),
    "JPEG": (JPEG, decoded(JPEG)),
    "grey JPEG": (GREY_JPEG, decoded(GREY_JPEG)),
    "progressive JPEG": (PROGRESSIVE, decoded(PROGRESSIVE)),
    "one pixel JPEG": (data := encode(GREY[:1, :1]), decoded(data)),
    "one row JPEG": (data := encode(np.full((1, 60_000), 7, np.uint8)), decoded(data)),
    "JPEG without subsampling": (data := encode(COLOURS, subsampling=0), decoded(data)),
    "JPEG with restart markers": (data := encode(COLOURS, restart_marker_blocks=1), decoded(data)),
    "JPEG stored as RGB": (data := encode(COLOURS, keep_rgb=True, quality=95), decoded(data)),
    "CMYK JPEG": (CMYK, decoded(CMYK)),
    "YCCK JPEG": (data := patched(CMYK, b"Adobe", 11, b"\2"), decoded(data)),
    "CMYK JPEG without Adobe's marker": (
        data := CMYK.replace(b"Adobe", b"Bdobe"),
        decoded(data),
    ),
    "JPEG without its Huffman tables": (  # those of the standard are meant, as in motion JPEG
        b"".join([JPEG[:2], *(bytes(p) for m, _, p in jpeg._segments(JPEG, "") if m != 0xC4)]),
        decoded(JPEG),
    ),
    "multi-picture JPEG": (
        encode(COLOURS, "MPO", save_all=True, append_images=[Image.fromarray(COLOURS[::-1])]),
        decoded(JPEG),
    ),
    "JPEG with a thumbnail": (
        after_soi(JPEG, segment(0xE1, b"Exif\0\0" + exif(1) + GREY_JPEG)),
        decoded(JPEG),
    ),
    "JPEG with thousands of comments": (after_soi(JPEG, segment(0xFE, b"c") * 5000), decoded(JPEG)),
    "JPEG with thousands of EXIF blocks": (
        after_soi(JPEG, segment(0xE1, b"Exif\0\0" + exif(1) + bytes(9000)) * 3000),
        decoded(JPEG),
    ),
    "JPEG with thousands of APP13": (
        after_soi(JPEG, segment(0xED, b"Photoshop 3.0\x008BIM") * 5000),
        decoded(JPEG),
    ),
    "JPEG with a broken colour profile": (
        after_soi(JPEG, segment(0xE2, b"ICC_PROFILE\0")),
        decoded(JPEG),
    ),
    "JPEG with a megabyte of padding": (after_soi(JPEG, b"\xff" * 1_000_000), decoded(JPEG)),
    "JPEG with junk between segments": (
        JPEG[:20] + bytes(1_000_000) + JPEG[20:],
        decoded(JPEG),
    ),
    "JPEG and HTML": (JPEG + HTML, decoded(JPEG)),
    "JPEG with HTML in a comment": (after_soi(JPEG, segment(0xFE, HTML)), decoded(JPEG)),
    "JPEG and a program": (JPEG + ELF, decoded(JPEG)),
    "JPEG and ZIP": (JPEG + ZIP, decoded(JPEG)),
    **{
        f"JPEG turned by EXIF {n}": (
            after_soi(JPEG, segment(0xE1, b"Exif\0\0" + exif(n))),
            turned(n),
        )
        for n in range(1, 9)
    },
    **{
        f"JPEG with damaged EXIF {n}": (
            after_soi(JPEG, segment(0xE1, b"Exif\0\0" + block)),
            decoded(JPEG),
        )
        for n, block in enumerate(
            (b"", b"MM", b"II*\0\xff\xff\xff\xff", exif(9), exif(0), exif(6)[:19], NOISE)
        )
    },
}

# ---------------------------------------------------------------------- what must be refused

NO_IMAGE = "not a JPEG, PNG, TIFF, BMP, GIF or WebP image"
PNG_DAMAGE = "a damaged or unsupported PNG image"
JPEG_DAMAGE = "a damaged or unsupported JPEG image"


def sized(width: int, height: int, depth=1, colour=0) -> bytes:
    """Make a PNG whose rows are all there as far as a megabyte of zeros goes."""
    return png(header(width, height, depth, colour), idat=zlib.compress(bytes(1_000_000)))


BAD: dict[str, tuple[bytes, str]] = {
    "no bytes": (b"", "empty file"),
    "one byte": (b"\xff", NO_IMAGE),
    "zeros": (bytes(4096), NO_IMAGE),
    "text": (b"path,label\n1.jpg,a\n", NO_IMAGE),
    "ICO": (encode(RGB, "ICO"), NO_IMAGE),
    "JPEG 2000": (encode(RGB, "JPEG2000"), NO_IMAGE),
    "PDF": (encode(RGB, "PDF"), NO_IMAGE),
    "SVG": (b'<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"/>', NO_IMAGE),
    "HTML": (HTML, NO_IMAGE),
    "PostScript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage", NO_IMAGE),
    "program": (ELF, NO_IMAGE),
    "archive": (ZIP, "an archive (zip); unpack it first"),
    "DICOM": (bytes(128) + b"DICM" + bytes(99), NO_IMAGE),
    "GIF that is JavaScript": (b"GIF89a/*" + bytes(20) + b"*/=1;alert(1)", "unsupported GIF image"),
    "PNG behind HTML": (HTML + png(), NO_IMAGE),
    "PNG converted to text": (png().replace(b"\r\n", b"\n"), NO_IMAGE),
    # sizes
    "100,000 × 100,000": (sized(100_000, 100_000), "= 10,000,000,000 pixels, more than the limit"),
    "largest of all": (sized(2**31 - 1, 2**31 - 1), "pixels, more than the limit"),
    "beyond 31 bits": (sized(2**32 - 1, 2**32 - 1), "pixels, more than the limit"),
    "row of two billion": (sized(2**31 - 1, 1), "2,147,483,647 pixels, more than the limit"),
    "one row more than the limit": (sized(8000, 8001), "= 64,008,000 pixels, more than the limit"),
    "JPEG of 65,500 × 65,500": (
        patched(JPEG, SOF, 5, struct.pack(">HH", 65_500, 65_500)),
        "= 4,290,250,000 pixels, more than the limit",
    ),
    "PNG without width": (png(header(width=0)), f"{PNG_DAMAGE} (0 × 10 pixels)"),
    "PNG without height": (png(header(height=0)), f"{PNG_DAMAGE} (13 × 0 pixels)"),
    "JPEG without width": (patched(JPEG, SOF, 7, b"\0\0"), f"{JPEG_DAMAGE} (0 × 40 pixels)"),
    "JPEG without height": (patched(JPEG, SOF, 5, b"\0\0"), f"{JPEG_DAMAGE} (48 × 0 pixels)"),
    # PNG
    "signature": (SIGNATURE, "truncated"),
    "noise after the signature": (SIGNATURE + NOISE, PNG_DAMAGE),
    "bit depth 3": (png(header(depth=3)), "bit depth 3 with colour type 0"),
    "bit depth 16 of a palette": (png(header(depth=16, colour=3)), "bit depth 16 with colour"),
    "colour type 5": (png(header(colour=5)), "bit depth 8 with colour type 5"),
    "compression 1": (png(header(methods=(1, 0, 0))), "compression 1, filter 0, interlace 0"),
    "filter method 64": (png(header(methods=(0, 64, 0))), "compression 0, filter 64, interlace 0"),
    "interlace 7": (png(header(methods=(0, 0, 7))), "compression 0, filter 0, interlace 7"),
    "short IHDR": (png(header()[:12]), "a header of 12 bytes"),
    "long IHDR": (png(header() + b"\0"), "a header of 14 bytes"),
    "no IHDR": (png().replace(chunk(b"IHDR", header()), b""), "its first chunk, and no other"),
    "two IHDR": (png(before=chunk(b"IHDR", header(9, 9))), "its first chunk, and no other"),
    "IHDR in second place": (
        SIGNATURE + chunk(b"tEXt", b"k\0v") + png()[8:],
        "its first chunk, and no other",
    ),
    "no IDAT": (png(idat=None), "it holds no pixels"),
    "empty IDAT": (png(idat=b""), "truncated"),
    "no IEND": (png(end=b""), "truncated"),
    "only the length of IEND": (png(end=bytes(4)), "truncated"),
    "text between IDAT": (
        png(idat=IDAT[:9], after=chunk(b"tEXt", b"k\0v") + chunk(b"IDAT", IDAT[9:])),
        "other chunks are between its pixels",
    ),
    "critical chunk of Apple": (
        SIGNATURE + chunk(b"CgBI", bytes(4)) + png()[8:],
        "its first chunk, and no other",
    ),
    "critical chunk that is unknown": (png(before=chunk(b"EVIL")), "critical chunk EVIL"),
    "chunk of 4 GB": (png(before=b"\xff\xff\xff\xfftEXt"), "truncated"),
    "chunk that cannot be": (
        png(before=struct.pack(">I", 0) + b"\x1b[2J" + bytes(4)),
        "invalid chunk type",
    ),
    "too many chunks": (
        png(before=chunk(b"abCd") * (containers.PART_LIMIT + 1)),
        "more than 100,000 chunks",
    ),
    **{
        f"wrong checksum of {kind.decode()}": (
            SIGNATURE
            + b"".join(
                chunk(other, body, wrong=other == kind)
                for other, body in (
                    (b"IHDR", header()),
                    (b"gAMA", bytes(4)),
                    (b"PLTE", bytes(6)),
                    (b"tRNS", bytes(2)),
                    (b"tEXt", b"k\0v"),
                    (b"zTXt", b"k\0\0v"),
                    (b"IDAT", IDAT),
                    (b"eXIf", exif(3)),
                    (b"IEND", b""),
                )
            ),
            f"wrong checksum of its chunk {kind.decode()}",
        )
        for kind in (
            b"IHDR",
            b"gAMA",
            b"PLTE",
            b"tRNS",
            b"tEXt",
            b"zTXt",
            b"IDAT",
            b"eXIf",
            b"IEND",
        )
    },
    "no palette": (picture(GREY, 3), "a palette of 0 bytes before the pixels"),
    "empty palette": (picture(GREY, 3, before=chunk(b"PLTE")), "a palette of 0 bytes"),
    "palette of a third": (picture(GREY, 3, before=chunk(b"PLTE", bytes(4))), "of 4 bytes"),
    "palette of 257 colours": (picture(GREY, 3, before=chunk(b"PLTE", bytes(771))), "of 771 bytes"),
    "palette after the pixels": (
        png(header(colour=3), after=chunk(b"PLTE", bytes(768))),
        "a palette of 768 bytes before the pixels",
    ),
    "two palettes": (picture(GREY, 3, before=chunk(b"PLTE", bytes(768)) * 2), "two palettes"),
    "colour beyond the palette": (
        picture(GREY, 3, before=chunk(b"PLTE", bytes(300))),
        f"a pixel of colour {GREY.max()} in a palette of 100",
    ),
    "too few rows": (png(header(height=99)), "truncated"),
    "one row too few": (png(header(height=HEIGHT + 1)), "truncated"),
    "one row too few, interlaced": (interlaced(GREY, 0, missing=WIDTH + 1), "truncated"),
    "a pass too few": (interlaced(GREY[:9], 0, missing=4 * (WIDTH + 1)), "truncated"),
    "unknown row filter": (png(idat=zlib.compress(b"\x07" + bytes(999))), PNG_DAMAGE),
    "pixels that are no zlib": (png(idat=NOISE), PNG_DAMAGE),
    "pixels behind a preset dictionary": (png(idat=b"\x78\xbb" + NOISE), "truncated"),
    "animated PNG": (
        encode(GREY, "PNG", save_all=True, append_images=[Image.fromarray(GREY[::-1])]),
        "an animated PNG: it holds several images",
    ),
    "animated PNG of no frames": (png(before=chunk(b"acTL", bytes(8))), "an animated PNG"),
    "animated PNG behind a text": (
        png(before=chunk(b"tEXt", b"k\0IDAT") + chunk(b"acTL", struct.pack(">II", 2, 0))),
        "an animated PNG",
    ),
    # JPEG
    "start of a JPEG": (JPEG[:3], "truncated"),
    "noise after the start": (JPEG[:3] + NOISE, "truncated"),
    "start and end": (b"\xff\xd8\xff\xd9", "it holds no pixels"),
    "JPEG without pixels": (
        JPEG[: JPEG.index(b"\xff\xda")] + b"\xff\xd9",
        "it holds no pixels",
    ),
    "JPEG without end": (JPEG[:-2], "truncated"),
    "endless padding": (JPEG[:2] + b"\xff" * 3_000_000, "truncated"),
    "endless zeros": (JPEG[:3] + bytes(3_000_000), "truncated"),
    "12-bit JPEG": (patched(JPEG, SOF, 4, b"\x0c"), "cannot handle 12-bit layers"),
    "JPEG of two layers": (patched(JPEG, SOF, 9, b"\2"), "cannot handle 2-layer images"),
    "JPEG of no layers": (patched(JPEG, SOF, 9, b"\0"), "cannot handle 0-layer images"),
    "short frame header": (after_soi(JPEG, segment(0xC0, b"\x08\0\x09")), "header of 3 bytes"),
    "two frames": (after_soi(JPEG, JPEG[(i := JPEG.index(SOF)) : i + 19]), "it holds two frames"),
    "pixels before the frame": (after_soi(JPEG, segment(0xDA, bytes(6))), "no frame header"),
    "sampling of 0": (patched(JPEG, SOF, 11, b"\0"), JPEG_DAMAGE),
    "sampling of 15": (patched(JPEG, SOF, 11, b"\xff"), JPEG_DAMAGE),
    "hierarchical JPEG": (patched(JPEG, SOF, 1, b"\xc5"), JPEG_DAMAGE),
    "segment without length": (after_soi(JPEG, b"\xff\xe0\0\0"), "can follow the marker 0xe0"),
    "segment of length 1": (after_soi(JPEG, b"\xff\xfe\0\1"), "can follow the marker 0xfe"),
    "start within the header": (after_soi(JPEG, b"\xff\xd8"), "can follow the marker 0xd8"),
    "segment beyond the end": (JPEG[:2] + b"\xff\xe0\xff\xff" + JPEG[2:], "truncated"),
    "quantization table that ends": (
        after_soi(JPEG, segment(0xDB, b"\0\1\2")),
        f"{JPEG_DAMAGE} (bad quantization table marker)",
    ),
    "no quantization table": (
        b"".join([JPEG[:2], *(bytes(p) for m, _, p in jpeg._segments(JPEG, "") if m != 0xDB)]),
        JPEG_DAMAGE,
    ),
    "Huffman table of too many codes": (
        patched(JPEG, b"\xff\xc4", 5, b"\xff" * 16),
        JPEG_DAMAGE,
    ),
    "too many scans": (
        PROGRESSIVE[:-2] + scans_of(PROGRESSIVE)[-1] * jpeg.SCAN_LIMIT + b"\xff\xd9",
        "more than 100 scans",
    ),
    "too many segments": (
        after_soi(JPEG, segment(0xFE) * (containers.PART_LIMIT + 1)),
        "more than 100,000 segments",
    ),
    "too many restart markers": (
        after_soi(JPEG, b"\xff\xd0" * (containers.PART_LIMIT + 1)),
        "more than 100,000 segments",
    ),
    # truncation
    **{
        f"{name} cut at {share} %": (data[: len(data) * share // 100], "truncated")
        for name, data in (
            ("PNG", png()),
            ("JPEG", JPEG),
            ("progressive JPEG", PROGRESSIVE),
            ("interlaced PNG", interlaced(RGB, 2)),
        )
        for share in (10, 20, 30, 40, 50, 60, 70, 80, 90, 95, 99)
    },
    "JPEG cut, with a thumbnail": (
        after_soi(JPEG, segment(0xE1, b"Exif\0\0" + exif(1) + GREY_JPEG))[:-50],
        "truncated",
    ),
    "JPEG cut, with a program": (JPEG[:-50] + b"\xff\xd9"[:1] + bytes(300), "truncated"),
}


def refusal(source) -> str:
    with pytest.raises(ImageReadError) as caught:
        read_image(source)
    return caught.value.reason


def is_fit_to_store(reason: str) -> bool:
    return reason.isprintable() and 0 < len(reason) <= 200 and "object at 0x" not in reason


def test_there_are_enough_of_them():
    assert len(GOOD) >= 80
    assert len(BAD) >= 100


@pytest.mark.parametrize("what", GOOD)
def test_good_images_give_their_pixels(what):
    data, expected = GOOD[what]
    image = read_image(BytesIO(data))
    expected = expected if expected.ndim == 3 else np.dstack([expected] * 3)
    np.testing.assert_array_equal(image, (expected / 255).astype(np.float32))
    seen = read_header(BytesIO(data))
    assert sorted((seen.height, seen.width)) == sorted(image.shape[:2])


@pytest.mark.parametrize("what", BAD)
def test_bad_images_are_refused_with_their_reason(what):
    data, expected = BAD[what]
    reason = refusal(BytesIO(data))
    assert expected in reason
    assert is_fit_to_store(reason)
    assert refusal(BytesIO(data)) == reason


def test_text_is_never_inflated(monkeypatch):
    def refuse(*_):
        raise AssertionError("inflated")

    data = b"".join(GOOD[name][0] for name in ("thirty bombs",))
    monkeypatch.setattr("PIL.PngImagePlugin._safe_zlib_decompress", refuse)
    np.testing.assert_array_equal(read_image(BytesIO(data)), read_image(BytesIO(png())))


# ------------------------------------------------------------------------------- odd files

NAMES = (
    "with space.png",
    "new\nline.png",
    "tab\t.png",
    "\x1b[31mred\x1b[0m.png",
    "photo\u202egnp.jpg",
    "zero\u200bwidth.png",
    "<script>alert(1)<script>.png",
    "=cmd|' C calc'!A0.png",
    "$(reboot).png",
    "%2e%2e%2fpasswd.png",
    "..\\..\\x.png",
    "-rf.png",
    "\udcff\udcfe.png",
    "é.png",
    "e\u0301.png",
    "腫瘍.png",
    "x" * 251 + ".png",
    "image",
    "image.exe",
)


@pytest.mark.parametrize("name", NAMES)
def test_names_do_not_matter(tmp_path, name):
    (tmp_path / name).write_bytes(png())
    np.testing.assert_array_equal(read_image(tmp_path / name), read_image(BytesIO(png())))


def odd_files(folder: Path) -> dict[str, str]:
    """Make paths that are not regular files, or files with false headers; return their reasons."""
    (folder / "folder.jpg").mkdir()
    os.mkfifo(folder / "pipe.jpg")
    (folder / "device.jpg").symlink_to("/dev/zero")
    (folder / "loop.jpg").symlink_to("loop.jpg")
    (folder / "dangling.jpg").symlink_to("nowhere.jpg")
    (folder / "to-pipe.jpg").symlink_to("pipe.jpg")
    (folder / "to-folder.jpg").symlink_to(".")
    (folder / "through-file.jpg").symlink_to("sparse.jpg/1.jpg")
    with (folder / "sparse.jpg").open("wb") as file:
        file.truncate(50_000_000_000)
    with (folder / "hollow.png").open("wb") as file:
        file.write(SIGNATURE)
        file.truncate(1_000_000)
    with socket.socket(socket.AF_UNIX) as server:
        here = Path.cwd()
        os.chdir(folder)  # the path of a socket must be short
        try:
            server.bind("socket.jpg")
        finally:
            os.chdir(here)
    return {
        "folder.jpg": "a folder, not a file",
        "pipe.jpg": "not a regular file",
        "device.jpg": "not a regular file",
        "loop.jpg": "too many levels of symbolic links",
        "dangling.jpg": "no such file",
        "gone.jpg": "no such file",
        "to-pipe.jpg": "not a regular file",
        "to-folder.jpg": "a folder, not a file",
        "through-file.jpg": "not a directory",
        "sparse.jpg": "more than the limit of 600,000,000 bytes",
        "hollow.png": f"{PNG_DAMAGE} (invalid chunk type b'\\x00\\x00\\x00\\x00')",
        "socket.jpg": "not a regular file",
    }


def test_odd_files_are_refused_without_waiting(tmp_path):
    for name, reason in odd_files(tmp_path).items():
        assert refusal(tmp_path / name) == reason


def test_links_to_good_images_are_read(tmp_path):
    (tmp_path / "1.png").write_bytes(png())
    (tmp_path / "2.png").symlink_to("1.png")
    (tmp_path / "3.png").symlink_to(tmp_path / "2.png")
    np.testing.assert_array_equal(read_image(tmp_path / "3.png"), read_image(BytesIO(png())))


@pytest.mark.parametrize("mode", [0o000, 0o200, 0o111])
def test_files_that_may_not_be_read_are_refused(mode):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "1.png").write_bytes(png())
        (folder / "1.png").chmod(mode)
        was = os.geteuid()
        if was == 0:
            os.seteuid(65534)
        try:
            assert refusal(folder / "1.png") == "permission denied"
        finally:
            os.seteuid(was)


class TestFilesThatChange:
    """A file may be another one when it is opened than it was when it was looked at."""

    @pytest.fixture
    def path(self, tmp_path):
        path = tmp_path / "1.png"
        path.write_bytes(png())
        return path

    @pytest.fixture
    def change(self, monkeypatch, path):
        """Return a function that sets what happens between the check and the opening of a file."""

        def after_stat(action):
            look = Path.stat

            def stat_and_act(self, **options):
                seen = look(self, **options)
                if self == path:
                    action()
                return seen

            monkeypatch.setattr(Path, "stat", stat_and_act)

        return after_stat

    def test_deleted(self, path, change):
        change(path.unlink)
        assert refusal(path) == "no such file"

    def test_replaced_by_a_pipe(self, path, change):
        def replace():
            path.unlink()
            os.mkfifo(path)

        change(replace)
        assert refusal(path) == "not a regular file"

    def test_replaced_by_a_folder(self, path, change):
        def replace():
            path.unlink()
            path.mkdir()

        change(replace)
        assert refusal(path) in ("is a directory", "a folder, not a file")

    def test_replaced_by_what_is_too_large(self, path, change):
        change(lambda: os.truncate(path, 700_000_000))
        assert refusal(path) == "more than the limit of 600,000,000 bytes"

    def test_shrunk(self, path, change):
        change(lambda: os.truncate(path, 60))
        assert refusal(path) == "truncated"

    def test_emptied(self, path, change):
        change(lambda: os.truncate(path, 0))
        assert refusal(path) == "empty file"

    def test_no_file_handles_left(self, path):
        """The file may be good: to reject it would lose an image."""
        before = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, before[1]))
        taken = []
        try:
            with suppress(OSError):
                while True:
                    taken.append(os.dup(0))
            with pytest.raises(
                BrainfeatError, match="too many open files; the image may be intact"
            ) as caught:
                read_bytes(path)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)
            for descriptor in taken:
                os.close(descriptor)
        assert not isinstance(caught.value, ImageReadError)

    @pytest.mark.parametrize("more", [10, 10_000])
    def test_grown_while_it_is_read(self, path, monkeypatch, more):
        """What was appended after the size was asked for is read, up to the limit."""
        ask = os.fstat

        def ask_and_grow(descriptor):
            seen = ask(descriptor)
            if stat.S_ISREG(seen.st_mode):
                with path.open("ab") as file:
                    file.write(bytes(more))
            return seen

        size = path.stat().st_size
        monkeypatch.setattr(os, "fstat", ask_and_grow)
        assert read_bytes(path) == png() + bytes(more)
        monkeypatch.undo()
        path.write_bytes(png())
        monkeypatch.setattr(os, "fstat", ask_and_grow)
        with pytest.raises(ImageReadError, match=f"limit of {size + 5} bytes"):
            read_bytes(path, byte_limit=size + 5)


# ------------------------------------------------------------------------ mutated, in threads


def mutate(data: bytes, rnd: random.Random) -> bytes:
    """Change, drop, repeat or insert a few bytes."""
    changed = bytearray(data)
    for _ in range(rnd.randint(1, 6)):
        place = rnd.randrange(2, max(3, len(changed)))
        size = rnd.choice((1, 1, 2, 4, 40))
        match rnd.randrange(5):
            case 0:
                changed[place : place + size] = rnd.randbytes(size)
            case 1:
                del changed[place : place + size]
            case 2:
                changed[place:place] = changed[place : place + size]
            case 3:
                changed[place:place] = rnd.choice((b"\xff\xda", b"\xff\xd9", b"\xff", b"IDAT"))
            case 4:
                changed[place : place + size] = rnd.choice((b"\0", b"\xff", b"\x7f")) * size
    return bytes(changed)


def mend(data: bytes) -> bytes:
    """Return each chunk of a PNG its right checksum, so that damage gets beyond the checksums."""
    mended, place = bytearray(data), 8
    while place + 12 <= len(mended):
        end = place + 8 + struct.unpack_from(">I", mended, place)[0]
        if end + 4 > len(mended):
            break
        struct.pack_into(">I", mended, end, zlib.crc32(mended[place + 4 : end]))
        place = end + 4
    return bytes(mended)


def fuzz(number: int, seed: int) -> tuple[int, int]:
    """Read mutated images; count those that were read and those that were refused."""
    rnd = random.Random(seed)
    seeds = [data for data, _ in GOOD.values() if len(data) < 20_000]
    read = refused = 0
    for _ in range(number):
        data = mutate(rnd.choice(seeds), rnd)
        if data.startswith(SIGNATURE) and rnd.random() < 0.8:
            data = mend(data)
        try:
            image = read_image(BytesIO(data), pixel_limit=4_000_000)
        except ImageReadError as error:
            refused += is_fit_to_store(error.reason)
        else:
            assert 0 <= image.min() <= image.max() <= 1
            read += 1
    return read, refused


def test_mutated_images_give_an_image_or_an_error():
    results = []
    threads = [
        threading.Thread(target=lambda seed=seed: results.append(fuzz(400, seed)))
        for seed in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(read + refused for read, refused in results) == 1600
    assert min(sum(read for read, _ in results), sum(refused for _, refused in results)) > 100


# -------------------------------------------------------------------------- one run over all

CHILD = """
    import json, resource, sys
    from pathlib import Path

    import numpy as np
    import PIL.JpegImagePlugin, PIL.PngImagePlugin

    from brainfeat.extraction.extractor import extract
    from brainfeat.cache.spec import FeatureSpec
    from brainfeat.tables.table import ImageTable

    class Blocks:
        spec = FeatureSpec(
            backbone="blocks", layer="rows", n_features=8, weights_sha256="0" * 64, input_size=32
        )
        recipe = {"blocks": 1}

        def __call__(self, images):
            return images.reshape(len(images), 8, -1).mean(axis=2)

    def peak():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    root, paths = Path(sys.argv[1]), tuple(json.loads(sys.stdin.read()))
    blank = ("",) * len(paths)
    table = ImageTable(
        root=root, paths=paths, labels=blank, splits=blank, groups=blank, sources=blank,
        class_names=(), skipped={},
    )
    before = peak()
    result = extract(table, sys.argv[2], backbone=Blocks(), n_jobs=2)
    print(json.dumps({"extraction": result.to_dict(), "kib": peak() - before}))
"""


@pytest.mark.slow
def test_one_run_over_all_of_them(tmp_path):
    """The run continues, reports what it refused and why, warns of nothing and stays in bounds."""
    from brainfeat.cache.cache import FeatureCache

    root = tmp_path / "images"
    root.mkdir()
    reasons = odd_files(root)
    good = {}
    for number, (data, _) in enumerate(GOOD.values()):
        # A PNG called .jpg is a PNG.
        good[f"good-{number:03}.{'jpg' if data.startswith(SIGNATURE) else 'png'}"] = data
    # As many pixels as may be, in a few bytes: the most memory that an image can ask for.
    good["largest.png"] = png(header(8000, 8000, 1), idat=zlib.compress(bytes(1001 * 8000)))
    assert LIMIT == 8000 * 8000
    bad = {f"bad-{i:03}.{('jpg', 'png')[i % 2]}": entry for i, entry in enumerate(BAD.values())}
    for name, data in (good | {name: data for name, (data, _) in bad.items()}).items():
        (root / name).write_bytes(data)
    reasons |= {name: reason for name, (_, reason) in bad.items()}
    paths = [*good, *reasons]
    random.Random(0).shuffle(paths)

    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(CHILD), root, tmp_path / "features.h5"],
        input=json.dumps(paths),
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert (done.returncode, done.stderr) == (0, "")
    report = json.loads(done.stdout)
    rejected = {entry["path"]: entry["reason"] for entry in report["extraction"]["rejected"]}
    assert set(rejected) == set(reasons)
    for name, reason in rejected.items():
        assert reasons[name] in reason
        assert is_fit_to_store(reason)
        assert str(tmp_path) not in reason
    with FeatureCache.open(tmp_path / "features.h5") as cache:
        assert list(cache.paths) == [path for path in paths if path in good]
        assert np.isfinite(cache.X[:]).all()
        assert {entry.path for entry in cache.rejected} == set(reasons)
    # 20 bytes a pixel, and 100 MB for everything else.
    assert report["kib"] * 1024 < 20 * LIMIT + 100_000_000


def test_reasons_of_the_run_do_not_name_folders(tmp_path):
    (tmp_path / "1.png").write_bytes(b"")
    with pytest.raises(ImageReadError, match=re.escape("a/1.png: empty file")) as caught:
        read_image(tmp_path / "1.png", name="a/1.png")
    assert str(tmp_path) not in str(caught.value)
