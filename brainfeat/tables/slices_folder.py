"""The folder that slices are written to: what it may replace, and how it appears in one step."""

import os
import secrets
import shutil
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from brainfeat.errors import TableError
from brainfeat.files import is_so
from brainfeat.tables.csv_rows import read_rows
from brainfeat.tables.origin import SLICES_NOTE, SLICES_TABLE
from brainfeat.tables.rows import quote


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
