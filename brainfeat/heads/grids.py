"""The parameter grid of each head, and how a search draws candidates from it."""

from collections.abc import Mapping
from typing import Any

import numpy as np

Grid = Mapping[str, list[Any]]

# Grids as scikit-learn's ParameterGrid takes them. The first value of each list, in the first grid
# of each head, is the default of the head, so that the best candidate is at least as good on the
# folds as the default. The other values lie around it, on scales that suit some hundred columns of
# standardised features; the "scale" of an SVM is one over their number. A single neighbour is left
# out: its probabilities are 0 and 1, and it profits most from near duplicates in two folds.
GRIDS: dict[str, tuple[Grid, ...]] = {
    "dense": (
        {
            "hidden_units": [[128, 64], [64, 32], [256, 128], [128]],
            "dropout": [0.5, 0.2],
            "learning_rate": [1e-3, 3e-4, 3e-3],
        },
    ),
    "attention": (
        {
            "attention_units": [64, 128],
            "hidden_units": [[128, 64], [64, 32], [128]],
            "dropout": [0.5, 0.2],
            "learning_rate": [1e-3, 3e-4, 3e-3],
        },
    ),
    "attention-pool": ({"attention_units": [64, 128], "learning_rate": [1e-3, 3e-4]},),
    "se": ({"reduction": [16, 4], "dropout": [0.5, 0.2], "learning_rate": [1e-3, 3e-4, 3e-3]},),
    "cbam": ({"reduction": [16, 4], "learning_rate": [1e-3, 3e-4]},),
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
    """Draw the candidates of a search from the grid of a head, without replacement.

    Parameters
    ----------
    head : str
        A key of `GRIDS`.
    fixed : mapping of str to object
        Parameters that every candidate has; they are removed from the grid.
    n_iter : int
        Number of candidates. A number as large as the grid, or larger, draws all of it.
    random_state : int
        Seed.

    Returns
    -------
    list of dict
        Parameters of each candidate: the defaults of the head first, then others in the order of
        the grid.

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
    """Remove fixed parameters from the grids, and the grids that are for other values of them."""
    fitting = [
        grid for grid in grids if all(fixed[name] in grid[name] for name in fixed if name in grid)
    ]
    return [
        {name: values for name, values in grid.items() if name not in fixed}
        for grid in fitting or grids
    ]
