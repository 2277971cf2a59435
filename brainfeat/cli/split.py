"""``brainfeat split``: a stratified split that cuts no group, as a table."""

from collections import Counter
from pathlib import Path
from typing import Any

import click

from brainfeat.cli import options

_FRACTION = click.FloatRange(0, 1, max_open=True)


@click.command("split", short_help="Write a stratified split that cuts no group.")
@click.argument("source", metavar="TABLE_OR_CACHE", type=click.Path(path_type=Path))
@options.output_option
@click.option(
    "--test-fraction",
    type=_FRACTION,
    default=0.15,
    show_default=True,
    help="Share of the images in the test part.",
)
@click.option(
    "--val-fraction",
    type=_FRACTION,
    default=0.15,
    show_default=True,
    help="Share of the images in the validation part; 0 for none.",
)
@options.group_by_option
@options.overwrite_option
@options.random_state_option
@options.json_option
def command(
    source: Path,
    output: Path,
    *,
    test_fraction: float,
    val_fraction: float,
    group_by: Any,
    overwrite: bool,
    random_state: int,
    as_json: bool,
) -> None:
    """Divide the images of TABLE_OR_CACHE into train, val and test, and write them as a CSV.

    TABLE_OR_CACHE is what extract reads or writes. Of a cache, near duplicates are kept together;
    of a folder or a CSV, for want of features, identical files. The table's own splits are passed
    over. The CSV has the paths of the cache: keep it in the folder that extract was given, or pass
    it to the other commands as --table.
    """
    from brainfeat.leakage.splitting import split_rows
    from brainfeat.tables.csv_rows import write_rows

    is_table = source.is_dir() or source.suffix.lower() == ".csv"
    read = _read_table if is_table else _read_cache
    rows, groups, grouped_by = read(source, group_by)
    labelled = [row for row in rows if row.label]
    names = sorted({row.label for row in labelled})
    shares = {"val": val_fraction, "test": test_fraction}
    parts = split_rows(
        [names.index(row.label) for row in labelled],
        fractions={name: share for name, share in shares.items() if share},
        groups=[group for row, group in zip(rows, groups, strict=True) if row.label],
        class_names=names,
        random_state=random_state,
    )
    part_of = dict(zip((row.path for row in labelled), parts.tolist(), strict=True))
    divided = [
        # A head learns nothing from an image without a label, nor is it measured on it.
        row._replace(split=part_of.get(row.path, "train"), group=group)
        for row, group in zip(rows, groups, strict=True)
    ]
    write_rows(divided, output, overwrite=overwrite)
    sizes = {name: sum(row.split == name for row in divided) for name in ("train", "val", "test")}
    document = {
        "output": str(output),
        "images": sizes,
        "groups": len(set(groups) - {""}),
        "group_by": grouped_by,
    }
    if as_json:
        options.print_json(document)
        return
    counts = ", ".join(f"{name} {size:,}" for name, size in sizes.items())
    options.say(f"{output}: {counts}; none of {document['groups']:,} groups ({grouped_by}) is cut")


def _read_cache(source: Path, group_by: Any) -> tuple[list[Any], list[str], str]:
    import numpy as np

    from brainfeat.leakage.auditing import audit_duplicates
    from brainfeat.tables.rows import Row
    from brainfeat.training.partition import choose_groups

    with options.open_cache(source) as cache:
        grouping = choose_groups(cache, group_by, audit_duplicates(cache))
        images = np.flatnonzero(cache.view == 0)
        labels = np.array([*cache.class_names, ""])[cache.y[images]]
        columns = (cache.paths[images], labels, cache.sources[images])
        rows = [
            Row(path=path, label=label, source=place)
            for path, label, place in zip(*(column.tolist() for column in columns), strict=True)
        ]
    if grouping.labels is None:
        return rows, [""] * len(rows), grouping.kind
    groups = grouping.labels[images].tolist()
    return rows, groups if grouping.kind == "column" else _name_groups(groups), grouping.kind


def _read_table(source: Path, group_by: Any) -> tuple[list[Any], list[str], str]:
    import hashlib

    from brainfeat.errors import TableError
    from brainfeat.readers import read_bytes
    from brainfeat.tables.rows import Row
    from brainfeat.tables.table import read_table

    table = read_table(source)
    if group_by == "near-duplicates":
        raise TableError(
            f"{source} has no features to find near duplicates by; extract it and split the cache"
        )
    columns = (table.paths, table.labels, table.sources)
    rows = [
        Row(path=path, label=label, source=place)
        for path, label, place in zip(*columns, strict=True)
    ]
    if group_by == "none":
        return rows, [""] * len(rows), "none"
    if any(table.groups) or group_by == "column":
        if not any(table.groups):
            raise TableError(f"{source} has no groups; give the table a group column")
        return rows, list(table.groups), "column"
    digests = [
        hashlib.sha256(read_bytes(table.absolute_path(row), name=path)).hexdigest()
        for row, path in enumerate(table.paths)
    ]
    return rows, _name_groups(digests), "exact-duplicates"


def _name_groups(labels: list[Any]) -> list[str]:
    """Name the groups of several images, in their order; an image of its own has none."""
    sizes = Counter(labels)
    several = [label for label in dict.fromkeys(labels) if sizes[label] > 1]
    names = {label: f"copies-{number:05}" for number, label in enumerate(several, 1)}
    return [names.get(label, "") for label in labels]
