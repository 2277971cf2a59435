"""The command line: one thin module a command, loaded when the command is used."""

from brainfeat.cli.main import main

__all__ = ["main"]
