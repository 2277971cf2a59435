"""One row of a table of images: its columns, and which texts are allowed in them."""

import re
import unicodedata
from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import NamedTuple

from brainfeat.errors import TableError

Parts = tuple[str, ...]  # parts of a path below the folder of a table

SPLITS = ("train", "val", "test")

SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
COLUMNS = ("path", "label", "split", "group", "source", "origin")
# What the origin of an image can be, beside nothing: a program made it.
GENERATED = "generated"
_TEXT_LIMIT = {"path": 4096, "label": 1024, "group": 1024, "source": 1024}  # bytes of UTF-8
_QUOTE_LIMIT = 200  # characters of a name in a message
_SUFFIX = re.compile(r"(?<=.)(\.nii)?\.\w{1,10}\Z")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


class Row(NamedTuple):
    """What is known of one image; ``""`` where something is unknown."""

    path: str
    label: str = ""
    split: str = ""
    group: str = ""
    source: str = ""
    origin: str = ""


class LeftOut(NamedTuple):
    """A kind of files or folders that a table leaves out.

    Attributes
    ----------
    reason : str
        Why they are left out.
    folder : str
        The class folder that they are in, after its split folder if it has one; ``""`` for none.
    suffix : str
        What their names end in, in lower case with the dot; ``""`` where it does not matter.
    """

    reason: str
    folder: str = ""
    suffix: str = ""


def suffix_of(name: str) -> str:
    """Return the suffix of a file name in lower case; ``""`` where it has none of usual length.

    Examples
    --------
    >>> suffix_of("1.TIF"), suffix_of("scan.nii.gz"), suffix_of("Thumbs"), suffix_of("a. b c")
    ('.tif', '.nii.gz', '', '')
    """
    found = _SUFFIX.search(name.lower())
    return found[0] if found else ""


def quote(name: object) -> str:
    r"""Quote a name on one line of bounded length, whatever it contains.

    Examples
    --------
    >>> print(quote("a\nb.png"))
    'a\nb.png'
    """
    quoted = repr(str(name))
    return quoted if len(quoted) <= _QUOTE_LIMIT + 2 else f"{quoted[:_QUOTE_LIMIT]}…{quoted[0]}"


def text_trouble(text: str, column: str) -> str | None:
    """Return why a text cannot be in a column of a table, or None."""
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        return "is not UTF-8"
    if _CONTROL.search(text):
        return "contains a control character"
    if size > _TEXT_LIMIT[column]:
        return f"is longer than {_TEXT_LIMIT[column]:,} bytes"
    return None


def origin_trouble(row: Row) -> str | None:
    """Return why a row cannot have its origin, or None.

    Examples
    --------
    >>> origin_trouble(Row("1.png", split="test", origin="generated"))
    "is in the split 'test'; expected train, as no head is measured on a generated image"
    >>> origin_trouble(Row("1.png", split="test"))
    """
    if row.origin not in ("", GENERATED):
        return (
            f"has the origin {quote(row.origin)}; expected {GENERATED} for an image that a program"
            " made, or nothing; rename the column if it means something else"
        )
    if row.origin and row.split in ("val", "test"):
        return (
            f"is in the split {quote(row.split)}; expected train, as no head is measured on a"
            " generated image"
        )
    if row.origin and row.group:
        return f"has the group {quote(row.group)}; expected none, as a generated image is of no patient"
    return None


def path_trouble(path: str) -> str | None:
    """Return why a path cannot be in a table, or None."""
    pure = PurePosixPath(path)
    if pure.is_absolute():
        return "is absolute; paths must be relative to the table's folder"
    if ".." in pure.parts:
        return "leads out of its folder by '..'; paths must stay below the table's folder"
    if not pure.parts:
        return "names no file"
    return text_trouble(path, "path")


def form_trouble(path: str) -> str | None:
    """Return the plainer form of a path that has one, or None."""
    plain = str(PurePosixPath(path))
    return None if path == plain else f"has a plainer form; write {quote(plain)}"


def csv_path_trouble(path: str) -> str | None:
    """Return why a path cannot be in a CSV file, or None."""
    if "\\" in path or re.match(r"[A-Za-z]:", path):
        return (
            "has a backslash or a drive; write it relative to the folder, with / between its parts"
        )
    return path_trouble(path)


def check_appearance(class_names: Iterable[str]) -> None:
    """Reject class names that look alike or show nothing.

    Parameters
    ----------
    class_names : iterable of str
        The names.

    Raises
    ------
    TableError
        If a reader could not distinguish two names, or could not see one.
    """
    seen: dict[str, str] = {}
    for name in class_names:
        visible = "".join(c for c in name if unicodedata.category(c) != "Cf")
        appearance = " ".join(unicodedata.normalize("NFC", visible).split())
        if not appearance:
            raise TableError(f"the label {name!a:.200} shows nothing; name the class")
        if (other := seen.setdefault(appearance, name)) != name:
            raise TableError(
                f"the classes {other!a:.200} and {name!a:.200} look alike; write both the same way,"
                " or give them names that can be distinguished"
            )


def some(names: Iterable[str], limit: int = 5) -> str:
    """List the first few names, quoted.

    Examples
    --------
    >>> some(["a", "b", "c"], limit=2)
    "'a', 'b' and 1 more"
    """
    names = list(names)
    rest = len(names) - limit
    return ", ".join(map(quote, names[:limit])) + (f" and {rest:,} more" if rest > 0 else "")
