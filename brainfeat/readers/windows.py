"""Windows: which values are shown from black to white, in units that the volume must have."""

import math
import re
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from brainfeat.errors import ParameterError

# The same as in nnU-Net for CT and in TorchIO's RescaleIntensity.
PERCENTILES = (0.5, 99.5)
# About as many values of a volume tell near which ones its percentiles are.
_SAMPLE = 1 << 16

HOUNSFIELD = "HU"
UPTAKE = "SUVbw"

# Centre and width: the typical values for head and neck of radiopaedia.org/articles/windowing-ct
# ("bone" is that of the temporal bones); of the range that it has for subdural blood (50 to 100 and
# 130 to 300), what many took in the RSNA Intracranial Hemorrhage Detection challenge of 2019. On
# strokes: Turner and Holdsworth (2011), British Journal of Radiology 84:1061.
CT_WINDOWS = {
    "brain": (40.0, 80.0),
    "subdural": (80.0, 200.0),
    "stroke": (40.0, 40.0),
    "bone": (600.0, 2800.0),
}

_EXPECTED = (
    "expected auto, robust, CENTRE,WIDTH such as 40,80, "
    f"{', '.join(f'ct:{name}' for name in CT_WINDOWS)}, ct:CENTRE,WIDTH or suv:LOW-HIGH"
)
_LOW = r"[0-9]{1,12}(?:\.[0-9]{1,6})?"
_NUMBER = rf"[+-]?{_LOW}"
_PLAIN = re.compile(rf"(ct:)?({_NUMBER}),({_NUMBER})")
_NAMED = re.compile("ct:(" + "|".join(CT_WINDOWS) + ")")
_UPTAKES = re.compile(rf"suv:({_LOW})-({_LOW})")


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


class WindowChoice(NamedTuple):
    """What the option `window` of a policy asks for.

    Attributes
    ----------
    text : str
        The option in the one spelling that all equal windows have.
    window : Window or None
        The window for all slices; None where each slice or volume has its own.
    unit : {"", "HU", "SUVbw"}
        What the values must be in; ``""`` takes those of any modality.
    """

    text: str
    window: Window | None
    unit: str


def choose_window(text: object) -> WindowChoice:
    """Read the option `window` of a policy.

    Parameters
    ----------
    text : str
        As in :class:`brainfeat.SlicePolicy`.

    Returns
    -------
    WindowChoice

    Raises
    ------
    ParameterError
        If it is not a window.

    Examples
    --------
    >>> choose_window("ct:brain").text, choose_window("suv:0-10.0").text
    ('ct:40,80', 'suv:0-10')
    >>> choose_window("suv:0-10").window
    Window(centre=5.0, width=10.0, function='LINEAR_EXACT')
    """
    if not isinstance(text, str):
        raise ParameterError(f"window {text!r:.80}; {_EXPECTED}")
    if text in ("auto", "robust"):
        return WindowChoice(text, None, "")
    if found := _UPTAKES.fullmatch(text):
        low, high = map(float, found.groups())
        if not high > low:
            raise ParameterError(f"window {text!r}; expected a LOW below HIGH")
        window = Window((low + high) / 2, high - low)
        return WindowChoice(f"suv:{_spell(low)}-{_spell(high)}", window, UPTAKE)
    if found := _NAMED.fullmatch(text):
        prefix, window = "ct:", Window(*CT_WINDOWS[found[1]])
    elif found := _PLAIN.fullmatch(text):
        prefix, window = found[1] or "", Window(float(found[2]), float(found[3]))
    else:
        raise ParameterError(f"window {text!r:.80}; {_EXPECTED}")
    if not window.width > 0:
        raise ParameterError(f"window {text!r}; expected a width above 0")
    # One spelling of 0; that of plain windows stays, since texts of older specs have it.
    centre = window.centre + 0.0 if prefix else window.centre
    spelt = f"{prefix}{_spell(centre)},{_spell(window.width)}"
    return WindowChoice(spelt, window, HOUNSFIELD if prefix else "")


def _spell(value: float) -> str:
    return np.format_float_positional(value, trim="-")


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
    finite = np.isfinite(values)
    known = values.reshape(-1) if finite.all() else values[finite]
    if not known.size:
        return None
    low, high = (_find_percentile(known, percent) for percent in PERCENTILES)
    return Window((low + high) / 2, high - low) if high > low else None


def _find_percentile(known: npt.NDArray[np.float32], percent: float) -> float:
    """Compute what numpy.percentile gives, which partitions all values, by those near it alone."""
    place = (known.size - 1) * (percent / 100)
    below = math.floor(place)
    # Halving is exact; the difference of two values can exceed the range of single precision.
    halves = np.float32(0.5) * _find_neighbours(known, below)
    return 2 * float(np.quantile(halves, np.array([place - below]))[0])


def _find_neighbours(known: npt.NDArray[np.float32], below: int) -> npt.NDArray[np.float32]:
    """Find the value of a place among sorted values, and the next one, near those of a sample."""
    sample = np.sort(known[:: -(-known.size // _SAMPLE)])
    near, margin = below * len(sample) // known.size, len(sample) // 256 + 1
    low = sample[max(0, near - margin)]
    high = sample[min(len(sample) - 1, near + margin)]
    places = np.minimum([below, below + 1], known.size - 1)
    smaller = int(np.count_nonzero(known < low))
    if smaller <= places[0] and places[1] < np.count_nonzero(known <= high):
        if low == high:
            return np.array([low, low])
        known, places = known[(known >= low) & (known <= high)], places - smaller
    found: npt.NDArray[np.float32] = np.partition(known, places)[places]
    return found
