"""DICOM files: recognised by their content, and opened within limits and without messages."""

import os
import struct
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from stat import S_ISREG
from typing import Any, BinaryIO

from brainfeat.errors import ImageReadError, MissingDependencyError
from brainfeat.readers.dicom.bare import HEAD, find_syntax
from brainfeat.readers.silence import silence

FILE_LIMIT = 2_000_000_000
# Before the pixels: bytes, and items of sequences, of each of which pydicom makes an object.
HEADER_LIMIT = 64_000_000
ITEM_LIMIT = 1_000_000

# What pydicom and its decoders raise on damaged files.
DAMAGE = (
    OSError,
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    AttributeError,
    NotImplementedError,
    RuntimeError,
    OverflowError,
    MemoryError,
    ArithmeticError,
    EOFError,
    struct.error,
    zlib.error,
)

_MAGIC = b"DICM"
_PREAMBLE = 128
_DEFLATED = "1.2.840.10008.1.2.1.99"
_ITEMS = b"\xfe\xff\x00\xe0", b"\xff\xfe\xe0\x00"


def is_dicom(path: Path) -> bool:
    """Return whether a path is a regular file with the content of a DICOM file.

    A file without preamble is one where its first elements are those of a DICOM data set
    (:func:`brainfeat.readers.dicom.bare.find_syntax`).

    Raises
    ------
    OSError
        If the file cannot be opened.
    """
    if not S_ISREG(path.stat().st_mode):
        return False
    with path.open("rb") as file:
        head = file.read(HEAD)
    return _has_magic(head) or find_syntax(head) is not None


@contextmanager
def translating(name: str) -> Iterator[None]:
    """Suppress pydicom's warnings and replace its errors, which quote the file.

    Parameters
    ----------
    name : str
        Name of the volume or file in error messages.

    Raises
    ------
    ImageReadError
        For any error that a damaged file causes.
    MissingDependencyError
        If pydicom is not installed.
    """
    try:
        from pydicom.errors import BytesLengthException
    except ImportError as error:
        raise MissingDependencyError(
            "DICOM needs pydicom, which is not installed: pip install 'brainfeat[medical]'"
        ) from error
    try:
        with silence("pydicom", "pylibjpeg", "openjpeg", "libjpeg", "rle"):
            yield
    except ImageReadError:
        raise
    except (*DAMAGE, BytesLengthException):
        raise ImageReadError(name, "is damaged or not a readable DICOM file") from None


def open_dataset(path: Path, name: str, tags: Sequence[str | int], *, pixels: bool) -> Any:
    """Open a file within :func:`translating`.

    Parameters
    ----------
    path : Path
    name : str
        Name of the volume or file in error messages.
    tags : sequence of str or int
        Keywords or tags of the elements that are kept.
    pixels : bool
        Whether pixels are read, which come last.

    Returns
    -------
    pydicom.Dataset
        With its transfer syntax, also where the file does not state it.

    Raises
    ------
    ImageReadError
        If the file is not a DICOM file, too large, or deflated as a whole.
    """
    from pydicom.uid import UID

    try:
        status = path.stat()
        if not S_ISREG(status.st_mode):
            raise ImageReadError(name, "is not a regular file")
        if status.st_size > FILE_LIMIT:
            raise ImageReadError(
                name, f"has {status.st_size:,} bytes; at most {FILE_LIMIT:,} are read"
            )
        with path.open("rb") as file:
            head = file.read(HEAD)
        syntax = _find_syntax(path, head)
        if syntax is None:
            raise ImageReadError(name, "is not a DICOM file")
        # pydicom would inflate the whole file, whatever its size.
        if syntax == _DEFLATED:
            raise ImageReadError(
                name, "is deflated as a whole; convert it to another transfer syntax first"
            )
        dataset = _parse(path, name, tags, pixels=pixels, force=not _has_magic(head))
    except OSError as error:
        if isinstance(error, ImageReadError) or error.errno is None:
            raise
        raise ImageReadError(name, f"cannot be read ({os.strerror(error.errno)})") from None
    if "TransferSyntaxUID" not in dataset.file_meta and syntax:
        dataset.file_meta.TransferSyntaxUID = UID(syntax)
    return dataset


def _parse(path: Path, name: str, tags: Sequence[str | int], *, pixels: bool, force: bool) -> Any:
    from pydicom import dcmread

    wanted: Any = [*tags]
    with path.open("rb") as file:
        # Each item has 8 bytes or more: a smaller file cannot have too many.
        if os.fstat(file.fileno()).st_size > 8 * ITEM_LIMIT:
            metered: Any = _MeteredFile(file, name)
            header = dcmread(metered, stop_before_pixels=True, specific_tags=wanted, force=force)
            if not pixels:
                return header
            file.seek(0)
        return dcmread(file, stop_before_pixels=not pixels, specific_tags=wanted, force=force)


class _MeteredFile:
    """A file of which too long a header is not read."""

    def __init__(self, file: BinaryIO, name: str) -> None:
        self.seek, self.tell = file.seek, file.tell
        self._file, self._name = file, name
        self._bytes = self._items = 0

    def read(self, size: int = -1) -> bytes:
        """Read on; what is skipped is not counted."""
        if size < 0 or self._bytes + size > HEADER_LIMIT:
            raise ImageReadError(
                self._name, f"has a header of more than {HEADER_LIMIT:,} bytes; no more are read"
            )
        data = self._file.read(size)
        self._bytes += len(data)
        self._items += sum(map(data.count, _ITEMS))
        if self._items > ITEM_LIMIT:
            raise ImageReadError(
                self._name, f"has more than {ITEM_LIMIT:,} items in its header; no more are read"
            )
        return data


def _has_magic(head: bytes) -> bool:
    return head[_PREAMBLE : _PREAMBLE + len(_MAGIC)] == _MAGIC


def _find_syntax(path: Path, head: bytes) -> str | None:
    """Find the transfer syntax of a file: None if it is not DICOM, ``""`` if it is unknown."""
    from pydicom.filereader import read_file_meta_info

    if not _has_magic(head):
        return find_syntax(head)
    stated = read_file_meta_info(path).get("TransferSyntaxUID")
    return str(stated or find_syntax(head[_PREAMBLE + len(_MAGIC) :]) or "")
