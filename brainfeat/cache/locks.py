"""One run at a time on one output: a lock that dies with the process that holds it."""

import fcntl
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

LOCK_NAME = ".lock"

_logger = logging.getLogger(__name__)


@contextmanager
def lock_folder(folder: Path) -> Iterator[bool]:
    """Hold a folder for one run, waiting for another that holds it.

    The lock is ``flock`` on a file in the folder, which the system lets go of with the process,
    however that ends. On leaving, the folder is removed where it holds nothing else.

    Parameters
    ----------
    folder : Path
        Made where it is missing.

    Yields
    ------
    bool
        Whether the folder is held. It is not where the file system has no locks or where nothing
        can be written: other runs may be at work then.
    """
    descriptor = _acquire(folder)
    try:
        yield descriptor is not None
    finally:
        # While it is held: who waited for it finds that its file is gone, and tries again.
        with suppress(OSError):
            (folder / LOCK_NAME).unlink(missing_ok=True)
            folder.rmdir()
        if descriptor is not None:
            os.close(descriptor)


def _acquire(folder: Path) -> int | None:
    """Return a locked descriptor of the folder's lock file, or None where there can be none."""
    place = folder / LOCK_NAME
    while True:
        try:
            folder.mkdir(exist_ok=True)
            descriptor = os.open(place, os.O_RDWR | os.O_CREAT, 0o666)
        except FileNotFoundError:
            if folder.parent.is_dir():
                continue  # a run that ended took the folder away between the two lines
            return None
        except OSError:
            return None
        try:
            _lock(descriptor, folder)
            if _is_at(descriptor, place):
                return descriptor
        except OSError:
            os.close(descriptor)
            return None
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


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
