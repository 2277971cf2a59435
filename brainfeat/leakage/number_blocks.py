"""Blocks of consecutive numbers in file names: a guess at which slices are of one patient."""

import re
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath

import numpy as np

from brainfeat.errors import TableError
from brainfeat.leakage.duplicates import Labels, join_labels

_RULE = re.compile(r"numbers:([0-9]{1,9})")
# The last number of a name; of a longer one, its last 18 digits.
_NUMBER = re.compile(r"(.*?)([0-9]{1,18})([^0-9]*)", re.DOTALL)
# A group of more than this fraction of all images, and of more images than so many of the largest
# block or group, is taken for a chain.
_CHAINED_FRACTION = 0.1
_CHAINED_BLOCKS = 3


def read_block_size(rule: str) -> int | None:
    """Read how many consecutive numbers a grouping joins.

    Parameters
    ----------
    rule : str
        Such as ``"numbers:40"``.

    Returns
    -------
    int or None
        2 or more; None for a text that does not name such a grouping.

    Examples
    --------
    >>> read_block_size("numbers:40"), read_block_size("numbers:1"), read_block_size("column")
    (40, None, None)
    """
    found = _RULE.fullmatch(rule)
    size = int(found[1]) if found else 0
    return size if size >= 2 else None


def label_number_blocks(paths: Iterable[str], size: int) -> Labels:
    """Label files by the block of consecutive numbers that their names are in.

    Names of one folder that differ only in their last number, and in the suffix, are a run, as
    ``glioma/Tr-gl_0012.jpg`` and ``glioma/Tr-gl_0013.jpg`` are. Each run is cut at the multiples of
    `size`, so that a file stays in its block whatever other files there are. The slices of a
    patient are often numbered one after the other; where they are not, blocks are of patients only
    by chance.

    Parameters
    ----------
    paths : iterable of str
        Paths with ``/`` between their parts.
    size : int
        Consecutive numbers in a block.

    Returns
    -------
    ndarray of shape (n,), int
        Labels 0…k−1. A name without a number has a block of its own.

    Raises
    ------
    TableError
        No two files are in one block.

    Examples
    --------
    >>> label_number_blocks(["a/s-39.png", "a/s-40.png", "b/s-40.png", "a/s-41.png"], 40).tolist()
    [0, 1, 2, 1]
    """
    names = list(paths)
    blocks: dict[tuple[object, ...], int] = {}
    labels = [
        blocks.setdefault(_name_block(PurePosixPath(name), size), len(blocks)) for name in names
    ]
    # The views of an image have one path.
    if len(blocks) == len(set(names)):
        raise TableError(
            f"no two files are in one block of {size} numbers; expected names of one folder that "
            "differ only in a number, such as slice_12.png and slice_13.png"
        )
    return np.array(labels, np.intp)


def join_number_blocks(
    paths: Sequence[str], size: int, *, same: Labels, groups: Sequence[str]
) -> Labels:
    """Join blocks of consecutive numbers with copies and with the groups of a table.

    Parameters
    ----------
    paths : sequence of str
        Of n images.
    size : int
        As of :func:`label_number_blocks`.
    same : ndarray of shape (n,), int
        Labels of what copies connect.
    groups : sequence of str
        ``""`` is no group.

    Returns
    -------
    ndarray of shape (n,), int
        Labels 0…k−1.

    Raises
    ------
    TableError
        No two files are in one block, or copies join blocks by a chain.

    Examples
    --------
    >>> paths = ["s-1.png", "s-2.png", "s-9.png", "s-17.png"]
    >>> join_number_blocks(paths, 8, same=np.array([0, 1, 2, 1]), groups=[""] * 4).tolist()
    [0, 0, 1, 0]
    """
    blocks = label_number_blocks(paths, size)
    # No group of a table has the name that an image without one gets here.
    names = [group or f"\0{place}" for place, group in enumerate(groups)]
    named = np.unique(names, return_inverse=True)[1]
    joined = join_labels(join_labels(same, blocks), named)
    largest, alone = (int(np.bincount(labels).max()) for labels in (joined, blocks))
    alone = max(alone, int(np.bincount(named).max()))
    if largest > max(_CHAINED_FRACTION * len(joined), _CHAINED_BLOCKS * alone):
        raise TableError(
            f"blocks of {size} numbers cannot be kept together: copies join {largest:,} of "
            f"{len(joined):,} images by one chain of blocks, so the numbers of these files do not "
            "follow patients; group by copies alone"
        )
    return joined


def _name_block(path: PurePosixPath, size: int) -> tuple[object, ...]:
    """Return the folder of a file, its name around the number, and the place of its block."""
    # A suffix of digits alone is no file type: DICOM files are called so.
    stem = path.name if path.suffix[1:].isdigit() else path.stem
    found = _NUMBER.fullmatch(stem)
    if found is None:
        return path.parent, path.name
    before, number, after = found.groups()
    return path.parent, before, after, int(number) // size
