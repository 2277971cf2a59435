"""Columns of a cache that come from the table: labels and texts, and the sizes of its files."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainfeat.cache.schema import EXTRACTED, GENERATED
from brainfeat.cache.writing import as_text
from brainfeat.tables.rows import Row
from brainfeat.tables.table import ImageTable

# What a cache has for the origin of an image in a table.
ORIGINS = {"": EXTRACTED, "generated": GENERATED}


def make_columns(table: ImageTable, rows: NDArray[np.intp]) -> dict[str, NDArray[Any]]:
    """Make the columns of a cache.

    Parameters
    ----------
    table : ImageTable
    rows : ndarray of shape (n,), int
        The row of the table of each row of the cache.

    Returns
    -------
    dict of str to ndarray of shape (n,)
        As :func:`brainfeat.cache.merging.write_cache` takes them.
    """
    texts = {
        "path": table.paths,
        "split": table.splits,
        "group": table.groups,
        "source": table.sources,
    }
    columns = {
        "label": table.label_indices[rows],
        **{name: as_text(values)[rows] for name, values in texts.items()},
    }
    made = np.array([ORIGINS[origin] for origin in table.origins], np.int16)[rows]
    return columns | ({"origin": made} if made.any() else {})


def list_sizes(
    table: ImageTable, list_views: Callable[[Row], Sequence[int]]
) -> Iterator[tuple[int | None, int]]:
    """Yield the size of the file and the view of each row of a cache.

    Parameters
    ----------
    table : ImageTable
    list_views : callable
        From a row of the table to the views that the cache has of it.

    Yields
    ------
    int or None
        Bytes; None for a file that cannot be reached.
    int
    """
    for place in range(len(table)):
        try:
            size = table.absolute_path(place).stat().st_size
        except OSError:  # it is rejected when it is read
            size = None
        yield from ((size, view) for view in list_views(table.row(place)))
