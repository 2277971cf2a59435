"""The groups of a cache, such as patients: which rows belong to each, and its class and split."""

import re
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from brainfeat.errors import ParameterError, TableError
from brainfeat.text import count

Rows = NDArray[np.intp]

# How a group gets its class: all of its rows have the same one, or any row of a class decides.
SAME_LABEL = "same"
_ANY_LABEL = re.compile(r"any:(.+)", re.DOTALL)


@dataclass(frozen=True, kw_only=True, eq=False)
class GroupRows:
    """The rows of each of n groups, in the order in which the groups first appear.

    Attributes
    ----------
    names : ndarray of shape (n,), str
        Name of each group.
    rows : ndarray of shape (m,), int
        Rows of the cache, group after group, in ascending order within a group.
    offsets : ndarray of shape (n + 1,), int
        The rows of group i are ``rows[offsets[i]:offsets[i + 1]]``.
    y : ndarray of shape (n,), int64
        Class of each group, an index into the classes of the cache.
    splits : ndarray of shape (n,), str
        Split of each group; ``""`` without splits.
    """

    names: NDArray[np.str_]
    rows: Rows
    offsets: Rows
    y: NDArray[np.int64]
    splits: NDArray[np.str_]

    def __len__(self) -> int:
        return len(self.names)

    @property
    def first(self) -> Rows:
        """The first row of each group, (n,) int."""
        return self.rows[self.offsets[:-1]]

    @property
    def sizes(self) -> Rows:
        """Number of rows of each group, (n,) int."""
        return np.diff(self.offsets)

    @property
    def place(self) -> Rows:
        """The group of each of `rows`, (m,) int, an index into `names`."""
        return np.repeat(np.arange(len(self)), self.sizes)

    def rows_of(self, groups: Rows) -> Rows:
        """Return the rows of some groups, one group after another.

        Parameters
        ----------
        groups : ndarray of int
            Indices of groups.

        Returns
        -------
        ndarray of int
        """
        return self.rows[list_places(self.offsets, groups)]

    def select(self, chosen: NDArray[np.bool_]) -> "GroupRows":
        """Return the chosen groups alone.

        Parameters
        ----------
        chosen : ndarray of shape (n,), bool

        Returns
        -------
        GroupRows
        """
        return GroupRows(
            names=self.names[chosen],
            rows=self.rows_of(np.flatnonzero(chosen)),
            offsets=np.concatenate([[0], np.cumsum(self.sizes[chosen])]),
            y=self.y[chosen],
            splits=self.splits[chosen],
        )

    def any(self, flags: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Return which groups have a row that is flagged.

        Parameters
        ----------
        flags : ndarray of shape (m,), bool
            A flag for each of `rows`.

        Returns
        -------
        ndarray of shape (n,), bool
        """
        found: NDArray[np.bool_] = np.logical_or.reduceat(flags, self.offsets[:-1])
        return found

    def any_of(self, groups: Rows, flags: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Return which of some groups have a row that is flagged.

        Parameters
        ----------
        groups : ndarray of shape (k,), int
            Indices of groups.
        flags : ndarray of bool
            A flag for each of ``rows_of(groups)``.

        Returns
        -------
        ndarray of shape (k,), bool
        """
        place = np.repeat(np.arange(len(groups)), self.sizes[groups])
        return np.bincount(place[flags], minlength=len(groups)) > 0

    def check_sources(self, sources: NDArray[np.str_]) -> None:
        """Refuse groups with images of several sources.

        Parameters
        ----------
        sources : ndarray of str
            Source of each row of the cache.

        Raises
        ------
        TableError
            The message names the first such group.
        """
        own = sources[self.rows]
        mixed = np.flatnonzero(self.any(own != sources[self.first][self.place]))
        if len(mixed):
            raise TableError(
                f"{count(len(mixed), 'group')} of {len(self):,} have images of several sources "
                f"(first: {str(self.names[mixed[0]])!r}); a group that is one example has one "
                "source: correct the table"
            )

    def mean(self, values: NDArray[np.floating]) -> NDArray[np.float64]:
        """Average what is given for each row over each group.

        Parameters
        ----------
        values : ndarray of shape (m, …), float
            A value for each of `rows`.

        Returns
        -------
        ndarray of shape (n, …), float64
        """
        sums = np.add.reduceat(np.asarray(values, np.float64), self.offsets[:-1], axis=0)
        sizes = self.sizes.reshape(-1, *[1] * (sums.ndim - 1))
        means: NDArray[np.float64] = sums / sizes
        return means


class Grouped(Protocol):
    """A cache, or what else has these columns."""

    @property
    def path(self) -> object:
        """What to name in messages."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes."""

    @property
    def groups(self) -> NDArray[np.str_]:
        """Group of each row; ``""`` for none."""

    @property
    def splits(self) -> NDArray[np.str_]:
        """Split of each row; ``""`` for none."""

    @property
    def y(self) -> NDArray[np.int64]:
        """Class of each row, an index into `class_names`."""


def read_groups(cache: Grouped, rows: Rows, *, label: str = SAME_LABEL) -> GroupRows:
    """Read which of some rows belong to each group of the table.

    Parameters
    ----------
    cache : FeatureCache, or what else has these columns
    rows : ndarray of int
        Labelled rows, such as those of view 0.
    label : str
        How a group gets its class: ``"same"``, all of its rows have the same one; or
        ``"any:CLASS"``, a group with a row of this class has it, and the others as by ``"same"``.

    Returns
    -------
    GroupRows

    Raises
    ------
    TableError
        The table has no groups, or rows without one; or a group has rows of several classes, or of
        several splits.
    ParameterError
        `label` is not such a rule, or names no class of the cache.
    """
    decisive = find_decisive_class(label, cache.class_names)
    names = cache.groups[rows]
    if not len(rows):
        raise TableError(f"{cache.path} has no labelled images; extract a table with labels")
    if (names == "").all():
        raise TableError(
            f"{cache.path} has no groups, such as patients; give the table a group column"
        )
    if missing := int((names == "").sum()):
        raise TableError(
            f"{cache.path} has {count(missing, 'image')} without a group; expected one for each of "
            f"{len(rows):,}, such as the patient; give them one in the group column, or leave them "
            "out of the table"
        )
    found, first, place = np.unique(names, return_index=True, return_inverse=True)
    rank = np.empty(len(found), np.intp)
    rank[np.argsort(first)] = np.arange(len(found))
    order = np.argsort(rank[place], kind="stable")
    sizes = np.bincount(rank[place], minlength=len(found))
    ordered, offsets = rows[order], np.concatenate([[0], np.cumsum(sizes)])
    found = found[np.argsort(rank)]
    return GroupRows(
        names=found,
        rows=ordered,
        offsets=offsets,
        y=_choose_labels(cache, ordered, offsets, found, decisive),
        splits=_choose_splits(cache, ordered, offsets, found),
    )


def find_decisive_class(label: object, class_names: tuple[str, ...]) -> int | None:
    """Read the rule by which a group gets its class.

    Parameters
    ----------
    label : str
        As of :func:`read_groups`.
    class_names : tuple of str
        The classes.

    Returns
    -------
    int or None
        The class of which one row decides; None for ``"same"``.

    Raises
    ------
    ParameterError
        `label` is not such a rule, or names another class.

    Examples
    --------
    >>> find_decisive_class("any:glioma", ("notumor", "glioma"))
    1
    """
    if label == SAME_LABEL:
        return None
    match = _ANY_LABEL.fullmatch(label) if isinstance(label, str) else None
    if match is None or match[1] not in class_names:
        raise ParameterError(
            f"the label of a group is {label!r}; expected same, or any:CLASS with one of the "
            f"classes {', '.join(class_names)}"
        )
    return class_names.index(match[1])


def list_places(offsets: Rows, groups: Rows) -> Rows:
    """List the places of the members of some groups, which lie between offsets.

    Parameters
    ----------
    offsets : ndarray of shape (n + 1,), int
    groups : ndarray of int
        Indices of groups, in any order.

    Returns
    -------
    ndarray of int

    Examples
    --------
    >>> list_places(np.array([0, 2, 5]), np.array([1, 0])).tolist()
    [2, 3, 4, 0, 1]
    """
    sizes = np.diff(offsets)[groups]
    ends = np.cumsum(sizes)
    shifts: Rows = np.repeat(offsets[groups] - (ends - sizes), sizes)
    return np.arange(int(sizes.sum())) + shifts


def _choose_labels(
    cache: Grouped,
    rows: Rows,
    offsets: Rows,
    names: NDArray[np.str_],
    decisive: int | None,
) -> NDArray[np.int64]:
    labels, starts = cache.y[rows], offsets[:-1]
    low, high = np.minimum.reduceat(labels, starts), np.maximum.reduceat(labels, starts)
    decided = np.zeros(len(names), np.bool_)
    if decisive is not None:
        decided = np.logical_or.reduceat(labels == decisive, starts)
    mixed = np.flatnonzero((low != high) & ~decided)
    if len(mixed):
        group = mixed[0]
        own = np.unique(labels[offsets[group] : offsets[group + 1]])
        classes = " and ".join(repr(cache.class_names[label]) for label in own)
        raise TableError(
            f"{count(len(mixed), 'group')} of {len(names):,} have images of several classes "
            f"(first: {str(names[group])!r}, {classes}); the class belongs to the group: correct "
            f"the table, or pass a rule such as any:{cache.class_names[own[-1]]}"
        )
    chosen: NDArray[np.int64] = np.where(decided, -1 if decisive is None else decisive, low)
    return chosen


def _choose_splits(
    cache: Grouped, rows: Rows, offsets: Rows, names: NDArray[np.str_]
) -> NDArray[np.str_]:
    splits = cache.splits[rows]
    first = splits[offsets[:-1]]
    other = splits != np.repeat(first, np.diff(offsets))
    if other.any():
        place = np.repeat(np.arange(len(names)), np.diff(offsets))[other]
        group = place[0]
        one, second = str(first[group]), str(splits[other][0])
        raise TableError(
            f"{count(len(np.unique(place)), 'group')} of {len(names):,} have images in several "
            f"splits (first: {str(names[group])!r}, in {one!r} and {second!r}); a group, such as a "
            "patient, belongs to one: correct the table, or divide it with brainfeat split"
        )
    return first
