"""DICOM files become volumes, through pydicom; nothing that names a person leaves this module.

Messages of pydicom quote the content of files. None of them is passed on, whether as an error, a
warning or a log record, and every error here is raised without its cause.
"""

import os
import struct
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from stat import S_ISREG
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from brainfeat.errors import ImageReadError, MissingDependencyError
from brainfeat.readers.dicom_elements import (
    HEADER_TAGS,
    PIXEL_TAGS,
    TAGS,
    find_group,
    read_integer,
    read_number,
    read_numbers,
)
from brainfeat.readers.orientation import place_stack
from brainfeat.readers.silence import silence
from brainfeat.readers.volumes import Volume, Window, check_shape

MODALITIES = ("MR", "CT", "PT")
FILE_LIMIT = 2_000_000_000

_MAGIC = b"DICM"
_PREAMBLE = 128
_GREY = {"MONOCHROME1": True, "MONOCHROME2": False}
# Secondary Capture Image Storage and its multi-frame variants: pictures of a screen or of paper.
_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
_DEFLATED = "1.2.840.10008.1.2.1.99"
_FUNCTIONS = ("LINEAR", "LINEAR_EXACT", "SIGMOID")


# What pydicom and its decoders raise on damaged files.
_DAMAGE = (
    OSError,
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    AttributeError,
    NotImplementedError,
    RuntimeError,
    OverflowError,
    MemoryError,
    ArithmeticError,
    EOFError,
    struct.error,
    zlib.error,
)


class _Frame(NamedTuple):
    order: tuple[float, ...]
    values: npt.NDArray[np.float32]
    window: Window | None


def is_dicom(path: Path) -> bool:
    """Return whether a path is a regular file with the content of a DICOM file.

    Raises
    ------
    OSError
        If the file cannot be opened.
    """
    if not S_ISREG(path.stat().st_mode):
        return False
    with path.open("rb") as file:
        return file.read(_PREAMBLE + len(_MAGIC))[_PREAMBLE:] == _MAGIC


def read_key(path: Path, *, name: str) -> str:
    """Read the key of the volume that a file belongs to; files with equal keys form one volume.

    Parameters
    ----------
    path : Path
    name : str
        Name of the file in error messages; not the path, which can contain a person's name.

    Returns
    -------
    str
        The key, which must never be shown.

    Raises
    ------
    ImageReadError
        If the file cannot be read.
    MissingDependencyError
        If pydicom is not installed.
    """
    with _translating(name):
        dataset = _read(path, name, HEADER_TAGS, pixels=False)
        series = str(dataset.get("SeriesInstanceUID") or "")
        if not series or read_integer(dataset, "NumberOfFrames", 1) != 1:
            return repr((series, str(dataset.get("SOPInstanceUID") or path.absolute())))
        # Two decimals are about half a degree: a scout of three planes is three volumes.
        turned = [round(x, 2) + 0.0 for x in read_numbers(dataset, "ImageOrientationPatient", 6)]
        shape = read_integer(dataset, "Rows", 0), read_integer(dataset, "Columns", 0)
        return repr((series, *shape, *turned))


def read_series(paths: Sequence[Path], *, name: str, allow_burned_in: bool = False) -> Volume:
    """Read the files of one series as a volume, sorted by position.

    Parameters
    ----------
    paths : sequence of Path
        Files of one frame each, or one file of several frames.
    name : str
        Name of the volume in error messages; not a path, which can contain a person's name.
    allow_burned_in : bool, default=False
        Whether to read images whose pixels may show a name: those that declare burned-in text, and
        secondary captures.

    Returns
    -------
    Volume

    Raises
    ------
    ImageReadError
        If a file cannot be read, or is not a grey image of MR, CT or PT.
    MissingDependencyError
        If pydicom is not installed.
    """
    with _translating(name):
        frames: list[_Frame] = []
        first: Any = None
        for path in paths:
            dataset = _read(path, name, TAGS, pixels=True)
            _check(dataset, name, allow_burned_in=allow_burned_in)
            first = dataset if first is None else first
            _check_alike(first, dataset, name)
            count = read_integer(dataset, "NumberOfFrames", 1)
            check_shape(
                name,
                len(frames) + count,
                read_integer(dataset, "Rows"),
                read_integer(dataset, "Columns"),
            )
            frames += _read_frames(dataset, name, count)
        frames.sort(key=lambda frame: frame.order)
        plane = find_group(first, 0, "PlaneOrientationSequence")
        measures = find_group(first, 0, "PixelMeasuresSequence")
        axes, spacing = place_stack(
            read_numbers(plane, "ImageOrientationPatient", 6) if any(frames[0].order[:6]) else (),
            [frame.order[6] for frame in frames],
            read_numbers(measures, "PixelSpacing", 2),
        )
        return Volume(
            values=np.stack([frame.values for frame in frames]),
            modality=str(first.Modality),
            windows=tuple(frame.window for frame in frames),
            inverted=_GREY[first.PhotometricInterpretation],
            patient=_identify(first, paths[0]),
            facts=_collect_facts(first, len(frames)),
            axes=axes,
            native_axes=axes,
            spacing=spacing,
        )


@contextmanager
def _translating(name: str) -> Iterator[None]:
    """Suppress pydicom's warnings and replace its errors, which quote the file."""
    try:
        from pydicom.errors import BytesLengthException
    except ImportError as error:
        raise MissingDependencyError(
            "DICOM needs pydicom, which is not installed: pip install 'brainfeat[medical]'"
        ) from error
    try:
        with silence("pydicom", "pylibjpeg", "openjpeg", "libjpeg", "rle"):
            yield
    except ImageReadError:
        raise
    except (*_DAMAGE, BytesLengthException):
        raise ImageReadError(name, "is damaged or not a readable DICOM file") from None


def _read(path: Path, name: str, tags: Sequence[str], *, pixels: bool) -> Any:
    import pydicom
    from pydicom.errors import InvalidDicomError
    from pydicom.filereader import read_file_meta_info

    try:
        status = path.stat()
        if not S_ISREG(status.st_mode):
            raise ImageReadError(name, "is not a regular file")
        if status.st_size > FILE_LIMIT:
            raise ImageReadError(
                name, f"has {status.st_size:,} bytes; at most {FILE_LIMIT:,} are read"
            )
        # pydicom would inflate the whole file, whatever its size.
        if read_file_meta_info(path).get("TransferSyntaxUID") == _DEFLATED:
            raise ImageReadError(
                name, "is deflated as a whole; convert it to another transfer syntax first"
            )
        return pydicom.dcmread(path, stop_before_pixels=not pixels, specific_tags=[*tags])
    except InvalidDicomError:
        raise ImageReadError(name, "is not a DICOM file") from None
    except OSError as error:
        if isinstance(error, ImageReadError) or error.errno is None:
            raise
        raise ImageReadError(name, f"cannot be read ({os.strerror(error.errno)})") from None


def _check(dataset: Any, name: str, *, allow_burned_in: bool) -> None:
    """Reject images that are not grey, are of another modality, or may show a name."""
    if dataset.get("Modality") not in MODALITIES:
        raise ImageReadError(name, f"is of a modality other than {', '.join(MODALITIES)}")
    if not any(tag in dataset for tag in PIXEL_TAGS):
        raise ImageReadError(name, "has no pixels")
    if dataset.get("SamplesPerPixel") != 1 or dataset.get("PhotometricInterpretation") not in _GREY:
        raise ImageReadError(name, f"is not grey ({' or '.join(_GREY)})")
    if allow_burned_in:
        return
    if dataset.get("BurnedInAnnotation") == "YES":
        raise ImageReadError(
            name,
            "declares text in its pixels, which can be a name; check the image, then allow it",
        )
    sop_class = str(dataset.get("SOPClassUID") or "")
    if sop_class == _CAPTURE or sop_class.startswith(f"{_CAPTURE}."):
        raise ImageReadError(
            name, "is a secondary capture, which can show a name; check the image, then allow it"
        )


def _check_alike(first: Any, other: Any, name: str) -> None:
    for tag in ("Modality", "PhotometricInterpretation", "Rows", "Columns", "PatientID"):
        if first.get(tag) != other.get(tag):
            raise ImageReadError(name, f"has files of more than one {tag}")


def _read_frames(dataset: Any, name: str, count: int) -> Iterator[_Frame]:
    stored = _decode(dataset, name, count)
    for place in range(count):
        spot = find_group(dataset, place, "PlanePositionSequence")
        plane = find_group(dataset, place, "PlaneOrientationSequence")
        shown = find_group(dataset, place, "FrameVOILUTSequence")
        rescaled = find_group(dataset, place, "PixelValueTransformationSequence")
        yield _Frame(
            order=(
                *_locate(spot, plane),
                *(
                    read_number(dataset, tag, 0.0)
                    for tag in (
                        "TemporalPositionIdentifier",
                        "AcquisitionNumber",
                        "EchoNumbers",
                        "InstanceNumber",
                    )
                ),
                place,
            ),
            values=_rescale(stored[place], dataset, rescaled),
            window=_find_window(shown),
        )


def _decode(dataset: Any, name: str, count: int) -> npt.NDArray[Any]:
    """Decode the pixels of a file: (frames, rows, columns)."""
    from pydicom.pixels.decoders.base import get_decoder
    from pydicom.pixels.utils import pixel_array

    wanted = (count, read_integer(dataset, "Rows"), read_integer(dataset, "Columns"))
    syntax = dataset.file_meta.TransferSyntaxUID
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError:
        raise ImageReadError(name, "has a transfer syntax that is not supported") from None
    if not decoder.is_available:
        raise ImageReadError(
            name,
            f"is compressed ({syntax.name}) and its decoder is not installed: "
            "pip install 'brainfeat[medical]'",
        )
    try:
        stored = pixel_array(dataset)
    except _DAMAGE:
        raise ImageReadError(name, f"has pixels that cannot be decoded ({syntax.name})") from None
    return stored.reshape(wanted)


def _rescale(stored: npt.NDArray[Any], dataset: Any, rescaled: Any) -> npt.NDArray[np.float32]:
    """Convert stored values to those of the modality (PS3.3 C.11.1); padding becomes NaN."""
    from pydicom.pixels.processing import apply_modality_lut

    if "ModalityLUTSequence" in dataset:
        values = np.array(apply_modality_lut(stored, dataset), np.float32)
    else:
        slope = read_number(rescaled, "RescaleSlope", 1.0)
        intercept = read_number(rescaled, "RescaleIntercept", 0.0)
        values = (stored * slope + intercept).astype(np.float32)
    if "PixelPaddingValue" in dataset:
        ends = [read_number(dataset, "PixelPaddingValue", 0.0)]
        ends.append(read_number(dataset, "PixelPaddingRangeLimit", ends[0]))
        values[(stored >= min(ends)) & (stored <= max(ends))] = np.nan
    values[~np.isfinite(values)] = np.nan
    return values


def _find_window(shown: Any) -> Window | None:
    """Find the first window of a frame; None where there is none or it is invalid."""
    centre, width = read_number(shown, "WindowCenter"), read_number(shown, "WindowWidth")
    if centre is None or width is None or width < 1:
        return None
    function = shown.get("VOILUTFunction") or "LINEAR"
    return Window(centre, width, function) if function in _FUNCTIONS else None


def _locate(spot: Any, plane: Any) -> tuple[float, ...]:
    """Return the orientation of a slice and its position along the normal; zeros if unknown."""
    position = read_numbers(spot, "ImagePositionPatient", 3)
    turned = read_numbers(plane, "ImageOrientationPatient", 6)
    if not position or not turned:
        return (0.0,) * 7
    normal = np.cross(turned[:3], turned[3:])
    return (*(round(x, 2) + 0.0 for x in turned), float(np.dot(position, normal)))


def _identify(dataset: Any, path: Path) -> str:
    """Identify the patient, or else the study, or else the file."""
    if patient := str(dataset.get("PatientID") or "").strip():
        return "\0".join(["patient", patient, str(dataset.get("IssuerOfPatientID") or "").strip()])
    if study := str(dataset.get("StudyInstanceUID") or ""):
        return f"study\0{study}"
    return f"file\0{path.absolute()}"


def _collect_facts(dataset: Any, frames: int) -> dict[str, Any]:
    """Collect facts that identify nobody: numbers, and terms that were compared with a list."""
    measures = find_group(dataset, 0, "PixelMeasuresSequence")
    return {
        "rows": read_integer(dataset, "Rows"),
        "columns": read_integer(dataset, "Columns"),
        "frames": frames,
        "spacing": list(read_numbers(measures, "PixelSpacing", 2)) or None,
        "bits": read_integer(dataset, "BitsStored", 0) or None,
        "photometric": str(dataset.PhotometricInterpretation),
        "field_strength": read_number(dataset, "MagneticFieldStrength"),
    }
