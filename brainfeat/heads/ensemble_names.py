"""Names of ensembles, such as ``vote:svm+dense``: how the members are combined, and their kinds."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from brainfeat.errors import HeadError

How = Literal["vote", "stack", "folds"]

HOWS: tuple[str, ...] = get_args(How)
# Members of a file, of which the folds' models and those of blocks are the most.
MAX_MEMBERS = 20
# Folds within a fit, whose scores calibrate the members and are what a stack is fitted on.
N_FOLDS = 5


@dataclass(frozen=True)
class EnsembleName:
    """What the name of an ensemble says.

    Attributes
    ----------
    how : {"vote", "stack", "folds"}
        ``"vote"`` takes the mean of the calibrated probabilities of the members, ``"stack"`` a
        logistic regression on their logarithms, and ``"folds"`` the vote of the models of the folds
        of one head.
    members : tuple of str
        Names of heads. A single one of a vote or a stack is that of each block of a join.
    """

    how: How
    members: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.how}:{'+'.join(self.members)}"

    @property
    def is_by_block(self) -> bool:
        """Whether there is one member for each block of a join."""
        return self.how != "folds" and len(self.members) == 1

    def count_fits(self, n_folds: int = N_FOLDS) -> int:
        """Count the fits of members that one fit of the ensemble takes.

        Each is fitted in the folds and on all rows; the models of the folds, in the folds alone.

        Examples
        --------
        >>> EnsembleName("vote", ("svm", "lda")).count_fits()
        12
        """
        return len(self.members) * (n_folds + (self.how != "folds"))


def read_ensemble(head: str, *, allowed: Collection[str]) -> EnsembleName | None:
    """Read the name of an ensemble.

    Parameters
    ----------
    head : str
        A name of a head.
    allowed : collection of str
        Heads that can be members.

    Returns
    -------
    EnsembleName or None
        None for the name of a single head, which has no colon.

    Raises
    ------
    HeadError
        The name is not ``HOW:A+B``, or a member is unknown or twice there.

    Examples
    --------
    >>> read_ensemble("stack:svm+lda", allowed=("svm", "lda"))
    EnsembleName(how='stack', members=('svm', 'lda'))
    >>> read_ensemble("svm", allowed=("svm", "lda")) is None
    True
    """
    how, colon, rest = head.partition(":")
    if not colon:
        return None
    members = tuple(rest.split("+"))
    if how not in HOWS:
        raise HeadError(
            f"unknown head {head!r}; an ensemble is {', '.join(f'{word}:A+B' for word in HOWS[:2])}"
            " or folds:A"
        )
    if unknown := [member for member in members if member not in allowed]:
        raise HeadError(
            f"the ensemble {head!r} has the member {unknown[0]!r}; a member is one of "
            f"{', '.join(allowed)}"
        )
    if len({*members}) < len(members):
        raise HeadError(f"the ensemble {head!r} has a member twice; name each head once")
    if how == "folds" and len(members) > 1:
        raise HeadError(
            f"the ensemble {head!r} has {len(members)} heads, and the models of the folds are of "
            "one; name one, or take vote:A+B"
        )
    return EnsembleName(how, members)  # type: ignore[arg-type]


def divide_params(
    name: EnsembleName, params: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Divide the parameters of an ensemble into its own and those of each member.

    Parameters
    ----------
    name : EnsembleName
    params : mapping of str to object
        Those of members have names such as ``"svm.C"``.

    Returns
    -------
    tuple of (dict, dict of str to dict)
        Its own; and those of each member, by the name of the member.

    Examples
    --------
    >>> divide_params(EnsembleName("vote", ("svm", "knn")), {"svm.C": 1.0, "n_folds": 3})
    ({'n_folds': 3}, {'svm': {'C': 1.0}, 'knn': {}})
    """
    own: dict[str, Any] = {}
    parts: dict[str, dict[str, Any]] = {member: {} for member in name.members}
    for key, value in params.items():
        member, dot, param = key.partition(".")
        if dot and member in parts:
            parts[member][param] = value
        else:
            own[key] = value
    return own, parts


def share_params(
    name: EnsembleName, params: Mapping[str, Any], accepted: Mapping[str, Collection[str]]
) -> dict[str, Any]:
    """Give parameters without the name of a member to each member that accepts them.

    Parameters
    ----------
    name : EnsembleName
    params : mapping of str to object
        Such as ``"svm.C"``, or ``"class_weight"`` for all members that have it.
    accepted : mapping of str to collection of str
        Parameters that each member accepts.

    Returns
    -------
    dict of str to object
        Each with the name of its member, those of the ensemble itself without. A parameter that
        names its member goes before one that does not.

    Examples
    --------
    >>> name = EnsembleName("vote", ("svm", "knn"))
    >>> share_params(name, {"C": 1.0, "n_folds": 3}, {"svm": ["C"], "knn": ["weights"]})
    {'n_folds': 3, 'svm.C': 1.0}
    """
    own, parts = divide_params(name, params)
    shared = {
        key: [member for member in name.members if key in accepted[member]]
        for key in own
        if key != "n_folds"
    }
    found = {key: own[key] for key in own if not shared.get(key)}
    for key, members in shared.items():
        found |= {f"{member}.{key}": own[key] for member in members}
    for member, values in parts.items():
        found |= {f"{member}.{key}": value for key, value in values.items()}
    return found
