"""Which files are volumes, and which files are one volume."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Literal, NamedTuple

from brainfeat.errors import ImageReadError
from brainfeat.files import is_so
from brainfeat.readers.dicom import is_dicom, read_key, read_series
from brainfeat.readers.nifti import read_nifti
from brainfeat.readers.raster import IMAGE_SUFFIXES
from brainfeat.readers.volumes import Volume

Format = Literal["dicom", "nifti"]

_SUFFIXES: dict[Format, tuple[str, ...]] = {
    "nifti": (".nii", ".nii.gz"),
    "dicom": (".dcm", ".dicom", ".ima"),
}


class Series(NamedTuple):
    """The files of one volume.

    Attributes
    ----------
    name : str
        What it is called where people read it: by number, as a path can hold a name.
    format : {"dicom", "nifti"}
    key : str
        The same wherever the files are, for DICOM; never shown.
    folder : str
        The first folder below the one that was given; never shown unless it is asked for.
    paths : tuple of Path
        Never shown.
    """

    name: str
    format: Format
    key: str
    folder: str
    paths: tuple[Path, ...]


class Unreadable(NamedTuple):
    """A DICOM file of which not even the series can be read, or a folder that cannot be listed."""

    name: str
    reason: str


def tell_format(path: Path) -> Format | None:
    """Tell how a file is read as a volume, by its name or by its content; None where it is none."""
    return _tell_named(path) or ("dicom" if is_so(lambda: is_dicom(path)) else None)


def _tell_named(path: Path) -> Format | None:
    name = path.name.lower()
    return next((kind for kind, ends in _SUFFIXES.items() if name.endswith(ends)), None)


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
        files, troubles = _list_volumes(path)
        unreadable += [Unreadable(f"{argument}a folder", trouble) for trouble in troubles]
        members: dict[tuple[Format, str], list[Path]] = {}
        for place, (file, kind) in enumerate(files, 1):
            name = f"{argument}file {place}"
            try:
                key = read_key(file, name=name) if kind == "dicom" else str(file.absolute())
            except ImageReadError as error:
                unreadable.append(Unreadable(name, error.reason))
                continue
            members.setdefault((kind, key), []).append(file)
        for place, ((kind, key), paths_of_it) in enumerate(members.items(), 1):
            parts = paths_of_it[0].relative_to(path).parts
            folder = parts[0] if len(parts) > 1 else ""
            series.append(
                Series(f"{argument}volume {place}", kind, key, folder, tuple(paths_of_it))
            )
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
    if series.format == "dicom":
        return read_series(series.paths, name=series.name, allow_burned_in=allow_burned_in)
    return read_nifti(series.paths[0], name=series.name)


def _list_volumes(path: Path) -> tuple[list[tuple[Path, Format]], list[str]]:
    """List the volumes of an argument, and why folders of it cannot be listed."""
    if not is_so(path.is_dir):
        kind = tell_format(path)
        return ([] if kind is None else [(path, kind)]), []
    found: list[tuple[Path, Format]] = []
    troubles: list[str] = []

    def note(error: OSError) -> None:
        troubles.append(f"cannot be listed ({error.strerror})")

    for folder, folders, names in os.walk(path, onerror=note):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            file = Path(folder, name)
            if not name.startswith(".") and (kind := _tell_listed(file)) is not None:
                found.append((file, kind))
    return found, troubles


def _tell_listed(file: Path) -> Format | None:
    """Tell the format of a file in a folder; what cannot be opened is read, to be refused."""
    try:
        return _tell_named(file) or ("dicom" if is_dicom(file) else None)
    except OSError:
        return None if file.name.lower().endswith(IMAGE_SUFFIXES) else "dicom"
