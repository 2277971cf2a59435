"""How Keras builds and trains the dense head's network; arrays go in and arrays come out."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from brainfeat.errors import HeadError
from brainfeat.runtime import import_keras

Layer = tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]

SEED_LIMIT = 2**31 - 1


@dataclass(frozen=True)
class Rows:
    """Feature vectors with their class indices and the weights of their classes."""

    X: npt.NDArray[Any]
    codes: npt.NDArray[np.intp]
    weights: npt.NDArray[np.float64]

    def take(self, mask: npt.NDArray[np.bool_]) -> "Rows":
        """Copy the rows where `mask` is true."""
        return Rows(self.X[mask], self.codes[mask], self.weights[mask])


@dataclass
class Stopping:
    """What is kept of the epochs: their figures, and the layers of the best one.

    Without a ``val_loss`` among the figures the last epoch counts as the best.
    """

    patience: int
    history: dict[str, list[float]] = field(default_factory=dict)
    best_epoch: int = 0
    best_layers: list[Layer] = field(default_factory=list)
    best_loss: float = np.inf

    def record(self, figures: Mapping[str, float], layers: list[Layer]) -> bool:
        """Take in an epoch; return whether it was the last."""
        for name, value in figures.items():
            self.history.setdefault(name, []).append(float(value))
        epoch = len(self.history["loss"]) - 1
        loss = figures.get("val_loss")
        if loss is None or loss < self.best_loss or epoch == 0:
            self.best_epoch, self.best_layers = epoch, layers
            self.best_loss = np.inf if loss is None else loss
        return epoch - self.best_epoch >= self.patience


def build_network(
    n_features: int,
    n_classes: int,
    *,
    hidden_units: Sequence[int],
    dropout: float,
    rng: np.random.Generator,
) -> Any:
    """Build the network from standardised rows to logits, each random layer with its own seed.

    Parameters
    ----------
    n_features, n_classes : int
        Width of the input and of the output.
    hidden_units : sequence of int
        Units of each hidden layer.
    dropout : float
        Share of each hidden layer's outputs that is dropped in training.
    rng : numpy.random.Generator
        Source of the seeds.

    Returns
    -------
    keras.Sequential
        Its weights are kernel, bias, kernel, bias, …
    """
    keras = import_keras()

    def make_dense(units: int, activation: str | None) -> Any:
        glorot = keras.initializers.GlorotUniform(seed=int(rng.integers(SEED_LIMIT)))
        return keras.layers.Dense(
            units, activation=activation, kernel_initializer=glorot, dtype="float32"
        )

    network = keras.Sequential([keras.Input((n_features,), dtype="float32")])
    for units in hidden_units:
        network.add(make_dense(int(units), "relu"))
        seed = int(rng.integers(SEED_LIMIT))
        network.add(keras.layers.Dropout(dropout, seed=seed, dtype="float32"))
    network.add(make_dense(n_classes, None))
    return network


def train_network(
    network: Any,
    rows: Rows,
    *,
    learning_rate: float,
    batch_size: int,
    epochs: int,
    stopping: Stopping,
    score: Callable[[list[Layer]], Mapping[str, float]],
    rng: np.random.Generator,
    verbose: int,
) -> None:
    """Train a network with Adam, until `stopping` has seen enough.

    Parameters
    ----------
    network : keras.Model
        As `build_network` makes it.
    rows : Rows
        Standardised training rows, float32.
    learning_rate : float
        Step size of Adam.
    batch_size : int
        Rows of one step.
    epochs : int
        Most passes over the rows.
    stopping : Stopping
        Takes in each epoch's figures and layers.
    score : callable
        From the layers after an epoch to the figures of the validation part; empty without one.
    rng : numpy.random.Generator
        Source of the seed of the shuffling.
    verbose : int
        Keras's own `verbose`.

    Raises
    ------
    HeadError
        If the best weights are not finite.
    """
    keras = import_keras()
    steps = -(-len(rows.X) // batch_size)
    backend = keras.backend.backend()
    optimizer = keras.optimizers.Adam(learning_rate)
    # Left to the first traced step, each of its variables costs TensorFlow two graphs, never freed.
    optimizer.build(network.trainable_variables)
    network.compile(
        optimizer=optimizer,
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True, dtype="float32"),
        metrics=[keras.metrics.SparseCategoricalAccuracy(name="accuracy", dtype="float32")],
        # One call an epoch: a call costs more than the arithmetic of a step this small.
        steps_per_execution=1 if backend == "torch" else steps,
        # TensorFlow's XLA compiles for seconds and then runs slower than its plain graph.
        jit_compile=False if backend == "tensorflow" else "auto",
        auto_scale_loss=False,
    )

    def close_epoch(_: int, logs: dict[str, float]) -> None:
        layers = _read_layers(network)
        logs.update(score(layers))
        network.stop_training = stopping.record(logs, layers)

    batches = _batches_class()(rows, batch_size=batch_size, epochs=epochs, rng=rng)
    try:
        network.fit(
            batches,
            epochs=epochs,
            steps_per_epoch=steps,
            shuffle=False,
            verbose=verbose,
            callbacks=[keras.callbacks.LambdaCallback(on_epoch_end=close_epoch)],
        )
    finally:
        batches.release()
    if not all(np.isfinite(array).all() for layer in stopping.best_layers for array in layer):
        raise HeadError(
            f"training diverged with learning_rate={learning_rate}: the weights are not finite; "
            "lower learning_rate"
        )


@cache
def _batches_class() -> Any:
    """Make the class of the training data, whose base is known once Keras is imported."""

    class Batches(import_keras().utils.PyDataset):  # type: ignore[misc]
        """The batches of all epochs in a row: Keras then makes one iterator, not one an epoch."""

        def __init__(
            self, rows: Rows, *, batch_size: int, epochs: int, rng: np.random.Generator
        ) -> None:
            super().__init__()
            self._rows = rows
            self._batch_size = batch_size
            self._steps = -(-len(rows.X) // batch_size)
            self._epochs = epochs
            self._seed = int(rng.integers(SEED_LIMIT))
            self._shuffled = ((-1, -1), np.empty(0, np.intp))

        @property
        def num_batches(self) -> int:
            return self._epochs * self._steps

        def __getitem__(self, index: int) -> tuple[npt.NDArray[Any], ...]:
            epoch, step = divmod(index, self._steps)
            rows = self._rows
            start = step * self._batch_size
            chosen = self._shuffle(epoch, len(rows.X))[start : start + self._batch_size]
            return (
                rows.X[chosen],
                rows.codes[chosen].astype(np.int32),
                rows.weights[chosen].astype(np.float32),
            )

        def release(self) -> None:
            """Let go of the rows: TensorFlow never frees a generator that it has read from.

            What it still reads ahead is empty.
            """
            rows = self._rows
            self._rows = rows.take(np.zeros(len(rows.X), dtype=bool))

        def _shuffle(self, epoch: int, n: int) -> npt.NDArray[np.intp]:
            # Keras may read with two iterators at once, so an order depends on its epoch alone.
            shuffled = self._shuffled
            if shuffled[0] != (epoch, n):
                order = np.random.default_rng([self._seed, epoch]).permutation(n)
                shuffled = self._shuffled = ((epoch, n), order)
            return shuffled[1]

    return Batches


def _read_layers(network: Any) -> list[Layer]:
    # Copied: under TensorFlow the arrays may be views of memory that the next step writes to.
    arrays = [np.array(weight.numpy(), np.float32) for weight in network.weights]
    return list(zip(arrays[::2], arrays[1::2], strict=True))
