"""The library's messages in the words of the command line: options where it names arguments."""

import logging
import re
import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click

# An argument with a value that is a constant, a text in quotes, a number, or a placeholder in
# capitals.
_ARGUMENT = re.compile(r'(?<![\w/.])([a-z_]+)=(True|False|"[^"]*"|[0-9]+|[A-Z]+)(?![\w/.])')

# The names of joined caches, which stand before their paths.
_NAMES = re.compile(r"names=\[[^\]]*\]")


def name_options(message: str, find_option: Callable[[str], click.Option | None]) -> str:
    """Replace the arguments that a message names by the options of the same meaning.

    Parameters
    ----------
    message : str
        Such as ``'pass overwrite=True'``.
    find_option : callable
        From the name of an argument to its option, or to None.

    Returns
    -------
    str

    Examples
    --------
    >>> size = click.Option(["--size", "input_size"])
    >>> signature = click.Option(["--signature/--no-signature"])
    >>> known = {"input_size": size, "signature": signature}
    >>> name_options('pass signature=False, input_size=PIXELS or a/input_size=1', known.get)
    'pass --no-signature, --size PIXELS or a/input_size=1'
    """

    def rename(found: re.Match[str]) -> str:
        name, value = found.groups()
        option = find_option(name)
        if option is None:
            return found[0]
        if value in ("True", "False"):
            is_first = value == str(option.flag_value)
            return (option.opts if is_first else option.secondary_opts or option.opts)[-1]
        return f"{option.opts[-1]} {shlex.quote(value.strip(chr(34)))}"

    return _ARGUMENT.sub(rename, message)


def find_option(argument: str) -> click.Option | None:
    """Find the option that stands for an argument of the library in any command."""
    from brainfeat.cli.main import COMMANDS, load_command

    for name in COMMANDS:
        for param in load_command(name).params:
            if param.name == argument and isinstance(param, click.Option):
                return param
    return None


def translate(error: object) -> str:
    """Name the options where a message of the library names arguments.

    Examples
    --------
    >>> translate('pass weights=PATH, or weights="random"')
    'pass --weights PATH, or --weights random'
    >>> translate('give each its own: pass names=["t1", "flair"]')
    'give each its own: pass NAME=PATH for each'
    """
    return name_options(_NAMES.sub("NAME=PATH for each", str(error)), find_option)


@contextmanager
def log_to_stderr() -> Iterator[None]:
    """Print the library's warnings on stderr while the body runs."""

    class Printer(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            click.echo(translate(record.getMessage()), err=True)

    logger, printer = logging.getLogger("brainfeat"), Printer(logging.WARNING)
    logger.addHandler(printer)
    try:
        yield
    finally:
        logger.removeHandler(printer)
