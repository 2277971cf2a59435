"""How Keras starts: without its messages, and with settings from the environment or a file."""

import json
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

_BACKENDS = ("tensorflow", "jax", "torch")
_DEFAULT = _BACKENDS[0]


@contextmanager
def kept_random_state() -> Iterator[None]:
    """Restore NumPy's global generator: JAX, if Keras imports it, draws from it."""
    state = np.random.get_state()  # noqa: NPY002
    try:
        yield
    finally:
        np.random.set_state(state)  # noqa: NPY002


@contextmanager
def held_back_stderr() -> Iterator[None]:
    """Suppress what native code writes to stderr, unless the body fails.

    TensorFlow's C++ code writes a dozen lines on import, before it reads any log level.
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


def find_config_file() -> Path:
    """Return the path of Keras's file of settings, which need not exist.

    Returns
    -------
    Path
        As Keras 3 finds it (``keras/src/backend/config.py``): in ``KERAS_HOME``, else in the folder
        ``.keras`` of the home folder, or of ``/tmp`` where no file can be made in the home folder.
    """
    home = Path("~").expanduser()
    folder = home if os.access(home, os.W_OK) else Path("/tmp")  # noqa: S108 - Keras's choice
    return Path(os.environ.get("KERAS_HOME") or folder / ".keras").expanduser() / "keras.json"


def explain_failure(error: Exception) -> str:
    """Explain why Keras cannot be imported.

    Parameters
    ----------
    error : Exception
        What its import raised: an ImportError, or a ValueError about a setting.

    Returns
    -------
    str
        A message that names where the backend or the setting comes from.
    """
    reason, expected = " ".join(str(error).split()), "tensorflow, jax or torch"
    if backend := os.environ.get("KERAS_BACKEND"):
        return (
            f"Keras cannot be imported ({reason}); KERAS_BACKEND is {backend!r}, expected "
            f"{expected}, and that it is installed"
        )
    file = find_config_file()
    settings = _read_settings(file)
    named = settings.get("backend", _DEFAULT)
    if named != _DEFAULT and (isinstance(error, ImportError) or named not in _BACKENDS):
        return (
            f"Keras cannot be imported ({reason}); {file} names the backend {named!r}, expected "
            f"{expected}, and that it is installed; change the file, or set "
            f"KERAS_BACKEND={_DEFAULT}"
        )
    if isinstance(error, ImportError):
        return (
            f"Keras cannot be imported ({reason}); install brainfeat with its dependencies: "
            "pip install brainfeat"
        )
    return f"Keras rejects its settings ({reason}); change or remove {file}"


def _read_settings(file: Path) -> dict[str, object]:
    try:
        settings = json.loads(file.read_bytes())
    except (OSError, ValueError):  # Keras ignores such a file
        return {}
    return settings if isinstance(settings, dict) else {}
