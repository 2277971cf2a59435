"""Shards: the write-once files of rows that are finished while stage one runs."""

import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainfeat.cache.cache import FEATURES, MEASURED, Measured, check_shapes, read_json
from brainfeat.cache.row_index import KeySet, row_keys
from brainfeat.cache.spec import FeatureSpec
from brainfeat.cache.storage import Schema, StoredFile
from brainfeat.cache.writing import TEMPORARY_NAME, write_file
from brainfeat.canonical import canonical_json
from brainfeat.errors import CacheCorruptError, CacheError, CacheFormatError

_logger = logging.getLogger(__name__)

_SHARD_STEM = "[0-9a-f]" * 64
_SHARD_NAME = f"{_SHARD_STEM}.h5"

SHARD_SCHEMA = Schema(
    format="brainfeat-shard",
    version=1,
    datasets=FEATURES,
    attributes=frozenset({"spec", "augmentation"}),
    error=CacheError,
    format_error=CacheFormatError,
    corrupt_error=CacheCorruptError,
    remedy="it is set aside and its rows are computed again",
)


@dataclass(frozen=True, kw_only=True)
class Shard:
    """A verified shard: where it is, what its features mean, what made its views."""

    path: Path
    spec: FeatureSpec
    augmentation: dict[str, Any] | None


def write_shard(
    folder: Path,
    *,
    spec: FeatureSpec,
    augmentation: Mapping[str, Any] | None,
    features: NDArray[np.float32],
    sha256: Sequence[bytes],
    view: Sequence[int],
    measured: Sequence[Measured],
) -> Path:
    """Write finished rows as one write-once shard that is named by its content.

    Parameters
    ----------
    folder : Path
        The ``.parts`` folder, which is made where it is missing.
    spec, augmentation
        What the features mean, and what made the views above 0.
    features : ndarray of shape (n, d), float32
    sha256, view, measured : sequences of length n
        Identity and file facts of each row.

    Returns
    -------
    Path
        The shard; it counts from now on.
    """
    facts = [asdict(fact) for fact in measured]
    datasets: dict[str, NDArray[Any]] = {
        "features": features,
        "sha256": np.frombuffer(b"".join(sha256), np.uint8).reshape(-1, 32),
        "view": np.array(view, "<i2"),
        **{
            name: np.array([fact[name] for fact in facts], rule.dtype)
            for name, rule in MEASURED.items()
        },
    }
    attributes = {"spec": spec.to_json(), "augmentation": canonical_json(augmentation or {})}
    while True:
        make_folder(folder)
        try:
            return write_file(
                folder, SHARD_SCHEMA, datasets=datasets, attributes=attributes, name_by_content=True
            )
        except CacheError:
            if folder.is_dir():
                raise
            # A run that ended meanwhile found it empty and took it away.


def shard_paths(folder: Path) -> list[Path]:
    """List the files of a ``.parts`` folder that have the name of a shard, unread."""
    try:
        return sorted(folder.glob(_SHARD_NAME)) if folder.is_dir() else []
    except OSError as error:
        raise CacheError(f"{folder}: cannot be listed ({error.strerror})") from error


def list_shards(folder: Path) -> list[Shard]:
    """List the shards of a ``.parts`` folder; set aside those that are damaged.

    A shard whose name is not its content's digest was swapped or renamed, and is set aside too.
    """
    shards = []
    for path in shard_paths(folder):
        try:
            shards.append(_check_shard(path))
        except (CacheCorruptError, CacheFormatError) as error:
            _logger.warning("%s", error)
            with suppress(OSError):  # it is passed over where it is, too
                path.replace(path.with_suffix(".damaged"))
        except CacheError:
            if path.exists():
                raise
            # A run that ended meanwhile has merged it.
    return shards


def count_rows(folder: Path) -> int:
    """Count the rows in the shards of a ``.parts`` folder, whole or not."""
    rows = 0
    for path in shard_paths(folder):
        with suppress(CacheError), StoredFile(path, SHARD_SCHEMA, verify="off") as file:
            rows += len(file.arrays["view"])
    return rows


def _check_shard(path: Path) -> Shard:
    with StoredFile(path, SHARD_SCHEMA) as file:
        spec = FeatureSpec.from_json(str(file.attributes["spec"]))
        if set(file.arrays) != set(FEATURES) or file.content_sha256 != path.stem:
            raise CacheCorruptError(f"{path}: not the shard of that name")
        check_shapes(file, spec)
        augmentation = read_json(file.attributes, "augmentation", dict) or None
        return Shard(path=path, spec=spec, augmentation=augmentation)


def remove_parts(folder: Path) -> None:
    """Remove a ``.parts`` folder and what brainfeat wrote into it; strangers' files stay.

    What cannot be removed is left: its rows are in the cache already.
    """
    for pattern in (_SHARD_NAME, f"{_SHARD_STEM}.damaged", TEMPORARY_NAME):
        for path in folder.glob(pattern):
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                _logger.warning("%s is merged and can be removed (%s)", path, error.strerror)
    with suppress(OSError):
        folder.rmdir()


def remove_shards(folder: Path, keys: NDArray[np.bytes_]) -> None:
    """Remove the shards of a ``.parts`` folder whose rows all have a key among those given."""
    merged = KeySet(keys)
    for path in shard_paths(folder):
        with suppress(CacheError), StoredFile(path, SHARD_SCHEMA, verify="off") as file:
            rows = row_keys(np.asarray(file.arrays["sha256"]), np.asarray(file.arrays["view"]))
            if merged.contains(rows).all():
                path.unlink(missing_ok=True)
    with suppress(OSError):
        folder.rmdir()


def parts_folder(output: Path) -> Path:
    """Return the folder of the shards of an output that is not finished."""
    return output.with_name(f"{output.name}.parts")


def make_folder(folder: Path) -> None:
    """Make a ``.parts`` folder where it is missing."""
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise CacheError(f"{folder}: cannot be made ({error.strerror})") from error
