"""Keras's weights files, read by h5py alone: no network library is imported."""

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from brainfeat.errors import WeightsError
from brainfeat.extraction.architectures import BACKBONES
from brainfeat.extraction.graph import Layer, Weight, list_weights, read_graph

Tensors = dict[str, NDArray[Any]]

_WORD = re.compile(r"(?<=[a-z])(?=[A-Z][a-z])")


class _UnfitError(Exception):
    """A file whose tensors are not those of a base; the text says why."""


def read_tensors(path: Path, name: str) -> Tensors:
    """Read the weights of a base.

    Parameters
    ----------
    path : Path
        A legacy ``.h5`` file, of weights or of a whole model, or a ``.weights.h5`` file.
    name : str
        Name of the base.

    Returns
    -------
    dict of str to ndarray
        By the paths that they have in Keras.

    Raises
    ------
    WeightsError
        If the file is not one of weights of this base without top.
    """
    tensors, reason, owner = None, "", None
    try:
        with h5py.File(path, "r") as file:
            try:
                tensors = _read_base(file, read_graph(name))
            except _UnfitError as error:
                reason, owner = str(error), _find_owner(file)
    except (OSError, RuntimeError) as error:
        reason = str(error).partition("\n")[0].rstrip(":")
    if tensors is not None:
        _check_finite(path, tensors)
        return tensors
    if owner:
        raise WeightsError(
            f"{path.name} holds the weights of {owner}, and no weights of {name} without top; "
            f"pass those of {name}, or take the base {owner}"
        )
    raise WeightsError(
        f"{path.name} holds no weights of {name} without top ({reason}); "
        "pass a Keras weights file that was saved from that base"
    )


def _read_base(file: h5py.File, layers: tuple[Layer, ...]) -> Tensors:
    return {
        path: np.asarray(dataset[()], weight.dtype)
        for path, weight, dataset in _find_datasets(file, layers)
    }


def _check_finite(path: Path, tensors: Tensors) -> None:
    """Refuse NaN, which an activation of OpenVINO turns into 0, and infinity."""
    for name, tensor in tensors.items():
        if not np.isfinite(tensor).all():
            raise WeightsError(
                f"{path.name} is damaged: {name} has numbers that are not finite; "
                "pass an intact copy"
            )


def _find_owner(file: h5py.File) -> str | None:
    """Find the base whose weights a file has."""
    for name in BACKBONES:
        try:
            _find_datasets(file, read_graph(name))
        except _UnfitError:
            continue
        return name
    return None


def _find_datasets(
    file: h5py.File, layers: tuple[Layer, ...]
) -> list[tuple[str, Weight, h5py.Dataset]]:
    """Find the tensors of a base in a file, and check their shapes."""
    group = file.get("model_weights", file)
    names = _list_texts(group, "layer_names")
    paths = list(_list_by_class(layers)) if names is None else _list_legacy(group, names, layers)
    found = []
    for path, (name, weight) in zip(paths, list_weights(layers).items(), strict=True):
        dataset = group.get(path) if _is_within(group, path) else None
        if not isinstance(dataset, h5py.Dataset) or dataset.external:
            raise _UnfitError(f"no {path} for {name}")
        if dataset.shape != weight.shape or dataset.dtype.kind not in "fiu":
            raise _UnfitError(f"{path} is {dataset.shape}; expected {weight.shape} for {name}")
        found.append((name, weight, dataset))
    return found


def _is_within(group: h5py.Group, path: str) -> bool:
    """Return whether a path leads through this file alone."""
    for part in path.split("/"):
        if not isinstance(group, h5py.Group) or not isinstance(
            group.get(part, getlink=True), h5py.HardLink
        ):
            return False
        group = group[part]
    return True


def _list_by_class(layers: tuple[Layer, ...]) -> Iterator[str]:
    """Yield the paths of a ``.weights.h5`` file, where layers are counted by their class."""
    numbers: Counter[str] = Counter()
    for layer in layers:
        kind = _WORD.sub("_", layer.kind).lower()
        name = f"{kind}_{numbers[kind]}" if numbers[kind] else kind
        numbers[kind] += 1
        yield from (f"layers/{name}/vars/{place}" for place in range(len(layer.weights)))


def _list_legacy(group: h5py.Group, names: list[str], layers: tuple[Layer, ...]) -> list[str]:
    """List the paths of a legacy file, where layers are in their order."""
    wanted = [len(layer.weights) for layer in layers if layer.weights]
    weights = [
        [f"{name}/{path}" for path in _list_texts(group[name], "weight_names") or ()]
        for name in names
        if _is_within(group, name)
    ]
    found = [paths for paths in weights if paths]
    if len(found) != len(wanted):
        raise _UnfitError(f"{len(found)} layers with weights; expected {len(wanted)}")
    for paths, number in zip(found, wanted, strict=True):
        if len(paths) != number:
            raise _UnfitError(f"{len(paths)} weights beside {paths[0]}; expected {number}")
    return [path for paths in found for path in paths]


def _list_texts(group: h5py.Group, name: str) -> list[str] | None:
    """Read a list of texts from an attribute, or from several where it is long."""
    if name in group.attrs:
        parts = [group.attrs[name]]
    elif f"{name}0" in group.attrs:
        numbered = (f"{name}{number}" for number in range(len(group.attrs)))
        parts = [group.attrs[part] for part in numbered if part in group.attrs]
    else:
        return None
    texts = [text for part in parts for text in np.ravel(part).tolist()]
    return [
        text.decode("utf-8", "replace") if isinstance(text, bytes) else str(text) for text in texts
    ]
