"""The voxels of NIfTI and MGH files, plain or compressed with gzip, through nibabel.

Neither the text of a header nor messages of nibabel, which quote it, are passed on.
"""

import gzip
import math
import os
import struct
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from stat import S_ISREG
from typing import Any

import numpy as np
import numpy.typing as npt

from brainfeat.errors import ImageReadError, MissingDependencyError
from brainfeat.readers.orientation import PLANES, find_thickest
from brainfeat.readers.silence import silence
from brainfeat.readers.volumes import Volume, check_shape

# Most bytes after the voxels of a compressed file; most files have none.
END_LIMIT = 16_000_000
# Most voxels of all volumes of a file; a compressed file is read to its end.
FILE_VOXEL_LIMIT = 1_000_000_000
_CHUNK = 1_000_000

# Smallest volume of a voxel in mm³; below it, the axes do not span space.
_LEAST_VOLUME = 1e-12
_GZIP = b"\x1f\x8b"
# Most bytes that one byte of deflate expands to (zlib.net/zlib_tech.html).
_DEFLATE_RATIO = 1032
# What nibabel and gzip raise on damaged files.
_DAMAGE = (OSError, ValueError, TypeError, KeyError, IndexError, OverflowError, MemoryError,
           EOFError, ArithmeticError, NotImplementedError, struct.error, zlib.error)  # fmt: skip


def _import_nibabel(form: str) -> Any:
    try:
        import nibabel
    except ImportError as error:
        raise MissingDependencyError(
            f"{form} needs nibabel, which is not installed: pip install 'brainfeat[medical]'"
        ) from error
    return nibabel


@contextmanager
def translating(name: str, form: str) -> Iterator[Any]:
    """Give nibabel to the body; suppress its warnings and replace its errors, which quote the file.

    Parameters
    ----------
    name : str
        Name of the volume in error messages.
    form : str
        Name of the format in error messages, such as ``"NIfTI"``.

    Yields
    ------
    module
        nibabel.

    Raises
    ------
    ImageReadError
        In place of every error that a damaged file causes.
    MissingDependencyError
        If nibabel is not installed.
    """
    nibabel = _import_nibabel(form)
    own = (
        nibabel.spatialimages.HeaderDataError,
        nibabel.filebasedimages.ImageFileError,
        nibabel.freesurfer.mghformat.MGHError,
    )
    try:
        with silence("nibabel", "nibabel.global"), np.errstate(all="ignore"):
            yield nibabel
    except ImageReadError:
        raise
    except (*_DAMAGE, *own):
        raise ImageReadError(name, f"is damaged or not a readable {form} file") from None


def read_start(path: Path, length: int, *, name: str) -> bytes:
    """Read the first bytes of a file, unpacked if it is compressed.

    Raises
    ------
    ImageReadError
        If the file is not a regular one, or cannot be opened.
    """
    try:
        if not S_ISREG(path.stat().st_mode):
            raise ImageReadError(name, "is not a regular file")
        with _open(path) as file:
            start: bytes = file.read(length)
    except OSError as error:
        if isinstance(error, ImageReadError) or error.errno is None:
            raise
        raise ImageReadError(name, f"cannot be read ({os.strerror(error.errno)})") from None
    return start


def spans_space(affine: npt.NDArray[np.float64]) -> bool:
    """Return whether the axes of the voxels are finite and span space."""
    return bool(np.isfinite(affine).all() and abs(np.linalg.det(affine[:3, :3])) >= _LEAST_VOLUME)


def read_axial(
    path: Path,
    header: Any,
    affine: npt.NDArray[np.float64],
    *,
    name: str,
    number: int | None,
    form: str,
    facts: Mapping[str, Any],
) -> Volume:
    """Read one volume of a file as axial slices in the radiological orientation.

    To be called within `translating`.

    Parameters
    ----------
    path : Path
    header : object
        nibabel's header, whose size of the voxels is not yet checked.
    affine : ndarray of shape (4, 4)
        From voxels to mm in RAS.
    name : str
        Name of the volume in error messages.
    number : int or None
        Which volume of several is read, from 1.
    form : str
        The modality of the result.
    facts : mapping
        Facts, to which those of the voxels are added.

    Returns
    -------
    Volume
        The first slice is the lowest one, the first row is anterior, and the first column is on
        the patient's right, as in axial DICOM.

    Raises
    ------
    ImageReadError
        If there are several volumes and none is chosen; if the voxels are not real numbers, are
        too many, or do not span space; or if the file is shorter than its header states.
    """
    nibabel = _import_nibabel(form)
    shape = tuple(int(size) for size in header.get_data_shape())
    count = _count_volumes(shape, name, number)
    kind = header.get_data_dtype()
    if kind.kind not in "iuf" or kind.itemsize > 8:
        raise ImageReadError(name, "has voxels that are not real numbers")
    end = header.get_data_offset() + math.prod(shape) * kind.itemsize
    # Before memory is allocated for them.
    if path.stat().st_size * (_DEFLATE_RATIO if _is_compressed(path) else 1) < end:
        raise ImageReadError(name, "is shorter than its header states")
    turned = nibabel.io_orientation(affine) if spans_space(affine) else np.array(np.nan)
    if not np.isfinite(turned).all():
        raise ImageReadError(name, "has no usable orientation")
    # A nibabel image would read the extensions, whatever size they claim to have.
    with _open(path) as file:
        proxy = nibabel.arrayproxy.ArrayProxy(file, header, mmap=False)
        if count == 1:
            values = np.asarray(proxy, np.float32).reshape(shape[:3])
        else:
            place = tuple(number - 1 if size > 1 else 0 for size in shape[3:]) if number else ()
            values = np.asarray(proxy[(..., *place)], np.float32)
        if isinstance(file, gzip.GzipFile):
            _compare_checksum(file, end, name)
    values = nibabel.apply_orientation(values, turned)
    sizes = nibabel.affines.voxel_sizes(affine)[np.argsort(turned[:, 0])]
    # Rounded to single precision, which is how NIfTI-1 stores them.
    x, y, z = (float(f"{size:.6g}") for size in sizes)
    slices = np.ascontiguousarray(values[::-1, ::-1].transpose(2, 1, 0))
    slices[~np.isfinite(slices)] = np.nan
    return Volume(
        values=slices,
        modality=form,
        windows=(None,) * len(slices),
        patient=f"file\0{path.absolute()}",
        facts={"spacing": [x, y, z], "bits": 8 * kind.itemsize, "volumes": count, **facts},
        axes=PLANES["axial"],
        native_axes=find_thickest(PLANES["axial"], (z, y, x)),
        spacing=(z, y, x),
    )


def _count_volumes(shape: tuple[int, ...], name: str, number: int | None) -> int:
    """Return how many volumes the file has, after a check of the one that is read."""
    text = " × ".join(map(str, shape))
    more = [size for size in shape[3:] if size != 1]
    if len(shape) < 3 or len(more) > 1:
        raise ImageReadError(
            name, f"has {len(shape)} axes ({text}); expected 3, or 4 with one volume after another"
        )
    check_shape(name, *shape[:3])
    if not more:
        return 1
    count = more[0]
    if count < 1 or math.prod(shape) > FILE_VOXEL_LIMIT:
        raise ImageReadError(
            name, f"has {text} voxels; expected between 1 and {FILE_VOXEL_LIMIT:,}"
        )
    if number is None:
        raise ImageReadError(
            name, f"has {count:,} volumes ({text}); pass volume=N, from 1 to {count}, for one"
        )
    if number > count:
        raise ImageReadError(
            name, f"has {count:,} volumes ({text}), and volume is {number}; expected 1 to {count}"
        )
    return count


def _is_compressed(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(_GZIP)) == _GZIP


def _open(path: Path) -> Any:
    return gzip.open(path) if _is_compressed(path) else path.open("rb")


def _compare_checksum(file: gzip.GzipFile, end: int, name: str) -> None:
    """Read to the end of the file, where gzip compares the checksum."""
    while file.tell() <= end + END_LIMIT:
        if not file.read(_CHUNK):
            return
    raise ImageReadError(name, f"has more than {END_LIMIT:,} bytes after its voxels")
