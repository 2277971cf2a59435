"""NIfTI files become volumes, through nibabel; nothing that names a person leaves this module.

Neither the text of a header nor messages of nibabel, which quote it, are passed on.
"""

import gzip
import math
import os
import re
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from stat import S_ISREG
from typing import Any

import numpy as np

from brainfeat.errors import ImageReadError, MissingDependencyError
from brainfeat.readers.silence import silence
from brainfeat.readers.volumes import Volume, check_shape

# Largest offset of the voxels; the extensions before it are skipped.
OFFSET_LIMIT = 16_000_000
# Most bytes after the voxels of a compressed file; most files have none.
END_LIMIT = 16_000_000
_CHUNK = 1_000_000

# Smallest volume of a voxel in mm³; below it, the axes do not span space.
_LEAST_VOLUME = 1e-12
# Millimetres per unit of length, by NIfTI code; other codes, such as 2, mean millimetres.
_MILLIMETRES = {1: 1000.0, 3: 0.001}
_GZIP = b"\x1f\x8b"
# Most bytes that one byte of deflate expands to (zlib.net/zlib_tech.html).
_DEFLATE_RATIO = 1032
_MOST_AXES = 7
_SIZES = {348: "Nifti1Header", 540: "Nifti2Header"}
_SUBJECT = re.compile(r"sub-[0-9A-Za-z]+")
# What nibabel and gzip raise on damaged files.
_DAMAGE = (OSError, ValueError, TypeError, KeyError, IndexError, OverflowError, MemoryError,
           EOFError, ArithmeticError, NotImplementedError, struct.error, zlib.error)  # fmt: skip


def read_nifti(path: Path, *, name: str) -> Volume:
    """Read a NIfTI-1 or NIfTI-2 file as axial slices in the radiological orientation.

    The first slice is the lowest one, the first row is anterior, and the first column is on the
    patient's right, as in axial DICOM.

    Parameters
    ----------
    path : Path
        A ``.nii`` or ``.nii.gz`` file.
    name : str
        Name of the volume in error messages; not the path, which can contain a person's name.

    Returns
    -------
    Volume

    Raises
    ------
    ImageReadError
        If the file cannot be read, or is not one volume of real numbers.
    MissingDependencyError
        If nibabel is not installed.
    """
    nibabel = _import_nibabel()
    with _translating(name, nibabel):
        header = _read_header(path, name, nibabel)
        _check_header(header, name)
        _check_length(path, header, name)
        units = int(header["xyzt_units"]) & 7
        affine = np.asarray(header.get_best_affine()) * _MILLIMETRES.get(units, 1.0)
        known = np.isfinite(affine).all() and abs(np.linalg.det(affine[:3, :3])) >= _LEAST_VOLUME
        turned = nibabel.io_orientation(affine) if known else np.array(np.nan)
        if not np.isfinite(turned).all():
            raise ImageReadError(name, "has no usable orientation")
        # A nibabel image would read the extensions, whatever size they claim to have.
        with _open(path) as file:
            proxy = nibabel.arrayproxy.ArrayProxy(file, header, mmap=False)
            values = np.asarray(proxy, np.float32).reshape(proxy.shape[:3])
            if isinstance(file, gzip.GzipFile):
                _compare_checksum(file, name)
        values = nibabel.apply_orientation(values, turned)
        sizes = nibabel.affines.voxel_sizes(affine)[np.argsort(turned[:, 0])]
        # Rounded to single precision, which is how NIfTI-1 stores them.
        spacing = [float(f"{size:.6g}") for size in sizes]
    slices = np.ascontiguousarray(values[::-1, ::-1].transpose(2, 1, 0))
    slices[~np.isfinite(slices)] = np.nan
    n, rows, columns = slices.shape
    return Volume(
        values=slices,
        modality="NIfTI",
        windows=(None,) * n,
        patient=_identify(path),
        facts={
            "rows": rows,
            "columns": columns,
            "frames": n,
            "spacing": spacing,
            "bits": 8 * header.get_data_dtype().itemsize,
        },
    )


def _import_nibabel() -> Any:
    try:
        import nibabel
    except ImportError as error:
        raise MissingDependencyError(
            "NIfTI needs nibabel, which is not installed: pip install 'brainfeat[medical]'"
        ) from error
    return nibabel


@contextmanager
def _translating(name: str, nibabel: Any) -> Iterator[None]:
    """Suppress nibabel's warnings and replace its errors, which quote the file."""
    from nibabel.filebasedimages import ImageFileError

    own = (nibabel.spatialimages.HeaderDataError, ImageFileError)
    try:
        with silence("nibabel", "nibabel.global"), np.errstate(all="ignore"):
            yield
    except ImageReadError:
        raise
    except (*_DAMAGE, *own):
        raise ImageReadError(name, "is damaged or not a readable NIfTI file") from None


def _is_compressed(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(_GZIP)) == _GZIP


def _open(path: Path) -> Any:
    return gzip.open(path) if _is_compressed(path) else path.open("rb")


def _read_header(path: Path, name: str, nibabel: Any) -> Any:
    """Read only the header, which states the size of the rest."""
    try:
        if not S_ISREG(path.stat().st_mode):
            raise ImageReadError(name, "is not a regular file")
        with _open(path) as file:
            start = file.read(max(_SIZES))
    except OSError as error:
        if isinstance(error, ImageReadError) or error.errno is None:
            raise
        raise ImageReadError(name, f"cannot be read ({os.strerror(error.errno)})") from None
    for order in "<>":
        size = struct.unpack(f"{order}i", start[:4])[0] if len(start) >= 4 else 0
        if size in _SIZES and len(start) >= size:
            kind = getattr(nibabel, _SIZES[size])
            return kind(start[:size], endianness=order, check=False)
    raise ImageReadError(name, "is not a NIfTI file")


def _check_header(header: Any, name: str) -> None:
    magic = bytes(header["magic"])[:3]
    if magic in (b"ni1", b"ni2"):
        raise ImageReadError(name, "is one of a pair of files; convert the pair to one .nii")
    if magic not in (b"n+1", b"n+2"):
        raise ImageReadError(name, "is not a NIfTI file, but perhaps an Analyze file")
    # A smaller offset would show text of the header as voxels.
    if not header.single_vox_offset <= header["vox_offset"] <= OFFSET_LIMIT:
        raise ImageReadError(
            name,
            f"has voxels that do not begin after its header and within its first {OFFSET_LIMIT:,} "
            "bytes",
        )
    axes = int(header["dim"][0])
    if not 1 <= axes <= _MOST_AXES:
        raise ImageReadError(name, f"has {axes} axes; expected one volume of 3 axes")
    shape = tuple(int(size) for size in header.get_data_shape())
    if len(shape) < 3 or any(size != 1 for size in shape[3:]):
        raise ImageReadError(
            name,
            f"has {len(shape)} axes ({' × '.join(map(str, shape))}); expected one volume of 3 axes",
        )
    check_shape(name, *shape[:3])
    kind = header.get_data_dtype()
    if kind.kind not in "iuf" or kind.itemsize > 8:
        raise ImageReadError(name, "has voxels that are not real numbers")


def _check_length(path: Path, header: Any, name: str) -> None:
    """Reject a file that is too short for its voxels, before memory is allocated for them."""
    held = path.stat().st_size * (_DEFLATE_RATIO if _is_compressed(path) else 1)
    voxels = math.prod(header.get_data_shape()) * header.get_data_dtype().itemsize
    if held < header.get_data_offset() + voxels:
        raise ImageReadError(name, "is shorter than its header states")


def _compare_checksum(file: gzip.GzipFile, name: str) -> None:
    """Read to the end of the file, where gzip compares the checksum."""
    for _ in range(END_LIMIT // _CHUNK):
        if not file.read(_CHUNK):
            return
    raise ImageReadError(name, f"has more than {END_LIMIT:,} bytes after its voxels")


def _identify(path: Path) -> str:
    """Identify the subject by its BIDS name in the path, or else by the file."""
    for part in reversed(path.absolute().parts):
        if found := _SUBJECT.match(part):
            return f"subject\0{found[0]}"
    return f"file\0{path.absolute()}"
