"""The engines that compute a base: Keras on its backend, or OpenVINO on a processor."""

import os
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, get_args

from brainfeat import runtime
from brainfeat.cache.spec import Precision
from brainfeat.errors import MissingDependencyError, ParameterError
from brainfeat.extraction import openvino_engine
from brainfeat.extraction.graph import count_flop, find_lengths, read_graph
from brainfeat.extraction.openvino_layers import FEWEST_CHANNELS
from brainfeat.extraction.winograd import is_worthwhile

Engine = Literal["keras", "openvino"]
ENGINES: tuple[Engine, ...] = get_args(Engine)

# The speedup that bfloat16 must bring on one core; on all together, which share the memory,
# Winograd's method loses more than the others.
_WORTHWHILE = 1.15
# Where the drivers of NVIDIA and AMD show their cards.
_CARDS = ("/dev/nvidia0", "/dev/kfd")


def choose_engine(
    engine: Engine | Literal["auto"], *, device: str, precision: Precision | Literal["auto"]
) -> Engine:
    """Choose what computes a base.

    ``"auto"`` is OpenVINO where it is installed, a processor computes, and the precision is one of
    the processor's own; and Keras otherwise, or where ``KERAS_BACKEND`` names a backend.

    Parameters
    ----------
    engine : {"auto", "keras", "openvino"}
    device : str
        As in :func:`brainfeat.runtime.find_devices`.
    precision : {"float32", "bfloat16", "float16", "int8", "auto"}
        Only OpenVINO computes in int8.

    Returns
    -------
    {"keras", "openvino"}

    Raises
    ------
    ParameterError
        If the engine is unknown, or OpenVINO cannot compute on the device or in the precision.
    MissingDependencyError
        If the engine is ``"openvino"``, or the precision int8, and OpenVINO is not installed.
    """
    if engine not in ("auto", *ENGINES):
        raise ParameterError(f"unknown engine {engine!r}; expected auto, {', '.join(ENGINES)}")
    on_processor = device == "auto" or device.partition(":")[0] == "cpu"
    if precision == "int8" and engine == "keras":
        raise ParameterError(
            'Keras does not compute in int8; pass engine="openvino", or another precision'
        )
    if engine == "openvino" or precision == "int8":
        keras = "" if precision == "int8" else ', or engine="keras"'
        if precision == "int8" and find_spec("openvino") is None:
            raise MissingDependencyError(
                "int8 is computed by OpenVINO, which is not installed; install it by pip install "
                "'brainfeat[fast]', or pass another precision"
            )
        if not on_processor:
            raise ParameterError(
                f"OpenVINO computes on the processor, not on device {device!r}; pass"
                f' device="cpu"{keras or ", or another precision"}'
            )
        if precision != "auto" and not openvino_engine.has_precision(precision):
            raise ParameterError(
                f"OpenVINO does not compute in {precision} on this processor, which lacks the"
                f" instructions; pass another precision{keras}"
            )
        return "openvino"
    if (
        engine == "keras"
        or not on_processor
        or os.environ.get("KERAS_BACKEND")
        or (device == "auto" and any(Path(card).exists() for card in _CARDS))
        or find_spec("openvino") is None
        or (precision != "auto" and not openvino_engine.has_precision(precision))
    ):
        return "keras"
    return "openvino"


def choose_precision(engine: Engine, *, device: str, name: str, input_size: int) -> Precision:
    """Choose bfloat16 if the device supports it natively and is faster in it; else float32.

    Parameters
    ----------
    engine : {"keras", "openvino"}
    device : str
        As in :func:`brainfeat.runtime.find_devices`.
    name : str
        Name of the base.
    input_size : int
        Height and width of its input in pixels.

    Returns
    -------
    {"bfloat16", "float32"}
    """
    if engine == "keras":
        return runtime.choose_precision(device)
    if not openvino_engine.has_precision("bfloat16"):
        return "float32"
    gain = estimate_bfloat16_gain(name, input_size)
    return "bfloat16" if gain > _WORTHWHILE else "float32"


def estimate_bfloat16_gain(name: str, input_size: int) -> float:
    """Estimate the speedup of a base in bfloat16 over float32 by OpenVINO.

    One convolution is computed a few times in each way, in about a second.

    Parameters
    ----------
    name : str
        Name of the base.
    input_size : int
        Height and width of its input in pixels.

    Returns
    -------
    float
    """
    seconds = openvino_engine.measure_convolution()
    fraction = find_winograd_fraction(name, input_size)
    float32 = fraction * seconds["winograd"] + (1 - fraction) * seconds["float32"]
    return float32 / seconds["bfloat16"]


def find_winograd_fraction(name: str, input_size: int) -> float:
    """Find the fraction of operations that OpenVINO computes by Winograd's method in float32.

    Parameters
    ----------
    name : str
        Name of the base.
    input_size : int
        Height and width of its input in pixels.

    Returns
    -------
    float
        Between 0 and 1; of the operations that the direct method would take.

    Examples
    --------
    >>> round(find_winograd_fraction("vgg16", 224), 2), find_winograd_fraction("mobilenet", 224)
    (0.69, 0.0)
    """
    layers = read_graph(name)
    lengths, flop = find_lengths(layers, input_size), count_flop(layers, input_size)
    rewritten = sum(
        flop[layer.name]
        for layer in layers
        if layer.kind == "Conv2D"
        and is_worthwhile(
            layer.weights[0].shape,
            strides=layer.options["strides"],
            padding=layer.options["padding"],
            length=lengths[layer.name],
            fewest=FEWEST_CHANNELS,
        )
    )
    return rewritten / sum(flop.values())
