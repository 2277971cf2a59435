"""``brainfeat audit``: why figures on a cache may be too good to be true."""

import csv
import sys
from pathlib import Path
from typing import Any

import click

from brainfeat.cache.storage import Verify
from brainfeat.cli import options
from brainfeat.errors import BrainfeatError
from brainfeat.text import count

# Exit code of --strict where something was found.
_FOUND = 3
_SHOWN = 5


@click.command("audit", short_help="Find copies across splits, and other reasons for doubt.")
@click.argument("features", type=click.Path(path_type=Path))
@options.threshold_option
@options.table_option
@click.option("--strict", is_flag=True, help=f"End with exit code {_FOUND} if anything is found.")
@click.option(
    "--pairs",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write each pair of near duplicates to a CSV file.",
)
@options.verify_option
@options.overwrite_option
@options.random_state_option
@options.json_option
def command(
    features: Path,
    *,
    threshold: float,
    table: Path | None,
    strict: bool,
    pairs: Path | None,
    verify: Verify,
    overwrite: bool,
    random_state: int,
    as_json: bool,
) -> None:
    """Look in FEATURES, a file that extract wrote, for what makes figures too good to be true.

    Files that are identical or nearly so on two sides of the split, groups on two sides, copies of
    several labels, classes that can be told without the pixels, and labels that can be guessed
    though they mean nothing.
    """
    from brainfeat.leakage.auditing import audit

    if pairs is not None:
        options.check_output(pairs, overwrite=overwrite)
    with options.open_cache(features, table=table, verify=verify) as cache:
        found = audit(cache, threshold=threshold, random_state=random_state)
        if pairs is not None:
            _write_pairs(pairs, cache, threshold)
        has_splits = bool(cache.splits.any())
    if as_json:
        options.print_json(found.to_dict())
    else:
        for line in _describe(found.to_dict(), has_splits=has_splits):
            options.say(line)
    if strict and found.findings:
        sys.exit(_FOUND)


def _describe(audit: dict[str, Any], *, has_splits: bool) -> list[str]:
    identical, near = audit["identical"], audit["near"]
    without = "" if has_splits else "; the table has no splits, so nothing can be across them"
    sizes = ", ".join(map(str, near["sizes"]))
    lines = [
        f"{count(audit['images'], 'image')}{without}",
        f"identical files   {_describe_copies(identical, 'groups', 'files')}",
        f"near duplicates   {_describe_copies(near, 'clusters', 'images')}",
        f"                  at a similarity of {near['threshold']}; largest: {sizes}",
        f"groups            {audit['groups_across_splits']:,} across splits",
    ]
    if audit["patient_key"] == "random":
        lines += [
            "                  patients were hashed with a random key: one has another group in",
            "                  another run of brainfeat slices",
        ]
    lines.append(f"label conflicts   {len(audit['label_conflicts']):,}")
    for conflict in audit["label_conflicts"][:_SHOWN]:
        images = zip(conflict["paths"], conflict["labels"], strict=True)
        shown = ", ".join(f"{path} ({label})" for path, label in images)
        lines.append(f"                  {conflict['kind']}: {shown}")
    for name, title in (("shortcut", "without pixels"), ("permutation", "shuffled labels")):
        if control := audit[name]:
            lines.append(
                f"{title:<17} accuracy {control['accuracy']:.3f}, chance {control['chance']:.3f}"
            )
    findings = [f"- {finding}" for finding in audit["findings"]]
    return [*lines, "", "Found:" if findings else "Nothing was found.", *findings]


def _describe_copies(copies: dict[str, Any], several: str, members: str) -> str:
    return (
        f"{copies[several]:,} {several} of {copies[members]:,} {members}, "
        f"{copies[f'cross_split_{several}']:,} across splits, "
        f"{count(copies['test_files'], 'test image')} with a copy in train"
    )


def _write_pairs(path: Path, cache: Any, threshold: float) -> None:
    from brainfeat.files import written_whole
    from brainfeat.leakage.auditing import PAIR_COLUMNS, list_pairs
    from brainfeat.tables.csv_cells import csv_cell

    try:
        with (
            written_whole(path) as temporary,
            temporary.open("x", encoding="utf-8", newline="") as file,
        ):
            writer = csv.DictWriter(file, PAIR_COLUMNS, lineterminator="\n")
            writer.writeheader()
            for pair in list_pairs(cache, threshold=threshold):
                writer.writerow({name: csv_cell(str(value)) for name, value in pair.items()})
    except OSError as error:
        raise BrainfeatError(f"{path} cannot be written ({error.strerror})") from error
