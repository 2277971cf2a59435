"""Stage one on other backends and on several devices: the same features, in the same order."""

import json
import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest

from brainfeat.cache.cache import FeatureCache
from brainfeat.extraction.extractor import extract
from brainfeat.phantoms import write_phantoms
from brainfeat.tables.table import read_table

OPTIONS = {"weights": "random", "input_size": 64, "precision": "float32", "batch_size": 4}

# Two processors where there is one: what several GPUs are to a backend.
TWO_DEVICES = {
    "jax": "import os; os.environ['XLA_FLAGS'] = '--xla_force_host_platform_device_count=2'",
    "tensorflow": """
        import tensorflow as tf
        cpu = tf.config.list_physical_devices("CPU")[0]
        half = tf.config.LogicalDeviceConfiguration()
        tf.config.set_logical_device_configuration(cpu, [half, half])
    """,
}


@pytest.fixture(scope="module")
def slices(tmp_path_factory):
    folder = tmp_path_factory.mktemp("slices")
    return write_phantoms(folder, patients_per_class=3, slices_per_patient=2, size=64)


def extract_here(name, slices, output):
    """Give the features of TensorFlow on one device."""
    extract(read_table(slices), output, backbone=name, **OPTIONS)
    with FeatureCache.open(output) as cache:
        return cache.X[:]


def extract_elsewhere(backend, name, slices, output):
    """Run stage one on two devices in another process; return what it did."""
    script = f"""
        {textwrap.dedent(TWO_DEVICES[backend]).strip().replace(chr(10), chr(10) + " " * 8)}
        import json, sys
        from brainfeat import FeatureCache, extract, read_table
        from brainfeat.extraction.backbones import load_backbone

        options = {OPTIONS!r}
        batch_size = options.pop("batch_size")
        backbone = load_backbone({name!r}, **options)
        calls = [0, 0]

        def watch(place, forward):
            def call(images):
                calls[place] += 1
                return forward(images)

            return call

        watched = tuple(
            watch(place, forward) for place, forward in enumerate(backbone.compile())
        )
        vars(backbone)["compile"] = lambda n_images: watched
        table = read_table({str(slices)!r})
        extract(table, {str(output)!r}, backbone=backbone, batch_size=batch_size)
        heavy = sorted({{"tensorflow", "jax"}} & set(sys.modules))
        print(json.dumps({{"devices": backbone.devices, "calls": calls, "heavy": heavy}}))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "KERAS_BACKEND": backend},
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mobilenet-0.75", pytest.param("vgg16", marks=pytest.mark.deep)])
@pytest.mark.parametrize("backend", [pytest.param("jax", marks=pytest.mark.deep), "tensorflow"])
def test_features_of_two_devices_are_those_of_one(backend, name, slices, tmp_path):
    """Batches are dealt to both devices; under JAX, TensorFlow is not even imported."""
    if backend == "jax":
        pytest.importorskip("jax")
    output = tmp_path / "elsewhere.h5"
    done = extract_elsewhere(backend, name, slices, output)
    assert backend in done["heavy"]
    assert backend == "tensorflow" or "tensorflow" not in done["heavy"]
    assert done["devices"] == ["cpu:0", "cpu:1"]
    assert sum(done["calls"]) == 6
    assert min(done["calls"]) >= 1
    expected = extract_here(name, slices, tmp_path / "here.h5")
    with FeatureCache.open(output) as cache:
        features = cache.X[:]
    scale = np.abs(expected).mean()
    np.testing.assert_allclose(features, expected, rtol=1e-4, atol=1e-4 * scale)
