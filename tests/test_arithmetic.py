"""What a session asks of NumPy's floating-point errors does not change what brainfeat does."""

import shutil

import numpy as np
import pytest
from support.halves import CLASSES, Blocks, draw

from brainfeat import audit, audit_between, compare, evaluate, extract, fit_head, read_table
from brainfeat.arithmetic import default_errors
from brainfeat.extraction.preprocessing import preprocess_image
from brainfeat.prediction.explanation import explain
from brainfeat.prediction.predictor import Predictor
from brainfeat.readers import read_image


@pytest.fixture
def strict():
    """Ask for an exception at every floating-point error, as some notebooks do."""
    before = np.seterr(all="raise")
    yield
    np.seterr(**before)


def test_underflow_and_the_rest_have_their_defaults(strict):
    @default_errors
    def underflow() -> float:
        return float(np.exp(np.float32(-100.0)) * np.float32(1e-10))

    with pytest.raises(FloatingPointError):
        np.exp(np.float32(-100.0)) * np.float32(1e-10)
    assert underflow() == 0.0
    assert np.geterr()["under"] == "raise"


@pytest.mark.parametrize("head", ["logistic", "lda", "svm"])
def test_all_stages_work_in_a_session_that_raises(tmp_path, strict, head):
    rng = np.random.default_rng(0)
    for place, name in enumerate(CLASSES):
        (tmp_path / "images" / name).mkdir(parents=True)
        for number in range(40):
            image = draw(rng, bright=bool(place))
            image.save(tmp_path / "images" / name / f"{number}.png")
    output = tmp_path / "f.h5"
    extract(read_table(tmp_path / "images"), output, backbone=Blocks(), n_jobs=1)
    bundle = fit_head(output, head=head, n_jobs=1)
    assert evaluate(bundle, output).accuracy > 0.9
    predictor = Predictor(bundle, backbone=Blocks())
    (found,) = predictor.predict([tmp_path / "images" / "glioma" / "0.png"])
    assert found.error is None
    assert compare(bundle, bundle, output, split="all").first_only == 0
    assert audit(output).images == 80
    shutil.copy(output, tmp_path / "again.h5")
    assert audit_between([output, tmp_path / "again.h5"]).overlaps
    pixels = read_image(tmp_path / "images" / "glioma" / "0.png")
    explained = explain(bundle, preprocess_image(pixels, size=32)[None], backbone=Blocks())
    assert np.isfinite(explained.maps).all()
