"""Elements of DICOM datasets: which ones are read, and how they become plain numbers."""

import math
from typing import Any

# These are all the elements that are read. Those that identify a person serve to keep files of one
# volume together, and are hashed before they are stored.
# fmt: off
HEADER_TAGS = (
    "PatientID", "IssuerOfPatientID", "StudyInstanceUID", "SeriesInstanceUID", "SOPClassUID",
    "SOPInstanceUID", "Modality", "BurnedInAnnotation", "Rows", "Columns", "NumberOfFrames",
    "SamplesPerPixel", "PhotometricInterpretation", "ImageOrientationPatient",
)
PIXEL_TAGS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
TAGS = (
    *HEADER_TAGS, *PIXEL_TAGS,
    "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "PixelPaddingValue",
    "PixelPaddingRangeLimit", "RescaleSlope", "RescaleIntercept", "ModalityLUTSequence",
    "WindowCenter", "WindowWidth", "VOILUTFunction", "ImagePositionPatient",
    "TemporalPositionIdentifier", "EchoNumbers", "AcquisitionNumber", "InstanceNumber",
    "PixelSpacing", "MagneticFieldStrength", "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence", "ExtendedOffsetTable", "ExtendedOffsetTableLengths",
)
# fmt: on


def read_number(dataset: Any, tag: str, default: float | None = None) -> Any:
    """Read the first number of an element.

    Parameters
    ----------
    dataset : pydicom.Dataset
    tag : str
        Keyword of the element.
    default : float or None
        What is returned where the element is missing, empty or not finite.

    Returns
    -------
    float or None
    """
    found = read_numbers(dataset, tag)
    return found[0] if found else default


def read_numbers(dataset: Any, tag: str, count: int | None = None) -> tuple[float, ...]:
    """Read the numbers of an element.

    Parameters
    ----------
    dataset : pydicom.Dataset
    tag : str
        Keyword of the element.
    count : int or None
        How many numbers are expected; None accepts any number of them.

    Returns
    -------
    tuple of float
        Empty where the element is missing, has another count, or has a number that is not finite.
    """
    try:
        value = dataset.get(tag)
        if value is None or value == "":
            return ()
        several = [value] if isinstance(value, str | int | float) else list(value)
        found = tuple(map(float, several))
    except (TypeError, ValueError, OverflowError):
        return ()
    usable = all(map(math.isfinite, found)) and (count is None or len(found) == count)
    return found if usable else ()


def read_integer(dataset: Any, tag: str, default: int | None = None) -> int:
    """Read an element that holds one integer.

    Parameters
    ----------
    dataset : pydicom.Dataset
    tag : str
        Keyword of the element.
    default : int or None
        What is returned where the element is missing or empty; None requires the element.

    Returns
    -------
    int

    Raises
    ------
    TypeError, ValueError
        The element is required and missing, or is not an integer.
    """
    value = dataset.get(tag)
    if default is not None and (value is None or value == ""):
        return default
    return int(value)


def find_group(dataset: Any, frame: int, sequence: str) -> Any:
    """Find the functional group of a frame (PS3.3 C.7.6.16).

    Parameters
    ----------
    dataset : pydicom.Dataset
    frame : int
        Index of the frame, from 0.
    sequence : str
        Keyword of the group's sequence.

    Returns
    -------
    pydicom.Dataset
        The group of the frame, or else the one that all frames share, or else the dataset itself.
    """
    places = [("PerFrameFunctionalGroupsSequence", frame), ("SharedFunctionalGroupsSequence", 0)]
    for groups, place in places:
        found = dataset.get(groups) or []
        if place < len(found) and found[place].get(sequence):
            return found[place][sequence][0]
    return dataset
