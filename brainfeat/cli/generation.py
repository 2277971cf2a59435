"""``brainfeat fit-head --generate`` and ``--mixup``."""

from collections.abc import Callable
from typing import Any

import click

from brainfeat.heads.generation import LEAST_ROWS, MOST_ROWS

_OPTIONS = (
    click.option(
        "--generate",
        type=click.IntRange(0, MOST_ROWS),
        metavar="N",
        default=0,
        show_default=True,
        help="Also fit on N rows of each class that a generator makes; each time, it has seen the "
        f"training rows of that fit alone. Classes with fewer than {LEAST_ROWS} get none.",
    ),
    click.option(
        "--mixup",
        type=click.FloatRange(min=0),
        metavar="A",
        help="Train the dense head on mixtures of rows, by parts drawn from Beta(A, A); same as "
        "--param mixup=A.",
    ),
)


def generation_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of rows that are generated or mixed to a command."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command
