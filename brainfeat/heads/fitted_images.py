"""The images of a fit, by digests of their files and signatures: what a head has seen."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from brainfeat.cache.signature import SIGNATURE_SIZE
from brainfeat.errors import BundleError

# Splits of a fit, by their number in the file; those before SEEN were used to fit the head.
SPLITS = ("train", "val", "test")
_SEEN = 2
# Data type and number of dimensions of each dataset of a head file, below ``fitted/``.
FITTED_ARRAYS = {"sha256": ("|u1", 2), "split": ("|u1", 1), "signature": ("|i1", 2)}

Digests = NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True, eq=False)
class FittedImages:
    """The images of a fit, each content once in each split, without their names.

    Attributes
    ----------
    sha256 : ndarray of shape (n, 32), uint8
        SHA-256 of each file: those of train first, then val and test, each in ascending order.
    split : ndarray of shape (n,), uint8
        Index of its split into :data:`SPLITS`.
    signature : ndarray of shape (m, 1936), int8, or None
        Signatures of the images of train and val, in the same order; None where the cache had none,
        or they were left out.
    """

    sha256: Digests
    split: NDArray[np.uint8]
    signature: NDArray[np.int8] | None

    @classmethod
    def collect(
        cls, sha256: Mapping[str, Digests], signature: Mapping[str, NDArray[np.int8]] | None
    ) -> Self:
        """Collect the images of each split.

        Parameters
        ----------
        sha256 : mapping of str to ndarray of shape (m, 32), uint8
            Digests of the files of train, val and test.
        signature : mapping of str to ndarray of shape (m, 1936), int8, or None
            Signatures of the same images; those of test are not kept.

        Returns
        -------
        FittedImages

        Examples
        --------
        >>> digests = np.arange(96, dtype=np.uint8).reshape(3, 32)
        >>> found = FittedImages.collect(
        ...     {"train": digests[[1, 0, 1]], "val": digests[2:], "test": digests[:1]}, None
        ... )
        >>> found.split.tolist(), found.find_splits(digests)["val"].tolist()
        ([0, 0, 1, 2], [False, False, True])
        """
        digests, splits, signatures = [], [], []
        for number, name in enumerate(SPLITS):
            unique, first = np.unique(_as_keys(sha256[name]), return_index=True)
            digests.append(sha256[name][first])
            splits.append(np.full(len(unique), number, np.uint8))
            if signature is not None and number < _SEEN:
                signatures.append(signature[name][first])
        return cls(
            sha256=np.concatenate(digests),
            split=np.concatenate(splits),
            signature=np.concatenate(signatures) if signatures else None,
        )

    @property
    def seen(self) -> Digests:
        """SHA-256 of the files of train and val, of which `signature` has the signatures."""
        return self.sha256[self.split < _SEEN]

    def find(self, sha256: Digests) -> NDArray[np.bool_]:
        """Find out which files the head was fitted or validated on.

        Parameters
        ----------
        sha256 : ndarray of shape (n, 32), uint8

        Returns
        -------
        ndarray of shape (n,), bool
        """
        return np.isin(_as_keys(sha256), _as_keys(self.seen))

    def find_splits(self, sha256: Digests) -> dict[str, NDArray[np.bool_]]:
        """Find out which files the head was fitted on (train), and validated on (val)."""
        keys = _as_keys(sha256)
        return {
            name: np.isin(keys, _as_keys(self.sha256[self.split == number]))
            for number, name in enumerate(SPLITS[:_SEEN])
        }

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return the datasets of a head file by name; no signature where there are none."""
        return {name: array for name, array in vars(self).items() if array is not None}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """Rebuild the record from the datasets of a head file.

        Raises
        ------
        BundleError
            An array is missing or has another shape or range.
        """
        if missing := {"sha256", "split"} - {*arrays}:
            raise BundleError(f"fitted/{min(missing)} is missing")
        found = cls(
            sha256=arrays["sha256"], split=arrays["split"], signature=arrays.get("signature")
        )
        n = len(found.split)
        if found.sha256.shape != (n, 32):
            raise BundleError(f"fitted/sha256 has shape {found.sha256.shape}; expected {(n, 32)}")
        if (np.diff(found.split.astype(np.int16)) < 0).any() or found.split.max(initial=0) > _SEEN:
            raise BundleError(f"fitted/split must be ascending numbers from 0 to {_SEEN}")
        shape = (len(found.seen), SIGNATURE_SIZE)
        if found.signature is not None and found.signature.shape != shape:
            raise BundleError(
                f"fitted/signature has shape {found.signature.shape}; expected {shape}"
            )
        return found


def _as_keys(sha256: Digests) -> NDArray[Any]:
    """View digests as one value each, in the order of their bytes."""
    return np.ascontiguousarray(sha256).view("V32").reshape(-1)
