"""What volumes become: slices of 8-bit grey, each with its row of a table, one volume at a time."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from brainfeat.errors import ImageReadError
from brainfeat.readers.series import Series, read_volume
from brainfeat.readers.volumes import SlicePolicy, Volume, cut_slices
from brainfeat.tables.pseudonyms import hash_identity
from brainfeat.tables.rows import Row
from brainfeat.tables.volume_checks import VolumeNotes, choose_label
from brainfeat.tables.volume_patients import Patient


class RefusedVolume(NamedTuple):
    """A volume that cannot be read: its number among all, and why."""

    name: str
    reason: str


class CutSlice(NamedTuple):
    """A slice of a volume.

    Attributes
    ----------
    row : Row
        Its row of a table, whose path is that of the PNG file that `write_slices` makes of it.
    frame : int
        Its number in the volume, from 1.
    pixels : ndarray of shape (height, width), uint8
    """

    row: Row
    frame: int
    pixels: NDArray[np.uint8]


class CutVolume(NamedTuple):
    """A volume that was read.

    Attributes
    ----------
    facts : dict
        Hashes of patient and volume, modality, and what else identifies nobody.
    slices : iterator of CutSlice
        To be consumed once, before the next volume is asked for.
    """

    facts: dict[str, Any]
    slices: Iterator[CutSlice]


class Cutting:
    """One pass over volumes, of which one is in memory at a time.

    Parameters
    ----------
    series : sequence of Series
        The volumes.
    patients : sequence of Patient
        What their places tell of their patients.
    given : sequence of str
        The class that each is given; ``""`` for none.
    policy : SlicePolicy
        Which slices are cut, and how.
    key : bytes
        What patients and volumes are hashed with.
    listed : bool
        Whether classes come from a list, which may contradict what a file states.
    allow_burned_in : bool
        Whether images whose pixels may show a name are accepted.
    """

    def __init__(
        self,
        series: Sequence[Series],
        patients: Sequence[Patient],
        given: Sequence[str],
        *,
        policy: SlicePolicy,
        key: bytes,
        listed: bool,
        allow_burned_in: bool,
    ) -> None:
        self._volumes = list(zip(series, patients, given, strict=True))
        self._policy, self._key = policy, key
        self._listed, self._allow_burned_in = listed, allow_burned_in
        self._notes = VolumeNotes()

    def __iter__(self) -> Iterator[CutVolume | RefusedVolume]:
        """Yield what becomes of each volume."""
        for series, patient, given in self._volumes:
            try:
                yield self._read(series, patient, given)
            except ImageReadError as error:
                yield RefusedVolume(series.name, error.reason)

    def describe(self) -> list[str]:
        """Describe what of the volumes so far is probably a mistake, a sentence each."""
        return [*self._notes.describe()]

    def _read(self, series: Series, patient: Patient, given: str) -> CutVolume:
        volume = read_volume(series, policy=self._policy, allow_burned_in=self._allow_burned_in)
        stated = volume.label
        label = given or stated if self._listed else choose_label(given, stated, name=series.name)
        group = hash_identity(self._key, "patient", patient.identify(volume.patient))
        digest = hash_identity(self._key, "volume", series.key)
        source = patient.sequence or volume.modality
        row = Row(path=f"{group}/{digest}", label=label, group=group, source=source)
        facts = {"group": group, "volume": digest, "modality": source, **volume.facts}
        return CutVolume(facts, self._cut(volume, row, series.name))

    def _cut(self, volume: Volume, row: Row, name: str) -> Iterator[CutSlice]:
        is_even = True
        for frame, pixels in cut_slices(volume, self._policy):
            is_even = is_even and bool(pixels.min() == pixels.max())
            yield CutSlice(row._replace(path=f"{row.path}-{frame:04}.png"), frame, pixels)
        self._notes.add(volume, name=name, is_even=is_even)
