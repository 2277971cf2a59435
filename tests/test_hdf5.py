"""The reader of MATLAB's HDF5 files: the same values as HDF5's own, and no file that harms."""

import time
import tracemalloc

import h5py
import numpy as np
import pytest

from brainfeat.readers.hdf5 import FormatError, Hdf5Reader

LIMIT = 10_000_000
DTYPES = ("i1", "u1", "<i2", ">i2", "<u2", "<i4", "<i8", "<u8", "<f4", "<f8", ">f8")


def draw(shape=(7, 5), dtype="<i2"):
    return np.random.default_rng(0).integers(0, 100, shape).astype(dtype)


def write(path, arrays, **options):
    """Write arrays into the group ``cjdata``; the options are those of each dataset."""
    with h5py.File(path, "w", userblock_size=512) as file:
        group = file.create_group("cjdata")
        for name, values in arrays.items():
            group.create_dataset(name, data=values, **options)
    return path


def read(path, *, group="cjdata", byte_limit=LIMIT):
    with path.open("rb") as file:
        reader = Hdf5Reader(file, base=512)
        return {
            name: reader.read_array(address, byte_limit=byte_limit)
            for name, address in reader.find_members(group).items()
        }


def reason(path, **options):
    with pytest.raises(FormatError) as caught:
        read(path, **options)
    return str(caught.value)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"chunks": (7, 5), "compression": "gzip", "maxshape": (None, None)},
        {"chunks": (3, 2), "compression": "gzip"},
        {"chunks": (3, 2), "compression": "gzip", "shuffle": True},
        {"chunks": (2, 5), "shuffle": True},
    ],
)
def test_values_are_those_of_hdf5(dtype, options, tmp_path):
    values = draw(dtype=dtype)
    found = read(write(tmp_path / "a.mat", {"image": values}, **options))["image"]
    assert found.dtype == np.dtype(dtype)
    assert (found == values).all()


@pytest.mark.parametrize("shape", [(3,), (1, 1), (2, 3, 4), (2, 3, 4, 5)])
def test_arrays_have_one_to_four_axes(shape, tmp_path):
    values = draw(shape)
    assert (read(write(tmp_path / "a.mat", {"a": values}))["a"] == values).all()


def test_a_small_array_can_be_in_its_header(tmp_path):
    with h5py.File(tmp_path / "a.mat", "w", userblock_size=512) as file:
        plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plist.set_layout(h5py.h5d.COMPACT)
        group = file.create_group("cjdata")
        space = h5py.h5s.create_simple((3,))
        made = h5py.h5d.create(group.id, b"a", h5py.h5t.NATIVE_INT16, space, plist)
        made.write(h5py.h5s.ALL, h5py.h5s.ALL, np.array([1, 2, 3], np.int16))
    assert read(tmp_path / "a.mat")["a"].tolist() == [1, 2, 3]


def test_many_members_and_many_chunks_are_found(tmp_path):
    arrays = {f"a{number}": draw((2, 2)) + number for number in range(300)}
    found = read(write(tmp_path / "a.mat", arrays))
    assert found.keys() == arrays.keys()
    assert all((found[name] == arrays[name]).all() for name in arrays)
    values = draw((300, 200))
    write(tmp_path / "b.mat", {"a": values}, chunks=(4, 4), compression="gzip")
    assert (read(tmp_path / "b.mat")["a"] == values).all()


def test_attributes_references_and_links_are_passed_over(tmp_path):
    values = draw()
    path = write(tmp_path / "a.mat", {"image": values})
    with h5py.File(path, "r+") as file:
        group = file["cjdata"]
        group.attrs["MATLAB_class"] = np.bytes_("struct")
        group["image"].attrs.create("fields", ["a", "b"], dtype=h5py.string_dtype())
        for number in range(30):
            group["image"].attrs[f"more{number}"] = number
        group["soft"] = h5py.SoftLink("/cjdata/image")
    with path.open("rb") as file:
        reader = Hdf5Reader(file, base=512)
        members = reader.find_members("cjdata")
        assert members.keys() == {"image"}
        assert (reader.read_array(members["image"], byte_limit=LIMIT) == values).all()
        assert reader.find_members("cjdata", "image") == {}
        assert reader.find_members("other") == {}


@pytest.mark.parametrize(
    ("values", "options", "words"),
    [
        (draw(), {"chunks": (7, 5), "compression": "lzf"}, "another filter"),
        (draw(), {"chunks": (7, 5), "fletcher32": True}, "another filter"),
        (draw().astype("c8"), {}, "does not hold plain numbers"),
        (draw().astype("f2"), {}, "does not hold plain numbers"),
        (np.array([b"abc"]), {}, "does not hold plain numbers"),
        (["abc"], {"dtype": h5py.string_dtype()}, "does not hold plain numbers"),
        (draw((2, 1, 1, 1, 1)), {}, "another number of axes"),
        (5, {}, "another number of axes"),
        (np.zeros((0, 3)), {}, "has an array of 0 bytes"),
        (np.zeros(LIMIT, "i2"), {"chunks": (LIMIT,), "compression": "gzip"}, "at most 10,000,000"),
    ],
)
def test_other_arrays_are_refused(values, options, words, tmp_path):
    assert words in reason(write(tmp_path / "a.mat", {"a": values}, **options))


def test_an_array_that_was_never_written_is_refused(tmp_path):
    with h5py.File(tmp_path / "a.mat", "w", userblock_size=512) as file:
        group = file.create_group("cjdata")
        group.create_dataset("a", shape=(4, 4), dtype="i2", chunks=(2, 2), compression="gzip")
        group["a"][:2] = 1
    assert reason(tmp_path / "a.mat") == "lacks a part of its array"


def test_chunks_that_share_their_bytes_are_refused(tmp_path):
    path = write(tmp_path / "a.mat", {"a": draw((64, 64))}, chunks=(1, 64), shuffle=True)
    data = bytearray(path.read_bytes())
    keys = [place for place in range(len(data)) if data[place : place + 8] == b"\x80" + bytes(7)]
    assert len(keys) >= 64
    for place in keys:
        data[place : place + 4] = (len(data) // 4).to_bytes(4, "little")
    path.write_bytes(data)
    assert reason(path)


def test_newer_structures_are_refused(tmp_path):
    for number, libver in enumerate(["v108", "v110", "latest"]):
        path = tmp_path / f"{number}.mat"
        with h5py.File(path, "w", userblock_size=512, libver=(libver, "latest")) as file:
            file["a"] = draw()
        assert "another version of HDF5" in reason(path)
    path = write(tmp_path / "a.mat", {"a": draw()})
    with h5py.File(path, "r+") as file:
        file["cjdata"]["outer"] = h5py.ExternalLink("other.mat", "/a")
    assert "another version of HDF5" in reason(path)


def test_a_file_cut_anywhere_is_refused(tmp_path):
    path = write(tmp_path / "a.mat", {"a": draw()}, chunks=(3, 2), compression="gzip")
    whole = path.read_bytes()
    for length in range(512, len(whole), 29):
        path.write_bytes(whole[:length])
        assert "cut short" in reason(path)


@pytest.mark.parametrize("options", [{}, {"chunks": (8, 8), "compression": "gzip"}])
def test_a_damaged_file_is_read_or_refused_and_neither_harms_nor_stalls(options, tmp_path):
    arrays = {name: draw((32, 32)) for name in ("image", "label", "PID")}
    path = write(tmp_path / "a.mat", arrays, **options)
    whole, rng = path.read_bytes(), np.random.default_rng(0)
    used = np.flatnonzero(np.frombuffer(whole, np.uint8))
    outcomes = {"read": 0, "refused": 0}
    tracemalloc.start()
    start = time.monotonic()
    for _ in range(600):
        data = bytearray(whole)
        for place in rng.choice(used[used >= 512], rng.integers(1, 4)):
            data[place] = rng.integers(256)
        path.write_bytes(data)
        try:
            read(path)
            outcomes["read"] += 1
        except FormatError:
            outcomes["refused"] += 1
    assert time.monotonic() - start < 60
    assert tracemalloc.get_traced_memory()[1] < 50_000_000
    tracemalloc.stop()
    assert min(outcomes.values()) > 10
