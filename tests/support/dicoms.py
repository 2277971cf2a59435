"""DICOM files for tests, made by pydicom."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

AXIAL = [1, 0, 0, 0, 1, 0]

# Where elements stand in the functional groups of an enhanced file.
GROUPS = {
    "ImagePositionPatient": "PlanePositionSequence",
    "ImageOrientationPatient": "PlaneOrientationSequence",
    "StackID": "FrameContentSequence",
    "InStackPositionNumber": "FrameContentSequence",
    "TemporalPositionIndex": "FrameContentSequence",
    "FrameAcquisitionNumber": "FrameContentSequence",
    "DimensionIndexValues": "FrameContentSequence",
    "EffectiveEchoTime": "MREchoSequence",
    "DiffusionBValue": "MRDiffusionSequence",
    "FrameType": "MRImageFrameTypeSequence",
    "ComplexImageComponent": "MRImageFrameTypeSequence",
    "TemporalPositionTimeOffset": "TemporalPositionSequence",
    "NominalCardiacTriggerDelayTime": "CardiacSynchronizationSequence",
    "WindowCenter": "FrameVOILUTSequence",
    "WindowWidth": "FrameVOILUTSequence",
    "RescaleSlope": "PixelValueTransformationSequence",
    "RescaleIntercept": "PixelValueTransformationSequence",
    "PixelSpacing": "PixelMeasuresSequence",
}


def make_dataset(pixels: NDArray[Any], **elements: Any) -> Dataset:
    """Make an MR image of one or several frames; an element of None is left out."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.4"
    dataset.SOPInstanceUID = generate_uid()
    dataset.PatientID = "P1"
    dataset.StudyInstanceUID = "1.2.3.4"
    dataset.SeriesInstanceUID = "1.2.3.4.5"
    dataset.Modality = "MR"
    dataset.Rows, dataset.Columns = pixels.shape[-2:]
    if pixels.ndim == 3:
        dataset.NumberOfFrames = len(pixels)
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.BitsAllocated = 8 * pixels.dtype.itemsize
    dataset.BitsStored = dataset.BitsAllocated
    dataset.HighBit = dataset.BitsAllocated - 1
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    dataset.ImageOrientationPatient = AXIAL
    dataset.ImagePositionPatient = [0, 0, 0]
    dataset.InstanceNumber = 1
    dataset.PixelSpacing = [0.5, 0.5]
    dataset.PixelData = pixels.astype(pixels.dtype.newbyteorder("<")).tobytes()
    for name, value in elements.items():
        if value is None:
            del dataset[name]
        else:
            setattr(dataset, name, value)
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    return dataset


def write_dicom(path: Path, pixels: NDArray[Any], **elements: Any) -> Path:
    """Write what `make_dataset` makes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    make_dataset(pixels, **elements).save_as(path, enforce_file_format=True)
    return path


def write_series(
    folder: Path, volume: NDArray[Any], *, reverse: bool = False, **elements: Any
) -> list[Path]:
    """Write one file a slice, 3 mm apart; reversed, the files' names run from above."""
    series = elements.pop("SeriesInstanceUID", None) or generate_uid()
    paths = []
    for place, pixels in enumerate(volume):
        number = len(volume) - place if reverse else place + 1
        paths.append(
            write_dicom(
                folder / f"IM{number:04}",
                pixels,
                SeriesInstanceUID=series,
                ImagePositionPatient=[0, 0, 3.0 * place],
                InstanceNumber=number,
                **elements,
            )
        )
    return sorted(paths)


def draw_volume(n: int = 4, size: int = 8, *, seed: int = 0) -> NDArray[np.uint16]:
    """Draw a volume of noise, no two slices alike."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, 4096, (n, size, size)).astype(np.uint16)


def make_groups(elements: dict[str, Any]) -> Dataset:
    """Make the functional groups of one frame, or those that all frames share."""
    groups: dict[str, Dataset] = {}
    for name, value in elements.items():
        setattr(groups.setdefault(GROUPS[name], Dataset()), name, value)
    found = Dataset()
    for sequence, group in groups.items():
        setattr(found, sequence, Sequence([group]))
    return found


def write_enhanced(
    path: Path, pixels: NDArray[Any], frames: list[dict[str, Any]], **elements: Any
) -> Path:
    """Write one file of several frames, each with elements of its own."""
    return write_dicom(
        path,
        pixels,
        **{
            "SOPClassUID": "1.2.840.10008.5.1.4.1.1.4.1",
            "PerFrameFunctionalGroupsSequence": Sequence([make_groups(frame) for frame in frames]),
            "SharedFunctionalGroupsSequence": Sequence(
                [make_groups({"ImageOrientationPatient": AXIAL, "PixelSpacing": [0.9, 0.8]})]
            ),
            "ImageOrientationPatient": None,
            "ImagePositionPatient": None,
            "PixelSpacing": None,
            **elements,
        },
    )
