"""Cases: the images and volumes that are given of each patient, for heads of several blocks.

Folders and files can have the names of people: what is made of them here identifies patients, and
is shown of image files alone.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from brainfeat.errors import ParameterError, TableError
from brainfeat.files import is_so
from brainfeat.prediction.inputs import take_inputs
from brainfeat.readers.held import HeldImage, list_given
from brainfeat.readers.series import Inputs, Series
from brainfeat.tables.csv_cells import cell_text
from brainfeat.tables.csv_records import read_records
from brainfeat.tables.rows import quote
from brainfeat.text import count, name_some

if TYPE_CHECKING:
    from brainfeat.readers.held import Given

# Columns of a table of what is given.
COLUMNS = ("path", "modality", "group")
# The patient of what is given alone.
ALONE = ""
_SUBJECT = re.compile("sub-[0-9A-Za-z]+")
# What ends the name of a file whose rest is the patient, such as a sequence.
_SUFFIX = re.compile(r"(?:\.(?:nii|mgh|mgz|mat)(?:\.gz)?)\Z", re.IGNORECASE)
_SEQUENCE = re.compile(
    r"[ _.-](?:t1|t1n|t1w|t1ce|t1c|t1gd|t2|t2w|t2f|flair|pd|pet|ct|adc|dwi|swi)\Z", re.IGNORECASE
)


@dataclass(frozen=True, kw_only=True)
class CasePart:
    """What is given of one block, such as a modality, of one patient or of many.

    Attributes
    ----------
    block : str
    inputs : Inputs
        Images and volumes.
    root : Path or None
        The folder whose folders are patients; None for a file or for images in memory.
    patient : str or None
        The patient, where a table says; None where folders and files do.
    masks : int
        Files that were left out as masks.
    """

    block: str
    inputs: Inputs
    root: Path | None = None
    patient: str | None = None
    masks: int = 0

    def name_image(self, image: Path | HeldImage) -> str:
        """Return the patient of an image: the table's, or the folder in the root."""
        if self.patient is not None:
            return self.patient
        if self.root is None or isinstance(image, HeldImage):
            return ALONE
        folders = image.relative_to(self.root).parts[:-1]
        return folders[0] if folders else ALONE

    def name_volume(self, series: Series, found: str) -> str:
        """Return the patient of a volume, given what the reader of its file found."""
        if self.patient is not None:
            return self.patient
        if series.folders:
            return series.folders[0]
        if self.root is None:
            return ALONE
        if series.format == "dicom":
            return found
        name = series.paths[0].name
        subject = _SUBJECT.match(name)
        return subject[0] if subject else _SEQUENCE.sub("", _SUFFIX.sub("", name))


def find_parts(
    given: "Mapping[str, Given | Iterable[Given]]", blocks: Sequence[str], *, keep_masks: bool
) -> list[CasePart]:
    """Find what is given of each block.

    Parameters
    ----------
    given : mapping of str to path-like, PIL.Image.Image, ndarray, or iterable of these
        By the name of the block: a file, a folder of one patient, or one of folders of patients.
    blocks : sequence of str
        Those of the head.
    keep_masks : bool
        As of :meth:`brainfeat.Predictor.predict`.

    Returns
    -------
    list of CasePart

    Raises
    ------
    ParameterError
        Nothing is given, or for a block that the head does not have; or a block has no images.
    """
    _check_blocks(given, blocks)
    parts = []
    for block, what in given.items():
        # Without the path, which can contain a patient's name.
        for place in list_given(what):
            if isinstance(place, Path) and not is_so(place.exists):
                raise ParameterError(
                    f"what was given for {block} does not exist; name a file or a folder"
                )
        inputs, masks = take_inputs(what, keep_masks=keep_masks)
        if not any(inputs):
            raise ParameterError(f"no images and no volumes in what was given for {block}")
        root = Path(what) if isinstance(what, str | Path) and Path(what).is_dir() else None
        parts.append(CasePart(block=block, inputs=inputs, root=root, masks=masks))
    return parts


def read_parts(source: Path, blocks: Sequence[str], *, keep_masks: bool) -> list[CasePart]:
    """Read a table of what is given: a path, a modality and a group in each row.

    Parameters
    ----------
    source : Path
        A CSV file with the columns ``path`` (relative to its folder), ``modality`` and ``group``.
    blocks : sequence of str
        Those of the head.
    keep_masks : bool
        As of :meth:`brainfeat.Predictor.predict`.

    Returns
    -------
    list of CasePart

    Raises
    ------
    TableError
        The file cannot be read, a column or a cell is missing, or a path does not exist.
    ParameterError
        A modality is not a block of the head, or a path has no images.
    """
    records = read_records(source)
    header = [cell_text(cell).strip().lower() for cell, *_ in zip(next(records, ([], 0))[0])]
    if missing := [name for name in COLUMNS if header.count(name) != 1]:
        raise TableError(
            f"{quote(source)} has no column {' and no column '.join(missing)}; expected the "
            f"columns {', '.join(COLUMNS)}"
        )
    places = [header.index(name) for name in COLUMNS]
    rows = []
    for cells, line in records:
        values = [cell_text(cells[place]).strip() if place < len(cells) else "" for place in places]
        if "" in values:
            raise TableError(
                f"{quote(source)}, line {line} has no {COLUMNS[values.index('')]}; expected one in "
                "each row"
            )
        rows.append((values, line))
    _check_blocks({modality: None for (_, modality, _), _ in rows}, blocks)
    parts = []
    for (path, modality, group), line in rows:
        place = source.parent / path
        if not place.exists():
            raise TableError(f"{quote(source)}, line {line}: the path does not exist")
        inputs, masks = take_inputs(place, keep_masks=keep_masks)
        if not any(inputs):
            raise ParameterError(f"{quote(source)}, line {line}: no images and no volumes there")
        parts.append(CasePart(block=modality, inputs=inputs, patient=group, masks=masks))
    return parts


def match_patients(found: Mapping[str, Iterable[str]]) -> dict[str, dict[str, str]]:
    """Match the patients of several blocks.

    Parameters
    ----------
    found : mapping of str to iterable of str
        The patients of each block, by what identifies them there.

    Returns
    -------
    dict of str to dict of str to str
        The patient that all blocks share, by what identifies it in each. Where each block has one
        patient alone, all are the same.

    Raises
    ------
    ParameterError
        A block shares no patient with another, though it has several.

    Examples
    --------
    >>> match_patients({"t1": ["a"], "flair": ["b"]})
    {'t1': {'a': ''}, 'flair': {'b': ''}}
    """
    known = {block: dict.fromkeys(names) for block, names in found.items() if [*names]}
    if all(len(names) == 1 for names in known.values()):
        return {block: dict.fromkeys(names, ALONE) for block, names in known.items()}
    for block, names in known.items():
        others = [other for name, other in known.items() if name != block]
        if others and not any(names.keys() & other.keys() for other in others):
            raise ParameterError(
                f"{block} shares none of its {count(len(names), 'patient')} with another modality; "
                "name the folders of a patient alike, or give a table with the columns "
                f"{', '.join(COLUMNS)}"
            )
    return {block: {name: name for name in names} for block, names in known.items()}


def check_files(parts: Iterable[CasePart]) -> None:
    """Refuse files that are given as two blocks, such as a folder that has the images of both.

    Parameters
    ----------
    parts : iterable of CasePart

    Raises
    ------
    ParameterError
        A file is in parts of two blocks.
    """
    owners: dict[Path, str] = {}
    shared: Counter[tuple[str, str]] = Counter()
    for part in parts:
        images = (image for image in part.inputs.images if not isinstance(image, HeldImage))
        for path in chain(images, *(series.paths for series in part.inputs.series)):
            owner = owners.setdefault(path.resolve(), part.block)
            if owner != part.block:
                shared[owner, part.block] += 1
    for (one, other), n in shared.most_common(1):
        raise ParameterError(
            f"{count(n, 'file')} {'is' if n == 1 else 'are'} given as {one} and as {other}; give "
            f"each modality its own, or a table with the columns {', '.join(COLUMNS)}"
        )


def _check_blocks(given: Mapping[str, object], blocks: Sequence[str]) -> None:
    if not given:
        raise ParameterError(f"nothing was given; expected images of {', '.join(blocks)}")
    if unknown := [name for name in given if name not in blocks]:
        raise ParameterError(
            f"{name_some(unknown)} is no modality of this head, which has {', '.join(blocks)}"
        )
