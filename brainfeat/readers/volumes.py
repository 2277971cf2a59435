"""Volumes: the slices of one acquisition, and how their values become grey. No file format."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from brainfeat.errors import ImageReadError, ParameterError

# The same as those of nnU-Net for CT and of TorchIO's RescaleIntensity.
PERCENTILES = (0.5, 99.5)
VOXEL_LIMIT = 250_000_000

_SLICES = re.compile(r"all|middle|largest|every:[1-9][0-9]{0,5}")
_NUMBER = r"[+-]?[0-9]{1,12}(?:\.[0-9]{1,6})?"
_WINDOW = re.compile(rf"auto|robust|{_NUMBER},{_NUMBER}")
_TEXT = "slices={slices} window={window} orientation=stored-or-ras-axial percentiles=0.5-99.5"
_PARSED = re.compile(re.escape(_TEXT).replace(r"\{slices\}", "(.+)").replace(r"\{window\}", "(.+)"))

# Otsu's threshold, of the 8-bit levels.
_LEVELS = 256


class Window(NamedTuple):
    """The values that are shown: those from black to white, as DICOM PS3.3 C.11.2.1.2 has it.

    ``function`` is ``"LINEAR"``, ``"LINEAR_EXACT"`` or ``"SIGMOID"``.
    """

    centre: float
    width: float
    function: str = "LINEAR_EXACT"


@dataclass(frozen=True, kw_only=True)
class SlicePolicy:
    """How a volume becomes images: what changes pixels, and is part of a spec.

    Parameters
    ----------
    slices : str
        Which: ``"all"``; the ``"middle"`` one; ``"every:K"``-th, from the middle of the first K on;
        the ``"largest"``, which has most pixels above Otsu's threshold of the volume.
    window : str
        ``"auto"``: each slice's own where the file has one, else as ``"robust"``: from the 0.5th to
        the 99.5th percentile of the volume; or centre and width, such as ``"40,80"``, in the units
        of the modality.

    Raises
    ------
    ParameterError
        One is not as said above.

    Examples
    --------
    >>> policy = SlicePolicy(slices="middle", window="40,80")
    >>> SlicePolicy.parse(policy.text) == policy
    True
    """

    slices: str = "all"
    window: str = "auto"

    def __post_init__(self) -> None:
        if not (isinstance(self.slices, str) and _SLICES.fullmatch(self.slices)):
            raise ParameterError(
                f"slices must be all, middle, largest or every:K, got {self.slices!r:.80}"
            )
        if not (isinstance(self.window, str) and _WINDOW.fullmatch(self.window)):
            raise ParameterError(
                "window must be auto, robust or CENTRE,WIDTH, such as 40,80, "
                f"got {self.window!r:.80}"
            )
        if (fixed := self.fixed_window) is None:
            return
        if not fixed.width > 0:
            raise ParameterError(f"the width of a window must be above 0, got {self.window!r}")
        # Equal windows are written alike, and have one fingerprint.
        spelt = (np.format_float_positional(x, trim="-") for x in (fixed.centre, fixed.width))
        object.__setattr__(self, "window", ",".join(spelt))

    @property
    def fixed_window(self) -> Window | None:
        """Centre and width where they are given."""
        if "," not in self.window:
            return None
        centre, width = map(float, self.window.split(","))
        return Window(centre, width)

    @property
    def text(self) -> str:
        """All that changes pixels, on one line."""
        return _TEXT.format(slices=self.slices, window=self.window)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what `text` gives.

        Raises
        ------
        ParameterError
            It is no such text.
        """
        found = _PARSED.fullmatch(text) if isinstance(text, str) else None
        if found is None:
            raise ParameterError(
                f"{text!r:.200} does not say how slices are made; "
                "it was written by another version of brainfeat"
            )
        return cls(slices=found[1], window=found[2])


@dataclass(frozen=True, kw_only=True)
class Volume:
    """The slices of one acquisition, in their order in space.

    Attributes
    ----------
    values : ndarray of shape (n, height, width), float32
        In the units of the modality; NaN where there is no value.
    modality : str
        ``"MR"``, ``"CT"`` or ``"PT"``, or ``"NIfTI"``, which does not tell.
    windows : tuple of (Window or None)
        That of the file for each slice.
    inverted : bool
        Whether low values are white (MONOCHROME1).
    patient : str
        Whom it is of; never shown.
    facts : dict
        What may be told of it: numbers, and words of the standard.
    """

    values: npt.NDArray[np.float32] = field(repr=False)
    modality: str
    windows: tuple[Window | None, ...] = field(repr=False)
    inverted: bool = False
    patient: str = field(repr=False)
    facts: dict[str, Any]


class Slice(NamedTuple):
    """One slice: its number in the volume, from 1, and its grey values (height, width), uint8."""

    frame: int
    pixels: npt.NDArray[np.uint8]


def cut_slices(volume: Volume, policy: SlicePolicy) -> Iterator[Slice]:
    """Make the slices of a volume that a policy chooses.

    Parameters
    ----------
    volume : Volume
    policy : SlicePolicy

    Yields
    ------
    Slice

    Examples
    --------
    >>> values = np.arange(12, dtype=np.float32).reshape(3, 2, 2)
    >>> volume = Volume(values=values, modality="MR", windows=(None,) * 3, patient="", facts={})
    >>> [entry.frame for entry in cut_slices(volume, SlicePolicy(slices="middle"))]
    [2]
    """
    n = len(volume.values)
    robust = None
    if policy.fixed_window is None and (policy.window == "robust" or None in volume.windows):
        robust = find_robust_window(volume.values)

    def paint(place: int) -> npt.NDArray[np.uint8]:
        own = volume.windows[place] if policy.window == "auto" else None
        window = policy.fixed_window or own or robust
        return paint_slice(volume.values[place], window, inverted=volume.inverted)

    if policy.slices == "largest":
        place, pixels = _find_largest([paint(place) for place in range(n)])
        yield Slice(place + 1, pixels)
        return
    for place in _choose(n, policy.slices):
        yield Slice(place + 1, paint(place))


def paint_slice(
    values: npt.NDArray[np.float32], window: Window | None, *, inverted: bool = False
) -> npt.NDArray[np.uint8]:
    """Turn values into grey by the formulas of DICOM PS3.3 C.11.2.1.2.

    Parameters
    ----------
    values : ndarray, float32
        NaN becomes black.
    window : Window or None
        None, of values that are all alike, is black.
    inverted : bool
        Whether low values are white.

    Returns
    -------
    ndarray of the same shape, uint8

    Examples
    --------
    >>> paint_slice(np.array([-10, 0, 40, 80, 90], np.float32), Window(40, 80))
    array([  0,   0, 128, 255, 255], dtype=uint8)
    """
    if window is None:
        return np.zeros(values.shape, np.uint8)
    wide = values.astype(np.float64)
    # What overflows is far outside the window, and clipped.
    with np.errstate(over="ignore"):
        if window.function == "SIGMOID":
            shares = 1 / (1 + np.exp(-4 * (wide - window.centre) / window.width))
        elif window.function == "LINEAR":
            # A width of 1 is a step; the formula divides by zero there.
            shares = (wide - (window.centre - 0.5)) / max(window.width - 1, 1e-9) + 0.5
        else:
            shares = (wide - window.centre) / window.width + 0.5
    shares = shares.clip(0, 1)
    if inverted:
        shares = 1 - shares
    return np.rint(255 * np.nan_to_num(shares, nan=0.0)).astype(np.uint8)


def grey_image(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Give a slice as reading its PNG file gives it.

    Parameters
    ----------
    pixels : ndarray of shape (height, width), uint8

    Returns
    -------
    ndarray of shape (height, width, 3), float32
        RGB in [0, 1].
    """
    grey = pixels.astype(np.float32) / np.float32(255)
    return np.repeat(grey[..., None], 3, axis=2)


def find_robust_window(values: npt.NDArray[np.float32]) -> Window | None:
    """Find the window from the 0.5th to the 99.5th percentile; None where both are the same.

    Parameters
    ----------
    values : ndarray, float32
        NaN does not count.

    Returns
    -------
    Window or None
    """
    known = values[np.isfinite(values)]
    if not known.size:
        return None
    # Halved, which is exact: neighbours can be further apart than single precision goes.
    known *= np.float32(0.5)
    low, high = (
        2 * float(half) for half in np.percentile(known, PERCENTILES, overwrite_input=True)
    )
    return Window((low + high) / 2, high - low) if high > low else None


def check_shape(name: str, n: int, height: int, width: int) -> None:
    """Refuse a volume without voxels, or of more than `VOXEL_LIMIT`.

    Raises
    ------
    ImageReadError
        Says which.
    """
    if min(n, height, width) < 1:
        raise ImageReadError(name, f"has no voxels ({n} × {height} × {width})")
    if n * height * width > VOXEL_LIMIT:
        raise ImageReadError(
            name,
            f"has {n * height * width:,} voxels; at most {VOXEL_LIMIT:,} are read",
        )


def _choose(n: int, slices: str) -> range:
    if slices == "all":
        return range(n)
    if slices == "middle":
        return range(n // 2, n // 2 + 1)
    step = int(slices.removeprefix("every:"))
    return range(min(step // 2, n - 1), n, step)


def _find_largest(
    painted: list[npt.NDArray[np.uint8]],
) -> tuple[int, npt.NDArray[np.uint8]]:
    counts = sum(np.bincount(pixels.ravel(), minlength=_LEVELS) for pixels in painted)
    threshold = _find_otsu(np.asarray(counts, np.float64))
    areas = [int((pixels > threshold).sum()) for pixels in painted]
    place = int(np.argmax(areas))
    return place, painted[place]


def _find_otsu(counts: npt.NDArray[np.float64]) -> int:
    """Find the level that parts a histogram best (Otsu 1979, IEEE Trans. SMC 9:62–66)."""
    levels = np.arange(len(counts))
    below = np.cumsum(counts)
    above = below[-1] - below
    total = np.cumsum(counts * levels)
    with np.errstate(invalid="ignore", divide="ignore"):
        distance = total / below - (total[-1] - total) / above
        variance = below * above * distance**2
    return int(np.argmax(np.nan_to_num(variance)))
