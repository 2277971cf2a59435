"""The click group, and how errors and interrupts become exit codes."""

import os
import sys
from importlib import import_module
from typing import Any

import click

from brainfeat import __version__
from brainfeat.cli.options import Ended, Interrupted, interruption, sigterm_as_interrupt
from brainfeat.errors import BrainfeatError

COMMANDS = {
    "audit": "brainfeat.cli.audit",
    "bench": "brainfeat.cli.bench",
    "compare": "brainfeat.cli.compare",
    "demo": "brainfeat.cli.demo",
    "doctor": "brainfeat.cli.doctor",
    "evaluate": "brainfeat.cli.evaluate",
    "export": "brainfeat.cli.export",
    "extract": "brainfeat.cli.extract",
    "fit-head": "brainfeat.cli.fit_head",
    "info": "brainfeat.cli.info",
    "predict": "brainfeat.cli.predict",
    "slices": "brainfeat.cli.slices",
    "split": "brainfeat.cli.split",
}


class LazyGroup(click.Group):
    """A group whose commands are imported when they are asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """Return the names of all commands."""
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import and return one command."""
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = import_module(COMMANDS[cmd_name]).command
        return command


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="brainfeat")
def group() -> None:
    """Turn folders of brain MRI slices into tumour classifiers in two stages.

    Stage one (extract) runs a frozen convolutional base once over every image and caches its
    features. Stage two (fit-head) trains a classifier on that cache in seconds.

    brainfeat is research software and no medical device.
    """


def main(arguments: list[str] | None = None) -> Any:
    """Run the command line and exit.

    A BrainfeatError becomes one line on stderr and exit code 1, a usage error click's 2, Ctrl-C
    130, SIGTERM 143. A bug keeps its traceback.
    """
    try:
        with sigterm_as_interrupt():
            group.main(args=arguments, prog_name="brainfeat", standalone_mode=False)
    except BrainfeatError as error:
        fail(str(error), 1)
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


def fail(message: str, code: int) -> None:
    """Write one line to stderr and exit."""
    from brainfeat.text import make_printable

    line = make_printable(" ".join(message.split()))
    click.echo(f"brainfeat: {click.style('error', fg='red')}: {line}", err=True)
    sys.exit(code)
