"""Heads of maps from images to answers: prediction, heat maps, stress and the command line."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from brainfeat import extract, read_table
from brainfeat.cache.cache import FeatureCache
from brainfeat.errors import ParameterError
from brainfeat.extraction.backbones import Backbone, load_backbone
from brainfeat.extraction.preprocessing import preprocess_image
from brainfeat.heads.bundle import HeadBundle
from brainfeat.heads.kinds import ATTENTION_HEADS
from brainfeat.phantoms import write_phantoms
from brainfeat.prediction.explanation import explain
from brainfeat.prediction.export import export_head
from brainfeat.prediction.predictor import predict
from brainfeat.prediction.stress import stress
from brainfeat.readers import read_image
from brainfeat.training.fitting import fit_head

# TensorFlow's variables do not know the copy argument of NumPy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

SIZE = 96
SMALL = {"hidden_units": [8], "batch_size": 16, "epochs": 2, "reduction": 64}


@pytest.fixture(scope="module")
def base() -> Backbone:
    return load_backbone("mobilenet-0.75", weights="random", input_size=SIZE, pooling="none")


@pytest.fixture(scope="module")
def features(base: Backbone, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("prediction")
    table = read_table(write_phantoms(folder / "slices", patients_per_class=6, size=64))
    extract(table, folder / "features.h5", backbone=base)
    return folder / "features.h5"


@pytest.fixture(scope="module")
def head(features: Path) -> Path:
    return fit_head(features, head="cbam", params=SMALL).save(features.parent / "cbam.h5")


def test_predictions_are_those_of_the_cached_maps(
    features: Path, head: Path, base: Backbone
) -> None:
    bundle = HeadBundle.load(head)
    with FeatureCache(features) as cache:
        rows = np.flatnonzero(cache.mask("test"))[:5] if cache.splits.any() else np.arange(5)
        expected = bundle.predict_proba(cache.maps[rows])
        paths = [features.parent / "slices" / path for path in cache.paths[rows]]
    found = predict(bundle, paths, backbone=base)
    answers = [list(answer.probabilities.values()) for answer in found]
    np.testing.assert_allclose(answers, expected, atol=2e-3)
    loaded = predict(head, paths[:2], weights="random")
    again = [list(answer.probabilities.values()) for answer in loaded]
    np.testing.assert_allclose(again, answers[:2], atol=1e-4)


def test_heat_maps_of_attention_are_the_weights_of_the_positions(
    features: Path, head: Path, base: Backbone
) -> None:
    path = next((features.parent / "slices").rglob("*.png"))
    image = preprocess_image(read_image(path), size=SIZE)[None]
    bundle = HeadBundle.load(head)
    found = explain(bundle, image, backbone=base, method="attention")
    weights = bundle.attention(base.compute_maps(image))[0]
    assert found.method == "attention"
    assert found.maps.shape == (1, SIZE, SIZE)
    cells = found.maps[0].reshape(3, SIZE // 3, 3, SIZE // 3).mean(axis=(1, 3))
    assert np.corrcoef(cells.ravel(), weights.ravel())[0, 1] > 0.9
    occluded = explain(bundle, image, backbone=base)
    assert occluded.method == "occlusion"
    assert occluded.targets == found.targets
    with pytest.raises(ParameterError, match="Grad-CAM needs a head with a derivative"):
        explain(bundle, image, backbone=base, method="grad-cam")


def test_only_heads_of_maps_have_heat_maps_of_attention(features: Path) -> None:
    base = load_backbone("mobilenet-0.75", weights="random", input_size=SIZE)
    bundle = fit_head(features, head="lda")
    image = np.zeros((1, SIZE, SIZE, 3), np.float32)
    with pytest.raises(ParameterError, match=r"weighs positions \(attention-pool, cbam\), got lda"):
        explain(bundle, image, backbone=base, method="attention")


def test_a_stress_test_computes_maps(features: Path, head: Path, base: Backbone) -> None:
    found = stress(
        head, features.parent / "slices", kinds=["blur"], number=4, backbone=base, n_resamples=1000
    )
    assert found.n == 4
    assert len(found.altered) == 5


def test_the_command_line_fits_and_draws(
    features: Path, run: Callable[..., SimpleNamespace], tmp_path: Path
) -> None:
    head, maps = tmp_path / "head.h5", tmp_path / "maps"
    options = ["--head", "attention-pool", "--epochs", 1, "--param", "attention_units=4"]
    done = run("fit-head", features, "-o", head, *options, "--json")
    assert done.code == 0, done.err
    assert json.loads(run("info", head, "--json").out)["head"] == "attention-pool"
    path = next((features.parent / "slices").rglob("*.png"))
    drawn = ["--heatmap", maps, "--heatmap-kind", "attention", "--weights", "random"]
    done = run("predict", head, path, *drawn)
    assert done.code == 0, done.err
    assert len(list(maps.iterdir())) == 1
    pooled = fit_head(features, head="lda").save(tmp_path / "pooled.h5")
    done = run("predict", pooled, path, "--heatmap", tmp_path / "no", *drawn[2:])
    assert done.code != 0
    assert "attention needs a head that weighs positions" in done.err


@pytest.mark.slow
@pytest.mark.parametrize("kind", ATTENTION_HEADS)
def test_exported_models_have_the_attention_of_the_head(
    kind: str, features: Path, tmp_path: Path
) -> None:
    own = {"attention_units": 4} if kind == "attention-pool" else {"reduction": 64}
    params = {"hidden_units": [8], "batch_size": 16, "epochs": 1, **own}
    bundle = fit_head(features, head=kind, params=params)
    # So that it differs from the mean of the map by more than the tolerance.
    bundle.estimator.gates_ = tuple(gate * 8 for gate in bundle.estimator.gates_)
    for suffix in (".keras", ".tflite", ".onnx", ".xml"):
        found = export_head(bundle, tmp_path / f"model{suffix}", weights="random")
        assert found.largest_difference < 2e-4
