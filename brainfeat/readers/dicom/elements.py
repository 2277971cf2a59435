"""Elements of DICOM datasets: which ones are read, and how they become plain numbers."""

import math
from typing import Any

from brainfeat.errors import ImageReadError

# These are all the elements that are read. Those that identify a person serve to keep files of one
# volume together, and are hashed before they are stored.
# fmt: off
PIXEL_TAGS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
IMAGE_TAGS = (
    "PatientID", "IssuerOfPatientID", "StudyInstanceUID", "SeriesInstanceUID", "SOPClassUID",
    "SOPInstanceUID", "Modality", "BurnedInAnnotation", "Rows", "Columns", "NumberOfFrames",
    "SamplesPerPixel", "PhotometricInterpretation", "BitsAllocated", "BitsStored", "HighBit",
    "PixelRepresentation", "PixelPaddingValue", "PixelPaddingRangeLimit", "ModalityLUTSequence",
    "MagneticFieldStrength", "ExtendedOffsetTable", "ExtendedOffsetTableLengths",
)
# The creators of private blocks, which are always in the first block where vendors write them, and
# the elements that are read from these blocks.
SIEMENS, GE, PHILIPS = 0x00190010, 0x00430010, 0x20010010
CREATORS = {
    SIEMENS: "SIEMENS MR HEADER", GE: "GEMS_PARM_01", PHILIPS: "Philips Imaging DD 001",
}
SIEMENS_B_VALUE, GE_B_VALUE, PHILIPS_B_VALUE = 0x0019100C, 0x00431039, 0x20011003
GE_COMPONENT = 0x0043102F
CSA_CREATORS = tuple(range(0x00290010, 0x00290020))
CSA_HEADERS = tuple(0x00290010 | block << 8 for block in range(0x10, 0x20))
HEADER_TAGS: tuple[str | int, ...] = (
    *IMAGE_TAGS,
    "FrameOfReferenceUID", "SeriesNumber", "ImageOrientationPatient", "ImagePositionPatient",
    "InstanceNumber", "PixelSpacing", "RescaleSlope", "RescaleIntercept", "WindowCenter",
    "WindowWidth", "VOILUTFunction", "ImageType", "ComplexImageComponent", "DiffusionBValue",
    "DiffusionGradientOrientation", "EchoTime", "EchoNumbers", "RepetitionTime", "InversionTime",
    "FlipAngle", "TemporalPositionIdentifier", "TriggerTime", "FrameReferenceTime",
    "AcquisitionNumber", "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence",
    *CREATORS, SIEMENS_B_VALUE, GE_B_VALUE, PHILIPS_B_VALUE, GE_COMPONENT,
)
# What says which units values are in, and what turns those of PET into SUV.
GE_PET, PHILIPS_PET = 0x00090010, 0x70530010
PET_CREATORS = {GE_PET: "GEMS_PETD_01", PHILIPS_PET: "Philips PET Private Group"}
GE_SCAN, PHILIPS_SUV, PHILIPS_ACTIVITY = 0x0009100D, 0x70531000, 0x70531009
UNIT_TAGS: tuple[str | int, ...] = (
    "RescaleType", "MultienergyCTAcquisition", "Units", "SUVType", "DecayCorrection",
    "CorrectedImage", "PatientWeight", "RadiopharmaceuticalInformationSequence", "SeriesType",
    "SeriesDate", "SeriesTime", "AcquisitionDate", "AcquisitionTime", "AcquisitionDateTime",
    "TimezoneOffsetFromUTC", "ActualFrameDuration", "Manufacturer", "AttenuationCorrected",
    "DecayCorrected", "DecayCorrectionDateTime", "RealWorldValueMappingSequence",
    *PET_CREATORS, GE_SCAN, PHILIPS_SUV, PHILIPS_ACTIVITY,
)
# fmt: on


def is_stated(dataset: Any, keyword: str) -> bool:
    """Return whether an element is there and not empty, whatever it holds."""
    try:
        return keyword in dataset and not dataset[keyword].is_empty
    except (TypeError, ValueError, OverflowError):
        return True


def read_number(dataset: Any, tag: str | int, default: float | None = None) -> Any:
    """Read the first number of an element.

    Parameters
    ----------
    dataset : pydicom.Dataset
    tag : str or int
        Keyword or tag of the element.
    default : float or None
        What is returned where the element is missing, empty or not finite.

    Returns
    -------
    float or None
    """
    found = read_numbers(dataset, tag)
    return found[0] if found else default


def read_numbers(dataset: Any, tag: str | int, count: int | None = None) -> tuple[float, ...]:
    """Read the numbers of an element.

    Parameters
    ----------
    dataset : pydicom.Dataset
    tag : str or int
        Keyword or tag of the element.
    count : int or None
        How many numbers are expected; None accepts any number of them.

    Returns
    -------
    tuple of float
        Empty where the element is missing, has another count, or has a number that is not finite.
    """
    try:
        value = _find_value(dataset, tag)
        if value is None or value == "":
            return ()
        several = [value] if isinstance(value, str | int | float) else list(value)
        found = tuple(map(float, several))
    except (TypeError, ValueError, OverflowError):
        return ()
    usable = all(map(math.isfinite, found)) and (count is None or len(found) == count)
    return found if usable else ()


def require_numbers(dataset: Any, tag: str, count: int, *, name: str) -> tuple[float, ...]:
    """Read the numbers of an element without which pixels would be shown wrongly.

    Parameters
    ----------
    dataset : pydicom.Dataset
    tag : str
        Keyword of the element.
    count : int
        How many numbers are expected.
    name : str
        Name of the volume or file in error messages.

    Returns
    -------
    tuple of float
        Empty where the element is missing or empty.

    Raises
    ------
    ImageReadError
        The element has something else.
    """
    value = dataset.get(tag)
    if value is None or value in ("", []):
        return ()
    if found := read_numbers(dataset, tag, count):
        return found
    raise ImageReadError(name, f"has a damaged element {tag}")


def read_words(dataset: Any, tag: str | int) -> tuple[str, ...]:
    """Read the words of an element.

    Parameters
    ----------
    dataset : pydicom.Dataset
    tag : str or int
        Keyword or tag of the element.

    Returns
    -------
    tuple of str
        Without white space at their ends; empty where the element is missing, empty or damaged.
    """
    try:
        value = _find_value(dataset, tag)
        if value is None or value == "":
            return ()
        several = [value] if isinstance(value, str) else list(value)
    except (TypeError, ValueError, OverflowError):
        return ()
    return tuple(str(word).strip() for word in several)


def _find_value(dataset: Any, tag: str | int) -> Any:
    """Return the value of an element, of a private one too; text that is only bytes is decoded."""
    value = dataset.get(tag)
    if isinstance(tag, int) and value is not None:
        value = value.value
    if isinstance(value, bytes):  # a private element of unknown representation
        return value.decode("ascii").rstrip("\0 ").split("\\")
    return value


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
