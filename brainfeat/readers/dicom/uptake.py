"""Standardised uptake values (SUV) of PET from what the header states, or the reason why not.

The SUV by body weight, in g/ml, is ::

    SUV = A * 1000 * W / (D * 2 ** (-t / T))

with the activity concentration A of a voxel in Bq/ml, the body weight W in kg (``PatientWeight``),
the administered activity D in Bq (``RadionuclideTotalDose``), the half-life T of the radionuclide
(``RadionuclideHalfLife``) and the time t, both in seconds, from the administration to the moment to
which A is decay-corrected, or, where it is not, to the moment in the frame at which the activity
was its average over the frame. For a frame of length F that is ::

    log(c * F / (1 - exp(-c * F))) / c    with c = log(2) / T

after its start (PS3.3 C.8.9.4.1.5, example 2).

Which elements say so follows the vendor-neutral pseudo-code for SUV of the RSNA's Quantitative
Imaging Biomarkers Alliance (QIBA FDG-PET/CT technical committee,
qibawiki.rsna.org/index.php/Standardized_Uptake_Value_(SUV)), its robust version included. It is
extended to decay-corrections to the administration (ADMIN) and none (NONE), of PS3.3 C.8.9.1.1.5,
and to enhanced files (PS3.3 C.8.22), as by M. Vácha et al., "SUV computation"
(oncoray.github.io/suv_computation/suv.html). What those guess is refused here.
"""

import re
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from brainfeat.errors import ImageReadError
from brainfeat.readers.dicom.administration import (
    SAME,
    Administration,
    find_average,
    find_factor,
    read_administration,
)
from brainfeat.readers.dicom.elements import (
    GE_PET,
    GE_SCAN,
    PET_CREATORS,
    PHILIPS_ACTIVITY,
    PHILIPS_PET,
    PHILIPS_SUV,
    find_group,
    is_stated,
    read_number,
    read_numbers,
    read_words,
)
from brainfeat.readers.dicom.headers import Frame
from brainfeat.readers.dicom.mappings import map_frame
from brainfeat.readers.dicom.plausible import Plausible
from brainfeat.readers.dicom.times import (
    count_seconds,
    read_datetime,
    read_moment,
)

ENHANCED = "1.2.840.10008.5.1.4.1.1.130"

# By which fraction of SUV times of one header may contradict each other.
_CONTRADICTION = 0.02
# Whose frames state when the activity was its average: QIBA's robust version.
_SIEMENS = re.compile(r"\b(siemens|cps|cti)\b", re.IGNORECASE)


class Uptake(NamedTuple):
    """How the values of one file become SUV.

    Attributes
    ----------
    frames : tuple of Frame
        All frames of the file, with slopes and intercepts from stored values to SUV.
    shared : dict of str to object
        By keyword, what all files of a volume have in common. Never shown.
    reference : datetime or None
        The moment to which values are decay-corrected, where it was found from times of the scan.
    """

    frames: tuple[Frame, ...]
    shared: dict[str, object]
    reference: datetime | None


def measure_uptake(dataset: Any, frames: tuple[Frame, ...], *, name: str) -> Uptake:
    """Find how the values of a file become SUV.

    Parameters
    ----------
    dataset : pydicom.Dataset
        With the elements of `HEADER_TAGS` and `UNIT_TAGS`.
    frames : tuple of Frame
        All frames of the file.
    name : str
        Name of the volume in error messages.

    Returns
    -------
    Uptake

    Raises
    ------
    ImageReadError
        If an element is missing, contradicts another one, or is not plausible; the message names
        its keyword, and no value.
    """
    facts = Plausible(dataset, name)
    if dataset.get("Modality") != "PT":
        raise ImageReadError(
            name,
            "is of a Modality other than PT, and only PET has SUV; leave it out, or pass "
            "window=CENTRE,WIDTH, which takes values in any unit",
        )
    if "ModalityLUTSequence" in dataset:
        raise facts.refuse("has a ModalityLUTSequence", "RescaleSlope and RescaleIntercept")
    if dataset.get("SOPClassUID") == ENHANCED:
        return _measure_enhanced(facts, frames)
    return _measure_classic(facts, frames)


def check_alike(first: Uptake, other: Uptake, *, name: str) -> None:
    """Reject that two files of one volume become SUV in different ways.

    Parameters
    ----------
    first, other : Uptake
    name : str
        Name of the volume in error messages.

    Raises
    ------
    ImageReadError
        If they are of different units or administrations, or decay-corrected to different moments,
        which PS3.3 C.8.9.1.1.5 excludes.
    """
    for keyword in {**first.shared, **other.shared}:
        if first.shared.get(keyword) != other.shared.get(keyword):
            raise ImageReadError(name, f"has files of more than one {keyword}")
    references = first.reference, other.reference
    if None not in references and abs(count_seconds(*references)) > SAME:  # type: ignore[arg-type]
        raise ImageReadError(
            name,
            "has files that are decay-corrected to different times by their SeriesTime and "
            "AcquisitionTime; expected one time for a series (DecayCorrection START)",
        )


def _measure_classic(facts: Plausible, frames: tuple[Frame, ...]) -> Uptake:
    dataset = facts.dataset
    unit = facts.word("Units", "BQML", "CNTS", "GML")
    corrected = facts.word("DecayCorrection", "START", "ADMIN", "NONE")
    _check_corrections(facts, corrected)
    if not is_stated(dataset, "RescaleSlope"):
        raise facts.refuse("states no RescaleSlope", "the slope to its Units")
    shared: dict[str, object] = {"Units": unit, "DecayCorrection": corrected}
    if unit == "GML":
        # Without a type, it is that of body weight (PS3.3 C.8.9.1).
        if read_words(dataset, "SUVType") not in ((), ("",), ("BW",)):
            raise facts.refuse("has a SUVType other than BW", "BW, by body weight")
        return Uptake(frames, shared, None)
    scale = 1.0
    if unit == "CNTS":
        scale, is_uptake = _read_philips(facts, corrected)
        if is_uptake:
            return Uptake(_scale(frames, [scale] * len(frames)), shared, None)
    given = read_administration(facts, "Bq", 1.0)
    shared |= given.shared
    if corrected == "ADMIN":
        return Uptake(
            _scale(frames, [scale * given.weight / given.dose] * len(frames)), shared, None
        )
    find = _find_start if corrected == "START" else _find_uncorrected
    moment = find(facts, given, len(frames))
    factor = scale * find_factor(given, moment)
    reference = moment if corrected == "START" else None
    return Uptake(_scale(frames, [factor] * len(frames)), shared, reference)


def _measure_enhanced(facts: Plausible, frames: tuple[Frame, ...]) -> Uptake:
    """Find how an enhanced file becomes SUV, whose activity is in MBq (PS3.3 C.8.22.4)."""
    dataset = facts.dataset
    facts.word("AttenuationCorrected", "YES")
    mapped = [map_frame(dataset, place, frame, facts) for place, frame in enumerate(frames)]
    factors = [1.0] * len(frames)
    if not all(entry.is_uptake for entry in mapped):
        given = read_administration(facts, "MBq", 1e6)
        find = _choose_moment(facts, given)
        for place, entry in enumerate(mapped):
            if not entry.is_uptake:
                factors[place] = find_factor(given, find(place))
    return Uptake(_scale(tuple(entry.frame for entry in mapped), factors), {}, None)


def _choose_moment(facts: Plausible, given: Administration) -> Callable[[int], datetime]:
    """Choose how the moment that a frame's activity belongs to is found in an enhanced file."""
    zone = given.zone

    def find(place: int) -> datetime:
        content = facts.step_into(find_group(facts.dataset, place, "FrameContentSequence"))
        start = content.moment("FrameAcquisitionDateTime", zone)
        duration = content.number("FrameAcquisitionDuration", 1e-3, 1e8, "ms") / 1000
        return start + timedelta(seconds=find_average(duration, given.half_life))

    if facts.word("DecayCorrected", "YES", "NO") == "NO":
        return find
    corrected = facts.moment("DecayCorrectionDateTime", zone)
    return lambda _: corrected


def _check_corrections(facts: Plausible, corrected: str) -> None:
    """Reject values without attenuation correction, and a contradiction about that of decay."""
    done = read_words(facts.dataset, "CorrectedImage")
    if "ATTN" not in done:
        raise facts.refuse("has no ATTN in CorrectedImage", "attenuation-corrected values")
    if ("DECY" in done) == (corrected == "NONE"):
        raise facts.refuse(
            "has a CorrectedImage that contradicts DecayCorrection",
            "DECY with START and ADMIN, and not with NONE",
        )


def _read_philips(facts: Plausible, corrected: str) -> tuple[float, bool]:
    """Read Philips' factor from counts to SUV or else to Bq/ml, and whether it is that to SUV."""
    dataset = facts.dataset
    if PET_CREATORS[PHILIPS_PET] in read_words(dataset, PHILIPS_PET):
        for tag in (PHILIPS_SUV, PHILIPS_ACTIVITY):
            factors = read_numbers(dataset, tag, 1)
            is_uptake = tag == PHILIPS_SUV
            if factors and factors[0] > 0 and not (is_uptake and corrected == "NONE"):
                return factors[0], is_uptake
    raise facts.refuse(
        "has the Units CNTS and neither of Philips' factors (7053,1000) and (7053,1009)",
        "BQML, GML, or a factor above 0",
    )


def _find_start(facts: Plausible, given: Administration, _: int) -> datetime:
    """Find the moment of DecayCorrection START by QIBA's rules: that at which the scan started.

    It is SeriesTime, unless that is after AcquisitionTime, as where a series was processed later.
    Then it is GE's private scan time; or for Siemens, the time of the average activity in the
    frame less FrameReferenceTime, which all frames must agree on, and which must not contradict
    a SeriesTime before the scan.
    """
    dataset, zone = facts.dataset, given.zone
    series = facts.moment_of("SeriesDate", "SeriesTime", zone)
    acquired = _find_acquisition(facts, zone)
    is_siemens = _SIEMENS.search(" ".join(read_words(dataset, "Manufacturer"))) is not None
    if count_seconds(series, acquired) >= -SAME:
        if is_siemens and read_number(dataset, "FrameReferenceTime", 0) > 0:
            apart = abs(count_seconds(series, _find_start_by_frame(facts, given, acquired)))
            if 2 ** (apart / given.half_life) > 1 + _CONTRADICTION:
                raise facts.refuse(
                    "has a SeriesTime that contradicts AcquisitionTime and FrameReferenceTime",
                    "the start of the scan, to which values are decay-corrected",
                )
        return series
    if PET_CREATORS[GE_PET] in read_words(dataset, GE_PET):
        scan = read_datetime(dataset, GE_SCAN, zone=zone)
        if scan is not None and count_seconds(scan, acquired) >= -SAME:
            return scan
    if is_siemens:
        return _find_start_by_frame(facts, given, acquired)
    raise facts.refuse(
        "has a SeriesTime after its AcquisitionTime, as series have that were processed later",
        "the start of the scan, to which values are decay-corrected",
    )


def _find_start_by_frame(facts: Plausible, given: Administration, acquired: datetime) -> datetime:
    duration = facts.number("ActualFrameDuration", 1, 1e8, "ms") / 1000
    offset = facts.number("FrameReferenceTime", 1e-3, 1e9, "ms") / 1000
    return acquired + timedelta(seconds=find_average(duration, given.half_life) - offset)


def _find_uncorrected(facts: Plausible, given: Administration, count: int) -> datetime:
    """Find when the activity of a frame that is not decay-corrected was its average."""
    if count > 1:
        raise facts.refuse(
            "has several frames and the DecayCorrection NONE", "a file for each frame"
        )
    if "GATED" in read_words(facts.dataset, "SeriesType"):
        raise facts.refuse("is gated and has the DecayCorrection NONE", "START or ADMIN")
    duration = facts.number("ActualFrameDuration", 1, 1e8, "ms") / 1000
    average = find_average(duration, given.half_life)
    return _find_acquisition(facts, given.zone) + timedelta(seconds=average)


def _find_acquisition(facts: Plausible, zone: str) -> datetime:
    parted = read_moment(facts.dataset, "AcquisitionDate", "AcquisitionTime", zone=zone)
    whole = read_datetime(facts.dataset, "AcquisitionDateTime", zone=zone)
    if found := parted or whole:
        return found
    return facts.moment_of("AcquisitionDate", "AcquisitionTime", zone)


def _scale(frames: tuple[Frame, ...], factors: list[float]) -> tuple[Frame, ...]:
    return tuple(
        frame._replace(slope=frame.slope * factor, intercept=frame.intercept * factor)
        for frame, factor in zip(frames, factors, strict=True)
    )
