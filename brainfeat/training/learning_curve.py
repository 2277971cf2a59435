"""Learning curves: a head on more and more groups, measured on the same test images."""

import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainfeat.arithmetic import default_errors
from brainfeat.cache.cache import FeatureCache, opened
from brainfeat.errors import ParameterError, TableError
from brainfeat.evaluation.growth import (
    CurvePoint,
    FitMetrics,
    FitSpread,
    Gain,
    LearningCurve,
    estimate_gain,
)
from brainfeat.heads.calibration import softmax
from brainfeat.heads.kinds import parse_ensemble, takes_maps
from brainfeat.heads.recipe import HeadRecipe
from brainfeat.leakage.auditing import audit_duplicates
from brainfeat.metrics import Metrics, measure
from brainfeat.training.bagging import choose_head, make_rule
from brainfeat.training.block_votes import choose_ensemble
from brainfeat.training.candidates import ALL_HEADS, make_recipes
from brainfeat.training.fits import Progress
from brainfeat.training.fitting import check_options
from brainfeat.training.grouping import check_grouping, choose_groups, number_groups
from brainfeat.training.measurement import find_copied
from brainfeat.training.partition import Partition, Rows
from brainfeat.training.selection import list_skipped, score_folds

REPEATS = 5
# Heads that draw random numbers; the others learn the same from the same images.
_DRAWING = ("attention", "dense", "hist-gradient-boosting", "linear-svm", "random-forest")
_SEED_LIMIT = 2**32


@dataclass(frozen=True, kw_only=True)
class _Fit:
    """A fit that was measured.

    Attributes
    ----------
    images : int
        Images that it was fitted on.
    probabilities : ndarray of shape (n, k), float64, or None
        Of the test images, not calibrated, which no metric here depends on.
    error : str or None
        Why it could not be fitted.
    """

    images: int
    probabilities: NDArray[np.float64] | None
    error: str | None


@dataclass(frozen=True, kw_only=True)
class _Test:
    """The test images: their classes, groups, and whether train or val has a copy of each."""

    y: NDArray[np.int64]
    groups: Rows
    copied: NDArray[np.bool_]
    class_names: tuple[str, ...]

    @property
    def new(self) -> NDArray[np.bool_] | None:
        """The images without a copy, (n,) bool; None where all of them are, or none."""
        return None if not self.copied.any() or self.copied.all() else ~self.copied


@default_errors
def learning_curve(
    cache: FeatureCache | str | os.PathLike[str],
    *,
    head: str = "dense",
    params: Mapping[str, Any] | None = None,
    bag: str | None = None,
    group_label: str | None = None,
    generate: int = 0,
    repeats: int = REPEATS,
    val_fraction: float = 0.15,
    test_fraction: float = 0.15,
    group_by: str = "auto",
    n_jobs: int | None = None,
    random_state: int = 0,
    progress: Progress | None = None,
) -> LearningCurve:
    """Fit a head on 1, 2, 4, … groups of each class, up to all, and measure each on the test split.

    The splits are those of :func:`brainfeat.fit_head`. Groups are drawn from train and validation
    together, in an order of each repeat, in which each size has the groups of the sizes before it.
    A group belongs to the class that most of its images have. The dense head stops by a part of the
    groups that were drawn, as in the folds of a cross-validation. No fit sees a test image, and all
    fits are measured on the same ones: on all of them, and on those of which neither train nor
    validation has a copy, at whatever size.

    Accuracy, balanced accuracy and macro F1 need no calibrated probabilities; so the heads are not
    calibrated. Those that draw no random numbers are fitted on all groups only once.

    Parameters
    ----------
    cache : FeatureCache or path-like
        A file that :func:`brainfeat.extract` wrote.
    head : str
        One of :data:`brainfeat.heads.kinds.HEAD_NAMES` or of
        :data:`brainfeat.heads.kinds.ATTENTION_HEADS`.
    params : mapping or None
        Constructor parameters of the head.
    bag, group_label : str or None
        As in :func:`brainfeat.fit_head`; groups then take the place of images.
    generate : int
        As in :func:`brainfeat.fit_head`, for each fit anew.
    repeats : int
        Orders in which groups are drawn.
    val_fraction, test_fraction : float
        As in :func:`brainfeat.fit_head`.
    group_by : {"auto", "column", "copies", "near-duplicates", "numbers:K", "none"}
        What a group is, as in :func:`brainfeat.fit_head`; with ``"none"``, an image.
    n_jobs : int or None
        Number of processes. None takes all cores, or one process where a fit takes less time than
        the start of another.
    random_state : int
        Seed of the splits, and of the order and the head of the first repeat; each further repeat
        has the next one.
    progress : callable or None
        Called with the number of fits that are done, and of all fits.

    Returns
    -------
    LearningCurve
        A point for each size, and what the last doubling brought.

    Raises
    ------
    TableError
        The labels, groups or splits do not allow it: no class has two groups in train and
        validation, or the table has splits but no test images.
    HeadError
        The head or one of its parameters is unknown or out of range.
    CacheError
        The features are not finite.
    ParameterError
        `head` is ``"all"``, or `repeats`, `group_by` or `random_state` is out of range.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> from brainfeat import extract, read_table
    >>> from brainfeat.phantoms import write_phantoms
    >>> with TemporaryDirectory() as folder:
    ...     table = read_table(write_phantoms(f"{folder}/slices", patients_per_class=6, size=48))
    ...     result = extract(
    ...         table,
    ...         f"{folder}/features.h5",
    ...         backbone="mobilenet-0.75",
    ...         weights="random",
    ...         input_size=32,
    ...     )
    ...     curve = learning_curve(result.output, head="svm", repeats=2)
    >>> [(point.groups_per_class, point.images, point.fits) for point in curve.points]
    [(1, 16.0, 2), (2, 32.0, 2), (4, 64.0, 2), (5, 80.0, 1)]
    """
    check_options(None, random_state, None, search=False)
    check_grouping(group_by)
    _check_options(head, repeats)
    rule = make_rule(bag, group_label)
    with opened(cache) as features:
        name, widths = choose_ensemble(choose_head(head, rule), None, features)
        (recipe,) = make_recipes(
            name,
            params,
            class_names=features.class_names,
            n_iter=None,
            random_state=random_state,
            widths=widths,
            generate=generate,
        )
        partition = Partition.read(features, rule, maps=takes_maps(name))
        audit = audit_duplicates(features)
        partition = partition.split(
            features,
            choose_groups(features, group_by, audit),
            val_fraction=val_fraction,
            test_fraction=test_fraction,
            random_state=random_state,
        )
        images = partition.splits["test"]
        if not len(images):
            raise TableError(
                f"{features.path} has splits but no test images, on which a learning curve is "
                "measured; give the table a test split"
            )
        test = _Test(
            y=partition.y[images],
            groups=number_groups(partition.groups_of(images), len(images)),
            copied=find_copied(features, partition, audit),
            class_names=partition.class_names,
        )
        # The cache is still open: maps are read from it.
        sizes, fits = _fit_all(recipe, partition, repeats=repeats, n_jobs=n_jobs, progress=progress)
    return LearningCurve(
        head=recipe.head,
        params=recipe.params,
        class_names=partition.class_names,
        group_by=partition.grouped_by,
        repeats=repeats,
        random_state=int(random_state),
        test_images=len(images),
        test_images_without_copies=None if audit.copies is None else int((~test.copied).sum()),
        points=tuple(_make_point(size, some, test) for size, some in zip(sizes, fits, strict=True)),
        gain=_find_gain(fits, test),
    )


def _check_options(head: str, repeats: int) -> None:
    if head == ALL_HEADS:
        raise ParameterError(
            'head="all" compares heads, and a learning curve has one; name the head'
        )
    if not isinstance(repeats, int | np.integer) or repeats < 1:
        raise ParameterError(f"repeats must be an integer of 1 or more, got {repeats!r}")


def _fit_all(
    recipe: HeadRecipe,
    partition: Partition,
    *,
    repeats: int,
    n_jobs: int | None,
    progress: Progress | None,
) -> tuple[list[int], list[list[_Fit]]]:
    """Return the sizes in groups of each class, and the fits of each."""
    test, images = partition.splits["test"], np.sort(partition.fitted_images)
    numbers = number_groups(partition.groups_of(images), len(images))
    classes = _find_classes(partition.y[images], numbers, len(partition.class_names))
    largest = int(np.bincount(classes).max())
    if largest < 2:
        raise TableError(
            "train and val have one group of images of each class, and a learning curve needs two; "
            "add groups, or pass another group_by"
        )
    sizes = [*(2**power for power in range((largest - 1).bit_length())), largest]
    fits: list[list[_Fit]] = [[] for _ in sizes]
    for repeat in range(repeats):
        seed = (int(recipe.random_state) + repeat) % _SEED_LIMIT
        ranks = _rank_groups(classes, np.random.default_rng(seed))[numbers]
        # All images are the same in every order.
        wanted = sizes if repeat == 0 or _draws(recipe.head) else sizes[:-1]
        folds = tuple((images[ranks < size], test) for size in wanted)
        found = _fit_folds(
            replace(recipe, random_state=seed),
            replace(partition, folds=folds),
            n_jobs=n_jobs,
            progress=_count_from(repeat * len(sizes), repeats * len(sizes), progress),
        )
        for some, fit in zip(fits, found, strict=False):
            some.append(fit)
    return sizes, fits


def _draws(head: str) -> bool:
    """Return whether a head draws random numbers, as an ensemble does for its folds."""
    return head in _DRAWING or parse_ensemble(head) is not None


def _count_from(done: int, total: int, progress: Progress | None) -> Progress | None:
    """Make a call for one repeat from the one for all fits."""
    return None if progress is None else lambda fits, _: progress(done + fits, total)


def _find_classes(y: NDArray[np.int64], numbers: Rows, n_classes: int) -> Rows:
    """Return the class that most images of each group have."""
    counts = np.zeros((numbers.max() + 1, n_classes), np.intp)
    np.add.at(counts, (numbers, y), 1)
    classes: Rows = counts.argmax(axis=1)
    return classes


def _rank_groups(classes: Rows, rng: np.random.Generator) -> Rows:
    """Draw an order, and return the place of each group among those of its class."""
    ranks = np.empty(len(classes), np.intp)
    for label in np.unique(classes):
        members = np.flatnonzero(classes == label)
        ranks[rng.permutation(members)] = np.arange(len(members))
    return ranks


def _fit_folds(
    recipe: HeadRecipe,
    partition: Partition,
    *,
    n_jobs: int | None,
    progress: Progress | None,
) -> list[_Fit]:
    """Fit a head on the training images of each fold, where each class has some."""
    reasons = [_find_missing(partition, train) for train, _ in partition.folds]
    whole = tuple(
        fold for fold, reason in zip(partition.folds, reasons, strict=True) if reason is None
    )
    found = iter(
        score_folds([recipe], replace(partition, folds=whole), n_jobs=n_jobs, progress=progress)[0]
        if whole
        else ()
    )
    fits = []
    for (train, _), reason in zip(partition.folds, reasons, strict=True):
        if reason is not None:
            fits.append(_Fit(images=len(train), probabilities=None, error=reason))
            continue
        result = next(found)
        for message in dict.fromkeys([*result.warnings, *list_skipped([result])]):
            warnings.warn(message, stacklevel=2)
        scores = result.scores
        probabilities = None if scores is None else softmax(scores, temperature=1.0)
        fits.append(_Fit(images=len(train), probabilities=probabilities, error=result.error))
    return fits


def _find_missing(partition: Partition, train: Rows) -> str | None:
    """Say which class has no image, where groups hold images of several classes."""
    present = np.unique(partition.y[train])
    missing = np.setdiff1d(np.arange(len(partition.class_names)), present)
    return f"class {partition.class_names[missing[0]]!r} has no image" if len(missing) else None


def _make_point(size: int, fits: Sequence[_Fit], test: _Test) -> CurvePoint:
    error = next((fit.error for fit in fits if fit.error is not None), None)
    every = np.ones(len(test.y), np.bool_)
    return CurvePoint(
        groups_per_class=size,
        images=float(np.mean([fit.images for fit in fits])),
        fits=len(fits),
        test=None if error else _measure(fits, test, every),
        test_without_copies=None if error or test.new is None else _measure(fits, test, test.new),
        error=error,
    )


def _measure(fits: Sequence[_Fit], test: _Test, chosen: NDArray[np.bool_]) -> FitMetrics:
    found: list[Metrics] = [
        measure(test.y[chosen], fit.probabilities[chosen], class_names=test.class_names)
        for fit in fits
        if fit.probabilities is not None
    ]
    return FitMetrics(
        accuracy=FitSpread.of([metrics.accuracy for metrics in found]),
        balanced_accuracy=FitSpread.of([metrics.balanced_accuracy for metrics in found]),
        f1=FitSpread.of([metrics.macro.f1 for metrics in found]),
    )


def _find_gain(fits: Sequence[Sequence[_Fit]], test: _Test) -> Gain | None:
    """Compare all images with the largest size that has at most half of them."""
    chosen = np.ones(len(test.y), np.bool_) if test.new is None else test.new
    sizes = [np.array([fit.images for fit in some]) for some in fits]
    correct = [_find_correct(some, test, chosen) for some in fits]
    half = sizes[-1][0] / 2
    smaller = [
        (images, found)
        for images, found in zip(sizes, correct, strict=True)
        if found is not None and images.mean() <= half
    ]
    after = correct[-1]
    if not smaller or after is None:
        return None
    images, before = smaller[-1]
    return estimate_gain(
        before,
        np.broadcast_to(after, before.shape),
        images=(images, np.broadcast_to(sizes[-1], images.shape)),
        groups=test.groups[chosen],
        of="test" if test.new is None else "test_without_copies",
    )


def _find_correct(
    fits: Sequence[_Fit], test: _Test, chosen: NDArray[np.bool_]
) -> NDArray[np.bool_] | None:
    """Tell which of the chosen images each fit predicts correctly; None where one failed."""
    found = [fit.probabilities for fit in fits if fit.probabilities is not None]
    if len(found) < len(fits):
        return None
    return np.stack([one[chosen].argmax(axis=1) == test.y[chosen] for one in found])
