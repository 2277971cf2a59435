"""Volumes become a folder of grey slices with a table for stage one, in which nobody is named.

The folder has only what a list allows: pixels, numbers, terms of the standard, and hashes by which
patients and volumes are distinguished.
"""

import os
import secrets
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from brainfeat.errors import ImageReadError, TableError
from brainfeat.readers.held import list_paths
from brainfeat.readers.volumes import SlicePolicy
from brainfeat.tables.cutting import RefusedVolume
from brainfeat.tables.labels import GivenLabels
from brainfeat.tables.origin import SLICES_TABLE
from brainfeat.tables.rows import quote
from brainfeat.tables.slices_folder import SlicesFolder, check_folder, put_in_place
from brainfeat.tables.volume_table import VolumeTable, read_volumes
from brainfeat.text import describe_unreadable


@dataclass(frozen=True, kw_only=True)
class Slicing:
    """The result of one run of `write_slices`.

    Attributes
    ----------
    output : Path
        The folder.
    volumes, patients, slices : int
        How many of each the folder has.
    refused : tuple of dict
        ``volume`` and ``reason`` of each volume that could not be read.
    masks : int
        How many volumes were left out for having the name of a mask.
    patient_key : {"site", "random"}
        Whether patients were hashed with the key of the site, and have the same groups in other
        runs with that key.
    warnings : tuple of str
        What may be wrong with volumes, patients and labels, a sentence each.
    """

    output: Path
    volumes: int
    patients: int
    slices: int
    refused: tuple[dict[str, str], ...]
    patient_key: str
    warnings: tuple[str, ...] = ()
    masks: int = 0

    @property
    def table(self) -> Path:
        """The CSV file that stage one reads."""
        return self.output / SLICES_TABLE

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain values for JSON."""
        return {
            "output": str(self.output),
            "table": str(self.table),
            "volumes": self.volumes,
            "patients": self.patients,
            "slices": self.slices,
            "refused": list(self.refused),
            "patient_key": self.patient_key,
            "warnings": list(self.warnings),
            "masks": self.masks,
        }


def write_slices(
    paths: Iterable[str | os.PathLike[str]],
    output: str | os.PathLike[str],
    *,
    policy: SlicePolicy | None = None,
    patient_key: bytes | None = None,
    label: str = "",
    class_folders: bool = False,
    labels: GivenLabels | None = None,
    label_columns: Sequence[str] | None = None,
    group_level: int | None = None,
    keep_masks: bool = False,
    allow_burned_in: bool = False,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Slicing:
    """Cut DICOM, NIfTI and MGH volumes into PNG slices, with a table of the slices.

    The images of the brain tumour data of Cheng et al. (MATLAB 7.3) are taken as volumes of one
    slice, which state their class.

    The patient of a volume is DICOM's patient ID or, in NIfTI, the subject of BIDS (``sub-01``),
    or what the names of files share that end in different sequences, as ``P7_t1.nii`` and
    ``P7_flair.nii``, or else the file. `group_level` names the folder instead. The `source` of a
    slice is its modality or, where the name of a NIfTI file ends in a sequence, the sequence.

    Parameters
    ----------
    paths : path-like, or iterable of path-like
        DICOM, NIfTI, MGH and MATLAB files, and folders of them.
    output : path-like
        The folder to make. It has the slices, ``table.csv``, and ``slices.json``, which describes
        how the slices were made. It appears in one step when it is complete.
    policy : SlicePolicy or None
        Which slices are cut, in which plane, and how their values become grey; None takes all
        slices in their own window.
    patient_key : bytes or None
        Key that patients are hashed with; None takes a random key, which is not kept.
    label : str, default=""
        Class of all volumes. Without it, the class is the one that the file states. A file that
        states another one of the classes of Cheng et al. is refused.
    class_folders : bool, default=False
        Whether the first folder below each path is the class. Its name is then shown.
    labels : path-like, mapping of str to str, or None
        The class of each patient, or NIfTI file: a list as in :func:`brainfeat.read_table`. Keys
        are names of folders with `group_level`, or else patient IDs, subjects, or names of files.
    label_columns : sequence of two str, optional
        Names of the columns of keys and of classes in that list.
    group_level : int or None
        Which folder below each path is the patient: 1 is the first one, 2 the one in it. Folders
        of one name are one patient.
    keep_masks : bool, default=False
        Whether files below the paths are cut that are named as masks of others.
    allow_burned_in : bool, default=False
        Whether images whose pixels may show a name are accepted.
    overwrite : bool, default=False
        Whether a folder that an earlier run made may be replaced.
    progress : callable or None
        Called with the number of finished volumes and their total.

    Returns
    -------
    Slicing
        Where the slices are, and how many.

    Raises
    ------
    ImageReadError
        If there is no volume, or none can be read.
    ParameterError
        If the key is too short, or several kinds of labels are given.
    TableError
        If the folder exists or cannot be written, or the list of labels or the level is wrong.
    MissingDependencyError
        If the library that reads a format is not installed.

    Examples
    --------
    The middle slices of all series below a folder, as a table for stage one::

        slicing = write_slices("series", "slices", policy=SlicePolicy(slices="middle"))
        table = read_table(slicing.output)
    """
    output, given = Path(output), list_paths(paths)
    files = [] if labels is None or isinstance(labels, Mapping) else [Path(labels)]
    check_folder(output, overwrite=overwrite, inputs=[*given, *files])
    table = read_volumes(
        given,
        policy=policy,
        patient_key=patient_key,
        label=label,
        class_folders=class_folders,
        labels=labels,
        label_columns=label_columns,
        group_level=group_level,
        keep_masks=keep_masks,
        allow_burned_in=allow_burned_in,
    )
    temporary = output.parent / f".{secrets.token_hex(8)}.tmp"
    try:
        temporary.mkdir()
        slicing = _fill_folder(temporary, table, output, progress)
        put_in_place(temporary, output)
    except OSError as error:
        if isinstance(error, ImageReadError):
            raise
        raise TableError(f"{quote(output)} cannot be written: {error.strerror}") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return slicing


def _fill_folder(
    temporary: Path,
    table: VolumeTable,
    output: Path,
    progress: Callable[[int, int], None] | None,
) -> Slicing:
    folder, cutting = SlicesFolder(temporary), table.cut()
    refused = [*table.refused]
    for place, volume in enumerate(cutting, 1):
        if isinstance(volume, RefusedVolume):
            refused.append(volume)
        else:
            folder.add(volume)
        if progress is not None:
            progress(place, len(table))
    if not folder.rows:
        raise ImageReadError(
            describe_unreadable(len(refused), "volume", refused[0].name), refused[0].reason
        )
    reasons = [{"volume": entry.name, "reason": entry.reason} for entry in refused]
    folder.finish(table.origin, reasons)
    return Slicing(
        output=output,
        volumes=len(folder.facts),
        patients=len({row.group for row in folder.rows}),
        slices=len(folder.rows),
        refused=tuple(reasons),
        patient_key=table.patient_key,
        warnings=(*table.notes, *cutting.describe()),
        masks=table.masks,
    )
