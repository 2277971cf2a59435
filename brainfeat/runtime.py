"""The one owner of device, thread and precision set-up; what is a Keras backend's own is here."""

import os
import platform
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainfeat.errors import MissingDependencyError
from brainfeat.spec import Precision

Forward = Callable[[NDArray[np.float32]], NDArray[np.float32]]

_LIBRARIES = ("brainfeat", "keras", "tensorflow", "jax", "numpy", "h5py", "pillow", "scikit-learn")


@cache
def import_keras() -> ModuleType:
    """Import Keras, with TensorFlow's start-up messages held back.

    Raises
    ------
    MissingDependencyError
        Keras or its backend is not installed.
    """
    # Level 1 leaves TensorFlow's remarks out and its warnings in.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")
    try:
        with _held_back_stderr():
            import keras

            if keras.config.backend() == "tensorflow":
                import tensorflow as tf

                tf.config.list_physical_devices("GPU")
    except ImportError as error:
        raise MissingDependencyError(
            f"Keras cannot be imported ({error}); install brainfeat with its dependencies: "
            "pip install brainfeat"
        ) from error
    return keras  # type: ignore[no-any-return]


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


def compile_forward(model: Any) -> Forward:
    """Compile a Keras model's forward pass on the active backend.

    Parameters
    ----------
    model : keras.Model
        A model of one input and one output.

    Returns
    -------
    callable
        From float32 images (n, h, w, 3) to float32 (n, d); it is traced anew for each new shape,
        so callers keep to one.
    """
    backend = import_keras().backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        traced = tf.function(lambda images: model(images, training=False), autograph=False)
        return lambda images: np.asarray(traced(tf.constant(images)).numpy(), np.float32)
    if backend == "jax":
        import jax

        trainable = [variable.value for variable in model.trainable_variables]
        others = [variable.value for variable in model.non_trainable_variables]

        def call(trainable: Any, others: Any, images: Any) -> Any:
            return model.stateless_call(trainable, others, images, training=False)[0]

        compiled = jax.jit(call)
        return lambda images: np.asarray(compiled(trainable, others, images), np.float32)
    return lambda images: np.asarray(model.predict_on_batch(images), np.float32)


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
    return [str(device) for device in keras.distribution.list_devices() if "cpu" not in str(device)]


def versions() -> dict[str, str]:
    """Return the versions of Python and of the libraries that numbers depend on."""
    found = {"python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
