"""Volumes: the slices of one acquisition, and how their values become grey, in any file format."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from brainfeat.errors import ImageReadError, ParameterError
from brainfeat.readers.thresholds import find_otsu_threshold

# The same as in nnU-Net for CT and in TorchIO's RescaleIntensity.
PERCENTILES = (0.5, 99.5)
VOXEL_LIMIT = 250_000_000

_SLICES = re.compile(r"all|middle|largest|every:[1-9][0-9]{0,5}")
_NUMBER = r"[+-]?[0-9]{1,12}(?:\.[0-9]{1,6})?"
_WINDOW = re.compile(rf"auto|robust|{_NUMBER},{_NUMBER}")
# How the text of a policy names the orientations.
_ORIENTATIONS = {"auto": "stored-or-ras-axial", "native": "native", "axial": "axial"}
_TEXT = "slices={slices} window={window} orientation={orientation} percentiles=0.5-99.5"
_PARSED = re.compile(
    r"slices=(.+) window=(.+) orientation=(.+) percentiles=0\.5-99\.5(?: volume=([1-9][0-9]*))?"
)
_MOST_VOLUMES = 1_000_000

_LEVELS = 256  # of the 8-bit images for which Otsu's threshold is computed


class Window(NamedTuple):
    """The range of values that is shown from black to white, as in DICOM PS3.3 C.11.2.1.2.

    Attributes
    ----------
    centre, width : float
        In the units of the modality.
    function : {"LINEAR", "LINEAR_EXACT", "SIGMOID"}
        How values within the range become grey.
    """

    centre: float
    width: float
    function: str = "LINEAR_EXACT"


@dataclass(frozen=True, kw_only=True)
class SlicePolicy:
    """How a volume becomes images: the options that change pixels and are part of the spec.

    Parameters
    ----------
    slices : str, default="all"
        Which slices are taken: ``"all"``; ``"middle"``; ``"every:K"``, every K-th slice, starting
        in the middle of the first K; or ``"largest"``, the slice with most pixels above Otsu's
        threshold of the volume.
    window : str, default="auto"
        How values become grey: ``"auto"`` takes the window that the file has for each slice, or
        else ``"robust"``, the range from the 0.5th to the 99.5th percentile of the volume; centre
        and width such as ``"40,80"``, in the units of the modality, are the same for all slices.
    orientation : {"auto", "native", "axial"}, default="auto"
        In which plane a volume is cut, without interpolation: ``"native"``, the plane in which it
        was acquired, which is that of the stored DICOM images, and in NIfTI and MGH files the
        plane across the axis with the largest spacing; ``"axial"``, the plane nearest to the axial
        one; ``"auto"``, ``"native"`` for DICOM and ``"axial"`` for NIfTI and MGH.
    volume : int or None, default=None
        Which volume is taken of a file that has several on a fourth axis, counted from 1. None
        refuses such files. Files of one volume are read as they are.

    Raises
    ------
    ParameterError
        If an option is not one of these.

    Examples
    --------
    >>> policy = SlicePolicy(slices="middle", window="40,80")
    >>> SlicePolicy.parse(policy.text) == policy
    True
    """

    slices: str = "all"
    window: str = "auto"
    orientation: str = "auto"
    volume: int | None = None

    def __post_init__(self) -> None:
        _check_place(self.orientation, self.volume)
        if not (isinstance(self.slices, str) and _SLICES.fullmatch(self.slices)):
            raise ParameterError(
                f"slices {self.slices!r:.80}; expected all, middle, largest or every:K"
            )
        if not (isinstance(self.window, str) and _WINDOW.fullmatch(self.window)):
            raise ParameterError(
                f"window {self.window!r:.80}; expected auto, robust or CENTRE,WIDTH such as 40,80"
            )
        if (fixed := self.fixed_window) is None:
            return
        if not fixed.width > 0:
            raise ParameterError(f"window {self.window!r}; expected a width above 0")
        # Equal windows are written alike, so that they have the same fingerprint.
        spelt = (np.format_float_positional(x, trim="-") for x in (fixed.centre, fixed.width))
        object.__setattr__(self, "window", ",".join(spelt))

    @property
    def fixed_window(self) -> Window | None:
        """The window for all slices, or None where each slice or volume has its own."""
        if "," not in self.window:
            return None
        centre, width = map(float, self.window.split(","))
        return Window(centre, width)

    @property
    def text(self) -> str:
        """All options that change pixels, on one line."""
        text = _TEXT.format(
            slices=self.slices,
            window=self.window,
            orientation=_ORIENTATIONS[self.orientation],
        )
        return text if self.volume is None else f"{text} volume={self.volume}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a policy from its `text`.

        Parameters
        ----------
        text : str
            As the property `text` gives it.

        Returns
        -------
        SlicePolicy
            The policy.

        Raises
        ------
        ParameterError
            If the text is not that of a policy.
        """
        found = _PARSED.fullmatch(text) if isinstance(text, str) else None
        names = {spelt: name for name, spelt in _ORIENTATIONS.items()}
        if found is None or found[3] not in names:
            raise ParameterError(
                f"{text!r:.200} does not describe how slices are made; "
                "it was written by another version of brainfeat"
            )
        return cls(
            slices=found[1],
            window=found[2],
            orientation=names[found[3]],
            volume=int(found[4]) if found[4] else None,
        )


@dataclass(frozen=True, kw_only=True)
class Volume:
    """The slices of one acquisition, in their order in space.

    Attributes
    ----------
    values : ndarray of shape (n, height, width), float32
        In the units of the modality; NaN where there is no value.
    modality : str
        ``"MR"``, ``"CT"``, ``"PT"``, or where the file does not state it, its format: ``"NIfTI"``,
        ``"MGH"``, ``"MATLAB"``.
    windows : tuple of (Window or None)
        The window that the file has for each slice.
    inverted : bool
        Whether low values are white (MONOCHROME1).
    patient : str
        Identifies the patient; never shown.
    facts : dict
        Facts that identify nobody: numbers, and terms of the standard.
    axes : str, default=""
        Where slices, rows and columns follow each other to: a letter for each of R, L, A, P, S and
        I, such as ``"SPL"`` for axial slices; ``""`` where that is not known.
    native_axes : str, default=""
        The same in the plane in which it was acquired; ``""`` where that is not known.
    spacing : tuple of 3 floats or None, default=None
        Distance of slices, rows and columns in mm; None where it is not known or not even.
    label : str, default=""
        The class that the file states.
    """

    values: npt.NDArray[np.float32] = field(repr=False)
    modality: str
    windows: tuple[Window | None, ...] = field(repr=False)
    inverted: bool = False
    patient: str = field(repr=False)
    facts: dict[str, Any]
    axes: str = ""
    native_axes: str = ""
    spacing: tuple[float, float, float] | None = None
    label: str = ""


class Slice(NamedTuple):
    """One slice: its number in the volume, from 1, and its grey values (height, width), uint8."""

    frame: int
    pixels: npt.NDArray[np.uint8]


def cut_slices(volume: Volume, policy: SlicePolicy) -> Iterator[Slice]:
    """Cut the slices of a volume that a policy selects.

    Parameters
    ----------
    volume : Volume
        In the orientation of the policy, as :func:`brainfeat.readers.series.read_volume` reads it.
    policy : SlicePolicy

    Yields
    ------
    Slice
        In their order in space.

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
    """Map values to grey by the formulas of DICOM PS3.3 C.11.2.1.2.

    Parameters
    ----------
    values : ndarray, float32
        NaN becomes black.
    window : Window or None
        None stands for a volume whose values are all equal, which becomes black.
    inverted : bool, default=False
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
    # A value that overflows is far outside the window, and is clipped.
    with np.errstate(over="ignore"):
        if window.function == "SIGMOID":
            fractions = 1 / (1 + np.exp(-4 * (wide - window.centre) / window.width))
        elif window.function == "LINEAR":
            # A width of 1 is a step; the formula divides by zero there.
            fractions = (wide - (window.centre - 0.5)) / max(window.width - 1, 1e-9) + 0.5
        else:
            fractions = (wide - window.centre) / window.width + 0.5
    fractions = fractions.clip(0, 1)
    if inverted:
        fractions = 1 - fractions
    return np.rint(255 * np.nan_to_num(fractions, nan=0.0)).astype(np.uint8)


def grey_image(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Convert a slice to the image that reading its PNG file gives.

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
    """Find the window from the 0.5th to the 99.5th percentile; None where the two are equal.

    Parameters
    ----------
    values : ndarray, float32
        NaN is ignored.

    Returns
    -------
    Window or None
    """
    known = values[np.isfinite(values)]
    if not known.size:
        return None
    # Halving is exact; the difference of two values can exceed the range of single precision.
    known *= np.float32(0.5)
    low, high = (
        2 * float(half) for half in np.percentile(known, PERCENTILES, overwrite_input=True)
    )
    return Window((low + high) / 2, high - low) if high > low else None


def check_shape(name: str, n: int, height: int, width: int) -> None:
    """Reject a volume without voxels, or with more than `VOXEL_LIMIT`.

    Raises
    ------
    ImageReadError
        If the volume has no voxels, or too many.
    """
    if min(n, height, width) < 1:
        raise ImageReadError(name, f"has no voxels ({n} × {height} × {width})")
    if n * height * width > VOXEL_LIMIT:
        raise ImageReadError(
            name,
            f"has {n * height * width:,} voxels; at most {VOXEL_LIMIT:,} are read",
        )


def _check_place(orientation: object, volume: object) -> None:
    """Reject orientations and numbers of volumes that a policy cannot have."""
    if not (isinstance(orientation, str) and orientation in _ORIENTATIONS):
        raise ParameterError(
            f"orientation {orientation!r:.80}; expected {', '.join(_ORIENTATIONS)}"
        )
    if volume is None:
        return
    is_whole = isinstance(volume, int) and not isinstance(volume, bool)
    if not (is_whole and volume in range(1, _MOST_VOLUMES + 1)):
        raise ParameterError(
            f"volume {volume!r:.80}; expected a number from 1 to {_MOST_VOLUMES:,}"
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
    threshold = find_otsu_threshold(np.asarray(counts))
    areas = [int((pixels > threshold).sum()) for pixels in painted]
    place = int(np.argmax(areas))
    return place, painted[place]
