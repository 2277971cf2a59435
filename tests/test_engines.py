"""The engines: which one is chosen, and that OpenVINO computes what Keras computes."""

import os
import shutil
import subprocess
import sys
import textwrap
import weakref
from functools import partial
from threading import Thread

import numpy as np
import pytest
from PIL import Image

from brainfeat import FeatureCache, extract, fit_head, read_table
from brainfeat.cache.spec import FeatureSpec
from brainfeat.errors import MissingDependencyError, ParameterError, SpecMismatchError
from brainfeat.extraction import engines, int8_calibration, openvino_engine, openvino_layers
from brainfeat.extraction.architectures import BACKBONES
from brainfeat.extraction.backbones import load_backbone
from brainfeat.extraction.computed_rows import choose_layout
from brainfeat.extraction.engines import choose_engine, choose_precision, find_winograd_fraction
from brainfeat.extraction.graph import list_maps, plan_quantization, read_graph
from brainfeat.extraction.preprocessing import scale_pixels
from brainfeat.extraction.quantization import Quantization
from brainfeat.phantoms import CLASS_NAMES, draw_slice
from brainfeat.prediction.predictor import Predictor
from brainfeat.readers import read_image

SIZE = 32
MOBILENET = "mobilenet-0.75"


def load(name=MOBILENET, **options):
    return load_backbone(name, **{"weights": "random", "input_size": SIZE, **options})


@pytest.fixture
def images():
    return np.random.default_rng(0).random((3, SIZE, SIZE, 3), np.float32)


@pytest.fixture(autouse=True)
def no_backend(monkeypatch):
    monkeypatch.delenv("KERAS_BACKEND", raising=False)
    monkeypatch.setattr(engines, "_CARDS", ())


def choose(engine="auto", *, device="auto", precision="float32"):
    return choose_engine(engine, device=device, precision=precision)


class TestChoice:
    def test_a_processor_takes_openvino(self):
        assert choose() == choose(device="cpu") == choose(device="cpu:0") == "openvino"

    def test_a_device_of_another_kind_takes_keras(self):
        assert choose(device="gpu:1") == "keras"

    def test_a_card_takes_keras_unless_the_processor_is_named(self, monkeypatch, tmp_path):
        monkeypatch.setattr(engines, "_CARDS", (str(tmp_path),))
        assert choose() == "keras"
        assert choose(device="cpu") == choose("openvino") == "openvino"

    def test_a_named_backend_takes_keras(self, monkeypatch):
        monkeypatch.setenv("KERAS_BACKEND", "jax")
        assert choose() == "keras"
        assert choose("openvino") == "openvino"

    def test_without_openvino_it_is_keras(self, monkeypatch):
        monkeypatch.setattr(engines, "find_spec", lambda name: None)
        assert choose() == "keras"

    @pytest.mark.parametrize("precision", ["bfloat16", "float16"])
    def test_a_precision_that_the_processor_lacks_takes_keras(self, monkeypatch, precision):
        monkeypatch.setattr(openvino_engine, "has_precision", lambda wanted: wanted == "float32")
        assert choose(precision=precision) == "keras"
        with pytest.raises(ParameterError, match=f"does not compute in {precision}"):
            choose("openvino", precision=precision)

    def test_openvino_on_another_device_is_refused(self):
        with pytest.raises(ParameterError, match="on the processor, not on device 'gpu'"):
            choose("openvino", device="gpu")

    def test_an_unknown_engine_is_refused(self):
        with pytest.raises(ParameterError, match="'tpu'; expected auto, keras, openvino"):
            choose("tpu")

    def test_an_engine_that_cannot_be_imported_is_told(self, monkeypatch):
        openvino_engine.import_openvino.cache_clear()
        openvino_engine._start.cache_clear()
        monkeypatch.setitem(sys.modules, "openvino", None)
        with pytest.raises(MissingDependencyError, match=r"pip install 'brainfeat\[fast\]'"):
            load(engine="openvino")(np.zeros((1, SIZE, SIZE, 3), np.float32))


class TestPrecision:
    SECONDS = {"float32": 2.0, "winograd": 1.0, "bfloat16": 1.0}

    def choose(self, monkeypatch, name, **seconds):
        monkeypatch.setattr(
            openvino_engine, "measure_convolution", lambda: {**self.SECONDS, **seconds}
        )
        monkeypatch.setattr(openvino_engine, "has_precision", lambda precision: True)
        return choose_precision("openvino", device="auto", name=name, input_size=224)

    def test_it_is_bfloat16_where_that_is_faster(self, monkeypatch):
        assert self.choose(monkeypatch, "resnet50") == "bfloat16"
        assert self.choose(monkeypatch, "resnet50", bfloat16=1.9) == "float32"

    def test_it_is_compared_with_what_float32_takes_by_winograds_method(self, monkeypatch):
        assert self.choose(monkeypatch, "vgg16", bfloat16=1.2) == "float32"
        assert self.choose(monkeypatch, "vgg16", bfloat16=1.0) == "bfloat16"

    def test_without_instructions_it_is_float32(self, monkeypatch):
        monkeypatch.setattr(openvino_engine, "has_precision", lambda precision: False)
        assert choose_precision("openvino", device="cpu", name="vgg16", input_size=32) == "float32"

    def test_the_convolution_is_measured(self):
        seconds = openvino_engine.measure_convolution()
        assert set(seconds) == {"float32", "bfloat16", "winograd"}
        assert all(0 < value < 60 for value in seconds.values())

    def test_the_fraction_of_winograds_method(self):
        assert find_winograd_fraction("vgg16", 224) == pytest.approx(0.693, abs=1e-3)
        assert find_winograd_fraction("vgg16", 32) == 0


class TestFeatures:
    @pytest.mark.slow
    @pytest.mark.parametrize("scaling", ["weights", "unit"])
    @pytest.mark.parametrize("size", [64, 65])
    @pytest.mark.parametrize("name", BACKBONES)
    def test_both_engines_compute_the_same(self, name, size, scaling):
        """The last layer and its map, and a convolution that a normalization may follow."""
        images = np.random.default_rng(size).random((2, size, size, 3), np.float32)
        inner = [layer.name for layer in read_graph(name) if layer.kind == "Conv2D"]
        inner = [layer for layer in inner if layer in list_maps(read_graph(name))]
        ours, theirs = (
            load(
                name,
                engine=engine,
                input_size=size,
                scaling=scaling,
                layers=(BACKBONES[name].layer, inner[len(inner) // 2]),
                pooling="none",
            )
            for engine in ("openvino", "keras")
        )
        layout = choose_layout(ours.spec, ours)
        assert [*ours.spec.widths] == [inner[len(inner) // 2], BACKBONES[name].layer]
        expected = theirs(images)
        assert expected.shape == (2, layout.width)
        ends = np.cumsum([*ours.spec.widths.values()])
        blocks = (np.split(rows, ends, axis=1) for rows in (ours(images), expected))
        for values, wanted in zip(*blocks, strict=True):
            assert wanted.std() > 0
            np.testing.assert_allclose(values, wanted, rtol=1e-4, atol=1e-4 * np.abs(wanted).max())
        assert ours.spec == theirs.spec
        assert ours.recipe == theirs.recipe

    @pytest.mark.parametrize("size", [112, 100])
    def test_winograds_method_gives_what_keras_gives(self, monkeypatch, size):
        """Of all wide convolutions, on sizes that whole tiles cover and on others."""
        monkeypatch.setattr("brainfeat.extraction.winograd.LEAST_FLOP", 0)
        images = np.random.default_rng(0).random((2, size, size, 3), np.float32)
        ours = load("vgg16", input_size=size)(images)
        expected = load("vgg16", input_size=size, engine="keras").compile(n_images=2)[0](images)
        np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-4 * expected.max())

    @pytest.mark.parametrize("engine", ["openvino", "keras"])
    @pytest.mark.parametrize("scaling", ["weights", "unit"])
    @pytest.mark.parametrize("name", ["vgg16", MOBILENET])
    def test_8_bit_pixels_are_scaled_by_the_base(self, name, scaling, engine):
        pixels = np.random.default_rng(0).integers(0, 256, (2, SIZE, SIZE, 3), np.uint8)
        base = load(name, engine=engine, scaling=scaling)
        expected = base(scale_pixels(pixels))
        np.testing.assert_allclose(base(pixels), expected, rtol=1e-4, atol=1e-4 * expected.max())

    def test_maps_are_those_that_are_pooled(self, images):
        base = load()
        maps = base.compute_maps(images)
        assert maps.shape == (3, 1, 1, 768)
        np.testing.assert_allclose(maps.mean(axis=(1, 2)), base(images), rtol=1e-6)

    def test_each_stream_computes_the_same(self, images):
        base = load()
        copies = base.compile(n_images=None)
        expected, found = base(images), [None] * len(copies)

        def compute(place):
            for _ in range(5):
                found[place] = copies[place](images)

        threads = [Thread(target=compute, args=(place,)) for place in range(len(copies))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for features in found:
            np.testing.assert_allclose(features, expected, rtol=1e-5)

    def test_few_images_are_computed_by_all_cores_together(self):
        assert len(load().compile(n_images=1)) == 1

    def test_features_outlive_the_next_batch(self, images):
        (copy, *_) = load().compile(n_images=None)
        first = copy(images)
        kept = first.copy()
        copy(1 - images)
        np.testing.assert_array_equal(first, kept)

    def test_bfloat16_is_not_float32_but_close(self, images):
        if not openvino_engine.has_precision("bfloat16"):
            pytest.skip("this processor has no instructions for bfloat16")
        full, half = load("vgg16")(images), load("vgg16", precision="bfloat16")(images)
        assert not np.array_equal(full, half)
        lengths = np.linalg.norm(full, axis=1) * np.linalg.norm(half, axis=1)
        assert ((full * half).sum(axis=1) / lengths).min() > 0.9995


def test_a_run_imports_no_network_library_and_tells_nobody(tmp_path):
    """OpenVINO's telemetry would write below the home folder and open a connection."""
    script = """
        import socket, sys
        from pathlib import Path
        from brainfeat import extract
        from brainfeat.phantoms import write_phantoms

        def refuse(*_, **__):
            raise AssertionError("a connection")

        socket.socket.connect = socket.getaddrinfo = refuse
        slices = write_phantoms("slices", patients_per_class=2, size=48)
        result = extract(slices, "f.h5", backbone="mobilenet-0.75", weights="random", input_size=32)
        assert result.engine == "openvino", result.engine
        heavy = {"keras", "tensorflow", "jax", "torch", "openvino_telemetry"}
        print(sorted(heavy & {*sys.modules}), sorted(path.name for path in Path.home().iterdir()))
    """
    home = tmp_path / "home"
    home.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        cwd=tmp_path,
        env={**os.environ, "HOME": str(home)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    assert done.stdout == "[] []\n"


def draw_folder(folder, number=60):
    """Draw training slices of two classes, and a test slice that is brighter than all of them."""
    rows = [f"{place}.png,{('glioma', 'notumor')[place % 2]},train" for place in range(number)]
    for place in range(number):
        pixels = draw_slice(CLASS_NAMES[place % 4], patient=place, level=4, size=48)
        Image.fromarray(pixels).save(folder / f"{place}.png")
    Image.fromarray(np.full((48, 48), 255, np.uint8)).save(folder / "white.png")
    table = "\n".join(["path,label,split", *rows, "white.png,glioma,test"])
    (folder / "table.csv").write_text(f"{table}\n", encoding="utf-8")
    return folder / "table.csv"


def require_int8():
    if not openvino_engine.has_precision("int8"):
        pytest.skip("this processor has no instructions for int8")


@pytest.fixture(scope="module")
def notes():
    return []


@pytest.fixture(scope="module")
def extracted(tmp_path_factory, notes):
    require_int8()
    folder = tmp_path_factory.mktemp("int8")
    return extract(
        draw_folder(folder),
        folder / "int8.h5",
        backbone="vgg16",
        weights="random",
        input_size=SIZE,
        precision="int8",
        progress=lambda done, total, note: notes.append((done, total, note)),
    )


class TestInt8:
    @pytest.fixture(autouse=True)
    def has_instructions(self):
        require_int8()

    def test_the_spec_says_how_it_was_calibrated(self, extracted):
        spec = FeatureCache(extracted.output).spec
        found = Quantization.parse(spec.quantization)
        assert (spec.precision, found.images) == ("int8", 40)
        assert tuple(found.ranges) == plan_quantization(read_graph("vgg16")).sources
        assert all(low == 0 < high for low, high in found.ranges.values())
        assert FeatureSpec.from_json(spec.to_json()) == spec

    def test_progress_tells_of_the_calibration(self, extracted, notes):
        assert notes[0] == (0, 61, "int8 by openvino, calibrating on 1 of 60 images")
        assert (0, 61, "int8 by openvino, calibrating on 60 of 60 images") in notes
        assert notes[-1] == (61, 61, "int8 by openvino")

    def test_ranges_are_taken_without_winograds_kernels(self, monkeypatch):
        """They would take four times the memory of the base."""
        monkeypatch.setattr("brainfeat.extraction.winograd.LEAST_FLOP", 0)
        monkeypatch.setattr(openvino_layers, "_convolve_by_winograd", None)
        pixels = np.full((1, 112, 112, 3), 128, np.uint8)
        (found,) = load("vgg16", input_size=112).observe([pixels], "float32")
        assert [rows.shape for rows in found.features] == [(1, 512)]
        assert found.ranges.shape == (len(plan_quantization(read_graph("vgg16")).sources), 2)

    def test_features_are_near_those_of_float32(self, extracted, tmp_path):
        options = {"backbone": "vgg16", "weights": "random", "input_size": SIZE}
        table = extracted.output.with_name("table.csv")
        full = extract(table, tmp_path / "full.h5", precision="float32", **options)
        ours, theirs = (np.asarray(FeatureCache(result.output).X) for result in (extracted, full))
        lengths = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
        assert ((ours * theirs).sum(axis=1) / lengths)[:-1].min() > 0.995
        assert not np.array_equal(ours, theirs)

    def test_ranges_are_those_of_the_whole_base_whatever_the_layers(self, tmp_path):
        table, taps = draw_folder(tmp_path), {"layers": ("block4_pool", "block3_conv2")}
        found = calibrate_on(table, loaded=partial(load, "vgg16", pooling="none", **taps))
        assert found == calibrate_on(table)
        pixels = np.full((1, SIZE, SIZE, 3), 128, np.uint8)
        ours = load("vgg16", precision="int8", quantization=found.text, **taps)
        theirs = load("vgg16", engine="openvino", **taps)(pixels)[0]
        for block in (slice(256), slice(256, 768)):
            first, second = ours(pixels)[0][block], theirs[block]
            assert first @ second > 0.99 * np.linalg.norm(first) * np.linalg.norm(second)
            assert not np.array_equal(first, second)

    def test_images_outside_train_do_not_count(self, tmp_path):
        found = []
        for name in ("first", "second"):
            (tmp_path / name).mkdir()
            table = draw_folder(tmp_path / name)
            if name == "second":
                Image.fromarray(np.zeros((48, 48), np.uint8)).save(tmp_path / name / "white.png")
            found.append(calibrate_on(table))
        assert found[0] == found[1]

    def test_a_later_run_keeps_the_ranges(self, extracted, tmp_path):
        shutil.copytree(extracted.output.parent, tmp_path, dirs_exist_ok=True)
        table = tmp_path / "table.csv"
        lines = table.read_text().splitlines()
        table.write_text("\n".join([*lines[:-1], "white.png,glioma,train"]) + "\n")
        again = extract(
            table,
            tmp_path / "int8.h5",
            backbone="vgg16",
            weights="random",
            input_size=SIZE,
            precision="int8",
        )
        assert (again.computed, again.fingerprint) == (0, extracted.fingerprint)

    def test_a_head_on_it_predicts_in_it(self, extracted):
        bundle = fit_head(extracted.output, head="logistic")
        predictor = Predictor(bundle, weights="random")
        assert predictor.precision == "int8"
        path = extracted.output.with_name("0.png")
        (found,) = predictor.predict(path)
        X = np.asarray(FeatureCache(extracted.output).X)[:1]
        np.testing.assert_allclose(
            list(found.probabilities.values()), bundle.predict_proba(X)[0], atol=1e-3
        )
        assert Predictor(bundle, weights="random", precision="float32").precision == "float32"

    def test_a_base_whose_features_it_changes_is_refused(self, tmp_path, monkeypatch):
        monkeypatch.setattr(int8_calibration, "LEAST_COSINE", 1.1)
        table = draw_folder(tmp_path)
        with pytest.raises(SpecMismatchError, match=r"mean cosine .* below 1.1; take another"):
            calibrate_on(table)
        assert calibrate_on(table, force=True).images == 40

    def test_only_images_to_check_and_one_base_are_in_memory(self, tmp_path, monkeypatch):
        for name in ("_CHECKED", "_FEWEST"):
            monkeypatch.setattr(int8_calibration, name, 8)
        resize, images, most = int8_calibration.resize_pixels, [], []

        def watch(*arguments, **options):
            most.append(sum(image() is not None for image in images))
            made = resize(*arguments, **options)
            images.append(weakref.ref(made))
            return made

        bases = []

        def load_alone(**options):
            assert all(base() is None for base in bases)
            base = load("vgg16", **options)
            bases.append(weakref.ref(base))
            return base

        monkeypatch.setattr(int8_calibration, "resize_pixels", watch)
        assert calibrate_on(draw_folder(tmp_path), loaded=load_alone).images == 52
        assert len(images) == 60
        assert max(most) <= 8 + 1
        assert len(bases) == 2

    def test_few_images_are_refused(self, tmp_path):
        table = draw_folder(tmp_path, number=20)
        with pytest.raises(ParameterError, match="20 different training images"):
            calibrate_on(table)

    def test_keras_and_other_devices_are_refused(self):
        with pytest.raises(ParameterError, match="Keras does not compute in int8"):
            choose("keras", precision="int8")
        with pytest.raises(ParameterError, match="not on device 'gpu'"):
            choose(device="gpu", precision="int8")

    def test_without_openvino_it_is_refused_and_keras_is_not_advised(self, monkeypatch):
        monkeypatch.setattr(engines, "find_spec", lambda name: None)
        with pytest.raises(
            MissingDependencyError, match="fast]', or pass another precision"
        ) as met:
            choose(precision="int8")
        assert "keras" not in str(met.value)

    def test_a_processor_without_instructions_is_refused(self, monkeypatch):
        monkeypatch.setattr(openvino_engine, "_INT8_FEATURES", {"none"})
        with pytest.raises(ParameterError, match=r"int8 on .* lacks .*; pass another precision$"):
            choose(precision="int8")

    def test_without_ranges_there_is_no_base(self):
        with pytest.raises(ParameterError, match="both or neither"):
            load("vgg16", precision="int8")


def calibrate_on(table, *, loaded=None, force=False):
    return int8_calibration.calibrate(
        loaded or partial(load, "vgg16"),
        read_table(table),
        read=read_image,
        crop="",
        random_state=0,
        force=force,
    )


class TestQuantizationPlan:
    @pytest.mark.parametrize("name", BACKBONES)
    def test_only_the_convolution_that_sees_the_image_stays(self, name):
        layers = read_graph(name)
        sources, takers = plan_quantization(layers)
        kept = [
            layer.name
            for layer in layers
            if layer.kind in ("Conv2D", "DepthwiseConv2D") and layer.name not in takers
        ]
        assert len(kept) == 1
        assert len(set(sources)) == len(sources) > 0

    def test_another_text_is_refused(self):
        with pytest.raises(ParameterError, match="not one of this version"):
            Quantization.parse('{"method":"another"}')
