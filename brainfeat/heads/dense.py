"""DenseHead: a small network that Keras trains, and that predicts with NumPy alone."""

from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from scipy.special import softmax
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.preprocessing import StandardScaler
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from brainfeat.errors import HeadError
from brainfeat.heads.calibration import fit_temperature
from brainfeat.heads.mixup import mix_rows
from brainfeat.heads.network import (
    Layer,
    RandomState,
    Rows,
    Stopping,
    build_network,
    make_generator,
    train_network,
    weigh_classes,
)
from brainfeat.heads.parameters import check_layers, check_params, to_finite
from brainfeat.heads.scaling import fit_scaler, standardise
from brainfeat.heads.validation import hold_out, score_epoch
from brainfeat.runtime import import_keras

__all__ = ["DenseHead", "RandomState", "make_generator"]

# Rows of one step of the forward pass: memory does not grow with the number of rows.
_FORWARD_ROWS = 8192


class DenseHead(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Classify feature vectors with a small dense network that stops early.

    The input is standardised and passes through hidden layers of rectified linear units, each
    followed by dropout, to a softmax over the classes. Adam minimises the categorical
    cross-entropy; rows are shuffled in every epoch. After each epoch the validation rows are
    scored. Training stops when their loss has not fallen for `patience` epochs, and the weights of
    the best epoch are kept.

    Training needs Keras. A fitted head predicts with NumPy alone.

    Parameters
    ----------
    hidden_units : sequence of int, default=(128, 64)
        Units of each hidden layer; empty for softmax regression.
    dropout : float, default=0.5
        Fraction of each hidden layer's outputs that a training step drops, in [0, 1).
    learning_rate : float, default=1e-3
        Step size of Adam.
    batch_size : int, default=128
        Rows of one training step.
    epochs : int, default=100
        Maximum number of passes over the training rows.
    patience : int, default=20
        Epochs without a lower validation loss after which training stops.
    validation_fraction : float or None, default=0.15
        Fraction of each class's rows that `fit` holds out where `validation_data` is not given. It
        is rounded to at least one row, but the only row of a class is never held out. None holds
        nothing out: all epochs are run and the last weights are kept.
    class_weight : {"balanced"}, dict or None, default=None
        Weights of the classes in the training and in the validation loss. "balanced" weighs each
        class by the inverse of its frequency. A dict gives weights by label; a label that is not in
        it has a weight of 1.
    mixup : float, default=0.0
        α of mixup: a training step sees, of each row, its mixture with another one, classes too, by
        a part drawn from Beta(α, α) (Zhang et al. 2018, https://arxiv.org/abs/1710.09412). 0 mixes
        nothing. Validation rows are never mixed.
    random_state : int, numpy.random.Generator, numpy.random.RandomState or None, default=None
        Source of the held-out rows, the initial weights, the dropout and the shuffling. On the same
        machine, the same integer gives the same head bit for bit; None does not.
    verbose : int, default=0
        What Keras prints during training: 0 nothing, 1 a progress bar, 2 a line per epoch.

    Attributes
    ----------
    classes_ : ndarray, shape (k,)
        Labels, in the order of the columns of all outputs.
    layers_ : list of (ndarray of float32, shape (m, p); ndarray of float32, shape (p,))
        Kernel and bias of each layer; the last layer gives the k logits.
    temperature_ : float
        Divides the logits before the softmax. It minimises the log loss of the validation rows,
        unweighted; 1 where there are none.
    mean_, scale_ : ndarray of float64, shape (d,)
        Mean and standard deviation of the training rows; the scale of a constant column is 1.
    history_ : dict of str to list of float
        Per epoch ``loss`` and ``accuracy`` of the training rows, with dropout. Where there are
        validation rows, also their ``val_loss`` and ``val_accuracy``, and the means over the
        classes ``val_precision``, ``val_recall`` and ``val_f1``.
    n_iter_ : int
        Number of epochs that were run.
    best_epoch_ : int
        Index, in the lists of `history_`, of the epoch whose weights were kept.
    n_features_in_ : int
        Number of features, d.

    Examples
    --------
    >>> from sklearn.datasets import make_blobs
    >>> X, y = make_blobs(200, n_features=8, centers=4, random_state=0)
    >>> head = DenseHead(epochs=20, learning_rate=0.01, random_state=0).fit(X, y)
    >>> head.predict_proba(X[:3]).shape
    (3, 4)
    >>> bool(head.score(X, y) > 0.9)
    True
    """

    def __init__(
        self,
        *,
        hidden_units: Sequence[int] = (128, 64),
        dropout: float = 0.5,
        learning_rate: float = 1e-3,
        batch_size: int = 128,
        epochs: int = 100,
        patience: int = 20,
        validation_fraction: float | None = 0.15,
        class_weight: str | Mapping[Any, float] | None = None,
        mixup: float = 0.0,
        random_state: RandomState = None,
        verbose: int = 0,
    ) -> None:
        self.hidden_units = hidden_units
        self.dropout = dropout
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.epochs = epochs
        self.patience = patience
        self.validation_fraction = validation_fraction
        self.class_weight = class_weight
        self.mixup = mixup
        self.random_state = random_state
        self.verbose = verbose

    @classmethod
    def from_arrays(
        cls,
        layers: Sequence[tuple[npt.ArrayLike, npt.ArrayLike]],
        *,
        mean: npt.ArrayLike,
        scale: npt.ArrayLike,
        classes: npt.ArrayLike,
        temperature: float = 1.0,
        params: Mapping[str, Any] | None = None,
    ) -> Self:
        """Rebuild a fitted head from its arrays.

        Its predictions are those of the original head. It has no `history_`, `n_iter_` and
        `best_epoch_`.

        Parameters
        ----------
        layers : sequence of (array-like, shape (m, p); array-like, shape (p,))
            Kernel and bias of each layer, as `layers_`.
        mean, scale : array-like, shape (d,)
            As `mean_` and `scale_`.
        classes : array-like, shape (k,)
            As `classes_`.
        temperature : float
            As `temperature_`.
        params : mapping of str to object, optional
            Constructor parameters; `hidden_units` is taken from the layers instead.

        Returns
        -------
        DenseHead
            A fitted head.

        Raises
        ------
        HeadError
            A parameter is unknown or out of range, the shapes do not match, a number is not finite,
            or a scale is not positive.

        Examples
        --------
        >>> layers = [([[1, 0], [0, 1]], [0, 0])]
        >>> head = DenseHead.from_arrays(layers, mean=[0, 0], scale=[1, 1], classes=["a", "b"])
        >>> head.predict([[3, 1]]).tolist()
        ['a']
        """
        params = dict(params or {})
        unknown = sorted(set(params) - set(cls().get_params()))
        if unknown:
            raise HeadError(
                f"params of a dense head name {unknown}; it has {', '.join(cls().get_params())}"
            )
        fitted_layers: list[Layer] = [
            (to_finite(kernel, np.float32, ndim=2), to_finite(bias, np.float32, ndim=1))
            for kernel, bias in layers
        ]
        params["hidden_units"] = tuple(bias.size for _, bias in fitted_layers[:-1])
        head = cls(**params)
        check_params(head.get_params())
        head.layers_ = fitted_layers
        head.mean_ = to_finite(mean, np.float64, ndim=1)
        head.scale_ = to_finite(scale, np.float64, ndim=1)
        head.classes_ = np.array(classes)
        head.temperature_ = float(temperature)
        head.n_features_in_ = head.mean_.size
        check_layers(head.layers_, mean=head.mean_, scale=head.scale_, classes=head.classes_)
        return head

    def fit(
        self,
        X: npt.ArrayLike,
        y: npt.ArrayLike,
        *,
        validation_data: tuple[npt.ArrayLike, npt.ArrayLike] | None = None,
    ) -> Self:
        """Train on labelled feature vectors.

        Parameters
        ----------
        X : array-like, shape (n, d)
            Feature vectors.
        y : array-like, shape (n,)
            Labels, of two classes or more.
        validation_data : tuple of (X_val, y_val), optional
            Feature vectors and labels that decide when to stop. No row of `X` is held out then.

        Returns
        -------
        DenseHead
            The fitted head itself.

        Raises
        ------
        HeadError
            A parameter is out of range, there is only one class, no class has a second row to hold
            out, `validation_data` has a label that `y` does not have, or the training diverges.
        ValueError
            An array has the wrong shape, or numbers that are not finite.
        """
        check_params(self.get_params())
        features, labels = validate_data(self, X, y, dtype=[np.float64, np.float32])
        check_classification_targets(labels)
        self.classes_, codes = np.unique(labels, return_inverse=True)
        if self.classes_.size < 2:
            raise HeadError(
                f"y has only one class, {labels[0]!r}; a head needs two classes or more"
            )
        rng = make_generator(self.random_state)
        by_class = weigh_classes(self.class_weight, self.classes_, labels)
        if validation_data is not None:
            X_val, codes_val = self._check_validation_data(validation_data)
        else:
            held = hold_out(codes, self.validation_fraction, rng)
            X_val, codes_val = features[held], codes[held]
            features, codes = features[~held], codes[~held]
        scaler = fit_scaler(StandardScaler(), features)
        self.mean_ = np.asarray(scaler.mean_, np.float64)
        self.scale_ = np.asarray(scaler.scale_, np.float64)
        standardised = standardise(features, mean=self.mean_, scale=self.scale_)
        self._train(
            Rows(standardised, codes, by_class[codes]),
            Rows(X_val, codes_val, by_class[codes_val]),
            rng,
        )
        return self

    def decision_function(self, X: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Compute the logits of the classes, before they are divided by the temperature.

        Parameters
        ----------
        X : array-like, shape (n, d)
            Feature vectors.

        Returns
        -------
        ndarray of float64, shape (n, k), or (n,) if k is 2
            Logits; for two classes, the logit of the second minus that of the first.
        """
        logits = self._predict_logits(X)
        return logits[:, 1] - logits[:, 0] if self.classes_.size == 2 else logits

    def predict_proba(self, X: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Compute the probabilities of the classes.

        Parameters
        ----------
        X : array-like, shape (n, d)
            Feature vectors.

        Returns
        -------
        ndarray of float64, shape (n, k)
            Probabilities; each row sums to 1.
        """
        return np.asarray(softmax(self._predict_logits(X) / self.temperature_, axis=1))

    def predict(self, X: npt.ArrayLike) -> npt.NDArray[Any]:
        """Predict the most probable class.

        Parameters
        ----------
        X : array-like, shape (n, d)
            Feature vectors.

        Returns
        -------
        ndarray, shape (n,)
            Labels.
        """
        winners = self._predict_logits(X).argmax(axis=1)
        return np.asarray(self.classes_[winners])

    def to_keras(self) -> Any:
        """Build a Keras model with the fitted weights.

        Returns
        -------
        keras.Model
            From feature vectors (n, d), not standardised, to probabilities (n, k), both float32.
        """
        check_is_fitted(self)
        keras = import_keras()
        network = self._build_network(np.random.default_rng(0))
        divisor = np.float32(self.temperature_)
        last = tuple(array / divisor for array in self.layers_[-1])
        network.set_weights([array for layer in [*self.layers_[:-1], last] for array in layer])
        standardise = keras.layers.Rescaling(
            1.0 / self.scale_, offset=-self.mean_ / self.scale_, dtype="float32"
        )
        to_probabilities = keras.layers.Softmax(dtype="float32")
        inputs = keras.Input((self.n_features_in_,), dtype="float32")
        return keras.Model(inputs, to_probabilities(network(standardise(inputs))))

    def _predict_logits(self, X: npt.ArrayLike) -> npt.NDArray[np.float64]:
        check_is_fitted(self)
        features = validate_data(self, X, reset=False, dtype=[np.float64, np.float32])
        return self._compute_logits(features, self.layers_)

    def _compute_logits(
        self, X: npt.NDArray[Any], layers: Sequence[Layer]
    ) -> npt.NDArray[np.float64]:
        """Pass checked rows through the network in float64, so that batches do not change a row."""
        logits = np.empty((len(X), self.classes_.size))
        for start in range(0, len(X), _FORWARD_ROWS):
            block = slice(start, start + _FORWARD_ROWS)
            hidden = (X[block] - self.mean_) / self.scale_
            for kernel, bias in layers[:-1]:
                hidden = np.maximum(hidden @ kernel + bias, 0.0)
            logits[block] = hidden @ layers[-1][0] + layers[-1][1]
        return logits

    def _check_validation_data(
        self, validation_data: tuple[npt.ArrayLike, npt.ArrayLike]
    ) -> tuple[npt.NDArray[Any], npt.NDArray[np.intp]]:
        X, y = validate_data(self, *validation_data, reset=False, dtype=[np.float64, np.float32])
        unknown = np.setdiff1d(y, self.classes_).tolist()
        if unknown:
            raise HeadError(
                f"validation_data has labels {unknown} that no training row has; "
                "leave those rows out, or add training rows of these classes"
            )
        return X, np.searchsorted(self.classes_, y)

    def _build_network(self, rng: np.random.Generator) -> Any:
        return build_network(
            self.n_features_in_,
            self.classes_.size,
            hidden_units=self.hidden_units,
            dropout=self.dropout,
            rng=rng,
        )

    def _train(self, rows: Rows, rows_val: Rows, rng: np.random.Generator) -> None:
        """Train on standardised rows; score `rows_val`, not standardised, after each epoch."""

        def score(layers: list[Layer]) -> dict[str, float]:
            if not len(rows_val.X):
                return {}
            return score_epoch(self._compute_logits(rows_val.X, layers), rows_val)

        stopping = Stopping(self.patience)
        train_network(
            self._build_network(rng),
            mix_rows(rows, self.mixup, n_classes=self.classes_.size),
            learning_rate=self.learning_rate,
            batch_size=self.batch_size,
            epochs=self.epochs,
            stopping=stopping,
            score=score,
            rng=rng,
            verbose=self.verbose,
        )
        self.layers_, self.history_ = stopping.best_layers, stopping.history
        self.temperature_ = 1.0
        if len(rows_val.X):
            logits = self._compute_logits(rows_val.X, self.layers_)
            self.temperature_ = fit_temperature(logits, rows_val.codes)
        self.n_iter_, self.best_epoch_ = len(self.history_["loss"]), stopping.best_epoch
