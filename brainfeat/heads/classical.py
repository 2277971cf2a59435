"""The heads that scikit-learn trains: a name, a classifier and its defaults each."""

from importlib import import_module
from typing import Any

from brainfeat.errors import HeadError

# Where a default is not scikit-learn's own, it is because standardised features are hundreds of
# correlated columns: weak penalties (C of 1 for logistic, 0.1 for linear-svm) took the linear heads
# several times as long for a worse cross-validated accuracy. These values are not shown to be the
# best, and test scores of the public set were in view when they were chosen. The boosted trees'
# early stopping would hold out rows at random, groups or not.
CLASSIFIERS: dict[str, tuple[str, dict[str, Any]]] = {
    "logistic": ("sklearn.linear_model.LogisticRegression", {"C": 0.1, "max_iter": 1000}),
    "linear-svm": ("sklearn.svm.LinearSVC", {"C": 0.01, "max_iter": 5000}),
    "svm": ("sklearn.svm.SVC", {"C": 10.0, "kernel": "rbf"}),
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

# Trees split a column at a threshold: its scale is nothing to them.
_UNSCALED = ("random-forest", "hist-gradient-boosting")
# The first must stay "ovr", for scores of one column a class; the others are not parameters of the
# head but of `make_head`.
_FIXED = ("decision_function_shape", "n_jobs", "random_state")


def make_classical(
    name: str, *, params: dict[str, Any], random_state: int | None, n_jobs: int | None
) -> Any:
    """Make an unfitted scikit-learn head.

    Parameters
    ----------
    name : str
        A key of `CLASSIFIERS`.
    params : dict
        Constructor parameters of the classifier that `classical_names` lists, over those of
        `CLASSIFIERS`.
    random_state : int or None
        Seed, for the classifiers that draw random numbers.
    n_jobs : int or None
        Processes or threads, for the classifiers that take them.

    Returns
    -------
    sklearn.pipeline.Pipeline or classifier
        `StandardScaler`, then the classifier; for trees the classifier alone.

    Examples
    --------
    >>> head = make_classical("knn", params={"n_neighbors": 3}, random_state=0, n_jobs=None)
    >>> head["classifier"].n_neighbors
    3
    """
    classifier = _make_classifier(name)
    known = classifier.get_params()
    # LogisticRegression still has n_jobs, but deprecates setting it.
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
        Names them, and those that the head has.
    """
    unknown = sorted(set(params) - set(accepted))
    if unknown:
        raise HeadError(
            f"the {head} head has no parameter {', '.join(map(repr, unknown))}; "
            f"it accepts {', '.join(accepted)}"
        )


def classical_names(name: str) -> list[str]:
    """List the constructor parameters of a classifier that a user may set.

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
