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

from brainfeat.errors import ImageReadError, ParameterError, TableError
from brainfeat.files import is_so
from brainfeat.readers.archives import find_archive
from brainfeat.readers.held import list_paths
from brainfeat.readers.series import Series, find_inputs, read_volume
from brainfeat.readers.volumes import SlicePolicy
from brainfeat.tables.labels import GivenLabels, Labels, take_labels
from brainfeat.tables.masks import BY_NAME, describe_masks
from brainfeat.tables.origin import SLICES_TABLE
from brainfeat.tables.patients import check_level, have_one_group
from brainfeat.tables.pseudonyms import check_key
from brainfeat.tables.rows import Row, quote
from brainfeat.tables.slices_folder import SlicesFolder, check_folder, put_in_place
from brainfeat.tables.volume_checks import choose_label
from brainfeat.tables.volume_patients import describe_places, find_mask_volumes, find_patients

_FORMATS = "DICOM, NIfTI, MGH or MATLAB 7.3"

# So many class folders of one patient each are probably patients.
_MANY_CLASSES = 3


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
    policy = policy or SlicePolicy()
    listed = take_labels(labels, label_columns)
    _check_choices(label=label, class_folders=class_folders, labels=listed, level=group_level)
    check_key(patient_key)
    files = [] if listed is None or isinstance(labels, Mapping) else [Path(listed.source)]
    check_folder(output, overwrite=overwrite, inputs=[*given, *files])
    series, masks, refused = _find(given, keep_masks=keep_masks)
    patients = find_patients(series, group_level=group_level)
    temporary = output.parent / f".{secrets.token_hex(8)}.tmp"
    try:
        temporary.mkdir()
        folder = SlicesFolder(temporary, policy, patient_key)
        for place, (entry, patient) in enumerate(zip(series, patients, strict=True)):
            try:
                volume = read_volume(entry, policy=policy, allow_burned_in=allow_burned_in)
                own = "".join(entry.folders[:1]) if class_folders else label
                chosen = choose_label(own, volume.label, name=entry.name)
            except ImageReadError as error:
                refused.append({"volume": entry.name, "reason": error.reason})
            else:
                folder.cut(volume, entry, patient, label=chosen)
            if progress is not None:
                progress(place + 1, len(series))
        folder.check(refused)
        unmatched = folder.assign(listed)
        slicing = Slicing(
            output=output,
            volumes=len(folder.facts),
            patients=len({row.group for row in folder.rows}),
            slices=len(folder.rows),
            refused=tuple(refused),
            patient_key=folder.patient_key,
            warnings=(
                *([describe_masks(masks, "volume", BY_NAME)] if masks else []),
                *folder.describe(),
                *describe_places(patients, group_level),
                *unmatched,
                *(_suspect_class_folders(folder.rows) if class_folders else ()),
            ),
            masks=masks,
        )
        folder.finish(refused)
        put_in_place(temporary, output)
    except OSError as error:
        if isinstance(error, ImageReadError):
            raise
        raise TableError(f"{quote(output)} cannot be written: {error.strerror}") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return slicing


def _check_choices(
    *, label: str, class_folders: bool, labels: Labels | None, level: int | None
) -> None:
    """Reject several kinds of labels, and a folder that is both the class and the patient."""
    given = [
        name
        for name, value in (("label", label), ("class_folders", class_folders), ("labels", labels))
        if value
    ]
    if len(given) > 1:
        raise ParameterError(f"both {' and '.join(given)} are given; expected one of them")
    check_level(level)
    if class_folders and level == 1:
        raise ParameterError(
            "group_level=1 and class_folders=True are given, which are the same folders; expected"
            " group_level=2 or higher, or labels=FILE with the class of each patient"
        )


def _suspect_class_folders(rows: Sequence[Row]) -> Iterable[str]:
    """Warn if class folders seem to be patients, whose names would be in the table."""
    classes = {row.label for row in rows}
    if len(classes) >= _MANY_CLASSES and have_one_group(
        [row.label for row in rows], [row.group for row in rows]
    ):
        yield (
            f"the {len(classes):,} class folders have one patient each; if they are named after"
            " patients, these names are now in the table: delete the output, and give the class"
            " of each patient with labels=FILE"
        )


def _find(given: list[Path], *, keep_masks: bool) -> tuple[list[Series], int, list[dict[str, str]]]:
    """Find the volumes, the number of masks, and the reasons for what cannot be read."""
    images, series, unreadable = find_inputs(given)
    named = {*given} & {*images}
    if named:
        number, path = next((n, path) for n, path in enumerate(given, 1) if path in named)
        if kind := find_archive(path):
            raise ImageReadError(f"argument {number}", f"is an archive ({kind}); unpack it first")
        wrong = f"is not a {_FORMATS} file" if is_so(path.exists) else "does not exist"
        raise ImageReadError(f"argument {number}", wrong)
    if not series and not unreadable:
        raise ImageReadError("the input", f"has no {_FORMATS} file")
    masks = set() if keep_masks else {*find_mask_volumes(series, {*given})}
    kept = [entry for entry in series if entry not in masks]
    if masks and not kept:
        raise ImageReadError(
            "the input", "has only files that are named as masks; keep them with keep_masks=True"
        )
    refused = [{"volume": entry.name, "reason": entry.reason} for entry in unreadable]
    return kept, len(masks), refused
