"""Which files are volumes, and which files are one volume."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from brainfeat.errors import ImageReadError
from brainfeat.readers.dicom import is_dicom, read_key, read_series
from brainfeat.readers.nifti import read_nifti
from brainfeat.readers.volumes import Volume

NIFTI_SUFFIXES = (".nii", ".nii.gz")


class Series(NamedTuple):
    """The files of one volume.

    Attributes
    ----------
    name : str
        What it is called where people read it: by number, as a path can hold a name.
    key : str
        The same wherever the files are, for DICOM; never shown.
    folder : str
        The first folder below the one that was given; never shown unless it is asked for.
    paths : tuple of Path
        Never shown.
    """

    name: str
    key: str
    folder: str
    paths: tuple[Path, ...]


class Unreadable(NamedTuple):
    """A DICOM file of which not even the series can be read."""

    name: str
    reason: str


def is_volume(path: Path) -> bool:
    """Tell whether a file is to be read as a volume: NIfTI by its name, DICOM by its content."""
    return path.name.lower().endswith(NIFTI_SUFFIXES) or is_dicom(path)


def find_series(paths: Iterable[str | os.PathLike[str]]) -> tuple[list[Series], list[Unreadable]]:
    """Find the volumes among files and below folders, in the order of their paths.

    Parameters
    ----------
    paths : iterable of path-like
        DICOM and NIfTI files, and folders; in those, other files and hidden ones are passed over.

    Returns
    -------
    list of Series
    list of Unreadable

    Raises
    ------
    MissingDependencyError
        There are DICOM files, and pydicom is not installed.
    """
    given = [Path(path) for path in paths]
    series: list[Series] = []
    unreadable: list[Unreadable] = []
    for number, path in enumerate(given, 1):
        argument = f"argument {number}, " if len(given) > 1 else ""
        members: dict[str, list[Path]] = {}
        for place, file in enumerate(_list_volumes(path), 1):
            name = f"{argument}file {place}"
            try:
                key = read_key(file, name=name) if is_dicom(file) else str(file.absolute())
            except ImageReadError as error:
                unreadable.append(Unreadable(name, error.reason))
                continue
            members.setdefault(key, []).append(file)
        for place, (key, files) in enumerate(members.items(), 1):
            parts = files[0].relative_to(path).parts
            folder = parts[0] if len(parts) > 1 else ""
            series.append(Series(f"{argument}volume {place}", key, folder, tuple(files)))
    return series, unreadable


def read_volume(series: Series, *, allow_burned_in: bool = False) -> Volume:
    """Read the files of a series.

    Parameters
    ----------
    series : Series
    allow_burned_in : bool
        As in :func:`brainfeat.readers.dicom.read_series`.

    Returns
    -------
    Volume

    Raises
    ------
    ImageReadError
        They cannot be read; it is called by the name of the series.
    MissingDependencyError
        What reads the format is not installed.
    """
    if is_dicom(series.paths[0]):
        return read_series(series.paths, name=series.name, allow_burned_in=allow_burned_in)
    return read_nifti(series.paths[0], name=series.name)


def _list_volumes(path: Path) -> Iterator[Path]:
    if not path.is_dir():
        if is_volume(path):
            yield path
        return
    for folder, folders, names in os.walk(path):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            file = Path(folder, name)
            if not name.startswith(".") and is_volume(file):
                yield file
