"""A head as layers of a network, in the numbers that every format of an exported model holds."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from brainfeat.errors import HeadError
from brainfeat.heads.bundle import HeadBundle
from brainfeat.heads.kinds import ATTENTION_HEADS, takes_maps

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]

# The classical heads whose scores are a linear function of standardised features.
_LINEAR = ("logistic", "linear-svm", "lda")


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


def find_head_layers(bundle: HeadBundle) -> HeadLayers:
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
    head = bundle.estimator
    if bundle.head in ("dense", *ATTENTION_HEADS):
        mean, scale = head.mean_, head.scale_
        layers = [(np.asarray(k, np.float64), np.asarray(b, np.float64)) for k, b in head.layers_]
    elif bundle.head in _LINEAR:
        mean, scale = head["scaler"].mean_, head["scaler"].scale_
        layers = [_find_linear_layer(head["classifier"])]
    else:
        raise HeadError(
            f"{bundle.head} heads are not networks; export a dense head, or one of "
            f"{', '.join((*ATTENTION_HEADS, *_LINEAR))}"
        )
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
