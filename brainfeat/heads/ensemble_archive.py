"""Heads of all kinds as the arrays of a file; those of the members of an ensemble in folders."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from brainfeat.errors import BrainfeatError, BundleError
from brainfeat.heads import archive
from brainfeat.heads.ensemble_names import MAX_MEMBERS, EnsembleName, divide_params
from brainfeat.heads.kinds import parse_ensemble

if TYPE_CHECKING:
    from brainfeat.heads.ensembles import Columns

Arrays = Mapping[str, NDArray[Any]]

# Data type and number of dimensions of each dataset of an ensemble, below ``members/``, beside
# those of each member, which are in a folder ``members/0``, ``members/1`` and so on.
ENSEMBLE_ARRAYS = {
    "temperatures": ("<f8", 1),
    "columns": ("<i8", 2),
    "n_folds": ("<i8", 1),
    "stack/kernel": ("<f8", 2),
    "stack/bias": ("<f8", 1),
}
_PREFIX = "members/"


def to_arrays(name: str, estimator: Any) -> dict[str, NDArray[Any]]:
    """Turn a fitted head, or an ensemble, into the arrays that a head file stores.

    Parameters
    ----------
    name : str
        Name of the head.
    estimator : scikit-learn classifier
        The fitted head.

    Returns
    -------
    dict of str to ndarray
        Datasets of the file by name: those of :func:`brainfeat.heads.archive.to_arrays`; of an
        ensemble, those of each member below ``members/0`` and so on, and those of
        `ENSEMBLE_ARRAYS`.

    Raises
    ------
    BundleError, HeadError
        As in :func:`brainfeat.heads.archive.to_arrays`.
    """
    if parse_ensemble(name) is None:
        return archive.to_arrays(name, estimator)
    members = estimator.members_
    arrays: dict[str, NDArray[Any]] = {
        "temperatures": np.array([member.temperature for member in members], "<f8"),
        "columns": np.array([member.columns for member in members], "<i8"),
        "n_folds": np.array([estimator.n_folds_], "<i8"),
    }
    if estimator.stack_ is not None:
        kernel, bias = estimator.stack_
        arrays |= {"stack/kernel": np.asarray(kernel, "<f8"), "stack/bias": np.asarray(bias, "<f8")}
    for place, member in enumerate(members):
        parts = archive.to_arrays(member.name, member.estimator)
        arrays |= {f"{place}/{key}": array for key, array in parts.items()}
    return {f"{_PREFIX}{key}": array for key, array in arrays.items()}


def from_arrays(
    arrays: Arrays,
    *,
    name: str,
    params: dict[str, Any],
    n_features: int,
    n_classes: int,
    temperature: float,
    n_blocks: int | None = None,
) -> Any:
    """Rebuild a fitted head, or an ensemble, from the arrays of a file, which are checked first.

    Parameters
    ----------
    arrays : mapping of str to ndarray
        Datasets by name, as `to_arrays` returns them.
    name : str
        Name of the head.
    params : dict
        Its constructor parameters.
    n_features, n_classes : int
        Number of features and of classes.
    temperature : float
        Divides the scores of the head.
    n_blocks : int or None
        Number of blocks of a head of several caches.

    Returns
    -------
    scikit-learn classifier
        The fitted head; its classes are 0…k−1.

    Raises
    ------
    BundleError
        As in :func:`brainfeat.heads.archive.from_arrays`; or an ensemble has another number of
        members than its name says, or an array that does not fit them.
    """
    ensemble, size = parse_ensemble(name), {"n_features": n_features, "n_classes": n_classes}
    if ensemble is None:
        return archive.from_arrays(
            arrays, name=name, params=params, temperature=temperature, **size
        )
    from brainfeat.heads.ensembles import EnsembleHead, Member

    own, folders = _divide_arrays(arrays)
    n_folds = _read_count(own)
    heads = _list_heads(ensemble, n_folds=n_folds, n_blocks=n_blocks)
    if sorted(folders) != list(range(len(heads))):
        raise BundleError(
            f"the ensemble {name!r} has the members {sorted(folders)}; expected "
            f"{len(heads)}, numbered from 0"
        )
    temperatures = _take(own, "temperatures", (len(heads),))
    if not ((temperatures > 0) & np.isfinite(temperatures)).all():
        raise BundleError("members/temperatures must be positive and finite")
    columns = _read_columns(own, len(heads), n_features)
    stack = _read_stack(own, ensemble, len(heads), n_classes)
    if own:
        raise BundleError(f"the ensemble {name!r} has the unknown arrays {', '.join(own)}")
    _, given = divide_params(ensemble, params)
    members = []
    for place, head in enumerate(heads):
        (start, stop), divisor = columns[place], float(temperatures[place])
        try:
            estimator = archive.from_arrays(
                folders[place],
                name=head,
                params=given[head],
                n_features=stop - start,
                n_classes=n_classes,
                temperature=divisor,
            )
        except BrainfeatError as error:
            raise BundleError(f"member {place}, {head}, of {name!r}: {error}") from error
        member = Member(name=head, columns=(start, stop), estimator=estimator, temperature=divisor)
        members.append(member)
    return EnsembleHead.from_parts(members, how=ensemble.how, n_folds=n_folds, stack=stack, **size)


def _divide_arrays(
    arrays: Arrays,
) -> tuple[dict[str, NDArray[Any]], dict[int, dict[str, NDArray[Any]]]]:
    """Divide the arrays of a file into those of the ensemble and those of each member."""
    own: dict[str, NDArray[Any]] = {}
    folders: dict[int, dict[str, NDArray[Any]]] = {}
    for key, array in arrays.items():
        if not key.startswith(_PREFIX):
            raise BundleError(f"an ensemble has arrays of members alone, and not {key}")
        name = key.removeprefix(_PREFIX)
        if name in ENSEMBLE_ARRAYS:
            own[name] = array
            continue
        place, _, rest = name.partition("/")
        folders.setdefault(int(place), {})[rest] = array
    return own, folders


def _list_heads(ensemble: EnsembleName, *, n_folds: int, n_blocks: int | None) -> list[str]:
    """Return the name of the head of each member."""
    if ensemble.how == "folds":
        return [*ensemble.members] * n_folds
    if not ensemble.is_by_block:
        return [*ensemble.members]
    if n_blocks is None:
        raise BundleError(
            f"the ensemble {str(ensemble)!r} has one member for each block, and the head takes "
            "features of one cache"
        )
    return [*ensemble.members] * n_blocks


def _take(own: dict[str, NDArray[Any]], name: str, shape: tuple[int, ...]) -> NDArray[Any]:
    if name not in own:
        raise BundleError(f"the ensemble has no array {_PREFIX}{name}")
    array = own.pop(name)
    if array.shape != shape:
        raise BundleError(f"{_PREFIX}{name} has shape {array.shape}; expected {shape}")
    return array


def _read_count(own: dict[str, NDArray[Any]]) -> int:
    n_folds = int(_take(own, "n_folds", (1,))[0])
    if not 2 <= n_folds <= MAX_MEMBERS:
        raise BundleError(f"members/n_folds must be from 2 to {MAX_MEMBERS}, got {n_folds}")
    return n_folds


def _read_columns(own: dict[str, NDArray[Any]], n: int, n_features: int) -> list["Columns"]:
    columns = [(int(start), int(stop)) for start, stop in _take(own, "columns", (n, 2))]
    if not all(0 <= start < stop <= n_features for start, stop in columns):
        raise BundleError(f"members/columns must be ranges of 0 to {n_features}, got {columns}")
    return columns


def _read_stack(
    own: dict[str, NDArray[Any]], ensemble: EnsembleName, n: int, n_classes: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    if ensemble.how != "stack":
        return None
    kernel = _take(own, "stack/kernel", (n * n_classes, n_classes))
    bias = _take(own, "stack/bias", (n_classes,))
    if not (np.isfinite(kernel).all() and np.isfinite(bias).all()):
        raise BundleError("members/stack must have finite numbers only")
    return np.asarray(kernel, np.float64), np.asarray(bias, np.float64)
