"""``brainfeat audit``: why metrics on a cache may be too good."""

import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click

from brainfeat.cache.storage import Verify
from brainfeat.cli import options
from brainfeat.cli.audit_files import (
    check_files,
    list_columns,
    write_doubts,
    write_map,
    write_pairs,
)
from brainfeat.cli.label_doubts import check_labels, describe_doubts, find_doubts, try_doubts
from brainfeat.cli.overlaps import describe_overlaps
from brainfeat.text import align, count, format_metric

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from brainfeat.cache.cache import FeatureCache
    from brainfeat.leakage.cross_audit import CrossAudit, CrossPair
    from brainfeat.leakage.pairs import Pair
    from brainfeat.leakage.results import Audit
    from brainfeat.training.label_doubts import LabelDoubts

# Exit code of --strict where something was found.
_FOUND = 3
_SHOWN = 5

EXAMPLES = """\b
Examples:
  brainfeat audit mri.h5
  brainfeat audit mri.h5 --strict --pairs pairs.csv
  brainfeat audit mri.h5 --labels suspects.csv --map map.html
  brainfeat audit mri.h5 other-hospital.h5
"""


@click.command("audit", short_help="Find copies across splits, and other leaks.", epilog=EXAMPLES)
@click.argument(
    "features", type=click.Path(path_type=Path), metavar="FEATURES...", nargs=-1, required=True
)
@options.threshold_option
@options.table_option
@click.option("--strict", is_flag=True, help=f"End with exit code {_FOUND} if anything is found.")
@click.option(
    "--pairs",
    type=click.Path(path_type=Path),
    help="Write each pair of copies and of near duplicates, or of copies between caches, to a CSV "
    "file.",
)
@click.option(
    "--labels",
    type=click.Path(path_type=Path),
    help="Write the images whose labels are in doubt to a CSV file. Unlike that of extract, this "
    "option names a file to write and not one to read.",
)
@click.option(
    "--map",
    "map_file",
    type=click.Path(path_type=Path),
    help="Write a map of the images as an HTML page, by t-SNE, coloured by class, split, source "
    "and error, without images and paths; needs the extra report.",
)
@options.verify_option
@options.overwrite_option
@options.random_state_option
@options.json_option
def command(
    features: tuple[Path, ...],
    *,
    threshold: float,
    table: Path | None,
    strict: bool,
    pairs: Path | None,
    labels: Path | None,
    map_file: Path | None,
    verify: Verify,
    overwrite: bool,
    random_state: int,
    as_json: bool,
) -> None:
    """Look in FEATURES, files that extract wrote, for reasons why metrics are too good.

    The audit finds exact duplicates, copies (by their pixels, mirrored and turned ones too), near
    duplicates and groups in several splits, and copies with conflicting labels. It measures how
    well the class is predicted without the pixels (a shortcut), and how well shuffled labels are
    predicted (memorisation).

    With --labels, classifiers that were fitted on other images, never on copies of the same image
    and never on the test split, predict every label. Those that they confidently contradict are
    listed, and copies with conflicting labels. No label is changed and no image is left out:
    somebody who can read the images has to look at them.

    Of several FEATURES, of any bases, it finds the exact duplicates and copies that each two of
    them have in common, and those with conflicting labels. It then looks for nothing within one
    file: audit that file alone.
    """
    if len(features) > 1:
        _refuse_options_of_one_file()
    wanted = {"--pairs": pairs, "--labels": labels, "--map": map_file}
    check_files(wanted, (*features, table), overwrite=overwrite)
    with ExitStack() as stack:
        caches = [
            stack.enter_context(options.open_cache(path, table=table, verify=verify))
            for path in features
        ]
        if len(caches) > 1:
            found = _audit_several(caches)
        else:
            found = _audit_one(
                caches[0],
                threshold=threshold,
                labels=labels is not None,
                map_file=map_file,
                random_state=random_state,
            )
        if pairs is not None:
            write_pairs(pairs, found.pairs, found.columns)
    document = found.audit.to_dict()
    if found.doubts is not None and labels is not None:
        write_doubts(labels, found.doubts)
        document["label_doubts"] = found.doubts.to_dict()
    if as_json:
        options.print_json(document)
    else:
        for line in found.lines:
            options.say(line)
    if strict and found.audit.findings:
        sys.exit(_FOUND)


class _Found(NamedTuple):
    """An audit, the lines that describe it, and its pairs with the columns of their CSV."""

    audit: "Audit | CrossAudit"
    lines: list[str]
    pairs: "Iterable[Pair | CrossPair]"
    columns: list[str]
    doubts: "LabelDoubts | None" = None


def _audit_one(
    cache: "FeatureCache",
    *,
    threshold: float,
    labels: bool,
    map_file: Path | None,
    random_state: int,
) -> _Found:
    from brainfeat.leakage.auditing import audit
    from brainfeat.leakage.pairs import Pair, list_pairs

    # What cannot be done is refused before anything is computed.
    if labels:
        check_labels(cache)
    if map_file is not None:
        from brainfeat.report.map import check_map

        check_map(cache)
    with options.ProgressLine("looking for copies and shortcuts"):
        found = audit(cache, threshold=threshold, random_state=random_state)
    lines, doubts = _describe(found, has_splits=bool(cache.splits.any())), None
    if labels:
        doubts = find_doubts(cache, found, random_state=random_state)
        lines += ["", *describe_doubts(doubts)]
    elif map_file is not None:
        doubts = try_doubts(cache, found, random_state=random_state)
    if map_file is not None:
        write_map(map_file, cache, doubts, random_state=random_state)
    pairs = list_pairs(cache, threshold=threshold)
    return _Found(found, lines, pairs, list_columns(Pair), doubts)


def _audit_several(caches: "Sequence[FeatureCache]") -> _Found:
    from brainfeat.leakage.cross_audit import CrossPair, describe_matching, list_cross_pairs
    from brainfeat.leakage.matching import match_caches

    with options.ProgressLine("looking for copies"):
        matching = match_caches(caches)
    found = describe_matching(matching)
    pairs = list_cross_pairs(matching)
    return _Found(found, describe_overlaps(found), pairs, list_columns(CrossPair))


def _refuse_options_of_one_file() -> None:
    """Refuse options that change nothing where several files are audited."""
    context = click.get_current_context()
    refused = ("threshold", "table", "labels", "map_file", "random_state")
    given = [
        param.opts[0]
        for param in context.command.params
        if param.name in refused
        and context.get_parameter_source(param.name) is click.core.ParameterSource.COMMANDLINE
    ]
    if given:
        raise click.UsageError(
            f"{', '.join(given)} cannot be used with several FEATURES; audit each of them alone"
        )


def _describe(audit: "Audit", *, has_splits: bool) -> list[str]:
    without = "" if has_splits else "; the table has no splits, so nothing can be across them"
    findings = [f"- {finding}" for finding in audit.findings]
    return [
        f"{count(audit.images, 'image')}{without}",
        *align(
            [*_list_copies(audit), *_list_conflicts(audit), *_list_controls(audit)], left=(0, 1)
        ),
        "",
        "Found:" if findings else "Nothing was found.",
        *findings,
    ]


def _list_copies(audit: "Audit") -> "Iterator[tuple[str, str]]":
    exact = audit.exact_duplicates
    yield "exact duplicates", f"{count(exact.groups, 'group')} of {count(exact.files, 'file')}"
    yield "", _describe_sides(exact.cross_split_groups, exact.test_files)
    if copies := audit.copies:
        turns = ", ".join(
            f"{number:,} {name.replace('_', ' ')}" for name, number in copies.by_orientation.items()
        )
        yield (
            "copies",
            f"{count(copies.groups, 'group')} of {count(copies.images, 'image')}, by their pixels",
        )
        yield "", _describe_sides(copies.cross_split_groups, copies.test_files)
        if copies.altered:
            turns += f"{', ' if turns else ''}{copies.altered:,} altered"
        if turns:
            yield "", turns
        if copies.altered is None:
            yield "", "not looked for among so many: rotated, cropped or padded ones"
    else:
        yield "copies", "not looked for: the cache has no signatures; run extract again"
    if near := audit.near_duplicates:
        sizes = ", ".join(map(str, near.sizes))
        yield (
            "near duplicates",
            f"{count(near.clusters, 'cluster')} of {count(near.images, 'image')}",
        )
        yield "", _describe_sides(near.cross_split_clusters, near.test_files)
        yield "", f"at a similarity of {near.threshold}; largest: {sizes}"
    yield "groups", f"{audit.groups_across_splits:,} across splits"
    if audit.patient_key == "random":
        yield "", "patients were hashed with a random key: one has another group in"
        yield "", "another run of brainfeat slices"


def _list_conflicts(audit: "Audit") -> "Iterator[tuple[str, str]]":
    yield "label conflicts", f"{len(audit.label_conflicts):,}"
    for conflict in audit.label_conflicts[:_SHOWN]:
        images = zip(conflict.paths, conflict.labels, strict=True)
        shown = ", ".join(f"{path} ({label})" for path, label in images)
        turn = f", {conflict.orientation.replace('_', ' ')}" if conflict.orientation else ""
        yield "", f"{conflict.kind.replace('-', ' ')}{turn}: {shown}"


def _list_controls(audit: "Audit") -> "Iterator[tuple[str, str]]":
    for title, control in (
        ("without pixels", audit.shortcut),
        ("shuffled labels", audit.permutation),
    ):
        if control is not None:
            accuracy, chance = format_metric(control.accuracy), format_metric(control.chance)
            yield title, f"accuracy {accuracy}, chance {chance}"


def _describe_sides(number: int, test_images: int) -> str:
    copied = count(test_images, "test image")
    return f"{number:,} across splits, {copied} with a copy in train or val"
