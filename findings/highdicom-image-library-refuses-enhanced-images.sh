#!/usr/bin/env bash
# highdicom 0.28.2, pydicom 3.0.2, NumPy 2.4.6, CPython 3.11: the image library of a measurement report
# cannot list an Enhanced MR or CT image, nor an MR image that is valid without a value of thickness.
#
# Behaviour: for the modalities MR, CT and PT, `ImageLibrary`, and `MeasurementReport` with
# `referenced_images`, read PixelSpacing, SliceThickness, ImagePositionPatient and
# ImageOrientationPatient from the top of the image. Enhanced multi-frame images have these in their
# functional groups, as PS3.3 requires, and the constructor ends with an AttributeError. An MR image
# whose SliceThickness is there and empty, which its type 2 allows, ends with a TypeError. All
# descriptors of the library are optional (PS3.16, TID 1604). What helps: to put ImageContentItems
# into a container of one's own, or to leave the library out.
#
# Output seen (what the library does with an image of each kind):
#   MR Image Storage: listed
#   MR Image Storage, empty thickness: TypeError
#   Enhanced MR Image Storage: AttributeError
#   Enhanced CT Image Storage: AttributeError
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet highdicom==0.28.2 pydicom==3.0.2 numpy==2.4.6
cat > "$work/check.py" << 'PY'
from highdicom.sr import ImageLibrary
from pydicom import Dataset
from pydicom.uid import UID

PLACED = {
    "PixelSpacing": [1, 1],
    "SliceThickness": 3,
    "ImagePositionPatient": [0, 0, 0],
    "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
}


def make(sop_class, **elements):
    image = Dataset()
    image.SOPClassUID = UID(sop_class)
    image.SOPInstanceUID = "1.2.3.4.5"
    image.StudyInstanceUID, image.SeriesInstanceUID = "1.2.3", "1.2.3.4"
    image.Rows = image.Columns = 8
    for keyword, value in elements.items():
        setattr(image, keyword, value)
    return image


def make_enhanced(sop_class, modality):
    """Make an image of two frames, with the elements where enhanced images have them."""
    groups = []
    for place in range(2):
        group = Dataset()
        group.PlanePositionSequence = [Dataset()]
        group.PlanePositionSequence[0].ImagePositionPatient = [0, 0, 3 * place]
        groups.append(group)
    shared = Dataset()
    shared.PixelMeasuresSequence = [Dataset()]
    shared.PixelMeasuresSequence[0].PixelSpacing = [1, 1]
    shared.PixelMeasuresSequence[0].SliceThickness = 3
    shared.PlaneOrientationSequence = [Dataset()]
    shared.PlaneOrientationSequence[0].ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    return make(
        sop_class,
        Modality=modality,
        NumberOfFrames=2,
        SharedFunctionalGroupsSequence=[shared],
        PerFrameFunctionalGroupsSequence=groups,
    )


def check(image, words=""):
    try:
        ImageLibrary([image])
        told = "listed"
    except (AttributeError, TypeError) as error:
        told = type(error).__name__
    print(f"{image.SOPClassUID.name}{words}: {told}")


MR = "1.2.840.10008.5.1.4.1.1.4"
check(make(MR, Modality="MR", **PLACED))
check(make(MR, Modality="MR", **{**PLACED, "SliceThickness": None}), ", empty thickness")
check(make_enhanced("1.2.840.10008.5.1.4.1.1.4.1", "MR"))
check(make_enhanced("1.2.840.10008.5.1.4.1.1.2.1", "CT"))
PY
cat > "$work/expected" << 'TXT'
MR Image Storage: listed
MR Image Storage, empty thickness: TypeError
Enhanced MR Image Storage: AttributeError
Enhanced CT Image Storage: AttributeError
TXT
"$work/venv/bin/python" "$work/check.py" | tee "$work/seen"
diff "$work/expected" "$work/seen"
