"""FeatureCache: the format of a feature file."""

import hashlib
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from brainfeat.cache.spec import FeatureSpec
from brainfeat.cache.storage import DatasetRule, Schema, StoredArray, StoredFile, Verify
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
TEXTS = ("path", "split", "group", "source")
# Texts that are decoded at a time.
_TEXT_ROWS = 64 << 10

CACHE_SCHEMA = Schema(
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
    remedy="restore a copy, or make it anew with brainfeat extract --overwrite",
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
        self.class_names: tuple[str, ...] = tuple(read_json(stored, "class_names", list))
        if not all(isinstance(name, str) for name in self.class_names):
            raise CacheFormatError("class_names must be a JSON list of texts")
        rejected = read_json(stored, "rejected", list)
        if not all(map(_is_rejected, rejected)):
            raise CacheFormatError("rejected must be a JSON list of path and reason")
        self.rejected = tuple(Rejected(**entry) for entry in rejected)
        self.augmentation: dict[str, Any] | None = read_json(stored, "augmentation", dict) or None
        self.provenance: dict[str, Any] = read_json(stored, "provenance", dict)
        self.created_at = str(stored["created_at"])

    def _check_arrays(self) -> None:
        missing = sorted(set(CACHE_SCHEMA.datasets) - set(self._file.arrays))
        if missing:
            raise CacheFormatError(f"datasets are missing: {', '.join(missing)}")
        check_shapes(self._file, self.spec)
        labels = self.column("label")
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
        return self.column("label").astype(np.int64)

    @cached_property
    def view(self) -> NDArray[np.int16]:
        """View of each row, (n,): 0 the image itself, 1… augmented."""
        return self.column("view")

    @cached_property
    def sha256(self) -> NDArray[np.uint8]:
        """SHA-256 of the bytes of each row's file, (n, 32)."""
        return self.column("sha256")

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
            **{name: self.column(name) for name in MEASURED},
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

    def assign(self, protocol: Mapping[str, tuple[str, str]]) -> None:
        """Let another table say splits and groups; the file stays as it is.

        Parameters
        ----------
        protocol : mapping of str to (str, str)
            Split and group of each path of the cache; further paths are passed over.

        Raises
        ------
        CacheError
            A path of the cache is not there.
        """
        paths = self.paths.tolist()
        if missing := [path for path in paths if path not in protocol]:
            raise CacheError(
                f"{self.path} has {len(set(missing)):,} images that the table does not list "
                f"(first: {missing[0]}); paths must be those that were extracted"
            )
        self.splits = np.array([protocol[path][0] for path in paths])
        self.groups = np.array([protocol[path][1] for path in paths])

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
        paths = self.column("path")
        return [
            hashlib.sha256(self.sha256[row].tobytes() + paths[row]).hexdigest()[:16] for row in rows
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

    def column(self, name: str) -> NDArray[Any]:
        """Read a column as it is stored; texts are UTF-8, which takes a quarter of NumPy's."""
        return np.asarray(self._file.arrays[name])

    def blocks(self, name: str) -> Iterator[NDArray[Any]]:
        """Yield a column in order, some megabytes at a time."""
        return self._file.arrays[name].blocks()

    def _text(self, name: str) -> NDArray[np.str_]:
        encoded = self.column(name)
        with suppress(UnicodeDecodeError):
            return encoded.astype(np.str_)
        # Not ASCII alone. NumPy makes an object of each text that it decodes.
        starts = range(0, len(encoded), _TEXT_ROWS)
        blocks = (encoded[start : start + _TEXT_ROWS] for start in starts)
        try:
            return np.concatenate([np.strings.decode(block, "utf-8") for block in blocks])
        except UnicodeDecodeError as error:
            raise CacheFormatError(f"{self.path}: {name} is not UTF-8") from error


@contextmanager
def opened(cache: FeatureCache | str | os.PathLike[str]) -> Iterator[FeatureCache]:
    """Open a feature cache where a path is given; close only what was opened here.

    Parameters
    ----------
    cache : FeatureCache or path-like

    Yields
    ------
    FeatureCache

    Raises
    ------
    CacheError
        As in :meth:`FeatureCache.open`.
    """
    if isinstance(cache, FeatureCache):
        yield cache
    else:
        with FeatureCache.open(cache) as found:
            yield found


def read_json(attributes: Mapping[str, Any], name: str, kind: type) -> Any:
    """Read an attribute that holds JSON of one kind."""
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


def check_shapes(file: StoredFile, spec: FeatureSpec) -> None:
    """Refuse a file whose datasets do not fit each other or the spec."""
    rows = {len(array) for array in file.arrays.values()}
    if len(rows) != 1:
        raise CacheFormatError(f"datasets have different numbers of rows: {sorted(rows)}")
    if file.arrays["features"].shape[1] != spec.n_features:
        raise CacheFormatError("features have not the length that the spec states")
    if file.arrays["sha256"].shape[1] != 32:
        raise CacheFormatError("sha256 must have 32 columns")
