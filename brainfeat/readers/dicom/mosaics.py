"""Siemens mosaics: one picture of all slices of a volume, which its private CSA header arranges."""

import math
import struct
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from brainfeat.errors import ImageReadError, MissingDependencyError
from brainfeat.readers.dicom.elements import CSA_HEADERS

_CSA_LIMIT = 4_000_000
_ADVICE = "export the series as enhanced DICOM, or convert it to NIfTI"


class Layout(NamedTuple):
    """How many slices a mosaic has, and in which direction they follow each other."""

    slices: int
    normal: tuple[float, ...]


def unpack_mosaic(
    picture: npt.NDArray[np.float32],
    dataset: Any,
    orientation: tuple[float, ...],
    *,
    name: str,
) -> Iterator[tuple[int, npt.NDArray[np.float32]]]:
    """Cut a mosaic into its slices.

    They are arranged in rows of a square, which is as small as it can be; the last places can be
    empty. Their order is that of ``SliceNormalVector`` in the CSA header, which can be opposite to
    the slice normal of the standard.

    Parameters
    ----------
    picture : ndarray of shape (rows, columns), float32
    dataset : pydicom.Dataset
        With the elements of `CSA_HEADERS` and their creators.
    orientation : tuple of float
        Direction cosines of rows and columns.
    name : str
        Name of the volume in error messages.

    Yields
    ------
    int
        The place of a slice along the slice normal, from 0.
    ndarray of shape (height, width), float32
        Its values.

    Raises
    ------
    ImageReadError
        If the CSA header is missing or damaged, or does not agree with the picture.
    """
    layout = _read_layout(dataset, name)
    side = math.ceil(math.sqrt(layout.slices))
    height, width = (length // side for length in picture.shape)
    if picture.shape != (height * side, width * side) or not (height and width):
        raise ImageReadError(
            name,
            f"is a Siemens mosaic of {layout.slices} slices, which {picture.shape[0]} × "
            f"{picture.shape[1]} pixels cannot hold in rows of {side}; {_ADVICE}",
        )
    cosine = _compare(layout.normal, orientation)
    if abs(cosine) < 0.99:
        raise ImageReadError(
            name, f"is a Siemens mosaic whose slices have no order along their normal; {_ADVICE}"
        )
    for place in range(layout.slices):
        row, column = divmod(place, side)
        tile = picture[row * height : (row + 1) * height, column * width : (column + 1) * width]
        yield (place if cosine > 0 else layout.slices - 1 - place), tile


def _read_layout(dataset: Any, name: str) -> Layout:
    csareader: Any
    try:
        from nibabel.nicom import csareader
    except ImportError as error:
        raise MissingDependencyError(
            "Siemens mosaics need nibabel, which is not installed: pip install 'brainfeat[medical]'"
        ) from error
    if any(len(dataset[tag].value or b"") > _CSA_LIMIT for tag in CSA_HEADERS if tag in dataset):
        raise ImageReadError(name, "is a Siemens mosaic with a CSA header that is too large")
    try:
        header = csareader.get_csa_header(dataset)
        if header is not None:
            slices = int(csareader.get_n_mosaic(header) or 0)
            normal = csareader.get_slice_normal(header)
            if slices > 0 and normal is not None:
                return Layout(slices, tuple(float(x) for x in normal))
    except (csareader.CSAError, AssertionError, ValueError, TypeError, OverflowError, struct.error):
        raise ImageReadError(
            name, f"is a Siemens mosaic with a damaged CSA header; {_ADVICE}"
        ) from None
    raise ImageReadError(
        name,
        "is a Siemens mosaic without the CSA header that says how its slices are arranged; "
        f"{_ADVICE}",
    )


def _compare(normal: tuple[float, ...], orientation: tuple[float, ...]) -> float:
    """Return the cosine between a direction and the slice normal; 0 where one is unknown."""
    if len(orientation) != 6 or not all(map(math.isfinite, normal)):
        return 0.0
    standard = np.cross(orientation[:3], orientation[3:])
    lengths = float(np.linalg.norm(standard) * np.linalg.norm(normal))
    return float(np.dot(normal, standard)) / lengths if lengths else 0.0
