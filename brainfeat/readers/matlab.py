"""The brain tumour images of Cheng et al., MATLAB 7.3 files, become volumes of one slice.

Each file of the data set (https://doi.org/10.6084/m9.figshare.1512427) is a struct ``cjdata`` with
the image, the class as ``label``, the patient as ``PID``, and the tumour's mask and border, which
are not read. No text of a file leaves this module.
"""

import os
import struct
from collections.abc import Mapping
from pathlib import Path
from stat import S_ISREG
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from brainfeat.errors import ImageReadError
from brainfeat.readers.hdf5 import SIGNATURE, FormatError, Hdf5Reader
from brainfeat.readers.volumes import Volume, check_shape

# Classes by the number that the files have for them.
CLASS_NAMES = {1: "meningioma", 2: "glioma", 3: "pituitary"}

_IMAGE_BYTES = 512_000_000  # 64 million pixels of 8 bytes
_SMALL_BYTES = 4096
_USER_BLOCK = 512
_EXPECTED = (
    "expected MATLAB 7.3 with cjdata.image, as in the brain tumour data of Cheng et al. (figshare "
    "1512427); save other images as PNG or NIfTI"
)


def read_matlab(path: Path, *, name: str) -> Volume:
    """Read an image of the data set of Cheng et al. as a volume of one slice.

    Parameters
    ----------
    path : Path
        A ``.mat`` file of MATLAB 7.3, which is an HDF5 file after 512 bytes of text.
    name : str
        Name of the volume in error messages; not the path, which can contain a person's name.

    Returns
    -------
    Volume
        The image as MATLAB shows it, which is transposed in HDF5. `Volume.label` is its class.

    Raises
    ------
    ImageReadError
        If the file is damaged, or is another MATLAB file.
    """
    members = _open_members(path, name)
    image = members["image"]
    with np.errstate(over="ignore", invalid="ignore"):
        values = np.ascontiguousarray(image.T[np.newaxis], np.float32)
    values[~np.isfinite(values)] = np.nan
    patient, label = _read_identity(members, path, name)
    return Volume(
        values=values,
        modality="MATLAB",
        windows=(None,),
        patient=patient,
        facts={"spacing": None, "bits": 8 * image.dtype.itemsize},
        label=label,
    )


def identify_matlab(path: Path, *, name: str) -> tuple[str, str]:
    """Read whose an image of this data set is, and its class.

    Parameters
    ----------
    path : Path
    name : str
        As in :func:`read_matlab`.

    Returns
    -------
    patient, label : str
        As in the volume that :func:`read_matlab` reads.

    Raises
    ------
    ImageReadError
        As :func:`read_matlab`.
    """
    return _read_identity(_open_members(path, name, image=False), path, name)


def _open_members(path: Path, name: str, *, image: bool = True) -> dict[str, npt.NDArray[Any]]:
    try:
        if not S_ISREG(path.stat().st_mode):
            raise ImageReadError(name, "is not a regular file")
        with path.open("rb") as file:
            return _read_members(file, name, image=image)
    except FormatError as error:
        raise ImageReadError(name, f"{error}; {_EXPECTED}") from None
    except OSError as error:
        if isinstance(error, ImageReadError):
            raise
        raise ImageReadError(name, f"cannot be read ({os.strerror(error.errno or 0)})") from None


def _read_identity(
    members: Mapping[str, npt.NDArray[Any]], path: Path, name: str
) -> tuple[str, str]:
    patient = _read_patient(members.get("PID"), name)
    label = _read_label(members.get("label"), name)
    return f"cjdata\0{patient}" if patient else f"file\0{path.absolute()}", label


def _read_members(file: BinaryIO, name: str, *, image: bool = True) -> dict[str, npt.NDArray[Any]]:
    _check_start(file.read(_USER_BLOCK + len(SIGNATURE)), name)
    reader = Hdf5Reader(file, base=_USER_BLOCK)
    members = reader.find_members("cjdata")
    if "image" not in members:
        raise ImageReadError(name, f"has no cjdata.image; {_EXPECTED}")
    found = {}
    if image:
        found["image"] = reader.read_array(members["image"], byte_limit=_IMAGE_BYTES)
        if found["image"].ndim != 2:
            raise ImageReadError(name, f"has an image of {found['image'].ndim} axes; expected 2")
        check_shape(name, 1, *found["image"].shape)
    for key in ("label", "PID"):
        if key in members:
            found[key] = reader.read_array(members[key], byte_limit=_SMALL_BYTES)
    return found


def is_matlab_73(path: Path) -> bool:
    """Return whether a path is a regular file that begins as MATLAB 7.3 files do.

    Raises
    ------
    OSError
        If the file cannot be opened.
    """
    if not S_ISREG(path.stat().st_mode):
        return False
    with path.open("rb") as file:
        return file.read(_USER_BLOCK + len(SIGNATURE))[_USER_BLOCK:] == SIGNATURE


def _check_start(start: bytes, name: str) -> None:
    """Reject what is not MATLAB 7.3, by the version that its text names."""
    if start[_USER_BLOCK:] == SIGNATURE:
        return
    if start.startswith(b"MATLAB 5.0"):
        wrong = "is a MATLAB file of version 5 to 7"
    elif len(start) > 20 and _is_version_4(start):
        wrong = "is a MATLAB file of version 4"
    else:
        wrong = "is not a MATLAB file that is read"
    raise ImageReadError(name, f"{wrong}; {_EXPECTED}")


def _is_version_4(start: bytes) -> bool:
    """Recognise the header of the first matrix: its type, rows, columns, and length of its name."""
    for order in "<>":
        kind, rows, columns, imaginary, length = struct.unpack_from(f"{order}5i", start)
        digits = divmod(kind, 1000)[0], kind // 100 % 10, kind // 10 % 10, kind % 10
        limits = zip(digits, (4, 0, 5, 2), strict=True)
        if all(0 <= digit <= most for digit, most in limits) and (
            min(rows, columns) >= 0 and imaginary in (0, 1) and 1 < length <= 64
        ):
            return True
    return False


def _read_label(label: npt.NDArray[Any] | None, name: str) -> str:
    """Return the class; "" where the file has none."""
    if label is None:
        return ""
    number = label.item() if label.size == 1 else None
    if number not in CLASS_NAMES:
        classes = ", ".join(f"{key} ({text})" for key, text in CLASS_NAMES.items())
        raise ImageReadError(name, f"has a label that is not one of {classes}")
    return CLASS_NAMES[number]


def _read_patient(codes: npt.NDArray[Any] | None, name: str) -> str:
    """Return the patient, which is text of 16-bit characters; "" where the file names none."""
    if codes is None:
        return ""
    if codes.dtype.kind != "u" or codes.dtype.itemsize != 2 or codes.size not in codes.shape:
        raise ImageReadError(name, "has a PID that is not text, so that its patient is not known")
    text = codes.ravel().astype("<u2").tobytes().decode("utf-16-le", "replace")
    return text.strip()
