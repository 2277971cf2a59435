"""FreeSurfer's MGH files become volumes, through nibabel; no text of a file is read.

The format: https://surfer.nmr.mgh.harvard.edu/fswiki/FsTutorial/MghFormat
"""

from pathlib import Path

import numpy as np

from brainfeat.errors import ImageReadError
from brainfeat.readers.volumes import Volume
from brainfeat.readers.voxels import read_axial, read_start, translating

# The voxels begin here; text comes only after them.
_OFFSET = 284
_VERSION = b"\0\0\0\1"
# The fields that nibabel reads; the rest up to the voxels is not used.
_FIELDS = 90
_TYPES = (0, 1, 3, 4, 10)  # uint8, int32, float32, int16, uint16


def read_mgh(path: Path, *, name: str, volume: int | None = None) -> Volume:
    """Read an MGH file as axial slices in the radiological orientation.

    Parameters
    ----------
    path : Path
        A ``.mgh`` or ``.mgz`` file.
    name : str
        Name of the volume in error messages; not the path, which can contain a person's name.
    volume : int or None, default=None
        Which of several frames is read, from 1; None refuses several.

    Returns
    -------
    Volume
        As :func:`brainfeat.readers.nifti.read_nifti` returns it. Its fact ``affine`` is ``"ras"``,
        or ``"none: default"`` where the file does not state how it lies in space: then it is
        coronal, as FreeSurfer takes it.

    Raises
    ------
    ImageReadError
        If the file cannot be read, or is not one volume of real numbers.
    MissingDependencyError
        If nibabel is not installed.
    """
    with translating(name, "MGH") as nibabel:
        start = read_start(path, _OFFSET, name=name)
        if len(start) < _OFFSET or start[:4] != _VERSION:
            raise ImageReadError(name, "is not an MGH file")
        # The header sets its own orientation where it has none.
        is_placed = any(start[28:30])
        header = nibabel.freesurfer.mghformat.MGHHeader(start[:_FIELDS], check=False)
        if int(header["type"]) not in _TYPES:
            raise ImageReadError(name, "has voxels of a type that is not read")
        return read_axial(
            path,
            header,
            np.asarray(header.get_affine(), np.float64),
            name=name,
            number=volume,
            form="MGH",
            facts={"affine": "ras" if is_placed else "none: default", "affine_conflict": False},
        )
