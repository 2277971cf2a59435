"""The attention of a head as operations of ONNX and of OpenVINO, and as layers of Keras."""

from typing import Any

import numpy as np

from brainfeat import runtime
from brainfeat.extraction.onnx_graph import OnnxGraph
from brainfeat.heads.map_network import add_attention, write_gates
from brainfeat.heads.parameters import SPATIAL_SIZE
from brainfeat.prediction.head_layers import HeadLayers

_PADDING = SPATIAL_SIZE // 2


def add_keras_attention(hidden: Any, head: HeadLayers) -> Any:
    """Add the attention of a head to a network of Keras, with its weights.

    Parameters
    ----------
    hidden : keras.KerasTensor
        Standardised maps (n, h, w, d).
    head : HeadLayers

    Returns
    -------
    keras.KerasTensor
        Pooled vectors (n, d).
    """
    keras = runtime.import_keras()

    def make(layer: Any, *args: Any, **options: Any) -> Any:
        return layer(*args, dtype="float32", **options)

    width = head.gates[0].shape[1]
    inputs = keras.Input(hidden.shape[1:], dtype="float32")
    outputs = add_attention(head.attention, inputs, width=width, make=make)
    network = keras.Model(inputs, outputs, name="attention")
    write_gates(head.attention, network, head.gates)
    return network(hidden)


def add_onnx_attention(graph: OnnxGraph, maps: str, head: HeadLayers) -> str:
    """Add the attention of a head to a graph of ONNX.

    Parameters
    ----------
    graph : OnnxGraph
    maps : str
        Name of standardised maps (n, d, h, w).
    head : HeadLayers

    Returns
    -------
    str
        Name of the pooled vectors (n, d).
    """
    if head.attention == "attention-pool":
        v, u, w = (graph.constant(gate) for gate in (*head.gates[:2], head.gates[2][:, None]))
        flat = graph.add("Reshape", maps, graph.constant([0, len(head.mean), -1], np.int64))
        vectors = graph.add("Transpose", flat, perm=[0, 2, 1])
        gated = graph.add(
            "Mul",
            graph.add("Tanh", graph.add("MatMul", vectors, v)),
            graph.add("Sigmoid", graph.add("MatMul", vectors, u)),
        )
        weights = graph.add("Softmax", graph.add("MatMul", gated, w), axis=1)
        return graph.add("Flatten", graph.add("MatMul", flat, weights), axis=1)
    squeeze, excite = (graph.constant(gate) for gate in head.gates[:2])

    def perceive(pooling: str) -> str:
        pooled = graph.add("Flatten", graph.add(pooling, maps), axis=1)
        hidden = graph.add("Relu", graph.add("MatMul", pooled, squeeze))
        return graph.add("MatMul", hidden, excite)

    total = perceive("GlobalAveragePool")
    if head.attention == "cbam":
        total = graph.add("Add", total, perceive("GlobalMaxPool"))
    shape = graph.constant([0, len(head.mean), 1, 1], np.int64)
    maps = graph.add("Mul", maps, graph.add("Reshape", graph.add("Sigmoid", total), shape))
    if head.attention == "cbam":
        described = graph.add(
            "Concat",
            graph.add("ReduceMean", maps, axes=[1], keepdims=1),
            graph.add("ReduceMax", maps, axes=[1], keepdims=1),
            axis=1,
        )
        filters = head.gates[2].transpose(2, 0, 1)[None]
        scores = graph.add(
            "Conv",
            described,
            graph.constant(filters),
            graph.constant(head.gates[3]),
            pads=[_PADDING] * 4,
        )
        maps = graph.add("Mul", maps, graph.add("Sigmoid", scores))
    return graph.add("Flatten", graph.add("GlobalAveragePool", maps), axis=1)


def add_openvino_attention(op: Any, maps: Any, head: HeadLayers) -> Any:
    """Add the attention of a head to a graph of OpenVINO.

    Parameters
    ----------
    op : module
        An operation set of OpenVINO.
    maps : openvino.Output
        Standardised maps (n, d, h, w).
    head : HeadLayers

    Returns
    -------
    openvino.Output
        Pooled vectors (n, d).
    """
    gates = [np.ascontiguousarray(gate, np.float32) for gate in head.gates]
    positions = np.array([2, 3])
    if head.attention == "attention-pool":
        v, u, w = gates
        flat = op.reshape(maps, np.array([0, len(head.mean), -1]), True)
        vectors = op.transpose(flat, np.array([0, 2, 1]))
        gated = op.multiply(
            op.tanh(op.matmul(vectors, v, False, False)),
            op.sigmoid(op.matmul(vectors, u, False, False)),
        )
        weights = op.softmax(op.matmul(gated, w[:, None].copy(), False, False), 1)
        return op.squeeze(op.matmul(flat, weights, False, False), np.array([2]))

    def perceive(reduce: Any) -> Any:
        pooled = reduce(maps, positions, keep_dims=False)
        hidden = op.relu(op.matmul(pooled, gates[0], False, False))
        return op.matmul(hidden, gates[1], False, False)

    total = perceive(op.reduce_mean)
    if head.attention == "cbam":
        total = op.add(total, perceive(op.reduce_max))
    maps = op.multiply(maps, op.unsqueeze(op.sigmoid(total), positions))
    if head.attention == "cbam":
        channels = np.array([1])
        described = op.concat(
            [reduce(maps, channels, keep_dims=True) for reduce in (op.reduce_mean, op.reduce_max)],
            1,
        )
        filters, pads = gates[2].transpose(2, 0, 1)[None].copy(), [_PADDING] * 2
        scores = op.convolution(described, filters, [1, 1], pads, pads, [1, 1])
        maps = op.multiply(maps, op.sigmoid(op.add(scores, gates[3].reshape(1, 1, 1, 1))))
    return op.reduce_mean(maps, positions, keep_dims=False)
