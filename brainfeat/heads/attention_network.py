"""The network of the attention head: gates over the vectors of a bag, and the dense head behind."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from brainfeat.heads.bags import Bags
from brainfeat.heads.network import SEED_LIMIT, Layer, Rows, build_network, read_layers
from brainfeat.runtime import import_keras, layer_precision

# The layers of the gates, by their letters in Ilse et al. 2018.
_GATES = ("V", "U", "w")


@dataclass(frozen=True)
class BagRows(Rows):
    """Bags with their classes, of which each epoch sees some vectors.

    Attributes
    ----------
    X : Bags
        Not standardised.
    mean, scale : ndarray of shape (d,), float32
        Standardise what is drawn.
    max_instances : int
        Vectors of a bag that are drawn at most, without replacement.
    """

    mean: npt.NDArray[np.float32]
    scale: npt.NDArray[np.float32]
    max_instances: int

    def draw(
        self, chosen: npt.NDArray[np.intp], seed: tuple[int, ...], /
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
        """Draw vectors of some bags: (b, t, d) float32, 0 where a bag has fewer; and (b, t, 1)."""
        bags: Bags = self.X
        # The same number in every batch, so that nothing is compiled again.
        width = min(self.max_instances, int(bags.sizes.max(initial=1)))
        rng = np.random.default_rng(seed)
        places, present = [], np.zeros((len(chosen), width), np.bool_)
        for row, bag in enumerate(chosen):
            start, end = bags.offsets[bag], bags.offsets[bag + 1]
            some = np.arange(start, end)
            if len(some) > width:
                some = start + np.sort(rng.choice(len(some), width, replace=False, shuffle=False))
            places.append(some)
            present[row, : len(some)] = True
        vectors = np.zeros((*present.shape, bags.values.shape[1]), np.float32)
        if places:
            vectors[present] = (bags.values[np.concatenate(places)] - self.mean) / self.scale
        return vectors, present[..., None]


@layer_precision("float32")
def build_attention(
    n_features: int,
    n_classes: int,
    *,
    attention_units: int,
    hidden_units: Sequence[int],
    dropout: float,
    rng: np.random.Generator,
) -> Any:
    """Build the network from standardised bags to logits, each random layer with its own seed.

    Parameters
    ----------
    n_features, n_classes : int
        Numbers of inputs and outputs.
    attention_units : int
        Width of the gates.
    hidden_units : sequence of int
        Units of each hidden layer behind the pooled vector.
    dropout : float
        Fraction of each hidden layer's outputs that a training step drops.
    rng : numpy.random.Generator
        Source of the seeds.

    Returns
    -------
    keras.Model
        From vectors, (b, t, d) float32, and whether each is one or padding, (b, t, 1) bool, to
        logits, (b, k).
    """
    keras = import_keras()

    def make(layer: Any, *args: Any, **options: Any) -> Any:
        glorot = keras.initializers.GlorotUniform(seed=int(rng.integers(SEED_LIMIT)))
        return layer(*args, kernel_initializer=glorot, dtype="float32", **options)

    vectors = keras.Input((None, n_features), dtype="float32")
    present = keras.Input((None, 1), dtype="bool")
    pooled = add_gated_attention(vectors, width=attention_units, make=make, present=present)
    classifier = build_network(
        n_features, n_classes, hidden_units=hidden_units, dropout=dropout, rng=rng
    )
    return keras.Model([vectors, present], classifier(pooled))


def add_gated_attention(
    vectors: Any, *, width: int, make: Callable[..., Any], present: Any = None
) -> Any:
    """Add gated attention over vectors, and their weighted mean, to a network.

    Parameters
    ----------
    vectors : keras.KerasTensor
        Standardised vectors, (b, t, d).
    width : int
        Rows of V and U.
    make : callable
        Called with a class of a layer and its arguments; returns the layer.
    present : keras.KerasTensor or None
        Whether each vector is one or padding, (b, t, 1); None where all are vectors.

    Returns
    -------
    keras.KerasTensor
        Weighted means, (b, d).
    """
    keras = import_keras()
    v = make(keras.layers.Dense, width, activation="tanh", use_bias=False, name="V")
    u = make(keras.layers.Dense, width, activation="sigmoid", use_bias=False, name="U")
    gated = keras.layers.Multiply(dtype="float32")([v(vectors), u(vectors)])
    scores = make(keras.layers.Dense, 1, use_bias=False, name="w")(gated)
    masked = {} if present is None else {"mask": present}
    weights = keras.layers.Softmax(axis=1, dtype="float32")(scores, **masked)
    pooled = keras.layers.Dot(axes=1, dtype="float32")([weights, vectors])
    return keras.layers.Reshape((vectors.shape[-1],), dtype="float32")(pooled)


def read_attention(network: Any) -> list[Layer]:
    """Return the gates, (V, U, w), and then kernel and bias of each layer behind them."""
    # Copies: under TensorFlow the arrays may be views of memory that the next step overwrites.
    v, u, w = (np.array(network.get_layer(name).kernel.numpy(), np.float32) for name in _GATES)
    return [(v, u, w[:, 0]), *read_layers(network.layers[-1])]
