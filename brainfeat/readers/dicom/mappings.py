"""Real world value mappings: what the stored values of an enhanced PET file are in units."""

from typing import Any, NamedTuple

from brainfeat.readers.dicom.elements import read_numbers, read_words
from brainfeat.readers.dicom.headers import Frame
from brainfeat.readers.dicom.plausible import Plausible

_SEQUENCE = "RealWorldValueMappingSequence"
# CID 84 and 85 of PS3.16, and how editions before 2015 wrote the second one.
_UPTAKES, _ACTIVITIES = ("{SUVbw}g/ml", "g/ml{SUVbw}"), ("Bq/ml",)
_UNITS = _UPTAKES, _ACTIVITIES
_LIMITS = (
    ("RealWorldValueFirstValueMapped", "RealWorldValueLastValueMapped"),
    ("DoubleFloatRealWorldValueFirstValueMapped", "DoubleFloatRealWorldValueLastValueMapped"),
)


class Mapped(NamedTuple):
    """A frame with the slope and intercept of its mapping, and whether that is to SUV."""

    frame: Frame
    is_uptake: bool


def map_frame(dataset: Any, place: int, frame: Frame, facts: Plausible) -> Mapped:
    """Choose the mapping of a frame to SUV by body weight, or else to Bq/ml (PS3.3 C.7.6.16.2.11).

    Parameters
    ----------
    dataset : pydicom.Dataset
        An enhanced file.
    place : int
        Index of the frame, from 0.
    frame : Frame
    facts : Plausible
        Of the same file.

    Returns
    -------
    Mapped
        Stored values that the mapping leaves out have no value.

    Raises
    ------
    ImageReadError
        If there is none or more than one to the same unit, or it is a table.
    """
    items = _list_mappings(dataset, place)
    by_unit = {codes: [item for item in items if _read_unit(item) in codes] for codes in _UNITS}
    codes = next((codes for codes, found in by_unit.items() if found), None)
    if codes is None or len(by_unit[codes]) > 1:
        raise facts.refuse(
            f"has no {_SEQUENCE} to one of the units that SUV is computed from, or several",
            f"one to {_UPTAKES[0]} or {_ACTIVITIES[0]} for each frame",
        )
    item = facts.step_into(by_unit[codes][0])
    slope = item.number("RealWorldValueSlope", 1e-30, 1e30, "per stored value")
    intercept = item.number("RealWorldValueIntercept", -1e30, 1e30, "in that unit")
    for first, last in _LIMITS:
        ends = read_numbers(item.dataset, first, 1) + read_numbers(item.dataset, last, 1)
        if len(ends) == 2:
            mapped = ends[0], ends[1]
            whole = frame._replace(slope=slope, intercept=intercept, mapped=mapped)
            return Mapped(whole, codes is _UPTAKES)
    raise facts.refuse(f"has a {_SEQUENCE} without limits", " and ".join(_LIMITS[0]))


def _list_mappings(dataset: Any, place: int) -> list[Any]:
    """List the mappings of a frame: its own, or else those of all frames, or those of the file."""
    from pydicom import Sequence

    spots = [("PerFrameFunctionalGroupsSequence", place), ("SharedFunctionalGroupsSequence", 0)]
    groups = [(dataset.get(keyword) or [])[index : index + 1] for keyword, index in spots]
    for owner in (*groups[0], *groups[1], dataset):
        found = owner.get(_SEQUENCE)
        if found and isinstance(found, Sequence):
            return list(found)
    return []


def _read_unit(item: Any) -> str:
    from pydicom import Sequence

    coded = item.get("MeasurementUnitsCodeSequence")
    known = coded and isinstance(coded, Sequence)
    return "".join(read_words(coded[0], "CodeValue")) if known else ""
