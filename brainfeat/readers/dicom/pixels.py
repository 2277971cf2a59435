"""Stored pixels of a DICOM file become values of its modality, as PS3.3 defines them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from brainfeat.errors import ImageReadError
from brainfeat.readers.dicom.elements import read_integer, read_number
from brainfeat.readers.dicom.files import DAMAGE
from brainfeat.readers.dicom.headers import Frame


def decode(dataset: Any, name: str, frames: Sequence[int] | None) -> npt.NDArray[Any]:
    """Decode the pixels of a file.

    Parameters
    ----------
    dataset : pydicom.Dataset
    name : str
        Name of the volume in error messages.
    frames : sequence of int or None
        Which frames; None for all.

    Returns
    -------
    ndarray of shape (frames, rows, columns)
        As they are stored.

    Raises
    ------
    ImageReadError
        If the transfer syntax is not supported, or the pixels are damaged.
    """
    from pydicom.pixels.decoders.base import get_decoder
    from pydicom.pixels.utils import iter_pixels, pixel_array

    syntax = dataset.file_meta.TransferSyntaxUID
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError:
        raise ImageReadError(name, "has a transfer syntax that is not supported") from None
    if not decoder.is_available:
        raise ImageReadError(
            name,
            f"is compressed ({syntax.name}) and its decoder is not installed: "
            "pip install 'brainfeat[medical]'",
        )
    count = read_integer(dataset, "NumberOfFrames", 1) if frames is None else len(frames)
    try:
        if frames is None:
            stored = pixel_array(dataset)
        else:
            stored = np.stack(list(iter_pixels(dataset, indices=frames)))
    except DAMAGE:
        raise ImageReadError(name, f"has pixels that cannot be decoded ({syntax.name})") from None
    return stored.reshape(count, read_integer(dataset, "Rows"), read_integer(dataset, "Columns"))


def rescale(stored: npt.NDArray[Any], dataset: Any, frame: Frame) -> npt.NDArray[np.float32]:
    """Convert the stored values of a frame to those of the modality; padding becomes NaN.

    A modality lookup table or slope and intercept (PS3.3, C.11.1), which each frame of an enhanced
    file can have for itself (C.7.6.16.2.9), are applied whatever the photometric interpretation,
    which counts for what is shown after the window (C.7.6.3.1.2). Padding is recognised by its
    stored value (C.7.5.1.1.2).

    Parameters
    ----------
    stored : ndarray of shape (rows, columns)
    dataset : pydicom.Dataset
    frame : Frame

    Returns
    -------
    ndarray of the same shape, float32
    """
    from pydicom.pixels.processing import apply_modality_lut

    if "ModalityLUTSequence" in dataset:
        values = np.array(apply_modality_lut(stored, dataset), np.float32)
    else:
        values = (stored * frame.slope + frame.intercept).astype(np.float32)
    if padding := _find_padding(dataset, stored.dtype):
        values[(stored >= padding[0]) & (stored <= padding[1])] = np.nan
    if frame.mapped is not None:
        values[(stored < frame.mapped[0]) | (stored > frame.mapped[1])] = np.nan
    values[~np.isfinite(values)] = np.nan
    return values


def _find_padding(dataset: Any, dtype: np.dtype[Any]) -> tuple[float, float] | None:
    """Find the lowest and the highest stored value that are padding.

    The limit of the range is above the value in MONOCHROME2, and below it in MONOCHROME1.
    """
    first = read_number(dataset, "PixelPaddingValue")
    if first is None:
        return None
    ends = [first, read_number(dataset, "PixelPaddingRangeLimit", first)]
    if dtype.kind in "iu":
        # Some files have the bits of a signed number where an unsigned one is declared, or the
        # other way round; no pixel could have such a value.
        limits, modulus = np.iinfo(dtype), 2.0 ** (8 * dtype.itemsize)
        ends = [x - modulus if x > limits.max else x for x in ends]
        ends = [x + modulus if x < limits.min else x for x in ends]
    return min(ends), max(ends)
