"""The networks of attention over maps, and their batches; Keras builds and trains them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from brainfeat.heads.attention_network import add_gated_attention
from brainfeat.heads.maps import MapRows
from brainfeat.heads.network import SEED_LIMIT, Layer, Rows, build_network, read_layers
from brainfeat.heads.parameters import GATE_SHAPES, SPATIAL_SIZE
from brainfeat.runtime import import_keras, layer_precision

# Makes a layer with its own seed, of a class of Keras and its arguments.
MakeLayer = Callable[..., Any]


@dataclass(frozen=True)
class DrawnMaps(Rows):
    """Maps with their classes, which are read when a batch of them is drawn.

    Attributes
    ----------
    X : MapRows
        Not standardised.
    """

    @property
    def in_file(self) -> bool:
        """Whether a batch is read from a file when it is drawn."""
        return True

    def draw(
        self, chosen: npt.NDArray[np.intp], _seed: tuple[int, ...], /
    ) -> npt.NDArray[np.float32]:
        """Read the maps of some rows, (b, h, w, d) float32."""
        # TensorFlow would convert float16 faster, but reports an error for it on most processors.
        maps: MapRows = self.X
        return maps[chosen].read()


@layer_precision("float32")
def build_map_network(
    kind: str,
    shape: tuple[int, int, int],
    n_classes: int,
    *,
    mean: npt.NDArray[np.float64],
    scale: npt.NDArray[np.float64],
    width: int,
    hidden_units: Sequence[int],
    dropout: float,
    rng: np.random.Generator,
) -> Any:
    """Build the network from maps to logits, each random layer with its own seed.

    It standardises, so that a batch is read and not copied.

    Parameters
    ----------
    kind : str
        A key of ``brainfeat.heads.parameters.GATE_SHAPES``.
    shape : tuple of int
        Rows, columns and channels of a map.
    n_classes : int
        Number of outputs.
    mean, scale : ndarray of shape (d,)
        Standardise each channel.
    width : int
        Units inside the gates.
    hidden_units : sequence of int
        Units of each hidden layer behind the pooled vector.
    dropout : float
        Fraction of each hidden layer's outputs that a training step drops.
    rng : numpy.random.Generator
        Source of the seeds.

    Returns
    -------
    keras.Model
        From maps, (b, h, w, d) float32, to logits, (b, k).
    """
    keras = import_keras()

    def make(layer: Any, *args: Any, **options: Any) -> Any:
        glorot = keras.initializers.GlorotUniform(seed=int(rng.integers(SEED_LIMIT)))
        return layer(*args, kernel_initializer=glorot, dtype="float32", **options)

    maps = keras.Input(shape, dtype="float32")
    standardise = keras.layers.Rescaling(1.0 / scale, offset=-mean / scale, dtype="float32")
    pooled = add_attention(kind, standardise(maps), width=width, make=make)
    classifier = build_network(
        shape[-1], n_classes, hidden_units=hidden_units, dropout=dropout, rng=rng
    )
    return keras.Model(maps, classifier(pooled))


def add_attention(kind: str, maps: Any, *, width: int, make: MakeLayer) -> Any:
    """Add attention over maps, and the pooling of them, to a network.

    Parameters
    ----------
    kind : str
        A key of ``brainfeat.heads.parameters.GATE_SHAPES``.
    maps : keras.KerasTensor
        Standardised maps, (b, h, w, d).
    width : int
        Units inside the gates.
    make : callable
        Called with a class of a layer and its arguments; returns the layer.

    Returns
    -------
    keras.KerasTensor
        Pooled vectors, (b, d).
    """
    keras = import_keras()
    if kind == "attention-pool":
        vectors = keras.layers.Reshape((-1, maps.shape[-1]), dtype="float32")(maps)
        return add_gated_attention(vectors, width=width, make=make)
    if kind == "se":
        maps = _excite(maps, [keras.layers.GlobalAveragePooling2D], width=width, make=make)
    else:
        kinds = [keras.layers.GlobalAveragePooling2D, keras.layers.GlobalMaxPooling2D]
        maps = _excite(maps, kinds, width=width, make=make)
        described = keras.layers.Concatenate(dtype="float32")(
            [reduce(maps, axis=-1, keepdims=True) for reduce in (keras.ops.mean, keras.ops.max)]
        )
        convolution = make(
            keras.layers.Conv2D,
            1,
            SPATIAL_SIZE,
            padding="same",
            activation="sigmoid",
            name="spatial",
        )
        maps = keras.layers.Multiply(dtype="float32")([maps, convolution(described)])
    return keras.layers.GlobalAveragePooling2D(dtype="float32")(maps)


def _excite(maps: Any, poolings: Sequence[Any], *, width: int, make: MakeLayer) -> Any:
    """Weigh each channel by what one perceptron makes of its pooled values."""
    keras = import_keras()
    d = maps.shape[-1]
    squeeze = make(keras.layers.Dense, width, activation="relu", use_bias=False, name="squeeze")
    excite = make(keras.layers.Dense, d, use_bias=False, name="excite")
    found = [excite(squeeze(pooling(dtype="float32")(maps))) for pooling in poolings]
    total = keras.layers.Add(dtype="float32")(found) if len(found) > 1 else found[0]
    weights = keras.layers.Activation("sigmoid", dtype="float32")(total)
    per_channel = keras.layers.Reshape((1, 1, d), dtype="float32")(weights)
    return keras.layers.Multiply(dtype="float32")([maps, per_channel])


def list_gate_weights(kind: str, network: Any) -> list[Any]:
    """List the variables of the gates of a network, in the order of their arrays in a head."""
    names = [name for name in GATE_SHAPES[kind] if name != "spatial_bias"]
    return [weight for name in names for weight in network.get_layer(name).weights]


def read_map_network(kind: str, network: Any) -> list[Layer]:
    """Return the gates, and then kernel and bias of each layer behind them."""
    # Copies: under TensorFlow the arrays may be views of memory that the next step overwrites.
    found = [np.array(weight.numpy(), np.float32) for weight in list_gate_weights(kind, network)]
    # w and the convolution have one output, whose dimension the arrays of a head do not have.
    shapes = zip(found, GATE_SHAPES[kind].values(), strict=True)
    gates = tuple(array.reshape(array.shape[: len(shape)]) for array, shape in shapes)
    return [gates, *read_layers(network.layers[-1])]


def write_gates(kind: str, network: Any, gates: Sequence[npt.NDArray[Any]]) -> None:
    """Set the weights of the gates of a network to the arrays of a head."""
    variables = list_gate_weights(kind, network)
    for variable, gate in zip(variables, gates, strict=True):
        variable.assign(np.asarray(gate, np.float32).reshape(variable.shape))
