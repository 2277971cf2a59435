"""Layers of a base as operations of OpenVINO, with the channels first."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from brainfeat.extraction.graph import Layer
from brainfeat.extraction.winograd import (
    INPUT_TRANSFORM,
    OUTPUT_TRANSFORM,
    TILE,
    WINDOW,
    count_tiles,
    is_worthwhile,
    transform_kernel,
)

Tensors = Mapping[str, NDArray[Any]]
Options = Mapping[str, Any]

# Keras divides by no smaller deviation (keras.config.epsilon).
_LEAST_DEVIATION = 1e-7
# With fewer channels, the transforms of Winograd's method take as long as they save.
FEWEST_CHANNELS = (128, 256)
_NO_PADS = [0, 0]
# Levels of signed 8-bit integers that are as many on both sides of zero; and where all is zero.
_WEIGHT_LEVELS = 255
_LEAST_RANGE = 1e-6


class Operations(NamedTuple):
    """The operations of OpenVINO, and how 3 × 3 convolutions are computed.

    Attributes
    ----------
    op : module
        An operation set, such as ``openvino.opset13``.
    winograd : bool
        Whether convolutions with many channels use Winograd's method. The shapes are static then.
    """

    op: Any
    winograd: bool

    def constant(self, values: Any, dtype: Any = np.float32) -> Any:
        """Make a constant."""
        return self.op.constant(np.array(values, dtype, order="C"), shared_memory=True)

    def whole(self, *values: int) -> Any:
        """Make a constant vector of whole numbers."""
        return self.constant(values, np.int64)

    def by_channel(self, values: NDArray[Any]) -> Any:
        """Make a constant for each channel, shaped (1, c, 1, 1)."""
        return self.constant(np.reshape(values, (1, -1, 1, 1)))

    def transpose(self, values: Any, *axes: int) -> Any:
        """Change the order of axes."""
        return self.op.transpose(values, self.whole(*axes)).output(0)

    def reshape(self, values: Any, *shape: int) -> Any:
        """Change the shape."""
        return self.op.reshape(values, self.whole(*shape), special_zero=False).output(0)

    def activate(self, values: Any, name: str) -> Any:
        """Apply an activation by its name in Keras."""
        activations: dict[str, Callable[[Any], Any]] = {
            "linear": lambda values: values,
            "relu": self.op.relu,
            "sigmoid": self.op.sigmoid,
            "silu": self.op.swish,
        }
        return activations[name](values)


class Call(NamedTuple):
    """A layer with its inputs.

    Attributes
    ----------
    ops : Operations
        The operations.
    inputs : sequence of openvino.Output
        Each (n, c, h, w).
    options : mapping of str to object
        As in :class:`brainfeat.extraction.graph.Layer`.
    weights : mapping of str to ndarray
        By name.
    int8 : bool
        Whether a convolution computes with 8-bit integers.
    """

    ops: Operations
    inputs: Sequence[Any]
    options: Options
    weights: Tensors
    int8: bool

    @property
    def values(self) -> Any:
        """The only input."""
        (values,) = self.inputs
        return values


def add_layer(
    ops: Operations, layer: Layer, inputs: Sequence[Any], tensors: Tensors, *, int8: bool
) -> Any:
    """Add a layer to a graph.

    Parameters
    ----------
    ops : Operations
        The operations.
    layer : Layer
        The layer; its options are those that `brainfeat.extraction.graph` reads.
    inputs : sequence of openvino.Output
        Its inputs, each (n, c, h, w).
    tensors : mapping of str to ndarray
        The weights of the base by path.
    int8 : bool
        Whether a convolution computes with 8-bit integers.

    Returns
    -------
    openvino.Output
        Its output (n, c, h, w).
    """
    weights = {weight.name: tensors[f"{layer.name}/{weight.name}"] for weight in layer.weights}
    values = _LAYERS[layer.kind](Call(ops, inputs, layer.options, weights, int8))
    return values.output(0) if hasattr(values, "output") else values


def _convolve(call: Call) -> Any:
    ops, options, kernel = call.ops, call.options, call.weights["kernel"]
    if ops.winograd and is_worthwhile(
        kernel.shape,
        strides=options["strides"],
        padding=options["padding"],
        length=call.values.get_partial_shape()[2].get_length(),
        fewest=FEWEST_CHANNELS,
    ):
        maps = _convolve_by_winograd(ops, call.values, kernel)
    else:
        filters = _make_filters(call, kernel.transpose(3, 2, 0, 1))
        maps = ops.op.convolution(call.values, filters, *_place(options))
    return _finish(call, maps)


def _convolve_depthwise(call: Call) -> Any:
    kernel = call.weights["kernel"].transpose(2, 3, 0, 1)[:, np.newaxis]
    filters = _make_filters(call, kernel)
    return _finish(call, call.ops.op.group_convolution(call.values, filters, *_place(call.options)))


def _make_filters(call: Call, filters: NDArray[np.float32]) -> Any:
    """Make a constant of filters (k, …), in int8 with a scale for each of them."""
    constant = call.ops.constant(filters)
    if not call.int8:
        return constant
    axes = tuple(range(1, filters.ndim))
    largest = np.maximum(np.abs(filters).max(axis=axes, keepdims=True), _LEAST_RANGE)
    low, high = call.ops.constant(-largest), call.ops.constant(largest)
    return call.ops.op.fake_quantize(constant, low, high, low, high, _WEIGHT_LEVELS)


def quantize(ops: Operations, values: Any, low: float, high: float) -> Any:
    """Round values from `low` to `high` to 256 levels, of which one is zero."""
    low, high = min(low, 0.0), max(high, 0.0)
    step = max(high - low, _LEAST_RANGE) / 255
    zero = round(-low / step)
    limits = ops.constant(-zero * step), ops.constant((255 - zero) * step)
    return ops.op.fake_quantize(values, *limits, *limits, 256).output(0)


def _finish(call: Call, maps: Any) -> Any:
    """Add the bias, if there is one, and activate."""
    if call.options["use_bias"]:
        maps = call.ops.op.add(maps, call.ops.by_channel(call.weights["bias"]))
    return call.ops.activate(maps, call.options["activation"])


def _place(options: Options) -> tuple[Any, ...]:
    """Return strides, pads, dilations, and how pads are chosen."""
    automatic = "same_upper" if options["padding"] == "same" else "valid"
    return options["strides"], _NO_PADS, _NO_PADS, [1, 1], automatic


def _normalize_batch(call: Call) -> Any:
    options, weights = call.options, call.weights
    scale = 1.0 / np.sqrt(weights["moving_variance"] + options["epsilon"])
    if options["scale"]:
        scale = scale * weights["gamma"]
    shift = -weights["moving_mean"] * scale
    if options["center"]:
        shift = shift + weights["beta"]
    scaled = call.ops.op.multiply(call.values, call.ops.by_channel(scale))
    return call.ops.op.add(scaled, call.ops.by_channel(shift))


def _normalize(call: Call) -> Any:
    deviation = np.maximum(np.sqrt(call.weights["variance"]), _LEAST_DEVIATION)
    centred = call.ops.op.subtract(call.values, call.ops.by_channel(call.weights["mean"]))
    return call.ops.op.divide(centred, call.ops.by_channel(deviation))


def _rescale(call: Call) -> Any:
    scaled = call.ops.op.multiply(call.values, call.ops.constant(call.options["scale"]))
    return call.ops.op.add(scaled, call.ops.constant(call.options["offset"]))


def _rectify(call: Call) -> Any:
    if call.options["max_value"] is None:
        return call.ops.op.relu(call.values)
    return call.ops.op.clamp(call.values, 0.0, call.options["max_value"])


def _pool_maximum(call: Call) -> Any:
    strides, pads, _, dilations, automatic = _place(call.options)
    size = call.options["pool_size"]
    return call.ops.op.max_pool(
        call.values, strides, dilations, pads, pads, size, "floor", automatic
    ).output(0)


def _pool_average(call: Call) -> Any:
    strides, pads, _, _, automatic = _place(call.options)
    size = call.options["pool_size"]
    return call.ops.op.avg_pool(call.values, strides, pads, pads, size, True, "floor", automatic)


def _average(call: Call) -> Any:
    return call.ops.op.reduce_mean(call.values, call.ops.whole(2, 3), keep_dims=True)


def _pad(call: Call) -> Any:
    padding = call.options["padding"]
    if padding == "correct":
        sides = [size // 2 for size in call.options["kernel_size"]]
        lengths = [call.values.get_partial_shape()[axis].get_length() for axis in (2, 3)]
        padding = [
            (side - 1 + length % 2, side) for side, length in zip(sides, lengths, strict=True)
        ]
    (top, bottom), (left, right) = padding
    before, after = call.ops.whole(0, 0, top, left), call.ops.whole(0, 0, bottom, right)
    return call.ops.op.pad(call.values, before, after, "constant", call.ops.constant(0.0))


# By the class of Keras. In the bases, only the averages of channels are reshaped, to (1, 1, c),
# which they are here; and nothing is dropped when features are computed.
_LAYERS: Mapping[str, Callable[[Call], Any]] = {
    "Activation": lambda call: call.ops.activate(call.values, call.options["activation"]),
    "Add": lambda call: call.ops.op.add(*call.inputs),
    "AveragePooling2D": _pool_average,
    "BatchNormalization": _normalize_batch,
    "Concatenate": lambda call: call.ops.op.concat(list(call.inputs), 1),
    "Conv2D": _convolve,
    "DepthwiseConv2D": _convolve_depthwise,
    "Dropout": lambda call: call.values,
    "GlobalAveragePooling2D": _average,
    "MaxPooling2D": _pool_maximum,
    "Multiply": lambda call: call.ops.op.multiply(*call.inputs),
    "Normalization": _normalize,
    "ReLU": _rectify,
    "Rescaling": _rescale,
    "Reshape": lambda call: call.values,
    "ZeroPadding2D": _pad,
}


def _convolve_by_winograd(ops: Operations, values: Any, kernel: NDArray[np.float32]) -> Any:
    """Convolve maps (n, c, h, w) with a kernel (3, 3, c, k), padded to the same size."""
    n, _, height, width = values.get_partial_shape().to_shape()
    down, across = count_tiles(height), count_tiles(width)
    tiles = _transform_tiles(ops, ops.transpose(values, 0, 2, 3, 1), down, across)
    products = ops.op.matmul(tiles, ops.constant(transform_kernel(kernel)), False, False)
    maps = _transform_products(ops, products, (n, down, across, kernel.shape[-1]))
    if (TILE * down, TILE * across) != (height, width):
        maps = _cut(ops, _cut(ops, maps, axis=1, stop=height), axis=2, stop=width)
    return ops.transpose(maps, 0, 3, 1, 2)


def _transform_tiles(ops: Operations, images: Any, down: int, across: int) -> Any:
    """Transform maps (n, h, w, c) to tiles (36, n × tiles, c), column by column."""
    n, height, width, channels = images.get_partial_shape().to_shape()
    after = (TILE * down + 1 - height, TILE * across + 1 - width)
    padded = ops.op.pad(
        images, ops.whole(0, 1, 1, 0), ops.whole(0, *after, 0), "constant", ops.constant(0.0)
    )
    rows = [
        _cut(ops, padded, axis=1, start=row, stop=row + TILE * (down - 1) + 1, step=TILE)
        for row in range(WINDOW)
    ]
    rows = ops.op.concat([_combine(ops, factors, rows) for factors in INPUT_TRANSFORM], 0)
    columns = [
        _cut(ops, rows, axis=2, start=column, stop=column + TILE * (across - 1) + 1, step=TILE)
        for column in range(WINDOW)
    ]
    columns = [_combine(ops, factors, columns) for factors in INPUT_TRANSFORM]
    return ops.reshape(ops.op.concat(columns, 0), WINDOW**2, n * down * across, channels)


def _transform_products(ops: Operations, products: Any, shape: tuple[int, ...]) -> Any:
    """Transform products (36, n × tiles, k) of tiles (n, down, across, k) to maps (n, h, w, k)."""
    n, down, across, filters = shape
    values = ops.reshape(products, WINDOW, WINDOW, n * down * across * filters)
    for axis in (0, 1):
        parts = ops.op.split(values, ops.constant(axis, np.int64), WINDOW).outputs()
        values = ops.op.concat(
            [_combine(ops, factors, parts) for factors in OUTPUT_TRANSFORM], axis
        )
    tiles = ops.reshape(values, TILE, TILE, *shape)
    return ops.reshape(
        ops.transpose(tiles, 2, 3, 1, 4, 0, 5), n, TILE * down, TILE * across, filters
    )


def _combine(ops: Operations, factors: Sequence[float], values: Sequence[Any]) -> Any:
    """Add values, each multiplied by its factor."""
    terms = [
        value if factor == 1 else ops.op.multiply(value, ops.constant(factor))
        for factor, value in zip(factors, values, strict=True)
        if factor
    ]
    total = terms[0]
    for term in terms[1:]:
        total = ops.op.add(total, term)
    return total


def _cut(
    ops: Operations, values: Any, *, axis: int, stop: int, start: int = 0, step: int = 1
) -> Any:
    return ops.op.slice(values, ops.whole(start), ops.whole(stop), ops.whole(step), ops.whole(axis))
