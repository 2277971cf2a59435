"""The click group, and how errors and interrupts become exit codes."""

import os
import sys
from importlib import import_module
from io import TextIOWrapper
from typing import Any

import click

from brainfeat import __version__
from brainfeat.cli.options import Ended, Interrupted, interruption, sigterm_as_interrupt
from brainfeat.cli.wording import log_to_stderr, translate
from brainfeat.errors import BrainfeatError

SECTIONS = {
    "Tables": ["slices", "split", "link"],
    "Stage one (images to features)": ["extract"],
    "Stage two (features to heads)": ["fit-head", "evaluate", "compare", "audit", "stress"],
    "Answers (images to predictions)": ["predict", "export"],
    "Machine and files": ["info", "doctor", "bench", "demo"],
}
COMMANDS = {
    name: f"brainfeat.cli.{name.replace('-', '_')}" for names in SECTIONS.values() for name in names
}


class LazyGroup(click.Group):
    """A group whose commands are imported on demand and listed in sections by ``--help``."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """Return the names of all commands."""
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import and return one command."""
        return load_command(cmd_name) if cmd_name in COMMANDS else None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Write the commands in the order of the workflow, under a heading for each step."""
        width = max(map(len, COMMANDS))
        for heading, names in SECTIONS.items():
            summaries = [load_command(name).get_short_help_str(limit=80) for name in names]
            with formatter.section(heading):
                formatter.write_dl(
                    [(name.ljust(width), text) for name, text in zip(names, summaries, strict=True)]
                )


def load_command(name: str) -> click.Command:
    """Import one command."""
    command: click.Command = import_module(COMMANDS[name]).command
    return command


EXAMPLES = """\b
Examples:
  brainfeat demo
  brainfeat extract brain-mri -o mri.h5
"""


@click.group(
    cls=LazyGroup, epilog=EXAMPLES, context_settings={"help_option_names": ["-h", "--help"]}
)
@click.version_option(__version__, prog_name="brainfeat")
def group() -> None:
    """Turn folders of brain MRI slices into tumour classifiers in two stages.

    Stage one (extract) runs a frozen, pretrained convolutional base over every image once and
    caches its features. Stage two (fit-head) trains classifiers on that cache in seconds.

    brainfeat is research software and not a medical device.
    """


def main(arguments: list[str] | None = None) -> Any:
    """Run the command line and exit.

    A BrainfeatError becomes one line on stderr and exit code 1, a usage error click's 2, Ctrl-C
    130, SIGTERM 143. A bug keeps its traceback.
    """
    escape_unprintable()
    try:
        with sigterm_as_interrupt(), log_to_stderr():
            group.main(args=arguments, prog_name="brainfeat", standalone_mode=False)
    except BrainfeatError as error:
        fail(translate(error), 1)
    except click.exceptions.Exit as stop:
        sys.exit(stop.exit_code)
    except (Interrupted, Ended) as stop:
        fail(stop.message, stop.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.Abort as abort:
        ending = interruption(abort.__cause__)
        fail(ending.message, ending.exit_code)
    except BrokenPipeError:
        # What reads stdout has gone, as in `brainfeat … | head`: nothing is left to say.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


def escape_unprintable() -> None:
    """Let stdout and stderr escape what their encoding lacks, such as a dash in Latin-1."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def fail(message: str, code: int) -> None:
    """Write one line to stderr and exit."""
    from brainfeat.text import make_printable

    line = make_printable(" ".join(message.split()))
    click.echo(f"brainfeat: {click.style('error', fg='red')}: {line}", err=True)
    sys.exit(code)
