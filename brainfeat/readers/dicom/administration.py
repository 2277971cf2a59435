"""The administration of a radiopharmaceutical, and what of its activity is left at a moment."""

import math
from datetime import datetime, timedelta
from typing import NamedTuple

from brainfeat.readers.dicom.elements import is_stated, read_words
from brainfeat.readers.dicom.plausible import Plausible
from brainfeat.readers.dicom.times import count_seconds, find_last, read_clock, read_zone

# Seconds by which stated times of one moment may differ.
SAME = 1.0

# Without a date, an administration is the last one at its time of day: if it is not further away in
# seconds, and the half-life not longer, with which patients are scanned on later days, too.
_LONGEST_UNDATED = 6 * 3600.0
# A thousandth of the activity is left after them; a date that is wrong by a day is beyond them for
# fluorine-18.
_MOST_HALF_LIVES = 10


class Administration(NamedTuple):
    """What was given to whom.

    Attributes
    ----------
    weight : float
        Of the body, in g.
    dose : float
        Administered activity, in Bq.
    half_life : float
        Of the radionuclide, in seconds.
    item : Plausible
        With the times of the administration.
    zone : str
        Of times that state none.
    """

    weight: float
    dose: float
    half_life: float
    item: Plausible
    zone: str

    @property
    def shared(self) -> dict[str, object]:
        """By keyword, what is the same in all files of a volume."""
        times = ("RadiopharmaceuticalStartDateTime", "RadiopharmaceuticalStartTime")
        return {
            "PatientWeight": self.weight,
            "RadionuclideTotalDose": self.dose,
            "RadionuclideHalfLife": self.half_life,
            **{keyword: read_words(self.item.dataset, keyword) for keyword in times},
        }


def read_administration(facts: Plausible, unit: str, becquerels: float) -> Administration:
    """Read what was given.

    Parameters
    ----------
    facts : Plausible
        The file.
    unit : str
        Of the activity.
    becquerels : float
        How many of them the unit is.

    Returns
    -------
    Administration

    Raises
    ------
    ImageReadError
        If weight, activity or half-life are missing or not plausible, or if several
        radiopharmaceuticals were given.
    """
    weight = 1000 * facts.number("PatientWeight", 0.5, 500, "kg")
    item = facts.only_item("RadiopharmaceuticalInformationSequence")
    lowest, highest = 1e6 / becquerels, 1e10 / becquerels
    dose = becquerels * item.number("RadionuclideTotalDose", lowest, highest, unit)
    half_life = item.number("RadionuclideHalfLife", 60, 1e6, "s")
    return Administration(weight, dose, half_life, item, read_zone(facts.dataset))


def find_factor(given: Administration, moment: datetime) -> float:
    """Find the factor from Bq/ml to SUV for values that belong to a moment.

    Parameters
    ----------
    given : Administration
    moment : datetime

    Returns
    -------
    float
        In g/Bq.

    Raises
    ------
    ImageReadError
        If the time of the administration is missing, after the moment, or long before it.
    """
    elapsed = count_seconds(_find_administration(given, moment), moment)
    if elapsed < 0:
        raise given.item.refuse(
            "has a RadiopharmaceuticalStartDateTime after the time that its values belong to",
            "an administration before the scan",
        )
    if elapsed > _MOST_HALF_LIVES * given.half_life:
        raise given.item.refuse(
            f"has a RadiopharmaceuticalStartDateTime more than {_MOST_HALF_LIVES} times "
            "RadionuclideHalfLife before the time that its values belong to",
            "dates that were changed together, and a half-life in s",
        )
    return given.weight / (given.dose * 2 ** (-elapsed / given.half_life))


def _find_administration(given: Administration, moment: datetime) -> datetime:
    """Find when it was given: as is stated, or else the last time before at that time of day."""
    item = given.item
    whole, clock = "RadiopharmaceuticalStartDateTime", "RadiopharmaceuticalStartTime"
    time = read_clock(item.dataset, clock)
    if is_stated(item.dataset, clock) and not time:
        raise item.refuse(f"has a damaged {clock}", "a time to the minute or better")
    if is_stated(item.dataset, whole) or not time:
        stated = item.moment(whole, given.zone)
        latest = time and find_last(time, stated + timedelta(seconds=SAME))
        if latest and count_seconds(latest, stated) > SAME:
            raise item.refuse(f"has a {clock} other than that of {whole}", "the same time in both")
        return stated
    if given.half_life > _LONGEST_UNDATED:
        raise item.refuse(
            f"states no {whole}, and a RadionuclideHalfLife so long that days count", "a date"
        )
    found = find_last(time, moment)
    if found is None or count_seconds(found, moment) > _LONGEST_UNDATED:
        raise item.refuse(
            f"has a {clock} after the time that its values belong to, or more than "
            f"{_LONGEST_UNDATED / 3600:g} hours before it, and states no {whole}",
            "an administration before the scan",
        )
    return found


def find_average(duration: float, half_life: float) -> float:
    """Find when in a frame the activity is its average over the frame.

    Parameters
    ----------
    duration : float
        Of the frame, in seconds.
    half_life : float
        In seconds.

    Returns
    -------
    float
        Seconds after the start of the frame (PS3.3 C.8.9.4.1.5, example 2).

    Examples
    --------
    >>> round(find_average(600, 6586.2), 2), round(find_average(600, 122.24), 2)
    (298.42, 221.91)
    """
    decay = math.log(2) / half_life
    return math.log(decay * duration / -math.expm1(-decay * duration)) / decay
