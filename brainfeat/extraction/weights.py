"""Weights of a base: random ones, files, downloads, and their digest."""

import hashlib
import os
import re
import sys
from collections.abc import Mapping
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainfeat import runtime
from brainfeat.errors import WeightsError
from brainfeat.extraction.architectures import BACKBONES
from brainfeat.extraction.graph import list_weights, read_graph
from brainfeat.extraction.weight_files import Tensors, read_tensors

# Weights that Keras sets to one; the other vectors are zero.
_INITIALLY_ONE = ("gamma", "moving_variance", "variance")


def load_tensors(weights: Path | str, name: str, random_state: int) -> Tensors:
    """Load or draw the weights of a base.

    Parameters
    ----------
    weights : Path or str
        A Keras weights file, or ``"random"``.
    name : str
        Name of the base.
    random_state : int
        Seed of random weights.

    Returns
    -------
    dict of str to ndarray
        By the paths that they have in Keras.

    Raises
    ------
    WeightsError
        If the file is not one of weights of this base without top.
    """
    if weights == "random":
        return draw_tensors(name, random_state)
    return read_tensors(Path(weights), name)


def digest_tensors(tensors: Mapping[str, NDArray[Any]]) -> str:
    """Compute the SHA-256 of the weights of a base.

    Parameters
    ----------
    tensors : mapping of str to ndarray
        By path.

    Returns
    -------
    str
        64 hexadecimal digits, over path, dtype, shape and bytes of each tensor, sorted by path.
    """
    hasher = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        # It makes a vector of a number, which is how numbers have always been digested.
        values = np.ascontiguousarray(tensor, tensor.dtype.newbyteorder("<"))
        hasher.update(f"{name} {values.dtype.str} {values.shape}\n".encode())
        hasher.update(values.tobytes())
    return hasher.hexdigest()


def draw_tensors(name: str, random_state: int) -> Tensors:
    """Draw He-normal kernels (He et al. 2015, https://arxiv.org/abs/1502.01852) for a base.

    Each kernel depends on its path and the seed alone. Vectors have the initial values of Keras.

    Parameters
    ----------
    name : str
        Name of the base.
    random_state : int
        The seed.

    Returns
    -------
    dict of str to ndarray
        By the paths that they have in Keras.
    """
    tensors = {}
    for path, (kind, shape, dtype) in list_weights(read_graph(name)).items():
        if len(shape) < 2:
            tensors[path] = np.full(shape, kind in _INITIALLY_ONE, dtype)
            continue
        digest = hashlib.sha256(path.encode()).digest()
        rng = np.random.default_rng([random_state, *digest])
        depthwise = shape[-1] == 1
        fan_in = np.prod(shape[:2] if depthwise else shape[:-1])
        drawn = rng.standard_normal(shape, np.float32) * np.sqrt(2.0 / fan_in)
        tensors[path] = drawn.astype(dtype)
    return tensors


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
            f"no weights file {weights}",
            "expected imagenet, random, or the path of a Keras weights file (.h5 or .weights.h5); "
            "pass it with weights=PATH",
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
            f"from {url}: {error}",
            'pass a copy with weights=PATH, or weights="random" to go on without pretrained '
            "features",
        ) from error
    return Path(fetched)


def fill_base(model: Any, tensors: Mapping[str, NDArray[Any]]) -> None:
    """Put weights into a base that Keras built.

    Parameters
    ----------
    model : keras.Model
        The base, whose weights are changed.
    tensors : mapping of str to ndarray
        By path.
    """
    for variable in model.variables:
        if "seed_generator" not in variable.path:
            # Keras numbers the layers that it names by itself across the whole process.
            path = re.sub(r"^normalization_\d+/", "normalization/", variable.path)
            variable.assign(tensors[path])
    for layer in model.layers:
        if hasattr(layer, "finalize_state"):  # of a normalization, which keeps what it computes
            layer.finalize_state()


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
