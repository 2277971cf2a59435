"""Plain files that are written whole or not at all."""

import os
import secrets
from collections.abc import Iterator
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
