"""DICOM files without preamble are recognised by their first elements, and read as any other."""

import shutil
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
)
from support.dicoms import draw_volume, make_dataset, write_series

from brainfeat.errors import ImageReadError
from brainfeat.readers.dicom import is_dicom
from brainfeat.readers.dicom.bare import HEAD, find_syntax
from brainfeat.readers.series import find_inputs, find_series, read_volume

PACKAGED = Path(pydicom.__file__).parent / "data" / "test_files"
EXPLICIT, IMPLICIT = ExplicitVRLittleEndian, ImplicitVRLittleEndian


def write_bare(path, dataset, *, syntax=EXPLICIT):
    """Write a data set alone."""
    del dataset.file_meta
    dataset.preamble = None
    path.parent.mkdir(parents=True, exist_ok=True)
    pydicom.dcmwrite(path, dataset, implicit_vr=syntax == IMPLICIT, little_endian=True)
    return path


def write_with_meta(path, dataset):
    """Write a file whose preamble was cut off, but not its group 0002."""
    dataset.save_as(path, enforce_file_format=True)
    path.write_bytes(path.read_bytes()[132:])
    return path


@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT])
@pytest.mark.parametrize("suffix", ["", ".dcm"])
def test_a_series_without_preambles_is_the_same_volume(syntax, suffix, tmp_path):
    stored = draw_volume(4).astype(np.int16) - 2000
    whole = write_series(tmp_path / "whole", stored, PixelPaddingValue=int(stored[1, 2, 3]))
    for place, path in enumerate(whole):
        dataset = pydicom.dcmread(path)
        write_bare(tmp_path / "bare" / f"{place}{suffix}", dataset, syntax=syntax)
    (one,), _ = find_series([tmp_path / "whole"])
    (other,), unreadable = find_series([tmp_path / "bare"])
    assert not unreadable
    assert one.key == other.key
    expected = np.where(stored == stored[1, 2, 3], np.nan, stored)
    for series in (one, other):
        assert np.array_equal(read_volume(series).values, expected, equal_nan=True)


def test_a_mixed_folder_is_one_volume(tmp_path):
    paths = write_series(tmp_path, draw_volume(4))
    write_bare(paths[2], pydicom.dcmread(paths[2]))
    (series,), _ = find_series([tmp_path])
    assert (read_volume(series).values == draw_volume(4)).all()


@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT])
def test_a_preamble_before_a_data_set_alone_does_no_harm(syntax, tmp_path):
    pixels = draw_volume(1)[0]
    path = write_bare(tmp_path / "a", make_dataset(pixels), syntax=syntax)
    path.write_bytes(bytes(128) + b"DICM" + path.read_bytes())
    (series,), _ = find_series([path])
    assert (read_volume(series).values == pixels).all()


def test_the_transfer_syntax_of_group_0002_counts(tmp_path):
    pixels = draw_volume(1)[0]
    dataset = make_dataset(pixels)
    dataset.compress(RLELossless)
    path = write_with_meta(tmp_path / "rle", dataset)
    assert find_syntax(path.read_bytes()[:HEAD]) == RLELossless
    (series,), _ = find_series([path])
    assert (read_volume(series).values == pixels).all()


def test_a_deflated_file_is_refused_before_it_is_unpacked(tmp_path):
    dataset = make_dataset(draw_volume(1)[0])
    dataset.file_meta.TransferSyntaxUID = EXPLICIT
    path = write_with_meta(tmp_path / "a", dataset)
    data = path.read_bytes()
    stated = b"1.2.840.10008.1.2.1\0"
    # The same length of the element, so that the file stays one.
    assert data.count(stated) == 1
    place = data.index(stated) - 2
    longer = DeflatedExplicitVRLittleEndian.encode()
    path.write_bytes(
        data[:place] + bytes([len(longer), 0]) + longer + data[place + 2 + len(stated) :]
    )
    assert find_series([path])[1][0].reason.startswith("is deflated as a whole")


@pytest.mark.parametrize("name", ["no_meta.dcm", "ExplVR_BigEndNoMeta.dcm"])
def test_what_is_no_such_file_is_refused_by_name_where_its_name_says_dicom(name, tmp_path):
    path = PACKAGED / name
    assert not is_dicom(path)
    series, unreadable = find_series([path])
    assert not series
    assert [entry.reason for entry in unreadable] == ["is not a DICOM file"]
    shutil.copy(path, tmp_path / "unnamed")
    assert not any(find_inputs([tmp_path]))


@pytest.mark.parametrize("name", ["ExplVR_LitEndNoMeta.dcm", "rtstruct.dcm"])
def test_another_modality_is_refused_as_such(name):
    (series,), _ = find_series([PACKAGED / name])
    with pytest.raises(ImageReadError, match="modality other than"):
        read_volume(series)


def test_a_file_of_another_kind_is_none_by_luck(tmp_path):
    """Each byte of the first tag matters, and of its length."""
    rng = np.random.default_rng(0)
    path = write_bare(tmp_path / "a", make_dataset(draw_volume(1)[0]), syntax=IMPLICIT)
    head = path.read_bytes()[:HEAD]
    assert find_syntax(head) == IMPLICIT
    assert find_syntax(b"") is None
    assert find_syntax(head[:8]) is None
    assert find_syntax(head[: head.index(b"1.2.840") + 10]) is None
    for place in (0, 1, 2, 3, 5, 6, 7):
        for value in {*range(256)} - {head[place]}:
            assert find_syntax(head[:place] + bytes([value]) + head[place + 1 :]) is None
    for _ in range(2000):
        assert find_syntax(rng.bytes(HEAD)) is None
        assert find_syntax(b"\x08\0" + rng.bytes(HEAD - 2)) is None


@pytest.mark.parametrize(
    "start",
    [
        b"\x08\0\x18\0\x02\0\0\01\0",  # after the SOP class
        b"\x08\0\x05\0\x02\0\0\01\0\x08\0\x05\0\x02\0\0\01\0",  # twice
        b"\x08\0\x05\0\x03\0\0\01\0 ",  # an odd length
        b"\x08\0\x05\0\xff\xff\xff\xff",  # no length
        b"\x10\0\x10\0\x02\0\0\01\0",  # of another group
        b"\x08\0\x05\0CS\x02\01\0",  # of another representation than the next
        b"\x02\0\x10\0\x02\0\0\01\0",  # group 0002 with implicit representation
    ],
)
def test_elements_that_no_writer_would_write_are_no_dicom(start):
    uid = b"1.2.840.10008.5.1.4.1.1.4\0"
    assert find_syntax(b"\x08\0\x16\0" + bytes([len(uid), 0, 0, 0]) + uid + bytes(64)) == IMPLICIT
    assert find_syntax(start + b"\x08\0\x16\0" + bytes([len(uid), 0, 0, 0]) + uid) is None


def test_a_long_representation_is_stepped_over():
    uid = b"1.2.840.10008.5.1.4.1.1.4\0"
    head = b"\x08\0\x01\0UN\0\0\x04\0\0\0abcd" + b"\x08\0\x16\0UI" + bytes([len(uid), 0]) + uid
    assert find_syntax(head) == EXPLICIT


@pytest.mark.slow
@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT])
def test_damage_is_an_error_of_ours_that_quotes_nothing(syntax, tmp_path, caplog, recwarn):
    """Cut, flip and overwrite bytes: nothing else is raised, logged or warned of."""
    rng = np.random.default_rng(1)
    dataset = make_dataset(draw_volume(1)[0], WindowCenter=40, WindowWidth=80)
    dataset.PatientName = "CANARY^NAME"
    whole = write_bare(tmp_path / "a", dataset, syntax=syntax).read_bytes()
    told, n_read = [], 0
    path = tmp_path / "CANARY.dcm"
    for number in range(400):
        data = bytearray(whole)
        if number % 4 == 0:
            data = data[: rng.integers(40, len(data))]
        else:
            for place in rng.integers(0, len(data), rng.integers(1, 8)):
                data[place] = rng.integers(256)
        path.write_bytes(data)
        series, unreadable = find_series([path])
        told += [entry.reason for entry in unreadable]
        for entry in series:
            try:
                read_volume(entry)
                n_read += 1
            except ImageReadError as error:
                told.append(str(error))
    assert min(n_read, len(told)) > 40
    assert not [text for text in told if "CANARY" in text]
    assert not caplog.records
    assert not recwarn.list
