"""Layers of a base as operations of ONNX, with the channels first."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from brainfeat.cache.spec import Pooling
from brainfeat.extraction.architectures import InputScaling
from brainfeat.extraction.graph import Layer, find_lengths
from brainfeat.extraction.onnx_graph import OnnxGraph

Tensors = Mapping[str, NDArray[Any]]
Options = Mapping[str, Any]

# Keras divides by no smaller deviation (keras.config.epsilon).
_LEAST_DEVIATION = 1e-7


class Call(NamedTuple):
    """A layer with its inputs.

    Attributes
    ----------
    graph : OnnxGraph
        The graph to which it is added.
    inputs : sequence of str
        Names of values, each (n, c, h, w).
    length : int
        Height and width of the first of these.
    options : mapping of str to object
        As in :class:`brainfeat.extraction.graph.Layer`.
    weights : mapping of str to ndarray
        By name.
    """

    graph: OnnxGraph
    inputs: Sequence[str]
    length: int
    options: Options
    weights: Tensors

    @property
    def values(self) -> str:
        """The only input."""
        (values,) = self.inputs
        return values

    def by_channel(self, values: NDArray[Any]) -> str:
        """Make a constant for each channel, shaped (c, 1, 1)."""
        return self.graph.constant(np.reshape(values, (-1, 1, 1)))


def add_base(
    graph: OnnxGraph,
    layers: tuple[Layer, ...],
    tensors: Tensors,
    *,
    images: str,
    input_size: int,
    scaling: InputScaling | None,
    pooling: Pooling = "mean",
) -> str:
    """Add a base and its pooling to a graph.

    Parameters
    ----------
    graph : OnnxGraph
        The graph.
    layers : tuple of Layer
        The layers.
    tensors : mapping of str to ndarray
        Their weights by path.
    images : str
        Name of the images (n, h, w, 3), float32 in [0, 1].
    input_size : int
        Height and width of the images in pixels.
    scaling : InputScaling or None
        How the pixels are scaled; None leaves them in [0, 1].
    pooling : {"mean", "max", "none"}
        How the maps of the last layer become features; ``"none"`` leaves them.

    Returns
    -------
    str
        Name of the features (n, d), or of the maps (n, d, h, w).
    """
    lengths, outputs = find_lengths(layers, input_size), dict[str, str]()
    for layer in layers:
        if layer.kind == "InputLayer":
            scaled = _scale(graph, images, scaling)
            outputs[layer.name] = graph.add("Transpose", scaled, perm=[0, 3, 1, 2])
            continue
        weights = {weight.name: tensors[f"{layer.name}/{weight.name}"] for weight in layer.weights}
        inputs = [outputs[name] for name in layer.inputs]
        call = Call(graph, inputs, lengths[layer.inputs[0]], layer.options, weights)
        outputs[layer.name] = _LAYERS[layer.kind](call)
        if layer.kind == "Normalization" and scaling is not None:
            factor = call.by_channel(np.array(scaling.normalized_factor))
            outputs[layer.name] = graph.add("Mul", outputs[layer.name], factor)
    if pooling == "none":
        return outputs[layers[-1].name]
    kind = "GlobalMaxPool" if pooling == "max" else "GlobalAveragePool"
    pooled = graph.add(kind, outputs[layers[-1].name])
    return graph.add("Flatten", pooled, axis=1)


def _scale(graph: OnnxGraph, pixels: str, scaling: InputScaling | None) -> str:
    if scaling is None:
        return pixels
    if scaling.reverse:
        pixels = graph.add("Gather", pixels, graph.constant([2, 1, 0], np.int64), axis=3)
    scaled = graph.add("Mul", pixels, graph.constant(scaling.factor))
    return graph.add("Add", scaled, graph.constant(scaling.offset))


def _activate(graph: OnnxGraph, values: str, name: str) -> str:
    if name == "linear":
        return values
    if name == "silu":
        return graph.add("Mul", values, graph.add("Sigmoid", values))
    return graph.add({"relu": "Relu", "sigmoid": "Sigmoid"}[name], values)


def _convolve(call: Call) -> str:
    return _add_convolution(call, call.weights["kernel"].transpose(3, 2, 0, 1))


def _convolve_depthwise(call: Call) -> str:
    kernel = call.weights["kernel"]
    return _add_convolution(call, kernel.transpose(2, 3, 0, 1), group=kernel.shape[2])


def _add_convolution(call: Call, filters: NDArray[np.float32], group: int = 1) -> str:
    graph, options = call.graph, call.options
    inputs = [call.values, graph.filters(filters)]
    if options["use_bias"]:
        inputs.append(graph.constant(call.weights["bias"]))
    maps = graph.add("Conv", *inputs, group=group, **_place(call, filters.shape[2:]))
    return _activate(graph, maps, options["activation"])


def _place(call: Call, size: Sequence[int]) -> dict[str, Any]:
    """Return the attributes of a window: its size, its strides, and the pads around the maps."""
    strides = call.options["strides"]
    before, after = [0, 0], [0, 0]
    if call.options["padding"] == "same":
        for axis, (side, stride) in enumerate(zip(size, strides, strict=True)):
            steps = -(-call.length // stride) - 1
            missing = max(steps * stride + side - call.length, 0)
            before[axis], after[axis] = missing // 2, missing - missing // 2
    return {"kernel_shape": [*size], "strides": [*strides], "pads": [*before, *after]}


def _normalize_batch(call: Call) -> str:
    options, weights = call.options, call.weights
    scale = 1.0 / np.sqrt(weights["moving_variance"] + options["epsilon"])
    if options["scale"]:
        scale = scale * weights["gamma"]
    shift = -weights["moving_mean"] * scale
    if options["center"]:
        shift = shift + weights["beta"]
    scaled = call.graph.add("Mul", call.values, call.by_channel(scale))
    return call.graph.add("Add", scaled, call.by_channel(shift))


def _normalize(call: Call) -> str:
    deviation = np.maximum(np.sqrt(call.weights["variance"]), _LEAST_DEVIATION)
    centred = call.graph.add("Sub", call.values, call.by_channel(call.weights["mean"]))
    return call.graph.add("Div", centred, call.by_channel(deviation))


def _rescale(call: Call) -> str:
    scaled = call.graph.add("Mul", call.values, call.graph.constant(call.options["scale"]))
    return call.graph.add("Add", scaled, call.graph.constant(call.options["offset"]))


def _rectify(call: Call) -> str:
    if call.options["max_value"] is None:
        return call.graph.add("Relu", call.values)
    limits = call.graph.constant(0.0), call.graph.constant(call.options["max_value"])
    return call.graph.add("Clip", call.values, *limits)


def _pool(kind: str, call: Call) -> str:
    return call.graph.add(kind, call.values, **_place(call, call.options["pool_size"]))


def _pad(call: Call) -> str:
    padding = call.options["padding"]
    if padding == "correct":
        sides = [size // 2 for size in call.options["kernel_size"]]
        padding = [(side - 1 + call.length % 2, side) for side in sides]
    (top, bottom), (left, right) = padding
    pads = call.graph.constant([0, 0, top, left, 0, 0, bottom, right], np.int64)
    return call.graph.add("Pad", call.values, pads)


# By the class of Keras. In the bases, only the averages of channels are reshaped, to (1, 1, c),
# which they are here; and nothing is dropped when features are computed.
_LAYERS: Mapping[str, Callable[[Call], str]] = {
    "Activation": lambda call: _activate(call.graph, call.values, call.options["activation"]),
    "Add": lambda call: call.graph.add("Add", *call.inputs),
    "AveragePooling2D": lambda call: _pool("AveragePool", call),
    "BatchNormalization": _normalize_batch,
    "Concatenate": lambda call: call.graph.add("Concat", *call.inputs, axis=1),
    "Conv2D": _convolve,
    "DepthwiseConv2D": _convolve_depthwise,
    "Dropout": lambda call: call.values,
    "GlobalAveragePooling2D": lambda call: call.graph.add("GlobalAveragePool", call.values),
    "MaxPooling2D": lambda call: _pool("MaxPool", call),
    "Multiply": lambda call: call.graph.add("Mul", *call.inputs),
    "Normalization": _normalize,
    "ReLU": _rectify,
    "Rescaling": _rescale,
    "Reshape": lambda call: call.values,
    "ZeroPadding2D": _pad,
}
