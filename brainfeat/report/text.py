"""An evaluation as plain text for a terminal of 80 columns."""

from functools import singledispatch
from itertools import product
from typing import TYPE_CHECKING

from brainfeat.report.blocks import (
    MATRIX_CORNER,
    Block,
    Cell,
    Estimate,
    Items,
    Matrix,
    Section,
    Table,
    flatten,
)
from brainfeat.report.outline import list_results
from brainfeat.text import WIDTH, align, count_columns, make_printable, shorten, wrap

if TYPE_CHECKING:
    from collections.abc import Sequence

    from brainfeat.evaluation.set_results import SetsEvaluation
    from brainfeat.metrics import Metrics

_NAME_WIDTH = 30


def to_text(evaluation: "Metrics | SetsEvaluation") -> str:
    r"""Write the main results of an evaluation for a terminal.

    Charts and the section on calibration are left out.

    Parameters
    ----------
    evaluation : Metrics or SetsEvaluation
        The result of :func:`brainfeat.evaluate`, or of :func:`brainfeat.metrics.measure`.

    Returns
    -------
    str
        Lines of at most 80 columns, without a line break at the end. Long class names are shortened
        in their middle; control characters in them are written as escapes.

    Examples
    --------
    >>> from brainfeat.metrics import measure
    >>> evaluation = measure([0, 1], [[0.9, 0.1], [0.2, 0.8]], class_names=["none", "glioma"])
    >>> print(to_text(evaluation))
    Summary
    =======
    On 2 images accuracy is 1.000; whether the head has seen copies of them is not
    known. Sensitivity on all images is 1.000 in every class.
    <BLANKLINE>
    Overall metrics
    ===============
    All images
    metric                all images
    images                         2
    accuracy                   1.000
    balanced accuracy          1.000
    macro F1                   1.000
    macro ROC AUC              1.000
    log loss                   0.164
    Brier score                0.025
    Matthews correlation       1.000
    <BLANKLINE>
    Metrics by class
    ================
    Confusion matrix, all images
    true \ predicted  none  glioma
    none                 1       0
    glioma               0       1
    <BLANKLINE>
    Each class against the rest, all images
    class          images  sensitivity  specificity    PPV
    none                1        1.000        1.000  1.000
    glioma              1        1.000        1.000  1.000
    macro mean          2        1.000            –  1.000
    weighted mean       2        1.000            –  1.000
    <BLANKLINE>
    class            NPV     F1  ROC AUC  average precision
    none           1.000  1.000    1.000              1.000
    glioma         1.000  1.000    1.000              1.000
    macro mean         –  1.000    1.000                  –
    weighted mean      –  1.000        –                  –
    """
    return write_sections(list_results(evaluation))


def write_sections(sections: "Sequence[Section]") -> str:
    """Write sections for a terminal, those that are brief."""
    return "\n\n".join(write_section(section) for section in sections if section.brief)


def write_section(section: Section) -> str:
    """Write a section with its title underlined."""
    title = make_printable(section.title)
    written = [lines for block in flatten(section.blocks) if (lines := _write(block))]
    body = "\n\n".join("\n".join(lines) for lines in written)
    return f"{title}\n{'=' * count_columns(title)}\n{body}"


@singledispatch
def _write(block: Block) -> list[str]:  # noqa: ARG001
    """Write a block in lines; what a terminal does not show has none."""
    return []


@_write.register
def _(block: str) -> list[str]:
    return wrap(make_printable(block))


@_write.register
def _(block: Items) -> list[str]:
    return [
        f"{'  ' if place else '- '}{line}"
        for entry in block.entries
        for place, line in enumerate(wrap(make_printable(entry), WIDTH - 2))
    ]


@_write.register
def _(block: Table) -> list[str]:
    note = wrap(make_printable(block.note)) if block.note else []
    return [make_printable(block.title), *lay_out(block), *note]


def lay_out(table: Table) -> list[str]:
    """Fit a table into 80 columns: in parts, with intervals below metrics, with wrapped heads."""
    n_columns = len(table.head)
    left = (0,) if table.numeric else range(n_columns)
    for n_parts, below, wrapped in product(
        range(1, max(2, n_columns)), (False, True), (False, True)
    ):
        parts = [
            align(_list_rows(table, columns, below=below, wrapped=wrapped), left=left)
            for columns in _split(range(1, n_columns), n_parts)
        ]
        if max(count_columns(line) for part in parts for line in part) <= WIDTH:
            break
    return "\n\n".join("\n".join(part) for part in parts).split("\n")


def _split(places: range, n_parts: int) -> list[range]:
    step = -(-len(places) // n_parts)
    return [places[start : start + step] for start in range(0, len(places), step)]


def _list_rows(table: Table, columns: range, *, below: bool, wrapped: bool) -> list[list[str]]:
    """List the lines of cells of some columns, those of the head first."""
    body = []
    for name, *cells in ([row[0], *(row[place] for place in columns)] for row in table.rows):
        pairs = [_split_cell(cell, below=below) for cell in cells]
        body.append([_label(str(name)), *(value for value, _ in pairs)])
        if any(interval for _, interval in pairs):
            body.append(["", *(interval for _, interval in pairs)])
    head = [make_printable(table.head[place]) for place in (0, *columns)]
    if not wrapped:
        return [head, *body]
    columns_of_body = list(zip(*body, strict=True)) or [()] * len(head)
    heads = [
        wrap(name, max(map(count_columns, (*cells, *name.split()))))
        for name, cells in zip(head, columns_of_body, strict=True)
    ]
    depth = max(map(len, heads))
    filled = [[""] * (depth - len(lines)) + lines for lines in heads]
    return [*map(list, zip(*filled, strict=True)), *body]


def _split_cell(cell: Cell, *, below: bool) -> tuple[str, str]:
    if below and isinstance(cell, Estimate):
        return cell.value, cell.interval
    return make_printable(str(cell)), ""


@_write.register
def _(matrix: Matrix) -> list[str]:
    """Write a confusion matrix, in as many blocks of numbered columns as 80 columns need."""
    counts = [[f"{count:,}" for count in row] for row in matrix.counts]
    names = [_label(name) for name in matrix.names]
    title = make_printable(matrix.title)
    whole = align(
        [(MATRIX_CORNER, *names), *((n, *row) for n, row in zip(names, counts, strict=True))]
    )
    if max(map(count_columns, whole)) <= WIDTH:
        return [title, *whole]
    numbers = [str(number) for number in range(1, len(names) + 1)]
    digits = len(numbers[-1])
    cell = 2 + max(digits, *(len(count) for row in counts for count in row))
    # Names are cut further where that saves a second block of columns.
    room = max(len(MATRIX_CORNER), WIDTH - cell * len(names)) - digits - 1
    rows = [
        f"{number:>{digits}} {shorten(name, room)}"
        for number, name in zip(numbers, names, strict=True)
    ]
    left = max(map(count_columns, [MATRIX_CORNER, *rows]))
    step = max(1, (WIDTH - left) // cell)
    lines = [title]
    for start in range(0, len(names), step):
        shown = slice(start, start + step)
        table = [(MATRIX_CORNER, *numbers[shown])]
        table += [(name, *row[shown]) for name, row in zip(rows, counts, strict=True)]
        lines += ["", *align(table)] if start else align(table)
    return [*lines, "Columns are numbered as rows."]


def _label(name: str) -> str:
    return shorten(make_printable(name), _NAME_WIDTH)
