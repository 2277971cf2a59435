"""The table of images: which files there are and what is known of each. No pixels."""

import csv
import os
import re
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NamedTuple, TextIO

import numpy as np
import numpy.typing as npt

from brainfeat.errors import TableError

SPLITS = ("train", "val", "test")
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")

_SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
_COLUMNS = ("path", "label", "split", "group", "source")
_LINE_LIMIT = 1_000_000  # characters; a "line" beyond it is no table and would fill the memory
_TEXT_LIMIT = {"path": 4096, "label": 1024, "group": 1024, "source": 1024}  # bytes of UTF-8
_QUOTE_LIMIT = 200  # characters of a name in a message
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
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
        for path in self.paths:
            if trouble := _path_trouble(path):
                raise TableError(f"The path {_quote(path)} {trouble}.")
        if unknown := set(self.splits) - {*SPLITS, ""}:
            raise TableError(f"Splits must be one of {SPLITS} or '', not {sorted(unknown)}.")
        if self.class_names != tuple(sorted(set(self.labels) - {""})):
            raise TableError("class_names must be the distinct labels, sorted.")
        if len(self.class_names) > _CLASS_LIMIT:
            raise TableError(
                f"{len(self.class_names):,} classes are more than the {_CLASS_LIMIT:,} that a cache"
                " can hold: is the label column the right one?"
            )

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

    Four layouts are understood:

    * a folder of class folders: ``glioma/1.jpg`` (a class folder may hold further folders);
    * a folder of split folders of class folders: ``Training/glioma/1.jpg``. A split folder is
      ``train`` or ``training``, ``val``, ``valid`` or ``validation``, ``test`` or ``testing``, in
      any case;
    * a folder of images only, which gives an unlabelled table;
    * a CSV file (UTF-8, comma-separated) with the columns ``path`` and ``label`` and, where
      wanted, ``split``, ``group`` and ``source``; paths are relative to the CSV's folder, with
      ``/``. Further columns are passed over. Rows keep their order.

    In a folder, images are the files that end in .jpg, .jpeg or .png, in any case, sorted by path.
    Hidden and other files are passed over and counted in `ImageTable.skipped`. A CSV may name a
    file of any ending: whether it is an image is then found when it is read.

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
        If the path does not exist, holds no images, mixes two layouts, or if the CSV is malformed,
        lists missing files, leads out of its folder or contradicts itself.

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
    if _is(source.is_dir):
        return _read_folder(source)
    if source.suffix.lower() in IMAGE_SUFFIXES:
        raise TableError(f"{_quote(source)} is one image; pass the folder of images or a CSV file.")
    if _is(source.is_file):
        return _read_csv(source)
    if _is(source.exists):
        raise TableError(f"{_quote(source)} is neither a folder nor a regular file; pass either.")
    raise TableError(
        f"{_quote(source)} does not exist or cannot be reached; pass a folder of images or a CSV"
        " file."
    )


class _Row(NamedTuple):
    path: str
    label: str = ""
    split: str = ""
    group: str = ""
    source: str = ""


def _build(root: Path, rows: Iterable[_Row], skipped: dict[str, int]) -> ImageTable:
    paths, labels, splits, groups, sources = zip(*rows, strict=True)
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


# ---------------------------------------------------------------------------------- text


def _quote(name: object) -> str:
    """Put a name in quotes, on one line and of bounded length whatever it contains."""
    text = str(name)
    return repr(text) if len(text) <= _QUOTE_LIMIT else f"{text[:_QUOTE_LIMIT]!r}…"


def _text_trouble(text: str, column: str) -> str | None:
    """Say what keeps a text out of a table, or None."""
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        return "is not UTF-8"
    if _CONTROL.search(text):
        return "contains a control character"
    if size > _TEXT_LIMIT[column]:
        return f"is longer than {_TEXT_LIMIT[column]:,} bytes"
    return None


def _path_trouble(path: str) -> str | None:
    """Say what keeps a path out of a table, or None."""
    pure = PurePosixPath(path)
    if pure.is_absolute():
        return "is absolute: paths must be relative to the table's folder"
    if ".." in pure.parts:
        return "leads out of its folder by '..': paths must stay below the table's folder"
    if not pure.parts:
        return "names no file"
    return _text_trouble(path, "path")


# ------------------------------------------------------------------------------- folders


def _counts(skipped: Counter[str]) -> str:
    """Say what was passed over."""
    counts = ", ".join(f"{reason} ({count:,})" for reason, count in sorted(skipped.items()))
    return f"passed over: {counts or 'nothing'}"


def _read_folder(root: Path) -> ImageTable:
    found = _walk(root)
    if not found.images:
        raise TableError(
            f"{_quote(root)} holds no images ({', '.join(IMAGE_SUFFIXES)});"
            f" {_counts(found.skipped)}."
        )
    rows: list[_Row] = []
    skipped = found.skipped
    for parts, row in _place_all(root, found):
        if row is None:
            skipped["outside the class folders"] += 1
        elif trouble := _text_trouble(row.label, "label"):
            raise TableError(
                f"The name of the class folder {_quote('/'.join(parts[:-1]))} {trouble}: rename it."
            )
        elif trouble := _text_trouble(row.path, "path"):
            skipped[f"name {trouble}"] += 1
        else:
            rows.append(row)
    if not rows:
        raise TableError(f"{_quote(root)}: no image has a usable name; {_counts(skipped)}.")
    return _build(root, sorted(rows), skipped)


class _Found(NamedTuple):
    folders: list[str]  # names, directly below the root
    images: list[tuple[str, ...]]  # the parts of each path below the root
    skipped: Counter[str]


def _walk(root: Path) -> _Found:
    """Find every image below a folder, following links but no folder twice."""
    found = _Found([], [], Counter())
    # A link to a parent of the root would lead through the whole disk.
    seen = {_identity(parent) for parent in root.resolve().parents if _is(parent.exists)}
    pending: deque[tuple[str, ...]] = deque([()])
    while pending:
        parts = pending.popleft()
        folder = root.joinpath(*parts)
        try:
            identity = _identity(folder)
            if identity in seen:
                found.skipped["folder seen before"] += 1
                continue
            with os.scandir(folder) as entries:
                listing = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            raise TableError(
                f"The folder {_quote(folder)} cannot be listed ({error.strerror}): make it"
                " readable or move it away."
            ) from error
        seen.add(identity)
        if len(parts) == 1:
            found.folders.append(parts[0])
        for entry in listing:
            _sort_in(entry, parts, found, pending)
    return found


def _sort_in(
    entry: os.DirEntry[str],
    parts: tuple[str, ...],
    found: _Found,
    pending: deque[tuple[str, ...]],
) -> None:
    here = (*parts, entry.name)
    if entry.name.startswith(".") or entry.name == "__MACOSX":
        found.skipped["hidden"] += 1
    elif _is(entry.is_dir):
        # Real folders come before links, so that a folder that is both keeps its real path.
        (pending.append if entry.is_symlink() else pending.appendleft)(here)
    elif Path(entry.name).suffix.lower() not in IMAGE_SUFFIXES:
        found.skipped["not an image"] += 1
    elif not _is(entry.is_file):
        found.skipped["broken link" if entry.is_symlink() else "not a regular file"] += 1
    else:
        found.images.append(here)


def _is(test: Callable[[], bool]) -> bool:
    try:
        return test()
    except OSError:  # a link to itself, or one through a folder that may not be entered
        return False


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino


def _place_all(root: Path, found: _Found) -> Iterator[tuple[tuple[str, ...], _Row | None]]:
    """Give the parts of each image's path with its row, or with None where no class holds it."""
    with_images = {parts[0] for parts in found.images if len(parts) > 1}
    split_folders = sorted(name for name in found.folders if name.lower() in _SPLIT_NAMES)
    class_folders = sorted(with_images - set(split_folders))
    _check_layout(root, found, split_folders, class_folders)
    depth = 2 if split_folders else 1 if class_folders else 0
    for parts in found.images:
        if len(parts) <= depth:
            yield parts, None
            continue
        yield (
            parts,
            _Row(
                path="/".join(parts),
                label=parts[depth - 1] if depth else "",
                split=_SPLIT_NAMES[parts[0].lower()] if depth == 2 else "",
            ),
        )


def _check_layout(
    root: Path, found: _Found, split_folders: list[str], class_folders: list[str]
) -> None:
    if split_folders and class_folders:
        raise TableError(
            f"{_quote(root)} mixes split folders ({_some(split_folders)}) and other folders"
            f" ({_some(class_folders)}): keep either split folders or class folders there."
        )
    filled = {parts[0] for parts in found.images if len(parts) > 2}
    for name in split_folders:
        if name not in filled:
            raise TableError(
                f"The split folder {_quote(root / name)} has no class folders with images: put its"
                " images into one folder a class, or move it away."
            )
    for parts in found.images if class_folders else ():
        if len(parts) > 2 and parts[1].lower() in _SPLIT_NAMES:
            raise TableError(
                f"{_quote(root)}: the class folder {_quote(parts[0])} holds the split folder"
                f" {_quote(parts[1])}: pass {_quote(root / parts[0])}, or put the split"
                " folders above the class folders."
            )


def _some(names: Iterable[str], limit: int = 5) -> str:
    """Name the first few."""
    names = list(names)
    rest = len(names) - limit
    return ", ".join(map(_quote, names[:limit])) + (f" and {rest:,} more" if rest > 0 else "")


# ----------------------------------------------------------------------------------- CSV


def _read_csv(source: Path) -> ImageTable:
    entries: dict[str, tuple[_Row, int]] = {}
    skipped: Counter[str] = Counter()
    for row, line in _csv_rows(source):
        known, known_line = entries.setdefault(row.path, (row, line))
        if known_line == line:
            continue
        if known != row:
            raise _contradiction(source, (known, known_line), (row, line))
        skipped["listed twice"] += 1
    rows = [row for row, _ in entries.values()]
    if not rows:
        raise TableError(f"{_quote(source)} lists no images: it has a header and no rows.")
    _check_splits(source, entries)
    _check_files(source, entries)
    return _build(source.parent, rows, skipped)


def _contradiction(source: Path, first: tuple[_Row, int], second: tuple[_Row, int]) -> TableError:
    column, one, other = next(
        (column, getattr(first[0], column), getattr(second[0], column))
        for column in _COLUMNS
        if getattr(first[0], column) != getattr(second[0], column)
    )
    return TableError(
        f"{_quote(source)}: {_quote(first[0].path)} is listed with the {column} {_quote(one)}"
        f" (line {first[1]}) and the {column} {_quote(other)} (line {second[1]}): keep one of them."
    )


def _check_splits(source: Path, entries: dict[str, tuple[_Row, int]]) -> None:
    without = [line for row, line in entries.values() if not row.split]
    if 0 < len(without) < len(entries):
        raise TableError(
            f"{_quote(source)}: {len(without):,} of {len(entries):,} rows have no split (the first"
            f" on line {without[0]}): give every row a split, or none."
        )


def _check_files(source: Path, entries: dict[str, tuple[_Row, int]]) -> None:
    missing = [
        f"{_quote(path)} (line {line})"
        for path, (_, line) in entries.items()
        if not _is(source.parent.joinpath(path).is_file)
    ]
    if missing:
        more = f" and {len(missing) - 3:,} more" if len(missing) > 3 else ""
        raise TableError(
            f"{_quote(source)}: {len(missing):,} of {len(entries):,} listed files are missing:"
            f" {', '.join(missing[:3])}{more}; paths are relative to {_quote(source.parent)}."
        )


def _csv_rows(source: Path) -> Iterator[tuple[_Row, int]]:
    """Give each row of a CSV file with its line number."""
    try:
        # utf-8-sig also reads files without a byte order mark.
        with source.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(_lines(file, source), strict=True)
            header = next(reader, [])
            columns = _read_header(header, source)
            for cells in reader:
                place = f"{_quote(source)}, line {reader.line_num}"
                if cells:  # an empty line has none
                    row = _read_row(cells, columns, width=len(header), place=place)
                    yield row, reader.line_num
    except UnicodeDecodeError as error:
        raise TableError(
            f"{_quote(source)} is not UTF-8 text ({error.reason}): save it as 'CSV UTF-8'."
        ) from error
    except csv.Error as error:
        raise TableError(f"{_quote(source)}, line {reader.line_num}: {error}.") from error
    except OSError as error:
        raise TableError(f"{_quote(source)} cannot be read: {error.strerror}.") from error


def _lines(file: TextIO, source: Path) -> Iterator[str]:
    number = 0
    while line := file.readline(_LINE_LIMIT):
        number += 1
        if len(line) == _LINE_LIMIT:
            raise TableError(
                f"{_quote(source)}, line {number} has {_LINE_LIMIT:,} characters or more: this is"
                " no table of images."
            )
        yield line


def _read_header(cells: list[str], source: Path) -> dict[str, int]:
    """Find the number of each column that is known."""
    names = [cell.strip().lower() for cell in cells]
    missing = [column for column in ("path", "label") if column not in names]
    if missing:
        for delimiter in (";", "\t", "|"):
            if any(delimiter in cell for cell in cells):
                raise TableError(
                    f"The fields of {_quote(source)} are separated by {delimiter!r}: save it with"
                    " commas."
                )
        raise TableError(
            f"{_quote(source)} has no column {' and no column '.join(map(repr, missing))}: its"
            f" first line must name path and label; it has {_some(cells) or 'nothing'}."
        )
    for column in _COLUMNS:
        if names.count(column) > 1:
            raise TableError(f"{_quote(source)} has the column {column!r} twice: keep one.")
    return {name: names.index(name) for name in _COLUMNS if name in names}


def _read_row(cells: list[str], columns: dict[str, int], *, width: int, place: str) -> _Row:
    if len(cells) != width:
        raise TableError(
            f"{place} has {len(cells)} fields where the header has {width}: put a field that"
            " contains a comma into quotes."
        )
    values = {name: cells[i].strip(" \t") for name, i in columns.items()}
    path = values.pop("path")
    if "\\" in path or re.match(r"[A-Za-z]:", path):
        raise TableError(
            f"{place}: the path {_quote(path)} must be relative, with / between its parts."
        )
    if trouble := _path_trouble(path):
        raise TableError(f"{place}: the path {_quote(path)} {trouble}.")
    for column in ("label", "group", "source"):
        if trouble := _text_trouble(values.get(column, ""), column):
            raise TableError(f"{place}: the {column} {_quote(values[column])} {trouble}.")
    if split := values.get("split"):
        values["split"] = _read_split(split, place)
    return _Row(path=str(PurePosixPath(path)), **values)


def _read_split(text: str, place: str) -> str:
    if text.lower() not in _SPLIT_NAMES:
        raise TableError(
            f"{place}: unknown split {_quote(text)}; use {', '.join(_SPLIT_NAMES)}, or leave"
            " all empty."
        )
    return _SPLIT_NAMES[text.lower()]
