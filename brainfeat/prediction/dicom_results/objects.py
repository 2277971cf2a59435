"""What DICOM results have in common: patient, equipment, UIDs, and how they are written."""

import os
import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from io import BytesIO
from pathlib import Path
from typing import Any

from brainfeat import files
from brainfeat.errors import BrainfeatError, ImageReadError, ParameterError
from brainfeat.prediction.dicom_results.codes import SCHEME, SCHEME_NAME
from brainfeat.prediction.dicom_results.study import Study
from brainfeat.prediction.dicom_results.volumes import PredictedVolume
from brainfeat.prediction.predictor import Predictor
from brainfeat.readers.dicom.files import DAMAGE, open_dataset, translating
from brainfeat.readers.dicom.instances import Instance
from brainfeat.readers.silence import silence

MANUFACTURER = "brainfeat"
UTF_8 = "ISO_IR 192"
# Of all UIDs of devices, whose names are the digests of heads.
_NAMESPACE = uuid.UUID("6d9b5c1e-3d0f-4f0b-8d53-5f1f6f2a7c90")


def make_uid() -> str:
    """Make a UID of a random UUID (PS3.5, B.2): two runs are two instances, whatever they found."""
    return f"2.25.{uuid.uuid4().int}"


def make_device_uid(predictor: Predictor) -> str:
    """Make the UID of a head as a device, which depends on the content of its file alone."""
    return f"2.25.{uuid.uuid5(_NAMESPACE, require_digest(predictor)).int}"


def require_digest(predictor: Predictor) -> str:
    """Return the digest of the head's file.

    Raises
    ------
    ParameterError
        The head was not loaded from a file.
    """
    if not predictor.bundle.content_sha256:
        raise ParameterError(
            "the head has not been saved, and a DICOM result names it by the digest of its file; "
            "save it, and make the predictor of the file"
        )
    return predictor.bundle.content_sha256


def name_model(predictor: Predictor) -> str:
    """Name the head and its base, as the model of the equipment."""
    bundle = predictor.bundle
    return f"{bundle.head} on {_name_bases(predictor)}"[:64]


def _name_bases(predictor: Predictor) -> str:
    return " and ".join(dict.fromkeys(spec.backbone for spec in predictor.bundle.specs))


def describe_parameters(predictor: Predictor) -> list[str]:
    """Describe what a prediction depends on beside the images, a line for each."""
    bundle = predictor.bundle
    return [
        f"head: {bundle.head}, content SHA-256 {require_digest(predictor)}",
        f"classes: {', '.join(bundle.class_names)}",
        f"base: {_name_bases(predictor)}, feature spec {bundle.spec.fingerprint}",
        f"precision: {predictor.precision}; engine: {predictor.engine or 'not stated'}",
        f"volumes: {predictor.policy.text}",
        f"target coverage: {predictor.coverage:g}",
        f"false alarm rate: {predictor.false_alarm_rate:g}",
    ]


def describe_equipment(predictor: Predictor) -> dict[str, Any]:
    """Return what highdicom's objects take as the equipment, and the coding scheme."""
    from highdicom.coding_schemes import CodingSchemeIdentificationItem

    return {
        "manufacturer": MANUFACTURER,
        "manufacturer_model_name": name_model(predictor),
        "software_versions": version("brainfeat"),
        "device_serial_number": require_digest(predictor),
        "specific_character_set": UTF_8,
        "series_description": "Research only, not for diagnosis",
        "coding_schemes": [
            CodingSchemeIdentificationItem(
                designator=SCHEME, name=SCHEME_NAME, responsible_organization="brainfeat"
            )
        ],
    }


def make_reference(study: Study, instance: Instance) -> Any:
    """Make the data set by which highdicom knows an instance, with its patient and study."""
    from pydicom import Dataset

    dataset = Dataset()
    dataset.SpecificCharacterSet = UTF_8
    add_patient(dataset, study)
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = study.uid, instance.series
    dataset.SOPInstanceUID, dataset.SOPClassUID = instance.uid, instance.sop_class
    dataset.Modality = instance.modality
    return dataset


def add_patient(dataset: Any, study: Study) -> None:
    """Copy what the modules Patient and General Study require into a data set."""
    for keyword, text in study.elements.items():
        if text or keyword != "IssuerOfPatientID":  # which is not required, and must not be empty
            setattr(dataset, keyword, text)


@contextmanager
def unnamed() -> Iterator[None]:
    """Keep messages of the libraries from the output, since they quote the patient's name.

    Raises
    ------
    ParameterError
        In the place of any error of theirs.
    """
    try:
        with silence("highdicom", "pydicom"):
            yield
    except DAMAGE:
        raise ParameterError(
            "the study cannot be described in DICOM; check its headers, or leave it out"
        ) from None


def check_target(
    path: str | os.PathLike[str],
    volumes: Sequence[PredictedVolume],
    *,
    overwrite: bool,
    kind: str,
    sop_classes: Collection[str],
) -> Path:
    """Refuse a file that is not to be replaced, as `brainfeat.files.check_output` does.

    Raises
    ------
    BrainfeatError
    """
    return files.check_output(
        path,
        overwrite=overwrite,
        kind=kind,
        recognise=lambda found: is_own(found, sop_classes),
        inputs=[file for volume in volumes if volume.series for file in volume.series.paths],
    )


def is_own(path: Path, sop_classes: Collection[str]) -> bool:
    """Return whether brainfeat wrote a file, and it is of one of the SOP classes."""
    try:
        with translating("the file"):
            found = open_dataset(path, "the file", ("SOPClassUID", "Manufacturer"), pixels=False)
            return found.get("Manufacturer") == MANUFACTURER and (
                found.get("SOPClassUID") in sop_classes
            )
    except ImageReadError:
        return False


def encode(dataset: Any) -> bytes:
    """Return the content of a DICOM file.

    pydicom's errors while it writes a file do not say what the system reports.
    """
    encoded = BytesIO()
    dataset.save_as(encoded, enforce_file_format=True)
    return encoded.getvalue()


def save(contents: Mapping[Path, bytes]) -> None:
    """Write files, all of them or none.

    Raises
    ------
    BrainfeatError
        If one cannot be written.
    """
    try:
        with files.atomic_write_all([*contents]) as temporaries:
            for temporary, content in zip(temporaries, contents.values(), strict=True):
                temporary.write_bytes(content)
    except OSError as error:
        names = " and ".join(map(str, contents))
        raise BrainfeatError(f"{names} cannot be written ({error.strerror})") from None
