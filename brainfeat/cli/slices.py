"""``brainfeat slices``: volumes become a folder of slices with a table."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from brainfeat.cli import options
from brainfeat.cli.volumes import RANDOM_KEY, take_volume_options, volume_options
from brainfeat.cli.wording import translate
from brainfeat.text import count

if TYPE_CHECKING:
    from brainfeat.tables.slicing import Slicing

EXAMPLES = """\b
Examples:
  brainfeat slices series -o slices --class-folders --patient-key site.key
  brainfeat slices scan.nii.gz -o slices --slices middle --label glioma
  brainfeat slices imagesTr -o slices --volume 2 --orientation native
  brainfeat slices train -o slices --labels labels.csv --patient-key site.key
"""


@click.command(
    "slices",
    short_help="Cut DICOM, NIfTI and other volumes into slices without names.",
    epilog=EXAMPLES,
)
@click.argument(
    "sources", type=click.Path(path_type=Path), metavar="FILE_OR_FOLDER...", nargs=-1, required=True
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    required=True,
    metavar="FOLDER",
    help="Folder to make.",
)
@volume_options
@options.labels_option
@options.label_columns_option
@options.group_level_option
@options.keep_masks_option
@options.overwrite_option
@options.json_option
def command(
    sources: tuple[Path, ...],
    *,
    output: Path,
    labels: Path | None,
    label_columns: tuple[str, str] | None,
    group_level: int | None,
    keep_masks: bool,
    overwrite: bool,
    as_json: bool,
    **chosen: Any,
) -> None:
    """Cut volumes into grey PNG slices, with a table that extract reads.

    Volumes are DICOM series, NIfTI and MGH files, and the MATLAB files of the brain tumour data of
    Cheng et al., which state their class and patient.

    The folder identifies nobody: no name, date, identifier or text of a file is written to it, and
    patients are distinguished by a hash. Text within the pixels is not removed: check the images.
    """
    from brainfeat.tables.slicing import write_slices

    cut = take_volume_options(chosen)
    with options.ProgressLine("cutting", "volumes") as progress:
        found = write_slices(
            sources,
            output,
            labels=labels,
            label_columns=label_columns,
            group_level=group_level,
            keep_masks=keep_masks,
            overwrite=overwrite,
            progress=progress,
            **cut.arguments,
        )
    refused = tuple({**entry, "reason": translate(entry["reason"])} for entry in found.refused)
    found = replace(found, refused=refused, warnings=tuple(map(translate, found.warnings)))
    if as_json:
        options.print_json(found.to_dict())
    else:
        _show(found)


def _show(found: "Slicing") -> None:
    reasons = Counter(entry["reason"] for entry in found.refused)
    firsts = {entry["reason"]: entry["volume"] for entry in reversed(found.refused)}
    for reason, number in reasons.most_common():
        options.say(f"rejected {number:,}: {reason}; the first is {firsts[reason]}", err=True)
    for warning in found.warnings:
        options.say(f"warning: {warning}", err=True)
    if found.patient_key == "random":
        options.say(RANDOM_KEY, err=True)
    options.say(
        f"{found.output}: {count(found.slices, 'slice')} of "
        f"{count(found.volumes, 'volume')} of {count(found.patients, 'patient')}; "
        f"go on with brainfeat extract {found.output}"
    )
