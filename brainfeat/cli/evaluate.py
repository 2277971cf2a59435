"""``brainfeat evaluate``: the metrics of a head on a split."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from brainfeat.cache.storage import Verify
from brainfeat.cli import options, reporting

if TYPE_CHECKING:
    from brainfeat.cache.cache import FeatureCache


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
  brainfeat evaluate svm.h5 site-b.h5 --split all --report report.html
"""


@click.command("evaluate", short_help="Evaluate a head on the images of a split.", epilog=EXAMPLES)
@click.argument("head", type=click.Path(path_type=Path))
@click.argument("features", type=click.Path(path_type=Path))
@options.split_option
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
@options.random_state_option
@click.option("--markdown", is_flag=True, help="Print Markdown tables.")
@reporting.report_options
@options.verify_option
@options.json_option
def command(
    head: Path,
    features: Path,
    *,
    split: str,
    table: Path | None,
    threshold: float | None,
    by: str | None,
    prevalence: dict[str, float],
    random_state: int,
    markdown: bool,
    verify: Verify,
    as_json: bool,
    **reports: Any,
) -> None:
    """Evaluate HEAD, a file that fit-head wrote, on FEATURES, a file that extract wrote.

    Metrics are reported for all images and for those that are new to the head: without copies,
    near duplicates and exact duplicates of the images that it was fitted and validated on, each
    with a 95 % interval.
    """
    from brainfeat.evaluation.evaluator import evaluate
    from brainfeat.evaluation.subsets import select_images
    from brainfeat.heads.bundle import HeadBundle
    from brainfeat.leakage.auditing import audit_duplicates
    from brainfeat.report import to_markdown, to_text

    if markdown and as_json:
        raise click.UsageError("--markdown and --json exclude each other")
    is_reported = reporting.check_options(reports, inputs=(head, features, table))
    bundle = HeadBundle.load(head, verify=verify)
    with options.open_cache(features, table=table, verify=verify) as cache:
        # An audit may take minutes: what cannot be evaluated is refused before it.
        bundle.check_spec(cache.spec)
        select_images(bundle, cache, split)
        found = (
            reporting.audit_cache(cache, threshold=threshold, random_state=random_state)
            if is_reported
            else audit_duplicates(cache)
        )
        evaluation = evaluate(
            bundle,
            cache,
            split=split,
            threshold=threshold,
            by=_read_column(by, table, cache),
            prevalence=prevalence,
            audit=found,
            random_state=random_state,
        )
        options.warn_of_leakage(found.findings, features)
        if is_reported:
            reporting.write_reports(reports, evaluation, bundle=bundle, cache=cache, audit=found)
    if as_json:
        options.print_json(evaluation.to_dict())
    else:
        click.echo(to_markdown(evaluation) if markdown else to_text(evaluation))


def _read_column(by: str | None, table: Path | None, cache: "FeatureCache") -> Any:
    """Return the name of a column of the cache, or the values of another column of the table."""
    from brainfeat.evaluation.subsets import COLUMNS
    from brainfeat.tables.csv_rows import read_column

    if by is None or by in COLUMNS or table is None:
        return by
    values = read_column(table, by)
    return [values[path] for path in cache.paths]
