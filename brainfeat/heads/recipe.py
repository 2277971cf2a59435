"""Recipes of heads: how a head is made and fitted on rows of a matrix; and fitted heads."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainfeat.errors import HeadError
from brainfeat.heads.bags import ATTENTION, AnyFeatures, Features, pool_all
from brainfeat.heads.blocks import BlockVectors, Fill
from brainfeat.heads.calibration import softmax
from brainfeat.heads.estimators import (
    HEAD_ERRORS,
    classifier_of,
    fit_estimator,
    require_vectors,
    score_estimator,
)
from brainfeat.heads.generation import Generated, generate_rows
from brainfeat.heads.kernels import takes_kernel
from brainfeat.heads.kinds import make_head, parse_ensemble, takes_maps

Rows = NDArray[np.intp]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class HeadRecipe:
    """How an unfitted head is made; it is picklable, so that processes can fit folds.

    Attributes
    ----------
    head : str
        Name of the head.
    params : dict
        Constructor parameters as JSON holds them; the keys of a ``class_weight`` are class names.
    class_names : tuple of str
        The classes.
    random_state : int
        Seed.
    widths : tuple of int
        Number of features of each block, of an ensemble that has one member for each; else empty.
    generate : int
        Rows of each class that a generator, trained on the training rows alone, adds to these.

    Raises
    ------
    HeadError
        Rows are to be generated for a head of maps or of bags, as a generator makes vectors; or for
        an ensemble, which divides its rows into folds of its own.
    """

    head: str
    params: dict[str, Any]
    class_names: tuple[str, ...]
    random_state: int
    widths: tuple[int, ...] = ()
    generate: int = 0

    def __post_init__(self) -> None:
        if not self.generate:
            return
        if parse_ensemble(self.head) is not None:
            raise HeadError(
                f"generate={self.generate} is not for ensembles such as {self.head}: the folds "
                "within one would measure generated rows; take one head, or leave generate out"
            )
        if takes_maps(self.head):
            raise HeadError(
                f"generate={self.generate} makes vectors, and the {self.head} head takes maps; "
                "take a head of vectors such as dense or se, or leave generate out"
            )
        if self.head == ATTENTION:
            raise HeadError(
                f"generate={self.generate} makes one vector, and the {self.head} head takes those "
                'of all images of a group; pass bag="mean", or leave generate out'
            )

    def make(self) -> Any:
        """Make an unfitted head.

        Raises
        ------
        HeadError
            As in :func:`brainfeat.heads.kinds.make_head`.
        """
        params = dict(self.params)
        for key, weights in self.params.items():
            if key.rpartition(".")[2] == "class_weight" and isinstance(weights, dict):
                params[key] = {
                    self.class_names.index(name): weight for name, weight in weights.items()
                }
        head = make_head(self.head, random_state=int(self.random_state), **params)
        if self.widths:
            starts = np.cumsum([0, *self.widths]).tolist()
            head.members = [*head.members] * len(self.widths)
            head.columns = list(pairwise(starts))
        return head

    def takes_kernel(self, n_rows: int) -> bool:
        """Return whether the head is fitted on a whole kernel, in less time than a process starts.

        Parameters
        ----------
        n_rows : int
            Number of rows to fit on.
        """
        return not self.generate and takes_kernel(classifier_of(self.make()), n_rows)

    def fit_head(
        self,
        X: AnyFeatures,
        y: NDArray[np.int64],
        *,
        rows: Rows,
        val: Rows | None = None,
        groups: Rows | None = None,
        scored: Mask | None = None,
    ) -> "FittedHead":
        """Fit a new head on some rows, and what fills missing blocks, if the rows have blocks.

        Parameters
        ----------
        X : ndarray of shape (n, d), float32, Bags, MapRows, or BlockVectors
            Features.
        y, rows, val, groups, scored
            As of :meth:`fit`.

        Returns
        -------
        FittedHead

        Raises
        ------
        HeadError
            As in :meth:`fit`.
        """
        if not isinstance(X, BlockVectors):
            head, generated = self._fit(X, y, rows=rows, val=val, groups=groups, scored=scored)
            return FittedHead(head, generated=generated)
        fill = Fill.fit(X[rows])
        whole = rows[X[rows].present.all(axis=1)]
        head, generated = self._fit(
            fill.apply(X), y, rows=rows, val=val, groups=groups, scored=scored, known=whole
        )
        return FittedHead(head, fill=fill, generated=generated)

    def fit(
        self,
        X: Features,
        y: NDArray[np.int64],
        *,
        rows: Rows,
        val: Rows | None = None,
        groups: Rows | None = None,
        scored: Mask | None = None,
    ) -> Any:
        """Fit a new head on some rows.

        Parameters
        ----------
        X : ndarray of shape (n, d), float32, Bags, or MapRows
            Features.
        y : ndarray of shape (n,), int64
            Classes, from 0 to k − 1.
        rows : ndarray of int
            Rows of `X` to fit on.
        val : ndarray of int or None
            Validation rows, which decide when a dense head stops.
        groups : ndarray of shape (n,), int, or None
            Group of each row, which no fold within an ensemble divides. None makes a group of each
            row.
        scored : ndarray of shape (n,), bool, or None
            Rows that the folds within an ensemble score; the others, such as augmented views and
            generated images, are only fitted on. None scores all.

        Returns
        -------
        scikit-learn classifier
            The fitted head.

        Raises
        ------
        HeadError
            The head cannot be fitted; the message says why.
        """
        return self._fit(X, y, rows=rows, val=val, groups=groups, scored=scored)[0]

    def _fit(
        self,
        X: Features,
        y: NDArray[np.int64],
        *,
        rows: Rows,
        val: Rows | None,
        groups: Rows | None,
        scored: Mask | None,
        known: Rows | None = None,
    ) -> tuple[Any, Generated | None]:
        """Fit a new head on some rows, and on those that a generator makes of the known ones."""
        head = self.make()
        features, labels, generated = X[rows], y[rows], None
        if self.generate:
            more, more_labels, generated = self._generate(X, y, rows if known is None else known)
            features, labels = np.concatenate([features, more]), np.append(labels, more_labels)
        try:
            if parse_ensemble(self.head) is not None:
                given = {
                    "groups": rows if groups is None else groups[rows],
                    "scored": None if scored is None else scored[rows],
                }
                return head.fit(require_vectors(features), labels, **given), generated
            stopping = {} if val is None else {"validation_data": (X[val], y[val])}
            return fit_estimator(head, features, labels, **stopping), generated
        except HEAD_ERRORS as error:
            reason = " ".join(str(error).split())
            raise HeadError(f"the {self.head} head cannot be fitted: {reason}") from error

    def _generate(
        self, X: Features, y: NDArray[np.int64], rows: Rows
    ) -> tuple[NDArray[np.float32], NDArray[np.int64], Generated]:
        return generate_rows(
            require_vectors(X[rows]),
            y[rows],
            per_class=self.generate,
            class_names=self.class_names,
            random_state=self.random_state,
        )


@dataclass(frozen=True)
class FittedHead:
    """A fitted head, and the temperature that turns its scores into probabilities.

    Attributes
    ----------
    estimator : scikit-learn classifier
        The fitted head.
    temperature : float
        Divides the scores before the softmax.
    fill : Fill or None
        What fills the missing blocks of vectors that have blocks.
    generated : Generated or None
        The rows that a generator added to those that the head was fitted on; None without any.
    """

    estimator: Any
    temperature: float = 1.0
    fill: Fill | None = None
    generated: Generated | None = None

    def scores(self, X: AnyFeatures) -> NDArray[np.float64]:
        """Compute the scores of rows, (n, k) float64, not divided by the temperature.

        Those of a support vector machine are the scores of the bundle to some 10⁻¹³.
        """
        filled = self._fill(X)
        try:
            return score_estimator(self.estimator, filled)
        except HEAD_ERRORS as error:
            reason = " ".join(str(error).split())
            raise HeadError(f"the fitted head cannot predict: {reason}") from error

    def predict_proba(self, X: AnyFeatures) -> NDArray[np.float64]:
        """Compute the probability of each class for each row, (n, k) float64."""
        return softmax(self.scores(X), temperature=self.temperature)

    def vectors(self, X: AnyFeatures) -> NDArray[np.float32]:
        """Return one vector for each row, as an out-of-distribution detector takes them."""
        return pool_all(self._fill(X))

    def _fill(self, X: AnyFeatures) -> Features:
        if not isinstance(X, BlockVectors):
            return X
        if self.fill is None:
            raise HeadError("the fitted head takes vectors without blocks")
        return self.fill.apply(X)
