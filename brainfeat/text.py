"""Texts on a terminal: what they show, how wide they are, and how they are shortened."""

import unicodedata
from itertools import accumulate

_ELLIPSIS = "…"

# Control, format (such as text direction), surrogate, private and unassigned characters, and the
# separators of lines and paragraphs: what could move the cursor or reorder what is read.
_UNPRINTABLE = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}


def make_printable(name: str) -> str:
    r"""Write characters that a terminal would obey or hide as escapes.

    Examples
    --------
    >>> print(make_printable("glio\x1b[2Jma"))
    glio\x1b[2Jma
    """
    return "".join(
        character.encode("unicode_escape").decode("ascii")
        if unicodedata.category(character) in _UNPRINTABLE
        else character
        for character in name
    )


def shorten(name: str, width: int) -> str:
    """Cut the middle out of a text that takes more than `width` columns of a terminal.

    Classes are told apart by their ends as often as by their beginnings ("grade 2", "grade 3").

    Examples
    --------
    >>> shorten("oligodendroglioma grade 3", 16)
    'oligoden…grade 3'
    """
    if count_columns(name) <= width:
        return name
    tail = (width - 1) // 2
    head = width - 1 - tail
    return _take(name, head) + _ELLIPSIS + _take(name[::-1], tail)[::-1]


def count_columns(text: str) -> int:
    """Count the columns that a text takes on a terminal."""
    return sum(_columns(character) for character in text)


def _columns(character: str) -> int:
    if unicodedata.category(character) in {"Mn", "Me"}:
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def _take(text: str, width: int) -> str:
    """Take as many characters from the start as fit into `width` columns."""
    ends = accumulate(map(_columns, text))
    return "".join(c for c, end in zip(text, ends, strict=True) if end <= width)
