"""``brainfeat split``: a stratified split that divides no group, as a table."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count as counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from brainfeat.cli import options, protocol
from brainfeat.cli.wording import translate
from brainfeat.text import count, name_some

if TYPE_CHECKING:
    from brainfeat.tables.rows import Row

_FRACTION = click.FloatRange(0, 1, max_open=True)
_TEST_FRACTION = 0.15


@dataclass(frozen=True, kw_only=True)
class _GroupedRows:
    """Images of a table or cache, with the group of each; ``""`` is a group of its own.

    Generated images, which no split divides, are apart.
    """

    rows: "list[Row]"
    groups: list[str]
    kind: str
    made: "list[Row]"


EXAMPLES = """\b
Examples:
  brainfeat split mri.h5 -o brain-mri/table.csv
  brainfeat split brain-mri -o table.csv --test-fraction 0.2 --val-fraction 0
"""


@click.command(
    "split", short_help="Write a stratified split that divides no group.", epilog=EXAMPLES
)
@click.argument("source", metavar="TABLE_OR_CACHE", type=click.Path(path_type=Path))
@options.output_option
@click.option(
    "--test-fraction",
    type=_FRACTION,
    help="Fraction of the images for the test split; 0 for none.  [default: 0.15]",
)
@click.option(
    "--val-fraction",
    type=_FRACTION,
    default=0.15,
    show_default=True,
    help="Fraction of the images for the validation split; 0 for none.",
)
@protocol.leave_out_option
@protocol.group_by_option
@options.group_level_option
@options.labels_option
@options.label_columns_option
@options.keep_masks_option
@options.overwrite_option
@options.random_state_option
@options.json_option
def command(
    source: Path,
    output: Path,
    *,
    test_fraction: float | None,
    val_fraction: float,
    leave_out: str | None,
    group_by: str,
    overwrite: bool,
    random_state: int,
    as_json: bool,
    **folder: Any,
) -> None:
    """Divide the images of TABLE_OR_CACHE into train, val and test, and write them as a CSV.

    TABLE_OR_CACHE is a folder or CSV that extract reads, or a cache that it wrote. Copies in a
    cache are kept together; of a folder or CSV, which has no features, only exact duplicates are.
    Existing splits are ignored. The CSV has the paths of the cache: write it to the folder that was
    extracted, or pass it to other commands as --table.
    """
    from brainfeat.tables.csv_rows import check_target, write_rows

    if leave_out is not None and test_fraction is not None:
        raise click.UsageError("--test-fraction and --leave-out exclude each other")
    check_target(output, overwrite=overwrite, inputs=(source, folder["labels"]))
    is_table = source.is_dir() or source.suffix.lower() == ".csv"
    found = (
        _read_table(source, group_by, folder)
        if is_table
        else _read_cache(source, group_by, folder, leave_out=leave_out)
    )
    if found.kind.startswith("numbers:"):
        options.say(f"warning: {protocol.explain_numbers(found.kind)}", err=True)
    if leave_out is None:
        given = _TEST_FRACTION if test_fraction is None else test_fraction
        fractions = {"val": val_fraction, "test": given}
        divided, left_out = _divide(found, fractions, random_state), None
    else:
        divided, left_out = _leave_out(found, leave_out, val_fraction, random_state)
    write_rows([*divided, *_place_generated(found, leave_out)], output, overwrite=overwrite)
    sizes = {name: sum(row.split == name for row in divided) for name in ("train", "val", "test")}
    n_groups = len(set(found.groups) - {""})
    if as_json:
        options.print_json(
            {
                "output": str(output),
                "images": sizes,
                "groups": n_groups,
                "group_by": found.kind,
                "left_out": left_out,
            }
        )
        return
    counts = ", ".join(f"{name} {size:,}" for name, size in sizes.items())
    options.say(f"{output}: {counts}; none of {n_groups:,} groups ({found.kind}) is divided")
    if left_out is not None:
        options.say(
            f"test is source {left_out['source']!r}; in no split: "
            f"{count(left_out['dropped'], 'image')} of other sources in one group with test "
            f"images, {left_out['without_source']:,} without a source"
        )


def _place_generated(found: _GroupedRows, leave_out: str | None) -> "list[Row]":
    """Put generated images into train, but for those of the source that is left out."""
    rows = [row._replace(split="" if row.source == leave_out else "train") for row in found.made]
    if out := sum(not row.split for row in rows):
        options.say(f"{count(out, 'generated image')} of that source in no split", err=True)
    return rows


def _divide(found: _GroupedRows, fractions: Mapping[str, float], random_state: int) -> "list[Row]":
    from brainfeat.leakage.splitting import split_rows

    labelled = [row for row in found.rows if row.label]
    names = sorted({row.label for row in labelled})
    splits = split_rows(
        [names.index(row.label) for row in labelled],
        fractions={name: fraction for name, fraction in fractions.items() if fraction},
        groups=[group for row, group in zip(found.rows, found.groups, strict=True) if row.label],
        class_names=names,
        random_state=random_state,
    )
    split_of = dict(zip((row.path for row in labelled), splits.tolist(), strict=True))
    return [
        # No head is fitted or measured on an image without a label, so its split does not matter.
        row._replace(split=split_of.get(row.path, "train"), group=group)
        for row, group in zip(found.rows, found.groups, strict=True)
    ]


def _leave_out(
    found: _GroupedRows, source: str, val_fraction: float, random_state: int
) -> "tuple[list[Row], dict[str, Any]]":
    """Take one source as the test split, and divide the others into train and val."""
    import numpy as np

    from brainfeat.leakage.sources import find_class_sources, leave_source_out
    from brainfeat.leakage.splitting import split_rows

    labelled = [place for place, row in enumerate(found.rows) if row.label]
    names = sorted({found.rows[place].label for place in labelled})
    y = np.array([names.index(found.rows[place].label) for place in labelled])
    sources = np.array([found.rows[place].source for place in labelled])
    groups = np.array([found.groups[place] for place in labelled])
    fold = leave_source_out(y, sources, source, groups=groups, class_names=names)
    for entry in find_class_sources(y, sources, names):
        options.say(f"warning: {entry.explain()}", err=True)
    if missing := [name for label, name in enumerate(names) if label not in y[fold.test]]:
        options.say(f"warning: source {source!r} has no images of {name_some(missing)}", err=True)
    splits = np.full(len(found.rows), "", "U5")
    places = np.array(labelled)
    splits[places[fold.test]] = "test"
    splits[places[fold.train]] = "train"
    if val_fraction:
        splits[places[fold.train]] = split_rows(
            y[fold.train],
            fractions={"val": val_fraction},
            groups=groups[fold.train],
            class_names=names,
            random_state=random_state,
        )
    rows = [
        row._replace(split=split, group=group)
        for row, split, group in zip(found.rows, splits.tolist(), found.groups, strict=True)
    ]
    return rows, {
        "source": source,
        "dropped": fold.dropped,
        "without_source": int((sources == "").sum()),
    }


def _read_cache(
    source: Path, group_by: str, folder: Mapping[str, Any], *, leave_out: str | None
) -> _GroupedRows:
    import numpy as np

    from brainfeat.errors import ParameterError
    from brainfeat.leakage.sources import check_source
    from brainfeat.training.grouping import choose_groups

    for name in ("group_level", "labels", "label_columns"):
        if folder[name] is not None:
            raise ParameterError(
                f"{name} cannot be used with the cache {source}, which has labels and groups;"
                " extract the folder with it"
            )
    with options.open_cache(source) as cache:
        if leave_out is not None:
            # Before the search for copies, which may take minutes.
            check_source(cache.sources[cache.y >= 0], leave_out)
        if group_by not in ("column", "none"):
            options.warn_of_missing_signatures(cache)
        with options.ProgressLine("looking for groups"):
            grouping = choose_groups(cache, group_by)
        images, made = np.flatnonzero(cache.is_image), protocol.list_generated(cache)
        known = np.array([*cache.class_names, ""])[cache.y[images]]
        columns = (cache.paths[images], known, cache.sources[images])
        rows = _make_rows(*(column.tolist() for column in columns))
        names = cache.groups[images].tolist()
    if grouping.kind == "none":
        groups = [""] * len(rows)
    elif grouping.kind == "column":
        groups = names
    else:
        labels = np.arange(images.max() + 1) if grouping.labels is None else grouping.labels
        groups = _name_groups(labels[images].tolist(), names, kind=grouping.kind)
    return _GroupedRows(rows=rows, groups=groups, kind=grouping.kind, made=made)


def _read_table(source: Path, group_by: str, folder: Mapping[str, Any]) -> _GroupedRows:
    import numpy as np

    from brainfeat.errors import TableError
    from brainfeat.leakage.number_blocks import join_number_blocks, read_block_size
    from brainfeat.tables.inventory import Inventory
    from brainfeat.tables.table import read_table

    table = read_table(source, **folder)
    inventory = Inventory.of(table)
    for line in inventory.describe_left_out():
        options.say(line, err=True)
    for note in inventory.notes:
        options.say(f"warning: {translate(note)}", err=True)
    made = [table.row(row) for row, origin in enumerate(table.origins) if origin]
    own = [row for row, origin in enumerate(table.origins) if not origin]
    columns = (table.paths, table.labels, table.sources, table.groups)
    paths, labels, sources, names = ([column[row] for row in own] for column in columns)
    rows = _make_rows(paths, labels, sources)
    if group_by in ("copies", "near-duplicates"):
        kind = group_by.replace("-", " ")
        raise TableError(
            f"{source} has no features to find {kind} with; extract it and split the cache"
        )
    if group_by == "none":
        return _GroupedRows(rows=rows, groups=[""] * len(rows), kind="none", made=made)
    size = read_block_size(group_by)
    if any(names) and size is None:
        return _GroupedRows(rows=rows, groups=names, kind="column", made=made)
    if group_by == "column":
        raise TableError(f"{source} has no groups; give the table a group column")
    digests = [_digest(table.absolute_path(row), table.paths[row]) for row in own]
    same, kind = np.unique(digests, return_inverse=True)[1], "exact-duplicates"
    if size is not None:
        kind = group_by
        same = join_number_blocks(paths, size, same=same, groups=names)
    groups = _name_groups(same.tolist(), names, kind=kind)
    return _GroupedRows(rows=rows, groups=groups, kind=kind, made=made)


def _make_rows(paths: Sequence[str], labels: Sequence[str], sources: Sequence[str]) -> "list[Row]":
    from brainfeat.tables.rows import Row

    columns = zip(paths, labels, sources, strict=True)
    return [Row(path=path, label=label, source=source) for path, label, source in columns]


def _digest(file: Path, name: str) -> str:
    import hashlib

    from brainfeat.readers import read_bytes

    return hashlib.sha256(read_bytes(file, name=name)).hexdigest()


def _name_groups(labels: Sequence[Any], names: Sequence[str], *, kind: str) -> list[str]:
    """Name the group of each image: as the table does, or where it has none or several, by number.

    An image that is alone in its group and has no name in the table has no group.
    """
    members: dict[Any, list[str]] = {}
    for label, name in zip(labels, names, strict=True):
        members.setdefault(label, []).append(name)
    used = set(names)
    prefix = "numbers" if kind.startswith("numbers:") else "copies"
    numbered = (name for number in counter(1) if (name := f"{prefix}-{number:05}") not in used)
    chosen = {}
    for label, own in members.items():
        known = set(own) - {""}
        if len(known) == 1:
            chosen[label] = known.pop()
        else:
            chosen[label] = next(numbered) if len(own) > 1 else ""
    return [chosen[label] for label in labels]
