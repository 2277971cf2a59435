"""Stratified and grouped splits and folds of labelled rows; deterministic in the random state.

Splits and folds are both parts that one search draws: scikit-learn has no hold-out that is
stratified and grouped at once, and its ``StratifiedGroupKFold`` can leave a class out of a fold.

Without groups, the number of rows of each class in each part is within one row of its target. With
groups that hold one class each, it is within the size of the largest group of the class, and
usually closer, because the best of several random orders is kept.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from brainfeat.arithmetic import default_errors
from brainfeat.errors import TableError

IntArray = npt.NDArray[np.intp]
FloatArray = npt.NDArray[np.float64]

TRAIN = "train"
HELD_OUT = ("val", "test")

# Random orders that are tried until every class is within a row of its target; more than eight
# gained less than 0.5 % of a class on simulated patients. With many units, one order comes close,
# and eight would be slow.
_TRIALS = 8
_TRIED_UNITS = 40_000
# Passes of the greedy filling, which converges in two or three.
_PASSES = 8
# Weight of a part's size against its class counts: enough to break ties between equal counts.
_SIZE_WEIGHT = 1e-3
# Rounding must not count as an improvement, or the search might never end.
_TOLERANCE = 1e-12


@default_errors
def split_rows(
    y: npt.ArrayLike,
    *,
    fractions: Mapping[str, float],
    groups: npt.ArrayLike | None = None,
    class_names: Sequence[str] | None = None,
    random_state: int = 0,
) -> npt.NDArray[np.str_]:
    """Assign each row to train, val or test, stratified by class and with whole groups.

    Parameters
    ----------
    y : array-like of int, shape (n,)
        Class of each row, from 0.
    fractions : mapping of str to float
        Fraction of the rows in each held-out split, such as ``{"val": 0.15, "test": 0.15}``; the
        rest is ``"train"``. The keys are ``"val"``, ``"test"`` or both; each fraction is above 0,
        and their sum is below 1.
    groups : array-like of str or int, shape (n,), optional
        Rows of one group go to one split. Rows with the group ``""`` belong to no group.
    class_names : sequence of str, optional
        Names of the classes, for messages.
    random_state : int, default=0
        Seed; the same arguments give the same split.

    Returns
    -------
    ndarray of str, shape (n,)
        ``"train"``, ``"val"`` or ``"test"``. Every class has a row in every split.

    Raises
    ------
    TableError
        If an argument has the wrong shape or range, or a class has fewer rows (or groups) than
        there are splits.

    Examples
    --------
    >>> splits = split_rows([0] * 20 + [1] * 40, fractions={"val": 0.15, "test": 0.15})
    >>> {name: int((splits == name).sum()) for name in ("train", "val", "test")}
    {'train': 42, 'val': 9, 'test': 9}
    """
    labels = _check_labels(y)
    _check_fractions(fractions)
    names = [TRAIN, *fractions]
    targets = [1.0 - sum(fractions.values()), *fractions.values()]
    units = _number_units(labels, groups)
    shortage = _find_shortage(units, class_names, needed=len(names))
    if shortage:
        raise TableError(
            f"{shortage}; a split into {', '.join(names)} needs {len(names)}: "
            "add images, ask for fewer splits or leave the class out"
        )
    part = _draw_parts(units.counts, targets, np.random.default_rng(random_state))
    return np.array(names)[part[units.of_row]]


def make_folds(
    y: npt.ArrayLike,
    *,
    n_folds: int,
    groups: npt.ArrayLike | None = None,
    class_names: Sequence[str] | None = None,
    random_state: int = 0,
) -> list[tuple[IntArray, IntArray]]:
    """Make stratified folds of whole groups, in the form that scikit-learn's ``cv=`` takes.

    Parameters
    ----------
    y : array-like of int, shape (n,)
        Class of each row, from 0.
    n_folds : int
        Number of folds, at least 2.
    groups : array-like of str or int, shape (n,), optional
        Rows of one group are in one fold. Rows with the group ``""`` belong to no group.
    class_names : sequence of str, optional
        Names of the classes, for messages.
    random_state : int, default=0
        Seed; the same arguments give the same folds.

    Returns
    -------
    list of (train, test)
        Ascending row indices of each fold, as int arrays. Each row is in the test rows of one fold,
        and each class in those of every fold.

    Raises
    ------
    TableError
        If an argument has the wrong shape or range, or a class has fewer rows (or groups) than
        there are folds.

    Examples
    --------
    >>> y, patients = [0, 0, 0, 1, 1, 1], ["a", "a", "b", "c", "d", "d"]
    >>> folds = make_folds(y, n_folds=2, groups=patients)
    >>> sorted(test.tolist() for train, test in folds)
    [[0, 1, 4, 5], [2, 3]]
    """
    labels = _check_labels(y)
    if n_folds < 2:
        raise TableError(f"n_folds must be at least 2, got {n_folds}: pass 2 or more")
    units = _number_units(labels, groups)
    shortage = _find_shortage(units, class_names, needed=n_folds)
    if shortage:
        raise TableError(
            f"{shortage}; {n_folds} folds need {n_folds}: "
            "ask for fewer folds, add images or leave the class out"
        )
    part = _draw_parts(units.counts, [1.0 / n_folds] * n_folds, np.random.default_rng(random_state))
    fold = part[units.of_row]
    return [(np.flatnonzero(fold != k), np.flatnonzero(fold == k)) for k in range(n_folds)]


def count_folds(y: npt.ArrayLike, *, groups: npt.ArrayLike | None = None) -> int:
    """Count the groups, or rows, of the class that has the fewest: the most folds that can be made.

    Examples
    --------
    >>> count_folds([0, 0, 0, 1, 1, 1], groups=["a", "a", "b", "c", "d", "e"])
    2
    """
    units = _number_units(_check_labels(y), groups)
    return int((units.counts > 0).sum(axis=0).min())


class _Units(NamedTuple):
    """Rows that stay together: a group, or a row that has none."""

    of_row: IntArray
    counts: FloatArray  # (units, classes): rows
    classes: IntArray  # the label that each column of counts stands for
    grouped: bool


def _check_labels(y: npt.ArrayLike) -> IntArray:
    labels = np.asarray(y)
    if labels.ndim != 1 or labels.size == 0:
        raise TableError(f"y must be a non-empty array of shape (n,), got shape {labels.shape}")
    if labels.dtype.kind not in "iu":
        raise TableError(f"y must hold class indices (int), got dtype {labels.dtype}")
    if labels.min() < 0:
        raise TableError("y holds negative labels; leave unlabelled rows out before splitting")
    return labels.astype(np.intp)


def _check_fractions(fractions: Mapping[str, float]) -> None:
    if not fractions or not set(fractions) <= set(HELD_OUT):
        raise TableError(f"fractions must name 'val', 'test' or both, got {list(fractions)}")
    if not all(value > 0 for value in fractions.values()) or not sum(fractions.values()) < 1:
        raise TableError(
            f"fractions {dict(fractions)}; expected each above 0 and their sum below 1, so that "
            "rows are left to train on"
        )


def _check_groups(groups: npt.ArrayLike, n: int) -> npt.NDArray[Any]:
    values = np.asarray(groups)
    if values.shape != (n,):
        raise TableError(f"groups must have shape ({n},), as y has, got shape {values.shape}")
    if values.dtype.kind == "O" and all(isinstance(value, str) for value in values):
        values = values.astype(np.str_)
    if values.dtype.kind not in "Uiu":
        raise TableError(
            f"groups must be strings or integers, got dtype {values.dtype}; write '' for no group"
        )
    return values


def _number_units(labels: IntArray, groups: npt.ArrayLike | None) -> _Units:
    classes, column = np.unique(labels, return_inverse=True)
    of_row, grouped = np.arange(labels.size), np.zeros(labels.size, dtype=bool)
    if groups is not None:
        values = _check_groups(groups, labels.size)
        grouped = values != "" if values.dtype.kind == "U" else ~grouped
        # Above the row numbers, which stay the units of rows without a group.
        of_row[grouped] = labels.size + np.unique(values[grouped], return_inverse=True)[1]
        of_row = np.unique(of_row, return_inverse=True)[1]
    counts = np.zeros((int(of_row.max()) + 1, classes.size))
    np.add.at(counts, (of_row, column), 1.0)
    return _Units(of_row, counts, classes, bool(grouped.any()))


def _find_shortage(units: _Units, class_names: Sequence[str] | None, *, needed: int) -> str:
    """Name the class that has too few units to be in every part; "" if there is none."""
    available = (units.counts > 0).sum(axis=0)
    worst = int(available.argmin())
    found, label = int(available[worst]), int(units.classes[worst])
    if found >= needed:
        return ""
    named = class_names is not None and label < len(class_names)
    name = repr(class_names[label]) if class_names is not None and named else str(label)
    if units.grouped:
        plural = "s" if found != 1 else ""
        return f"class {name} has images of {found} group{plural} of patients or copies"
    return f"class {name} has {found} image{'s' if found != 1 else ''}"


def _draw_parts(counts: FloatArray, targets: Sequence[float], rng: np.random.Generator) -> IntArray:
    """Assign each unit to a part, by the best of several random orders."""
    search = _Search(counts, targets)
    best, best_score = np.zeros(len(counts), dtype=np.intp), (np.inf, np.inf)
    for _ in range(min(_TRIALS, 1 + _TRIED_UNITS // len(counts))):
        part = search.improve(search.fill(rng.permutation(len(counts))))
        score = search.score(part)
        if score < best_score:
            best, best_score = part, score
        if search.is_exact(best):
            break
    if best_score[0] > 0:
        raise TableError(
            "no split was found that keeps every group whole and has every class in every part, "
            "because groups hold several classes; ask for fewer splits or folds, or add images of "
            "new groups"
        )
    return best


class _Search:
    """Greedy filling, then single moves, toward the target counts of all parts at once.

    A score is (classes missing in parts, squared distance of the counts from their targets, as
    fractions of the class); lower is better, compared in this order.
    """

    def __init__(self, counts: FloatArray, targets: Sequence[float]) -> None:
        self.present = (counts > 0).astype(np.float64)
        # One more column, the rows of all classes, so that no part gets the odd row of every class.
        self.counts = np.column_stack([counts, counts.sum(axis=1)])
        total = self.counts.sum(axis=0)
        self.target = np.outer(targets, total)
        self.weight = np.append(np.ones(counts.shape[1]), _SIZE_WEIGHT) / total**2
        self.weighted = self.counts * self.weight

    def fill(self, order: IntArray) -> IntArray:
        """Put each unit, in the given order, into the part that lacks most of its classes."""
        # Not the largest first: with unequal targets that would send every large group to train.
        part = np.full(len(self.counts), -1, dtype=np.intp)
        excess = -self.target
        for _ in range(_PASSES):
            before = part.copy()
            for unit in order:
                if part[unit] >= 0:
                    excess[part[unit]] -= self.counts[unit]
                part[unit] = (excess @ self.weighted[unit]).argmin()
                excess[part[unit]] += self.counts[unit]
            if (part == before).all():
                break
        return part

    def improve(self, part: IntArray) -> IntArray:
        """Move the unit that improves the score most, until no move does."""
        part = part.copy()
        while True:
            missing, distance = self._weigh_moves(part)
            best = np.lexsort((distance.ravel(), missing.ravel()))[0]
            if (missing.flat[best], distance.flat[best]) >= (0.0, -_TOLERANCE):
                return part
            unit, to = divmod(int(best), len(self.target))
            part[unit] = to

    def score(self, part: IntArray) -> tuple[float, float]:
        """Return how many classes parts lack, and how far the counts are from the targets."""
        member = self._mark_members(part)
        excess = member.T @ self.counts - self.target
        return float((member.T @ self.present == 0).sum()), float((excess**2 @ self.weight).sum())

    def is_exact(self, part: IntArray) -> bool:
        """Return whether no class of any part is off by a whole row, and none is missing."""
        excess = (self._mark_members(part).T @ self.counts - self.target)[:, :-1]
        return self.score(part)[0] == 0 and bool((abs(excess) < 1.0).all())

    def _weigh_moves(self, part: IntArray) -> tuple[FloatArray, FloatArray]:
        """Return what each move adds to the two values of the score, each (units, parts)."""
        member = self._mark_members(part)
        excess = member.T @ self.counts - self.target
        units = member.T @ self.present
        # Moving v from excess a to excess b: |b + v|² + |a - v|² - |b|² - |a|² = 2 v·(b - a + v).
        pull = self.weighted @ excess.T
        own_pull = (pull * member).sum(axis=1, keepdims=True)
        size = (self.weighted * self.counts).sum(axis=1, keepdims=True)
        distance = 2.0 * (pull - own_pull + size)
        lost = ((self.present @ (units == 1).T) * member).sum(axis=1, keepdims=True)
        missing = lost - self.present @ (units == 0).T
        distance[member > 0] = missing[member > 0] = 0.0
        return missing, distance

    def _mark_members(self, part: IntArray) -> FloatArray:
        return np.eye(len(self.target))[part]
