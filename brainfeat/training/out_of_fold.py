"""Out-of-fold probabilities of all labelled images, by classifiers that no test image is in."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainfeat.errors import TableError
from brainfeat.heads.recipe import HeadRecipe
from brainfeat.leakage.splitting import make_folds
from brainfeat.text import count
from brainfeat.training.partition import Partition

Rows = NDArray[np.intp]

N_FOLDS = 5

# With the head's default of 0.1, the classifier follows single wrong labels more: the changed
# labels of a public set had a lower average precision, and the fit took several times as long.
_PARAMS = {"C": 0.01}


@dataclass(frozen=True, kw_only=True, eq=False)
class OutOfFold:
    """What classifiers say of images that they were not fitted on.

    Attributes
    ----------
    rows : ndarray of shape (m,), int
        Rows of the cache: labelled images of the classes that are checked.
    classes : ndarray of shape (k,), int
        These classes, as indices of the cache.
    y : ndarray of shape (m,), int
        Label of each image, as an index into `classes`.
    probabilities : ndarray of shape (m, k), float64
        Of each class, by the classifier of the folds that the image is not in.
    fitted : ndarray of shape (m,), bool
        Whether an image was fitted on in the folds that it is not in.
    """

    rows: Rows
    classes: NDArray[np.int64]
    y: NDArray[np.int64]
    probabilities: NDArray[np.float64]
    fitted: NDArray[np.bool_]


def predict_out_of_fold(
    partition: Partition,
    splits: NDArray[np.str_],
    groups: NDArray[Any] | None,
    *,
    random_state: int,
    progress: Callable[[int, int], None] | None = None,
) -> OutOfFold:
    """Cross-validate a classifier over all images, and fit it on none of the test split.

    Parameters
    ----------
    partition : Partition
        Rows of a cache with their views.
    splits : ndarray of shape (n,), str
        Split of each row of the cache.
    groups : ndarray of shape (n,), str or int, or None
        Group of each row of the cache, which no fold divides.
    random_state : int
        Seed of the folds.
    progress : callable or None
        Called with the number of folds that are done, and of all folds.

    Returns
    -------
    OutOfFold

    Raises
    ------
    TableError
        Fewer than two classes have images of five groups or more to fit on, or the groups do not
        allow folds.
    HeadError
        The classifier cannot be fitted.
    """
    images = partition.splits["train"]
    fitted = splits[partition.rows[images]] != "test"
    fitted |= not fitted.any()
    unit = np.arange(len(images))
    if groups is not None:
        unit = np.unique(groups[partition.rows[images]], return_inverse=True)[1]
    classes = _choose_classes(partition, partition.y[images][fitted], unit[fitted])
    checked = np.isin(partition.y[images], classes)
    images, fitted, unit = images[checked], fitted[checked], unit[checked]
    y = np.searchsorted(classes, partition.y[images])
    fold = _assign_folds(y, fitted, unit, random_state=random_state)
    probabilities = np.empty((len(images), len(classes)))
    recipe = HeadRecipe(
        head="logistic", params=_PARAMS, class_names=partition.class_names, random_state=0
    )
    for place in range(N_FOLDS):
        train, held_out = images[fitted & (fold != place)], fold == place
        head = recipe.fit_head(partition.X, partition.y, rows=partition.rows_of(train))
        probabilities[held_out] = head.predict_proba(partition.X[images[held_out]])
        if progress is not None:
            progress(place + 1, N_FOLDS)
    return OutOfFold(
        rows=partition.rows[images],
        classes=classes,
        y=y,
        probabilities=probabilities,
        fitted=fitted,
    )


def _choose_classes(
    partition: Partition, y: NDArray[np.int64], unit: NDArray[np.intp]
) -> NDArray[np.int64]:
    """Choose the classes that every fold can have a group of."""
    groups = {int(label): len(np.unique(unit[y == label])) for label in np.unique(partition.y)}
    classes = np.array([label for label, number in groups.items() if number >= N_FOLDS], np.int64)
    if len(classes) < 2:
        found = ", ".join(
            f"{partition.class_names[label]} {count(number, 'group')}"
            for label, number in groups.items()
        )
        raise TableError(
            "labels cannot be checked: two classes or more need images of "
            f"{N_FOLDS} groups of patients or copies outside the test split; found {found}; add "
            "images of new groups"
        )
    return classes


def _assign_folds(
    y: NDArray[np.int64],
    fitted: NDArray[np.bool_],
    unit: NDArray[np.intp],
    *,
    random_state: int,
) -> NDArray[np.intp]:
    """Assign whole groups to folds, which are stratified over the images to fit on.

    A group of test images alone can be in any fold: nothing is fitted on it.
    """
    fold_of = np.arange(unit.max() + 1) % N_FOLDS
    folds = make_folds(y[fitted], n_folds=N_FOLDS, groups=unit[fitted], random_state=random_state)
    for place, (_, held_out) in enumerate(folds):
        fold_of[unit[fitted][held_out]] = place
    return fold_of[unit]
