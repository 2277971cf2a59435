"""A head as layers of a network, in the numbers that every format of an exported model holds."""

import os
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from brainfeat.cache.formats import read_text
from brainfeat.canonical import parse_json
from brainfeat.errors import HeadError
from brainfeat.heads.kinds import ATTENTION_HEADS, HEAD_NAMES, takes_maps

if TYPE_CHECKING:
    from brainfeat.heads.bundle import HeadBundle

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]

# The classical heads whose scores are a linear function of standardised features.
_LINEAR = ("logistic", "linear-svm", "lda")


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
    if name in (*HEAD_NAMES, *ATTENTION_HEADS):
        _require_network(name)


def _require_network(name: str) -> None:
    networks = (*ATTENTION_HEADS, *_LINEAR)
    if name not in ("dense", *networks):
        raise HeadError(
            f"{name} heads are not networks; export a dense head, or one of {', '.join(networks)}"
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
        Its arrays, as of :data:`brainfeat.heads.parameters.GATE_SHAPES`.
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


def find_head_layers(bundle: "HeadBundle") -> HeadLayers:
    """Find the layers of a dense, an attention or a linear head.

    Parameters
    ----------
    bundle : HeadBundle
        The head.

    Returns
    -------
    HeadLayers

    Raises
    ------
    HeadError
        The head is not a network, or takes bags.
    """
    if bundle.bag is not None:
        raise HeadError(
            "this head takes all images of a patient together, and an exported model takes single "
            "ones; export a head of images"
        )
    _require_network(bundle.head)
    head = bundle.estimator
    if bundle.head in ("dense", *ATTENTION_HEADS):
        mean, scale = head.mean_, head.scale_
        layers = [(np.asarray(k, np.float64), np.asarray(b, np.float64)) for k, b in head.layers_]
    else:
        mean, scale = head["scaler"].mean_, head["scaler"].scale_
        layers = [_find_linear_layer(head["classifier"])]
    kernel, bias = layers.pop()
    layers.append((kernel / bundle.temperature, bias / bundle.temperature))
    attention = bundle.head if bundle.head in ATTENTION_HEADS else ""
    return HeadLayers(mean, scale, layers, attention, getattr(head, "gates_", ()))


def _find_linear_layer(classifier: Any) -> tuple[Matrix, Vector]:
    kernel, bias = classifier.coef_.T, np.atleast_1d(classifier.intercept_)
    if kernel.shape[1] == 1:
        # With two classes there is one score, that of the second; the first has 0.
        kernel, bias = np.hstack([np.zeros_like(kernel), kernel]), np.array([0.0, bias[0]])
    return kernel, bias
