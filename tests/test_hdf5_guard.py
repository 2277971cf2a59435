"""The guard in front of HDF5: it accepts what the writer produces, and nothing else."""

import struct

import h5py
import numpy as np
import pytest

from brainfeat.cache.hdf5_guard import BASE, Array, inspect_file
from brainfeat.cache.hdf5_messages import GuardError

OLD = ("earliest", "v108")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "file.h5"


def make(path, *, libver=OLD, userblock_size=BASE, **arrays):
    with h5py.File(path, "w", libver=libver, userblock_size=userblock_size) as file:
        file.attrs["number"] = 7
        file.attrs.create("note", np.array("Größe".encode(), h5py.string_dtype("utf-8", 7)))
        for name, array in arrays.items():
            chunks = (10, *array.shape[1:]) if array.ndim == 2 else None
            file.create_dataset(name, data=array, chunks=chunks, fletcher32=bool(chunks))
    return path


def edit(path, place, values):
    data = bytearray(path.read_bytes())
    data[place : place + len(values)] = values
    path.write_bytes(data)


def find(path, signature, number=0):
    data = path.read_bytes()
    place = -1
    for _ in range(number + 1):
        place = data.index(signature, place + 1)
    return place


def refused(path, reason=None):
    with pytest.raises(GuardError, match=reason):
        inspect_file(path)


def test_all_that_a_file_says_of_itself(path):
    make(
        path,
        matrix=np.ones((25, 3), "<f4"),
        bytes=np.ones((25, 7), "|i1"),
        small=np.ones(4, "<i2"),
        none=np.ones(0, "<i8"),
    )
    contents = inspect_file(path)
    assert contents.attributes == {"number": 7, "note": "Größe"}
    assert contents.arrays == {
        "matrix": Array(np.dtype("<f4"), (25, 3)),
        "bytes": Array(np.dtype("|i1"), (25, 7)),
        "small": Array(np.dtype("<i2"), (4,)),
        "none": Array(np.dtype("<i8"), (0,)),
    }


@pytest.mark.parametrize("rows", [10, 11, 640, 641, 2_000, 70_000])
def test_trees_of_any_number_of_chunks(path, rows):
    """64 chunks are a leaf of the tree, 64 leaves a node above them."""
    make(path, matrix=np.arange(rows * 2, dtype="<f4").reshape(-1, 2))
    assert inspect_file(path).arrays["matrix"].shape == (rows, 2)


@pytest.mark.parametrize("libver", [("v108", "v108"), ("v110", "v110"), "latest"])
def test_later_kinds_of_files_are_refused(path, libver):
    make(path, libver=libver, small=np.ones(4, "<i2"))
    refused(path, "superblock")


@pytest.mark.parametrize("size", [0, 1024])
def test_a_user_block_of_another_size_is_refused(path, size):
    refused(make(path, userblock_size=size, small=np.ones(4, "<i2")))


def test_bytes_after_the_end_are_refused(path):
    make(path, small=np.ones(4, "<i2"))
    path.write_bytes(path.read_bytes() + b"\0")
    refused(path, "superblock")


@pytest.mark.parametrize("size", [BASE, BASE + 1, BASE + 95, BASE + 96, BASE + 1000])
def test_a_file_that_is_cut_short_is_refused(path, size):
    make(path, matrix=np.ones((25, 3), "<f4"))
    data = bytearray(path.read_bytes()[:size])
    if size > BASE + 48:
        data[BASE + 40 : BASE + 48] = struct.pack("<Q", size)
    path.write_bytes(data)
    refused(path)


def test_a_file_that_says_it_is_open_for_writing_is_refused(path):
    make(path, small=np.ones(4, "<i2"))
    edit(path, BASE + 20, b"\1")
    refused(path, "superblock")


def test_a_second_hard_link_to_a_dataset_is_refused(path):
    make(path, small=np.ones(4, "<i2"))
    with h5py.File(path, "r+", libver=OLD) as file:
        file["again"] = file["small"]
    refused(path, "linked more than once")


def test_a_second_link_that_the_header_does_not_count_is_refused(path):
    """Two names for one header: the same bytes would be read twice."""
    make(path, first=np.ones(4, "<i2"), other=np.ones(4, "<i2"))
    entry = find(path, b"SNOD") + 8
    header = path.read_bytes()[entry + 8 : entry + 16]
    edit(path, entry + 40 + 8, header)
    refused(path, "overlap")


def test_arrays_that_share_their_bytes_are_refused(path):
    make(path, first=np.arange(4, dtype="<i8"), other=np.arange(4, dtype="<i8") + 9)
    with h5py.File(path) as file:
        places = [struct.pack("<Q", file[name].id.get_offset() - BASE) for name in file]
    edit(path, find(path, places[1]), places[0])
    refused(path, "overlap")


@pytest.mark.parametrize(
    ("offset", "values", "reason"),
    [
        (4, b"\0", "another kind"),  # a node of a group
        (5, b"\3", "out of order|another kind|outside"),  # a deeper tree
        (6, b"\0\0", "empty node"),
        (6, b"\2\0", "missing or too many"),
        (6, b"\xff\xff", "another kind"),
        (8, b"\0" * 8, "out of order"),  # a neighbour
        (24, b"\1", "another size or place"),  # the size of a chunk
        (28, b"\1", "another size or place"),  # a filter left out
        (32, b"\1", "another size or place|out of order"),  # its place
        (48, b"\1", "another size or place|out of order"),
        (56, b"\xff" * 8, "outside the file"),  # its address
    ],
)
def test_the_tree_of_chunks_is_checked(path, offset, values, reason):
    make(path, matrix=np.ones((25, 3), "<f4"))
    edit(path, find(path, b"TREE\1") + offset, values)
    refused(path, reason)


def test_two_chunks_in_one_place_are_refused(path):
    make(path, matrix=np.ones((25, 3), "<f4"))
    tree = find(path, b"TREE\1")
    first = path.read_bytes()[tree + 56 : tree + 64]
    edit(path, tree + 56 + 40, first)
    refused(path, "overlap")


@pytest.mark.parametrize(
    ("signature", "offset", "values", "reason"),
    [
        (b"TREE\0", 5, b"\1", "too many members"),
        (b"TREE\0", 16, b"\0" * 8, "too many members"),
        (b"TREE\0", 24, b"\1", "out of order"),
        (b"TREE\0", 32, b"\xff" * 8, "outside"),
        (b"SNOD", 6, b"\xff", "another kind"),
        (b"SNOD", 8, b"\xff\xff", "sorted plain names"),
        (b"SNOD", 16, b"\xff" * 8, "outside"),
        (b"SNOD", 24, b"\2", "a link to another place"),
        (b"HEAP", 8, b"\xff\xff\xff", "another kind"),
        (b"HEAP", 16, b"\0\0", "do not end"),
        (b"HEAP", 16, b"\7", "do not end"),
        (b"HEAP", 24, b"\xff" * 8, "outside"),
    ],
)
def test_the_lists_of_members_are_checked(path, signature, offset, values, reason):
    make(path, small=np.ones(4, "<i2"))
    edit(path, find(path, signature) + offset, values)
    refused(path, reason)


def test_free_places_that_lead_in_a_circle_are_refused(path):
    make(path, small=np.ones(4, "<i2"))
    heap = find(path, b"HEAP")
    size, free, address = struct.unpack_from("<QQQ", path.read_bytes(), heap + 8)
    assert free + 16 <= size
    edit(path, BASE + address + free, struct.pack("<Q", free))
    refused(path, "do not end")


def test_a_header_that_continues_in_itself_is_refused(path):
    with h5py.File(path, "w", libver=OLD, userblock_size=BASE) as file:
        for number in range(5):
            file.attrs.create(f"a{number}", np.array(b"x" * 99, h5py.string_dtype("utf-8", 99)))
    inspect_file(path)
    block = struct.unpack_from("<QQ", path.read_bytes(), BASE + 96 + 24)
    edit(path, BASE + block[0], struct.pack("<HHBxxx", 0x10, 16, 0) + struct.pack("<QQ", *block))
    refused(path)


def test_a_block_of_messages_that_would_fill_the_memory_is_refused(path):
    make(path, small=np.ones(4, "<i2"))
    header = struct.unpack_from("<Q", path.read_bytes(), find(path, b"SNOD") + 16)[0]
    edit(path, BASE + header + 8, struct.pack("<I", 2**31))
    refused(path, "too large")
