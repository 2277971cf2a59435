"""PET whose header cannot be trusted is refused in SUV, by the keyword of an element."""

import re

import numpy as np
import pytest
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from support.pets import GIVEN, make_pet, write_pet

from brainfeat.errors import ImageReadError
from brainfeat.readers.dicom import read_series


def reason(*paths):
    with pytest.raises(ImageReadError) as caught:
        read_series(paths, name="volume 1", unit="SUVbw")
    assert caught.value.path == "volume 1"
    return caught.value.reason


MISSING = [
    *("PatientWeight", "Units", "DecayCorrection", "SeriesDate", "SeriesTime", "AcquisitionDate"),
    *("AcquisitionTime", "RescaleSlope", "RadiopharmaceuticalInformationSequence"),
    *("RadionuclideTotalDose", "RadionuclideHalfLife"),
]


@pytest.mark.parametrize("empty", [False, True])
@pytest.mark.parametrize("keyword", MISSING)
def test_what_is_missing_is_named(keyword, empty, tmp_path):
    value = (Sequence() if keyword.endswith("Sequence") else "") if empty else None
    assert reason(write_pet(tmp_path / "a", **{keyword: value})).startswith(f"states no {keyword}")


def test_the_reason_says_what_to_do(tmp_path):
    assert reason(write_pet(tmp_path / "a", PatientWeight=None)) == (
        "states no PatientWeight, so that its SUV is not known; expected 0.5 to 500 kg; correct "
        "the header, or leave the volume out"
    )
    assert reason(write_pet(tmp_path / "a", RadionuclideTotalDose="370")) == (
        "has an implausible value of RadionuclideTotalDose, so that its SUV is not known; expected "
        "1,000,000 to 10,000,000,000 Bq; correct the header, or leave the volume out"
    )


STARTED = "RadiopharmaceuticalStartDateTime"
REFUSED = {
    "weight 0": ({"PatientWeight": "0"}, "has an implausible value of PatientWeight"),
    "weight in g": ({"PatientWeight": "74000"}, "has an implausible value of PatientWeight"),
    "weight below 0": ({"PatientWeight": "-74"}, "has an implausible value of PatientWeight"),
    "weight twice": ({"PatientWeight": ["74", "74"]}, "has a damaged PatientWeight"),
    "weight of infinity": ({"PatientWeight": "1e400"}, "has a damaged PatientWeight"),
    "dose 0": ({"RadionuclideTotalDose": "0"}, "has an implausible value of RadionuclideTotalDose"),
    "dose in MBq": (
        {"RadionuclideTotalDose": "370"},
        "has an implausible value of RadionuclideTotalDose",
    ),
    "dose huge": (
        {"RadionuclideTotalDose": "1e300"},
        "has an implausible value of RadionuclideTotalDose",
    ),
    "half-life 0": (
        {"RadionuclideHalfLife": "0"},
        "has an implausible value of RadionuclideHalfLife",
    ),
    "half-life in minutes": (
        {"RadionuclideHalfLife": "109.77", "FrameReferenceTime": None},
        "more than 10 times",
    ),
    "no attenuation": ({"CorrectedImage": ["DECY"]}, "has no ATTN in CorrectedImage"),
    "no correction": ({"CorrectedImage": None}, "has no ATTN in CorrectedImage"),
    "no decay": ({"CorrectedImage": ["ATTN"]}, "that contradicts DecayCorrection"),
    "decay and none": ({"DecayCorrection": "NONE"}, "that contradicts DecayCorrection"),
    "unknown correction": (
        {"DecayCorrection": "SCAN"},
        "has an unsuitable value of DecayCorrection",
    ),
    "two units": ({"Units": ["BQML", "GML"]}, "has an unsuitable value of Units"),
    "counts": ({"Units": "PROPCPS"}, "has an unsuitable value of Units"),
    "no time": (dict.fromkeys([STARTED, "RadiopharmaceuticalStartTime"]), f"states no {STARTED}"),
    "years ago": ({STARTED: "20140301081013.8"}, "more than 10 times RadionuclideHalfLife before"),
    "other time": ({STARTED: "20240301084000"}, "StartTime other than that of Radiopharm"),
    "a year": ({STARTED: "2024"}, f"has a damaged {STARTED}"),
    "no such day": ({STARTED: "20240230081013"}, f"has a damaged {STARTED}"),
    "an hour": ({"RadiopharmaceuticalStartTime": "08"}, "damaged RadiopharmaceuticalStartTime"),
    "no such time": (
        {"RadiopharmaceuticalStartTime": "259999", STARTED: None},
        "has a RadiopharmaceuticalStartTime after",
    ),
    "far away": ({"RadiopharmaceuticalStartTime": "0300", STARTED: None}, "more than 6 hours"),
    "long half-life": ({"RadionuclideHalfLife": "282240", STARTED: None}, "so long that days"),
    "series time": ({"SeriesTime": "ten"}, "damaged SeriesDate or SeriesTime"),
    "series date": ({"SeriesDate": "20240000"}, "damaged SeriesDate or SeriesTime"),
    "not a PET": ({"Modality": "CT"}, "is of a Modality other than PT"),
    "gated": (
        {"DecayCorrection": "NONE", "CorrectedImage": ["ATTN"], "SeriesType": ["GATED", "IMAGE"]},
        "is gated",
    ),
    "no duration": (
        {"DecayCorrection": "NONE", "CorrectedImage": ["ATTN"], "ActualFrameDuration": None},
        "states no ActualFrameDuration",
    ),
    "duration 0": (
        {"DecayCorrection": "NONE", "CorrectedImage": ["ATTN"], "ActualFrameDuration": "0"},
        "has an implausible value of ActualFrameDuration",
    ),
    "no reference": (
        {"SeriesTime": "150000", "FrameReferenceTime": None},
        "states no FrameReferenceTime",
    ),
}


@pytest.mark.filterwarnings("ignore:Invalid value")
@pytest.mark.parametrize(("elements", "words"), REFUSED.values(), ids=REFUSED)
def test_what_is_not_plausible_is_refused_by_its_keyword(elements, words, tmp_path):
    found = reason(write_pet(tmp_path / "a", **elements))
    assert words in found
    # No value of the header is shown but the limits that were expected.
    shown = set(re.findall(r"[0-9.]*[0-9]", found)) - {"0.5", "500", "1,000,000"} - {"6", "10"}
    assert not shown & {*map(str, elements.values())}


def test_a_lookup_table_has_no_place_in_pet(tmp_path):
    path = write_pet(tmp_path / "a", ModalityLUTSequence=Sequence([Dataset()]))
    assert reason(path).startswith("has a ModalityLUTSequence")


def test_several_radiopharmaceuticals_are_refused(tmp_path):
    item = Dataset()
    for keyword, value in GIVEN.items():
        setattr(item, keyword, value)
    path = write_pet(tmp_path / "a", RadiopharmaceuticalInformationSequence=Sequence([item, item]))
    assert "of several items or none" in reason(path)


@pytest.mark.parametrize(
    ("keyword", "vr", "value"),
    [
        ("PatientWeight", "LO", "heavy"),
        ("PatientWeight", "OB", b"\xff\xff"),
        ("Units", "DS", "1"),
        ("CorrectedImage", "FD", 1.0),
        ("SeriesTime", "FD", 100000.0),
        ("RadiopharmaceuticalInformationSequence", "LO", "FDG"),
        ("RadionuclideTotalDose", "OB", b"\x00" * 64),
    ],
)
def test_an_element_of_another_representation_is_refused(keyword, vr, value, tmp_path):
    dataset = make_pet(np.array([[5000]], np.uint16))
    owner = dataset
    if keyword in GIVEN:
        owner = dataset.RadiopharmaceuticalInformationSequence[0]
    tag = owner[keyword].tag
    owner[tag] = DataElement(tag, vr, value)
    dataset.save_as(tmp_path / "a", enforce_file_format=True)
    assert keyword in reason(tmp_path / "a")


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("Units", "GML"),
        ("PatientWeight", "75"),
        ("RadionuclideTotalDose", "371000000"),
        ("RadionuclideHalfLife", "1223.4"),
        ("DecayCorrection", "ADMIN"),
    ],
)
def test_files_of_one_volume_that_differ_are_refused(keyword, value, tmp_path):
    one = write_pet(tmp_path / "a")
    two = write_pet(tmp_path / "b", ImagePositionPatient=[0, 0, 1], **{keyword: value})
    assert reason(one, two) == f"has files of more than one {keyword}"
    assert reason(two, one) == f"has files of more than one {keyword}"
