"""What the header of a DICOM file says about its frames: where they are, and how they differ."""

from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from brainfeat.errors import ImageReadError
from brainfeat.readers.dicom.elements import (
    CREATORS,
    GE,
    GE_B_VALUE,
    GE_COMPONENT,
    HEADER_TAGS,
    PHILIPS,
    PHILIPS_B_VALUE,
    SIEMENS,
    SIEMENS_B_VALUE,
    find_group,
    read_integer,
    read_number,
    read_numbers,
    read_words,
    require_numbers,
)
from brainfeat.readers.dicom.files import DAMAGE, open_dataset, translating
from brainfeat.readers.windows import Window

FRAME_LIMIT = 100_000

Value = tuple[float, ...] | tuple[str, ...]

_FUNCTIONS = ("LINEAR", "LINEAR_EXACT", "SIGMOID")
_DIMENSIONS = 8
_FAR = 1e6  # mm; no patient is there

# What tells frames at one position apart, in the order in which it is tried: where it stands in
# enhanced files (PS3.3, C.7.6.16 and C.8.13.5), whose elements classic files have at their top.
_TRAITS: dict[str, tuple[tuple[str, str], ...]] = {
    "image type": (
        ("MRImageFrameTypeSequence", "FrameType"),
        ("CTImageFrameTypeSequence", "FrameType"),
        ("PETFrameTypeSequence", "FrameType"),
        ("", "ImageType"),
    ),
    "complex component": (("MRImageFrameTypeSequence", "ComplexImageComponent"),),
    "b-value": (("MRDiffusionSequence", "DiffusionBValue"),),
    "echo time": (("MREchoSequence", "EffectiveEchoTime"), ("", "EchoTime")),
    "echo number": (("", "EchoNumbers"),),
    "inversion time": (("MRModifierSequence", "InversionTimes"), ("", "InversionTime")),
    "flip angle": (("MRTimingAndRelatedParametersSequence", "FlipAngle"),),
    "time point": (
        ("FrameContentSequence", "TemporalPositionIndex"),
        ("TemporalPositionSequence", "TemporalPositionTimeOffset"),
        ("", "TemporalPositionIdentifier"),
    ),
    "trigger time": (
        ("CardiacSynchronizationSequence", "NominalCardiacTriggerDelayTime"),
        ("", "TriggerTime"),
    ),
    "frame reference time": (("", "FrameReferenceTime"),),
    "gradient direction": (("DiffusionGradientDirectionSequence", "DiffusionGradientOrientation"),),
    "acquisition number": (
        ("FrameContentSequence", "FrameAcquisitionNumber"),
        ("", "AcquisitionNumber"),
    ),
}
# As the vendors' conformance statements have them; they stand in where the standard's are missing.
_PRIVATE = {
    "complex component": ((GE, GE_COMPONENT),),
    "b-value": ((SIEMENS, SIEMENS_B_VALUE), (PHILIPS, PHILIPS_B_VALUE), (GE, GE_B_VALUE)),
}


class Frame(NamedTuple):
    """One frame.

    Attributes
    ----------
    stack : str
        Which frames of an enhanced file belong together; ``""`` where that is not stated.
    orientation : tuple of float
        Direction cosines of rows and columns; empty where they are unknown.
    position : float or None
        Along the slice normal, in mm; None where it is unknown.
    number : int
        Order of frames without positions.
    traits : dict of str to tuple
        What tells it from other frames at the same position.
    slope, intercept : float
        From stored values to those of the modality.
    window : Window or None
        Its first one.
    mapped : tuple of 2 floats or None, default=None
        The lowest and the highest stored value that have one of the modality; None for all.
    """

    stack: str
    orientation: tuple[float, ...]
    position: float | None
    number: int
    traits: dict[str, Value]
    slope: float
    intercept: float
    window: Window | None
    mapped: tuple[float, float] | None = None


class Header(NamedTuple):
    """What is known of a file before its pixels are read. Never shown.

    Attributes
    ----------
    series, instance : str
        UIDs, or ``""``.
    shape : tuple of int
        Rows and columns.
    frames : tuple of Frame
    is_mosaic : bool
        Whether its one frame holds all slices of a volume (Siemens).
    origin : tuple or None
        Equal for single slices of one acquisition, also where each has a series of its own; None
        where too little is stated to say so.
    spacing : list of float or None
        Of the first frame, between rows and between columns, in mm.
    """

    series: str
    instance: str
    shape: tuple[int, int]
    frames: tuple[Frame, ...]
    is_mosaic: bool
    origin: tuple[Value, ...] | None
    spacing: list[float] | None


def read_header(path: Path, *, name: str) -> Header:
    """Read the header of a file.

    Parameters
    ----------
    path : Path
    name : str
        Name of the file in error messages; not the path, which can contain a person's name.

    Returns
    -------
    Header
        Without frames where what describes them is damaged: reading such a file is an error, and so
        is reading its series.

    Raises
    ------
    ImageReadError
        If the file cannot be opened as DICOM.
    MissingDependencyError
        If pydicom is not installed.
    """
    with translating(name):
        dataset = open_dataset(path, name, HEADER_TAGS, pixels=False)
        series, instance = _read_uid(dataset, "Series"), _read_uid(dataset, "SOP")
        try:
            return describe(dataset, name)
        except DAMAGE:
            return Header(series, instance, (0, 0), (), is_mosaic=False, origin=None, spacing=None)


def recall_header(path: Path, *, name: str) -> Header:
    """Read the header of a file with several volumes, which is asked for once for each of them.

    Parameters
    ----------
    path : Path
    name : str
        As in :func:`read_header`.

    Returns
    -------
    Header

    Raises
    ------
    ImageReadError
        If the file cannot be read.
    """
    with translating(name):
        status = path.stat()
        identity = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
        try:
            return _remember(path, identity)
        except ImageReadError as error:
            raise ImageReadError(name, error.reason) from None


@lru_cache(maxsize=2)
def _remember(path: Path, identity: tuple[int, ...]) -> Header:
    del identity  # a file that changes is read again
    return describe(open_dataset(path, "", HEADER_TAGS, pixels=False), "")


def describe(dataset: Any, name: str) -> Header:
    """Collect what a data set says about its frames.

    Parameters
    ----------
    dataset : pydicom.Dataset
        With the elements of `HEADER_TAGS`.
    name : str
        As in :func:`read_header`.

    Returns
    -------
    Header

    Raises
    ------
    ImageReadError
        If there are more than `FRAME_LIMIT` frames, or functional groups of another number.
    """
    count = read_integer(dataset, "NumberOfFrames", 1)
    if count > FRAME_LIMIT:
        raise ImageReadError(name, f"has {count:,} frames; at most {FRAME_LIMIT:,} are read")
    groups = dataset.get("PerFrameFunctionalGroupsSequence") or ()
    if groups and len(groups) != count:  # an item for each frame (PS3.3 C.7.6.16)
        raise ImageReadError(
            name, f"describes {len(groups):,} of {count:,} frames; the file is damaged"
        )
    frames = tuple(_describe_frame(dataset, place, count, name) for place in range(count))
    measures = find_group(dataset, 0, "PixelMeasuresSequence")
    return Header(
        series=_read_uid(dataset, "Series"),
        instance=_read_uid(dataset, "SOP"),
        shape=(read_integer(dataset, "Rows", 0), read_integer(dataset, "Columns", 0)),
        frames=frames,
        is_mosaic=count == 1 and "MOSAIC" in read_words(dataset, "ImageType"),
        origin=_find_origin(dataset) if count == 1 else None,
        spacing=list(read_numbers(measures, "PixelSpacing", 2)) or None,
    )


def _read_uid(dataset: Any, kind: str) -> str:
    return str(dataset.get(f"{kind}InstanceUID") or "")


def _describe_frame(dataset: Any, place: int, count: int, name: str) -> Frame:
    content = find_group(dataset, place, "FrameContentSequence")
    turned = require_numbers(
        find_group(dataset, place, "PlaneOrientationSequence"),
        "ImageOrientationPatient",
        6,
        name=name,
    )
    rescaled = find_group(dataset, place, "PixelValueTransformationSequence")
    number = place if count > 1 else read_number(dataset, "InstanceNumber", -1)
    return Frame(
        stack="".join(read_words(content, "StackID")),
        orientation=turned,
        position=_locate(dataset, place, count, turned, name),
        number=int(read_number(content, "InStackPositionNumber", number)),
        traits=_find_traits(dataset, place),
        slope=(*require_numbers(rescaled, "RescaleSlope", 1, name=name), 1.0)[0],
        intercept=(*require_numbers(rescaled, "RescaleIntercept", 1, name=name), 0.0)[0],
        window=_find_window(find_group(dataset, place, "FrameVOILUTSequence")),
    )


def _locate(
    dataset: Any, place: int, count: int, turned: tuple[float, ...], name: str
) -> float | None:
    """Return the position of a frame along the slice normal; None where it is not known."""
    spot = find_group(dataset, place, "PlanePositionSequence")
    position = require_numbers(spot, "ImagePositionPatient", 3, name=name)
    # The top of a file of several frames has the position of no more than one of them.
    if position and turned and (count == 1 or spot is not dataset):
        along = float(np.dot(position, np.cross(turned[:3], turned[3:])))
        return along if abs(along) < _FAR else None
    return None


def _find_traits(dataset: Any, place: int) -> dict[str, Value]:
    found: dict[str, Value] = {}
    for trait, sources in _TRAITS.items():
        groups = ((find_group(dataset, place, sequence), tag) for sequence, tag in sources)
        values = (_read_value(group, tag) for group, tag in groups)
        found[trait] = next((value for value in values if value), ())
    for trait, private in _PRIVATE.items():
        for creator, tag in private:
            if not found[trait] and CREATORS[creator] in read_words(dataset, creator):
                found[trait] = _read_value(dataset, tag)
    content = find_group(dataset, place, "FrameContentSequence")
    indices = read_numbers(content, "DimensionIndexValues")[:_DIMENSIONS]
    found |= {f"dimension {number}": (index,) for number, index in enumerate(indices, 1)}
    return found


def _read_value(dataset: Any, tag: str | int) -> Value:
    return read_numbers(dataset, tag) or read_words(dataset, tag)


def _find_origin(dataset: Any) -> tuple[Value, ...] | None:
    """Find what all slices of one acquisition share, whatever their series."""
    tags = (
        *("StudyInstanceUID", "FrameOfReferenceUID", "PatientID", "SeriesNumber", "Modality"),
        *("Rows", "Columns", "PixelSpacing", "ImageType", "EchoTime", "RepetitionTime"),
        *("InversionTime", "FlipAngle", "DiffusionBValue"),
    )
    study, reference, *others = (_read_value(dataset, tag) for tag in tags)
    return (study, reference, *others) if study and reference else None


def _find_window(shown: Any) -> Window | None:
    """Find the first window of a frame; None where there is none or it is invalid."""
    centre, width = read_number(shown, "WindowCenter"), read_number(shown, "WindowWidth")
    if centre is None or width is None or width < 1:
        return None
    function = shown.get("VOILUTFunction") or "LINEAR"
    return Window(centre, width, function) if function in _FUNCTIONS else None
