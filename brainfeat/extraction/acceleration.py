"""Bases rewritten for inference: the same features to rounding, in less time."""

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainfeat.runtime import fuse, import_keras

# Winograd's minimal filtering for tiles of 4 by 4: Lavin and Gray 2016, arXiv:1509.09308, § 4.3.
_TILE = 4
_WINDOW = _TILE + 2
_INPUT_TRANSFORM = (
    (4, 0, -5, 0, 1, 0),
    (0, -4, -4, 1, 1, 0),
    (0, 4, -4, -1, 1, 0),
    (0, -2, -1, 2, 1, 0),
    (0, 2, -1, -2, 1, 0),
    (0, 4, 0, -5, 0, 1),
)
_KERNEL_TRANSFORM = (
    (1 / 4, 0, 0),
    (-1 / 6, -1 / 6, -1 / 6),
    (-1 / 6, 1 / 6, -1 / 6),
    (1 / 24, 1 / 12, 1 / 6),
    (1 / 24, -1 / 12, 1 / 6),
    (0, 0, 1),
)
_OUTPUT_TRANSFORM = (
    (1, 1, 1, 1, 1, 0),
    (0, 1, -1, 2, -2, 0),
    (0, 1, 1, 4, 4, 0),
    (0, 1, -1, 8, -8, 1),
)
# With fewer input or output channels, the transforms take as long as they save; with fewer
# operations per image, their compilation takes longer than most runs.
_FEWEST_CHANNELS = 128
_LEAST_FLOP = 5e8


def accelerate(base: Any, *, winograd: bool) -> Any:
    """Rewrite a frozen base for inference, with the same features to rounding.

    A batch normalization that follows a convolution is folded into its kernel and bias, in float32.
    On request, 3 × 3 convolutions with many channels are computed by Winograd's minimal filtering,
    with a quarter of the multiplications.

    Parameters
    ----------
    base : keras.Model
        A functional model, which is not changed.
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
    found = {}
    for layer in base.layers:
        if isinstance(layer, layers.BatchNormalization):
            before = layer.input._keras_history.operation
            read_once = len(before._outbound_nodes) == 1
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
    flop = 2 * np.prod(layer.kernel.shape) * np.prod(layer.output.shape[1:3])
    return bool(
        flop >= _LEAST_FLOP
        and layer.kernel_size == (3, 3)
        and layer.strides == layer.dilation_rate == (1, 1)
        and layer.padding == "same"
        and layer.groups == 1
        and layer.use_bias
        and min(layer.kernel.shape[2:]) >= _FEWEST_CHANNELS
    )


def transform_kernel(kernel: NDArray[np.float32]) -> NDArray[np.float32]:
    """Transform a kernel for Winograd's method, once.

    Parameters
    ----------
    kernel : ndarray of shape (3, 3, c, k), float32

    Returns
    -------
    ndarray of shape (36, c, k), float32
        One matrix for each position in a transformed tile, column by column.
    """
    matrix = np.array(_KERNEL_TRANSFORM)
    tiles = np.einsum("ai,bj,ijck->back", matrix, matrix, kernel.astype(np.float64))
    transformed: NDArray[np.float32] = tiles.reshape(-1, *kernel.shape[2:]).astype(np.float32)
    return transformed


def _combine(coefficients: tuple[float, ...], tensors: list[Any]) -> Any:
    terms = [
        tensor if factor == 1 else tensor * float(factor)
        for factor, tensor in zip(coefficients, tensors, strict=True)
        if factor
    ]
    return sum(terms[1:], terms[0])


def _count_tiles(length: int) -> int:
    return -(-length // _TILE)


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
    down, across = (_count_tiles(length) for length in images.shape[1:3])
    padding = [
        (1, _TILE * tiles + 1 - length)
        for tiles, length in zip((down, across), images.shape[1:3], strict=True)
    ]
    padded = ops.pad(images, [(0, 0), *padding, (0, 0)])
    last = _TILE * (down - 1) + 1
    rows = [padded[:, row : row + last : _TILE] for row in range(_WINDOW)]
    return ops.stack([_combine(factors, rows) for factors in _INPUT_TRANSFORM])


def _transform_columns(rows: Any) -> Any:
    """Transform the columns of tiles: (36, n × tiles, c)."""
    ops = import_keras().ops
    last = rows.shape[3] - _WINDOW + 1
    columns = [rows[:, :, :, column : column + last : _TILE] for column in range(_WINDOW)]
    transformed = ops.stack([_combine(factors, columns) for factors in _INPUT_TRANSFORM])
    return ops.reshape(transformed, (_WINDOW**2, -1, rows.shape[-1]))


def _untransform(products: Any, down: int, across: int) -> Any:
    """Transform products (36, n × down × across, k) to maps (n, 4 × down, 4 × across, k)."""
    ops = import_keras().ops
    n_filters = products.shape[-1]
    tiles = ops.reshape(products, (_WINDOW, _WINDOW, -1, down, across, n_filters))
    columns = [_combine(factors, _unstack(tiles)) for factors in _OUTPUT_TRANSFORM]
    rows = [
        ops.stack([_combine(factors, _unstack(column)) for column in columns], axis=3)
        for factors in _OUTPUT_TRANSFORM
    ]
    maps = ops.stack(rows, axis=2)
    return ops.reshape(maps, (-1, down * _TILE, across * _TILE, n_filters))


def _unstack(tensor: Any) -> list[Any]:
    return [tensor[place] for place in range(_WINDOW)]


# Layers share both functions, which are compiled once for each shape.
@cache
def _fuse_transform() -> Any:
    return fuse(transform_images)


@cache
def _fuse_finish(height: int, width: int, activation: Callable[[Any], Any]) -> Any:
    """Make a compiled function from products and a bias (k,) to maps (n, height, width, k)."""

    def finish(products: Any, bias: Any) -> Any:
        maps = _untransform(products, _count_tiles(height), _count_tiles(width))
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
            shapes = {"kernel": (_WINDOW**2, shape[-1], self._filters), "bias": (self._filters,)}
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
