"""Atomic writes of HDF5 files: write, read back, synchronise, rename.

A file gets its name only when what was read back is what was meant, and has reached the disk.
"""

import errno
import io
import os
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainfeat.cache.digests import (
    Attribute,
    digest_array,
    digest_bytes,
    digest_content,
    user_block,
)
from brainfeat.cache.hdf5_guard import BASE
from brainfeat.cache.storage import LONG_FOLDER, DatasetRule, Schema, StoredFile
from brainfeat.errors import ParameterError

TEMPORARY_NAME = f".{'[0-9a-f]' * 16}.tmp"

# HDF5's oldest structures hold attributes of less than 64 KiB; a longer text becomes a dataset.
_LONG_TEXT = 32 << 10
# What a file system answers that does not support an operation.
_UNSUPPORTED = (errno.EINVAL, errno.EBADF, errno.EOPNOTSUPP)


@dataclass(frozen=True)
class Blocks:
    """An array that is written in blocks of rows, because it is too large for memory.

    Parameters
    ----------
    shape : tuple of int
        The shape of the whole array.
    dtype : numpy.dtype
        The type of every block.
    blocks : iterable of ndarray
        Consecutive rows, any number at a time.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    blocks: Iterable[NDArray[Any]]


def write_file(
    path: str | os.PathLike[str],
    schema: Schema,
    *,
    datasets: Mapping[str, NDArray[Any] | Blocks],
    attributes: Mapping[str, Attribute],
    scratch: Path | None = None,
    name_by_content: bool = False,
) -> Path:
    """Write one file atomically: under a temporary name, read back, synchronise, rename.

    Parameters
    ----------
    path : path-like
        Where the file goes; an existing file is replaced in one step.
    schema : Schema
        The format to write.
    datasets : mapping of str to ndarray or Blocks
        The arrays by name.
    attributes : mapping of str to str, int or float
        The root attributes that the schema names.
    scratch : Path or None
        Folder for the temporary file, on the same file system; None is the file's own folder.
    name_by_content : bool
        Whether `path` is a folder, in which the file gets the name ``<content_sha256>.h5``.

    Returns
    -------
    Path
        The file that was written.

    Raises
    ------
    BrainfeatError
        The schema's ``error``: the file cannot be written, and nothing has changed.
    ParameterError
        An array does not have the name, type or shape that the schema and `datasets` declare.
    """
    path = Path(path)
    folder = path if name_by_content else path.parent
    temporary = (scratch or folder) / f".{secrets.token_hex(8)}.tmp"
    try:
        with temporary.open("xb+", buffering=0) as file:
            content = _write_undisturbed(file, schema, datasets, attributes)
        seal(temporary)
        _compare(temporary, schema, content)
        target = path / f"{content}.h5" if name_by_content else path
        _sync(temporary)
        temporary.replace(target)
    except (OSError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise schema.error(f"{path}: cannot be written ({reason}); nothing was changed") from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
    _sync_folder(folder, schema)
    if name_by_content:
        # Often the folder itself was made for this file.
        _sync_folder(folder.parent, schema)
    return target


class _Sink(io.RawIOBase):
    """A file for HDF5 to write to that never reports an error to it.

    HDF5 can crash the process after a failed write. The first error is therefore kept here, and
    `check` raises it.
    """

    def __init__(self, file: io.FileIO) -> None:
        self._file = file
        self._error: BaseException | None = None

    def stop(self, error: BaseException) -> None:
        """Ignore all further writes."""
        self._error = self._error or error

    def check(self) -> None:
        """Raise the first error, if there was one."""
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
    """Write in a separate thread, because signal handlers run in the main thread only.

    An exception from a handler inside one of HDF5's callbacks would count as a failed write.
    """
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
    # HDF5's oldest structures are the only ones that brainfeat.cache.hdf5_guard accepts.
    with h5py.File(sink, "w", libver=("earliest", "v108"), userblock_size=BASE) as written:
        for name, values in sorted(datasets.items()):
            digests[name] = _write_dataset(written, name, values, schema.rule(name), sink.check)
        content = digest_content(attributes, digests)
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
    """Write one dataset; return its description for the content digest."""
    import h5py

    if rule is None or len(values.shape) != rule.ndim:
        raise ParameterError(
            f"the format has no dataset {name!r} of {len(values.shape)} dimensions"
        )
    dtype = np.dtype(f"S{max(1, values.dtype.itemsize)}" if rule.dtype == "S" else rule.dtype)
    if values.dtype != dtype:
        raise ParameterError(f"dataset {name!r} must be {dtype}, not {values.dtype}")
    stored = h5py.string_dtype("utf-8", dtype.itemsize) if rule.dtype == "S" else dtype
    layout: dict[str, Any] = {}
    if rule.chunk_rows and values.shape[0]:
        rows = min(rule.chunk_rows, values.shape[0])
        layout = {"chunks": (rows, *values.shape[1:]), "fletcher32": True}
    dataset = file.create_dataset(name, values.shape, stored, **layout)
    blocks = values.blocks if isinstance(values, Blocks) else [values]
    return digest_array(dtype, values.shape, _write_blocks(dataset, blocks, dtype, check))


def _write_blocks(
    dataset: Any,
    blocks: Iterable[NDArray[Any]],
    dtype: np.dtype[Any],
    check: Callable[[], None],
) -> Iterator[NDArray[Any]]:
    """Write blocks of rows one after the other, and pass each on once it is written."""
    name, shape, stored = dataset.name.lstrip("/"), dataset.shape, dataset.dtype
    start = 0
    for block in blocks:
        if block.dtype != dtype:
            raise ParameterError(f"dataset {name!r} must be {dtype}, not {block.dtype}")
        if block.shape[1:] != shape[1:] or start + len(block) > shape[0]:
            raise ParameterError(
                f"dataset {name!r} was declared as {shape}; "
                f"after {start} rows came a block of {block.shape}"
            )
        contiguous = np.ascontiguousarray(block)
        dataset[start : start + len(block)] = contiguous.view(stored)
        check()
        start += len(block)
        yield contiguous
        del block, contiguous  # before the next one is made
    if start != shape[0]:
        raise ParameterError(f"dataset {name!r} has {start} rows; {shape[0]} were declared")


def _write_attribute(file: Any, name: str, value: Attribute) -> None:
    import h5py

    if not isinstance(value, str):
        file.attrs[name] = value
        return
    data = value.encode("utf-8")
    if len(data) > _LONG_TEXT:
        file.create_dataset(LONG_FOLDER + name, data=np.frombuffer(data, np.uint8))
    else:
        dtype = h5py.string_dtype("utf-8", max(1, len(data)))
        file.attrs.create(name, np.array(data, dtype=dtype))


def _compare(path: Path, schema: Schema, content: str) -> None:
    """Read a file back; raise OSError if it is not what was meant to be written."""
    try:
        with StoredFile(path, schema) as written:
            same = written.digest() == written.content_sha256 == content
    except schema.error as error:
        raise OSError(f"what was written cannot be read back: {error}") from error
    if not same:
        raise OSError("what was read back is not what was written")


def seal(path: Path) -> None:
    """Write the user block: the SHA-256 of all bytes after it."""
    with path.open("r+b") as file:
        file.write(user_block(digest_bytes(file)))


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_folder(folder: Path, schema: Schema) -> None:
    """Make a rename survive a power cut."""
    try:
        _sync(folder)
    except OSError as error:
        if error.errno in _UNSUPPORTED:
            return
        raise schema.error(
            f"{folder}: a file was written but may be lost in a power cut ({error.strerror}); "
            "write it again"
        ) from error


def as_text(values: Iterable[str]) -> NDArray[np.bytes_]:
    """Encode texts as fixed-length UTF-8, which a dataset of dtype ``"S"`` holds.

    Returns
    -------
    ndarray of shape (n,), bytes
    """
    texts = values if isinstance(values, Sequence) else list(values)
    size = max((len(text.encode("utf-8")) for text in texts), default=0)
    encoded = (text.encode("utf-8") for text in texts)
    return np.fromiter(encoded, f"S{max(1, size)}", count=len(texts))
