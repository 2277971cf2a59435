"""STAGE TWO: a cache, the name of a head and a split become a HeadBundle."""

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from brainfeat import runtime
from brainfeat.bundle import HeadBundle
from brainfeat.cache import FeatureCache
from brainfeat.calibration import fit_temperature, softmax
from brainfeat.errors import CacheError, HeadError, ParameterError, TableError
from brainfeat.evaluation import Evaluation, measure
from brainfeat.heads import head_scores, make_head, needs_validation
from brainfeat.splitting import make_folds, split_rows

GroupBy = Literal["auto", "column", "none"]
Rows = NDArray[np.intp]

_PROBES = 16
_CV_VAL_FRACTION = 0.15
# Heads whose scores are margins: the softmax of a margin is no probability before it is scaled.
_MARGIN_HEADS = ("svm", "linear-svm")
# What make_head takes beside the parameters of a head.
_RESERVED = frozenset({"n_jobs", "name", "random_state"})
# The largest seed that scikit-learn takes.
_SEED_LIMIT = 2**32
# What scikit-learn raises on parameters that it cannot work with.
_HEAD_ERRORS = (ArithmeticError, NotImplementedError, TypeError, ValueError)


def fit_head(
    cache: FeatureCache | str | os.PathLike[str],
    *,
    head: str = "dense",
    params: Mapping[str, Any] | None = None,
    val_fraction: float = 0.15,
    test_fraction: float = 0.15,
    cv: int | None = None,
    group_by: GroupBy = "auto",
    n_jobs: int | None = None,
    random_state: int = 0,
) -> HeadBundle:
    """Fit a head on cached features.

    The splits of the table are kept. Where it has no validation part, one is taken from train;
    where it has no splits, 70 / 15 / 15 parts are made. Parts are stratified by class and never cut
    a group. A head that needs no validation part to stop is fitted again on train and validation
    together once its validation figures are taken.

    Parameters
    ----------
    cache : FeatureCache or path-like
        What :func:`brainfeat.extract` wrote.
    head : str
        One of :data:`brainfeat.heads.HEAD_NAMES`.
    params : mapping or None
        Constructor parameters of the head, such as ``{"C": 10}``. A ``class_weight`` by class has
        the names of the classes as its keys, or their indices.
    val_fraction : float
        Share of the training images (of all, without splits) held out for validation.
    test_fraction : float
        Share of all images held out for the test where the table has no splits.
    cv : int or None
        Folds of a cross-validation over train and validation; None does none.
    group_by : {"auto", "column", "none"}
        What a part never cuts: the table's ``group`` where it has one (auto) or must have one
        (column), or nothing.
    n_jobs : int or None
        Processes that fit folds; None takes all cores.
    random_state : int
        Seed of the parts and of the head.

    Returns
    -------
    HeadBundle

    Raises
    ------
    TableError
        The labels, groups or splits do not allow it.
    HeadError
        The head or one of its parameters is unknown or out of range.
    CacheError
        The features are not finite.
    ParameterError
        `group_by` or `random_state` is not one of the values above.

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
                val_fraction=val_fraction,
                test_fraction=test_fraction,
                cv=cv,
                group_by=group_by,
                n_jobs=n_jobs,
                random_state=random_state,
            )
    started = time.perf_counter()
    _check_options(group_by, random_state)
    recipe = _HeadRecipe(
        head=head,
        params=_read_params(head, params, cache.class_names),
        class_names=cache.class_names,
        random_state=random_state,
    )
    recipe.make()
    data = _Data.read(cache, group_by)
    parts = _split(data, cache, val_fraction, test_fraction, random_state)
    folds = None if cv is None else _make_folds(data, parts, cv, random_state)
    fitted = _fit(recipe, data, parts["train"], parts["val"])
    val = fitted.measure(data, parts["val"])
    cross_validated = None if folds is None else _cross_validate(recipe, data, folds, n_jobs)
    if not needs_validation(head):
        everything = np.concatenate([parts["train"], parts["val"]])
        fitted = _Fitted(recipe.fit(data, everything), fitted.temperature)
    test = fitted.measure(data, parts["test"]) if len(parts["test"]) else None
    training = {
        "split": {name: len(images) for name, images in parts.items()},
        "rows": {name: len(data.rows_of(images)) for name, images in parts.items()},
        "held_out": _name_held_out(cache, parts),
        "refitted_on_val": not needs_validation(head),
        "val": val.to_dict(),
        "test": None if test is None else test.to_dict(),
        "cv": cross_validated,
        "history": getattr(fitted.estimator, "history_", None),
        "class_weight": recipe.params.get("class_weight"),
        "group_by": "column" if data.groups is not None else "none",
        "random_state": int(random_state),
        "cache_sha256": cache.content_sha256,
        "versions": runtime.versions(),
        "seconds": time.perf_counter() - started,
    }
    return HeadBundle(
        spec=cache.spec,
        class_names=cache.class_names,
        head=head,
        params=recipe.params,
        estimator=fitted.estimator,
        temperature=fitted.temperature,
        training=training,
        probe=_make_probe(data.X, random_state),
    )


def _check_options(group_by: str, random_state: int) -> None:
    if group_by not in get_args(GroupBy):
        raise ParameterError(
            f"group_by must be one of {', '.join(get_args(GroupBy))}, got {group_by!r}"
        )
    if not isinstance(random_state, int | np.integer) or not 0 <= random_state < _SEED_LIMIT:
        raise ParameterError(
            f"random_state must be an integer from 0 to {_SEED_LIMIT - 1}, got {random_state!r}"
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


@dataclass(frozen=True, kw_only=True)
class _Data:
    """The labelled rows of a cache in memory; an image is a row of view 0 with its views."""

    X: NDArray[np.float32]
    y: NDArray[np.int64]
    image: Rows  # of each row: the row of its view 0
    images: Rows  # the rows of view 0
    groups: NDArray[np.str_] | None  # of each row
    class_names: tuple[str, ...]

    @classmethod
    def read(cls, cache: FeatureCache, group_by: GroupBy) -> "_Data":
        if cache.spec.pooling == "none":
            raise TableError(f"{cache.path} holds feature maps; heads take pooled features")
        rows = np.flatnonzero(cache.mask(views=True))
        y = cache.y[rows]
        present = np.unique(y)
        if len(present) < 2:
            names = ", ".join(cache.class_names[label] for label in present) or "none"
            raise TableError(
                f"{cache.path} has labelled images of too few classes ({names}); "
                "a classifier needs two or more"
            )
        groups = cache.groups[rows]
        if group_by == "column" and not groups.any():
            raise TableError(f"{cache.path} has no groups; give the table a group column")
        grouped = group_by != "none" and bool(groups.any())
        X = cache.X[rows]
        if bad := int((~np.isfinite(X)).any(axis=1).sum()):
            raise CacheError(
                f"{cache.path} has features that are not finite in {bad:,} of {len(X):,} rows; "
                "extract them anew, in float32"
            )
        view = cache.view[rows]
        _, place = np.unique(cache.paths[rows], return_inverse=True)
        first = np.zeros(place.max() + 1, np.intp)
        first[place[view == 0]] = np.flatnonzero(view == 0)
        return cls(
            X=X,
            y=y,
            image=first[place],
            images=np.flatnonzero(view == 0),
            groups=groups if grouped else None,
            class_names=cache.class_names,
        )

    def rows_of(self, images: Rows) -> Rows:
        """Return the rows of images with their augmented views."""
        return np.flatnonzero(np.isin(self.image, images))

    def groups_of(self, images: Rows) -> NDArray[np.str_] | None:
        return None if self.groups is None else self.groups[images]


@dataclass(frozen=True, kw_only=True)
class _HeadRecipe:
    """How an unfitted head is made: picklable, so that processes can fit folds."""

    head: str
    params: dict[str, Any]
    class_names: tuple[str, ...]
    random_state: int

    def make(self) -> Any:
        params = dict(self.params)
        if isinstance(weights := params.get("class_weight"), dict):
            params["class_weight"] = {
                self.class_names.index(name): weight for name, weight in weights.items()
            }
        return make_head(self.head, random_state=int(self.random_state), **params)

    def fit(self, data: _Data, train: Rows, val: Rows | None = None) -> Any:
        rows = data.rows_of(train)
        stopping = {} if val is None else {"validation_data": (data.X[val], data.y[val])}
        try:
            return self.make().fit(data.X[rows], data.y[rows], **stopping)
        except _HEAD_ERRORS as error:
            reason = " ".join(str(error).split())
            raise HeadError(f"the {self.head} head cannot be fitted: {reason}") from error


@dataclass(frozen=True)
class _Fitted:
    estimator: Any
    temperature: float

    def predict_proba(self, X: NDArray[np.float32]) -> NDArray[np.float64]:
        try:
            scores = head_scores(self.estimator, X)
        except _HEAD_ERRORS as error:
            reason = " ".join(str(error).split())
            raise HeadError(f"the fitted head cannot predict: {reason}") from error
        return softmax(scores, temperature=self.temperature)

    def measure(self, data: _Data, images: Rows) -> Evaluation:
        probabilities = self.predict_proba(data.X[images])
        return measure(data.y[images], probabilities, class_names=data.class_names)


def _fit(recipe: _HeadRecipe, data: _Data, train: Rows, val: Rows) -> _Fitted:
    """Fit on train; the validation images stop the dense head and scale the margins of an SVM."""
    estimator = recipe.fit(data, train, val if needs_validation(recipe.head) else None)
    if recipe.head not in _MARGIN_HEADS:
        return _Fitted(estimator, 1.0)
    return _Fitted(estimator, fit_temperature(head_scores(estimator, data.X[val]), data.y[val]))


def _split(
    data: _Data, cache: FeatureCache, val_fraction: float, test_fraction: float, random_state: int
) -> dict[str, Rows]:
    """Return the images (rows of view 0) of train, val and test."""
    names = cache.splits[np.flatnonzero(cache.mask(views=True))][data.images]
    if not names.any():
        fractions = {"val": val_fraction, "test": test_fraction}
        names = _assign(data, data.images, fractions, random_state)
    parts = {name: data.images[names == name] for name in ("train", "val", "test")}
    _check_classes(data, parts)
    if not len(parts["val"]):
        parts["train"], parts["val"] = _take_val(data, parts["train"], val_fraction, random_state)
    return parts


def _name_held_out(cache: FeatureCache, parts: Mapping[str, Rows]) -> dict[str, list[str]] | None:
    """Name the images that were held out where the table does not say it, for `evaluate`."""
    if cache.splits.any():
        return None
    rows = np.flatnonzero(cache.mask(views=True))
    return {name: cache.image_ids(rows[parts[name]]) for name in ("val", "test")}


def _take_val(data: _Data, images: Rows, fraction: float, random_state: int) -> tuple[Rows, Rows]:
    names = _assign(data, images, {"val": fraction}, random_state)
    return images[names == "train"], images[names == "val"]


def _assign(
    data: _Data, images: Rows, fractions: Mapping[str, float], random_state: int
) -> NDArray[np.str_]:
    return split_rows(
        data.y[images],
        fractions=fractions,
        groups=data.groups_of(images),
        class_names=data.class_names,
        random_state=random_state,
    )


def _check_classes(data: _Data, parts: Mapping[str, Rows]) -> None:
    """Refuse a class that a head could not learn, or would be asked about without having seen."""
    trained = set(data.y[parts["train"]])
    for label, name in enumerate(data.class_names):
        if label not in trained:
            where = [part for part in ("val", "test") if label in data.y[parts[part]]]
            place = (
                f"exists in {' and '.join(where)} but not in train" if where else "has no images"
            )
            raise TableError(f"class {name!r} {place}; add training images or drop the class")


def _make_folds(
    data: _Data, parts: Mapping[str, Rows], n_folds: int, random_state: int
) -> list[tuple[Rows, Rows]]:
    """Return the images of each fold's train and test; the test part of the table is in none."""
    images = np.sort(np.concatenate([parts["train"], parts["val"]]))
    folds = make_folds(
        data.y[images],
        n_folds=n_folds,
        groups=data.groups_of(images),
        class_names=data.class_names,
        random_state=random_state,
    )
    return [(images[train], images[test]) for train, test in folds]


def _cross_validate(
    recipe: _HeadRecipe, data: _Data, folds: list[tuple[Rows, Rows]], n_jobs: int | None
) -> dict[str, Any]:
    """Fit on all folds but one and predict that one, for each."""
    from joblib import Parallel, delayed

    jobs = Parallel(n_jobs=min(len(folds), n_jobs or runtime.usable_cores()))
    predicted = jobs(delayed(_predict_fold)(recipe, data, train, test) for train, test in folds)
    evaluations = [
        measure(data.y[test], fold, class_names=data.class_names)
        for (_, test), fold in zip(folds, predicted, strict=True)
    ]
    images = np.concatenate([test for _, test in folds])
    pooled = measure(data.y[images], np.concatenate(predicted), class_names=data.class_names)
    return {
        "n_folds": len(folds),
        "out_of_fold": pooled.to_dict(),
        **{
            name: _spread([getattr(evaluation, name) for evaluation in evaluations])
            for name in ("accuracy", "balanced_accuracy", "log_loss")
        },
    }


def _predict_fold(recipe: _HeadRecipe, data: _Data, train: Rows, test: Rows) -> NDArray[np.float64]:
    if not needs_validation(recipe.head) and recipe.head not in _MARGIN_HEADS:
        return _Fitted(recipe.fit(data, train), 1.0).predict_proba(data.X[test])
    train, val = _take_val(data, train, _CV_VAL_FRACTION, recipe.random_state)
    return _fit(recipe, data, train, val).predict_proba(data.X[test])


def _spread(values: list[float]) -> dict[str, float]:
    return {"mean": float(np.mean(values)), "std": float(np.std(values, ddof=1))}


def _make_probe(X: NDArray[np.float32], random_state: int) -> NDArray[np.float32]:
    """Draw vectors like the features but of no image: mean plus seeded noise of the same spread."""
    rng = np.random.default_rng([random_state, _PROBES])
    noise = rng.standard_normal((_PROBES, X.shape[1]))
    probe: NDArray[np.float32] = (X.mean(axis=0) + X.std(axis=0) * noise).astype(np.float32)
    return probe
