"""``brainfeat evaluate``: what a head is worth on a split."""

from pathlib import Path

import click

from brainfeat.cli import options
from brainfeat.storage import Verify


@click.command("evaluate", short_help="Measure a head on the images of a split.")
@click.argument("head", type=click.Path(path_type=Path))
@click.argument("features", type=click.Path(path_type=Path))
@click.option(
    "--split",
    type=click.Choice(["train", "val", "test", "all"]),
    default="test",
    show_default=True,
    help="Which images of the table.",
)
@options.table_option
@click.option("--markdown", is_flag=True, help="Print Markdown tables.")
@options.verify_option
@options.json_option
def command(
    head: Path,
    features: Path,
    *,
    split: str,
    table: Path | None,
    markdown: bool,
    verify: Verify,
    as_json: bool,
) -> None:
    """Measure HEAD, a file that fit-head wrote, on FEATURES, a file that extract wrote."""
    from brainfeat.bundle import HeadBundle
    from brainfeat.evaluation import evaluate
    from brainfeat.report import to_markdown, to_text

    if markdown and as_json:
        raise click.UsageError("--markdown and --json exclude each other")
    bundle = HeadBundle.load(head, verify=verify)
    with options.open_cache(features, table=table, verify=verify) as cache:
        evaluation = evaluate(bundle, cache, split=split)
    if as_json:
        options.print_json(evaluation.to_dict())
    else:
        click.echo(to_markdown(evaluation) if markdown else to_text(evaluation))
