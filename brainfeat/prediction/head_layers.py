"""A head as layers of a network, in the numbers that every format of an exported model holds."""

import os
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from brainfeat.cache.formats import read_text
from brainfeat.canonical import parse_json
from brainfeat.errors import HeadError
from brainfeat.heads.kinds import ATTENTION_HEADS, HEAD_NAMES, parse_ensemble, takes_maps

if TYPE_CHECKING:
    from brainfeat.heads.bundle import HeadBundle

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]

# The classical heads whose scores are a linear function of standardised features.
_LINEAR = ("logistic", "linear-svm", "lda")
_NETWORKS = ("dense", *ATTENTION_HEADS, *_LINEAR)


def require_network_file(path: str | os.PathLike[str]) -> None:
    """Refuse the file of a head that is not a network, by the name in it, before it is loaded.

    Parameters
    ----------
    path : path-like
        Any file; what else is wrong with it, loading it tells.

    Raises
    ------
    HeadError
        The head is not a network.
    """
    try:
        head = parse_json(read_text(path, "head") or "", error=HeadError)
    except HeadError:
        return
    name = head.get("name") if isinstance(head, dict) else None
    if isinstance(name, str) and _is_known(name):
        require_network(name)


def _is_known(name: str) -> bool:
    if name in (*HEAD_NAMES, *ATTENTION_HEADS):
        return True
    try:
        return parse_ensemble(name) is not None
    except HeadError:
        return False


def require_network(name: str) -> None:
    """Refuse a head that is not a network, or an ensemble of which a member is not one.

    Parameters
    ----------
    name : str
        Of a head.

    Raises
    ------
    HeadError
        The message names those that can be exported.
    """
    ensemble = parse_ensemble(name)
    if ensemble is None and name not in _NETWORKS:
        raise HeadError(f"{name} heads are not networks; export a head of {', '.join(_NETWORKS)}")
    members = () if ensemble is None else ensemble.members
    if lacking := [member for member in members if member not in _NETWORKS]:
        raise HeadError(
            f"the member {lacking[0]} of {name} is not a network; export an ensemble of "
            f"{', '.join(_NETWORKS)}"
        )


class HeadLayers(NamedTuple):
    """What turns features into scores, whose softmax is the calibrated probabilities.

    Attributes
    ----------
    mean, scale : ndarray of shape (d,), float64
        The mean is subtracted from the features, which are then divided by the scale.
    layers : list of tuple of ndarray
        Kernel (inputs, outputs) and bias (outputs,) of each layer, float64. There is a ReLU between
        two layers. The last one is divided by the temperature.
    attention : str
        The kind of attention before the layers, as of
        :class:`brainfeat.heads.map_head.MapHead`; ``""`` without.
    gates : tuple of ndarray
        Its arrays, as of ``brainfeat.heads.parameters.GATE_SHAPES``.
    """

    mean: Vector
    scale: Vector
    layers: list[tuple[Matrix, Vector]]
    attention: str = ""
    gates: tuple[NDArray[np.float32], ...] = ()

    @property
    def takes_maps(self) -> bool:
        """Whether it takes maps, and not vectors."""
        return takes_maps(self.attention)


class EnsembleLayers(NamedTuple):
    """What turns features into scores by several heads.

    Attributes
    ----------
    members : list of HeadLayers
        Each gives the calibrated probabilities of a member.
    columns : list of tuple of int
        First column of the features that each member takes, and the one after its last.
    stack : tuple of ndarray or None
        Kernel (m·k, k) and bias (k,) of a stack, on the logarithms of the probabilities of the
        members side by side, float64, divided by the temperature. None for a vote, whose scores are
        the logarithms of the mean probabilities, divided by the temperature.
    temperature : float
        Divides the scores of a vote.
    """

    members: list[HeadLayers]
    columns: list[tuple[int, int]]
    stack: tuple[Matrix, Vector] | None
    temperature: float


def find_head_layers(bundle: "HeadBundle") -> HeadLayers | EnsembleLayers:
    """Find the layers of a dense, an attention or a linear head, or of an ensemble of such.

    Parameters
    ----------
    bundle : HeadBundle
        The head.

    Returns
    -------
    HeadLayers or EnsembleLayers

    Raises
    ------
    HeadError
        The head, or a member, is not a network, or takes bags.
    """
    if bundle.bag is not None:
        raise HeadError(
            "this head takes all images of a patient together, and an exported model takes single "
            "ones; export a head of images"
        )
    require_network(bundle.head)
    if parse_ensemble(bundle.head) is None:
        return _find_layers(bundle.head, bundle.estimator, bundle.temperature)
    members = bundle.estimator.members_
    stack = bundle.estimator.stack_
    if stack is not None:
        kernel, bias = stack
        stack = kernel / bundle.temperature, bias / bundle.temperature
    return EnsembleLayers(
        [_find_layers(member.name, member.estimator, member.temperature) for member in members],
        [member.columns for member in members],
        stack,
        bundle.temperature,
    )


def _find_layers(name: str, head: Any, temperature: float) -> HeadLayers:
    if name in ("dense", *ATTENTION_HEADS):
        mean, scale = head.mean_, head.scale_
        layers = [(np.asarray(k, np.float64), np.asarray(b, np.float64)) for k, b in head.layers_]
    else:
        mean, scale = head["scaler"].mean_, head["scaler"].scale_
        layers = [_find_linear_layer(head["classifier"])]
    kernel, bias = layers.pop()
    layers.append((kernel / temperature, bias / temperature))
    attention = name if name in ATTENTION_HEADS else ""
    return HeadLayers(mean, scale, layers, attention, getattr(head, "gates_", ()))


def _find_linear_layer(classifier: Any) -> tuple[Matrix, Vector]:
    kernel, bias = classifier.coef_.T, np.atleast_1d(classifier.intercept_)
    if kernel.shape[1] == 1:
        # With two classes there is one score, that of the second; the first has 0.
        kernel, bias = np.hstack([np.zeros_like(kernel), kernel]), np.array([0.0, bias[0]])
    return kernel, bias
