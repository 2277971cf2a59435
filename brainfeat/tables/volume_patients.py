"""Whose volumes files are, as their folders and names tell; NIfTI and MGH do not name the patient.

The names here can identify people: nothing of them is written or shown, except sequences.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from brainfeat.errors import TableError
from brainfeat.readers.series import Series
from brainfeat.tables.label_matching import Names
from brainfeat.tables.masks import is_mask_folder
from brainfeat.text import count

# How files of one patient end in BraTS, UCSF-PDGM, IXI and BIDS, and the sequence that it means.
_SEQUENCES = {
    **dict.fromkeys(("t1", "t1n", "t1w"), "t1"),
    **dict.fromkeys(("t1ce", "t1c", "t1gd", "t1gad", "t1post"), "t1ce"),
    **dict.fromkeys(("t2", "t2w"), "t2"),
    **dict.fromkeys(("flair", "t2f"), "flair"),
    **{name: name for name in ("adc", "dwi", "pd", "swi")},
}
_SEQUENCE = re.compile(rf"(?:(?P<base>.+)[ _.-])?(?P<word>{'|'.join(_SEQUENCES)})", re.IGNORECASE)
# The entity of BIDS for a contrast agent.
_CONTRAST = re.compile("(?:^|_)ce-")
_MASK = re.compile(r"(?:.+[ _.-])?(?:masks?|d?seg|segmentation)(?:[ _-]?[0-9]+)?", re.IGNORECASE)
# What FreeSurfer writes beside its images: the numbers of regions.
_REGIONS = re.compile(
    r"(?:aparc.*\+)?aseg(?:\..+)?|wmparc|(?:[lr]h\.)?ribbon|filled|wm", re.IGNORECASE
)
# Folders of masks in the Medical Segmentation Decathlon and nnU-Net.
_MASK_FOLDERS = frozenset(("labelstr", "labelsts", "labelsval"))
# The folder of what was computed from other files, in BIDS.
_DERIVED = "derivatives"
# nnU-Net's folders of images, in which the last four digits of a name are a channel.
_CHANNEL_FOLDERS = frozenset(("imagestr", "imagests", "imagesval"))
_CHANNEL = re.compile("(?P<base>.+)_[0-9]{4}")
_MOST_CHANNELS = 9  # more are numbers of files
_SEPARATOR = re.compile(r"[ _.-]")
_SUBJECT = re.compile("sub-[0-9A-Za-z]+")
_SUFFIX = re.compile(r"\.(nii|mgh|mgz|mat)(\.gz)?\Z", re.IGNORECASE)


class Patient(NamedTuple):
    """What the place of a volume tells of its patient.

    Attributes
    ----------
    folder : str
        The folder that the user says is the patient; ``""`` for none.
    place : str
        What identifies the patient of a file that does not name one: the subject of BIDS or
        FreeSurfer in its path, or what the names of several files have in common; ``""`` for a
        file alone.
    names : tuple of str
        What the patient or the file may be called in a list of labels.
    sequence : str
        The sequence that the name of a file ends in, such as ``"t1ce"``; ``""`` for none.
    """

    folder: str
    place: str
    names: Names
    sequence: str

    def identify(self, found: str) -> str:
        """Return what identifies the patient, given what the reader of the file found."""
        if self.folder:
            return f"folder\0{self.folder}"
        return self.place if self.place and found.startswith("file\0") else found

    def list_names(self, found: str) -> Names:
        """Return what the patient may be called, given what the reader of the file found."""
        kind, _, rest = found.partition("\0")
        own = (rest.split("\0")[0],) if kind in ("patient", "cjdata") and not self.folder else ()
        return (*own, *self.names)


def find_patients(series: Sequence[Series], *, group_level: int | None = None) -> list[Patient]:
    """Find what the places of volumes tell of their patients.

    Parameters
    ----------
    series : sequence of Series
        The volumes.
    group_level : int or None
        Which folder below the given ones is the patient, from 1; None where files tell.

    Returns
    -------
    list of Patient
        One for each volume.

    Raises
    ------
    TableError
        If no volume is in a folder of this level.
    """
    if (
        series
        and group_level is not None
        and all(len(entry.folders) < group_level for entry in series)
    ):
        deepest = max(len(entry.folders) for entry in series)
        raise TableError(
            f"no volume is in a folder of level {group_level}; the deepest is in one of level"
            f" {deepest}; pass the level of the patients' folders as group_level=N"
        )
    shared = _find_shared([entry.paths[0] for entry in series if entry.format != "dicom"])
    return [_describe(entry, shared, group_level) for entry in series]


def find_mask_volumes(series: Sequence[Series], given: Collection[Path]) -> list[Series]:
    """Find the files that are masks by their names, but for DICOM; those that were given are none.

    Parameters
    ----------
    series : sequence of Series
        The volumes.
    given : collection of Path
        Files and folders that were given.

    Returns
    -------
    list of Series
        Those in folders of masks, those named as masks in a folder with other volumes or after a
        subject of BIDS, those derived from others in a folder ``derivatives`` of BIDS, and
        FreeSurfer's volumes of regions, such as ``aseg.mgz``.
    """
    files = [entry for entry in series if entry.format != "dicom" and entry.paths[0] not in given]
    named = {entry for entry in files if _MASK.fullmatch(_stem(entry.paths[0]))}
    beside = {entry.paths[0].parent for entry in files if entry not in named}
    return [
        entry
        for entry in files
        if (entry in named and (entry.paths[0].parent in beside or is_in_bids(entry)))
        or (_find_scan_folder(entry) and _REGIONS.fullmatch(_stem(entry.paths[0])))
        or any(is_mask_folder(name) or name.lower() in _MASK_FOLDERS for name in entry.folders)
        or is_derived(entry)
    ]


def is_derived(entry: Series) -> bool:
    """Return whether a file is below the folder ``derivatives`` of BIDS."""
    return _DERIVED in entry.folders and is_in_bids(entry)


def is_in_bids(entry: Series) -> bool:
    """Return whether a file is named after its subject as in BIDS, like ``sub-01_T1w.nii.gz``."""
    return _SUBJECT.match(entry.paths[0].name) is not None


def describe_places(patients: Sequence[Patient], group_level: int | None) -> list[str]:
    """Describe how many volumes are in no folder of the level, without a name."""
    if group_level is None or not (number := sum(not patient.folder for patient in patients)):
        return []
    where = f"in no folder of level {group_level}"
    return [f"{count(number, 'volume')} {where}; the patient is what the file says"]


def _stem(path: Path) -> str:
    return _SUFFIX.sub("", path.name)


def _find_shared(paths: Sequence[Path]) -> dict[Path, Path]:
    """Find the files that belong to one patient, and what their paths have in common."""
    folders: defaultdict[Path, list[str]] = defaultdict(list)
    for path in paths:
        folders[path.parent].append(_stem(path))
    several = {folder: _find_bases(folder, stems) for folder, stems in folders.items()}
    spread = _find_spread({folder: folders[folder] for folder in folders if not several[folder]})
    shared = {}
    for path in paths:
        stem, bases = _stem(path), several[path.parent]
        ends = [found.start() for found in _SEPARATOR.finditer(stem)]
        starts = [base for end in reversed(ends) if (base := stem[:end]) in bases]
        if starts or "" in bases:
            shared[path] = path.parent / (starts[0] if starts else "")
        elif (found := _SEQUENCE.fullmatch(stem)) and found["base"] in spread[path.parent.parent]:
            shared[path] = path.parent.parent / found["base"]
    return shared


def _find_bases(folder: Path, stems: Sequence[str]) -> set[str]:
    """Find what the names of a folder begin with that go on with several sequences or channels."""
    found = Counter(match["base"] or "" for stem in stems if (match := _SEQUENCE.fullmatch(stem)))
    bases = {base for base, number in found.items() if number > 1}
    if folder.name.lower() in _CHANNEL_FOLDERS:
        found = Counter(match["base"] for stem in stems if (match := _CHANNEL.fullmatch(stem)))
        bases |= {base for base, number in found.items() if 1 < number <= _MOST_CHANNELS}
    return bases


def _find_spread(folders: Mapping[Path, Sequence[str]]) -> defaultdict[Path, set[str]]:
    """Find patients whose sequences are in folders of their own, by the folder of these, as in IXI.

    A folder counts if it has several files, all of one sequence.
    """
    places: defaultdict[Path, Counter[str]] = defaultdict(Counter)
    for folder, stems in folders.items():
        found = [_SEQUENCE.fullmatch(stem) for stem in stems]
        words = {match["word"].lower() if match else "" for match in found}
        if len(stems) > 1 and len(words) == 1:
            places[folder.parent].update(match["base"] for match in found if match)
    spread: defaultdict[Path, set[str]] = defaultdict(set)
    for place, bases in places.items():
        spread[place] = {base for base, number in bases.items() if base and number > 1}
    return spread


def _describe(entry: Series, shared: Mapping[Path, Path], group_level: int | None) -> Patient:
    path, folder = entry.paths[0], ""
    if group_level is not None and len(entry.folders) >= group_level:
        folder = entry.folders[group_level - 1]
    if entry.format == "dicom":
        return Patient(folder, "", (folder,) if folder else (), "")
    subject, stem = _find_subject(path), _stem(path)
    common = _find_scan_folder(entry) or shared.get(path)
    names: Names
    if subject:
        place, names = f"subject\0{subject}", (subject, stem, path.name)
    elif common is not None:
        place, names = f"file\0{common.absolute()}", (common.name, stem, path.name)
    else:
        place, names = "", (stem, path.name)
    return Patient(folder, place, (folder,) if folder else names, _find_sequence(stem))


def _find_subject(path: Path) -> str:
    """Find the subject of BIDS in a path; ``""`` for none."""
    found = map(_SUBJECT.match, reversed(path.absolute().parts))
    return next((match[0] for match in found if match), "")


def _find_scan_folder(entry: Series) -> Path | None:
    """Find FreeSurfer's folder of a subject, which has a folder ``mri`` of MGH files."""
    if entry.format != "mgh":
        return None
    nearest = [*entry.paths[0].absolute().parents][:2]  # mri, or mri/orig
    return next((folder.parent for folder in nearest if folder.name == "mri"), None)


def _find_sequence(stem: str) -> str:
    found = _SEQUENCE.fullmatch(stem)
    sequence = _SEQUENCES[found["word"].lower()] if found else ""
    return "t1ce" if sequence == "t1" and _CONTRAST.search(stem) else sequence
