"""Base and head as one OpenVINO model: an ``.xml`` file, and its weights in a ``.bin`` file."""

import errno
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainfeat.cache.spec import Pooling
from brainfeat.extraction import openvino_graph
from brainfeat.extraction.backbones import Backbone
from brainfeat.extraction.graph import read_graph
from brainfeat.extraction.quantization import Quantization
from brainfeat.prediction.attention_export import add_openvino_attention
from brainfeat.prediction.head_layers import HeadLayers

WEIGHTS_SUFFIX = ".bin"


def write_model(
    backbone: Backbone,
    head: HeadLayers,
    path: Path,
    *,
    half: bool,
    metadata: Mapping[str, str],
) -> None:
    """Write an OpenVINO model.

    Parameters
    ----------
    backbone : Backbone
        The base. If its precision is int8, so is that of the model.
    head : HeadLayers
        The head.
    path : Path
        The ``.xml`` file; the ``.bin`` file is written beside it.
    half : bool
        Whether weights are stored in float16.
    metadata : mapping of str to str
        What is stored beside the graph, below ``brainfeat``.

    Raises
    ------
    OSError
        The files cannot be written.
    """
    openvino = openvino_graph.import_openvino()
    size, quantization = backbone.input_size, backbone.quantization
    base = openvino_graph.build_model(
        read_graph(backbone.name),
        backbone.load_tensors(),
        backbone.taps.layers,
        shape=(-1, size, size, 3),
        scaling=backbone.architecture.find_input_scaling(backbone.scaling),
        winograd=False,
        ranges=Quantization.parse(quantization).ranges if quantization else None,
    )
    (images,), (result,) = base.get_parameters(), base.get_results()
    images.output(0).set_names({"images"})
    features = _pool(openvino.opset13, result.input_value(0), backbone.pooling)
    probabilities = _add_head(openvino.opset13, features, head)
    probabilities.output(0).set_names({"probabilities"})
    model = openvino.Model([probabilities], [images], "brainfeat")
    for key, value in metadata.items():
        model.set_rt_info(value, ["brainfeat", key])
    if quantization:
        _store_in_int8(model)
    try:
        openvino.save_model(model, path, compress_to_fp16=half)
    except RuntimeError as error:  # that of a stream of C++, such as on a full disk
        raise OSError(errno.EIO, " ".join(str(error).split())) from error


def _pool(op: Any, maps: Any, pooling: Pooling) -> Any:
    """Pool maps (n, d, h, w) to features (n, d); or leave them."""
    if pooling == "none":
        return maps
    reduce = op.reduce_max if pooling == "max" else op.reduce_mean
    return reduce(maps, np.array([2, 3]), keep_dims=False)


def _add_head(op: Any, features: Any, head: HeadLayers) -> Any:
    """Compute probabilities (n, k) of features (n, d), or maps (n, d, h, w)."""
    shape = (1, -1, 1, 1) if head.takes_maps else (1, -1)
    hidden = op.subtract(features, head.mean.astype(np.float32).reshape(shape))
    hidden = op.multiply(hidden, (1 / head.scale).astype(np.float32).reshape(shape))
    if head.attention:
        if not head.takes_maps:
            hidden = op.unsqueeze(hidden, np.array([2, 3]))
        hidden = add_openvino_attention(op, hidden, head)
    for place, (kernel, bias) in enumerate(head.layers):
        if place:
            hidden = op.relu(hidden)
        hidden = op.matmul(hidden, kernel.T.astype(np.float32).copy(), False, True)
        hidden = op.add(hidden, bias.astype(np.float32))
    return op.softmax(hidden, 1)


def _store_in_int8(model: Any) -> None:
    """Store the filters that are rounded to 8 bits as such, as OpenVINO's own tools do."""
    from openvino._offline_transformations import compress_quantize_weights_transformation

    compress_quantize_weights_transformation(model)


def compute_probabilities(path: Path, images: NDArray[np.float32]) -> NDArray[np.float32]:
    """Run an OpenVINO model on images (n, h, w, 3), and return probabilities (n, k)."""
    core = openvino_graph.import_openvino().Core()
    # Where a processor has instructions for bfloat16, that is OpenVINO's default.
    model = core.compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return np.array(model([images])[0], np.float32)


def is_model(path: Path) -> bool:
    """Return whether a file begins like an OpenVINO model."""
    with path.open("rb") as file:
        return b"<net " in file.read(200)
