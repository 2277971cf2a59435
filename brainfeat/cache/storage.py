"""Reading of HDF5 files: verified and guarded before HDF5 opens them.

A file starts with a user block of 512 bytes that holds the SHA-256 of all the bytes after it. HDF5
itself opens a file only when :mod:`brainfeat.cache.hdf5_guard` has found nothing in it but what
:mod:`brainfeat.cache.writing` writes. These two modules are the only ones that import h5py.
"""

import os
import re
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, Self, get_args

from brainfeat.cache.digests import (
    MAGIC,
    Attribute,
    digest_array,
    digest_bytes,
    digest_content,
    user_block,
)
from brainfeat.cache.hdf5_guard import BASE, Contents, inspect_file
from brainfeat.cache.hdf5_messages import GuardError
from brainfeat.cache.stored_array import HDF5_ERRORS, StoredArray, translate_error
from brainfeat.errors import BrainfeatError, ParameterError

Verify = Literal["full", "off"]

LONG_FOLDER = "attributes/"

# What takes a head and a cache takes them in one order, which is easily turned.
HEAD_FIRST = "where both are taken, the head comes before the cache"
_KINDS = {"brainfeat-features": "a feature cache", "brainfeat-head": "a head"}

_TEXT_LIMIT = 64 << 20


@dataclass(frozen=True, kw_only=True)
class DatasetRule:
    """What a format requires of one dataset.

    Parameters
    ----------
    dtype : str
        NumPy's little-endian type string, such as ``"<f4"``, or ``"S"`` for fixed-length UTF-8.
    ndim : int
        Number of dimensions.
    chunk_rows : int or None
        Rows per chunk, each with a Fletcher-32 checksum; None stores the array in one piece.
    optional : bool
        Whether a file may lack it.
    """

    dtype: str
    ndim: int = 1
    chunk_rows: int | None = None
    optional: bool = False


_LONG_RULE = DatasetRule(dtype="|u1")


@dataclass(frozen=True, kw_only=True)
class Schema:
    """What a format requires of a file.

    Parameters
    ----------
    format : str
        Value of the attribute ``format``.
    version : int
        Value of the attribute ``format_version``.
    datasets : mapping of str to DatasetRule
        The rule of each dataset, by a regular expression that matches its full name.
    attributes : frozenset of str
        The root attributes besides ``format``, ``format_version`` and ``content_sha256``.
    error, format_error, corrupt_error : type
        Subclasses of `BrainfeatError` to raise when a file cannot be opened or written, has
        another format, or is damaged.
    remedy : str
        What a user can do about a damaged file, for the message.
    earlier : tuple of Schema
        Earlier versions of the format, which are read too.
    """

    format: str
    version: int
    datasets: Mapping[str, DatasetRule]
    attributes: frozenset[str]
    error: type[BrainfeatError]
    format_error: type[BrainfeatError]
    corrupt_error: type[BrainfeatError]
    remedy: str
    earlier: "tuple[Schema, ...]" = ()

    def select(self, version: object) -> "Schema":
        """Return the schema of one version of the format.

        Raises
        ------
        BrainfeatError
            The schema's ``format_error``: this brainfeat does not read the version.
        """
        known = [*self.earlier, self]
        for schema in known:
            if schema.version == version:
                return schema
        *others, last = (str(schema.version) for schema in known)
        numbers = f"{', '.join(others)} and {last}" if others else last
        raise self.format_error(
            f"format version {version}, but this brainfeat reads "
            f"version{'s' * (len(known) > 1)} {numbers}"
        )

    def rule(self, name: str) -> DatasetRule | None:
        """Return the rule for a dataset's name, or None if the format has no such dataset."""
        matches = (rule for pattern, rule in self.datasets.items() if re.fullmatch(pattern, name))
        return next(matches, None)

    def list_missing(self, names: Collection[str]) -> list[str]:
        """List the datasets that a file must have and that are not among some names."""
        needed = (name for name, rule in self.datasets.items() if not rule.optional)
        return sorted(name for name in needed if name not in names)


class StoredFile:
    """An open file of one format.

    Parameters
    ----------
    path : path-like
        The file.
    schema : Schema
        The format that it must have, in this version or an earlier one.
    verify : {"full", "off"}
        ``"full"`` first compares the SHA-256 of the file with the one in its user block;
        ``"off"`` only checks the HDF5 structures.

    Attributes
    ----------
    path : Path
    schema : Schema
        That of the file's own version.
    attributes : dict of str to str, int or float
        The root attributes.
    arrays : dict of str to StoredArray
        The datasets, by full name.

    Raises
    ------
    BrainfeatError
        The schema's ``error``, ``format_error`` or ``corrupt_error``.
    ParameterError
        `verify` is neither ``"full"`` nor ``"off"``.
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
        _check_bytes(self.path, schema, verify=verify)
        contents, schema = _check_contents(self.path, schema)
        self.schema = schema
        try:
            self._file = h5py.File(self.path, "r", locking="best-effort")
        except HDF5_ERRORS as error:
            raise translate_error(error, self.path, schema) from error
        found = str(contents.attributes.get("content_sha256"))
        try:
            arrays = {
                name: StoredArray(
                    self._file[name],
                    self.path,
                    schema,
                    reopen=partial(_reopen, self.path.absolute(), schema, verify, name, found),
                )
                for name in contents.arrays
            }
            self.attributes = _read_attributes(contents, arrays, schema, self.path)
        except BaseException as error:
            # HDF5 cannot always close a file that it could not read; the first error is the cause.
            with suppress(*HDF5_ERRORS):
                self._file.close()
            if isinstance(error, HDF5_ERRORS) and not isinstance(error, BrainfeatError):
                raise translate_error(error, self.path, schema) from error
            raise
        self.arrays = {name: arrays[name] for name in arrays if not _is_long(name)}

    @property
    def content_sha256(self) -> str:
        """The stored digest of the content, as 64 hexadecimal digits."""
        return str(self.attributes["content_sha256"])

    def digest(self) -> str:
        """Compute the digest of the content from the arrays and attributes that are read."""
        digests = {
            name: digest_array(array.dtype, array.shape, array.blocks())
            for name, array in self.arrays.items()
        }
        return digest_content(self.attributes, digests)

    def close(self) -> None:
        """Close the file; its arrays can no longer be read."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


# Files that were opened again for arrays that came from another process.
_REOPENED: dict[tuple[Path, str, Verify], StoredFile] = {}


def _reopen(
    path: Path, schema: Schema, verify: Verify, name: str, content_sha256: str
) -> StoredArray:
    """Return an array of a file that is opened once a process, and must be what it was."""
    key = (path, content_sha256, verify)
    if key not in _REOPENED:
        file = StoredFile(path, schema, verify=verify)
        if file.content_sha256 != content_sha256:
            file.close()
            raise schema.error(f"{path}: another file since it was opened; open it again")
        _REOPENED[key] = file
    return _REOPENED[key].arrays[name]


def _check_bytes(path: Path, schema: Schema, *, verify: Verify) -> None:
    """Refuse a file that brainfeat did not write, or that has changed since."""
    try:
        if not path.is_file():
            what = "is not a regular file" if path.exists() else "does not exist"
            raise schema.error(f"{path}: {what}; expected a {schema.format} file")
        with path.open("rb") as file:
            block = file.read(BASE)
            if not block.startswith(MAGIC):
                raise schema.format_error(
                    f"{path}: not a file that brainfeat wrote; expected a {schema.format} file"
                )
            if verify == "full" and block != user_block(digest_bytes(file)):
                raise schema.corrupt_error(
                    f"{path}: damaged or truncated: "
                    f"its SHA-256 is not the one it was written with; {schema.remedy}"
                )
    except OSError as error:
        if isinstance(error, BrainfeatError):
            raise
        raise schema.error(f"{path}: cannot be read ({error.strerror})") from error


def _check_contents(path: Path, schema: Schema) -> tuple[Contents, Schema]:
    """Refuse a file that HDF5 must not open, or that does not follow the schema of its version."""
    try:
        contents = inspect_file(path)
        schema = _check_format(contents, schema)
    except GuardError as error:
        raise schema.format_error(
            f"{path}: {error}, so brainfeat did not write it; expected a {schema.format} file"
        ) from error
    except OSError as error:
        raise schema.error(f"{path}: cannot be read ({error.strerror})") from error
    except BrainfeatError as error:
        raise type(error)(f"{path}: {error}") from error
    return contents, schema


def _check_format(contents: Contents, schema: Schema) -> Schema:
    attributes = contents.attributes
    if (found := attributes.get("format")) != schema.format:
        kind = f", but {_KINDS[found]}; {HEAD_FIRST}" if found in _KINDS else ""
        raise schema.format_error(f"not a {schema.format} file{kind}")
    schema = schema.select(attributes.get("format_version"))
    for name, array in contents.arrays.items():
        rule = _LONG_RULE if _is_long(name) else schema.rule(name)
        if rule is None:
            raise schema.format_error(f"unknown dataset {name!r}")
        kind = "S" if array.dtype.kind == "S" else array.dtype.str
        if (kind, len(array.shape)) != (rule.dtype, rule.ndim):
            raise schema.format_error(
                f"dataset {name!r} is {array.dtype} of {len(array.shape)} dimensions, "
                f"expected {rule.dtype} of {rule.ndim}"
            )
    return schema


def _is_long(name: str) -> bool:
    return name.startswith(LONG_FOLDER)


def _read_attributes(
    contents: Contents, arrays: Mapping[str, StoredArray], schema: Schema, path: Path
) -> dict[str, Attribute]:
    """Return the root attributes, including long texts, which are stored as datasets."""
    found: dict[str, Attribute] = dict(contents.attributes)
    names = [*found, *(name.removeprefix(LONG_FOLDER) for name in arrays if _is_long(name))]
    wanted = {"format", "format_version", "content_sha256"} | schema.attributes
    if sorted(names) != sorted(wanted):
        odd = ", ".join(sorted(map(repr, set(names) ^ wanted))) or "one occurs twice"
        raise schema.format_error(f"{path}: root attributes are missing or unknown: {odd}")
    for name in filter(_is_long, arrays):
        if len(arrays[name]) > _TEXT_LIMIT:
            raise schema.format_error(f"{path}: {name!r} is longer than {_TEXT_LIMIT:,} bytes")
        try:
            found[name.removeprefix(LONG_FOLDER)] = arrays[name][:].tobytes().decode("utf-8")
        except UnicodeDecodeError as error:
            raise schema.format_error(f"{path}: {name!r} is not UTF-8") from error
    return found
