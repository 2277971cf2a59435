"""Mixup: rows of a training batch mixed with each other, and their classes with them."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from brainfeat.heads.network import Rows


@dataclass(frozen=True)
class MixedRows(Rows):
    """Feature vectors of which each step sees mixtures of two.

    A row x with class c becomes λ x + (1 − λ) x′, where x′ is another row of the batch and λ is
    drawn from Beta(α, α) for each row (Zhang et al. 2018, https://arxiv.org/abs/1710.09412). Its
    loss is λ w L(c) + (1 − λ) w′ L(c′): the weights of the classes are mixed like the classes.

    Attributes
    ----------
    alpha : float
        α, above 0.
    n_classes : int
        k.
    """

    alpha: float
    n_classes: int

    is_soft: ClassVar[bool] = True

    def draw(
        self, chosen: NDArray[np.intp], seed: tuple[int, ...], /
    ) -> NDArray[np.float32 | np.float64]:
        """Return mixtures of the chosen rows, (b, d)."""
        others, fraction = self._pair(chosen, seed)
        fraction = fraction[:, None].astype(self.X.dtype)
        mixed: NDArray[np.float32 | np.float64] = (
            fraction * self.X[chosen] + (1 - fraction) * self.X[others]
        )
        return mixed

    def label(
        self, chosen: NDArray[np.intp], seed: tuple[int, ...], /
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return the mixed classes of the same mixtures, (b, k), which sum to 1; and weights."""
        others, fraction = self._pair(chosen, seed)
        parts = np.zeros((len(chosen), self.n_classes))
        rows = np.arange(len(chosen))
        np.add.at(parts, (rows, self.codes[chosen]), fraction * self.weights[chosen])
        np.add.at(parts, (rows, self.codes[others]), (1 - fraction) * self.weights[others])
        weights = parts.sum(axis=1)
        # Where both classes weigh nothing, any classes do.
        parts[weights == 0] = 1.0
        classes = parts / parts.sum(axis=1, keepdims=True)
        return classes.astype(np.float32), weights.astype(np.float32)

    def _pair(
        self, chosen: NDArray[np.intp], seed: tuple[int, ...]
    ) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
        rng = np.random.default_rng(seed)
        return rng.permutation(chosen), rng.beta(self.alpha, self.alpha, len(chosen))


def mix_rows(rows: Rows, alpha: float, *, n_classes: int) -> Rows:
    """Return rows that are mixed in training, or the same rows where `alpha` is 0."""
    if not alpha:
        return rows
    return MixedRows(rows.X, rows.codes, rows.weights, alpha=float(alpha), n_classes=n_classes)
