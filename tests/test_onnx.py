"""ONNX graphs: ONNX Runtime computes from them what the engines compute, for every base."""

import sys

import numpy as np
import onnx
import onnxruntime
import pytest

from brainfeat.errors import MissingDependencyError
from brainfeat.extraction.architectures import BACKBONES
from brainfeat.extraction.backbones import load_backbone
from brainfeat.extraction.graph import read_graph
from brainfeat.extraction.onnx_graph import OnnxGraph
from brainfeat.extraction.onnx_layers import add_base
from brainfeat.extraction.openvino_engine import build_model, import_openvino


def run(content, values):
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return session.run(None, {"x": values})[0]


def draw_vectors(tensors):
    """Replace the vectors of random weights, which are zero or one, by positive numbers."""
    rng = np.random.default_rng(1)
    return {
        path: tensor if tensor.ndim > 1 else rng.uniform(0.8, 1.2, tensor.shape).astype("f4")
        for path, tensor in tensors.items()
    }


@pytest.mark.parametrize("size", [64, 65])
@pytest.mark.parametrize("name", BACKBONES)
def test_a_base_computes_the_same_features(name, size):
    scaling = "unit" if (name, size) == ("vgg16", 65) else "weights"
    base = load_backbone(name, weights="random", input_size=size, scaling=scaling)
    layers, tensors = read_graph(name), draw_vectors(base.load_tensors())
    options = {"scaling": base.architecture.find_input_scaling(scaling)}
    graph = OnnxGraph()
    output = add_base(graph, layers, tensors, images="x", input_size=size, **options)
    content = graph.serialize(
        name="base",
        inputs={"x": ("n", size, size, 3)},
        outputs={output: ("n", base.architecture.n_features)},
        metadata={},
    )
    images = np.random.default_rng(0).random((2, size, size, 3), np.float32)
    model = build_model(layers, tensors, shape=images.shape, winograd=False, **options)
    compiled = (
        import_openvino().Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    )
    expected = compiled([images])[0].mean(axis=(2, 3))
    assert expected.std() > 0
    atol = 1e-4 * np.abs(expected).max()
    np.testing.assert_allclose(run(content, images), expected, rtol=1e-4, atol=atol)


def multiply(rounding, least, kernel):
    graph = OnnxGraph(rounding, least)
    graph.add("Gemm", "x", graph.filters(kernel), transB=1, output="y")
    return graph.serialize(
        name="product",
        inputs={"x": ("n", kernel.shape[1])},
        outputs={"y": ("n", len(kernel))},
        metadata={"a": "ß"},
    )


class TestFilters:
    KERNEL = np.random.default_rng(0).standard_normal((5, 40)).astype(np.float32)

    def test_their_rounding_is_that_of_the_format(self):
        identity = np.eye(40, dtype=np.float32)
        halves = run(multiply("float16", 200, self.KERNEL), identity).T
        assert np.array_equal(halves, self.KERNEL.astype(np.float16).astype(np.float32))
        eighths = run(multiply("int8", 200, self.KERNEL), identity).T
        steps = np.abs(self.KERNEL).max(axis=1, keepdims=True) / 127
        assert (np.abs(eighths - self.KERNEL) <= steps * 0.5001).all()
        assert np.abs(eighths - self.KERNEL).max() > 0.3 * steps.max()

    @pytest.mark.parametrize("rounding", [None, "float16", "int8"])
    def test_small_ones_stay_as_they_are(self, rounding):
        values = np.random.default_rng(1).standard_normal((2, 40)).astype(np.float32)
        content = multiply(rounding, 201, self.KERNEL)
        assert run(content, values) == pytest.approx(values @ self.KERNEL.T, rel=1e-5, abs=1e-6)

    def test_zeros_stay_zero_in_int8(self):
        kernel = np.zeros((2, 3), np.float32)
        assert (run(multiply("int8", 1, kernel), np.ones((1, 3), np.float32)) == 0).all()


def test_a_file_is_the_same_each_time_and_old_runtimes_read_it():
    content = multiply(None, 0, TestFilters.KERNEL)
    assert content == multiply(None, 0, TestFilters.KERNEL)
    model = onnx.load_from_string(content)
    assert (model.ir_version, model.opset_import[0].version) == (8, 17)
    assert {entry.key: entry.value for entry in model.metadata_props} == {"a": "ß"}


def test_a_graph_without_its_library_is_refused(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'brainfeat\[export\]'"):
        OnnxGraph()
