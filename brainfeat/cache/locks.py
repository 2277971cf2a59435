"""A lock that lets one run at a time work on an output, and that ends with its process."""

import fcntl
import logging
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

LOCK_NAME = ".lock"

# Other runs can remove the folder, or the file that was locked, so often before this one gives up.
_ATTEMPTS = 1000

_logger = logging.getLogger(__name__)


@contextmanager
def lock_folder(folder: Path) -> Iterator[bool]:
    """Lock a folder for the body, after any other run has released it.

    The lock is ``flock`` on a file in the folder. The system releases it when the process ends,
    however it ends. Afterwards the folder is removed if it is empty.

    Parameters
    ----------
    folder : Path
        Created if it does not exist.

    Yields
    ------
    bool
        Whether the folder is locked. It is not if the file system has no locks or is read-only;
        other runs may then be at work at the same time.
    """
    descriptor = _acquire(folder)
    try:
        yield descriptor is not None
    finally:
        # While it is locked: a run that waits for it finds the file gone, and tries again.
        with suppress(OSError):
            (folder / LOCK_NAME).unlink(missing_ok=True)
            folder.rmdir()
        if descriptor is not None:
            os.close(descriptor)


def _acquire(folder: Path) -> int | None:
    """Return a locked descriptor of the folder's lock file, or None if it cannot be locked."""
    place = folder / LOCK_NAME
    for _ in range(_ATTEMPTS):
        try:
            with suppress(FileExistsError):
                folder.mkdir()
        except OSError:
            return None
        try:
            descriptor = os.open(place, os.O_RDWR | os.O_CREAT, 0o666)
        except FileNotFoundError:
            continue  # another run ended and removed the folder between the two calls
        except OSError:
            return None
        with ExitStack() as stack:
            stack.callback(os.close, descriptor)
            try:
                _lock(descriptor, folder)
                held = _is_at(descriptor, place)
            except OSError:
                return None
            if held:
                stack.pop_all()
                return descriptor
    return None


def _lock(descriptor: int, folder: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        _logger.warning("another run holds %s; waiting for it to end", folder)
        fcntl.flock(descriptor, fcntl.LOCK_EX)


def _is_at(descriptor: int, place: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), place.stat())
    except FileNotFoundError:
        return False
