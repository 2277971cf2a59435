"""What a report is made of: sections of paragraphs, tables and charts, whatever shows them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from brainfeat.report.tables import UNDEFINED, format_interval, join_interval

if TYPE_CHECKING:
    from brainfeat.evaluation.results import Interval

# Up to so many classes, their names head the columns of a confusion matrix.
FEW_CLASSES = 6

Rows = Sequence[Sequence[str]]


@dataclass(frozen=True, kw_only=True)
class Table:
    """Texts in rows and columns; the first cell of a row names it."""

    title: str
    head: Sequence[str]
    rows: Rows
    note: str = ""
    numeric: bool = True

    kind = "table"


@dataclass(frozen=True, kw_only=True)
class Matrix:
    """Numbers of images: rows are true classes, columns what they were called."""

    title: str
    names: Sequence[str]
    counts: Sequence[Sequence[int]]

    kind = "matrix"


@dataclass(frozen=True, kw_only=True)
class Tiles:
    """The few figures that count, each with what it is and a remark."""

    entries: Sequence[tuple[str, str, str]]

    kind = "tiles"


@dataclass(frozen=True, kw_only=True)
class Chart:
    """A drawing, what it shows and says, and the series that it tells apart."""

    title: str
    caption: str
    description: str
    draw: Callable[[], str]
    legend: Sequence[str] = ()

    kind = "chart"


@dataclass(frozen=True, kw_only=True)
class Items:
    """Sentences of one list."""

    entries: Sequence[str]

    kind = "items"


@dataclass(frozen=True, kw_only=True)
class Commands:
    """Lines for a shell."""

    lines: Sequence[str]

    kind = "commands"


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A PNG as a data URI, and what it shows."""

    source: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Gallery:
    """Pictures that belong together, each group with a caption."""

    title: str
    groups: Sequence[tuple[Sequence[Picture], Sequence[str]]]

    kind = "gallery"


@dataclass(frozen=True, kw_only=True)
class Columns:
    """What stands side by side where there is room; each part is a stack of blocks."""

    parts: "Sequence[Sequence[Block]]"

    kind = "columns"


Block = str | Columns | Table | Matrix | Tiles | Chart | Items | Commands | Gallery


@dataclass(frozen=True, kw_only=True)
class Section:
    """A heading and what is below it; the name is its address on the page."""

    name: str
    title: str
    blocks: Sequence[Block]


def show(value: object, interval: "Interval | None" = None) -> str:
    """Write a figure with three decimals, its interval in brackets.

    Examples
    --------
    >>> show(0.90412, (0.88231, 0.92504)), show(None)
    ('0.904 (0.882–0.925)', 'n/a')
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        return UNDEFINED
    return join_interval(f"{value:.3f}", format_interval(interval))


def show_number(number: object) -> str:
    """Write a whole number; anything else as ``n/a``.

    Examples
    --------
    >>> show_number(7019), show_number("many")
    ('7,019', 'n/a')
    """
    if isinstance(number, bool) or not isinstance(number, int):
        return UNDEFINED
    return f"{number:,}"


def count(number: object, noun: str) -> str:
    """Write a number of things.

    Examples
    --------
    >>> count(1, "image"), count(1311, "image")
    ('1 image', '1,311 images')
    """
    return f"{show_number(number)} {noun}{'' if number == 1 else 's'}"
