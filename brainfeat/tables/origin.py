"""How the images of a table were made: as image files, or as slices of volumes with a note."""

from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from brainfeat.canonical import canonical_json, parse_json
from brainfeat.errors import BrainfeatError, TableError
from brainfeat.files import atomic_write
from brainfeat.readers.volumes import SlicePolicy
from brainfeat.tables.rows import quote

FORMAT = "brainfeat-slices"
FORMAT_VERSION = 1
PATIENT_KEYS = ("random", "site")

# What a folder of slices that were cut from volumes has beside them.
SLICES_TABLE = "table.csv"
SLICES_NOTE = "slices.json"

_NOTE_LIMIT = 64_000_000  # characters


class Origin(NamedTuple):
    """How slices were cut from volumes.

    Attributes
    ----------
    policy : str
        The text of a :class:`brainfeat.SlicePolicy`.
    patient_key : {"random", "site"}
        What patients were hashed with.
    """

    policy: str
    patient_key: str


def write_note(folder: Path, origin: Origin, contents: Mapping[str, Any]) -> None:
    """Write the note of a folder of slices atomically.

    Parameters
    ----------
    folder : Path
        The folder of the slices.
    origin : Origin
        How they were cut.
    contents : mapping
        Further values for JSON, such as facts about the volumes.

    Raises
    ------
    OSError
        If the note cannot be written.
    """
    document = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        **origin._asdict(),
        **contents,
    }
    with atomic_write(folder / SLICES_NOTE) as temporary:
        temporary.write_text(canonical_json(document), encoding="ascii")


def find_origin(root: Path, paths: Iterable[str]) -> Origin | None:
    """Find how the images of a table were made.

    Parameters
    ----------
    root : Path
        The folder of the table.
    paths : iterable of str
        Paths of the images, relative to `root`.

    Returns
    -------
    Origin or None
        None where the images are image files and not slices of volumes.

    Raises
    ------
    TableError
        If the images were made in several ways, or if a note is not one that this version reads.
    BrainfeatError
        If a note cannot be read.
    """
    found: dict[PurePosixPath, Origin | None] = {}

    def look_up(folder: PurePosixPath) -> Origin | None:
        if folder not in found:
            note = _read_note(root / folder)
            has_parent = folder.parent != folder
            found[folder] = look_up(folder.parent) if note is None and has_parent else note
        return found[folder]

    origins = {look_up(PurePosixPath(path).parent) for path in paths}
    policies = {origin and origin.policy for origin in origins}
    if len(policies) > 1:
        ways = ", ".join(sorted(policy or "image files" for policy in policies))
        raise TableError(
            f"the images of the table were made in several ways ({ways}); expected one; cut all "
            "volumes with the same options, or keep the images in separate tables"
        )
    # If any group comes from a random key, groups cannot be compared: "random" sorts first.
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
        return _parse_note(text)
    except (ValueError, KeyError, TypeError) as error:
        raise TableError(
            f"{quote(path)} does not describe how the slices were made ({error}); make them again "
            "with brainfeat slices, or move it away if the images are not slices of volumes"
        ) from error


def _parse_note(text: str) -> Origin:
    note = parse_json(text)
    if note["format"] != FORMAT or note["format_version"] != FORMAT_VERSION:
        raise TableError("it has another format or version")
    if note["patient_key"] not in PATIENT_KEYS:
        raise TableError(f"its patient_key is not one of {', '.join(PATIENT_KEYS)}")
    return Origin(SlicePolicy.parse(note["policy"]).text, note["patient_key"])
