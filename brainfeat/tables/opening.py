"""A path becomes the table of what is there: images or volumes."""

import os
from pathlib import Path

from brainfeat.tables.table import ImageTable, read_table
from brainfeat.tables.volume_layouts import holds_volumes
from brainfeat.tables.volume_table import VolumeTable, read_volumes


def open_table(path: str | os.PathLike[str]) -> ImageTable | VolumeTable:
    """Read the table of what a path holds, without options.

    Parameters
    ----------
    path : path-like
        A folder or CSV file of images, or a volume or a folder of volumes.

    Returns
    -------
    ImageTable or VolumeTable

    Raises
    ------
    TableError
        If a folder has both images and volumes, or as :func:`brainfeat.read_table`.
    ImageReadError
        As :func:`brainfeat.read_volumes`.
    """
    return read_volumes(path) if holds_volumes(Path(path)) else read_table(path)
