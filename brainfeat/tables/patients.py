"""Patients of a folder of images: the groups that its folders are, and the labels of a list."""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath

from brainfeat.errors import ParameterError, TableError
from brainfeat.tables.label_matching import Matching, Names, find_matches, match_labels
from brainfeat.tables.labels import Labels
from brainfeat.tables.layout import Layout
from brainfeat.tables.rows import Parts, Row, quote, some
from brainfeat.text import count

_DIGITS = re.compile("[0-9]+")
# Classes are named as patients where three or more have a number of four digits, as TCGA_CS_4941;
# where three or more have a number of two digits and differ mostly in it, as sub-01; and where
# twelve or more differ mostly in a number of one digit. Grades and types are fewer.
_FEW_CLASSES = 3
_MANY_CLASSES = 12
_LONG_NUMBER = 4
# Folders of one class that are more than planes and sequences have, where few have a number.
_MANY_FOLDERS = 6
_LEVELS = 8  # that are tried where a list of labels names folders


def check_level(level: int | None) -> None:
    """Reject what is not a level of folders.

    Raises
    ------
    ParameterError
        If the level is below 1, or no whole number.
    """
    if level is None or (isinstance(level, int) and not isinstance(level, bool) and level >= 1):
        return
    raise ParameterError(
        f"group_level is {level!r:.80}; expected 1 for the folders directly below the data, 2 for"
        " those in them, and so on"
    )


def check_place(root: Path, level: int, layout: Layout, images: Iterable[Parts]) -> None:
    """Reject a level of patient folders that are classes or splits, or that hold no image.

    Raises
    ------
    TableError
        If there are no patient folders at this level.
    """
    if level <= layout.depth:
        kind = "split" if layout.splits and level == 1 else "class"
        remedy = "" if kind == "split" else ", or labels=FILE with the class of each patient"
        raise TableError(
            f"the folders of level {level} of {quote(root)} are its {kind} folders; expected"
            f" group_level={layout.depth + 1} or higher{remedy}"
        )
    deepest = max(map(len, images)) - 1
    if level > deepest:
        raise TableError(
            f"{quote(root)} has no image in a folder of level {level}; the deepest is in one of"
            f" level {deepest}; pass the level of the patients' folders as group_level=N"
        )


def group_rows(rows: Iterable[Row], level: int) -> list[Row]:
    """Give each image its folder of a level as group; ``""`` where it is in none.

    Folders of one name are one group, in whatever class or split they are: a patient can have
    slices with and without a tumour.
    """
    grouped = []
    for row in rows:
        folders = PurePosixPath(row.path).parts[:-1]
        name = folders[level - 1] if len(folders) >= level else ""
        grouped.append(row._replace(group=name))
    return grouped


def label_rows(
    rows: Sequence[Row], labels: Labels, *, level: int | None
) -> tuple[list[Row], list[str]]:
    """Give images the labels of their patients, or their own.

    Parameters
    ----------
    rows : sequence of Row
        The images, which have groups where there is a level.
    labels : Labels
        Classes by patient, or by file.
    level : int or None
        The level of the patients' folders; None for labels by file.

    Returns
    -------
    rows : list of Row
        With labels. Images that are matched by the start of a name are a group, which is the key.
    notes : list of str
        What does not match.

    Raises
    ------
    TableError
        If no key matches, or a key is the name of several files.
    """
    if level is None:
        matching = _match_files(rows, labels)
    else:
        names = [(row.group,) if row.group else () for row in rows]
        matching = match_labels(labels, names, noun="patient", named=True)
    labelled = [
        row._replace(label=label, group=match.key if match and match.how == "start" else row.group)
        for row, label, match in zip(rows, matching.classes, matching.matches, strict=True)
    ]
    return labelled, list(matching.describe(named=True))


def _match_files(rows: Sequence[Row], labels: Labels) -> Matching:
    names = [_name_file(row.path) for row in rows]
    if not any(find_matches(labels, names)):
        _check_folders(rows, labels)
    matching = match_labels(labels, names, noun="image", named=True)
    paths: defaultdict[str, list[str]] = defaultdict(list)
    for row, match in zip(rows, matching.matches, strict=True):
        if match and match.how != "start":
            paths[match.key].append(row.path)
    for key, found in paths.items():
        if len(found) > 1:
            raise TableError(
                f"{quote(key)} of {quote(labels.source)} is the name of {len(found):,} images,"
                f" {some(found, 3)}; list their paths below the folder, or pass group_level=N if"
                " patients have folders"
            )
    return matching


def _name_file(path: str) -> Names:
    """Name a file as lists do: by its path or its name, with and without suffix."""
    pure = PurePosixPath(path)
    return tuple(dict.fromkeys((path, str(pure.with_suffix("")), pure.name, pure.stem)))


def _check_folders(rows: Sequence[Row], labels: Labels) -> None:
    """Say at which level the folders are that a list of labels names."""
    folders = [PurePosixPath(row.path).parts[:-1] for row in rows]
    for level in range(1, min(_LEVELS, max(map(len, folders))) + 1):
        names = {parts[level - 1] for parts in folders if len(parts) >= level}
        if found := sum(match is not None for match in find_matches(labels, [(n,) for n in names])):
            raise TableError(
                f"the keys of {quote(labels.source)} are not those of images, but"
                f" {count(found, 'folder')} of level {level} {'have' if found > 1 else 'has'} one;"
                f" if each is a patient, pass group_level={level}"
            )


def find_doubtful(rows: Sequence[Row], *, level: int | None, by_folder: bool) -> Iterator[str]:
    """Describe what about the groups is probably a mistake, a sentence each.

    Parameters
    ----------
    rows : sequence of Row
        The images.
    level : int or None
        The level of the patients' folders; None where groups come from a list of labels.
    by_folder : bool
        Whether classes are folders too, so that a patient can be in two of them.
    """
    without = [row.path for row in rows if not row.group]
    if without and level is not None:
        yield (
            f"{count(len(without), 'image')} in no folder of level {level}, such as"
            f" {quote(without[0])}; each is a group of its own"
        )
    classes, splits = defaultdict(set), defaultdict(set)
    for row in rows:
        if row.group:
            classes[row.group].add(row.label)
            splits[row.group].add(row.split)
    several = sorted(group for group, names in classes.items() if len(names) > 1)
    if by_folder and several:
        yield (
            f"{count(len(several), 'patient folder')} of one name in several classes, such as"
            f" {quote(several[0])} in {some(sorted(classes[several[0]]))}; each name is one group;"
            " if they are different patients, rename the folders"
        )
    several = sorted(group for group, names in splits.items() if len(names) > 1)
    if several:
        yield (
            f"{count(len(several), 'patient')} in several splits, such as {quote(several[0])} in"
            f" {some(sorted(splits[several[0]]))}; write a new split, which divides no patient"
        )


def suspect_patients(
    paths: Sequence[str], labels: Sequence[str], groups: Sequence[str]
) -> Iterator[str]:
    """Describe classes that are probably patients, and folders in them that may be.

    Parameters
    ----------
    paths, labels, groups : sequence of str
        Of images.

    Examples
    --------
    >>> paths = [f"TCGA_CS_{n}/{slice}.png" for n in (4941, 4942, 4943) for slice in (1, 2)]
    >>> labels = [path.split("/")[0] for path in paths]
    >>> for sentence in suspect_patients(paths, labels, [""] * 6):
    ...     print(sentence.split("; ")[0])
    the 3 classes are named as patients, such as 'TCGA_CS_4941'
    """
    classes = sorted(set(labels) - {""})
    if any(groups):
        if len(classes) > 1 and have_one_group(labels, groups):
            yield (
                f"the {len(classes):,} classes have one group each, as where patients are read as"
                " classes; if they are patients, give each its class with labels=FILE where their"
                " folders are read, or in the column of labels"
            )
        return
    folders = [path.split("/")[:-1] for path, label in zip(paths, labels, strict=True) if label]
    level = _find_class_level(folders, [label for label in labels if label])
    if not level:
        return
    if _look_like_patients(classes):
        yield (
            f"the {len(classes):,} classes are named as patients, such as {quote(classes[0])}; if"
            f" they are, pass group_level={level} and labels=FILE with the class of each patient"
        )
        return
    inner = {tuple(names[: level + 1]) for names in folders}
    if all(len(names) > level for names in inner) and len(inner) > len(classes):
        numbered = sum(_DIGITS.search(names[-1]) is not None for names in inner)
        if 2 * numbered > len(inner) or len(inner) > _MANY_FOLDERS * len(classes):
            yield (
                f"each class has only folders of images, {len(inner):,} in all; if each is a"
                f" patient, pass group_level={level + 1}, so that no split divides one"
            )


def have_one_group(labels: Sequence[str], groups: Sequence[str]) -> bool:
    """Return whether each class is one group, and each group one class."""
    pairs = {pair for pair in zip(labels, groups, strict=True) if pair[0]}
    return all(group for _, group in pairs) and len(pairs) == len(dict(pairs)) == len(
        {group for _, group in pairs}
    )


def _find_class_level(folders: Sequence[Sequence[str]], labels: Sequence[str]) -> int:
    """Find the level of the folders that are classes; 0 where they are not folders."""
    for level in (1, 2):
        if folders and all(
            names[level - 1 : level] == [label]
            for names, label in zip(folders, labels, strict=True)
        ):
            return level
    return 0


def _look_like_patients(names: Sequence[str]) -> bool:
    """Return whether names are numbered as those of patients are, and not as grades or types."""
    longest = min(max((len(n) for n in _DIGITS.findall(name)), default=0) for name in names)
    patterns = {_DIGITS.sub("0", name) for name in names}
    if longest >= _LONG_NUMBER:
        return len(names) >= _FEW_CLASSES
    alike = longest > 0 and len(patterns) <= len(names) / _FEW_CLASSES
    return alike and len(names) >= (_FEW_CLASSES if longest > 1 else _MANY_CLASSES)
