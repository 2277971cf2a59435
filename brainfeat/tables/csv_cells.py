"""Cells of CSV files that a spreadsheet may open, in which a text must stay a text.

A spreadsheet runs a cell that starts with ``=``, ``+``, ``-`` or ``@`` as a formula, which can send
data away or start a program. An apostrophe at the start of the cell makes it a text.
"""

import re
from collections.abc import Sequence
from pathlib import Path

# Texts that a spreadsheet runs, also after quotes or blanks and in East Asian wide forms; and texts
# that end in blanks, which would be lost when the cell is read.
_RISKY = re.compile(r"""['"]*[\s=+\-@＝＋－＠]|.*\s\Z""", re.DOTALL)


def csv_cell(text: str) -> str:
    """Write a text as a cell that no spreadsheet runs.

    Parameters
    ----------
    text : str
        Any text.

    Returns
    -------
    str
        The text, after an apostrophe where it needs one; `cell_text` removes it again.

    Examples
    --------
    >>> csv_cell("glioma"), csv_cell("=HYPERLINK(A1)"), csv_cell("'tis")
    ('glioma', "'=HYPERLINK(A1)", "'tis")
    """
    return f"'{text}" if _RISKY.match(text) else text


def cell_text(cell: str) -> str:
    """Read the text of a cell, without the apostrophe of `csv_cell` or the blanks around it.

    Parameters
    ----------
    cell : str
        The cell as a CSV reader returns it.

    Returns
    -------
    str

    Examples
    --------
    >>> cell_text("'=HYPERLINK(A1)"), cell_text(" glioma "), cell_text("'tis")
    ('=HYPERLINK(A1)', 'glioma', "'tis")
    """
    if cell.startswith("'") and _RISKY.match(cell[1:]):
        return cell[1:]
    return cell.strip(" \t")


def has_header(path: Path, columns: Sequence[str]) -> bool:
    """Return whether a file is a CSV whose first columns are these.

    Raises
    ------
    OSError
        The file cannot be read.
    """
    header = ",".join(columns).encode()
    with path.open("rb") as file:
        start = file.read(len(header) + 1)
    return start[: len(header)] == header and start[len(header) :] in (b"", b",", b"\n", b"\r")
