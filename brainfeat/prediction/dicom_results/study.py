"""The study that results belong to: one patient, one study, and instances that can be named."""

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec

from brainfeat.errors import ImageReadError, MissingDependencyError, ParameterError
from brainfeat.heads.bundle import HeadBundle
from brainfeat.prediction.dicom_results.volumes import PredictedVolume
from brainfeat.readers.dicom.instances import (
    IDENTITY,
    REQUIRED,
    Instance,
    Places,
    locate_slices,
    read_instance,
)
from brainfeat.readers.dicom.volumes import MODALITIES
from brainfeat.readers.series import Inputs, Series
from brainfeat.text import count

_logger = logging.getLogger(__name__)

_ADVICE = "run this for each of them"


@dataclass(frozen=True, kw_only=True, repr=False)
class Study:
    """A study, its patient, and the volumes that a result is of. Never shown.

    Attributes
    ----------
    uid : str
    elements : dict of str to str
        What the modules Patient and General Study require, by keyword.
    volumes : tuple of (PredictedVolume, Places)
        Those that could be read.
    unread : tuple of PredictedVolume
        The others.
    """

    uid: str
    elements: dict[str, str]
    volumes: tuple[tuple[PredictedVolume, Places], ...]
    unread: tuple[PredictedVolume, ...]


def check_inputs(inputs: Inputs) -> None:
    """Refuse what no DICOM result can be written of, before anything is predicted.

    Parameters
    ----------
    inputs : Inputs
        As :func:`brainfeat.readers.series.find_inputs` returns them.

    Raises
    ------
    ParameterError
        There are other files than DICOM volumes; or the volumes are of several patients or
        studies, or have no valid UIDs, or a patient who cannot be copied.
    MissingDependencyError
        If highdicom is not installed.
    """
    require_highdicom()
    others = len(inputs.images) + sum(entry.format != "dicom" for entry in inputs.series)
    if others:
        raise ParameterError(
            f"{count(others, 'file')} in what was given {'is' if others == 1 else 'are'} not DICOM,"
            " and a DICOM result refers to DICOM images alone; leave out what is not"
        )
    _join(instance for series in inputs.series for instance in _read_instances(series))


def check_head(bundle: HeadBundle) -> None:
    """Refuse a bag head: it answers patients, and a DICOM result describes volumes.

    Parameters
    ----------
    bundle : HeadBundle

    Raises
    ------
    ParameterError
        The head takes bags.
    """
    if bundle.bag is not None:
        raise ParameterError(
            "DICOM results are of single volumes, and this head takes all images of a patient "
            "together; take a head of images"
        )


def find_study(volumes: Sequence[PredictedVolume], *, orientation: str, result: str) -> Study:
    """Find the study of volumes, and where their slices are in its instances.

    Parameters
    ----------
    volumes : sequence of PredictedVolume
    orientation : str
        Of the policy that they were read with.
    result : str
        What is written of it, for the warning about elements that stay empty.

    Returns
    -------
    Study

    Raises
    ------
    ParameterError
        As in :func:`check_inputs`; or no volume could be read.
    ImageReadError
        If a file changed since it was read.
    MissingDependencyError
        If highdicom is not installed.
    """
    require_highdicom()
    located: list[tuple[PredictedVolume, Places]] = []
    for volume in volumes:
        series = volume.series
        if volume.prediction.error is not None or series is None:
            continue
        if series.format != "dicom":
            raise ParameterError(
                f"{series.name} is not DICOM, and a DICOM result refers to DICOM images alone; "
                "leave it out"
            )
        places = locate_slices(
            series.paths, name=series.name, frames=series.frames, orientation=orientation
        )
        located.append((volume, places))
    if not located:
        raise ParameterError("no volume could be read, so that there is nothing to report")
    named = [
        (volume.prediction.path, instance)
        for volume, places in located
        for instance in places.instances
    ]
    uid, elements, unknown = _join(named)
    if unknown:
        _logger.warning(
            "no %s is copied into the %s; not valid, or not the same in all files",
            ", ".join(unknown),
            result,
        )
    return Study(
        uid=uid,
        elements=elements,
        volumes=tuple(located),
        unread=tuple(volume for volume in volumes if volume.prediction.error is not None),
    )


def require_highdicom() -> None:
    """Raise an error that names the extra where highdicom is missing.

    Raises
    ------
    MissingDependencyError
    """
    if find_spec("highdicom") is None:
        raise MissingDependencyError(
            "DICOM results need highdicom, which is not installed: "
            "pip install 'brainfeat[dicom-out]'"
        )


def _read_instances(series: Series) -> Iterator[tuple[str, Instance]]:
    """Read the instances of a volume that can be predicted; what cannot be read is told later."""
    for path in series.paths:
        try:
            instance = read_instance(path, name=series.name)
        except ImageReadError:
            continue
        if instance.modality in MODALITIES:
            yield series.name, instance


def _join(named: Iterable[tuple[str, Instance]]) -> tuple[str, dict[str, str], list[str]]:
    """Check that instances are of one patient and one study.

    Returns
    -------
    study : str
    elements : dict of str to str
    unknown : list of str
        Keywords of elements that are empty although a file has something there.
    """
    studies: set[str] = set()
    identities: dict[str, set[str]] = {keyword: set() for keyword in IDENTITY}
    required: dict[str, set[str]] = {keyword: set() for keyword in REQUIRED}
    invalid: set[str] = set()
    for name, instance in named:
        wrong = [keyword for keyword in instance.invalid if keyword not in REQUIRED]
        if wrong:
            raise ParameterError(
                f"{name}: {wrong[0]} is missing, not valid, or not in the stated character set; "
                "a DICOM result refers to its images by UID and copies the patient, so correct the "
                "files, or leave them out"
            )
        invalid.update(instance.invalid)
        studies.add(instance.study)
        for keyword, text in instance.identity.items():
            identities[keyword].add(text)
        for keyword, text in instance.required.items():
            required[keyword].add(text)
    for keyword, texts in identities.items():
        if len(texts) > 1:
            raise ParameterError(
                f"the volumes have more than one {keyword}, and a DICOM result is of one patient; "
                f"{_ADVICE}"
            )
    if len(studies) > 1:
        raise ParameterError(
            f"the volumes are of {len(studies)} studies, and a DICOM result is of one; {_ADVICE}"
        )
    unknown = [key for key, texts in required.items() if len(texts) > 1 or key in invalid]
    elements = {key: next(iter(texts), "") for key, texts in (identities | required).items()}
    elements |= dict.fromkeys(unknown, "")
    return next(iter(studies), ""), elements, unknown
