"""``brainfeat demo``: the whole workflow on synthetic slices."""

import json
from pathlib import Path
from typing import Any

import click

from brainfeat.cli import options
from brainfeat.cli.wording import translate
from brainfeat.errors import BrainfeatError
from brainfeat.files import check_folder
from brainfeat.text import count

_PATIENTS = 20
_SLICES = 4

EXAMPLES = """\b
Examples:
  brainfeat demo
  brainfeat demo -o demo-mobilenet --backbone mobilenet --weights random
"""


@click.command("demo", short_help="Run the whole workflow on synthetic slices.", epilog=EXAMPLES)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    default=Path("demo"),
    show_default=True,
    help="Folder to write; the slices of an earlier demo in it are reused.",
)
@options.backbone_option
@click.option(
    "--weights",
    help="As in extract.  [default: imagenet if on disk or downloadable, else random]",
)
@click.option(
    "--patients",
    type=click.IntRange(min=8),
    default=_PATIENTS,
    show_default=True,
    help="Number of synthetic patients in each class.",
)
@options.random_state_option
@options.json_option
def command(
    output: Path,
    *,
    backbone: str,
    weights: str | None,
    patients: int,
    random_state: int,
    as_json: bool,
) -> None:
    """Draw synthetic brain slices, extract their features, fit a head and evaluate it.

    It needs neither data nor a network. The slices are drawings: the metrics show that the software
    works, and say nothing about patients.
    """
    from brainfeat.evaluation.evaluator import evaluate
    from brainfeat.extraction.extractor import extract
    from brainfeat.report import to_json, to_markdown, to_text
    from brainfeat.tables.table import read_table
    from brainfeat.training.fitting import fit_head

    _make_folder(output)
    table = read_table(_draw(output, patients, random_state))
    weights = weights or _choose_weights(backbone)
    _say(f"stage one: {backbone}, {weights} weights, {count(len(table), 'slice')}")
    with options.ProgressLine("extracting", "images") as progress:
        extraction = extract(
            table,
            output / "features.h5",
            backbone=backbone,
            weights=weights,
            random_state=random_state,
            overwrite=True,
            progress=progress,
        )
    _say(f"  {extraction.computed:,} computed in {options.format_seconds(extraction.seconds)}")
    _say("stage two: the dense head")
    bundle = fit_head(extraction.output, random_state=random_state)
    bundle.save(output / "head.h5", overwrite=True)
    _say(f"  fitted in {options.format_seconds(bundle.training.seconds or 0)}")
    evaluation = evaluate(bundle, extraction.output)
    options.write_text(output / "metrics.json", to_json(evaluation) + "\n")
    options.write_text(output / "metrics.md", to_markdown(evaluation) + "\n")
    _draw_pictures(table, evaluation, output)
    if as_json:
        document = {"weights": weights, "output": str(output), "test": evaluation.to_dict()}
        click.echo(json.dumps(document, indent=2))
        return
    click.echo(to_text(evaluation))
    click.echo(
        f"\nAll files are in {output}/. The slices are synthetic: this is not a medical result."
    )


def _make_folder(output: Path) -> None:
    """Make the folder, or refuse a read-only one, and one with files that no demo has made."""
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BrainfeatError(
            f"{output} cannot be created ({error.strerror}); name another output"
        ) from error
    check_folder(output)
    if any(output.iterdir()) and not any(output.glob("slices-*/table.csv")):
        raise BrainfeatError(
            f"{output} has files that are not of a demo; name another output, or an empty folder"
        )


def _say(text: str) -> None:
    click.echo(text, err=True)


def _draw(output: Path, patients: int, random_state: int) -> Path:
    from brainfeat.phantoms import write_phantoms

    slices = output / f"slices-{patients}x{_SLICES}-{random_state}"
    if not (slices / "table.csv").is_file():
        _say(f"drawing synthetic slices of {count(4 * patients, 'patient')}")
        write_phantoms(
            slices,
            patients_per_class=patients,
            slices_per_patient=_SLICES,
            random_state=random_state,
        )
    return slices / "table.csv"


def _choose_weights(backbone: str) -> str:
    """Choose ImageNet weights if they are on disk or can be downloaded, or else random ones."""
    from brainfeat.errors import WeightsError
    from brainfeat.extraction.backbones import load_backbone

    try:
        load_backbone(backbone, weights="imagenet").recipe  # noqa: B018 - it looks for the file
    except WeightsError as error:
        _say(f"no ImageNet weights: {translate(error)}")
        _say(
            "The demo continues with RANDOM weights. Its features are random projections, which "
            "show the workflow but not how good the method is."
        )
        return "random"
    return "imagenet"


def _draw_pictures(table: Any, evaluation: Any, output: Path) -> None:
    from brainfeat.errors import MissingDependencyError
    from brainfeat.readers import read_image
    from brainfeat.report.pictures import save_confusion_matrix, save_contact_sheet

    shown = [
        row
        for name in table.class_names
        for row in [i for i, label in enumerate(table.labels) if label == name][
            : 6 * _SLICES : _SLICES
        ]
    ]
    try:
        save_contact_sheet(
            [read_image(table.absolute_path(row)) for row in shown],
            output / "slices.png",
            titles=[table.labels[row] for row in shown],
        )
        save_confusion_matrix(evaluation, output / "confusion-matrix.png")
    except MissingDependencyError as error:
        _say(f"no pictures are drawn: {translate(error)}")
