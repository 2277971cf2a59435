"""The rows of a table as a CSV file: reading, checking and writing them."""

import csv
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from brainfeat.errors import TableError
from brainfeat.files import atomic_write, check_output, is_so
from brainfeat.tables.csv_cells import cell_text, csv_cell, has_header
from brainfeat.tables.csv_records import read_records
from brainfeat.tables.rows import (
    COLUMNS,
    GENERATED,
    SPLIT_NAMES,
    LeftOut,
    Row,
    csv_path_trouble,
    origin_trouble,
    quote,
    some,
    text_trouble,
)

# Stands for no split in a table whose other rows have one.
_NO_SPLIT = "none"

# The row of each image by its path, with the number of its line.
_Entries = dict[str, tuple[Row, int]]


class _Header(NamedTuple):
    source: Path
    names: list[str]
    columns: dict[str, int]  # the place of each known column


def read_csv(source: Path) -> tuple[list[Row], Counter[LeftOut]]:
    """Read the rows of a CSV file whose images must exist.

    Parameters
    ----------
    source : Path
        The CSV file.

    Returns
    -------
    rows : list of Row
        In the order of the file.
    left_out : Counter of LeftOut
        How many rows were left out, by reason.

    Raises
    ------
    TableError
        As in :func:`brainfeat.read_table`.
    """
    entries, left_out = _read_entries(source)
    _check_files(source, entries)
    return [row for row, _ in entries.values()], left_out


def read_rows(path: str | os.PathLike[str]) -> list[Row]:
    """Read the rows of a CSV file, whether or not its images exist.

    Parameters
    ----------
    path : path-like
        The CSV file.

    Returns
    -------
    list of Row
        In the order of the file.

    Raises
    ------
    TableError
        As in :func:`brainfeat.read_table`.
    """
    entries, _ = _read_entries(Path(path))
    return [row for row, _ in entries.values()]


def read_column(path: str | os.PathLike[str], name: str) -> dict[str, str]:
    """Read one column of a CSV file, which may be one that is not part of a table.

    Parameters
    ----------
    path : path-like
        The CSV file.
    name : str
        Name of the column, in any case.

    Returns
    -------
    dict of str to str
        The cell of each image, by path.

    Raises
    ------
    TableError
        As in :func:`brainfeat.read_table`; or if the column is missing, or has two different cells
        for one image.
    """
    source = Path(path)
    records = read_records(source)
    header = _read_header(records, source)
    wanted = name.strip().lower()
    if header.names.count(wanted) != 1:
        raise TableError(
            f"{quote(source)} has the columns {some(header.names)}; expected one called "
            f"{quote(name)}"
        )
    place = header.names.index(wanted)
    values: dict[str, str] = {}
    for cells, line in records:
        row = _read_row(cells, header, line)
        value = cell_text(cells[place])
        if values.setdefault(row.path, value) != value:
            raise TableError(
                f"{quote(source)}, line {line}: {quote(row.path)} has another {name} above"
            )
    return values


def write_rows(
    rows: Sequence[Row], target: Path, *, overwrite: bool = False, **more: Sequence[str]
) -> Path:
    """Write rows as :func:`brainfeat.write_table` does, wherever their images are.

    Parameters
    ----------
    rows : sequence of Row
        The rows.
    target : Path
        The CSV file, which is written atomically.
    overwrite : bool, default=False
        Whether an existing file may be replaced.
    **more : sequence of str
        Further columns, by name, with one text for each row.

    Returns
    -------
    Path
        The file that was written.

    Raises
    ------
    TableError
        If the file exists or cannot be written. It is then left as it was.
    """
    check_target(target, overwrite=overwrite)
    always = {"path", "label"}
    columns = [
        name for name in COLUMNS if name in always or any(getattr(row, name) for row in rows)
    ]
    try:
        with (
            atomic_write(target) as temporary,
            temporary.open("x", encoding="utf-8", newline="") as file,
        ):
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow([*columns, *more])
            for row, *others in zip(rows, *more.values(), strict=True):
                found = row if row.split else row._replace(split=_NO_SPLIT)
                texts = [getattr(found, name) for name in columns]
                writer.writerow(map(csv_cell, [*texts, *others]))
    except OSError as error:
        raise TableError(f"{quote(target)} cannot be written: {error.strerror}") from error
    return target


def check_target(
    target: Path, *, overwrite: bool, inputs: Iterable[str | os.PathLike[str] | None] = ()
) -> None:
    """Reject a file that a table must not be written to.

    Raises
    ------
    TableError
        As in :func:`brainfeat.files.check_output`.
    """
    check_output(
        target,
        overwrite=overwrite,
        kind="a table with the columns path and label",
        recognise=lambda found: has_header(found, ("path", "label")),
        inputs=inputs,
        error=TableError,
    )


def _read_entries(source: Path) -> tuple[_Entries, Counter[LeftOut]]:
    """Read each image's row once, and count the rows that repeat another one."""
    records = read_records(source)
    header = _read_header(records, source)
    entries: _Entries = {}
    left_out: Counter[LeftOut] = Counter()
    for cells, line in records:
        row = _read_row(cells, header, line)
        known, known_line = entries.setdefault(row.path, (row, line))
        if known_line == line:
            continue
        if known != row:
            raise _contradiction(source, (known, known_line), (row, line))
        left_out[LeftOut("listed twice")] += 1
    if not entries:
        raise TableError(f"{quote(source)} lists no images; it has a header and no rows")
    _check_splits(source, entries)
    for path, (row, line) in entries.items():
        if row.split == _NO_SPLIT:
            entries[path] = row._replace(split=""), line
    return entries, left_out


def _contradiction(source: Path, first: tuple[Row, int], second: tuple[Row, int]) -> TableError:
    column, one, other = next(
        (column, getattr(first[0], column), getattr(second[0], column))
        for column in COLUMNS
        if getattr(first[0], column) != getattr(second[0], column)
    )
    return TableError(
        f"{quote(source)}: {quote(first[0].path)} is listed with the {column} {quote(one)}"
        f" (line {first[1]}) and the {column} {quote(other)} (line {second[1]}); keep one of them"
    )


def _check_splits(source: Path, entries: _Entries) -> None:
    without = [line for row, line in entries.values() if not row.split]
    if 0 < len(without) < len(entries):
        raise TableError(
            f"{quote(source)}: {len(without):,} of {len(entries):,} rows have no split (the first"
            f" on line {without[0]}); give every row a split, 'none' where it has none, or leave"
            " all splits empty"
        )


def _check_files(source: Path, entries: _Entries) -> None:
    missing = 0
    first: list[str] = []
    for path, (_, line) in entries.items():
        if not is_so(source.parent.joinpath(path).is_file):
            missing += 1
            if len(first) < 3:
                first.append(f"{quote(path)} (line {line})")
    if missing:
        more = f" and {missing - 3:,} more" if missing > 3 else ""
        raise TableError(
            f"{quote(source)}: {missing:,} of {len(entries):,} listed files are missing:"
            f" {', '.join(first)}{more}; paths are relative to {quote(source.parent)}"
        )


def _read_header(records: Iterator[tuple[list[str], int]], source: Path) -> _Header:
    cells, _ = next(records, ([], 1))
    names = [cell.strip().lower() for cell in cells]
    missing = [column for column in ("path", "label") if column not in names]
    if missing:
        for delimiter in (";", "\t", "|"):
            if any(delimiter in cell for cell in cells):
                raise TableError(
                    f"{quote(source)} has fields that are separated by {delimiter!r}; save it with"
                    " commas"
                )
        hint = "; pass a list of patients and classes as labels=FILE, with the folder of the images"
        hint = hint if len(cells) == 2 and len(missing) == 2 else ""
        raise TableError(
            f"{quote(source)} has no column {' and no column '.join(map(repr, missing))}; its"
            f" first line must name path and label, and is {some(cells) or 'empty'}{hint}"
        )
    for column in COLUMNS:
        if names.count(column) > 1:
            raise TableError(f"{quote(source)} has the column {column!r} twice; keep one")
    columns = {name: names.index(name) for name in COLUMNS if name in names}
    return _Header(source, names, columns)


def _read_row(cells: list[str], header: _Header, line: int) -> Row:
    place = f"{quote(header.source)}, line {line}"
    if len(cells) != len(header.names):
        raise TableError(
            f"{place} has {len(cells)} fields where the header has {len(header.names)}; put a field"
            " that contains a comma into quotes"
        )
    values = {name: cell_text(cells[i]) for name, i in header.columns.items()}
    path = values.pop("path")
    if trouble := csv_path_trouble(path):
        raise TableError(f"{place}: the path {quote(path)} {trouble}")
    for column in ("label", "group", "source"):
        if trouble := text_trouble(values.get(column, ""), column):
            raise TableError(f"{place}: the {column} {quote(values[column])} {trouble}")
    if split := values.get("split"):
        values["split"] = _read_split(split, place)
    values["origin"] = values.get("origin", "").lower()
    row = Row(path=str(PurePosixPath(path)), **values)
    if trouble := origin_trouble(row):
        noun = "generated image" if row.origin == GENERATED else "image"
        raise TableError(f"{place}: the {noun} {quote(path)} {trouble}")
    return row


def _read_split(text: str, place: str) -> str:
    if text.lower() == _NO_SPLIT:
        return _NO_SPLIT
    if text.lower() not in SPLIT_NAMES:
        raise TableError(
            f"{place}: unknown split {quote(text)}; use {', '.join(SPLIT_NAMES)} or none, or leave"
            " all splits empty"
        )
    return SPLIT_NAMES[text.lower()]
