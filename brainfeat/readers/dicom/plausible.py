"""Elements that SUV needs: there, readable and plausible, or refused by their keyword."""

from datetime import datetime
from typing import Any

from brainfeat.errors import ImageReadError
from brainfeat.readers.dicom.elements import is_stated, read_numbers, read_words
from brainfeat.readers.dicom.times import read_datetime, read_moment


class Plausible:
    """A data set whose elements are refused where they cannot be used; no value is shown.

    Parameters
    ----------
    dataset : pydicom.Dataset
        A file, or an item of one of its sequences.
    name : str
        Name of the volume in error messages.
    """

    def __init__(self, dataset: Any, name: str) -> None:
        self.dataset, self._name = dataset, name

    def refuse(self, came: str, expected: str) -> ImageReadError:
        """Make the error that says what came, and what was expected."""
        return ImageReadError(
            self._name,
            f"{came}, so that its SUV is not known; expected {expected}; correct the header, or "
            "leave the volume out",
        )

    def step_into(self, item: Any) -> "Plausible":
        """Take an item of a sequence."""
        return Plausible(item, self._name)

    def only_item(self, keyword: str) -> "Plausible":
        """Take the only item of a sequence."""
        from pydicom import Sequence

        items = self.dataset.get(keyword)
        if not items:
            raise self.refuse(f"states no {keyword}", "one item")
        if not isinstance(items, Sequence) or len(items) != 1:
            raise self.refuse(f"has a {keyword} of several items or none", "one item")
        return self.step_into(items[0])

    def number(self, keyword: str, lowest: float, highest: float, unit: str) -> float:
        """Read a number within limits."""
        expected = f"{lowest:,.12g} to {highest:,.12g} {unit}"
        self._require(keyword, expected)
        found = read_numbers(self.dataset, keyword, 1)
        if not found:
            raise self.refuse(f"has a damaged {keyword}", expected)
        if not lowest <= found[0] <= highest:
            raise self.refuse(f"has an implausible value of {keyword}", expected)
        return found[0]

    def word(self, keyword: str, *allowed: str) -> str:
        """Read a word of a list."""
        expected = " or ".join(allowed)
        self._require(keyword, expected)
        found = read_words(self.dataset, keyword)
        if len(found) != 1 or found[0] not in allowed:
            raise self.refuse(f"has an unsuitable value of {keyword}", expected)
        return found[0]

    def moment(self, keyword: str, zone: str) -> datetime:
        """Read a moment of the representation DT."""
        expected = "a date and a time, to the minute or better"
        self._require(keyword, expected)
        found = read_datetime(self.dataset, keyword, zone=zone)
        if found is None:
            raise self.refuse(f"has a damaged {keyword}", expected)
        return found

    def moment_of(self, date: str, time: str, zone: str) -> datetime:
        """Read a moment of two elements, of the representations DA and TM."""
        for keyword, expected in ((date, "a date"), (time, "a time, to the minute or better")):
            self._require(keyword, expected)
        found = read_moment(self.dataset, date, time, zone=zone)
        if found is None:
            raise self.refuse(f"has a damaged {date} or {time}", "a date and a time")
        return found

    def _require(self, keyword: str, expected: str) -> None:
        if not is_stated(self.dataset, keyword):
            raise self.refuse(f"states no {keyword}", expected)
