"""A guard in front of HDF5: it reads all metadata of a file from its bytes before HDF5 does.

HDF5 trusts the metadata of a file, and a crafted file can crash or stall the process. The guard
therefore walks through the metadata first. It accepts only what :mod:`brainfeat.cache.writing`
produces, HDF5's oldest and simplest structures, and refuses everything else. Names and numbers
follow the HDF5 File Format Specification, version 3.0 (The HDF Group).
"""

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from brainfeat.cache.hdf5_messages import (
    FILLS,
    FLETCHER32,
    TEXT_LIMIT,
    GuardError,
    decode_text,
    read_shape,
    read_type,
    read_value,
)

# Length of the user block; the metadata start after it, and all addresses count from there.
BASE = 512

_UNDEFINED = 2**64 - 1
_GROUP_DEPTH = 5
_OBJECT_LIMIT = 512
_ATTRIBUTE_LIMIT = 64
_MESSAGE_LIMIT = 256
_NAME_LIMIT = 128
_PART_LIMIT = _MESSAGE_LIMIT * (TEXT_LIMIT + 8)
_LEVEL_LIMIT = 4

# Signature, versions 0, offsets and lengths of 8 bytes; 4 and 16 are half the number of entries in
# the nodes of a group; the base address; neither free-space nor driver information.
_SUPERBLOCK = (
    b"\x89HDF\r\n\x1a\n\0\0\0\0\0\x08\x08\0"
    + struct.pack("<HHIQQ", 4, 16, 0, BASE, _UNDEFINED)
    + b"%b"
    + struct.pack("<Q", _UNDEFINED)
)
_LEAF_ENTRIES, _GROUP_CHILDREN, _CHUNK_CHILDREN = 8, 32, 64
_GROUP_NODE = 24 + 16 * _GROUP_CHILDREN + 8
_SYMBOL_NODE = 8 + 40 * _LEAF_ENTRIES

_DATASPACE, _DATATYPE, _FILL, _LAYOUT, _FILTERS, _ATTRIBUTE, _CONTINUATION, _SYMBOLS = (
    0x01, 0x03, 0x05, 0x08, 0x0B, 0x0C, 0x10, 0x11,
)  # fmt: skip
_NIL = 0x00
_ONCE = (_DATASPACE, _DATATYPE, _FILL, _LAYOUT, _FILTERS, _SYMBOLS)

_CHECKSUM_BYTES = 4


@dataclass(frozen=True)
class Array:
    """The type and shape that a dataset declares."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]


@dataclass
class Contents:
    """The root attributes of a file and its datasets, by full name."""

    attributes: dict[str, str | int | float] = field(default_factory=dict)
    arrays: dict[str, Array] = field(default_factory=dict)


@dataclass(frozen=True)
class _Node:
    """A node of a B-tree: the addresses of its children and the keys around them."""

    level: int
    children: list[int]
    keys: list[bytes]
    neighbours: tuple[int, int]


def inspect_file(path: Path) -> Contents:
    """Check all metadata of a file without HDF5.

    Parameters
    ----------
    path : Path
        A file with a user block of 512 bytes.

    Returns
    -------
    Contents
        What the file holds; all values of its arrays are in the file, and none are shared.

    Raises
    ------
    GuardError
        The file has something that brainfeat does not write.
    OSError
        The file cannot be read.
    """
    try:
        with path.open("rb") as file:
            return _Inspection(file).read()
    except struct.error as error:
        raise GuardError("a part of it is cut short") from error


class _Inspection:
    """One pass over the metadata; each byte must be in the file and may be used once."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._end = file.seek(0, os.SEEK_END) - BASE
        self._used: list[tuple[int, int]] = []
        self._members = 0
        self._found = Contents()

    def read(self) -> Contents:
        """Read the superblock and everything that it leads to."""
        block = self._take(0, 96)
        if block[:56] != _SUPERBLOCK % struct.pack("<Q", BASE + self._end):
            raise GuardError("its superblock is of another kind or size")
        name, header, *group = struct.unpack("<QQI4xQQ", block[56:])
        if (name, group[0]) != (0, 1):
            raise GuardError("its root is not an old-style group")
        self._read_group(header, "", (group[1], group[2]))
        used = sorted(self._used)
        if any(start + length > after for (start, length), (after, _) in pairwise(used)):
            raise GuardError("parts of it overlap")
        return self._found

    def _take(self, address: int, length: int) -> bytes:
        if length > _PART_LIMIT:
            raise GuardError("a part of its metadata is too large")
        self._use(address, length)
        self._file.seek(BASE + address)
        return self._file.read(length)

    def _use(self, address: int, length: int) -> None:
        if not 0 <= address <= address + length <= self._end:
            raise GuardError("a part of it lies outside the file")
        self._used.append((address, length))

    def _messages(self, header: int) -> Iterator[tuple[int, bytes]]:
        """Yield the kind and the body of each message of an object header."""
        version, number, references, size = struct.unpack("<BxHII4x", self._take(header, 16))
        if version != 1 or references != 1 or number > _MESSAGE_LIMIT:
            raise GuardError("an object header is of another kind, or linked more than once")
        blocks = [self._take(header + 16, size)]
        seen: set[int] = set()
        while blocks:
            block, place = blocks.pop(0), 0
            while place < len(block):
                if number == 0 or place + 8 > len(block):
                    raise GuardError("an object header has more messages than it declares")
                kind, length, flags = struct.unpack_from("<HHB", block, place)
                body = block[place + 8 : place + 8 + length]
                if length % 8 or len(body) != length or flags not in (0, 1):
                    raise GuardError("a message is cut short, shared or of another kind")
                if kind in seen and kind in _ONCE:
                    raise GuardError("an object header has two messages of one kind")
                seen.add(kind)
                place, number = place + 8 + length, number - 1
                if kind == _CONTINUATION:
                    blocks.append(self._take(*struct.unpack("<QQ", body)))
                elif kind != _NIL:
                    yield kind, body
        if number:
            raise GuardError("an object header has fewer messages than it declares")

    def _read_group(self, header: int, prefix: str, cached: tuple[int, int]) -> None:
        for kind, body in self._messages(header):
            if kind == _ATTRIBUTE and not prefix:
                self._read_attribute(body)
            elif kind == _SYMBOLS and body == struct.pack("<QQ", *cached):
                self._read_symbols(*cached, prefix)
            else:
                raise GuardError(f"group {prefix or '/'!r} has a message of kind {kind}")

    def _read_symbols(self, tree: int, heap: int, prefix: str) -> None:
        names = self._read_heap(heap)
        node = self._read_node(tree, _GROUP_NODE, kind=0, key_bytes=8)
        if node.level or node.neighbours != (_UNDEFINED, _UNDEFINED):
            raise GuardError(f"group {prefix or '/'!r} has too many members")
        last, offset = b"", 0
        for key, child in zip(node.keys, node.children, strict=False):
            if key != struct.pack("<Q", offset):
                raise GuardError("the keys of a list of members are out of order")
            block = self._take(child, _SYMBOL_NODE)
            signature, number = struct.unpack_from("<4sxxH", block)
            if block[:6] != b"SNOD\1\0" or signature != b"SNOD" or number > _LEAF_ENTRIES:
                raise GuardError("a list of members is of another kind")
            for place in range(8, 8 + 40 * number, 40):
                offset, header, cache, *group = struct.unpack_from("<QQI4xQQ", block, place)
                end = names.find(b"\0", offset) if offset < len(names) else -1
                name = names[offset:end] if 0 <= end - offset <= _NAME_LIMIT else b""
                if not last < name or b"/" in name:
                    raise GuardError("the names of members are not sorted plain names")
                last = name
                self._read_member(
                    f"{prefix}{decode_text(name)}", header, cache, (group[0], group[1])
                )

    def _read_member(self, name: str, header: int, cache: int, group: tuple[int, int]) -> None:
        self._members += 1
        if self._members > _OBJECT_LIMIT:
            raise GuardError(f"it has more than {_OBJECT_LIMIT} objects")
        if cache == 1 and name.count("/") < _GROUP_DEPTH - 1:
            self._read_group(header, f"{name}/", group)
        elif cache == 0:
            self._read_dataset(header, name)
        else:
            raise GuardError(f"{name!r} is a link to another place, or a group that is too deep")

    def _read_heap(self, heap: int) -> bytes:
        """Return the names in a group, after a check that their list of free places ends."""
        signature, size, free, address = struct.unpack("<8sQQQ", self._take(heap, 32))
        if signature != b"HEAP\0\0\0\0" or size > _OBJECT_LIMIT * _NAME_LIMIT:
            raise GuardError("a list of names is of another kind")
        names = self._take(address, size)
        # 1 marks the end of the list; each free place has at least 16 bytes.
        for _ in range(size // 16 + 1):
            if free == 1:
                return names
            if free % 8 or free + 16 > size:
                break
            free, length = struct.unpack_from("<QQ", names, free)
            if length > size:
                break
        raise GuardError("the free places in a list of names do not end")

    def _read_node(self, address: int, size: int, *, kind: int, key_bytes: int) -> _Node:
        block = self._take(address, size)
        signature, found, level, number, *sides = struct.unpack_from("<4sBBHQQ", block)
        step = key_bytes + 8
        if signature != b"TREE" or found != kind or 24 + number * step + key_bytes > size:
            raise GuardError("a B-tree is of another kind")
        places = [24 + step * entry for entry in range(number + 1)]
        keys = [block[place : place + key_bytes] for place in places]
        children = [struct.unpack_from("<Q", block, place + key_bytes)[0] for place in places[:-1]]
        return _Node(level, children, keys, (sides[0], sides[1]))

    def _read_attribute(self, body: bytes) -> None:
        version, name_bytes, type_bytes, space_bytes = struct.unpack_from("<BxHHH", body)
        places = [8]
        for length in (name_bytes, type_bytes, space_bytes):
            places.append(places[-1] + -(-length // 8) * 8)
        if version != 1 or places[-1] > len(body) or len(self._found.attributes) > _ATTRIBUTE_LIMIT:
            raise GuardError("an attribute is of another kind, or there are too many")
        name, kind, space = (body[a:b] for a, b in pairwise(places))
        name = name[: name_bytes - 1] if name[name_bytes - 1 : name_bytes] == b"\0" else b""
        value = read_value(kind, body[places[-1] :])
        key = decode_text(name)
        if not name or b"\0" in name or value is None or space != b"\1\0\0\0\0\0\0\0":
            raise GuardError(f"attribute {key!r} is not one plain number or text")
        if key in self._found.attributes:
            raise GuardError(f"attribute {key!r} occurs twice")
        self._found.attributes[key] = value

    def _read_dataset(self, header: int, name: str) -> None:
        parts = dict(self._messages(header))
        filters = parts.pop(_FILTERS, b"")
        if set(parts) != {_DATASPACE, _DATATYPE, _FILL, _LAYOUT} or parts[_FILL] not in FILLS:
            raise GuardError(f"dataset {name!r} has missing or unexpected header messages")
        if filters not in (b"", FLETCHER32):
            raise GuardError(f"dataset {name!r} needs a filter other than Fletcher-32")
        dtype = read_type(parts[_DATATYPE])
        shape = read_shape(parts[_DATASPACE])
        if dtype is None or shape is None:
            raise GuardError(f"dataset {name!r} has an unexpected type or shape")
        size = prod(shape) * dtype.itemsize
        if size > self._end:
            raise GuardError(f"dataset {name!r} declares more than the file holds")
        layout = parts[_LAYOUT]
        if layout[:2] == b"\3\1" and not filters:
            address, stored = struct.unpack_from("<QQ", layout, 2)
            if stored != size or (size > 0) == (address == _UNDEFINED):
                raise GuardError(f"dataset {name!r} declares another size than is stored")
            if size:
                self._use(address, size)
        elif layout[:2] == b"\3\2" and layout[2] == len(shape) + 1 and size:
            self._read_chunks(name, layout[3:], shape, dtype, checksums=bool(filters))
        else:
            raise GuardError(f"dataset {name!r} stores its values in another way")
        self._found.arrays[name] = Array(dtype, shape)

    def _read_chunks(
        self,
        name: str,
        layout: bytes,
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        *,
        checksums: bool,
    ) -> None:
        """Check that every chunk is in the file, complete, and in the order of the tree."""
        root, *steps = struct.unpack_from(f"<Q{len(shape) + 1}I", layout)
        if steps[-1] != dtype.itemsize or steps[1:-1] != list(shape[1:]) or not steps[0]:
            raise GuardError(f"dataset {name!r} has chunks that are not whole rows")
        if steps[0] > shape[0]:
            raise GuardError(f"dataset {name!r} has chunks larger than itself")
        stored = prod(steps) + checksums * _CHECKSUM_BYTES
        zeros = (0,) * len(shape)
        number = -(-shape[0] // steps[0])
        chunks = list(self._chunks(root, key_format=f"<II{len(shape) + 1}Q"))
        if len(chunks) != number:
            raise GuardError(f"dataset {name!r} has chunks missing or too many")
        for place, (key, address) in enumerate(chunks):
            if key != (stored, 0, place * steps[0], *zeros):
                raise GuardError(f"dataset {name!r} has a chunk of another size or place")
            self._use(address, stored)

    def _chunks(self, root: int, *, key_format: str) -> Iterator[tuple[tuple[int, ...], int]]:
        """Yield the key and address of each chunk, after a check of the tree that lists them."""
        key_bytes = struct.calcsize(key_format)
        size = 24 + _CHUNK_CHILDREN * (key_bytes + 8) + key_bytes
        addresses, level = [root], None
        while True:
            nodes = [self._read_node(a, size, kind=1, key_bytes=key_bytes) for a in addresses]
            level = nodes[0].level if level is None else level - 1
            sides = [_UNDEFINED, *addresses, _UNDEFINED]
            for place, node in enumerate(nodes):
                around = (sides[place], sides[place + 2])
                if node.level != level > -1 or level > _LEVEL_LIMIT or node.neighbours != around:
                    raise GuardError("the tree of the chunks is out of order")
                if not node.children:
                    raise GuardError("the tree of the chunks has an empty node")
            _check_keys(nodes, key_format)
            if level == 0:
                break
            addresses = [child for node in nodes for child in node.children]
        for node in nodes:
            keys = [struct.unpack(key_format, key) for key in node.keys[:-1]]
            yield from zip(keys, node.children, strict=True)


def _check_keys(nodes: list[_Node], key_format: str) -> None:
    """Refuse a level of a tree whose keys do not increase, because HDF5 searches by them."""
    places = [struct.unpack(key_format, key)[2:] for node in nodes for key in node.keys[:-1]]
    ends = [struct.unpack(key_format, node.keys[-1])[2:] for node in nodes]
    starts = [struct.unpack(key_format, node.keys[0])[2:] for node in nodes]
    grows = all(a < b for a, b in pairwise(places))
    meets = all(end <= start for end, start in zip(ends, starts[1:], strict=False))
    if not grows or not meets or ends[-1] <= places[-1]:
        raise GuardError("the keys of the chunks are out of order")
