"""Plain arrays of HDF5 files as MATLAB 7.3 writes them, read without the HDF5 library.

HDF5 trusts the metadata of a file, and a crafted file can crash or stall the process. What is
needed of MATLAB's files is little: old-style groups, and datasets of numbers that are stored whole
or in deflated chunks. It is read here, within limits; references, links, attributes and all other
members are never followed. Names and numbers follow the HDF5 File Format Specification, version
3.0 (The HDF Group).
"""

import os
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product
from math import prod
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt

from brainfeat.errors import BrainfeatError

SIGNATURE = b"\x89HDF\r\n\x1a\n"

_MEMBER_LIMIT = 1024
_CHUNK_LIMIT = 65_536
# Most bytes that one byte of deflate expands to (zlib.net/zlib_tech.html).
_DEFLATE_RATIO = 1032
_MESSAGE_LIMIT = 256
_HEADER_LIMIT = 65_536
_NAME_LIMIT = 64
_DIMENSION_LIMIT = 4
# Chunks at the edges reach beyond an array, by less than its own length along each axis.
_CHUNK_EXCESS = 2**_DIMENSION_LIMIT

_DATASPACE, _DATATYPE, _LAYOUT, _FILTERS, _CONTINUATION, _SYMBOLS = 1, 3, 8, 11, 16, 17
_NEWER = (2, 6)  # link info, and links, of new-style groups
_KINDS = (_DATASPACE, _DATATYPE, _LAYOUT, _FILTERS, _SYMBOLS)
_SHARED = 0x02
_DEFLATE, _SHUFFLE = 1, 2
# Where sign, exponent and mantissa of IEEE numbers are, after their size in bytes.
_FLOATS = {
    4: bytes.fromhex("00002000 17080017 7f000000"),
    8: bytes.fromhex("00004000 340b0034 ff030000"),
}
_OTHER_VERSION = "is stored in another version of HDF5 than MATLAB writes"

_Messages = dict[int, bytes]


class FormatError(BrainfeatError, ValueError):
    """A file is damaged, or holds something else than is read here."""


@contextmanager
def _translating() -> Iterator[None]:
    """Replace the errors that damaged files cause."""
    try:
        yield
    except FormatError:
        raise
    except (ValueError, IndexError, OverflowError, MemoryError, struct.error, zlib.error):
        raise FormatError("is damaged") from None


class _Storage(NamedTuple):
    """How the values of a dataset are stored."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    layout: bytes
    filters: tuple[int, ...]

    @property
    def size(self) -> int:
        return prod(self.shape) * self.dtype.itemsize


class Hdf5Reader:
    """The members of an open file.

    Parameters
    ----------
    file : binary file
        Opened for reading.
    base : int
        Where the HDF5 part begins: the length of the user block, in bytes.

    Raises
    ------
    FormatError
        The part does not begin as MATLAB's files do, or is cut short.
    """

    def __init__(self, file: BinaryIO, *, base: int) -> None:
        self._file, self._base = file, base
        self._end = file.seek(0, os.SEEK_END) - base
        # Version 0 throughout, with offsets and lengths of 8 bytes.
        block = self._take(0, 96)
        if block[:8] != SIGNATURE or block[8:15] != b"\0\0\0\0\0\x08\x08":
            raise FormatError(_OTHER_VERSION)
        start, _, end = struct.unpack_from("<QQQ", block, 24)
        if start != base or end > base + self._end:
            raise FormatError("is cut short")
        self._root = struct.unpack_from("<Q", block, 64)[0]

    def find_members(self, *path: str) -> dict[str, int]:
        """Find the members of a group.

        Parameters
        ----------
        *path : str
            The names of the group and of those that it is in; none for the root.

        Returns
        -------
        dict of str to int
            The addresses of the members by name; empty where there is no such group. Members with
            long names are left out.

        Raises
        ------
        FormatError
            The file is damaged.
        """
        with _translating():
            members = self._list_group(self._root)
            for name in path:
                members = self._list_group(members[name]) if name in members else {}
        return members

    def read_array(self, address: int, *, byte_limit: int) -> npt.NDArray[Any]:
        """Read a dataset of numbers.

        Parameters
        ----------
        address : int
            As `find_members` returns it.
        byte_limit : int
            Most bytes of its values.

        Returns
        -------
        ndarray
            Of at most four axes, in the order of HDF5, which is the reverse of MATLAB's.

        Raises
        ------
        FormatError
            It is too large, holds no plain numbers, is stored in another way, or is damaged.
        """
        with _translating():
            return self._read_stored(self._find_storage(address, byte_limit))

    def _find_storage(self, address: int, byte_limit: int) -> _Storage:
        messages = self._read_messages(address)
        if not {_DATASPACE, _DATATYPE, _LAYOUT} <= messages.keys():
            raise FormatError("has a member that is not an array")
        stored = _Storage(
            dtype=_parse_type(messages[_DATATYPE]),
            shape=_parse_shape(messages[_DATASPACE]),
            layout=messages[_LAYOUT],
            filters=_parse_filters(messages.get(_FILTERS, b"")),
        )
        if not 0 < stored.size <= byte_limit:
            raise FormatError(
                f"has an array of {stored.size:,} bytes; expected at most {byte_limit:,}"
            )
        return stored

    def _read_stored(self, stored: _Storage) -> npt.NDArray[Any]:
        kind = stored.layout[:2]
        if kind == b"\3\0" and not stored.filters:
            length = struct.unpack_from("<H", stored.layout, 2)[0]
            return _decode(stored.layout[4 : 4 + length], stored.dtype, stored.shape)
        if kind == b"\3\1" and not stored.filters:
            place, length = struct.unpack_from("<QQ", stored.layout, 2)
            if length != stored.size:
                raise FormatError("is damaged")
            return _decode(self._take(place, length), stored.dtype, stored.shape)
        if kind == b"\3\2" and stored.layout[2] == len(stored.shape) + 1:
            return self._read_chunks(stored)
        raise FormatError("stores an array in another way than MATLAB does")

    def _take(self, address: int, length: int) -> bytes:
        if not 0 <= address <= address + length <= self._end:
            raise FormatError("is cut short, or points outside itself")
        self._file.seek(self._base + address)
        return self._file.read(length)

    def _read_messages(self, address: int) -> _Messages:
        """Read the messages of an object header that are used here."""
        version, number, size = struct.unpack("<BxH4xI4x", self._take(address, 16))
        if version != 1 or number > _MESSAGE_LIMIT:
            raise FormatError(_OTHER_VERSION)
        found: _Messages = {}
        blocks = [(address + 16, size)]
        while blocks and number > 0:
            start, size = blocks.pop(0)
            if size > _HEADER_LIMIT:
                raise FormatError("is damaged")
            block, place = self._take(start, size), 0
            while place + 8 <= len(block) and number > 0:
                kind, length, flags = struct.unpack_from("<HHB", block, place)
                body = block[place + 8 : place + 8 + length]
                place, number = place + 8 + length, number - 1
                if kind == _CONTINUATION:
                    blocks.append(struct.unpack("<QQ", body))
                elif kind in _NEWER:
                    raise FormatError(_OTHER_VERSION)
                elif kind in _KINDS:
                    if kind in found or flags & _SHARED or len(body) != length:
                        raise FormatError("is damaged")
                    found[kind] = body
        return found

    def _list_group(self, address: int) -> dict[str, int]:
        messages = self._read_messages(address)
        if _SYMBOLS not in messages:
            return {}
        tree, heap = struct.unpack_from("<QQ", messages[_SYMBOLS])
        signature, size, place = struct.unpack("<8sQ8xQ", self._take(heap, 32))
        if signature != b"HEAP\0\0\0\0" or size > self._end:
            raise FormatError("is damaged")
        members = {}
        for node, _ in self._walk_tree(tree, kind=0, key_bytes=8, limit=_MEMBER_LIMIT):
            head = self._take(node, 8)
            number = struct.unpack_from("<H", head, 6)[0]
            if head[:6] != b"SNOD\1\0" or number > _MESSAGE_LIMIT:
                raise FormatError("is damaged")
            entries = self._take(node + 8, 40 * number)
            for offset, header, cache in struct.iter_unpack("<QQI20x", entries):
                # The entry of a link has 2 here, and no object of its own.
                if offset < size and cache in (0, 1):
                    length = min(_NAME_LIMIT, size - offset)
                    name, end, _ = self._take(place + offset, length).partition(b"\0")
                    if end:
                        members[name.decode("utf-8", "replace")] = header
        return members

    def _walk_tree(
        self, root: int, *, kind: int, key_bytes: int, limit: int
    ) -> Iterator[tuple[int, bytes]]:
        """Yield the address and the key of each child of the leaves of a B-tree."""
        pending, seen = [root], 0
        while pending:
            address = pending.pop()
            head = self._take(address, 24)
            signature, found, level, number = struct.unpack_from("<4sBBH", head)
            if signature != b"TREE" or found != kind:
                raise FormatError("is damaged")
            seen += 1 + number
            if seen > limit:
                raise FormatError("has too many members or chunks")
            step = key_bytes + 8
            block = self._take(address + 24, number * step + key_bytes)
            for place in range(0, number * step, step):
                child = struct.unpack_from("<Q", block, place + key_bytes)[0]
                if level:
                    pending.append(child)
                else:
                    yield child, block[place : place + key_bytes]

    def _read_chunks(self, stored: _Storage) -> npt.NDArray[Any]:
        """Read all chunks of an array, each of which must be there once."""
        ndim = len(stored.shape)
        root, *sizes = struct.unpack_from(f"<Q{ndim + 1}I", stored.layout, 3)
        steps, itemsize = tuple(sizes[:-1]), sizes[-1]
        if itemsize != stored.dtype.itemsize or min(steps) < 1:
            raise FormatError("is damaged")
        length = prod(steps) * itemsize
        starts = [range(0, n, step) for n, step in zip(stored.shape, steps, strict=True)]
        number = prod(map(len, starts))
        if number > _CHUNK_LIMIT or number * length > _CHUNK_EXCESS * stored.size:
            raise FormatError("has too many chunks, or chunks that are larger than its array")
        if stored.size > self._end * _DEFLATE_RATIO:
            raise FormatError("is shorter than its array")
        missing, held = set(product(*starts)), 0
        values = np.empty(stored.shape, stored.dtype)
        key_format = f"<II{ndim + 1}Q"
        key_bytes = struct.calcsize(key_format)
        chunks = self._walk_tree(root, kind=1, key_bytes=key_bytes, limit=2 * _CHUNK_LIMIT)
        for address, key in chunks:
            size, mask, *offsets = struct.unpack(key_format, key)
            start = tuple(offsets[:-1])
            held += size
            # Chunks that share their bytes would be read again and again.
            if start not in missing or mask or offsets[-1] or held > self._end:
                raise FormatError("is damaged")
            missing.discard(start)
            data = _unpack(self._take(address, size), stored.filters, length, itemsize)
            ends = zip(start, steps, stored.shape, strict=True)
            region = tuple(slice(a, min(a + step, n)) for a, step, n in ends)
            inner = tuple(slice(0, part.stop - part.start) for part in region)
            values[region] = _decode(data, stored.dtype, steps)[inner]
        if missing:
            raise FormatError("lacks a part of its array")
        return values


def _parse_type(body: bytes) -> np.dtype[Any]:
    """Return the type of numbers that a datatype message describes."""
    kind, bits, size = body[0], body[1], struct.unpack_from("<I", body, 4)[0]
    order = ">" if bits & 1 else "<"
    if kind == 0x10 and size in (1, 2, 4, 8) and body[8:12] == struct.pack("<HH", 0, 8 * size):
        return np.dtype(f"{order}{'i' if bits & 8 else 'u'}{size}")
    if kind == 0x11 and size in _FLOATS and body[8:20] == _FLOATS[size]:
        return np.dtype(f"{order}f{size}")
    raise FormatError("has an array that does not hold plain numbers")


def _parse_shape(body: bytes) -> tuple[int, ...]:
    version, ndim = body[0], body[1]
    if version not in (1, 2) or not 1 <= ndim <= _DIMENSION_LIMIT:
        raise FormatError("has an array with another number of axes than 1 to 4")
    return struct.unpack_from(f"<{ndim}Q", body, 8 if version == 1 else 4)


def _parse_filters(body: bytes) -> tuple[int, ...]:
    """Return the numbers of the filters, in the order in which they were applied."""
    if not body:
        return ()
    if body[0] != 1 or body[1] > 2:
        raise FormatError("stores an array in another way than MATLAB does")
    filters, place = [], 8
    for _ in range(body[1]):
        number, name, _, values = struct.unpack_from("<HHHH", body, place)
        place += 8 + -(-name // 8) * 8 + 4 * (values + values % 2)
        filters.append(number)
    if not set(filters) <= {_DEFLATE, _SHUFFLE}:
        raise FormatError("is compressed with another filter than deflate and shuffle")
    return tuple(filters)


def _unpack(data: bytes, filters: tuple[int, ...], length: int, itemsize: int) -> bytes:
    """Undo the filters of a chunk, which then has a known length."""
    for number in reversed(filters):
        if number == _DEFLATE:
            packed = zlib.decompressobj()
            data = packed.decompress(data, length)
            if not packed.eof and packed.decompress(packed.unconsumed_tail, 1):
                raise FormatError("has a chunk that is larger than it states")
            if not packed.eof:
                raise FormatError("is cut short")
        elif len(data) == length:
            planes = np.frombuffer(data, np.uint8).reshape(itemsize, -1)
            data = planes.T.tobytes()
    if len(data) != length:
        raise FormatError("has a chunk of another size than it states")
    return data


def _decode(data: bytes, dtype: np.dtype[Any], shape: tuple[int, ...]) -> npt.NDArray[Any]:
    if len(data) != prod(shape) * dtype.itemsize:
        raise FormatError("is cut short")
    return np.frombuffer(data, dtype).reshape(shape)
