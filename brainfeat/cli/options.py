"""Options that several commands share, and the output of results and progress."""

import ast
import csv
import json
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, Self, get_args

import click

from brainfeat.cache.storage import Verify
from brainfeat.errors import BrainfeatError
from brainfeat.files import atomic_write
from brainfeat.leakage.duplicates import NEAR_THRESHOLD
from brainfeat.text import count

if TYPE_CHECKING:
    from brainfeat.cache.cache import FeatureCache


class ColumnPair(click.ParamType[tuple[str, ...]]):
    """The names of two columns, separated by a comma as in a CSV file."""

    name = "key,label"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, ...]:
        """Convert the value."""
        names = tuple(next(csv.reader([value]), ())) if isinstance(value, str) else value
        if len(names) != 2:
            self.fail(f"{value!r} is not KEY,LABEL", param, ctx)
        return names


keep_masks_option = click.option(
    "--keep-masks",
    is_flag=True,
    help="Keep masks in folders, which are recognised by their names or, for images, two values.",
)
group_level_option = click.option(
    "--group-level",
    type=click.IntRange(min=1),
    metavar="N",
    help="Folders of this level are patients, which become groups: 1 for those directly below the "
    "data, 2 for those in them, and so on.",
)
labels_option = click.option(
    "--labels",
    type=click.Path(path_type=Path),
    metavar="CSV",
    help="Take classes from this list of patients and classes, or of files and classes, not from "
    "folders.",
)
label_columns_option = click.option(
    "--label-columns",
    type=ColumnPair(),
    metavar="KEY,LABEL",
    help="Columns of that list: of the names of patients or files, and of the classes; needed "
    "where it has more than two.",
)
output_option = click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    required=True,
    help="File to write.",
)
overwrite_option = click.option(
    "--overwrite", is_flag=True, help="Replace an existing output of its kind."
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
    help="Verify the SHA-256 of each file before it is read, or trust the file (off).",
)
split_option = click.option(
    "--split",
    type=click.Choice(["train", "val", "test", "all"]),
    default="test",
    show_default=True,
    help="Images to use, by their split.",
)
engine_option = click.option(
    "--engine",
    type=click.Choice(("auto", "keras", "openvino")),
    default="auto",
    show_default=True,
    help="What computes the base: Keras, or OpenVINO on a processor, without importing Keras; auto "
    "takes OpenVINO where it can. The features are the same to rounding.",
)
slices_option = click.option(
    "--slices",
    metavar="all|middle|every:K|largest",
    help="Slices of each volume to use.",
)
window_option = click.option(
    "--window",
    metavar="auto|robust|CENTRE,WIDTH|ct:NAME|suv:LOW-HIGH",
    help="Values that are shown from black to white: the window of each slice where its file has "
    "one, otherwise robust (auto); the 0.5th to the 99.5th percentile of the volume (robust); a "
    "window in the units of the modality; one of CT in Hounsfield units (ct:brain, ct:subdural, "
    "ct:stroke, ct:bone or ct:CENTRE,WIDTH); or a range of SUV of PET, such as suv:0-10.",
)
orientation_option = click.option(
    "--orientation",
    type=click.Choice(["auto", "native", "axial"]),
    help="Plane in which volumes are cut, without interpolation: the plane in which they were "
    "acquired (native), the nearest to axial (axial), or native for DICOM and axial for other "
    "files (auto).",
)
volume_option = click.option(
    "--volume",
    type=click.IntRange(min=1),
    metavar="N",
    help="Volume to take of files that have several on a fourth axis, counted from 1.",
)
burned_in_option = click.option(
    "--allow-burned-in",
    is_flag=True,
    help="Also accept images whose pixels may show a name.",
)
table_option = click.option(
    "--table",
    type=click.Path(path_type=Path),
    metavar="CSV",
    help="Take splits and groups from this table, such as one that split wrote, not from the "
    "cache.",
)
threshold_option = click.option(
    "--threshold",
    type=click.FloatRange(0, 1, min_open=True),
    default=NEAR_THRESHOLD,
    show_default=True,
    help="Smallest similarity of near duplicates: the cosine of their centred features.",
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
    help="Height and width of the input of the base in pixels.",
)
jobs_option = click.option(
    "--jobs",
    "n_jobs",
    type=click.IntRange(min=1),
    default=None,
    help="Number of threads or processes.  [default: all cores]",
)


class RenamedOption(click.Option):
    """An option that is still accepted under its old spelling, which no help page shows.

    Parameters
    ----------
    *args, **kwargs
        As of `click.Option`; the option takes a value.
    old : str
        The old spelling, with its two hyphens.
    """

    def __init__(self, *args: Any, old: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.old = old

    def add_to_parser(self, parser: Any, ctx: click.Context) -> None:
        """Let the parser know both spellings."""
        super().add_to_parser(parser, ctx)
        parser.add_option(
            obj=self,
            opts=[self.old],
            dest=self.name,
            action="append" if self.multiple else "store",
            nargs=self.nargs,
        )


class AutoInteger(click.ParamType[int | None]):
    """A number from 1, or ``auto``, which is None in Python."""

    name = "auto|integer"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> int | None:
        """Convert the value."""
        if value in ("auto", None):
            return None
        return click.IntRange(min=1).convert(value, param, ctx)


class Terminated(KeyboardInterrupt):
    """Raised on SIGTERM, which ends a command as Ctrl-C does."""


class Interrupted(click.ClickException):
    """Ctrl-C; the exit code is what a shell gives for SIGINT."""

    exit_code = 128 + signal.SIGINT


class Ended(click.ClickException):
    """SIGTERM; the exit code is what a shell gives for it."""

    exit_code = 128 + signal.SIGTERM


def interruption(stop: BaseException | None, kept: str = "") -> click.ClickException:
    """Return the error that describes in one line what ended a command and what was kept."""
    if isinstance(stop, Terminated):
        return Ended(f"ended by SIGTERM{kept}")
    return Interrupted(f"interrupted{kept}")


@contextmanager
def sigterm_as_interrupt() -> Iterator[None]:
    """Let SIGTERM end a command as Ctrl-C does: finished work is kept and reported in one line."""

    def terminate(*_: object) -> NoReturn:
        raise Terminated

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def parse_param(text: str) -> tuple[str, Any]:
    """Read ``NAME=VALUE``, where VALUE is a Python literal or otherwise a string.

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
    """Open a cache, with the splits and groups of another table if one is given."""
    from brainfeat.cache.cache import FeatureCache
    from brainfeat.tables.csv_rows import read_rows

    with FeatureCache.open(path, verify=verify) as cache:
        if table is not None:
            rows = read_rows(table)
            cache.assign(
                {row.path: (row.split, row.group) for row in rows},
                sources={row.path: row.source for row in rows}
                if any(r.source for r in rows)
                else None,
                generated={row.path for row in rows if row.origin},
            )
        yield cache


def warn_of_missing_signatures(cache: "FeatureCache") -> None:
    """Warn in one line on stderr if copies cannot be looked for."""
    if cache.signature is None:
        say(
            f"warning: {cache.path} has no signatures, so copies are not looked for; run "
            "extract again to add them",
            err=True,
        )


def warn_of_leakage(findings: Sequence[str], *features: Path) -> None:
    """Warn in one line on stderr if there is leakage in one file, or in several together."""
    if findings:
        more = f" (and {count(len(findings) - 1, 'more finding')})" if len(findings) > 1 else ""
        paths = " ".join(map(str, features))
        say(f"warning: {findings[0]}{more}; see brainfeat audit {paths}", err=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    try:
        with atomic_write(path) as temporary:
            temporary.write_text(text, encoding="utf-8", newline="\n")
    except OSError as error:
        raise BrainfeatError(f"{path} cannot be written ({error.strerror})") from error


def say(line: str, *, err: bool = False) -> None:
    """Print one line, with control characters in names escaped."""
    from brainfeat.text import make_printable

    click.echo(make_printable(line), err=err)


def print_json(document: Any) -> None:
    """Print one JSON document to stdout."""
    click.echo(json.dumps(document, indent=2, allow_nan=False))


class ProgressLine:
    """Progress on stderr: one line that is redrawn on a terminal, or a line every 15 seconds.

    A terminal shows from the start what is under way, so that nobody waits before an empty line.

    Parameters
    ----------
    label : str
        What is under way.
    unit : str
        What is counted, in the plural; nothing, where there is nothing to count.
    """

    def __init__(self, label: str, unit: str = "") -> None:
        self._label = label
        self._unit = unit
        self._terminal = sys.stderr.isatty()
        self._interval = 0.2 if self._terminal else 15.0
        self._started = time.monotonic()
        self._shown = self._started
        self._drawn = False

    def __enter__(self) -> Self:
        if self._terminal:
            click.echo(f"{self._label} …", err=True, nl=False)
        return self

    def __call__(self, done: int, total: int, note: str = "") -> None:
        """Show the progress if it is time to; the note is appended to the label."""
        now = time.monotonic()
        if now - self._shown < self._interval and not (self._drawn and done == total):
            return
        self._shown = now
        text = (
            f"{self._label}{note and f' in {note}'}: {done:,} of {total:,} {self._unit} "
            f"({done / total:.0%})"
        )
        if done:
            rate = done / max(now - self._started, 1e-9)
            # Of what takes longer than ten seconds each, the rate would be a zero.
            text += f", {rate:,.1f}/s" if rate >= 0.1 else ""
            text += f", {format_seconds((total - done) / rate)} left"
        if self._terminal:
            click.echo(f"\r{text}\x1b[K", err=True, nl=False)
            self._drawn = True
        else:
            click.echo(text, err=True)

    def __exit__(self, *_: object) -> None:
        if self._drawn:
            click.echo(err=True)
        elif self._terminal:
            click.echo("\r\x1b[K", err=True, nl=False)


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
