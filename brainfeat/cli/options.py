"""Options that several commands share, each once, and how results and progress are shown."""

import ast
import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn, Self, get_args

import click

from brainfeat.cache.storage import Verify
from brainfeat.errors import BrainfeatError
from brainfeat.files import atomic_write
from brainfeat.leakage.duplicates import NEAR_THRESHOLD

if TYPE_CHECKING:
    from brainfeat.cache.cache import FeatureCache

output_option = click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    help="File to write.",
)
overwrite_option = click.option(
    "--overwrite", is_flag=True, help="Replace an output that is there; never implied."
)
json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON document and nothing else."
)
random_state_option = click.option(
    "--random-state", type=click.IntRange(min=0), default=0, show_default=True, help="Seed."
)
verify_option = click.option(
    "--verify",
    type=click.Choice(get_args(Verify)),
    default="full",
    show_default=True,
    help="Compare each file with the SHA-256 it was written with, or trust it (off).",
)
split_option = click.option(
    "--split",
    type=click.Choice(["train", "val", "test", "all"]),
    default="test",
    show_default=True,
    help="Which images of the table.",
)
weights_option = click.option(
    "--weights",
    default="imagenet",
    show_default=True,
    metavar="imagenet|random|FILE",
    help="Weights of the base; they must be those that the head was fitted with.",
)
slices_option = click.option(
    "--slices",
    metavar="all|middle|every:K|largest",
    help="Which slices of a volume.",
)
window_option = click.option(
    "--window",
    metavar="auto|robust|CENTRE,WIDTH",
    help="What is shown of a volume from black to white: each slice's own window, or else robust; "
    "the 0.5th to the 99.5th percentile; or one in the units of the modality.",
)
burned_in_option = click.option(
    "--allow-burned-in",
    is_flag=True,
    help="Take images that may show a name in their pixels, too.",
)
table_option = click.option(
    "--table",
    type=click.Path(path_type=Path),
    metavar="CSV",
    help="Take splits and groups from this table, such as split wrote, instead of the cache's.",
)
threshold_option = click.option(
    "--threshold",
    type=click.FloatRange(0, 1, min_open=True),
    default=NEAR_THRESHOLD,
    show_default=True,
    help="Least similarity of near duplicates: the cosine of their centred features.",
)
group_by_option = click.option(
    "--group-by",
    type=click.Choice(["auto", "column", "near-duplicates", "none"]),
    default="auto",
    show_default=True,
    help="What no part and no fold may cut: the table's groups, or else clusters of near "
    "duplicates (auto); the table's; clusters joined with the table's groups; or nothing.",
)
backbone_option = click.option(
    "--backbone", default="vgg16", show_default=True, help="Convolutional base."
)
size_option = click.option(
    "--size",
    "input_size",
    type=click.IntRange(32, 4096),
    default=224,
    show_default=True,
    help="Height and width in pixels of what the base sees.",
)
jobs_option = click.option(
    "--jobs",
    "n_jobs",
    type=click.IntRange(min=1),
    default=None,
    help="Threads or processes at work.  [default: all cores]",
)


class AutoInteger(click.ParamType[int | None]):
    """A number from 1, or ``auto``, which is None in Python."""

    name = "auto|integer"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> int | None:
        """Read what was given."""
        if value in ("auto", None):
            return None
        return click.IntRange(min=1).convert(value, param, ctx)


class Terminated(KeyboardInterrupt):
    """SIGTERM, which ends a command as Ctrl-C does."""


class Interrupted(click.ClickException):
    """Ctrl-C; the exit code is what a shell gives for SIGINT."""

    exit_code = 128 + signal.SIGINT


class Ended(click.ClickException):
    """SIGTERM; the exit code is what a shell gives for it."""

    exit_code = 128 + signal.SIGTERM


def interruption(stop: BaseException | None, kept: str = "") -> click.ClickException:
    """Return the error that says in one line what ended a command, and what was kept."""
    if isinstance(stop, Terminated):
        return Ended(f"ended by SIGTERM{kept}")
    return Interrupted(f"interrupted{kept}")


@contextmanager
def sigterm_as_interrupt() -> Iterator[None]:
    """Let SIGTERM end a command as Ctrl-C does: finished work is kept, and a line says so."""

    def terminate(*_: object) -> NoReturn:
        raise Terminated

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def parse_param(text: str) -> tuple[str, Any]:
    """Read ``NAME=VALUE``, where VALUE is a Python literal or else a text.

    Examples
    --------
    >>> parse_param("C=10"), parse_param("kernel=linear"), parse_param("hidden_units=(64,)")
    (('C', 10), ('kernel', 'linear'), ('hidden_units', (64,)))
    """
    name, equals, value = text.partition("=")
    if not equals or not name.strip():
        raise click.BadParameter(f"{text!r} is not NAME=VALUE", param_hint="--param")
    try:
        return name.strip(), ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return name.strip(), value


@contextmanager
def open_cache(
    path: Path, *, table: Path | None = None, verify: Verify = "full"
) -> Iterator["FeatureCache"]:
    """Open a cache, with the splits and groups of another table where one is given."""
    from brainfeat.cache.cache import FeatureCache
    from brainfeat.tables.csv_rows import read_rows

    with FeatureCache.open(path, verify=verify) as cache:
        if table is not None:
            cache.assign({row.path: (row.split, row.group) for row in read_rows(table)})
        yield cache


def warn_of_leakage(findings: list[str], features: Path) -> None:
    """Say in one line on stderr that figures are too good to be true, if they are."""
    if findings:
        more = f" (and {len(findings) - 1} more)" if len(findings) > 1 else ""
        say(f"warning: {findings[0]}{more}; see brainfeat audit {features}", err=True)


def check_output(path: Path, *, overwrite: bool) -> None:
    """Refuse a file that cannot be written, or that is there and shall not be replaced."""
    if not path.parent.is_dir():
        raise BrainfeatError(f"{path}: there is no folder {path.parent} to write into")
    if os.path.lexists(path) and not overwrite:
        raise BrainfeatError(f"{path} exists; name another file or pass --overwrite")


def write_text(path: Path, text: str) -> None:
    """Write a text whole or not at all."""
    try:
        with atomic_write(path) as temporary:
            temporary.write_text(text, encoding="utf-8", newline="\n")
    except OSError as error:
        raise BrainfeatError(f"{path} cannot be written ({error.strerror})") from error


def say(line: str, *, err: bool = False) -> None:
    """Print one line, in which names of files and classes cannot move the cursor."""
    from brainfeat.text import make_printable

    click.echo(make_printable(line), err=err)


def print_json(document: Any) -> None:
    """Print one JSON document to stdout."""
    click.echo(json.dumps(document, indent=2, allow_nan=False))


class ProgressLine:
    """Progress on stderr: a line that is redrawn on a terminal, a line now and then elsewhere.

    Parameters
    ----------
    label : str
        What is under way.
    unit : str
        What is counted, in the plural.
    """

    def __init__(self, label: str, unit: str) -> None:
        self._label = label
        self._unit = unit
        self._terminal = sys.stderr.isatty()
        self._interval = 0.2 if self._terminal else 15.0
        self._started = time.monotonic()
        self._shown = self._started
        self._drawn = False

    def __enter__(self) -> Self:
        return self

    def __call__(self, done: int, total: int, note: str = "") -> None:
        """Show how far it is, if it is time to; the note says in what way."""
        now = time.monotonic()
        if now - self._shown < self._interval and not (self._drawn and done == total):
            return
        self._shown = now
        rate = done / max(now - self._started, 1e-9)
        left = (total - done) / rate if rate else 0.0
        text = (
            f"{self._label}{note and f' in {note}'}: {done:,} of {total:,} {self._unit} "
            f"({done / total:.0%}), {rate:,.1f}/s, {format_seconds(left)} left"
        )
        if self._terminal:
            click.echo(f"\r{text}\x1b[K", err=True, nl=False)
            self._drawn = True
        else:
            click.echo(text, err=True)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._drawn:
            click.echo(err=True)


def format_seconds(seconds: float) -> str:
    """Write a duration for people.

    Examples
    --------
    >>> format_seconds(7.4), format_seconds(75), format_seconds(7260)
    ('7 s', '1 min 15 s', '2 h 1 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
