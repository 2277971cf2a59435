"""Which layout a folder of volumes has, and whether a folder holds volumes or images at all."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from brainfeat.errors import TableError
from brainfeat.files import is_so
from brainfeat.readers.listing import walk_folders
from brainfeat.readers.raster import IMAGE_SUFFIXES
from brainfeat.readers.series import Series, detect_format
from brainfeat.tables.origin import SLICES_NOTE
from brainfeat.tables.rows import quote, some
from brainfeat.tables.volume_patients import Patient, is_in_bids
from brainfeat.text import count

_PARTICIPANTS = "participants.tsv"
_KEY = "participant_id"  # its first column
_HEADER_LIMIT = 10_000  # bytes
_SHOWN_COLUMNS = 6


def holds_volumes(path: Path) -> bool:
    """Return whether a path is a volume, or a folder of volumes and not of images.

    Files with the suffix of an image are images, and are not opened.

    Parameters
    ----------
    path : Path

    Returns
    -------
    bool
        False for a table, for a folder that `brainfeat slices` made, and for what does not exist.

    Raises
    ------
    TableError
        If a folder has both, or cannot be listed.
    """
    if is_so(path.is_file):
        return not _is_image(path.name) and detect_format(path) is not None
    if not is_so(path.is_dir) or is_so((path / SLICES_NOTE).is_file):
        return False
    images = volumes = 0
    for listing in walk_folders(path, _refuse).listings:
        for entry in listing.files:
            if _is_image(entry.name):
                images += 1
            elif detect_format(path.joinpath(*listing.parts, entry.name)):
                volumes += 1
    if images and volumes:
        raise TableError(
            f"{quote(path)} has {count(volumes, 'file')} of volumes and {count(images, 'image')};"
            " expected one kind; pass the folder of one of them, or move the others away"
        )
    return volumes > 0


def _is_image(name: str) -> bool:
    return Path(name).suffix.lower() in IMAGE_SUFFIXES


def _refuse(folder: Path, error: OSError) -> None:
    raise TableError(
        f"the folder {quote(folder)} cannot be listed ({error.strerror}); make it readable or move"
        " it away"
    ) from error


def describe_layout(
    series: Sequence[Series], patients: Sequence[Patient], group_level: int | None
) -> str:
    """Describe by what the patients of volumes were told, in a few words without a name.

    Examples
    --------
    >>> describe_layout([], [], 2)
    'folders of level 2'
    """
    if group_level is not None:
        return f"folders of level {group_level}"
    files = [
        (entry, patient)
        for entry, patient in zip(series, patients, strict=True)
        if entry.format != "dicom"
    ]
    if not files:
        return ""
    if all(is_in_bids(entry) for entry, _ in files):
        return "subjects of BIDS"
    if all(patient.place and entry.format == "mgh" for entry, patient in files):
        return "subjects of FreeSurfer"
    sequences = sorted({patient.sequence for _, patient in files if patient.place} - {""})
    if sequences and all(patient.place for _, patient in files):
        return f"files by sequence as in BraTS: {', '.join(sequences)}"
    return ""


def describe_participants(given: Iterable[Path]) -> Iterator[str]:
    """Say that a folder of BIDS has a list of its participants, which is not used."""
    for folder in given:
        path = folder / _PARTICIPANTS
        if not is_so(path.is_file):
            continue
        with path.open("rb") as file:
            header = file.readline(_HEADER_LIMIT).decode("utf-8-sig", "replace")
        columns = [cell.strip().strip('"') for cell in header.split("\t")]
        others = [name for name in columns if name and name != _KEY]
        if _KEY in columns and others:
            yield (
                f"{_PARTICIPANTS} is beside the volumes and not used; to take classes from one of"
                f" its columns {some(others, _SHOWN_COLUMNS)}, pass its path as labels=FILE, and"
                f" {_KEY} with that column as label_columns=KEY,LABEL"
            )
