"""The images below a folder; its layout gives their classes and splits."""

import os
from collections import Counter, deque
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from brainfeat.errors import TableError
from brainfeat.files import is_so
from brainfeat.readers.raster import IMAGE_SUFFIXES
from brainfeat.readers.series import has_volumes
from brainfeat.tables.rows import SPLIT_NAMES, Row, quote, some, text_trouble

CUT_VOLUMES = "cut volumes into slices first, with brainfeat slices or write_slices"


def read_folder(root: Path) -> tuple[list[Row], Counter[str]]:
    """Read the rows of the images below a folder.

    Parameters
    ----------
    root : Path
        The folder, which is walked once.

    Returns
    -------
    rows : list of Row
        One for each image, sorted by path.
    skipped : Counter
        How many files and folders were skipped, by reason.

    Raises
    ------
    TableError
        If a folder cannot be listed, there are no images, or the layout is not one that
        :func:`brainfeat.read_table` supports.
    """
    found = _walk(root)
    if not found.images:
        raise TableError(
            f"{quote(root)} has no images ({', '.join(IMAGE_SUFFIXES)});"
            f" {_describe_skipped(found.skipped)}"
            f"{'; ' + CUT_VOLUMES if has_volumes(root) else ''}"
        )
    rows: list[Row] = []
    skipped = found.skipped
    for parts, row in _place_all(root, found):
        if row is None:
            skipped["outside the class folders"] += 1
        elif trouble := text_trouble(row.label, "label"):
            raise TableError(
                f"the name of the class folder {quote('/'.join(parts[:-1]))} {trouble}; rename it"
            )
        elif trouble := text_trouble(row.path, "path"):
            skipped[f"name {trouble}"] += 1
        else:
            rows.append(row)
    if not rows:
        raise TableError(f"{quote(root)}: no image has a usable name; {_describe_skipped(skipped)}")
    return sorted(rows), skipped


def _describe_skipped(skipped: Counter[str]) -> str:
    counts = ", ".join(f"{reason} ({count:,})" for reason, count in sorted(skipped.items()))
    return f"skipped: {counts or 'nothing'}"


class _Found(NamedTuple):
    folders: list[str]  # names of the folders directly below the root
    images: list[tuple[str, ...]]  # parts of the path of each image below the root
    skipped: Counter[str]


def _walk(root: Path) -> _Found:
    """Find every image below a folder; links are followed, but no folder is entered twice."""
    found = _Found([], [], Counter())
    # A link to a parent of the root would lead through the whole disk.
    seen = {_identity(parent) for parent in root.resolve().parents if is_so(parent.exists)}
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
                f"the folder {quote(folder)} cannot be listed ({error.strerror}); make it"
                " readable or move it away"
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
    elif is_so(entry.is_dir):
        # Real folders come before links, so that a folder that is also linked keeps its real path.
        (pending.append if entry.is_symlink() else pending.appendleft)(here)
    elif Path(entry.name).suffix.lower() not in IMAGE_SUFFIXES:
        found.skipped["not an image"] += 1
    elif not is_so(entry.is_file):
        found.skipped["broken link" if entry.is_symlink() else "not a regular file"] += 1
    else:
        found.images.append(here)


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino


def _place_all(root: Path, found: _Found) -> Iterator[tuple[tuple[str, ...], Row | None]]:
    """Yield the parts of the path of each image with its row; None for one in no class folder."""
    with_images = {parts[0] for parts in found.images if len(parts) > 1}
    split_folders = sorted(name for name in found.folders if name.lower() in SPLIT_NAMES)
    class_folders = sorted(with_images - set(split_folders))
    _check_layout(root, found, split_folders, class_folders)
    depth = 2 if split_folders else 1 if class_folders else 0
    for parts in found.images:
        if len(parts) <= depth:
            yield parts, None
            continue
        yield (
            parts,
            Row(
                path="/".join(parts),
                label=parts[depth - 1] if depth else "",
                split=SPLIT_NAMES[parts[0].lower()] if depth == 2 else "",
            ),
        )


def _check_layout(
    root: Path, found: _Found, split_folders: list[str], class_folders: list[str]
) -> None:
    if split_folders and class_folders:
        raise TableError(
            f"{quote(root)} mixes split folders ({some(split_folders)}) and other folders"
            f" ({some(class_folders)}); keep either split folders or class folders there"
        )
    filled = {parts[0] for parts in found.images if len(parts) > 2}
    for name in split_folders:
        if name not in filled:
            raise TableError(
                f"the split folder {quote(root / name)} has no class folders with images; put its"
                " images into one folder for each class, or move it away"
            )
    for parts in found.images if class_folders else ():
        if len(parts) > 2 and parts[1].lower() in SPLIT_NAMES:
            raise TableError(
                f"{quote(root)}: the class folder {quote(parts[0])} has the split folder"
                f" {quote(parts[1])}; pass {quote(root / parts[0])}, or put the split"
                " folders above the class folders"
            )
