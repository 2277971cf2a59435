"""Files that ``brainfeat audit`` writes beside its results: pairs, and labels in doubt."""

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from itertools import chain, combinations
from pathlib import Path
from typing import TYPE_CHECKING

import click

from brainfeat.errors import BrainfeatError
from brainfeat.files import atomic_write, check_output, is_same_file

if TYPE_CHECKING:
    from brainfeat.leakage.cross_audit import CrossPair
    from brainfeat.leakage.pairs import Pair
    from brainfeat.training.label_doubts import LabelDoubts

# The first columns of the labels in doubt; the probabilities of the classes follow.
_DOUBT_COLUMNS = ["rank", "path", "split", "group", "label", "suggested", "reason", "copy"]


def check_files(
    wanted: Mapping[str, Path | None], inputs: Sequence[Path | None], *, overwrite: bool
) -> None:
    """Refuse files that must not be written, before anything is computed.

    Parameters
    ----------
    wanted : mapping of str to Path or None
        File by its option.
    inputs : sequence of Path or None
        Files that the command reads.
    overwrite : bool
        Whether an existing file of the same kind may be replaced.
    """
    given = {option: path for option, path in wanted.items() if path is not None}
    for (option, path), (other, second) in combinations(given.items(), 2):
        if path.absolute() == second.absolute() or is_same_file(path, second):
            raise click.UsageError(f"{option} and {other} name the same file; name two")
    for option, path in given.items():
        kind, recognise = _KINDS[option]
        check_output(path, overwrite=overwrite, kind=kind, recognise=recognise, inputs=inputs)


def write_pairs(path: Path, pairs: "Iterable[Pair | CrossPair]", columns: list[str]) -> None:
    """Write pairs as a CSV that no spreadsheet evaluates."""
    _write_rows(path, columns, ([getattr(pair, name) for name in columns] for pair in pairs))


def write_doubts(path: Path, found: "LabelDoubts") -> None:
    """Write the labels in doubt as a CSV that no spreadsheet evaluates, by rank."""
    names = list(found.thresholds)
    rows = (
        [
            *(getattr(doubt, name) for name in _DOUBT_COLUMNS),
            *(f"{doubt.probabilities[name]:.4f}" if doubt.probabilities else "" for name in names),
        ]
        for doubt in found.doubts
    )
    _write_rows(path, [*_DOUBT_COLUMNS, *(f"probability {name}" for name in names)], rows)


def list_columns(kind: "type[Pair | CrossPair]") -> list[str]:
    """List the columns of pairs of a kind."""
    return [field.name for field in fields(kind)]


def _write_rows(path: Path, columns: Iterable[str], rows: Iterable[Iterable[object]]) -> None:
    from brainfeat.tables.csv_cells import csv_cell

    try:
        with (
            atomic_write(path) as temporary,
            temporary.open("x", encoding="utf-8", newline="") as file,
        ):
            writer = csv.writer(file, lineterminator="\n")
            for row in chain([columns], rows):
                writer.writerow(csv_cell(str(cell)) for cell in row)
    except OSError as error:
        raise BrainfeatError(f"{path} cannot be written ({error.strerror})") from error


def _is_pairs(path: Path) -> bool:
    from brainfeat.leakage.cross_audit import CrossPair
    from brainfeat.leakage.pairs import Pair
    from brainfeat.tables.csv_cells import has_header

    return any(has_header(path, list_columns(kind)) for kind in (Pair, CrossPair))


def _is_doubts(path: Path) -> bool:
    from brainfeat.tables.csv_cells import has_header

    return has_header(path, _DOUBT_COLUMNS)


_KINDS = {
    "--pairs": ("a list of pairs that brainfeat wrote", _is_pairs),
    "--labels": ("a list of labels in doubt that brainfeat wrote", _is_doubts),
}
