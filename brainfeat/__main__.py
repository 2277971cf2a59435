"""Run the command line with ``python -m brainfeat``."""

from brainfeat.cli import main

if __name__ == "__main__":
    main()
