"""Keras and its backends: devices, precision, compilation; and what is known of the machine."""

import os
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from threading import RLock
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainfeat.cache.spec import Precision
from brainfeat.errors import MissingDependencyError, ParameterError
from brainfeat.keras_start import explain_failure, held_back_stderr, kept_random_state

Pixels = NDArray[np.float32 | np.uint8]
Forward = Callable[[Pixels], NDArray[np.float32]]

# The name of the device under the torch backend, for which Keras lists none.
_TORCH_DEVICE = "torch's own"
# A convolution of 3.7 GFLOP, how often it is timed, and the speedup that bfloat16 must bring.
_TRIED_SHAPE = (4, 28, 28, 256)
_TRIES = 5
_WORTHWHILE = 1.2

# Keras's settings are those of the process; several devices are traced in several threads.
_settings_lock = RLock()

_LIBRARIES = (
    *("brainfeat", "keras", "tensorflow", "jax", "openvino"),
    *("numpy", "h5py", "pillow", "scikit-learn"),
)


@cache
def import_keras() -> ModuleType:
    """Import Keras, without TensorFlow's start-up messages.

    Raises
    ------
    MissingDependencyError
        Keras or its backend is not installed.
    ParameterError
        ``KERAS_BACKEND`` or Keras's file of settings has a value that Keras rejects.
    """
    # Level 1 hides TensorFlow's information and shows its warnings.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")
    try:
        with held_back_stderr(), kept_random_state():
            import keras

            if keras.config.backend() == "tensorflow":
                import tensorflow as tf

                tf.config.list_physical_devices("GPU")
    except ImportError as error:
        raise MissingDependencyError(explain_failure(error)) from error
    except ValueError as error:
        raise ParameterError(explain_failure(error)) from error
    return keras  # type: ignore[no-any-return]


@contextmanager
def layer_precision(precision: Precision) -> Iterator[None]:
    """Make layers that are built in the body compute in `precision`, on float32 variables.

    They have their channels last, whatever the settings of the session are; these are restored.
    Some layers read the settings when they are traced, so that tracing is in such a body, too.
    """
    config = import_keras().config
    with _settings_lock:
        policy, floatx, layout = config.dtype_policy(), config.floatx(), config.image_data_format()
        config.set_floatx("float32")
        config.set_image_data_format("channels_last")
        config.set_dtype_policy("float32" if precision == "float32" else f"mixed_{precision}")
        try:
            yield
        finally:
            config.set_floatx(floatx)
            config.set_image_data_format(layout)
            config.set_dtype_policy(policy)


def find_devices(wanted: str = "auto") -> list[str]:
    """Return the names of devices of the active backend, which is imported.

    Parameters
    ----------
    wanted : str
        ``"auto"`` for every GPU, or the processor if there is none; ``"cpu"`` or ``"gpu"`` for
        every device of that kind; or names separated by commas, such as ``"gpu:0,gpu:2"``.

    Returns
    -------
    list of str
        Such as ``["gpu:0", "gpu:1"]`` or ``["cpu:0"]``, without duplicates.

    Raises
    ------
    ParameterError
        A device does not exist; the message lists those that do.

    Examples
    --------
    >>> find_devices("cpu")
    ['cpu:0']
    """
    keras = import_keras()
    if keras.backend.backend() == "torch":
        if wanted != "auto":
            raise ParameterError(
                f"device {wanted!r}: the torch backend chooses its device by itself; use auto, or "
                "another backend by KERAS_BACKEND"
            )
        return [_TORCH_DEVICE]
    if wanted == "auto":
        return list(keras.distribution.list_devices())
    known = [*_devices_of("gpu"), *_devices_of("cpu")]
    found: list[str] = []
    for name in wanted.lower().split(","):
        named = [device for device in known if name.strip() in (device, device.partition(":")[0])]
        if not named:
            raise ParameterError(
                f"no device {name.strip()!r}; there are {', '.join(known)}, and auto, cpu or gpu "
                "for all of a kind"
            )
        found += named
    return list(dict.fromkeys(found))


def _devices_of(kind: str) -> list[str]:
    try:
        return list(import_keras().distribution.list_devices(kind))
    except RuntimeError:  # JAX lacks a backend of that kind
        return []


@contextmanager
def on_device(device: str) -> Iterator[None]:
    """Place the variables and the operations of the body on a device."""
    if device == _TORCH_DEVICE:
        yield
        return
    with import_keras().device(device):
        yield


def compile_forward(model: Any, device: str | None = None) -> Forward:
    """Compile a Keras model's forward pass on the active backend.

    Parameters
    ----------
    model : keras.Model
        A model with one input and one output, built on `device`.
    device : str or None
        A name from :func:`find_devices`; None is its first name.

    Returns
    -------
    callable
        From images of shape (n, h, w, 3), float32, or uint8 that are divided by 255, to the model's
        output in float32, such as (n, d). Each new shape and type is traced again, so callers
        should keep to one.
    """
    backend = import_keras().backend.backend()
    device = device or find_devices()[0]
    if backend == "tensorflow":
        return _compile_tensorflow(model, device)
    if backend == "jax":
        return _compile_jax(model, device)

    def forward(images: Pixels) -> NDArray[np.float32]:
        with layer_precision("float32"):
            return np.asarray(model.predict_on_batch(np.asarray(_to_unit(images))), np.float32)

    return forward


def _to_unit(images: Any) -> Any:
    """Divide 8-bit images by 255, on the device."""
    keras = import_keras()
    if keras.backend.standardize_dtype(images.dtype) == "uint8":
        return keras.ops.cast(images, "float32") / 255.0
    return images


def _compile_tensorflow(model: Any, device: str) -> Forward:
    import tensorflow as tf

    def call(images: Any) -> Any:
        with layer_precision("float32"):
            return model(_to_unit(images), training=False)

    traced = tf.function(call, autograph=False)

    def forward(images: Pixels) -> NDArray[np.float32]:
        with tf.device(device):
            return np.asarray(traced(tf.constant(images)).numpy(), np.float32)

    return forward


def _compile_jax(model: Any, device: str) -> Forward:
    import jax

    kind, _, number = device.partition(":")
    place = next(place for place in jax.devices(kind) if place.id == int(number))
    variables = [
        [jax.device_put(variable.value, place) for variable in group]
        for group in (model.trainable_variables, model.non_trainable_variables)
    ]

    def call(variables: Any, images: Any) -> Any:
        with layer_precision("float32"):
            return model.stateless_call(*variables, _to_unit(images), training=False)[0]

    compiled = jax.jit(call)
    return lambda images: np.asarray(compiled(variables, jax.device_put(images, place)), np.float32)


def fuse(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile arithmetic on tensors into a single pass over memory.

    JAX does so whenever it compiles; TensorFlow needs XLA for it.
    """
    if import_keras().backend.backend() != "tensorflow":
        return function
    import tensorflow as tf

    fused: Callable[..., Any] = tf.function(function, jit_compile=True, autograph=False)
    return fused


def is_rewriting_faster() -> bool:
    """Return whether :mod:`brainfeat.extraction.acceleration` pays off: under TensorFlow only.

    JAX compiles a base as a whole anyway.
    """
    return bool(import_keras().backend.backend() == "tensorflow")


def is_winograd_faster(device: str, precision: Precision) -> bool:
    """Return whether Winograd's convolutions, written in tensor operations, pay off.

    They do on a processor in float32 under TensorFlow, whose matrix product is as fast per
    multiplication as its convolution; docs/benchmarks.md has measurements.
    """
    return is_rewriting_faster() and device.startswith("cpu") and precision == "float32"


def choose_precision(device: str = "auto") -> Precision:
    """Choose bfloat16 if the devices support it natively and are faster in it; else float32.

    GPUs support it natively from compute capability 8.0 on (CUDA C++ Programming Guide, "Alternate
    Floating-Point"). On a processor with instructions for it (AMX-BF16 or AVX512-BF16), a
    measurement of less than a second decides: with AVX512-BF16 alone, some processors are half as
    fast in bfloat16 as in float32, and others twice as fast.

    Parameters
    ----------
    device : str
        As for :func:`find_devices`.

    Returns
    -------
    {"bfloat16", "float32"}
    """
    devices = find_devices(device)
    if devices[0].startswith("gpu"):
        native = all(map(_is_ampere_or_later, devices))
    else:
        known = {"amx_bf16", "avx512_bf16"} & set(processor()["features"])
        native = bool(known) and _measure_bfloat16_gain(devices[0]) > _WORTHWHILE
    return "bfloat16" if native else "float32"


def _is_ampere_or_later(device: str) -> bool:
    number = int(device.partition(":")[2])
    if import_keras().backend.backend() == "tensorflow":
        import tensorflow as tf

        physical = tf.config.list_physical_devices("GPU")[number]
        details = tf.config.experimental.get_device_details(physical)
        return bool(details.get("compute_capability", (0, 0)) >= (8, 0))
    import jax

    place = next(place for place in jax.devices("gpu") if place.id == number)
    major = str(getattr(place, "compute_capability", "0")).partition(".")[0]
    return major.isdigit() and int(major) >= 8


@cache
def _measure_bfloat16_gain(device: str) -> float:
    """Return the speedup of one of VGG16's 3 × 3 convolutions in bfloat16 over float32."""
    keras = import_keras()
    images = np.random.default_rng(0).random(_TRIED_SHAPE, np.float32)
    forwards = []
    precisions: tuple[Precision, ...] = ("float32", "bfloat16")
    for precision in precisions:
        with on_device(device), layer_precision(precision):
            inputs = keras.Input(_TRIED_SHAPE[1:], dtype="float32")
            maps = keras.layers.Conv2D(_TRIED_SHAPE[-1], 3, padding="same")(inputs)
            model = keras.Model(inputs, keras.ops.cast(keras.ops.mean(maps, (1, 2)), "float32"))
        forwards.append(compile_forward(model, device))
        forwards[-1](images)
    seconds = np.empty((_TRIES, 2))
    for times in seconds:
        for place, forward in enumerate(forwards):
            started = time.perf_counter()
            forward(images)
            times[place] = time.perf_counter() - started
    return float(np.divide(*seconds.min(axis=0)))


@cache
def processor() -> dict[str, Any]:
    """Describe the processor.

    Returns
    -------
    dict
        ``name`` (str), ``cores`` (int: those that this process may use), and ``features`` (list of
        the sets of instructions that matter here, such as ``avx2``, ``avx512_bf16`` and
        ``amx_int8``; empty if the system has no ``/proc/cpuinfo``).
    """
    name, flags = platform.processor() or platform.machine(), set[str]()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
        pairs = (line.partition(":") for line in lines)
        fields = {key.strip(): value.strip() for key, _, value in pairs}
        name = fields.get("model name", name)
        flags = set(fields.get("flags", "").split())
    wanted = (
        *("avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16"),
        *("amx_bf16", "amx_int8"),
    )
    return {"name": name, "cores": usable_cores(), "features": [f for f in wanted if f in flags]}


def usable_cores() -> int:
    """Return the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def accelerators() -> list[str]:
    """Return the names of the GPUs that the active backend can use; this imports the backend."""
    keras = import_keras()
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        devices = tf.config.list_physical_devices("GPU")
        details = map(tf.config.experimental.get_device_details, devices)
        return [str(detail.get("device_name", "GPU")) for detail in details]
    if keras.backend.backend() == "jax":
        import jax

        return [str(device.device_kind) for device in jax.devices() if device.platform != "cpu"]
    return []


def versions() -> dict[str, str]:
    """Return the versions of Python and of the libraries on which results depend."""
    found = {"python": platform.python_version()}
    for name in _LIBRARIES:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found
