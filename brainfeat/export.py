"""A base and a head as one network, for programs that know nothing of brainfeat. Only writing."""

import os
import secrets
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from brainfeat import runtime
from brainfeat.backbones import load_backbone
from brainfeat.bundle import HeadBundle, check_target
from brainfeat.errors import BundleError, HeadError, ParameterError
from brainfeat.prediction import require_base

Quantize = Literal["float16", "int8"]
SUFFIXES = (".keras", ".tflite")

# The classical heads whose scores are a linear function of standardised features.
_LINEAR = ("logistic", "linear-svm", "lda")

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

    Its input is float32 (n, size, size, 3) in [0, 1], what
    ``brainfeat.preprocessing.preprocess_image`` gives; a LiteRT model takes one image at a
    time. Its output is float32 (n, k), in the order of the bundle's class names. It cannot abstain.

    Parameters
    ----------
    bundle : HeadBundle or path-like
        A dense or a linear head.
    output : path-like
        A file that ends in ``.keras``, or in ``.tflite`` for LiteRT.
    weights : {"imagenet", "random"} or path-like
        As in :class:`brainfeat.Predictor`.
    quantize : {"float16", "int8"} or None
        What a LiteRT model keeps its weights as. With int8, activations are rounded image by image,
        by their own range: ranges that were fixed beforehand cost more decisions.
    overwrite : bool
        Whether a file that is there may be replaced.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    ParameterError
        The options do not go together.
    HeadError
        The head is no network.
    BundleError
        The file exists or cannot be written.
    SpecMismatchError
        The weights are not those that the head was fitted with.
    """
    output = Path(output)
    _check_options(output, quantize)
    check_target(output, overwrite=overwrite)
    if not isinstance(bundle, HeadBundle):
        bundle = HeadBundle.load(bundle)
    network = build_network(bundle, weights=weights)
    temporary = output.parent / f".{secrets.token_hex(8)}{output.suffix}"
    try:
        if output.suffix == ".keras":
            network.save(temporary)
        else:
            temporary.write_bytes(runtime.convert_to_litert(network, quantize))
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(output)
    except OSError as error:
        raise BundleError(f"{output} cannot be written ({error.strerror})") from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
    return output


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
    """Give mean and scale of the features, and kernel and bias of each layer."""
    head = bundle.estimator
    if bundle.head == "dense":
        layers = [(np.asarray(k, np.float64), np.asarray(b, np.float64)) for k, b in head.layers_]
        return head.mean_, head.scale_, layers
    if bundle.head not in _LINEAR:
        raise HeadError(
            f"a head of kind {bundle.head} is no network; export a dense one, or "
            f"{', '.join(_LINEAR)}"
        )
    scaler, classifier = head["scaler"], head["classifier"]
    kernel, bias = classifier.coef_.T, np.atleast_1d(classifier.intercept_)
    if kernel.shape[1] == 1:
        # A score of two classes is the second's; the first has 0.
        kernel, bias = np.hstack([np.zeros_like(kernel), kernel]), np.array([0.0, bias[0]])
    return scaler.mean_, scaler.scale_, [(kernel, bias)]


def _check_options(output: Path, quantize: Quantize | None) -> None:
    if output.suffix not in SUFFIXES:
        raise ParameterError(f"{output.name} must end in {' or '.join(SUFFIXES)}")
    if quantize is not None and quantize not in get_args(Quantize):
        raise ParameterError(
            f"quantize must be one of {', '.join(get_args(Quantize))}, got {quantize!r}"
        )
    if quantize is not None and output.suffix == ".keras":
        raise ParameterError("only a .tflite file can be quantized")
