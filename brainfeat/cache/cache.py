"""The feature cache: the object that reads its file."""

import hashlib
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from brainfeat.cache.schema import CACHE_SCHEMA, MEASURED, Rejected, check_shapes, read_json
from brainfeat.cache.spec import FeatureSpec
from brainfeat.cache.storage import HEAD_FIRST, StoredFile, Verify
from brainfeat.cache.stored_array import StoredArray
from brainfeat.errors import CacheError, CacheFormatError, ParameterError

_SPLITS = ("train", "val", "test")

# Number of texts that are decoded at a time.
_TEXT_ROWS = 64 << 10


class FeatureCache:
    """An open feature cache, whose features stay on disk until they are indexed.

    A ``with`` statement closes it at its end, and so does :meth:`close`.

    Parameters
    ----------
    path, verify
        As of :meth:`open`, which is the same.

    Attributes
    ----------
    path : Path
        The file.
    X : StoredArray of shape (n, d), float32
        Pooled features; ``X[mask]`` reads some rows, ``numpy.asarray(X)`` reads all of them.
    spec : FeatureSpec
        What the features mean.
    class_names : tuple of str
        The classes, which `y` indexes.
    rejected : tuple of Rejected
        Images that could not be read.
    augmentation : dict or None
        The ranges that the views above 0 were drawn from, or all alterations in the order of their
        views (`is_altered`), or None if there are no such views.
    provenance : dict
        Versions and hardware of the run that wrote the file.
    created_at : str
        When the file was written (UTC, ISO 8601).

    Examples
    --------
    Read the training rows::

        with FeatureCache("features.h5") as cache:
            train = cache.mask("train")
            X, y = cache.X[train], cache.y[train]
    """

    def __init__(self, path: str | os.PathLike[str], *, verify: Verify = "full") -> None:
        with ExitStack() as stack:
            self._file = stack.enter_context(StoredFile(path, CACHE_SCHEMA, verify=verify))
            self.path = self._file.path
            try:
                self._read_attributes()
                self._check_arrays()
            except CacheFormatError as error:
                raise CacheFormatError(f"{self.path}: {error}") from error
            stack.pop_all()

    def _read_attributes(self) -> None:
        stored = self._file.attributes
        self.spec = FeatureSpec.from_json(str(stored["spec"]))
        if stored["fingerprint"] != self.spec.fingerprint:
            raise CacheFormatError("the fingerprint does not belong to the spec")
        self.class_names: tuple[str, ...] = tuple(read_json(stored, "class_names", list))
        if not all(isinstance(name, str) for name in self.class_names):
            raise CacheFormatError("class_names must be a JSON list of texts")
        rejected = read_json(stored, "rejected", list)
        if not all(map(_is_rejected, rejected)):
            raise CacheFormatError("rejected must be a JSON list of objects with path and reason")
        self.rejected = tuple(Rejected(**entry) for entry in rejected)
        self.augmentation: dict[str, Any] | None = read_json(stored, "augmentation", dict) or None
        self.provenance: dict[str, Any] = read_json(stored, "provenance", dict)
        self.created_at = str(stored["created_at"])

    def _check_arrays(self) -> None:
        missing = sorted(set(self._file.schema.datasets) - set(self._file.arrays))
        if missing:
            raise CacheFormatError(f"datasets are missing: {', '.join(missing)}")
        check_shapes(self._file, self.spec)
        labels = self.column("label")
        if len(labels) and not -1 <= labels.min() <= labels.max() < len(self.class_names):
            raise CacheFormatError("a label is not an index into class_names")

    @classmethod
    def open(cls, path: str | os.PathLike[str], *, verify: Verify = "full") -> Self:
        """Open a feature cache.

        Parameters
        ----------
        path : path-like
            A file that :func:`brainfeat.extract` wrote.
        verify : {"full", "off"}
            ``"full"`` reads the whole file once and compares its SHA-256 with the stored one.

        Returns
        -------
        FeatureCache

        Raises
        ------
        CacheError
            The file does not exist or cannot be read.
        CacheFormatError
            The file is not a feature cache of format 1 or 2, or has signatures of another version.
        CacheCorruptError
            The file is truncated, or its bytes have changed since it was written.
        """
        return cls(path, verify=verify)

    def __len__(self) -> int:
        return len(self.X)

    def __repr__(self) -> str:
        return f"<FeatureCache {self.path}: {len(self)} rows of {self.spec.n_features} features>"

    @property
    def X(self) -> StoredArray:  # noqa: N802
        """Pooled features, (n, d) float32, read when indexed."""
        return self._file.arrays["features"]

    @property
    def signature(self) -> StoredArray | None:
        """Signature of each row's image, (n, 1936) int8, read when indexed.

        None in a cache of format 1, which has none; the rows of augmented views are 0. See
        ``brainfeat.cache.signature``.
        """
        return self._file.arrays.get("signature")

    @cached_property
    def y(self) -> NDArray[np.int64]:
        """Index of each row into `class_names`, (n,) int64; −1 for an unlabelled row."""
        return self.column("label").astype(np.int64)

    @cached_property
    def view(self) -> NDArray[np.int16]:
        """View of each row, (n,) int16: 0 is the image itself, 1 and above are augmented views."""
        return self.column("view")

    @cached_property
    def sha256(self) -> NDArray[np.uint8]:
        """SHA-256 of each row's file, (n, 32) uint8."""
        return self.column("sha256")

    @cached_property
    def paths(self) -> NDArray[np.str_]:
        """Path of each row's file, (n,) str, relative to the table's folder."""
        return self._text("path")

    @cached_property
    def splits(self) -> NDArray[np.str_]:
        """Split of each row, (n,) str: ``"train"``, ``"val"``, ``"test"`` or ``""``."""
        return self._text("split")

    @cached_property
    def groups(self) -> NDArray[np.str_]:
        """Group of each row, such as a patient, (n,) str; ``""`` if it has none."""
        return self._text("group")

    @cached_property
    def sources(self) -> NDArray[np.str_]:
        """Source of each row, such as a hospital, (n,) str; ``""`` if it has none."""
        return self._text("source")

    @property
    def table(self) -> dict[str, NDArray[Any]]:
        """Everything but the features, as columns of n entries by name.

        ``pandas.DataFrame(cache.table)`` shows it as a table.
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

    @property
    def is_altered(self) -> bool:
        """Whether the views above 0 are altered ones of :func:`brainfeat.stress`."""
        return self.augmentation is not None and "alterations" in self.augmentation

    def mask(self, split: str | None = None, *, views: bool = False) -> NDArray[np.bool_]:
        """Select the labelled rows of a split.

        Parameters
        ----------
        split : {"train", "val", "test"} or None
            None selects every split.
        views : bool
            Whether augmented views are included.

        Returns
        -------
        ndarray of shape (n,), bool
            Whether each row is selected.

        Raises
        ------
        ParameterError
            There is no split of that name.
        """
        if split is not None and split not in _SPLITS:
            raise ParameterError(
                f"unknown split {split!r}; expected one of {', '.join(_SPLITS)}, or None for all"
            )
        chosen = self.y >= 0
        if not views:
            chosen &= self.view == 0
        if split is not None:
            chosen &= self.splits == split
        return chosen

    def assign(
        self,
        protocol: Mapping[str, tuple[str, str]],
        *,
        sources: Mapping[str, str] | None = None,
    ) -> None:
        """Take splits and groups, and sources, from another table; the file does not change.

        Parameters
        ----------
        protocol : mapping of str to (str, str)
            Split and group by path; paths that the cache does not have are ignored.
        sources : mapping of str to str, or None
            Source by the same paths; None keeps those of the cache.

        Raises
        ------
        CacheError
            `protocol` lacks a path of the cache.
        """
        paths = self.paths.tolist()
        if missing := [path for path in paths if path not in protocol]:
            raise CacheError(
                f"{self.path} has {len(set(missing)):,} images that the table does not list "
                f"(first: {missing[0]}; the table begins with {next(iter(protocol), 'none')}); its "
                "paths must be those that were extracted"
            )
        self.splits = np.array([protocol[path][0] for path in paths])
        self.groups = np.array([protocol[path][1] for path in paths])
        if sources is not None:
            self.sources = np.array([sources[path] for path in paths])

    def image_ids(self, rows: NDArray[np.intp]) -> list[str]:
        """Return an identifier of each row's image that reveals neither its path nor its content.

        Parameters
        ----------
        rows : ndarray of int, shape (m,)
            The rows.

        Returns
        -------
        list of str
            16 hexadecimal digits each, from the SHA-256 of content digest and path.
        """
        paths = self.column("path")
        return [
            hashlib.sha256(self.sha256[row].tobytes() + paths[row]).hexdigest()[:16] for row in rows
        ]

    @property
    def content_sha256(self) -> str:
        """Digest of all datasets and attributes, which identifies the cache."""
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

    def __exit__(self, *_: object) -> None:
        self.close()

    def column(self, name: str) -> NDArray[Any]:
        """Read a column as it is stored; texts stay UTF-8, a quarter the size of NumPy's str.

        Parameters
        ----------
        name : str
            A dataset of the cache format, such as ``"sha256"``.

        Returns
        -------
        ndarray of shape (n, …)
            All rows of the dataset.
        """
        return np.asarray(self._file.arrays[name])

    def blocks(self, name: str) -> Iterator[NDArray[Any]]:
        """Yield a column in order, a few megabytes at a time.

        Parameters
        ----------
        name : str
            A dataset of the cache format.

        Returns
        -------
        iterator of ndarray of shape (m, …)
            The next rows each time.
        """
        return self._file.arrays[name].blocks()

    def _text(self, name: str) -> NDArray[np.str_]:
        encoded = self.column(name)
        with suppress(UnicodeDecodeError):
            return encoded.astype(np.str_)
        # Some are not ASCII. NumPy creates an object for each text that it decodes.
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
        As in :meth:`FeatureCache.open`, or something else was given.
    """
    if isinstance(cache, FeatureCache):
        yield cache
    elif not isinstance(cache, str | os.PathLike):
        raise CacheError(
            f"a {type(cache).__name__} in place of a feature cache; expected a FeatureCache or a "
            f"path; {HEAD_FIRST}"
        )
    else:
        with FeatureCache.open(cache) as found:
            yield found


def _is_rejected(entry: Any) -> bool:
    return (
        isinstance(entry, dict)
        and set(entry) == {"path", "reason"}
        and all(isinstance(value, str) for value in entry.values())
    )
