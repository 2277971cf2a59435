"""Plain files: atomic writes, and questions that a broken link cannot break."""

import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def written_whole(target: Path) -> Iterator[Path]:
    """Give the path of a temporary file; when the body ends well, it takes the target's place.

    Parameters
    ----------
    target : Path
        The file; one that is there is replaced, at once, and kept if the body fails.

    Yields
    ------
    Path
        Beside the target, with its suffix, hidden; the body creates it.

    Raises
    ------
    OSError
        The file cannot be written.
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
    """Ask a question about a file; what cannot be reached is not so."""
    try:
        return test()
    except OSError:  # a link to itself, or one through a folder that may not be entered
        return False
