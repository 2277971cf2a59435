"""The table of images: which images there are and what is known of each, without pixels."""

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath

import numpy as np
import numpy.typing as npt

from brainfeat.errors import ParameterError, TableError
from brainfeat.files import is_so
from brainfeat.readers.archives import find_archive
from brainfeat.readers.raster import IMAGE_SUFFIXES
from brainfeat.readers.series import detect_format
from brainfeat.tables.csv_rows import check_target, read_csv, write_rows
from brainfeat.tables.folders import CUT_VOLUMES, read_folder
from brainfeat.tables.labels import GivenLabels, take_labels
from brainfeat.tables.origin import SLICES_NOTE, SLICES_TABLE
from brainfeat.tables.patients import check_level
from brainfeat.tables.rows import (
    SPLITS,
    LeftOut,
    Row,
    check_appearance,
    csv_path_trouble,
    form_trouble,
    origin_trouble,
    path_trouble,
    quote,
    some,
    text_trouble,
)

_CLASS_LIMIT = np.iinfo(np.int16).max


@dataclass(frozen=True)
class ImageTable:
    """Images with their labels, splits, groups and sources: one row for each image, immutable.

    Parameters
    ----------
    root : Path
        The folder that `paths` are relative to.
    paths : tuple of str
        Path of each image, relative to `root`, with ``/`` between its parts on every system.
    labels : tuple of str
        Class of each image; ``""`` where it is unknown.
    splits : tuple of str
        ``"train"``, ``"val"`` or ``"test"``; ``""`` where the table has no splits.
    groups : tuple of str
        What must not be divided by a split, such as a patient; ``""`` where it is unknown.
    sources : tuple of str
        Where the image comes from, such as a scanner or a data set; ``""`` where it is unknown.
    class_names : tuple of str
        The distinct labels, sorted.
    skipped : dict of str to int
        How many files, folders and rows were skipped, by reason.
    left_out : dict of LeftOut to int
        The same, also by class folder and suffix.
    notes : tuple of str
        What of patients and their labels is probably a mistake, a sentence each.
    origins : tuple of str
        ``"generated"`` for an image that a program made, which is only trained on; else ``""``.
        Nothing at all stands for no such image.

    Raises
    ------
    TableError
        If the columns differ in length, or if a value is not as described above.
    """

    root: Path
    paths: tuple[str, ...]
    labels: tuple[str, ...]
    splits: tuple[str, ...]
    groups: tuple[str, ...]
    sources: tuple[str, ...]
    class_names: tuple[str, ...]
    skipped: dict[str, int]
    left_out: dict[LeftOut, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not any(self.origins):
            object.__setattr__(self, "origins", ("",) * len(self.paths))
        columns = (self.paths, self.labels, self.splits, self.groups, self.sources, self.origins)
        lengths = {len(column) for column in columns}
        if len(lengths) > 1:
            raise TableError(f"columns of {sorted(lengths)} rows; expected equally long ones")
        _check_paths(self.paths)
        _check_texts(label=self.labels, group=self.groups, source=self.sources)
        if unknown := set(self.splits) - {*SPLITS, ""}:
            raise TableError(
                f"unknown splits {some(sorted(unknown))}; expected {', '.join(SPLITS)} or ''"
            )
        if any(self.origins):
            _check_origins(self)
        if self.class_names != tuple(sorted(set(self.labels) - {""})):
            raise TableError("class_names are not the labels; expected the distinct labels, sorted")
        if len(self.class_names) > _CLASS_LIMIT:
            raise TableError(
                f"{len(self.class_names):,} classes; expected at most {_CLASS_LIMIT:,}, which is"
                " what a cache can hold; check that the label column is the right one"
            )
        check_appearance(self.class_names)

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def label_indices(self) -> npt.NDArray[np.int16]:
        """Index of each label in `class_names`, (n,) int16; −1 where the label is unknown."""
        index = {"": -1} | {name: i for i, name in enumerate(self.class_names)}
        return np.array([index[label] for label in self.labels], dtype=np.int16)

    @cached_property
    def has_splits(self) -> bool:
        """Whether the rows have splits."""
        return any(self.splits)

    def row(self, row: int) -> Row:
        """Return a row."""
        return Row(
            self.paths[row],
            self.labels[row],
            self.splits[row],
            self.groups[row],
            self.sources[row],
            self.origins[row],
        )

    def absolute_path(self, row: int) -> Path:
        """Return the absolute path of the image of a row."""
        return self.root.joinpath(self.paths[row]).absolute()


def read_table(
    path: str | os.PathLike[str],
    *,
    keep_masks: bool = False,
    group_level: int | None = None,
    labels: GivenLabels | None = None,
    label_columns: Sequence[str] | None = None,
) -> ImageTable:
    """Read a table of images from a folder or a CSV file.

    Five layouts are supported:

    * a folder of class folders: ``glioma/1.jpg`` (a class folder may hold further folders);
    * a folder of split folders of class folders: ``Training/glioma/1.jpg``. A split folder is
      ``train`` or ``training``, ``val``, ``valid`` or ``validation``, ``test`` or ``testing``, in
      any case;
    * a folder of images only, which gives a table without labels;
    * a folder that `brainfeat slices` made, whose ``table.csv`` is read;
    * a CSV file (UTF-8, comma-separated) with the columns ``path`` and ``label`` and, optionally,
      ``split``, ``group``, ``source`` and ``origin`` (``generated`` for an image that a program
      made, which is only trained on). Paths are relative to the folder of the CSV file, with ``/``
      between their parts. Further columns are ignored. Rows keep their order. An apostrophe that
      `write_table` put before a text is removed.

    In a folder, images are the files that end in .jpg, .jpeg, .jfif, .png, .tif, .tiff, .bmp, .gif
    or .webp, in any case, sorted by path. Hidden and other files are skipped and counted in
    `ImageTable.skipped`. A CSV file may list files with any suffix; whether they are images is
    found when they are read. Links are followed.

    In a folder, masks of other images are left out, because a head would learn from them where a
    tumour is: those in folders called ``mask``, ``masks``, ``seg``, ``segmentation`` or
    ``segmentations``; ``1_mask.png`` or ``1_seg.png`` beside ``1.png``; and pictures of two values
    beside images of the same size, as far as a look at few files finds them
    (:func:`brainfeat.tables.two_valued.find_two_valued`).

    Folders of patients, as in ``glioma/patient-7/1.png`` or, with labels by patient,
    ``patient-7/1.png``, become groups with `group_level`. Folders of one name are one group, also
    in two classes or splits. Labels come from a list with `labels`, and no folder is a class then.
    A key of the list matches a patient, or a file, whose name it is; or which is the same number;
    or whose name begins with it before a blank, ``_``, ``.`` or ``-``, and is in the group of the
    key then. What does not match has no label, and `ImageTable.notes` says so.

    Parameters
    ----------
    path : path-like
        The folder or the CSV file.
    keep_masks : bool, default=False
        Whether such images are kept. A CSV file is read as it is in either case.
    group_level : int or None
        Which folder above an image is its patient: 1 is the first one below `path`, 2 the one in
        it. None where no folder is a patient.
    labels : path-like, mapping of str to str, or None
        The class of each patient or, without `group_level`, of each image by its path, its name or
        its name without suffix: a CSV file with a header, separated by commas, semicolons or tabs.
    label_columns : sequence of two str, optional
        Names of the columns of keys and of classes in that file; needed where it has more than two.

    Returns
    -------
    ImageTable
        The images with what is known of each.

    Raises
    ------
    ParameterError
        If an option is not as described.
    TableError
        If the path does not exist, has no images, mixes two layouts, holds its own copy, has no
        folders of patients at the level, no image with a label in the list, a
        class folder whose files are no images or has two classes that look alike; or if the CSV
        file is malformed, lists missing files or files outside its folder, or contradicts itself.

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
    check_level(group_level)
    if is_so((source / SLICES_NOTE).is_file):
        _check_unused(source, group_level=group_level, labels=labels, label_columns=label_columns)
        return _build(source / SLICES_TABLE, *read_csv(source / SLICES_TABLE))
    if is_so(source.is_dir):
        return _build(
            source,
            *read_folder(
                source,
                keep_masks=keep_masks,
                group_level=group_level,
                labels=take_labels(labels, label_columns),
            ),
        )
    if source.suffix.lower() in IMAGE_SUFFIXES:
        raise TableError(f"{quote(source)} is one image; pass the folder of images or a CSV file")
    if is_so(source.is_file) and (kind := detect_format(source)):
        raise TableError(f"{quote(source)} is a volume ({kind}); {CUT_VOLUMES}")
    if archive := find_archive(source):
        raise TableError(
            f"{quote(source)} is an archive ({archive}); unpack it first, and pass the folder"
        )
    if is_so(source.is_file):
        _check_unused(source, group_level=group_level, labels=labels, label_columns=label_columns)
        return _build(source, *read_csv(source))
    if is_so(source.exists):
        raise TableError(f"{quote(source)} is neither a folder nor a regular file; pass either one")
    raise TableError(
        f"{quote(source)} does not exist or cannot be reached; pass a folder of images or a CSV"
        " file"
    )


def write_table(
    table: ImageTable, path: str | os.PathLike[str], *, overwrite: bool = False
) -> Path:
    """Write a table as a CSV file that `read_table` reads as the same table.

    The columns are path and label, and each of split, group, source and origin that any row has. A
    text that a spreadsheet would run as a formula, because it starts with ``=``, ``+``, ``-`` or
    ``@``, is written with an apostrophe before it. `ImageTable.skipped` is not written.

    Parameters
    ----------
    table : ImageTable
        The table.
    path : path-like
        The CSV file, which is written atomically: in the root of the table, or in a folder above
        it, in which case the paths include the folders between the two.
    overwrite : bool, default=False
        Whether an existing file may be replaced.

    Returns
    -------
    Path
        The file that was written.

    Raises
    ------
    TableError
        If the file exists or cannot be written, if the images are not below its folder, if a path
        would be read back as another one, or if only some rows have a split. Nothing is written
        in these cases.

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
    check_target(target, overwrite=overwrite)
    return write_rows(_rows_below(table, target), target, overwrite=overwrite)


def _check_paths(paths: tuple[str, ...]) -> None:
    for path in paths:
        if trouble := path_trouble(path) or form_trouble(path):
            raise TableError(f"the path {quote(path)} {trouble}")
    if len(set(paths)) < len(paths):
        (path, number), *_ = Counter(paths).most_common(1)
        raise TableError(f"the path {quote(path)} is listed {number:,} times; keep one")


def _check_origins(table: ImageTable) -> None:
    for row in map(table.row, range(len(table))):
        if trouble := origin_trouble(row):
            raise TableError(f"the image {quote(row.path)} {trouble}")


def _check_texts(**columns: tuple[str, ...]) -> None:
    for column, values in columns.items():
        for value in set(values):
            if trouble := text_trouble(value, column):
                raise TableError(f"the {column} {quote(value)} {trouble}")


def _check_unused(source: Path, **options: object) -> None:
    """Refuse options that say what the folders of images are, where a table says so."""
    given = [name for name, value in options.items() if value is not None]
    if given:
        raise ParameterError(
            f"{' and '.join(given)} cannot be used with {quote(source)}, whose table has the labels"
            " and groups; expected a folder of images"
        )


def _build(
    source: Path, rows: Iterable[Row], left_out: Counter[LeftOut], notes: Iterable[str] = ()
) -> ImageTable:
    paths, labels, splits, groups, sources, origins = zip(*rows, strict=True)
    root = source if source.is_dir() else source.parent
    skipped: Counter[str] = Counter()
    for kind, number in left_out.items():
        skipped[kind.reason] += number
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
            left_out=dict(sorted(left_out.items())),
            notes=tuple(notes),
            origins=origins,
        )
    except TableError as error:
        raise TableError(f"{quote(source)}: {error}") from error


def _rows_below(table: ImageTable, target: Path) -> list[Row]:
    """Return the rows of a table with paths relative to the folder of a CSV file."""
    between = _find_between(table.root, target.parent)
    if between is None:
        raise TableError(
            f"{quote(target)}: the images are in {quote(table.root)}, which is not below the folder"
            " of the file; write the table there or above"
        )
    if len(set(map(bool, table.splits))) > 1:
        raise TableError("only some rows have a split; give every row a split, or none")
    columns = (
        *(table.paths, table.labels, table.splits, table.groups, table.sources),
        table.origins,
    )
    rows = [Row(str(between / path), *texts) for path, *texts in zip(*columns, strict=True)]
    for row in rows:
        if trouble := csv_path_trouble(row.path):
            raise TableError(
                f"the path {quote(row.path)} in a CSV file {trouble}; rename the file or its folder"
            )
    return rows


def _find_between(root: Path, folder: Path) -> PurePosixPath | None:
    """Find the path from `folder` down to `root`; None if `root` is not below it."""
    pairs = ((root.resolve(), folder.resolve()), (root, folder.absolute()))
    for below, above in pairs:
        if below.is_relative_to(above) and ".." not in below.parts:
            return PurePosixPath(below.relative_to(above).as_posix())
    return None
