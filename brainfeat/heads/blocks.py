"""Blocks: features of several caches side by side, such as modalities, any of which may be missing.

A missing block is not a number in all of its features. A head is fitted on filled vectors: each
feature of a missing block has the mean that it has in the training rows, and a column for each
block that is missing there tells where it is. Each feature is standardised by itself, and so is
each block, so that the number of its features is its weight.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from brainfeat.cache.joined import BLOCK_NAME, On, join_specs
from brainfeat.cache.spec import FeatureSpec
from brainfeat.errors import BundleError, SpecMismatchError

Rows = NDArray[np.intp]
Flags = NDArray[np.bool_]

# Data type and number of dimensions of each dataset of a head file, below ``blocks/``.
BLOCK_ARRAYS = {"means": ("<f4", 1), "marked": ("|u1", 1)}


@dataclass(frozen=True, kw_only=True, eq=False)
class BlockVectors:
    """Vectors of b blocks side by side.

    Attributes
    ----------
    values : ndarray of shape (n, d), float32
        Not a number in each feature of a missing block.
    widths : tuple of int
        Number of features of each block, which add up to d.

    Examples
    --------
    >>> values = np.array([[1, 2, np.nan], [3, 4, 5]], np.float32)
    >>> vectors = BlockVectors(values=values, widths=(2, 1))
    >>> vectors.present.tolist(), vectors.take([1]).values.tolist()
    ([[True, False], [True, True]], [[nan], [5.0]])
    """

    values: NDArray[np.float32]
    widths: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, rows: Rows | Flags | slice) -> "BlockVectors":
        """Return the vectors of a mask or of indices, in their order."""
        return BlockVectors(values=self.values[rows], widths=self.widths)

    @property
    def starts(self) -> Rows:
        """The first feature of each block, and the number of all features, (b + 1,) int."""
        return np.cumsum([0, *self.widths])

    @property
    def present(self) -> Flags:
        """Whether each block is there, (n, b) bool."""
        return ~np.isnan(self.values[:, self.starts[:-1]])

    def take(self, blocks: Sequence[int]) -> "BlockVectors":
        """Return the vectors of some blocks alone, in their order."""
        starts = self.starts
        columns = [np.arange(starts[block], starts[block + 1]) for block in blocks]
        return BlockVectors(
            values=self.values[:, np.concatenate(columns)],
            widths=tuple(self.widths[block] for block in blocks),
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Fill:
    """What takes the place of missing blocks.

    Attributes
    ----------
    widths : tuple of int
        Number of features of each of b blocks, which add up to d.
    means : ndarray of shape (d,), float32
        Mean of each feature over the training rows that have its block.
    marked : ndarray of shape (b,), bool
        Blocks that are missing in some training row, for each of which filled vectors have a column
        more: 1 where it is missing, and 0 where it is there.
    """

    widths: tuple[int, ...]
    means: NDArray[np.float32]
    marked: Flags

    @classmethod
    def fit(cls, X: BlockVectors) -> Self:
        """Find the means of training rows, and which blocks are missing in some.

        Parameters
        ----------
        X : BlockVectors

        Returns
        -------
        Fill
            A block that no row has is filled with 0.

        Examples
        --------
        >>> values = np.array([[1, np.nan], [3, 5]], np.float32)
        >>> vectors = BlockVectors(values=values, widths=(1, 1))
        >>> Fill.fit(vectors).apply(vectors).tolist()
        [[1.0, 5.0, 1.0], [3.0, 5.0, 0.0]]
        """
        is_there = X.present
        sums = np.nansum(X.values, axis=0, dtype=np.float64)
        numbers = np.repeat(is_there.sum(axis=0), X.widths)
        return cls(
            widths=X.widths,
            means=(sums / np.maximum(numbers, 1)).astype(np.float32),
            marked=np.logical_not(is_there.all(axis=0)),
        )

    @property
    def n_features(self) -> int:
        """Number of features of a filled vector."""
        return len(self.means) + int(self.marked.sum())

    def apply(self, X: BlockVectors) -> NDArray[np.float32]:
        """Fill the missing blocks of vectors.

        Parameters
        ----------
        X : BlockVectors
            Of n rows.

        Returns
        -------
        ndarray of shape (n, n_features), float32
            Features, and a column for each marked block.
        """
        is_missing = ~X.present
        return np.column_stack(
            [
                np.where(np.repeat(is_missing, self.widths, axis=1), self.means, X.values),
                is_missing[:, self.marked].astype(np.float32),
            ]
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Blocks:
    """The blocks of a head that was fitted on several caches.

    Attributes
    ----------
    names : tuple of str
        Name of each block, such as ``"t1"``.
    specs : tuple of FeatureSpec
        What the features of each must be.
    fill : Fill or None
        None where they were joined on images, of which none is missing.
    """

    names: tuple[str, ...]
    specs: tuple[FeatureSpec, ...]
    fill: Fill | None = None

    @property
    def on(self) -> On:
        """What the blocks have in common."""
        return "image" if self.fill is None else "group"

    @property
    def widths(self) -> tuple[int, ...]:
        """Number of features of each block."""
        return tuple(spec.n_features for spec in self.specs)

    @property
    def n_filled(self) -> int:
        """Number of features of a vector that the head takes."""
        return sum(self.widths) if self.fill is None else self.fill.n_features

    @property
    def bases(self) -> tuple[tuple[int, ...], ...]:
        """The blocks of each base: layers of one base are computed together.

        Examples
        --------
        >>> spec = FeatureSpec(
        ...     backbone="vgg16", layer="block5_pool", n_features=512, weights_sha256="0" * 64
        ... )
        >>> other = replace(spec, layer="block4_pool")
        >>> third = replace(spec, weights_sha256="1" * 64)
        >>> Blocks(names=("a", "b", "c"), specs=(spec, third, other)).bases
        ((0, 2), (1,))
        """
        found: dict[FeatureSpec, list[int]] = {}
        for place, spec in enumerate(self.specs):
            found.setdefault(replace(spec, layer="", n_features=0), []).append(place)
        return tuple(map(tuple, found.values()))

    @property
    def is_one_set(self) -> bool:
        """Whether several caches are its blocks; else each has all, which are layers of a base."""
        return self.on == "group" or len(self.bases) > 1

    @property
    def spec(self) -> FeatureSpec:
        """The spec of the features side by side."""
        return join_specs(self.names, self.specs)

    def check_vectors(self, values: NDArray[np.float32]) -> BlockVectors:
        """Check vectors of all blocks side by side.

        Parameters
        ----------
        values : ndarray of shape (n, d), float32
            Not a number in each feature of a missing block.

        Returns
        -------
        BlockVectors

        Raises
        ------
        BundleError
            They have another shape, a value that is not finite but in a missing block, or a row
            without any block.
        """
        d = sum(self.widths)
        if values.ndim != 2 or values.shape[1] != d:
            parts = " + ".join(
                f"{width} of {name}" for width, name in zip(self.widths, self.names, strict=True)
            )
            raise BundleError(
                f"features have shape {values.shape}; this head takes (n, {d}), which are {parts}"
            )
        vectors = BlockVectors(values=values, widths=self.widths)
        is_there = vectors.present
        is_finite = np.isfinite(values) | np.isnan(values)
        is_whole = np.isnan(values) == np.repeat(~is_there, self.widths, axis=1)
        if not (is_finite & is_whole).all():
            raise BundleError(
                "the features hold values that are not finite; where a block is missing, all of "
                "its features are NaN"
            )
        if not is_there.any(axis=1).all():
            raise BundleError(
                f"a row has none of the blocks {', '.join(self.names)}; expected one or more"
            )
        return vectors

    def check_specs(self, names: Sequence[str], specs: Sequence[FeatureSpec]) -> None:
        """Refuse blocks of other names, or with features of other specs.

        Raises
        ------
        SpecMismatchError
            The message names the block, and each field of its spec that differs.
        """
        if tuple(names) != self.names:
            raise SpecMismatchError(
                f"the head has the blocks {', '.join(self.names)}, and the caches are "
                f"{', '.join(names)}; pass a cache for each, in this order or by name"
            )
        for name, mine, theirs in zip(names, self.specs, specs, strict=True):
            mine.require(theirs, here=f"the block {name} of the head", there="the cache")

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return the datasets of a head file by name: those of `BLOCK_ARRAYS`, or none."""
        if self.fill is None:
            return {}
        return {"means": self.fill.means, "marked": self.fill.marked.astype(np.uint8)}

    def to_document(self) -> list[dict[str, str]]:
        """Return names and specs as what JSON can hold."""
        return [
            {"name": name, "spec": spec.to_json()}
            for name, spec in zip(self.names, self.specs, strict=True)
        ]

    @classmethod
    def from_file(cls, document: Any, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """Rebuild blocks from what a head file has.

        Parameters
        ----------
        document : list of dict
            As :meth:`to_document` returns it.
        arrays : mapping of str to ndarray
            As :meth:`to_arrays` returns them.

        Returns
        -------
        Blocks

        Raises
        ------
        BundleError
            The document is not one of two or more blocks, blocks of the same images read these in
            different ways, or an array has another shape or range.
        CacheFormatError
            A spec is not one.
        """
        if not isinstance(document, list) or len(document) < 2 or not all(map(_is_entry, document)):
            raise BundleError("blocks must be a JSON list of two or more, with name and spec each")
        names = tuple(entry["name"] for entry in document)
        specs = tuple(FeatureSpec.from_json(entry["spec"]) for entry in document)
        if len({*names}) < len(names) or not all(map(BLOCK_NAME.fullmatch, names)):
            raise BundleError("the blocks must have different names of letters, digits and ._+-")
        if min(spec.n_features for spec in specs) < 1:
            raise BundleError("a block must have one feature or more")
        if not arrays:
            if len({*specs}) < len(specs):
                raise BundleError("blocks of the same images must have different specs")
            if len({(spec.volumes, spec.value_range) for spec in specs}) > 1:
                raise BundleError("blocks of the same images must read these in one way")
            return cls(names=names, specs=specs)
        widths = tuple(spec.n_features for spec in specs)
        means, marked = arrays["means"], arrays["marked"]
        for name, array, size in (("means", means, sum(widths)), ("marked", marked, len(widths))):
            if array.shape != (size,):
                raise BundleError(f"blocks/{name} has shape {array.shape}; expected {(size,)}")
        if not np.isfinite(means).all() or (marked > 1).any():
            raise BundleError("blocks/means must be finite, and blocks/marked 0 or 1")
        return cls(
            names=names,
            specs=specs,
            fill=Fill(widths=widths, means=means, marked=marked.astype(np.bool_)),
        )


def _is_entry(entry: Any) -> bool:
    return (
        isinstance(entry, dict)
        and set(entry) == {"name", "spec"}
        and all(isinstance(text, str) for text in entry.values())
    )
