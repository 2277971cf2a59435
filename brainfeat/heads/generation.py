"""Generated features: further rows of each class, from a generator that knows the training rows.

The generator works on the directions in which rows differ most from the mean of their class:

1. The mean of its class is subtracted from each row, and each column is divided by its deviation.
2. The leading principal components of these differences, each of variance 1 in each class, are what
   a generator learns as a WGAN-GP (:mod:`brainfeat.heads.wgan`), given the class, as in networks
   that generate features (Xian et al. 2018, https://arxiv.org/abs/1712.00981). The remaining
   components are drawn from Gaussian distributions.
3. The steps are undone, and each value is moved into the range that its column has in the training
   rows, so that pooled outputs of rectified units stay 0 or more. Each column is shifted and
   stretched before, so that it then has the mean and the variance that it has in its class.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from brainfeat.errors import ParameterError
from brainfeat.heads import wgan
from brainfeat.text import count, name_some

Floats = NDArray[np.float64]

METHOD = "wgan-gp"
# A class with fewer rows has no variance to speak of in most directions.
LEAST_ROWS = 10
MOST_ROWS = 10_000

# Principal components that the generator learns.
_COMPONENTS = 64
# A component with less of the variance than this, relative to the first, is rounding.
_LEAST_VARIANCE = 1e-6
# The variance of a component in a class counts like this many rows of all classes, and its own.
_SHRINKAGE = 10
# Generated rows of a class by which the means and variances of columns are set, in how many rounds,
# and how much a round stretches a column.
_REFERENCE = 2_048
_ROUNDS = 10
_STRETCHES = (0.5, 2.0)


@dataclass(frozen=True, kw_only=True)
class Generated:
    """How many rows were generated for a fit.

    Attributes
    ----------
    per_class : int
        Rows of each class that were asked for.
    rows : dict of str to int
        Rows of each class that were generated.
    skipped : dict of str to int
        Training rows of each class that has too few to generate more.
    folds : tuple of dict of str to int
        The same of each fold of the cross-validation; empty without one.
    method : str
        What generated them.
    """

    per_class: int
    rows: Mapping[str, int]
    skipped: Mapping[str, int]
    folds: tuple[Mapping[str, int], ...] = ()
    method: str = METHOD


def explain_skipped(skipped: Mapping[str, int]) -> str:
    """Say of which classes no rows were generated, and why.

    Examples
    --------
    >>> explain_skipped({"glioma": 7})
    'no rows were generated of glioma (7 training rows), because a generator needs 10 or more'
    """
    classes = [f"{name} ({count(rows, 'training row')})" for name, rows in skipped.items()]
    return (
        f"no rows were generated of {name_some(classes)}, because a generator needs {LEAST_ROWS} "
        "or more"
    )


def check_number(generate: object) -> int:
    """Refuse a number of rows to generate that is out of range.

    Raises
    ------
    ParameterError
        It is not an integer from 0 to 10,000.

    Examples
    --------
    >>> check_number(200)
    200
    """
    is_integer = isinstance(generate, int | np.integer) and not isinstance(generate, bool)
    if not is_integer or not 0 <= int(generate) <= MOST_ROWS:  # type: ignore[call-overload]
        raise ParameterError(
            f"generate must be an integer from 0 to {MOST_ROWS:,}, rows of each class; got "
            f"{generate!r}"
        )
    return int(generate)  # type: ignore[call-overload,no-any-return]


@dataclass(frozen=True, kw_only=True, eq=False)
class _Components:
    """The principal components of the differences of rows from the means of their classes.

    Attributes
    ----------
    means : ndarray of shape (k, d)
        Mean of each class.
    scale : ndarray of shape (d,)
        Deviation of each column within the classes.
    axes : ndarray of shape (d, r)
        The directions, that of the greatest variance first.
    deviations : ndarray of shape (k, r)
        Of each component in each class.
    """

    means: Floats
    scale: Floats
    axes: Floats
    deviations: Floats

    @classmethod
    def fit(cls, X: NDArray[np.float32], y: NDArray[np.intp], n_classes: int) -> Self:
        members = [y == label for label in range(n_classes)]
        means = np.stack([X[rows].mean(axis=0, dtype=np.float64) for rows in members])
        differences = X - means[y]
        scale = differences.std(axis=0)
        scale[scale == 0] = 1.0
        differences /= scale
        variances, axes = np.linalg.eigh(differences.T @ differences / len(X))
        variances, axes = variances[::-1], axes[:, ::-1]
        rank = int((variances > _LEAST_VARIANCE * variances[0]).sum())
        rank = max(1, min(rank, len(X) - n_classes))
        variances, axes = variances[:rank], axes[:, :rank]
        squares = (differences @ axes) ** 2
        found = [
            (squares[rows].sum(axis=0) + _SHRINKAGE * variances) / (rows.sum() + _SHRINKAGE)
            for rows in members
        ]
        deviations = np.sqrt(np.stack(found))
        deviations[deviations == 0] = 1.0
        return cls(means=means, scale=scale, axes=axes, deviations=deviations)

    def apply(self, X: NDArray[np.float32], y: NDArray[np.intp], n: int) -> NDArray[np.float32]:
        """Return the first components of rows, (len(X), n), of variance 1."""
        axes = self.axes[:, :n]
        found: Floats = (X - self.means[y]) / self.scale @ axes / self.deviations[y, :n]
        return found.astype(np.float32)

    def undo(self, components: Floats, label: int) -> Floats:
        """Return rows of a class from all of their components, of variance 1."""
        differences: Floats = (components * self.deviations[label]) @ self.axes.T * self.scale
        rows: Floats = self.means[label] + differences
        return rows


def generate_rows(
    X: NDArray[np.float32],
    y: NDArray[np.int64],
    *,
    per_class: int,
    class_names: Sequence[str],
    random_state: int,
) -> tuple[NDArray[np.float32], NDArray[np.int64], Generated]:
    """Train a generator on rows, and generate further ones.

    Parameters
    ----------
    X : ndarray of shape (n, d), float32
        Training rows.
    y : ndarray of shape (n,), int64
        Class of each, an index into `class_names`.
    per_class : int
        Rows to generate of each class.
    class_names : sequence of str
    random_state : int
        Seed. The same seed and rows give the same rows on one machine.

    Returns
    -------
    tuple of (ndarray of shape (m, d), float32; ndarray of shape (m,), int64; Generated)
        Rows, class after class; their classes; and how many there are. None of a class with fewer
        than ten training rows.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> y = np.repeat([0, 1], 50)
    >>> X = np.abs(rng.standard_normal((100, 8)) + 3 * y[:, None]).astype(np.float32)
    >>> found, labels, generated = generate_rows(
    ...     X, y, per_class=20, class_names=("a", "b"), random_state=0
    ... )
    >>> found.shape, labels.tolist() == [0] * 20 + [1] * 20, bool(found.min() >= X.min())
    ((40, 8), True, True)
    >>> generated.rows
    {'a': 20, 'b': 20}
    """
    counts = np.bincount(y, minlength=len(class_names))
    labels = np.flatnonzero(counts >= LEAST_ROWS)
    generated = Generated(
        per_class=per_class,
        rows={
            name: per_class if rows >= LEAST_ROWS else 0
            for name, rows in zip(class_names, counts, strict=True)
        },
        skipped={
            name: int(rows)
            for name, rows in zip(class_names, counts, strict=True)
            if rows < LEAST_ROWS
        },
    )
    if not len(labels):
        return X[:0], y[:0], generated
    from threadpoolctl import threadpool_limits

    known = np.isin(y, labels)
    # The products are so small that threads would make them slower; and rows do not depend on how
    # many cores the process has.
    with threadpool_limits(1, user_api="blas"):
        found = _generate(
            X[known], np.searchsorted(labels, y[known]), per_class=per_class, seed=random_state
        )
    return np.concatenate(found), np.repeat(labels, per_class).astype(np.int64), generated


def _generate(
    X: NDArray[np.float32], y: NDArray[np.intp], *, per_class: int, seed: int
) -> list[NDArray[np.float32]]:
    """Generate rows of each class, from 0 to k − 1."""
    rng, n_classes = np.random.default_rng(seed), int(y.max()) + 1
    components = _Components.fit(X, y, n_classes)
    n = min(_COMPONENTS, components.axes.shape[1])
    generator = wgan.train_wgan(
        components.apply(X, y, n), y, n_classes=n_classes, rng=rng, steps=wgan.STEPS
    )
    found = []
    for label in range(n_classes):
        noise = rng.standard_normal((_REFERENCE + per_class, n), dtype=np.float32)
        given = np.zeros((len(noise), n_classes), np.float32)
        given[:, label] = 1
        leading = wgan.generate(generator, noise, given)
        rest = rng.standard_normal((len(noise), components.axes.shape[1] - n))
        rows = components.undo(np.column_stack([leading, rest]), label)
        found.append(_match_columns(rows, X[y == label], (X.min(axis=0), X.max(axis=0))))
    return found


def _match_columns(
    rows: Floats, X: NDArray[np.float32], limits: tuple[NDArray[np.float32], NDArray[np.float32]]
) -> NDArray[np.float32]:
    """Give columns the mean and variance of those of `X`, within limits.

    The first rows, which are a reference, decide how columns are shifted and stretched; the others
    are returned.
    """
    reference, rows = rows[:_REFERENCE], rows[_REFERENCE:]
    mean, deviation = X.mean(axis=0, dtype=np.float64), X.std(axis=0, dtype=np.float64)
    centre, shift, stretch = reference.mean(axis=0), mean, np.ones_like(mean)
    for _ in range(_ROUNDS):
        moved = np.clip((reference - centre) * stretch + shift, *limits)
        shift = shift + mean - moved.mean(axis=0)
        found = moved.std(axis=0)
        ratio = np.divide(deviation, found, out=np.ones_like(found), where=found > 0)
        stretch = stretch * np.clip(ratio, *_STRETCHES)
    moved = (rows - centre) * stretch + shift
    clipped: NDArray[np.float32] = np.clip(moved.astype(np.float32), *limits)
    return clipped
