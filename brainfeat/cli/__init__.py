"""The command line: one thin module a command, loaded when the command is used."""

import gc
import os

# Read when NumPy is imported. Threads of OpenBLAS that wait for a product would spin for 2²⁶ cycles
# first, and keep a core from other work.
os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "10")

# Imports make many objects and hardly any garbage, for which Python would look after every 700.
gc.set_threshold(50_000)

from brainfeat.cli.main import main  # noqa: E402

__all__ = ["main"]
