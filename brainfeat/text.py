"""Text for people: how numbers are written, how wide text is, and how it is laid out."""

import unicodedata
from collections.abc import Container, Iterator, Sequence
from itertools import accumulate

# Of every metric that is shown to people.
DECIMALS = 3
# What stands where a number is not defined.
UNDEFINED = "n/a"
# Columns of the terminal that output is laid out for.
WIDTH = 80

_ELLIPSIS = "…"
_GAP = "  "
# Names that a sentence lists at most.
_NAMED = 10

# Control, format (such as text direction), surrogate, private and unassigned characters, and the
# separators of lines and paragraphs: what could move the cursor or reorder what is read.
_UNPRINTABLE = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}


def format_metric(value: object, *, signed: bool = False) -> str:
    """Format a metric with three decimals.

    Parameters
    ----------
    value : float or None
    signed : bool
        Whether a plus sign marks a positive value, as in differences.

    Returns
    -------
    str
        ``n/a`` for anything but a number.

    Examples
    --------
    >>> format_metric(0.90412), format_metric(0.0371, signed=True), format_metric(None)
    ('0.904', '+0.037', 'n/a')
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        return UNDEFINED
    return f"{value:{'+' if signed else ''}.{DECIMALS}f}"


def name_some(names: Sequence[str]) -> str:
    """List names in a sentence: the first ten, and how many more there are.

    Examples
    --------
    >>> name_some(["glioma", "notumor"]), name_some(["a"] * 12)
    ('glioma, notumor', 'a, a, a, a, a, a, a, a, a, a and 2 more')
    """
    rest = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {rest:,} more" if rest > 0 else "")


def format_interval(interval: tuple[float, float] | None, *, signed: bool = False) -> str:
    """Format the two ends of an interval.

    Parameters
    ----------
    interval : tuple of float or None
        The lower and the upper end.
    signed : bool
        As in :func:`format_metric`; the ends are then joined by a word.

    Examples
    --------
    >>> format_interval((0.88231, 0.92504)), format_interval((-0.01, 0.02), signed=True)
    ('0.882–0.925', '-0.010 to +0.020')
    >>> format_interval(None)
    'n/a'
    """
    if interval is None:
        return UNDEFINED
    return (" to " if signed else "–").join(format_metric(end, signed=signed) for end in interval)


def count(number: object, noun: str) -> str:
    """Write a number of things.

    Examples
    --------
    >>> count(1, "image"), count(7019, "image")
    ('1 image', '7,019 images')
    """
    return f"{format_number(number)} {noun}{'' if number == 1 else 's'}"


def describe_unreadable(number: int, noun: str, first: str) -> str:
    """Say that none of some things can be read, and name the first of them.

    Examples
    --------
    >>> describe_unreadable(1, "volume", "volume 1")
    'the only volume cannot be read; volume 1'
    >>> describe_unreadable(2, "image", "a/1.png")
    'none of the 2 images can be read; the first, a/1.png'
    """
    if number == 1:
        return f"the only {noun} cannot be read; {first}"
    return f"none of the {count(number, noun)} can be read; the first, {first}"


def format_number(number: object) -> str:
    """Format a whole number; anything else gives ``n/a``.

    Examples
    --------
    >>> format_number(7019), format_number("many")
    ('7,019', 'n/a')
    """
    if isinstance(number, bool) or not isinstance(number, int):
        return UNDEFINED
    return f"{number:,}"


def make_printable(name: str) -> str:
    r"""Replace characters that a terminal would obey or hide by escapes.

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


def format_percent(part: int, whole: int) -> str:
    """Write a part as a whole percentage.

    Examples
    --------
    >>> format_percent(58, 71)
    '82 %'
    """
    return f"{100 * part / whole:.0f} %"


def fold_spelling(name: str) -> str:
    """Fold spellings of one name that differ only in case, spaces, ``_`` and ``-``.

    Examples
    --------
    >>> {fold_spelling(name) for name in ("no_tumor", "notumor", "No Tumor")}
    {'notumor'}
    """
    return "".join(name.casefold().replace("_", "").replace("-", "").split())


def shorten(name: str, width: int) -> str:
    """Cut the middle out of a text that takes more than `width` columns of a terminal.

    Class names differ in their ends as often as in their beginnings ("grade 2", "grade 3").

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
    """Count the columns that a text takes on a terminal.

    Wide characters, such as those of Chinese, take two, and combining marks none.
    """
    return sum(_columns(character) for character in text)


def align(rows: Sequence[Sequence[str]], *, left: Container[int] = (0,)) -> list[str]:
    """Lay a table out in columns.

    Parameters
    ----------
    rows : sequence of sequence of str
        Cells; all rows have the same number.
    left : container of int
        Columns that are aligned to the left; the others, which hold numbers, to the right.

    Returns
    -------
    list of str
        One line for each row, without trailing spaces.

    Examples
    --------
    >>> for line in align([("class", "images"), ("glioma", "300"), ("notumor", "1,405")]):
    ...     print(line)
    class    images
    glioma      300
    notumor   1,405
    """
    widths = [max(map(count_columns, column)) for column in zip(*rows, strict=True)]
    return [
        _GAP.join(
            _pad(cell, width, right=place not in left)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def wrap(text: str, width: int = WIDTH) -> list[str]:
    """Break a text into lines of at most `width` columns of a terminal.

    Lines are broken at spaces; a word that is longer than a line is cut.

    Examples
    --------
    >>> wrap("accuracy on all images", 12)
    ['accuracy on', 'all images']
    """
    lines = [""]
    for word in _cut_words(text, width):
        longer = f"{lines[-1]} {word}" if lines[-1] else word
        if count_columns(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def _cut_words(text: str, width: int) -> Iterator[str]:
    for word in text.split():
        rest = word
        while count_columns(rest) > width:
            piece = _take(rest, width)
            yield piece
            rest = rest[len(piece) :]
        yield rest


def _pad(cell: str, width: int, *, right: bool) -> str:
    space = " " * (width - count_columns(cell))
    return space + cell if right else cell + space


def _columns(character: str) -> int:
    if unicodedata.category(character) in {"Mn", "Me"}:
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def _take(text: str, width: int) -> str:
    """Take as many characters from the start as fit into `width` columns."""
    ends = accumulate(map(_columns, text))
    return "".join(c for c, end in zip(text, ends, strict=True) if end <= width)
