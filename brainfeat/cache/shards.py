"""Shards: write-once files of finished rows, written while stage one runs."""

import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainfeat.cache.digests import Attribute
from brainfeat.cache.row_index import KeySet, row_keys
from brainfeat.cache.schema import (
    MEASURED,
    SHARD_SCHEMA,
    Measured,
    check_shapes,
    read_json,
    select_schema,
)
from brainfeat.cache.signature import SIGNATURE_VERSION
from brainfeat.cache.spec import FeatureSpec
from brainfeat.cache.storage import StoredFile
from brainfeat.cache.writing import TEMPORARY_NAME, write_file
from brainfeat.canonical import canonical_json
from brainfeat.errors import CacheCorruptError, CacheError, CacheFormatError

_logger = logging.getLogger(__name__)

# Other runs can remove the folder so often before a shard is given up.
_ATTEMPTS = 1000
_SHARD_STEM = "[0-9a-f]" * 64
_SHARD_NAME = f"{_SHARD_STEM}.h5"


@dataclass(frozen=True, kw_only=True)
class Shard:
    """A verified shard.

    Parameters
    ----------
    path : Path
    spec : FeatureSpec
        What its features mean.
    augmentation : dict or None
        The ranges that its views above 0 were drawn from.
    has_signatures : bool
        Whether it has the signatures of its images.
    """

    path: Path
    spec: FeatureSpec
    augmentation: dict[str, Any] | None
    has_signatures: bool


def write_shard(
    folder: Path,
    *,
    spec: FeatureSpec,
    augmentation: Mapping[str, Any] | None,
    features: NDArray[np.float32],
    sha256: Sequence[bytes],
    view: Sequence[int],
    measured: Sequence[Measured],
    signature: NDArray[np.int8] | None = None,
    others: Mapping[str, NDArray[Any]] | None = None,
) -> Path:
    """Write finished rows as one shard, which is named by its content.

    Parameters
    ----------
    folder : Path
        The ``.parts`` folder, which is created if it does not exist.
    spec : FeatureSpec
        What the features mean.
    augmentation : mapping of str to JSON value, or None
        The ranges that the views above 0 were drawn from, or None if there are no such views.
    features : ndarray of shape (n, d), float32
    sha256 : sequence of n bytes objects
        SHA-256 of each row's file, 32 bytes.
    view : sequence of n int
    measured : sequence of n Measured
    signature : ndarray of shape (n, 1936), int8, or None
        Zeros for the views above 0; None where there are none.
    others : mapping of str to ndarray of shape (n, …), or None
        What the spec states besides `features`: ``layers/<name>`` (n, d), float32, of each other
        layer, and ``maps`` (n, h, w, d), float16.

    Returns
    -------
    Path
        The shard, whose rows are now safe.

    Raises
    ------
    CacheError
        The shard cannot be written.
    """
    facts = [asdict(fact) for fact in measured]
    datasets: dict[str, NDArray[Any]] = {
        "features": features,
        **(others or {}),
        "sha256": np.frombuffer(b"".join(sha256), np.uint8).reshape(-1, 32),
        "view": np.array(view, "<i2"),
        **{
            name: np.array([fact[name] for fact in facts], rule.dtype)
            for name, rule in MEASURED.items()
        },
    }
    attributes: dict[str, Attribute] = {
        "spec": spec.to_json(),
        "augmentation": canonical_json(augmentation or {}),
    }
    if signature is not None:
        datasets["signature"] = signature
    schema = select_schema(SHARD_SCHEMA, datasets)
    if "signature_version" in schema.attributes:
        attributes["signature_version"] = SIGNATURE_VERSION
    attempts = _ATTEMPTS
    while True:
        make_folder(folder)
        try:
            return write_file(
                folder, schema, datasets=datasets, attributes=attributes, name_by_content=True
            )
        except CacheError:
            # Another run that ended meanwhile may have found the folder empty and removed it.
            attempts -= 1
            if folder.is_dir() or not attempts:
                raise


def shard_paths(folder: Path) -> list[Path]:
    """List the files of a ``.parts`` folder that are named like shards, without reading them.

    Raises
    ------
    CacheError
        The folder cannot be listed.
    """
    try:
        return sorted(folder.glob(_SHARD_NAME)) if folder.is_dir() else []
    except OSError as error:
        raise CacheError(f"{folder}: cannot be listed ({error.strerror})") from error


def list_shards(folder: Path) -> list[Shard]:
    """List the shards of a ``.parts`` folder, and set damaged ones aside.

    A shard whose name is not the digest of its content was swapped or renamed; it is set aside too.

    Raises
    ------
    CacheError
        The folder or a shard cannot be read.
    """
    shards = []
    for path in shard_paths(folder):
        try:
            shards.append(_check_shard(path))
        except (CacheCorruptError, CacheFormatError) as error:
            _logger.warning("%s", error)
            with suppress(OSError):  # left in place, it is ignored as well
                path.replace(path.with_suffix(".damaged"))
        except CacheError:
            if path.exists():
                raise
            # Another run ended meanwhile and has merged it.
    return shards


def count_rows(folder: Path) -> int:
    """Count the rows in the shards of a ``.parts`` folder, without verifying them."""
    rows = 0
    for path in shard_paths(folder):
        with suppress(CacheError), StoredFile(path, SHARD_SCHEMA, verify="off") as file:
            rows += len(file.arrays["view"])
    return rows


def _check_shard(path: Path) -> Shard:
    with StoredFile(path, SHARD_SCHEMA) as file:
        spec = FeatureSpec.from_json(str(file.attributes["spec"]))
        if file.schema.list_missing(file.arrays) or file.content_sha256 != path.stem:
            raise CacheCorruptError(f"{path}: the content of this shard does not match its name")
        check_shapes(file, spec)
        augmentation = read_json(file.attributes, "augmentation", dict) or None
        return Shard(
            path=path,
            spec=spec,
            augmentation=augmentation,
            has_signatures="signature" in file.arrays,
        )


def remove_parts(folder: Path) -> None:
    """Remove what brainfeat wrote into a ``.parts`` folder, and the folder if nothing else is left.

    A file that cannot be removed stays; its rows are in the cache already.
    """
    for pattern in (_SHARD_NAME, f"{_SHARD_STEM}.damaged", TEMPORARY_NAME):
        for path in folder.glob(pattern):
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                _logger.warning(
                    "%s is no longer needed but cannot be removed (%s)",
                    path,
                    error.strerror,
                )
    with suppress(OSError):
        folder.rmdir()


def remove_shards(folder: Path, keys: NDArray[np.bytes_]) -> None:
    """Remove the shards of a ``.parts`` folder whose rows all have one of the given keys."""
    merged = KeySet(keys)
    for path in shard_paths(folder):
        with suppress(CacheError), StoredFile(path, SHARD_SCHEMA, verify="off") as file:
            rows = row_keys(np.asarray(file.arrays["sha256"]), np.asarray(file.arrays["view"]))
            if merged.contains(rows).all():
                path.unlink(missing_ok=True)
    with suppress(OSError):
        folder.rmdir()


def parts_folder(output: Path) -> Path:
    """Return the folder in which the shards of an output are kept until it is finished."""
    return output.with_name(f"{output.name}.parts")


def make_folder(folder: Path) -> None:
    """Create a ``.parts`` folder if it does not exist.

    Raises
    ------
    CacheError
        It cannot be created.
    """
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise CacheError(f"{folder}: cannot be created ({error.strerror})") from error
