"""A head as layers of a network, in the numbers that every format of an exported model holds."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from brainfeat.errors import HeadError
from brainfeat.heads.bundle import HeadBundle
from brainfeat.heads.kinds import parse_ensemble

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]

# The classical heads whose scores are a linear function of standardised features.
_LINEAR = ("logistic", "linear-svm", "lda")
_NETWORKS = ("dense", *_LINEAR)


class HeadLayers(NamedTuple):
    """What turns features into scores, whose softmax is the calibrated probabilities.

    Attributes
    ----------
    mean, scale : ndarray of shape (d,), float64
        The mean is subtracted from the features, which are then divided by the scale.
    layers : list of tuple of ndarray
        Kernel (inputs, outputs) and bias (outputs,) of each layer, float64. There is a ReLU between
        two layers. The last one is divided by the temperature.
    """

    mean: Vector
    scale: Vector
    layers: list[tuple[Matrix, Vector]]


class EnsembleLayers(NamedTuple):
    """What turns features into scores by several heads.

    Attributes
    ----------
    members : list of HeadLayers
        Each gives the calibrated probabilities of a member.
    stack : tuple of ndarray or None
        Kernel (m·k, k) and bias (k,) of a stack, on the logarithms of the probabilities of the
        members side by side, float64, divided by the temperature. None for a vote, whose scores are
        the logarithms of the mean probabilities, divided by the temperature.
    temperature : float
        Divides the scores of a vote.
    """

    members: list[HeadLayers]
    stack: tuple[Matrix, Vector] | None
    temperature: float


def find_head_layers(bundle: HeadBundle) -> HeadLayers | EnsembleLayers:
    """Find the layers of a dense or a linear head, or of an ensemble of such.

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
    if parse_ensemble(bundle.head) is None:
        return _find_layers(bundle.head, bundle.estimator, bundle.temperature)
    members = bundle.estimator.members_
    if lacking := [member.name for member in members if member.name not in _NETWORKS]:
        raise HeadError(
            f"the member {lacking[0]} of {bundle.head} is not a network; export an ensemble of "
            f"{', '.join(_NETWORKS)}"
        )
    stack = bundle.estimator.stack_
    if stack is not None:
        kernel, bias = stack
        stack = kernel / bundle.temperature, bias / bundle.temperature
    return EnsembleLayers(
        [_find_layers(member.name, member.estimator, member.temperature) for member in members],
        stack,
        bundle.temperature,
    )


def _find_layers(name: str, head: Any, temperature: float) -> HeadLayers:
    if name == "dense":
        mean, scale = head.mean_, head.scale_
        layers = [(np.asarray(k, np.float64), np.asarray(b, np.float64)) for k, b in head.layers_]
    elif name in _LINEAR:
        mean, scale = head["scaler"].mean_, head["scaler"].scale_
        layers = [_find_linear_layer(head["classifier"])]
    else:
        raise HeadError(
            f"{name} heads are not networks; export a dense head, or one of {', '.join(_LINEAR)}"
        )
    kernel, bias = layers.pop()
    return HeadLayers(mean, scale, [*layers, (kernel / temperature, bias / temperature)])


def _find_linear_layer(classifier: Any) -> tuple[Matrix, Vector]:
    kernel, bias = classifier.coef_.T, np.atleast_1d(classifier.intercept_)
    if kernel.shape[1] == 1:
        # With two classes there is one score, that of the second; the first has 0.
        kernel, bias = np.hstack([np.zeros_like(kernel), kernel]), np.array([0.0, bias[0]])
    return kernel, bias
