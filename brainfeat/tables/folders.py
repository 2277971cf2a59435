"""The images below a folder; its layout gives their classes and splits."""

import os
from collections import Counter, deque
from collections.abc import Iterator
from pathlib import Path

from brainfeat.errors import TableError
from brainfeat.files import is_so
from brainfeat.readers.raster import IMAGE_SUFFIXES
from brainfeat.tables.layout import EMPTY, HIDDEN, Contents, find_depth, find_empty
from brainfeat.tables.masks import MASK, find_masks
from brainfeat.tables.rows import SPLIT_NAMES, LeftOut, Parts, Row, quote, suffix_of, text_trouble

_OTHER = "not an image"


def read_folder(root: Path, *, keep_masks: bool = False) -> tuple[list[Row], Counter[LeftOut]]:
    """Read the rows of the images below a folder.

    Parameters
    ----------
    root : Path
        The folder, which is walked once.
    keep_masks : bool, default=False
        Whether images that are named as masks are kept.

    Returns
    -------
    rows : list of Row
        One for each image, sorted by path.
    left_out : Counter of LeftOut
        How many files and folders were left out, by reason, class folder and suffix.

    Raises
    ------
    TableError
        If a folder cannot be listed, there are no images, all files of a class were left out, or
        the layout is not one that :func:`brainfeat.read_table` supports.
    """
    found = _walk(root)
    if not found.images:
        raise TableError(
            f"{quote(root)} has no images ({', '.join(IMAGE_SUFFIXES)});"
            f" {_describe_left_out(_count(found.left_out, 0))}"
        )
    if not keep_masks:
        _leave_out_masks(root, found)
    depth = find_depth(root, found)
    empty = find_empty(root, found, depth)
    rows = list(_take_rows(found, depth))
    left_out = _count(found.left_out, depth)
    left_out.update(LeftOut(EMPTY, "/".join(parts)) for parts in empty)
    if not rows:
        raise TableError(
            f"{quote(root)}: no image has a usable name; {_describe_left_out(left_out)}"
        )
    return sorted(rows), left_out


def _leave_out_masks(root: Path, found: Contents) -> None:
    masks = find_masks(found.images)
    if len(masks) == len(found.images):
        raise TableError(
            f"{quote(root)} has only images that are named as masks, such as"
            f" {quote('/'.join(min(masks)))}; rename them, or keep them with keep_masks=True"
            " (--keep-masks)"
        )
    found.left_out.extend((parts, MASK) for parts in sorted(masks))
    found.images[:] = [parts for parts in found.images if parts not in masks]


def _take_rows(found: Contents, depth: int) -> Iterator[Row]:
    """Yield the rows of the images; those that cannot be in a table are left out."""
    for parts in found.images:
        if len(parts) <= depth:
            found.left_out.append((parts, "outside the class folders"))
            continue
        row = Row(
            path="/".join(parts),
            label=parts[depth - 1] if depth else "",
            split=SPLIT_NAMES[parts[0].lower()] if depth == 2 else "",
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
    """Find every image below a folder; links are followed, but no folder is entered twice."""
    found = Contents([], [], [])
    # A link to a parent of the root would lead through the whole disk.
    seen = {_identity(parent) for parent in root.resolve().parents if is_so(parent.exists)}
    pending: deque[Parts] = deque([()])
    while pending:
        parts = pending.popleft()
        folder = root.joinpath(*parts)
        try:
            identity = _identity(folder)
            if identity in seen:
                found.left_out.append((parts, "folder seen before"))
                continue
            with os.scandir(folder) as entries:
                listing = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            raise TableError(
                f"the folder {quote(folder)} cannot be listed ({error.strerror}); make it"
                " readable or move it away"
            ) from error
        seen.add(identity)
        if len(parts) in (1, 2):
            found.folders.append(parts)
        for entry in listing:
            _sort_in(entry, parts, found, pending)
    return found


def _sort_in(
    entry: os.DirEntry[str],
    parts: Parts,
    found: Contents,
    pending: deque[Parts],
) -> None:
    here = (*parts, entry.name)
    if entry.name.startswith(".") or entry.name == "__MACOSX":
        found.left_out.append((here, HIDDEN))
    elif is_so(entry.is_dir):
        # Real folders come before links, so that a folder that is also linked keeps its real path.
        (pending.append if entry.is_symlink() else pending.appendleft)(here)
    elif Path(entry.name).suffix.lower() not in IMAGE_SUFFIXES:
        found.left_out.append((here, _OTHER))
    elif not is_so(entry.is_file):
        reason = "broken link" if entry.is_symlink() else "not a regular file"
        found.left_out.append((here, reason))
    else:
        found.images.append(here)


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino
