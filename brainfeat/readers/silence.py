"""Silence for libraries whose messages can quote a name from the file that they read."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def silence(*names: str) -> Iterator[None]:
    """Suppress warnings, and the loggers of these names and all loggers below them.

    Warning filters belong to the process, so volumes must be read by one thread at a time.

    Parameters
    ----------
    *names : str
        Names of loggers.
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
