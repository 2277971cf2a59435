"""Bases computed by OpenVINO on a processor: no network library is imported."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from threading import Lock
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from brainfeat.cache.spec import Pooling, Precision
from brainfeat.extraction.architectures import InputScaling
from brainfeat.extraction.graph import Layer, Weight
from brainfeat.extraction.openvino_graph import Ranges, build_model, import_openvino
from brainfeat.extraction.openvino_layers import Tensors
from brainfeat.extraction.taps import Taps
from brainfeat.runtime import Forward, processor, usable_cores

Array = NDArray[np.float32]
Pixels = NDArray[np.float32 | np.uint8]

# Streams ask for the same batch size at the same time.
_compiling = Lock()

# Names of the precisions in OpenVINO: its types, and what a processor is capable of.
_TYPES = {"float32": "f32", "bfloat16": "bf16", "float16": "f16"}
_CAPABILITIES = {"float32": "FP32", "bfloat16": "BF16", "float16": "FP16", "int8": "INT8"}
# Instructions that add products of 8-bit integers in 32 bits; without them, sums are cut off.
_INT8_FEATURES = {"amx_int8", "avx512_vnni", "avx_vnni"}
# Streams compute batches of their own; more than these were not measured. With fewer images for
# each, some would wait for the others.
_MOST_STREAMS = 16
_FEWEST_PER_STREAM = 4
# Pixels of a batch, as a number of images of VGG16's size; docs/benchmarks.md has measurements.
_BATCH_PIXELS = {
    "float32": 2 * 224**2,
    "bfloat16": 2 * 224**2,
    "float16": 2 * 224**2,
    "int8": 4 * 224**2,
}
# A convolution of 14.8 GFLOP, as large as those of VGG16 on average, and how often it is timed.
_TRIED_SHAPE = (4, 56, 56, 256)
_TRIES = 3


@cache
def _start() -> Any:
    return import_openvino().Core()


def has_precision(precision: Precision) -> bool:
    """Return whether the processor computes in a precision by instructions of its own."""
    if precision == "int8" and not _INT8_FEATURES & {*processor()["features"]}:
        return False
    return _CAPABILITIES[precision] in _start().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


class OpenvinoBase:
    """A base that OpenVINO computes; it is compiled for each batch size at its first use.

    Parameters
    ----------
    layers : tuple of Layer
        The layers.
    load : callable
        Returns their weights by path.
    scaling : InputScaling or None
        How the pixels are scaled; None leaves them in [0, 1].
    input_size : int
        Height and width in pixels.
    precision : {"float32", "bfloat16", "float16", "int8"}
        Number format of the convolutions.
    taps : Taps
        Which layers become features, and how.
    ranges : mapping of str to tuple of float, or None
        For int8, the least and the largest output of each source of the plan.
    """

    def __init__(
        self,
        layers: tuple[Layer, ...],
        load: Callable[[], Tensors],
        *,
        scaling: InputScaling | None,
        input_size: int,
        precision: Precision,
        taps: Taps,
        ranges: Ranges | None = None,
    ) -> None:
        self._layers, self._load, self._scaling = layers, load, scaling
        self._taps, self._ranges = taps, ranges
        self._input_size, self._precision = input_size, precision
        # By shape, type and number of streams.
        self._compiled: dict[tuple[Any, ...], Any] = {}

    @property
    def batch_pixels(self) -> int:
        """Number of pixels in a batch that computes fast within the memory for stage one."""
        return _BATCH_PIXELS[self._precision]

    @property
    def devices(self) -> list[str]:
        """The name of the processor among devices."""
        return ["cpu:0"]

    def compile(self, n_images: int | None) -> tuple[Forward, ...]:
        """Make functions from images (n, h, w, 3) to features (n, d), one for each stream.

        A core computes a stream of its own faster than its part of a common one, if there are
        enough images.
        """
        streams = min(usable_cores(), _MOST_STREAMS)
        if n_images is not None and n_images < _FEWEST_PER_STREAM * streams:
            streams = 1
        return tuple(_Copy(self, self._taps, streams).compute_rows for _ in range(streams))

    def compute_features(self, images: Pixels) -> Array:
        """Compute rows (n, d), as `Backbone.compile` gives them, of images (n, h, w, 3)."""
        return _Copy(self, self._taps, streams=1).compute_rows(images)

    def compute_maps(self, images: Pixels) -> Array:
        """Compute the maps (n, h, w, d) of the deepest layer, of images (n, h, w, 3)."""
        return _put_channels_last(_Copy(self, self._taps, streams=1).compute(images)[-1])

    def make_request(self, batch_size: int, dtype: Any, streams: int) -> Any:
        """Make a request that computes a batch, beside those of the other streams."""
        key = batch_size, dtype, streams
        with _compiling:
            if key not in self._compiled:
                model = build_model(
                    self._layers,
                    self._load(),
                    self._taps.layers,
                    shape=(batch_size, self._input_size, self._input_size, 3),
                    dtype=dtype,
                    scaling=self._scaling,
                    winograd=self._precision == "float32",
                    ranges=self._ranges,
                    # In another precision, the graph would pool in it.
                    inner=self._taps.pooling if self._precision == "float32" else None,
                )
                self._compiled[key] = _compile(model, self._precision, streams)
        return self._compiled[key].create_infer_request()


class _Copy:
    """One stream of a base: a request for each size and type, used by one thread at a time."""

    def __init__(self, base: OpenvinoBase, taps: Taps, streams: int) -> None:
        self._base, self._taps, self._streams = base, taps, streams
        self._requests: dict[tuple[int, Any], Any] = {}

    def compute(self, images: Pixels) -> list[Array]:
        """Compute the map (n, d, h, w) of each layer, or its vectors if the graph pools it.

        They are valid until the next call.
        """
        key = len(images), np.uint8 if images.dtype == np.uint8 else np.float32
        if key not in self._requests:
            self._requests[key] = self._base.make_request(*key, self._streams)
        request = self._requests[key]
        request.infer([np.ascontiguousarray(images, key[1])], share_inputs=True)
        return [request.get_tensor(output).data for output in request.model_outputs]

    def compute_rows(self, images: Pixels) -> Array:
        """Pool the maps in float32, and put the vectors, and a map, side by side."""
        maps = self.compute(images)
        pooling = self._taps.pooling
        columns = [values if values.ndim == 2 else _pool(values, pooling) for values in maps]
        if self._taps.pooling == "none":
            columns.append(_put_channels_last(maps[-1]).reshape(len(images), -1))
        return columns[0] if len(columns) == 1 else np.concatenate(columns, axis=1)


def _pool(maps: Array, pooling: Pooling) -> Array:
    """Pool maps (n, d, h, w) to vectors (n, d)."""
    if pooling == "max":
        largest: Array = maps.max(axis=(2, 3))
        return largest
    mean: Array = maps.mean(axis=(2, 3), dtype=np.float32)
    return mean


def _put_channels_last(maps: Array) -> Array:
    return np.ascontiguousarray(maps.transpose(0, 2, 3, 1))


class Observed(NamedTuple):
    """What a batch gives in floating point.

    Attributes
    ----------
    features : tuple of ndarray of shape (n, d), float32
        Of each layer.
    ranges : ndarray of shape (sources, 2), float32
        The least and the largest output of each source of the plan.
    """

    features: tuple[Array, ...]
    ranges: Array


def observe(
    layers: tuple[Layer, ...],
    load: Callable[[], Tensors],
    batches: Iterable[Pixels],
    *,
    scaling: InputScaling | None,
    precision: Precision,
    taps: Taps,
) -> Iterator[Observed]:
    """Compute batches with the ranges that int8 needs, without Winograd's larger kernels.

    Parameters
    ----------
    layers, load, scaling, taps
        As for `OpenvinoBase`; the ranges are those of the whole base.
    batches : iterable of ndarray of shape (n, h, w, 3), uint8
        All of one shape.
    precision : {"float32", "bfloat16"}

    Yields
    ------
    Observed
        For each batch.
    """
    request = None
    for batch in batches:
        if request is None:
            model = build_model(
                layers,
                load(),
                taps.layers,
                shape=batch.shape,
                dtype=np.uint8,
                scaling=scaling,
                winograd=False,
                observed=True,
            )
            request = _compile(model, precision, streams=1).create_infer_request()
        request.infer([batch])
        outputs = [request.get_tensor(output).data for output in request.model_outputs]
        maps, limits = outputs[: len(taps.layers)], outputs[len(taps.layers) :]
        yield Observed(
            tuple(_pool(values, taps.pooling) for values in maps),
            np.reshape(limits, (-1, 2)).astype(np.float32),
        )


def _compile(model: Any, precision: Precision, streams: int, threads: int | None = None) -> Any:
    if precision == "int8":  # the layers beside the int8 convolutions
        precision = "bfloat16" if has_precision("bfloat16") else "float32"
    kind = getattr(import_openvino().Type, _TYPES[precision])
    options: Mapping[str, Any] = {
        "INFERENCE_PRECISION_HINT": kind,
        "NUM_STREAMS": streams,
        "INFERENCE_NUM_THREADS": threads or usable_cores(),
    }
    return _start().compile_model(model, "CPU", options)


@cache
def measure_convolution() -> dict[str, float]:
    """Measure the processor time of one of VGG16's 3 × 3 convolutions on one core.

    Unlike the time of a clock, that of other work on the machine does not count.

    Returns
    -------
    dict of str to float
        Seconds, the least of some tries, in ``"float32"``, in ``"bfloat16"``, and by Winograd's
        method in float32: ``"winograd"``.
    """
    channels = _TRIED_SHAPE[-1]
    kernel = Weight("kernel", (3, 3, channels, channels), "float32")
    options = {"strides": [1, 1], "padding": "same", "use_bias": False, "activation": "relu"}
    layers = (
        Layer("input", "InputLayer", (), {}, ()),
        Layer("tried", "Conv2D", ("input",), options, (kernel,)),
    )
    rng = np.random.default_rng(0)
    tensors = {"tried/kernel": rng.standard_normal(kernel.shape, np.float32)}
    images = rng.random(_TRIED_SHAPE, np.float32)
    seconds = {}
    ways: dict[str, Precision] = {
        "float32": "float32",
        "bfloat16": "bfloat16",
        "winograd": "float32",
    }
    for way, precision in ways.items():
        model = build_model(
            layers, tensors, shape=_TRIED_SHAPE, scaling=None, winograd=way == "winograd"
        )
        request = _compile(model, precision, streams=1, threads=1).create_infer_request()
        request.infer([images])
        seconds[way] = min(_measure(request, images) for _ in range(_TRIES))
    return seconds


def _measure(request: Any, images: Array) -> float:
    started = time.process_time()
    request.infer([images])
    return time.process_time() - started
