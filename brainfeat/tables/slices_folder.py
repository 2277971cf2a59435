"""The folder that slices are written to: what it has, what it may replace, how it appears."""

import os
import secrets
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from brainfeat.errors import TableError
from brainfeat.files import is_so
from brainfeat.tables.csv_rows import read_rows, write_rows
from brainfeat.tables.cutting import CutVolume
from brainfeat.tables.origin import SLICES_NOTE, SLICES_TABLE, Origin, write_note
from brainfeat.tables.rows import Row, quote


class SlicesFolder:
    """The growing folder: its slices, the rows of its table, and the facts about its volumes.

    Parameters
    ----------
    path : Path
        An empty folder.
    """

    def __init__(self, path: Path) -> None:
        self.rows: list[Row] = []
        self.facts: list[dict[str, Any]] = []
        self._path = path
        self._frames: list[str] = []

    def add(self, volume: CutVolume) -> None:
        """Write the slices of a volume as PNG files."""
        from PIL import Image

        (self._path / volume.facts["group"]).mkdir(exist_ok=True)
        for row, frame, pixels in volume.slices:
            with (self._path / row.path).open("xb") as file:
                Image.fromarray(pixels).save(file, "PNG")
            self.rows.append(row)
            self._frames.append(str(frame))
        self.facts.append(volume.facts)

    def finish(self, origin: Origin, refused: Sequence[Mapping[str, str]]) -> None:
        """Write the table and the note."""
        write_rows(self.rows, self._path / SLICES_TABLE, frame=self._frames)
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
