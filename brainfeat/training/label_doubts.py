"""Labels in doubt: those that out-of-fold predictions or copies contradict; nothing is changed."""

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from brainfeat.arithmetic import default_errors
from brainfeat.cache.cache import FeatureCache, opened
from brainfeat.canonical import parse_json, read_record, write_record
from brainfeat.errors import ParameterError
from brainfeat.leakage.auditing import audit_duplicates
from brainfeat.leakage.results import Audit
from brainfeat.training.confident_learning import doubt_labels, find_confident_classes
from brainfeat.training.grouping import check_grouping, choose_groups
from brainfeat.training.out_of_fold import N_FOLDS, OutOfFold, predict_out_of_fold
from brainfeat.training.partition import Partition

Reason = Literal["conflicting-copy", "confident-learning"]

_ARRAYS = ("doubts", "predicted")


@dataclass(frozen=True, kw_only=True)
class LabelDoubt:
    """An image whose label is in doubt.

    Attributes
    ----------
    rank : int
        From 1. Images with conflicting copies come first, then those of confident learning, the
        least probable label first in each.
    path, split, group, label : str
        As in the table; ``""`` where it names none.
    suggested : str
        The most probable class, out of fold; ``""`` where the image was not checked. It can be the
        label itself where the label of a copy may be the wrong one.
    reason : {"conflicting-copy", "confident-learning"}
        An exact duplicate or a copy has another label, so that one of the two is wrong; or the
        image is confidently predicted as another class.
    copy : str
        Path of a copy with another label; ``""`` without one.
    probabilities : dict of str to float
        Out-of-fold probability of each class that was checked; empty where the image was not.
    """

    rank: int
    path: str
    split: str
    group: str
    label: str
    suggested: str
    reason: Reason
    copy: str
    probabilities: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class DoubtedPair:
    """How many images of one label in one split are suggested another class.

    Attributes
    ----------
    label, suggested, split : str
        As in :class:`LabelDoubt`.
    images : int
    """

    label: str
    suggested: str
    split: str
    images: int


@dataclass(frozen=True, kw_only=True)
class LabelDoubts:
    """The labels of a cache that are in doubt, the most doubtful first.

    Attributes
    ----------
    images : int
        Images that were checked; augmented views are not.
    unlabelled : int
        Images without a label, which are not checked.
    not_checked : dict of str to int
        Images of each class that has too few groups.
    fitted_on : {"all but test", "all"}
        Images that classifiers were fitted on: not those of the test split, unless there are no
        others.
    n_folds : int
        Number of folds.
    grouped_by : str
        What no fold divides, as in :class:`brainfeat.heads.record.FitRecord`.
    accuracy : float
        Fraction of the images whose most probable class is their label.
    thresholds : dict of str to float
        Mean out-of-fold probability of each class where it is the label, without test images.
    in_doubt : int
        Labels in doubt.
    conflicting_copies : int
        Those of them whose copies have another label.
    pairs : tuple of DoubtedPair
        Labels in doubt by label, suggested class and split, the most frequent first.
    doubts : tuple of LabelDoubt
        Each of them, by rank; empty in what was read from JSON.
    predicted : ndarray of shape (n,), int64
        Most probable class of each row of the cache, out of fold; −1 where the row was not checked.
    """

    images: int
    unlabelled: int
    not_checked: Mapping[str, int]
    fitted_on: Literal["all but test", "all"]
    n_folds: int
    grouped_by: str
    accuracy: float
    thresholds: Mapping[str, float]
    in_doubt: int
    conflicting_copies: int
    pairs: tuple[DoubtedPair, ...]
    doubts: tuple[LabelDoubt, ...] = ()
    predicted: Any = field(default=None, compare=False, repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Return the counts as what JSON can hold, without the images in doubt and the arrays."""
        document = write_record(self)
        return {name: value for name, value in document.items() if name not in _ARRAYS}

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read the JSON of what :meth:`to_dict` returned.

        Raises
        ------
        ParameterError
            The text is not JSON, or an attribute is missing or of another type.
        """
        return read_record(cls, parse_json(text, error=ParameterError), error=ParameterError)


@default_errors
def find_label_doubts(
    cache: FeatureCache | str | os.PathLike[str],
    *,
    audit: Audit | None = None,
    group_by: str = "auto",
    random_state: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> LabelDoubts:
    """Find the labels of a cache that out-of-fold predictions or copies contradict.

    Each image gets the probabilities of a classifier that was fitted on images of other folds.
    Folds divide no group and no copies, so copies never vote for each other. No classifier is
    fitted on test images, which are checked by the others alone. The classifier is multinomial
    logistic regression on standardised features with a strong penalty (C = 0.01), which follows
    single wrong labels less than a weaker penalty does. Confident learning (Northcutt et al. 2021,
    JAIR 70:1373) then lists the images that reach the threshold of another class than their label,
    which is how probable this class is on average where it is the label; thresholds are those of
    images that are not of the test split.

    Exact duplicates and copies of different labels are listed first, because one of the two labels
    must be wrong. The other images are those whose labels a simple classifier finds improbable:
    somebody who can read the images has to look at them. No label is changed and no image is left
    out.

    Parameters
    ----------
    cache : FeatureCache or path-like
        Pooled features with labels.
    audit : Audit or None
        An audit of the cache, whose duplicates are not looked for again; None makes one.
    group_by : {"auto", "column", "copies", "near-duplicates", "numbers:K", "none"}
        Groups that no fold divides, as in :func:`brainfeat.fit_head`.
    random_state : int
        Seed of the folds.
    progress : callable or None
        Called with the number of folds that are done, and of all folds.

    Returns
    -------
    LabelDoubts
        The labels in doubt by rank, and how many of which class and split.

    Raises
    ------
    TableError
        There are no two classes with images of five groups or more outside the test split, or the
        groups do not allow folds.
    CacheError
        The features are not finite, or the same in all rows.
    ParameterError
        The audit is that of another cache.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> from brainfeat import extract, read_table
    >>> from brainfeat.phantoms import write_phantoms
    >>> with TemporaryDirectory() as folder:
    ...     table = read_table(write_phantoms(f"{folder}/slices", patients_per_class=8, size=48))
    ...     result = extract(
    ...         table,
    ...         f"{folder}/features.h5",
    ...         backbone="mobilenet-0.75",
    ...         weights="random",
    ...         input_size=32,
    ...     )
    ...     found = find_label_doubts(result.output)
    >>> found.images, found.n_folds, found.fitted_on, found.conflicting_copies
    (128, 5, 'all but test', 0)
    """
    check_grouping(group_by)
    with opened(cache) as features:
        partition = Partition.read(features)
        if audit is None:
            audit = audit_duplicates(features)
        elif audit.content_sha256 != features.content_sha256:
            raise ParameterError(
                f"the audit is not that of {features.path}; audit this cache, or none"
            )
        grouping = choose_groups(features, group_by, audit)
        if group_by == "auto" and _divides_copies(grouping.labels, audit):
            # Unlike a fit, this needs copies together even where a chain joins them.
            grouping = choose_groups(features, "copies", audit)
        checked = predict_out_of_fold(
            partition,
            features.splits,
            grouping.labels,
            random_state=random_state,
            progress=progress,
        )
        return _describe(features, checked, audit, grouped_by=grouping.kind)


def _divides_copies(labels: NDArray[Any] | None, audit: Audit) -> bool:
    """Tell whether copies are in several groups."""
    if audit.copies is None:
        return False
    images = np.flatnonzero(audit.copy_clusters >= 0)
    clusters = audit.copy_clusters[images]
    if labels is None:
        return len(np.unique(clusters)) < len(images)
    groups = np.unique(labels[images], return_inverse=True)[1]
    pairs = np.unique(np.stack([clusters, groups], axis=1), axis=0)
    return len(pairs) > len(np.unique(clusters))


def _describe(
    cache: FeatureCache, checked: OutOfFold, audit: Audit, *, grouped_by: str
) -> LabelDoubts:
    names, labels = cache.class_names, cache.y[cache.is_image]
    confident = find_confident_classes(checked.probabilities, checked.y, counted=checked.fitted)
    in_doubt = doubt_labels(checked.probabilities, checked.y, confident.classes)
    best = checked.probabilities.argmax(axis=1)
    predicted = np.full(len(cache), -1, np.int64)
    predicted[checked.rows] = checked.classes[best]
    doubts = tuple(_rank_doubts(cache, checked, in_doubt, audit))
    thresholds = zip(checked.classes, confident.thresholds, strict=True)
    return LabelDoubts(
        images=len(checked.rows),
        unlabelled=int((labels < 0).sum()),
        not_checked={
            names[label]: int((labels == label).sum())
            for label in np.setdiff1d(labels[labels >= 0], checked.classes)
        },
        fitted_on="all" if checked.fitted.all() else "all but test",
        n_folds=N_FOLDS,
        grouped_by=grouped_by,
        accuracy=float((best == checked.y).mean()),
        thresholds={names[label]: float(value) for label, value in thresholds},
        in_doubt=len(doubts),
        conflicting_copies=sum(doubt.reason == "conflicting-copy" for doubt in doubts),
        pairs=tuple(_count_pairs(doubts)),
        doubts=doubts,
        predicted=predicted,
    )


def _rank_doubts(
    cache: FeatureCache, checked: OutOfFold, in_doubt: NDArray[np.bool_], audit: Audit
) -> Iterator[LabelDoubt]:
    """Yield the labels in doubt: those of conflicting copies, then the least probable ones."""
    paths = cache.paths
    conflicts = _find_conflicts(audit)
    place = {int(row): number for number, row in enumerate(checked.rows)}
    own = checked.probabilities[np.arange(len(checked.y)), checked.y]
    names = [cache.class_names[label] for label in checked.classes]
    conflicting = np.flatnonzero(cache.is_image & np.isin(paths, list(conflicts)))
    rows = np.union1d(conflicting, checked.rows[in_doubt]).tolist()
    # An image that was not checked comes last.
    certainty = {row: own[place[row]] if row in place else 1.0 for row in rows}
    rows.sort(key=lambda row: (paths[row] not in conflicts, certainty[row], row))
    for rank, row in enumerate(rows, 1):
        path = str(paths[row])
        found = checked.probabilities[place[row]] if row in place else None
        yield LabelDoubt(
            rank=rank,
            path=path,
            split=str(cache.splits[row]),
            group=str(cache.groups[row]),
            label=cache.class_names[cache.y[row]],
            suggested="" if found is None else names[found.argmax()],
            reason="conflicting-copy" if path in conflicts else "confident-learning",
            copy=conflicts.get(path, ""),
            probabilities={} if found is None else dict(zip(names, map(float, found), strict=True)),
        )


def _find_conflicts(audit: Audit) -> dict[str, str]:
    """Find the images with a copy of another label: the path of one such copy by their path."""
    found: dict[str, str] = {}
    for conflict in audit.label_conflicts:
        if conflict.kind == "near-duplicates":  # which may show different things
            continue
        images = list(zip(conflict.paths, conflict.labels, strict=True))
        for path, label in images:
            found.setdefault(path, next(copy for copy, other in images if other != label))
    return found


def _count_pairs(doubts: Iterable[LabelDoubt]) -> Iterator[DoubtedPair]:
    counts = Counter((doubt.label, doubt.suggested, doubt.split) for doubt in doubts)
    for (label, suggested, split), images in sorted(
        counts.items(), key=lambda entry: (-entry[1], entry[0])
    ):
        yield DoubtedPair(label=label, suggested=suggested, split=split, images=images)
