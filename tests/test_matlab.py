"""The MATLAB files of the brain tumour data of Cheng et al.: image, class, patient; no name."""

import os
import traceback

import h5py
import numpy as np
import pytest
import scipy.io

from brainfeat.errors import ImageReadError
from brainfeat.readers.matlab import read_matlab

IMAGE = np.random.default_rng(0).integers(0, 4000, (48, 40)).astype(np.int16)
TEXT = b"MATLAB 7.3 MAT-file, Platform: PCWIN64, Created on: CANARY"


def encode(text):
    return np.array([[ord(letter)] for letter in text], np.uint16)


def write(path, *, packed=True, **fields):
    """Write a file as MATLAB does; a field of None is left out."""
    given = {
        "image": IMAGE,
        "label": np.array([[2.0]]),
        "PID": encode("MR017260F"),
        "tumorMask": (IMAGE > 3000).astype(np.uint8),
        "tumorBorder": np.array([[1.5, 2.5, 3.5]]),
    }
    options = {"compression": "gzip", "compression_opts": 3} if packed else {}
    with h5py.File(path, "w", userblock_size=512) as file:
        group = file.create_group("cjdata")
        group.attrs["MATLAB_class"] = np.bytes_("struct")
        for name, values in {**given, **fields}.items():
            if values is None:
                continue
            # MATLAB stores columns, so that HDF5 shows the transposed array.
            stored = values.T if name in ("image", "tumorMask") else values
            chosen = {**options, "chunks": stored.shape} if stored.size > 100 else {}
            group.create_dataset(name, data=stored, **chosen)
            group[name].attrs["MATLAB_class"] = np.bytes_("double")
    with path.open("r+b") as file:
        file.write(TEXT)
    return path


def read(path):
    return read_matlab(path, name="volume 1")


def reason(path):
    with pytest.raises(ImageReadError) as caught:
        read(path)
    assert caught.value.path == "volume 1"
    assert "CANARY" not in "".join(traceback.format_exception(caught.value))
    return caught.value.reason


@pytest.mark.parametrize("packed", [True, False])
def test_the_image_is_as_matlab_shows_it(packed, tmp_path):
    volume = read(write(tmp_path / "1.mat", packed=packed))
    assert volume.values.dtype == np.float32
    assert volume.values.shape == (1, 48, 40)
    assert (volume.values[0] == IMAGE).all()
    assert volume.windows == (None,)
    assert volume.facts == {"spacing": None, "bits": 16}
    assert volume.modality == "MATLAB"
    assert volume.axes == ""


@pytest.mark.parametrize(("number", "label"), [(1, "meningioma"), (2, "glioma"), (3, "pituitary")])
@pytest.mark.parametrize("dtype", ["f8", "u1", "i4"])
def test_the_class_is_that_of_its_number(number, label, dtype, tmp_path):
    fields = {"label": np.array([[number]], dtype)}
    assert read(write(tmp_path / "1.mat", **fields)).label == label


@pytest.mark.parametrize("label", [[[0.0]], [[4.0]], [[1.5]], [[np.nan]], [[1.0, 2.0]]])
def test_another_label_is_refused(label, tmp_path):
    path = write(tmp_path / "1.mat", label=np.array(label))
    assert "is not one of 1 (meningioma), 2 (glioma), 3 (pituitary)" in reason(path)


def test_a_file_without_label_has_no_class(tmp_path):
    assert read(write(tmp_path / "1.mat", label=None)).label == ""


def test_the_patient_is_that_of_the_file(tmp_path):
    patients = [
        read(write(tmp_path / f"{number}.mat", PID=pid)).patient
        for number, pid in enumerate([encode("1"), encode("1").T, encode("2"), None, None])
    ]
    assert patients[0] == patients[1] == "cjdata\0001"
    assert len(set(patients)) == 4
    path = write(tmp_path / "1.mat", PID=np.array([[100360.0]]))
    assert "has a PID that is not text" in reason(path)


def test_values_that_are_not_finite_have_no_value(tmp_path):
    image = IMAGE.astype("f8")
    image[0, 0], image[1, 1], image[2, 2] = np.inf, np.nan, 1e300
    with np.errstate(all="raise"):
        volume = read(write(tmp_path / "1.mat", image=image))
    assert np.isnan(volume.values).sum() == 3


def test_other_matlab_files_are_refused_with_what_was_expected(tmp_path):
    for number, version in enumerate("45"):
        scipy.io.savemat(tmp_path / f"{number}.mat", {"CANARY": IMAGE}, format=version)
    (tmp_path / "2.mat").write_bytes(b"CANARY" * 200)
    (tmp_path / "3.mat").write_bytes(b"")
    with h5py.File(tmp_path / "4.mat", "w", userblock_size=512) as file:
        file["CANARY"] = IMAGE
    expected = [
        "is a MATLAB file of version 4; ",
        "is a MATLAB file of version 5 to 7; ",
        "is not a MATLAB file that is read; ",
        "is not a MATLAB file that is read; ",
        "has no cjdata.image; ",
    ]
    for number, words in enumerate(expected):
        found = reason(tmp_path / f"{number}.mat")
        assert found.startswith(words + "expected MATLAB 7.3 with cjdata.image")


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"image": None}, "has no cjdata.image"),
        ({"image": np.zeros((4, 4, 4), "i2")}, "has an image of 3 axes; expected 2"),
        ({"image": IMAGE.astype("c8")}, "does not hold plain numbers"),
        ({"label": np.zeros((1, 9999))}, "expected at most 4,096"),
        ({"PID": np.zeros((9999, 1), np.uint16)}, "expected at most 4,096"),
    ],
)
def test_what_cannot_be_an_image_of_the_data_set_is_refused(fields, words, tmp_path):
    assert words in reason(write(tmp_path / "1.mat", **fields))


def test_paths_that_are_not_regular_files_are_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe.mat")
    assert reason(tmp_path / "pipe.mat") == "is not a regular file"
    assert reason(tmp_path) == "is not a regular file"
    assert reason(tmp_path / "no.mat") == "cannot be read (No such file or directory)"


def test_a_damaged_file_is_read_or_refused_and_says_nothing(tmp_path, recwarn):
    path = write(tmp_path / "CANARY.mat", PID=encode("CANARY"))
    whole, rng = path.read_bytes(), np.random.default_rng(0)
    used = np.flatnonzero(np.frombuffer(whole, np.uint8))
    outcomes, words = {"read": 0, "refused": 0}, []
    for _ in range(400):
        data = bytearray(whole)
        data[rng.choice(used[used >= 512])] = rng.integers(256)
        path.write_bytes(data)
        try:
            assert "CANARY" not in repr(read(path))
            outcomes["read"] += 1
        except ImageReadError as error:
            outcomes["refused"] += 1
            words.append(str(error))
    assert "CANARY" not in "".join(words)
    assert min(outcomes.values()) > 30
    for length in range(0, len(whole), 97):
        path.write_bytes(whole[:length])
        reason(path)
    assert not recwarn.list
