"""A small schema, and files of it."""

from contextlib import contextmanager

import numpy as np

from brainfeat.cache.storage import DatasetRule, Schema, StoredFile
from brainfeat.cache.writing import as_text, write_file
from brainfeat.errors import CacheCorruptError, CacheError, CacheFormatError

SCHEMA = Schema(
    format="brainfeat-test",
    version=3,
    datasets={
        "matrix": DatasetRule(dtype="<f4", ndim=2, chunk_rows=4),
        "bytes": DatasetRule(dtype="|u1", ndim=2),
        "small": DatasetRule(dtype="<i2"),
        "count": DatasetRule(dtype="<i8"),
        "real": DatasetRule(dtype="<f8", ndim=3),
        "text": DatasetRule(dtype="S"),
        r"dense/\d/kernel": DatasetRule(dtype="<f4", ndim=2),
    },
    attributes=frozenset({"note", "number", "temperature"}),
    error=CacheError,
    format_error=CacheFormatError,
    corrupt_error=CacheCorruptError,
    remedy="ask for another",
)
ATTRIBUTES = {"note": "Größe 1", "number": 7, "temperature": 0.25}
EXAMPLES = {
    "matrix": np.arange(30, dtype="<f4").reshape(10, 3),
    "bytes": np.arange(24, dtype="|u1").reshape(3, 8),
    "small": np.array([-32768, 0, 32767], "<i2"),
    "count": np.array([2**62, -1], "<i8"),
    "real": np.linspace(0, 1, 12).reshape(2, 3, 2),
    "text": as_text(["", "a/b.png", "Größe/脳.png"]),
    "dense/0/kernel": np.eye(3, dtype="<f4"),
    "dense/1/kernel": np.ones((3, 2), "<f4"),
}


def write(path, datasets=EXAMPLES, **changes):
    return write_file(path, SCHEMA, datasets=datasets, attributes={**ATTRIBUTES, **changes})


def read(path, **options):
    with StoredFile(path, SCHEMA, **options) as file:
        return {name: np.asarray(array) for name, array in file.arrays.items()}


@contextmanager
def unchanged(folder):
    """Check that a folder holds after the block what it held before, byte for byte."""
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    yield
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
