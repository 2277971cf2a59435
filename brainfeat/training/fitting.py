"""STAGE TWO: a cache, the name of a head and a split become a HeadBundle."""

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from brainfeat import runtime
from brainfeat.cache.cache import FeatureCache
from brainfeat.errors import CacheError, HeadError, ParameterError
from brainfeat.heads.bundle import HeadBundle
from brainfeat.heads.calibration import Calibration, calibrate
from brainfeat.heads.conformal import Conformal
from brainfeat.heads.grids import draw_candidates
from brainfeat.heads.kinds import HEAD_NAMES, accepted_names, needs_validation
from brainfeat.heads.ood import Scope
from brainfeat.heads.recipe import FittedHead, HeadRecipe
from brainfeat.leakage.auditing import quick_audit
from brainfeat.metrics import Metrics, measure
from brainfeat.training.partition import (
    GroupBy,
    LabelledRows,
    Rows,
    choose_groups,
    fold_images,
    limit_folds,
    name_held_out,
    split_images,
)
from brainfeat.training.selection import CrossValidation, Selection, cross_validate, select_head

# What stands for every head there is.
ALL_HEADS = "all"
# Candidates of a head, and folds, where a search is told neither.
N_ITER = 10
SEARCH_FOLDS = 5
# Folds that give a head its temperature, where the classes have so many groups.
CALIBRATION_FOLDS = 5

_PROBES = 16
# Rows whose mean and spread the probe vectors have: more would not change what they are for.
_PROBED_ROWS = 10_000
# What make_head takes beside the parameters of a head.
_RESERVED = frozenset({"n_jobs", "name", "random_state"})
# The largest seed that scikit-learn takes.
_SEED_LIMIT = 2**32


def fit_head(
    cache: FeatureCache | str | os.PathLike[str],
    *,
    head: str = "dense",
    params: Mapping[str, Any] | None = None,
    search: bool = False,
    n_iter: int | None = None,
    val_fraction: float = 0.15,
    test_fraction: float = 0.15,
    cv: int | None = None,
    group_by: GroupBy = "auto",
    strangers: FeatureCache | str | os.PathLike[str] | None = None,
    n_jobs: int | None = None,
    random_state: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> HeadBundle:
    """Fit a head on cached features.

    The splits of the table are kept. Where it has no validation part, one is taken from train;
    where it has no splits, 70 / 15 / 15 parts are made. Parts are stratified by class and never cut
    a group. A head that needs no validation part to stop is fitted again on train and validation
    together once its validation figures are taken.

    The scores of every head are divided by one temperature, which makes probabilities of them. It
    fits images that the head had not seen: those of the validation part, for a head that this
    stops; for others, those that the folds of a cross-validation over train and validation left
    out, five where ``cv`` does not say it.

    A search, or ``head="all"``, first cross-validates candidates on the same folds of train and
    validation and ranks them by mean balanced accuracy; the best one is fitted. Its cross-validated
    figures are a little too good, for they helped to choose it; those of the test part are not, for
    no candidate saw it.

    Parameters
    ----------
    cache : FeatureCache or path-like
        What :func:`brainfeat.extract` wrote.
    head : str
        One of :data:`brainfeat.heads.kinds.HEAD_NAMES`, or ``"all"`` to compare them.
    params : mapping or None
        Constructor parameters of the head, such as ``{"C": 10}``. A ``class_weight`` by class has
        the names of the classes as its keys, or their indices. A search keeps them for every
        candidate; of all heads, those get a parameter that have it.
    search : bool
        Whether to try parameters from the head's grid, :data:`brainfeat.heads.grids.GRIDS`.
    n_iter : int or None
        Candidates of a search, for each head: its defaults, and others drawn from the grid. As many
        as the grid has points, or more, is the whole grid. None takes 10.
    val_fraction : float
        Share of the training images (of all, without splits) held out for validation.
    test_fraction : float
        Share of all images held out for the test where the table has no splits.
    cv : int or None
        Folds of a cross-validation over train and validation; None does none, or takes 5 where
        candidates are compared.
    group_by : {"auto", "column", "near-duplicates", "none"}
        What no part and no fold cuts: the table's groups where there are any, else clusters of near
        duplicates (auto); the table's (column); clusters joined with the table's groups
        (near-duplicates); or nothing. Above 50,000 images, and where one chain joins a tenth of
        them, auto takes identical files for near duplicates.
    strangers : FeatureCache, path-like or None
        Features of images that a prediction shall refuse, such as slices that are turned; the head
        itself does not see them.
    n_jobs : int or None
        Processes that fit folds; None takes all cores.
    random_state : int
        Seed of the parts, of the head and of the candidates that are drawn.
    progress : callable or None
        Called with the number of fits that are done and of all, while candidates are compared.

    Returns
    -------
    HeadBundle
        Where candidates were compared, ``training["search"]`` holds the table of them.

    Raises
    ------
    TableError
        The labels, groups or splits do not allow it.
    HeadError
        The head or one of its parameters is unknown or out of range, or no candidate can be fitted.
    CacheError
        The features are not finite, or there are no strangers.
    SpecMismatchError
        The strangers' features are of another spec.
    ParameterError
        `group_by`, `random_state` or `n_iter` is not one of the values above.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> from brainfeat import extract, read_table
    >>> from brainfeat.phantoms import write_phantoms
    >>> with TemporaryDirectory() as folder:
    ...     table = read_table(write_phantoms(f"{folder}/slices", patients_per_class=6, size=48))
    ...     result = extract(
    ...         table,
    ...         f"{folder}/features.h5",
    ...         backbone="mobilenet-0.75",
    ...         weights="random",
    ...         input_size=32,
    ...     )
    ...     bundle = fit_head(result.output, head="svm", params={"C": 10})
    >>> sum(bundle.training["split"].values())
    96
    """
    if not isinstance(cache, FeatureCache):
        with FeatureCache.open(cache) as opened:
            return fit_head(
                opened,
                head=head,
                params=params,
                search=search,
                n_iter=n_iter,
                val_fraction=val_fraction,
                test_fraction=test_fraction,
                cv=cv,
                group_by=group_by,
                strangers=strangers,
                n_jobs=n_jobs,
                random_state=random_state,
                progress=progress,
            )
    started = time.perf_counter()
    _check_options(group_by, random_state, n_iter, search=search)
    given = _read_params(head, params, cache.class_names)
    recipes = [
        HeadRecipe(
            head=name, params=chosen, class_names=cache.class_names, random_state=random_state
        )
        for name, chosen in _list_candidates(
            head, given, n_iter=(n_iter or N_ITER) if search else None, random_state=random_state
        )
    ]
    for recipe in recipes:
        recipe.make()
    strange = None if strangers is None else _read_strangers(strangers, cache)
    data = LabelledRows.read(cache)
    leakage = quick_audit(cache)
    groups, grouped_by = choose_groups(cache, group_by, leakage)
    data = data.group(groups)
    parts = split_images(
        data,
        cache,
        val_fraction=val_fraction,
        test_fraction=test_fraction,
        random_state=random_state,
    )
    compare = search or head == ALL_HEADS
    n_folds = SEARCH_FOLDS if cv is None and compare else cv
    folds = (
        None
        if n_folds is None
        else fold_images(data, parts, n_folds=n_folds, random_state=random_state)
    )
    selection: Selection | None = None
    if compare and folds is not None:
        selection = select_head(recipes, data, folds, n_jobs=n_jobs, progress=progress)
    recipe = recipes[0] if selection is None else selection.recipe
    found = None if selection is None else selection.cv
    if folds is not None and found is None:
        found = cross_validate(recipe, data, folds, n_jobs=n_jobs)
    fitted, val, calibration, conformal = _fit_calibrated(
        recipe, data, parts, found, n_jobs=n_jobs, random_state=random_state
    )
    test = _measure(fitted, data, parts["test"]) if len(parts["test"]) else None
    training = {
        "split": {name: len(images) for name, images in parts.items()},
        "rows": {name: len(data.rows_of(images)) for name, images in parts.items()},
        "held_out": name_held_out(cache, parts),
        "refitted_on_val": not needs_validation(recipe.head),
        "val": val.to_dict(),
        "test": None if test is None else test.to_dict(),
        "cv": None if found is None else found.figures,
        "calibration": asdict(calibration),
        "search": None if selection is None else selection.to_dict(),
        "history": getattr(fitted.estimator, "history_", None),
        "class_weight": recipe.params.get("class_weight"),
        "group_by": grouped_by,
        "leakage": _without_paths(leakage.to_dict()),
        "strangers": None if strange is None else len(strange),
        "random_state": int(random_state),
        "cache_sha256": cache.content_sha256,
        "versions": runtime.versions(),
        "seconds": time.perf_counter() - started,
    }
    return HeadBundle(
        spec=cache.spec,
        class_names=cache.class_names,
        head=recipe.head,
        params=recipe.params,
        estimator=fitted.estimator,
        temperature=fitted.temperature,
        training=training,
        probe=_make_probe(data.X, random_state),
        scope=Scope.fit(
            data.X[parts["train"]],
            data.y[parts["train"]],
            held_out=data.X[parts["val"]],
            n_classes=len(data.class_names),
            strangers=strange,
            random_state=int(random_state),
        ),
        conformal=conformal,
    )


def _list_candidates(
    head: str, given: dict[str, Any], *, n_iter: int | None, random_state: int
) -> list[tuple[str, dict[str, Any]]]:
    """List heads with parameters: the given ones alone, or `n_iter` from each grid with them."""
    heads = HEAD_NAMES if head == ALL_HEADS else (head,)
    accepted = {name: set(accepted_names(name)) for name in heads}
    fixed = dict.fromkeys(heads, given)
    if head == ALL_HEADS:
        if unknown := sorted(set(given).difference(*accepted.values())):
            raise HeadError(
                f"no head has a parameter {', '.join(map(repr, unknown))}; name one head to see "
                "those it accepts"
            )
        fixed = {
            name: {key: given[key] for key in given if key in accepted[name]} for name in heads
        }
    if n_iter is None:
        return [(name, fixed[name]) for name in heads]
    return [
        (name, params)
        for name in heads
        for params in draw_candidates(
            name, fixed=fixed[name], n_iter=n_iter, random_state=random_state
        )
    ]


def _check_options(group_by: str, random_state: int, n_iter: int | None, *, search: bool) -> None:
    if group_by not in get_args(GroupBy):
        raise ParameterError(
            f"group_by must be one of {', '.join(get_args(GroupBy))}, got {group_by!r}"
        )
    if not isinstance(random_state, int | np.integer) or not 0 <= random_state < _SEED_LIMIT:
        raise ParameterError(
            f"random_state must be an integer from 0 to {_SEED_LIMIT - 1}, got {random_state!r}"
        )
    if n_iter is None:
        return
    if not isinstance(n_iter, int | np.integer) or n_iter < 1:
        raise ParameterError(f"n_iter must be an integer of 1 or more, got {n_iter!r}")
    if not search:
        raise ParameterError(
            f"n_iter={n_iter} is the number of candidates of a search; ask for one with search"
        )


def _read_params(
    head: str, params: Mapping[str, Any] | None, class_names: tuple[str, ...]
) -> dict[str, Any]:
    """Return parameters that a bundle can hold: plain numbers, class weights by name."""
    given = {name: _plain(value) for name, value in (params or {}).items()}
    if reserved := sorted(_RESERVED & set(given)):
        raise HeadError(
            f"the {head} head has no parameter {', '.join(map(repr, reserved))}; the seed and the "
            "number of processes are options of their own"
        )
    weights = given.get("class_weight")
    if isinstance(weights, Mapping):
        names: dict[Any, str] = {name: name for name in class_names}
        names.update(enumerate(class_names))
        if unknown := [key for key in weights if key not in names]:
            raise HeadError(
                f"class_weight has {', '.join(map(repr, unknown))}, which is none of the classes "
                f"{', '.join(class_names)}"
            )
        given["class_weight"] = {names[key]: _plain(weight) for key, weight in weights.items()}
    return given


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _measure(fitted: FittedHead, data: LabelledRows, images: Rows) -> Metrics:
    probabilities = fitted.predict_proba(data.X[images])
    return measure(data.y[images], probabilities, class_names=data.class_names)


def _fit_calibrated(
    recipe: HeadRecipe,
    data: LabelledRows,
    parts: Mapping[str, Rows],
    found: CrossValidation | None,
    *,
    n_jobs: int | None,
    random_state: int,
) -> tuple[FittedHead, Metrics, Calibration, Conformal]:
    """Fit on train, measure on val, fit again on both; calibrate on images that were not seen.

    A head that val stops has its temperature from val; others from the folds of a cross-validation,
    or from val where a class has images of one group alone.
    """
    train, val = data.rows_of(parts["train"]), parts["val"]
    if needs_validation(recipe.head):
        estimator = recipe.fit(data.X, data.y, rows=train, val=val)
        calibration = _calibrate_on_val(estimator, data, val)
        fitted = FittedHead(estimator, calibration.temperature)
        figures, conformal = _measure(fitted, data, val), _find_conformal(fitted, data, val)
        return fitted, figures, calibration, conformal
    estimator = recipe.fit(data.X, data.y, rows=train)
    n_folds = limit_folds(data, parts, n_folds=CALIBRATION_FOLDS)
    if found is None and n_folds > 1:
        folds = fold_images(data, parts, n_folds=n_folds, random_state=random_state)
        found = cross_validate(recipe, data, folds, n_jobs=n_jobs)
    calibration = _calibrate_on_val(estimator, data, val) if found is None else found.calibration
    fitted = FittedHead(estimator, calibration.temperature)
    conformal = _find_conformal(fitted, data, val) if found is None else found.conformal
    both = data.rows_of(np.concatenate([parts["train"], val]))
    refitted = FittedHead(recipe.fit(data.X, data.y, rows=both), fitted.temperature)
    return refitted, _measure(fitted, data, val), calibration, conformal


def _find_conformal(fitted: FittedHead, data: LabelledRows, val: Rows) -> Conformal:
    return Conformal.fit(fitted.predict_proba(data.X[val]), data.y[val])


def _calibrate_on_val(estimator: Any, data: LabelledRows, val: Rows) -> Calibration:
    return calibrate([FittedHead(estimator).scores(data.X[val])], [data.y[val]])


def _read_strangers(
    strangers: FeatureCache | str | os.PathLike[str], cache: FeatureCache
) -> NDArray[np.float32]:
    if not isinstance(strangers, FeatureCache):
        with FeatureCache.open(strangers) as opened:
            return _read_strangers(opened, cache)
    cache.spec.require(strangers.spec, here=str(cache.path), there=str(strangers.path))
    X = strangers.X[np.flatnonzero(strangers.view == 0)]
    if not len(X) or not np.isfinite(X).all():
        raise CacheError(f"{strangers.path} has no images, or features that are not finite")
    return np.asarray(X, np.float32)


def _without_paths(leakage: dict[str, Any]) -> dict[str, Any]:
    """Count the conflicts instead of naming their images: a head tells nobody's files."""
    return {**leakage, "label_conflicts": len(leakage["label_conflicts"])}


def _make_probe(X: NDArray[np.float32], random_state: int) -> NDArray[np.float32]:
    """Draw vectors like the features but of no image: mean plus seeded noise of the same spread."""
    rng = np.random.default_rng([random_state, _PROBES])
    noise = rng.standard_normal((_PROBES, X.shape[1]))
    seen = X[:: -(-len(X) // _PROBED_ROWS)]
    probe: NDArray[np.float32] = (seen.mean(axis=0) + seen.std(axis=0) * noise).astype(np.float32)
    return probe
