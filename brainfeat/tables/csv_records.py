"""The lines of a CSV file as cells, within limits and with the number of each line."""

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from brainfeat.errors import TableError
from brainfeat.tables.rows import quote

_ROW_LIMIT = 1_000_000  # characters; a longer row is not a row of a table and would fill the memory


def read_records(source: Path, *, delimiter: str = ",") -> Iterator[tuple[list[str], int]]:
    """Yield the cells of the header and of each row that is not empty, with their first line.

    Parameters
    ----------
    source : Path
        The file.
    delimiter : str, default=","
        What is between two cells.

    Yields
    ------
    cells : list of str
    line : int
        From 1.

    Raises
    ------
    TableError
        If the file cannot be read, is not UTF-8 text or has a row that does not end.
    """
    line = 1

    def read_lines(file: TextIO) -> Iterator[str]:
        begun = size = 0
        while text := file.readline(_ROW_LIMIT):
            begun, size = line, len(text) + (size if begun == line else 0)
            if size >= _ROW_LIMIT:
                raise TableError(
                    f"{quote(source)}, line {line} has {_ROW_LIMIT:,} characters or more, including"
                    " lines that its quotes join to it; expected a table"
                )
            yield text

    try:
        # utf-8-sig also reads files without a byte order mark.
        with source.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(read_lines(file), delimiter=delimiter, strict=True)
            for number, cells in enumerate(reader):
                if not number and any("\0" in cell for cell in cells):
                    raise TableError(
                        f"{quote(source)} is not UTF-8 text (it has NUL characters, as UTF-16"
                        " does); save it as 'CSV UTF-8'"
                    )
                if cells or not number:  # an empty line has no cells
                    yield cells, line
                line = reader.line_num + 1
    except UnicodeDecodeError as error:
        raise TableError(
            f"{quote(source)} is not UTF-8 text ({error.reason}); save it as 'CSV UTF-8'"
        ) from error
    except csv.Error as error:
        raise TableError(
            f"{quote(source)}, line {line}: {error}; check whether a quote is left open in the row"
            " that begins there"
        ) from error
    except OSError as error:
        raise TableError(f"{quote(source)} cannot be read: {error.strerror}") from error
