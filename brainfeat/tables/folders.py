"""The images below a folder; its layout gives their classes and splits."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from brainfeat.errors import TableError
from brainfeat.files import is_so
from brainfeat.readers.listing import walk_folders
from brainfeat.readers.raster import IMAGE_SUFFIXES
from brainfeat.readers.series import FORMAT_NAMES, has_volumes
from brainfeat.tables.labels import Labels
from brainfeat.tables.layout import EMPTY, HIDDEN, Contents, Layout, find_empty, find_layout
from brainfeat.tables.masks import MASK, find_masks
from brainfeat.tables.patients import check_place, find_doubtful, group_rows, label_rows
from brainfeat.tables.rows import SPLIT_NAMES, LeftOut, Parts, Row, quote, suffix_of, text_trouble
from brainfeat.tables.two_valued import TWO_VALUED, find_two_valued

CUT_VOLUMES = (
    "cut volumes into slices first, with brainfeat slices or write_slices; brainfeat extract takes"
    " them as they are, and in Python read_volumes does"
)

_OTHER = "not an image"


class FolderRows(NamedTuple):
    """What a folder holds.

    Attributes
    ----------
    rows : list of Row
        One for each image, sorted by path.
    left_out : Counter of LeftOut
        How many files and folders were left out, by reason, class folder and suffix.
    notes : list of str
        What of patients and labels is probably a mistake.
    """

    rows: list[Row]
    left_out: Counter[LeftOut]
    notes: list[str]


def read_folder(
    root: Path,
    *,
    keep_masks: bool = False,
    group_level: int | None = None,
    labels: Labels | None = None,
) -> FolderRows:
    """Read the rows of the images below a folder.

    Parameters
    ----------
    root : Path
        The folder, which is walked once.
    keep_masks : bool, default=False
        Whether masks of other images are kept.
    group_level : int or None
        Level of the folders of patients, from 1; None where no folders are patients.
    labels : Labels or None
        Classes of patients or images; None where folders are classes.

    Returns
    -------
    FolderRows

    Raises
    ------
    TableError
        If a folder cannot be listed, there are no images, all files of a class were left out, or
        the layout is not one that :func:`brainfeat.read_table` supports.
    """
    found = _walk(root)
    if not found.images:
        images, skipped = ", ".join(IMAGE_SUFFIXES), _describe_left_out(_count(found.left_out, 0))
        if has_volumes(root):
            raise TableError(f"{quote(root)} has no images ({images}); {skipped}; {CUT_VOLUMES}")
        volumes = ", ".join(FORMAT_NAMES.values())
        raise TableError(
            f"{quote(root)} has no images ({images}) and no volumes ({volumes}); {skipped}"
        )
    if not keep_masks:
        _leave_out_masks(root, found)
    layout = find_layout(root, found, labelled=labels is not None)
    empty = find_empty(root, found, layout.depth) if labels is None else []
    if group_level is not None:
        check_place(root, group_level, layout, found.images)
    rows = sorted(_take_rows(found, layout))
    left_out = _count(found.left_out, layout.depth)
    left_out.update(LeftOut(EMPTY, "/".join(parts)) for parts in empty)
    if not rows:
        raise TableError(
            f"{quote(root)}: no image has a usable name; {_describe_left_out(left_out)}"
        )
    notes: list[str] = []
    if group_level is not None:
        rows = group_rows(rows, group_level)
    if labels is not None:
        rows, notes = label_rows(rows, labels, level=group_level)
    notes = [*find_doubtful(rows, level=group_level, by_folder=layout.classes), *notes]
    return FolderRows(rows, left_out, notes)


def _leave_out_masks(root: Path, found: Contents) -> None:
    masks = find_masks(found.images)
    if len(masks) == len(found.images):
        raise TableError(
            f"{quote(root)} has only images that are named as masks, such as"
            f" {quote('/'.join(min(masks)))}; rename them, or keep them with keep_masks=True"
        )
    found.left_out.extend((parts, MASK) for parts in sorted(masks))
    found.images[:] = [parts for parts in found.images if parts not in masks]
    drawn = find_two_valued(root, found.images)
    found.left_out.extend((parts, TWO_VALUED) for parts in sorted(drawn))
    found.images[:] = [parts for parts in found.images if parts not in drawn]


def _take_rows(found: Contents, layout: Layout) -> Iterator[Row]:
    """Yield the rows of the images; those that cannot be in a table are left out."""
    depth = layout.depth
    outside = f"outside the {'class' if layout.classes else 'split'} folders"
    for parts in found.images:
        if len(parts) <= depth:
            found.left_out.append((parts, outside))
            continue
        row = Row(
            path="/".join(parts),
            label=parts[depth - 1] if layout.classes else "",
            split=SPLIT_NAMES[parts[0].lower()] if layout.splits else "",
        )
        if trouble := text_trouble(row.label, "label"):
            raise TableError(
                f"the name of the class folder {quote('/'.join(parts[:-1]))} {trouble}; rename it"
            )
        if trouble := text_trouble(row.path, "path"):
            found.left_out.append((parts, f"name {trouble}"))
        else:
            yield row


def _count(left_out: list[tuple[Parts, str]], depth: int) -> Counter[LeftOut]:
    """Count what was left out by reason, class folder and, for files of other kinds, suffix."""
    return Counter(
        LeftOut(
            reason,
            "/".join(parts[:depth]) if len(parts) > depth else "",
            suffix_of(parts[-1]) if reason == _OTHER else "",
        )
        for parts, reason in left_out
    )


def _describe_left_out(left_out: Counter[LeftOut]) -> str:
    counts = ", ".join(
        f"{kind.reason}{kind.suffix and f': {kind.suffix}'} ({number:,})"
        for kind, number in sorted(left_out.items())
    )
    return f"skipped: {counts or 'nothing'}"


def _walk(root: Path) -> Contents:
    """Find every image below a folder."""
    walk = walk_folders(root, _refuse)
    found = Contents([], [], [(parts, "folder seen before") for parts in walk.repeated])
    for listing in walk.listings:
        if len(listing.parts) in (1, 2):
            found.folders.append(listing.parts)
        found.left_out.extend(((*listing.parts, name), HIDDEN) for name in listing.hidden)
        for entry in listing.files:
            parts = (*listing.parts, entry.name)
            if Path(entry.name).suffix.lower() not in IMAGE_SUFFIXES:
                found.left_out.append((parts, _OTHER))
            elif is_so(entry.is_file):
                found.images.append(parts)
            else:
                broken = "broken link" if entry.is_symlink() else "not a regular file"
                found.left_out.append((parts, broken))
    return found


def _refuse(folder: Path, error: OSError) -> None:
    # A folder that is left out in silence would change the data.
    raise TableError(
        f"the folder {quote(folder)} cannot be listed ({error.strerror}); make it readable or move"
        " it away"
    ) from error
