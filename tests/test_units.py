"""Hounsfield units and SUV: which files have them, in enhanced files too, and who asks for them."""

import json

import nibabel
import numpy as np
import pytest
from click.testing import CliRunner
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from support.dicoms import make_groups, write_dicom, write_enhanced
from support.halves import Blocks
from support.pets import FACTOR, GIVEN, HALF_LIFE, write_pet

from brainfeat import Predictor, SlicePolicy, extract, fit_head, read_table, write_slices
from brainfeat.cli.slices import command as slices_command
from brainfeat.errors import ImageReadError, SpecMismatchError
from brainfeat.readers.dicom import read_series
from brainfeat.readers.dicom.administration import find_average
from brainfeat.readers.series import find_series, read_volume
from brainfeat.readers.volumes import cut_slices

STORED = np.array([[[0, 2500, 5000]], [[5000, 2500, 0]]], np.uint16)


def read(*paths, unit, **options):
    return read_series(paths, name="volume 1", unit=unit, **options)


def reason(*paths, unit):
    with pytest.raises(ImageReadError) as caught:
        read(*paths, unit=unit)
    return caught.value.reason


# Hounsfield units

CT = {
    "SOPClassUID": "1.2.840.10008.5.1.4.1.1.2",
    "Modality": "CT",
    "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
    "RescaleSlope": "1",
    "RescaleIntercept": "-1024",
}


def write_ct(path, **elements):
    stored = np.arange(0, 4095, 7, dtype=np.uint16).reshape(5, -1)
    kept = {key: value for key, value in {**CT, **elements}.items() if value is not None}
    return write_dicom(path, stored, **kept)


@pytest.mark.parametrize(
    ("window", "centre", "width"),
    [
        ("ct:brain", 40, 80),
        ("ct:subdural", 80, 200),
        ("ct:stroke", 40, 40),
        ("ct:bone", 600, 2800),
        ("ct:-50.5,301", -50.5, 301),
    ],
)
def test_windows_of_ct_are_linear_in_hounsfield_units(window, centre, width, tmp_path):
    policy = SlicePolicy(window=window)
    volume = read(write_ct(tmp_path / "a"), unit=policy.unit)
    assert volume.unit == "HU"
    (shown,) = cut_slices(volume, policy)
    units = np.arange(0, 4095, 7).reshape(5, -1) - 1024.0
    expected = 255 * np.clip((units - (centre - width / 2)) / width, 0, 1)
    assert np.abs(shown.pixels - expected).max() <= 0.5 + 1e-6
    # Without a unit, the same window shows the same.
    (plain,) = cut_slices(volume, SlicePolicy(window=f"{centre},{width}"))
    assert (plain.pixels == shown.pixels).all()


@pytest.mark.parametrize(
    "elements",
    [
        {"RescaleType": "HU"},
        {"RescaleType": ""},
        {"ImageType": ["DERIVED", "SECONDARY", "MPR"]},
        {"MultienergyCTAcquisition": "NO"},
        {"MultienergyCTAcquisition": "YES", "RescaleType": "HU"},
        {"PhotometricInterpretation": "MONOCHROME1"},
    ],
)
def test_what_is_in_hounsfield_units(elements, tmp_path):
    assert read(write_ct(tmp_path / "a", **elements), unit="HU").values.min() == -1024


NO_CT = {
    "MR": ({"Modality": "MR"}, "is of a Modality other than CT"),
    "PET": ({"Modality": "PT"}, "is of a Modality other than CT"),
    "modified": ({"RescaleType": "HU_MOD"}, "has a RescaleType other than HU"),
    "concentration": ({"RescaleType": "MGML"}, "has a RescaleType other than HU"),
    "unspecified": ({"RescaleType": "US"}, "has a RescaleType other than HU"),
    "two types": ({"RescaleType": ["HU", "HU"]}, "has a RescaleType other than HU"),
    "energies": ({"MultienergyCTAcquisition": "YES"}, "multi-energy acquisition and states no Res"),
    "scout": ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, "has the ImageType LOCALIZER"),
    "no slope": ({"RescaleSlope": None}, "states no RescaleSlope or no RescaleIntercept"),
    "no intercept": ({"RescaleIntercept": None}, "states no RescaleSlope or no RescaleIntercept"),
}


@pytest.mark.filterwarnings("ignore:Invalid value")
@pytest.mark.parametrize(("elements", "words"), NO_CT.values(), ids=NO_CT)
def test_what_is_not_in_hounsfield_units_is_refused(elements, words, tmp_path):
    path = write_ct(tmp_path / "a", **elements)
    assert words in reason(path, unit="HU")
    assert "expected" in reason(path, unit="HU")
    assert read(path, unit="").unit == ""


@pytest.mark.parametrize("kind", ["HU", "US", None])
def test_a_lookup_table_says_what_it_leads_to(kind, tmp_path):
    table = Dataset()
    table.LUTDescriptor = [4096, 0, 16]
    table.LUTData = np.arange(4096, dtype=np.uint16).tobytes()
    if kind:
        table.ModalityLUTType = kind
    bare = {"RescaleSlope": None, "RescaleIntercept": None}
    path = write_ct(tmp_path / "a", ModalityLUTSequence=Sequence([table]), **bare)
    if kind == "HU":
        assert read(path, unit="HU").values.max() == 4088
    else:
        assert "ModalityLUTType other than HU" in reason(path, unit="HU")


def test_one_file_in_other_units_refuses_the_volume(tmp_path):
    one = write_ct(tmp_path / "a")
    two = write_ct(tmp_path / "b", RescaleType="US", ImagePositionPatient=[0, 0, 1])
    for paths in ((one, two), (two, one)):
        assert "RescaleType other than HU" in reason(*paths, unit="HU")


@pytest.mark.parametrize("kinds", [["HU", "HU"], ["HU", "US"], ["HU", "HU_MOD"]])
def test_each_frame_of_an_enhanced_ct_has_its_type(kinds, tmp_path):
    frames = []
    for place, kind in enumerate(kinds):
        group = make_groups(
            {"ImagePositionPatient": [0, 0, place], "RescaleSlope": 2, "RescaleIntercept": -9}
        )
        group.PixelValueTransformationSequence[0].RescaleType = kind
        frames.append(group)
    path = write_enhanced(
        tmp_path / "a",
        STORED,
        [],
        SOPClassUID="1.2.840.10008.5.1.4.1.1.2.1",
        Modality="CT",
        PerFrameFunctionalGroupsSequence=Sequence(frames),
    )
    if set(kinds) == {"HU"}:
        assert read(path, unit="HU").values[0, 0].tolist() == [-9, 4991, 9991]
        chosen = read(path, unit="HU", frames=[1])
        assert chosen.values.tolist() == [[[9991, 4991, -9]]]
    else:
        assert "RescaleType other than HU" in reason(path, unit="HU")


# Enhanced PET


def make_mapping(code="Bq/ml", slope=0.5, first=0, last=65535):
    unit = Dataset()
    unit.CodeValue, unit.CodingSchemeDesignator, unit.CodeMeaning = code, "UCUM", "unit"
    mapping = Dataset()
    mapping.MeasurementUnitsCodeSequence = Sequence([unit])
    mapping.RealWorldValueSlope, mapping.RealWorldValueIntercept = slope, 0.0
    mapping.RealWorldValueFirstValueMapped = first
    mapping.RealWorldValueLastValueMapped = last
    return mapping


def write_enhanced_pet(path, mappings=None, given=(), content=(), **elements):
    frames = []
    for place in range(2):
        group = make_groups({"ImagePositionPatient": [0, 0, place], "StackID": "1"})
        group.RealWorldValueMappingSequence = Sequence(
            [make_mapping()] if mappings is None else mappings[place]
        )
        for keyword, value in dict(content).items():
            setattr(group.FrameContentSequence[0], keyword, value[place])
        frames.append(group)
    item = Dataset()
    for keyword, value in {**GIVEN, "RadionuclideTotalDose": "370", **dict(given)}.items():
        if value is not None:
            setattr(item, keyword, value)
    stated = {
        "SOPClassUID": "1.2.840.10008.5.1.4.1.1.130",
        "Modality": "PT",
        "PatientWeight": "74",
        "AttenuationCorrected": "YES",
        "DecayCorrected": "YES",
        "DecayCorrectionDateTime": "20240301100000",
        "RadiopharmaceuticalInformationSequence": Sequence([item]),
        "PerFrameFunctionalGroupsSequence": Sequence(frames),
    }
    kept = {key: value for key, value in {**stated, **elements}.items() if value is not None}
    return write_enhanced(path, STORED, [], **kept)


def test_an_enhanced_pet_states_its_dose_in_mbq(tmp_path):
    """PS3.3 C.8.22.4; in a classic file it is in Bq."""
    path = write_enhanced_pet(tmp_path / "a")
    assert read(path, unit="SUVbw").values.tolist() == [[[0, 0.5, 1]], [[1, 0.5, 0]]]
    assert read(path, unit="SUVbw", frames=[1]).values.tolist() == [[[1, 0.5, 0]]]
    path = write_enhanced_pet(tmp_path / "b", given={"RadionuclideTotalDose": "370000000"})
    assert "has an implausible value of RadionuclideTotalDose" in reason(path, unit="SUVbw")
    assert "expected 1 to 10,000 MBq" in reason(path, unit="SUVbw")


def test_a_mapping_to_suv_needs_no_dose_and_counts_before_one_to_activity(tmp_path):
    bare = dict.fromkeys(["PatientWeight", "DecayCorrectionDateTime"])
    for code in ("{SUVbw}g/ml", "g/ml{SUVbw}"):
        mapping = [make_mapping(), make_mapping(code, 0.001)]
        path = write_enhanced_pet(tmp_path / "a", [mapping, mapping], **bare)
        assert read(path, unit="SUVbw").values[0, 0] == pytest.approx([0, 2.5, 5])
    # Frames may differ in their unit: all become SUV.
    mixed = [[make_mapping(code, 0.001)], [make_mapping()]]
    path = write_enhanced_pet(tmp_path / "b", mixed)
    assert read(path, unit="SUVbw").values[:, 0, 1] == pytest.approx([2.5, 0.5])


def test_values_that_are_not_mapped_have_none(tmp_path):
    mapping = [make_mapping(first=1, last=4999)]
    values = read(write_enhanced_pet(tmp_path / "a", [mapping] * 2), unit="SUVbw").values
    assert np.array_equal(values[0, 0], [np.nan, 0.5, np.nan], equal_nan=True)
    double, unlimited = make_mapping(), make_mapping()
    for mapping in (double, unlimited):
        del mapping.RealWorldValueFirstValueMapped, mapping.RealWorldValueLastValueMapped
    double.DoubleFloatRealWorldValueFirstValueMapped = 0.5
    double.DoubleFloatRealWorldValueLastValueMapped = 5000.0
    values = read(write_enhanced_pet(tmp_path / "b", [[double]] * 2), unit="SUVbw").values
    assert np.array_equal(values[0, 0], [np.nan, 0.5, 1], equal_nan=True)
    path = write_enhanced_pet(tmp_path / "c", [[unlimited]] * 2)
    assert "RealWorldValueMappingSequence without limits" in reason(path, unit="SUVbw")


def test_frames_that_are_not_corrected_have_factors_of_their_own(tmp_path):
    content = {
        "FrameAcquisitionDateTime": ["20240301100000", "20240301101000"],
        "FrameAcquisitionDuration": [600_000.0, 600_000.0],
    }
    none = {"DecayCorrected": "NO", "DecayCorrectionDateTime": None}
    path = write_enhanced_pet(tmp_path / "a", content=content, **none)
    later = find_average(600, HALF_LIFE) + np.array([0, 600])
    expected = 2500 * FACTOR * 2 ** (later / HALF_LIFE)
    assert read(path, unit="SUVbw").values.max(axis=(1, 2)) == pytest.approx(expected, rel=1e-6)
    del content["FrameAcquisitionDuration"]
    path = write_enhanced_pet(tmp_path / "b", content=content, **none)
    assert reason(path, unit="SUVbw").startswith("states no FrameAcquisitionDuration")


NO_SUV = {
    "no mapping": ({"mappings": [[], []]}, "has no RealWorldValueMappingSequence"),
    "other unit": ({"mappings": [[make_mapping("{counts}")]] * 2}, "has no RealWorldValueMapping"),
    "lean body": ({"mappings": [[make_mapping("{SUVlbm}g/ml")]] * 2}, "has no RealWorldValueMapp"),
    "one frame": ({"mappings": [[make_mapping()], []]}, "has no RealWorldValueMappingSequence"),
    "twice": ({"mappings": [[make_mapping()] * 2] * 2}, "or several"),
    "slope 0": (
        {"mappings": [[make_mapping(slope=0.0)]] * 2},
        "has an implausible value of RealWorldValueSlope",
    ),
    "slope nan": ({"mappings": [[make_mapping(slope=np.nan)]] * 2}, "damaged RealWorldValueSlope"),
    "attenuation": (
        {"AttenuationCorrected": "NO"},
        "has an unsuitable value of AttenuationCorrected",
    ),
    "no decay": ({"DecayCorrected": None}, "states no DecayCorrected"),
    "no time": ({"DecayCorrectionDateTime": None}, "states no DecayCorrectionDateTime"),
    "no weight": ({"PatientWeight": None}, "states no PatientWeight"),
    "no start": (
        {
            "given": dict.fromkeys(
                ["RadiopharmaceuticalStartDateTime", "RadiopharmaceuticalStartTime"]
            )
        },
        "states no RadiopharmaceuticalStartDateTime",
    ),
    "dose 0": (
        {"given": {"RadionuclideTotalDose": "0"}},
        "has an implausible value of RadionuclideTotalDose",
    ),
    "legacy": ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.128.1"}, "states no Units"),
}


@pytest.mark.parametrize(("options", "words"), NO_SUV.values(), ids=NO_SUV)
def test_an_enhanced_pet_without_what_suv_needs_is_refused(options, words, tmp_path):
    assert words in reason(write_enhanced_pet(tmp_path / "a", **options), unit="SUVbw")


def test_several_frames_of_a_classic_kind_share_their_times(tmp_path):
    path = write_pet(tmp_path / "a", STORED)
    assert read(path, unit="SUVbw").values.max() == 1
    path = write_pet(tmp_path / "b", STORED, DecayCorrection="NONE", CorrectedImage=["ATTN"])
    assert "several frames and the DecayCorrection NONE" in reason(path, unit="SUVbw")


# Who asks for them


def test_files_that_state_no_unit_are_refused(tmp_path):
    nibabel.Nifti1Image(np.ones((4, 4, 4), np.int16), np.eye(4)).to_filename(tmp_path / "a.nii")
    ((series,), _) = find_series([tmp_path / "a.nii"])
    for window, unit in (("ct:brain", "HU"), ("suv:0-10", "SUVbw")):
        with pytest.raises(ImageReadError, match=f"state that values are in {unit}"):
            read_volume(series, policy=SlicePolicy(window=window))
    assert read_volume(series, policy=SlicePolicy(window="40,80")).unit == ""


def test_slices_are_cut_in_a_unit_and_others_refused(tmp_path):
    noise = np.random.default_rng(0).integers(0, 60_000, (8, 8)).astype(np.uint16)
    personal = {"PatientWeight": "77.377377", "RadionuclideTotalDose": "377377377"}
    write_pet(tmp_path / "in" / "a", noise, SeriesInstanceUID="1.2.3.1", **personal)
    write_pet(tmp_path / "in" / "b", noise, SeriesInstanceUID="1.2.3.2", PatientWeight=None)
    write_ct(tmp_path / "in" / "c", SeriesInstanceUID="1.2.3.3")
    output = tmp_path / "out"
    arguments = [str(tmp_path / "in"), "-o", str(output), "--window", "suv:0-10.0", "--json"]
    result = CliRunner().invoke(slices_command, arguments)
    document = json.loads(result.stdout)
    assert document["slices"] == 1
    reasons = [entry["reason"] for entry in document["refused"]]
    assert reasons[0].startswith("states no PatientWeight, so that its SUV is not known")
    assert reasons[1].startswith(
        "is of a Modality other than PT, and only PET has SUV; leave it out"
    )
    note = json.loads((output / "slices.json").read_text())
    assert "window=suv:0-10 " in note["policy"]
    # Nothing of what SUV is computed from gets out.
    for text in (result.output, (output / "slices.json").read_text()):
        assert "77.37" not in text
        assert "377377" not in text
    policy = SlicePolicy(window="ct:brain")
    assert write_slices([tmp_path / "in"], output, policy=policy, overwrite=True).volumes == 1
    arguments[4:] = ["ct:lung"]
    result = CliRunner().invoke(slices_command, [*arguments, "--overwrite"])
    assert "ct:brain, ct:subdural, ct:stroke, ct:bone, ct:CENTRE,WIDTH or suv:LOW-HIGH" in str(
        result.exception
    )


@pytest.mark.slow
def test_a_head_on_suv_answers_only_what_has_one(tmp_path):
    """The same policy is applied to new volumes; PET without a dose is refused, not answered."""
    rng = np.random.default_rng(0)
    for number in range(12):
        label = ("low", "high")[number % 2]
        stored = rng.integers(0, 5000, (8, 8)) + 20_000 * (number % 2)
        uid = f"1.2.3.{number}"
        write_pet(
            tmp_path / "in" / label / str(number),
            stored.astype(np.uint16),
            PatientID=f"P{number}",
            StudyInstanceUID=uid,
            SeriesInstanceUID=uid,
        )
    policy = SlicePolicy(window="suv:0-6")
    found = write_slices([tmp_path / "in"], tmp_path / "out", policy=policy, class_folders=True)
    cache = extract(read_table(found.output), tmp_path / "f.h5", backbone=Blocks()).output
    bundle = fit_head(cache, head="logistic", n_jobs=1)
    assert bundle.spec.volumes == policy.text
    for window in ("suv:0-5", "0.0003,0.0006", "auto"):
        with pytest.raises(SpecMismatchError, match="in the window suv:0-6"):
            Predictor(bundle, backbone=Blocks(), window=window)
    predictor = Predictor(bundle, backbone=Blocks(), window="suv:0.0-6")
    new = rng.integers(0, 5000, (8, 8)).astype(np.uint16)
    # Twice the weight, the dose and the values: the same SUV, and the same answer.
    heavy = {"PatientWeight": "148", "RadionuclideTotalDose": "740000000", "RescaleSlope": "0.5"}
    answers = [
        predictor.predict([write_pet(tmp_path / "new" / str(number), new, **elements)])
        for number, elements in enumerate(({}, heavy, {"RadionuclideTotalDose": None}))
    ]
    (plain, _), (scaled, _), (refused,) = answers
    assert plain.probabilities == scaled.probabilities
    assert not refused.probabilities
    assert refused.error.startswith("states no RadionuclideTotalDose, so that its SUV is not known")
