"""What libraries say of a file is kept to ourselves, for it can quote a name."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def silence(*names: str) -> Iterator[None]:
    """Let no logger of these names, nor one below them, nor a warning be heard meanwhile.

    Filters of warnings belong to the process: volumes are read by one thread.
    """
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL + 1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
