"""GatedHead: what heads have in common that weigh vectors before a dense head classifies them."""

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from scipy.special import softmax
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted

from brainfeat.errors import HeadError
from brainfeat.heads.calibration import fit_temperature
from brainfeat.heads.dense import RandomState, make_generator
from brainfeat.heads.network import Layer, Rows, Stopping, train_network, weigh_classes
from brainfeat.heads.parameters import (
    GATE_SHAPES,
    check_gates,
    check_layers,
    check_params,
    to_finite,
)
from brainfeat.heads.validation import hold_out, score_epoch

Floats = npt.NDArray[np.float64]
Codes = npt.NDArray[np.intp]


class GatedHead(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Weigh the vectors of an example by gates, pool them, and classify the pooled vector.

    A subclass has the gates, and knows what an example is: a bag of vectors, or a map.

    Attributes
    ----------
    classes_, layers_, temperature_, mean_, scale_, history_, n_iter_, best_epoch_, n_features_in_
        As of :class:`brainfeat.DenseHead`.
    gates_ : tuple of ndarray of float32
        What the gates have learned.
    """

    hidden_units: Sequence[int]
    learning_rate: float
    batch_size: int
    epochs: int
    patience: int
    validation_fraction: float | None
    class_weight: str | Mapping[Any, float] | None
    random_state: RandomState
    verbose: int

    # What messages call an example.
    _noun = "bag"

    @classmethod
    def from_arrays(
        cls,
        gates: Sequence[npt.ArrayLike],
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
        gates : sequence of array-like
            As `gates_`.
        layers : sequence of (array-like, shape (m, p); array-like, shape (p,))
            As `layers_`.
        mean, scale : array-like, shape (d,)
            As `mean_` and `scale_`.
        classes : array-like, shape (k,)
            As `classes_`.
        temperature : float
            As `temperature_`.
        params : mapping of str to object, optional
            Constructor parameters; widths are taken from the arrays instead.

        Returns
        -------
        GatedHead
            A fitted head.

        Raises
        ------
        HeadError
            A parameter is unknown or out of range, the shapes do not match, a number is not finite,
            or a scale is not positive.
        """
        params = dict(params or {})
        if unknown := sorted(set(params) - set(cls().get_params())):
            raise HeadError(
                f"params of a head with attention name {unknown}; it has "
                f"{', '.join(cls().get_params())}"
            )
        fitted_layers: list[Layer] = [
            (to_finite(kernel, np.float32, ndim=2), to_finite(bias, np.float32, ndim=1))
            for kernel, bias in layers
        ]
        params["hidden_units"] = tuple(bias.size for _, bias in fitted_layers[:-1])
        head = cls(**params)
        check_params(head.get_params(), head=head._kind)
        head.gates_ = tuple(
            to_finite(gate, np.float32, ndim=ndim)
            for gate, ndim in zip(gates, map(len, GATE_SHAPES[head._kind].values()), strict=True)
        )
        head.layers_ = fitted_layers
        head.mean_ = to_finite(mean, np.float64, ndim=1)
        head.scale_ = to_finite(scale, np.float64, ndim=1)
        head.classes_ = np.array(classes)
        head.temperature_ = float(temperature)
        head.n_features_in_ = head.mean_.size
        check_layers(head.layers_, mean=head.mean_, scale=head.scale_, classes=head.classes_)
        check_gates(head._kind, head.gates_, n_features=head.n_features_in_)
        if "w" in GATE_SHAPES[head._kind]:
            head.attention_units = int(head.gates_[2].size)
        return head

    def fit(
        self,
        X: Any,
        y: npt.ArrayLike,
        *,
        validation_data: tuple[Any, npt.ArrayLike] | None = None,
    ) -> Self:
        """Train on labelled examples.

        Parameters
        ----------
        X : bags or maps
            In any form that the head takes.
        y : array-like, shape (n,)
            Label of each example, of two classes or more.
        validation_data : tuple of (X_val, y_val), optional
            Examples and labels that decide when to stop. No example of `X` is held out then.

        Returns
        -------
        GatedHead
            The fitted head itself.

        Raises
        ------
        HeadError
            A parameter is out of range, there is only one class, no class has a second example to
            hold out, `validation_data` has a label that `y` does not have, or the training
            diverges.
        ParameterError
            An example has the wrong shape, none, or numbers that are not finite.
        """
        check_params(self.get_params(), head=self._kind)
        examples, labels = self._collect(X), np.asarray(y)
        self._check_lengths(examples, labels)
        check_classification_targets(labels)
        self.n_features_in_ = self._count_features(examples)
        self.classes_, codes = np.unique(labels, return_inverse=True)
        if self.classes_.size < 2:
            raise HeadError(f"y has only one class, {labels[:1]}; a head needs two classes or more")
        rng = make_generator(self.random_state)
        by_class = weigh_classes(self.class_weight, self.classes_, labels)
        if validation_data is not None:
            examples_val, codes_val = self._check_validation_data(*validation_data)
        else:
            held = hold_out(codes, self.validation_fraction, rng)
            examples_val, codes_val = examples[held], codes[held]
            if held.any():
                examples, codes = examples[~held], codes[~held]
        self.mean_, self.scale_ = self._measure(examples)
        rows = self._to_rows(examples, codes, by_class[codes])
        self._train(rows, Rows(examples_val, codes_val, by_class[codes_val]), rng)
        return self

    def decision_function(self, X: Any) -> Floats:
        """Compute the logits of the classes, before they are divided by the temperature.

        Parameters
        ----------
        X : bags or maps
            In any form that the head takes.

        Returns
        -------
        ndarray of float64, shape (n, k), or (n,) if k is 2
            Logits; for two classes, the logit of the second minus that of the first.
        """
        logits = self._predict_logits(X)
        return logits[:, 1] - logits[:, 0] if self.classes_.size == 2 else logits

    def predict_proba(self, X: Any) -> Floats:
        """Compute the probabilities of the classes.

        Parameters
        ----------
        X : bags or maps
            In any form that the head takes.

        Returns
        -------
        ndarray of float64, shape (n, k)
            Probabilities; each row sums to 1.
        """
        return np.asarray(softmax(self._predict_logits(X) / self.temperature_, axis=1))

    def predict(self, X: Any) -> npt.NDArray[Any]:
        """Predict the most probable class.

        Parameters
        ----------
        X : bags or maps
            In any form that the head takes.

        Returns
        -------
        ndarray, shape (n,)
            Labels.
        """
        return np.asarray(self.classes_[self._predict_logits(X).argmax(axis=1)])

    @property
    @abstractmethod
    def _kind(self) -> str:
        """The kind of attention, a key of ``brainfeat.heads.parameters.GATE_SHAPES``."""

    @abstractmethod
    def _collect(self, X: Any, n_features: int | None = None) -> Any:
        """Take examples in any form, and check them; the result has a length and is indexed."""

    @abstractmethod
    def _count_features(self, examples: Any) -> int:
        """Return the number of features of an example."""

    @abstractmethod
    def _measure(self, examples: Any) -> tuple[Floats, Floats]:
        """Measure the mean and the scale of each feature."""

    @abstractmethod
    def _pool(self, examples: Any, gates: Layer) -> Iterator[Floats]:
        """Yield the pooled vectors of the next examples, standardised, (b, d)."""

    @abstractmethod
    def _to_rows(self, examples: Any, codes: Codes, weights: Floats) -> Rows:
        """Return training rows, which are standardised where they are drawn."""

    @abstractmethod
    def _build(self, examples: Any, rng: np.random.Generator) -> Any:
        """Build the network for such examples."""

    @abstractmethod
    def _read(self, network: Any) -> list[Layer]:
        """Return the gates of a network, and then its layers."""

    def _predict_logits(self, X: Any) -> Floats:
        check_is_fitted(self)
        examples = self._collect(X, self.n_features_in_)
        return self._compute_logits(examples, [self.gates_, *self.layers_])

    def _compute_logits(self, examples: Any, layers: Sequence[Layer]) -> Floats:
        """Pass checked examples through the network in float64."""
        pooled = self._pool(examples, layers[0])
        hidden = np.concatenate([np.empty((0, self.n_features_in_)), *pooled])
        for kernel, bias in layers[1:-1]:
            hidden = np.maximum(hidden @ kernel + bias, 0.0)
        return np.asarray(hidden @ layers[-1][0] + layers[-1][1])

    def _check_lengths(self, examples: Any, labels: npt.NDArray[Any]) -> None:
        if labels.shape != (len(examples),) or not len(examples):
            raise HeadError(
                f"labels of shape {labels.shape} for {len(examples):,} {self._noun}s; expected one "
                f"label for each of one {self._noun} or more"
            )

    def _check_validation_data(self, X: Any, y: npt.ArrayLike) -> tuple[Any, Codes]:
        examples, labels = self._collect(X, self.n_features_in_), np.asarray(y)
        self._check_lengths(examples, labels)
        if unknown := np.setdiff1d(labels, self.classes_).tolist():
            raise HeadError(
                f"validation_data has labels {unknown} that no training {self._noun} has; "
                f"leave those {self._noun}s out, or add training {self._noun}s of these classes"
            )
        return examples, np.searchsorted(self.classes_, labels)

    def _train(self, rows: Rows, rows_val: Rows, rng: np.random.Generator) -> None:
        """Train on what is drawn of the rows; score whole validation examples after each epoch."""

        def score(layers: list[Layer]) -> dict[str, float]:
            if not len(rows_val.X):
                return {}
            return score_epoch(self._compute_logits(rows_val.X, layers), rows_val)

        stopping = Stopping(self.patience)
        train_network(
            self._build(rows.X, rng),
            rows,
            learning_rate=self.learning_rate,
            batch_size=self.batch_size,
            epochs=self.epochs,
            stopping=stopping,
            score=score,
            rng=rng,
            verbose=self.verbose,
            read=self._read,
        )
        self.gates_, *self.layers_ = stopping.best_layers
        self.history_, self.temperature_ = stopping.history, 1.0
        if len(rows_val.X):
            logits = self._compute_logits(rows_val.X, stopping.best_layers)
            self.temperature_ = fit_temperature(logits, rows_val.codes)
        self.n_iter_, self.best_epoch_ = len(self.history_["loss"]), stopping.best_epoch
