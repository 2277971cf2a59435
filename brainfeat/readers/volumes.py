"""Volumes: the slices of one acquisition, and how their values become grey, in any file format."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from brainfeat.errors import ImageReadError, ParameterError
from brainfeat.readers.thresholds import find_otsu_threshold
from brainfeat.readers.windows import Window, choose_window, find_robust_window, paint_slice

VOXEL_LIMIT = 250_000_000

_SLICES = re.compile(r"all|middle|largest|every:[1-9][0-9]{0,5}")
# How the text of a policy names the orientations.
_ORIENTATIONS = {"auto": "stored-or-ras-axial", "native": "native", "axial": "axial"}
_TEXT = "slices={slices} window={window} orientation={orientation} percentiles=0.5-99.5"
_PARSED = re.compile(
    r"slices=(.+) window=(.+) orientation=(.+) percentiles=0\.5-99\.5(?: volume=([1-9][0-9]*))?"
)
_MOST_VOLUMES = 1_000_000

_LEVELS = 256  # of the 8-bit images for which Otsu's threshold is computed


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
        ``"ct:brain"``, ``"ct:subdural"``, ``"ct:stroke"``, ``"ct:bone"`` (40,80; 80,200; 40,40;
        600,2800) and centre and width such as ``"ct:50,350"`` are the same for volumes in
        Hounsfield units, and refuse others. ``"suv:0-10"`` shows PET from an SUV of 0 to one of 10,
        as :mod:`brainfeat.readers.dicom.uptake` computes it, and refuses volumes of which it
        cannot be computed.
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
    >>> SlicePolicy(window="ct:brain").window
    'ct:40,80'
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
        # Equal windows are written alike, so that they have the same fingerprint.
        object.__setattr__(self, "window", choose_window(self.window).text)

    @property
    def fixed_window(self) -> Window | None:
        """The window for all slices, or None where each slice or volume has its own."""
        return choose_window(self.window).window

    @property
    def unit(self) -> str:
        """What values must be in: ``"HU"``, ``"SUVbw"``, or ``""`` for those of the modality."""
        return choose_window(self.window).unit

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
    unit : {"", "HU", "SUVbw"}, default=""
        What the values are known to be in; ``""`` where that was not asked for.
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
    unit: str = ""


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

    Raises
    ------
    ParameterError
        If the window is of a unit that the values of the volume are not known to be in.

    Examples
    --------
    >>> values = np.arange(12, dtype=np.float32).reshape(3, 2, 2)
    >>> volume = Volume(values=values, modality="MR", windows=(None,) * 3, patient="", facts={})
    >>> [entry.frame for entry in cut_slices(volume, SlicePolicy(slices="middle"))]
    [2]
    """
    if policy.unit and policy.unit != volume.unit:
        raise ParameterError(
            f"the window {policy.window} is of values in {policy.unit}, and those of the volume "
            "are not known to be; read it with the same policy"
        )
    n, fixed = len(volume.values), policy.fixed_window
    robust = None
    if fixed is None and (policy.window == "robust" or None in volume.windows):
        robust = find_robust_window(volume.values)

    def paint(place: int) -> npt.NDArray[np.uint8]:
        own = volume.windows[place] if policy.window == "auto" else None
        window = fixed or own or robust
        return paint_slice(volume.values[place], window, inverted=volume.inverted)

    if policy.slices == "largest":
        place, pixels = _find_largest([paint(place) for place in range(n)])
        yield Slice(place + 1, pixels)
        return
    for place in _choose(n, policy.slices):
        yield Slice(place + 1, paint(place))


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
