"""The one owner of device, thread and precision set-up."""

import json
import os
import platform
import subprocess
import sys
from importlib.metadata import version

import numpy as np
import pytest

from brainfeat import runtime
from brainfeat.errors import MissingDependencyError, ParameterError
from brainfeat.keras_start import find_config_file, held_back_stderr


class TestProcessor:
    @pytest.fixture(autouse=True)
    def _anew(self):
        """The answer is kept for the process: ask anew in each test."""
        runtime.processor.cache_clear()
        yield
        runtime.processor.cache_clear()

    @pytest.fixture
    def cpuinfo(self, tmp_path, monkeypatch):
        """Give a function that says what the system tells of its processor."""

        def set_cpuinfo(text):
            path = tmp_path / "cpuinfo"
            if text is not None:
                path.write_text(text)
            monkeypatch.setattr(runtime, "Path", lambda _: path)

        return set_cpuinfo

    def test_it_can_be_stored(self):
        assert set(runtime.processor()) == {"name", "cores", "features"}
        assert json.loads(json.dumps(runtime.processor())) == runtime.processor()

    def test_name_and_features_are_the_systems(self, cpuinfo):
        cpuinfo(
            "processor\t: 0\nmodel name\t: A: Processor\nflags\t\t: fpu amx_bf16 avx2 avx512f\n\n"
            "processor\t: 1\nmodel name\t: A: Processor\nflags\t\t: fpu amx_bf16 avx2 avx512f\n"
        )
        found = runtime.processor()
        assert found["name"] == "A: Processor"
        assert found["features"] == ["avx2", "avx512f", "amx_bf16"]

    def test_a_system_that_tells_nothing(self, cpuinfo):
        cpuinfo(None)
        found = runtime.processor()
        assert found["name"] == (platform.processor() or platform.machine())
        assert found["features"] == []

    def test_cores_are_those_this_process_may_use(self, monkeypatch):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 3, 5}, raising=False)
        assert runtime.processor()["cores"] == runtime.usable_cores() == 3

    def test_cores_where_no_affinity_is_known(self, monkeypatch):
        monkeypatch.delattr(os, "sched_getaffinity", raising=False)
        monkeypatch.setattr(os, "cpu_count", lambda: None)
        assert runtime.usable_cores() == 1


class TestVersions:
    def test_they_are_those_that_are_installed(self):
        found = runtime.versions()
        assert found["python"] == platform.python_version()
        assert found["numpy"] == np.__version__
        assert found["keras"] == version("keras")

    def test_what_is_not_installed_is_left_out(self, monkeypatch):
        monkeypatch.setattr(runtime, "_LIBRARIES", ("numpy", "a-library-that-nobody-has"))
        assert set(runtime.versions()) == {"python", "numpy"}


class TestLayerPrecision:
    @pytest.fixture
    def keras(self):
        return runtime.import_keras()

    @pytest.mark.parametrize(
        ("precision", "policy"),
        [
            ("float32", "float32"),
            ("bfloat16", "mixed_bfloat16"),
            ("float16", "mixed_float16"),
        ],
    )
    def test_it_holds_in_the_body_and_no_longer(self, keras, precision, policy):
        before = keras.config.dtype_policy()
        with runtime.layer_precision(precision):
            assert keras.config.dtype_policy().name == policy
            assert keras.layers.Dense(1).compute_dtype == precision
        assert keras.config.dtype_policy() is before

    def test_it_ends_with_an_exception_too(self, keras):
        before = keras.config.dtype_policy()
        with pytest.raises(RuntimeError), runtime.layer_precision("bfloat16"):
            raise RuntimeError
        assert keras.config.dtype_policy() is before

    def test_a_policy_of_the_users_is_restored(self, keras):
        before = keras.config.dtype_policy()
        keras.config.set_dtype_policy("mixed_float16")
        try:
            with runtime.layer_precision("float32"):
                assert keras.layers.Dense(1).compute_dtype == "float32"
            assert keras.config.dtype_policy().name == "mixed_float16"
        finally:
            keras.config.set_dtype_policy(before)

    def test_the_sessions_settings_are_put_aside(self, keras):
        keras.config.set_image_data_format("channels_first")
        keras.config.set_floatx("float64")
        try:
            with runtime.layer_precision("float32"):
                assert keras.layers.Conv2D(1, 3).data_format == "channels_last"
                assert keras.config.floatx() == "float32"
            assert keras.config.image_data_format() == "channels_first"
            assert keras.config.floatx() == "float64"
        finally:
            keras.config.set_image_data_format("channels_last")
            keras.config.set_floatx("float32")


class TestDevices:
    @pytest.fixture
    def gpus(self, monkeypatch):
        """Let Keras tell of three GPUs and a processor."""
        there = {"gpu": ["gpu:0", "gpu:1", "gpu:2"], "cpu": ["cpu:0"]}
        keras = runtime.import_keras()
        monkeypatch.setattr(
            keras.distribution, "list_devices", lambda kind=None: there[kind or "gpu"]
        )

    @pytest.mark.parametrize(
        ("wanted", "found"),
        [
            ("auto", ["gpu:0", "gpu:1", "gpu:2"]),
            ("gpu", ["gpu:0", "gpu:1", "gpu:2"]),
            ("cpu", ["cpu:0"]),
            ("gpu:1", ["gpu:1"]),
            ("GPU:2, gpu:0", ["gpu:2", "gpu:0"]),
            ("gpu:1,gpu:1,gpu", ["gpu:1", "gpu:0", "gpu:2"]),
        ],
    )
    def test_they_are_found_by_kind_and_by_name(self, gpus, wanted, found):
        assert runtime.find_devices(wanted) == found

    @pytest.mark.parametrize("wanted", ["gpu:3", "tpu", "", "cpu,gpu:7", "gpu:", "cuda:0"])
    def test_one_that_is_not_there_is_refused_with_those_that_are(self, gpus, wanted):
        with pytest.raises(ParameterError, match="there are gpu:0, gpu:1, gpu:2, cpu:0"):
            runtime.find_devices(wanted)

    def test_without_a_gpu_it_is_the_processor(self):
        if runtime.accelerators():
            pytest.skip("there is a GPU here")
        assert runtime.find_devices() == ["cpu:0"]
        with pytest.raises(ParameterError, match="no device 'gpu'; there are cpu:0"):
            runtime.find_devices("gpu")


class TestChoosePrecision:
    @pytest.fixture
    def machine(self, monkeypatch):
        """Give a function that says what the processor has, and how much faster bfloat16 is."""

        def set_machine(features, gain):
            monkeypatch.setattr(runtime, "find_devices", lambda device="auto": ["cpu:0"])
            monkeypatch.setattr(runtime, "processor", lambda: {"features": features})
            monkeypatch.setattr(runtime, "_measure_bfloat16_gain", lambda device: gain)

        return set_machine

    @pytest.mark.parametrize(
        ("features", "gain", "precision"),
        [
            (["avx2", "avx512f", "avx512_bf16", "amx_bf16"], 7.0, "bfloat16"),
            (["avx2", "avx512f", "avx512_bf16"], 2.0, "bfloat16"),
            (["avx2", "avx512f", "avx512_bf16"], 0.5, "float32"),
            (["avx2", "avx512f", "avx512_bf16"], 1.1, "float32"),
            (["avx2", "avx512f"], 2.0, "float32"),
            ([], 2.0, "float32"),
        ],
    )
    def test_it_takes_instructions_and_a_gain(self, machine, features, gain, precision):
        machine(features, gain)
        assert runtime.choose_precision() == precision

    def test_without_the_instructions_nothing_is_measured(self, machine, monkeypatch):
        machine(["avx2"], None)
        monkeypatch.delattr(runtime, "_measure_bfloat16_gain")
        assert runtime.choose_precision() == "float32"

    @pytest.mark.parametrize(
        ("capabilities", "precision"),
        [([(8, 0)], "bfloat16"), ([(9, 0), (8, 6)], "bfloat16"), ([(9, 0), (7, 5)], "float32")],
    )
    def test_every_gpu_must_have_it(self, monkeypatch, capabilities, precision):
        import tensorflow as tf

        names = [f"gpu:{number}" for number in range(len(capabilities))]
        monkeypatch.setattr(runtime, "find_devices", lambda device="auto": names)
        monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: capabilities)
        monkeypatch.setattr(
            tf.config.experimental,
            "get_device_details",
            lambda physical: {"compute_capability": physical},
        )
        assert runtime.choose_precision() == precision

    def test_the_measurement_is_a_ratio_and_is_made_once(self):
        gain = runtime._measure_bfloat16_gain("cpu:0")
        assert 0.01 < gain < 100
        assert runtime._measure_bfloat16_gain("cpu:0") == gain


class TestWinograd:
    @pytest.mark.parametrize(
        ("device", "precision", "expected"),
        [
            ("cpu:0", "float32", True),
            ("cpu:0", "bfloat16", False),
            ("gpu:0", "float32", False),
        ],
    )
    def test_it_is_for_processors_in_float32(self, device, precision, expected):
        assert runtime.is_winograd_faster(device, precision) is expected


class TestForward:
    def test_it_is_the_models_inference(self):
        """Dropout and the statistics of a batch have no part in it."""
        keras = runtime.import_keras()
        inputs = keras.Input((2, 2, 3))
        hidden = keras.layers.BatchNormalization()(keras.layers.Dropout(0.5)(inputs))
        model = keras.Model(inputs, keras.ops.mean(hidden, axis=(1, 2)))
        forward = runtime.compile_forward(model)
        images = np.random.default_rng(0).random((4, 2, 2, 3), np.float32)
        features = forward(images)
        assert features.dtype == np.float32
        expected = images.mean(axis=(1, 2)) / np.sqrt(1 + 1e-3)
        np.testing.assert_allclose(features, expected, rtol=1e-5)

    def test_one_shape_is_traced_once(self):
        keras = runtime.import_keras()
        traced = []

        class Watched(keras.layers.Layer):
            def call(self, inputs):
                traced.append(inputs.shape)
                return inputs

        inputs = keras.Input((2,))
        model = keras.Model(inputs, Watched()(inputs))
        forward = runtime.compile_forward(model)
        traced.clear()
        for _ in range(3):
            forward(np.zeros((4, 2), np.float32))
        assert traced == [(4, 2)]


class TestImport:
    def test_nothing_is_written_and_a_failure_is_one_error(self):
        """TensorFlow's start-up messages are held back; those of a failure are shown."""
        script = (
            "import os, sys; sys.modules['tensorflow'] = None\n"
            "from brainfeat import runtime\n"
            "try:\n"
            "    runtime.import_keras()\n"
            "except Exception as error:\n"
            "    print(type(error).__name__, error)\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, check=False
        )
        assert done.stdout.startswith(f"{MissingDependencyError.__name__} Keras cannot be imported")
        assert "pip install brainfeat" in done.stdout

    @pytest.mark.parametrize(
        ("settings", "words"),
        [
            ({"backend": "nonsense"}, ["names the backend 'nonsense'", "KERAS_BACKEND=tensorflow"]),
            ({"backend": "torch"}, ["names the backend 'torch'", "installed", "change the file"]),
            ({"floatx": "float8"}, ["Invalid `floatx`", "change or remove"]),
        ],
    )
    def test_the_file_that_names_a_wrong_setting_is_named(self, tmp_path, settings, words):
        file = tmp_path / "keras.json"
        file.write_text(json.dumps(settings))
        (tmp_path / "torch.py").write_text("raise ImportError('torch is not installed')")
        environment = {name: os.environ[name] for name in os.environ if name != "KERAS_BACKEND"}
        path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
        done = subprocess.run(
            [sys.executable, "-m", "brainfeat", "doctor"],
            capture_output=True,
            text=True,
            check=False,
            env={**environment, "KERAS_HOME": str(tmp_path), "PYTHONPATH": path},
        )
        assert done.returncode == 1
        assert "Traceback" not in done.stderr
        for word in (str(file), *words):
            assert word in done.stderr

    def test_the_file_is_where_keras_looks_for_it(self):
        from keras.src.backend import config

        assert str(find_config_file()) == os.path.expanduser(config._config_path)

    def test_a_backend_that_does_not_exist_is_named(self):
        done = subprocess.run(
            [sys.executable, "-m", "brainfeat", "doctor"],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "KERAS_BACKEND": "nonsense"},
        )
        assert done.returncode == 1
        assert "KERAS_BACKEND is 'nonsense', expected tensorflow, jax or torch" in done.stderr
        assert "Traceback" not in done.stderr

    @pytest.mark.slow
    def test_start_up_is_silent(self):
        script = "from brainfeat import runtime; runtime.import_keras()"
        done = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, check=True
        )
        assert (done.stdout, done.stderr) == ("", "")

    def test_what_native_code_wrote_is_shown_where_it_failed(self, capfd):
        def fail():
            os.write(2, b"the driver is missing")
            raise RuntimeError

        with pytest.raises(RuntimeError), held_back_stderr():
            fail()
        assert capfd.readouterr().err == "the driver is missing"

    def test_what_native_code_wrote_is_held_back(self, capfd):
        with held_back_stderr():
            os.write(2, b"a dozen lines")
        os.write(2, b"later")
        assert capfd.readouterr().err == "later"
