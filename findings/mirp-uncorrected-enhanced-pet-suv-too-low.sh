#!/usr/bin/env bash
# MIRP 2.7.0, pydicom 3.0.2, NumPy 2.4.6, CPython 3.11: the SUV of an enhanced PET file that is not
# decay-corrected is too low, without a warning, where its frames state their start and duration and
# no FrameReferenceDateTime.
#
# Behaviour: values that are not decay-corrected belong to the moment in the frame at which the
# activity was its average over the frame, log(c F / (1 - exp(-c F))) / c after its start, with the
# decay constant c = log(2) / half-life and the length F of the frame (DICOM PS3.3, C.8.9.4.1.5). For
# enhanced files, MIRP has the half-life in seconds itself in the place of c, which puts that moment
# within milliseconds of the start. The dose is then that of the start of the frame: for 10 minutes,
# SUV is 3.1 % too low with fluorine-18 and 15.2 % with carbon-11. The same file with a
# FrameReferenceDateTime at that moment gets the right SUV, and so does a classic file with
# DecayCorrection NONE. What helps: to write FrameReferenceDateTime into each frame, by the formula
# above, before such files are read.
#
# Output seen (SUV of an even phantom whose SUV is 1 by construction):
#   F-18 classic 1.000 enhanced 0.969 with FrameReferenceDateTime 1.000
#   C-11 classic 1.000 enhanced 0.848 with FrameReferenceDateTime 1.000
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet mirp==2.7.0 pydicom==3.0.2 numpy==2.4.6
cat > "$work/check.py" << 'PY'
import logging
import os
import warnings
from datetime import datetime, timedelta

import numpy as np
from mirp import extract_images
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

logging.disable()
warnings.simplefilter("ignore")
WEIGHT, DOSE, DURATION = 74.0, 370e6, 600.0  # kg, Bq, s
START = datetime(2024, 3, 1, 10)  # of the injection and of the frame
STORED = np.full((2, 4, 4), 10_000, np.uint16)


def item(**elements):
    dataset = Dataset()
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    return dataset


def make_image(half_life, mbq, pixels, **elements):
    """Make what classic and enhanced files have in common."""
    given = item(
        RadionuclideTotalDose=DOSE / 1e6 if mbq else DOSE,
        RadionuclideHalfLife=half_life,
        RadiopharmaceuticalStartDateTime=f"{START:%Y%m%d%H%M%S}",
    )
    dataset = item(
        PatientID="1", StudyInstanceUID="1.2.3", SeriesInstanceUID="1.2.3.4", Modality="PT",
        SOPInstanceUID=generate_uid(), FrameOfReferenceUID="1.2.3.5", PatientWeight=WEIGHT,
        RadiopharmaceuticalInformationSequence=[given], Rows=4, Columns=4, SamplesPerPixel=1,
        PhotometricInterpretation="MONOCHROME2", BitsAllocated=16, BitsStored=16, HighBit=15,
        PixelRepresentation=0, PixelData=pixels.tobytes(), **elements,
    )
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    return dataset


def write_classic(folder, half_life, slope):
    for place, pixels in enumerate(STORED):
        image = make_image(
            half_life, False, pixels, SOPClassUID="1.2.840.10008.5.1.4.1.1.128", Units="BQML",
            DecayCorrection="NONE", CorrectedImage=["ATTN"], SeriesDate="20240301",
            SeriesTime="100000", AcquisitionDate="20240301", AcquisitionTime="100000",
            ActualFrameDuration=1000 * DURATION, RescaleSlope=f"{slope:.10f}", RescaleIntercept=0,
            ImageOrientationPatient=[1, 0, 0, 0, 1, 0], ImagePositionPatient=[0, 0, 3 * place],
            PixelSpacing=[3, 3], SliceThickness=3, InstanceNumber=place + 1,
        )
        image.save_as(f"{folder}{place}.dcm", enforce_file_format=True)


def write_enhanced(path, half_life, slope, moment):
    unit = item(CodeValue="Bq/ml", CodingSchemeDesignator="UCUM", CodeMeaning="Bq/ml")
    mapping = item(
        MeasurementUnitsCodeSequence=[unit], RealWorldValueSlope=slope, RealWorldValueIntercept=0.0,
        RealWorldValueFirstValueMapped=0, RealWorldValueLastValueMapped=65535,
    )
    frames = []
    for place in range(len(STORED)):
        content = item(
            FrameAcquisitionDateTime=f"{START:%Y%m%d%H%M%S}",
            FrameAcquisitionDuration=1000 * DURATION,
            StackID="1", InStackPositionNumber=place + 1,
        )
        if moment:
            content.FrameReferenceDateTime = f"{moment:%Y%m%d%H%M%S.%f}"
        frames.append(
            item(
                FrameContentSequence=[content], RealWorldValueMappingSequence=[mapping],
                PlanePositionSequence=[item(ImagePositionPatient=[0, 0, 3 * place])],
            )
        )
    shared = item(
        PlaneOrientationSequence=[item(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])],
        PixelMeasuresSequence=[item(PixelSpacing=[3, 3], SliceThickness=3)],
    )
    make_image(
        half_life, True, STORED, SOPClassUID="1.2.840.10008.5.1.4.1.1.130", NumberOfFrames=2,
        AttenuationCorrected="YES", DecayCorrected="NO", SharedFunctionalGroupsSequence=[shared],
        PerFrameFunctionalGroupsSequence=frames,
    ).save_as(path, enforce_file_format=True)


def read(path):
    images = extract_images(image=path, image_export_format="numpy", export_images=True)
    return f"{float(np.mean(images[0][0][0])):.3f}"


for name, half_life in (("F-18", 6586.2), ("C-11", 1223.4)):
    decay = np.log(2) / half_life
    left = (1 - np.exp(-decay * DURATION)) / (decay * DURATION)  # mean over the frame
    slope = DOSE / (1000 * WEIGHT) * left / STORED[0, 0, 0]
    average = START + timedelta(seconds=float(-np.log(left) / decay))
    os.makedirs(name, exist_ok=True)
    write_classic(f"{name}/", half_life, slope)
    write_enhanced(f"{name}-a.dcm", half_life, slope, None)
    write_enhanced(f"{name}-b.dcm", half_life, slope, average)
    print(
        *(name, "classic", read(name), "enhanced", read(f"{name}-a.dcm")),
        *("with FrameReferenceDateTime", read(f"{name}-b.dcm")),
    )
PY
cat > "$work/expected" << 'TXT'
F-18 classic 1.000 enhanced 0.969 with FrameReferenceDateTime 1.000
C-11 classic 1.000 enhanced 0.848 with FrameReferenceDateTime 1.000
TXT
cd "$work"
venv/bin/python check.py | tee seen
diff expected seen
