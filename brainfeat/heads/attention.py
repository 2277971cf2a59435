"""AttentionHead: gated attention over the vectors of a bag; Keras trains it, NumPy predicts."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.utils.validation import check_is_fitted

from brainfeat.heads.attention_network import BagRows, build_attention, read_attention
from brainfeat.heads.attention_pooling import Floats, measure_spread, weigh_vectors
from brainfeat.heads.bags import ATTENTION, Bags
from brainfeat.heads.dense import RandomState
from brainfeat.heads.gated_head import GatedHead
from brainfeat.heads.network import Layer, Rows

# Bags in any form that Bags.collect takes.
GivenBags = npt.ArrayLike | Bags | Sequence[npt.ArrayLike]


class AttentionHead(GatedHead):
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
        return np.concatenate(
            [np.empty(0), *(found for found, _ in self._weigh(bags, self.gates_))]
        )

    @property
    def _kind(self) -> str:
        return ATTENTION

    def _collect(self, X: GivenBags, n_features: int | None = None) -> Bags:
        return Bags.collect(X, n_features)

    def _count_features(self, bags: Bags) -> int:
        return int(bags.values.shape[1])

    def _measure(self, bags: Bags) -> tuple[Floats, Floats]:
        return measure_spread(bags)

    def _pool(self, bags: Bags, gates: Layer) -> Iterator[Floats]:
        return (means for _, means in self._weigh(bags, gates))

    def _weigh(self, bags: Bags, gates: Layer) -> Iterator[tuple[Floats, Floats]]:
        return weigh_vectors(bags, gates, mean=self.mean_, scale=self.scale_)

    def _to_rows(self, bags: Bags, codes: npt.NDArray[np.intp], weights: Floats) -> Rows:
        return BagRows(
            bags,
            codes,
            weights,
            mean=self.mean_.astype(np.float32),
            scale=self.scale_.astype(np.float32),
            max_instances=self.max_instances,
        )

    def _build(self, _: Bags, rng: np.random.Generator) -> Any:
        return build_attention(
            self.n_features_in_,
            self.classes_.size,
            attention_units=self.attention_units,
            hidden_units=self.hidden_units,
            dropout=self.dropout,
            rng=rng,
        )

    def _read(self, network: Any) -> list[Layer]:
        return read_attention(network)
