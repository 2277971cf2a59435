"""Whether the values of a DICOM file are Hounsfield units."""

from typing import Any

from brainfeat.errors import ImageReadError
from brainfeat.readers.dicom.elements import find_group, is_stated, read_words
from brainfeat.readers.windows import HOUNSFIELD


def check_hounsfield(dataset: Any, count: int, *, name: str) -> None:
    """Reject a file whose values are not Hounsfield units (HU), or are not known to be.

    Values of CT are in HU unless `RescaleType` says otherwise, which it must do where they are not,
    and where `MultienergyCTAcquisition` is YES (PS3.3 C.8.2.1); those of localizers need not be.
    Its defined terms (C.11.1.1.2) other than HU, such as HU_MOD, MGML or US, are refused.

    Parameters
    ----------
    dataset : pydicom.Dataset
        With the elements of `HEADER_TAGS` and `UNIT_TAGS`.
    count : int
        Number of frames.
    name : str
        Name of the volume in error messages.

    Raises
    ------
    ImageReadError
        If they are not; the message names the element that says so.
    """
    if dataset.get("Modality") != "CT":
        raise _refuse(name, "is of a Modality other than CT", "a CT")
    if "ModalityLUTSequence" in dataset:
        table = dataset.ModalityLUTSequence[0]
        if read_words(table, "ModalityLUTType") != (HOUNSFIELD,):
            raise _refuse(name, "has a ModalityLUTType other than HU", "HU")
        return
    kinds = set()
    for place in range(count):
        rescaled = find_group(dataset, place, "PixelValueTransformationSequence")
        if not (is_stated(rescaled, "RescaleSlope") and is_stated(rescaled, "RescaleIntercept")):
            raise _refuse(name, "states no RescaleSlope or no RescaleIntercept", "both")
        kinds.add(read_words(rescaled, "RescaleType"))
        typed = find_group(dataset, place, "CTImageFrameTypeSequence")
        if "LOCALIZER" in (*read_words(typed, "FrameType"), *read_words(dataset, "ImageType")):
            raise _refuse(name, "has the ImageType LOCALIZER", "a series of slices")
    if kinds - {(), (HOUNSFIELD,)}:
        raise _refuse(name, "has a RescaleType other than HU", "HU")
    if () in kinds and read_words(dataset, "MultienergyCTAcquisition") not in ((), ("NO",)):
        raise _refuse(name, "is of a multi-energy acquisition and states no RescaleType", "HU")


def _refuse(name: str, came: str, expected: str) -> ImageReadError:
    return ImageReadError(
        name,
        f"{came}, so that its values are not known to be in Hounsfield units; expected {expected}; "
        "leave it out, or pass window=CENTRE,WIDTH, which takes values in any unit",
    )
