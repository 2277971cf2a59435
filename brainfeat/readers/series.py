"""Files and folders become images and series; a series is the files of one volume."""

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal, NamedTuple

from brainfeat.errors import ImageReadError
from brainfeat.files import is_so
from brainfeat.readers.dicom import (
    Stack,
    find_stacks,
    identify_series,
    is_dicom,
    read_header,
    read_series,
)
from brainfeat.readers.dicom.headers import Header
from brainfeat.readers.held import HeldImage
from brainfeat.readers.listing import identify, walk_folders
from brainfeat.readers.matlab import identify_matlab, is_matlab_73, read_matlab
from brainfeat.readers.mgh import read_mgh
from brainfeat.readers.nifti import read_nifti
from brainfeat.readers.orientation import orient_volume
from brainfeat.readers.raster import IMAGE_SUFFIXES
from brainfeat.readers.volumes import SlicePolicy, Volume

Format = Literal["dicom", "nifti", "mgh", "matlab"]

# Their names in messages.
FORMAT_NAMES: dict[Format, str] = {
    "dicom": "DICOM",
    "nifti": "NIfTI",
    "mgh": "MGH",
    "matlab": "MATLAB 7.3",
}
_SUFFIXES: dict[Format, tuple[str, ...]] = {
    "nifti": (".nii", ".nii.gz"),
    "mgh": (".mgh", ".mgz", ".mgh.gz"),
    "matlab": (".mat",),
    "dicom": (".dcm", ".dicom", ".ima"),
}


class Series(NamedTuple):
    """The files of one volume.

    Attributes
    ----------
    name : str
        A number that identifies the volume in output, because a path can contain a person's name.
    format : {"dicom", "nifti", "mgh", "matlab"}
    key : str
        Identifies the volume; for DICOM it does not depend on where the files are. Never shown.
    folders : tuple of str
        The folders from the one that was given down to the first file; shown only on request.
    paths : tuple of Path
        Never shown.
    frames : tuple of int or None
        Which frames of a file with several volumes belong to this one; None for all.
    """

    name: str
    format: Format
    key: str
    folders: tuple[str, ...]
    paths: tuple[Path, ...]
    frames: tuple[int, ...] | None = None


class Unreadable(NamedTuple):
    """A file whose series cannot be determined, or a folder that cannot be listed."""

    name: str
    reason: str


class _File(NamedTuple):
    """A file of a volume, the folders from the argument down to it, and its name."""

    path: Path
    kind: Format
    folders: tuple[str, ...]
    argument: str
    name: str


def detect_format(path: Path) -> Format | None:
    """Detect the volume format of a file by its name or its content; None if it is not a volume."""
    return _detect_by_name(path) or ("dicom" if is_so(lambda: is_dicom(path)) else None)


def _detect_by_name(path: Path) -> Format | None:
    name = path.name.lower()
    return next((kind for kind, ends in _SUFFIXES.items() if name.endswith(ends)), None)


def has_volumes(folder: Path) -> bool:
    """Return whether any file below a folder is a volume by its name or its content."""
    files, _ = _list_files(folder)
    return any(kind is not None for _, kind in files)


class Inputs(NamedTuple):
    """The images and volumes among files and below folders.

    Attributes
    ----------
    images : list of Path or HeldImage
        Images in memory, and files that are not volumes: all that were named, and those in folders
        that have the suffix of an image.
    series : list of Series
        The volumes.
    unreadable : list of Unreadable
        Files whose series cannot be determined, and folders that cannot be listed.
    """

    images: list[Path | HeldImage]
    series: list[Series]
    unreadable: list[Unreadable]


def find_inputs(given: Iterable[str | os.PathLike[str] | HeldImage]) -> Inputs:
    """Find the images and the volumes among files and below folders, in the order of their paths.

    Each folder is walked once, and links to files and folders are followed, as
    ``brainfeat.readers.listing.walk_folders`` does; a file of a volume that is linked again, or
    given again, is read once. A volume can have files in several folders. Hidden files and folders
    are skipped, and so are files that are neither images nor volumes.

    Parameters
    ----------
    given : iterable of path-like or HeldImage
        Files and folders; images in memory stay where they are.

    Returns
    -------
    Inputs

    Raises
    ------
    MissingDependencyError
        If there are DICOM files and pydicom is not installed.
    """
    entries = list(given)
    found = Inputs([], [], [])
    volumes: list[_File] = []
    for number, entry in enumerate(entries, 1):
        if isinstance(entry, HeldImage):
            found.images.append(entry)
            continue
        path = Path(entry)
        argument = f"argument {number}, " if len(entries) > 1 else ""
        files, troubles = _list_files(path)
        found.unreadable.extend(Unreadable(f"{argument}a folder", trouble) for trouble in troubles)
        found.images.extend(file for file, kind in files if kind is None)
        named = [(file, kind) for file, kind in files if kind is not None]
        volumes += [
            _File(
                file, kind, file.relative_to(path).parts[:-1], argument, f"{argument}file {place}"
            )
            for place, (file, kind) in enumerate(named, 1)
        ]
    series, unreadable = _group_files(volumes)
    found.series.extend(series)
    found.unreadable.extend(unreadable)
    return found


def find_series(paths: Iterable[str | os.PathLike[str]]) -> tuple[list[Series], list[Unreadable]]:
    """Find the volumes among files and below folders, in the order of their paths.

    Parameters
    ----------
    paths : iterable of path-like
        DICOM, NIfTI, MGH and MATLAB files and folders; other and hidden files are skipped.

    Returns
    -------
    list of Series
    list of Unreadable

    Raises
    ------
    MissingDependencyError
        If there are DICOM files and pydicom is not installed.
    """
    found = find_inputs(paths)
    return found.series, found.unreadable


def read_volume(
    series: Series, *, policy: SlicePolicy | None = None, allow_burned_in: bool = False
) -> Volume:
    """Read the files of a series.

    Parameters
    ----------
    series : Series
        As `find_series` returns it.
    policy : SlicePolicy or None, default=None
        In which plane its slices are, which volume is read of a file of several, and which unit
        its values must be in; None takes the default.
    allow_burned_in : bool, default=False
        As in :func:`brainfeat.readers.dicom.read_series`.

    Returns
    -------
    Volume

    Raises
    ------
    ImageReadError
        If the files cannot be read, or their values are not known to be in the unit of the
        policy's window; the error names the series, not the files.
    MissingDependencyError
        If the library that reads the format is not installed.
    """
    policy = policy or SlicePolicy()
    (path, *_), name = series.paths, series.name
    if policy.unit and series.format != "dicom":
        raise ImageReadError(
            name,
            f"is not a DICOM file, and only those state that values are in {policy.unit}; leave it "
            "out, or pass window=CENTRE,WIDTH, which takes values in any unit",
        )
    match series.format:
        case "dicom":
            volume = read_series(
                series.paths,
                name=name,
                frames=series.frames,
                allow_burned_in=allow_burned_in,
                unit=policy.unit,
            )
        case "nifti":
            volume = read_nifti(path, name=name, volume=policy.volume)
        case "mgh":
            volume = read_mgh(path, name=name, volume=policy.volume)
        case "matlab":
            volume = read_matlab(path, name=name)
    return orient_volume(volume, policy.orientation, name=name)


class Identity(NamedTuple):
    """What a file tells of its volume without its pixels.

    Attributes
    ----------
    patient : str
        As in `Volume.patient`. Never shown.
    label : str
        The class that it states; ``""`` for none.
    """

    patient: str
    label: str = ""


def identify_volume(series: Series) -> Identity:
    """Read whose a volume is, and the class that its file states, without its pixels.

    Parameters
    ----------
    series : Series
        As `find_series` returns it.

    Returns
    -------
    Identity

    Raises
    ------
    ImageReadError
        If the first file cannot be read. A file without a patient is not opened.
    MissingDependencyError
        If there are DICOM files and pydicom is not installed.
    """
    if series.format == "dicom":
        return Identity(identify_series(series.paths, name=series.name))
    if series.format == "matlab":
        return Identity(*identify_matlab(series.paths[0], name=series.name))
    return Identity(f"file\0{series.paths[0].absolute()}")


def _group_files(files: Iterable[_File]) -> tuple[list[Series], list[Unreadable]]:
    """Group files by the volume that they belong to, wherever they are."""
    places: dict[Path, tuple[int, _File]] = {}
    volumes: list[tuple[Format, Stack]] = []
    headers: list[tuple[Path, Header]] = []
    unreadable: list[Unreadable] = []
    for number, file in enumerate(files):
        path = file.path
        if path in places:
            continue
        places[path] = number, file
        if file.kind != "dicom":
            volumes.append((file.kind, Stack(str(path.absolute()), (path,), None, path)))
            continue
        try:
            headers.append((path, read_header(path, name=file.name)))
        except ImageReadError as error:
            unreadable.append(Unreadable(file.name, error.reason))
    volumes += [("dicom", stack) for stack in find_stacks(headers)]
    volumes.sort(key=lambda volume: places[volume[1].first][0])
    series = []
    numbers: Counter[str] = Counter()
    for kind, stack in volumes:
        first = places[stack.paths[0]][1]
        numbers[first.argument] += 1
        name = f"{first.argument}volume {numbers[first.argument]}"
        series.append(Series(name, kind, stack.key, first.folders, stack.paths, stack.frames))
    return series, unreadable


def _list_files(path: Path) -> tuple[list[tuple[Path, Format | None]], list[str]]:
    """List images and volumes with their formats, and why folders cannot be listed.

    The format of an image is None.
    """
    if not is_so(path.is_dir):
        return [(path, detect_format(path))], []
    troubles: list[str] = []

    def note(_: Path, error: OSError) -> None:
        troubles.append(f"cannot be listed ({error.strerror})")

    listed = [
        (path.joinpath(*listing.parts, entry.name), entry.is_symlink())
        for listing in walk_folders(path, note).listings
        for entry in listing.files
    ]
    detected = [(file, _detect_listed(file), linked) for file, linked in listed]
    found = [
        (file, kind, linked)
        for file, kind, linked in detected
        if kind is not None or file.name.lower().endswith(IMAGE_SUFFIXES)
    ]
    return list(_drop_repeated(found)), troubles


def _drop_repeated(
    found: list[tuple[Path, Format | None, bool]],
) -> Iterator[tuple[Path, Format | None]]:
    """Yield the files, but each file of a volume once, because a link to it is no further slice."""
    volumes = [(file, linked) for file, kind, linked in found if kind is not None]
    any_linked = any(linked for _, linked in volumes)
    seen = {
        identify(file)
        for file, linked in volumes
        if any_linked and not linked and is_so(file.exists)
    }
    for file, kind, linked in found:
        if linked and kind is not None and is_so(file.exists):
            identity = identify(file)
            if identity in seen:
                continue
            seen.add(identity)
        yield file, kind


def _detect_listed(file: Path) -> Format | None:
    """Detect the format of a file in a folder; one that cannot be opened fails when it is read.

    A MATLAB file of another version than 7.3 is no volume there, but holds anything.
    """
    named = _detect_by_name(file)
    try:
        if named == "matlab":
            return named if is_matlab_73(file) else None
        return named or ("dicom" if is_dicom(file) else None)
    except OSError:
        return named or (None if file.name.lower().endswith(IMAGE_SUFFIXES) else "dicom")
