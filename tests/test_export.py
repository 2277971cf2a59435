"""export: the network gives what the bundle gives, in each format, and what is refused."""

import dataclasses
import json
import os
import resource
import subprocess
import sys
from contextlib import chdir, redirect_stdout
from functools import cache as memoize
from io import StringIO
from itertools import pairwise, product
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnxruntime
import pytest
from click.testing import CliRunner

from brainfeat import extract, fit_head, read_table
from brainfeat.cli.export import command
from brainfeat.errors import (
    BundleError,
    HeadError,
    MissingDependencyError,
    ParameterError,
    SpecMismatchError,
    WeightsError,
)
from brainfeat.extraction import engines, openvino_engine
from brainfeat.extraction.backbones import load_backbone
from brainfeat.extraction.graph import plan_quantization, read_graph
from brainfeat.extraction.preprocessing import preprocess_image
from brainfeat.extraction.quantization import Quantization
from brainfeat.heads.ensembles import EnsembleHead, Member
from brainfeat.phantoms import write_phantoms
from brainfeat.prediction import export, litert, openvino_export
from brainfeat.prediction.export import export_head
from brainfeat.prediction.predictor import Predictor
from brainfeat.readers import read_image
from brainfeat.readers.series import find_inputs

SIZE = 64
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
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
def exported(heads, tmp_path_factory):
    """Give a function that exports a head in a format, quantized as asked, once."""
    folder = tmp_path_factory.mktemp("exported")

    @memoize
    def export_once(suffix, quantize):
        path = folder / f"{quantize}{suffix}"
        bundle = heads["lda" if quantize == "int8" else "dense"]
        return export_head(bundle, path, weights="random", quantize=quantize)

    return export_once


def load(path):
    import keras

    return keras.saving.load_model(path)


def run_onnx(path, images):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, {"images": images})[0]


RUN = {
    ".keras": lambda path, images: load(path).predict(images, verbose=0),
    ".tflite": litert.compute_probabilities,
    ".onnx": run_onnx,
    ".xml": openvino_export.compute_probabilities,
}


def check(bundle, path, images, base, tolerance, **options):
    """Export a head, and compare the probabilities of the file with those of the bundle."""
    exported = export_head(bundle, path, weights="random", **options)
    expected = bundle.predict_proba(base(images))
    found = np.concatenate([RUN[path.suffix](path, part) for part in (images[:1], images[1:])])
    assert found.dtype == np.float32
    assert found == pytest.approx(expected, abs=tolerance)
    assert exported.path == path
    assert exported.largest_difference <= tolerance
    return exported


@pytest.mark.parametrize(
    ("name", "suffix"),
    [
        *product(("dense", "logistic", "lda", "linear-svm"), (".onnx", ".xml")),
        *product(("dense", "lda"), (".keras",)),
    ],
)
def test_a_model_gives_the_probabilities_of_the_bundle(name, suffix, heads, images, base, tmp_path):
    exported = check(heads[name], tmp_path / f"model{suffix}", images[:16], base, 1e-5)
    assert exported.n_bytes == sum(path.stat().st_size for path in tmp_path.iterdir())
    assert len(list(tmp_path.iterdir())) == 1 + (suffix == ".xml")


def combine(heads, names, how="vote"):
    """Make an ensemble of fitted heads."""
    members = [
        Member(
            name=name,
            columns=(0, heads[name].spec.n_features),
            estimator=heads[name].estimator,
            temperature=heads[name].temperature,
        )
        for name in names
    ]
    k = len(heads[names[0]].class_names)
    rng = np.random.default_rng(0)
    stack = rng.standard_normal((k * len(names), k)), rng.standard_normal(k)
    estimator = EnsembleHead.from_parts(
        members,
        how=how,
        n_features=members[0].columns[1],
        n_classes=k,
        n_folds=5,
        stack=stack if how == "stack" else None,
    )
    return dataclasses.replace(
        heads[names[0]],
        head=f"{how}:{'+'.join(names)}",
        params={},
        estimator=estimator,
        temperature=0.7,
    )


@pytest.mark.parametrize("how", ["vote", "stack"])
def test_an_ensemble_is_one_network(how, heads, images, base, tmp_path):
    ensemble = combine(heads, ("dense", "lda"), how)
    check(ensemble, tmp_path / "model.keras", images[:8], base, 1e-5)


def test_an_ensemble_with_what_is_no_network_is_refused(heads, tmp_path):
    with pytest.raises(HeadError, match=r"the member knn of vote:lda\+knn is not a network"):
        export_head(combine(heads, ("lda", "knn")), tmp_path / "model.keras")
    with pytest.raises(ParameterError, match=r"ensemble.*ends in \.keras, \.tflite"):
        export_head(combine(heads, ("lda", "dense")), tmp_path / "model.onnx")


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
    check(two, tmp_path / "two.onnx", images[:8], base, 1e-5)


@pytest.mark.parametrize(("quantize", "tolerance"), [(None, 1e-4), ("float16", 1e-2)])
def test_a_litert_model_gives_nearly_the_same(quantize, tolerance, heads, images, base, exported):
    expected = heads["dense"].predict_proba(base(images[:8]))
    found = litert.compute_probabilities(exported(".tflite", quantize).path, images[:8])
    assert found == pytest.approx(expected, abs=tolerance)


@pytest.mark.parametrize(
    ("suffix", "quantize", "tolerance"),
    [(".onnx", "float16", 1e-3), (".onnx", "int8", 0.2), (".xml", "float16", 1e-2)],
)
def test_rounded_weights_change_little(suffix, quantize, tolerance, heads, images, base, exported):
    bundle = heads["lda" if quantize == "int8" else "dense"]
    expected = bundle.predict_proba(base(images[:8]))
    found = RUN[suffix](exported(suffix, quantize).path, images[:8])
    assert found == pytest.approx(expected, abs=tolerance)
    assert np.abs(found - expected).max() > 1e-6


@pytest.mark.parametrize("suffix", [".tflite", ".onnx", ".xml"])
def test_each_quantization_is_smaller(suffix, exported):
    formats = (None, "float16", "int8")[: 2 if suffix == ".xml" else 3]
    sizes = [exported(suffix, quantize).n_bytes for quantize in formats]
    assert all(more > 1.5 * less for more, less in pairwise(sizes))


def test_openvino_computes_in_int8_what_a_head_was_fitted_on_in_int8(
    heads, images, base, exported, tmp_path
):
    if not openvino_engine.has_precision("int8"):
        pytest.skip("the processor has no instructions for int8")
    [found] = base.observe([np.rint(255 * images[:16]).astype(np.uint8)], "float32")
    sources = plan_quantization(read_graph(base.name)).sources
    ranges = dict(zip(sources, found.ranges.tolist(), strict=True))
    text = Quantization(images=16, images_sha256="0" * 64, ranges=ranges).text
    spec = dataclasses.replace(heads["lda"].spec, precision="int8", quantization=text)
    bundle = dataclasses.replace(heads["lda"], spec=spec)
    rounded = load_backbone(
        base.name, weights="random", input_size=SIZE, precision="int8", quantization=text
    )
    made = check(bundle, tmp_path / "m.xml", images[:8], rounded, 0.2, quantize="int8")
    assert exported(".xml", None).n_bytes > 3 * made.n_bytes
    check(bundle, tmp_path / "float32.xml", images[:8], base, 1e-5)


@pytest.mark.parametrize("suffix", [".onnx", ".xml"])
def test_a_model_describes_itself(suffix, heads, exported):
    path = exported(suffix, None).path
    if suffix == ".onnx":
        about = onnxruntime.InferenceSession(path).get_modelmeta().custom_metadata_map
    else:
        model = openvino_engine.import_openvino().Core().read_model(path)
        about = model.get_rt_info("brainfeat").value
    assert tuple(json.loads(about["class_names"])) == heads["dense"].class_names
    assert (about["image_size"], about["base"], about["head"]) == ("64", "mobilenet-0.75", "dense")
    assert about["weights_sha256"] == heads["dense"].spec.weights_sha256
    assert "float32 (n, 64, 64, 3), RGB in [0, 1]" in about["input"]
    assert "not a medical device" in about["intended_use"]


def test_the_examples_of_the_page_give_what_predict_gives(exported, heads, slices, tmp_path):
    page = Path(__file__).parent.parent / "docs/how-to/export.md"
    blocks = [block.split("```")[0] for block in page.read_text("utf-8").split("```python\n")[1:]]
    assert len(blocks) == 2
    for suffix in (".onnx", ".xml", ".bin"):
        whole = exported(suffix.replace("bin", "xml"), None).path
        (tmp_path / f"model{suffix}").write_bytes(whole.with_suffix(suffix).read_bytes())
    path = find_inputs([slices]).images[5]
    (tmp_path / "slice.png").write_bytes(Path(path).read_bytes())
    answer = Predictor(heads["dense"], weights="random").predict(tmp_path / "slice.png")[0]
    for block in blocks:
        with chdir(tmp_path), redirect_stdout(StringIO()) as printed:
            exec(compile(block, "<docs>", "exec"), {})
        name, probability = printed.getvalue().split()
        assert name == max(answer.probabilities, key=answer.probabilities.get)
        assert float(probability) == pytest.approx(answer.probabilities[name], abs=1e-3)


@pytest.mark.deep
def test_real_slices_are_decided_alike(real_data, tmp_path):
    (weights,) = (real_data / "weights").glob("mobilenet*.h5")
    folder = tmp_path / "some"
    for name in ("glioma", "meningioma", "notumor", "pituitary"):
        (folder / name).mkdir(parents=True)
        for path in sorted((real_data / "data/brain-mri/Training" / name).iterdir())[::8]:
            (folder / name / path.name).symlink_to(path)
    options = {"backbone": "mobilenet-0.75", "weights": weights, "precision": "float32"}
    cache = extract(read_table(folder), tmp_path / "f.h5", **options).output
    bundle = fit_head(cache, head="logistic", n_jobs=1)
    testing = find_inputs([real_data / "data/brain-mri/Testing"]).images[::20][:64]
    images = np.stack([preprocess_image(read_image(path)) for path in testing])
    base = load_backbone("mobilenet-0.75", weights=weights)
    expected = bundle.predict_proba(np.concatenate([base(images[:32]), base(images[32:])]))
    assert len(expected) == 64
    for suffix, quantize, tolerance in (
        (".keras", None, 1e-5),
        (".onnx", None, 1e-5),
        (".xml", None, 1e-5),
        (".tflite", "float16", 1e-2),
        (".onnx", "float16", 1e-2),
        (".xml", "float16", 3e-2),  # small layers too
    ):
        path = tmp_path / f"{quantize}{suffix}"
        export_head(bundle, path, weights=weights, quantize=quantize)
        assert RUN[suffix](path, images) == pytest.approx(expected, abs=tolerance)
    for suffix in (".tflite", ".onnx"):
        path = tmp_path / f"int8{suffix}"
        export_head(bundle, path, weights=weights, quantize="int8")
        agree = RUN[suffix](path, images).argmax(axis=1) == expected.argmax(axis=1)
        assert agree.mean() >= 0.97


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("model.pb", {}, r"ends in \.keras, \.tflite, \.onnx, \.xml, which is its format"),
        ("model.keras", {"quantize": "float16"}, r"in float16; .* \.tflite, \.onnx, \.xml"),
        ("model.xml", {"quantize": "int8"}, r"in float32, .*; pass quantize=\"float16\", or"),
        ("model.tflite", {"quantize": "int4"}, "one of float16, int8"),
    ],
)
def test_options_that_do_not_go_together_are_refused(name, options, words, heads, tmp_path):
    with pytest.raises(ParameterError, match=words):
        export_head(heads["dense"], tmp_path / name, weights="random", **options)
    assert not list(tmp_path.iterdir())


def test_what_is_no_network_is_refused(heads, tmp_path):
    with pytest.raises(HeadError, match="knn heads are not networks"):
        export_head(heads["knn"], tmp_path / "model.keras", weights="random")


def test_the_file_of_no_network_is_refused_before_it_is_loaded(heads, tmp_path, monkeypatch):
    saved = heads["knn"].save(tmp_path / "knn.h5")
    monkeypatch.setattr("brainfeat.heads.bundle.read_fields", None)
    with pytest.raises(HeadError, match="knn heads are not networks"):
        export_head(saved, tmp_path / "model.keras", weights="random")


@pytest.mark.parametrize("weights", ["none.h5", "imagenet"])
def test_missing_weights_are_those_of_the_head(heads, weights, tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setattr("brainfeat.extraction.weights.runtime.import_keras", SimpleNamespace)
    with pytest.raises(WeightsError) as caught:
        export_head(heads["lda"], tmp_path / "m.keras", weights=weights)
    assert str(caught.value).endswith(
        "; pass the weights that the head was fitted with, with weights=PATH"
    )
    assert "random" not in str(caught.value)


def test_other_weights_are_refused(heads, tmp_path):
    spec = dataclasses.replace(heads["lda"].spec, weights_sha256="1" * 64)
    with pytest.raises(SpecMismatchError, match="weights_sha256"):
        export_head(
            dataclasses.replace(heads["lda"], spec=spec), tmp_path / "m.keras", weights="random"
        )


@pytest.mark.parametrize("suffix", [".keras", ".tflite", ".onnx", ".xml"])
def test_an_output_that_is_there_is_kept(suffix, heads, tmp_path):
    path = tmp_path / f"model{suffix}"
    path.write_text("precious")
    with pytest.raises(BundleError, match="exists"):
        export_head(heads["lda"], path, weights="random")
    with pytest.raises(BundleError, match=r"is not .* and is not replaced"):
        export_head(heads["lda"], path, weights="random", overwrite=True)
    assert path.read_text() == "precious"


@pytest.mark.parametrize("suffix", [".onnx", ".xml"])
def test_a_model_replaces_one_of_its_format(suffix, heads, tmp_path):
    path = tmp_path / f"model{suffix}"
    export_head(heads["lda"], path, weights="random")
    before = {entry.name: entry.read_bytes() for entry in tmp_path.iterdir()}
    export_head(heads["logistic"], path, weights="random", overwrite=True)
    after = {entry.name: entry.read_bytes() for entry in tmp_path.iterdir()}
    assert set(after) == set(before)
    assert all(after[name] != before[name] for name in after)


def test_weights_without_their_model_are_kept(heads, tmp_path):
    weights = tmp_path / "model.bin"
    weights.write_text("precious")
    for overwrite, words in ((False, "exists"), (True, "is not of a .xml model and is not repl")):
        with pytest.raises(BundleError, match=words):
            export_head(heads["lda"], tmp_path / "model.xml", weights="random", overwrite=overwrite)
    assert [entry.read_text() for entry in tmp_path.iterdir()] == ["precious"]


@pytest.mark.parametrize("suffix", [".onnx", ".xml"])
@pytest.mark.parametrize("wrong", [0.1, np.nan])
def test_a_model_that_computes_something_else_is_not_written(
    suffix, wrong, heads, tmp_path, monkeypatch
):
    form = export._FORMATS[suffix]
    changed = form._replace(compute=lambda *given: form.compute(*given) + wrong)
    monkeypatch.setitem(export._FORMATS, suffix, changed)
    with pytest.raises(BundleError, match=r"was not written, .* differ by up to (0\.1|nan)"):
        export_head(heads["lda"], tmp_path / f"model{suffix}", weights="random")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("suffix", "limit"), [(".onnx", 1_000_000), (".xml", 1_000_000), (".xml", 50_000)]
)
def test_a_full_disk_leaves_nothing(suffix, limit, heads, tmp_path):
    path = tmp_path / f"model{suffix}"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        with pytest.raises(BundleError, match=rf"^{path} cannot be written \("):
            export_head(heads["lda"], path, weights="random")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("suffix", "library", "extra"),
    [(".onnx", "onnx", "export"), (".onnx", "onnxruntime", "export"), (".xml", "openvino", "fast")],
)
def test_a_library_that_is_missing_is_named(suffix, library, extra, heads, tmp_path, monkeypatch):
    openvino_engine.import_openvino.cache_clear()
    monkeypatch.setattr(engines, "find_spec", lambda name: None)
    monkeypatch.setitem(sys.modules, library, None)
    words = rf"{library}, which cannot|{library} cannot".lower()
    with pytest.raises(MissingDependencyError, match=rf"(?i)({words}).*brainfeat\[{extra}\]"):
        export_head(heads["lda"], tmp_path / f"model{suffix}", weights="random")
    assert not list(tmp_path.iterdir())


def test_exports_predictions_and_heat_maps_need_no_tensorflow(heads, slices, tmp_path):
    heads["dense"].save(tmp_path / "head.h5")
    words = ["predict", "head.h5", *map(str, find_inputs([slices]).images[:1])]
    code = (
        "import sys; from brainfeat.prediction.export import export_head\n"
        "from brainfeat.cli.main import group\n"
        "for name in ('m.onnx', 'm.xml'): export_head('head.h5', name, weights='random')\n"
        f"group.main([*{words}, '--weights', 'random', '--heatmap', 'm'], standalone_mode=False)\n"
        "assert not {'keras', 'tensorflow', 'jax', 'torch'} & {*sys.modules}"
    )
    environment = {k: v for k, v in os.environ.items() if k != "KERAS_BACKEND"}
    environment["PYTHONPATH"] = str(Path(export.__file__).parents[2])
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, env=environment)


def test_the_command_names_the_classes_and_the_size(heads, tmp_path):
    heads["lda"].save(tmp_path / "head.h5")
    head, output = str(tmp_path / "head.h5"), str(tmp_path / "model.onnx")
    words = [head, "-o", output, "--weights", "random", "--quantize", "int8"]
    result = CliRunner().invoke(command, words)
    assert result.exit_code == 0, result.output
    first, second = result.stdout.splitlines()
    megabytes = Path(output).stat().st_size / 1e6
    assert first.startswith(f"{output} written, {megabytes:.1f} MB; on synthetic slices, its ")
    assert second == "classes: glioma, meningioma, notumor, pituitary"
