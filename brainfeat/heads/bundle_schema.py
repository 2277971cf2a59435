"""What the format of head files requires of their datasets and attributes."""

from collections.abc import Collection
from dataclasses import replace
from typing import Any

from numpy.typing import NDArray

from brainfeat.cache.signature import SIGNATURE_VERSION
from brainfeat.cache.storage import DatasetRule, Schema
from brainfeat.errors import BundleError
from brainfeat.heads.blocks import BLOCK_ARRAYS, Blocks
from brainfeat.heads.conformal import CONFORMAL_ARRAYS, Conformal
from brainfeat.heads.ensemble_archive import ENSEMBLE_ARRAYS
from brainfeat.heads.fitted_images import FITTED_ARRAYS, FittedImages
from brainfeat.heads.ood import OOD_ARRAYS, OODDetector
from brainfeat.heads.trees import TREE_ARRAYS

# The arrays of a dense head, of trees, and of every other head.
_HEAD_RULES = {
    r"dense/\d/kernel": DatasetRule(dtype="<f4", ndim=2),
    r"dense/\d/bias": DatasetRule(dtype="<f4"),
    r"dense/mean": DatasetRule(dtype="<f8"),
    r"dense/scale": DatasetRule(dtype="<f8"),
    r"skops": DatasetRule(dtype="|u1"),
    **{
        rf"trees/{name}": DatasetRule(dtype=kind, ndim=ndim)
        for name, (kind, ndim) in TREE_ARRAYS.items()
    },
}
FORMAT_1 = Schema(
    format="brainfeat-head",
    version=1,
    datasets={
        **_HEAD_RULES,
        **{
            rf"scope/{name}": DatasetRule(dtype=kind, ndim=ndim)
            for name, (kind, ndim) in OOD_ARRAYS.items()
        },
        **{
            rf"conformal/{name}": DatasetRule(dtype=kind, ndim=ndim)
            for name, (kind, ndim) in CONFORMAL_ARRAYS.items()
        },
        r"probe/X": DatasetRule(dtype="<f4", ndim=2),
        r"probe/probabilities": DatasetRule(dtype="<f8", ndim=2),
    },
    attributes=frozenset({"spec", "class_names", "head", "temperature", "training"}),
    error=BundleError,
    format_error=BundleError,
    corrupt_error=BundleError,
    remedy="restore a copy, or fit it again with brainfeat fit-head",
)
FORMAT_2 = replace(
    FORMAT_1,
    version=2,
    datasets={
        **FORMAT_1.datasets,
        **{
            rf"fitted/{name}": DatasetRule(dtype=kind, ndim=ndim)
            for name, (kind, ndim) in FITTED_ARRAYS.items()
        },
    },
    attributes=FORMAT_1.attributes | {"signature_version"},
)
# Of heads of bags, of maps, of several blocks or members, or with attention: a reader of format 2
# would take them for heads of images, or of one cache, and knows no members.
BUNDLE_SCHEMA = replace(
    FORMAT_2,
    version=3,
    datasets={
        **FORMAT_2.datasets,
        r"attention/V": DatasetRule(dtype="<f4", ndim=2),
        r"attention/U": DatasetRule(dtype="<f4", ndim=2),
        r"attention/w": DatasetRule(dtype="<f4"),
        r"attention/squeeze": DatasetRule(dtype="<f4", ndim=2),
        r"attention/excite": DatasetRule(dtype="<f4", ndim=2),
        r"attention/spatial": DatasetRule(dtype="<f4", ndim=3),
        r"attention/spatial_bias": DatasetRule(dtype="<f4"),
        r"probe/offsets": DatasetRule(dtype="<i8"),
        r"probe/maps": DatasetRule(dtype="<f2", ndim=4),
        **{
            rf"blocks/{name}": DatasetRule(dtype=kind, ndim=ndim)
            for name, (kind, ndim) in BLOCK_ARRAYS.items()
        },
        **{
            rf"members/{name}": DatasetRule(dtype=kind, ndim=ndim)
            for name, (kind, ndim) in ENSEMBLE_ARRAYS.items()
        },
        **{rf"members/1?\d/{name}": rule for name, rule in _HEAD_RULES.items()},
    },
    attributes=FORMAT_2.attributes | {"bag", "blocks"},
    earlier=(FORMAT_1, FORMAT_2),
)


def select_schema(
    *, fitted: bool, bag: bool, blocks: bool, attention: bool, members: bool
) -> Schema:
    """Return the earliest format that a head can be written in.

    Parameters
    ----------
    fitted : bool
        Whether the images of the fit are recorded.
    bag : bool
        Whether its examples are bags.
    blocks : bool
        Whether it takes features of several caches.
    attention : bool
        Whether it weighs channels or positions by attention.
    members : bool
        Whether it is an ensemble.

    Returns
    -------
    Schema
    """
    is_new = bag or blocks or attention or members
    return BUNDLE_SCHEMA if is_new else FORMAT_2 if fitted else FORMAT_1


def check_signature_version(version: object) -> None:
    """Refuse signatures of another version.

    Raises
    ------
    BundleError
        The version is another one than that of :mod:`brainfeat.cache.signature`.
    """
    if version != SIGNATURE_VERSION:
        raise BundleError(
            f"signatures of version {version}, but this brainfeat reads version "
            f"{SIGNATURE_VERSION}; use the brainfeat that wrote them, or fit the head again"
        )


def with_prefix(
    prefix: str, part: Blocks | OODDetector | Conformal | FittedImages | None
) -> dict[str, NDArray[Any]]:
    """Return the arrays of a part of a head by their full names; none where there is no part."""
    arrays = {} if part is None else part.to_arrays()
    return {f"{prefix}/{name}": array for name, array in arrays.items()}


def take(arrays: dict[str, NDArray[Any]], prefix: str) -> dict[str, NDArray[Any]]:
    """Take the arrays of a folder out of the arrays of a file."""
    inside = [name for name in arrays if name.startswith(f"{prefix}/")]
    return {name.removeprefix(f"{prefix}/"): arrays.pop(name) for name in inside}


def take_all(
    arrays: dict[str, NDArray[Any]], prefix: str, names: Collection[str]
) -> dict[str, NDArray[Any]]:
    """Take the arrays of a folder out of `arrays`: all those of the format, or none."""
    taken = take(arrays, prefix)
    if taken and set(taken) != set(names):
        found, wanted = (", ".join(sorted(given)) for given in (taken, names))
        raise BundleError(f"{prefix} has the arrays {found}; expected {wanted}")
    return taken
