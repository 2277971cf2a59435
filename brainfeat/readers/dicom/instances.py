"""Which instance each slice of a volume is in, and whose: for DICOM files that refer to them.

Here alone it is read who the patient is. It gets into the files that are written on request, which
belong to the patient, and must not be shown.
"""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from brainfeat.readers.dicom.elements import read_integer
from brainfeat.readers.dicom.files import DAMAGE, open_dataset, translating
from brainfeat.readers.dicom.headers import Frame, read_header
from brainfeat.readers.dicom.stacks import find_places
from brainfeat.readers.orientation import PLANES, name_axes

# What says whose a file is.
IDENTITY = ("PatientID", "IssuerOfPatientID", "PatientName")
# What the modules Patient and General Study also require, where a value may be empty.
REQUIRED = (
    *("PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "AccessionNumber", "StudyID"),
)
_UIDS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID")
_TAGS = (
    *(*_UIDS, *IDENTITY, *REQUIRED, "SpecificCharacterSet"),
    *("Modality", "NumberOfFrames", "BurnedInAnnotation"),
)
# Zeros in front of a number are not valid, but archives know such instances by them.
_UID = re.compile(r"[0-9]+(?:\.[0-9]+)+")
# Most characters of a value, and most groups of a name (PS3.5, 6.2).
_UID_LENGTH, _LONG, _SHORT, _GROUPS = 64, 64, 16, 3
_DATE = re.compile("[0-9]{8}")
_TIME = re.compile(r"(?:[01][0-9]|2[0-3])(?:[0-5][0-9](?:(?:[0-5][0-9]|60)(?:\.[0-9]{1,6})?)?)?")
_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"


class Instance(NamedTuple):
    """What an instance says of itself, of its study and of its patient.

    Attributes
    ----------
    study, series, uid, sop_class : str
        UIDs; ``""`` for those that are not valid, and so are the elements below.
    modality : str
    n_frames : int
    identity : dict of str to str
        The elements of `IDENTITY`.
    required : dict of str to str
        The elements of `REQUIRED`.
    invalid : tuple of str
        Keywords of the elements that are not valid, UIDs first.
    may_show_name : bool
        Whether it declares text in its pixels, or is a secondary capture.
    """

    study: str
    series: str
    uid: str
    sop_class: str
    modality: str
    n_frames: int
    identity: dict[str, str]
    required: dict[str, str]
    invalid: tuple[str, ...]
    may_show_name: bool


class Place(NamedTuple):
    """Where a slice is: its instance, and the frame from 1 where that has several."""

    instance: Instance
    frame: int | None


class Places(NamedTuple):
    """The instances of a volume, and where its slices are.

    Attributes
    ----------
    instances : tuple of Instance
    slices : tuple of Place
        Where each slice is, in their order; empty where one instance holds all of them, or where
        slices are cut across the instances.
    is_mosaic : bool
        Whether one instance of one frame holds all slices.
    """

    instances: tuple[Instance, ...]
    slices: tuple[Place, ...]
    is_mosaic: bool

    def find(self, number: int) -> Place | None:
        """Return where a slice is, by its number from 1; None for one across the instances."""
        if self.is_mosaic:
            return Place(self.instances[0], None)
        return self.slices[number - 1] if self.slices else None


def read_instance(path: Path, *, name: str) -> Instance:
    """Read what an instance says of itself, of its study and of its patient.

    Parameters
    ----------
    path : Path
    name : str
        Name of the volume in error messages.

    Returns
    -------
    Instance

    Raises
    ------
    ImageReadError
        If the file cannot be read.
    MissingDependencyError
        If pydicom is not installed.
    """
    with translating(name):
        dataset = open_dataset(path, name, _TAGS, pixels=False)
        read = {keyword: _read_text(dataset, keyword) for keyword in _CHECKS}
        invalid = [keyword for keyword, text in read.items() if not _is_valid(keyword, text)]
        found = {key: "" if key in invalid else text or "" for key, text in read.items()}
        study, series, uid, sop_class = (found[keyword] for keyword in _UIDS)
        return Instance(
            study=study,
            series=series,
            uid=uid,
            sop_class=sop_class,
            modality=str(dataset.get("Modality") or ""),
            n_frames=read_integer(dataset, "NumberOfFrames", 1),
            identity={keyword: found[keyword] for keyword in IDENTITY},
            required={keyword: found[keyword] for keyword in REQUIRED},
            invalid=tuple(invalid),
            may_show_name=dataset.get("BurnedInAnnotation") == "YES"
            or sop_class == _CAPTURE
            or sop_class.startswith(f"{_CAPTURE}."),
        )


def locate_slices(
    paths: Sequence[Path],
    *,
    name: str,
    frames: Sequence[int] | None = None,
    orientation: str = "auto",
) -> Places:
    """Find the instance of each slice of a volume, as `read_volume` numbers them.

    Parameters
    ----------
    paths : sequence of Path
    name : str
    frames : sequence of int or None
        As in :func:`brainfeat.readers.dicom.read_series`.
    orientation : {"auto", "native", "axial"}
        As in :class:`brainfeat.SlicePolicy`.

    Returns
    -------
    Places

    Raises
    ------
    ImageReadError
        If a file cannot be read.
    MissingDependencyError
        If pydicom is not installed.
    """
    instances: dict[str, Instance] = {}
    found: list[tuple[Frame, Place]] = []
    for path in paths:
        instance = read_instance(path, name=name)
        if instance.uid in instances:
            continue
        instances[instance.uid] = instance
        header = read_header(path, name=name)
        if header.is_mosaic:
            return Places((instance,), (), is_mosaic=True)
        chosen = range(len(header.frames)) if frames is None else frames
        several = instance.n_frames > 1
        found += [
            (header.frames[index], Place(instance, index + 1 if several else None))
            for index in chosen
        ]
    order = np.argsort(find_places([frame for frame, _ in found]), kind="stable")
    slices = _turn([found[place] for place in order], orientation)
    return Places(tuple(instances.values()), tuple(slices), is_mosaic=False)


def _turn(found: list[tuple[Frame, Place]], orientation: str) -> Iterable[Place]:
    """Order slices as in an orientation; none where they are cut across the instances."""
    slices = [place for _, place in found]
    turned = found[0][0].orientation
    axes = name_axes(turned[:3], turned[3:]) if orientation == "axial" and turned else ""
    if not axes:
        return slices
    if axes[0] not in "SI":
        return ()
    return slices if axes[0] == PLANES["axial"][0] else reversed(slices)


def _read_text(dataset: Any, keyword: str) -> str | None:
    """Read an element of one text; ``""`` where there is none, None where it is not readable."""
    from pydicom.charset import python_encoding
    from pydicom.valuerep import PersonName

    try:
        value = dataset.get(keyword)
        if value is None or value == "":
            return ""
        text = str(value).strip(" \0")
    except DAMAGE:
        return None
    is_text = isinstance(value, str | PersonName) and "\ufffd" not in text
    if not is_text or any(unicodedata.category(letter) == "Cc" for letter in text):
        return None
    if not text.isascii():
        # Without a known character set, pydicom takes bytes for Western European letters.
        stated = dataset.get("SpecificCharacterSet") or []
        several = [stated] if isinstance(stated, str) else list(stated)
        known = [character_set for character_set in several if character_set]
        if not known or any(character_set not in python_encoding for character_set in known):
            return None
    return _trim_name(text) if isinstance(value, PersonName) else text


def _trim_name(text: str) -> str:
    """Leave out empty components at the ends, which say nothing (PS3.5, 6.2.1)."""
    return "=".join(group.rstrip("^ ") for group in text.split("=")).rstrip("=")


def _is_valid(keyword: str, text: str | None) -> bool:
    return text is not None and "\\" not in text and _CHECKS[keyword](text)


def _is_uid(text: str) -> bool:
    return len(text) <= _UID_LENGTH and _UID.fullmatch(text) is not None


def _is_name(text: str) -> bool:
    groups = text.split("=")
    return len(groups) <= _GROUPS and all(map(_is_long, groups))


def _is_long(text: str) -> bool:
    return len(text) <= _LONG


def _is_short(text: str) -> bool:
    return len(text) <= _SHORT


def _is_sex(text: str) -> bool:
    return text in ("", "M", "F", "O")


def _is_time(text: str) -> bool:
    return not text or _TIME.fullmatch(text) is not None


def _is_date(text: str) -> bool:
    if not text:
        return True
    try:
        return _DATE.fullmatch(text) is not None and bool(date.fromisoformat(text))
    except ValueError:
        return False


# UIDs may not be empty; all others may.
_CHECKS = {
    **dict.fromkeys(_UIDS, _is_uid),
    **dict.fromkeys(("PatientID", "IssuerOfPatientID"), _is_long),
    **dict.fromkeys(("StudyID", "AccessionNumber"), _is_short),
    **dict.fromkeys(("PatientBirthDate", "StudyDate"), _is_date),
    "PatientName": _is_name,
    "PatientSex": _is_sex,
    "StudyTime": _is_time,
}
