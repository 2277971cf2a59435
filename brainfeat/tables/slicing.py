"""Volumes become a folder of grey slices with a table for stage one, in which nobody is named.

The folder has only what a list allows: pixels, numbers, and terms of the standard. Patients are
distinguished by an HMAC of their identifiers (RFC 2104, with SHA-256) under a key that the site
keeps.
"""

import hashlib
import hmac
import os
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from brainfeat.errors import ImageReadError, ParameterError, TableError
from brainfeat.files import is_so
from brainfeat.readers.archives import find_archive
from brainfeat.readers.held import list_paths
from brainfeat.readers.series import Series, find_inputs, read_volume
from brainfeat.readers.volumes import SlicePolicy, Volume, cut_slices
from brainfeat.tables.csv_rows import read_rows, write_rows
from brainfeat.tables.origin import SLICES_NOTE, SLICES_TABLE, Origin, write_note
from brainfeat.tables.rows import Row, quote

LEAST_KEY = 16

_KEY_LIMIT = 65_536
# Hexadecimal digits that identify a patient or a volume: with 64 bits, the probability that two of
# 100,000 patients get the same ones is below one in a billion.
_DIGITS = 16


@dataclass(frozen=True, kw_only=True)
class Slicing:
    """The result of one run of `write_slices`.

    Attributes
    ----------
    output : Path
        The folder.
    volumes, patients, slices : int
        How many of each the folder has.
    refused : tuple of dict
        ``volume`` and ``reason`` of each volume that could not be read.
    patient_key : {"site", "random"}
        Whether patients were hashed with the key of the site, and have the same groups in other
        runs with that key.
    """

    output: Path
    volumes: int
    patients: int
    slices: int
    refused: tuple[dict[str, str], ...]
    patient_key: str

    @property
    def table(self) -> Path:
        """The CSV file that stage one reads."""
        return self.output / SLICES_TABLE

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain values for JSON."""
        return {
            "output": str(self.output),
            "table": str(self.table),
            "volumes": self.volumes,
            "patients": self.patients,
            "slices": self.slices,
            "refused": list(self.refused),
            "patient_key": self.patient_key,
        }


def write_slices(
    paths: Iterable[str | os.PathLike[str]],
    output: str | os.PathLike[str],
    *,
    policy: SlicePolicy | None = None,
    patient_key: bytes | None = None,
    label: str = "",
    class_folders: bool = False,
    allow_burned_in: bool = False,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Slicing:
    """Cut DICOM and NIfTI volumes into PNG slices, with a table of the slices.

    Parameters
    ----------
    paths : path-like, or iterable of path-like
        DICOM and NIfTI files, and folders of them.
    output : path-like
        The folder to make. It has the slices, ``table.csv``, and ``slices.json``, which describes
        how the slices were made. It appears in one step when it is complete.
    policy : SlicePolicy or None
        Which slices are cut and how their values become grey; None takes all slices in their own
        window.
    patient_key : bytes or None
        Key that patients are hashed with; None takes a random key, which is not kept.
    label : str, default=""
        Class of all volumes.
    class_folders : bool, default=False
        Whether the first folder below each path is the class. Its name is then shown.
    allow_burned_in : bool, default=False
        Whether images whose pixels may show a name are accepted.
    overwrite : bool, default=False
        Whether a folder that an earlier run made may be replaced.
    progress : callable or None
        Called with the number of finished volumes and their total.

    Returns
    -------
    Slicing
        Where the slices are, and how many.

    Raises
    ------
    ImageReadError
        If there is no volume, or none can be read.
    ParameterError
        If the key is too short, or both kinds of labels are given.
    TableError
        If the folder exists or cannot be written.
    MissingDependencyError
        If the library that reads a format is not installed.

    Examples
    --------
    The middle slices of all series below a folder, as a table for stage one::

        slicing = write_slices("series", "slices", policy=SlicePolicy(slices="middle"))
        table = read_table(slicing.output)
    """
    output, given = Path(output), list_paths(paths)
    policy = policy or SlicePolicy()
    if label and class_folders:
        raise ParameterError("both label and class_folders are given; expected one of them")
    check_key(patient_key)
    _check_output(output, overwrite=overwrite, inputs=given)
    series, refused = _find(given)
    temporary = output.parent / f".{secrets.token_hex(8)}.tmp"
    try:
        temporary.mkdir()
        cutter = _Cutter(temporary, policy, patient_key or secrets.token_bytes(32))
        for place, entry in enumerate(series):
            try:
                volume = read_volume(entry, allow_burned_in=allow_burned_in)
            except ImageReadError as error:
                refused.append({"volume": entry.name, "reason": error.reason})
            else:
                cutter.cut(volume, entry, label=entry.folder if class_folders else label)
            if progress is not None:
                progress(place + 1, len(series))
        slicing = Slicing(
            output=output,
            volumes=len(cutter.facts),
            patients=len({row.group for row in cutter.rows}),
            slices=len(cutter.rows),
            refused=tuple(refused),
            patient_key="random" if patient_key is None else "site",
        )
        cutter.finish(slicing)
        _put_in_place(temporary, output)
    except OSError as error:
        if isinstance(error, ImageReadError):
            raise
        raise TableError(f"{quote(output)} cannot be written: {error.strerror}") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return slicing


def check_key(key: bytes | None) -> None:
    """Reject a key that could be guessed.

    Raises
    ------
    ParameterError
        If the key is shorter than `LEAST_KEY` bytes.
    """
    if key is not None and len(key) < LEAST_KEY:
        raise ParameterError(
            f"a patient key of {len(key)} bytes is too short; expected at least {LEAST_KEY} random "
            "bytes, such as those of openssl rand -hex 32"
        )


def read_patient_key(path: str | os.PathLike[str]) -> bytes:
    r"""Read the key of a site: the bytes of a file, without white space at either end.

    Parameters
    ----------
    path : path-like
        The file.

    Returns
    -------
    bytes
        At least `LEAST_KEY` bytes.

    Raises
    ------
    ParameterError
        If the file cannot be read, is too short or too long.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder, "key")
    ...     _ = path.write_text("0123456789abcdef\n", encoding="ascii")
    ...     read_patient_key(path)
    b'0123456789abcdef'
    """
    try:
        with Path(path).open("rb") as file:
            key = file.read(_KEY_LIMIT + 1)
    except OSError as error:
        raise ParameterError(
            f"the patient key {quote(path)} cannot be read: {error.strerror}"
        ) from error
    if len(key) > _KEY_LIMIT:
        raise ParameterError(f"the patient key {quote(path)} is longer than {_KEY_LIMIT:,} bytes")
    key = key.strip()
    check_key(key)
    return key


def _find(given: list[Path]) -> tuple[list[Series], list[dict[str, str]]]:
    """Find the volumes, and the reasons for files and folders that cannot be read."""
    images, series, unreadable = find_inputs(given)
    named = {*given} & {*images}
    if named:
        number, path = next((n, path) for n, path in enumerate(given, 1) if path in named)
        if kind := find_archive(path):
            raise ImageReadError(f"argument {number}", f"is an archive ({kind}); unpack it first")
        wrong = "is neither DICOM nor NIfTI" if is_so(path.exists) else "does not exist"
        raise ImageReadError(f"argument {number}", wrong)
    if not series and not unreadable:
        raise ImageReadError("the input", "has no DICOM and no NIfTI file")
    return series, [{"volume": entry.name, "reason": entry.reason} for entry in unreadable]


class _Cutter:
    """The growing folder: its slices, the rows of its table, and the facts about its volumes."""

    def __init__(self, folder: Path, policy: SlicePolicy, key: bytes) -> None:
        self.rows: list[Row] = []
        self.facts: list[dict[str, Any]] = []
        self._frames: list[str] = []
        self._folder, self._policy, self._key = folder, policy, key

    def cut(self, volume: Volume, series: Series, *, label: str) -> None:
        """Write the slices of a volume."""
        from PIL import Image

        group = self._hash("patient", volume.patient)
        digest = self._hash("volume", series.key)
        (self._folder / group).mkdir(exist_ok=True)
        for frame, pixels in cut_slices(volume, self._policy):
            path = f"{group}/{digest}-{frame:04}.png"
            with (self._folder / path).open("xb") as file:
                Image.fromarray(pixels).save(file, "PNG")
            self._frames.append(str(frame))
            self.rows.append(Row(path=path, label=label, group=group, source=volume.modality))
        self.facts.append(
            {"group": group, "volume": digest, "modality": volume.modality, **volume.facts}
        )

    def finish(self, slicing: Slicing) -> None:
        """Write the table and the note."""
        if not self.rows:
            first = slicing.refused[0]
            raise ImageReadError(
                f"none of {len(slicing.refused)} can be read; {first['volume']}", first["reason"]
            )
        write_rows(self.rows, self._folder / SLICES_TABLE, frame=self._frames)
        origin = Origin(self._policy.text, slicing.patient_key)
        contents = {"volumes": self.facts, "refused": list(slicing.refused)}
        write_note(self._folder, origin, contents)

    def _hash(self, kind: str, text: str) -> str:
        words = f"{kind}\0{text}".encode("utf-8", "surrogateescape")
        return hmac.new(self._key, words, hashlib.sha256).hexdigest()[:_DIGITS]


def _check_output(
    output: Path, *, overwrite: bool, inputs: Sequence[str | os.PathLike[str]]
) -> None:
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


def _put_in_place(temporary: Path, output: Path) -> None:
    """Rename a finished folder; an existing one is moved away first, and removed afterwards."""
    if not output.exists():
        temporary.replace(output)
        return
    old = output.parent / f".{secrets.token_hex(8)}.old"
    output.replace(old)
    temporary.replace(output)
    shutil.rmtree(old)
