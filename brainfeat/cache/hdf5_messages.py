"""What HDF5's object headers may say: types, shapes, fill values, filters, attribute values.

Each is compared with the few encodings that :mod:`brainfeat.cache.writing` makes HDF5 write. Names
and numbers follow the HDF5 File Format Specification, version 3.0 (The HDF Group), section IV.A.2.
"""

import struct
from math import isfinite
from typing import Any

import numpy as np

from brainfeat.errors import BrainfeatError

TEXT_LIMIT = 65_536
_DIMENSION_LIMIT = 4

# The encodings of the number types, and the first bytes of that of a NUL-padded UTF-8 text.
_NUMBERS: dict[bytes, np.dtype[Any]] = {
    bytes.fromhex("1000000001000000 00000800"): np.dtype("|u1"),
    bytes.fromhex("1008000001000000 00000800"): np.dtype("|i1"),
    bytes.fromhex("1008000002000000 00001000"): np.dtype("<i2"),
    bytes.fromhex("1008000004000000 00002000"): np.dtype("<i4"),
    bytes.fromhex("1008000008000000 00004000"): np.dtype("<i8"),
    bytes.fromhex("11200f0002000000 00001000 0a05000a 0f000000"): np.dtype("<f2"),
    bytes.fromhex("11201f0004000000 00002000 17080017 7f000000"): np.dtype("<f4"),
    bytes.fromhex("11203f0008000000 00004000 340b0034 ff030000"): np.dtype("<f8"),
}
_TEXT = bytes.fromhex("13110000")
# Version 2, allocated late or chunk by chunk, written if set by the user, the default value.
FILLS = tuple(bytes([2, when, 2, 1, 0, 0, 0, 0]) for when in (2, 3))
FLETCHER32 = struct.pack("<BB6xHHHH16s", 1, 1, 3, 16, 0, 0, b"fletcher32")


class GuardError(BrainfeatError, ValueError):
    """A file holds something that brainfeat does not write; HDF5 must not open it."""


def read_type(body: bytes) -> np.dtype[Any] | None:
    """Return the type of a datatype message, or None if the type is not allowed."""
    for encoding, dtype in _NUMBERS.items():
        if body.rstrip(b"\0") == encoding.rstrip(b"\0") and len(body) - len(encoding) in (0, 4):
            return dtype
    if len(body) == 8 and body[:4] == _TEXT:
        size = int.from_bytes(body[4:], "little")
        return np.dtype(f"S{size}") if 0 < size <= TEXT_LIMIT else None
    return None


def read_shape(body: bytes) -> tuple[int, ...] | None:
    """Return the shape in a dataspace message, or None if it is not a fixed, allowed shape."""
    ndim = body[1]
    if body[:1] != b"\1" or not 1 <= ndim <= _DIMENSION_LIMIT or body[2:8] != b"\1\0\0\0\0\0":
        return None
    if len(body) != 8 + 16 * ndim or body[8 : 8 + 8 * ndim] != body[8 + 8 * ndim :]:
        return None
    return struct.unpack_from(f"<{ndim}Q", body, 8)


def read_value(kind: bytes, data: bytes) -> str | int | float | None:
    """Return the value of an attribute from its datatype message and data, or None."""
    dtype = read_type(kind)
    if dtype is None or not dtype.itemsize <= len(data) < dtype.itemsize + 8:
        return None
    if dtype.kind == "S":
        return decode_text(data[: dtype.itemsize].rstrip(b"\0"))
    value = np.frombuffer(data, dtype, count=1)[0].item()
    return value if dtype.itemsize == 8 and isfinite(value) else None


def decode_text(data: bytes) -> str:
    """Decode a name or a text.

    Raises
    ------
    GuardError
        It is not UTF-8.
    """
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise GuardError("a name or a text in it is not UTF-8") from error
