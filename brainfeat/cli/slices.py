"""``brainfeat slices``: DICOM and NIfTI volumes to a folder of slices with a table."""

from collections import Counter
from pathlib import Path

import click

from brainfeat.cli import options
from brainfeat.text import count


@click.command("slices", short_help="Cut DICOM and NIfTI volumes into slices without names.")
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
@options.slices_option
@options.window_option
@click.option(
    "--patient-key",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Secret of the site that patients are hashed with, at least 16 bytes, so that a patient "
    "has the same group in each run.  [default: a random one that is forgotten]",
)
@click.option("--label", default="", metavar="CLASS", help="Class of all the volumes.")
@click.option(
    "--class-folders",
    is_flag=True,
    help="Take the first folder below each FOLDER for the class; it must not name anybody.",
)
@options.burned_in_option
@options.overwrite_option
@options.json_option
def command(
    sources: tuple[Path, ...],
    *,
    output: Path,
    slices: str | None,
    window: str | None,
    patient_key: Path | None,
    label: str,
    class_folders: bool,
    allow_burned_in: bool,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Cut DICOM series and NIfTI files into grey PNG slices, with a table that extract reads.

    The folder names nobody: no name, date, identifier or text of a file gets into it, and patients
    are told apart by a hash. Text that is part of the pixels stays: look at them.
    """
    from brainfeat.readers.volumes import SlicePolicy
    from brainfeat.tables.slicing import read_patient_key, write_slices

    policy = SlicePolicy(slices=slices or "all", window=window or "auto")
    key = None if patient_key is None else read_patient_key(patient_key)
    with options.ProgressLine("cutting", "volumes") as progress:
        found = write_slices(
            sources,
            output,
            policy=policy,
            patient_key=key,
            label=label,
            class_folders=class_folders,
            allow_burned_in=allow_burned_in,
            overwrite=overwrite,
            progress=progress,
        )
    if as_json:
        options.print_json(found.to_dict())
        return
    reasons = Counter(entry["reason"] for entry in found.refused)
    firsts = {entry["reason"]: entry["volume"] for entry in reversed(found.refused)}
    for reason, number in reasons.most_common():
        options.say(f"refused {number:,}, the first {firsts[reason]}: {reason}", err=True)
    if found.patient_key == "random":
        options.say(
            "patients were hashed with a random key, which is forgotten: one has another group in "
            "another run; --patient-key keeps it the same",
            err=True,
        )
    options.say(
        f"{output}: {count(found.slices, 'slice')} of "
        f"{count(found.volumes, 'volume')} of {count(found.patients, 'patient')}; "
        f"go on with brainfeat extract {output}"
    )
