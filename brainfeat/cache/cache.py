"""The feature cache: the object that reads its file."""

import copy
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from brainfeat.cache.cache_table import CacheTable
from brainfeat.cache.schema import (
    CACHE_SCHEMA,
    MAPS,
    Rejected,
    check_shapes,
    name_array,
    read_json,
)
from brainfeat.cache.spec import FeatureSpec
from brainfeat.cache.storage import HEAD_FIRST, StoredFile, Verify
from brainfeat.cache.stored_array import StoredArray
from brainfeat.errors import CacheError, CacheFormatError


class FeatureCache(CacheTable):
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
        What `X` means.
    stored_spec : FeatureSpec
        What the file states: all of its layers, and whether it has maps.
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
        self.stored_spec = FeatureSpec.from_json(str(stored["spec"]))
        if stored["fingerprint"] != self.stored_spec.fingerprint:
            raise CacheFormatError("the fingerprint does not belong to the spec")
        self.spec = self.stored_spec.select()
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
        if missing := self._file.schema.list_missing(self._file.arrays):
            raise CacheFormatError(f"datasets are missing: {', '.join(missing)}")
        check_shapes(self._file, self.stored_spec)
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
            The file is not a feature cache of format 1, 2 or 3, or has signatures of another
            version.
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
        return self._file.arrays[name_array(self.stored_spec, self.spec.layer)]

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers that the cache has features of, in the order of the network."""
        return tuple(self.stored_spec.widths)

    def features(self, layer: str | None = None) -> StoredArray:
        """Return the pooled features of a layer.

        Parameters
        ----------
        layer : str or None
            One of `layers`; None takes that of `X`.

        Returns
        -------
        StoredArray of shape (n, d), float32
            Read when it is indexed.

        Raises
        ------
        CacheError
            The cache does not have the layer.
        """
        return self.X if layer is None else self.select(layer).X

    @property
    def maps(self) -> StoredArray:
        """Maps of the deepest layer, (n, h, w, d) float16, read when indexed.

        Their means, taken before they were rounded to float16, are the features of that layer.

        Raises
        ------
        CacheError
            The cache has pooled features alone, or `select` took another layer.
        """
        if MAPS not in self._file.arrays:
            raise CacheError(
                f"{self.path} holds pooled features and no maps; extract again with "
                'pooling="none", into another output'
            )
        self.stored_spec.select(self.spec.layer, maps=True)  # refuses an earlier layer
        return self._file.arrays[MAPS]

    def select(self, layer: str) -> Self:
        """Return the same open cache with the features of one of its layers as `X`.

        Parameters
        ----------
        layer : str
            One of `layers`.

        Returns
        -------
        FeatureCache
            Its `spec` is that of a cache of this layer alone. To close it closes this one, too.

        Raises
        ------
        CacheError
            The cache does not have the layer.

        Examples
        --------
        Compare two layers of one cache::

            with FeatureCache("features.h5") as cache:
                X = cache.select("block4_pool").X
        """
        selected = copy.copy(self)
        try:
            selected.spec = self.stored_spec.select(layer)
        except CacheError as error:
            raise CacheError(f"{self.path}: {error}") from error
        return selected

    @property
    def signature(self) -> StoredArray | None:
        """Signature of each row's image, (n, 1936) int8, read when indexed.

        None in a cache of format 1, which has none; the rows of augmented views are 0. See
        ``brainfeat.cache.signature``.
        """
        return self._file.arrays.get("signature")

    @property
    def is_altered(self) -> bool:
        """Whether the views above 0 are altered ones of :func:`brainfeat.stress`."""
        return self.augmentation is not None and "alterations" in self.augmentation

    @property
    def origin(self) -> NDArray[np.int16]:
        """Where each row's image comes from, (n,) int16: 0 extracted, 1 generated by a program.

        A cache that does not say it has zeros.
        """
        if "origin" in self._file.arrays:
            return self.column("origin")
        return np.zeros(len(self), np.int16)

    @property
    def content_sha256(self) -> str:
        """Digest of all datasets and attributes, which identifies the cache."""
        return self._file.content_sha256

    @property
    def fingerprint(self) -> str:
        """Fingerprint of `spec`."""
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
