"""An evaluation as GitHub-flavoured Markdown."""

from collections.abc import Sequence
from functools import singledispatch
from typing import TYPE_CHECKING

from brainfeat.report.blocks import (
    MATRIX_CORNER,
    Block,
    Cell,
    Commands,
    Items,
    Matrix,
    Section,
    Table,
    Tiles,
    flatten,
)
from brainfeat.report.outline import list_results
from brainfeat.text import make_printable

if TYPE_CHECKING:
    from brainfeat.evaluation.set_results import SetsEvaluation
    from brainfeat.metrics import Metrics

_ESCAPES = str.maketrans(
    {character: f"\\{character}" for character in "\\`*_[]~|$"}
    | {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
)


def to_markdown(evaluation: "Metrics | SetsEvaluation") -> str:
    """Write the results of an evaluation as Markdown.

    Parameters
    ----------
    evaluation : Metrics or SetsEvaluation
        The result of :func:`brainfeat.evaluate`, or of :func:`brainfeat.metrics.measure`.

    Returns
    -------
    str
        Sections with headings of the second level, without charts. Class names are escaped.

    Examples
    --------
    >>> from brainfeat.metrics import measure
    >>> evaluation = measure([0, 1], [[0.9, 0.1], [0.2, 0.8]], class_names=["none", "glioma"])
    >>> print(to_markdown(evaluation).splitlines()[0])
    ## Summary
    """
    return "\n\n".join(write_sections(list_results(evaluation)))


def write_sections(sections: Sequence[Section]) -> list[str]:
    """Write sections as Markdown paragraphs, tables and headings of the second level."""
    paragraphs = []
    for section in sections:
        paragraphs.append(f"## {escape(section.title)}")
        paragraphs += [text for block in flatten(section.blocks) if (text := _write(block))]
    return paragraphs


def escape(text: str) -> str:
    r"""Escape what Markdown or HTML would read as markup; control characters become escapes.

    Examples
    --------
    >>> print(escape("a|b <i>"))
    a\|b &lt;i&gt;
    """
    return make_printable(text).translate(_ESCAPES)


@singledispatch
def _write(block: Block) -> str:  # noqa: ARG001
    """Write a block; charts and pictures give nothing."""
    return ""


@_write.register
def _(block: str) -> str:
    return escape(block)


@_write.register
def _(block: Table) -> str:
    table = _make_table(block.head, block.rows, numeric=block.numeric)
    below = " ".join(escape(text) for text in (block.note, block.explanation) if text)
    return "\n\n".join(filter(None, (f"**{escape(block.title)}**", table, below)))


@_write.register
def _(block: Matrix) -> str:
    rows = [
        (name, *(f"{number:,}" for number in row))
        for name, row in zip(block.names, block.counts, strict=True)
    ]
    return _write(Table(title=block.title, head=(MATRIX_CORNER, *block.names), rows=rows))


@_write.register
def _(block: Tiles) -> str:
    return _make_table(("metric", "value", "of"), block.entries, numeric=True)


@_write.register
def _(block: Items) -> str:
    return "\n".join(f"- {escape(entry)}" for entry in block.entries)


@_write.register
def _(block: Commands) -> str:
    return "\n".join(f"    {make_printable(line)}" for line in block.lines)


def _make_table(head: Sequence[str], rows: Sequence[Sequence[Cell]], *, numeric: bool) -> str:
    """Write a table; all columns but the first are aligned to the right if they are numeric."""
    rule = ("---", *("---:" if numeric else "---" for _ in head[1:]))
    lines = [[escape(str(cell)) for cell in row] for row in (head, *rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in (lines[0], rule, *lines[1:]))
