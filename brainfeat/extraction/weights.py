"""Weights of a base: random ones, files, downloads, and their digest."""

import hashlib
import os
import re
import sys
import warnings
from contextlib import redirect_stdout, suppress
from pathlib import Path
from typing import Any

import numpy as np

from brainfeat import runtime
from brainfeat.errors import WeightsError
from brainfeat.extraction.architectures import BACKBONES, build_base

# What Keras raises on a file that is not one of weights of a model.
_REFUSALS = (ValueError, OSError, KeyError, TypeError, AttributeError, RuntimeError)
_LEAST_SIZE = 32


def digest_weights(model: Any) -> str:
    """Compute the SHA-256 of the weight tensors of a model.

    Parameters
    ----------
    model : keras.Model

    Returns
    -------
    str
        64 hexadecimal digits, over name, dtype, shape and bytes of each tensor, sorted by name.
    """
    hasher = hashlib.sha256()
    for name, tensor in sorted(_tensors(model).items()):
        values = np.asarray(tensor)
        values = np.ascontiguousarray(values, values.dtype.newbyteorder("<"))
        hasher.update(f"{name} {values.dtype.str} {values.shape}\n".encode())
        hasher.update(values.tobytes())
    return hasher.hexdigest()


def local_imagenet_file(name: str) -> Path:
    """Return the path where Keras keeps the ImageNet weights of a base once they are downloaded."""
    home = Path(os.environ.get("KERAS_HOME", "~/.keras")).expanduser()
    return home / "models" / BACKBONES[name].url.rsplit("/", 1)[1]


def find_weights_file(weights: str, name: str) -> Path:
    """Find the file of the weights of a base.

    Parameters
    ----------
    weights : str
        ``"imagenet"``, or the path of a Keras weights file.
    name : str
        Name of the base.

    Returns
    -------
    Path

    Raises
    ------
    WeightsError
        If there is no such file, if it is not named like a Keras weights file, or if that of
        ImageNet cannot be downloaded.
    """
    if weights == "imagenet":
        return fetch_imagenet_file(name)
    path = Path(weights).expanduser()
    if not path.is_file():
        raise WeightsError(
            f"no weights file {weights}; expected imagenet, random, or the path of a "
            "Keras weights file (.h5 or .weights.h5); pass it with weights=PATH"
        )
    if path.suffix not in (".h5", ".hdf5"):
        raise WeightsError(
            f"{path.name} is not named like a Keras weights file; expected .h5 or .weights.h5"
        )
    return path


def fetch_imagenet_file(name: str) -> Path:
    """Return the file of the ImageNet weights of a base; Keras downloads it if it is missing.

    Parameters
    ----------
    name : str
        A key of :data:`brainfeat.extraction.architectures.BACKBONES`.

    Returns
    -------
    Path

    Raises
    ------
    WeightsError
        If the file cannot be downloaded, or its checksum is wrong.
    """
    architecture = BACKBONES[name]
    path = local_imagenet_file(name)
    checksum = f" (MD5 {architecture.md5})" if architecture.md5 else ""
    if not path.is_file():
        path = _download(architecture.url, path, architecture.md5, checksum)
    if architecture.md5 and digest_file(path, "md5") != architecture.md5:
        raise WeightsError(
            f"{path} is damaged: its MD5 is not {architecture.md5}; "
            "remove it so that it is downloaded again, or pass another file with weights=PATH"
        )
    return path


def _download(url: str, path: Path, md5: str | None, checksum: str) -> Path:
    """Let Keras download a file; if its own folder is read-only, it chooses another one."""
    keras = runtime.import_keras()
    home, folder = path.parent.parent, path.parent.name
    try:
        with redirect_stdout(sys.stderr):
            fetched = keras.utils.get_file(
                path.name, url, cache_dir=str(home), cache_subdir=folder, file_hash=md5
            )
    except Exception as error:  # get_file raises plain exceptions
        raise WeightsError(
            f"the ImageNet weights {path.name}{checksum} are missing and could not be downloaded "
            f'from {url}: {error}; pass a copy with weights=PATH, or weights="random" to go on '
            "without pretrained features"
        ) from error
    return Path(fetched)


def load_weights(model: Any, path: Path, name: str) -> None:
    """Load a Keras weights file into a base.

    Parameters
    ----------
    model : keras.Model
        The base, whose weights are changed.
    path : Path
        A legacy ``.h5`` or a ``.weights.h5`` file.
    name : str
        Name of the base in error messages.

    Raises
    ------
    WeightsError
        If the file is not one of weights of this base without top.
    """
    before = digest_weights(model)
    try:
        with warnings.catch_warnings():
            # Before it raises, Keras warns about each layer that the file does not have.
            warnings.filterwarnings("ignore", "Skipping nested container", UserWarning)
            model.load_weights(str(path))
    except _REFUSALS as error:
        is_hdf5 = not isinstance(error, OSError)
        if is_hdf5 and (found := _find_owner(path)):
            raise WeightsError(
                f"{path.name} holds the weights of {found}, and no weights of {name} without top; "
                f"pass those of {name}, or take the base {found}"
            ) from error
        reason = str(error).strip().partition("\n")[0].rstrip(":") or repr(error)
        raise WeightsError(
            f"{path.name} holds no weights of {name} without top ({reason}); "
            "pass a Keras weights file that was saved from that base"
        ) from error
    if digest_weights(model) == before:
        raise WeightsError(f"{path.name} changed no weight of {name}; pass a Keras weights file")


def _find_owner(path: Path) -> str | None:
    """Find the base that a weights file fits, by loading it into each of them."""
    for name, architecture in BACKBONES.items():
        model = build_base(architecture, _LEAST_SIZE, "float32")
        before = digest_weights(model)
        with suppress(*_REFUSALS), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model.load_weights(str(path))
            if digest_weights(model) != before:
                return name
    return None


def randomize_weights(model: Any, random_state: int) -> None:
    """Draw He-normal kernels (He et al. 2015, https://arxiv.org/abs/1502.01852) for a base.

    Each kernel depends on its name and the seed alone. Vectors keep their initial values.

    Parameters
    ----------
    model : keras.Model
        The base, whose weights are changed.
    random_state : int
        The seed.
    """
    for name, variable in _tensors(model).items():
        if len(variable.shape) < 2:
            continue
        digest = hashlib.sha256(name.encode()).digest()
        rng = np.random.default_rng([random_state, *digest])
        depthwise = variable.shape[-1] == 1
        fan_in = np.prod(variable.shape[:2] if depthwise else variable.shape[:-1])
        variable.assign(rng.standard_normal(variable.shape, np.float32) * np.sqrt(2.0 / fan_in))


def _tensors(model: Any) -> dict[str, Any]:
    # Keras numbers the layers that it names by itself across the whole process.
    return {
        re.sub(r"^normalization_\d+/", "normalization/", variable.path): variable
        for variable in model.variables
        if "seed_generator" not in variable.path
    }


def digest_file(path: Path, algorithm: str) -> str:
    """Compute the digest of a file, in hexadecimal digits.

    Raises
    ------
    WeightsError
        If the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, algorithm).hexdigest()
    except OSError as error:
        raise WeightsError(f"{path} cannot be read ({error.strerror})") from error
