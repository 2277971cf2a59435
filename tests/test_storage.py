"""Reading of HDF5 files: every changed bit is noticed, hostile files are refused."""

import fcntl
import os
import pickle
import random
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import fuzz_json, fuzz_storage
from support.stored import ATTRIBUTES, EXAMPLES, SCHEMA, read, unchanged, write

from brainfeat.cache import storage, stored_array, writing
from brainfeat.cache.storage import Schema, StoredFile
from brainfeat.cache.stored_array import StoredArray
from brainfeat.cache.writing import as_text
from brainfeat.canonical import read_record
from brainfeat.errors import (
    BundleError,
    CacheCorruptError,
    CacheError,
    CacheFormatError,
    ParameterError,
)


@pytest.fixture
def path(tmp_path):
    return write(tmp_path / "file.h5")


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


class TestDamage:
    """With ``verify="full"``, a file that is not as it was written is never opened."""

    @staticmethod
    def positions(length):
        sampled = random.Random(0).sample(range(length), 250)
        return sorted({*sampled, *range(0, 90, 3), 511, 512, length - 1})

    def test_every_changed_bit_is_noticed(self, path):
        whole = path.read_bytes()
        unnoticed = []
        for position in self.positions(len(whole)):
            damaged = bytearray(whole)
            damaged[position] ^= 1 << position % 8
            path.write_bytes(damaged)
            with suppress(CacheFormatError, CacheCorruptError), StoredFile(path, SCHEMA):
                unnoticed.append(position)
        assert unnoticed == []

    def test_every_truncation_is_noticed(self, path):
        whole = path.read_bytes()
        unnoticed = []
        for length in self.positions(len(whole)):
            path.write_bytes(whole[:length])
            with suppress(CacheFormatError, CacheCorruptError), StoredFile(path, SCHEMA):
                unnoticed.append(length)
        assert unnoticed == []

    def test_appended_bytes_are_noticed(self, path):
        with path.open("ab") as file:
            file.write(b"\0")
        with pytest.raises(CacheCorruptError, match=r"damaged or truncated.*ask for another"):
            StoredFile(path, SCHEMA)

    def test_a_changed_bit_of_a_chunk_is_noticed_without_verification_too(self, path):
        data = path.read_bytes()
        needle = EXAMPLES["matrix"][4:8].tobytes()
        assert data.count(needle) == 1
        path.write_bytes(data.replace(needle, needle[:-1] + b"\x01"))
        with (
            StoredFile(path, SCHEMA, verify="off") as file,
            pytest.raises(CacheCorruptError, match="damaged"),
        ):
            file.arrays["matrix"][4:8]

    @pytest.mark.parametrize("size", [0, 100, 511, 512, 600, 3000])
    def test_a_truncated_file_is_refused_without_verification_too(self, path, size):
        path.write_bytes(path.read_bytes()[:size])
        with pytest.raises((CacheFormatError, CacheCorruptError)):
            StoredFile(path, SCHEMA, verify="off")


class TestOpening:
    @pytest.mark.parametrize("verify", ["full", "off"])
    @pytest.mark.parametrize(
        "content", [b"", b"hello", b"PK\x03\x04" * 1000, b"\x89HDF\r\n\x1a\n" * 1000]
    )
    def test_a_file_of_another_kind(self, tmp_path, content, verify):
        (tmp_path / "file.h5").write_bytes(content)
        with pytest.raises(CacheFormatError, match="not a file that brainfeat wrote"):
            StoredFile(tmp_path / "file.h5", SCHEMA, verify=verify)

    @pytest.mark.parametrize("verify", ["full", "off"])
    @pytest.mark.parametrize(
        ("change", "reason"),
        [
            ({"format": "brainfeat-other"}, "not a brainfeat-test file"),
            ({"version": 4}, "format version 3, but this brainfeat reads version 4"),
        ],
    )
    def test_another_format(self, path, change, reason, verify):
        schema = Schema(**{**vars(SCHEMA), **change})
        with pytest.raises(CacheFormatError, match=reason.replace("test", "other")) as caught:
            StoredFile(path, schema, verify=verify)
        assert str(caught.value).startswith(f"{path}: ")

    def test_a_file_that_is_not_there(self, tmp_path):
        with pytest.raises(
            CacheError, match=r"file\.h5: does not exist; expected a brainfeat-test"
        ):
            StoredFile(tmp_path / "file.h5", SCHEMA)

    def test_a_folder(self, tmp_path):
        with pytest.raises(CacheError, match="is not a regular file"):
            StoredFile(tmp_path, SCHEMA)

    def test_a_pipe_is_not_waited_for(self, tmp_path):
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(CacheError, match="is not a regular file"):
            StoredFile(tmp_path / "pipe", SCHEMA)

    def test_a_name_that_no_file_system_takes(self, tmp_path):
        with pytest.raises(CacheError, match="cannot be read"):
            StoredFile(tmp_path / ("x" * 5000), SCHEMA)

    def test_a_file_that_may_not_be_read(self, path):
        path.chmod(0)
        with as_nobody(), pytest.raises(CacheError, match=r"Permission denied"):
            StoredFile(path, SCHEMA)

    def test_a_file_that_another_program_has_locked_is_not_called_damaged(self, path):
        with path.open("rb") as other:
            fcntl.flock(other, fcntl.LOCK_EX)
            with pytest.raises(CacheError, match="lock") as caught:
                StoredFile(path, SCHEMA)
        assert type(caught.value) is CacheError

    @pytest.mark.parametrize("verify", ["Full", "on", "", None, True])
    def test_a_misspelt_verification_is_not_none(self, path, verify):
        with pytest.raises(ParameterError, match="verify must be one of"):
            StoredFile(path, SCHEMA, verify=verify)

    def test_a_refused_file_is_closed(self, path):
        seal(path, attribute("other", 1))
        with pytest.raises(CacheFormatError) as caught:
            StoredFile(path, SCHEMA)
        # HDF5 opens no file for writing that it has open for reading.
        h5py.File(path, "r+").close()
        del caught

    def test_a_file_is_only_read(self, path):
        path.chmod(0o444)
        with unchanged(path.parent):
            read(path)


def hard_link_twice(file):
    file["dense/0/again"] = file["dense"]


def add_many_datasets(file):
    for number in range(600):
        file[f"part-{number // 50}/matrix-{number}"] = np.ones(2)


def add_many_groups(file):
    for number in range(600):
        file.create_group(f"dense/g{number // 50}/h{number}")


def virtual(file):
    """Virtual datasets are of a later version of HDF5 than the files here."""
    layout = h5py.VirtualLayout((10, 3), "<f4")
    layout[:] = h5py.VirtualSource("elsewhere.h5", "matrix", (10, 3))
    file.create_virtual_dataset("matrix", layout)


def external(file):
    elsewhere = f"{file.filename}.raw"
    file.create_dataset("count", (2,), "<i8", external=[(elsewhere, 0, 16)])[:] = 1


def missing_chunk(file):
    file.create_dataset("matrix", (8, 3), "<f4", chunks=(4, 3), fletcher32=True)[:4] = 1


def short_chunk(file):
    """HDF5 reads past the end of such a chunk."""
    matrix = file.create_dataset("matrix", (4, 3), "<f4", chunks=(4, 3), fletcher32=True)
    matrix.id.write_direct_chunk((0, 0), b"short", filter_mask=1)


def long_chunk(file):
    matrix = file.create_dataset("matrix", (4, 3), "<f4", chunks=(4, 3), fletcher32=True)
    matrix.id.write_direct_chunk((0, 0), b"long" * 1000)


def unchecked_chunk(file):
    matrix = file.create_dataset("matrix", (4, 3), "<f4", chunks=(4, 3), fletcher32=True)
    matrix.id.write_direct_chunk((0, 0), bytes(52), filter_mask=1)


def attribute(name, value, **options):
    def change(file):
        if name in file.attrs:
            del file.attrs[name]
        file.attrs.create(name, value, **options)

    return change


def dataset(name, *arguments, **options):
    return lambda file: file.create_dataset(name, *arguments, **options)


def link(name, target):
    return lambda file: file.__setitem__(name, target)


TEXT = h5py.string_dtype("utf-8")
TYPE, SHAPE = "unexpected type or shape", "dimensions, expected"
PARTS, CHUNK = "has missing or unexpected header messages", "has a chunk of another size or place"
FILTER, LESS = "needs a filter other than", "declares more than the file holds"
LINK, UNKNOWN = "is a link to another place", "unknown dataset"
PLAIN = "is not one plain number or text"

HOSTILE = {
    "soft link": (link("matrix", h5py.SoftLink("/dense/0/kernel")), LINK),
    "dangling soft link": (link("matrix", h5py.SoftLink("/nowhere")), LINK),
    "external link": (
        link("matrix", h5py.ExternalLink("/etc/passwd", "/")),
        "has a message of kind 2",
    ),
    "link to itself": (lambda file: file.__setitem__("dense", file["/"]), "linked more than once"),
    "named type": (link("matrix", np.dtype("<f4")), "shared or of another kind"),
    "unknown dataset": (dataset("other", data=[1]), UNKNOWN),
    "unknown dataset in a group": (dataset("dense/0/bias", data=[1]), UNKNOWN),
    "group in the place of a dataset": (
        lambda file: file.create_group("matrix/v/w/x/y"),
        "a group that is too deep",
    ),
    "deep groups": (
        lambda file: file.create_group("/".join("x" * 500)),
        "a group that is too deep",
    ),
    "many objects": (add_many_datasets, "more than 512 objects"),
    "many groups": (add_many_groups, "more than 512 objects"),
    "virtual": (virtual, PARTS),
    "external storage": (external, PARTS),
    "texts of variable length": (dataset("text", data=["a", "b"], dtype=TEXT), PARTS),
    "arrays of variable length": (dataset("count", (2,), h5py.vlen_dtype("<i8")), PARTS),
    "object reference": (dataset("count", (2,), h5py.ref_dtype), TYPE),
    "region reference": (dataset("count", (2,), h5py.regionref_dtype), TYPE),
    "compound": (dataset("count", (2,), [("a", "<i4"), ("b", "<i4")]), TYPE),
    "array type": (dataset("count", (2,), np.dtype(("<i4", 2))), TYPE),
    "opaque": (dataset("count", (2,), np.dtype("V8")), TYPE),
    "enumeration": (dataset("small", (2,), h5py.enum_dtype({"a": 1}, "<i2")), TYPE),
    "complex": (dataset("real", (2, 3, 2), "<c16"), TYPE),
    "no space": (dataset("count", data=h5py.Empty("<i8")), TYPE),
    "a scalar": (dataset("count", data=np.int64(1)), TYPE),
    "a dimension too many": (dataset("count", data=np.ones((2, 1), "<i8")), SHAPE),
    "a dimension too few": (dataset("matrix", data=np.ones(3, "<f4")), SHAPE),
    "wrong width": (
        dataset("matrix", data=np.ones((2, 3), "<f8")),
        "float64 of 2 .*, expected <f4",
    ),
    "wrong sign": (dataset("bytes", data=np.ones((2, 3), "|i1")), "int8 of 2 .*, expected .u1"),
    "wrong byte order": (dataset("small", data=np.ones(2, ">i2")), TYPE),
    "numbers as text": (dataset("text", data=np.ones(2, "<i8")), "int64 of 1 .*, expected S"),
    "text as numbers": (dataset("count", data=np.array([b"12345678"])), TYPE),
    "unknown filter": (dataset("matrix", (8, 3), "<f4", chunks=(4, 3), compression="lzf"), FILTER),
    "deflate": (dataset("matrix", (8, 3), "<f4", chunks=(4, 3), compression="gzip"), FILTER),
    "enormous": (dataset("matrix", (2**40, 3), "<f4", chunks=(4, 3)), LESS),
    "beyond 64 bits": (dataset("matrix", (2**32, 2**32), "<f4", chunks=(4, 3)), LESS),
    "nothing stored": (dataset("count", (2,), "<i8"), "declares another size than is stored"),
    "missing chunk": (missing_chunk, "has chunks missing"),
    "short chunk": (short_chunk, CHUNK),
    "long chunk": (long_chunk, CHUNK),
    "unchecked chunk": (unchecked_chunk, CHUNK),
    "attribute too many": (attribute("other", 1), "missing or unknown: 'other'"),
    "attribute too few": (lambda file: file.attrs.__delitem__("note"), "missing .*'note'"),
    "attribute with control codes": (attribute("\x1b[2J", 1), r"unknown: '\\x1b\[2J'"),
    "attribute that is no UTF-8": (attribute(b"\xff", 1), "is not UTF-8"),
    "no version": (lambda file: file.attrs.__delitem__("format_version"), "version None"),
    "other version": (attribute("format_version", 4), "version 4, but .* reads version 3"),
    "other format": (attribute("format", "other"), PLAIN),
    "attribute of variable length": (attribute("note", "text", dtype=TEXT), PLAIN),
    "attribute array": (attribute("number", [1, 2]), PLAIN),
    "attribute of one number in an array": (attribute("number", [1]), PLAIN),
    "attribute without a value": (attribute("note", h5py.Empty("S1")), PLAIN),
    "attribute reference": (attribute("note", h5py.Reference(), dtype=h5py.ref_dtype), PLAIN),
    "attribute compound": (attribute("note", np.zeros((), [("a", "<i8")])), PLAIN),
    "attribute truth": (attribute("number", True), PLAIN),
    "attribute of 16 bytes": (attribute("temperature", np.longdouble(1)), PLAIN),
    "attribute NaN": (attribute("temperature", float("nan")), PLAIN),
    "attribute infinity": (attribute("temperature", float("inf")), PLAIN),
}


def seal(path, change):
    """Change a file by h5py and give it the digest of what it is now."""
    latest = "latest" if change is virtual else "v108"
    with h5py.File(path, "r+", libver=("earliest", latest)) as file:
        change(file)
    writing.seal(path)


class TestGuard:
    """A file whose digest is right is still refused where its layout is not one of ours."""

    @pytest.fixture
    def path(self, tmp_path):
        return write(tmp_path / "file.h5", {"dense/0/kernel": EXAMPLES["dense/0/kernel"]})

    def test_a_changed_file_opens_where_the_change_is_harmless(self, path):
        seal(path, dataset("matrix", data=EXAMPLES["matrix"], chunks=(2, 3), fletcher32=True))
        np.testing.assert_array_equal(read(path)["matrix"], EXAMPLES["matrix"])

    @pytest.mark.parametrize("verify", ["full", "off"])
    @pytest.mark.parametrize("name", HOSTILE)
    def test_hostile(self, path, name, verify):
        change, reason = HOSTILE[name]
        if name == "link to itself":
            seal(path, lambda file: file.__delitem__("dense"))
        seal(path, change)
        with pytest.raises(CacheFormatError, match=reason) as caught:
            StoredFile(path, SCHEMA, verify=verify)
        assert str(caught.value).startswith(f"{path}: ")

    def test_a_text_that_is_no_utf8(self, path):
        seal(path, attribute("note", np.array(b"\xff\xfe", h5py.string_dtype("utf-8", 2))))
        with pytest.raises(CacheFormatError, match="not UTF-8"):
            StoredFile(path, SCHEMA)

    @pytest.mark.parametrize("data", [b"\xff" * 40_000, b"x" * 50_001])
    def test_a_long_text_that_is_no_utf8_or_too_long(self, tmp_path, monkeypatch, data):
        monkeypatch.setattr(storage, "_TEXT_LIMIT", 50_000)
        path = write(tmp_path / "file.h5", note="y" * 50_000)

        def change(file):
            del file["attributes/note"]
            file["attributes/note"] = np.frombuffer(data, np.uint8)

        seal(path, change)
        with pytest.raises(CacheFormatError, match=r"'attributes/note' is (not UTF-8|longer than)"):
            StoredFile(path, SCHEMA)

    def test_a_long_text_that_is_there_twice(self, tmp_path):
        path = write(tmp_path / "file.h5", note="y" * 50_000)
        seal(path, attribute("note", np.array(b"z", h5py.string_dtype("utf-8", 1))))
        with pytest.raises(CacheFormatError, match="one occurs twice"):
            StoredFile(path, SCHEMA)

    def test_many_chunks_in_one_place(self, tmp_path):
        """Without a limit, a file of kilobytes would declare, and give, any number of bytes."""
        path = tmp_path / "file.h5"
        values = np.arange(64 * 4096, dtype="<f4").reshape(64, 4096)
        with self.old_format(path) as file:
            matrix = file.create_dataset("matrix", data=values, chunks=(4, 4096))
            places = [matrix.id.get_chunk_info(number).byte_offset for number in range(16)]
        writing.seal(path)
        np.testing.assert_array_equal(read(path)["matrix"], values)
        data = path.read_bytes()
        end = places[0] + 4 * 4096 * 4
        # Addresses count from the end of the user block, the length of the file does not.
        numbers = {place - 512: places[0] - 512 for place in places} | {len(data): end}
        for old, new in numbers.items():
            data = data.replace(old.to_bytes(8, "little"), new.to_bytes(8, "little"))
        path.write_bytes(data[:end])
        writing.seal(path)
        with pytest.raises(CacheFormatError, match=LESS):
            StoredFile(path, SCHEMA)

    @staticmethod
    @contextmanager
    def old_format(path):
        """Begin a file of HDF5's first format, which has no checksums of its own."""
        with h5py.File(path, "w", libver="earliest", userblock_size=512) as file:
            own = {"format": "brainfeat-test", "format_version": 3, "content_sha256": "0" * 64}
            for name, value in {**ATTRIBUTES, **own}.items():
                writing._write_attribute(file, name, value)
            yield file

    def test_a_size_that_only_the_header_states(self, tmp_path):
        path = tmp_path / "file.h5"
        with self.old_format(path) as file:
            file["count"] = np.arange(1003)
        writing.seal(path)
        assert len(read(path)["count"]) == 1003
        data = path.read_bytes()
        for size in (1003, 8 * 1003):
            huge = (size << 40).to_bytes(8, "little")
            data = data.replace(size.to_bytes(8, "little"), huge)
        path.write_bytes(data)
        writing.seal(path)
        with pytest.raises((CacheFormatError, CacheCorruptError)):
            StoredFile(path, SCHEMA)


ROWS = 41
chunked = np.arange(ROWS * 3, dtype="<f4").reshape(ROWS, 3)
cube = np.arange(4 * 3 * 2, dtype="<f8").reshape(4, 3, 2)
pieces = {"matrix": chunked, "count": np.arange(ROWS) * 7, "text": as_text(map(str, range(ROWS)))}

row_numbers = st.integers(-ROWS, ROWS - 1)
indices = st.one_of(
    row_numbers,
    row_numbers.map(np.int16),
    row_numbers.map(np.array),
    st.slices(ROWS),
    st.slices(2 * ROWS),
    st.lists(row_numbers),
    st.lists(row_numbers, min_size=1).map(lambda rows: np.array(rows, np.int32)),
    st.just(np.empty(0, np.intp)),
    st.lists(row_numbers, min_size=6, max_size=6).map(lambda rows: np.reshape(rows, (2, 3))),
    st.lists(st.booleans(), min_size=ROWS, max_size=ROWS),
    st.lists(st.booleans(), min_size=ROWS, max_size=ROWS).map(np.array),
    st.just(np.zeros(ROWS, bool)),
    st.just(...),
)
columns = st.one_of(
    st.integers(-3, 2),
    st.slices(3),
    st.lists(st.integers(-3, 2), min_size=1),
    st.lists(st.booleans(), min_size=3, max_size=3),
    st.none(),
    st.just(...),
)
wrong_indices = {
    "too large": ROWS,
    "too small": -ROWS - 1,
    "one too large": [0, ROWS],
    "one too small": np.array([-ROWS - 1]),
    "mask too short": np.ones(ROWS - 1, bool),
    "mask of another shape": np.ones((ROWS, 3), bool),
    "fraction": 1.0,
    "fractions": np.array([1.0]),
    "text": "features",
    "row and column": (1, 2),
    "rows and column": (slice(None), 0),
}


@pytest.fixture(scope="module")
def arrays(tmp_path_factory):
    path = write(tmp_path_factory.mktemp("stored") / "file.h5", {**pieces, "real": cube})
    with StoredFile(path, SCHEMA) as file, pytest.MonkeyPatch.context() as patch:
        # So that what is not chunked is read in many blocks too.
        patch.setattr(stored_array, "_BLOCK_BYTES", 50)
        yield file.arrays


class TestStoredArray:
    @pytest.mark.parametrize("name", pieces)
    @given(rows=indices)
    def test_indexing_is_numpys(self, arrays, name, rows):
        expected = pieces[name][rows]
        result = arrays[name][rows]
        assert (np.shape(result), result.dtype) == (np.shape(expected), expected.dtype)
        np.testing.assert_array_equal(result, expected)

    @pytest.mark.parametrize("rows", wrong_indices.values(), ids=wrong_indices)
    def test_what_numpy_refuses_is_refused(self, arrays, rows):
        with pytest.raises(IndexError):
            arrays["count"][rows]

    @given(rows=indices, columns=columns)
    def test_rows_and_columns_are_numpys(self, arrays, rows, columns):
        try:
            expected = chunked[rows, columns]
        except IndexError:
            with pytest.raises(IndexError):
                arrays["matrix"][rows, columns]
            return
        result = arrays["matrix"][rows, columns]
        assert np.shape(result) == np.shape(expected)
        np.testing.assert_array_equal(result, expected)

    @pytest.mark.parametrize(
        "key",
        [
            *((), (...,), (None, 3), (..., 0), (..., 1, 1), (2, ..., 1), (True, 0), (None,)),
            *(
                (slice(None, None, -2), slice(1), [1, 0]),
                ([1, 0], [2, 1], [0, 1]),
                (slice(2), 1, 0),
            ),
            *(np.ix_([3, 1, 3], [0, 2]), (np.arange(4) > 1, [2, 0]), (slice(9, 4), [0])),
        ],
        ids=str,
    )
    def test_other_keys_are_numpys(self, arrays, key):
        np.testing.assert_array_equal(arrays["real"][key], cube[key])
        assert np.shape(arrays["real"][key]) == np.shape(cube[key])

    def test_a_column_is_read_block_by_block(self, arrays, monkeypatch):
        asked = []
        read = StoredArray._read
        monkeypatch.setattr(
            StoredArray, "_read", lambda self, rows: asked.append(rows) or read(self, rows)
        )
        arrays["matrix"][:, 1]
        assert {rows.stop - rows.start for rows in asked} == {4}

    def test_it_is_a_sequence_of_its_rows(self, arrays):
        for row, expected in zip(arrays["matrix"], chunked, strict=True):
            np.testing.assert_array_equal(row, expected)

    @pytest.mark.parametrize("name", pieces)
    def test_it_says_what_it_is(self, arrays, name):
        array, expected = arrays[name], pieces[name]
        assert (array.shape, array.dtype, array.ndim) == (
            expected.shape,
            expected.dtype,
            expected.ndim,
        )
        assert len(array) == ROWS
        assert f"/{name}: shape {expected.shape}" in repr(array)

    @pytest.mark.parametrize("name", pieces)
    def test_blocks_are_the_array_in_order(self, arrays, name):
        blocks = list(arrays[name].blocks())
        assert len(blocks) > 1
        np.testing.assert_array_equal(np.concatenate(blocks), pieces[name])

    def test_asarray_reads_it_all(self, arrays):
        np.testing.assert_array_equal(np.asarray(arrays["matrix"]), chunked)
        np.testing.assert_array_equal(np.asarray(arrays["matrix"], "<f8"), chunked)
        assert np.asarray(arrays["matrix"], "<f8").dtype == np.float64

    def test_it_cannot_be_had_without_a_copy(self, arrays):
        with pytest.raises(ValueError, match="only be read into a new array"):
            np.array(arrays["matrix"], copy=False)

    def test_a_row_reads_its_row_alone(self, arrays, monkeypatch):
        asked = []
        read = StoredArray._read
        monkeypatch.setattr(
            StoredArray, "_read", lambda self, rows: asked.append(rows) or read(self, rows)
        )
        arrays["matrix"][7]
        arrays["matrix"][10:12]
        arrays["matrix"][[39, 5, 5]]
        assert asked == [7, slice(10, 12), slice(4, 8), slice(36, 40)]

    def test_a_closed_file_is_not_called_damaged(self, path):
        with StoredFile(path, SCHEMA) as file:
            array = file.arrays["matrix"]
        with pytest.raises(CacheError, match="the file is closed") as caught:
            array[0]
        assert not isinstance(caught.value, CacheCorruptError)
        assert repr(array) == "<StoredArray /matrix: shape (10, 3), dtype float32>"

    def test_a_pickled_array_is_opened_again_where_it_is_needed(self, path):
        with StoredFile(path, SCHEMA) as file:
            pickled = pickle.dumps(file.arrays["matrix"])
        assert len(pickled) < 5000
        first, second = pickle.loads(pickled), pickle.loads(pickled)
        np.testing.assert_array_equal(first, EXAMPLES["matrix"])
        assert first is second

    @pytest.mark.parametrize(
        ("verify", "error"), [("full", CacheCorruptError), ("off", CacheFormatError)]
    )
    def test_a_pickled_array_of_a_file_that_was_damaged_is_refused(self, path, verify, error):
        with StoredFile(path, SCHEMA, verify=verify) as file:
            pickled = pickle.dumps(file.arrays["matrix"])
        data = bytearray(path.read_bytes())
        data[600 if verify == "off" else -3] ^= 255
        path.write_bytes(data)
        with pytest.raises(error):
            pickle.loads(pickled)

    @pytest.mark.parametrize("verify", ["full", "off"])
    def test_a_pickled_array_of_a_file_that_was_replaced_is_refused(self, path, verify):
        with StoredFile(path, SCHEMA, verify=verify) as file:
            pickled = pickle.dumps(file.arrays["matrix"])
        path.unlink()
        write(path, note="another")
        with pytest.raises(CacheError, match=r"file.h5: another file since it was opened; open it"):
            pickle.loads(pickled)


@pytest.mark.slow
@pytest.mark.parametrize("cases", [100, pytest.param(1000, marks=pytest.mark.deep)])
def test_nothing_but_a_brainfeat_error_comes_of_mutated_files(tmp_path, cases):
    """``python -m support.fuzz_storage --cases 20000`` tries more."""
    counts = fuzz_storage.fuzz_apart(tmp_path, cases=cases, seed=1)
    assert set(counts) == {"refused", "read"}
    assert counts.total() == cases
    assert counts["refused"] > 0.4 * cases


@pytest.mark.slow
@pytest.mark.parametrize("cases", [60, pytest.param(300, marks=pytest.mark.deep)])
def test_nothing_but_a_brainfeat_error_comes_of_mutated_json(tmp_path, cases):
    """``python -m support.fuzz_json --cases 20000`` tries more."""
    samples = fuzz_json.make_samples(tmp_path)
    counts = fuzz_json.fuzz(samples, folder=tmp_path, cases=cases, seed=2)
    assert set(counts) <= {"refused", "read", "not writable"}
    assert counts.total() == cases
    assert counts["refused"] > cases / 2
    assert counts["read"] > cases / 15


def test_half_of_a_pair_of_surrogates_in_a_record_is_an_error_of_ours():
    @dataclass
    class Record:
        counts: dict[str, int]

    with pytest.raises(BundleError, match="not a record of the type Record"):
        read_record(Record, {"\ud800": 1, "counts": {}}, error=BundleError)
