"""Which format a file has, without opening it with HDF5."""

import os
from pathlib import Path

from brainfeat.cache.digests import MAGIC
from brainfeat.cache.hdf5_guard import BASE, inspect_file
from brainfeat.errors import BrainfeatError


def read_format(path: str | os.PathLike[str]) -> str | None:
    """Read which format a file has.

    Parameters
    ----------
    path : path-like
        Any file.

    Returns
    -------
    str or None
        The attribute ``format``, such as ``"brainfeat-head"``. None where the file cannot be read,
        or brainfeat did not write it; to open it raises the reason.
    """
    return read_text(path, "format")


def read_text(path: str | os.PathLike[str], name: str) -> str | None:
    """Read an attribute of a file, which is not verified, without opening it with HDF5.

    Parameters
    ----------
    path : path-like
        Any file.
    name : str
        Such as ``"format"``.

    Returns
    -------
    str or None
        None where there is no such text, or `read_format` returns None.
    """
    try:
        found = inspect_file(Path(path)).attributes.get(name)
    except (BrainfeatError, OSError):
        return None
    return found if isinstance(found, str) else None


def has_format(path: Path, name: str) -> bool:
    """Return whether brainfeat wrote a file in a format, or in one that damage has made unreadable.

    Raises
    ------
    OSError
        The file cannot be read.
    """
    with path.open("rb") as file:
        is_ours = file.read(BASE).startswith(MAGIC)
    try:
        return inspect_file(path).attributes.get("format") == name
    except BrainfeatError:
        return is_ours
