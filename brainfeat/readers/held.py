"""Images that a caller holds in memory, beside files: arrays and Pillow's images."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from brainfeat.errors import ParameterError
from brainfeat.readers.decoding import convert_image

if TYPE_CHECKING:
    from typing import TypeAlias, TypeGuard

    from PIL.Image import Image

    # An image in memory; and that, listed or not, or a file or folder.
    Held: TypeAlias = npt.NDArray[np.generic] | Image
    Given: TypeAlias = "str | os.PathLike[str] | Held | HeldImage"

# Modes that become 8-bit RGB without a choice of scale, and 16-bit grey.
_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "I;16")
_EXPECTED = "a path, an image of Pillow or an array of one image"


class HeldImage(NamedTuple):
    """An image in memory.

    Attributes
    ----------
    name : str
        Its place among what was given, such as ``"image 1"``.
    source : ndarray or PIL.Image.Image
        As :func:`list_given` has checked it.
    """

    name: str
    source: "Held"

    def read(self, *, value_range: str = "dtype") -> npt.NDArray[np.float32]:
        """Convert it as ``brainfeat.readers.read_image`` converts a file.

        Parameters
        ----------
        value_range : str, default="dtype"
            As for ``brainfeat.readers.read_image``. Arrays are not affected.

        Returns
        -------
        ndarray of shape (h, w, 3), float32
            RGB in [0, 1].

        Raises
        ------
        ImageReadError
            The file of an image that Pillow has opened, but not yet read, is damaged; or a value
            is beyond the range.
        """
        if not isinstance(self.source, np.ndarray):
            return convert_image(self.source, name=self.name, value_range=value_range)
        unit = self.source.astype(np.float32)
        if self.source.dtype == np.uint8:
            unit /= 255
        return unit if unit.ndim == 3 else np.repeat(unit[:, :, np.newaxis], 3, axis=2)


def list_paths(paths: "str | os.PathLike[str] | Iterable[str | os.PathLike[str]]") -> list[Path]:
    """List paths, of which a single one may stand alone.

    Examples
    --------
    >>> list_paths("scan.png") == list_paths(["scan.png"]) == [Path("scan.png")]
    True
    """
    return [Path(path) for path in ([paths] if isinstance(paths, str | os.PathLike) else paths)]


def list_given(given: "Given | Iterable[Given]") -> list[Path | HeldImage]:
    """List files, folders and images in memory, of which a single one may stand alone.

    Parameters
    ----------
    given : path-like, ndarray, PIL.Image.Image, or iterable of these
        An array is one image: (h, w) or (h, w, 3), either uint8, or of floating point in [0, 1].
        What was listed before stays as it is.

    Returns
    -------
    list of Path or HeldImage
        In their order.

    Raises
    ------
    ParameterError
        Something else was given, or an array or image whose scale is not known.

    Examples
    --------
    >>> list_given("scan.png"), list_given(np.zeros((2, 2), np.uint8))[0].name
    ([PosixPath('scan.png')], 'image 1')
    """
    if isinstance(given, str | os.PathLike | np.ndarray) or _is_pillow(given):
        return [_take(given, 1)]
    if isinstance(given, bytes) or hasattr(given, "read") or not isinstance(given, Iterable):
        raise ParameterError(
            f"images of type {type(given).__name__}; expected {_EXPECTED}, or a list of these"
        )
    return [_take(entry, number) for number, entry in enumerate(given, 1)]


def _take(entry: object, number: int) -> Path | HeldImage:
    name = f"image {number}"
    if isinstance(entry, HeldImage):
        return entry
    if isinstance(entry, str | os.PathLike):
        return Path(entry)
    if isinstance(entry, np.ndarray):
        _check_array(entry, name)
        return HeldImage(name, entry)
    if _is_pillow(entry):
        _check_mode(entry, name)
        return HeldImage(name, entry)
    raise ParameterError(f"{name} is of type {type(entry).__name__}; expected {_EXPECTED}")


def _is_pillow(entry: object) -> "TypeGuard[Image]":
    from PIL.Image import Image

    return isinstance(entry, Image)


def _check_array(array: npt.NDArray[np.generic], name: str) -> None:
    if array.ndim not in (2, 3) or array.shape[2:] not in ((), (3,)) or not array.size:
        many = "; pass several images as a list" if array.ndim == 4 else ""
        raise ParameterError(
            f"{name} is an array of shape {array.shape}; expected (h, w) or (h, w, 3){many}"
        )
    if array.dtype == np.uint8:
        return
    if array.dtype.kind != "f":
        raise ParameterError(
            f"{name} is an array of {array.dtype}; expected uint8, or floating point in [0, 1]: "
            "divide it by the value that is to be white"
        )
    lowest, highest = array.min(), array.max()
    if not (lowest >= 0 and highest <= 1):  # written so that a NaN does not pass
        raise ParameterError(
            f"{name} is an array of {array.dtype} with values from {lowest:g} to {highest:g}; "
            "expected [0, 1]: divide it by the value that is to be white"
        )


def _check_mode(image: "Image", name: str) -> None:
    if image.mode not in _MODES:
        raise ParameterError(
            f"{name} is an image of Pillow's mode {image.mode!r}, whose white is not known; pass "
            "an array in [0, 1]"
        )
