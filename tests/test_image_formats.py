"""TIFF, BMP, GIF and WebP files: each is read correctly or refused with its reason."""

import random
import struct
from contextlib import suppress
from io import BytesIO

import numpy as np
import pytest
from PIL import Image, ImageFile, ImageOps
from support.tiffs import make_tiff

from brainfeat.errors import ImageReadError
from brainfeat.readers import gif, read_header, read_image, tiff

RNG = np.random.default_rng(0)
HEIGHT, WIDTH = 23, 29
GREY = RNG.integers(0, 256, (HEIGHT, WIDTH), np.uint8)
DEEP = RNG.integers(0, 65_536, (HEIGHT, WIDTH)).astype(np.uint16)
RGB = RNG.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
RGBA = np.dstack([RGB, GREY])
SMOOTH = np.add.outer(np.arange(HEIGHT), np.arange(WIDTH)).astype(np.uint8) * 4
PALETTE = RNG.integers(0, 256, (256, 3), np.uint8)


def encode(pixels, kind, **options) -> bytes:
    file = BytesIO()
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(file, kind, **options)
    return file.getvalue()


def unit(pixels, largest=255):
    scaled = (np.asarray(pixels) / largest).astype(np.float32)
    return scaled if scaled.ndim == 3 else np.dstack([scaled] * 3)


def refused(data: bytes, **options) -> str:
    with pytest.raises(ImageReadError) as caught:
        read_image(BytesIO(data), **options)
    assert caught.value.reason.isprintable()
    return caught.value.reason


def indexed(number: int) -> Image.Image:
    image = Image.fromarray(RNG.integers(0, number, (HEIGHT, WIDTH), np.uint8))
    image.putpalette(PALETTE[:number].tobytes())
    return image


# ----------------------------------------------------------------------------------------- TIFF

LAYOUTS = {
    "one strip": {},
    "strips": {"rows": 5},
    "tiles": {"tile": 16},
    "a tile that is larger": {"tile": 64},
    "BigTIFF": {"large": True},
}


@pytest.mark.parametrize("compression", [1, 8, 32946, 32773])
@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("layout", LAYOUTS)
class TestTiffValues:
    """Every value that is written is read, whatever surrounds it."""

    @pytest.fixture
    def make(self, layout, order, compression):
        def make(pixels, bits, photometric, **more):
            return BytesIO(
                make_tiff(
                    pixels,
                    bits,
                    photometric,
                    order=order,
                    compression=compression,
                    **LAYOUTS[layout],
                    **more,
                )
            )

        return make

    def test_grey(self, make):
        for bits in (1, 2, 4, 8):
            values, white = GREY >> (8 - bits), 2**bits - 1
            np.testing.assert_array_equal(read_image(make(values, bits, 1)), unit(values, white))
            np.testing.assert_array_equal(
                read_image(make(values, bits, 0)), unit(white - values, white)
            )

    def test_16_bit_grey(self, make):
        np.testing.assert_array_equal(read_image(make(DEEP, 16, 1)), unit(DEEP, 65_535))
        np.testing.assert_array_equal(read_image(make(DEEP, 16, 0)), unit(65_535 - DEEP, 65_535))

    def test_palette(self, make):
        for bits in (1, 4, 8):
            values, colours = GREY >> (8 - bits), PALETTE[: 2**bits]
            for factor in (257, 1):  # 16 bits, as the standard says; and 8, as old programs write
                stored = tuple(map(int, colours.T.ravel().astype(int) * factor))
                found = read_image(make(values, bits, 3, more={320: stored}))
                np.testing.assert_array_equal(found, unit(colours[values]))

    def test_colours(self, make):
        np.testing.assert_array_equal(read_image(make(RGB, 8, 2)), unit(RGB))
        np.testing.assert_array_equal(read_image(make(RGB, 8, 2, planar=True)), unit(RGB))
        np.testing.assert_array_equal(read_image(make(RGBA, 8, 2, more={338: (2,)})), unit(RGB))
        deep = RGB.astype(np.uint16) * 256 + 77
        np.testing.assert_array_equal(read_image(make(deep, 16, 2)), unit(RGB))

    def test_cmyk(self, make):
        expected = Image.fromarray(RGBA, "CMYK").convert("RGB")
        np.testing.assert_array_equal(read_image(make(RGBA, 8, 5)), unit(expected))

    def test_orientation(self, make):
        np.testing.assert_array_equal(
            read_image(make(DEEP, 16, 1, more={274: (6,)})), unit(np.rot90(DEEP, -1), 65_535)
        )


@pytest.mark.parametrize("kind", ["raw", "tiff_lzw", "tiff_adobe_deflate", "packbits"])
def test_tiff_is_what_pillow_reads(kind):
    for pixels in (GREY, RGB, RGBA, SMOOTH, indexed(16), SMOOTH > 40):
        data = encode(pixels, "TIFF", compression=kind)
        with Image.open(BytesIO(data)) as reference:
            np.testing.assert_array_equal(read_image(BytesIO(data)), unit(reference.convert("RGB")))


def test_tiff_with_a_predictor():
    data = encode(RGB, "TIFF", compression="tiff_lzw", tiffinfo={317: 2})
    assert b"\x3d\x01\x03\0\x01\0\0\0\x02" in data
    np.testing.assert_array_equal(read_image(BytesIO(data)), unit(RGB))


def test_bits_in_reverse_order():
    reverse = np.packbits(np.unpackbits(GREY[..., None], axis=-1)[..., ::-1], axis=-1)[..., 0]
    data = make_tiff(reverse, 8, 1, more={266: (2,)})
    np.testing.assert_array_equal(read_image(BytesIO(data)), unit(GREY))


def test_smaller_versions_of_a_page_do_not_count():
    for tags in ({254: (1,)}, {255: (2,)}, {254: (4,)}):  # a thumbnail, as it once was; a mask
        small = make_tiff(GREY[:4, :4], 8, 1, more=tags)
        both = join_pages(make_tiff(GREY, 8, 1), small)
        np.testing.assert_array_equal(read_image(BytesIO(both)), unit(GREY))
        first = join_pages(small, make_tiff(GREY, 8, 1))
        np.testing.assert_array_equal(read_image(BytesIO(first)), unit(GREY))
        assert "no page at full size" in refused(small)


def join_pages(first: bytes, second: bytes) -> bytes:
    """Append a page to another one: all its places move by the length of the first."""
    shift = len(first)
    second = bytearray(second)
    (start,) = struct.unpack_from("<I", second, 4)
    (number,) = struct.unpack_from("<H", second, start)
    for entry in range(start + 2, start + 2 + 12 * number, 12):
        tag, kind, count, value = struct.unpack_from("<HHII", second, entry)
        if tag == 273 or count * {3: 2, 4: 4}[kind] > 4:
            struct.pack_into(
                "<HHII", second, entry, tag, 4 if tag == 273 else kind, count, value + shift
            )
    (place,) = struct.unpack_from("<I", first, 4)
    (number,) = struct.unpack_from("<H", first, place)
    joined = bytearray(first + second)
    struct.pack_into("<I", joined, place + 2 + 12 * number, shift + start)
    return bytes(joined)


PAGE = make_tiff(GREY, 8, 1)
TIFF_DAMAGE = "a damaged or unsupported TIFF image"
BAD_TIFF = {
    "two pages": (
        encode(GREY, "TIFF", save_all=True, append_images=[Image.fromarray(GREY)]),
        "a TIFF of several pages; save each page as a file",
    ),
    "floating point": (
        encode(GREY.astype(np.float32), "TIFF"),
        "a TIFF of floating-point numbers, whose black and white are not known",
    ),
    "half floating point": (
        make_tiff(DEEP, 16, 1, more={339: (3,)}),
        "a TIFF of floating-point numbers",
    ),
    "32 bits": (encode(GREY.astype(np.int32), "TIFF"), "a TIFF of signed integers"),
    "unsigned 32 bits": (
        make_tiff(GREY.astype(np.uint32), 32, 1),
        "a TIFF of 32-bit integers, whose white is not known",
    ),
    "signed": (make_tiff(DEEP, 16, 1, more={339: (2,)}), "a TIFF of signed integers"),
    "12 bits": (make_tiff(GREY, 8, 1, more={258: (12,)}), f"{TIFF_DAMAGE} (1 samples of 12 bits)"),
    "JPEG": (encode(RGB, "TIFF", compression="jpeg"), "a TIFF with JPEG compression; save it"),
    "fax": (encode(GREY > 9, "TIFF", compression="group4"), "a TIFF with CCITT compression"),
    "odd compression": (make_tiff(GREY, more={259: (777,)}), "a TIFF with compression 777;"),
    "YCbCr": (make_tiff(RGB, 8, 6), "a TIFF of YCbCr colours; save it as RGB"),
    "no colours": (make_tiff(GREY, more={262: ()}), "colours of kind -1"),
    "no size": (make_tiff(GREY, more={256: ()}), f"{TIFF_DAMAGE} (0 × 23 pixels)"),
    "no palette": (make_tiff(GREY, 8, 3), "a palette of 0 values"),
    "a short palette": (make_tiff(GREY, 8, 3, more={320: (1,) * 767}), "a palette of 767 values"),
    "two samples of two depths": (make_tiff(RGB, more={258: (8, 16, 8)}), "of 8 and 16 bits"),
    "planes of 16 bits": (
        make_tiff(np.dstack([DEEP] * 3), 16, 2, planar=True),
        "a TIFF of 16-bit colours in planes; save each pixel's colours together",
    ),
    "reverse bits, compressed": (make_tiff(GREY, compression=8, more={266: (2,)}), "fill order 2"),
    "predictor of floating point": (make_tiff(GREY, more={317: (3,)}), "predictor 3"),
    "strips of no rows": (make_tiff(GREY, more={278: (0,)}), "strips of 0 rows"),
    "too few strips": (make_tiff(GREY, more={278: (5,)}), "1 of 5 strips or tiles"),
    "no strips": (make_tiff(GREY, more={273: ()}), "0 of 1 strips or tiles"),
    "a strip beyond the end": (make_tiff(GREY, more={273: (10_000_000,)}), "truncated"),
    "a short strip": (make_tiff(GREY, parts=[GREY.tobytes()[:-1]]), "truncated"),
    "a short strip, compressed": (
        make_tiff(GREY, compression=32773, parts=[b"\x7f" + bytes(128)]),
        TIFF_DAMAGE,
    ),
    "an empty strip": (make_tiff(GREY, more={279: (0,)}), "truncated"),
    "the same strip for ever": (
        make_tiff(
            np.zeros((5_000, 3), np.uint8), rows=1, more={273: (8,) * 5_000, 279: (9_000,) * 5_000}
        ),
        "strips or tiles that overlap",
    ),
    "a tile of 2 GB": (make_tiff(GREY, tile=32, more={322: (65_520,), 323: (32_768,)}), "tiles of"),
    "tiles of odd sides": (make_tiff(GREY, tile=32, more={322: (33,)}), "tiles of 33 × 32"),
    "a loop of pages": (PAGE[:-4] + PAGE[4:8], "a loop of directories"),
    "a page beyond the end": (PAGE[:-4] + b"\xff\xff\xff\xff", "truncated"),
    "a value of a wrong type": (PAGE.replace(b"\0\1\3\0\1", b"\0\1\2\0\1", 1), "of type 2"),
    "two widths": (make_tiff(GREY, more={256: (29, 29)}), "2 values of tag 256"),
    "no directory": (b"II*\0\0\0\0\0", "no page at full size"),
    "head": (b"II*\0", "truncated"),
    "100,000 × 100,000": (
        make_tiff(GREY, more={256: (100_000,), 257: (100_000,)}),
        "1 of 4,348 strips or tiles",
    ),
    "bomb": (
        make_tiff(GREY, compression=8, more={256: (100_000,), 257: (100_000,), 278: (100_000,)}),
        "= 10,000,000,000 pixels, more than the limit of 64,000,000",
    ),
}


@pytest.mark.parametrize("what", BAD_TIFF)
def test_bad_tiff(what):
    data, reason = BAD_TIFF[what]
    assert reason in refused(data)


def test_tiff_with_too_many_directories(monkeypatch):
    monkeypatch.setattr(tiff, "PAGE_LIMIT", 1)
    small = make_tiff(GREY[:4, :4], 8, 1, more={254: (1,)})
    assert "more than 1 directories" in refused(join_pages(small, PAGE))


def test_bigtiff_with_too_many_tags(monkeypatch):
    monkeypatch.setattr(tiff, "TAG_LIMIT", 5)
    assert "a directory of 10 tags" in refused(make_tiff(GREY, large=True))


# ------------------------------------------------------------------------------------------ BMP


def bmp(
    pixels: bytes,
    bits: int,
    *,
    width=WIDTH,
    height=HEIGHT,
    compression=0,
    used=0,
    length=40,
    after=b"",
    within=b"",
    place=None,
) -> bytes:
    """Write a BMP file of these pixels, which are in its order already."""
    if length == 12:
        head = struct.pack("<IHHHH", 12, width, height, 1, bits)
    else:
        head = struct.pack(
            "<IiiHHIIiiII", length, width, height, 1, bits, compression, 0, 0, 0, used, 0
        )
        head += within.ljust(length - 40, b"\0")
    start = 14 + len(head) + len(after) if place is None else place
    return struct.pack("<2sIHHI", b"BM", 0, 0, 0, start) + head + after + pixels


def rows_of(pixels: np.ndarray, *, upright=False) -> bytes:
    rows = pixels if upright else pixels[::-1]
    packed = [row.tobytes() for row in rows]
    return b"".join(row + bytes(-len(row) % 4) for row in packed)


def palette_of(colours: np.ndarray, width=4) -> bytes:
    return b"".join(bytes(colour[::-1]).ljust(width, b"\0") for colour in colours)


NIBBLES = (GREY[:, ::2] & 0xF0) | (GREY[:, :1] >> 4)
MASKS_565 = struct.pack("<III", 0xF800, 0x7E0, 0x1F)
WORDS = RNG.integers(0, 65_536, (HEIGHT, WIDTH)).astype("<u2")
GOOD_BMP = {
    "24 bits": (bmp(rows_of(RGB[..., ::-1]), 24), RGB),
    "24 bits from the top": (bmp(rows_of(RGB[..., ::-1], upright=True), 24, height=-HEIGHT), RGB),
    "24 bits of OS/2": (bmp(rows_of(RGB[..., ::-1]), 24, length=12), RGB),
    "24 bits, new header": (bmp(rows_of(RGB[..., ::-1]), 24, length=124), RGB),
    "32 bits": (bmp(rows_of(np.dstack([RGB[..., ::-1], GREY])), 32), RGB),
    "32 bits with alpha": (
        bmp(
            rows_of(np.dstack([RGB[..., ::-1], GREY])),
            32,
            compression=3,
            length=56,
            within=struct.pack("<IIII", 0xFF0000, 0xFF00, 0xFF, 0xFF000000),
        ),
        RGB,
    ),
    "8 bits": (bmp(rows_of(GREY), 8, after=palette_of(PALETTE)), PALETTE[GREY]),
    "8 bits of OS/2": (
        bmp(rows_of(GREY), 8, length=12, after=palette_of(PALETTE, 3)),
        PALETTE[GREY],
    ),
    "8 bits of two greys": (  # Pillow takes it for 1 bit
        bmp(
            rows_of(GREY & 1), 8, used=2, after=palette_of(np.array([[0] * 3, [255] * 3], np.uint8))
        ),
        (GREY & 1) * 255,
    ),
    "4 bits": (
        bmp(rows_of(NIBBLES), 4, width=30, after=palette_of(PALETTE[:16])),
        PALETTE[np.dstack([NIBBLES >> 4, NIBBLES & 15]).reshape(HEIGHT, 30)],
    ),
    "1 bit": (
        bmp(rows_of(np.packbits(GREY & 1, axis=1)), 1, after=palette_of(PALETTE[:2])),
        PALETTE[GREY & 1],
    ),
    "16 bits, 5-6-5": (
        bmp(rows_of(WORDS), 16, compression=3, after=MASKS_565),
        np.dstack(
            [(WORDS >> 11) * 255 // 31, (WORDS >> 5 & 63) * 255 // 63, (WORDS & 31) * 255 // 31]
        ),
    ),
    "16 bits, 5-5-5": (
        bmp(rows_of(WORDS), 16),
        np.dstack(
            [
                (WORDS >> 10 & 31) * 255 // 31,
                (WORDS >> 5 & 31) * 255 // 31,
                (WORDS & 31) * 255 // 31,
            ]
        ),
    ),
}
BMP_DAMAGE = "a damaged or unsupported BMP image"
BAD_BMP = {
    "head": (b"BM", "truncated"),
    "header of 41 bytes": (bmp(b"", 24, length=41), f"{BMP_DAMAGE} (a header of 41 bytes)"),
    "RLE": (bmp(rows_of(GREY), 8, compression=1, after=palette_of(PALETTE)),
            "a BMP with RLE compression; save it without compression"),
    "JPEG": (bmp(b"", 24, compression=4), "a BMP with JPEG compression"),
    "no width": (bmp(b"", 24, width=0), f"{BMP_DAMAGE} (0 × 23 pixels)"),
    "negative width": (bmp(b"", 24, width=-3), f"{BMP_DAMAGE} (0 × 23 pixels)"),
    "one byte too few": (bmp(rows_of(RGB)[:-1], 24), "truncated"),
    "2 bits": (bmp(rows_of(GREY), 2), f"{BMP_DAMAGE} (2 bits with compression 0"),
    "odd masks": (bmp(rows_of(WORDS), 16, compression=3, after=bytes(12)), "odd masks"),
    "pixels within the header": (bmp(rows_of(RGB), 24, place=20), "pixels from byte 20"),
    "pixels within the palette": (bmp(rows_of(GREY), 8, place=60, after=palette_of(PALETTE)),
                                  "a palette of 256 colours within the pixels"),
    "colour beyond the palette": (bmp(rows_of(GREY), 8, used=9, after=palette_of(PALETTE[:9])),
                                  f"a pixel of colour {GREY.max()} in a palette of 9"),
    "bomb": (bmp(b"", 24, width=2**31 - 1, height=2**31 - 1), "truncated"),
}  # fmt: skip


@pytest.mark.parametrize("what", GOOD_BMP)
def test_good_bmp(what):
    data, expected = GOOD_BMP[what]
    np.testing.assert_array_equal(read_image(BytesIO(data)), unit(expected))


@pytest.mark.parametrize("what", BAD_BMP)
def test_bad_bmp(what):
    data, reason = BAD_BMP[what]
    assert reason in refused(data)


# ---------------------------------------------------------------------------------- GIF and WebP

GIF_DAMAGE = "a damaged or unsupported GIF image"
GIF = encode(GREY, "GIF")


@pytest.mark.parametrize("interlace", [0, 1])
def test_gif(interlace):
    for pixels in (GREY, indexed(16), indexed(200)):
        data = encode(pixels, "GIF", interlace=interlace)
        with Image.open(BytesIO(data)) as reference:
            expected = reference.convert("RGB")
        np.testing.assert_array_equal(read_image(BytesIO(data)), unit(expected))


def test_first_picture_of_a_gif():
    later = [Image.fromarray(GREY[::-1]), Image.fromarray(GREY[:, ::-1])]
    data = encode(GREY, "GIF", save_all=True, append_images=later)
    np.testing.assert_array_equal(read_image(BytesIO(data)), unit(GREY))


def test_transparent_colour_of_a_gif_is_shown():
    image = indexed(16)
    data = encode(image, "GIF", transparency=3)
    np.testing.assert_array_equal(read_image(BytesIO(data)), unit(image.convert("RGB")))


BAD_GIF = {
    "head": (b"GIF89a", "truncated"),
    "no pictures": (b"GIF89a" + struct.pack("<HHBBB", 9, 9, 0, 0, 0) + b";", "no picture"),
    "without its end": (GIF[:-1], "truncated"),
    "picture beyond the screen": (GIF[:6] + b"\x05\0" + GIF[8:], f"{GIF_DAMAGE} (a first picture"),
    "screen of 65,535 × 65,535": (GIF[:6] + b"\xff" * 4 + GIF[10:], "a first picture of 29 × 23"),
    "rows that are missing": (
        GIF[:8] + b"\xff\0" + GIF[10:].replace(b",\0\0\0\0\x1d\0\x17", b",\0\0\0\0\x1d\0\xff", 1),
        "truncated",
    ),
}


@pytest.mark.parametrize("what", BAD_GIF)
def test_bad_gif(what):
    data, reason = BAD_GIF[what]
    assert reason in refused(data)


def test_gif_with_too_many_bytes(monkeypatch):
    monkeypatch.setattr(gif, "GIF_BYTE_LIMIT", 100)
    assert refused(GIF) == "a GIF of more than 100 bytes"


def test_gif_that_ends_early_whatever_the_program_has_set(monkeypatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    assert refused(BAD_GIF["rows that are missing"][0]) == "truncated"


WEBP = {
    "lossy": encode(RGB, "WEBP"),
    "lossless": encode(RGB, "WEBP", lossless=True),
    "lossy with alpha": encode(RGBA, "WEBP"),
    "lossless with alpha": encode(RGBA, "WEBP", lossless=True, exact=True),
}


@pytest.mark.parametrize("what", WEBP)
def test_webp(what):
    with Image.open(BytesIO(WEBP[what])) as reference:
        expected = reference.convert("RGB")
    np.testing.assert_array_equal(read_image(BytesIO(WEBP[what])), unit(expected))
    assert read_header(BytesIO(WEBP[what])).channels == (4 if "alpha" in what else 3)


def test_orientation_of_webp():
    tags = Image.Exif()
    tags[0x0112] = 6
    data = encode(RGB, "WEBP", exif=tags, lossless=True)
    np.testing.assert_array_equal(read_image(BytesIO(data)), unit(np.rot90(RGB, -1)))


def chunk(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("<I", len(body)) + body + bytes(len(body) % 2)


def riff(*chunks: bytes) -> bytes:
    body = b"WEBP" + b"".join(chunks)
    return b"RIFF" + struct.pack("<I", len(body)) + body


VP8L = WEBP["lossless"][12:]
BAD_WEBP = {
    "head": (b"RIFF\x04\0\0\0WEBP", "truncated"),
    "animated": (
        encode(RGB, "WEBP", save_all=True, append_images=[Image.fromarray(RGB[::-1])]),
        "an animated WebP: it holds several images",
    ),
    "two pictures": (riff(VP8L, VP8L), "it holds 2 pictures"),
    "no picture": (riff(chunk(b"EXIF", b"Exif\0\0II*\0")), "it holds 0 pictures"),
    "short header": (riff(chunk(b"VP8X", b"12345"), VP8L), "a header of 5 bytes"),
    "two sizes": (riff(chunk(b"VP8X", bytes(10)), VP8L), "a picture of 29 × 23 on another size"),
    "no start": (riff(chunk(b"VP8 ", bytes(20))), "no start of a picture"),
    "bomb": (
        riff(chunk(b"VP8L", b"\x2f" + struct.pack("<I", 0x0FFF_FFFF) + bytes(99))),
        "16,384 × 16,384 = 268,435,456 pixels, more than the limit",
    ),
}


@pytest.mark.parametrize("what", BAD_WEBP)
def test_bad_webp(what):
    data, reason = BAD_WEBP[what]
    assert reason in refused(data)


# ----------------------------------------------------------------------------------- any of them

FILES = {
    **{f"TIFF {kind}": encode(SMOOTH, "TIFF", compression=kind)
       for kind in ("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits")},
    "TIFF tiles": make_tiff(SMOOTH, tile=16, compression=8),
    "TIFF palette": encode(indexed(16), "TIFF", compression="tiff_lzw"),
    "BMP": encode(SMOOTH, "BMP"),
    "BMP 24": encode(RGB[:5, :5], "BMP"),
    "GIF": encode(SMOOTH, "GIF"),
    "GIF palette": encode(indexed(16), "GIF"),
    "WebP": encode(SMOOTH, "WEBP"),
    "WebP lossless": encode(np.dstack([SMOOTH] * 3), "WEBP", lossless=True),
    "WebP alpha": encode(np.dstack([SMOOTH] * 4), "WEBP"),
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
class TestDamage:
    def test_truncated_anywhere(self, name, capfd):
        data = FILES[name]
        for n in range(len(data)):
            assert refused(data[:n])
        capfd.readouterr()  # libtiff describes damage there

    def test_any_damage_gives_an_image_or_an_error(self, name, capfd):
        rnd = random.Random(0)
        for _ in range(400):
            data = bytearray(FILES[name])
            for _ in range(rnd.randint(1, 4)):
                data[rnd.randrange(2, len(data))] = rnd.randrange(256)
            with suppress(ImageReadError):
                image = read_image(BytesIO(bytes(data)), pixel_limit=1_000_000)
                assert image.min() >= 0
                assert image.max() <= 1
        capfd.readouterr()

    def test_name_does_not_matter(self, name, tmp_path):
        (tmp_path / "x.jpg").write_bytes(FILES[name])
        np.testing.assert_array_equal(
            read_image(tmp_path / "x.jpg"), read_image(BytesIO(FILES[name]))
        )

    def test_limit_of_pillow_is_left_alone(self, name, monkeypatch):
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
        if name.startswith("WebP"):  # whose plug-in compares the size itself
            assert "exceeds limit" in refused(FILES[name])
        else:
            assert read_image(BytesIO(FILES[name])).ndim == 3

    def test_limit_is_that_of_the_call(self, name):
        assert "more than the limit of 10" in refused(FILES[name], pixel_limit=10)


def test_upright_image_is_that_of_pillow():
    for orientation in range(1, 9):
        data = make_tiff(RGB, more={274: (orientation,)})
        with Image.open(BytesIO(make_tiff(RGB))) as stored:
            stored.getexif()[0x0112] = orientation
            expected = ImageOps.exif_transpose(stored)
        np.testing.assert_array_equal(read_image(BytesIO(data)), unit(expected))
