"""Measure a head on a split of a cache: all images, and those that are new to the head."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, overload

from brainfeat.arithmetic import default_errors
from brainfeat.cache.cache import opened
from brainfeat.evaluation.block_caches import join_blocks, select_features
from brainfeat.evaluation.bootstrap import CONFIDENCE, N_RESAMPLES
from brainfeat.evaluation.class_mapping import ClassesArgument, check_mappings, require_used
from brainfeat.evaluation.results import Bootstrap, Evaluation
from brainfeat.evaluation.sample import Protocol, measure_images
from brainfeat.evaluation.subsets import Cache, Head, open_both, plan_images
from brainfeat.evaluation.units import choose_unit

if TYPE_CHECKING:
    from brainfeat.evaluation.set_results import SetsEvaluation
    from brainfeat.leakage.results import Audit


@overload
def evaluate(  # type: ignore[overload-overlap]  # a str is a sequence, too
    bundle: Head,
    cache: Cache,
    *,
    split: str = ...,
    classes: ClassesArgument = ...,
    threshold: float | None = ...,
    by: Any = ...,
    prevalence: Mapping[str, float] | None = ...,
    audit: "Audit | None" = ...,
    floor: Cache | None = ...,
    unit: str | None = ...,
    group_label: str | None = ...,
    n_resamples: int = ...,
    random_state: int = ...,
) -> Evaluation: ...


@overload
def evaluate(
    bundle: Head,
    cache: Sequence[Cache],
    *,
    split: str = ...,
    classes: ClassesArgument = ...,
    threshold: float | None = ...,
    by: Any = ...,
    prevalence: Mapping[str, float] | None = ...,
    audit: "Audit | None" = ...,
    floor: Cache | None = ...,
    unit: str | None = ...,
    group_label: str | None = ...,
    n_resamples: int = ...,
    random_state: int = ...,
) -> "SetsEvaluation": ...


@default_errors
def evaluate(
    bundle: Head,
    cache: Cache | Sequence[Cache],
    *,
    split: str = "test",
    classes: ClassesArgument = None,
    threshold: float | None = None,
    by: Any = None,
    prevalence: Mapping[str, float] | None = None,
    audit: "Audit | None" = None,
    floor: Cache | None = None,
    unit: str | None = None,
    group_label: str | None = None,
    n_resamples: int = N_RESAMPLES,
    random_state: int = 0,
) -> "Evaluation | SetsEvaluation":
    """Measure a head on the images of one split of a feature cache.

    Augmented views and unlabelled images are left out. Classes are matched by name, so that the
    cache and the bundle may have them in different orders; a mapping matches those of other names.
    With several caches, each is a set of its own, and is compared with the head's own test part;
    but those that a head takes together are joined, and are one set.

    The metrics are also given for the images that are new to the head: without those whose file it
    was fitted or validated on (exact duplicates); without those of which it has seen a copy, by the
    pixels, also one that was mirrored, turned, cropped or padded; and without those of which it has
    seen a near duplicate, by the features. The file of a head records what it has seen, so the
    table cannot hide it, and the cache may be another one than that of the fit.

    The 95 % intervals are percentiles of a bootstrap over groups: what groups of the table, such as
    patients, and copies connect. A class with images of fewer than 10 groups has no intervals, and
    means over the classes then have none. A metric of 0 or 1 has the exact binomial interval over
    groups.

    Parameters
    ----------
    bundle : HeadBundle or path-like
        The fitted head.
    cache : FeatureCache or path-like, or sequence of these
        The features and labels.
    split : {"test", "val", "train", "all"}
        Which images; ``"all"`` takes every labelled one. Where the table has no splits, ``"test"``
        and ``"val"`` are the images that the fit of this head held out, and ``"test"`` is every
        labelled image of a cache that it did not divide.
    classes : mapping of str to str or sequence of str, str, sequence of these, or None
        Classes of the head by class of the cache, where they have other names, such as ``{"yes":
        ["glioma", "pituitary"], "no": "notumor"}`` or ``"yes=glioma+pituitary,no=notumor"``. The
        probabilities of several classes are added, their prediction sets united, and all metrics
        are those of the coarser classes. With several caches, each one takes the mapping that fits
        its classes.
    threshold : float or None
        Least similarity of near duplicates, as in :func:`brainfeat.audit`. None takes its default,
        and looks for them among up to 50,000 images.
    by : str, array-like of shape (rows of the cache,), or None
        A column by whose values the images are divided: ``"source"``, ``"group"``, ``"split"``,
        ``"width"``, ``"height"`` or ``"channels"``; or its values, for one cache.
    prevalence : mapping of str to float, or None
        Fraction of a class among the people examined, for its predictive values.
    audit : Audit or None
        An audit of this cache by :func:`brainfeat.audit`: near duplicates that it knows are not
        looked for again. It changes no metric. None for several caches.
    floor : FeatureCache, path-like or None
        A cache of the same images by other features, such as those of random weights: what the
        nearest neighbour reaches by these is a floor. The largest class and the nearest neighbour
        by the features of the head always are.
    unit : {"image", "group"} or None
        What is measured: images, or groups of the table, such as patients. The probabilities of a
        group are the mean of those of its images that are not out of distribution, and classes that
        are answered for single images join its prediction set, as in a prediction for a volume. A
        group has been seen if one of its images has. None takes images.
    group_label : str or None
        How a group gets its class: ``"same"``, all of its images have the same one; or
        ``"any:CLASS"``, a group with an image of this class has it. None takes ``"same"``.
    n_resamples : int
        Of the bootstrap, at least 1,000.
    random_state : int
        Seed of the bootstrap.

    Returns
    -------
    Evaluation or SetsEvaluation
        The latter for several caches. The classes are those of the bundle, or of the mapping.

    Raises
    ------
    SpecMismatchError
        If the features have another spec than those that the head was fitted on.
    CacheError
        If no labelled image is in the split.
    BundleError
        If images are of a class that the head does not have, and no mapping says what it is.
    TableError
        If groups are measured and the table has none, or one is in several splits or classes.
    ParameterError
        If a mapping names no class of the head, one twice, or fits no cache; the audit is that of
        another cache; the same cache is given twice; or another argument is out of range.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> from brainfeat import extract, fit_head, read_table
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
    ...     evaluation = evaluate(fit_head(result.output, head="knn"), result.output)
    >>> evaluation.subsets.without_exact_duplicates.n == evaluation.n
    True
    """
    with ExitStack() as stack:
        protocol = Protocol(
            split=split,
            threshold=threshold,
            by=by,
            prevalence=prevalence,
            audit=audit,
            floor=None if floor is None else stack.enter_context(opened(floor)),
            bootstrap=Bootstrap(
                method="percentile",
                confidence=CONFIDENCE,
                n_resamples=n_resamples,
                random_state=random_state,
            ),
            unit=unit,
            group_label=group_label,
        )
        if isinstance(cache, Sequence) and not isinstance(cache, str):
            from brainfeat.heads.bundle import loaded

            bundle = loaded(bundle)
            if bundle.blocks is not None and bundle.blocks.is_one_set:
                cache = stack.enter_context(join_blocks(bundle.blocks, cache))
        if isinstance(cache, Sequence) and not isinstance(cache, str):
            from brainfeat.evaluation.sets import evaluate_sets

            return evaluate_sets(bundle, cache, classes=classes, protocol=protocol)
        features, (head,) = stack.enter_context(open_both(cache, bundle))
        features = select_features(head, features)
        mappings = check_mappings(classes, head.class_names)
        rule = choose_unit(unit, group_label, [head])
        plan = plan_images(head, features, split, mappings, rule=rule)
        require_used(mappings, [plan.mapping])
        return measure_images(head, features, plan, protocol)
