"""The table of volumes: whose they are and what is known of each, before any pixel is read."""

import os
import secrets
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from brainfeat.errors import ImageReadError, ParameterError, TableError
from brainfeat.files import is_so
from brainfeat.readers.archives import find_archive
from brainfeat.readers.held import list_paths
from brainfeat.readers.series import FORMAT_NAMES, Identity, Series, find_inputs, identify_volume
from brainfeat.readers.volumes import SlicePolicy
from brainfeat.tables.cutting import Cutting, RefusedVolume
from brainfeat.tables.label_matching import match_labels
from brainfeat.tables.labels import GivenLabels, Labels, take_labels
from brainfeat.tables.masks import BY_NAME, BY_PLACE, describe_masks
from brainfeat.tables.origin import Origin
from brainfeat.tables.patients import check_level, have_one_group
from brainfeat.tables.pseudonyms import check_key, hash_identity
from brainfeat.tables.rows import check_appearance, quote, text_trouble
from brainfeat.tables.volume_layouts import describe_layout, describe_participants
from brainfeat.tables.volume_patients import (
    Patient,
    describe_places,
    find_mask_volumes,
    find_patients,
    is_derived,
)
from brainfeat.text import count, describe_unreadable

# So many class folders of one patient each are probably patients.
_MANY_CLASSES = 3


@dataclass(frozen=True, kw_only=True, eq=False)
class VolumeTable:
    """Volumes with their patients and classes: one row for each volume, immutable.

    :func:`brainfeat.extract` cuts them into slices, each of which becomes a row of the cache.

    Attributes
    ----------
    labels : tuple of str
        Class of each volume; ``""`` where it is unknown.
    groups : tuple of str
        Hash of the patient of each; ``""`` where its file cannot be read.
    policy : SlicePolicy
        Which slices are cut, in which plane, and how their values become grey.
    patient_key : {"site", "random"}
        Whether patients are hashed with the key of the site, and have the same groups in other
        tables with that key.
    refused : tuple of RefusedVolume
        Files whose volume cannot be determined, and folders that cannot be listed.
    masks : int
        How many volumes were left out for being named as masks.
    notes : tuple of str
        What of volumes, patients and classes is probably a mistake, a sentence each.
    series : tuple of Series
        The volumes. Their paths and those of the next two are never shown.
    patients : tuple of Patient
        What their places tell of their patients.
    given : tuple of str
        The class that each is given; ``""`` where it is the one that its file states.
    key : bytes
        What patients and volumes are hashed with.
    listed : bool
        Whether classes come from a list.
    group_level : int or None
        Which folders are patients.
    allow_burned_in : bool
        Whether images whose pixels may show a name are accepted.
    """

    labels: tuple[str, ...]
    groups: tuple[str, ...]
    policy: SlicePolicy
    patient_key: str
    refused: tuple[RefusedVolume, ...]
    masks: int
    notes: tuple[str, ...]
    series: tuple[Series, ...] = field(repr=False)
    patients: tuple[Patient, ...] = field(repr=False)
    given: tuple[str, ...] = field(repr=False)
    key: bytes = field(repr=False)
    listed: bool
    group_level: int | None
    allow_burned_in: bool

    def __len__(self) -> int:
        return len(self.series)

    @property
    def class_names(self) -> tuple[str, ...]:
        """The distinct labels, sorted."""
        return tuple(sorted({*self.labels} - {""}))

    @property
    def has_splits(self) -> bool:
        """Whether the volumes have splits: never."""
        return False

    @property
    def origin(self) -> Origin:
        """How the slices are cut."""
        return Origin(self.policy.text, self.patient_key)

    def cut(self) -> Cutting:
        """Begin to read the volumes, one after another."""
        return Cutting(
            self.series,
            self.patients,
            self.given,
            policy=self.policy,
            key=self.key,
            listed=self.listed,
            allow_burned_in=self.allow_burned_in,
        )

    def describe(self) -> str:
        """Describe the volumes in a line.

        Examples
        --------
        ``12 NIfTI volumes of 4 patients (subjects of BIDS), cut by slices=all window=auto …``
        """
        numbers = Counter(FORMAT_NAMES[entry.format] for entry in self.series)
        kinds = " and ".join(f"{number:,} {kind}" for kind, number in numbers.most_common())
        patients = count(len({*self.groups} - {""}), "patient")
        layout = describe_layout(self.series, self.patients, self.group_level)
        noun = "volume" if len(self) == 1 else "volumes"
        return f"{kinds} {noun} of {patients}{layout and f' ({layout})'}, cut by {self.policy.text}"


def read_volumes(
    paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
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
) -> VolumeTable:
    """Find volumes, their patients and classes, as a table that :func:`brainfeat.extract` takes.

    No pixel is read. Features, groups, sources and labels are those of the folder of slices that
    :func:`brainfeat.write_slices` makes of the same files with the same options.

    The patient of a volume is DICOM's patient ID or, in NIfTI, the subject of BIDS (``sub-01``),
    or what the names of files share that end in different sequences, as ``P7_t1.nii`` and
    ``P7_flair.nii``, or else the file. `group_level` names the folder instead. The `source` of a
    slice is its modality or, where the name of a NIfTI file ends in a sequence, the sequence.

    Parameters
    ----------
    paths : path-like, or iterable of path-like
        DICOM, NIfTI, MGH and MATLAB files, and folders of them.
    policy : SlicePolicy or None
        Which slices are cut, in which plane, and how their values become grey; None takes all
        slices in their own window. It is part of the spec of features.
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
        Names of the columns of keys and of classes in that list, such as ``participant_id`` and
        another column of the ``participants.tsv`` of BIDS.
    group_level : int or None
        Which folder below each path is the patient: 1 is the first one, 2 the one in it. Folders
        of one name are one patient.
    keep_masks : bool, default=False
        Whether files below the paths are kept that are named as masks of others, or are in a
        folder ``derivatives``.
    allow_burned_in : bool, default=False
        Whether images whose pixels may show a name are accepted.

    Returns
    -------
    VolumeTable
        The volumes, in the order of their paths.

    Raises
    ------
    ImageReadError
        If there is no volume, or no file can be opened.
    ParameterError
        If the key is too short, or several kinds of labels are given.
    TableError
        If the list of labels or the level is wrong, or the name of a class cannot be one.
    MissingDependencyError
        If there are DICOM files and pydicom is not installed.

    Examples
    --------
    The flair volumes of BraTS, every tenth slice of each, straight into a cache::

        flair = sorted(Path("brats").rglob("*_flair.nii.gz"))
        table = read_volumes(flair, policy=SlicePolicy(slices="every:10"), labels="classes.csv")
        extract(table, "features.h5")
    """
    listed = take_labels(labels, label_columns)
    given = list_paths(paths)
    _check_choices(label=label, class_folders=class_folders, labels=listed, level=group_level)
    check_key(patient_key)
    series, masks, refused = _find(given, keep_masks=keep_masks)
    patients = find_patients(series, group_level=group_level)
    identities = [_identify(entry) for entry in series]
    key = patient_key or secrets.token_bytes(32)
    groups = [
        hash_identity(key, "patient", patient.identify(found.patient)) if found else ""
        for patient, found in zip(patients, identities, strict=True)
    ]
    chosen, unmatched = _choose_labels(
        series, patients, identities, label=label, class_folders=class_folders, labels=listed
    )
    notes = [
        *_describe_masks(masks),
        *describe_places(patients, group_level),
        *unmatched,
        *(_suspect_class_folders(chosen, groups) if class_folders else ()),
    ]
    if not (label or class_folders or listed):
        notes += describe_participants(given)
    return VolumeTable(
        labels=tuple(
            label or (found.label if found else "")
            for label, found in zip(chosen, identities, strict=True)
        ),
        groups=tuple(groups),
        policy=policy or SlicePolicy(),
        patient_key="random" if patient_key is None else "site",
        refused=tuple(refused),
        masks=len(masks),
        notes=tuple(notes),
        series=tuple(series),
        patients=tuple(patients),
        given=tuple(chosen),
        key=key,
        listed=listed is not None,
        group_level=group_level,
        allow_burned_in=allow_burned_in,
    )


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


def _find(
    given: list[Path], *, keep_masks: bool
) -> tuple[list[Series], set[Series], list[RefusedVolume]]:
    """Find the volumes, the masks, and the reasons for what cannot be read."""
    images, series, unreadable = find_inputs(given)
    *others, last = FORMAT_NAMES.values()
    known = f"{', '.join(others)} or {last}"
    named = {*given} & {*images}
    if named:
        number, path = next((n, path) for n, path in enumerate(given, 1) if path in named)
        if kind := find_archive(path):
            raise ImageReadError(f"argument {number}", f"is an archive ({kind}); unpack it first")
        wrong = f"is not a {known} file" if is_so(path.exists) else "does not exist"
        raise ImageReadError(f"argument {number}", wrong)
    refused = [RefusedVolume(*entry) for entry in unreadable]
    if not series and not refused:
        raise ImageReadError("the input", f"has no {known} file")
    if not series:
        raise ImageReadError(
            describe_unreadable(len(refused), "volume", refused[0].name), refused[0].reason
        )
    masks: set[Series] = set() if keep_masks else {*find_mask_volumes(series, {*given})}
    kept = [entry for entry in series if entry not in masks]
    if not kept:
        raise ImageReadError(
            "the input", "has only files that are named as masks; keep them with keep_masks=True"
        )
    return kept, masks, refused


def _describe_masks(masks: Collection[Series]) -> Iterator[str]:
    derived = sum(map(is_derived, masks))
    for number, reason in ((len(masks) - derived, BY_NAME), (derived, BY_PLACE)):
        if number:
            yield describe_masks(number, "volume", reason)


def _identify(series: Series) -> Identity | None:
    """Identify a volume; None where that fails, and so will reading it, with the reason."""
    try:
        return identify_volume(series)
    except ImageReadError:
        return None


def _choose_labels(
    series: Sequence[Series],
    patients: Sequence[Patient],
    identities: Sequence[Identity | None],
    *,
    label: str,
    class_folders: bool,
    labels: Labels | None,
) -> tuple[list[str], list[str]]:
    """Choose the class that each volume is given, and describe what of a list does not match."""
    if labels is None:
        chosen = ["".join(entry.folders[:1]) if class_folders else label for entry in series]
        for name in {*chosen}:
            if trouble := text_trouble(name, "label"):
                raise TableError(f"the class {quote(name)} {trouble}; rename it")
        check_appearance(sorted({*chosen} - {""}))
        return chosen, []
    known = [place for place, found in enumerate(identities) if found]
    names = [
        patients[place].list_names(found.patient) for place, found in enumerate(identities) if found
    ]
    matching = match_labels(labels, names, noun="patient", named=False)
    classes = dict(zip(known, matching.classes, strict=True))
    check_appearance(sorted({*classes.values()} - {""}))
    chosen = [classes.get(place, "") for place in range(len(series))]
    return chosen, [*matching.describe(named=False)]


def _suspect_class_folders(labels: Sequence[str], groups: Sequence[str]) -> Iterator[str]:
    """Warn if class folders seem to be patients, whose names would be in the output."""
    classes = {*labels}
    if len(classes) >= _MANY_CLASSES and have_one_group(labels, groups):
        yield (
            f"the {len(classes):,} class folders have one patient each; if they are named after"
            " patients, these names get into the output: delete it, and give the class of each"
            " patient with labels=FILE"
        )
