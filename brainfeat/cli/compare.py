"""``brainfeat compare``: the differences between two heads on the same images."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from brainfeat.cache.storage import Verify
from brainfeat.cli import blocks, options, protocol
from brainfeat.cli.classes import classes_option
from brainfeat.report.wording import METRIC_NAMES, SUBSET_METRICS
from brainfeat.text import align, count, format_interval, format_metric

if TYPE_CHECKING:
    from brainfeat.evaluation.class_mapping import Classes
    from brainfeat.evaluation.comparison import Comparison
    from brainfeat.evaluation.results import Difference

EXAMPLES = """\b
Examples:
  brainfeat compare svm.h5 dense.h5 mri.h5
  brainfeat compare svm.h5 dense.h5 other-hospital.h5 --split all --json
  brainfeat compare vgg-svm.h5 both-svm.h5 vgg.h5 mobilenet.h5
"""


@click.command("compare", short_help="Compare two heads on the images of a split.", epilog=EXAMPLES)
@click.argument("first", type=click.Path(path_type=Path))
@click.argument("second", type=click.Path(path_type=Path))
@click.argument("features", type=click.Path(path_type=Path), nargs=-1, required=True)
@options.split_option
@classes_option
@click.option(
    "--all-images",
    "new",
    flag_value=False,
    default=True,
    help="Include the images of which a head has seen a copy.",
)
@protocol.unit_option
@protocol.group_label_option
@options.table_option
@options.random_state_option
@options.verify_option
@options.json_option
def command(
    first: Path,
    second: Path,
    features: tuple[Path, ...],
    *,
    split: str,
    classes: tuple["Classes", ...],
    new: bool,
    unit: str | None,
    group_label: str | None,
    table: Path | None,
    random_state: int,
    verify: Verify,
    as_json: bool,
) -> None:
    """Compare FIRST and SECOND, files that fit-head wrote, on FEATURES, which extract wrote.

    Both heads are measured on the same images, and without --all-images only on those that are new
    to both: images of which neither has seen a copy. The 95 % intervals of the differences are
    those of a paired bootstrap over groups.

    Several FEATURES are those of the same images by several bases, and each head takes its own; or
    the modalities that both heads were fitted on.
    """
    from brainfeat.evaluation.comparison import compare
    from brainfeat.heads.bundle import HeadBundle

    heads = [HeadBundle.load(path, verify=verify) for path in (first, second)]
    with (
        blocks.open_compared(heads, features, table=table, verify=verify) as cache,
        options.ProgressLine("comparing"),
    ):
        found = compare(
            heads[0],
            heads[1],
            cache,
            split=split,
            classes=classes or None,
            new=new,
            unit=unit,
            group_label=group_label,
            random_state=random_state,
        )
    if as_json:
        options.print_json(found.to_dict())
        return
    for name, head, path in zip(("first", "second"), heads, (first, second), strict=True):
        options.say(f"{name:6}  {head.head}, {path}")
    options.say(f"{found.noun}s  {found.n:,} in {count(found.n_groups, 'group')}")
    if found.left_out_as is not None:
        kind = found.left_out_as.replace("_", " ")
        options.say(f"        without {found.left_out:,} that a head has seen ({kind})")
    if found.warning is not None:
        options.say(f"warning: {found.warning}; some of these images may be among it", err=True)
    click.echo()
    for line in _describe(found):
        options.say(line)


def _describe(found: "Comparison") -> list[str]:
    rows = [("metric", "first", "second", "difference", "95 % interval")]
    for name in SUBSET_METRICS:
        metric: Difference = getattr(found, name)
        rows.append(
            (
                METRIC_NAMES[name],
                format_metric(metric.first),
                format_metric(metric.second),
                format_metric(metric.difference, signed=True),
                format_interval(metric.interval, signed=True),
            )
        )
    return [
        *align(rows),
        "",
        f"correct only in the first: {found.first_only:,}; in the second: {found.second_only:,}",
        f"McNemar's exact test: p = {found.p_value:.2g}",
        found.verdict,
    ]
