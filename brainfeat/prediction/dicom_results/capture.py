"""The secondary capture of a study: a slice of each volume beside its heat map."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainfeat.errors import ParameterError
from brainfeat.extraction.cropping import find_box
from brainfeat.prediction.dicom_results import codes, objects
from brainfeat.prediction.dicom_results.codes import to_concept
from brainfeat.prediction.dicom_results.painting import paint
from brainfeat.prediction.dicom_results.study import (
    Study,
    check_head,
    find_study,
    require_highdicom,
)
from brainfeat.prediction.dicom_results.volumes import PredictedVolume
from brainfeat.prediction.explanation import explain
from brainfeat.prediction.predictor import Predictor

KIND = "a secondary capture that brainfeat wrote"
# Secondary Capture, and Multi-frame True Color Secondary Capture for several volumes.
_SINGLE, _MULTIPLE = "1.2.840.10008.5.1.4.1.1.7", "1.2.840.10008.5.1.4.1.1.7.4"
_SERIES_NUMBER = 9002
_EXPLICIT = "1.2.840.10008.1.2.1"  # Explicit VR Little Endian
_OTHER = "OT"  # codespell:ignore
_PAGE_NUMBER_VECTOR = 0x00182001
_DERIVATION = (
    "A slice of each volume as the head was shown it, beside the regions that the score of a class "
    "comes from. Not for diagnosis; it shows neither why nor where a tumour is."
)


def write_secondary_capture(
    volumes: Sequence[PredictedVolume],
    path: str | os.PathLike[str],
    *,
    predictor: Predictor,
    overwrite: bool = False,
) -> Path:
    """Write a picture of the heat maps of the DICOM volumes of a study as a secondary capture.

    Each volume has a frame: its most confident slice beside the heat map of the class, with the
    decision, the probabilities and "not for diagnosis" in the pixels. The file names the patient,
    as the images do; the pixels do not.

    Parameters
    ----------
    volumes : sequence of PredictedVolume
        As :func:`collect_volumes` returns them of answers with their images, of one study.
    path, predictor, overwrite
        As in :func:`write_sr`.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    ParameterError
        As in :func:`write_sr`; or the answers have no images.
    BrainfeatError
        As in :func:`write_sr`.
    """
    path = Path(path)
    objects.save(
        {path: encode_secondary_capture(volumes, path, predictor=predictor, overwrite=overwrite)}
    )
    return path


def encode_secondary_capture(
    volumes: Sequence[PredictedVolume], path: Path, *, predictor: Predictor, overwrite: bool
) -> bytes:
    """Make the content of a file; everything is checked as by `write_secondary_capture`."""
    require_highdicom()
    check_head(predictor.bundle)
    objects.check_target(
        path, volumes, overwrite=overwrite, kind=KIND, sop_classes={_SINGLE, _MULTIPLE}
    )
    objects.require_digest(predictor)
    study = find_study(
        volumes, orientation=predictor.policy.orientation, result="secondary capture"
    )
    frames = [_make_frame(volume, predictor) for volume, _ in study.volumes]
    with objects.unnamed():
        capture = _make_capture(study, np.stack(frames), predictor)
        return objects.encode(capture)


def is_capture(path: Path) -> bool:
    """Return whether a file is a secondary capture that brainfeat wrote."""
    return objects.is_own(path, {_SINGLE, _MULTIPLE})


def _make_frame(volume: PredictedVolume, predictor: Predictor) -> NDArray[np.uint8]:
    shown = volume.shown
    if shown is None or shown.image is None or shown.pixels is None:
        raise ParameterError(
            f"{volume.prediction.path} has no image to show; keep the images of the answers"
        )
    bundle = predictor.bundle
    explanation = explain(
        bundle,
        shown.image[None],
        backbone=predictor.backbone,
        targets=[bundle.class_names.index(volume.target)],
    )
    return paint(
        volume,
        pixels=shown.pixels,
        heat=explanation.maps[0],
        method=explanation.method,
        origin=f"{objects.name_model(predictor)}, {objects.require_digest(predictor)[:16]}",
        box=find_box(shown.pixels, bundle.specs[0].crop),
    )


def _make_capture(study: Study, frames: NDArray[np.uint8], predictor: Predictor) -> Any:
    from highdicom import SOPClass

    several = len(frames) > 1
    capture: Any = SOPClass(
        study_instance_uid=study.uid,
        series_instance_uid=objects.make_uid(),
        series_number=_SERIES_NUMBER,
        sop_instance_uid=objects.make_uid(),
        sop_class_uid=_MULTIPLE if several else _SINGLE,
        instance_number=1,
        modality=_OTHER,
        transfer_syntax_uid=_EXPLICIT,
        **objects.describe_equipment(predictor),
    )
    objects.add_patient(capture, study)
    capture.ConversionType = "WSD"
    capture.ImageType = ["DERIVED", "SECONDARY"]
    capture.PatientOrientation = capture.Laterality = None  # must be there, and may be empty
    capture.DerivationDescription = _DERIVATION
    capture.SourceImageSequence = _list_sources(study)
    # Whether text in the pixels identifies the patient (PS3.3, C.7.6.1): ours does not.
    named = any(
        instance.may_show_name for _, places in study.volumes for instance in places.instances
    )
    capture.BurnedInAnnotation = "YES" if named else "NO"
    _add_pixels(capture, frames)
    return capture


def _list_sources(study: Study) -> list[Any]:
    """Refer to the instance of the slice that is shown, or to all where it is cut across them."""
    from pydicom import Dataset

    items = []
    for volume, places in study.volumes:
        frame = None if volume.shown is None else volume.shown.prediction.frame
        place = None if frame is None else places.find(frame)
        found = [(instance, None) for instance in places.instances] if place is None else [place]
        for instance, number in found:
            item = Dataset()
            item.ReferencedSOPClassUID = instance.sop_class
            item.ReferencedSOPInstanceUID = instance.uid
            if number is not None:
                item.ReferencedFrameNumber = number
            item.PurposeOfReferenceCodeSequence = [to_concept(codes.IMAGE_PROCESSING)]
            items.append(item)
    return items


def _add_pixels(capture: Any, frames: NDArray[np.uint8]) -> None:
    capture.SamplesPerPixel = 3
    capture.PhotometricInterpretation = "RGB"
    capture.PlanarConfiguration = 0
    capture.Rows, capture.Columns = frames.shape[1:3]
    capture.BitsAllocated = capture.BitsStored = 8
    capture.HighBit, capture.PixelRepresentation = 7, 0
    if len(frames) > 1:
        capture.NumberOfFrames = len(frames)
        capture.PageNumberVector = [*range(1, len(frames) + 1)]
        capture.FrameIncrementPointer = _PAGE_NUMBER_VECTOR
    capture.PixelData = frames.tobytes()
