"""What a report is made of: sections of paragraphs, tables and charts, in any output format."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from brainfeat.text import UNDEFINED, format_interval, format_metric

# Up to this many classes, their names head the columns of a confusion matrix.
FEW_CLASSES = 6
# What rows and columns of a confusion matrix are, where one cell must say it.
MATRIX_CORNER = "true \\ predicted"


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A metric as text, and its 95 % interval where there is one.

    Examples
    --------
    >>> str(Estimate(value="0.904", interval="0.882–0.925"))
    '0.904 (0.882–0.925)'
    """

    value: str
    interval: str = ""

    def __str__(self) -> str:
        return f"{self.value} ({self.interval})" if self.interval else self.value


Cell = str | Estimate
Rows = Sequence[Sequence[Cell]]


@dataclass(frozen=True, kw_only=True)
class Table:
    """Cells in rows and columns; the first cell of a row names it.

    Attributes
    ----------
    title : str
    head : sequence of str
    rows : sequence of sequence of Cell
    note : str
        What the reader of the table must know.
    explanation : str
        How to read the table; a terminal leaves it out.
    numeric : bool
        Whether all columns but the first hold numbers.
    """

    title: str
    head: Sequence[str]
    rows: Rows
    note: str = ""
    explanation: str = ""
    numeric: bool = True

    kind = "table"


@dataclass(frozen=True, kw_only=True)
class Matrix:
    """A confusion matrix in images: rows are true classes, columns predicted ones."""

    title: str
    names: Sequence[str]
    counts: Sequence[Sequence[int]]

    kind = "matrix"


@dataclass(frozen=True, kw_only=True)
class Tiles:
    """The few metrics that matter most, each with its name and a remark."""

    entries: Sequence[tuple[str, Cell, str]]

    kind = "tiles"


@dataclass(frozen=True, kw_only=True)
class Chart:
    """A drawing with a caption, a description in words, and the names of its series."""

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
    """Stacks of blocks that stand side by side where there is room."""

    parts: "Sequence[Sequence[Block]]"

    kind = "columns"


Block = str | Columns | Table | Matrix | Tiles | Chart | Items | Commands | Gallery


@dataclass(frozen=True, kw_only=True)
class Section:
    """A heading and the blocks below it.

    Attributes
    ----------
    name : str
        Its address on the page.
    title : str
    blocks : sequence of Block
    brief : bool
        Whether the short text for a terminal has it.
    """

    name: str
    title: str
    blocks: Sequence[Block]
    brief: bool = True


def flatten(blocks: Sequence[Block]) -> Iterator[Block]:
    """Yield blocks below one another, for formats that have no columns."""
    for block in blocks:
        if isinstance(block, Columns):
            for part in block.parts:
                yield from flatten(part)
        else:
            yield block


def estimate(value: object, interval: tuple[float, float] | None = None) -> Estimate:
    """Make the cell of a metric and its interval.

    Examples
    --------
    >>> estimate(0.90412, (0.88231, 0.92504))
    Estimate(value='0.904', interval='0.882–0.925')
    >>> estimate(None)
    Estimate(value='n/a', interval='')
    """
    ends = format_interval(interval)
    return Estimate(value=format_metric(value), interval="" if ends == UNDEFINED else ends)


def estimate_metric(record: object, name: str) -> Estimate:
    """Make the cell of a metric of a record, with its interval where the record has intervals."""
    return estimate(getattr(record, name), find_interval(record, name))


def find_interval(record: object, name: str) -> tuple[float, float] | None:
    """Return the interval of a metric of a record; None where there is none."""
    interval: tuple[float, float] | None = getattr(getattr(record, "intervals", None), name, None)
    return interval


def show(value: object, interval: tuple[float, float] | None = None) -> str:
    """Write a metric, and its interval in brackets, for a sentence.

    Examples
    --------
    >>> show(0.90412, (0.88231, 0.92504)), show(None)
    ('0.904 (0.882–0.925)', 'n/a')
    """
    return str(estimate(value, interval))
