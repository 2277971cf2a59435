"""``brainfeat link``: what another cache knows of copies, as a table."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from brainfeat.cache.storage import Verify
from brainfeat.cli import options, protocol
from brainfeat.errors import ParameterError
from brainfeat.text import align, count

if TYPE_CHECKING:
    from brainfeat.leakage.linking import LinkConflict, LinkedCopy, Linking
    from brainfeat.tables.rows import Row

_SHOWN = 5

EXAMPLES = """\b
Examples:
  brainfeat link found.h5 origin.h5 --take group,source -o found-linked.csv
  brainfeat link unlabelled.h5 mri.h5 --take label -o labelled.csv --json
"""


class Columns(click.ParamType[tuple[str, ...]]):
    """Names of columns with commas between."""

    name = "columns"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, ...]:
        """Split the names and check them."""
        from brainfeat.leakage.linking import check_columns

        try:
            return check_columns(filter(None, map(str.strip, value.split(","))))
        except ParameterError as error:
            self.fail(str(error), param, ctx)


@click.command(
    "link", short_help="Take groups, sources or labels from another cache.", epilog=EXAMPLES
)
@click.argument("features", type=click.Path(path_type=Path))
@click.argument("origin", type=click.Path(path_type=Path))
@click.option(
    "--take",
    type=Columns(),
    required=True,
    metavar="COLUMN[,COLUMN]",
    help="What to take from ORIGIN: group, source, label, or several with commas between. A split "
    "cannot be taken, because it belongs to an experiment and not to an image.",
)
@options.output_option
@options.verify_option
@options.overwrite_option
@options.json_option
def command(
    features: Path,
    origin: Path,
    *,
    take: tuple[str, ...],
    output: Path,
    verify: Verify,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Write a table of the images of FEATURES with what ORIGIN knows of their copies.

    Both are files that extract wrote, of any bases. Exact duplicates count before copies in any of
    eight orientations. Nothing is guessed: where copies disagree, or the image has another value
    already, the image keeps what it has and is listed. The CSV has the paths of FEATURES: write it
    to the folder that was extracted and extract it again, or pass it to other commands as --table,
    which takes its splits and groups.
    """
    from brainfeat.leakage.linking import link_caches
    from brainfeat.tables.csv_rows import check_target, write_rows

    check_target(output, overwrite=overwrite, inputs=(features, origin))
    with (
        options.open_cache(features, verify=verify) as cache,
        options.open_cache(origin, verify=verify) as known,
    ):
        found = link_caches(cache, known, take=take)
        made = protocol.list_generated(cache)
    write_rows([*_make_rows(found, features), *made], output, overwrite=overwrite)
    if as_json:
        options.print_json({"output": str(output), **found.to_dict()})
        return
    for line in _describe(found, output=output, features=features, origin=origin):
        options.say(line)


def _make_rows(found: "Linking", features: Path) -> "list[Row]":
    """Make the rows of the table, which must be one that is read again."""
    from brainfeat.errors import TableError
    from brainfeat.tables.rows import Row, check_appearance

    check_appearance(sorted(set(found.table["label"]) - {""}))
    if len(set(map(bool, found.table["split"]))) > 1:
        raise TableError(
            f"only some images of {features} have a split, as in no table; give every image a "
            "split, or none, and extract again"
        )
    columns = zip(*found.table.values(), strict=True)
    return [Row(**dict(zip(found.table, texts, strict=True))) for texts in columns]


def _describe(found: "Linking", *, output: Path, features: Path, origin: Path) -> Iterator[str]:
    yield f"{output}: {count(found.images, 'image')} of {features}"
    if found.same_images:
        yield f"{features} and {origin} are caches of the same images"
    blank = f", {found.blank:,} of them blank" if found.blank else ""
    yield (
        f"{found.copies:,} have a copy in {origin}, {found.exact_duplicates:,} of them an exact "
        f"duplicate; {found.images - found.copies:,} have none{blank}"
    )
    yield ""
    yield from align(
        [
            ("column", "taken", "agreed", "conflicts", "unknown", "without a copy"),
            *(
                (name, *(f"{number:,}" for number in vars(column).values()))
                for name, column in found.columns.items()
            ),
        ]
    )
    if found.conflicts:
        yield ""
        yield f"conflicts: {len(found.conflicts):,}"
        yield from (f"  {_describe_conflict(conflict)}" for conflict in found.conflicts[:_SHOWN])
        if (rest := len(found.conflicts) - _SHOWN) > 0:
            yield f"  and {rest:,} more, which --json lists"


def _describe_conflict(conflict: "LinkConflict") -> str:
    own = f"has {conflict.value}" if conflict.value else "has none"
    copies = ", ".join(map(_describe_copy, conflict.copies))
    return f"{conflict.column} of {conflict.path}: it {own}; {copies}"


def _describe_copy(copy: "LinkedCopy") -> str:
    how = copy.orientation.replace("_", " ") if copy.orientation else "exact duplicate"
    return f"{copy.path} ({how}) has {copy.value}"
