"""The graph of a base for OpenVINO, which is imported here."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from types import ModuleType
from typing import Any

import numpy as np

from brainfeat.cache.spec import Pooling
from brainfeat.errors import MissingDependencyError
from brainfeat.extraction.architectures import InputScaling
from brainfeat.extraction.graph import Layer, cut_graph, plan_quantization
from brainfeat.extraction.openvino_layers import Operations, Tensors, add_layer, quantize

Ranges = Mapping[str, tuple[float, float]]


@cache
def import_openvino() -> ModuleType:
    """Import OpenVINO.

    Its package tells its makers about each import, over the network and in a file below the home
    folder, unless ``openvino_telemetry`` is missing; it is hidden from the import here.

    Raises
    ------
    MissingDependencyError
        OpenVINO is not installed.
    """
    try:
        with _without_telemetry():
            import openvino
            import openvino.opset13
    except ImportError as error:
        raise MissingDependencyError(
            f"OpenVINO cannot be imported ({error}); install it by pip install 'brainfeat[fast]', "
            'or pass engine="keras"'
        ) from error
    module: ModuleType = openvino
    return module


@contextmanager
def _without_telemetry() -> Iterator[None]:
    name = "openvino_telemetry"
    loaded = sys.modules.get(name)
    sys.modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[name]
        if loaded is not None:
            sys.modules[name] = loaded


def build_model(
    layers: tuple[Layer, ...],
    tensors: Tensors,
    taps: Sequence[str] = (),
    *,
    shape: tuple[int, int, int, int],
    dtype: Any = np.float32,
    scaling: InputScaling | None,
    winograd: bool,
    ranges: Ranges | None = None,
    observed: bool = False,
    inner: Pooling | None = None,
) -> Any:
    """Build the graph of a base.

    Parameters
    ----------
    layers : tuple of Layer
        The layers.
    tensors : mapping of str to ndarray
        Their weights by path.
    taps : sequence of str
        Layers whose maps are outputs; none takes the last.
    shape : tuple of int
        (n, h, w, 3), of the images.
    dtype : type
        ``np.float32``, in [0, 1], or ``np.uint8``: the graph scales these.
    scaling : InputScaling or None
        How the pixels are scaled; None leaves them in [0, 1].
    winograd : bool
        Whether convolutions with many channels use Winograd's method.
    ranges : mapping of str to tuple of float, or None
        For int8, the least and the largest output of each source of the plan.
    observed : bool
        Whether these are outputs of the graph, too: two numbers for each source, in their order.
    inner : {"mean", "max", "none"} or None
        How the graph pools all but the last of `taps`; None leaves that to the caller. It saves the
        time to copy large maps of early layers.

    Returns
    -------
    openvino.Model
        From images (n, h, w, 3) to maps (n, d, h, w), or vectors (n, d), float32, one for each of
        `taps`.
    """
    openvino = import_openvino()
    ops = Operations(openvino.opset13, winograd)
    pixels = ops.op.parameter(shape, dtype)
    taps = taps or [layers[-1].name]
    sources, takers = plan_quantization(layers) if ranges or observed else ((), frozenset())
    outputs: dict[str, Any] = {}
    quantized: dict[str, Any] = {}
    for layer in layers if observed else cut_graph(layers, taps):
        if layer.kind == "InputLayer":
            outputs[layer.name] = ops.transpose(_scale(ops, pixels, dtype, scaling), 0, 3, 1, 2)
            continue
        takes = quantized if layer.name in takers else {}
        inputs = [takes.get(name, outputs[name]) for name in layer.inputs]
        int8 = ranges is not None and layer.name in takers
        outputs[layer.name] = add_layer(ops, layer, inputs, tensors, int8=int8)
        if ranges and layer.name in ranges:
            quantized[layer.name] = quantize(ops, outputs[layer.name], *ranges[layer.name])
        if layer.kind == "Normalization" and scaling is not None:
            factor = ops.by_channel(np.array(scaling.normalized_factor))
            outputs[layer.name] = ops.op.multiply(outputs[layer.name], factor).output(0)
    results = [outputs[name] for name in taps]
    if inner is not None:
        results[:-1] = [_pool(ops, values, inner) for values in results[:-1]]
    for name in sources if observed else ():
        results += _add_range(ops, outputs[name])
    return openvino.Model(results, [pixels], "base")


def _pool(ops: Operations, values: Any, pooling: Pooling) -> Any:
    reduce = ops.op.reduce_max if pooling == "max" else ops.op.reduce_mean
    return reduce(values, ops.whole(2, 3), keep_dims=False).output(0)


def _add_range(ops: Operations, values: Any) -> list[Any]:
    axes = ops.whole(0, 1, 2, 3)
    return [
        reduce(values, axes, keep_dims=False).output(0)
        for reduce in (ops.op.reduce_min, ops.op.reduce_max)
    ]


def _scale(ops: Operations, pixels: Any, dtype: Any, scaling: InputScaling | None) -> Any:
    """Scale pixels; the 255 of bytes is part of the factor."""
    largest = 255.0 if dtype == np.uint8 else 1.0
    values = ops.op.convert(pixels, np.float32)
    if scaling is None:
        return ops.op.multiply(values, ops.constant(1 / largest))
    if scaling.reverse:
        values = ops.op.gather(values, ops.whole(2, 1, 0), ops.constant(3, np.int64))
    factor = ops.constant(np.divide(scaling.factor, largest))
    return ops.op.add(ops.op.multiply(values, factor), ops.constant(scaling.offset))
