"""``brainfeat evaluate``: the metrics of a head on a split."""

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from brainfeat.cache.storage import Verify
from brainfeat.cli import blocks, options, protocol, reporting
from brainfeat.cli.classes import classes_option

if TYPE_CHECKING:
    from collections.abc import Sequence

    from brainfeat.cache.cache import FeatureCache
    from brainfeat.evaluation.class_mapping import Classes
    from brainfeat.evaluation.results import Evaluation
    from brainfeat.evaluation.set_results import SetsEvaluation
    from brainfeat.heads.bundle import HeadBundle
    from brainfeat.leakage.results import Audit


def _read_fractions(
    _: click.Context, __: click.Parameter, values: tuple[str, ...]
) -> dict[str, float]:
    fractions = {}
    for text in values:
        name, equals, fraction = text.rpartition("=")
        try:
            fractions[name] = float(fraction)
        except ValueError:
            equals = ""
        if not equals or not name:
            raise click.BadParameter(f"{text!r} is not CLASS=FRACTION, such as glioma=0.01")
    return fractions


EXAMPLES = """\b
Examples:
  brainfeat evaluate svm.h5 mri.h5
  brainfeat evaluate svm.h5 site-b.h5 --report report.html
  brainfeat evaluate svm.h5 site-b.h5 --unit group
  brainfeat evaluate svm.h5 mri.h5 site-b.h5 site-c.h5 --classes yes=glioma+meningioma,no=notumor
"""


@click.command("evaluate", short_help="Evaluate a head on the images of a split.", epilog=EXAMPLES)
@click.argument("head", type=click.Path(path_type=Path))
@click.argument("features", type=click.Path(path_type=Path), nargs=-1, required=True)
@options.split_option
@classes_option
@protocol.unit_option
@protocol.group_label_option
@options.table_option
@click.option(
    "--threshold",
    type=click.FloatRange(0, 1, min_open=True),
    help="Smallest similarity of near duplicates.  [default: that of audit, up to 50,000 images]",
)
@click.option(
    "--by",
    metavar="COLUMN",
    help="Also evaluate the images by their value in a column: source, group, split, width, "
    "height, channels, or another column of --table.",
)
@click.option(
    "--prevalence",
    "prevalence",
    metavar="CLASS=FRACTION",
    multiple=True,
    callback=_read_fractions,
    help="How common a class is where the head will be used, for its predictive values.",
)
@click.option(
    "--floor",
    type=click.Path(path_type=Path),
    metavar="FEATURES",
    help="Features of the same images by random weights: what the nearest neighbour reaches by "
    "them is shown as a floor.",
)
@options.random_state_option
@click.option("--markdown", is_flag=True, help="Print Markdown tables.")
@reporting.report_options
@options.verify_option
@options.json_option
def command(
    head: Path,
    features: tuple[Path, ...],
    *,
    split: str,
    classes: tuple["Classes", ...],
    table: Path | None,
    threshold: float | None,
    by: str | None,
    prevalence: dict[str, float],
    floor: Path | None,
    unit: str | None,
    group_label: str | None,
    random_state: int,
    markdown: bool,
    verify: Verify,
    as_json: bool,
    **reports: Any,
) -> None:
    """Evaluate HEAD, a file that fit-head wrote, on FEATURES, files that extract wrote.

    Metrics are reported for all images and for those that are new to the head: without copies,
    near duplicates and exact duplicates of the images that it was fitted and validated on, each
    with a 95 % interval. Of several FEATURES, each is a set of its own: a table has a row for each,
    and what it differs by from the test part of the fit. For a head that was fitted on several
    FEATURES together, name those of one set, as NAME=FEATURES where their names do not tell.

    With --unit group, patients (groups of the table) are counted in place of images.
    """
    from brainfeat.evaluation.evaluator import evaluate
    from brainfeat.heads.bundle import HeadBundle
    from brainfeat.report import to_markdown, to_text

    if markdown and as_json:
        raise click.UsageError("--markdown and --json exclude each other")
    bundle = HeadBundle.load(head, verify=verify)
    is_one_set = bundle.blocks is not None and bundle.blocks.is_one_set
    if table is not None and len(features) > 1 and not is_one_set:
        raise click.UsageError("--table needs one FEATURES: it has the splits of one set")
    is_reported = reporting.check_options(
        reports, inputs=(head, *blocks.split_names(features)[1], table, floor)
    )
    given: dict[str, Any] = {
        "split": split,
        "classes": classes or None,
        "threshold": threshold,
        "prevalence": prevalence,
        "unit": unit,
        "group_label": group_label,
        "random_state": random_state,
    }
    with ExitStack() as stack:
        caches = _open_caches(stack, bundle, features, table=table, verify=verify)
        if floor is not None:
            given["floor"] = stack.enter_context(options.open_cache(floor, verify=verify))
        found: Evaluation | SetsEvaluation
        if len(caches) > 1:
            with options.ProgressLine("evaluating"):
                found = evaluate(bundle, caches, by=by, **given)
            if is_reported:
                _report_sets(reports, found, bundle=bundle, caches=caches, **given)
        else:
            [cache] = caches
            column = _read_column(by, table, cache)
            with options.ProgressLine("evaluating"):
                audited = _audit(bundle, cache, is_reported=is_reported, **given)
                found = evaluate(bundle, cache, by=column, audit=audited, **given)
            options.warn_of_leakage(audited.findings, *blocks.split_names(features)[1])
            if is_reported:
                reporting.write_reports(reports, found, bundle=bundle, cache=cache, audit=audited)
    if as_json:
        options.print_json(found.to_dict())
    else:
        click.echo(to_markdown(found) if markdown else to_text(found))


def _open_caches(
    stack: ExitStack,
    bundle: "HeadBundle",
    features: "Sequence[Path]",
    *,
    table: Path | None,
    verify: Verify,
) -> "list[FeatureCache]":
    """Open a cache for each set; for a head of several caches, one set that joins them."""
    from brainfeat.evaluation.block_caches import select_features

    if bundle.blocks is not None and bundle.blocks.is_one_set:
        opened = blocks.open_blocks(bundle.blocks, features, table=table, verify=verify)
        return [stack.enter_context(opened)]
    opened_caches = (options.open_cache(path, table=table, verify=verify) for path in features)
    return [select_features(bundle, stack.enter_context(cache)) for cache in opened_caches]


def _audit(
    bundle: "HeadBundle",
    cache: "FeatureCache",
    *,
    is_reported: bool,
    split: str,
    classes: Any,
    threshold: float | None,
    unit: str | None,
    group_label: str | None,
    random_state: int,
    **_: Any,
) -> "Audit":
    """Audit a cache, which may take minutes, once it is known that it can be evaluated."""
    from brainfeat.evaluation.block_caches import select_features
    from brainfeat.evaluation.class_mapping import check_mappings
    from brainfeat.evaluation.subsets import plan_images
    from brainfeat.evaluation.units import choose_unit
    from brainfeat.leakage.auditing import audit_duplicates

    select_features(bundle, cache)
    rule = choose_unit(unit, group_label, [bundle])
    plan_images(bundle, cache, split, check_mappings(classes, bundle.class_names), rule=rule)
    if is_reported:
        return reporting.audit_cache(cache, threshold=threshold, random_state=random_state)
    return audit_duplicates(cache)


def _report_sets(
    reports: dict[str, Any],
    found: "SetsEvaluation",
    *,
    bundle: "HeadBundle",
    caches: "list[FeatureCache]",
    threshold: float | None,
    random_state: int,
    **_: Any,
) -> None:
    """Report on all sets in a table, and in full on the test part of the head or the first set."""
    place = next((i for i, entry in enumerate(found.sets) if entry.is_test_part), 0)
    with options.ProgressLine("looking for copies and shortcuts"):
        audited = reporting.audit_cache(
            caches[place], threshold=threshold, random_state=random_state
        )
    reporting.write_reports(
        reports,
        found.sets[place].evaluation,
        bundle=bundle,
        cache=caches[place],
        audit=audited,
        sets=found,
    )


def _read_column(by: str | None, table: Path | None, cache: "FeatureCache") -> Any:
    """Return the name of a column of the cache, or the values of another column of the table."""
    from brainfeat.evaluation.subsets import COLUMNS
    from brainfeat.tables.csv_rows import read_column

    if by is None or by in COLUMNS or table is None:
        return by
    values = read_column(table, by)
    return [values[path] for path in cache.paths]
