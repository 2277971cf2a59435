"""PET files for tests: 74 kg, 370 MBq of fluorine-18, and values of one half-life later.

So the factor from Bq/ml to SUV is 74,000 g / 185,000,000 Bq = 0.0004 g/Bq.
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from support.dicoms import make_dataset, write_dicom

HALF_LIFE = 6586.2  # of fluorine-18, in s: 1 h 49 min 46.2 s
FACTOR = 0.0004

# Written into the item of the sequence; everything else into the file.
GIVEN = {
    "RadionuclideTotalDose": "370000000",
    "RadionuclideHalfLife": "6586.2",
    "RadiopharmaceuticalStartTime": "081013.8",
    "RadiopharmaceuticalStartDateTime": "20240301081013.8",
}
CLASSIC = {
    "SOPClassUID": "1.2.840.10008.5.1.4.1.1.128",
    "Modality": "PT",
    "PatientWeight": "74",
    "Units": "BQML",
    "DecayCorrection": "START",
    "CorrectedImage": ["NORM", "DTIM", "ATTN", "SCAT", "DECY"],
    "SeriesType": ["WHOLE BODY", "IMAGE"],
    "SeriesDate": "20240301",
    "SeriesTime": "100000",
    "AcquisitionDate": "20240301",
    "AcquisitionTime": "100000",
    "ActualFrameDuration": "120000",
    "FrameReferenceTime": "59900",
    "Manufacturer": "SIEMENS",
    "RescaleSlope": "0.5",
    "RescaleIntercept": "0",
}


def name_elements(**elements: Any) -> dict[str, Any]:
    """Name the elements of a classic file; None leaves one out, in the sequence too."""
    given = {key: value for key, value in elements.items() if key in GIVEN}
    item = Dataset()
    for key, value in {**GIVEN, **given}.items():
        if value is not None:
            setattr(item, key, value)
    others = {key: value for key, value in elements.items() if key not in GIVEN}
    sequence = {"RadiopharmaceuticalInformationSequence": Sequence([item])}
    return {
        key: value for key, value in {**CLASSIC, **sequence, **others}.items() if value is not None
    }


def make_pet(pixels: NDArray[Any], **elements: Any) -> Dataset:
    """Make a classic PET file of one frame."""
    return make_dataset(pixels, **name_elements(**elements))


def write_pet(path: Path, pixels: NDArray[Any] | None = None, **elements: Any) -> Path:
    """Write a classic PET file of one frame."""
    stored = np.array([[0, 2500, 5000]], np.uint16) if pixels is None else pixels
    return write_dicom(path, stored, **name_elements(**elements))
