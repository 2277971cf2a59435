"""The one owner of device, thread and precision set-up; what is a Keras backend's own is here."""

import io
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainfeat.cache.spec import Precision
from brainfeat.errors import MissingDependencyError, ParameterError

Forward = Callable[[NDArray[np.float32]], NDArray[np.float32]]

# What find_devices calls the device that torch chooses: Keras lists none under that backend.
_TORCH_DEVICE = "torch's own"
# A convolution of 3.7 GFLOP, timed so often, best of all; and what it must gain.
_TRIED_SHAPE = (4, 28, 28, 256)
_TRIES = 5
_WORTHWHILE = 1.2

_LIBRARIES = ("brainfeat", "keras", "tensorflow", "jax", "numpy", "h5py", "pillow", "scikit-learn")


@cache
def import_keras() -> ModuleType:
    """Import Keras, with TensorFlow's start-up messages held back.

    Raises
    ------
    MissingDependencyError
        Keras or its backend is not installed.
    ParameterError
        ``KERAS_BACKEND`` names no backend.
    """
    # Level 1 leaves TensorFlow's remarks out and its warnings in.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")
    try:
        with _held_back_stderr(), _kept_random_state():
            import keras

            if keras.config.backend() == "tensorflow":
                import tensorflow as tf

                tf.config.list_physical_devices("GPU")
    except ImportError as error:
        raise MissingDependencyError(
            f"Keras cannot be imported ({error}); install brainfeat with its dependencies: "
            "pip install brainfeat"
        ) from error
    except ValueError as error:
        raise ParameterError(
            f"Keras does not take its settings ({error}); KERAS_BACKEND must be tensorflow, jax or "
            f"torch, got {os.environ.get('KERAS_BACKEND')!r}"
        ) from error
    return keras  # type: ignore[no-any-return]


@contextmanager
def _kept_random_state() -> Iterator[None]:
    """Restore NumPy's global generator: JAX, if Keras imports it, draws from it."""
    state = np.random.get_state()  # noqa: NPY002
    try:
        yield
    finally:
        np.random.set_state(state)  # noqa: NPY002


@contextmanager
def _held_back_stderr() -> Iterator[None]:
    """Hold back what native code writes to stderr; show it only where the body fails.

    TensorFlow's C++ writes a dozen lines while it is imported, before any setting of its log level
    is heeded.
    """
    sys.stderr.flush()
    with tempfile.TemporaryFile() as held:
        saved = os.dup(2)
        os.dup2(held.fileno(), 2)
        try:
            yield
        except BaseException:
            os.dup2(saved, 2)
            held.seek(0)
            os.write(2, held.read())
            raise
        finally:
            os.dup2(saved, 2)
            os.close(saved)


@contextmanager
def layer_precision(precision: Precision) -> Iterator[None]:
    """Make the layers built in the body compute in `precision` on float32 variables."""
    keras = import_keras()
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float32" if precision == "float32" else f"mixed_{precision}")
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def find_devices(wanted: str = "auto") -> list[str]:
    """Name devices that the active backend can compute on; this imports the backend.

    Parameters
    ----------
    wanted : str
        ``"auto"``: every GPU, or the processor where there is none. ``"cpu"`` or ``"gpu"``: every
        device of that kind. Or names with commas between, such as ``"gpu:0,gpu:2"``.

    Returns
    -------
    list of str
        Such as ``["gpu:0", "gpu:1"]`` or ``["cpu:0"]``; each once.

    Raises
    ------
    ParameterError
        There is no such device; the message names those that there are.

    Examples
    --------
    >>> find_devices("cpu")
    ['cpu:0']
    """
    keras = import_keras()
    if keras.backend.backend() == "torch":
        if wanted != "auto":
            raise ParameterError(
                f"device {wanted!r}: the torch backend chooses its device by itself; leave it at "
                "auto, or choose another backend by KERAS_BACKEND"
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
    except RuntimeError:  # JAX has no backend of that kind
        return []


@contextmanager
def on_device(device: str) -> Iterator[None]:
    """Make the body's variables live on a device, and its operations run there."""
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
        A model of one input and one output, built on `device`.
    device : str or None
        As :func:`find_devices` names it; None is the first that it names by itself.

    Returns
    -------
    callable
        From float32 images (n, h, w, 3) to the model's output, such as (n, d), in float32; it is
        traced anew for each new shape, so callers keep to one.
    """
    backend = import_keras().backend.backend()
    device = device or find_devices()[0]
    if backend == "tensorflow":
        return _compile_tensorflow(model, device)
    if backend == "jax":
        return _compile_jax(model, device)
    return lambda images: np.asarray(model.predict_on_batch(images), np.float32)


def _compile_tensorflow(model: Any, device: str) -> Forward:
    import tensorflow as tf

    traced = tf.function(lambda images: model(images, training=False), autograph=False)

    def forward(images: NDArray[np.float32]) -> NDArray[np.float32]:
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
        return model.stateless_call(*variables, images, training=False)[0]

    compiled = jax.jit(call)
    return lambda images: np.asarray(compiled(variables, jax.device_put(images, place)), np.float32)


def fuse(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile arithmetic on tensors into one pass over memory, where the backend does not itself.

    JAX fuses what it compiles anyway; TensorFlow does so by XLA, where it is asked to.
    """
    if import_keras().backend.backend() != "tensorflow":
        return function
    import tensorflow as tf

    fused: Callable[..., Any] = tf.function(function, jit_compile=True, autograph=False)
    return fused


def is_rewriting_quicker() -> bool:
    """Tell whether :mod:`brainfeat.extraction.acceleration` pays off: under TensorFlow alone.

    JAX compiles a base as a whole by itself.
    """
    return bool(import_keras().backend.backend() == "tensorflow")


def is_winograd_quicker(device: str, precision: Precision) -> bool:
    """Tell whether Winograd's convolutions, written in tensor operations, pay off.

    They do on a processor in float32 under TensorFlow, whose matrix product is as quick, for each
    multiplication, as its convolution; docs/benchmarks.md has the figures.
    """
    return is_rewriting_quicker() and device.startswith("cpu") and precision == "float32"


def choose_precision(device: str = "auto") -> Precision:
    """Choose bfloat16 where the devices compute natively, and quicker, in it; else float32.

    A GPU computes natively in it from compute capability 8.0 on (CUDA C++ Programming Guide,
    "Alternate Floating-Point"). A processor that has instructions for it (AMX-BF16 or AVX512-BF16)
    is asked by a measurement of less than a second: with AVX512-BF16 alone some are half as quick
    in bfloat16 as in float32, and others twice.

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
    """Time one 3 × 3 convolution, as VGG16 has them, in both precisions; return the ratio."""
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
    best = [np.inf, np.inf]
    for _ in range(_TRIES):
        for place, forward in enumerate(forwards):
            started = time.perf_counter()
            forward(images)
            best[place] = min(best[place], time.perf_counter() - started)
    return float(best[0] / best[1])


@cache
def processor() -> dict[str, Any]:
    """Tell the processor's name, its cores, and which of its number formats matter here.

    Returns
    -------
    dict
        ``name`` (str), ``cores`` (int: those this process may use), and ``features`` (list of str
        among ``avx2``, ``avx512f``, ``avx512_bf16``, ``avx512_fp16``, ``amx_bf16``), which is empty
        where the system has no ``/proc/cpuinfo``.
    """
    name, flags = platform.processor() or platform.machine(), set[str]()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
        pairs = (line.partition(":") for line in lines)
        fields = {key.strip(): value.strip() for key, _, value in pairs}
        name = fields.get("model name", name)
        flags = set(fields.get("flags", "").split())
    wanted = ("avx2", "avx512f", "avx512_bf16", "avx512_fp16", "amx_bf16")
    return {"name": name, "cores": usable_cores(), "features": [f for f in wanted if f in flags]}


def usable_cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def accelerators() -> list[str]:
    """Name the GPUs that the active backend can use; this imports the backend."""
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
    """Return the versions of Python and of the libraries that numbers depend on."""
    found = {"python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def convert_to_litert(model: Any) -> bytes:
    """Convert a Keras model to a LiteRT model of one image at a time; this needs TensorFlow.

    Parameters
    ----------
    model : keras.Model
        Of one input and one output.

    Returns
    -------
    bytes
        The contents of the file.

    Raises
    ------
    MissingDependencyError
        Keras runs on another backend.
    """
    keras = import_keras()
    if keras.config.backend() != "tensorflow":
        raise MissingDependencyError(
            "a LiteRT model is made by TensorFlow, and Keras runs on "
            f"{keras.config.backend()}; set KERAS_BACKEND=tensorflow"
        )
    import tensorflow as tf

    # Keras prints what it traces.
    with _held_back_stderr(), redirect_stdout(io.StringIO()):
        converter = tf.lite.TFLiteConverter.from_keras_model(model)
        converted: bytes = converter.convert()
    return converted
