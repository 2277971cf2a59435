"""Base and head as one LiteRT model, which takes one image at a time."""

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainfeat.errors import MissingDependencyError
from brainfeat.keras_start import held_back_stderr
from brainfeat.runtime import import_keras, layer_precision


def convert(network: Any) -> bytes:
    """Convert a Keras model to a LiteRT model.

    Parameters
    ----------
    network : keras.Model
        A model with one input and one output.

    Returns
    -------
    bytes
        The contents of a ``.tflite`` file.

    Raises
    ------
    MissingDependencyError
        Keras runs on another backend than TensorFlow.
    """
    keras = import_keras()
    if keras.config.backend() != "tensorflow":
        raise MissingDependencyError(
            f"Keras runs on {keras.config.backend()}, but only TensorFlow can make a LiteRT model; "
            "set KERAS_BACKEND=tensorflow"
        )
    import tensorflow as tf

    # Keras prints the signatures that it traces.
    with held_back_stderr(), redirect_stdout(io.StringIO()), layer_precision("float32"):
        converted: bytes = tf.lite.TFLiteConverter.from_keras_model(network).convert()
    return converted


def round_weights(model: bytes, network: Any, quantize: str, *, least: int) -> bytes:
    """Round the weights of large layers: to float16, or to 8 bits by the range of each output.

    Parameters
    ----------
    model : bytes
        A converted model.
    network : keras.Model
        What it was converted from.
    quantize : {"float16", "int8"}
        Number format of the weights.
    least : int
        Layers with fewer weights stay in float32.

    Returns
    -------
    bytes

    Raises
    ------
    MissingDependencyError
        The quantizer is not installed.
    """
    try:
        from ai_edge_quantizer import quantizer, recipe
    except ImportError as error:
        raise MissingDependencyError(
            f"{quantize} needs ai-edge-quantizer, which is not installed: "
            "pip install 'brainfeat[export]'"
        ) from error
    half = {
        "algorithm_key": "float_casting",
        "op_config": {
            "weight_tensor_config": {"num_bits": 16, "dtype": "FLOAT"},
            "compute_precision": "FLOAT",
            "explicit_dequantize": True,
        },
    }
    (eighth,) = recipe.dynamic_wi8_afp32()
    rules = [
        {
            **(half if quantize == "float16" else eighth),
            # LiteRT names a layer as Keras does, with a number appended.
            "regex": rf"/{re.escape(name)}(_\d+)?/",
            "operation": operation,
        }
        for name in _name_large_layers(network, least)
        for operation in ("CONV_2D", "FULLY_CONNECTED")
    ]
    # The quantizer prints a summary and a progress bar.
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        found = quantizer.Quantizer(model, rules).quantize()
    return bytes(found.quantized_model)


def _name_large_layers(model: Any, least: int) -> Iterator[str]:
    for layer in model.layers:
        if hasattr(layer, "layers"):
            yield from _name_large_layers(layer, least)
        elif any(weights.size >= least for weights in layer.get_weights()):
            yield layer.name


def compute_probabilities(path: Path, images: NDArray[np.float32]) -> NDArray[np.float32]:
    """Run a LiteRT model on images (n, h, w, 3), and return its probabilities (n, k)."""
    import tensorflow as tf

    with held_back_stderr(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*tf.lite.Interpreter is deprecated")
        interpreter = tf.lite.Interpreter(str(path))
        interpreter.allocate_tensors()
    (entry,), (result,) = interpreter.get_input_details(), interpreter.get_output_details()
    found = []
    for image in images:
        interpreter.set_tensor(entry["index"], image[np.newaxis])
        interpreter.invoke()
        found.append(interpreter.get_tensor(result["index"])[0])
    return np.array(found)
