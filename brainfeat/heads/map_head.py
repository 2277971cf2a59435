"""MapHead: attention over the maps of images; Keras trains it, NumPy predicts."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from sklearn.preprocessing import StandardScaler
from sklearn.utils.validation import check_is_fitted

from brainfeat.errors import HeadError
from brainfeat.heads.dense import RandomState
from brainfeat.heads.gated_head import Codes, Floats, GatedHead
from brainfeat.heads.map_attention import weigh_maps
from brainfeat.heads.map_network import DrawnMaps, build_map_network, read_map_network
from brainfeat.heads.maps import GivenMaps, MapRows
from brainfeat.heads.network import Layer, Rows


class MapHead(GatedHead):
    """Classify the maps of images: attention, the mean over the positions, and a dense head.

    The channels of a map are standardised, each with one mean and scale for all positions. Then

    - ``"attention-pool"`` takes the mean of the positions with learned weights, gated attention
      (Ilse, Tomczak & Welling 2018, equation 9, https://proceedings.mlr.press/v80/ilse18a.html);
    - ``"se"`` weighs the channels by squeeze and excitation (Hu, Shen & Sun 2018,
      https://arxiv.org/abs/1709.01507), without biases;
    - ``"cbam"`` weighs the channels, and then the positions (Woo et al. 2018,
      https://arxiv.org/abs/1807.06521), without batch normalisation.

    The mean over the positions passes through the layers of a :class:`brainfeat.DenseHead`. All of
    it is trained together. The mean that follows ``"se"`` is the mean of the map times the weights,
    which depend on nothing but that mean: this head gives the same for vectors, which it takes as
    maps of one position.

    Training needs Keras. Maps are read when a batch needs them, so that memory does not grow with
    their number. A fitted head predicts with NumPy alone.

    Parameters
    ----------
    attention : {"cbam", "se", "attention-pool"}, default="cbam"
        The kind of attention.
    attention_units : int, default=64
        Rows of V and U of ``"attention-pool"``.
    reduction : int, default=16
        The other kinds squeeze d channels to d / reduction, at least one.
    hidden_units, dropout, learning_rate, batch_size, epochs, patience, validation_fraction, \
class_weight, random_state, verbose
        As of :class:`brainfeat.DenseHead`.

    Attributes
    ----------
    classes_, layers_, temperature_, mean_, scale_, history_, n_iter_, best_epoch_, n_features_in_
        As of :class:`brainfeat.DenseHead`; features are channels.
    gates_ : tuple of ndarray of float32
        As of ``brainfeat.heads.parameters.GATE_SHAPES``.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> y = np.arange(40) % 2
    >>> maps = rng.standard_normal((40, 3, 3, 4)) + 3 * y[:, None, None, None]
    >>> head = MapHead(epochs=20, learning_rate=0.01, random_state=0).fit(maps, y)
    >>> head.predict_proba(maps[:2]).shape, head.attention_maps(maps[:2]).shape
    ((2, 2), (2, 3, 3))
    """

    _noun = "map"

    def __init__(
        self,
        *,
        attention: str = "cbam",
        attention_units: int = 64,
        reduction: int = 16,
        hidden_units: Sequence[int] = (128, 64),
        dropout: float = 0.5,
        learning_rate: float = 1e-3,
        batch_size: int = 128,
        epochs: int = 100,
        patience: int = 20,
        validation_fraction: float | None = 0.15,
        class_weight: str | Mapping[Any, float] | None = None,
        random_state: RandomState = None,
        verbose: int = 0,
    ) -> None:
        self.attention = attention
        self.attention_units = attention_units
        self.reduction = reduction
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

    def attention_maps(self, X: GivenMaps) -> Floats:
        """Compute the weight of each position of a map.

        A weight says how much a position counts in this head, and neither that there is a finding
        nor where: other weights can give the same answer, and a position of the last layer sees
        most of the image.

        Parameters
        ----------
        X : MapRows, StoredArray, or array-like of shape (n, h, w, d)

        Returns
        -------
        ndarray of float64, shape (n, h, w)
            Of ``"attention-pool"``, the weights of a map sum to 1; of ``"cbam"``, each is in
            (0, 1).

        Raises
        ------
        HeadError
            The head is ``"se"``, which weighs channels alone.
        """
        check_is_fitted(self)
        maps = self._collect(X, self.n_features_in_)
        if self.attention == "se":
            raise HeadError("an se head weighs channels, and no positions of a map")
        weights = [
            found.positions
            for found in weigh_maps(
                self.attention, maps, self.gates_, mean=self.mean_, scale=self.scale_
            )
            if found.positions is not None
        ]
        return np.concatenate([np.empty((0, *maps.shape[1:3])), *weights])

    @property
    def _kind(self) -> str:
        return self.attention

    def _collect(self, X: GivenMaps, n_features: int | None = None) -> MapRows:
        return MapRows.collect(X, n_features)

    def _count_features(self, maps: MapRows) -> int:
        return maps.shape[-1]

    def _measure(self, maps: MapRows) -> tuple[Floats, Floats]:
        scaler = StandardScaler()
        for block in maps.blocks():
            scaler.partial_fit(block.reshape(-1, block.shape[-1]))
        return np.asarray(scaler.mean_, np.float64), np.asarray(scaler.scale_, np.float64)

    def _pool(self, maps: MapRows, gates: Layer) -> Iterator[Floats]:
        found = weigh_maps(self.attention, maps, gates, mean=self.mean_, scale=self.scale_)
        return (weighed.pooled for weighed in found)

    def _to_rows(self, maps: MapRows, codes: Codes, weights: Floats) -> Rows:
        return DrawnMaps(maps, codes, weights)

    def _build(self, maps: MapRows, rng: np.random.Generator) -> Any:
        _, h, w, d = maps.shape
        width = max(1, d // self.reduction)
        return build_map_network(
            self.attention,
            (h, w, d),
            self.classes_.size,
            mean=self.mean_,
            scale=self.scale_,
            width=self.attention_units if self.attention == "attention-pool" else width,
            hidden_units=self.hidden_units,
            dropout=self.dropout,
            rng=rng,
        )

    def _read(self, network: Any) -> list[Layer]:
        return read_map_network(self.attention, network)
