"""The two digests of a file: of its bytes, and of its content.

The SHA-256 in the user block covers every byte after it, so that one flipped bit is noticed before
anything is parsed. The content digest covers the values of the attributes and arrays, however HDF5
stores them. docs/reference/cache-format.md specifies both.
"""

import hashlib
from collections.abc import Iterable, Mapping
from io import BufferedIOBase
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainfeat.cache.hdf5_guard import BASE
from brainfeat.canonical import canonical_json

Attribute = str | int | float

MAGIC = b"brainfeat sha256:"


def user_block(digest: str) -> bytes:
    """Return the first 512 bytes of a file from its byte digest (64 hexadecimal digits)."""
    return (MAGIC + digest.encode("ascii") + b"\n").ljust(BASE, b"\0")


def digest_bytes(file: BufferedIOBase) -> str:
    """Return the SHA-256 of all bytes after the user block; the file is left at its start."""
    file.seek(BASE)
    digest = hashlib.file_digest(file, "sha256").hexdigest()
    file.seek(0)
    return digest


def digest_array(
    dtype: np.dtype[Any], shape: tuple[int, ...], blocks: Iterable[NDArray[Any]]
) -> str:
    """Describe an array by its type, its shape and the SHA-256 of its values.

    Parameters
    ----------
    dtype : numpy.dtype
    shape : tuple of int
    blocks : iterable of ndarray
        Consecutive rows of the array, any number at a time.

    Returns
    -------
    str
        Such as ``"<f4 5712x512 9f86d0…"``.
    """
    hasher = hashlib.sha256()
    for block in blocks:
        hasher.update(np.ascontiguousarray(block).view(np.uint8).data if block.size else b"")
        del block  # before the next one is made
    return f"{dtype.str} {'x'.join(map(str, shape))} {hasher.hexdigest()}"


def digest_content(attributes: Mapping[str, Attribute], arrays: Mapping[str, str]) -> str:
    """Return the content digest of a file.

    Parameters
    ----------
    attributes : mapping
        The root attributes; ``content_sha256`` is left out.
    arrays : mapping of str to str
        What :func:`digest_array` returns, by name of the dataset.
    """
    covered = {name: value for name, value in attributes.items() if name != "content_sha256"}
    text = canonical_json({"attributes": covered, "datasets": dict(arrays)})
    return hashlib.sha256(text.encode("ascii")).hexdigest()
