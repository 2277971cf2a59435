#!/usr/bin/env bash
# nibabel 5.4.2, SimpleITK 2.5.7, NumPy 2.4.6, CPython 3.11: a NIfTI-1 file whose quaternion is too long
# by two steps of float32 is refused by `nibabel.load` and read by SimpleITK.
#
# Behaviour: the header stores three of the quaternion's four parts as float32; the fourth is the root
# of 1 minus the sum of their squares, which is 0 for a half turn and then, by rounding, may be just
# below 0. nibabel takes it for 0 up to three float32 epsilons, and two steps of float32 above 1 in one
# part are already four of them. `nibabel.load` then raises ValueError, so that no voxel can be read,
# although the affine alone is concerned. Where an sform gives the affine, the file loads, but
# `get_qform` raises. SimpleITK reads both. Half turns are common, as the axes of scanners and of
# files often differ by flips, so one reader may refuse a series that another reads. What helps: to
# raise `nibabel.Nifti1Header.quaternion_threshold` to 1e-6 before loading. But it works on both
# sides of 0: with 1e-5, a rotation that is less than 0.36 degrees from a half turn becomes one.
#
# Output seen (the steps of float32 above 1; the diagonal of the affine, by nibabel as it is, by
# nibabel with 1e-6, and by SimpleITK in the same axes):
#   qform +0 nibabel [-2.0, 3.0, -4.0] with 1e-6 [-2.0, 3.0, -4.0] SimpleITK [-2.0, 3.0, -4.0]
#   qform +1 nibabel [-2.0, 3.0, -4.0] with 1e-6 [-2.0, 3.0, -4.0] SimpleITK [-2.0, 3.0, -4.0]
#   qform +2 nibabel ValueError with 1e-6 [-2.0, 3.0, -4.0] SimpleITK [-2.0, 3.0, -4.0]
#   sform +2 nibabel [2.0, 3.0, 4.0] get_qform ValueError SimpleITK [2.0, 3.0, 4.0]
#   a turn of 179.7 degrees is 179.7 with 1e-6 and 180.0 with 1e-5
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet nibabel==5.4.2 SimpleITK==2.5.7 numpy==2.4.6
cat > "$work/check.py" << 'PY'
import nibabel as nib
import numpy as np
import SimpleITK as sitk

VOXELS = np.arange(60, dtype=np.int16).reshape(3, 4, 5)
DEFAULT = nib.Nifti1Header.quaternion_threshold


def write(steps, sform):
    """Write a NIfTI-1 file with a half turn about y, whose quaternion is some steps too long."""
    header = nib.Nifti1Header()
    header.set_data_shape(VOXELS.shape)
    header.set_data_dtype(VOXELS.dtype)
    header["pixdim"][:4] = 1, 2, 3, 4
    header["qform_code"] = 1
    header["quatern_c"] = 1 + steps * np.finfo(np.float32).eps
    if sform:
        header.set_sform(np.diag([2, 3, 4, 1]), 1)
    header["magic"], header["vox_offset"] = b"n+1", 352
    with open("image.nii", "wb") as file:
        file.write(header.binaryblock + bytes(4) + VOXELS.tobytes(order="F"))


def by_nibabel(read, threshold=DEFAULT):
    nib.Nifti1Header.quaternion_threshold = threshold
    try:
        return np.diag(read(nib.load("image.nii")))[:3].tolist()
    except ValueError as error:
        return type(error).__name__
    finally:
        nib.Nifti1Header.quaternion_threshold = DEFAULT


def by_simpleitk():
    image = sitk.ReadImage("image.nii")
    assert (sitk.GetArrayFromImage(image) == VOXELS.T).all()
    matrix = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    return (np.diag(matrix) * [-1, -1, 1]).round(5).tolist()  # its x and y axes point the other way


for steps in range(3):
    write(steps, sform=False)
    plain, raised = (by_nibabel(lambda image: image.affine, t) for t in (DEFAULT, 1e-6))
    print(f"qform +{steps} nibabel", plain, "with 1e-6", raised, "SimpleITK", by_simpleitk())
write(2, sform=True)
affine, qform = by_nibabel(lambda image: image.affine), by_nibabel(lambda image: image.get_qform())
print("sform +2 nibabel", affine, "get_qform", qform, "SimpleITK", by_simpleitk())
header, turns = nib.Nifti1Header(), []
header["quatern_c"] = np.sin(np.radians(179.7 / 2))
for header.quaternion_threshold in (1e-6, 1e-5):
    turn = 2 * np.degrees(np.arccos(float(header.get_qform_quaternion()[0])))
    turns.append(round(turn, 1))
print("a turn of 179.7 degrees is", turns[0], "with 1e-6 and", turns[1], "with 1e-5")
PY
cat > "$work/expected" << 'TXT'
qform +0 nibabel [-2.0, 3.0, -4.0] with 1e-6 [-2.0, 3.0, -4.0] SimpleITK [-2.0, 3.0, -4.0]
qform +1 nibabel [-2.0, 3.0, -4.0] with 1e-6 [-2.0, 3.0, -4.0] SimpleITK [-2.0, 3.0, -4.0]
qform +2 nibabel ValueError with 1e-6 [-2.0, 3.0, -4.0] SimpleITK [-2.0, 3.0, -4.0]
sform +2 nibabel [2.0, 3.0, 4.0] get_qform ValueError SimpleITK [2.0, 3.0, 4.0]
a turn of 179.7 degrees is 179.7 with 1e-6 and 180.0 with 1e-5
TXT
cd "$work"
venv/bin/python check.py | tee seen
diff expected seen
