"""Bases rewritten for inference: the same features to rounding, in less time."""

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainfeat.extraction.winograd import (
    INPUT_TRANSFORM,
    OUTPUT_TRANSFORM,
    TILE,
    WINDOW,
    count_tiles,
    is_worthwhile,
    transform_kernel,
)
from brainfeat.runtime import fuse, import_keras

# With fewer input or output channels, the transforms take as long as they save.
_FEWEST_CHANNELS = (128, 128)


def accelerate(base: Any, *, winograd: bool) -> Any:
    """Rewrite a frozen base for inference, with the same features to rounding.

    A batch normalization that follows a convolution is folded into its kernel and bias, in float32.
    On request, 3 × 3 convolutions with many channels are computed by Winograd's minimal filtering,
    with a quarter of the multiplications.

    Parameters
    ----------
    base : keras.Model
        A functional model, which is not changed. What it puts out stays what it is: a convolution
        that is an output is not folded with what follows.
    winograd : bool
        Whether to use Winograd's method, which is faster on a processor in float32.

    Returns
    -------
    keras.Model
        A model from the same input to the same output, with weights of its own; or `base` if there
        is nothing to rewrite.
    """
    keras = import_keras()
    norms = _find_foldable(base)
    folded = {norm.name for norm in norms.values()}
    wide = {layer.name for layer in base.layers if winograd and _is_winograd(layer)}
    if not folded and not wide:
        return base

    def rewrite(layer: Any) -> Any:
        if layer.name in folded:
            return keras.layers.Identity(name=layer.name, dtype=layer.dtype_policy)
        if layer.name in wide:
            return _make_winograd_class()(
                layer.filters, layer.activation, name=layer.name, dtype=layer.dtype_policy
            )
        config = layer.get_config()
        if layer.name in norms:
            config["use_bias"] = True
        return type(layer).from_config(config)

    def call(layer: Any, *inputs: Any, **options: Any) -> Any:
        return layer(*inputs) if layer.name in folded else layer(*inputs, **options)

    rewritten = keras.models.clone_model(base, clone_function=rewrite, call_function=call)
    for layer in base.layers:
        if layer.weights and layer.name not in folded:
            arrays = _fold(layer, norms.get(layer.name))
            if layer.name in wide:
                arrays[0] = transform_kernel(arrays[0])
            rewritten.get_layer(layer.name).set_weights(arrays)
    rewritten.trainable = False
    return rewritten


def _find_foldable(base: Any) -> Mapping[str, Any]:
    """Map the name of each convolution to the batch normalization that is its only consumer."""
    layers = import_keras().layers
    outputs = {output._keras_history.operation.name for output in base.outputs}
    found = {}
    for layer in base.layers:
        if isinstance(layer, layers.BatchNormalization):
            before = layer.input._keras_history.operation
            read_once = len(before._outbound_nodes) == 1 and before.name not in outputs
            if isinstance(before, layers.Conv2D | layers.DepthwiseConv2D) and read_once:
                found[before.name] = layer
    return found


def _fold(layer: Any, norm: Any) -> list[NDArray[Any]]:
    """Return the weights of a layer, with its batch normalization folded in if it has one."""
    arrays: list[NDArray[Any]] = [np.asarray(array) for array in layer.get_weights()]
    if norm is None:
        return arrays
    kernel = arrays[0]
    bias = arrays[1] if layer.use_bias else np.zeros(norm.moving_mean.shape, np.float32)
    mean, variance = np.asarray(norm.moving_mean), np.asarray(norm.moving_variance)
    scale = 1.0 / np.sqrt(variance + norm.epsilon)
    if norm.scale:
        scale = scale * np.asarray(norm.gamma)
    shift = np.asarray(norm.beta) if norm.center else 0.0
    depthwise = isinstance(layer, import_keras().layers.DepthwiseConv2D)
    by_channel = scale.reshape(kernel.shape[2:]) if depthwise else scale
    return [kernel * by_channel, (bias - mean) * scale + shift]


def _is_winograd(layer: Any) -> bool:
    layers = import_keras().layers
    if type(layer) is not layers.Conv2D:
        return False
    return (
        layer.dilation_rate == (1, 1)
        and layer.groups == 1
        and layer.use_bias
        and is_worthwhile(
            tuple(layer.kernel.shape),
            strides=layer.strides,
            padding=layer.padding,
            length=layer.output.shape[1],
            fewest=_FEWEST_CHANNELS,
        )
    )


def _combine(coefficients: tuple[float, ...], tensors: list[Any]) -> Any:
    terms = [
        tensor if factor == 1 else tensor * float(factor)
        for factor, tensor in zip(coefficients, tensors, strict=True)
        if factor
    ]
    return sum(terms[1:], terms[0])


def transform_images(images: Any) -> Any:
    """Transform the tiles of feature maps for Winograd's method, in tensor operations.

    Parameters
    ----------
    images : tensor of shape (n, h, w, c)

    Returns
    -------
    tensor of shape (36, n × tiles, c)
    """
    return _transform_columns(_transform_rows(images))


def _transform_rows(images: Any) -> Any:
    """Pad maps (n, h, w, c) and transform the rows of tiles: (6, n, tiles, w + padding, c)."""
    ops = import_keras().ops
    down, across = (count_tiles(length) for length in images.shape[1:3])
    padding = [
        (1, TILE * tiles + 1 - length)
        for tiles, length in zip((down, across), images.shape[1:3], strict=True)
    ]
    padded = ops.pad(images, [(0, 0), *padding, (0, 0)])
    last = TILE * (down - 1) + 1
    rows = [padded[:, row : row + last : TILE] for row in range(WINDOW)]
    return ops.stack([_combine(factors, rows) for factors in INPUT_TRANSFORM])


def _transform_columns(rows: Any) -> Any:
    """Transform the columns of tiles: (36, n × tiles, c)."""
    ops = import_keras().ops
    last = rows.shape[3] - WINDOW + 1
    columns = [rows[:, :, :, column : column + last : TILE] for column in range(WINDOW)]
    transformed = ops.stack([_combine(factors, columns) for factors in INPUT_TRANSFORM])
    return ops.reshape(transformed, (WINDOW**2, -1, rows.shape[-1]))


def _untransform(products: Any, down: int, across: int) -> Any:
    """Transform products (36, n × down × across, k) to maps (n, 4 × down, 4 × across, k)."""
    ops = import_keras().ops
    n_filters = products.shape[-1]
    tiles = ops.reshape(products, (WINDOW, WINDOW, -1, down, across, n_filters))
    columns = [_combine(factors, _unstack(tiles)) for factors in OUTPUT_TRANSFORM]
    rows = [
        ops.stack([_combine(factors, _unstack(column)) for column in columns], axis=3)
        for factors in OUTPUT_TRANSFORM
    ]
    maps = ops.stack(rows, axis=2)
    return ops.reshape(maps, (-1, down * TILE, across * TILE, n_filters))


def _unstack(tensor: Any) -> list[Any]:
    return [tensor[place] for place in range(WINDOW)]


# Layers share both functions, which are compiled once for each shape.
@cache
def _fuse_transform() -> Any:
    return fuse(transform_images)


@cache
def _fuse_finish(height: int, width: int, activation: Callable[[Any], Any]) -> Any:
    """Make a compiled function from products and a bias (k,) to maps (n, height, width, k)."""

    def finish(products: Any, bias: Any) -> Any:
        maps = _untransform(products, count_tiles(height), count_tiles(width))
        return activation(maps[:, :height, :width] + bias)

    return fuse(finish)


@cache
def _make_winograd_class() -> Any:
    """Make the class of the layer, whose base class is known once Keras is imported."""
    keras = import_keras()

    class WinogradConv2D(keras.layers.Layer):  # type: ignore[misc, name-defined]
        """A 3 × 3 convolution with stride 1, same padding, bias and activation."""

        def __init__(self, filters: int, activation: Callable[[Any], Any], **options: Any) -> None:
            super().__init__(**options)
            self._filters = filters
            self._activation = activation

        def build(self, shape: tuple[int | None, ...]) -> None:
            shapes = {"kernel": (WINDOW**2, shape[-1], self._filters), "bias": (self._filters,)}
            self.kernel, self.bias = (
                self.add_weight(shape=shapes[name], initializer="zeros", name=name)
                for name in shapes
            )
            self._finish = _fuse_finish(*shape[1:3], self._activation)

        def call(self, images: Any) -> Any:
            products = keras.ops.matmul(_fuse_transform()(images), self.kernel)
            return self._finish(products, self.bias + 0.0)

        def compute_output_shape(self, shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
            return (*shape[:3], self._filters)

    return WinogradConv2D
