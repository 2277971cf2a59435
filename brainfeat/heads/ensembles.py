"""EnsembleHead: several heads that vote, or whose probabilities a logistic regression weighs."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt
from scipy.special import log_softmax, logsumexp, softmax
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, has_fit_parameter, validate_data

from brainfeat.errors import HeadError, TableError
from brainfeat.heads.calibration import fit_temperature
from brainfeat.heads.ensemble_names import HOWS, MAX_MEMBERS, N_FOLDS, EnsembleName, How
from brainfeat.heads.estimators import fit_estimator, score_estimator
from brainfeat.heads.kinds import head_scores
from brainfeat.leakage.splitting import count_folds, make_folds, split_rows

Rows = npt.NDArray[np.intp]
Doubles = npt.NDArray[np.float64]
# First column that a member takes, and the one after its last.
Columns = tuple[int, int]


@dataclass(frozen=True, kw_only=True, eq=False)
class Member:
    """A fitted member of an ensemble.

    Attributes
    ----------
    name : str
        Name of the head.
    columns : tuple of int
        First column of X that it takes, and the one after its last.
    estimator : scikit-learn classifier
        The fitted head; its classes are 0…k−1.
    temperature : float
        Divides its scores before the softmax.
    """

    name: str
    columns: Columns
    estimator: Any
    temperature: float

    def take(self, X: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return the columns of the member."""
        start, stop = self.columns
        return X if (start, stop) == (0, X.shape[1]) else X[:, start:stop]


class EnsembleHead(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Combine several heads, which are calibrated by folds that divide no group.

    `fit` makes stratified folds of whole groups, the same for all members. A member is fitted on
    the training rows of each fold and scores its test rows; one temperature for each member turns
    these scores into calibrated probabilities. Then it is fitted again on all rows.

    A vote takes the mean of the calibrated probabilities of the members (soft voting). A stack
    (Wolpert 1992, Neural Networks 5:241) fits a multinomial logistic regression with scikit-learn's
    default penalty on the logarithms of the out-of-fold probabilities. With ``how="folds"``, the
    models of the folds are themselves the members, and vote.

    Parameters
    ----------
    members : sequence of (str, scikit-learn classifier)
        Name and unfitted head of each member. One whose ``fit`` takes ``validation_data``, such as
        :class:`brainfeat.DenseHead`, gets rows of whole groups that decide when it stops, as many
        as its `validation_fraction` says.
    how : {"vote", "stack", "folds"}, default="vote"
        How they are combined; ``"folds"`` takes one member.
    n_folds : int, default=5
        Number of folds; fewer where a class has fewer groups.
    columns : sequence of (int, int) or None, default=None
        First column of X that each member takes, and the one after its last; None gives all columns
        to each.
    random_state : int, default=0
        Seed of the folds and of the rows that are held out.

    Attributes
    ----------
    classes_ : ndarray, shape (k,)
        Labels, in the order of the columns of all outputs.
    members_ : list of Member
        The fitted members.
    stack_ : tuple of (ndarray, shape (m·k, k); ndarray, shape (k,)) or None
        Kernel and bias of the logistic regression of a stack of m members; None for a vote.
    folds_ : list of (ndarray of int, ndarray of int)
        Training and test rows of each fold.
    n_folds_ : int
        Number of folds.
    n_fits_ : int
        Number of fits of members: one for each fold and one more, but for ``"folds"``.
    n_features_in_ : int
        Number of features, d.

    Examples
    --------
    >>> from sklearn.datasets import make_blobs
    >>> from brainfeat.heads.kinds import make_head
    >>> X, y = make_blobs(60, n_features=4, centers=3, random_state=0)
    >>> members = [(name, make_head(name)) for name in ("lda", "knn")]
    >>> head = EnsembleHead(members, how="stack").fit(X, y, groups=[i // 2 for i in range(60)])
    >>> head.predict_proba(X[:2]).shape, head.n_fits_
    ((2, 3), 12)
    """

    def __init__(
        self,
        members: Sequence[tuple[str, Any]],
        *,
        how: How = "vote",
        n_folds: int = N_FOLDS,
        columns: Sequence[Columns] | None = None,
        random_state: int = 0,
    ) -> None:
        self.members = members
        self.how = how
        self.n_folds = n_folds
        self.columns = columns
        self.random_state = random_state

    @classmethod
    def from_parts(
        cls,
        members: Sequence[Member],
        *,
        how: How,
        n_features: int,
        n_classes: int,
        n_folds: int,
        stack: tuple[Doubles, Doubles] | None,
    ) -> Self:
        """Rebuild a fitted ensemble, whose classes are 0…k−1, of members that were checked."""
        named = [(member.name, member.estimator) for member in members]
        head = cls(named[:1] if how == "folds" else named, how=how, n_folds=n_folds)
        head.classes_, head.members_ = np.arange(n_classes), list(members)
        head.stack_, head.n_features_in_ = stack, n_features
        head._count_fits(n_folds)
        return head

    def fit(
        self,
        X: npt.ArrayLike,
        y: npt.ArrayLike,
        *,
        groups: npt.ArrayLike | None = None,
        scored: npt.ArrayLike | None = None,
    ) -> Self:
        """Fit the members, and what combines them.

        Parameters
        ----------
        X : array-like, shape (n, d)
            Feature vectors.
        y : array-like, shape (n,)
            Labels, of two classes or more.
        groups : array-like of int or str, shape (n,), or None
            Rows of one group, such as the views of an image or the images of a patient, are in one
            fold, and never on both sides of one. None takes each row as a group.
        scored : array-like of bool, shape (n,), or None
            Rows that folds score, and that stop the training of a member. The others, such as
            augmented views and generated images, are only trained on, and not where a row of their
            group is held out. None scores all.

        Returns
        -------
        EnsembleHead
            The fitted ensemble itself.

        Raises
        ------
        HeadError
            A parameter is out of range, there is only one class, or a class has rows of too few
            groups to make folds of.
        ValueError
            An array has the wrong shape, or numbers that are not finite.
        """
        features, labels = validate_data(self, X, y, dtype=[np.float64, np.float32])
        check_classification_targets(labels)
        self.classes_, codes = np.unique(labels, return_inverse=True)
        units = np.arange(len(codes)) if groups is None else np.asarray(groups)
        scores = np.ones(len(codes), np.bool_) if scored is None else np.asarray(scored, np.bool_)
        parts = self._list_parts(features.shape[1])
        self.folds_ = self._make_folds(codes, units, scores)
        self.members_, logarithms, self.stack_ = [], [], None
        for name, head, (start, stop) in parts:
            rows = _Rows(features[:, start:stop], codes, units, scores)
            models, temperature, out_of_fold = self._fit_member(head, rows)
            self.members_ += [
                Member(name=name, columns=(start, stop), estimator=model, temperature=temperature)
                for model in models
            ]
            logarithms.append(out_of_fold)
        if self.how == "stack":
            self.stack_ = _fit_stack(logarithms, codes[scores])
        self._count_fits(len(self.folds_))
        return self

    def combine(self, scores: Sequence[Doubles]) -> Doubles:
        """Compute the scores of the ensemble from those of its members.

        Parameters
        ----------
        scores : sequence of ndarray, shape (n, k)
            Of each member, as ``brainfeat.heads.kinds.head_scores`` returns them.

        Returns
        -------
        ndarray of float64, shape (n, k)
            Of a vote, logarithms of probabilities; of a stack, logits.
        """
        logarithms = [
            log_softmax(found / member.temperature, axis=1)
            for found, member in zip(scores, self.members_, strict=True)
        ]
        if self.stack_ is None:
            return np.asarray(logsumexp(logarithms, axis=0) - np.log(len(logarithms)))
        kernel, bias = self.stack_
        return np.asarray(np.concatenate(logarithms, axis=1) @ kernel + bias)

    def decision_function(self, X: npt.ArrayLike) -> Doubles:
        """Compute the scores of the classes; their softmax gives the probabilities.

        Parameters
        ----------
        X : array-like, shape (n, d)
            Feature vectors.

        Returns
        -------
        ndarray of float64, shape (n, k), or (n,) if k is 2
            As of :meth:`combine`; for two classes, the score of the second minus that of the first.
        """
        scores = self._score(X)
        return scores[:, 1] - scores[:, 0] if self.classes_.size == 2 else scores

    def predict_proba(self, X: npt.ArrayLike) -> Doubles:
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
        return np.asarray(softmax(self._score(X), axis=1))

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
        return np.asarray(self.classes_[self._score(X).argmax(axis=1)])

    def _score(self, X: npt.ArrayLike) -> Doubles:
        check_is_fitted(self, "members_")
        features = validate_data(self, X, reset=False, dtype=[np.float64, np.float32])
        return self.combine(
            [head_scores(member.estimator, member.take(features)) for member in self.members_]
        )

    def _count_fits(self, n_folds: int) -> None:
        self.n_folds_ = n_folds
        members = tuple(name for name, _ in self.members)
        self.n_fits_ = EnsembleName(self.how, members).count_fits(n_folds)

    def _list_parts(self, d: int) -> list[tuple[str, Any, Columns]]:
        """Check the parameters; return the name, the head and the columns of each member."""
        if self.how not in HOWS:
            raise HeadError(f"how must be one of {', '.join(HOWS)}; got {self.how!r}")
        least, most = (1, 1) if self.how == "folds" else (2, MAX_MEMBERS)
        if not least <= len(self.members) <= most:
            wanted = "one member" if most == 1 else f"{least} to {most} members"
            raise HeadError(
                f"the ensemble {self.how} takes {wanted}, got {len(self.members)}; a vote or a "
                "stack of one head is of the blocks of a join"
            )
        if (
            isinstance(self.n_folds, bool)
            or not isinstance(self.n_folds, int | np.integer)
            or not 2 <= self.n_folds <= MAX_MEMBERS
        ):
            raise HeadError(
                f"n_folds must be an integer from 2 to {MAX_MEMBERS}; got {self.n_folds!r}"
            )
        columns = [(0, d)] * len(self.members) if self.columns is None else self.columns
        if len(columns) != len(self.members) or not all(0 <= a < b <= d for a, b in columns):
            raise HeadError(f"columns must be a range of 0 to {d} for each member; got {columns}")
        return [
            (name, head, (int(start), int(stop)))
            for (name, head), (start, stop) in zip(self.members, columns, strict=True)
        ]

    def _make_folds(
        self, codes: Rows, units: npt.NDArray[Any], scored: npt.NDArray[np.bool_]
    ) -> list[tuple[Rows, Rows]]:
        if self.classes_.size < 2:
            raise HeadError(
                f"y has only one class, {self.classes_[0]!r}; a head needs two classes or more"
            )
        rows = np.flatnonzero(scored)
        n_folds = max(2, min(self.n_folds, count_folds(codes[rows], groups=units[rows])))
        try:
            folds = make_folds(
                codes[rows], n_folds=n_folds, groups=units[rows], random_state=self.random_state
            )
        except TableError as error:
            raise HeadError(
                f"an ensemble needs images of two groups or more of each class, of which it makes "
                f"folds ({error})"
            ) from error
        tests = [rows[test] for _, test in folds]
        return [(np.flatnonzero(~np.isin(units, units[test])), test) for test in tests]

    def _fit_member(self, head: Any, rows: "_Rows") -> tuple[list[Any], float, Doubles]:
        """Fit a head in the folds and on all rows.

        Returns the models, their temperature, and the out-of-fold logarithms of probabilities of
        the rows that are scored.
        """
        found, models = np.empty((len(rows.codes), self.classes_.size)), []
        for train, test in self.folds_:
            models.append(_fit_rows(head, rows.take(train), self.random_state))
            found[test] = score_estimator(models[-1], rows.X[test])
        scores = found[rows.scored]
        temperature = fit_temperature(scores, rows.codes[rows.scored])
        if self.how != "folds":
            models = [_fit_rows(head, rows, self.random_state)]
        return models, temperature, np.asarray(log_softmax(scores / temperature, axis=1))


class _Rows(NamedTuple):
    """The columns of a member, (n, d); classes, groups, and whether rows are scored, (n,)."""

    X: npt.NDArray[Any]
    codes: Rows
    units: npt.NDArray[Any]
    scored: npt.NDArray[np.bool_]

    def take(self, rows: Rows | npt.NDArray[np.bool_]) -> "_Rows":
        return _Rows(self.X[rows], self.codes[rows], self.units[rows], self.scored[rows])


def _fit_rows(head: Any, rows: _Rows, random_state: int) -> Any:
    """Fit a copy of a head, which some whole groups stop where it takes validation rows."""
    made = clone(head)
    fraction = getattr(made, "validation_fraction", None)
    if fraction is None or not has_fit_parameter(made, "validation_data"):
        return fit_estimator(made, rows.X.copy(), rows.codes)
    own = rows.take(rows.scored)
    try:
        splits = split_rows(
            own.codes, fractions={"val": fraction}, groups=own.units, random_state=random_state
        )
    except TableError as error:
        raise HeadError(
            f"no rows can be held out to stop the training of a member ({error})"
        ) from error
    val = own.take(splits == "val")
    train = rows.take(~np.isin(rows.units, val.units))
    return made.fit(train.X, train.codes, validation_data=(val.X, val.codes))


def _fit_stack(logarithms: Sequence[Doubles], codes: Rows) -> tuple[Doubles, Doubles]:
    """Fit the logistic regression of a stack; return kernel (m·k, k) and bias (k,)."""
    from sklearn.linear_model import LogisticRegression

    # At the default tolerance, the coefficients depend on the rounding of the probabilities.
    final = LogisticRegression(tol=1e-8, max_iter=10_000)
    final.fit(np.concatenate(logarithms, axis=1), codes)
    kernel, bias = final.coef_.T, final.intercept_
    if kernel.shape[1] == 1:
        # With two classes there is one score, that of the second; the first has 0.
        kernel, bias = np.hstack([np.zeros_like(kernel), kernel]), np.array([0.0, bias[0]])
    return np.ascontiguousarray(kernel), bias
