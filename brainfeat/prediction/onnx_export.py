"""Base and head as one ONNX model."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from brainfeat.errors import MissingDependencyError
from brainfeat.extraction.backbones import Backbone
from brainfeat.extraction.graph import cut_graph, read_graph
from brainfeat.extraction.onnx_graph import OnnxGraph, Rounding
from brainfeat.extraction.onnx_layers import add_base
from brainfeat.prediction.attention_export import add_onnx_attention
from brainfeat.prediction.head_layers import HeadLayers


def build_model(
    backbone: Backbone,
    head: HeadLayers,
    *,
    rounding: Rounding | None,
    least_rounded: int,
    metadata: Mapping[str, str],
) -> bytes:
    """Build an ONNX model.

    Parameters
    ----------
    backbone : Backbone
        The base.
    head : HeadLayers
        The head.
    rounding : {"float16", "int8"} or None
        Number format in which filters and kernels are stored; they are computed with in float32.
    least_rounded : int
        Those of fewer weights are stored in float32.
    metadata : mapping of str to str
        What is stored beside the graph.

    Returns
    -------
    bytes
        The contents of an ``.onnx`` file: from ``images`` (n, h, w, 3) in [0, 1] to
        ``probabilities`` (n, k), both float32.
    """
    graph, size = OnnxGraph(rounding, least_rounded), backbone.input_size
    hidden = add_base(
        graph,
        cut_graph(read_graph(backbone.name), backbone.taps.layers),
        backbone.load_tensors(),
        images="images",
        input_size=size,
        scaling=backbone.architecture.find_input_scaling(backbone.scaling),
        pooling=backbone.pooling,
    )
    shape = (-1, 1, 1) if head.takes_maps else (-1,)
    hidden = graph.add("Sub", hidden, graph.constant(head.mean.reshape(shape)))
    hidden = graph.add("Mul", hidden, graph.constant((1 / head.scale).reshape(shape)))
    if head.attention:
        if not head.takes_maps:
            hidden = graph.add("Unsqueeze", hidden, graph.constant([2, 3], np.int64))
        hidden = add_onnx_attention(graph, hidden, head)
    for place, (kernel, bias) in enumerate(head.layers):
        if place:
            hidden = graph.add("Relu", hidden)
        hidden = graph.add("Gemm", hidden, graph.filters(kernel.T), graph.constant(bias), transB=1)
    graph.add("Softmax", hidden, axis=1, output="probabilities")
    return graph.serialize(
        name="brainfeat",
        inputs={"images": ("n", size, size, 3)},
        outputs={"probabilities": ("n", len(head.layers[-1][1]))},
        metadata=metadata,
    )


def compute_probabilities(path: Path, images: NDArray[np.float32]) -> NDArray[np.float32]:
    """Run an ONNX model on images (n, h, w, 3) by ONNX Runtime, and return probabilities (n, k).

    Raises
    ------
    MissingDependencyError
        ONNX Runtime is not installed.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingDependencyError(
            f"an ONNX model is checked by onnxruntime, which cannot be imported ({error}): "
            "pip install 'brainfeat[export]'"
        ) from error
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (probabilities,) = session.run(["probabilities"], {"images": images})
    return np.asarray(probabilities, np.float32)


def is_model(path: Path) -> bool:
    """Return whether a file begins like an ONNX model: with its version, and who made it.

    The first two fields of ``ModelProto`` are ``ir_version`` and ``producer_name``.
    """
    with path.open("rb") as file:
        start = file.read(3)
    return start[:1] == b"\x08" and start[2:] == b"\x12"
