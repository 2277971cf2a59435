"""FeatureCache: the format of a feature file, and of the shards it is merged from."""

import hashlib
import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from brainfeat.errors import CacheCorruptError, CacheError, CacheFormatError
from brainfeat.spec import FeatureSpec, canonical_json, parse_json
from brainfeat.storage import (
    TEMPORARY_NAME,
    Blocks,
    DatasetRule,
    Schema,
    StoredArray,
    StoredFile,
    Verify,
    write_file,
)

CHUNK_ROWS = 1024

_logger = logging.getLogger(__name__)

_OPEN_FILES = 16
_SHARD_STEM = "[0-9a-f]" * 64
_SHARD_NAME = f"{_SHARD_STEM}.h5"

_MEASURED = {
    "width": DatasetRule(dtype="<i4"),
    "height": DatasetRule(dtype="<i4"),
    "channels": DatasetRule(dtype="<i4"),
    "file_bytes": DatasetRule(dtype="<i8"),
}
_FEATURES = {
    "features": DatasetRule(dtype="<f4", ndim=2, chunk_rows=CHUNK_ROWS),
    "sha256": DatasetRule(dtype="|u1", ndim=2),
    "view": DatasetRule(dtype="<i2"),
    **_MEASURED,
}
_TEXTS = ("path", "split", "group", "source")

CACHE_SCHEMA = Schema(
    format="brainfeat-features",
    version=1,
    datasets={
        **_FEATURES,
        "label": DatasetRule(dtype="<i2"),
        **{name: DatasetRule(dtype="S") for name in _TEXTS},
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
    remedy="restore a copy, or make it anew with brainfeat extract --overwrite",
)

SHARD_SCHEMA = Schema(
    format="brainfeat-shard",
    version=1,
    datasets=_FEATURES,
    attributes=frozenset({"spec", "augmentation"}),
    error=CacheError,
    format_error=CacheFormatError,
    corrupt_error=CacheCorruptError,
    remedy="it is set aside and its rows are computed again",
)


@dataclass(frozen=True, kw_only=True)
class Rejected:
    """An image that could not be read, and why."""

    path: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What an image file is, apart from what it shows: what a shortcut could be learned from."""

    width: int
    height: int
    channels: int
    file_bytes: int


class FeatureCache:
    """An open feature cache; its features stay on disk until they are indexed.

    Open one with :meth:`open`, in a ``with`` statement or with :meth:`close`.

    Attributes
    ----------
    path : Path
        The file.
    X : StoredArray of shape (n, d), float32
        Pooled features; ``X[mask]`` reads rows, ``numpy.asarray(X)`` reads all.
    spec : FeatureSpec
        What the features mean.
    class_names : tuple of str
        The classes; `y` indexes them.
    rejected : tuple of Rejected
        Images that could not be read.
    augmentation : dict or None
        What made the views above 0, or None where there are none.
    provenance : dict
        Versions and hardware of the run that wrote the file.
    created_at : str
        When it was written (UTC, ISO 8601).
    """

    def __init__(self, file: StoredFile) -> None:
        self._file = file
        self.path = file.path
        try:
            self._read_attributes()
            self._check_arrays()
        except CacheFormatError as error:
            raise CacheFormatError(f"{file.path}: {error}") from error

    def _read_attributes(self) -> None:
        stored = self._file.attributes
        self.spec = FeatureSpec.from_json(str(stored["spec"]))
        if stored["fingerprint"] != self.spec.fingerprint:
            raise CacheFormatError("the fingerprint is not that of the spec")
        self.class_names: tuple[str, ...] = tuple(_json(stored, "class_names", list))
        if not all(isinstance(name, str) for name in self.class_names):
            raise CacheFormatError("class_names must be a JSON list of texts")
        rejected = _json(stored, "rejected", list)
        if not all(map(_is_rejected, rejected)):
            raise CacheFormatError("rejected must be a JSON list of path and reason")
        self.rejected = tuple(Rejected(**entry) for entry in rejected)
        self.augmentation: dict[str, Any] | None = _json(stored, "augmentation", dict) or None
        self.provenance: dict[str, Any] = _json(stored, "provenance", dict)
        self.created_at = str(stored["created_at"])

    def _check_arrays(self) -> None:
        missing = sorted(set(CACHE_SCHEMA.datasets) - set(self._file.arrays))
        if missing:
            raise CacheFormatError(f"datasets are missing: {', '.join(missing)}")
        _check_shapes(self._file, self.spec)
        labels = self._column("label")
        if len(labels) and not -1 <= labels.min() <= labels.max() < len(self.class_names):
            raise CacheFormatError("a label is no index into class_names")

    @classmethod
    def open(cls, path: str | os.PathLike[str], *, verify: Verify = "full") -> Self:
        """Open a feature cache.

        Parameters
        ----------
        path : path-like
            A file that :func:`brainfeat.extract` wrote.
        verify : {"full", "off"}
            ``"full"`` reads the file once to compare its SHA-256 with the one it was written with.

        Returns
        -------
        FeatureCache

        Raises
        ------
        CacheError
            The file is not there or cannot be read.
        CacheFormatError
            It is not a feature cache of format 1.
        CacheCorruptError
            It is truncated, or its bytes are not those that were written.
        """
        file = StoredFile(path, CACHE_SCHEMA, verify=verify)
        try:
            return cls(file)
        except BaseException:
            file.close()
            raise

    def __len__(self) -> int:
        return len(self.X)

    def __repr__(self) -> str:
        return f"<FeatureCache {self.path}: {len(self)} rows of {self.spec.n_features} features>"

    @property
    def X(self) -> StoredArray:  # noqa: N802
        """Pooled features, (n, d) float32, read when indexed."""
        return self._file.arrays["features"]

    @cached_property
    def y(self) -> NDArray[np.int64]:
        """Index into `class_names` of each row, (n,); −1 is unlabelled."""
        return self._column("label").astype(np.int64)

    @cached_property
    def view(self) -> NDArray[np.int16]:
        """View of each row, (n,): 0 the image itself, 1… augmented."""
        return self._column("view")

    @cached_property
    def sha256(self) -> NDArray[np.uint8]:
        """SHA-256 of the bytes of each row's file, (n, 32)."""
        return self._column("sha256")

    @cached_property
    def paths(self) -> NDArray[np.str_]:
        """Path of each row's file, (n,), relative to the table's folder."""
        return self._text("path")

    @cached_property
    def splits(self) -> NDArray[np.str_]:
        """``"train"``, ``"val"``, ``"test"`` or ``""`` of each row, (n,)."""
        return self._text("split")

    @cached_property
    def groups(self) -> NDArray[np.str_]:
        """Group of each row, such as a patient, (n,); ``""`` where there is none."""
        return self._text("group")

    @cached_property
    def sources(self) -> NDArray[np.str_]:
        """Source of each row, such as a hospital, (n,); ``""`` where there is none."""
        return self._text("source")

    @property
    def table(self) -> dict[str, NDArray[Any]]:
        """One column a name, one entry a row: everything but the features.

        ``pandas.DataFrame(cache.table)`` shows it.
        """
        labels = np.array([*self.class_names, ""])
        return {
            "path": self.paths,
            "view": self.view,
            "label": labels[self.y],
            "split": self.splits,
            "group": self.groups,
            "source": self.sources,
            **{name: self._column(name) for name in _MEASURED},
        }

    def mask(self, split: str | None = None, *, views: bool = False) -> NDArray[np.bool_]:
        """Select the labelled rows of a split.

        Parameters
        ----------
        split : {"train", "val", "test"} or None
            None selects every split.
        views : bool
            Whether augmented views are selected too.

        Returns
        -------
        ndarray of shape (n,), bool
        """
        chosen = self.y >= 0
        if not views:
            chosen &= self.view == 0
        if split is not None:
            chosen &= self.splits == split
        return chosen

    def image_ids(self, rows: NDArray[np.intp]) -> list[str]:
        """Name the images of rows by a digest of path and content, which tells neither.

        Parameters
        ----------
        rows : ndarray of int, shape (m,)

        Returns
        -------
        list of str
            16 hexadecimal digits each.
        """
        return [
            hashlib.sha256(self.sha256[row].tobytes() + self.paths[row].encode()).hexdigest()[:16]
            for row in rows
        ]

    @property
    def content_sha256(self) -> str:
        """Digest of the datasets and attributes: the cache's identity."""
        return self._file.content_sha256

    @property
    def fingerprint(self) -> str:
        """Fingerprint of the spec."""
        return self.spec.fingerprint

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _column(self, name: str) -> NDArray[Any]:
        return np.asarray(self._file.arrays[name])

    def _text(self, name: str) -> NDArray[np.str_]:
        try:
            return np.strings.decode(self._column(name), "utf-8")
        except UnicodeDecodeError as error:
            raise CacheFormatError(f"{self.path}: {name} is not UTF-8") from error


def _json(attributes: Mapping[str, Any], name: str, kind: type) -> Any:
    value = parse_json(str(attributes[name]))
    if not isinstance(value, kind):
        raise CacheFormatError(f"{name} must be a JSON {kind.__name__}")
    return value


def _is_rejected(entry: Any) -> bool:
    return (
        isinstance(entry, dict)
        and set(entry) == {"path", "reason"}
        and all(isinstance(value, str) for value in entry.values())
    )


def _check_shapes(file: StoredFile, spec: FeatureSpec) -> None:
    rows = {len(array) for array in file.arrays.values()}
    if len(rows) != 1:
        raise CacheFormatError(f"datasets have different numbers of rows: {sorted(rows)}")
    if file.arrays["features"].shape[1] != spec.n_features:
        raise CacheFormatError("features have not the length that the spec states")
    if file.arrays["sha256"].shape[1] != 32:
        raise CacheFormatError("sha256 must have 32 columns")


def row_keys(sha256: NDArray[np.uint8], view: NDArray[np.int16]) -> NDArray[np.bytes_]:
    """Return the identity of each row: 32 bytes of SHA-256 and 2 of the view, as ``S34``."""
    joined = np.empty((len(view), 34), np.uint8)
    joined[:, :32] = sha256
    joined[:, 32:] = np.asarray(view, ">i2").view(np.uint8).reshape(-1, 2)
    return joined.view("S34").reshape(-1)


@dataclass(frozen=True, kw_only=True)
class Source:
    """A file that has rows: a cache or a shard.

    Parameters
    ----------
    path : Path
    schema : Schema
    views : bool
        Whether its augmented views count too; view 0 always does.
    """

    path: Path
    schema: Schema
    views: bool


class RowIndex:
    """Rows that exist already, found by content in an older cache and in shards.

    Parameters
    ----------
    sources : sequence of Source
        Verified files of one spec. No more than a few are open at a time, however many there are.
    """

    def __init__(self, sources: Sequence[Source]) -> None:
        self._sources = sources
        self._open: dict[int, StoredFile] = {}
        keys, origins, rows = [np.empty(0, "S34")], [np.empty(0, np.int32)], [np.empty(0, np.int64)]
        for origin, source in enumerate(sources):
            arrays = self._arrays(origin)
            view = np.asarray(arrays["view"])
            usable = np.flatnonzero((view == 0) | source.views)
            sha256 = np.asarray(arrays["sha256"])
            keys.append(row_keys(sha256[usable], view[usable]))
            origins.append(np.full(len(usable), origin, np.int32))
            rows.append(usable)
        self._keys, first = np.unique(np.concatenate(keys), return_index=True)
        self._origins = np.concatenate(origins)[first]
        self._rows = np.concatenate(rows)[first]

    def __contains__(self, key: bytes) -> bool:
        place = np.searchsorted(self._keys, np.array(key, "S34"))
        return bool(place < len(self._keys) and self._keys[place] == key.rstrip(b"\0"))

    def gather(self, name: str, keys: NDArray[np.bytes_]) -> NDArray[Any]:
        """Read one dataset's values for rows that all exist.

        Parameters
        ----------
        name : str
            A dataset that caches and shards have.
        keys : ndarray of shape (m,), S34
            As :func:`row_keys` gives them.

        Returns
        -------
        ndarray of shape (m, …)

        Raises
        ------
        KeyError
            One of the rows does not exist.
        """
        places = np.searchsorted(self._keys, keys)
        if not np.array_equal(self._keys.take(places, mode="clip"), keys):
            raise KeyError("a row that is in no source was asked for")
        origins, rows = self._origins[places], self._rows[places]
        example = self._arrays(0)[name]
        result = np.empty((len(keys), *example.shape[1:]), example.dtype)
        for origin in np.unique(origins):
            chosen = origins == origin
            result[chosen] = self._arrays(int(origin))[name][rows[chosen]]
        return result

    def close(self) -> None:
        """Close the files."""
        while self._open:
            self._open.popitem()[1].close()

    def _arrays(self, origin: int) -> Mapping[str, StoredArray]:
        if origin not in self._open:
            if len(self._open) >= _OPEN_FILES:
                self._open.pop(next(iter(self._open))).close()
            source = self._sources[origin]
            self._open[origin] = StoredFile(source.path, source.schema, verify="off")
        return self._open[origin].arrays


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
            for name, rule in _MEASURED.items()
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
        if set(file.arrays) != set(_FEATURES) or file.content_sha256 != path.stem:
            raise CacheCorruptError(f"{path}: not the shard of that name")
        _check_shapes(file, spec)
        augmentation = _json(file.attributes, "augmentation", dict) or None
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
    for path in shard_paths(folder):
        with suppress(CacheError), StoredFile(path, SHARD_SCHEMA, verify="off") as file:
            rows = row_keys(np.asarray(file.arrays["sha256"]), np.asarray(file.arrays["view"]))
            if np.isin(rows, keys).all():
                path.unlink(missing_ok=True)
    with suppress(OSError):
        folder.rmdir()


def parts_folder(output: Path) -> Path:
    """Return the folder of the shards of an output that is not finished."""
    return output.with_name(f"{output.name}.parts")


def write_cache(
    path: Path,
    *,
    index: RowIndex,
    keys: NDArray[np.bytes_],
    spec: FeatureSpec,
    columns: Mapping[str, NDArray[Any]],
    attributes: Mapping[str, Any],
) -> None:
    """Merge rows that exist into one cache, in the order of `keys`.

    Parameters
    ----------
    path : Path
        The cache; one that is there is replaced in one step.
    index : RowIndex
        Where the rows are.
    keys : ndarray of shape (n,), S34
        Identity of each row.
    spec : FeatureSpec
        What the features mean.
    columns : mapping
        ``label`` (int16) and ``path``, ``split``, ``group``, ``source`` (UTF-8 of a fixed length),
        each (n,).
    attributes : mapping
        ``class_names``, ``rejected``, ``augmentation``, ``provenance`` (JSON values) and
        ``created_at`` (str).
    """
    scratch = parts_folder(path)
    make_folder(scratch)
    joined = keys.view(np.uint8).reshape(-1, 34)
    features = Blocks((len(keys), spec.n_features), np.dtype("<f4"), _gathered(index, keys))
    write_file(
        path,
        CACHE_SCHEMA,
        datasets={
            "features": features,
            "sha256": np.ascontiguousarray(joined[:, :32]),
            "view": np.ascontiguousarray(joined[:, 32:]).view(">i2").reshape(-1).astype("<i2"),
            "label": np.asarray(columns["label"], "<i2"),
            **{name: columns[name] for name in _TEXTS},
            **{name: index.gather(name, keys) for name in _MEASURED},
        },
        attributes={
            "spec": spec.to_json(),
            "fingerprint": spec.fingerprint,
            "class_names": json.dumps(attributes["class_names"]),
            "rejected": json.dumps(attributes["rejected"]),
            "augmentation": canonical_json(attributes["augmentation"] or {}),
            "provenance": canonical_json(attributes["provenance"]),
            "created_at": attributes["created_at"],
        },
        scratch=scratch,
    )


def _gathered(index: RowIndex, keys: NDArray[np.bytes_]) -> Iterator[NDArray[np.float32]]:
    for start in range(0, len(keys), CHUNK_ROWS):
        yield index.gather("features", keys[start : start + CHUNK_ROWS])


def make_folder(folder: Path) -> None:
    """Make a ``.parts`` folder where it is missing."""
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise CacheError(f"{folder}: cannot be made ({error.strerror})") from error
