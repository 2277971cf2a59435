"""What caches and shards hold: their schemas, and the checks that both must pass."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainfeat.cache.signature import SIGNATURE_SIZE, SIGNATURE_VERSION
from brainfeat.cache.spec import FeatureSpec
from brainfeat.cache.storage import DatasetRule, Schema, StoredFile
from brainfeat.canonical import parse_json
from brainfeat.errors import CacheCorruptError, CacheError, CacheFormatError

CHUNK_ROWS = 1024

MEASURED = {
    "width": DatasetRule(dtype="<i4"),
    "height": DatasetRule(dtype="<i4"),
    "channels": DatasetRule(dtype="<i4"),
    "file_bytes": DatasetRule(dtype="<i8"),
}
FEATURES = {
    "features": DatasetRule(dtype="<f4", ndim=2, chunk_rows=CHUNK_ROWS),
    "sha256": DatasetRule(dtype="|u1", ndim=2),
    "view": DatasetRule(dtype="<i2"),
    **MEASURED,
}
SIGNATURE = {"signature": DatasetRule(dtype="|i1", ndim=2, chunk_rows=CHUNK_ROWS)}
MAPS = "maps"
LAYERS_FOLDER = "layers/"
LAYERS = {
    rf"{LAYERS_FOLDER}[\w.-]+": DatasetRule(dtype="<f4", ndim=2, chunk_rows=CHUNK_ROWS),
    MAPS: DatasetRule(dtype="<f2", ndim=4, chunk_rows=1),
}
# What `origin` has: an image that was extracted, or one that a program generated.
EXTRACTED, GENERATED = 0, 1
TEXTS = ("path", "split", "group", "source")

_CACHE_SCHEMA_1 = Schema(
    format="brainfeat-features",
    version=1,
    datasets={
        **FEATURES,
        "label": DatasetRule(dtype="<i2"),
        **{name: DatasetRule(dtype="S") for name in TEXTS},
    },
    attributes=frozenset(
        {
            "spec",
            "fingerprint",
            "class_names",
            "rejected",
            "augmentation",
            "provenance",
            "created_at",
        }
    ),
    error=CacheError,
    format_error=CacheFormatError,
    corrupt_error=CacheCorruptError,
    remedy="restore a copy, or extract again with overwrite=True",
)

_SHARD_SCHEMA_1 = Schema(
    format="brainfeat-shard",
    version=1,
    datasets=FEATURES,
    attributes=frozenset({"spec", "augmentation"}),
    error=CacheError,
    format_error=CacheFormatError,
    corrupt_error=CacheCorruptError,
    remedy="it is set aside, and its rows are computed again",
)


def _add_signature(schema: Schema) -> Schema:
    """Return format 2: format 1 with a signature of each image."""
    return replace(
        schema,
        version=2,
        datasets={**schema.datasets, **SIGNATURE},
        attributes=schema.attributes | {"signature_version"},
        earlier=(schema,),
    )


def _add_layers(schema: Schema, **columns: DatasetRule) -> Schema:
    """Return format 3: format 2 with several layers, maps and further columns, all optional."""
    optional = {**SIGNATURE, **LAYERS, **columns}
    return replace(
        schema,
        version=3,
        datasets={
            **schema.datasets,
            **{name: replace(rule, optional=True) for name, rule in optional.items()},
        },
        earlier=(*schema.earlier, schema),
    )


CACHE_SCHEMA = _add_layers(_add_signature(_CACHE_SCHEMA_1), origin=DatasetRule(dtype="<i2"))
SHARD_SCHEMA = _add_layers(_add_signature(_SHARD_SCHEMA_1))


def select_schema(schema: Schema, names: Iterable[str]) -> Schema:
    """Return the version of a format that is written: the first one that has some datasets."""
    wanted = list(names)
    return next(
        version
        for version in (*schema.earlier, schema)
        if all(version.rule(name) is not None for name in wanted)
    )


def list_arrays(spec: FeatureSpec) -> list[str]:
    """List the datasets that have what a base computed, by the spec that a file states.

    Examples
    --------
    >>> spec = FeatureSpec(
    ...     backbone="vgg16", layer="block5_pool", n_features=512, weights_sha256="0" * 64,
    ...     layers="block3_pool:256,block5_pool:512", pooling="none",
    ... )
    >>> list_arrays(spec)
    ['layers/block3_pool', 'features', 'maps']
    """
    maps = [MAPS] if spec.pooling == "none" else []
    return [*(name_array(spec, layer) for layer in spec.widths), *maps]


def name_array(spec: FeatureSpec, layer: str) -> str:
    """Return the dataset of the vectors of a layer."""
    return "features" if layer == spec.layer else f"{LAYERS_FOLDER}{layer}"


@dataclass(frozen=True, kw_only=True)
class Rejected:
    """An image that could not be read.

    Parameters
    ----------
    path : str
        Relative to the table's folder.
    reason : str
    """

    path: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Properties of an image file that a classifier could learn as a shortcut.

    Parameters
    ----------
    width, height : int
        Pixels, before any rotation that EXIF asks for.
    channels : int
    file_bytes : int
    """

    width: int
    height: int
    channels: int
    file_bytes: int


def read_json(attributes: Mapping[str, Any], name: str, kind: type) -> Any:
    """Read an attribute that holds JSON.

    Raises
    ------
    CacheFormatError
        The attribute is not JSON, or its value is not of that kind.
    """
    value = parse_json(str(attributes[name]))
    if not isinstance(value, kind):
        raise CacheFormatError(f"{name} must be a JSON {kind.__name__}")
    return value


def check_origin(origin: NDArray[np.int16]) -> None:
    """Check the column that says where images come from.

    Raises
    ------
    CacheFormatError
        It has something else than 0 and 1.
    """
    if not np.isin(origin, (EXTRACTED, GENERATED)).all():
        raise CacheFormatError("origin must be 0 for an extracted image, or 1 for a generated one")


def _check_maps(shape: tuple[int, ...], spec: FeatureSpec) -> None:
    """Check the shape of maps, (n, h, w, d)."""
    if shape[3] != spec.n_features:
        raise CacheFormatError("maps do not have the number of channels that the spec states")
    if not all(shape[1:3]):
        raise CacheFormatError("maps have no positions")


def check_shapes(file: StoredFile, spec: FeatureSpec) -> None:
    """Check that the datasets of a file fit each other, the spec and this program's signatures.

    Raises
    ------
    CacheFormatError
        They do not.
    """
    rows = {len(array) for array in file.arrays.values()}
    if len(rows) != 1:
        raise CacheFormatError(f"datasets have different numbers of rows: {sorted(rows)}")
    computed = list_arrays(spec)
    kept = [name for name in file.arrays if name == MAPS or name.startswith(LAYERS_FOLDER)]
    if odd := {"features", *kept}.symmetric_difference(computed):
        raise CacheFormatError(
            f"{', '.join(sorted(odd))}: datasets that the spec does not state, or that are missing"
        )
    for layer, width in spec.widths.items():
        name = name_array(spec, layer)
        if file.arrays[name].shape[1] != width:
            raise CacheFormatError(f"{name} do not have the length that the spec states")
    if MAPS in kept:
        _check_maps(file.arrays[MAPS].shape, spec)
    if "origin" in file.arrays:
        check_origin(np.asarray(file.arrays["origin"]))
    if file.arrays["sha256"].shape[1] != 32:
        raise CacheFormatError("sha256 must have 32 columns")
    version = file.attributes.get("signature_version", SIGNATURE_VERSION)
    if version != SIGNATURE_VERSION:
        raise CacheFormatError(
            f"signatures of version {version}, but this brainfeat reads version "
            f"{SIGNATURE_VERSION}; use the brainfeat that wrote them, or extract again with "
            "overwrite=True"
        )
    if "signature" in file.arrays and file.arrays["signature"].shape[1] != SIGNATURE_SIZE:
        raise CacheFormatError(f"signature must have {SIGNATURE_SIZE:,} columns")
