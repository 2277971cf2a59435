"""The layout of a folder of images: which of its folders are splits and which are classes."""

from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from brainfeat.errors import TableError
from brainfeat.tables.masks import is_mask_folder
from brainfeat.tables.rows import SPLIT_NAMES, Parts, quote, some, suffix_of
from brainfeat.tables.two_valued import TWO_VALUED

EMPTY = "class folder without images"
HIDDEN = "hidden"

# Suffixes of files that stand beside images and are none. A folder that holds only these is no
# class; one whose files are of any other kind may be a class in a format that is not read.
_DOCUMENTS = frozenset(
    (
        *(".csv", ".tsv", ".xls", ".xlsx", ".db", ".h5", ".lock", ".log"),
        *(".txt", ".md", ".rst", ".pdf", ".doc", ".docx", ".html"),
        *(".json", ".xml", ".yaml", ".yml", ".toml", ".ini", ".cfg", ".py", ".ipynb", ".sh"),
    )
)


class Contents(NamedTuple):
    """What is below a folder.

    Attributes
    ----------
    folders : list of tuple of str
        The folders one and two levels below it.
    images : list of tuple of str
        The images.
    left_out : list of (tuple of str, str)
        Everything else that is not entered, with the reason.
    """

    folders: list[Parts]
    images: list[Parts]
    left_out: list[tuple[Parts, str]]


class Layout(NamedTuple):
    """What the first folders above an image are: its split, its class, both in this order, or none.

    Attributes
    ----------
    splits, classes : bool
        Whether there are folders of splits, and of classes.
    """

    splits: bool
    classes: bool

    @property
    def depth(self) -> int:
        """How many folders these are."""
        return self.splits + self.classes


def find_layout(root: Path, found: Contents, *, labelled: bool = False) -> Layout:
    """Find what the first folders are.

    Parameters
    ----------
    root : Path
        The folder, for messages.
    found : Contents
        What is below it.
    labelled : bool, default=False
        Whether classes come from elsewhere, so that no folders are classes.

    Returns
    -------
    Layout

    Raises
    ------
    TableError
        If the folders mix two layouts, or one of them holds the others again.
    """
    top = {parts[0] for parts in found.folders if len(parts) == 1}
    with_images = {parts[0] for parts in found.images if len(parts) > 1}
    split_folders = sorted(name for name in top if name.lower() in SPLIT_NAMES)
    class_folders = sorted(with_images - set(split_folders))
    if labelled:
        split_folders = [name for name in split_folders if name in with_images]
    else:
        _check_copy(root, found.images, split_folders, class_folders)
    if split_folders and class_folders:
        raise TableError(
            f"{quote(root)} mixes split folders ({some(split_folders)}) and other folders"
            f" ({some(class_folders)}); keep one kind of folders there"
        )
    if labelled:
        return Layout(bool(split_folders), classes=False)
    filled = {parts[0] for parts in found.images if len(parts) > 2}
    for name in split_folders:
        if name not in filled:
            raise TableError(
                f"the split folder {quote(root / name)} has no class folders with images; put its"
                " images into one folder for each class, or move it away"
            )
    if class_folders:
        _check_inner_splits(root, found.images)
    return Layout(bool(split_folders), classes=bool(split_folders or class_folders))


def find_empty(root: Path, found: Contents, depth: int) -> list[Parts]:
    """Find the class folders without images.

    Parameters
    ----------
    root : Path
        The folder, for messages.
    found : Contents
        What is below it.
    depth : int
        As that of the `Layout`.

    Returns
    -------
    list of tuple of str
        Those without files, and those with documents only.

    Raises
    ------
    TableError
        If all files of a class folder were left out, and it holds more than documents.
    """
    level = max(depth, 1)
    filled = {parts[:level] for parts in found.images if len(parts) > level}
    others: defaultdict[Parts, Counter[tuple[str, str]]] = defaultdict(Counter)
    for parts, reason in found.left_out:
        if len(parts) > level and reason != HIDDEN:
            others[parts[:level]][reason, suffix_of(parts[-1])] += 1
    empty = []
    for folder in sorted(parts for parts in found.folders if len(parts) == level):
        if folder in filled or is_mask_folder(folder[-1]):
            continue
        if {reason for reason, _ in others[folder]} == {TWO_VALUED}:
            continue
        if depth == 2 and folder[0].lower() not in SPLIT_NAMES:
            continue
        if any(suffix not in _DOCUMENTS for _, suffix in others[folder]):
            raise TableError(
                f"the class folder {quote(root.joinpath(*folder))} has no images that can be read,"
                f" only {_describe(others[folder])}; convert them to PNG or JPEG, or move the"
                " folder away"
            )
        empty.append(folder)
    return empty


def _describe(others: Counter[tuple[str, str]]) -> str:
    """Describe files by number, suffix and reason."""
    shown = [
        f"{number:,} {suffix or 'without suffix'} ({reason})"
        for (reason, suffix), number in others.most_common(5)
    ]
    return ", ".join(shown) + (" and others" if len(others) > len(shown) else "")


def _check_copy(
    root: Path, images: Iterable[Parts], split_folders: list[str], class_folders: list[str]
) -> None:
    """Refuse a folder that holds what is also beside it, as some archives unpack."""
    inner: defaultdict[str, set[str]] = defaultdict(set)
    direct = {parts[0] for parts in images if len(parts) == 2}
    for parts in images:
        if len(parts) > 2:
            inner[parts[0]].add(parts[1].lower())
    for name in class_folders:
        beside = {other.lower() for other in (*split_folders, *class_folders) if other != name}
        if name not in direct and inner[name] and inner[name] <= beside:
            raise TableError(
                f"{quote(root)} has {some(sorted(inner[name]))} twice: there, and below"
                f" {quote(name)}, which is a copy or a second set; move {quote(name)} away, or pass"
                f" {quote(root / name)}"
            )


def _check_inner_splits(root: Path, images: Iterable[Parts]) -> None:
    """Refuse class folders that hold split folders."""
    inner = {parts[:2]: parts[2:] for parts in sorted(images, key=len) if len(parts) > 2}
    for (name, split), rest in inner.items():
        if split.lower() not in SPLIT_NAMES:
            continue
        if len(rest) == 1:
            raise TableError(
                f"{quote(root)}: the folder {quote(name)} has the split folder {quote(split)},"
                f" whose images are in no class folders; move {quote(name)} away"
            )
        raise TableError(
            f"{quote(root)}: the class folder {quote(name)} has the split folder {quote(split)};"
            f" pass {quote(root / name)}, or put the split folders above the class folders"
        )
