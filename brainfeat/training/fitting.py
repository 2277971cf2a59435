"""STAGE TWO: a cache, the name of a head and a split become a calibrated HeadBundle."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from brainfeat import runtime
from brainfeat.arithmetic import default_errors
from brainfeat.cache.cache import FeatureCache
from brainfeat.errors import ParameterError
from brainfeat.heads.bundle import HeadBundle
from brainfeat.heads.kinds import needs_validation, takes_maps
from brainfeat.heads.reading import find_spec
from brainfeat.heads.record import FitRecord, History, SplitSizes
from brainfeat.leakage.auditing import audit_duplicates
from brainfeat.leakage.results import Audit
from brainfeat.training.ablation import measure_blocks
from brainfeat.training.bagging import choose_head, make_rule, measure_bags
from brainfeat.training.block_votes import choose_ensemble
from brainfeat.training.calibrated_fit import CalibratedFit, fit_calibrated
from brainfeat.training.candidates import ALL_HEADS, make_recipes
from brainfeat.training.detection import fit_detector, read_examples
from brainfeat.training.generated_rows import count_fitted
from brainfeat.training.grouping import check_grouping, choose_groups
from brainfeat.training.joined_fit import (
    Cache,
    check_blocks,
    choose_pooling,
    name_blocks,
    opened_join,
    record_join,
)
from brainfeat.training.measurement import check_unit, measure_groups, measure_test
from brainfeat.training.partition import Partition
from brainfeat.training.probe import draw_probe
from brainfeat.training.repeats import draw_partitions, list_seeds, repeat_fits
from brainfeat.training.selection import LEAVE_ONE_SOURCE_OUT, Plan, Selection

# Candidates of a head, and folds, of a search where neither is given.
N_ITER = 10
SEARCH_FOLDS = 5
# scikit-learn takes seeds below this.
_SEED_LIMIT = 2**32


@default_errors
def fit_head(
    cache: Cache | Sequence[Cache],
    *,
    head: str = "dense",
    params: Mapping[str, Any] | None = None,
    search: bool = False,
    n_iter: int | None = None,
    bag: str | None = None,
    group_label: str | None = None,
    join: str | None = None,
    names: Sequence[str] | None = None,
    how: str | None = None,
    layer: str | None = None,
    ablate_blocks: bool = False,
    generate: int = 0,
    val_fraction: float = 0.15,
    test_fraction: float = 0.15,
    cv: int | str | None = None,
    unit: str | None = None,
    repeats: int | None = None,
    group_by: str = "auto",
    ood_examples: Cache | Sequence[Cache] | None = None,
    signature: bool = True,
    n_jobs: int | None = None,
    random_state: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> HeadBundle:
    """Fit a head on cached features, and calibrate it.

    The splits of the table are kept. Where it has no validation split, one is taken from train;
    where it has no splits, 70 / 15 / 15 splits are made. They are stratified by class and never
    divide a group. A head that needs no validation split to stop is fitted again on train and
    validation together once its validation metrics have been computed.

    The scores of every head are divided by one temperature, which turns them into calibrated
    probabilities. It is fitted on images that the head had not seen: those of the validation split,
    for a head that these stop; for other heads, the test images of the folds of a cross-validation
    over train and validation, with five folds unless `cv` gives another number.

    A search, or ``head="all"``, first cross-validates candidates on the same folds of train and
    validation and ranks them by mean balanced accuracy; the best one is fitted. Its cross-validated
    score is optimistically biased, because the same folds chose it. Its test metrics are not: no
    candidate was fitted or ranked on the test images.

    Parameters
    ----------
    cache : FeatureCache or path-like, or sequence of these
        A file that :func:`brainfeat.extract` wrote, or several, which are joined.
    head : str
        One of :data:`brainfeat.heads.kinds.HEAD_NAMES`, or ``"all"`` to compare them; one of
        :data:`brainfeat.heads.kinds.ATTENTION_HEADS`, of which ``"attention-pool"`` and ``"cbam"``
        take the maps of the cache; or an ensemble: ``"vote:svm+dense"``, ``"stack:svm+dense"`` or
        ``"folds:svm"``, as :class:`brainfeat.heads.ensembles.EnsembleHead` describes.
    params : mapping or None
        Constructor parameters of the head, such as ``{"C": 10}``, or ``{"svm.C": 10}`` of a member
        of an ensemble; without that name, all members that accept a parameter get it. A
        ``class_weight`` by class has the names of the classes as its keys, or their indices. Every
        candidate of a search has these parameters; with ``"all"``, each head gets those that it
        accepts.
    search : bool
        Whether to try parameters from the head's grid, :data:`brainfeat.heads.grids.GRIDS`.
    n_iter : int or None
        Candidates of a search, for each head: its defaults, and others drawn from the grid. A
        number as large as the grid, or larger, tries all of it. None takes 10.
    bag : {"mean", "max", "median", "attention"} or None
        Fits a bag head, whose examples are the table's groups, such as patients: how the vectors of
        the images of a group become one. Each group is one example, however many images it has;
        splits, folds, metrics, calibration and the detector are of groups. ``"attention"`` trains a
        :class:`brainfeat.heads.attention.AttentionHead`, which is in place of the dense head. None
        fits on images.
    group_label : str or None
        How a group gets its class: ``"same"``, the one that all of its images have, which None is,
        too; or ``"any:CLASS"``, a group with an image of this class has it.
    join : {"groups", "images"} or None
        What several caches have in common: groups, such as patients, of which each cache has
        another modality; or images, of which each has features by another base. On images, a head
        takes the features of all caches for each image, side by side. On groups, it takes one
        vector of each cache for each group, as `bag` makes it, or else their mean; where a group
        has no images in a cache, its features have their mean over the training groups, and a
        column tells so.
    names : sequence of str or None
        Name of each cache that is joined, such as ``"t1"``; None takes those of the files.
    how : {"features", "vote", "stack"} or None
        How caches that are joined on images become one answer: a head of all features side by side
        (features, as None), or an ensemble with one head for each cache.
    layer : str or None
        Which features of a cache that has those of several layers: the name of a layer, which of
        several caches each must have; or the layers of one cache that are joined on images, with a
        plus between them, such as ``"block4_pool+block5_pool"``. None takes the deepest.
    ablate_blocks : bool
        Whether the head is cross-validated on each of the joined caches alone, and on all but each,
        in the same folds; ``training.join.ablation`` has what differs.
    generate : int
        Rows of each class that a generator adds to those that a head is fitted on, each time that
        one is fitted: it has seen the training rows of that fit alone, so that nothing is measured
        or calibrated on generated rows. A class with fewer than ten training rows gets none;
        ``training.generation`` has the numbers.
    val_fraction : float
        Fraction of the training images, or of all images without splits, held out for validation.
    test_fraction : float
        Fraction of all images held out for the test where the table has no splits.
    cv : int, "leave-one-source-out" or None
        Number of folds of a cross-validation over train and validation; or a fold for each source
        of the table, of a head that is fitted on the others. None does none, or takes 5 where
        candidates are compared.
    unit : {"image", "group"} or None
        What a cross-validation is measured on: ``"group"`` adds the metrics per group, such as per
        patient, by the mean of the out-of-fold probabilities of its images. None takes images. Of a
        bag head, groups always are, and images never.
    repeats : int or None
        Number of further fits, each of another seed and on images that were divided anew: all of
        them, or those other than the test images of a table that has splits. They change nothing of
        the head; ``training.repeats`` has the spread of their metrics.
    group_by : {"auto", "column", "copies", "near-duplicates", "numbers:K", "none"}
        Groups that no split and no fold divides: copies, with the table's groups where it has any,
        else with near duplicates (auto); the table's groups alone (column); copies, or near
        duplicates and copies, with the table's groups (copies, near-duplicates); blocks of K
        consecutive numbers in file names, a guess at patients, with copies and the table's groups
        (numbers:K); or none. Above 50,000 images, and where one chain joins a tenth of the images,
        auto takes exact duplicates instead of copies or near duplicates.
    ood_examples : FeatureCache, path-like, sequence of these, or None
        Features of out-of-distribution examples, such as rotated slices, which the detector of the
        head learns to flag; of caches that are joined on images, one for each. The head itself is
        not fitted on them.
    signature : bool
        Whether the head keeps the signatures of the images of train and val, by which copies of
        them are found in other caches and in images to predict. A signature is as personal as a
        small picture of the image.
    n_jobs : int or None
        Number of processes that fit folds. None takes all cores, or one process where a fit takes
        less time than the start of another.
    random_state : int
        Seed of the splits, of the head and of the candidates that are drawn.
    progress : callable or None
        Called with the number of fits that are done, and of all fits, while candidates are
        compared, and while a head is cross-validated to calibrate it.

    Returns
    -------
    HeadBundle
        Its ``training`` records how it was fitted: the sizes of the splits, metrics, the candidates
        of a search, and versions.

    Raises
    ------
    TableError
        The labels, groups or splits do not allow the fit.
    HeadError
        The head or one of its parameters is unknown or out of range, or no candidate can be fitted.
    CacheError
        The features are not finite, there are no out-of-distribution examples, or the head takes
        maps and the cache has none.
    SpecMismatchError
        The features of the out-of-distribution examples have another spec.
    ParameterError
        `bag`, `group_label`, `generate`, `cv`, `repeats`, `group_by`, `random_state` or `n_iter` is
        out of range, or another head than the dense one is to weigh images by attention.

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
    >>> bundle.training.split
    SplitSizes(train=64, val=16, test=16)
    """
    started = time.perf_counter()
    check_options(cv, random_state, n_iter, search=search)
    check_grouping(group_by)
    seeds = [] if repeats is None else list_seeds(repeats, random_state)
    with opened_join(cache, join=join, names=names, layer=layer) as features:
        pooling = choose_pooling(features, ablate_blocks=ablate_blocks, ood_examples=ood_examples)
        rule = make_rule(bag or pooling, group_label)
        head, widths = choose_ensemble(
            choose_head(head, rule), how, features, ablate_blocks=ablate_blocks
        )
        compare = search or head == ALL_HEADS
        per_group = check_unit(unit, rule, folded=cv is not None or compare)
        plan = Plan(
            cache=features,
            recipes=make_recipes(
                head,
                params,
                class_names=features.class_names,
                n_iter=(n_iter or N_ITER) if search else None,
                random_state=random_state,
                widths=widths,
                generate=generate,
            ),
            cv=SEARCH_FOLDS if cv is None and compare else cv,
            compare=compare,
            n_jobs=n_jobs,
        )
        examples = None if ood_examples is None else read_examples(ood_examples, features, rule)
        partition = Partition.read(features, rule, maps=takes_maps(head), generated=True)
        audit = audit_duplicates(features)
        partition = partition.split(
            features,
            choose_groups(features, group_by, audit),
            val_fraction=val_fraction,
            test_fraction=test_fraction,
            random_state=random_state,
        )
        check_blocks(features, partition)
        drawn = draw_partitions(
            partition,
            seeds,
            keep_test=bool(features.splits.any()),
            val_fraction=val_fraction,
            test_fraction=test_fraction,
        )
        partition = plan.add_folds(partition, random_state)
        chosen = plan.choose(partition, random_state, progress)
        if per_group and chosen.cv is not None:
            scores = replace(chosen.cv.scores, groups=measure_groups(features, chosen.cv))
            chosen = replace(chosen, cv=replace(chosen.cv, scores=scores))
        fit = fit_calibrated(chosen, partition, n_jobs=n_jobs, progress=progress)
        varied = None
        if seeds:
            varied = repeat_fits(
                features,
                drawn,
                seeds,
                choose=plan.choose_anew,
                audit=audit,
                n_jobs=n_jobs,
                progress=progress,
            )
        measure = partial(
            measure_blocks, chosen.recipe, partition, n_jobs=n_jobs, progress=progress
        )
        joined = record_join(
            features, partition, fit.head, measure=measure if ablate_blocks else None
        )
        return HeadBundle(
            spec=find_spec(head, features),
            class_names=features.class_names,
            head=chosen.recipe.head,
            params=chosen.recipe.params,
            estimator=fit.head.estimator,
            temperature=fit.head.temperature,
            training=replace(
                _make_record(features, partition, audit=audit, chosen=chosen, fit=fit),
                ood_examples=None if examples is None else len(examples),
                repeats=varied,
                member_fits=_count_member_fits(fit, partition, n_repeats=len(seeds)),
                join=joined,
                seconds=time.perf_counter() - started,
            ),
            probe=draw_probe(partition.X, rule, random_state),
            ood_detector=fit_detector(
                partition, fit.head, examples, random_state=int(random_state)
            ),
            blocks=name_blocks(features, fit.head),
            bag=rule,
            conformal=fit.conformal,
            fitted_images=partition.collect_images(features, signature=signature),
        )


def check_options(
    cv: int | str | None, random_state: int, n_iter: int | None, *, search: bool
) -> None:
    """Refuse options of :func:`fit_head` that are out of range."""
    if isinstance(cv, str) and cv != LEAVE_ONE_SOURCE_OUT:
        raise ParameterError(
            f"cv must be a number of folds or {LEAVE_ONE_SOURCE_OUT!r}, got {cv!r}"
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


def _count_member_fits(fit: CalibratedFit, partition: Partition, *, n_repeats: int) -> int | None:
    """Count the fits of the members of an ensemble; None for another head."""
    once: int | None = getattr(fit.head.estimator, "n_fits_", None)
    if once is None:
        return None
    # On train, on train and val, and in the folds that calibrate it; sources have others.
    sources = 0 if partition.left_out is None else len(partition.folds)
    return once * (2 + (fit.calibration.n_folds or 0) + sources + n_repeats)


def _make_record(
    cache: FeatureCache,
    partition: Partition,
    *,
    audit: Audit,
    chosen: Selection,
    fit: CalibratedFit,
) -> FitRecord:
    recipe, splits = chosen.recipe, partition.splits
    history = getattr(fit.head.estimator, "history_", {})
    curves = {name: tuple(curve) for name, curve in history.items()}
    test, test_without_copies = measure_test(cache, fit.head, partition, audit)
    return FitRecord(
        split=SplitSizes(**{name: len(images) for name, images in splits.items()}),
        rows=SplitSizes(
            **{name: len(partition.rows_of(images)) for name, images in splits.items()}
        ),
        bag_sizes=measure_bags(partition),
        generated=count_fitted(partition, audit),
        held_out=partition.name_held_out(cache),
        group_by=partition.grouped_by,
        leakage=audit.summary(),
        refitted_on_val=not needs_validation(recipe.head),
        val=fit.val,
        test=test,
        test_without_copies=test_without_copies,
        cv=None if chosen.cv is None else chosen.cv.scores,
        calibration=fit.calibration,
        search=chosen.record(),
        generation=fit.generated,
        history=History(**curves) if curves else None,
        class_weight=recipe.params.get("class_weight"),
        random_state=int(recipe.random_state),
        cache_sha256=cache.content_sha256,
        versions=runtime.versions(),
    )
