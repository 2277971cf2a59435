"""Candidates for a head: the recipes that a fit compares, made of its options."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from brainfeat.errors import HeadError
from brainfeat.heads.ensemble_names import share_params
from brainfeat.heads.generation import check_number
from brainfeat.heads.grids import draw_candidates
from brainfeat.heads.kinds import HEAD_NAMES, accepted_names, parse_ensemble
from brainfeat.heads.recipe import HeadRecipe

# Stands for every head there is.
ALL_HEADS = "all"

# What make_head takes beside the parameters of a head.
_RESERVED = frozenset({"n_jobs", "name", "random_state"})


def make_recipes(
    head: str,
    params: Mapping[str, Any] | None,
    *,
    class_names: tuple[str, ...],
    n_iter: int | None,
    random_state: int,
    widths: tuple[int, ...] = (),
    generate: int = 0,
) -> list[HeadRecipe]:
    """Make the recipes of the heads that a fit compares; each has been checked.

    Parameters
    ----------
    head : str
        One of :data:`brainfeat.heads.kinds.HEAD_NAMES`, or ``"all"`` for all of them; one of
        :data:`brainfeat.heads.kinds.ATTENTION_HEADS`; or an ensemble.
    params : mapping or None
        Constructor parameters that every candidate has. With ``"all"``, each head gets those that
        it accepts, and so does each member of an ensemble, unless a name such as ``"svm.C"`` says
        whose they are.
    class_names : tuple of str
        The classes; a ``class_weight`` by class may have their names or indices as keys.
    n_iter : int or None
        Candidates of each head, from its grid; None makes one with the given parameters.
    random_state : int
        Seed of the heads and of the candidates that are drawn.
    widths : tuple of int
        As of :class:`brainfeat.heads.recipe.HeadRecipe`.
    generate : int
        Rows of each class that a generator adds to those that a head is fitted on.

    Returns
    -------
    list of HeadRecipe
        At least one.

    Raises
    ------
    HeadError
        The head or one of its parameters is unknown or out of range, or an ensemble is searched.
    ParameterError
        `generate` is not an integer from 0 to 10,000.

    Examples
    --------
    >>> recipes = make_recipes(
    ...     "knn", {"n_neighbors": 3}, class_names=("a", "b"), n_iter=None, random_state=0
    ... )
    >>> [(recipe.head, recipe.params) for recipe in recipes]
    [('knn', {'n_neighbors': 3})]
    """
    given = _read_params(head, params, class_names)
    if (ensemble := parse_ensemble(head)) is not None:
        if n_iter is not None:
            raise HeadError(
                f"a search of the ensemble {head!r}; search its members alone first, and give the "
                f"parameters that are found to the ensemble, such as {ensemble.members[0]}.NAME"
            )
        accepted = {name: accepted_names(name) for name in ensemble.members}
        given = share_params(ensemble, given, accepted)
    number = check_number(generate)
    recipes = [
        HeadRecipe(
            head=name,
            params=chosen,
            class_names=class_names,
            random_state=random_state,
            widths=widths,
            generate=number,
        )
        for name, chosen in _list_candidates(head, given, n_iter=n_iter, random_state=random_state)
    ]
    for recipe in recipes:
        recipe.make()
    return recipes


def _list_candidates(
    head: str, given: dict[str, Any], *, n_iter: int | None, random_state: int
) -> list[tuple[str, dict[str, Any]]]:
    """List heads with parameters: the given ones alone, or `n_iter` from each grid with them."""
    heads = HEAD_NAMES if head == ALL_HEADS else (head,)
    accepted = {name: accepted_names(name) for name in heads}
    fixed = _share_params(given, accepted) if head == ALL_HEADS else {head: given}
    if n_iter is None:
        return list(fixed.items())
    return [
        (name, params)
        for name in heads
        for params in draw_candidates(
            name, fixed=fixed[name], n_iter=n_iter, random_state=random_state
        )
    ]


def _share_params(
    given: dict[str, Any], accepted: Mapping[str, list[str]]
) -> dict[str, dict[str, Any]]:
    """Give each head the parameters that it accepts."""
    if unknown := sorted(set(given).difference(*accepted.values())):
        raise HeadError(
            f"no head has a parameter {', '.join(map(repr, unknown))}; name one head to see "
            "those that it accepts"
        )
    return {
        head: {name: given[name] for name in given if name in names}
        for head, names in accepted.items()
    }


def _read_params(
    head: str, params: Mapping[str, Any] | None, class_names: tuple[str, ...]
) -> dict[str, Any]:
    """Return parameters that a head file can hold: plain numbers, and class weights by name."""
    given = {name: _plain(value) for name, value in (params or {}).items()}
    if reserved := sorted(key for key in given if key.rpartition(".")[2] in _RESERVED):
        raise HeadError(
            f"the {head} head has no parameter {', '.join(map(repr, reserved))}; the seed and the "
            "number of processes are options of their own"
        )
    for key, weights in given.items():
        if key.rpartition(".")[2] != "class_weight" or not isinstance(weights, Mapping):
            continue
        names: dict[Any, str] = {name: name for name in class_names}
        names.update(enumerate(class_names))
        if unknown := [label for label in weights if label not in names]:
            raise HeadError(
                f"class_weight has {', '.join(map(repr, unknown))}, which is not one of the "
                f"classes {', '.join(class_names)}"
            )
        given[key] = {names[label]: _plain(weight) for label, weight in weights.items()}
    return given


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value
