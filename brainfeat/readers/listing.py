"""The folders below a folder: links are followed, and each real folder is listed once."""

import os
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from brainfeat.files import is_so


class Listing(NamedTuple):
    """What is in one folder.

    Attributes
    ----------
    parts : tuple of str
        Parts of its path below the folder that was given; none for that folder.
    files : list of os.DirEntry
        Its entries that are not folders, by name; among them broken links.
    hidden : list of str
        Names of its hidden entries, which are not entered.
    """

    parts: tuple[str, ...]
    files: list[os.DirEntry[str]]
    hidden: list[str]


class Walk(NamedTuple):
    """What is below a folder.

    Attributes
    ----------
    listings : list of Listing
        One for each folder, sorted by the parts of its path.
    repeated : list of tuple of str
        Parts of the paths of the links to folders that are listed under another path, and to
        folders that the given one is in.
    """

    listings: list[Listing]
    repeated: list[tuple[str, ...]]


def is_hidden(name: str) -> bool:
    """Return whether a file or folder is hidden, or made by a program that packed the others.

    Examples
    --------
    >>> is_hidden(".DS_Store"), is_hidden("__MACOSX"), is_hidden("glioma")
    (True, True, False)
    """
    return name.startswith(".") or name == "__MACOSX"


def walk_folders(root: Path, on_error: Callable[[Path, OSError], None]) -> Walk:
    """List a folder and all folders below it.

    Links to folders are followed, also to folders elsewhere, but no folder is listed twice: not
    through a loop, and not through a second link. Links to a folder that `root` is in are not
    followed, since they lead through the whole disk. A folder that is also linked has its real
    path.

    Parameters
    ----------
    root : Path
        The folder.
    on_error : callable
        Called with each folder that cannot be listed, and the error.

    Returns
    -------
    Walk
    """
    found = Walk([], [])
    seen = {identify(parent) for parent in root.resolve().parents if is_so(parent.exists)}
    pending: deque[tuple[str, ...]] = deque([()])
    while pending:
        parts = pending.popleft()
        folder = root.joinpath(*parts)
        try:
            identity = identify(folder)
            if identity in seen:
                found.repeated.append(parts)
                continue
            with os.scandir(folder) as entries:
                listed = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            on_error(folder, error)
            continue
        seen.add(identity)
        listing = Listing(parts, [], [])
        found.listings.append(listing)
        for entry in listed:
            if is_hidden(entry.name):
                listing.hidden.append(entry.name)
            elif is_so(entry.is_dir):
                # Real folders come before links, so that they keep their real paths.
                add = pending.append if entry.is_symlink() else pending.appendleft
                add((*parts, entry.name))
            else:
                listing.files.append(entry)
    found.listings.sort(key=lambda listing: listing.parts)
    return found


def identify(path: Path) -> tuple[int, int]:
    """Return what a file or folder has in common with every link to it.

    Raises
    ------
    OSError
        It cannot be reached.
    """
    status = path.stat()
    return status.st_dev, status.st_ino
