"""Base and head as one Keras model."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainfeat import runtime
from brainfeat.extraction.backbones import Backbone
from brainfeat.prediction.attention_export import add_keras_attention
from brainfeat.prediction.head_layers import EnsembleLayers, HeadLayers
from brainfeat.prediction.joined_bases import JoinedBases

# Least probability of which a logarithm is taken, far below what a softmax in float32 resolves.
_LEAST = 1e-30


def build_network(backbone: Backbone | JoinedBases, head: HeadLayers | EnsembleLayers) -> Any:
    """Build the Keras model that is exported, in float32.

    Parameters
    ----------
    backbone : Backbone or JoinedBases
        The base, or several that see images alike.
    head : HeadLayers or EnsembleLayers
        The head.

    Returns
    -------
    keras.Model
        From images (n, h, w, 3) in [0, 1] to probabilities (n, k).
    """
    keras = runtime.import_keras()
    size = backbone.input_size
    images = keras.Input((size, size, 3), dtype="float32", name="images")
    features = backbone.build_network()(images)
    if isinstance(head, EnsembleLayers):
        scores = _add_ensemble(keras, features, head)
    else:
        if head.takes_maps and isinstance(backbone, Backbone):
            d = len(head.mean)
            features = keras.layers.Reshape((*backbone.map_shape, d))(features[:, d:])
        scores = _add_head(keras, features, head)
    probabilities = keras.layers.Softmax(name="probabilities")(scores)
    return keras.Model(images, probabilities, name="brainfeat")


def _add_head(keras: Any, features: Any, head: HeadLayers) -> Any:
    """Compute the scores of one head, from vectors (n, d) or maps (n, h, w, d)."""
    factor, offset = 1 / head.scale, -head.mean / head.scale
    hidden = keras.layers.Rescaling(factor.tolist(), offset.tolist())(features)
    if head.attention and not head.takes_maps:
        hidden = keras.layers.Reshape((1, 1, len(head.mean)))(hidden)
    if head.attention:
        hidden = add_keras_attention(hidden, head)
    *inner, last = head.layers
    for layer in inner:
        hidden = _add_dense(keras, hidden, *layer, activation="relu")
    return _add_dense(keras, hidden, *last)


def _add_ensemble(keras: Any, features: Any, head: EnsembleLayers) -> Any:
    """Compute the scores of a vote or a stack."""
    scores = [_add_head(keras, features, member) for member in head.members]
    if head.stack is not None:
        logarithms = [keras.ops.log_softmax(found, axis=-1) for found in scores]
        return _add_dense(keras, keras.layers.Concatenate()(logarithms), *head.stack)
    mean = keras.layers.Average()([keras.layers.Softmax()(found) for found in scores])
    logarithm = keras.ops.log(keras.ops.maximum(mean, _LEAST))
    return keras.layers.Rescaling(1 / head.temperature)(logarithm)


def _add_dense(
    keras: Any,
    inputs: Any,
    kernel: NDArray[np.float64],
    bias: NDArray[np.float64],
    activation: str | None = None,
) -> Any:
    layer = keras.layers.Dense(len(bias), activation=activation)
    outputs = layer(inputs)
    layer.set_weights([kernel.astype(np.float32), bias.astype(np.float32)])
    return outputs


def compute_probabilities(path: Path, images: NDArray[np.float32]) -> NDArray[np.float32]:
    """Load a Keras model from a file and compute probabilities (n, k) of images (n, h, w, 3)."""
    model = runtime.import_keras().saving.load_model(path, compile=False)
    return np.asarray(model.predict_on_batch(images), np.float32)
