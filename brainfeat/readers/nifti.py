"""NIfTI files to volumes, through nibabel; nothing that names a person leaves this module.

The text of a header, and messages of nibabel that quote it, are passed on nowhere.
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

# Where data begin: what lies before, the extensions, is passed over.
OFFSET_LIMIT = 16_000_000
# What follows the voxels of a packed file, which is nothing in most.
END_LIMIT = 16_000_000
_CHUNK = 1_000_000

# Of a voxel in mm³, below which its axes do not span space.
_LEAST_VOLUME = 1e-12
# Of the codes of NIfTI for units of length; others, such as 2, are taken for mm.
_MILLIMETRES = {1: 1000.0, 3: 0.001}
_GZIP = b"\x1f\x8b"
# Bytes of deflate, of which one holds no more (zlib.net/zlib_tech.html).
_DEFLATE_RATIO = 1032
_MOST_AXES = 7
_SIZES = {348: "Nifti1Header", 540: "Nifti2Header"}
_SUBJECT = re.compile(r"sub-[0-9A-Za-z]+")
# What nibabel and gzip raise on damaged files.
_DAMAGE = (OSError, ValueError, TypeError, KeyError, IndexError, OverflowError, MemoryError,
           EOFError, ArithmeticError, NotImplementedError, struct.error, zlib.error)  # fmt: skip


def read_nifti(path: Path, *, name: str) -> Volume:
    """Read a NIfTI-1 or NIfTI-2 file as axial slices, from below, as radiology shows them.

    The first row is anterior, and the first column on the patient's right, as in axial DICOM.

    Parameters
    ----------
    path : Path
        A ``.nii`` or ``.nii.gz`` file.
    name : str
        What errors call it; not the path, which can hold a name.

    Returns
    -------
    Volume

    Raises
    ------
    ImageReadError
        It cannot be read, or is no volume of numbers.
    MissingDependencyError
        nibabel is not installed.
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
        # Not an image of nibabel's, which reads extensions: as much as those say that they are.
        with _open(path) as file:
            proxy = nibabel.arrayproxy.ArrayProxy(file, header, mmap=False)
            values = np.asarray(proxy, np.float32).reshape(proxy.shape[:3])
            if isinstance(file, gzip.GzipFile):
                _compare_checksum(file, name)
        values = nibabel.apply_orientation(values, turned)
        sizes = nibabel.affines.voxel_sizes(affine)[np.argsort(turned[:, 0])]
        # Of single precision, as they are stored in NIfTI-1.
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
    """Keep nibabel's warnings and words to ourselves."""
    from nibabel.filebasedimages import ImageFileError

    own = (nibabel.spatialimages.HeaderDataError, ImageFileError)
    try:
        with silence("nibabel", "nibabel.global"), np.errstate(all="ignore"):
            yield
    except ImageReadError:
        raise
    except (*_DAMAGE, *own):
        raise ImageReadError(name, "is damaged, or no NIfTI that can be read") from None


def _is_packed(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(_GZIP)) == _GZIP


def _open(path: Path) -> Any:
    return gzip.open(path) if _is_packed(path) else path.open("rb")


def _read_header(path: Path, name: str, nibabel: Any) -> Any:
    """Read the header alone: it says how much the rest would take."""
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
    raise ImageReadError(name, "is no NIfTI file")


def _check_header(header: Any, name: str) -> None:
    magic = bytes(header["magic"])[:3]
    if magic in (b"ni1", b"ni2"):
        raise ImageReadError(name, "is one of a pair of files; write it as one .nii")
    if magic not in (b"n+1", b"n+2"):
        raise ImageReadError(name, "is no NIfTI file, but perhaps an Analyze one")
    # Before that offset there is text, which would be shown as voxels.
    if not header.single_vox_offset <= header["vox_offset"] <= OFFSET_LIMIT:
        raise ImageReadError(
            name,
            f"says that its voxels do not begin within its first {OFFSET_LIMIT:,} bytes, "
            "behind the header",
        )
    axes = int(header["dim"][0])
    if not 1 <= axes <= _MOST_AXES:
        raise ImageReadError(name, f"has {axes} axes; expected one volume, of three")
    shape = tuple(int(size) for size in header.get_data_shape())
    if len(shape) < 3 or any(size != 1 for size in shape[3:]):
        raise ImageReadError(
            name,
            f"has {len(shape)} axes ({' × '.join(map(str, shape))}); expected one volume: split it",
        )
    check_shape(name, *shape[:3])
    kind = header.get_data_dtype()
    if kind.kind not in "iuf" or kind.itemsize > 8:
        raise ImageReadError(name, "has voxels that are no plain numbers")


def _check_length(path: Path, header: Any, name: str) -> None:
    """Refuse a file that cannot hold its voxels, before memory is taken for them."""
    held = path.stat().st_size * (_DEFLATE_RATIO if _is_packed(path) else 1)
    voxels = math.prod(header.get_data_shape()) * header.get_data_dtype().itemsize
    if held < header.get_data_offset() + voxels:
        raise ImageReadError(name, "is shorter than its header says")


def _compare_checksum(file: gzip.GzipFile, name: str) -> None:
    """Read to the end, where gzip compares the checksum."""
    for _ in range(END_LIMIT // _CHUNK):
        if not file.read(_CHUNK):
            return
    raise ImageReadError(name, f"goes on for over {END_LIMIT:,} bytes behind its voxels")


def _identify(path: Path) -> str:
    """Name the subject as BIDS does, in the file's name or that of a folder, or else the file."""
    for part in reversed(path.absolute().parts):
        if found := _SUBJECT.match(part):
            return f"subject\0{found[0]}"
    return f"file\0{path.absolute()}"
