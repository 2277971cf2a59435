"""Patients: which of the images and volumes to predict a bag head answers together."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from brainfeat.errors import ImageReadError, ParameterError
from brainfeat.heads.bundle import HeadBundle
from brainfeat.prediction.answers import Prediction
from brainfeat.prediction.decisions import DecisionRule
from brainfeat.prediction.feature_source import FeatureSource
from brainfeat.prediction.images import ImageCounter
from brainfeat.prediction.patient_images import PatientImages
from brainfeat.readers.held import HeldImage
from brainfeat.readers.series import Inputs
from brainfeat.tables.patients import check_level
from brainfeat.tables.pseudonyms import Kind
from brainfeat.tables.volume_patients import Patient, find_patients

_IN_MEMORY = "images in memory"


@dataclass(frozen=True, kw_only=True)
class Belonging:
    """Whose images and volumes are which.

    Attributes
    ----------
    images : tuple of (str, str)
        What identifies the patient of each image, and the folder that it is named by.
    volumes : tuple of Patient
        What the place of each volume tells of its patient.
    """

    images: tuple[tuple[str, str], ...]
    volumes: tuple[Patient, ...]


def find_belonging(
    inputs: Inputs, given: Iterable[Path | HeldImage] = (), *, group_level: int | None = None
) -> Belonging:
    """Find whose the images and volumes are.

    Images in one folder are of one patient, and images in memory that are given together. Volumes
    are of the patient that they or their names tell, as for :func:`brainfeat.write_slices`.

    Parameters
    ----------
    inputs : Inputs
    given : iterable of Path or HeldImage
        What the inputs were found in; only needed with `group_level`.
    group_level : int or None
        Which folder below the given ones is the patient, from 1; images in none stay with those of
        their own folder.

    Returns
    -------
    Belonging

    Raises
    ------
    ParameterError
        The level is below 1, or nothing is in a folder of it.

    Examples
    --------
    >>> paths = [Path("data/p1/t1/a.png"), Path("data/p1/t2/b.png")]
    >>> [name for _, name in find_belonging(Inputs(paths, [], [])).images]
    ['data/p1/t1', 'data/p1/t2']
    """
    check_level(group_level)
    roots = [entry for entry in given if group_level and isinstance(entry, Path)]
    images = tuple(_find_folder(image, roots, group_level or 0) for image in inputs.images)
    deep = group_level and any(len(entry.folders) >= group_level for entry in inputs.series)
    if group_level and not deep and not any(key.startswith("level\0") for key, _ in images):
        raise ParameterError(
            f"nothing that was given is in a folder of level {group_level}; pass the level of the "
            "patients' folders below the given ones as group_level=N, or leave it out"
        )
    volumes = find_patients(inputs.series, group_level=group_level if deep else None)
    return Belonging(images=images, volumes=tuple(volumes))


def choose_belonging(
    bundle: HeadBundle,
    inputs: Inputs,
    given: Iterable[Path | HeldImage] = (),
    *,
    group_level: int | None = None,
) -> Belonging | None:
    """Find whose the images and volumes are, for a bag head; None for a head of single images.

    Raises
    ------
    ParameterError
        As in :func:`find_belonging`; or the head takes single images, and `group_level` is given.
    """
    if bundle.bag is not None:
        return find_belonging(inputs, given, group_level=group_level)
    if group_level is not None:
        raise ParameterError(
            "the head predicts single images, so that no folder is a patient; leave "
            f'group_level={group_level} out, or fit a head on groups, such as with bag="mean"'
        )
    return None


def _find_folder(image: Path | HeldImage, roots: Sequence[Path], level: int) -> tuple[str, str]:
    if isinstance(image, HeldImage):
        return "memory", _IN_MEMORY
    for root in roots:
        folders = image.relative_to(root).parts[:-1] if image.is_relative_to(root) else ()
        if len(folders) >= level:
            # Folders of one name are one patient, as in a table.
            return f"level\0{root}\0{folders[level - 1]}", str(root.joinpath(*folders[:level]))
    return f"folder\0{image.parent}", str(image.parent)


Hash = Callable[[Kind, str], str | None]


def predict_patients(
    source: FeatureSource,
    rule: DecisionRule,
    inputs: Inputs,
    *,
    belonging: Belonging,
    counter: ImageCounter,
    n_jobs: int,
    hash_name: Hash,
) -> Iterator[Prediction]:
    """Predict each patient from all of its images, whose vectors are kept until all are known.

    Parameters
    ----------
    source : FeatureSource
    rule : DecisionRule
        Of a bag head.
    inputs : Inputs
    belonging : Belonging
        Whose they are.
    counter : ImageCounter
    n_jobs : int
        Threads that read images.
    hash_name : callable
        From ``"patient"`` or ``"volume"`` and what identifies it to its hash, or to None.

    Yields
    ------
    Prediction
        For the patients of images, each followed by its images that cannot be read; for files that
        are no image; for the patients of volumes; and for volumes that cannot be read.
    """
    patients: dict[str, PatientImages] = {}
    images, whose = source.read(inputs, keep_pixels=False, n_jobs=n_jobs), iter(belonging.images)
    for entry, vector, seen in source.compute_each(images, len(inputs.images), counter):
        key, name = next(whose)
        patients.setdefault(key, PatientImages(name=name)).add(entry, vector, seen)
    for patient in patients.values():
        if patient.vectors or len(patient.refused) > 1:
            yield rule.predict_patient(patient)
        yield from patient.refused
    for unreadable in inputs.unreadable:
        yield Prediction(path=unreadable.name, error=unreadable.reason)
    scanned: dict[str, PatientImages] = {}
    refused = []
    for series, place in zip(inputs.series, belonging.volumes, strict=True):
        try:
            cut = source.cut(series, counter)
        except ImageReadError as error:
            volume = hash_name("volume", series.key)
            refused.append(Prediction(path=series.name, volume=volume, error=error.reason))
            continue
        key = place.identify(cut.patient)
        patient = scanned.setdefault(key, PatientImages(name=series.name))
        patient.volumes.append(series.name)
        for entry, vector, seen in source.compute_each(cut.images, cut.number, counter):
            patient.add(entry, vector, seen)
    for key, patient in scanned.items():
        yield replace(rule.predict_patient(patient), group=hash_name("patient", key))
    yield from refused
