"""Atomic writes: a file of the final name is complete, or the one that was there before."""

import errno
import hashlib
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import h5py
import numpy as np
import pytest
from support.stored import ATTRIBUTES, EXAMPLES, SCHEMA, read, unchanged, write

from brainfeat.cache import writing
from brainfeat.cache.storage import StoredFile
from brainfeat.cache.writing import Blocks, as_text, write_file
from brainfeat.errors import CacheCorruptError, CacheError, ParameterError


@pytest.fixture
def path(tmp_path):
    return write(tmp_path / "file.h5")


def run_python(code, path, **environment):
    """Run code in another process, whose end is no end of the tests."""
    tests = Path(__file__).parent
    code = f"import sys; sys.path[:0] = {[str(tests), str(tests.parent)]}\n{textwrap.dedent(code)}"
    return subprocess.run(
        [sys.executable, "-c", code, path],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def fail_with(number):
    def fail(*_args, **_options):
        raise OSError(number, os.strerror(number))

    return fail


class TestRoundTrip:
    @pytest.mark.parametrize("name", EXAMPLES)
    def test_each_dataset_rule(self, tmp_path, name):
        path = write(tmp_path / "file.h5", {name: EXAMPLES[name]})
        stored = read(path)
        assert list(stored) == [name]
        assert stored[name].dtype == EXAMPLES[name].dtype
        np.testing.assert_array_equal(stored[name], EXAMPLES[name])

    @pytest.mark.parametrize("name", EXAMPLES)
    def test_no_rows(self, tmp_path, name):
        empty = EXAMPLES[name][:0]
        stored = read(write(tmp_path / "file.h5", {name: empty}))[name]
        assert (stored.shape, stored.dtype) == (empty.shape, empty.dtype)

    def test_an_array_whose_memory_is_not_contiguous(self, tmp_path):
        matrix = EXAMPLES["matrix"][::-2, ::-1]
        stored = read(write(tmp_path / "file.h5", {"matrix": matrix}))["matrix"]
        np.testing.assert_array_equal(stored, matrix)

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("note", ""),
            ("note", "Größe 脳 \U0001f9e0"),
            ("note", "x" * 70_000),
            ("note", "脳" * 300_000),
            ("number", -(2**63)),
            ("temperature", 1e-300),
        ],
        ids=lambda value: str(value)[:12],
    )
    def test_attributes(self, tmp_path, name, value):
        path = write(tmp_path / "file.h5", **{name: value})
        with StoredFile(path, SCHEMA) as file:
            assert file.attributes[name] == value
            assert type(file.attributes[name]) is type(value)

    @pytest.mark.parametrize("name", ["Größe 脳 1.h5", "with space.h5", "no-suffix", "#%?*.h5"])
    def test_file_names(self, tmp_path, name):
        (tmp_path / "médecin").mkdir()
        path = write(tmp_path / "médecin" / name)
        assert path == tmp_path / "médecin" / name
        assert list(read(path)) == sorted(EXAMPLES)

    def test_as_text_of_nothing(self):
        assert as_text([]).shape == (0,)

    def test_as_text_of_empty_texts(self):
        assert as_text(["", ""]).tolist() == [b"", b""]


class TestUserBlock:
    def test_it_holds_the_digest_of_all_that_follows(self, path):
        data = path.read_bytes()
        digest = hashlib.sha256(data[512:]).hexdigest()
        assert data[:512] == f"brainfeat sha256:{digest}\n".encode().ljust(512, b"\0")

    def test_h5py_knows_it(self, path):
        with h5py.File(path) as file:
            assert file.userblock_size == 512


class TestContentDigest:
    def test_it_is_that_of_what_is_read(self, path):
        with StoredFile(path, SCHEMA) as file:
            assert file.digest() == file.content_sha256

    def test_it_is_the_same_for_the_same_content(self, tmp_path, path):
        with (
            StoredFile(write(tmp_path / "other.h5"), SCHEMA) as other,
            StoredFile(path, SCHEMA) as f,
        ):
            assert other.content_sha256 == f.content_sha256

    def test_it_does_not_depend_on_how_the_rows_came(self, tmp_path, path):
        matrix = EXAMPLES["matrix"]
        blocks = Blocks(matrix.shape, matrix.dtype, iter([matrix[:1], matrix[1:7], matrix[7:]]))
        other = write(tmp_path / "other.h5", {**EXAMPLES, "matrix": blocks})
        with StoredFile(other, SCHEMA) as f, StoredFile(path, SCHEMA) as g:
            assert f.content_sha256 == g.content_sha256

    @pytest.mark.parametrize(
        ("datasets", "attributes"),
        [
            ({"matrix": EXAMPLES["matrix"] + 1}, {}),
            ({"matrix": EXAMPLES["matrix"].reshape(3, 10)}, {}),
            ({"count": EXAMPLES["count"][::-1]}, {}),
            ({"dense/2/kernel": EXAMPLES["dense/1/kernel"]}, {}),
            ({}, {"note": "other"}),
            ({}, {"number": 8}),
        ],
    )
    def test_it_changes_with_the_content(self, tmp_path, path, datasets, attributes):
        other = write(tmp_path / "other.h5", {**EXAMPLES, **datasets}, **attributes)
        with StoredFile(other, SCHEMA) as f, StoredFile(path, SCHEMA) as g:
            assert f.content_sha256 != g.content_sha256

    def test_it_can_be_the_name(self, tmp_path):
        path = write_file(
            tmp_path, SCHEMA, datasets=EXAMPLES, attributes=ATTRIBUTES, name_by_content=True
        )
        with StoredFile(path, SCHEMA) as file:
            assert path == tmp_path / f"{file.content_sha256}.h5"


class TestBlocks:
    MATRIX = EXAMPLES["matrix"]

    def write(self, path, *blocks, shape=MATRIX.shape):
        blocks = Blocks(shape, np.dtype("<f4"), iter(blocks))
        return write(path, {"matrix": blocks})

    @pytest.mark.parametrize("rows", [1, 3, 4, 7, 10])
    def test_blocks_of_any_size(self, tmp_path, rows):
        parts = [self.MATRIX[start : start + rows] for start in range(0, 10, rows)]
        path = self.write(tmp_path / "file.h5", *parts)
        np.testing.assert_array_equal(read(path)["matrix"], self.MATRIX)

    @pytest.mark.parametrize(
        ("blocks", "reason"),
        [
            ([], "0 rows; 10 were declared"),
            ([MATRIX[:9]], "9 rows; 10 were declared"),
            ([MATRIX, MATRIX[:1]], "after 10 rows came a block of"),
            ([MATRIX[:, :2]], "after 0 rows came a block of"),
            # One column would be broadcast to three.
            ([MATRIX[:, :1]], "after 0 rows came a block of"),
            ([MATRIX.ravel()], "after 0 rows came a block of"),
            ([MATRIX[:5], MATRIX[5:].astype("<f8")], "must be float32, not float64"),
        ],
    )
    def test_blocks_that_are_not_as_declared_leave_nothing_behind(self, tmp_path, blocks, reason):
        with pytest.raises(ParameterError, match=reason), unchanged(tmp_path):
            self.write(tmp_path / "file.h5", *blocks)

    @pytest.mark.parametrize("error", [KeyboardInterrupt, CacheCorruptError("the source is bad")])
    def test_what_ends_the_blocks_goes_through_and_leaves_nothing_behind(self, tmp_path, error):
        def blocks():
            yield self.MATRIX[:5]
            raise error

        write(tmp_path / "file.h5")
        with pytest.raises(error if isinstance(error, type) else type(error)), unchanged(tmp_path):
            self.write(tmp_path / "file.h5", *blocks())

    @pytest.mark.parametrize(
        ("name", "values"),
        [
            ("other", EXAMPLES["small"]),
            ("dense/10/kernel", EXAMPLES["dense/0/kernel"]),
            ("matrix", EXAMPLES["matrix"].ravel()),
            ("text", np.array([[b"a"]])),
            ("real", Blocks((2, 3, 2), np.dtype("<f4"), [EXAMPLES["real"]])),
            ("matrix", EXAMPLES["matrix"].astype("<f8")),
            ("matrix", EXAMPLES["matrix"].astype(">f4")),
            ("text", np.array(["a"])),
        ],
    )
    def test_what_the_format_has_not_is_refused(self, tmp_path, name, values):
        with pytest.raises(ParameterError, match=f"'{name}'"), unchanged(tmp_path):
            write(tmp_path / "file.h5", {name: values})


class TestReplacement:
    """A file that is there is replaced in one step, or not at all."""

    def test_a_file_is_replaced(self, path):
        write(path, note="new")
        with StoredFile(path, SCHEMA) as file:
            assert file.attributes["note"] == "new"

    def test_nothing_but_the_file_is_left(self, path):
        assert list(path.parent.iterdir()) == [path]

    def test_the_temporary_file_is_in_the_scratch_folder(self, tmp_path, monkeypatch):
        (tmp_path / "scratch").mkdir()
        sealed = []
        seal = writing.seal
        monkeypatch.setattr(writing, "seal", lambda path: (sealed.append(path), seal(path)))
        write_file(
            tmp_path / "file.h5",
            SCHEMA,
            datasets=EXAMPLES,
            attributes=ATTRIBUTES,
            scratch=tmp_path / "scratch",
        )
        assert [temporary.parent.name for temporary in sealed] == ["scratch"]
        assert sealed[0].match(writing.TEMPORARY_NAME)

    @pytest.mark.parametrize("function", ["os.fsync", "pathlib.Path.replace", "h5py.File"])
    def test_what_was_there_is_untouched_when_writing_fails(self, path, monkeypatch, function):
        monkeypatch.setattr(function, fail_with(errno.ENOSPC))
        with (
            unchanged(path.parent),
            pytest.raises(CacheError, match=r"cannot be written \(No space left on device\)"),
        ):
            write(path, note="new")

    def test_a_file_that_cannot_grow(self, path):
        """The kernel refuses to let a file grow, as it would on a full disk."""
        code = """
            import resource, signal
            import numpy as np
            from support.stored import write
            from brainfeat.errors import CacheError
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
            try:
                write(sys.argv[1], {"matrix": np.ones((1 << 10, 1 << 9), "<f4")})
            except CacheError as error:
                print(error)
        """
        with unchanged(path.parent):
            done = run_python(code, path)
        assert (done.returncode, done.stderr) == (0, "")
        assert "file.h5: cannot be written" in done.stdout
        assert "nothing was changed" in done.stdout

    @pytest.mark.parametrize("moment", ["before the seal", "after the seal"])
    def test_a_disk_that_changes_a_bit_is_noticed(self, path, monkeypatch, moment):
        seal = writing.seal
        needle = EXAMPLES["count"].tobytes()

        def flip(file):
            data = file.read_bytes()
            assert data.count(needle) == 1
            file.write_bytes(data.replace(needle, needle[::-1]))

        def bad_seal(file):
            if moment == "before the seal":
                flip(file)
            seal(file)
            if moment == "after the seal":
                flip(file)

        monkeypatch.setattr(writing, "seal", bad_seal)
        with (
            unchanged(path.parent),
            pytest.raises(CacheError, match=r"cannot be written .*read back") as caught,
        ):
            write(path, note="new")
        assert type(caught.value) is CacheError

    def test_a_failure_of_hdf5_is_one_line(self, path, monkeypatch):
        def fail(*_arguments):
            raise RuntimeError("Can't decrement id ref count\n, filename = 'file.h5'")

        monkeypatch.setattr(writing, "_write_content", fail)
        with (
            unchanged(path.parent),
            pytest.raises(CacheError, match=r"written \(Can't decrement id ref count , filename"),
        ):
            write(path, note="new")

    def test_a_folder_that_cannot_be_synchronised_is_told(self, path, monkeypatch):
        monkeypatch.setattr(writing, "_sync", self.sync_of_folders_fails_with(errno.EIO))
        with pytest.raises(CacheError, match="a file was written but may be lost in a power cut"):
            write(path, note="new")
        with StoredFile(path, SCHEMA) as file:
            assert file.attributes["note"] == "new"

    def test_a_file_system_without_synchronisation_of_folders_is_no_failure(
        self, path, monkeypatch
    ):
        monkeypatch.setattr(writing, "_sync", self.sync_of_folders_fails_with(errno.EINVAL))
        write(path, note="new")
        with StoredFile(path, SCHEMA) as file:
            assert file.attributes["note"] == "new"

    @staticmethod
    def sync_of_folders_fails_with(number):
        return lambda path: fail_with(number)() if path.is_dir() else None

    def test_a_folder_that_is_not_there(self, tmp_path):
        with pytest.raises(CacheError, match=r"file\.h5: cannot be written"):
            write(tmp_path / "missing" / "file.h5")

    def test_a_folder_of_that_name(self, tmp_path):
        (tmp_path / "file.h5").mkdir()
        with pytest.raises(CacheError, match=r"file\.h5: cannot be written"):
            write(tmp_path / "file.h5")
        assert [path.name for path in tmp_path.iterdir()] == ["file.h5"]
