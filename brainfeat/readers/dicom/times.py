"""Dates and times of DICOM elements become moments, of which differences are taken in seconds."""

import re
from datetime import datetime, timedelta, tzinfo
from typing import Any

from brainfeat.readers.dicom.elements import read_words

# To the minute or better: half a minute is 0.3 % of the dose of fluorine-18.
_TIME = r"\d{4}(?:\d\d(?:\.\d{1,6})?)?"
_CLOCK = re.compile(_TIME, re.ASCII)
_DAY = re.compile(r"\d{8}", re.ASCII)
_MOMENT = re.compile(rf"(\d{{8}}{_TIME})([+-]\d{{4}})?", re.ASCII)
_YEARS = 1900, 9000  # their days before and after exist, in any zone
_FORM = "%Y%m%d%H%M%S.%f"


def read_moment(dataset: Any, date: str, time: str, *, zone: str = "") -> datetime | None:
    """Read a moment from a date and a time.

    Parameters
    ----------
    dataset : pydicom.Dataset
    date, time : str
        Keywords of elements of the representations DA and TM.
    zone : str
        As :func:`read_zone` reads it.

    Returns
    -------
    datetime or None
        None where either of them is missing, has several values, or is none that exists.
    """
    day, clock = _read_one(dataset, date), read_clock(dataset, time)
    return _parse(day + clock + zone) if _DAY.fullmatch(day) and clock else None


def read_clock(dataset: Any, time: str) -> str:
    """Read a time of day of the representation TM; ``""`` where there is none to the minute."""
    clock = _read_one(dataset, time)
    return clock if _CLOCK.fullmatch(clock) else ""


def read_datetime(dataset: Any, keyword: str | int, *, zone: str = "") -> datetime | None:
    """Read a moment of the representation DT, as :func:`read_moment` does.

    Parameters
    ----------
    dataset : pydicom.Dataset
    keyword : str or int
        Keyword or tag of the element.
    zone : str
        Stands in where the element states no zone, and is what the moment is given in.

    Returns
    -------
    datetime or None
    """
    found = _MOMENT.fullmatch(_read_one(dataset, keyword))
    moment = _parse(found[1] + (found[2] or zone)) if found else None
    return moment.astimezone(_parse_zone(zone)) if moment and zone else moment


def read_zone(dataset: Any) -> str:
    """Read the zone of all times without one (PS3.3 C.12.1.1.8); ``""`` where it is not stated."""
    zone = _read_one(dataset, "TimezoneOffsetFromUTC")
    if not re.fullmatch(r"[+-]\d{4}", zone, re.ASCII):
        return ""
    try:
        _parse_zone(zone)
    except ValueError:
        return ""
    return zone


def find_last(clock: str, moment: datetime) -> datetime | None:
    """Find the last moment with a time of day that is not after another moment.

    Parameters
    ----------
    clock : str
        As :func:`read_clock` reads it.
    moment : datetime

    Returns
    -------
    datetime or None
        On the same day or, across midnight, on the day before; None if the time does not exist.
    """
    parsed = _parse(f"{moment:%Y%m%d}{clock}")
    if parsed is None:
        return None
    last = parsed.replace(tzinfo=moment.tzinfo)
    return last if last <= moment else last - timedelta(days=1)


def count_seconds(start: datetime, end: datetime) -> float:
    """Count the seconds between two moments; local times count as of one zone.

    Examples
    --------
    >>> count_seconds(datetime(2024, 3, 1, 23, 30), datetime(2024, 3, 2, 0, 15))
    2700.0
    """
    if start.tzinfo is None or end.tzinfo is None:
        start, end = start.replace(tzinfo=None), end.replace(tzinfo=None)
    return (end - start).total_seconds()


def _read_one(dataset: Any, keyword: str | int) -> str:
    words = read_words(dataset, keyword)
    return words[0] if len(words) == 1 else ""


def _parse_zone(zone: str) -> tzinfo | None:
    return datetime.strptime(zone, "%z").tzinfo


def _parse(text: str) -> datetime | None:
    """Parse digits from the year down to fractions of seconds, with or without a zone."""
    digits, zone = (text[:-5], text[-5:]) if text[-5] in "+-" else (text, "")
    whole = 14 if "." in digits else len(digits)
    form = _FORM[: {12: 10, 14: 12}[whole]] + (".%f" if "." in digits else "")
    try:
        moment = datetime.strptime(digits + zone, form + ("%z" if zone else ""))
    except ValueError:
        return None
    return moment if _YEARS[0] <= moment.year <= _YEARS[1] else None
