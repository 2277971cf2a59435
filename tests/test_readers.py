"""Tests of the readers."""

import os
import random
import struct
import tempfile
import threading
import zlib
from contextlib import contextmanager, suppress
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageFile, ImageOps
from support.tiffs import make_tiff

from brainfeat.errors import ImageReadError, ParameterError
from brainfeat.readers import ImageBytes, ImageHeader, read_bytes, read_header, read_image, sources

PIXELS = np.random.default_rng(0).integers(0, 256, (20, 17, 3), dtype=np.uint8)
RGB = Image.fromarray(PIXELS)
GREY16 = np.random.default_rng(1).integers(0, 65536, (20, 17), dtype=np.uint16)


def encode(image: Image.Image, kind: str, **options) -> bytes:
    file = BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(width: int, height: int, *, bits=8, colour=0, rows=b"", extra=b"") -> bytes:
    head = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    body = chunk(b"IHDR", head) + extra + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def exif(orientation: int, *, order="<", kind=3) -> bytes:
    value = struct.pack(f"{order}{'H2x' if kind == 3 else 'I'}", orientation)
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", 8)
    entry = struct.pack(f"{order}HHI", 0x0112, kind, 1) + value
    other = struct.pack(f"{order}HHII", 0x0110, 2, 10_000, 10_000)  # leads out of the block
    return b"Exif\0\0" + head + struct.pack(f"{order}H", 2) + other + entry


def refused(data: bytes, **options) -> str:
    with pytest.raises(ImageReadError) as caught:
        read_image(BytesIO(data), **options)
    assert caught.value.reason.isprintable()
    return caught.value.reason


PALETTE = RGB.quantize(16)
GOOD = {
    "grey.jpg": encode(RGB.convert("L"), "JPEG"),
    "rgb.jpg": encode(RGB, "JPEG"),
    "progressive.jpg": encode(RGB, "JPEG", progressive=True),
    "cmyk.jpg": encode(RGB.convert("CMYK"), "JPEG"),
    "grey.png": encode(RGB.convert("L"), "PNG"),
    "grey-transparent.png": encode(RGB.convert("L"), "PNG", transparency=7),
    "grey-alpha.png": encode(RGB.convert("LA"), "PNG"),
    "rgb.png": encode(RGB, "PNG"),
    "rgb-transparent.png": encode(RGB, "PNG", transparency=(1, 2, 3)),
    "rgba.png": encode(Image.merge("RGBA", (*RGB.split(), RGB.getchannel(1))), "PNG"),
    "palette.png": encode(PALETTE, "PNG"),
    "palette-transparent.png": encode(PALETTE, "PNG", transparency=bytes(range(0, 240, 16))),
    "palette-4-bit.png": encode(PALETTE, "PNG", bits=4),
    "black-white.png": encode(RGB.convert("1"), "PNG"),
    "one-pixel.png": encode(RGB.resize((1, 1)), "PNG"),
    "row.png": encode(Image.new("L", (60_000, 1), 9), "PNG"),
    "column.jpg": encode(Image.new("L", (1, 60_000), 9), "JPEG"),
}


NO_IMAGE = "not a JPEG, PNG, TIFF, BMP, GIF or WebP image"
NO_IMAGES = {
    "nothing": (b"", "empty file"),
    "JPEG signature": (b"\xff\xd8\xff", "truncated"),
    "PNG signature": (b"\x89PNG\r\n\x1a\n", "truncated"),
    "zeros": (bytes(1000), NO_IMAGE),
    "HTML": (b"<html>404 not found</html>", NO_IMAGE),
    "PostScript": (
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
        NO_IMAGE,
    ),
    "PNG after a line": (b"\n" + GOOD["rgb.png"], NO_IMAGE),
    "12-bit JPEG": (
        GOOD["rgb.jpg"].replace(b"\xff\xc0\0\x11\x08", b"\xff\xc0\0\x11\x0c"),
        "cannot handle 12-bit layers",
    ),
    "JPEG of markers only": (b"\xff\xd8\xff\xd9", "damaged or unsupported JPEG"),
    "3-bit PNG": (png(2, 2, bits=3), "damaged or unsupported PNG"),
    "PNG without width": (png(0, 2), "damaged or unsupported PNG"),
    "PNG with too few rows": (png(2, 2, rows=b"\0"), "truncated"),
    "PNG with an unknown filter": (png(2, 1, rows=b"\x09\0\0"), "damaged or unsupported PNG"),
    "PNG with an empty header": (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", b"") + chunk(b"IDAT", b"") + chunk(b"IEND", b""),
        "a header of 0 bytes",
    ),
    "PNG without pixels": (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", bytes(13)) + chunk(b"IEND", b""),
        "damaged or unsupported PNG image (it holds no pixels)",
    ),
}


class TestPixels:
    @pytest.mark.parametrize("name", GOOD)
    def test_8_bits_are_what_pillow_reads(self, name, tmp_path):
        (tmp_path / name).write_bytes(GOOD[name])
        image = read_image(tmp_path / name)
        with Image.open(BytesIO(GOOD[name])) as reference:
            reference.info.pop("transparency", None)  # Pillow warns of it
            expected = (np.asarray(reference.convert("RGB")) / 255).astype(np.float32)
        assert image.dtype == np.float32
        assert image.flags.writeable
        np.testing.assert_array_equal(image, expected)

    @pytest.mark.parametrize("name", ["grey.jpg", "rgb.jpg", "cmyk.jpg", "rgba.png", "palette.png"])
    def test_8_bits_are_what_keras_reads(self, name):
        from keras.utils import load_img

        expected = np.asarray(load_img(BytesIO(GOOD[name])), np.float32) / np.float32(255)
        np.testing.assert_array_equal(read_image(BytesIO(GOOD[name])), expected)

    def test_inverted_cmyk_of_adobe(self):
        # Adobe's marker declares inverted inks; Pillow assumes them.
        data = encode(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG", quality=100)
        assert b"Adobe" in data
        np.testing.assert_allclose(read_image(BytesIO(data))[0, 0], [1, 0, 0], atol=0.02)

    def test_16_bit_grey_keeps_its_full_range(self):
        image = read_image(BytesIO(encode(Image.fromarray(GREY16), "PNG")))
        expected = (GREY16 / 65535).astype(np.float32)
        np.testing.assert_array_equal(image, np.dstack([expected] * 3))

    def test_16_bit_grey_is_big_endian_in_the_file(self):
        rows = b"\0" + bytes([0x00, 0x01, 0xFF, 0xFE])
        image = read_image(BytesIO(png(2, 1, bits=16, rows=rows)))
        np.testing.assert_array_equal(image[0, :, 0], np.float32([1 / 65535, 65534 / 65535]))

    def test_16_bit_rgb_keeps_the_upper_8_bits(self):
        rows = b"\0" + bytes([0x00, 0xFF, 0x80, 0x00, 0xFF, 0xFF])
        image = read_image(BytesIO(png(1, 1, bits=16, colour=2, rows=rows)))
        np.testing.assert_array_equal(image[0, 0], np.float32([0, 128 / 255, 1]))

    def test_extension_does_not_matter(self, tmp_path):
        (tmp_path / "x.jpg").write_bytes(GOOD["rgb.png"])
        np.testing.assert_array_equal(
            read_image(tmp_path / "x.jpg"), read_image(BytesIO(GOOD["rgb.png"]))
        )

    def test_bytes_after_the_end_do_not_matter(self):
        for name in ("rgb.jpg", "rgb.png"):
            data = GOOD[name]
            np.testing.assert_array_equal(
                read_image(BytesIO(data + b"PK\x03\x04 more")), read_image(BytesIO(data))
            )

    def test_first_of_several_images_in_a_jpeg(self):
        data = encode(RGB, "MPO", save_all=True, append_images=[RGB.rotate(180)])
        with Image.open(BytesIO(data)) as reference:
            assert reference.n_frames == 2
            expected = (np.asarray(reference) / 255).astype(np.float32)
        np.testing.assert_array_equal(read_image(BytesIO(data)), expected)

    def test_threads_read_alike(self):
        expected = read_image(BytesIO(GOOD["rgb.jpg"]))
        results = [None] * 8

        def work(i):
            results[i] = read_image(BytesIO(GOOD["rgb.jpg"]))

        threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert all(np.array_equal(result, expected) for result in results)

    def test_real_slices(self, real_data):
        files = sorted((real_data / "data" / "brain-mri" / "Testing").rglob("*.jpg"))[::60]
        assert len(files) > 16
        for file in files:
            with Image.open(file) as reference:
                expected = (np.asarray(reference.convert("RGB")) / 255).astype(np.float32)
            np.testing.assert_array_equal(read_image(file), expected)


class TestOrientation:
    @pytest.mark.parametrize(
        ("kind", "orientation"), [*(("JPEG", place) for place in range(1, 9)), ("PNG", 6)]
    )
    def test_is_that_of_pillow(self, kind, orientation):
        tags = Image.Exif()
        tags[0x0112] = orientation
        data = encode(RGB, kind, exif=tags)
        with Image.open(BytesIO(data)) as reference:
            expected = (np.asarray(ImageOps.exif_transpose(reference)) / 255).astype(np.float32)
        np.testing.assert_array_equal(read_image(BytesIO(data)), expected)
        header = read_header(BytesIO(data))
        assert (header.width, header.height) == RGB.size

    def test_16_bit_images_are_turned(self):
        tags = Image.Exif()
        tags[0x0112] = 6
        data = encode(Image.fromarray(GREY16), "PNG", exif=tags)
        expected = np.rot90(GREY16, -1) / 65535
        np.testing.assert_array_equal(read_image(BytesIO(data))[..., 0], np.float32(expected))

    @pytest.mark.parametrize("order", "<>")
    @pytest.mark.parametrize("kind", [3, 4])
    def test_is_found_behind_damaged_entries(self, order, kind):
        data = encode(RGB, "JPEG", exif=exif(3, order=order, kind=kind))
        upright = read_image(BytesIO(GOOD["rgb.jpg"]))
        np.testing.assert_array_equal(read_image(BytesIO(data)), upright[::-1, ::-1])

    @pytest.mark.parametrize(
        "block",
        [
            exif(0),
            exif(6).replace(struct.pack("<H", 0x0112), struct.pack("<H", 0x0113)),
            exif(9),
            exif(6, kind=3)[:-13],
            exif(6)[:20],
            b"Exif\0\0",
            b"Exif\0\0II*\0\xff\xff\xff\xff",
            b"Exif\0\0MM\0*\0\0\0\x08\xff\xff",
            b"Exif\0\0nonsense",
        ],
    )
    @pytest.mark.parametrize("name", ["JPEG", "PNG"])
    def test_bad_exif_leaves_a_good_image_as_it_is(self, block, name):
        data = encode(RGB, name, exif=block)
        assert block[6:] in data
        expected = read_image(BytesIO(encode(RGB, name)))
        np.testing.assert_array_equal(read_image(BytesIO(data)), expected)


class TestHeader:
    @pytest.mark.parametrize(
        ("name", "width", "height", "channels", "kind"),
        [
            ("grey.jpg", 17, 20, 1, "JPEG"),
            ("rgb.jpg", 17, 20, 3, "JPEG"),
            ("cmyk.jpg", 17, 20, 4, "JPEG"),
            ("grey-alpha.png", 17, 20, 2, "PNG"),
            ("rgba.png", 17, 20, 4, "PNG"),
            ("palette.png", 17, 20, 1, "PNG"),
            ("column.jpg", 1, 60_000, 1, "JPEG"),
        ],
    )
    def test_is_as_in_the_file(self, name, width, height, channels, kind):
        assert read_header(BytesIO(GOOD[name])) == ImageHeader(width, height, channels, kind)

    def test_does_not_decode(self):
        data = png(8000, 8000, rows=b"no rows at all")
        assert read_header(BytesIO(data)).width == 8000
        assert "truncated" in refused(data)

    def test_shares_the_limits_of_the_image(self):
        with pytest.raises(ImageReadError, match="pixels, more than the limit of 10"):
            read_header(BytesIO(GOOD["rgb.png"]), pixel_limit=10)


class TestDamage:
    @pytest.mark.parametrize("name", ["rgb.jpg", "progressive.jpg", "cmyk.jpg", "rgb.png"])
    def test_truncated_anywhere(self, name):
        data = GOOD[name]
        assert {refused(data[:n]) for n in range(20, len(data))} == {"truncated"}

    @pytest.mark.parametrize("name", ["rgb.jpg", "rgb.png"])
    def test_truncated_whatever_the_program_has_set(self, name, monkeypatch):
        monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
        data = GOOD[name]
        for n in range(20, len(data), 7):
            refused(data[:n])

    def test_thumbnail_does_not_hide_a_truncated_image(self):
        block = exif(1) + b"\0\0\0\0" + GOOD["grey.jpg"]
        data = encode(RGB, "JPEG", exif=block)
        assert data.count(b"\xff\xd9") == 2
        assert refused(data[:-100]) == "truncated"

    def test_each_flipped_bit_of_png_pixels_is_noticed(self):
        data = GOOD["grey.png"]
        start = data.index(b"IDAT")
        for i in range(start, len(data) - 12, 5):
            refused(data[:i] + bytes([data[i] ^ 16]) + data[i + 1 :])

    @pytest.mark.parametrize("what", NO_IMAGES)
    def test_incomplete_and_invalid_images(self, what):
        data, reason = NO_IMAGES[what]
        assert reason in refused(data)

    def test_animated_png(self):
        data = encode(RGB, "PNG", save_all=True, append_images=[RGB.rotate(90)])
        assert refused(data) == "an animated PNG: it holds several images"

    @pytest.mark.parametrize("frames", [0, 2**32 - 1])
    def test_damaged_animated_png(self, frames):
        control = chunk(b"acTL", struct.pack(">II", frames, 0))
        assert "animated" in refused(png(1, 1, rows=b"\0\0", extra=control))

    def test_error_comes_from_the_cause(self):
        with pytest.raises(ImageReadError) as caught:
            read_image(BytesIO(png(2, 1, rows=b"\x09\0\0")))
        assert isinstance(caught.value.__cause__, OSError)

    @given(st.sampled_from(sorted(set(GOOD) - {"row.png", "column.jpg"})), st.randoms())
    def test_any_damage_gives_an_image_or_an_error(self, name, rnd: random.Random):
        data = bytearray(GOOD[name])
        for _ in range(rnd.randint(1, 4)):
            data[rnd.randrange(2, min(len(data), 400))] = rnd.randrange(256)
        if data[1:4] == b"PNG":
            data = mend_checksums(data)  # so that the damage gets beyond them
        with suppress(ImageReadError):
            image = read_image(BytesIO(bytes(data)), pixel_limit=10_000_000)
            assert image.min() >= 0
            assert image.max() <= 1


def mend_checksums(data: bytearray) -> bytearray:
    place = 8
    while place + 12 <= len(data):
        end = place + 8 + struct.unpack_from(">I", data, place)[0]
        if end + 4 > len(data):
            break
        struct.pack_into(">I", data, end, zlib.crc32(data[place + 4 : end]))
        place = end + 4
    return data


class TestLimits:
    @pytest.mark.parametrize("side", [8_001, 12_000, 20_000, 2**31 - 1])
    def test_bombs_are_refused_by_their_header(self, side, recwarn):
        reason = refused(png(side, side, rows=bytes(100)))
        assert reason.endswith(f"= {side * side:,} pixels, more than the limit of 64,000,000")
        assert not recwarn.list

    def test_jpeg_bomb(self):
        head = GOOD["grey.jpg"].index(b"\xff\xc0") + 5
        data = bytearray(GOOD["grey.jpg"])
        struct.pack_into(">HH", data, head, 65_000, 65_000)
        assert "4,225,000,000 pixels" in refused(bytes(data))

    def test_second_header_does_not_get_around_the_limit(self):
        big = chunk(b"IHDR", struct.pack(">IIBBBBB", 20_000, 20_000, 8, 0, 0, 0, 0))
        assert "no other, must be IHDR" in refused(png(1, 1, rows=b"\0\0", extra=big))

    def test_limit_is_inclusive(self):
        data = GOOD["rgb.png"]
        assert read_image(BytesIO(data), pixel_limit=340).shape == (20, 17, 3)
        assert refused(data, pixel_limit=339) == "17 × 20 = 340 pixels, more than the limit of 339"

    def test_limit_of_pillow_is_left_alone(self, monkeypatch):
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
        assert read_image(BytesIO(GOOD["rgb.png"])).shape == (20, 17, 3)
        assert Image.MAX_IMAGE_PIXELS == 10

    def test_formats_can_be_narrowed(self):
        assert read_image(BytesIO(GOOD["rgb.png"]), formats=["PNG"]).shape == (20, 17, 3)
        assert refused(GOOD["rgb.jpg"], formats=["PNG"]) == "not a PNG image"

    @pytest.mark.parametrize("formats", [["ICO"], "PNG"])
    def test_unknown_formats(self, formats):
        with pytest.raises(ParameterError, match="expected some of JPEG, PNG"):
            read_image(BytesIO(GOOD["rgb.png"]), formats=formats)


class TestFiles:
    @pytest.mark.parametrize("read", [read_image, read_header, read_bytes])
    @pytest.mark.parametrize(
        ("name", "reason"),
        [
            ("missing.jpg", "no such file"),
            ("folder.jpg", "a folder, not a file"),
            ("pipe.jpg", "not a regular file"),
            ("empty.jpg", "empty file"),
            ("broken.jpg", "no such file"),
            ("loop.jpg", "too many levels of symbolic links"),
            ("x" * 300, "file name too long"),
            ("a\0b", "not a valid path"),
        ],
    )
    def test_paths_that_are_not_files(self, tmp_path, read, name, reason):
        (tmp_path / "folder.jpg").mkdir()
        (tmp_path / "empty.jpg").touch()
        (tmp_path / "broken.jpg").symlink_to("nowhere")
        (tmp_path / "loop.jpg").symlink_to("loop.jpg")
        os.mkfifo(tmp_path / "pipe.jpg")
        with pytest.raises(ImageReadError) as caught:
            read(tmp_path / name)
        assert caught.value.reason == reason
        assert caught.value.path == str(tmp_path / name)

    def test_endless_device(self):
        with pytest.raises(ImageReadError, match="not a regular file"):
            read_image("/dev/zero")

    def test_permission_denied(self):
        with tempfile.TemporaryDirectory() as folder:
            Path(folder).chmod(0o755)
            file = Path(folder) / "1.png"
            file.write_bytes(GOOD["rgb.png"])
            file.chmod(0)
            with as_nobody(), pytest.raises(ImageReadError, match=r"1\.png: permission denied"):
                read_image(file)

    def test_text_paths(self, tmp_path):
        (tmp_path / "1.png").write_bytes(GOOD["rgb.png"])
        assert read_image(str(tmp_path / "1.png")).shape == (20, 17, 3)

    def test_file_objects_are_read_from_where_they_are(self):
        file = BytesIO(b"head" + GOOD["rgb.png"])
        file.seek(4)
        assert read_image(file).shape == (20, 17, 3)
        assert not file.closed

    def test_endless_file_object(self, monkeypatch):
        monkeypatch.setattr(sources, "BYTE_LIMIT", 1000)
        with open("/dev/zero", "rb") as file, pytest.raises(ImageReadError, match="1,000 bytes"):
            read_image(file)

    def test_errors_name_the_image(self, tmp_path):
        with pytest.raises(ImageReadError, match=r"^<bytes>: empty file$"):
            read_image(BytesIO())
        with pytest.raises(ImageReadError, match=r"^a/1\.jpg: empty file$"):
            read_image(BytesIO(), name="a/1.jpg")
        with pytest.raises(ImageReadError, match=r"^a/1\.jpg: no such file$"):
            read_image(tmp_path / "nowhere", name="a/1.jpg")

    def test_bytes_are_those_of_the_file(self, tmp_path):
        (tmp_path / "x").write_bytes(b"\0\1\2")
        assert read_bytes(tmp_path / "x") == b"\0\1\2"
        assert read_bytes(tmp_path / "x", byte_limit=3) == b"\0\1\2"
        with pytest.raises(ImageReadError, match="more than the limit of 2 bytes"):
            read_bytes(tmp_path / "x", byte_limit=2)


@contextmanager
def as_nobody():
    """Give up the right to read everything, where the tests run as root."""
    was = os.geteuid()
    if was == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(was)


RAMP = np.add.outer(np.arange(20), np.arange(17)).astype(np.uint8) * 6
FLAT = np.full_like(RAMP, 0)
IN_ALPHA = {
    "grey of 0": encode(Image.fromarray(np.dstack([FLAT, RAMP])), "PNG"),
    "white": encode(Image.fromarray(np.dstack([FLAT + 255] * 3 + [RAMP])), "PNG"),
    "red": encode(Image.fromarray(np.dstack([FLAT + 255, FLAT, FLAT, RAMP])), "PNG"),
    "TIFF": encode(Image.fromarray(np.dstack([FLAT] * 3 + [RAMP])), "TIFF"),
    "TIFF, grey": make_tiff(np.dstack([FLAT, RAMP]), 8, 1, more={338: (2,)}),
    "TIFF, premultiplied": make_tiff(np.dstack([RAMP] * 4), 8, 2, more={338: (1,)}),
    "WebP": encode(
        Image.fromarray(np.dstack([FLAT] * 3 + [RAMP])), "WEBP", lossless=True, exact=True
    ),
    "palette": png(
        17,
        20,
        colour=3,
        extra=chunk(b"PLTE", bytes(3 * 256)) + chunk(b"tRNS", bytes(range(256))),
        rows=b"".join(b"\0" + row.tobytes() for row in RAMP),
    ),
    "16 bits": png(
        17,
        20,
        bits=16,
        colour=4,
        rows=b"".join(
            b"\0" + np.dstack([row * 0, row]).astype(">u2").tobytes()
            for row in RAMP.astype(np.uint16) * 257
        ),
    ),
}


class TestAlpha:
    @pytest.mark.parametrize("name", IN_ALPHA)
    def test_the_picture_in_it_is_read_as_grey(self, name):
        file = ImageBytes(IN_ALPHA[name])
        np.testing.assert_array_equal(
            read_image(file), np.dstack([(RAMP / 255).astype(np.float32)] * 3)
        )
        assert file.in_alpha

    def test_it_is_turned_with_the_image(self):
        data = make_tiff(np.dstack([FLAT, RAMP]), 8, 1, more={338: (2,), 274: (6,)})
        expected = np.rot90(RAMP, -1) / 255
        np.testing.assert_array_equal(read_image(BytesIO(data))[..., 0], expected.astype("f4"))

    @pytest.mark.parametrize(
        "pixels",
        [
            np.dstack([RAMP] * 3 + [RAMP[::-1]]),  # colours vary
            np.dstack([FLAT + 9] * 4),  # alpha does not
        ],
    )
    def test_any_other_is_dropped(self, pixels):
        file = ImageBytes(encode(Image.fromarray(pixels), "PNG"))
        np.testing.assert_array_equal(read_image(file), (pixels[..., :3] / 255).astype(np.float32))
        assert not file.in_alpha

    def test_one_pixel_of_another_colour_is_enough(self):
        pixels = np.dstack([FLAT] * 3 + [RAMP])
        pixels[3, 4, 1] = 1
        assert read_image(BytesIO(encode(Image.fromarray(pixels), "PNG"))).max() == np.float32(
            1 / 255
        )
