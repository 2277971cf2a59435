"""The heads of scikit-learn: each has a name, a classifier and default parameters."""

from importlib import import_module
from typing import Any

from brainfeat.errors import HeadError

# Defaults differ from scikit-learn's because standardised features are hundreds of correlated
# columns: with weaker penalties (C of 1 for logistic, 0.1 for linear-svm) the linear heads took
# several times as long and had a lower cross-validated accuracy. These values are not known to be
# the best, and test scores of the public set had been seen when they were chosen. The early
# stopping of the boosted trees would hold out rows at random, and divide groups.
CLASSIFIERS: dict[str, tuple[str, dict[str, Any]]] = {
    "logistic": ("sklearn.linear_model.LogisticRegression", {"C": 0.1, "max_iter": 1000}),
    "linear-svm": ("sklearn.svm.LinearSVC", {"C": 0.01, "max_iter": 5000}),
    "svm": (
        "sklearn.svm.SVC",
        {"C": 10.0, "kernel": "rbf", "decision_function_shape": "ovo"},
    ),
    "knn": (
        "sklearn.neighbors.KNeighborsClassifier",
        {"n_neighbors": 5, "algorithm": "brute"},
    ),
    "lda": ("sklearn.discriminant_analysis.LinearDiscriminantAnalysis", {}),
    "random-forest": ("sklearn.ensemble.RandomForestClassifier", {}),
    "hist-gradient-boosting": (
        "sklearn.ensemble.HistGradientBoostingClassifier",
        {"early_stopping": False, "max_bins": 63, "max_features": 0.1},
    ),
}

# Trees split a column at a threshold, whatever its scale.
_UNSCALED = ("random-forest", "hist-gradient-boosting")
# With the shape "ovo" the decision function gives margins, of which `head_scores` makes scores that
# break ties; the last two are parameters of `make_head` itself.
_FIXED = ("break_ties", "decision_function_shape", "n_jobs", "random_state")


def make_classical(
    name: str, *, params: dict[str, Any], random_state: int | None, n_jobs: int | None
) -> Any:
    """Make an unfitted scikit-learn head.

    Parameters
    ----------
    name : str
        A key of `CLASSIFIERS`.
    params : dict
        Constructor parameters of the classifier, of those that `classical_names` lists. They
        replace the defaults in `CLASSIFIERS`.
    random_state : int or None
        Seed of the classifiers that draw random numbers.
    n_jobs : int or None
        Number of processes or threads of the classifiers that take one.

    Returns
    -------
    sklearn.pipeline.Pipeline or classifier
        A `StandardScaler` and the classifier; for trees the classifier alone.

    Examples
    --------
    >>> head = make_classical("knn", params={"n_neighbors": 3}, random_state=0, n_jobs=None)
    >>> head["classifier"].n_neighbors
    3
    """
    classifier = _make_classifier(name)
    known = classifier.get_params()
    # LogisticRegression has n_jobs, but warns where it is set.
    given = {"random_state": random_state, **({} if n_jobs is None else {"n_jobs": n_jobs})}
    if name == "logistic":
        given.pop("n_jobs", None)
    classifier.set_params(**{key: given[key] for key in given if key in known}, **params)
    if name in _UNSCALED:
        return classifier

    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import StandardScaler

    return Pipeline([("scaler", StandardScaler()), ("classifier", classifier)])


def check_names(head: str, params: dict[str, Any], *, accepted: list[str]) -> None:
    """Refuse parameters that a head does not have.

    Raises
    ------
    HeadError
        Names the unknown parameters, and those that the head accepts.
    """
    unknown = sorted(set(params) - set(accepted))
    if unknown:
        raise HeadError(
            f"the {head} head has no parameter {', '.join(map(repr, unknown))}; "
            f"it accepts {', '.join(accepted)}"
        )


def classical_names(name: str) -> list[str]:
    """List the constructor parameters of a classifier that a user may set.

    Parameters
    ----------
    name : str
        A key of `CLASSIFIERS`.

    Returns
    -------
    list of str
        In alphabetical order.

    Examples
    --------
    >>> "gamma" in classical_names("svm"), "n_jobs" in classical_names("knn")
    (True, False)
    """
    return sorted(
        parameter
        for parameter, default in _make_classifier(name).get_params().items()
        if parameter not in _FIXED and not (isinstance(default, str) and default == "deprecated")
    )


def _make_classifier(name: str) -> Any:
    path, defaults = CLASSIFIERS[name]
    module, _, constructor = path.rpartition(".")
    return getattr(import_module(module), constructor)(**defaults)
