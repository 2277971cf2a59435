"""NIfTI files become volumes, through nibabel; nothing that names a person leaves this module."""

import struct
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from brainfeat.errors import ImageReadError
from brainfeat.readers.volumes import Volume
from brainfeat.readers.voxels import read_axial, read_start, spans_space, translating

# Largest offset of the voxels; the extensions before it are skipped.
OFFSET_LIMIT = 16_000_000

# Millimetres per unit of length, by NIfTI code; other codes, such as 2, mean millimetres.
_MILLIMETRES = {1: 1000.0, 3: 0.001}
_MOST_AXES = 7
_SIZES = {348: "Nifti1Header", 540: "Nifti2Header"}
# A quaternion that is longer than 1 by less has been rounded; a longer one is damaged.
_ROUNDING = 1e-3


def read_nifti(path: Path, *, name: str, volume: int | None = None) -> Volume:
    """Read a NIfTI-1 or NIfTI-2 file as axial slices in the radiological orientation.

    The first slice is the lowest one, the first row is anterior, and the first column is on the
    patient's right, as in axial DICOM. The sform places the voxels, or else the qform, and without
    both the sizes of the voxels; an sform or qform that does not span space is passed over where
    the other one does. Where both are set, nibabel also takes the sform, and ITK takes the qform
    unless the sform is that of the scanner.

    Parameters
    ----------
    path : Path
        A ``.nii`` or ``.nii.gz`` file.
    name : str
        Name of the volume in error messages; not the path, which can contain a person's name.
    volume : int or None, default=None
        Which volume of several on a fourth axis is read, from 1; None refuses several.

    Returns
    -------
    Volume
        Its facts state what placed the voxels: ``affine`` is ``"sform"``, ``"qform"`` or
        ``"none: pixdim"``, and ``affine_conflict`` whether sform and qform are both set and lie
        along different axes.

    Raises
    ------
    ImageReadError
        If the file cannot be read, or is not one volume of real numbers.
    MissingDependencyError
        If nibabel is not installed.
    """
    with translating(name, "NIfTI") as nibabel:
        header = _read_header(path, name, nibabel)
        _check_header(header, name)
        affine, facts = _choose_affine(header, nibabel)
        return read_axial(
            path,
            header,
            affine,
            name=name,
            number=volume,
            form="NIfTI",
            facts=facts,
        )


def _read_header(path: Path, name: str, nibabel: Any) -> Any:
    """Read only the header, which states the size of the rest."""
    start = read_start(path, max(_SIZES), name=name)
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


def _choose_affine(header: Any, nibabel: Any) -> tuple[npt.NDArray[np.float64], dict[str, Any]]:
    """Return what places the voxels in mm, and which of the header's ways it is."""
    scale = _MILLIMETRES.get(int(header["xyzt_units"]) & 7, 1.0)
    found: dict[str, npt.NDArray[np.float64]] = {}
    if header["sform_code"] > 0:
        found["sform"] = np.asarray(header.get_sform(), np.float64) * scale
    if header["qform_code"] > 0:
        found["qform"] = _read_qform(header, nibabel) * scale
    if not found:
        base = np.asarray(header.get_base_affine(), np.float64) * scale
        return base, {"affine": "none: pixdim", "affine_conflict": False}
    usable = [way for way, affine in found.items() if spans_space(affine)]
    way = usable[0] if usable else next(iter(found))
    turned = [nibabel.io_orientation(found[way]) for way in usable]
    conflict = len(turned) > 1 and not np.array_equal(*turned)
    return found[way], {"affine": way, "affine_conflict": conflict}


def _read_qform(header: Any, nibabel: Any) -> npt.NDArray[np.float64]:
    """Return the qform, as nifti1.h describes it; NaN where the header has none.

    A quaternion that rounding made longer than 1 is normalised, as the NIfTI library does.
    """
    x, y, z = (float(header[f"quatern_{axis}"]) for axis in "bcd")
    length = np.sqrt(x * x + y * y + z * z)
    sizes = np.asarray(header["pixdim"][1:4], np.float64)
    if not (length <= 1 + _ROUNDING and (sizes > 0).all()):
        return np.full((4, 4), np.nan)
    w = np.sqrt(max(0.0, 1 - length**2))
    # quat2mat normalises what it is given.
    turn = nibabel.quaternions.quat2mat([w, x, y, z])
    sizes[2] *= -1 if header["pixdim"][0] < 0 else 1
    return np.asarray(nibabel.affines.from_matvec(turn * sizes), np.float64)
