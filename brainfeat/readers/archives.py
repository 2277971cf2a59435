"""Archives, which are recognised so that a message can say to unpack them; none is read."""

import os
from pathlib import Path

from brainfeat.files import is_so

_SIGNATURES = {
    "zip": (b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08"),
    "rar": (b"Rar!\x1a\x07",),
    "7z": (b"7z\xbc\xaf\x27\x1c",),
    "gzip": (b"\x1f\x8b",),
    "bzip2": (b"BZh",),
    "xz": (b"\xfd7zXZ\0",),
    "zstd": (b"\x28\xb5\x2f\xfd",),
}
_SUFFIXES = {
    **{f".{kind}": kind for kind in ("zip", "tar", "rar", "7z")},
    ".gz": "gzip",
    ".tgz": "gzip",
    ".bz2": "bzip2",
    ".xz": "xz",
    ".zst": "zstd",
}
# Workbooks are zip archives that nobody unpacks; whoever reads a table says how to save them.
_TABLES = (".csv", ".tsv", ".txt", ".xlsx", ".xlsm", ".ods")
_TAR, _TAR_PLACE = b"ustar", 257


def detect_archive(data: bytes) -> str | None:
    r"""Detect the kind of an archive by its first bytes; None if it is not one.

    Examples
    --------
    >>> detect_archive(b"PK\x03\x04"), detect_archive(b"path,label")
    ('zip', None)
    """
    found = (kind for kind, starts in _SIGNATURES.items() if data.startswith(starts))
    tar = data[_TAR_PLACE : _TAR_PLACE + len(_TAR)] == _TAR
    return next(found, "tar" if tar else None)


def find_archive(path: str | os.PathLike[str]) -> str | None:
    """Detect the kind of an archive by its name or its first bytes; None if it is not one.

    Parameters
    ----------
    path : path-like
        What is not a regular file, or cannot be read, is not an archive; nor is a workbook.
    """
    file = Path(path)
    name = file.name.lower()
    if name.endswith(_TABLES) or not is_so(file.is_file):
        return None
    named = next((kind for end, kind in _SUFFIXES.items() if name.endswith(end)), None)
    if named is not None:
        return named
    try:
        with file.open("rb") as opened:
            return detect_archive(opened.read(_TAR_PLACE + len(_TAR)))
    except OSError:  # whoever reads it says so
        return None
