"""What is odd about volumes that are cut: a class that contradicts the file, pixels, directions."""

from collections import defaultdict
from collections.abc import Iterator

from brainfeat.errors import ImageReadError
from brainfeat.readers.matlab import CLASS_NAMES
from brainfeat.readers.volumes import Volume

# Pixels that are more than this many times as long as wide are told of.
_STRETCHED = 2
# Single slices of a patient in one plane are told of from this number on; a scout has fewer.
_MANY_SINGLE = 3


def choose_label(given: str, stated: str, *, name: str) -> str:
    """Choose the class of a volume: the one that is given, or else the one that its file states.

    Parameters
    ----------
    given, stated : str
        ``""`` for none.
    name : str
        Name of the volume in error messages.

    Raises
    ------
    ImageReadError
        If both are classes of the brain tumour data of Cheng et al., and differ.

    Examples
    --------
    >>> choose_label("", "glioma", name="v"), choose_label("tumour", "glioma", name="v")
    ('glioma', 'tumour')
    """
    if stated and given.lower() in CLASS_NAMES.values() and given.lower() != stated:
        raise ImageReadError(
            name, f"states the class {stated}, and is given as {given}; leave the label out"
        )
    return given or stated


class VolumeNotes:
    """Notes on volumes, which are described together."""

    def __init__(self) -> None:
        self._count = 0
        self._stretched: list[str] = []
        self._conflicts: list[str] = []
        self._even: list[str] = []
        self._single: defaultdict[tuple[str, str], list[str]] = defaultdict(list)

    def add(self, volume: Volume, *, name: str, is_even: bool) -> None:
        """Look at a volume as it is cut; whether each of its slices is of one grey value."""
        self._count += 1
        if is_even:
            self._even.append(name)
        if len(volume.values) == 1 and volume.axes:
            self._single[volume.patient, volume.axes].append(name)
        if volume.spacing is not None and volume.axes != volume.native_axes:
            _, height, width = volume.spacing
            if max(height, width) > _STRETCHED * min(height, width):
                self._stretched.append(f"{name} ({height:g} × {width:g} mm)")
        if volume.facts.get("affine_conflict"):
            self._conflicts.append(name)

    def describe(self) -> Iterator[str]:
        """Yield what of the volumes is probably a mistake, a sentence each."""
        if self._stretched:
            yield (
                f"{len(self._stretched):,} of {self._count:,} volumes have pixels more than "
                f"{_STRETCHED} times as long as wide, such as {self._stretched[0]}, because they "
                'were acquired in another plane; pass orientation="native" to cut them in that'
            )
        if self._conflicts:
            yield (
                f"{len(self._conflicts):,} of {self._count:,} volumes have an sform and a qform "
                f"along different axes, such as {self._conflicts[0]}; the sform was taken, so look "
                "at how the slices lie"
            )
        many = [names for names in self._single.values() if len(names) >= _MANY_SINGLE]
        if many:
            yield (
                f"{sum(map(len, many)):,} of {self._count:,} volumes have one slice each, several "
                f"of one patient in one plane, such as {many[0][0]}; nothing in their files joins "
                "them, so if they are one volume, export it again as one series"
            )
        if self._even:
            yield (
                f"{len(self._even):,} of {self._count:,} volumes became slices of one grey value "
                f"each, such as {self._even[0]}, because nearly all of their values are equal, "
                "missing, or outside the window; leave them out, or pass window=CENTRE,WIDTH to "
                "show other values"
            )
