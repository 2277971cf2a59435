"""PET becomes SUV by body weight where the header states all that it needs, or is refused."""

from datetime import datetime, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.pets import FACTOR, HALF_LIFE, make_pet, write_pet

from brainfeat import SlicePolicy
from brainfeat.errors import ImageReadError, ParameterError
from brainfeat.readers.dicom import read_series
from brainfeat.readers.dicom.administration import find_average
from brainfeat.readers.dicom.headers import describe
from brainfeat.readers.dicom.uptake import measure_uptake
from brainfeat.readers.series import find_series, read_volume
from brainfeat.readers.volumes import cut_slices

LAMBDA = np.log(2) / HALF_LIFE


def read(*paths, unit="SUVbw", **options):
    return read_series(paths, name="volume 1", unit=unit, **options)


def measure(path):
    """The factor from values in the file's Units to SUV."""
    activity = read(path, unit="").values[0, 0]
    return read(path).values[0, 0, -1] / activity[-1]


def reason(*paths):
    with pytest.raises(ImageReadError) as caught:
        read(*paths)
    assert caught.value.path == "volume 1"
    return caught.value.reason


def test_a_worked_example(tmp_path):
    """Worked by hand.

    370 MBq were given at 08:10:13.8; at 10:00:00, after 1:49:46.2 or one half-life, 185 MBq are
    left, which evenly in 74,000 g are 2,500 Bq/g. So 2,500 Bq/ml, of a stored 5,000 with a slope
    of 0.5, are an SUV of 1, and half of that is 0.5.
    """
    path = write_pet(tmp_path / "a")
    assert read(path, unit="").values.tolist() == [[[0, 1250, 2500]]]
    volume = read(path)
    assert volume.values.tolist() == [[[0, 0.5, 1]]]
    assert (volume.unit, volume.modality) == ("SUVbw", "PT")
    (shown,) = cut_slices(volume, SlicePolicy(window="suv:0-2"))
    assert shown.pixels.tolist() == [[0, 64, 128]]
    # What is given is shown by the policy alone.
    with pytest.raises(ParameterError, match="not known to be; read it with the same policy"):
        list(cut_slices(read(path, unit=""), SlicePolicy(window="suv:0-2")))


def test_values_that_are_corrected_to_the_administration_need_no_time(tmp_path):
    times = ["SeriesTime", "SeriesDate", "AcquisitionTime", "AcquisitionDate"]
    path = write_pet(
        tmp_path / "a",
        DecayCorrection="ADMIN",
        RadiopharmaceuticalStartTime=None,
        RadiopharmaceuticalStartDateTime=None,
        **dict.fromkeys(times),
    )
    assert measure(path) == pytest.approx(74_000 / 370e6)


def test_a_frame_that_is_not_corrected_belongs_to_its_average_activity(tmp_path):
    """Against the mean of the activity that is left over the frame, summed in small steps."""
    for number, seconds in enumerate((1, 600, 7200)):
        left = 370e6 * np.exp(-LAMBDA * (HALF_LIFE + np.linspace(0, seconds, 100_001)))
        path = write_pet(
            tmp_path / str(number),
            DecayCorrection="NONE",
            CorrectedImage=["ATTN", "SCAT"],
            ActualFrameDuration=str(1000 * seconds),
        )
        assert measure(path) == pytest.approx(74_000 / np.trapezoid(left) * 100_000, rel=1e-6)
        average = find_average(seconds, HALF_LIFE)
        assert np.exp(-LAMBDA * average) == pytest.approx(left.mean() / left[0], rel=1e-5)


def test_each_frame_that_is_not_corrected_has_a_factor_of_its_own(tmp_path):
    """Three frames of one steady distribution, 20 minutes apart, are equal in SUV."""
    paths = []
    for place in range(3):
        left = np.exp(-LAMBDA * 1200 * place)
        stored = np.array([[0, round(40_000 * left)]], np.uint16)
        paths.append(
            write_pet(
                tmp_path / str(place),
                stored,
                DecayCorrection="NONE",
                CorrectedImage=["ATTN"],
                AcquisitionTime=f"10{20 * place:02}00",
                ImagePositionPatient=[0, 0, place],
                FrameReferenceTime=None,
            )
        )
    values = read(*paths).values[:, 0, 1]
    assert values == pytest.approx(values[0], rel=1e-4)
    assert values[0] == pytest.approx(8 * np.exp(LAMBDA * find_average(120, HALF_LIFE)), rel=1e-4)


@pytest.mark.parametrize("corrected", ["START", "NONE"])
@given(
    minutes=st.integers(0, 24 * 60 - 1),
    uptake=st.integers(0, 6 * 3600 - 200),
    dated=st.booleans(),
)
def test_midnight_does_not_matter(corrected, minutes, uptake, dated):
    """Whenever in the day a patient is scanned, the same uptake time gives the same factor."""
    scan = datetime(2024, 3, 1) + timedelta(minutes=minutes)
    given_at = scan - timedelta(seconds=uptake)
    elements = {
        "SeriesDate": f"{scan:%Y%m%d}",
        "AcquisitionDate": f"{scan:%Y%m%d}",
        "SeriesTime": f"{scan:%H%M%S}",
        "AcquisitionTime": f"{scan:%H%M%S}",
        "RadiopharmaceuticalStartTime": f"{given_at:%H%M%S}",
        "RadiopharmaceuticalStartDateTime": f"{given_at:%Y%m%d%H%M%S}" if dated else None,
        "DecayCorrection": corrected,
        "CorrectedImage": ["ATTN"] + ["DECY"] * (corrected == "START"),
    }
    elapsed = uptake + find_average(120, HALF_LIFE) * (corrected == "NONE")
    expected = 74_000 / (370e6 * 2 ** (-elapsed / HALF_LIFE))
    assert factor_of(elements) == pytest.approx(expected, rel=1e-9)


def factor_of(elements):
    """The factor without a file in between."""
    dataset = make_pet(np.zeros((1, 1), np.uint16), **elements)
    frames = describe(dataset, "volume 1").frames
    (frame,) = measure_uptake(dataset, frames, name="volume 1").frames
    return frame.slope / 0.5


@given(hours=st.integers(7, 23), offset=st.sampled_from([0, 30, 3600]))
def test_an_administration_after_the_scan_is_refused_with_and_without_a_date(hours, offset):
    seconds = offset if offset else 1
    later = f"{hours:02}{seconds // 60 % 60:02}{seconds % 60:02}"
    scan = {"SeriesTime": f"{hours:02}0000", "AcquisitionTime": f"{hours:02}0000"}
    if offset == 3600:
        later = f"{hours:02}5959"
    for whole in (None, f"20240301{later}"):
        given_at = {
            "RadiopharmaceuticalStartTime": later,
            "RadiopharmaceuticalStartDateTime": whole,
        }
        with pytest.raises(ImageReadError, match="after the time that its values belong to"):
            factor_of({**scan, **given_at})


def test_series_that_were_processed_later(tmp_path):
    """The scan began at 10:00; this bed position, after ten minutes; the series is of 15:00."""
    later = {"SeriesTime": "150000", "AcquisitionTime": "101000"}
    siemens = {"FrameReferenceTime": f"{1000 * (600 + find_average(120, HALF_LIFE)):.3f}"}
    for maker in ("SIEMENS", "Siemens/CTI", "CPS", "Siemens Healthineers"):
        path = write_pet(tmp_path / "a", **later, **siemens, Manufacturer=maker)
        assert measure(path) == pytest.approx(FACTOR, rel=1e-6)
    for maker in ("Philips", "GE MEDICAL SYSTEMS", "", "COCTIS"):
        path = write_pet(tmp_path / "a", **later, **siemens, Manufacturer=maker)
        assert reason(path).startswith("has a SeriesTime after its AcquisitionTime")
    dataset = make_pet(np.array([[5000]], np.uint16), **later, Manufacturer="GE MEDICAL SYSTEMS")
    block = dataset.private_block(0x0009, "GEMS_PETD_01", create=True)
    block.add_new(0x0D, "DT", "20240301100000.00")
    dataset.save_as(tmp_path / "ge", enforce_file_format=True)
    assert read(tmp_path / "ge").values.tolist() == [[[1]]]
    # A scan time after the frame was acquired, too, is none.
    block[0x0D].value = "20240301103000.00"
    dataset.save_as(tmp_path / "ge", enforce_file_format=True)
    assert "SeriesTime after its AcquisitionTime" in reason(tmp_path / "ge")


def test_bed_positions_agree_on_the_start_or_are_refused(tmp_path):
    average = find_average(120, HALF_LIFE)
    for offset, fits in ((0, True), (0.5, True), (3, False)):
        paths = [
            write_pet(
                tmp_path / f"{offset}-{place}",
                SeriesTime="150000",
                AcquisitionTime=f"10{2 * place:02}00",
                FrameReferenceTime=f"{1000 * (120 * place + average + offset * (place == 2)):.3f}",
                ImagePositionPatient=[0, 0, place],
            )
            for place in range(3)
        ]
        if fits:
            assert read(*paths).values[:, 0, 2] == pytest.approx(1, rel=1e-4)
        else:
            assert reason(*paths).startswith("has files that are decay-corrected to different time")


def test_a_series_time_before_the_scan_must_fit_the_time_of_the_frame(tmp_path):
    """Ten minutes before: by FrameReferenceTime, too, or SUV would be wrong by 6.5 %."""
    early = {"AcquisitionTime": "101000"}
    fits = f"{1000 * (600 + find_average(120, HALF_LIFE)):.3f}"
    for stated in (fits, "0", "", None):
        path = write_pet(tmp_path / "a", **early, FrameReferenceTime=stated)
        assert measure(path) == pytest.approx(FACTOR, rel=1e-6)
    assert reason(write_pet(tmp_path / "a", **early)).startswith(
        "has a SeriesTime that contradicts AcquisitionTime and FrameReferenceTime"
    )
    assert measure(write_pet(tmp_path / "a", **early, Manufacturer="Philips")) == pytest.approx(
        FACTOR, rel=1e-6
    )


@pytest.mark.parametrize("stated", ["suv", "activity", "both"])
def test_counts_of_philips_become_suv_by_its_private_factors(stated, tmp_path):
    dataset = make_pet(np.array([[5000]], np.uint16), Units="CNTS", Manufacturer="Philips")
    block = dataset.private_block(0x7053, "Philips PET Private Group", create=True)
    block.add_new(0x00, "DS", "0.002" if stated != "activity" else "0")
    block.add_new(0x09, "DS", "3" if stated != "suv" else "0")
    if stated == "suv":  # then nothing else is needed
        del dataset.PatientWeight, dataset.RadiopharmaceuticalInformationSequence
    dataset.save_as(tmp_path / "a", enforce_file_format=True)
    expected = {"suv": 5, "both": 5, "activity": 3}[stated]
    assert read(tmp_path / "a").values == pytest.approx(expected)
    # The factor to SUV is of values that are decay-corrected.
    dataset.DecayCorrection, dataset.CorrectedImage = "NONE", ["ATTN"]
    dataset.save_as(tmp_path / "a", enforce_file_format=True)
    if stated == "suv":
        assert "neither of Philips' factors" in reason(tmp_path / "a")
    else:
        assert read(tmp_path / "a").values == pytest.approx(3.02, abs=0.01)


@pytest.mark.parametrize("value", ["0", "-1", "nan", "1\\2"])
def test_a_factor_of_philips_that_is_none_is_refused(value, tmp_path):
    dataset = make_pet(np.array([[5000]], np.uint16), Units="CNTS")
    block = dataset.private_block(0x7053, "Philips PET Private Group", create=True)
    block.add_new(0x00, "LO", value.split("\\"))
    dataset.save_as(tmp_path / "a", enforce_file_format=True)
    assert "neither of Philips' factors" in reason(tmp_path / "a")
    block = dataset.private_block(0x7053, "Somebody else", create=True)
    assert reason(write_pet(tmp_path / "b", Units="CNTS")).startswith("has the Units CNTS")


def test_values_that_are_suv_stay_and_other_suv_are_refused(tmp_path):
    bare = dict.fromkeys(["PatientWeight", "RadiopharmaceuticalInformationSequence"])
    for kind in (None, "", "BW"):
        path = write_pet(tmp_path / "a", Units="GML", SUVType=kind, **bare)
        assert read(path).values.tolist() == [[[0, 1250, 2500]]]
    for kind in ("LBM", "BSA", "IBW", "LBMJAMES128"):
        path = write_pet(tmp_path / "a", Units="GML", SUVType=kind, **bare)
        assert reason(path).startswith("has a SUVType other than BW, so that its SUV is not known")


@pytest.mark.parametrize(
    ("zone", "started"),
    [
        ("", "20240301081013.8+0100"),
        ("+0100", "20240301081013.8"),
        ("+0100", "20240301071013.8+0000"),
        ("-0500", "20240301141013.8+0100"),
        ("+9999", "20240301081013.8"),
    ],
)
def test_zones_of_times(zone, started, tmp_path):
    path = write_pet(
        tmp_path / "a", TimezoneOffsetFromUTC=zone, RadiopharmaceuticalStartDateTime=started
    )
    assert measure(path) == pytest.approx(FACTOR)


def test_a_series_is_found_and_read_by_the_policy(tmp_path):
    write_pet(tmp_path / "in" / "a")
    ((series,), unreadable) = find_series([tmp_path / "in"])
    assert not unreadable
    policy = SlicePolicy(window="suv:0-10")
    assert read_volume(series, policy=policy).values.max() == 1
    assert read_volume(series).values.max() == 2500
