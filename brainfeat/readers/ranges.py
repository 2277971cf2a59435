"""How images of more than 8 bits become [0, 1]."""

import re
from typing import Any

import numpy as np
import numpy.typing as npt

from brainfeat.errors import ImageReadError, ParameterError

DTYPE, IMAGE = "dtype", "image"

_BITS = re.compile(r"bits:(8|9|1[0-6])")


def check_range(value_range: str) -> str:
    """Return a range of values if it is one.

    Parameters
    ----------
    value_range : str
        ``"dtype"``, ``"image"``, or ``"bits:N"`` with N from 8 to 16.

    Returns
    -------
    str
        `value_range`.

    Raises
    ------
    ParameterError
        If it is something else.

    Examples
    --------
    >>> check_range("bits:12")
    'bits:12'
    """
    if value_range in (DTYPE, IMAGE) or (
        isinstance(value_range, str) and _BITS.fullmatch(value_range)
    ):
        return value_range
    raise ParameterError(
        f"range {value_range!r}; expected dtype, image, or bits:N with N from 8 to 16"
    )


def scale_values(
    values: npt.NDArray[np.unsignedinteger[Any]], value_range: str, *, name: str
) -> npt.NDArray[np.float32]:
    """Scale whole numbers of 8 or 16 bits to [0, 1].

    Parameters
    ----------
    values : ndarray of uint8 or uint16
        uint8 is divided by 255 whatever the range.
    value_range : str
        What is divided by: ``"dtype"``, the largest value of the type; ``"image"``, the largest
        value of the image itself; ``"bits:N"``, 2^N − 1.
    name : str
        Name of the image in error messages.

    Returns
    -------
    ndarray of the same shape, float32

    Raises
    ------
    ImageReadError
        If a value is larger than N bits hold.
    ParameterError
        If the range is unknown.

    Examples
    --------
    >>> scale_values(np.array([0, 4095], np.uint16), "bits:12", name="a.png")
    array([0., 1.], dtype=float32)
    """
    check_range(value_range)
    largest = int(np.iinfo(values.dtype).max)
    if largest > 255 and value_range != DTYPE:
        highest = int(values.max())
        if value_range == IMAGE:
            largest = max(highest, 1)
        else:
            bits = int(value_range.removeprefix("bits:"))
            largest = (1 << bits) - 1
            if highest > largest:
                raise ImageReadError(
                    name,
                    f"a value of {highest:,}, and {bits} bits hold {largest:,}; choose a range of"
                    f" {highest.bit_length()} bits or more, or that of the image",
                )
    unit = values.astype(np.float32)
    unit /= largest
    return unit
