"""Fits of a variant: on the folds and images of the plain head, found again in its own caches."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainfeat.cache.cache import FeatureCache
from brainfeat.cache.image_matching import match_contents
from brainfeat.errors import HeadError, TableError
from brainfeat.heads.bags import AnyFeatures, BagRule
from brainfeat.heads.calibration import fit_temperature, softmax
from brainfeat.heads.kinds import takes_maps
from brainfeat.heads.recipe import HeadRecipe
from brainfeat.training.bagging import choose_head, make_rule
from brainfeat.training.block_votes import choose_ensemble
from brainfeat.training.candidates import make_recipes
from brainfeat.training.fits import FitResult, FitTask, Progress, run_fits
from brainfeat.training.fitting import N_ITER, SEARCH_FOLDS
from brainfeat.training.grouping import number_groups
from brainfeat.training.joined_fit import choose_pooling, opened_join
from brainfeat.training.partition import SPLITS, Partition
from brainfeat.training.selection import select_head

Rows = NDArray[np.intp]


@dataclass(frozen=True, kw_only=True, eq=False)
class Opened:
    """What a head is fitted on, opened, and which head that is.

    Attributes
    ----------
    cache : FeatureCache
    rule : BagRule or None
        How the images of a group become one unit.
    recipes : list of HeadRecipe
        One, or the candidates of a search.
    """

    cache: FeatureCache
    rule: BagRule | None
    recipes: Sequence[HeadRecipe]

    @property
    def maps(self) -> bool:
        """Whether the head takes maps, and not vectors."""
        return takes_maps(self.recipes[0].head)

    def read(self) -> Partition:
        """Read the units; all that are not generated are in train."""
        return Partition.read(self.cache, self.rule, maps=self.maps, generated=True)


@dataclass(frozen=True, kw_only=True, eq=False)
class VariantScores:
    """What the fits of a variant say of the images of the plain head.

    Attributes
    ----------
    recipe : HeadRecipe
    searched : bool
        Whether each fit searched parameters of its own, so that the recipe is that of the last.
    folds : ndarray of shape (n,), int
        Predicted classes, out of fold, fold after fold.
    test : ndarray of shape (t,), int
        Those of the test images, by the fit on all of train and val.
    elsewhere : ndarray of shape (e, k), float64, or None
        Calibrated probabilities of the images of another data set, by the same fit.
    seconds : float
        Of one fit, the mean.
    warnings : tuple of str
    """

    recipe: HeadRecipe
    searched: bool
    folds: Rows
    test: Rows
    elsewhere: NDArray[np.float64] | None
    seconds: float
    warnings: tuple[str, ...]


@contextmanager
def opened_variant(
    plain: FeatureCache, options: Mapping[str, Any], *, random_state: int
) -> Iterator[Opened]:
    """Open what a variant is fitted on, and make its recipes.

    Parameters
    ----------
    plain : FeatureCache
        The cache of the plain head, for a variant that has no others.
    options : mapping
        As :func:`brainfeat.training.variants.change_options` returns them.
    random_state : int
        Seed of the heads.

    Yields
    ------
    Opened

    Raises
    ------
    BrainfeatError
        As in :func:`brainfeat.fit_head`.
    """
    with opened_join(
        options.get("features", plain),
        join=options.get("join"),
        names=options.get("names"),
        layer=options.get("layer"),
    ) as cache:
        pooling = choose_pooling(cache, ablate_blocks=False, ood_examples=None)
        rule = make_rule(options.get("bag") or pooling, options.get("group_label"))
        head, widths = choose_ensemble(
            choose_head(options["head"], rule), options.get("how"), cache
        )
        recipes = make_recipes(
            head,
            options.get("params"),
            class_names=cache.class_names,
            n_iter=options.get("n_iter", N_ITER) if options.get("search") else None,
            random_state=random_state,
            widths=widths,
            generate=options.get("generate", 0),
        )
        yield Opened(cache=cache, rule=rule, recipes=recipes)


def take_places(plain: Opened, reference: Partition, own: Opened) -> Partition:
    """Read the units of a variant, and give them the splits, groups and folds of the plain head.

    Parameters
    ----------
    plain : Opened
    reference : Partition
        Of the plain head, with splits and folds.
    own : Opened
        Of the same images.

    Returns
    -------
    Partition

    Raises
    ------
    CacheError
        The images are not the same.
    TableError
        They have other classes.
    """
    if own.cache is plain.cache and (own.rule, own.maps) == (plain.rule, plain.maps):
        return reference
    partition = own.read()
    units = np.concatenate([reference.splits[name] for name in SPLITS])
    candidates = partition.splits["train"]
    found = match_contents(
        plain.cache, reference.rows[units], own.cache, partition.rows[candidates]
    )
    places = np.full(len(reference.y), -1, np.intp)
    places[units] = candidates[found]
    same = np.array_equal(reference.y[units], partition.y[places[units]])
    if own.cache.class_names != plain.cache.class_names or not same:
        raise TableError(
            f"images have other classes in {own.cache.path} than in {plain.cache.path}; extract "
            "both from one table"
        )
    return replace(
        partition,
        splits={name: places[images] for name, images in reference.splits.items()},
        folds=tuple((places[train], places[test]) for train, test in reference.folds),
        groups=None if reference.groups is None else _move_groups(reference, partition, places),
        grouped_by=reference.grouped_by,
    )


def _move_groups(reference: Partition, partition: Partition, places: Rows) -> Rows:
    """Give each row of a variant the number of its group; generated images have none."""
    units = np.flatnonzero(places >= 0)
    groups = len(units) + np.arange(len(partition.y))
    groups[places[units]] = number_groups(reference.groups_of(units), len(units))
    moved: Rows = groups[partition.image]
    return moved


def fit_variant(
    recipes: Sequence[HeadRecipe],
    partition: Partition,
    elsewhere: AnyFeatures | None,
    *,
    n_jobs: int | None,
    progress: Progress | None,
) -> VariantScores:
    """Fit a variant on each fold, and on all of train and val.

    Parameters
    ----------
    recipes : sequence of HeadRecipe
        One, or candidates, among which each fit chooses.
    partition : Partition
        With splits and folds.
    elsewhere : ndarray of shape (e, d), float32, Bags, BlockVectors, or None
        Features of the images of another data set.
    n_jobs, progress
        As of :func:`brainfeat.training.fits.run_fits`.

    Returns
    -------
    VariantScores

    Raises
    ------
    HeadError
        The head cannot be fitted on a fold, or on all.
    """
    pairs = [*partition.folds, (partition.fitted_images, partition.splits["test"])]
    tasks = [
        FitTask(
            recipe=_choose_recipe(recipes, partition, train, n_jobs=n_jobs),
            partition=partition,
            train=train,
            scored=scored,
            elsewhere=elsewhere if place == len(partition.folds) else None,
        )
        for place, (train, scored) in enumerate(pairs)
    ]
    results = run_fits(tasks, n_jobs=n_jobs, progress=progress)
    scores = _require_scores(results)
    *folds, test = scores
    out_of_fold = np.concatenate(folds)
    probabilities, other = None, results[-1].elsewhere
    if other is not None:
        y = partition.y[np.concatenate([scored for _, scored in partition.folds])]
        probabilities = softmax(other, temperature=fit_temperature(out_of_fold, y))
    return VariantScores(
        recipe=tasks[-1].recipe,
        searched=len(recipes) > 1,
        folds=out_of_fold.argmax(axis=1),
        test=test.argmax(axis=1),
        elsewhere=probabilities,
        seconds=float(np.mean([result.seconds for result in results])),
        warnings=tuple(dict.fromkeys(text for result in results for text in result.warnings)),
    )


def _choose_recipe(
    recipes: Sequence[HeadRecipe], partition: Partition, train: Rows, *, n_jobs: int | None
) -> HeadRecipe:
    """Choose among candidates by folds of the training images alone."""
    if len(recipes) == 1:
        return recipes[0]
    none = np.empty(0, np.intp)
    inner = replace(partition, splits={"train": train, "val": none, "test": none})
    folded = inner.with_folds(SEARCH_FOLDS, random_state=recipes[0].random_state)
    return select_head(recipes, folded, n_jobs=n_jobs).recipe


def _require_scores(results: Sequence[FitResult]) -> list[NDArray[np.float64]]:
    if errors := [result.error for result in results if result.error is not None]:
        raise HeadError(errors[0])
    return [result.scores for result in results if result.scores is not None]
