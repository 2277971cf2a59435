"""Ablations: variants of a head against the plain one, on the same folds and images."""

import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainfeat.arithmetic import default_errors
from brainfeat.cache.cache import opened
from brainfeat.errors import BrainfeatError, ParameterError, TableError
from brainfeat.evaluation.ablation import (
    AblatedHead,
    Ablation,
    AblationImages,
    ComparedImages,
    OtherImages,
    compare_variants,
    rank_variants,
)
from brainfeat.evaluation.class_mapping import ClassesArgument, check_mappings
from brainfeat.evaluation.paired import MARGIN, PairedDifference, check_margin
from brainfeat.heads.bags import AnyFeatures
from brainfeat.leakage.auditing import audit_duplicates
from brainfeat.training.candidates import ALL_HEADS
from brainfeat.training.elsewhere import Elsewhere
from brainfeat.training.fits import Progress
from brainfeat.training.fitting import check_options
from brainfeat.training.grouping import check_grouping, choose_groups, number_groups
from brainfeat.training.joined_fit import Cache, check_blocks, opened_join
from brainfeat.training.measurement import find_copied
from brainfeat.training.partition import Partition
from brainfeat.training.variant_fits import (
    Opened,
    VariantScores,
    fit_variant,
    opened_variant,
    take_places,
)
from brainfeat.training.variants import (
    Variants,
    change_options,
    check_variants,
    describe_options,
    read_variants,
)

Rows = NDArray[np.intp]

N_FOLDS = 5


@default_errors
def ablate(
    cache: Cache | Sequence[Cache],
    variants: Variants | str | os.PathLike[str],
    *,
    head: str = "dense",
    params: Mapping[str, Any] | None = None,
    bag: str | None = None,
    group_label: str | None = None,
    join: str | None = None,
    names: Sequence[str] | None = None,
    how: str | None = None,
    layer: str | None = None,
    generate: int = 0,
    on: Cache | Sequence[Cache] = (),
    classes: ClassesArgument = None,
    margin: float = MARGIN,
    cv: int = N_FOLDS,
    val_fraction: float = 0.15,
    test_fraction: float = 0.15,
    group_by: str = "auto",
    n_jobs: int | None = None,
    random_state: int = 0,
    progress: Progress | None = None,
) -> Ablation:
    """Compare variants of a head with the plain one: on the same folds, and on another data set.

    Every variant is fitted on the same folds of train and val, which divide no group, and once on
    all of train and val. Its predictions are compared with those of the plain head on the same
    images, by :func:`brainfeat.evaluation.paired.measure_differences`: out of fold, on the test
    images of which train and val have no copy, and on the images of another data set of which they
    have none. Each of these three is a family of its own for Holm's correction.

    A variant that cannot be fitted is listed with the reason, and the others are kept. The tests
    are of these fits: another seed, or other training images, would change each of them a little.

    Parameters
    ----------
    cache : FeatureCache or path-like, or sequence of these
        What the plain head is fitted on.
    variants : mapping of str to mapping, or path-like
        Options by the name of each variant, or a TOML file of them: those in which it differs from
        the plain head. They are ``head``, ``params``, ``search``, ``n_iter``, ``bag``,
        ``generate``, ``features`` (one or several other caches of the same images), ``layer``, and
        ``join``, ``names`` and ``how`` of several. With another head, a variant has no parameters
        of the plain one. A search is made anew in the training images of each fold.
    head : str
        Of the plain head, as in :func:`brainfeat.fit_head`, but not ``"all"``.
    params : mapping or None
        Its constructor parameters.
    bag, group_label, join : str or None
        As in :func:`brainfeat.fit_head`.
    names : sequence of str or None
        As in :func:`brainfeat.fit_head`.
    how, layer : str or None
        As in :func:`brainfeat.fit_head`.
    generate : int
        As in :func:`brainfeat.fit_head`.
    on : FeatureCache or path-like, or sequence of these
        Features of another data set: one cache for each spec that a variant needs, all of the same
        images.
    classes : mapping of str to str or sequence of str, str, or None
        Classes of the head by class of that set, as in :func:`brainfeat.evaluate`.
    margin : float
        A difference of the balanced accuracy that would not matter.
    cv : int
        Number of folds; fewer are made where a class has fewer groups.
    val_fraction, test_fraction : float
        As in :func:`brainfeat.fit_head`.
    group_by : str
        As in :func:`brainfeat.fit_head`.
    n_jobs : int or None
        Number of processes, as in :func:`brainfeat.fit_head`.
    random_state : int
        Seed of the splits, folds, heads and tests.
    progress : callable or None
        Called with the number of fits that are done, and of all fits.

    Returns
    -------
    Ablation
        The plain head and each variant, out of fold, on the test images and on the other set.

    Raises
    ------
    ParameterError
        A variant has an unknown option, or another argument is out of range.
    BrainfeatError
        As in :func:`brainfeat.fit_head`, of the plain head.

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
    ...     found = ablate(result.output, {"nearest": {"head": "knn"}}, head="lda", n_jobs=1)
    >>> [(variant.name, variant.folds.verdict) for variant in found.variants]
    [('nearest', 'cannot be told')]
    """
    check_options(cv, random_state, None, search=False)
    check_grouping(group_by)
    check_margin(margin)
    _check_plain(head, cv)
    found = check_variants(variants) if isinstance(variants, Mapping) else read_variants(variants)
    options = {
        "head": head,
        "params": params,
        "bag": bag,
        "group_label": group_label,
        "how": how,
        "generate": generate,
    }
    with ExitStack() as stack:
        fitted = stack.enter_context(opened_join(cache, join=join, names=names, layer=layer))
        plain = stack.enter_context(opened_variant(fitted, options, random_state=random_state))
        partition, copied = _divide(
            plain,
            group_by,
            cv=cv,
            val_fraction=val_fraction,
            test_fraction=test_fraction,
            random_state=random_state,
        )
        others = [stack.enter_context(opened(other)) for other in _list_caches(on)]
        mappings = check_mappings(classes, fitted.class_names)
        if mappings and not others:
            raise ParameterError("classes are those of another data set; pass it as on=FEATURES")
        elsewhere = None
        if others:
            elsewhere = Elsewhere.read(others, plain, partition, mappings)
        study = _Study(
            plain=plain,
            partition=partition,
            copied=copied,
            elsewhere=elsewhere,
            n_jobs=n_jobs,
            random_state=int(random_state),
            margin=float(margin),
        )
        steps = [_count_from(place, len(found) + 1, progress) for place in range(len(found) + 1)]
        features = None
        if elsewhere is not None:
            features = elsewhere.read_features(plain)
        base = _fit(study, plain, features, steps[0])
        fits = [
            _try_fit(study, change_options(options, variant), step)
            for variant, step in zip(found.values(), steps[1:], strict=True)
        ]
    return _make_table(study, base, found, fits)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Study:
    """The plain head, opened, and the images that all variants are compared on."""

    plain: Opened
    partition: Partition
    copied: NDArray[np.bool_]  # of each test image
    elsewhere: Elsewhere | None
    n_jobs: int | None
    random_state: int
    margin: float


@dataclass(frozen=True, kw_only=True, eq=False)
class _Fit:
    """What the fits of a variant came to: no scores, and an error, where it cannot be fitted."""

    scores: VariantScores | None = None
    error: str | None = None
    elsewhere_error: str | None = None


def _check_plain(head: str, cv: object) -> None:
    if head == ALL_HEADS:
        raise ParameterError(
            'head="all" compares heads, and variants are compared with one; name the head'
        )
    if not isinstance(cv, int | np.integer) or cv < 2:
        raise ParameterError(f"cv must be a number of folds of 2 or more, got {cv!r}")


def _list_caches(on: Cache | Sequence[Cache]) -> list[Cache]:
    return list(on) if isinstance(on, Sequence) and not isinstance(on, str) else [on]


def _divide(
    plain: Opened, group_by: str, *, cv: int, random_state: int, **fractions: float
) -> tuple[Partition, NDArray[np.bool_]]:
    """Divide the images of the plain head into splits and folds; tell which test ones are copies.

    Raises
    ------
    TableError
        A class of train and val has only one group, which no folds divide.
    """
    cache, partition = plain.cache, plain.read()
    audit = audit_duplicates(cache)
    grouping = choose_groups(cache, group_by, audit)
    partition = partition.split(cache, grouping, random_state=random_state, **fractions)
    check_blocks(cache, partition)
    n_folds = partition.limit_folds(cv)
    if n_folds < 2:
        raise TableError(
            "variants are compared in folds, and a class of train and val has only one group; add "
            "patients of this class"
        )
    folded = partition.with_folds(n_folds, random_state=random_state)
    return folded, find_copied(cache, folded, audit)


def _count_from(place: int, n_heads: int, progress: Progress | None) -> Progress | None:
    """Make a call for the fits of one head from the one for all fits."""
    if progress is None:
        return None
    return lambda done, fits: progress(place * fits + done, n_heads * fits)


def _try_fit(study: _Study, options: Mapping[str, Any], progress: Progress | None) -> _Fit:
    try:
        with opened_variant(study.plain.cache, options, random_state=study.random_state) as own:
            features, error = None, None
            if study.elsewhere is not None:
                try:
                    features = study.elsewhere.read_features(own)
                except BrainfeatError as failure:
                    error = _write_error(failure)
            return _Fit(scores=_fit(study, own, features, progress), elsewhere_error=error)
    except BrainfeatError as failure:
        return _Fit(error=_write_error(failure))


def _fit(
    study: _Study, own: Opened, elsewhere: AnyFeatures | None, progress: Progress | None
) -> VariantScores:
    return fit_variant(
        own.recipes,
        take_places(study.plain, study.partition, own),
        elsewhere,
        n_jobs=study.n_jobs,
        progress=progress,
    )


def _write_error(error: BrainfeatError) -> str:
    return " ".join(str(error).split())


def _make_table(
    study: _Study, base: VariantScores, variants: Variants, fits: Sequence[_Fit]
) -> Ablation:
    test: AblationImages | None
    other: OtherImages | None
    on_test: list[PairedDifference | None]
    there: list[PairedDifference | None]
    given: dict[str, Any] = {"margin": study.margin, "random_state": study.random_state}
    partition, found = study.partition, [fit.scores for fit in fits]
    scored = np.concatenate([images for _, images in partition.folds])
    folds, out_of_fold = compare_variants(
        base.folds,
        [None if scores is None else scores.folds for scores in found],
        _list_images(partition, scored),
        **given,
    )
    kept, test, other = ~study.copied, None, None
    on_test, there = [None] * len(found), [None] * len(found)
    if kept.any():
        new = partition.splits["test"][kept]
        test, on_test = compare_variants(
            base.test[kept],
            [None if scores is None else scores.test[kept] for scores in found],
            _list_images(partition, new, left_out=int(study.copied.sum())),
            **given,
        )
    if study.elsewhere is not None and base.elsewhere is not None:
        images, there = compare_variants(
            study.elsewhere.predict(base.elsewhere),
            [_predict_elsewhere(study.elsewhere, scores) for scores in found],
            study.elsewhere.images,
            **given,
        )
        other = study.elsewhere.describe(images)
    rows = [
        AblatedHead(
            name=name,
            options=describe_options(options),
            error=fit.error,
            elsewhere_error=fit.elsewhere_error,
            folds=out_of_fold[number],
            test=on_test[number],
            elsewhere=there[number],
            **_describe_fits(fit.scores),
        )
        for number, ((name, options), fit) in enumerate(zip(variants.items(), fits, strict=True))
    ]
    return Ablation(
        head=base.recipe.head,
        params=base.recipe.params,
        class_names=partition.class_names,
        group_by=partition.grouped_by,
        n_folds=len(partition.folds),
        margin=study.margin,
        random_state=study.random_state,
        seconds=base.seconds,
        folds=folds,
        test=test,
        elsewhere=other,
        variants=rank_variants(rows),
    )


def _predict_elsewhere(elsewhere: Elsewhere, scores: VariantScores | None) -> Rows | None:
    if scores is None or scores.elsewhere is None:
        return None
    return elsewhere.predict(scores.elsewhere)


def _list_images(partition: Partition, images: Rows, *, left_out: int = 0) -> ComparedImages:
    return ComparedImages(
        y=partition.y[images],
        groups=number_groups(partition.groups_of(images), len(images)),
        class_names=partition.class_names,
        left_out=left_out,
    )


def _describe_fits(scores: VariantScores | None) -> dict[str, Any]:
    if scores is None:
        return {}
    return {
        "head": scores.recipe.head,
        "params": None if scores.searched else scores.recipe.params,
        "seconds": scores.seconds,
        "warnings": scores.warnings,
    }
