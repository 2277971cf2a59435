"""The network of the dense head: Keras builds and trains it; arrays go in and arrays come out.

The attention head trains its network here, too.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from brainfeat.errors import HeadError
from brainfeat.runtime import import_keras, layer_precision

Layer = tuple[npt.NDArray[np.float32], ...]

RandomState = int | np.random.Generator | np.random.RandomState | None

SEED_LIMIT = 2**31 - 1
# Batches that are read ahead from a file.
_QUEUED = 2


def make_generator(random_state: RandomState) -> np.random.Generator:
    """Make the generator of a head from its parameter `random_state`."""
    if isinstance(random_state, np.random.RandomState):
        return np.random.default_rng(random_state.randint(SEED_LIMIT))
    return np.random.default_rng(random_state)


@dataclass(frozen=True)
class Rows:
    """Feature vectors with their classes.

    Attributes
    ----------
    X : ndarray of shape (n, d), float, or Bags
    codes : ndarray of shape (n,), int
        Class of each row, from 0 to k − 1.
    weights : ndarray of shape (n,), float64
        Weight of each row's class in the loss.
    """

    X: Any
    codes: npt.NDArray[np.intp]
    weights: npt.NDArray[np.float64]

    # Whether `label` gives the part of each class, (b, k), and not one class.
    is_soft: ClassVar[bool] = False

    @property
    def in_file(self) -> bool:
        """Whether a batch is read from a file when it is drawn."""
        return False

    def take(self, mask: npt.NDArray[np.bool_]) -> Self:
        """Copy the rows where `mask` is true."""
        return replace(self, X=self.X[mask], codes=self.codes[mask], weights=self.weights[mask])

    def draw(self, chosen: npt.NDArray[np.intp], _seed: tuple[int, ...], /) -> Any:
        """Return what the network takes of some rows; the seed is for what is drawn of them."""
        return self.X[chosen]

    def label(
        self, chosen: npt.NDArray[np.intp], _seed: tuple[int, ...], /
    ) -> tuple[npt.NDArray[Any], npt.NDArray[np.float32]]:
        """Return classes and weights, for the loss, of what `draw` returns with the same seed."""
        return self.codes[chosen].astype(np.int32), self.weights[chosen].astype(np.float32)


@dataclass
class Stopping:
    """Early stopping: the metrics of each epoch, and the layers of the best one.

    The best epoch has the least ``val_loss``; where there is none, the last epoch is the best.

    Attributes
    ----------
    patience : int
        Epochs without a lower ``val_loss`` after which training stops.
    history : dict of str to list of float
        Metrics of each epoch, by name.
    best_epoch : int
        Index of the best epoch in the lists of `history`.
    best_layers : list of tuple of ndarray
        Kernel and bias of each layer after the best epoch; of the attention head, after its gates.
    best_loss : float
        Its ``val_loss``; infinite where there is none.
    """

    patience: int
    history: dict[str, list[float]] = field(default_factory=dict)
    best_epoch: int = 0
    best_layers: list[Layer] = field(default_factory=list)
    best_loss: float = np.inf

    def record(self, metrics: Mapping[str, float], layers: list[Layer]) -> bool:
        """Record an epoch; return whether training stops after it."""
        for name, value in metrics.items():
            self.history.setdefault(name, []).append(float(value))
        epoch = len(self.history["loss"]) - 1
        loss = metrics.get("val_loss")
        if loss is None or loss < self.best_loss or epoch == 0:
            self.best_epoch, self.best_layers = epoch, layers
            self.best_loss = np.inf if loss is None else loss
        return epoch - self.best_epoch >= self.patience


@layer_precision("float32")
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
        Numbers of inputs and outputs.
    hidden_units : sequence of int
        Units of each hidden layer.
    dropout : float
        Fraction of each hidden layer's outputs that a training step drops.
    rng : numpy.random.Generator
        Source of the seeds.

    Returns
    -------
    keras.Sequential
        Its weights are the kernel and the bias of each layer in turn.
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


@layer_precision("float32")
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
    read: Callable[[Any], list[Layer]] | None = None,
) -> None:
    """Train a network with Adam until early stopping ends it.

    Parameters
    ----------
    network : keras.Model
        As `build_network` makes it.
    rows : Rows
        Training rows, standardised, float32.
    learning_rate : float
        Step size of Adam.
    batch_size : int
        Rows of one step.
    epochs : int
        Maximum number of passes over the rows.
    stopping : Stopping
        Records each epoch.
    score : callable
        Returns the metrics of the validation rows for the layers after an epoch; an empty mapping
        where there are no such rows.
    rng : numpy.random.Generator
        Source of the seed of the shuffling.
    verbose : int
        As in ``keras.Model.fit``.
    read : callable or None
        Reads the layers of the network; None takes :func:`read_layers`.

    Raises
    ------
    HeadError
        The weights of the best epoch are not finite.
    """
    keras = import_keras()
    steps = -(-len(rows.X) // batch_size)
    backend = keras.backend.backend()
    loss = keras.losses.SparseCategoricalCrossentropy
    accuracy = keras.metrics.SparseCategoricalAccuracy
    if rows.is_soft:
        loss, accuracy = keras.losses.CategoricalCrossentropy, keras.metrics.CategoricalAccuracy
    optimizer = keras.optimizers.Adam(learning_rate)
    # Built by the first traced step instead, each of its variables would cost TensorFlow two graphs
    # that are never freed.
    optimizer.build(network.trainable_variables)
    network.compile(
        optimizer=optimizer,
        loss=loss(from_logits=True, dtype="float32"),
        metrics=[accuracy(name="accuracy", dtype="float32")],
        # One call per epoch: a call costs more than the arithmetic of so small a step.
        steps_per_execution=1 if backend == "torch" else steps,
        # TensorFlow's XLA compiles for seconds and then runs slower than its plain graph.
        jit_compile=False if backend == "tensorflow" else "auto",
        auto_scale_loss=False,
    )

    def close_epoch(_: int, logs: dict[str, float]) -> None:
        layers = (read or read_layers)(network)
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
            f"training diverged: the weights are not finite with learning_rate={learning_rate}; "
            "lower learning_rate"
        )


@cache
def _batches_class() -> Any:
    """Make the class of the training data; its base class needs Keras, which is imported late."""

    class Batches(import_keras().utils.PyDataset):  # type: ignore[misc]
        """The batches of all epochs in a row: Keras then makes one iterator, not one per epoch."""

        def __init__(
            self, rows: Rows, *, batch_size: int, epochs: int, rng: np.random.Generator
        ) -> None:
            # Without workers, TensorFlow reads ahead as many batches as it likes.
            super().__init__(workers=1 + rows.in_file, max_queue_size=_QUEUED)
            self._rows = rows
            self._batch_size = batch_size
            self._steps = -(-len(rows.X) // batch_size)
            self._epochs = epochs
            self._seed = int(rng.integers(SEED_LIMIT))
            self._shuffled = ((-1, -1), np.empty(0, np.intp))

        @property
        def num_batches(self) -> int:
            return self._epochs * self._steps

        def __getitem__(self, index: int) -> tuple[Any, ...]:
            epoch, step = divmod(index, self._steps)
            rows = self._rows
            start = step * self._batch_size
            chosen = self._shuffle(epoch, len(rows.X))[start : start + self._batch_size]
            seed = (self._seed, epoch, step)
            return rows.draw(chosen, seed), *rows.label(chosen, seed)

        def release(self) -> None:
            """Release the rows: TensorFlow never frees a generator that it has read from.

            Batches that it still reads ahead are empty.
            """
            rows = self._rows
            self._rows = rows.take(np.zeros(len(rows.X), dtype=bool))

        def _shuffle(self, epoch: int, n: int) -> npt.NDArray[np.intp]:
            # Keras may read with two iterators at once, so the order depends only on the epoch.
            shuffled = self._shuffled
            if shuffled[0] != (epoch, n):
                order = np.random.default_rng([self._seed, epoch]).permutation(n)
                shuffled = self._shuffled = ((epoch, n), order)
            return shuffled[1]

    return Batches


def weigh_classes(
    class_weight: str | Mapping[Any, float] | None,
    classes: npt.NDArray[Any],
    y: npt.NDArray[Any],
) -> npt.NDArray[np.float64]:
    """Return the weight of each class in the loss.

    Parameters
    ----------
    class_weight : {"balanced"}, dict or None
        As in :class:`brainfeat.DenseHead`.
    classes : ndarray, shape (k,)
        The distinct labels.
    y : ndarray, shape (n,)
        Labels of the training rows.

    Returns
    -------
    ndarray of float64, shape (k,)

    Raises
    ------
    HeadError
        A dict has a label that is not in `classes`.
    """
    from sklearn.utils.class_weight import compute_class_weight

    if not isinstance(class_weight, Mapping):
        return np.asarray(compute_class_weight(class_weight, classes=classes, y=y), np.float64)
    unknown = [label for label in class_weight if label not in set(classes.tolist())]
    if unknown:
        raise HeadError(f"class_weight has labels {unknown}, but y has only {classes.tolist()}")
    return np.array([class_weight.get(label, 1.0) for label in classes.tolist()], np.float64)


def read_layers(network: Any) -> list[Layer]:
    """Return kernel and bias of each layer of a network that `build_network` made."""
    # Copies: under TensorFlow the arrays may be views of memory that the next step overwrites.
    arrays = [np.array(weight.numpy(), np.float32) for weight in network.weights]
    return list(zip(arrays[::2], arrays[1::2], strict=True))
