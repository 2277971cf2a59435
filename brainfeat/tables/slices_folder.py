"""The folder that slices are written to: what it has, what it may replace, how it appears."""

import os
import secrets
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from brainfeat.errors import ImageReadError, TableError
from brainfeat.files import is_so
from brainfeat.readers.series import Series
from brainfeat.readers.volumes import SlicePolicy, Volume, cut_slices
from brainfeat.tables.csv_rows import read_rows, write_rows
from brainfeat.tables.label_matching import Names, match_labels
from brainfeat.tables.labels import Labels
from brainfeat.tables.origin import SLICES_NOTE, SLICES_TABLE, Origin, write_note
from brainfeat.tables.pseudonyms import hash_identity
from brainfeat.tables.rows import Row, quote
from brainfeat.tables.volume_checks import VolumeNotes
from brainfeat.tables.volume_patients import Patient


class SlicesFolder:
    """The growing folder: its slices, the rows of its table, and the facts about its volumes.

    Parameters
    ----------
    path : Path
        An empty folder.
    policy : SlicePolicy
        Which slices are cut, and how.
    patient_key : bytes or None
        Key that patients are hashed with; None takes a random one.
    """

    def __init__(self, path: Path, policy: SlicePolicy, patient_key: bytes | None) -> None:
        self.rows: list[Row] = []
        self.facts: list[dict[str, Any]] = []
        self.patient_key = "random" if patient_key is None else "site"
        self._path, self._policy = path, policy
        self._key = patient_key or secrets.token_bytes(32)
        self._notes = VolumeNotes()
        self._frames: list[str] = []
        self._names: list[Names] = []

    def cut(self, volume: Volume, series: Series, patient: Patient, *, label: str) -> None:
        """Write the slices of a volume."""
        from PIL import Image

        group = hash_identity(self._key, "patient", patient.identify(volume.patient))
        source = patient.sequence or volume.modality
        names = patient.list_names(volume.patient)
        digest = hash_identity(self._key, "volume", series.key)
        (self._path / group).mkdir(exist_ok=True)
        is_even = True
        for frame, pixels in cut_slices(volume, self._policy):
            is_even = is_even and bool(pixels.min() == pixels.max())
            path = f"{group}/{digest}-{frame:04}.png"
            with (self._path / path).open("xb") as file:
                Image.fromarray(pixels).save(file, "PNG")
            self._frames.append(str(frame))
            self.rows.append(Row(path=path, label=label, group=group, source=source))
            self._names.append(names)
        self._notes.add(volume, name=series.name, is_even=is_even)
        self.facts.append({"group": group, "volume": digest, "modality": source, **volume.facts})

    def check(self, refused: Sequence[Mapping[str, str]]) -> None:
        """Reject that there are no slices, with the first reason.

        Raises
        ------
        ImageReadError
            If no volume could be cut.
        """
        if not self.rows:
            first = refused[0]
            raise ImageReadError(
                f"none of {len(refused)} can be read; {first['volume']}", first["reason"]
            )

    def assign(self, labels: Labels | None) -> list[str]:
        """Give the slices the labels of a list, if any, and describe what does not match."""
        if labels is None:
            return []
        matching = match_labels(labels, self._names, noun="patient", named=False)
        self.rows = [
            row._replace(label=label or row.label)
            for row, label in zip(self.rows, matching.classes, strict=True)
        ]
        return [*matching.describe(named=False)]

    def describe(self) -> list[str]:
        """Describe what of the volumes is probably a mistake, a sentence each."""
        return [*self._notes.describe()]

    def finish(self, refused: Sequence[Mapping[str, str]]) -> None:
        """Write the table and the note."""
        write_rows(self.rows, self._path / SLICES_TABLE, frame=self._frames)
        origin = Origin(self._policy.text, self.patient_key)
        write_note(self._path, origin, {"volumes": self.facts, "refused": [*refused]})


def check_folder(
    output: Path, *, overwrite: bool, inputs: Sequence[str | os.PathLike[str]]
) -> None:
    """Reject a folder that slices must not be written to.

    Parameters
    ----------
    output : Path
        The folder.
    overwrite : bool
        Whether a folder of slices may be replaced.
    inputs : sequence of path-like
        What the run reads.

    Raises
    ------
    TableError
        If the folder exists and may not be replaced, or cannot be made.
    """
    if not is_so(output.parent.is_dir):
        raise TableError(f"{quote(output.parent)} is not a folder; make it first")
    if not (is_so(output.exists) or output.is_symlink()):
        return
    if not overwrite:
        raise TableError(f"{quote(output)} exists; name another folder, or pass overwrite=True")
    if output.is_symlink() or not is_so((output / SLICES_NOTE).is_file):
        raise TableError(
            f"{quote(output)} is not a folder of slices that brainfeat made, and is not replaced; "
            "name another folder"
        )
    folder = output.resolve()
    if any(folder in (path := Path(given).resolve(), *path.parents) for given in inputs):
        raise TableError(f"{quote(output)} has volumes that this run reads; name another folder")
    if others := sorted(_list_others(output)):
        raise TableError(
            f"{quote(output)} has other files than slices, such as {quote(others[0])}, and is not "
            "replaced; name another folder"
        )


def _list_others(folder: Path) -> Iterator[str]:
    """Yield the files of a folder of slices that brainfeat did not write into it."""
    known = {SLICES_NOTE, SLICES_TABLE}
    with suppress(TableError):  # without rows, every image is another file
        known |= {row.path for row in read_rows(folder / SLICES_TABLE)}
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        if not path.is_dir() and name not in known:
            yield name


def put_in_place(temporary: Path, output: Path) -> None:
    """Rename a finished folder; an existing one is moved away first, and removed afterwards."""
    if not output.exists():
        temporary.replace(output)
        return
    old = output.parent / f".{secrets.token_hex(8)}.old"
    output.replace(old)
    temporary.replace(output)
    shutil.rmtree(old)
