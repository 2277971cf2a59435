"""Atomic writes of plain files, and file tests that treat an unreachable file as absent."""

import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def atomic_write(target: Path) -> Iterator[Path]:
    """Write a file atomically: it appears complete, or it does not change.

    The body writes to a temporary file. When the body ends without an exception, that file is
    brought to disk and renamed to `target`; otherwise it is removed.

    Parameters
    ----------
    target : Path
        The file; an existing one is replaced in one step.

    Yields
    ------
    Path
        The temporary file, which the body creates: hidden, in the folder of `target`, and with its
        suffix.

    Raises
    ------
    OSError
        The file cannot be written.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     target = Path(folder, "notes.txt")
    ...     with atomic_write(target) as temporary:
    ...         characters = temporary.write_text("complete", encoding="utf-8")
    ...     target.read_text(encoding="utf-8")
    'complete'
    """
    temporary = target.parent / f".{secrets.token_hex(8)}{target.suffix}"
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(target)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def is_so(test: Callable[[], bool]) -> bool:
    """Return the answer of a test on a file, or False if the file cannot be reached.

    Examples
    --------
    >>> is_so(Path("/a/folder/that/does/not/exist").is_dir)
    False
    """
    try:
        return test()
    except OSError:  # a link to itself, or one through a folder that may not be entered
        return False
