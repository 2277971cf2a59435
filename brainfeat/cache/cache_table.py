"""The rows of a feature cache without their features: what is known of each image."""

import hashlib
from collections.abc import Mapping
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainfeat.cache.schema import MEASURED
from brainfeat.errors import CacheError, CacheFormatError, ParameterError

_SPLITS = ("train", "val", "test")

# Number of texts that are decoded at a time.
_TEXT_ROWS = 64 << 10


class CacheTable:
    """Columns of a cache, which `column` reads, with one entry for each row.

    Attributes
    ----------
    path : Path
        The file.
    class_names : tuple of str
        The classes, which `y` indexes.
    """

    path: Path
    class_names: tuple[str, ...]

    def column(self, name: str) -> NDArray[Any]:
        """Read a column as it is stored, (n, …)."""
        raise NotImplementedError

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
