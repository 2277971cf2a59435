"""What a search tries: a grid of parameters for each head, and how candidates are drawn from it."""

from collections.abc import Mapping
from typing import Any

import numpy as np

Grid = Mapping[str, list[Any]]

# In scikit-learn's own form of a parameter grid. The first value of each list, in the first grid of
# each head, is the head's own default, so that no search can do worse on its folds than no search.
# The others enclose it on scales that standardised features of some hundred columns need; an SVM's
# "scale" is one over their number. One neighbour is left out: its probabilities are 0 and 1, and it
# does best where near copies of an image lie in two folds.
GRIDS: dict[str, tuple[Grid, ...]] = {
    "dense": (
        {
            "hidden_units": [[128, 64], [64, 32], [256, 128], [128]],
            "dropout": [0.5, 0.2],
            "learning_rate": [1e-3, 3e-4, 3e-3],
        },
    ),
    "logistic": ({"C": [0.1, 0.001, 0.003, 0.01, 0.03, 0.3, 1.0]},),
    "linear-svm": ({"C": [0.01, 0.0001, 0.0003, 0.001, 0.003, 0.03, 0.1]},),
    "svm": ({"C": [10.0, 1.0, 3.0, 30.0, 100.0], "gamma": ["scale", 3e-4, 1e-3, 3e-3]},),
    "knn": (
        {
            "n_neighbors": [5, 3, 9, 15],
            "weights": ["uniform", "distance"],
            "metric": ["minkowski", "cosine"],
        },
    ),
    "lda": (
        {"solver": ["svd"]},
        {"solver": ["lsqr"], "shrinkage": ["auto", 0.01, 0.03, 0.1, 0.3, 0.6]},
    ),
    "random-forest": (
        {
            "n_estimators": [100, 300],
            "max_features": ["sqrt", 0.1],
            "min_samples_leaf": [1, 3],
        },
    ),
    "hist-gradient-boosting": (
        {
            "learning_rate": [0.1, 0.05, 0.2],
            "max_leaf_nodes": [31, 15],
            "l2_regularization": [0.0, 1.0],
        },
    ),
}


def draw_candidates(
    head: str, *, fixed: Mapping[str, Any], n_iter: int, random_state: int
) -> list[dict[str, Any]]:
    """Draw the parameters that a search tries, without replacement.

    Parameters
    ----------
    head : str
        A key of `GRIDS`.
    fixed : mapping of str to object
        Parameters that every candidate has; they leave the grid.
    n_iter : int
        Number of candidates; where the grid has no more points than that, all of them.
    random_state : int
        Seed.

    Returns
    -------
    list of dict
        The head's own defaults first, then the others in the order of the grid.

    Examples
    --------
    >>> draw_candidates("logistic", fixed={}, n_iter=3, random_state=0)
    [{'C': 0.1}, {'C': 0.03}, {'C': 0.3}]
    >>> draw_candidates("logistic", fixed={"C": 5.0}, n_iter=3, random_state=0)
    [{'C': 5.0}]
    """
    from sklearn.model_selection import ParameterGrid

    points: list[dict[str, Any]] = []
    for point in ParameterGrid(_fix(GRIDS[head], fixed)):
        if point not in points:
            points.append(point)
    if n_iter < len(points):
        rng = np.random.default_rng(random_state)
        drawn = 1 + np.sort(rng.choice(len(points) - 1, n_iter - 1, replace=False))
        points = [points[0], *(points[place] for place in drawn)]
    return [{**point, **fixed} for point in points]


def _fix(grids: tuple[Grid, ...], fixed: Mapping[str, Any]) -> list[dict[str, list[Any]]]:
    """Take fixed parameters out of grids, and grids out that are for other values of them."""
    fitting = [
        grid for grid in grids if all(fixed[name] in grid[name] for name in fixed if name in grid)
    ]
    return [
        {name: values for name, values in grid.items() if name not in fixed}
        for grid in fitting or grids
    ]
