"""``brainfeat stress``: what alterations of images cost a head."""

from pathlib import Path
from typing import Any

import click

from brainfeat.cache.storage import Verify
from brainfeat.cli import blocks, options, protocol
from brainfeat.cli.extract import describe_kept
from brainfeat.files import check_output, is_same_file

EXAMPLES = """\b
Examples:
  brainfeat stress svm.h5 brain-mri -o stress.h5
  brainfeat stress svm.h5 brain-mri --kinds blur,noise --number 50
  brainfeat stress svm.h5 brain-mri -o stress.h5 --report stress.html
"""

_TITLE_BYTES = 4096


def _read_kinds(_: click.Context, __: click.Parameter, value: str | None) -> tuple[str, ...]:
    if value is None:
        return ()
    names = tuple(name for name in map(str.strip, value.split(",")) if name)
    if not names:
        raise click.BadParameter(f"{value!r} names no kind; leave the option out for all")
    return names


@click.command(
    "stress", short_help="Try a head on altered images: blurred, noisy, …", epilog=EXAMPLES
)
@click.argument("head", type=click.Path(path_type=Path))
@click.argument("data", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="Cache of the altered images, to go on after an interruption or to try another head; "
    "nothing is kept without it.",
)
@click.option(
    "--kinds",
    metavar="KIND,…",
    callback=_read_kinds,
    help="Kinds of alterations: rotation, shift, crop, scale, aspect, padding, mirrored, inverted, "
    "jpeg, gamma, contrast, bias-field, noise, blur, resolution.  [default: all]",
)
@click.option(
    "--number",
    type=click.IntRange(min=0),
    default=200,
    show_default=True,
    metavar="N",
    help="Largest number of images, or of groups with --unit group, drawn at random, each class by "
    "its share; 0 takes all.",
)
@options.split_option
@protocol.unit_option
@protocol.group_label_option
@blocks.weights_option
@options.engine_option
@options.jobs_option
@click.option(
    "--report",
    type=click.Path(path_type=Path),
    help="Write an HTML report; needs the extra report.",
)
@click.option("--markdown", is_flag=True, help="Print Markdown tables.")
@options.overwrite_option
@options.random_state_option
@options.verify_option
@options.json_option
def command(
    head: Path,
    data: Path,
    *,
    output: Path | None,
    number: int,
    report: Path | None,
    markdown: bool,
    overwrite: bool,
    verify: Verify,
    as_json: bool,
    **chosen: Any,
) -> None:
    """Measure HEAD, a file that fit-head wrote, on altered images of DATA.

    DATA is a folder or a CSV file as for extract. Images that the head has seen, or copies of
    which, are left out. Each of the others is altered in every kind, each in several strengths; the
    table has the accuracy for each, how many predictions change, how often a wrong one is
    confident, and how often the head abstains.

    When it is run again with the same output, it computes only what is missing.
    """
    from brainfeat.heads.bundle import HeadBundle
    from brainfeat.prediction.stress import stress
    from brainfeat.report.markdown import write_sections as to_markdown
    from brainfeat.report.stress import STRESS_TITLE, list_stress, make_stress_subtitle
    from brainfeat.report.text import write_sections as to_text

    if markdown and as_json:
        raise click.UsageError("--markdown and --json exclude each other")
    if report is not None:
        if output is not None and is_same_file(report, output):
            raise click.UsageError("--report and --output name the same file; name two")
        check_output(
            report,
            overwrite=overwrite,
            kind="a report on altered images that brainfeat wrote",
            recognise=_is_report,
            inputs=(head, data),
        )
    bundle = HeadBundle.load(head, verify=verify)
    try:
        with options.ProgressLine("extracting", "images") as progress:
            found = stress(
                bundle,
                data,
                output,
                number=number or None,
                overwrite=overwrite,
                progress=progress,
                **chosen,
            )
    except KeyboardInterrupt as stop:
        kept = "" if output is None else describe_kept(output)
        raise options.interruption(stop, kept) from stop
    sections = list_stress(found)
    if report is not None:
        from brainfeat.report.html import render_page

        subtitle = make_stress_subtitle(found, head=bundle.head, backbone=bundle.spec.backbone)
        page = render_page(sections, title=f"{STRESS_TITLE}: {bundle.head}", subtitle=subtitle)
        options.write_text(report, page)
        options.say(f"{report} written", err=True)
    if as_json:
        options.print_json(found.to_dict())
    else:
        click.echo("\n\n".join(to_markdown(sections)) if markdown else to_text(sections))


def _is_report(path: Path) -> bool:
    """Return whether a file has the title of such a report near its start."""
    from brainfeat.report.stress import STRESS_TITLE

    with path.open("rb") as file:
        return STRESS_TITLE.encode() in file.read(_TITLE_BYTES)
