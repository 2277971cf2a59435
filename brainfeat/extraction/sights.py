"""What the images of a run have in common that is probably a mistake, seen while they are read."""

from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from brainfeat.readers import ImageHeader
from brainfeat.readers.ranges import DTYPE
from brainfeat.text import count

# Numbers of 13 bits end at an eighth of what 16 bits hold; a picture that uses its type does not.
DARK = 0.125


class Sight(NamedTuple):
    """What was seen of one image.

    Attributes
    ----------
    peak : float or None
        The largest value in [0, 1] of an image of more than 8 bits; None for others.
    in_alpha : bool
        Whether the picture was in the alpha channel.
    uncropped : bool
        Whether it was to be cropped and stayed whole.
    """

    peak: float | None
    in_alpha: bool
    uncropped: bool = False

    @classmethod
    def of(cls, image: NDArray[Any], header: ImageHeader, *, in_alpha: bool) -> Self:
        """Look at an image that was read.

        Examples
        --------
        >>> header = ImageHeader(2, 2, 1, "PNG", bits=16)
        >>> Sight.of(np.full((2, 2, 3), 0.0625, np.float32), header, in_alpha=False)
        Sight(peak=0.0625, in_alpha=False, uncropped=False)
        """
        largest = 255 if image.dtype == np.uint8 else 1
        return cls(float(image.max()) / largest if header.bits > 8 else None, in_alpha)


@dataclass
class Sights:
    """What was seen of the images of a run.

    Parameters
    ----------
    value_range : str
        What images of more than 8 bits were divided by.
    """

    value_range: str
    deep: int = 0
    dark: int = 0
    in_alpha: int = 0
    uncropped: int = 0
    brightest: float = 0.0

    def add(self, sight: Sight) -> None:
        """Count an image."""
        self.in_alpha += sight.in_alpha
        self.uncropped += sight.uncropped
        if sight.peak is not None:
            self.deep += 1
            if sight.peak <= DARK:
                self.dark += 1
                self.brightest = max(self.brightest, sight.peak)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is probably a mistake, a line each with its remedy.

        Examples
        --------
        >>> sights = Sights("dtype")
        >>> sights.add(Sight(0.0625, in_alpha=False))
        >>> len(sights.warnings)
        1
        """
        found = []
        if self.value_range == DTYPE and 2 * self.dark > self.deep:
            bits = max(8, round(self.brightest * 65_535).bit_length())
            found.append(
                f"{self.dark:,} of {count(self.deep, 'image')} of 16 bits are nearly black, with"
                f" values up to {self.brightest * 65_535:,.0f} of 65,535; if they were stored with"
                f' fewer bits, extract again with value_range="bits:{bits}", or with'
                ' value_range="image" to divide each by its own largest value'
            )
        if self.in_alpha:
            found.append(
                f"{count(self.in_alpha, 'image')} had one colour and the picture in the alpha"
                " channel, which was read as grey; if that is wrong, save without alpha"
            )
        return tuple(found)
