"""Predictions by heads of several bases, and of several layers, of the same images."""

import json
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from brainfeat import FeatureCache, extract, fit_head, predict, read_table, stress
from brainfeat.cache.joining import join_caches
from brainfeat.cli.main import group as command_line
from brainfeat.errors import BundleError, ParameterError
from brainfeat.extraction.backbones import load_backbone
from brainfeat.heads.bundle import HeadBundle
from brainfeat.phantoms import draw_slice
from brainfeat.prediction import images
from brainfeat.prediction.explanation import explain
from brainfeat.prediction.export import export_head
from brainfeat.prediction.joined_bases import HeadInputs, load_bases
from brainfeat.prediction.predictor import Predictor

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

CLASSES = ("glioma", "notumor")
LAYERS = ("conv_pw_6_relu", "conv_pw_13_relu")


@pytest.fixture(scope="module", autouse=True)
def bases() -> Iterator[None]:
    """Load each base once for all predictions."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("brainfeat.prediction.bases.load_backbone", cache(load_backbone))
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write slices, a cache of each of two bases, and heads on both and on layers of one."""
    folder = tmp_path_factory.mktemp("images")
    for name in CLASSES:
        for patient in range(12):
            place = folder / "slices" / name / f"p{patient:02}"
            place.mkdir(parents=True)
            for level in (6, 9):
                pixels = draw_slice(name, patient=patient, level=level, size=48)
                Image.fromarray(pixels).save(place / f"{level}.png")
    rows = [
        f"{path.relative_to(folder)},{path.parts[-3]},{path.parts[-3]} {path.parts[-2]}"
        for path in sorted(folder.rglob("*.png"))
    ]
    (folder / "slices.csv").write_text("\n".join(["path,label,group", *rows]))
    table, options = read_table(folder / "slices.csv"), {"weights": "random"}
    extract(table, folder / "a.h5", backbone="mobilenet", input_size=32, **options)
    extract(
        table,
        folder / "b.h5",
        backbone="mobilenet-0.75",
        input_size=40,
        crop="foreground",
        layers=LAYERS,
        **options,
    )
    both, alone = [folder / "a.h5", folder / "b.h5"], folder / "b.h5"
    fit: dict[str, Any] = {"head": "logistic", "group_by": "column"}
    fit_head(both, join="images", **fit).save(folder / "both.h5")
    fit_head(both, join="images", bag="mean", **fit).save(folder / "patients.h5")
    fit_head(alone, layer="+".join(LAYERS[::-1]), **fit).save(folder / "layers.h5")
    fit_head(alone, layer=LAYERS[0], **fit).save(folder / "one.h5")
    return folder


@pytest.fixture(scope="module")
def both(folder: Path) -> HeadBundle:
    return HeadBundle.load(folder / "both.h5")


@pytest.fixture(scope="module")
def layers(folder: Path) -> HeadBundle:
    return HeadBundle.load(folder / "layers.h5")


def read_features(folder: Path, bundle: HeadBundle) -> tuple[list[str], np.ndarray]:
    """Return the paths and the features of all images, as a head takes them."""
    with FeatureCache.open(folder / "b.h5") as cache:
        paths = [str(folder / path) for path in cache.paths]
        if bundle.blocks is None:
            return paths, cache.features(bundle.spec.layer)[:]
        if len(bundle.blocks.bases) == 1:
            return paths, np.hstack([cache.features(layer) for layer in bundle.blocks.names])
        with join_caches([folder / "a.h5", cache], on="image") as joined:
            return [str(folder / path) for path in joined.paths], joined.X[:]


@pytest.mark.parametrize("name", ["both", "layers", "one"])
def test_predictions_are_those_of_the_cached_features(folder: Path, name: str) -> None:
    bundle = HeadBundle.load(folder / f"{name}.h5")
    paths, X = read_features(folder, bundle)
    answers = predict(bundle, folder / "slices", weights="random")
    assert [answer.path for answer in answers] == paths
    found = [list(answer.probabilities.values()) for answer in answers]
    np.testing.assert_allclose(found, bundle.predict_proba(X), atol=1e-4)
    fitted = bundle.training.split.train + bundle.training.split.val
    assert Counter(answer.seen for answer in answers)["exact-duplicate"] == fitted


def test_layers_of_one_base_are_computed_in_one_pass(both: HeadBundle, layers: HeadBundle) -> None:
    assert layers.blocks.names == LAYERS[::-1]
    assert (both.blocks.bases, layers.blocks.bases) == (((0,), (1,)), ((0, 1),))
    [part] = load_bases(layers, weights="random").parts
    assert part.backbone.layers == LAYERS
    assert len(load_bases(both, weights="random").parts) == 2


def test_an_image_is_decoded_once_and_prepared_for_each_base(
    folder: Path, both: HeadBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[str] = []
    read = images.read_pixels
    monkeypatch.setattr(
        images, "read_pixels", lambda *args, **named: decoded.append("") or read(*args, **named)
    )
    predict(both, folder / "slices" / "glioma" / "p00", weights="random")
    assert len(decoded) == 2
    inputs = HeadInputs.of(both.specs)
    assert inputs.shape == (32 * 32 + 40 * 40, 1, 3)
    pixels = draw_slice("glioma", patient=0, level=6, size=48)[..., None].repeat(3, axis=2)
    small, large = inputs.split(inputs.prepare(pixels)[None])
    for image, spec in zip((small[0], large[0]), both.specs, strict=True):
        expected = images.HeadInputs.of([spec]).prepare(pixels)
        np.testing.assert_array_equal(image, expected)


def test_volumes_have_an_answer_for_each_slice(
    folder: Path, both: HeadBundle, tmp_path: Path
) -> None:
    stack = np.stack([draw_slice("glioma", patient=0, level=level, size=48) for level in (6, 9)])
    volume = np.flip(stack.transpose(2, 1, 0), (0, 1)).astype(np.uint8)
    nib.save(nib.Nifti1Image(np.ascontiguousarray(volume), np.eye(4)), tmp_path / "scan.nii.gz")
    found = predict(both, tmp_path, weights="random", window="127.5,255")
    assert [answer.frame for answer in found] == [None, *range(1, len(found))]
    assert found[0].slices.n == len(found) - 1


def test_a_bag_head_answers_patients(folder: Path) -> None:
    bundle = HeadBundle.load(folder / "patients.h5")
    [found] = predict(bundle, folder / "slices" / "glioma" / "p00", weights="random")
    _, X = read_features(folder, bundle)
    expected = bundle.predict_proba(X[None, :2])[0]
    np.testing.assert_allclose(list(found.probabilities.values()), expected, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "weights", "message"),
    [
        ("both", "some.h5", "weights of one base, and the head has 2; pass those of each"),
        ("both", {"c": "random"}, "weights of c, and the head has the blocks a, b"),
        ("layers", dict(zip(LAYERS, "xy", strict=True)), "layers of one base, and two weights"),
        ("one", {"a": "random"}, "this head has one base without a name"),
    ],
)
def test_weights_of_other_bases_are_refused(
    folder: Path, name: str, weights: Any, message: str
) -> None:
    with pytest.raises(ParameterError, match=message):
        Predictor(folder / f"{name}.h5", weights=weights)


def test_heat_maps_need_one_input(folder: Path, both: HeadBundle, layers: HeadBundle) -> None:
    base = load_bases(layers, weights="random")
    pixels = draw_slice("glioma", patient=0, level=6, size=48)[..., None].repeat(3, axis=2)
    image = HeadInputs.of(layers.specs).prepare(pixels)[None]
    found = explain(layers, image, backbone=base)
    assert (found.method, found.maps.shape) == ("occlusion", (1, 40, 40))
    with pytest.raises(ParameterError, match="one base and layer"):
        explain(layers, image, backbone=base, method="grad-cam")
    bases = load_bases(both, weights="random")
    with pytest.raises(ParameterError, match="32 pixels and 40 pixels, cropped, so that no region"):
        explain(both, image, backbone=bases)


def test_exports_have_all_layers_of_a_base(
    folder: Path, layers: HeadBundle, tmp_path: Path
) -> None:
    found = export_head(layers, tmp_path / "model.keras", weights="random")
    assert found.largest_difference < 1e-3
    with pytest.raises(ParameterError, match=r"one layer, and this head was fitted on .*\.tflite"):
        export_head(layers, tmp_path / "model.onnx", weights="random")
    with pytest.raises(ParameterError, match="images of other sizes or crops"):
        export_head(folder / "both.h5", tmp_path / "other.keras", weights="random")


def test_an_exported_ensemble_has_each_member_on_its_layer(folder: Path, tmp_path: Path) -> None:
    given: dict[str, Any] = {"head": "lda", "how": "stack", "params": {"n_folds": 2}}
    bundle = fit_head(folder / "b.h5", layer="+".join(LAYERS), group_by="column", n_jobs=1, **given)
    widths = bundle.blocks.widths
    columns = [member.columns for member in bundle.estimator.members_]
    assert columns == [(0, widths[0]), (widths[0], sum(widths))]
    found = export_head(bundle, tmp_path / "model.keras", weights="random")
    assert found.largest_difference < 1e-3


def test_a_stress_test_takes_one_cache(folder: Path, both: HeadBundle) -> None:
    with pytest.raises(BundleError, match="a stress test takes a head of one base and layer"):
        stress(both, folder / "slices.csv", weights="random")


def ask(*words: object) -> Any:
    return CliRunner().invoke(command_line, [str(word) for word in words])


def test_the_command_line_names_the_passes(folder: Path) -> None:
    given = (folder / "slices" / "glioma" / "p00", "--weights", "a=random", "--weights", "b=random")
    done = ask("predict", folder / "both.h5", *given)
    assert done.exit_code == 0, done.output
    passes = "one pass of mobilenet (a) and one of mobilenet-0.75 (b) for each image"
    assert f"This took {passes}." in done.output
    assert passes in ask("info", folder / "both.h5").output
    documents = json.loads(ask("predict", folder / "both.h5", *given, "--json").stdout)
    assert len(documents) == 2
    assert documents[0]["precision"] == "float32"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--weights", "a=random", "--weights", "random"), "each have the name of a modality"),
        (("--weights", "a=random", "--weights", "a=x"), "a name is given twice"),
        (("--input", "a=."), "takes images of one kind; give them without"),
    ],
)
def test_the_command_line_refuses(folder: Path, words: tuple[str, ...], message: str) -> None:
    images = () if words[0] == "--input" else (folder / "slices" / "glioma" / "p00",)
    done = ask("predict", folder / "both.h5", *images, *words)
    assert done.exit_code != 0
    assert message in " ".join((done.output + str(done.exception)).split())


def test_a_set_of_each_cache_with_the_layers(folder: Path, layers: HeadBundle) -> None:
    done = ask("evaluate", folder / "layers.h5", folder / "b.h5")
    assert done.exit_code == 0, done.output
    assert f"{LAYERS[0]}" in ask("info", folder / "layers.h5").output


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"layer": "conv_pw_6_relu+conv_pw_6_relu"}, "a layer twice"),
        ({"layer": "conv_pw_5_relu"}, "no features of layer 'conv_pw_5_relu'"),
        ({"layer": "+".join(LAYERS), "join": "images"}, "joins the layers of one cache alone"),
    ],
)
def test_odd_layers_are_refused(folder: Path, given: dict[str, Any], message: str) -> None:
    with pytest.raises(Exception, match=message):
        fit_head(folder / "b.h5", head="lda", **given)
