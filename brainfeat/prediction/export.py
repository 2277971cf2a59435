"""Write a base and a head as one network, for programs without brainfeat."""

import io
import os
import re
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, Literal, get_args
from zipfile import ZipFile, is_zipfile

import numpy as np
from numpy.typing import NDArray

from brainfeat import runtime
from brainfeat.errors import BundleError, HeadError, MissingDependencyError, ParameterError
from brainfeat.extraction.backbones import load_backbone
from brainfeat.files import atomic_write, check_output
from brainfeat.heads.bundle import HeadBundle, loaded, require_base

Quantize = Literal["float16", "int8"]
SUFFIXES = (".keras", ".tflite")

# The classical heads whose scores are a linear function of standardised features.
_LINEAR = ("logistic", "linear-svm", "lda")

# Layers with fewer weights are not rounded. In MobileNet these are the depthwise and the first
# convolutions: 4 % of the weights, and more than half of the error of rounding all.
_LEAST_ROUNDED = 20_000

Layers = list[tuple[NDArray[np.float64], NDArray[np.float64]]]


def export_head(
    bundle: HeadBundle | str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    weights: str | os.PathLike[str] = "imagenet",
    quantize: Quantize | None = None,
    overwrite: bool = False,
) -> Path:
    """Write base and head as one network from images to calibrated probabilities.

    The input is float32 (n, size, size, 3) in [0, 1], as
    ``brainfeat.extraction.preprocessing.preprocess_image`` returns it; a LiteRT model takes one
    image at a time. The output is float32 (n, k), in the order of the bundle's class names. The
    network cannot abstain.

    Parameters
    ----------
    bundle : HeadBundle or path-like
        A dense or a linear head.
    output : path-like
        A file with the suffix ``.keras``, or ``.tflite`` for LiteRT.
    weights : {"imagenet", "random"} or path-like
        As in :class:`brainfeat.Predictor`.
    quantize : {"float16", "int8"} or None
        Number format of the weights of a LiteRT model; those of small layers stay in float32.
    overwrite : bool
        Whether an existing file may be replaced.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    ParameterError
        The suffix is unknown, or the options exclude each other.
    HeadError
        The head is not a network.
    BundleError
        The file exists or cannot be written.
    SpecMismatchError
        The weights are not those of the features that the head was fitted on.
    MissingDependencyError
        A library that LiteRT models or their quantization need is not installed.
    """
    output = Path(output)
    _check_options(output, quantize)
    check_output(
        output,
        overwrite=overwrite,
        kind=f"a {output.suffix} model",
        recognise=_is_model,
        inputs=[given for given in (bundle, weights) if not isinstance(given, HeadBundle)],
        error=BundleError,
    )
    bundle = loaded(bundle)
    network = build_network(bundle, weights=weights)
    try:
        with atomic_write(output) as temporary:
            if output.suffix == ".keras":
                network.save(temporary)
            else:
                temporary.write_bytes(_convert(network, quantize))
    except OSError as error:
        raise BundleError(f"{output} cannot be written ({error.strerror})") from error
    return output


def _is_model(path: Path) -> bool:
    """Return whether a file is a model of the format that its suffix names."""
    if path.suffix == ".tflite":
        with path.open("rb") as file:
            return file.read(8)[4:] == b"TFL3"
    return is_zipfile(path) and "config.json" in ZipFile(path).namelist()


def build_network(bundle: HeadBundle, *, weights: str | os.PathLike[str] = "imagenet") -> Any:
    """Build the Keras model that `export_head` writes, in float32.

    Parameters
    ----------
    bundle : HeadBundle
    weights : {"imagenet", "random"} or path-like

    Returns
    -------
    keras.Model
    """
    mean, scale, layers = _find_layers(bundle)
    spec = bundle.spec
    backbone = load_backbone(
        spec.backbone,
        weights=weights,
        scaling=spec.scaling,
        input_size=spec.input_size,
        precision="float32",
    )
    require_base(spec, backbone.spec)
    keras = runtime.import_keras()
    images = keras.Input((spec.input_size, spec.input_size, 3), dtype="float32", name="images")
    hidden = backbone.build_network()(images)
    hidden = keras.layers.Rescaling((1 / scale).tolist(), (-mean / scale).tolist())(hidden)
    *inner, (kernel, bias) = layers
    for weight, offset in inner:
        hidden = _dense(keras, hidden, weight, offset, activation="relu")
    scores = _dense(keras, hidden, kernel / bundle.temperature, bias / bundle.temperature)
    probabilities = keras.layers.Softmax(name="probabilities")(scores)
    return keras.Model(images, probabilities, name="brainfeat")


def _convert(network: Any, quantize: Quantize | None) -> bytes:
    converted = runtime.convert_to_litert(network)
    return converted if quantize is None else _round_weights(converted, network, quantize)


def _round_weights(model: bytes, network: Any, quantize: Quantize) -> bytes:
    """Round the weights of large layers: to float16, or to 8 bits by the range of each output."""
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
        for name in _name_large_layers(network)
        for operation in ("CONV_2D", "FULLY_CONNECTED")
    ]
    # The quantizer prints a summary.
    with redirect_stdout(io.StringIO()):
        found = quantizer.Quantizer(model, rules).quantize()
    return bytes(found.quantized_model)


def _name_large_layers(model: Any) -> Iterator[str]:
    for layer in model.layers:
        if hasattr(layer, "layers"):
            yield from _name_large_layers(layer)
        elif any(weights.size >= _LEAST_ROUNDED for weights in layer.get_weights()):
            yield layer.name


def _dense(
    keras: Any,
    inputs: Any,
    kernel: NDArray[np.float64],
    bias: NDArray[np.float64],
    activation: str | None = None,
) -> Any:
    layer = keras.layers.Dense(len(bias), activation=activation)
    outputs = layer(inputs)
    layer.set_weights([kernel.astype(np.float32), bias.astype(np.float32)])
    return outputs


def _find_layers(
    bundle: HeadBundle,
) -> tuple[NDArray[np.float64], NDArray[np.float64], Layers]:
    """Return mean and scale of the features, and kernel and bias of each layer."""
    head = bundle.estimator
    if bundle.head == "dense":
        layers = [(np.asarray(k, np.float64), np.asarray(b, np.float64)) for k, b in head.layers_]
        return head.mean_, head.scale_, layers
    if bundle.head not in _LINEAR:
        raise HeadError(
            f"a {bundle.head} head is not a network; export a dense head, or one of "
            f"{', '.join(_LINEAR)}"
        )
    scaler, classifier = head["scaler"], head["classifier"]
    kernel, bias = classifier.coef_.T, np.atleast_1d(classifier.intercept_)
    if kernel.shape[1] == 1:
        # With two classes there is one score, that of the second; the first has 0.
        kernel, bias = np.hstack([np.zeros_like(kernel), kernel]), np.array([0.0, bias[0]])
    return scaler.mean_, scaler.scale_, [(kernel, bias)]


def _check_options(output: Path, quantize: Quantize | None) -> None:
    if output.suffix not in SUFFIXES:
        raise ParameterError(f"{output.name}; expected a file that ends in {' or '.join(SUFFIXES)}")
    if quantize is not None and quantize not in get_args(Quantize):
        raise ParameterError(
            f"quantize must be one of {', '.join(get_args(Quantize))}, got {quantize!r}"
        )
    if quantize is not None and output.suffix == ".keras":
        raise ParameterError("only a .tflite file can be quantized")
