"""The layers of each base as data, so that no network library is needed to know or compute it."""

import json
import math
from collections.abc import Collection, Mapping
from functools import cache
from importlib.resources import files
from typing import Any, NamedTuple

Shape = tuple[int, ...]

_CONVOLUTIONS = ("Conv2D", "DepthwiseConv2D")
# Layers that give the same for 8-bit integers as for the numbers that these stand for.
_PASSING = ("Dropout", "MaxPooling2D", "ZeroPadding2D")


class Weight(NamedTuple):
    """A tensor of a layer.

    Attributes
    ----------
    name : str
        Such as ``"kernel"``.
    shape : tuple of int
        Its shape in Keras.
    dtype : str
        ``"float32"``, or ``"int32"`` for a counter.
    """

    name: str
    shape: Shape
    dtype: str


class Layer(NamedTuple):
    """A layer of a base.

    Attributes
    ----------
    name : str
        Its name in Keras.
    kind : str
        The class of Keras.
    inputs : tuple of str
        Names of the layers whose outputs it takes.
    options : mapping of str to object
        The options of that class that change what it computes.
    weights : tuple of Weight
        In the order in which Keras stores them.
    """

    name: str
    kind: str
    inputs: tuple[str, ...]
    options: Mapping[str, Any]
    weights: tuple[Weight, ...]


@cache
def read_graph(name: str) -> tuple[Layer, ...]:
    """Read the layers of a base, each after those that it takes its input from.

    The files were written from the models of ``keras.applications`` without their classifiers by
    ``tests/support/write_graphs.py``, and are compared with these by a test. A padding that
    depends on whether the size of its input is even is stored as that of the convolution after it:
    ``"correct"`` is the size of its kernel (``keras.src.applications.imagenet_utils.correct_pad``).

    Parameters
    ----------
    name : str
        A key of :data:`brainfeat.extraction.architectures.BACKBONES`.

    Returns
    -------
    tuple of Layer

    Examples
    --------
    >>> layers = read_graph("vgg16")
    >>> len(layers), layers[1].name, layers[1].weights[0].shape
    (19, 'block1_conv1', (3, 3, 3, 64))
    """
    text = files("brainfeat.extraction").joinpath(f"graphs/{name}.json").read_text("utf-8")
    return tuple(
        Layer(
            entry["name"],
            entry["kind"],
            tuple(entry["inputs"]),
            entry["options"],
            tuple(Weight(name, tuple(shape), dtype) for name, shape, dtype in entry["weights"]),
        )
        for entry in json.loads(text)
    )


def list_weights(layers: tuple[Layer, ...]) -> dict[str, Weight]:
    """List the tensors of a base by the paths that they have in Keras.

    Examples
    --------
    >>> list(list_weights(read_graph("vgg16")))[:2]
    ['block1_conv1/kernel', 'block1_conv1/bias']
    """
    return {f"{layer.name}/{weight.name}": weight for layer in layers for weight in layer.weights}


def find_lengths(layers: tuple[Layer, ...], input_size: int) -> dict[str, int]:
    """Find the height, which is the width, of the maps of each layer.

    Parameters
    ----------
    layers : tuple of Layer
        The layers of a base.
    input_size : int
        Height and width of its input in pixels.

    Examples
    --------
    >>> find_lengths(read_graph("vgg16"), 224)["block5_pool"]
    7
    """
    lengths: dict[str, int] = {}
    for layer in layers:
        before = max((lengths[name] for name in layer.inputs), default=input_size)
        lengths[layer.name] = _find_length(layer, before)
    return lengths


def _find_length(layer: Layer, before: int) -> int:
    """Find the height of the maps of a layer from that of its inputs."""
    options = layer.options
    if layer.kind == "GlobalAveragePooling2D":
        return 1
    if layer.kind == "ZeroPadding2D":
        if options["padding"] == "correct":
            return before + 2 * (int(options["kernel_size"][0]) // 2) - 1 + before % 2
        return before + int(sum(options["padding"][0]))
    stride = int(options.get("strides", (1,))[0])
    size = int((options.get("kernel_size") or options.get("pool_size") or (1,))[0])
    reach = size - 1 if options.get("padding") == "valid" else 0
    return -(-(before - reach) // stride)


def find_channels(layers: tuple[Layer, ...]) -> dict[str, int]:
    """Find the number of channels of the maps of each layer.

    Examples
    --------
    >>> channels = find_channels(read_graph("vgg16"))
    >>> channels["block3_pool"], channels["block5_pool"]
    (256, 512)
    """
    channels: dict[str, int] = {}
    for layer in layers:
        before = [channels[name] for name in layer.inputs]
        if layer.kind == "Conv2D":
            channels[layer.name] = int(layer.options["filters"])
        elif layer.kind == "Concatenate":
            channels[layer.name] = sum(before)
        else:
            channels[layer.name] = max(before, default=3)
    return channels


def list_maps(layers: tuple[Layer, ...]) -> list[str]:
    """List the layers that give a map of what a convolution has seen.

    Left out are those before the first convolution, those of one value for each channel, such as in
    squeeze and excitation, and those that only pad, some of which Keras names anew in each process.

    Examples
    --------
    >>> list_maps(read_graph("vgg16"))[:3]
    ['block1_conv1', 'block1_conv2', 'block1_pool']
    """
    seen: set[str] = set()
    found = []
    for layer in layers:
        if layer.kind == "GlobalAveragePooling2D":
            continue
        if seen.intersection(layer.inputs) or (layer.kind in _CONVOLUTIONS and not seen):
            seen.add(layer.name)
            if layer.kind != "ZeroPadding2D":
                found.append(layer.name)
    return found


def cut_graph(layers: tuple[Layer, ...], last: Collection[str]) -> tuple[Layer, ...]:
    """Leave out the layers that some layers do not need.

    Parameters
    ----------
    layers : tuple of Layer
        The layers of a base.
    last : collection of str
        Names of the layers that are needed.

    Examples
    --------
    >>> cut_graph(read_graph("vgg16"), ["block4_pool"])[-1].name
    'block4_pool'
    """
    needed = set(last)
    for layer in reversed(layers):
        if layer.name in needed:
            needed.update(layer.inputs)
    return tuple(layer for layer in layers if layer.name in needed)


def count_flop(layers: tuple[Layer, ...], input_size: int) -> dict[str, int]:
    """Count the floating-point operations of each convolution for one image.

    A multiply-add counts as two; biases, normalization, activations and pooling are left out, as is
    usual. Convolutions are counted as the direct method computes them, whichever method is used.

    Parameters
    ----------
    layers : tuple of Layer
        The layers of a base.
    input_size : int
        Height and width of its input in pixels.

    Returns
    -------
    dict of str to int
        By layer.

    Examples
    --------
    >>> sum(count_flop(read_graph("vgg16"), 224).values())
    30693261312
    """
    lengths = find_lengths(layers, input_size)
    return {
        layer.name: 2 * math.prod(layer.weights[0].shape) * lengths[layer.name] ** 2
        for layer in layers
        if layer.kind in _CONVOLUTIONS
    }


class QuantizationPlan(NamedTuple):
    """What an int8 base computes with 8-bit integers.

    Attributes
    ----------
    sources : tuple of str
        Layers whose outputs become 8-bit integers, in their order.
    takers : frozenset of str
        Layers that take these in place of the outputs themselves: convolutions, and the pooling and
        padding before them.
    """

    sources: tuple[str, ...]
    takers: frozenset[str]


def plan_quantization(layers: tuple[Layer, ...]) -> QuantizationPlan:
    """Plan an int8 base: all convolutions but those that see the image.

    Parameters
    ----------
    layers : tuple of Layer
        The layers of a base.

    Returns
    -------
    QuantizationPlan

    Examples
    --------
    >>> plan = plan_quantization(read_graph("vgg16"))
    >>> plan.sources[:2], "block1_conv1" in plan.takers, "block1_pool" in plan.takers
    (('block1_conv1', 'block1_conv2'), False, True)
    """
    known = {layer.name: layer for layer in layers}
    convolved: set[str] = set()  # layers after a convolution
    sources: set[str] = set()
    takers: set[str] = set()
    for layer in layers:
        if layer.kind in _CONVOLUTIONS and convolved.intersection(layer.inputs):
            path = [layer]
            while known[path[-1].inputs[0]].kind in _PASSING:
                path.append(known[path[-1].inputs[0]])
            takers.update(passed.name for passed in path)
            sources.add(path[-1].inputs[0])
        if layer.kind in _CONVOLUTIONS or convolved.intersection(layer.inputs):
            convolved.add(layer.name)
    ordered = tuple(layer.name for layer in layers if layer.name in sources)
    return QuantizationPlan(ordered, frozenset(takers))
