"""AttentionHead: gated attention over the vectors of a bag; Keras trains it, NumPy predicts."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from scipy.special import softmax
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted

from brainfeat.errors import HeadError
from brainfeat.heads.attention_network import BagRows, build_attention, read_attention
from brainfeat.heads.attention_pooling import Floats, measure_spread, weigh_vectors
from brainfeat.heads.bags import Bags
from brainfeat.heads.calibration import fit_temperature
from brainfeat.heads.dense import RandomState, make_generator
from brainfeat.heads.network import Layer, Rows, Stopping, train_network, weigh_classes
from brainfeat.heads.parameters import check_gates, check_layers, check_params, to_finite
from brainfeat.heads.validation import hold_out, score_epoch

# Bags in any form that Bags.collect takes.
GivenBags = npt.ArrayLike | Bags | Sequence[npt.ArrayLike]


class AttentionHead(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Classify bags of feature vectors by their mean with learned weights, gated attention.

    The vectors h₁ … hₘ of a bag are standardised. The weight of a vector is the softmax over the
    bag of wᵀ (tanh(V h) ⊙ σ(U h)) (Ilse, Tomczak & Welling 2018, equation 9,
    https://proceedings.mlr.press/v80/ilse18a.html). The weighted mean of the vectors passes through
    the layers of a :class:`brainfeat.DenseHead`. All of it is trained together, and each bag is one
    example of the loss, however many vectors it has. Mean and scale of the standardisation count
    each bag the same, too.

    Training needs Keras. A fitted head predicts with NumPy alone, from all vectors of a bag.

    Parameters
    ----------
    attention_units : int, default=64
        Rows of V and U.
    max_instances : int, default=32
        Vectors of a bag that an epoch sees at most, drawn anew without replacement; this bounds the
        memory of a step.
    hidden_units, dropout, learning_rate, epochs, patience, validation_fraction, class_weight, \
random_state, verbose
        As of :class:`brainfeat.DenseHead`, where a row is a bag.
    batch_size : int, default=32
        Bags of one training step.

    Attributes
    ----------
    classes_ : ndarray, shape (k,)
        Labels, in the order of the columns of all outputs.
    gates_ : tuple of ndarray of float32, shapes (d, p), (d, p) and (p,)
        V and U, transposed, and w.
    layers_ : list of (ndarray of float32, shape (m, p); ndarray of float32, shape (p,))
        Kernel and bias of each layer behind the weighted mean.
    temperature_, mean_, scale_, history_, n_iter_, best_epoch_, n_features_in_
        As of :class:`brainfeat.DenseHead`.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> y = np.arange(40) % 2
    >>> X = [rng.standard_normal((1 + place % 3, 4)) + 3 * label for place, label in enumerate(y)]
    >>> head = AttentionHead(epochs=20, learning_rate=0.01, random_state=0).fit(X, y)
    >>> head.predict_proba(X[:2]).shape, head.attention(X[:2]).shape
    ((2, 2), (3,))
    """

    def __init__(
        self,
        *,
        attention_units: int = 64,
        max_instances: int = 32,
        hidden_units: Sequence[int] = (128, 64),
        dropout: float = 0.5,
        learning_rate: float = 1e-3,
        batch_size: int = 32,
        epochs: int = 100,
        patience: int = 20,
        validation_fraction: float | None = 0.15,
        class_weight: str | Mapping[Any, float] | None = None,
        random_state: RandomState = None,
        verbose: int = 0,
    ) -> None:
        self.attention_units = attention_units
        self.max_instances = max_instances
        self.hidden_units = hidden_units
        self.dropout = dropout
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.epochs = epochs
        self.patience = patience
        self.validation_fraction = validation_fraction
        self.class_weight = class_weight
        self.random_state = random_state
        self.verbose = verbose

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
            V, U and w, as `gates_`.
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
        AttentionHead
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
                f"params of an attention head name {unknown}; it has "
                f"{', '.join(cls().get_params())}"
            )
        v, u, w = (
            to_finite(gate, np.float32, ndim=ndim)
            for gate, ndim in zip(gates, (2, 2, 1), strict=True)
        )
        fitted_layers: list[Layer] = [
            (to_finite(kernel, np.float32, ndim=2), to_finite(bias, np.float32, ndim=1))
            for kernel, bias in layers
        ]
        params["hidden_units"] = tuple(bias.size for _, bias in fitted_layers[:-1])
        params["attention_units"] = int(w.size)
        head = cls(**params)
        check_params(head.get_params(), head="attention")
        head.gates_, head.layers_ = (v, u, w), fitted_layers
        head.mean_ = to_finite(mean, np.float64, ndim=1)
        head.scale_ = to_finite(scale, np.float64, ndim=1)
        head.classes_ = np.array(classes)
        head.temperature_ = float(temperature)
        head.n_features_in_ = head.mean_.size
        check_layers(head.layers_, mean=head.mean_, scale=head.scale_, classes=head.classes_)
        check_gates(head.gates_, n_features=head.n_features_in_)
        return head

    def fit(
        self,
        X: GivenBags,
        y: npt.ArrayLike,
        *,
        validation_data: tuple[GivenBags, npt.ArrayLike] | None = None,
    ) -> Self:
        """Train on labelled bags.

        Parameters
        ----------
        X : Bags, sequence of array-like of shape (m, d), or ndarray of shape (n, m, d)
            Vectors of n bags.
        y : array-like, shape (n,)
            Label of each bag, of two classes or more.
        validation_data : tuple of (X_val, y_val), optional
            Bags and labels that decide when to stop. No bag of `X` is held out then.

        Returns
        -------
        AttentionHead
            The fitted head itself.

        Raises
        ------
        HeadError
            A parameter is out of range, there is only one class, no class has a second bag to hold
            out, `validation_data` has a label that `y` does not have, or the training diverges.
        ParameterError
            A bag has the wrong shape, none, or numbers that are not finite.
        """
        check_params(self.get_params(), head="attention")
        bags, labels = Bags.collect(X), np.asarray(y)
        _check_lengths(bags, labels)
        check_classification_targets(labels)
        self.n_features_in_ = bags.values.shape[1]
        self.classes_, codes = np.unique(labels, return_inverse=True)
        if self.classes_.size < 2:
            raise HeadError(f"y has only one class, {labels[:1]}; a head needs two classes or more")
        rng = make_generator(self.random_state)
        by_class = weigh_classes(self.class_weight, self.classes_, labels)
        if validation_data is not None:
            bags_val, codes_val = self._check_validation_data(*validation_data)
        else:
            held = hold_out(codes, self.validation_fraction, rng)
            bags_val, codes_val = bags[held], codes[held]
            if held.any():
                bags, codes = bags[~held], codes[~held]
        self.mean_, self.scale_ = measure_spread(bags)
        rows = BagRows(
            bags,
            codes,
            by_class[codes],
            mean=self.mean_.astype(np.float32),
            scale=self.scale_.astype(np.float32),
            max_instances=self.max_instances,
        )
        self._train(rows, bags_val, codes_val, by_class[codes_val], rng)
        return self

    def decision_function(self, X: GivenBags) -> Floats:
        """Compute the logits of the classes, before they are divided by the temperature.

        Parameters
        ----------
        X : Bags, sequence of array-like of shape (m, d), or ndarray of shape (n, m, d)

        Returns
        -------
        ndarray of float64, shape (n, k), or (n,) if k is 2
            Logits; for two classes, the logit of the second minus that of the first.
        """
        logits = self._predict_logits(X)
        return logits[:, 1] - logits[:, 0] if self.classes_.size == 2 else logits

    def predict_proba(self, X: GivenBags) -> Floats:
        """Compute the probabilities of the classes.

        Parameters
        ----------
        X : Bags, sequence of array-like of shape (m, d), or ndarray of shape (n, m, d)

        Returns
        -------
        ndarray of float64, shape (n, k)
            Probabilities; each row sums to 1.
        """
        return np.asarray(softmax(self._predict_logits(X) / self.temperature_, axis=1))

    def predict(self, X: GivenBags) -> npt.NDArray[Any]:
        """Predict the most probable class.

        Parameters
        ----------
        X : Bags, sequence of array-like of shape (m, d), or ndarray of shape (n, m, d)

        Returns
        -------
        ndarray, shape (n,)
            Labels.
        """
        return np.asarray(self.classes_[self._predict_logits(X).argmax(axis=1)])

    def attention(self, X: GivenBags) -> Floats:
        """Compute the weight of each vector in the mean of its bag.

        A weight says how much a vector counts in this head, and neither that there is a finding in
        its image nor that there is none in the others: other weights can give the same answer.

        Parameters
        ----------
        X : Bags, sequence of array-like of shape (m, d), or ndarray of shape (n, m, d)

        Returns
        -------
        ndarray of float64, shape (number of vectors,)
            Bag after bag; the weights of a bag sum to 1.
        """
        check_is_fitted(self)
        bags = Bags.collect(X, self.n_features_in_)
        weights = [found for found, _ in self._weigh(bags, self.gates_)]
        return np.concatenate([np.empty(0), *weights])

    def _predict_logits(self, X: GivenBags) -> Floats:
        check_is_fitted(self)
        bags = Bags.collect(X, self.n_features_in_)
        return self._compute_logits(bags, [self.gates_, *self.layers_])

    def _compute_logits(self, bags: Bags, layers: Sequence[Layer]) -> Floats:
        """Pass checked bags through the network in float64."""
        pooled = [means for _, means in self._weigh(bags, layers[0])]
        hidden = np.concatenate([np.empty((0, self.n_features_in_)), *pooled])
        for kernel, bias in layers[1:-1]:
            hidden = np.maximum(hidden @ kernel + bias, 0.0)
        return np.asarray(hidden @ layers[-1][0] + layers[-1][1])

    def _weigh(self, bags: Bags, gates: Layer) -> Iterator[tuple[Floats, Floats]]:
        return weigh_vectors(bags, gates, mean=self.mean_, scale=self.scale_)

    def _check_validation_data(
        self, X: GivenBags, y: npt.ArrayLike
    ) -> tuple[Bags, npt.NDArray[np.intp]]:
        bags, labels = Bags.collect(X, self.n_features_in_), np.asarray(y)
        _check_lengths(bags, labels)
        if unknown := np.setdiff1d(labels, self.classes_).tolist():
            raise HeadError(
                f"validation_data has labels {unknown} that no training bag has; "
                "leave those bags out, or add training bags of these classes"
            )
        return bags, np.searchsorted(self.classes_, labels)

    def _train(
        self,
        rows: BagRows,
        bags_val: Bags,
        codes_val: npt.NDArray[np.intp],
        weights_val: Floats,
        rng: np.random.Generator,
    ) -> None:
        """Train on drawn vectors; score all vectors of the validation bags after each epoch."""
        rows_val = Rows(bags_val, codes_val, weights_val)

        def score(layers: list[Layer]) -> dict[str, float]:
            if not len(bags_val):
                return {}
            return score_epoch(self._compute_logits(bags_val, layers), rows_val)

        stopping = Stopping(self.patience)
        network = build_attention(
            self.n_features_in_,
            self.classes_.size,
            attention_units=self.attention_units,
            hidden_units=self.hidden_units,
            dropout=self.dropout,
            rng=rng,
        )
        train_network(
            network,
            rows,
            learning_rate=self.learning_rate,
            batch_size=self.batch_size,
            epochs=self.epochs,
            stopping=stopping,
            score=score,
            rng=rng,
            verbose=self.verbose,
            read=read_attention,
        )
        self.gates_, *self.layers_ = stopping.best_layers
        self.history_, self.temperature_ = stopping.history, 1.0
        if len(bags_val):
            logits = self._compute_logits(bags_val, stopping.best_layers)
            self.temperature_ = fit_temperature(logits, codes_val)
        self.n_iter_, self.best_epoch_ = len(self.history_["loss"]), stopping.best_epoch


def _check_lengths(bags: Bags, labels: npt.NDArray[Any]) -> None:
    if labels.shape != (len(bags),) or not len(bags):
        raise HeadError(
            f"labels of shape {labels.shape} for {len(bags):,} bags; expected one label for each "
            "of one bag or more"
        )
