"""export: the network gives what the bundle gives, in each format, and what is refused."""

import dataclasses
from functools import cache as memoize

import numpy as np
import pytest
from click.testing import CliRunner

from brainfeat import extract, fit_head, read_table
from brainfeat.cli.export import command
from brainfeat.errors import BundleError, HeadError, ParameterError, SpecMismatchError
from brainfeat.extraction.backbones import load_backbone
from brainfeat.extraction.preprocessing import preprocess_image
from brainfeat.heads.bundle import HeadBundle
from brainfeat.phantoms import write_phantoms
from brainfeat.prediction.export import export_head
from brainfeat.readers import read_image
from brainfeat.readers.series import find_inputs

SIZE = 64
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*tf.lite.Interpreter is deprecated:UserWarning"),
]


@pytest.fixture(scope="module")
def slices(tmp_path_factory):
    folder = tmp_path_factory.mktemp("slices")
    write_phantoms(folder, patients_per_class=6, slices_per_patient=4, size=SIZE)
    return folder


@pytest.fixture(scope="module")
def cache(slices, tmp_path_factory):
    output = tmp_path_factory.mktemp("cache") / "features.h5"
    return extract(
        read_table(slices / "table.csv"),
        output,
        backbone="mobilenet-0.75",
        weights="random",
        input_size=SIZE,
        precision="float32",
    ).output


@pytest.fixture(scope="module")
def heads(cache):
    params = {"dense": {"epochs": 5}}
    return {
        name: fit_head(cache, head=name, params=params.get(name), n_jobs=1)
        for name in ("dense", "logistic", "lda", "linear-svm", "knn")
    }


@pytest.fixture(scope="module")
def images(slices):
    return np.stack(
        [preprocess_image(read_image(path), size=SIZE) for path in find_inputs([slices]).images]
    )


@pytest.fixture(scope="module")
def base():
    return load_backbone("mobilenet-0.75", weights="random", input_size=SIZE)


@pytest.fixture(scope="module")
def litert(heads, tmp_path_factory):
    """Give a function that exports the dense head to LiteRT, quantized as asked, once."""
    folder = tmp_path_factory.mktemp("litert")

    @memoize
    def export(quantize):
        path = folder / f"{quantize}.tflite"
        export_head(heads["dense"], path, weights="random", quantize=quantize)
        return path

    return export


def load(path):
    import keras

    return keras.saving.load_model(path)


def run_litert(path, images):
    import tensorflow as tf

    interpreter = tf.lite.Interpreter(str(path))
    interpreter.allocate_tensors()
    (entry,), (result,) = interpreter.get_input_details(), interpreter.get_output_details()
    assert entry["dtype"] == result["dtype"] == np.float32
    found = []
    for image in images:
        interpreter.set_tensor(entry["index"], image[None])
        interpreter.invoke()
        found.append(interpreter.get_tensor(result["index"])[0])
    return np.array(found)


@pytest.mark.parametrize("name", ["dense", "logistic", "lda", "linear-svm"])
def test_a_keras_model_gives_the_probabilities_of_the_bundle(name, heads, images, base, tmp_path):
    path = export_head(heads[name], tmp_path / "model.keras", weights="random")
    model = load(path)
    assert model.input_shape == (None, SIZE, SIZE, 3)
    found = model.predict(images[:16], verbose=0)
    expected = heads[name].predict_proba(base(images[:16]))
    assert found == pytest.approx(expected, abs=1e-5)


def test_two_classes_of_a_linear_head_are_two_columns(cache, images, base, tmp_path):
    from brainfeat import FeatureCache

    with FeatureCache.open(cache) as opened:
        rows = np.flatnonzero(opened.mask() & (opened.y < 2))
        X, y = opened.X[rows], opened.y[rows]
    four = fit_head(cache, head="logistic", n_jobs=1)
    estimator = four.estimator.fit(X, y)
    two = dataclasses.replace(
        four,
        estimator=estimator,
        class_names=four.class_names[:2],
        temperature=2.0,
        ood_detector=None,
    )
    model = load(export_head(two, tmp_path / "two.keras", weights="random"))
    expected = two.predict_proba(base(images[:8]))
    assert model.predict(images[:8], verbose=0) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(("quantize", "tolerance"), [(None, 1e-4), ("float16", 1e-2)])
def test_a_litert_model_gives_nearly_the_same(quantize, tolerance, heads, images, base, litert):
    expected = heads["dense"].predict_proba(base(images[:8]))
    assert run_litert(litert(quantize), images[:8]) == pytest.approx(expected, abs=tolerance)


def test_each_quantization_is_smaller(litert):
    sizes = [litert(quantize).stat().st_size for quantize in (None, "float16", "int8")]
    assert sizes[0] > 1.8 * sizes[1] > 3 * sizes[2]


@pytest.mark.deep
def test_real_slices_are_decided_alike(real_data, tmp_path):
    (weights,) = (real_data / "weights").glob("mobilenet*.h5")
    folder = tmp_path / "some"
    for name in ("glioma", "meningioma", "notumor", "pituitary"):
        (folder / name).mkdir(parents=True)
        for path in sorted((real_data / "data/brain-mri/Training" / name).iterdir())[::4]:
            (folder / name / path.name).symlink_to(path)
    options = {"backbone": "mobilenet-0.75", "weights": weights, "precision": "float32"}
    cache = extract(read_table(folder), tmp_path / "f.h5", **options).output
    bundle = fit_head(cache, head="logistic", n_jobs=1)
    testing = find_inputs([real_data / "data/brain-mri/Testing"]).images[::20][:64]
    images = np.stack([preprocess_image(read_image(path)) for path in testing])
    base = load_backbone("mobilenet-0.75", weights=weights)
    expected = bundle.predict_proba(np.concatenate([base(images[:32]), base(images[32:])]))
    assert len(expected) == 64
    model = load(export_head(bundle, tmp_path / "m.keras", weights=weights))
    assert model.predict(images, verbose=0) == pytest.approx(expected, abs=1e-5)
    half = export_head(bundle, tmp_path / "h.tflite", weights=weights, quantize="float16")
    assert run_litert(half, images) == pytest.approx(expected, abs=1e-2)
    eighth = export_head(bundle, tmp_path / "i.tflite", weights=weights, quantize="int8")
    agree = run_litert(eighth, images).argmax(axis=1) == expected.argmax(axis=1)
    assert agree.mean() >= 0.97


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("model.onnx", {}, r"ends in \.keras or \.tflite"),
        ("model.keras", {"quantize": "float16"}, "only a .tflite"),
        ("model.tflite", {"quantize": "int4"}, "one of float16, int8"),
    ],
)
def test_options_that_do_not_go_together_are_refused(name, options, words, heads, tmp_path):
    with pytest.raises(ParameterError, match=words):
        export_head(heads["dense"], tmp_path / name, weights="random", **options)
    assert not list(tmp_path.iterdir())


def test_what_is_no_network_is_refused(heads, tmp_path):
    with pytest.raises(HeadError, match="a knn head is not a network"):
        export_head(heads["knn"], tmp_path / "model.keras", weights="random")


def test_other_weights_are_refused(heads, tmp_path):
    spec = dataclasses.replace(heads["lda"].spec, weights_sha256="1" * 64)
    with pytest.raises(SpecMismatchError, match="weights_sha256"):
        export_head(
            dataclasses.replace(heads["lda"], spec=spec), tmp_path / "m.keras", weights="random"
        )


def test_an_output_that_is_there_is_kept(heads, tmp_path):
    path = tmp_path / "model.keras"
    path.write_text("precious")
    with pytest.raises(BundleError, match="exists"):
        export_head(heads["lda"], path, weights="random")
    with pytest.raises(BundleError, match=r"is not .* and is not replaced"):
        export_head(heads["lda"], path, weights="random", overwrite=True)
    assert path.read_text() == "precious"
    path.unlink()
    before = export_head(heads["lda"], path, weights="random").read_bytes()
    assert len(before) > 1e6
    assert (
        export_head(heads["logistic"], path, weights="random", overwrite=True).read_bytes()
        != before
    )
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.keras"]


def test_the_command_names_the_classes_and_the_size(heads, tmp_path):
    heads["lda"].save(tmp_path / "head.h5")
    assert HeadBundle.load(tmp_path / "head.h5").head == "lda"
    result = CliRunner().invoke(
        command,
        [
            *(str(tmp_path / "head.h5"), "-o", str(tmp_path / "model.tflite")),
            *("--weights", "random", "--quantize", "int8"),
        ],
    )
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith(f"{tmp_path / 'model.tflite'} written, ")
    assert result.stdout.endswith("MB; classes: glioma, meningioma, notumor, pituitary\n")
