"""The table of images: which files there are and what is known of each. No pixels."""

import csv
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TextIO

import numpy as np
import numpy.typing as npt

from brainfeat.errors import TableError
from brainfeat.files import atomic_write, is_so
from brainfeat.readers.raster import IMAGE_SUFFIXES
from brainfeat.tables.csv_cells import cell_text, csv_cell
from brainfeat.tables.folders import SLICES_NOTE, SLICES_TABLE, read_folder
from brainfeat.tables.rows import (
    COLUMNS,
    SPLIT_NAMES,
    SPLITS,
    Row,
    check_appearance,
    csv_path_trouble,
    form_trouble,
    path_trouble,
    quote,
    some,
    text_trouble,
)

_ROW_LIMIT = 1_000_000  # characters; a row beyond it is no table and would fill the memory
_CLASS_LIMIT = np.iinfo(np.int16).max


@dataclass(frozen=True)
class ImageTable:
    """Images with their labels, splits, groups and sources; row by row, immutable.

    Parameters
    ----------
    root : Path
        The folder that `paths` are relative to.
    paths : tuple of str
        One a row, relative to `root`, with ``/`` between the parts on every system.
    labels : tuple of str
        The class of each row; ``""`` where it is not known.
    splits : tuple of str
        ``"train"``, ``"val"`` or ``"test"``; ``""`` where the table gives none.
    groups : tuple of str
        What must stay on one side of a split, such as a patient; ``""`` where it is not known.
    sources : tuple of str
        Where the row comes from, such as a scanner or a data set; ``""`` where it is not known.
    class_names : tuple of str
        The distinct labels, sorted.
    skipped : dict of str to int
        How many files and folders were passed over, by reason.

    Raises
    ------
    TableError
        If the columns differ in length, or a value breaks what is said above.
    """

    root: Path
    paths: tuple[str, ...]
    labels: tuple[str, ...]
    splits: tuple[str, ...]
    groups: tuple[str, ...]
    sources: tuple[str, ...]
    class_names: tuple[str, ...]
    skipped: dict[str, int]

    def __post_init__(self) -> None:
        columns = (self.paths, self.labels, self.splits, self.groups, self.sources)
        lengths = {len(column) for column in columns}
        if len(lengths) > 1:
            raise TableError(f"The columns of a table must be equally long, not {sorted(lengths)}.")
        _check_paths(self.paths)
        _check_texts(label=self.labels, group=self.groups, source=self.sources)
        if unknown := set(self.splits) - {*SPLITS, ""}:
            raise TableError(f"Splits must be one of {SPLITS} or '', not {some(sorted(unknown))}.")
        if self.class_names != tuple(sorted(set(self.labels) - {""})):
            raise TableError("class_names must be the distinct labels, sorted.")
        if len(self.class_names) > _CLASS_LIMIT:
            raise TableError(
                f"{len(self.class_names):,} classes are more than the {_CLASS_LIMIT:,} that a cache"
                " can hold: is the label column the right one?"
            )
        check_appearance(self.class_names)

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def label_indices(self) -> npt.NDArray[np.int16]:
        """Index of each row's label in `class_names`, −1 where it is not known; (n,) int16."""
        index = {"": -1} | {name: i for i, name in enumerate(self.class_names)}
        return np.array([index[label] for label in self.labels], dtype=np.int16)

    @property
    def has_splits(self) -> bool:
        """Whether the rows say which split they belong to."""
        return any(self.splits)

    def absolute_path(self, row: int) -> Path:
        """Give the place of the image of one row on this machine."""
        return self.root.joinpath(self.paths[row]).absolute()


def read_table(path: str | os.PathLike[str]) -> ImageTable:
    """Read which images there are from a folder or a CSV file.

    Five layouts are understood:

    * a folder of class folders: ``glioma/1.jpg`` (a class folder may hold further folders);
    * a folder of split folders of class folders: ``Training/glioma/1.jpg``. A split folder is
      ``train`` or ``training``, ``val``, ``valid`` or ``validation``, ``test`` or ``testing``, in
      any case;
    * a folder of images only, which gives an unlabelled table;
    * a folder that `brainfeat slices` made, of which its ``table.csv`` is read;
    * a CSV file (UTF-8, comma-separated) with the columns ``path`` and ``label`` and, where
      wanted, ``split``, ``group`` and ``source``; paths are relative to the CSV's folder, with
      ``/``. Further columns are passed over. Rows keep their order. An apostrophe that
      `write_table` put before a text is taken away.

    In a folder, images are the files that end in .jpg, .jpeg or .png, in any case, sorted by path.
    Hidden and other files are passed over and counted in `ImageTable.skipped`. A CSV may name a
    file of any ending: whether it is an image is then found when it is read. Links are followed.

    Parameters
    ----------
    path : path-like
        The folder or the CSV file.

    Returns
    -------
    ImageTable

    Raises
    ------
    TableError
        If the path does not exist, holds no images, mixes two layouts or has two classes that look
        alike, or if the CSV is malformed, lists missing files, leads out of its folder or
        contradicts itself.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> folder = Path(tempfile.mkdtemp())
    >>> for name in ("glioma/1.jpg", "notumor/2.PNG", "notumor/.DS_Store"):
    ...     (folder / name).parent.mkdir(exist_ok=True)
    ...     (folder / name).touch()
    >>> table = read_table(folder)
    >>> table.paths
    ('glioma/1.jpg', 'notumor/2.PNG')
    >>> table.class_names, table.skipped
    (('glioma', 'notumor'), {'hidden': 1})
    """
    source = Path(path)
    if is_so((source / SLICES_NOTE).is_file):
        return _read_csv(source / SLICES_TABLE)
    if is_so(source.is_dir):
        return _build(source, *read_folder(source))
    if source.suffix.lower() in IMAGE_SUFFIXES:
        raise TableError(f"{quote(source)} is one image; pass the folder of images or a CSV file.")
    if is_so(source.is_file):
        return _read_csv(source)
    if is_so(source.exists):
        raise TableError(f"{quote(source)} is neither a folder nor a regular file; pass either.")
    raise TableError(
        f"{quote(source)} does not exist or cannot be reached; pass a folder of images or a CSV"
        " file."
    )


def write_table(
    table: ImageTable, path: str | os.PathLike[str], *, overwrite: bool = False
) -> Path:
    """Write a table as a CSV file that `read_table` reads as the same table.

    The columns are path and label, and split, group and source where any row has one. A text that a
    spreadsheet would run as a formula, as it starts with ``=``, ``+``, ``-`` or ``@``, is written
    behind an apostrophe. What was passed over (`ImageTable.skipped`) is not written.

    Parameters
    ----------
    table : ImageTable
        The table.
    path : path-like
        The CSV file: in the root of the table, or in a folder above it, where the paths are then
        written with the folders between. It appears whole or not at all.
    overwrite : bool, default=False
        Whether a file that is there may be replaced.

    Returns
    -------
    Path
        The file that was written.

    Raises
    ------
    TableError
        If the file exists or cannot be written, if the images are not below its folder, if a path
        would be read as another one, or if only some rows have a split. Nothing is changed then.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> folder = Path(tempfile.mkdtemp())
    >>> (folder / "=glioma").mkdir()
    >>> (folder / "=glioma" / "1.jpg").touch()
    >>> table = read_table(folder)
    >>> print(write_table(table, folder / "table.csv").read_text())
    path,label
    '=glioma/1.jpg,'=glioma
    <BLANKLINE>
    >>> read_table(folder / "table.csv") == table
    True
    """
    target = Path(path)
    _check_target(target, overwrite=overwrite)
    return write_rows(_rows_below(table, target), target, overwrite=overwrite)


def write_rows(
    rows: Sequence[Row], target: Path, *, overwrite: bool = False, **more: Sequence[str]
) -> Path:
    """Write rows as `write_table` does, wherever their images are, with more columns behind.

    Raises
    ------
    TableError
        If the file exists or cannot be written. Nothing is changed then.
    """
    _check_target(target, overwrite=overwrite)
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
                texts = [getattr(row, name) for name in columns]
                writer.writerow(map(csv_cell, [*texts, *others]))
    except OSError as error:
        raise TableError(f"{quote(target)} cannot be written: {error.strerror}.") from error
    return target


def _check_target(target: Path, *, overwrite: bool) -> None:
    if not is_so(target.parent.is_dir):
        raise TableError(f"{quote(target)}: there is no folder {quote(target.parent)}.")
    if is_so(target.is_dir) or (os.path.lexists(target) and not overwrite):
        raise TableError(f"{quote(target)} exists: name another file or pass overwrite=True.")


def _check_paths(paths: tuple[str, ...]) -> None:
    for path in paths:
        if trouble := path_trouble(path) or form_trouble(path):
            raise TableError(f"The path {quote(path)} {trouble}.")
    if len(set(paths)) < len(paths):
        (path, number), *_ = Counter(paths).most_common(1)
        raise TableError(f"The path {quote(path)} is listed {number:,} times: keep one.")


def _check_texts(**columns: tuple[str, ...]) -> None:
    for column, values in columns.items():
        for value in set(values):
            if trouble := text_trouble(value, column):
                raise TableError(f"The {column} {quote(value)} {trouble}.")


def _build(source: Path, rows: Iterable[Row], skipped: dict[str, int]) -> ImageTable:
    paths, labels, splits, groups, sources = zip(*rows, strict=True)
    root = source if source.is_dir() else source.parent
    try:
        return ImageTable(
            root=root.absolute(),
            paths=paths,
            labels=labels,
            splits=splits,
            groups=groups,
            sources=sources,
            class_names=tuple(sorted(set(labels) - {""})),
            skipped=dict(sorted(skipped.items())),
        )
    except TableError as error:
        raise TableError(f"{quote(source)}: {error}") from error


def read_rows(path: str | os.PathLike[str]) -> list[Row]:
    """Read the rows of a CSV file as `read_table` does, whether their images are there or not.

    Raises
    ------
    TableError
        As in `read_table`.
    """
    entries, _ = _read_entries(Path(path))
    return [row for row, _ in entries.values()]


def read_column(path: str | os.PathLike[str], name: str) -> dict[str, str]:
    """Read one column of a CSV file, such as one that no other command looks at.

    Returns
    -------
    dict of str to str
        The cell of each image, by path.

    Raises
    ------
    TableError
        As in `read_table`; there is no such column, or two cells for one image.
    """
    source = Path(path)
    records = _csv_cells(source)
    header, _ = next(records, ([], 1))
    columns = _read_header(header, source)
    names = [cell.strip().lower() for cell in header]
    if names.count(name.strip().lower()) != 1:
        raise TableError(
            f"{quote(source)} must have one column {quote(name)}; it has {some(names)}."
        )
    place = names.index(name.strip().lower())
    values: dict[str, str] = {}
    for cells, line in records:
        row = _read_row(cells, columns, header=header, source=source, line=line)
        value = cell_text(cells[place])
        if values.setdefault(row.path, value) != value:
            raise TableError(
                f"{quote(source)}, line {line}: {quote(row.path)} has another {name} above it."
            )
    return values


def _read_csv(source: Path) -> ImageTable:
    entries, skipped = _read_entries(source)
    _check_files(source, entries)
    return _build(source, [row for row, _ in entries.values()], skipped)


def _read_entries(source: Path) -> tuple[dict[str, tuple[Row, int]], Counter[str]]:
    entries: dict[str, tuple[Row, int]] = {}
    skipped: Counter[str] = Counter()
    for row, line in _csv_rows(source):
        known, known_line = entries.setdefault(row.path, (row, line))
        if known_line == line:
            continue
        if known != row:
            raise _contradiction(source, (known, known_line), (row, line))
        skipped["listed twice"] += 1
    if not entries:
        raise TableError(f"{quote(source)} lists no images: it has a header and no rows.")
    _check_splits(source, entries)
    return entries, skipped


def _contradiction(source: Path, first: tuple[Row, int], second: tuple[Row, int]) -> TableError:
    column, one, other = next(
        (column, getattr(first[0], column), getattr(second[0], column))
        for column in COLUMNS
        if getattr(first[0], column) != getattr(second[0], column)
    )
    return TableError(
        f"{quote(source)}: {quote(first[0].path)} is listed with the {column} {quote(one)}"
        f" (line {first[1]}) and the {column} {quote(other)} (line {second[1]}): keep one of them."
    )


def _check_splits(source: Path, entries: dict[str, tuple[Row, int]]) -> None:
    without = [line for row, line in entries.values() if not row.split]
    if 0 < len(without) < len(entries):
        raise TableError(
            f"{quote(source)}: {len(without):,} of {len(entries):,} rows have no split (the first"
            f" on line {without[0]}): give every row a split, or none."
        )


def _check_files(source: Path, entries: dict[str, tuple[Row, int]]) -> None:
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
            f" {', '.join(first)}{more}; paths are relative to {quote(source.parent)}."
        )


def _csv_rows(source: Path) -> Iterator[tuple[Row, int]]:
    """Give each row of a CSV file with the number of its first line."""
    records = _csv_cells(source)
    header, _ = next(records, ([], 1))
    columns = _read_header(header, source)
    for cells, line in records:
        yield _read_row(cells, columns, header=header, source=source, line=line), line


def _csv_cells(source: Path) -> Iterator[tuple[list[str], int]]:
    """Give the cells of the header, then of each row that has some, with their first line."""
    line = 1

    def lines(file: TextIO) -> Iterator[str]:
        begun = size = 0
        while text := file.readline(_ROW_LIMIT):
            begun, size = line, len(text) + (size if begun == line else 0)
            if size >= _ROW_LIMIT:
                raise TableError(
                    f"{quote(source)}, line {line} has {_ROW_LIMIT:,} characters or more, with the"
                    " lines that its quotes join to it: this is no table of images."
                )
            yield text

    try:
        # utf-8-sig also reads files without a byte order mark.
        with source.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(lines(file), strict=True)
            for number, cells in enumerate(reader):
                if cells or not number:  # an empty line has none
                    yield cells, line
                line = reader.line_num + 1
    except UnicodeDecodeError as error:
        raise TableError(
            f"{quote(source)} is not UTF-8 text ({error.reason}): save it as 'CSV UTF-8'."
        ) from error
    except csv.Error as error:
        raise TableError(
            f"{quote(source)}, line {line}: {error}; in the row that begins there, is a quote left"
            " open?"
        ) from error
    except OSError as error:
        raise TableError(f"{quote(source)} cannot be read: {error.strerror}.") from error


def _read_header(cells: list[str], source: Path) -> dict[str, int]:
    """Find the number of each column that is known."""
    if any("\0" in cell for cell in cells):
        raise TableError(
            f"{quote(source)} is not UTF-8 text (it holds NUL characters, as UTF-16 does): save it"
            " as 'CSV UTF-8'."
        )
    names = [cell.strip().lower() for cell in cells]
    missing = [column for column in ("path", "label") if column not in names]
    if missing:
        for delimiter in (";", "\t", "|"):
            if any(delimiter in cell for cell in cells):
                raise TableError(
                    f"The fields of {quote(source)} are separated by {delimiter!r}: save it with"
                    " commas."
                )
        raise TableError(
            f"{quote(source)} has no column {' and no column '.join(map(repr, missing))}: its"
            f" first line must name path and label; it has {some(cells) or 'nothing'}."
        )
    for column in COLUMNS:
        if names.count(column) > 1:
            raise TableError(f"{quote(source)} has the column {column!r} twice: keep one.")
    return {name: names.index(name) for name in COLUMNS if name in names}


def _read_row(
    cells: list[str], columns: dict[str, int], *, header: list[str], source: Path, line: int
) -> Row:
    place = f"{quote(source)}, line {line}"
    if len(cells) != len(header):
        raise TableError(
            f"{place} has {len(cells)} fields where the header has {len(header)}: put a field that"
            " contains a comma into quotes."
        )
    values = {name: cell_text(cells[i]) for name, i in columns.items()}
    path = values.pop("path")
    if trouble := csv_path_trouble(path):
        raise TableError(f"{place}: the path {quote(path)} {trouble}.")
    for column in ("label", "group", "source"):
        if trouble := text_trouble(values.get(column, ""), column):
            raise TableError(f"{place}: the {column} {quote(values[column])} {trouble}.")
    if split := values.get("split"):
        values["split"] = _read_split(split, place)
    return Row(path=str(PurePosixPath(path)), **values)


def _read_split(text: str, place: str) -> str:
    if text.lower() not in SPLIT_NAMES:
        raise TableError(
            f"{place}: unknown split {quote(text)}; use {', '.join(SPLIT_NAMES)}, or leave"
            " all empty."
        )
    return SPLIT_NAMES[text.lower()]


def _rows_below(table: ImageTable, target: Path) -> list[Row]:
    """Give the rows of a table with their paths relative to the folder of a CSV file."""
    between = _find_between(table.root, target.parent)
    if between is None:
        raise TableError(
            f"{quote(target)}: the images are in {quote(table.root)}, which is not below its"
            " folder: write the table there or above."
        )
    if len(set(map(bool, table.splits))) > 1:
        raise TableError("Only some rows have a split: give every row a split, or none.")
    columns = (table.paths, table.labels, table.splits, table.groups, table.sources)
    rows = [Row(str(between / path), *texts) for path, *texts in zip(*columns, strict=True)]
    for row in rows:
        if trouble := csv_path_trouble(row.path):
            raise TableError(
                f"The path {quote(row.path)} in a CSV {trouble}: rename the file or its folder."
            )
    return rows


def _find_between(root: Path, folder: Path) -> PurePosixPath | None:
    """Find the path from a folder down to another, or None."""
    pairs = ((root.resolve(), folder.resolve()), (root, folder.absolute()))
    for below, above in pairs:
        if below.is_relative_to(above) and ".." not in below.parts:
            return PurePosixPath(below.relative_to(above).as_posix())
    return None
