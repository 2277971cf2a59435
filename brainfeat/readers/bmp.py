"""BMP files of Windows and OS/2 without compression: where their pixels and their colours lie."""

import struct

from brainfeat.errors import ImageReadError
from brainfeat.readers.containers import Contents, ImageHeader, RawLayout, check_size, damaged

BMP_SIGNATURE = b"BM"

_START = 14  # of the second header, which begins with its length
_LENGTHS = (12, 40, 52, 56, 64, 108, 124)  # of the second header
_PLAIN, _MASKED = 0, 3
_COMPRESSIONS = {1: "RLE", 2: "RLE", 4: "JPEG", 5: "PNG"}
_PALETTES = {1: "P;1", 4: "P;4", 8: "P"}
_RAW = {16: ("RGB", "BGR;15"), 24: ("RGB", "BGR"), 32: ("RGB", "BGRX")}
_RAW_MASKED = {  # by bits and the masks of red, green, blue and alpha
    (16, 0x7C00, 0x3E0, 0x1F, 0): ("RGB", "BGR;15"),
    (16, 0xF800, 0x7E0, 0x1F, 0): ("RGB", "BGR;16"),
    (32, 0xFF0000, 0xFF00, 0xFF, 0): ("RGB", "BGRX"),
    (32, 0xFF000000, 0xFF0000, 0xFF00, 0): ("RGB", "XBGR"),
    (32, 0xFF, 0xFF00, 0xFF0000, 0): ("RGB", "RGBX"),
    (32, 0xFF0000, 0xFF00, 0xFF, 0xFF000000): ("RGBA", "BGRA"),
    (32, 0xFF000000, 0xFF0000, 0xFF00, 0xFF): ("RGBA", "ABGR"),
    (32, 0xFF, 0xFF00, 0xFF0000, 0xFF000000): ("RGBA", "RGBA"),
}


def unpack_bmp(data: bytes, *, name: str) -> Contents:
    """Split a BMP file into its parts.

    Parameters
    ----------
    data : bytes
        The file, which starts with `BMP_SIGNATURE`.
    name : str
        Name of the image in error messages.

    Returns
    -------
    Contents

    Raises
    ------
    ImageReadError
        If the file is compressed, has another number of bits or other colour masks than are
        common, or ends before its pixels do.
    """
    if len(data) < _START + 12:
        raise ImageReadError(name, "truncated")
    place, length = struct.unpack_from("<II", data, 10)
    if length not in _LENGTHS:
        raise damaged("BMP", name, f"a header of {length:,} bytes")
    if len(data) < _START + length:
        raise ImageReadError(name, "truncated")
    if length == 12:
        width, height, _, bits = struct.unpack_from("<HHHH", data, _START + 4)
        compression = used = 0
    else:
        width, height, _, bits, compression = struct.unpack_from("<iiHHI", data, _START + 4)
        (used,) = struct.unpack_from("<I", data, _START + 32)
    height, direction = abs(height), 1 if height < 0 else -1
    check_size("BMP", name, max(width, 0), height)
    masks_after = 12 if compression == _MASKED and length == 40 else 0
    stride = (width * bits + 31) // 32 * 4
    mode, rawmode = _choose_mode(data, bits, compression, length, name)
    palette = b""
    if bits in _PALETTES:
        start, width_of_colour = _START + length, 3 if length == 12 else 4
        number = min(used or 1 << bits, 1 << bits)
        end = start + number * width_of_colour
        if end > len(data):
            raise ImageReadError(name, "truncated")
        if end > place:
            raise damaged("BMP", name, f"a palette of {number} colours within the pixels")
        palette = _read_palette(data[start:end], width_of_colour)
    if place < _START + length + masks_after:
        raise damaged("BMP", name, f"pixels from byte {place:,}")
    if place + stride * height > len(data):
        raise ImageReadError(name, "truncated")
    return Contents(
        ImageHeader(width, height, {"P": 1, "RGBA": 4}.get(mode, 3), "BMP"),
        data[place : place + stride * height],
        colours=len(palette) // 3 if palette else None,
        palette=palette,
        raw=RawLayout(mode, rawmode, stride, direction),
    )


def _choose_mode(
    data: bytes, bits: int, compression: int, length: int, name: str
) -> tuple[str, str]:
    """Return Pillow's mode of the image and of its pixels in the file."""
    if compression in _COMPRESSIONS:
        raise ImageReadError(
            name,
            f"a BMP with {_COMPRESSIONS[compression]} compression; save it without compression",
        )
    if compression == _PLAIN and bits in _PALETTES:
        return "P", _PALETTES[bits]
    if compression == _PLAIN and bits in _RAW:
        return _RAW[bits]
    if compression == _MASKED and length != 64 and len(data) >= _START + 56:
        masks = struct.unpack_from("<III", data, _START + 40)
        alpha = struct.unpack_from("<I", data, _START + 52) if length >= 56 else (0,)
        if found := _RAW_MASKED.get((bits, *masks, *alpha)):
            return found
    raise damaged("BMP", name, f"{bits} bits with compression {compression} or odd masks")


def _read_palette(stored: bytes, width: int) -> bytes:
    """Return red, green and blue of each colour, which are stored in the opposite order."""
    palette = bytearray(len(stored) // width * 3)
    for channel in range(3):
        palette[channel::3] = stored[2 - channel :: width]
    return bytes(palette)
