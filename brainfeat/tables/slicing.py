"""Volumes to a folder of grey slices with a table, from which stage one goes on; nobody is named.

The folder holds what a list allows: pixels, numbers, and words of the standard. Patients are told
apart by an HMAC of what names them (RFC 2104, with SHA-256), under a key that the site keeps.
"""

import hashlib
import hmac
import os
import secrets
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from brainfeat.canonical import canonical_json, parse_json
from brainfeat.errors import BrainfeatError, ImageReadError, ParameterError, TableError
from brainfeat.files import atomic_write, is_so
from brainfeat.readers.series import Series, detect_format, find_series, read_volume
from brainfeat.readers.volumes import SlicePolicy, Volume, cut_slices
from brainfeat.tables.folders import SLICES_NOTE, SLICES_TABLE
from brainfeat.tables.rows import Row, quote
from brainfeat.tables.table import write_rows

FORMAT = "brainfeat-slices"
FORMAT_VERSION = 1
LEAST_KEY = 16
PATIENT_KEYS = ("random", "site")

_KEY_LIMIT = 65_536
_NOTE_LIMIT = 64_000_000
# Hexadecimal digits of a patient and of a volume: 64 bits part 100,000 patients with a chance of
# error below one in a billion.
_DIGITS = 16


@dataclass(frozen=True, kw_only=True)
class Slicing:
    """What one run made.

    Attributes
    ----------
    output : Path
        The folder.
    volumes, patients, slices : int
    refused : tuple of dict
        ``volume`` and ``reason`` of each that could not be read.
    patient_key : {"site", "random"}
        Whether a patient has the same group in another run.
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
        """Return plain values, ready for JSON."""
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
    """Cut DICOM and NIfTI volumes into PNG slices, with a table of them.

    Parameters
    ----------
    paths : iterable of path-like
        Files, and folders of them.
    output : path-like
        A folder that is made, whole or not at all: the slices, ``table.csv``, and ``slices.json``,
        which says how they were made.
    policy : SlicePolicy or None
        Which slices, and how they are shown; None takes all, in their own window.
    patient_key : bytes or None
        What patients are hashed with; None takes a random key that is then forgotten.
    label : str
        The class of all of them.
    class_folders : bool
        Whether the first folder below each path is the class. It is then shown.
    allow_burned_in : bool
        Whether images that may have a name in their pixels are taken.
    overwrite : bool
        Whether a folder that an earlier run made may be replaced.
    progress : callable or None
        Called with the number of volumes done and of all.

    Returns
    -------
    Slicing

    Raises
    ------
    ImageReadError
        There is no volume, or none can be read.
    ParameterError
        The key is too short, or there are two kinds of labels.
    TableError
        The folder exists or cannot be written.
    MissingDependencyError
        What reads a format is not installed.
    """
    output = Path(output)
    policy = policy or SlicePolicy()
    if label and class_folders:
        raise ParameterError("labels come from one place: give a label, or take the class folders")
    check_key(patient_key)
    _check_output(output, overwrite=overwrite)
    series, refused = _find(paths)
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
            volumes=len(cutter.notes),
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
        raise TableError(f"{quote(output)} cannot be written: {error.strerror}.") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return slicing


def check_key(key: bytes | None) -> None:
    """Refuse a key that could be guessed.

    Raises
    ------
    ParameterError
        It is shorter than `LEAST_KEY` bytes.
    """
    if key is not None and len(key) < LEAST_KEY:
        raise ParameterError(
            f"a patient key of {len(key)} bytes is too short; expected at least {LEAST_KEY} random "
            "ones, such as openssl rand -hex 32 gives"
        )


def read_patient_key(path: str | os.PathLike[str]) -> bytes:
    """Read the key that a site keeps: a file's bytes, without white space at their ends.

    Parameters
    ----------
    path : path-like

    Returns
    -------
    bytes
        At least `LEAST_KEY`.

    Raises
    ------
    ParameterError
        The file cannot be read, or is too short or too long.
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


class Origin(NamedTuple):
    """How images were made of volumes: the text of a policy, and what patients were hashed with."""

    policy: str
    patient_key: str


def find_origin(root: Path, paths: Iterable[str]) -> Origin | None:
    """Find how the images of a table were made of volumes.

    Parameters
    ----------
    root : Path
        The folder of the table.
    paths : iterable of str
        Of the images, below it.

    Returns
    -------
    Origin or None
        None where they are image files.

    Raises
    ------
    TableError
        They were made in several ways, or a note is none that this version wrote.
    BrainfeatError
        A note cannot be read.
    """
    found: dict[PurePosixPath, Origin | None] = {}

    def look(folder: PurePosixPath) -> Origin | None:
        if folder not in found:
            note = _read_note(root / folder)
            up = folder.parent != folder
            found[folder] = look(folder.parent) if note is None and up else note
        return found[folder]

    origins = {look(PurePosixPath(path).parent) for path in paths}
    policies = {origin and origin.policy for origin in origins}
    if len(policies) > 1:
        ways = ", ".join(sorted(policy or "image files" for policy in policies))
        raise TableError(
            f"the images of one table must be made in one way; these are of {ways}: cut all of "
            "them with the same options, or keep them in tables of their own"
        )
    # Groups of which some are of a random key cannot be compared: "random" sorts first.
    return min((origin for origin in origins if origin is not None), default=None)


def _read_note(folder: Path) -> Origin | None:
    path = folder / SLICES_NOTE
    try:
        with path.open(encoding="ascii") as file:
            text = file.read(_NOTE_LIMIT)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except UnicodeDecodeError as error:
        raise TableError(f"{quote(path)} is not ASCII text, as a note on slices is") from error
    except OSError as error:
        raise BrainfeatError(f"{quote(path)} cannot be read: {error.strerror}") from error
    try:
        note = parse_json(text)
        if note["format"] != FORMAT or note["format_version"] != FORMAT_VERSION:
            raise ValueError("it is of another format or version")
        if note["patient_key"] not in PATIENT_KEYS:
            raise ValueError(f"its patient_key is none of {', '.join(PATIENT_KEYS)}")
        return Origin(SlicePolicy.parse(note["policy"]).text, note["patient_key"])
    except (ValueError, KeyError, TypeError) as error:
        raise TableError(
            f"{quote(path)} does not say how the slices were made ({error}); make them again with "
            "brainfeat slices, or move it away if they are no slices of volumes"
        ) from error


def _find(
    paths: Iterable[str | os.PathLike[str]],
) -> tuple[list[Series], list[dict[str, str]]]:
    """Find the volumes, and the files that are none though they should be."""
    given = [Path(path) for path in paths]
    for number, path in enumerate(given, 1):
        if not is_so(path.is_dir) and detect_format(path) is None:
            wrong = "is neither DICOM nor NIfTI" if is_so(path.exists) else "does not exist"
            raise ImageReadError(f"argument {number}", wrong)
    series, unreadable = find_series(given)
    if not series and not unreadable:
        raise ImageReadError("the input", "has no DICOM and no NIfTI file")
    return series, [{"volume": entry.name, "reason": entry.reason} for entry in unreadable]


class _Cutter:
    """The folder as it grows."""

    def __init__(self, folder: Path, policy: SlicePolicy, key: bytes) -> None:
        self.rows: list[Row] = []
        self.notes: list[dict[str, Any]] = []
        self._frames: list[str] = []
        self._folder, self._policy, self._key = folder, policy, key

    def cut(self, volume: Volume, series: Series, *, label: str) -> None:
        """Write the slices of a volume."""
        from PIL import Image

        group = self._hash("patient", volume.patient)
        called = self._hash("volume", series.key)
        (self._folder / group).mkdir(exist_ok=True)
        for frame, pixels in cut_slices(volume, self._policy):
            path = f"{group}/{called}-{frame:04}.png"
            with (self._folder / path).open("xb") as file:
                Image.fromarray(pixels).save(file, "PNG")
            self._frames.append(str(frame))
            self.rows.append(Row(path=path, label=label, group=group, source=volume.modality))
        self.notes.append(
            {"group": group, "volume": called, "modality": volume.modality, **volume.facts}
        )

    def finish(self, slicing: Slicing) -> None:
        """Write the table, and how the slices were made."""
        if not self.rows:
            first = slicing.refused[0]
            raise ImageReadError(
                f"none of {len(slicing.refused)} can be read; {first['volume']}", first["reason"]
            )
        write_rows(self.rows, self._folder / SLICES_TABLE, frame=self._frames)
        document = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "policy": self._policy.text,
            "patient_key": slicing.patient_key,
            "volumes": self.notes,
            "refused": list(slicing.refused),
        }
        with atomic_write(self._folder / SLICES_NOTE) as temporary:
            temporary.write_text(canonical_json(document), encoding="ascii")

    def _hash(self, kind: str, text: str) -> str:
        words = f"{kind}\0{text}".encode("utf-8", "surrogateescape")
        return hmac.new(self._key, words, hashlib.sha256).hexdigest()[:_DIGITS]


def _check_output(output: Path, *, overwrite: bool) -> None:
    if not output.parent.is_dir():
        raise TableError(f"{quote(output.parent)} is no folder; make it first.")
    if not (output.exists() or output.is_symlink()):
        return
    if not overwrite:
        raise TableError(f"{quote(output)} exists; name another folder, or overwrite it.")
    if output.is_symlink() or not (output / SLICES_NOTE).is_file():
        raise TableError(
            f"{quote(output)} is no folder of slices that brainfeat made, and is not replaced; "
            "name another one."
        )


def _put_in_place(temporary: Path, output: Path) -> None:
    """Rename a finished folder; one that is there is moved away first, and then removed."""
    if not output.exists():
        temporary.replace(output)
        return
    old = output.parent / f".{secrets.token_hex(8)}.old"
    output.replace(old)
    temporary.replace(output)
    shutil.rmtree(old)
