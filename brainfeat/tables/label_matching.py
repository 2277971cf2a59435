"""Which label belongs to which patient or file: by name, as numbers, or by the start of a name."""

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from brainfeat.errors import TableError
from brainfeat.tables.labels import Labels
from brainfeat.tables.rows import quote
from brainfeat.text import count

Names = tuple[str, ...]  # what a patient or file may be called in a list of labels

_NUMBER = re.compile("[0-9]+")
_SEPARATOR = re.compile(r"[ _.-]")


class Match(NamedTuple):
    """The key of a patient or file, and how it was found."""

    key: str
    how: Literal["name", "number", "start"]


@dataclass(frozen=True)
class Matching:
    """Labels of patients or files.

    Attributes
    ----------
    labels : Labels
        What was matched.
    names : sequence of tuple of str
        What each patient or file may be called.
    matches : list of Match or None
        The match of each.
    noun : str
        What they are: ``"patient"`` or ``"image"``.
    """

    labels: Labels
    names: Sequence[Names]
    matches: list[Match | None]
    noun: str

    @property
    def classes(self) -> list[str]:
        """Class of each patient or file; ``""`` where it has none."""
        return [self.labels.classes[match.key] if match else "" for match in self.matches]

    def describe(self, *, named: bool) -> Iterator[str]:
        """Describe what does not match, or not by name, a sentence each.

        Parameters
        ----------
        named : bool
            Whether examples of names are shown.
        """
        source, noun = quote(self.labels.source), self.noun
        used = {match.key for match in self.matches if match}

        def such(*names: str) -> str:
            return f", such as {' by '.join(map(quote, names))}" if named else ""

        if missing := self._pick(None):
            known = {names[0] for names in self.names if names}
            yield (
                f"{count(len(missing), noun)} of {len(known):,} without a row in"
                f" {source}{such(missing[0][0])}; no label is known"
            )
        if () in self.names:
            yield f"some {noun}s have no name that {source} could list; no label is known"
        if blank := [key for key in used if not self.labels.classes[key]]:
            yield f"{count(len(blank), 'row')} of {source} without a label"
        if left := [key for key in self.labels.classes if key not in used]:
            yield f"no {noun} matches {count(len(left), 'row')} of {source}{such(left[0])}"
        for how, words in (("number", "as numbers"), ("start", "by the start of their names")):
            if found := self._pick(how):
                yield f"{count(len(found), noun)} matched with {source} {words}{such(*found[0])}"
        if self.labels.repeated:
            yield f"{count(self.labels.repeated, 'row')} of {source} repeated"

    def _pick(self, how: str | None) -> list[tuple[str, str]]:
        """Return the distinct first names that were matched in one way, with their keys."""
        return sorted(
            {
                (names[0], match.key if match else "")
                for names, match in zip(self.names, self.matches, strict=True)
                if names and (match and match.how) == how
            }
        )


def match_labels(labels: Labels, names: Sequence[Names], *, noun: str, named: bool) -> Matching:
    """Match patients or files with the keys of labels.

    A key matches a name that is equal. Otherwise, names and keys of digits match as numbers, as
    ``00002`` and ``2``, where that is unambiguous. Otherwise, the longest key matches that a name
    begins with before a blank, ``_``, ``.`` or ``-``, as ``TCGA_CS_4941`` and
    ``TCGA_CS_4941_19960909``.

    Parameters
    ----------
    labels : Labels
        The labels.
    names : sequence of tuple of str
        What each patient or file may be called; the first that matches counts.
    noun : str
        What they are, for messages.
    named : bool
        Whether messages may show examples of names.

    Returns
    -------
    Matching

    Raises
    ------
    TableError
        If no key matches, or the header of the file does, so that it is none.

    Examples
    --------
    >>> labels = Labels("labels.csv", {"2": "yes", "TCGA_CS_4941": "no"})
    >>> names = [("00002",), ("TCGA_CS_4941_19960909",), ("other",)]
    >>> match_labels(labels, names, noun="patient", named=True).classes
    ['yes', 'no', '']
    """
    matches = find_matches(labels, names)
    if labels.header and any(labels.header in own for own in names):
        raise TableError(
            f"{quote(labels.source)} has a {noun} in its first line; expected the names of its"
            " columns there, such as patient and label"
        )
    if not any(matches):
        examples = [next(iter(labels.classes)), *(own[0] for own in names if own)][:2]
        shown = " and ".join(map(quote, examples)) if named else ""
        raise TableError(
            f"no key of {quote(labels.source)} is the name of a {noun}"
            f"{f', as {shown}' if shown else ''}; name the columns with label_columns=KEY,LABEL, or"
            " the level of the patients' folders with group_level=N"
        )
    return Matching(labels, names, matches, noun)


def find_matches(labels: Labels, names: Sequence[Names]) -> list[Match | None]:
    """Find the match of each patient or file as `match_labels` does, whether or not any has one."""
    matches = [_match_name(labels, own) for own in names]
    _match_numbers(labels, names, matches)
    for place, own in enumerate(names):
        if matches[place] is None:
            matches[place] = _match_start(labels.classes, own)
    return matches


def _match_name(labels: Labels, names: Names) -> Match | None:
    return next((Match(name, "name") for name in names if name in labels.classes), None)


def _match_numbers(labels: Labels, names: Sequence[Names], matches: list[Match | None]) -> None:
    """Match what is left by the value of digits, where one name and one key have it."""
    used = {match.key for match in matches if match}
    keys = _sort_numbers(key for key in labels.classes if key not in used)
    left = [own for own, match in zip(names, matches, strict=True) if match is None]
    spellings = _sort_numbers(name for own in left for name in own)
    for place, own in enumerate(names):
        if matches[place] is not None:
            continue
        for value in _sort_numbers(own):
            found = keys.get(value, set())
            if len(found) == 1 and len(spellings[value]) == 1:
                matches[place] = Match(next(iter(found)), "number")
                break


def _sort_numbers(texts: Iterable[str]) -> dict[str, set[str]]:
    """Sort the texts that are numbers by their values."""
    found: defaultdict[str, set[str]] = defaultdict(set)
    for text in texts:
        if (value := _read_number(text)) is not None:
            found[value].add(text)
    return found


def _read_number(text: str) -> str | None:
    return (text.lstrip("0") or "0") if _NUMBER.fullmatch(text) else None


def _match_start(keys: Collection[str], names: Names) -> Match | None:
    """Find the longest key that a name goes on from."""
    for name in names:
        for end in reversed([found.start() for found in _SEPARATOR.finditer(name)]):
            if name[:end] in keys:
                return Match(name[:end], "start")
    return None
