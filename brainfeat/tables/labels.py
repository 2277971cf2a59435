"""Labels by patient or file, from a CSV file that stands beside the images."""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from brainfeat.errors import ParameterError, TableError
from brainfeat.files import is_so
from brainfeat.tables.csv_cells import cell_text
from brainfeat.tables.csv_records import read_records
from brainfeat.tables.rows import quote, some, text_trouble

# The path of a list of labels, or the class of each key.
GivenLabels: TypeAlias = str | os.PathLike[str] | Mapping[str, str]

_DELIMITERS = ("\t", ";", ",")  # of equally many, the one that is rarest in names
_HEADER_LIMIT = 1_000_000  # bytes in which the delimiter is looked for
_NUMBER = re.compile(r"[+-]?[0-9]+([.,][0-9]*)?")
_QUOTED = re.compile(rb'"[^"]*"')
# How the Brain Imaging Data Structure writes a value that is missing.
_MISSING = "n/a"


@dataclass(frozen=True)
class Labels:
    """The classes of patients or files.

    Attributes
    ----------
    source : str
        Where they come from, for messages.
    classes : mapping of str to str
        Class of each key: the name of a patient's folder, a DICOM patient ID, or the name of a
        file. ``""`` where it is unknown.
    header : str
        Name of the column of keys; ``""`` where there is none.
    repeated : int
        How many rows repeat others.
    """

    source: str
    classes: Mapping[str, str]
    header: str = ""
    repeated: int = 0


def read_labels(path: str | os.PathLike[str], columns: Sequence[str] | None = None) -> Labels:
    r"""Read labels from a CSV file with a header.

    Parameters
    ----------
    path : path-like
        The file: UTF-8, separated by commas, semicolons or tabs. A class that is ``n/a`` is
        unknown.
    columns : sequence of two str, optional
        Names of the columns of keys and of classes, in any case. None takes the first and the
        second column of a file that has no others.

    Returns
    -------
    Labels

    Raises
    ------
    ParameterError
        If `columns` are not two names.
    TableError
        If the file cannot be read, has no header, no such columns or no rows, or gives one key two
        classes.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder, "participants.tsv")
    ...     _ = path.write_text("participant_id\tage\tgroup\nsub-01\t61\tglioma\n")
    ...     read_labels(path, ("participant_id", "group")).classes
    {'sub-01': 'glioma'}
    """
    source = Path(path)
    _check_columns(columns)
    if not is_so(source.is_file):
        wrong = "is not a regular file" if is_so(source.exists) else "does not exist"
        raise TableError(f"{quote(source)} {wrong}; expected a CSV file of keys and labels")
    delimiter = _find_delimiter(source)
    records = read_records(source, delimiter=delimiter)
    names, _ = next(records, ([], 1))
    names = [cell.strip() for cell in names]
    places = _find_columns(source, names, columns)
    known: dict[str, tuple[str, int]] = {}
    repeated = 0
    for key, label, line in _read_rows(source, records, len(names), places):
        first, first_line = known.setdefault(key, (label, line))
        if first != label:
            raise TableError(
                f"{quote(source)}: lines {first_line} and {line} give one key the labels"
                f" {quote(first)} and {quote(label)}; keep one of them"
            )
        repeated += first_line != line
    if not known:
        raise TableError(f"{quote(source)} has a header and no rows; expected keys and labels")
    classes = {key: label for key, (label, _) in known.items()}
    return Labels(str(source), classes, names[places[0]], repeated)


def take_labels(given: GivenLabels | None, columns: Sequence[str] | None = None) -> Labels | None:
    """Read labels from a file, or take those of a mapping.

    Parameters
    ----------
    given : path-like, mapping of str to str, or None
    columns : sequence of two str, optional
        As in `read_labels`.

    Returns
    -------
    Labels or None
        None for None.

    Raises
    ------
    ParameterError
        If the mapping is empty or has other values than text, or there are columns of no file.
    TableError
        As in `read_labels`.
    """
    if given is None and columns is None:
        return None
    if given is None:
        raise ParameterError("label_columns are given without labels; expected labels=FILE too")
    if not isinstance(given, Mapping):
        return read_labels(given, columns)
    if columns is not None:
        raise ParameterError("label_columns are given for a mapping; expected a CSV file for them")
    if not given or not all(isinstance(text, str) for pair in given.items() for text in pair):
        raise ParameterError(
            "labels are empty or not of text; expected the path of a CSV file, or a mapping of str"
            " to str"
        )
    for key, label in given.items():
        if trouble := text_trouble(key, "group") or text_trouble(label, "label"):
            raise ParameterError(f"the label {quote(label)} or its key {trouble}")
    return Labels("the labels", dict(given))


def _check_columns(columns: Sequence[str] | None) -> None:
    if columns is None:
        return
    if isinstance(columns, str) or len(columns) != 2 or not all(name.strip() for name in columns):
        raise ParameterError(
            f"label_columns {columns!r:.200}; expected the names of two columns, of keys and of"
            " labels"
        )


def _find_delimiter(source: Path) -> str:
    """Find what separates the names of the columns; what is within quotes does not."""
    try:
        with source.open("rb") as file:
            header = _QUOTED.sub(b"", file.readline(_HEADER_LIMIT))
    except OSError as error:
        raise TableError(f"{quote(source)} cannot be read: {error.strerror}") from error
    return max(_DELIMITERS, key=lambda delimiter: header.count(delimiter.encode()))


def _find_columns(source: Path, names: list[str], columns: Sequence[str] | None) -> tuple[int, int]:
    """Find the places of the columns of keys and labels."""
    if not any(names):
        raise TableError(f"{quote(source)} is empty, or its first line is; expected a header")
    numbers = [name for name in names if _NUMBER.fullmatch(name)]
    if numbers:
        raise TableError(
            f"{quote(source)} has the number {quote(numbers[0])} in its first line; expected the"
            " names of its columns there, such as patient and label"
        )
    if len(names) == 1:
        raise TableError(
            f"{quote(source)} has one column; expected one of keys and one of labels, separated by"
            " commas, semicolons or tabs"
        )
    if columns is None:
        if len(names) > 2:
            raise TableError(
                f"{quote(source)} has the columns {some(names, 12)}; name those of keys and labels"
                " with label_columns=KEY,LABEL"
            )
        return 0, 1
    folded = [name.casefold() for name in names]
    for name in columns:
        if folded.count(name.strip().casefold()) != 1:
            raise TableError(
                f"{quote(source)} has the columns {some(names, 12)}; expected one called"
                f" {quote(name)}"
            )
    key, label = (folded.index(name.strip().casefold()) for name in columns)
    if key == label:
        raise TableError(
            f"{quote(names[key])} cannot be both the column of keys and that of labels; name two"
        )
    return key, label


def _read_rows(
    source: Path,
    records: Iterator[tuple[list[str], int]],
    width: int,
    places: tuple[int, int],
) -> Iterator[tuple[str, str, int]]:
    """Yield the key, the label and the line of each row."""
    for cells, line in records:
        texts = [cell_text(cell) for cell in cells]
        if not any(texts):
            continue
        where = f"{quote(source)}, line {line}"
        if len(texts) != width:
            raise TableError(
                f"{where} has {len(texts)} fields where the header has {width}; put a field that"
                " contains the separator into quotes"
            )
        key, label = (texts[place] for place in places)
        if not key:
            raise TableError(f"{where} has no key; expected the name of a patient or a file")
        if trouble := text_trouble(key, "group"):
            raise TableError(f"{where}: the key {trouble}")
        label = "" if label.casefold() == _MISSING else label
        if trouble := text_trouble(label, "label"):
            raise TableError(f"{where}: the label {quote(label)} {trouble}")
        yield key, label, line
