"""The files of a DICOM series become a volume: checked, decoded, and sorted by position."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from brainfeat.errors import ImageReadError
from brainfeat.readers.dicom.elements import (
    CSA_CREATORS,
    CSA_HEADERS,
    HEADER_TAGS,
    IMAGE_TAGS,
    PIXEL_TAGS,
    UNIT_TAGS,
    read_integer,
    read_number,
)
from brainfeat.readers.dicom.files import open_dataset, translating
from brainfeat.readers.dicom.headers import Frame, Header, describe, recall_header
from brainfeat.readers.dicom.hounsfield import check_hounsfield
from brainfeat.readers.dicom.mosaics import unpack_mosaic
from brainfeat.readers.dicom.pixels import decode, rescale
from brainfeat.readers.dicom.stacks import find_places, round_orientation
from brainfeat.readers.dicom.uptake import Uptake, check_alike, measure_uptake
from brainfeat.readers.orientation import place_stack
from brainfeat.readers.volumes import Volume, check_shape
from brainfeat.readers.windows import HOUNSFIELD, UPTAKE

MODALITIES = ("MR", "CT", "PT")

_GREY = {"MONOCHROME1": True, "MONOCHROME2": False}
# Secondary Capture Image Storage and its multi-frame variants: pictures of a screen or of paper.
_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
_TAGS: tuple[str | int, ...] = (
    *(*HEADER_TAGS, *PIXEL_TAGS, *CSA_CREATORS, *CSA_HEADERS),
    "SpacingBetweenSlices",  # only of mosaics
)
_FEWER = (*IMAGE_TAGS, *PIXEL_TAGS)
_IDENTITY = ("PatientID", "IssuerOfPatientID", "StudyInstanceUID")


class _Slice(NamedTuple):
    frame: Frame
    values: npt.NDArray[np.float32]


def read_series(
    paths: Sequence[Path],
    *,
    name: str,
    frames: Sequence[int] | None = None,
    allow_burned_in: bool = False,
    unit: str = "",
) -> Volume:
    """Read the files of one volume, sorted by position.

    Parameters
    ----------
    paths : sequence of Path
        Files of one frame each, or one file of several frames or a Siemens mosaic. Copies of an
        instance count once.
    name : str
        Name of the volume in error messages; not a path, which can contain a person's name.
    frames : sequence of int or None
        Which frames of each file are read, from 0; None for all.
    allow_burned_in : bool, default=False
        Whether to read images whose pixels may show a name: those that declare burned-in text, and
        secondary captures.
    unit : {"", "HU", "SUVbw"}, default=""
        What the values of the volume must be in: Hounsfield units, which they are or are not, or
        SUV by body weight, which they are converted to; ``""`` takes those of the modality.

    Returns
    -------
    Volume

    Raises
    ------
    ImageReadError
        If a file cannot be read, or is not a grey image of MR, CT or PT; if positions repeat, or
        copies of an instance differ; or if values are not known to be in the unit.
    MissingDependencyError
        If pydicom is not installed, or nibabel for a mosaic.
    """
    with translating(name):
        instances: dict[str, list[_Slice]] = {}
        first, count, spacing = None, 0, None
        tags = (*_TAGS, *UNIT_TAGS) if unit else _TAGS if frames is None else _FEWER
        uptakes: list[Uptake] = []
        for place, path in enumerate(paths):
            dataset = open_dataset(path, name, tags, pixels=True)
            _check(dataset, name, allow_burned_in=allow_burned_in)
            header = _describe(dataset, path, name, frames)
            if unit:
                header = _apply_unit(unit, dataset, header, uptakes, name)
            if first is None:
                first, spacing = dataset, header.spacing
            _check_alike(first, dataset, name)
            known = instances.get(header.instance) if header.instance else None
            chosen = range(len(header.frames)) if frames is None else frames
            check_shape(name, len(chosen) + (0 if known else count), *_read_shape(dataset))
            found = list(_read_slices(dataset, header, frames, name))
            if known is None:
                instances[header.instance or f"\0{place}"] = found
                count += len(found)
            elif not _are_equal(known, found):
                raise ImageReadError(
                    name,
                    "has two files with one SOPInstanceUID and different content; leave one of "
                    "them out",
                )
        slices = _sort(instances.values(), name)
        volume = _make_volume(first, slices, paths[0], spacing, in_order=header.is_mosaic)
        return replace(volume, unit=unit)


def identify_series(paths: Sequence[Path], *, name: str) -> str:
    """Identify the patient of a series, or else its study, or else its first file.

    Parameters
    ----------
    paths : sequence of Path
    name : str
        As in :func:`read_series`.

    Returns
    -------
    str
        As in `Volume.patient` of the volume that :func:`read_series` reads. Never shown.

    Raises
    ------
    ImageReadError
        If the first file cannot be read.
    MissingDependencyError
        If pydicom is not installed.
    """
    with translating(name):
        return _identify(open_dataset(paths[0], name, _IDENTITY, pixels=False), paths[0])


def _describe(dataset: Any, path: Path, name: str, frames: Sequence[int] | None) -> Header:
    """Describe a file; one with several volumes, only once for all of them."""
    if frames is None:
        return describe(dataset, name)
    header = recall_header(path, name=name)
    if max(frames) >= len(header.frames):
        raise ImageReadError(name, "changed while it was read; run this again")
    return header


def _apply_unit(
    unit: str, dataset: Any, header: Header, uptakes: list[Uptake], name: str
) -> Header:
    """Check that values are in a unit, or give the frames what converts them to it."""
    if unit == HOUNSFIELD:
        check_hounsfield(dataset, len(header.frames), name=name)
    if unit != UPTAKE:
        return header
    found = measure_uptake(dataset, header.frames, name=name)
    # All files are compared with the first one, and what each states is forgotten.
    if uptakes:
        check_alike(uptakes[0], found, name=name)
    else:
        uptakes.append(found)
    return header._replace(frames=found.frames)


def _read_slices(
    dataset: Any, header: Header, frames: Sequence[int] | None, name: str
) -> Iterator[_Slice]:
    chosen = header.frames if frames is None else [header.frames[index] for index in frames]
    for stored, frame in zip(decode(dataset, name, frames), chosen, strict=True):
        values = rescale(stored, dataset, frame)
        if not header.is_mosaic:
            yield _Slice(frame, values)
            continue
        # Without the distance of its slices, only their order is known.
        distance = read_number(dataset, "SpacingBetweenSlices")
        for place, tile in unpack_mosaic(values, dataset, frame.orientation, name=name):
            position = None if not distance else place * abs(distance)
            yield _Slice(frame._replace(position=position, number=place), tile)


def _are_equal(one: list[_Slice], other: list[_Slice]) -> bool:
    return len(one) == len(other) and all(
        (a.frame.orientation, a.frame.position) == (b.frame.orientation, b.frame.position)
        and np.array_equal(a.values, b.values, equal_nan=True)
        for a, b in zip(one, other, strict=True)
    )


def _sort(instances: Iterable[list[_Slice]], name: str) -> list[_Slice]:
    """Sort slices by position, or else by number; refuse those that are not one volume."""
    slices = [entry for found in instances for entry in found]
    frames = [entry.frame for entry in slices]
    if len({round_orientation(frame) for frame in frames}) > 1:
        raise ImageReadError(name, "has slices of more than one orientation; name one of them")
    places = find_places(frames)
    if len(set(places)) < len(places):
        if any(frame.position is None for frame in frames):
            reason = "has slices without a position whose instance numbers are missing or repeat"
        else:
            reason = "has slices at the same position, and nothing tells the volumes apart"
        raise ImageReadError(
            name, f"{reason}; put the files of each volume into a folder of its own"
        )
    return [slices[place] for place in np.argsort(places, kind="stable")]


def _make_volume(
    first: Any, slices: list[_Slice], path: Path, spacing: list[float] | None, *, in_order: bool
) -> Volume:
    values = np.stack([entry.values for entry in slices])
    axes, distances = _place([entry.frame for entry in slices], spacing, in_order=in_order)
    return Volume(
        values=values,
        modality=str(first.Modality),
        windows=tuple(entry.frame.window for entry in slices),
        inverted=_GREY[first.PhotometricInterpretation],
        patient=_identify(first, path),
        # Facts that identify nobody: numbers, and terms that were compared with a list.
        facts={
            "rows": values.shape[1],
            "columns": values.shape[2],
            "frames": len(values),
            "spacing": spacing,
            "bits": read_integer(first, "BitsStored", 0) or None,
            "photometric": str(first.PhotometricInterpretation),
            "field_strength": read_number(first, "MagneticFieldStrength"),
        },
        axes=axes,
        native_axes=axes,
        spacing=distances,
    )


def _place(
    frames: list[Frame], spacing: list[float] | None, *, in_order: bool
) -> tuple[str, tuple[float, float, float] | None]:
    """Find how sorted frames lie in space.

    Without positions, they are in no known order, unless they are those of a mosaic.
    """
    places = [frame.position for frame in frames if frame.position is not None]
    if len(places) == len(frames):
        return place_stack(frames[0].orientation, places, spacing or ())
    return place_stack(frames[0].orientation, (), ()) if in_order else ("", None)


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


def _identify(dataset: Any, path: Path) -> str:
    if patient := str(dataset.get("PatientID") or "").strip():
        return "\0".join(["patient", patient, str(dataset.get("IssuerOfPatientID") or "").strip()])
    if study := str(dataset.get("StudyInstanceUID") or ""):
        return f"study\0{study}"
    return f"file\0{path.absolute()}"


def _read_shape(dataset: Any) -> tuple[int, int]:
    return read_integer(dataset, "Rows"), read_integer(dataset, "Columns")
