"""Cells of CSV files that a spreadsheet may open: a text in them must stay a text.

A spreadsheet runs a cell that starts with ``=``, ``+``, ``-`` or ``@`` as a formula, which can send
data away or start a program. An apostrophe before it makes it a text.
"""

import re

# What a spreadsheet runs, also behind quotes, in the wide forms of East Asia or behind blanks; and
# texts with blanks at an end, which would be lost when the cell is read.
_RISKY = re.compile(r"""['"]*[\s=+\-@＝＋－＠]|.*\s\Z""", re.DOTALL)


def csv_cell(text: str) -> str:
    """Give the cell that a text is written as, so that no spreadsheet runs it.

    Parameters
    ----------
    text : str
        Any text.

    Returns
    -------
    str
        The text, behind an apostrophe where it needs one; `cell_text` takes it away again.

    Examples
    --------
    >>> csv_cell("glioma"), csv_cell("=HYPERLINK(A1)"), csv_cell("'tis")
    ('glioma', "'=HYPERLINK(A1)", "'tis")
    """
    return f"'{text}" if _RISKY.match(text) else text


def cell_text(cell: str) -> str:
    """Give the text of a cell: without an apostrophe of `csv_cell`, else without blanks around it.

    Parameters
    ----------
    cell : str
        What a CSV reader found between two commas.

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
