"""Predictions of patients by heads of several modalities, from folders, tables and volumes."""

import json
import shutil
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from support.phantom_modalities import (
    draw_modalities,
    extract_modalities,
    fit_modalities,
    pool_features,
)

from brainfeat import predict
from brainfeat.cli.main import group as command_line
from brainfeat.errors import BrainfeatError, BundleError, ParameterError, TableError
from brainfeat.extraction.backbones import load_backbone
from brainfeat.heads.bundle import HeadBundle
from brainfeat.prediction.answers import Prediction
from brainfeat.prediction.cases import match_patients
from brainfeat.prediction.joined import JoinedPredictor
from brainfeat.prediction.predictor import Predictor

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.fixture(scope="module", autouse=True)
def bases() -> Iterator[None]:
    """Load each base once for all predictions."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("brainfeat.prediction.bases.load_backbone", cache(load_backbone))
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("modalities")
    caches = extract_modalities(folder, draw_modalities(folder))
    fit_modalities(caches).save(folder / "head.h5")
    return folder


@pytest.fixture(scope="module")
def bundle(folder: Path) -> HeadBundle:
    return HeadBundle.load(folder / "head.h5")


@pytest.fixture(scope="module")
def answers(folder: Path, bundle: HeadBundle) -> list[Prediction]:
    """The predictions of all patients of both folders."""
    given = {"t1": folder / "t1", "flair": folder / "flair"}
    return predict(bundle, given, weights="random", patient_key=b"k" * 32)


def test_each_patient_has_one_answer_from_all_that_it_has(
    folder: Path, bundle: HeadBundle, answers: list[Prediction]
) -> None:
    assert [answer.path for answer in answers] == [f"p{patient:02}" for patient in range(24)]
    assert [answer.missing for answer in answers] == [()] * 22 + [("flair",)] * 2
    assert bundle.blocks is not None
    for answer in (answers[0], answers[5], answers[23]):
        X = np.full((1, sum(bundle.blocks.widths)), np.nan)
        X[0, : bundle.blocks.widths[0]] = pool_features(folder / "t1.h5", answer.path)
        if not answer.missing:
            X[0, bundle.blocks.widths[0] :] = pool_features(folder / "flair.h5", answer.path)
        expected = bundle.predict_proba(X)[0]
        np.testing.assert_allclose(list(answer.probabilities.values()), expected, atol=1e-4)
    sizes = bundle.training.split
    assert sizes is not None
    assert [answer.seen for answer in answers].count("exact-duplicate") == sizes.train + sizes.val
    document = json.loads(json.dumps(answers[23].to_dict()))
    assert document["missing"] == ["flair"]
    assert Prediction.from_json(json.dumps(document)).missing == ("flair",)


def test_one_patient_needs_no_names(
    folder: Path, bundle: HeadBundle, answers: list[Prediction], tmp_path: Path
) -> None:
    shutil.copytree(folder / "t1" / "p03", tmp_path / "first")
    flair = sorted((folder / "flair" / "p03").iterdir())
    predictor = JoinedPredictor(bundle, weights="random")
    [found] = predictor.predict({"t1": tmp_path / "first", "flair": flair})
    assert found.path == "patient 1"
    assert found.probabilities == pytest.approx(answers[3].probabilities, abs=1e-4)
    [alone] = predictor.predict({"t1": tmp_path / "first" / "0.png"})
    assert alone.missing == ("flair",)


def test_a_path_that_does_not_exist_is_told_before_a_base_is_loaded(
    folder: Path, bundle: HeadBundle
) -> None:
    given = {"t1": folder / "t1", "flair": folder / "none"}
    with pytest.raises(ParameterError, match="what was given for flair does not exist; name a"):
        JoinedPredictor(bundle, weights="no such file").predict(given)


def test_a_table_names_path_modality_and_group(
    folder: Path, bundle: HeadBundle, answers: list[Prediction], tmp_path: Path
) -> None:
    for name in ("t1", "flair"):
        shutil.copytree(folder / name / "p04", tmp_path / f"{name} of four")
    table = tmp_path / "inputs.csv"
    table.write_text(
        "group,modality,path\nfour,t1,t1 of four\nfour,flair,flair of four/0.png\n"
        "four,flair,flair of four/1.png\nother,t1,t1 of four/0.png\n"
    )
    four, other = JoinedPredictor(bundle, weights="random").predict(table)
    assert (four.path, other.path) == ("four", "other")
    assert other.missing == ("flair",)
    assert four.probabilities == pytest.approx(answers[4].probabilities, abs=1e-4)


def test_volumes_are_cut_and_named_by_number(
    folder: Path, bundle: HeadBundle, answers: list[Prediction], tmp_path: Path
) -> None:
    for name in ("t1", "flair"):
        for patient in ("p02", "p07"):
            files = sorted((folder / name / patient).iterdir())
            stack = np.stack([np.asarray(Image.open(file).convert("L")) for file in files])
            volume = np.flip(stack.transpose(2, 1, 0), (0, 1)).astype(np.uint8)
            image = nib.Nifti1Image(np.ascontiguousarray(volume), np.eye(4))
            place = tmp_path / name
            place.mkdir(exist_ok=True)
            nib.save(image, place / f"sub-{patient}_{name}.nii.gz")
    given = {name: tmp_path / name for name in ("t1", "flair")}
    found = predict(
        bundle, given, weights="random", window="127.5,255", slices="all", patient_key=b"k" * 32
    )
    assert [answer.path for answer in found] == ["patient 1", "patient 2"]
    assert [answer.missing for answer in found] == [(), ()]
    assert len({answer.group for answer in found} - {None}) == 2


def test_files_that_cannot_be_read_are_named(
    folder: Path, bundle: HeadBundle, tmp_path: Path
) -> None:
    shutil.copytree(folder / "t1" / "p03", tmp_path / "t1")
    (tmp_path / "t1" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nno")
    (tmp_path / "flair.png").write_bytes(b"\x89PNG\r\n\x1a\nno")
    given = {"t1": tmp_path / "t1", "flair": tmp_path / "flair.png"}
    answer, *failed = predict(bundle, given, weights="random")
    assert answer.missing == ("flair",)
    assert [entry.path.split(":")[0] for entry in failed] == ["t1", "flair"]
    assert all(entry.error for entry in failed)


def ask(folder: Path, *words: str) -> Any:
    return CliRunner().invoke(command_line, ["predict", str(folder / "head.h5"), *words])


def test_the_command_line_takes_inputs(folder: Path, tmp_path: Path) -> None:
    places = [f"{name}={folder / name}" for name in ("t1", "flair")]
    words = ["--input", places[0], "--input", places[1], "--weights", "random"]
    done = ask(folder, *words, "-o", str(tmp_path / "out.csv"))
    assert done.exit_code == 0, done.output
    assert "without flair, whose features are means of the fit" in done.output
    lines = (tmp_path / "out.csv").read_text().splitlines()
    assert lines[0].endswith("missing")
    assert lines[-1].endswith(",flair")
    assert len(lines) == 25
    documents = json.loads(ask(folder, *words, "--json").stdout)
    assert [document["path"] for document in documents][:2] == ["p00", "p01"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "give images or folders"),
        (("{t1}", "--input", "t1={t1}"), "give images or folders"),
        (("--input", "t1"), "'t1' is not NAME=PATH"),
        (("--input", "t1={t1}", "--input", "t1={t1}"), "--input has t1 twice"),
        (("--input", "pet={t1}"), "pet is no modality of this head, which has t1, flair"),
        (("--input", "t1={t1}", "--input", "flair={t1}"), "48 files are given as t1 and as flair"),
        (("--input", "t1={t1}", "--heatmap", "x"), "--heatmap shows images or volumes"),
        (("{t1}",), "several modalities; give --input NAME=PATH for each of t1, flair"),
    ],
)
def test_the_command_line_refuses(folder: Path, words: tuple[str, ...], message: str) -> None:
    done = ask(folder, *(word.format(t1=folder / "t1") for word in words))
    assert done.exit_code != 0
    text = done.output if done.exception is None or isinstance(done.exception, SystemExit) else ""
    assert message in " ".join((text or str(done.exception)).split())


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("path,group\na,b\n", TableError, "no column modality; expected the columns path, mod"),
        ("path,modality,group\n,t1,a\n", TableError, "line 2 has no path"),
        ("path,modality,group\nx,t1,a\n", TableError, "line 2: the path does not exist"),
        ("path,modality,group\n.,ct,a\n", ParameterError, "ct is no modality of this head"),
        ("path,modality,group\n", ParameterError, "nothing was given"),
    ],
)
def test_odd_tables_are_refused(
    bundle: HeadBundle, tmp_path: Path, text: str, error: type[BrainfeatError], message: str
) -> None:
    (tmp_path / "inputs.csv").write_text(text)
    with pytest.raises(error, match=message):
        JoinedPredictor(bundle, weights="random").predict(tmp_path / "inputs.csv")


def test_patients_are_matched_by_name_or_are_one() -> None:
    several = match_patients({"t1": ["a", "b"], "flair": ["b"]})
    assert several == {"t1": {"a": "a", "b": "b"}, "flair": {"b": "b"}}
    with pytest.raises(ParameterError, match="t1 shares none of its 2 patients"):
        match_patients({"t1": ["a", "b"], "flair": ["c"]})


def test_heads_and_predictors_must_fit(bundle: HeadBundle, folder: Path) -> None:
    with pytest.raises(BundleError, match="takes several modalities"):
        Predictor(bundle)
    (folder / "empty").mkdir(exist_ok=True)
    with pytest.raises(ParameterError, match="no images and no volumes in what was given for t1"):
        predict(bundle, {"t1": folder / "empty"}, weights="random")
