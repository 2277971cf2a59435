"""The command line: one thin module a command, loaded when the command is used."""

import os

# Read when NumPy is imported. Threads of OpenBLAS that wait for a product would spin for 2²⁶ cycles
# first, and keep a core from other work.
os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "10")

from brainfeat.cli.main import main

__all__ = ["main"]
