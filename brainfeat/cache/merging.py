"""The merge of finished rows, from an earlier cache and from shards, into one cache."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainfeat.cache.digests import Attribute
from brainfeat.cache.row_index import Places, RowIndex, split_keys
from brainfeat.cache.schema import (
    CACHE_SCHEMA,
    CHUNK_ROWS,
    MEASURED,
    TEXTS,
    check_origin,
    list_arrays,
    select_schema,
)
from brainfeat.cache.shards import make_folder, parts_folder
from brainfeat.cache.signature import SIGNATURE_VERSION
from brainfeat.cache.spec import FeatureSpec
from brainfeat.cache.writing import Blocks, write_file
from brainfeat.canonical import canonical_json

Keys = NDArray[np.bytes_]


def write_cache(
    path: Path,
    *,
    index: RowIndex,
    keys: Keys,
    spec: FeatureSpec,
    columns: Mapping[str, NDArray[Any]],
    attributes: Mapping[str, Any],
    signature: bool = False,
) -> None:
    """Merge existing rows into one cache, in the order of `keys`.

    Parameters
    ----------
    path : Path
        The cache; an existing one is replaced in one step.
    index : RowIndex
        Knows where the rows are; its keys are forgotten to save memory.
    keys : ndarray of shape (n,), S34
        Identity of each row.
    spec : FeatureSpec
        What the features mean, and which layers and maps there are.
    columns : mapping of str to ndarray of shape (n,)
        ``label`` (int16), and ``path``, ``split``, ``group``, ``source`` (fixed-length UTF-8); and
        ``origin`` (int16) where some images were generated.
    attributes : mapping
        ``class_names``, ``rejected``, ``augmentation``, ``provenance`` (JSON values) and
        ``created_at`` (str).
    signature : bool, default=False
        Whether to write the signatures of the images.

    Raises
    ------
    CacheFormatError
        ``origin`` has something else than 0 and 1.
    KeyError
        A row is not in the index, or its signature is not.
    CacheError
        A row cannot be read, or the cache cannot be written; nothing was changed.
    """
    scratch = parts_folder(path)
    make_folder(scratch)
    places = index.locate(keys)
    index.forget()
    n, starts = len(keys), range(0, len(keys), CHUNK_ROWS)
    digests = (split_keys(keys[start : start + CHUNK_ROWS])[0] for start in starts)
    views = (split_keys(keys[start : start + CHUNK_ROWS])[1] for start in starts)
    datasets: dict[str, NDArray[Any] | Blocks] = {
        **{name: _copy(index, name, places, scratch) for name in list_arrays(spec)},
        "sha256": Blocks((n, 32), np.dtype("|u1"), digests),
        "view": Blocks((n,), np.dtype("<i2"), views),
        "label": np.asarray(columns["label"], "<i2"),
        **{name: columns[name] for name in TEXTS},
        **index.read(MEASURED, places),
    }
    stored: dict[str, Attribute] = {
        "spec": spec.to_json(),
        "fingerprint": spec.fingerprint,
        "class_names": json.dumps(attributes["class_names"]),
        "rejected": json.dumps(attributes["rejected"]),
        "augmentation": canonical_json(attributes["augmentation"] or {}),
        "provenance": canonical_json(attributes["provenance"]),
        "created_at": attributes["created_at"],
    }
    if signature:
        _check_signatures(index, keys, places)
        datasets["signature"] = _copy(index, "signature", places, scratch)
    if "origin" in columns:
        check_origin(columns["origin"])
        datasets["origin"] = np.asarray(columns["origin"], "<i2")
    schema = select_schema(CACHE_SCHEMA, datasets)
    if "signature_version" in schema.attributes:
        stored["signature_version"] = SIGNATURE_VERSION
    write_file(path, schema, datasets=datasets, attributes=stored, scratch=scratch)


def _copy(index: RowIndex, name: str, places: Places, scratch: Path) -> Blocks:
    """Describe a dataset of the rows in their order, which is read while it is written."""
    dtype, shape = index.describe(name)
    blocks = index.read_blocks(name, places, folder=scratch)
    return Blocks((len(places), *shape), dtype, blocks)


def _check_signatures(index: RowIndex, keys: Keys, places: Places) -> None:
    """Refuse rows without a signature, unless they are augmented views."""
    for start in range(0, len(keys), CHUNK_ROWS):
        block = slice(start, start + CHUNK_ROWS)
        lacking = index.lack("signature", places[block])
        if (split_keys(keys[block][lacking])[1] == 0).any():
            raise KeyError("the signature of a row is in none of the sources")
