"""Verification: every byte of a file, and of the shards beside it, is read and compared."""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from brainfeat.cache.cache import FeatureCache
from brainfeat.cache.formats import read_format
from brainfeat.cache.schema import CACHE_SCHEMA, CHUNK_ROWS, SHARD_SCHEMA
from brainfeat.cache.shards import parts_folder, shard_paths
from brainfeat.cache.storage import Schema, StoredFile
from brainfeat.errors import BrainfeatError
from brainfeat.heads.bundle import HeadBundle
from brainfeat.heads.bundle_schema import BUNDLE_SCHEMA

# Of an array, read at once; of vectors, a chunk of rows has less.
_BLOCK_BYTES = 16 << 20


def find_problems(path: str | os.PathLike[str]) -> list[str]:
    """Read every byte of a cache, a shard or a head file, and list what is wrong.

    Parameters
    ----------
    path : path-like
        The file. Shards in the ``.parts`` folder of a cache are read too.

    Returns
    -------
    list of str
        One line per problem; empty where the file is intact.

    Examples
    --------
    >>> find_problems("no-such-file.h5")
    ['no-such-file.h5: does not exist; expected a brainfeat-features file']
    """
    path = Path(path)
    schema = _find_schema(path)
    problems = list(_find_in(path, schema))
    for shard in shard_paths(parts_folder(path)):
        problems.extend(_find_in(shard, SHARD_SCHEMA))
    return list(dict.fromkeys(problems))


def _find_schema(path: Path) -> Schema:
    """Return the schema that the format of a file names; that of a cache where it names none."""
    schemas = {schema.format: schema for schema in (BUNDLE_SCHEMA, SHARD_SCHEMA)}
    return schemas.get(read_format(path) or "", CACHE_SCHEMA)


def _find_in(path: Path, schema: Schema) -> Iterator[str]:
    try:
        with StoredFile(path, schema):
            pass
    except BrainfeatError as error:
        yield str(error)
    try:
        with StoredFile(path, schema, verify="off") as file:
            readable = True
            for name in file.arrays:
                for problem in _find_in_array(file, name):
                    readable = False
                    yield problem
            if readable and file.digest() != file.content_sha256:
                yield f"{path}: the digest of its content is not its content_sha256"
    except BrainfeatError as error:
        yield str(error)
        return
    if readable:
        yield from _find_in_content(path, schema)


def _find_in_array(file: StoredFile, name: str) -> Iterator[str]:
    array = file.arrays[name]
    step = max(1, min(CHUNK_ROWS, _BLOCK_BYTES // max(1, array[:1].nbytes)))
    for start in range(0, len(array), step):
        stop = min(start + step, len(array))
        rows = f"{file.path}: {name}, rows {start:,} to {stop - 1:,}"
        try:
            block = array[start:stop]
        except BrainfeatError as error:
            yield f"{rows}: cannot be read ({error})"
            continue
        if block.dtype.kind == "f" and not np.isfinite(block).all():
            yield f"{rows}: values that are not finite"


def _find_in_content(path: Path, schema: Schema) -> Iterator[str]:
    try:
        if schema is CACHE_SCHEMA:
            FeatureCache.open(path, verify="off").close()
        elif schema is BUNDLE_SCHEMA:
            HeadBundle.load(path, verify="off")
    except BrainfeatError as error:
        yield str(error)
