"""predict with a bag head: one answer for each patient, from whatever holds its images."""

import json
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from support.bundles import weigh_by_attention
from support.dicoms import draw_volume, write_series
from support.halves import CLASSES, SIZE, Blocks, draw

from brainfeat import Predictor, extract, fit_head, predict, read_table
from brainfeat.errors import HeadError, ParameterError
from brainfeat.extraction.preprocessing import preprocess_image
from brainfeat.heads.bundle import HeadBundle
from brainfeat.prediction.answers import Prediction, WeightedSlice
from brainfeat.prediction.dicom_results import write_secondary_capture, write_sr
from brainfeat.prediction.explanation import explain
from brainfeat.prediction.export import export_head
from brainfeat.prediction.patients import find_belonging
from brainfeat.readers import read_image
from brainfeat.readers.series import find_inputs

PER_PATIENT = 4


def write_patients(folder: Path, n: int, *, seed: int = 0) -> Path:
    """Draw slices of n patients of each class, in folders of their own."""
    rng = np.random.default_rng(seed)
    for place, name in enumerate(CLASSES):
        for number in range(n):
            patient = folder / name / f"{name}-{number:02}"
            patient.mkdir(parents=True)
            for row in range(PER_PATIENT):
                draw(rng, bright=bool(place)).save(patient / f"{row}.png")
    return folder


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> HeadBundle:
    folder = tmp_path_factory.mktemp("patients")
    table = read_table(write_patients(folder / "slices", 30), group_level=2)
    extract(table, folder / "features.h5", backbone=Blocks())
    return fit_head(folder / "features.h5", head="logistic", bag="mean", n_jobs=1)


@pytest.fixture
def predictor(bundle: HeadBundle) -> Predictor:
    return Predictor(bundle, backbone=Blocks())


@pytest.fixture
def patients(tmp_path: Path) -> Path:
    return write_patients(tmp_path / "new", 2, seed=7)


def test_images_in_one_folder_are_one_answer(predictor: Predictor, patients: Path) -> None:
    found = predictor.predict(patients)
    assert [Path(answer.path).name for answer in found] == [
        f"{name}-0{number}" for name in CLASSES for number in range(2)
    ]
    for answer in found:
        assert answer.slices is not None
        assert (answer.slices.n, answer.slices.pooling) == (PER_PATIENT, "mean")
        assert answer.slices.decisions == {}
        assert answer.decision == Path(answer.path).parent.name
        assert answer.frame is None
    first = sorted((patients / "glioma" / "glioma-00").iterdir())
    pixels = np.stack([preprocess_image(read_image(file), size=SIZE) for file in first])
    expected = predictor.bundle.predict_proba([Blocks()(pixels)])[0]
    assert list(found[0].probabilities.values()) == pytest.approx(expected.tolist())
    assert found == predictor.predict(sorted(patients.rglob("*.png")))


def test_a_level_of_folders_is_the_patient(predictor: Predictor, patients: Path) -> None:
    for folder in patients.rglob("*-0*"):
        (folder / "t2").mkdir()
        (folder / "3.png").rename(folder / "t2" / "3.png")
    counts = [answer.slices.n for answer in predictor.predict(patients) if answer.slices]
    assert counts == [3, 1] * 4
    found = predictor.predict(patients, group_level=2)
    assert [answer.slices.n for answer in found if answer.slices] == [4] * 4
    assert found[0].path == str(patients / "glioma" / "glioma-00")
    by_class = predictor.predict(patients, group_level=1)
    assert [answer.slices.n for answer in by_class if answer.slices] == [8, 8]
    with pytest.raises(ParameterError, match="nothing that was given is in a folder of level 4"):
        predictor.predict(patients, group_level=4)
    with pytest.raises(ParameterError, match="group_level is 0"):
        predictor.predict(patients, group_level=0)


def test_folders_of_one_name_are_one_patient_at_a_level(tmp_path: Path) -> None:
    for place in ("t1/p1/a.png", "t2/p1/b.png", "t2/p2/c.png", "d.png"):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).touch()
    inputs = find_inputs([tmp_path])
    found = find_belonging(inputs, [tmp_path], group_level=2)
    keys = dict(zip([image.name for image in inputs.images], found.images, strict=True))
    assert keys["a.png"] == (keys["b.png"][0], str(tmp_path / "t1" / "p1"))
    assert len({key for key, _ in keys.values()}) == 3
    assert keys["d.png"][1] == str(tmp_path)


def test_images_that_cannot_be_read_are_listed(predictor: Predictor, patients: Path) -> None:
    broken = patients / "glioma" / "glioma-00" / "1.png"
    broken.write_bytes(b"nothing")
    for file in (patients / "glioma" / "glioma-01").iterdir():
        file.write_bytes(b"nothing")
    first, refused, second, *rest = predictor.predict(patients / "glioma")
    assert first.slices is not None
    assert (first.slices.n, first.error) == (3, None)
    assert (refused.path, refused.decision) == (str(broken), None)
    assert second.error == "none of its 4 images can be read"
    assert second.decision is None
    assert len(rest) == 4
    (alone,) = predictor.predict(broken)
    assert alone.path == str(broken)
    assert alone.error is not None


def test_images_in_memory_that_are_given_together_are_one_patient(predictor: Predictor) -> None:
    images = [np.asarray(draw(np.random.default_rng(seed), bright=True)) for seed in range(3)]
    (found,) = predictor.predict(images)
    assert (found.path, found.decision) == ("images in memory", "notumor")
    (alone,) = predictor.predict(images[0])
    assert alone.path == "image 1"


def test_an_image_that_the_head_was_fitted_on_marks_its_patient(
    tmp_path: Path, patients: Path
) -> None:
    table = read_table(write_patients(tmp_path / "slices", 8), group_level=2)
    extract(table, tmp_path / "f.h5", backbone=Blocks())
    bundle = fit_head(tmp_path / "f.h5", head="lda", bag="max", n_jobs=1, group_by="column")
    assert bundle.fitted_images is not None
    new = patients / "glioma" / "glioma-00"
    digest = bundle.fitted_images.seen[0].tobytes()
    (known,) = (
        file
        for file in (tmp_path / "slices").rglob("*.png")
        if sha256(file.read_bytes()).digest() == digest
    )
    (new / "9.png").write_bytes(known.read_bytes())
    (found,) = predict(bundle, new, backbone=Blocks())
    assert found.seen == "exact-duplicate"
    assert found.slices is not None
    assert found.slices.seen == 1


def test_volumes_of_one_patient_are_one_answer(bundle: HeadBundle, tmp_path: Path) -> None:
    for name, patient in (("a", "P1"), ("b", "P2"), ("c", "P1")):
        write_series(tmp_path / name, draw_volume(3, size=SIZE), PatientID=patient)
    (tmp_path / "bad.nii").write_bytes(b"nothing")
    key = b"0123456789abcdef"
    head = weigh_by_attention(bundle)
    found = predict(head, tmp_path, backbone=Blocks(), patient_key=key)
    *answers, refused = found
    assert refused.error is not None
    assert refused.volume is not None
    sizes = [answer.slices.n for answer in answers if answer.slices]
    assert sorted(sizes) == [3, 6]
    two = next(answer for answer in answers if answer.slices and answer.slices.n == 6)
    assert two.path.count("volume") == 2
    assert two.group is not None
    assert two.slices is not None
    most = two.slices.most_weighted
    assert len(most) == 5
    assert [one.weight for one in most] == sorted([one.weight for one in most], reverse=True)
    assert {one.frame for one in most} <= {1, 2, 3}
    assert {one.path for one in most} <= set(two.path.split(" + "))
    assert Prediction.from_json(json.dumps(two.to_dict())) == two


def test_the_weights_of_a_patient_are_those_of_the_head(bundle: HeadBundle, patients: Path) -> None:
    head = weigh_by_attention(bundle)
    folder = patients / "glioma" / "glioma-01"
    (found,) = predict(head, folder, backbone=Blocks())
    files = sorted(folder.iterdir())
    pixels = np.stack([preprocess_image(read_image(file), size=SIZE) for file in files])
    weights = head.attention([Blocks()(pixels)])
    assert found.slices is not None
    assert found.slices.most_weighted == tuple(
        WeightedSlice(path=str(files[row]), frame=None, weight=pytest.approx(weights[row]))
        for row in np.argsort(-weights)
    )


def test_what_only_heads_of_images_do_is_refused(
    bundle: HeadBundle, patients: Path, tmp_path: Path
) -> None:
    pixels = np.zeros((1, SIZE, SIZE, 3), np.float32)
    with pytest.raises(ParameterError, match="heat maps are of single images"):
        explain(bundle, pixels, backbone=Blocks())
    for write in (write_sr, write_secondary_capture):
        with pytest.raises(ParameterError, match="DICOM results are of single volumes"):
            write([], tmp_path / "out.dcm", predictor=Predictor(bundle, backbone=Blocks()))
    with pytest.raises(HeadError, match="an exported model takes single ones"):
        export_head(bundle, tmp_path / "model.keras")
    alone = fit_image_head(tmp_path)
    with pytest.raises(ParameterError, match="the head predicts single images"):
        predict(alone, patients, backbone=Blocks(), group_level=1)


def fit_image_head(folder: Path) -> HeadBundle:
    table = read_table(write_patients(folder / "few", 4))
    extract(table, folder / "few.h5", backbone=Blocks())
    return fit_head(folder / "few.h5", head="lda", group_by="none", n_jobs=1)


def test_the_command_says_whose_images_were_taken_together(
    bundle: HeadBundle,
    patients: Path,
    tmp_path: Path,
    run: Callable[..., SimpleNamespace],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("brainfeat.prediction.bases.load_backbone", lambda *_, **__: Blocks())
    head = bundle.save(tmp_path / "head.h5")
    done = run("predict", head, patients)
    assert done.code == 0
    assert "4 images, taken together by mean" in done.out
    assert "images in one folder were taken as those of one patient; --group-level N" in done.err
    assert "fewer" not in done.err
    done = run("predict", head, patients / "glioma" / "glioma-00" / "0.png", "-o", tmp_path / "t")
    assert (
        "warning: 1 patient with fewer images than any that the head was fitted on (first: "
        f"{patients / 'glioma' / 'glioma-00' / '0.png'}, with 1 image); those had 4 to 4, median 4"
    ) in done.err
    assert len((tmp_path / "t").read_text().splitlines()) == 2
    done = run("predict", head, patients, "--group-level", 2)
    assert "images in one folder" not in done.err
    done = run("predict", head, patients, "--heatmap", tmp_path / "maps")
    assert done.code == 1
    assert "heat maps are of single images" in done.err
    assert not (tmp_path / "maps").exists()
    write_series(tmp_path / "series", draw_volume(), WindowCenter=900)
    done = run("predict", head, tmp_path / "series", "--sr", tmp_path / "sr.dcm")
    assert done.code == 1
    assert "DICOM results are of single volumes" in done.err
    assert not (tmp_path / "sr.dcm").exists()
    weighing = weigh_by_attention(bundle).save(tmp_path / "attention.h5")
    done = run("predict", weighing, patients / "glioma" / "glioma-00")
    assert "taken together by attention; most weighted: " in done.out
