"""Controls: how well labels can be predicted where there should be nothing to learn."""

import numpy as np
from numpy.typing import NDArray

from brainfeat.cache.cache import FeatureCache
from brainfeat.leakage.duplicates import Labels, Matrix, find_nearest
from brainfeat.leakage.images import Rows
from brainfeat.leakage.results import PermutationTest, Shortcut
from brainfeat.leakage.splitting import make_folds

_FOLDS = 5
_PERMUTATIONS = 200
# Images that the forest is fitted on: more would change its accuracy little.
_SHORTCUT_IMAGES = 20_000
_MEASURED = ("width", "height", "channels", "file_bytes")


def try_shortcuts(
    cache: FeatureCache, rows: Rows, clusters: Labels, *, random_state: int
) -> Shortcut | None:
    """Cross-validate a random forest on what is known of a file without its pixels.

    Parameters
    ----------
    cache : FeatureCache
    rows : ndarray of int, shape (m,)
        Labelled rows of view 0; of more than 20,000, as many are drawn.
    clusters : ndarray of int, shape (m,)
        Clusters of duplicates, which stay in one fold.
    random_state : int

    Returns
    -------
    Shortcut or None
        None where a class has fewer than five clusters.
    """
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.model_selection import cross_validate

    if len(rows) > _SHORTCUT_IMAGES:
        rng = np.random.default_rng(random_state)
        chosen = np.sort(rng.choice(len(rows), _SHORTCUT_IMAGES, replace=False))
        rows, clusters = rows[chosen], clusters[chosen]
    y = cache.y[rows]
    if _fewest(y, clusters) < _FOLDS:
        return None
    sources, number = np.unique(cache.sources[rows], return_inverse=True)
    X = np.column_stack(
        [
            *(cache.column(name)[rows] for name in _MEASURED),
            *(number == source for source in range(len(sources))),
        ]
    )
    scores = cross_validate(
        RandomForestClassifier(100, min_samples_leaf=5, random_state=random_state),
        X.astype(np.float32),
        y,
        cv=make_folds(y, n_folds=_FOLDS, groups=clusters, random_state=random_state),
        scoring=("accuracy", "balanced_accuracy"),
    )
    accuracy = scores["test_accuracy"]
    return Shortcut(
        accuracy=float(accuracy.mean()),
        error=float(accuracy.std(ddof=1) / np.sqrt(_FOLDS)),
        balanced_accuracy=float(scores["test_balanced_accuracy"].mean()),
        chance=float(np.bincount(y).max() / len(y)),
        images=len(y),
        columns=(*_MEASURED, "source"),
    )


def permute_labels(
    X: Matrix,
    y: NDArray[np.int64],
    splits: NDArray[np.str_],
    clusters: Labels,
    *,
    random_state: int,
) -> PermutationTest | None:
    """Predict labels that were shuffled between clusters by the nearest neighbour.

    Parameters
    ----------
    X : array-like of shape (m, d), float32
        Features of labelled images.
    y : ndarray of int, shape (m,)
    splits : ndarray of str, shape (m,)
        Where there are no test images, or only test images, five folds take their place.
    clusters : ndarray of int, shape (m,)
        Clusters of duplicates, whose images keep the same label.
    random_state : int

    Returns
    -------
    PermutationTest or None
        None where a class has too few clusters.
    """
    is_test = splits == "test"
    protocol = "test images, by those of train and val"
    sides = [(np.flatnonzero(~is_test), np.flatnonzero(is_test))]
    if is_test.all() or not is_test.any():
        if _fewest(y, clusters) < _FOLDS:
            return None
        protocol = f"each of {_FOLDS} grouped folds, by the others"
        sides = make_folds(y, n_folds=_FOLDS, groups=clusters, random_state=random_state)
    tested = np.concatenate([test for _, test in sides])
    nearest = np.concatenate([train[find_nearest(X, test, of=train)] for train, test in sides])
    found, first, cluster = np.unique(clusters, return_index=True, return_inverse=True)
    rng = np.random.default_rng(random_state)
    accuracies, chances = [], []
    for _ in range(_PERMUTATIONS):
        shuffled = y[first][rng.permutation(len(found))][cluster]
        true, predicted = shuffled[tested], shuffled[nearest]
        accuracies.append(np.mean(true == predicted))
        counts = [np.bincount(labels, minlength=y.max() + 1) for labels in (true, predicted)]
        # How often two labels agree by chance that are drawn as often as these are.
        chances.append(counts[0] @ counts[1] / len(tested) ** 2)
    return PermutationTest(
        accuracy=float(np.mean(accuracies)),
        std=float(np.std(accuracies, ddof=1)),
        chance=float(np.mean(chances)),
        n_permutations=_PERMUTATIONS,
        head="nearest neighbour",
        protocol=protocol,
    )


def _fewest(y: NDArray[np.int64], clusters: Labels) -> int:
    """Count the clusters of the class that has the fewest."""
    return min(len(np.unique(clusters[y == label])) for label in np.unique(y))
