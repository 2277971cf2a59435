"""The bytes of an image file, read within limits and without waiting for a pipe or a device."""

import errno
import os
from io import BytesIO
from pathlib import Path
from stat import S_ISDIR, S_ISREG
from typing import BinaryIO

from brainfeat.errors import BrainfeatError, ImageReadError
from brainfeat.readers.containers import Contents

BYTE_LIMIT = 600_000_000  # 64 million uncompressed pixels of 16-bit RGBA, and room for metadata

# Shortages of the process, which say nothing about the file.
_SHORTAGES = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)


class ImageBytes(BytesIO):
    """The bytes of an image file, split into its parts once by all that read them.

    Parameters
    ----------
    data : bytes
        The whole file.

    Examples
    --------
    >>> from PIL import Image
    >>> file = BytesIO()
    >>> Image.new("L", (3, 2)).save(file, "PNG")
    >>> file = ImageBytes(file.getvalue())
    >>> file.tell(), file.contents, file.in_alpha
    (0, None, False)
    """

    contents: Contents | None = None
    in_alpha = False  # whether the picture was found in the alpha channel


def read_bytes(
    path: str | os.PathLike[str], *, name: str | None = None, byte_limit: int = BYTE_LIMIT
) -> bytes:
    """Read a whole image file, so that the same bytes can be hashed and decoded.

    Parameters
    ----------
    path : path-like
        A regular file. A pipe or a device is rejected without waiting for it.
    name : str, optional
        Name of the image in error messages. Default: the path.
    byte_limit : int, default=600_000_000
        Largest number of bytes that is read.

    Returns
    -------
    bytes

    Raises
    ------
    ImageReadError
        If the file is missing, empty, too long, not readable, or not a regular file.
    BrainfeatError
        If the process has no file handles or memory left, which says nothing about the file.

    Examples
    --------
    >>> read_bytes("no-such-file.png")
    Traceback (most recent call last):
        ...
    brainfeat.errors.ImageReadError: no-such-file.png: no such file
    """
    name = name_source(path, name)
    try:
        _check_file(Path(path).stat(), name, byte_limit)  # opening a device may have effects
        with open(path, "rb", opener=_open_without_waiting) as file:
            status = os.fstat(file.fileno())
            _check_file(status, name, byte_limit)  # it may have been replaced in the meantime
            data = file.read(status.st_size + 1)
            if len(data) > status.st_size:  # it is growing
                data += file.read(byte_limit + 1 - len(data))
    except ImageReadError:
        raise
    except FileNotFoundError as error:
        raise ImageReadError(name, "no such file") from error
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        if error.errno in _SHORTAGES:
            raise BrainfeatError(
                f"{name}: {reason}; the image may be intact; raise the limit or pass a "
                "smaller n_jobs=N, and run again"
            ) from error
        raise ImageReadError(name, reason) from error
    except ValueError as error:  # a NUL in the path
        raise ImageReadError(name, "not a valid path") from error
    return _check_bytes(data, name, byte_limit)


def _open_without_waiting(path: str, flags: int) -> int:
    """Open a file without blocking, even if a pipe has taken its place."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _check_file(status: os.stat_result, name: str, byte_limit: int) -> None:
    if S_ISDIR(status.st_mode):
        raise ImageReadError(name, "a folder, not a file")
    if not S_ISREG(status.st_mode):
        raise ImageReadError(name, "not a regular file")
    if status.st_size > byte_limit:
        raise ImageReadError(name, _too_long(byte_limit))


def _check_bytes(data: bytes, name: str, byte_limit: int) -> bytes:
    if not data:
        raise ImageReadError(name, "empty file")
    if len(data) > byte_limit:
        raise ImageReadError(name, _too_long(byte_limit))
    return data


def _too_long(byte_limit: int) -> str:
    return f"more than the limit of {byte_limit:,} bytes"


def name_source(source: str | os.PathLike[str] | BinaryIO, name: str | None) -> str:
    """Return the name of an image in messages: that which was given, or else its path."""
    if name is not None:
        return name
    return os.fspath(source) if isinstance(source, (str, os.PathLike)) else "<bytes>"


def read_source(source: str | os.PathLike[str] | BinaryIO, *, name: str) -> bytes:
    """Read a file as `read_bytes` does, or a file object from where it is to its end.

    Raises
    ------
    ImageReadError
        As for `read_bytes`.
    """
    if isinstance(source, ImageBytes):
        return source.getvalue()
    if isinstance(source, (str, os.PathLike)):
        return read_bytes(source, name=name)
    return _check_bytes(source.read(BYTE_LIMIT + 1), name, BYTE_LIMIT)
