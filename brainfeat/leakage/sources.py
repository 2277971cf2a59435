"""Sources, such as hospitals, that are left out of a fit one at a time to test it on them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from brainfeat.errors import TableError
from brainfeat.text import count, name_some

Rows = NDArray[np.intp]

# Fraction of the images of a class from one source, from which on the class is taken to be of that
# source; and of the images of a source, to be of that class.
_NEARLY_ALL = 0.95


@dataclass(frozen=True, kw_only=True)
class ClassSource:
    """A class nearly all of whose images are of one source.

    Attributes
    ----------
    name : str
        The class.
    source : str
    images, of : int
        Its images of this source, and all of its images that have a source.
    alone : bool
        Whether nearly all images of the source are of this class: the class has a source of its
        own.
    """

    name: str
    source: str
    images: int
    of: int
    alone: bool

    def explain(self) -> str:
        """Explain why the class cannot be evaluated by leaving sources out."""
        every = "all" if self.images == self.of else f"{self.images:,} of"
        of = f"{every} {self.of:,} images of class {self.name!r} are of source {self.source!r}"
        if self.alone:
            return (
                f"{of}, which has hardly any others: a head can tell the class by its source, and "
                "what it knows of the class itself cannot be evaluated by leaving sources out"
            )
        return (
            f"{of}: without this source too few are left to learn the class from, so it cannot be "
            "evaluated by leaving sources out"
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class SourceFold:
    """A source that is left out.

    Attributes
    ----------
    source : str
    train, test : ndarray of int
        Images of other sources, and of this one.
    dropped : int
        Images of other sources that are in neither, because they are in a group, such as one of
        copies, with an image of this source.
    reason : str or None
        Why nothing can be fitted on the others.
    """

    source: str
    train: Rows
    test: Rows
    dropped: int
    reason: str | None


@dataclass(frozen=True, kw_only=True, eq=False)
class SourceFolds:
    """Sources that are left out one at a time.

    Attributes
    ----------
    folds : tuple of SourceFold
        In the order of their names; two or more of them without a `reason`.
    not_evaluated : tuple of ClassSource
        Classes that leaving sources out cannot evaluate.
    without_source : int
        Images without a source, which are in no fold.
    """

    folds: tuple[SourceFold, ...]
    not_evaluated: tuple[ClassSource, ...]
    without_source: int


def find_class_sources(
    y: ArrayLike, sources: ArrayLike, class_names: Sequence[str]
) -> tuple[ClassSource, ...]:
    """Find the classes that have nearly all of their images from one source.

    A class folder that was collected in another place than the others is such a class; hospitals
    that have images of every class make none.

    Parameters
    ----------
    y : array-like of int, shape (n,)
        Class of each image; −1 is unknown.
    sources : array-like of str, shape (n,)
        ``""`` is unknown.
    class_names : sequence of str

    Returns
    -------
    tuple of ClassSource
        In the order of the classes; those of 95 % of their images or more. Empty where there are
        not two sources.

    Examples
    --------
    >>> y, sources = [0, 0, 1, 1, 2, 2], ["north", "south", "north", "south", "web", "web"]
    >>> [found.name for found in find_class_sources(y, sources, ["glioma", "pituitary", "none"])]
    ['none']
    """
    labels, origins = np.asarray(y), np.asarray(sources)
    known = (labels >= 0) & (origins != "")
    names, place = np.unique(origins[known], return_inverse=True)
    if len(names) < 2:
        return ()
    counts = np.zeros((len(class_names), len(names)), np.intp)
    np.add.at(counts, (labels[known], place), 1)
    found = []
    for name, own in zip(class_names, counts, strict=True):
        most, total = int(own.argmax()), int(own.sum())
        if total and own[most] >= _NEARLY_ALL * total:
            alone = own[most] >= _NEARLY_ALL * counts[:, most].sum()
            found.append(
                ClassSource(
                    name=name,
                    source=str(names[most]),
                    images=int(own[most]),
                    of=total,
                    alone=bool(alone),
                )
            )
    return tuple(found)


def make_source_folds(
    y: ArrayLike, sources: ArrayLike, *, groups: ArrayLike | None, class_names: Sequence[str]
) -> SourceFolds:
    """Leave each source out in turn: its images are tested, and those of others are fitted on.

    Images without a source are in no fold, because they may be of the one that is left out.

    Parameters
    ----------
    y : array-like of int, shape (n,)
        Class of each image.
    sources : array-like of str, shape (n,)
        ``""`` is unknown.
    groups : array-like of str or int, shape (n,), or None
        Images of one group, such as copies, are never on both sides; ``""`` is no group.
    class_names : sequence of str

    Returns
    -------
    SourceFolds

    Raises
    ------
    TableError
        There are no sources or only one, every class has nearly all of its images from one source,
        or fewer than two sources can be left out.

    Examples
    --------
    >>> y, sources = [0, 0, 1, 0, 1, 0], ["north"] * 3 + ["south"] * 3
    >>> groups = ["p1", "", "", "", "", "p1"]
    >>> found = make_source_folds(y, sources, groups=groups, class_names=["glioma", "none"])
    >>> [(fold.source, fold.train.tolist(), fold.dropped) for fold in found.folds]
    [('north', [3, 4], 1), ('south', [1, 2], 1)]
    """
    from sklearn.model_selection import LeaveOneGroupOut

    labels, origins = np.asarray(y), np.asarray(sources)
    known = np.flatnonzero(origins != "")
    _check_sources(origins)
    not_evaluated = _find_concentrated(labels, origins, class_names)
    sides = LeaveOneGroupOut().split(known, groups=origins[known])
    folds = tuple(
        _make_fold(
            labels, origins, known[train], known[test], groups=groups, class_names=class_names
        )
        for train, test in sides
    )
    if sum(fold.reason is None for fold in folds) < 2:
        reasons = name_some([f"{fold.source!r} ({fold.reason})" for fold in folds if fold.reason])
        raise TableError(
            f"fewer than two of {count(len(folds), 'source')} can be left out: {reasons}; add "
            "images of these classes from other sources, or leave out one source by a split"
        )
    return SourceFolds(
        folds=folds, not_evaluated=not_evaluated, without_source=len(labels) - len(known)
    )


def leave_source_out(
    y: ArrayLike,
    sources: ArrayLike,
    source: str,
    *,
    groups: ArrayLike | None,
    class_names: Sequence[str],
) -> SourceFold:
    """Leave one source out: its images are tested, and those of others are fitted on.

    Parameters
    ----------
    y, sources, groups, class_names
        As of :func:`make_source_folds`.
    source : str
        The source; ``""`` is an error that lists those that there are.

    Returns
    -------
    SourceFold

    Raises
    ------
    TableError
        There are no sources or only one, it is none of them, or what is left has no image of a
        class.
    """
    labels, origins = np.asarray(y), np.asarray(sources)
    check_source(origins, source)
    known = np.flatnonzero(origins != "")
    test = known[origins[known] == source]
    rest = np.setdiff1d(known, test)
    fold = _make_fold(labels, origins, rest, test, groups=groups, class_names=class_names)
    if fold.reason is not None:
        raise TableError(f"source {source!r} cannot be left out: {fold.reason}; name another one")
    return fold


def check_source(sources: NDArray[np.str_], source: str) -> None:
    """Refuse to leave out a source that is none of several.

    Parameters
    ----------
    sources : ndarray of str, shape (n,)
    source : str
        As of :func:`leave_source_out`.

    Raises
    ------
    TableError
        There are no sources or only one, or it is none of them.
    """
    _check_sources(sources)
    names, counts = np.unique(sources[sources != ""], return_counts=True)
    if source not in names:
        order = np.argsort(-counts, kind="stable")
        listed = name_some([f"{names[place]} ({counts[place]:,})" for place in order])
        given = f"no image is of source {source!r}" if source else "a source to leave out is needed"
        raise TableError(
            f"{given}; name one of those that there are, such as source={names[order[0]]}: {listed}"
        )


def _make_fold(
    y: NDArray[np.integer],
    sources: NDArray[np.str_],
    train: Rows,
    test: Rows,
    *,
    groups: ArrayLike | None,
    class_names: Sequence[str],
) -> SourceFold:
    kept = train
    if groups is not None:
        labels = np.asarray(groups)
        shared = np.isin(labels[train], labels[test])
        if labels.dtype.kind == "U":
            shared &= labels[train] != ""
        kept = train[~shared]
    missing = [
        name
        for label, name in enumerate(class_names)
        if (y == label).any() and label not in y[kept]
    ]
    without = "without it" if len(kept) == len(train) else "without it and the groups that it is in"
    return SourceFold(
        source=str(sources[test[0]]),
        train=kept,
        test=test,
        dropped=len(train) - len(kept),
        reason=f"{without} no image of {name_some(missing)} is left" if missing else None,
    )


def _check_sources(sources: NDArray[np.str_]) -> None:
    names = np.unique(sources[sources != ""])
    if not len(names):
        raise TableError("no image has a source; give the table that was extracted a source column")
    if len(names) == 1:
        raise TableError(
            f"all images that have a source are of {str(names[0])!r}; to leave one out, two or "
            "more are needed"
        )


def _find_concentrated(
    y: NDArray[np.integer], sources: NDArray[np.str_], class_names: Sequence[str]
) -> tuple[ClassSource, ...]:
    """Find the classes that cannot be evaluated; if each has a source of its own, none can."""
    found = find_class_sources(y, sources, class_names)
    if found and len(found) == len(np.unique(y)) and all(entry.alone for entry in found):
        raise TableError(
            f"each class has a source of its own, such as {found[0].name!r} with "
            f"{found[0].source!r}: leaving one out leaves nothing to learn its class from; images "
            "of one class from several sources are needed"
        )
    return found
