"""Patients and volumes are distinguished by a hash of their identifiers under the key of a site.

The hash is an HMAC (RFC 2104) with SHA-256: without the key, nobody can tell from it who it is.
"""

import hashlib
import hmac
import os
from pathlib import Path
from typing import Literal

from brainfeat.errors import ParameterError
from brainfeat.tables.rows import quote

Kind = Literal["patient", "volume"]

LEAST_KEY = 16

_KEY_LIMIT = 65_536
# Hexadecimal digits that identify a patient or a volume: with 64 bits, the probability that two of
# 100,000 patients get the same ones is below one in a billion.
_DIGITS = 16


def check_key(key: bytes | None) -> None:
    """Reject a key that could be guessed.

    Raises
    ------
    ParameterError
        If the key is shorter than `LEAST_KEY` bytes.
    """
    if key is not None and len(key) < LEAST_KEY:
        raise ParameterError(
            f"a patient key of {len(key)} bytes is too short; expected at least {LEAST_KEY} random "
            "bytes, such as those of openssl rand -hex 32"
        )


def read_patient_key(path: str | os.PathLike[str]) -> bytes:
    r"""Read the key of a site: the bytes of a file, without white space at either end.

    Parameters
    ----------
    path : path-like
        The file.

    Returns
    -------
    bytes
        At least `LEAST_KEY` bytes.

    Raises
    ------
    ParameterError
        If the file cannot be read, is too short or too long.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder, "key")
    ...     _ = path.write_text("0123456789abcdef\n", encoding="ascii")
    ...     read_patient_key(path)
    b'0123456789abcdef'
    """
    try:
        with Path(path).open("rb") as file:
            key = file.read(_KEY_LIMIT + 1)
    except OSError as error:
        raise ParameterError(
            f"the patient key {quote(path)} cannot be read: {error.strerror}"
        ) from error
    if len(key) > _KEY_LIMIT:
        raise ParameterError(f"the patient key {quote(path)} is longer than {_KEY_LIMIT:,} bytes")
    key = key.strip()
    check_key(key)
    return key


def hash_identity(key: bytes, kind: Kind, text: str) -> str:
    """Hash what identifies a patient or a volume.

    Parameters
    ----------
    key : bytes
        Key of the site.
    kind : {"patient", "volume"}
    text : str
        What identifies it.

    Returns
    -------
    str
        Hexadecimal digits: equal ones for equal keys, kinds and texts.

    Examples
    --------
    >>> hash_identity(b"0123456789abcdef", "patient", "P1")
    'db1a0b1c88780003'
    """
    words = f"{kind}\0{text}".encode("utf-8", "surrogateescape")
    return hmac.new(key, words, hashlib.sha256).hexdigest()[:_DIGITS]
