"""The one owner of h5py: flat HDF5 files written whole, verified, renamed, and guarded when read.

A file starts with a user block of 512 bytes that holds the SHA-256 of all the bytes after it, so
that one changed bit anywhere is noticed before anything is parsed. HDF5 itself opens a file only
when :mod:`brainfeat.cache.hdf5_guard` has found nothing in it but what is written here.
"""

import errno
import hashlib
import io
import os
import re
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, get_args

import numpy as np
from numpy.typing import NDArray

from brainfeat.cache.hdf5_guard import BASE, Structure, StructureError, read_structure
from brainfeat.canonical import canonical_json
from brainfeat.errors import BrainfeatError, ParameterError

Verify = Literal["full", "off"]
Attribute = str | int | float

TEMPORARY_NAME = f".{'[0-9a-f]' * 16}.tmp"

_MAGIC = b"brainfeat sha256:"
_READ_BYTES = 8 << 20
# HDF5's simplest structures hold attributes of less than 64 KiB; a longer text is a dataset.
_LONG_TEXT = 32 << 10
_LONG_FOLDER = "attributes/"
_TEXT_LIMIT = 64 << 20
# What a file system answers that has not the operation.
_UNSUPPORTED = (errno.EINVAL, errno.EBADF, errno.EOPNOTSUPP)
# What h5py raises on a damaged file depends on where the damage is.
_HDF5_ERRORS = (OSError, RuntimeError, KeyError, ValueError, TypeError, OverflowError)


@dataclass(frozen=True, kw_only=True)
class DatasetRule:
    """What one dataset of a format may be.

    Parameters
    ----------
    dtype : str
        NumPy's little-endian type string, such as ``"<f4"``, or ``"S"`` for fixed-length UTF-8.
    ndim : int
        Number of dimensions.
    chunk_rows : int or None
        Rows a chunk, with a Fletcher-32 checksum each; None stores the array in one piece.
    """

    dtype: str
    ndim: int = 1
    chunk_rows: int | None = None


_LONG_RULE = DatasetRule(dtype="|u1")


@dataclass(frozen=True, kw_only=True)
class Schema:
    """What a file of one format holds.

    Parameters
    ----------
    format : str
        Value of the attribute ``format``.
    version : int
        Value of the attribute ``format_version``.
    datasets : mapping of str to DatasetRule
        Regular expressions of full dataset names, and what such a dataset may be.
    attributes : frozenset of str
        The root attributes besides ``format``, ``format_version`` and ``content_sha256``.
    error, format_error, corrupt_error : type
        What to raise where a file cannot be opened or written, is of another format, is damaged.
    remedy : str
        What a user can do about a damaged file.
    """

    format: str
    version: int
    datasets: Mapping[str, DatasetRule]
    attributes: frozenset[str]
    error: type[BrainfeatError]
    format_error: type[BrainfeatError]
    corrupt_error: type[BrainfeatError]
    remedy: str

    def rule(self, name: str) -> DatasetRule | None:
        """Return the rule of a dataset's name, or None where the format has no such dataset."""
        matches = (rule for pattern, rule in self.datasets.items() if re.fullmatch(pattern, name))
        return next(matches, None)


@dataclass(frozen=True)
class Blocks:
    """An array that is too large to hold: its shape, its dtype, its blocks of rows in order."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    blocks: Iterable[NDArray[Any]]


class StoredArray:
    """An array in an open file, read when it is indexed.

    ``array[10:20]``, ``array[mask]`` and ``array[indices]`` read those rows alone;
    ``numpy.asarray(array)`` reads it all.
    """

    def __init__(self, dataset: Any, path: Path, schema: Schema) -> None:
        self._dataset = dataset
        self._path = path
        self._schema = schema
        self._name = str(dataset.name)
        self.shape: tuple[int, ...] = dataset.shape
        self.dtype: np.dtype[Any] = dataset.dtype
        self.ndim: int = len(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        return f"<StoredArray {self._name}: shape {self.shape}, dtype {self.dtype}>"

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        if copy is False:
            raise ValueError("a stored array can only be read into a new array")
        return self[:].astype(dtype or self.dtype, copy=False)

    def __getitem__(self, rows: Any) -> NDArray[Any]:
        if isinstance(rows, tuple):
            raise IndexError("a stored array is indexed by its rows alone: array[rows][:, columns]")
        if isinstance(rows, slice):
            start, stop, step = rows.indices(len(self))
            if step != 1:
                return self._gather(np.arange(start, stop, step))
            block: NDArray[Any] = self._read(slice(start, max(start, stop)))
            return block
        # NumPy itself says what an index selects.
        index = np.arange(len(self))[rows]
        if index.ndim == 0:
            row: NDArray[Any] = self._read(int(index))
            return row
        return self._gather(index.reshape(-1)).reshape(index.shape + self.shape[1:])

    def blocks(self) -> Iterator[NDArray[Any]]:
        """Yield the array in order, some megabytes at a time."""
        step = self._block_rows()
        for start in range(0, len(self), step):
            yield self._read(slice(start, start + step))

    def _block_rows(self) -> int:
        row_bytes = max(1, self.dtype.itemsize * int(np.prod(self.shape[1:])))
        chunk = self._dataset.chunks[0] if self._dataset.chunks else 1
        return int(max(chunk, _READ_BYTES // row_bytes // chunk * chunk))

    def _gather(self, index: NDArray[np.intp]) -> NDArray[Any]:
        result = np.empty((len(index), *self.shape[1:]), self.dtype)
        order = np.argsort(index, kind="stable")
        ordered = index[order]
        step = self._dataset.chunks[0] if self._dataset.chunks else self._block_rows()
        starts = np.unique(ordered // step) * step
        bounds = np.searchsorted(ordered, np.append(starts, len(self)))
        for start, low, high in zip(starts, bounds[:-1], bounds[1:], strict=True):
            block = self._read(slice(int(start), int(start) + step))
            result[order[low:high]] = block[ordered[low:high] - start]
        return result

    def _read(self, rows: int | slice) -> Any:
        if not self._dataset:
            raise self._schema.error(f"{self._path}: the file is closed; open it again to read it")
        try:
            return self._dataset[rows]
        except _HDF5_ERRORS as error:
            raise _translate(error, self._path, self._schema) from error


def _translate(error: Exception, path: Path, schema: Schema) -> BrainfeatError:
    """Tell a system that failed, for which HDF5 gives an errno, from a file that is damaged."""
    if getattr(error, "errno", None):
        return schema.error(f"{path}: cannot be read ({error})")
    return schema.corrupt_error(f"{path}: damaged ({error}); {schema.remedy}")


class StoredFile:
    """An open file of one format: its attributes and its arrays.

    Parameters
    ----------
    path : path-like
        The file.
    schema : Schema
        The format that it must have.
    verify : {"full", "off"}
        ``"full"`` compares the SHA-256 of the file with the one it was written with, before
        anything else; ``"off"`` only checks the layout.
    """

    def __init__(
        self, path: str | os.PathLike[str], schema: Schema, *, verify: Verify = "full"
    ) -> None:
        import h5py

        if verify not in get_args(Verify):
            raise ParameterError(
                f"verify must be one of {get_args(Verify)}. Got {verify!r} instead."
            )
        self.path = Path(path)
        self.schema = schema
        _check_bytes(self.path, schema, verify=verify)
        structure = _check_structure(self.path, schema)
        try:
            self._file = h5py.File(self.path, "r", locking="best-effort")
        except _HDF5_ERRORS as error:
            raise _translate(error, self.path, schema) from error
        try:
            arrays = {
                name: StoredArray(self._file[name], self.path, schema) for name in structure.arrays
            }
            self.attributes = _read_attributes(structure, arrays, schema, self.path)
        except BaseException as error:
            # HDF5 cannot always close what it could not read; the first error is the one that says
            # what is wrong.
            with suppress(*_HDF5_ERRORS):
                self._file.close()
            if isinstance(error, _HDF5_ERRORS) and not isinstance(error, BrainfeatError):
                raise _translate(error, self.path, schema) from error
            raise
        self.arrays = {name: arrays[name] for name in arrays if not _is_long(name)}

    @property
    def content_sha256(self) -> str:
        """The digest of the content, as it was stored."""
        return str(self.attributes["content_sha256"])

    def digest(self) -> str:
        """Compute the digest of the content from the arrays and attributes as they are read."""
        digests = {name: _digest(array, array.blocks()) for name, array in self.arrays.items()}
        return _content_digest(self.attributes, digests)

    def close(self) -> None:
        """Close the file; its arrays cannot be read any more."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def write_file(
    path: str | os.PathLike[str],
    schema: Schema,
    *,
    datasets: Mapping[str, NDArray[Any] | Blocks],
    attributes: Mapping[str, Attribute],
    scratch: Path | None = None,
    name_by_content: bool = False,
) -> Path:
    """Write one file whole, compare it with what was meant, and rename it into place.

    Parameters
    ----------
    path : path-like
        Where the file goes; a file that is there is replaced in one step.
    schema : Schema
        The format to write.
    datasets : mapping of str to ndarray or Blocks
        The arrays by name.
    attributes : mapping of str to str, int or float
        The root attributes that the schema names.
    scratch : Path or None
        Folder of the same file system for the temporary file; None takes the file's own.
    name_by_content : bool
        Whether `path` is a folder and the file's name becomes ``<content_sha256>.h5``.

    Returns
    -------
    Path
        The file that was written.

    Raises
    ------
    BrainfeatError
        The schema's ``error`` where the file cannot be written; nothing was changed then.
    """
    path = Path(path)
    folder = path if name_by_content else path.parent
    temporary = (scratch or folder) / f".{secrets.token_hex(8)}.tmp"
    try:
        with temporary.open("xb+", buffering=0) as file:
            content = _write_undisturbed(file, schema, datasets, attributes)
        _seal(temporary)
        _compare(temporary, schema, content)
        target = path / f"{content}.h5" if name_by_content else path
        _sync(temporary)
        temporary.replace(target)
    except (OSError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise schema.error(
            f"{path}: cannot be written ({reason}); nothing that was there is changed"
        ) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
    _sync_folder(folder, schema)
    if name_by_content:
        # The folder of such files is often as new as its first file.
        _sync_folder(folder.parent, schema)
    return target


class _Sink(io.RawIOBase):
    """A file that HDF5 may write to without ever being told of an error.

    After a write that failed, HDF5 crashes the process. So the first error is kept here, and
    `check` raises it.
    """

    def __init__(self, file: io.FileIO) -> None:
        self._file = file
        self._error: BaseException | None = None

    def stop(self, error: BaseException) -> None:
        """Write nothing more."""
        self._error = self._error or error

    def check(self) -> None:
        """Raise the first error there was."""
        if self._error is not None:
            raise self._error

    def seekable(self) -> bool:
        return True

    def seek(self, place: int, whence: int = os.SEEK_SET) -> int:
        return self._file.seek(place, whence)

    def tell(self) -> int:
        return self._file.tell()

    def readinto(self, buffer: Any) -> int | None:
        return self._file.readinto(buffer)

    def write(self, data: Any) -> int:
        with self._kept():
            left = memoryview(data).cast("B")
            while left and self._error is None:
                left = left[self._file.write(left) :]
        return len(data)

    def truncate(self, size: int | None = None) -> int:
        with self._kept():
            self._file.truncate(size)
        return size or 0

    @contextmanager
    def _kept(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.stop(error)


def _write_undisturbed(
    file: io.FileIO,
    schema: Schema,
    datasets: Mapping[str, NDArray[Any] | Blocks],
    attributes: Mapping[str, Attribute],
) -> str:
    """Write in a thread of its own, where no signal can end what HDF5 calls."""
    sink = _Sink(file)
    with ThreadPoolExecutor(1, thread_name_prefix="brainfeat-write") as thread:
        writing = thread.submit(_write_content, sink, schema, datasets, attributes)
        try:
            return writing.result()
        except BaseException as error:
            sink.stop(error)
            raise


def _write_content(
    sink: _Sink,
    schema: Schema,
    datasets: Mapping[str, NDArray[Any] | Blocks],
    attributes: Mapping[str, Attribute],
) -> str:
    import h5py

    attributes = {"format": schema.format, "format_version": schema.version, **attributes}
    digests = {}
    # The oldest structures are the simplest: those that brainfeat.cache.hdf5_guard lets in.
    with h5py.File(sink, "w", libver=("earliest", "v108"), userblock_size=BASE) as written:
        for name, values in sorted(datasets.items()):
            digests[name] = _write_dataset(written, name, values, schema.rule(name), sink.check)
        content = _content_digest(attributes, digests)
        for name, value in {**attributes, "content_sha256": content}.items():
            _write_attribute(written, name, value)
    sink.check()
    return content


def _write_dataset(
    file: Any,
    name: str,
    values: NDArray[Any] | Blocks,
    rule: DatasetRule | None,
    check: Callable[[], None],
) -> str:
    import h5py

    if rule is None or len(values.shape) != rule.ndim:
        raise ValueError(f"the format has no dataset {name!r} of {len(values.shape)} dimensions")
    dtype = np.dtype(f"S{max(1, values.dtype.itemsize)}" if rule.dtype == "S" else rule.dtype)
    if values.dtype != dtype:
        raise ValueError(f"dataset {name!r} must be {dtype}, not {values.dtype}")
    stored = h5py.string_dtype("utf-8", dtype.itemsize) if rule.dtype == "S" else dtype
    layout: dict[str, Any] = {}
    if rule.chunk_rows and values.shape[0]:
        rows = min(rule.chunk_rows, values.shape[0])
        layout = {"chunks": (rows, *values.shape[1:]), "fletcher32": True}
    dataset = file.create_dataset(name, values.shape, stored, **layout)
    hasher = hashlib.sha256()
    start = 0
    for block in values.blocks if isinstance(values, Blocks) else [values]:
        if block.dtype != dtype:
            raise ValueError(f"dataset {name!r} must be {dtype}, not {block.dtype}")
        if block.shape[1:] != values.shape[1:] or start + len(block) > values.shape[0]:
            raise ValueError(
                f"dataset {name!r} was promised as {values.shape}; "
                f"after {start} rows came a block of {block.shape}"
            )
        contiguous = np.ascontiguousarray(block)
        hasher.update(contiguous.view(np.uint8).data if contiguous.size else b"")
        dataset[start : start + len(block)] = contiguous.view(stored)
        check()
        start += len(block)
        del block, contiguous  # the next one is made before the names are bound anew
    if start != values.shape[0]:
        raise ValueError(f"dataset {name!r} has {start} rows where {values.shape[0]} were promised")
    return _entry(dtype, values.shape, hasher.hexdigest())


def _write_attribute(file: Any, name: str, value: Attribute) -> None:
    import h5py

    if not isinstance(value, str):
        file.attrs[name] = value
        return
    data = value.encode("utf-8")
    if len(data) > _LONG_TEXT:
        file.create_dataset(_LONG_FOLDER + name, data=np.frombuffer(data, np.uint8))
    else:
        dtype = h5py.string_dtype("utf-8", max(1, len(data)))
        file.attrs.create(name, np.array(data, dtype=dtype))


def _compare(path: Path, schema: Schema, content: str) -> None:
    """Read a file back; raise an OSError where it is not what was meant."""
    try:
        with StoredFile(path, schema) as written:
            same = written.digest() == written.content_sha256 == content
    except schema.error as error:
        raise OSError(f"what was written cannot be read back: {error}") from error
    if not same:
        raise OSError("what was read back is not what was written")


def _seal(path: Path) -> None:
    """Write the SHA-256 of all that follows the user block into it."""
    with path.open("r+b") as file:
        file.write(_user_block(_digest_bytes(file)))


def _user_block(digest: str) -> bytes:
    return (_MAGIC + digest.encode("ascii") + b"\n").ljust(BASE, b"\0")


def _digest_bytes(file: Any) -> str:
    hasher = hashlib.sha256()
    file.seek(BASE)
    while data := file.read(_READ_BYTES):
        hasher.update(data)
    file.seek(0)
    return hasher.hexdigest()


def _check_bytes(path: Path, schema: Schema, *, verify: Verify) -> None:
    """Refuse what is not a file of ours, and what is not as it was written."""
    try:
        if not path.is_file():
            what = "is not a regular file" if path.exists() else "does not exist"
            raise schema.error(f"{path}: {what}; expected a {schema.format} file")
        with path.open("rb") as file:
            block = file.read(BASE)
            if not block.startswith(_MAGIC):
                raise schema.format_error(
                    f"{path}: not a file that brainfeat wrote; expected a {schema.format} file"
                )
            if verify == "full" and block != _user_block(_digest_bytes(file)):
                raise schema.corrupt_error(
                    f"{path}: damaged or truncated: "
                    f"its SHA-256 is not the one it was written with; {schema.remedy}"
                )
    except OSError as error:
        if isinstance(error, BrainfeatError):
            raise
        raise schema.error(f"{path}: cannot be read ({error.strerror})") from error


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_folder(folder: Path, schema: Schema) -> None:
    """Make a rename last through a power cut."""
    try:
        with _where_supported():
            _sync(folder)
    except OSError as error:
        raise schema.error(
            f"{folder}: a file was written but may not last ({error.strerror}); write it again"
        ) from error


@contextmanager
def _where_supported() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise


def _digest(array: StoredArray, blocks: Iterable[NDArray[Any]]) -> str:
    hasher = hashlib.sha256()
    for block in blocks:
        hasher.update(np.ascontiguousarray(block).view(np.uint8).data if block.size else b"")
    return _entry(array.dtype, array.shape, hasher.hexdigest())


def _entry(dtype: np.dtype[Any], shape: tuple[int, ...], digest: str) -> str:
    return f"{dtype.str} {'x'.join(map(str, shape))} {digest}"


def _content_digest(attributes: Mapping[str, Attribute], datasets: Mapping[str, str]) -> str:
    covered = {name: value for name, value in attributes.items() if name != "content_sha256"}
    text = canonical_json({"attributes": covered, "datasets": dict(datasets)})
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def _check_structure(path: Path, schema: Schema) -> Structure:
    """Refuse a file that HDF5 must not open, and one that is not of the schema."""
    try:
        structure = read_structure(path)
        _check_format(structure, schema)
    except StructureError as error:
        raise schema.format_error(
            f"{path}: {error}, so it is not as brainfeat writes a {schema.format} file"
        ) from error
    except OSError as error:
        raise schema.error(f"{path}: cannot be read ({error.strerror})") from error
    except BrainfeatError as error:
        raise type(error)(f"{path}: {error}") from error
    return structure


def _check_format(structure: Structure, schema: Schema) -> None:
    attributes = structure.attributes
    if attributes.get("format") != schema.format:
        raise schema.format_error(f"not a {schema.format} file")
    version = attributes.get("format_version")
    if version != schema.version:
        raise schema.format_error(
            f"format version {version}, but this brainfeat reads version {schema.version}"
        )
    for name, array in structure.arrays.items():
        rule = _LONG_RULE if _is_long(name) else schema.rule(name)
        if rule is None:
            raise schema.format_error(f"unknown dataset {name!r}")
        kind = "S" if array.dtype.kind == "S" else array.dtype.str
        if (kind, len(array.shape)) != (rule.dtype, rule.ndim):
            raise schema.format_error(
                f"dataset {name!r} is {array.dtype} of {len(array.shape)} dimensions, "
                f"expected {rule.dtype} of {rule.ndim}"
            )


def _is_long(name: str) -> bool:
    return name.startswith(_LONG_FOLDER)


def _read_attributes(
    structure: Structure, arrays: Mapping[str, StoredArray], schema: Schema, path: Path
) -> dict[str, Attribute]:
    """Return the root attributes, those among them that are datasets for their length too."""
    found: dict[str, Attribute] = dict(structure.attributes)
    names = [*found, *(name.removeprefix(_LONG_FOLDER) for name in arrays if _is_long(name))]
    wanted = {"format", "format_version", "content_sha256"} | schema.attributes
    if sorted(names) != sorted(wanted):
        odd = ", ".join(sorted(map(repr, set(names) ^ wanted))) or "one is there twice"
        raise schema.format_error(f"{path}: root attributes are missing or unknown: {odd}")
    for name in filter(_is_long, arrays):
        if len(arrays[name]) > _TEXT_LIMIT:
            raise schema.format_error(f"{path}: {name!r} is longer than {_TEXT_LIMIT:,} bytes")
        try:
            found[name.removeprefix(_LONG_FOLDER)] = arrays[name][:].tobytes().decode("utf-8")
        except UnicodeDecodeError as error:
            raise schema.format_error(f"{path}: {name!r} is not UTF-8") from error
    return found


def as_text(values: Iterable[str]) -> NDArray[np.bytes_]:
    """Encode texts as the fixed-length UTF-8 that a dataset of dtype ``"S"`` holds."""
    texts = values if isinstance(values, Sequence) else list(values)
    size = max((len(text.encode("utf-8")) for text in texts), default=0)
    encoded = (text.encode("utf-8") for text in texts)
    return np.fromiter(encoded, f"S{max(1, size)}", count=len(texts))
