"""Files that ``brainfeat audit`` writes beside its results: pairs, labels in doubt, and a map."""

import csv
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from itertools import chain, combinations
from pathlib import Path
from typing import TYPE_CHECKING

import click

from brainfeat.cli import options
from brainfeat.errors import BrainfeatError
from brainfeat.files import atomic_write, check_output, is_same_file

if TYPE_CHECKING:
    from brainfeat.cache.cache import FeatureCache
    from brainfeat.leakage.cross_audit import CrossPair
    from brainfeat.leakage.pairs import Pair
    from brainfeat.training.label_doubts import LabelDoubts

# What takes longer is said, and the number of images that t-SNE takes longer for.
_SLOW_SECONDS = 2
_SLOW_IMAGES = 500
# The title of a map is in its first bytes.
_TITLE_BYTES = 4096
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
        if is_same_file(path, second):
            raise click.UsageError(f"{option} and {other} name the same file; name two")
    for option, path in given.items():
        kind, recognise = _KINDS[option]
        check_output(path, overwrite=overwrite, kind=kind, recognise=recognise, inputs=inputs)


def write_pairs(path: Path, pairs: "Iterable[Pair | CrossPair]", columns: list[str]) -> None:
    """Write pairs as a CSV that no spreadsheet evaluates, and say so on stderr."""
    _write_rows(path, columns, ([getattr(pair, name) for name in columns] for pair in pairs))
    options.say(f"{path} written", err=True)


def write_doubts(path: Path, found: "LabelDoubts") -> None:
    """Write the labels in doubt as a CSV that no spreadsheet evaluates, and say so on stderr."""
    names = list(found.thresholds)
    rows = (
        [
            *(getattr(doubt, name) for name in _DOUBT_COLUMNS),
            *(f"{doubt.probabilities[name]:.4f}" if doubt.probabilities else "" for name in names),
        ]
        for doubt in found.doubts
    )
    _write_rows(path, [*_DOUBT_COLUMNS, *(f"probability {name}" for name in names)], rows)
    options.say(f"{path} written", err=True)


def write_map(
    path: Path, cache: "FeatureCache", doubts: "LabelDoubts | None", *, random_state: int
) -> None:
    """Write a map of a cache, and say so on stderr, and before, where it takes a while."""
    from brainfeat.report.map import MAX_IMAGES, to_map

    images = min(MAX_IMAGES, int(cache.is_image.sum()))
    if images > _SLOW_IMAGES:
        options.say(f"placing {images:,} images on a map by t-SNE", err=True)
    started = time.monotonic()
    page = to_map(
        cache,
        predicted=None if doubts is None else doubts.predicted,
        doubted=() if doubts is None else [doubt.path for doubt in doubts.doubts],
        random_state=random_state,
    )
    options.write_text(path, page)
    seconds = time.monotonic() - started
    took = f" in {options.format_seconds(seconds)}" if seconds > _SLOW_SECONDS else ""
    options.say(f"{path} written{took}", err=True)


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


def _is_map(path: Path) -> bool:
    """Return whether a file has the title of a map near its start."""
    from brainfeat.report.map import TITLE

    with path.open("rb") as file:
        return f"<title>{TITLE}".encode() in file.read(_TITLE_BYTES)


_KINDS = {
    "--map": ("a map that brainfeat wrote", _is_map),
    "--pairs": ("a list of pairs that brainfeat wrote", _is_pairs),
    "--labels": ("a list of labels in doubt that brainfeat wrote", _is_doubts),
}
