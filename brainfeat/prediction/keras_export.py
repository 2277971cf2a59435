"""Base and head as one Keras model."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainfeat import runtime
from brainfeat.extraction.backbones import Backbone
from brainfeat.prediction.attention_export import add_keras_attention
from brainfeat.prediction.head_layers import HeadLayers


def build_network(backbone: Backbone, head: HeadLayers) -> Any:
    """Build the Keras model that is exported, in float32.

    Parameters
    ----------
    backbone : Backbone
        The base.
    head : HeadLayers
        The head.

    Returns
    -------
    keras.Model
        From images (n, h, w, 3) in [0, 1] to probabilities (n, k).
    """
    keras = runtime.import_keras()
    size = backbone.input_size
    images = keras.Input((size, size, 3), dtype="float32", name="images")
    hidden = backbone.build_network()(images)
    d = len(head.mean)
    if head.takes_maps:
        hidden = keras.layers.Reshape((*backbone.map_shape, d))(hidden[:, d:])
    factor, offset = 1 / head.scale, -head.mean / head.scale
    hidden = keras.layers.Rescaling(factor.tolist(), offset.tolist())(hidden)
    if head.attention and not head.takes_maps:
        hidden = keras.layers.Reshape((1, 1, d))(hidden)
    if head.attention:
        hidden = add_keras_attention(hidden, head)
    *inner, last = head.layers
    for layer in inner:
        hidden = _add_dense(keras, hidden, *layer, activation="relu")
    probabilities = keras.layers.Softmax(name="probabilities")(_add_dense(keras, hidden, *last))
    return keras.Model(images, probabilities, name="brainfeat")


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
