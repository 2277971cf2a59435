"""The heads by name, with one estimator interface for networks and classical classifiers."""

from typing import Any

import numpy as np
import numpy.typing as npt

from brainfeat.errors import HeadError
from brainfeat.heads.bags import ATTENTION, Bags
from brainfeat.heads.classical import CLASSIFIERS, check_names, classical_names, make_classical
from brainfeat.heads.ensemble_names import EnsembleName, divide_params, read_ensemble
from brainfeat.heads.maps import MapRows
from brainfeat.heads.margins import find_least_margins

__all__ = [
    "ATTENTION_HEADS",
    "HEAD_NAMES",
    "MAP_HEADS",
    "accepted_names",
    "head_scores",
    "make_head",
    "needs_validation",
    "parse_ensemble",
    "takes_maps",
]

# The heads of vectors that a comparison of all heads fits.
HEAD_NAMES = ("dense", *CLASSIFIERS)
# Heads that take maps in place of vectors; squeeze and excitation needs no more than vectors.
MAP_HEADS = ("attention-pool", "cbam")
ATTENTION_HEADS = ("attention-pool", "se", "cbam")
# Heads that Keras trains; that of attention takes bags, and is asked for by them.
TRAINED = ("dense", ATTENTION, *ATTENTION_HEADS)
# Parameters of a MapHead that not all kinds of attention have.
_POOL_PARAMS, _SQUEEZE_PARAMS = {"attention_units"}, {"reduction"}


def make_head(
    name: str, *, random_state: int | None = None, n_jobs: int | None = None, **params: Any
) -> Any:
    """Make an unfitted head.

    Parameters
    ----------
    name : str
        One of `HEAD_NAMES` or `ATTENTION_HEADS`; ``"attention"``, which takes bags; or an ensemble
        of `HEAD_NAMES`, such as ``"vote:svm+dense"``.
    random_state : int or None
        Seed of the heads that draw random numbers.
    n_jobs : int or None
        Number of processes or threads of the heads that take one.
    **params
        Constructor parameters of the classifier, such as ``C=10`` or ``epochs=50``; those of a
        member of an ensemble have names such as ``"svm.C"``.

    Returns
    -------
    scikit-learn classifier
        A :class:`brainfeat.DenseHead`, a pipeline of a scaler and a classifier, or trees; a
        :class:`brainfeat.heads.map_head.MapHead`; an
        :class:`brainfeat.heads.attention.AttentionHead`; or an
        :class:`brainfeat.heads.ensembles.EnsembleHead`.

    Raises
    ------
    HeadError
        The name or a parameter is unknown, or a parameter of the dense head is out of range.

    Examples
    --------
    >>> make_head("svm", C=1.0)["classifier"].C
    1.0
    """
    check_names(name, params, accepted=accepted_names(name))
    if (ensemble := parse_ensemble(name)) is not None:
        return _make_ensemble(ensemble, params, random_state=random_state, n_jobs=n_jobs)
    if name not in TRAINED:
        return make_classical(name, params=params, random_state=random_state, n_jobs=n_jobs)
    from brainfeat.heads.parameters import check_params

    check_params(params, head=name)
    kind = {"attention": name} if name in ATTENTION_HEADS else {}
    return _trained_class(name)(random_state=random_state, **kind, **params)


def accepted_names(name: str) -> list[str]:
    """List the constructor parameters that a head accepts.

    Parameters
    ----------
    name : str
        As of :func:`make_head`.

    Returns
    -------
    list of str
        In alphabetical order.

    Raises
    ------
    HeadError
        The name is unknown.

    Examples
    --------
    >>> "C" in accepted_names("svm"), "C" in accepted_names("knn")
    (True, False)
    """
    if (ensemble := parse_ensemble(name)) is not None:
        own = [
            f"{member}.{param}" for member in ensemble.members for param in accepted_names(member)
        ]
        return sorted([*own, "n_folds"])
    if name not in (*HEAD_NAMES, *TRAINED):
        known = (*HEAD_NAMES, *ATTENTION_HEADS)
        raise HeadError(
            f"unknown head {name!r}; there are {', '.join(known)}, and ensembles such as "
            "vote:A+B, stack:A+B and folds:A"
        )
    if name not in TRAINED:
        return classical_names(name)
    others = {"random_state"}
    if name in ATTENTION_HEADS:
        others |= {"attention"}
        others |= _SQUEEZE_PARAMS if name == "attention-pool" else _POOL_PARAMS
    return sorted(set(_trained_class(name)().get_params()) - others)


def parse_ensemble(name: str) -> EnsembleName | None:
    """Read the name of an ensemble; None for that of another head.

    Raises
    ------
    HeadError
        As in :func:`brainfeat.heads.ensemble_names.read_ensemble`.

    Examples
    --------
    >>> parse_ensemble("vote:svm+dense").members
    ('svm', 'dense')
    """
    return read_ensemble(name, allowed=HEAD_NAMES)


def needs_validation(name: str) -> bool:
    """Return whether a head needs validation images to decide when to stop training."""
    return name in TRAINED


def takes_maps(name: str) -> bool:
    """Return whether a head takes the maps of images, and not their vectors."""
    return name in MAP_HEADS


def _make_ensemble(
    ensemble: EnsembleName,
    params: dict[str, Any],
    *,
    random_state: int | None,
    n_jobs: int | None,
) -> Any:
    from brainfeat.heads.ensembles import EnsembleHead

    own, parts = divide_params(ensemble, params)
    members = [
        (member, make_head(member, random_state=random_state, n_jobs=n_jobs, **parts[member]))
        for member in ensemble.members
    ]
    return EnsembleHead(members, how=ensemble.how, random_state=random_state or 0, **own)


def _trained_class(name: str) -> Any:
    if name in ATTENTION_HEADS:
        from brainfeat.heads.map_head import MapHead

        return MapHead
    if name == ATTENTION:
        from brainfeat.heads.attention import AttentionHead

        return AttentionHead
    from brainfeat.heads.dense import DenseHead

    return DenseHead


def head_scores(estimator: Any, X: npt.ArrayLike | Bags | MapRows) -> npt.NDArray[np.float64]:
    """Compute the scores of a fitted head; their softmax gives its probabilities.

    Parameters
    ----------
    estimator : scikit-learn classifier
        A fitted head.
    X : array-like of shape (n, d), Bags or MapRows
        Features; bags for a head that weighs vectors by attention, maps for one that weighs
        positions.

    Returns
    -------
    ndarray of shape (n, k), float64
        Columns in the order of ``classes_``. Logits where the head has them; margins of support
        vector machines, whose softmax is a probability only after temperature scaling; logarithms
        of the probabilities of nearest neighbours and trees. The margins of an ``svm`` are those of
        :func:`brainfeat.heads.margins.find_least_margins`; one that an earlier version fitted has
        the shape ``"ovr"`` and keeps its scores, which count votes.
    """
    if hasattr(estimator, "decision_function"):
        scores = np.asarray(estimator.decision_function(X), np.float64)
        if scores.ndim == 1:
            return np.column_stack([np.zeros_like(scores), scores])
        classifier = estimator[-1] if hasattr(estimator, "steps") else estimator
        if getattr(classifier, "decision_function_shape", None) == "ovo":
            return find_least_margins(scores, n_classes=len(classifier.classes_))
        return scores
    probabilities = np.asarray(estimator.predict_proba(X), np.float64)
    tiny = np.finfo(np.float64).eps
    logarithms: npt.NDArray[np.float64] = np.log(np.clip(probabilities, tiny, 1.0))
    return logarithms
