"""``brainfeat extract``: stage one."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from brainfeat.cache.spec import POOLINGS, PRECISIONS, SCALINGS
from brainfeat.cli import options
from brainfeat.cli.allocator import return_large_arrays
from brainfeat.cli.volumes import (
    RANDOM_KEY,
    VOLUME_NAMES,
    Cut,
    list_options,
    take_volume_options,
    volume_options,
)
from brainfeat.cli.wording import translate
from brainfeat.text import count

if TYPE_CHECKING:
    from brainfeat.extraction.extractor import Extraction
    from brainfeat.tables.inventory import Inventory
    from brainfeat.tables.table import ImageTable
    from brainfeat.tables.volume_table import VolumeTable

EXAMPLES = """\b
Examples:
  brainfeat extract brain-mri -o mri.h5
  brainfeat extract table.csv -o mri.h5 --backbone resnet50 --augment 2
  brainfeat extract brain-mri -o maps.h5 --layer block4_pool,block5_pool --pooling none
  brainfeat extract patients -o mri.h5 --group-level 1 --labels labels.csv
  brainfeat extract hospital -o mri.h5 --class-folders --patient-key site.key
  brainfeat extract bids/sub-*/anat/*_T1w.nii.gz -o t1.h5 --slices every:5
"""


def _split_names(_: click.Context, __: click.Parameter, value: str) -> tuple[str, ...]:
    names = [name.strip() for name in value.split(",")] if value else []
    if "" in names:
        raise click.BadParameter(f"{value!r} has an empty name; expected names such as A,B,C")
    return tuple(names)


def _check_range(_: click.Context, __: click.Parameter, value: str) -> str:
    from brainfeat.errors import ParameterError
    from brainfeat.readers.ranges import check_range

    try:
        return check_range(value)
    except ParameterError as error:
        raise click.BadParameter(str(error)) from error


def _check_style(_: click.Context, __: click.Parameter, value: str | None) -> str | None:
    from brainfeat.errors import ParameterError
    from brainfeat.extraction.styles import Style

    try:
        return None if value is None else str(Style.parse(value))
    except ParameterError as error:
        raise click.BadParameter(str(error)) from error


@click.command(
    "extract",
    short_help="Run a frozen base over all images and cache its features.",
    epilog=EXAMPLES,
)
@click.argument("data", type=click.Path(path_type=Path), metavar="DATA...", nargs=-1, required=True)
@options.output_option
@options.backbone_option
@click.option(
    "--weights",
    default="imagenet",
    show_default=True,
    help="Weights of the base: imagenet, random, or the path of a Keras weights file without top.",
)
@click.option(
    "--scaling",
    type=click.Choice(SCALINGS),
    default="weights",
    show_default=True,
    help="Scale pixels to the range that the weights were trained with, or to [0, 1].",
)
@options.size_option
@click.option(
    "--precision",
    type=click.Choice(("auto", *PRECISIONS)),
    default="auto",
    show_default=True,
    help="Number format of the convolutions; auto takes that of an existing output, or else "
    "bfloat16 if the device is faster in it, or else float32. int8 is calibrated on 300 training "
    "images; it needs OpenVINO and instructions of the processor, and only suits some bases.",
)
@click.option(
    "--device",
    default="auto",
    show_default=True,
    help="Where to compute: auto (all GPUs, or else the processor), cpu, gpu, or names such as "
    "gpu:0,gpu:1. Each device gets a copy of the base.",
)
@options.engine_option
@click.option(
    "--layer",
    "layers",
    default="",
    metavar="A,B,C",
    callback=_split_names,
    help="Layers of the base whose features to keep, all in one pass; the last one by default.",
)
@click.option(
    "--pooling",
    type=click.Choice(POOLINGS),
    default="mean",
    show_default=True,
    help="How the map of a layer becomes a vector; none takes the mean, and keeps the maps of the "
    "deepest layer beside it.",
)
@click.option(
    "--augment",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    metavar="K",
    help="Number of augmented views to add to each training image.",
)
@click.option(
    "--rotation",
    type=click.FloatRange(0, 180),
    default=15.0,
    show_default=True,
    help="Largest rotation of a view, in degrees in either direction.",
)
@click.option(
    "--zoom",
    type=click.FloatRange(0, 1, max_open=True),
    default=0.1,
    show_default=True,
    help="Views are scaled by a factor between 1 - ZOOM and 1 + ZOOM.",
)
@click.option(
    "--flip/--no-flip",
    default=True,
    show_default=True,
    help="Mirror views left to right with probability 1/2.",
)
@click.option(
    "--style",
    metavar="fourier:BETA|histogram",
    callback=_check_style,
    help="Give each view the style of a training image of another source: the amplitudes of its "
    "low frequencies, in a window of BETA times the size in each direction, or its histogram.",
)
@click.option(
    "--style-from",
    metavar="source|source:NAME",
    help="Take styles from any other source of the table, which is the default, or from the source "
    "NAME alone.",
)
@click.option(
    "--batch-size",
    type=options.AutoInteger(),
    default="auto",
    show_default=True,
    help="Number of images in a batch; auto takes what suits the device and the image size.",
)
@options.jobs_option
@click.option(
    "--on-error",
    type=click.Choice(["skip", "raise"]),
    default="skip",
    show_default=True,
    help="List an image that cannot be read in the cache, or stop with an error.",
)
@click.option(
    "--signature/--no-signature",
    default=True,
    show_default=True,
    help="Store a signature of each image, by which its copies are found, mirrored and turned ones "
    "too. A signature is as personal as a small picture of the image.",
)
@click.option(
    "--range",
    "value_range",
    default="dtype",
    show_default=True,
    metavar="dtype|image|bits:N",
    callback=_check_range,
    help="What images of more than 8 bits are divided by: the largest value of their type, that of "
    "each image, or that of N bits.",
)
@click.option(
    "--crop",
    type=click.Choice(("none", "foreground")),
    default="none",
    show_default=True,
    help="Crop each image to its largest bright region before it is resized; heads of these "
    "features then do so, too.",
)
@click.option(
    "--force",
    is_flag=True,
    help="Compute in int8 although it changes the features of the base by more than is allowed.",
)
@volume_options
@options.group_level_option
@options.labels_option
@options.label_columns_option
@options.keep_masks_option
@options.overwrite_option
@options.random_state_option
@options.json_option
def command(
    data: tuple[Path, ...],
    output: Path,
    *,
    rotation: float,
    zoom: float,
    flip: bool,
    style: str | None,
    style_from: str | None,
    random_state: int,
    keep_masks: bool,
    group_level: int | None,
    labels: Path | None,
    label_columns: tuple[str, str] | None,
    as_json: bool,
    **chosen: Any,
) -> None:
    """Run a frozen convolutional base over every image of DATA once and cache its features.

    DATA is a folder of class folders; a folder of Training and Testing folders with class folders
    in them; a folder of images; or a CSV file with the columns path and label and, optionally,
    split, group and source. Patients that are folders, as in class/patient/slice, become groups
    with --group-level; in folders of patients without classes, --labels says the class of each.

    DATA can also be volumes and folders of volumes, which are cut into slices in memory, by the
    same options and with the same result as by brainfeat slices. The cache identifies nobody.

    Before the work begins, it lists the classes with their numbers of images, and tells what it
    leaves out and what is probably a mistake. When it is run again, it computes only what is
    missing: new images, what an interrupted run did not finish, and signatures where the output
    has none.
    """
    from brainfeat.extraction.augmentation import SOURCE, Augmentation
    from brainfeat.extraction.extractor import extract
    from brainfeat.tables.inventory import Inventory

    return_large_arrays()
    if style_from is not None and style is None:
        raise click.UsageError("--style-from says whose style; pass --style, too")
    ranges = Augmentation(
        rotation=rotation,
        zoom=zoom,
        flip=flip,
        random_state=random_state,
        style=style,
        style_from=style_from or SOURCE,
    )
    cut = take_volume_options({name: chosen.pop(name) for name in VOLUME_NAMES})
    table = _open_table(
        data,
        cut,
        keep_masks=keep_masks,
        group_level=group_level,
        labels=labels,
        label_columns=label_columns,
    )
    inventory = Inventory.of(table)
    _show_inventory(inventory, as_json=as_json)
    try:
        with options.ProgressLine("extracting", f"{inventory.noun}s") as progress:
            result = extract(
                table,
                output,
                augmentation=ranges,
                random_state=random_state,
                progress=progress,
                **chosen,
            )
    except KeyboardInterrupt as stop:
        raise options.interruption(stop, describe_kept(output)) from stop
    for warning in result.warnings:
        options.say(f"warning: {translate(warning)}", err=True)
    if as_json:
        warnings = [translate(warning) for warning in (*inventory.warnings, *result.warnings)]
        options.print_json({**result.to_dict(), **inventory.to_dict(), "warnings": warnings})
    else:
        _show(result, inventory.noun)


def _open_table(
    data: tuple[Path, ...], cut: Cut, **options_of_both: Any
) -> "ImageTable | VolumeTable":
    """Read the table of images, or of volumes, which are told of."""
    from brainfeat.errors import ParameterError
    from brainfeat.tables.table import read_table
    from brainfeat.tables.volume_layouts import holds_volumes
    from brainfeat.tables.volume_table import read_volumes

    if others := [path for path in data if not holds_volumes(path)]:
        if len(data) > 1:
            raise ParameterError(
                f"{len(others):,} of {len(data):,} paths {'has' if len(others) == 1 else 'have'} no"
                " volumes, and only volumes are taken of several; list images in a CSV file"
            )
        if cut.given:
            raise ParameterError(
                f"{others[0]} has no volumes, which {list_options(cut.given)} would cut; leave that"
                " out for images"
            )
        return read_table(others[0], **options_of_both)
    table = read_volumes(data, **cut.arguments, **options_of_both)
    options.say(table.describe(), err=True)
    if table.patient_key == "random":
        options.say(RANDOM_KEY, err=True)
    return table


def describe_kept(output: Path) -> str:
    """Describe what an interrupted run has kept."""
    from brainfeat.cache.shards import count_rows, parts_folder

    parts = parts_folder(output)
    rows = count_rows(parts)
    kept = "no new row was finished"
    if rows:
        kept = f"{count(rows, 'finished row')} kept in {parts}"
    return f"; {kept}; run the same command again to go on"


def _show_inventory(inventory: "Inventory", *, as_json: bool) -> None:
    """Show what the table holds before the work begins."""
    for line in inventory.describe_left_out():
        options.say(line, err=True)
    for warning in inventory.warnings:
        options.say(f"warning: {translate(warning)}", err=True)
    if not as_json:
        for line in inventory.describe_classes():
            options.say(line, err=True)


def _show(result: "Extraction", noun: str) -> None:
    for rejected in result.rejected:
        options.say(f"rejected {rejected.path}: {rejected.reason}", err=True)
    rate = f" ({result.images_per_second:,.1f} images/s in {result.precision})"
    options.say(
        f"{result.output}: {count(result.rows, 'row')}, {result.computed:,} computed, "
        f"{result.reused:,} reused, {count(len(result.rejected), noun)} rejected, "
        f"in {options.format_seconds(result.seconds)}{rate if result.computed else ''}"
    )
    if result.uncropped:
        options.say(f"{count(result.uncropped, 'image')} without a foreground to crop to")
