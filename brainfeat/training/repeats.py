"""Repeats of a fit: other seeds and partitions, to see how much a metric depends on them."""

from collections.abc import Callable, Sequence

import numpy as np

from brainfeat.cache.cache import FeatureCache
from brainfeat.errors import HeadError, ParameterError, TableError
from brainfeat.heads.calibration import calibrate, softmax
from brainfeat.heads.recipe import HeadRecipe
from brainfeat.heads.variation import RepeatedSubset, Repeats
from brainfeat.leakage.results import Audit
from brainfeat.metrics import Metrics, measure
from brainfeat.training.fits import FitResult, FitTask, Progress, run_fits
from brainfeat.training.measurement import find_copied
from brainfeat.training.partition import Partition

# scikit-learn takes seeds below this.
_SEED_LIMIT = 2**32

# Chooses the recipe of a repeat, of its seed, on its partition.
Choose = Callable[[Partition, int, Progress | None], HeadRecipe]


def list_seeds(n: object, random_state: int) -> list[int]:
    """List the seeds of repeats, from that of the fit on.

    Parameters
    ----------
    n : int
        Number of repeats, 2 or more.
    random_state : int

    Returns
    -------
    list of int

    Raises
    ------
    ParameterError
        `n` is not an integer of 2 or more.

    Examples
    --------
    >>> list_seeds(3, 7)
    [7, 8, 9]
    """
    if isinstance(n, bool) or not isinstance(n, int | np.integer) or n < 2:
        raise ParameterError(f"repeats must be an integer of 2 or more, got {n!r}")
    return [(int(random_state) + place) % _SEED_LIMIT for place in range(int(n))]


def draw_partitions(
    partition: Partition,
    seeds: Sequence[int],
    *,
    keep_test: bool,
    val_fraction: float,
    test_fraction: float,
) -> list[Partition]:
    """Divide the images anew for each repeat.

    Parameters
    ----------
    partition : Partition
        With splits and groups.
    seeds : sequence of int
    keep_test : bool
        Whether the test images are those of the table, which stay.
    val_fraction, test_fraction : float
        As of :meth:`brainfeat.training.partition.Partition.resample`.

    Returns
    -------
    list of Partition

    Raises
    ------
    TableError
        There are no test images, or too few groups to be divided in several ways.
    """
    if seeds and not len(partition.splits["test"]):
        raise TableError(
            "repeats need test images, and the splits of the table have none; give it a test "
            "split, or no splits at all"
        )
    drawn = [
        partition.resample(
            keep_test=keep_test,
            val_fraction=val_fraction,
            test_fraction=test_fraction,
            random_state=seed,
        )
        for seed in seeds
    ]
    if len({part.splits["train"].tobytes() for part in drawn}) == 1:
        raise TableError(
            f"all {len(seeds)} repeats would be fitted on the same images, because there are too "
            "few groups to divide them in another way; add images of new groups"
        )
    return drawn


def repeat_fits(
    cache: FeatureCache,
    partitions: Sequence[Partition],
    seeds: Sequence[int],
    *,
    choose: Choose,
    audit: Audit,
    n_jobs: int | None,
    progress: Progress | None,
) -> Repeats:
    """Fit a head on the training images of each partition and measure its test images.

    The validation images scale the probabilities, and stop a head that needs such; no head is
    fitted again on them. So the metrics are of heads with fewer images than the one that is saved.

    Parameters
    ----------
    cache : FeatureCache
        The cache that the partitions were read from.
    partitions : sequence of Partition
        As :func:`draw_partitions` divides them.
    seeds : sequence of int
    choose : callable
        Called with a partition, its seed and a function of progress; returns the recipe.
    audit : Audit
        Of the cache.
    n_jobs : int or None
        As of :func:`brainfeat.training.fits.run_fits`.
    progress : callable or None

    Returns
    -------
    Repeats

    Raises
    ------
    HeadError
        A head cannot be fitted.
    """
    recipes = [
        choose(partition, seed, _shift(progress, place, len(partitions)))
        for place, (partition, seed) in enumerate(zip(partitions, seeds, strict=True))
    ]
    tasks = [
        FitTask(
            recipe=recipe,
            partition=partition,
            train=partition.splits["train"],
            val=partition.splits["val"],
            scored=np.concatenate([partition.splits["val"], partition.splits["test"]]),
        )
        for recipe, partition in zip(recipes, partitions, strict=True)
    ]
    results = run_fits(tasks, n_jobs=n_jobs, progress=progress)
    measured, copy_free = zip(
        *(
            _measure(cache, task, result, audit)
            for task, result in zip(tasks, results, strict=True)
        ),
        strict=True,
    )
    known = [metrics for metrics in copy_free if metrics is not None]
    is_known = len(known) == len(measured) and known != list(measured)
    return Repeats(
        n=len(partitions),
        resampled="train-val" if cache.splits.any() else "all",
        random_states=tuple(seeds),
        heads=tuple(recipe.head for recipe in recipes),
        test=RepeatedSubset.of(measured),
        test_without_copies=RepeatedSubset.of(known) if is_known else None,
    )


def _measure(
    cache: FeatureCache, task: FitTask, result: FitResult, audit: Audit
) -> tuple[Metrics, Metrics | None]:
    """Measure the test images of a repeat, and those of which train and val have no copy."""
    if result.scores is None:
        raise HeadError(f"a repeat cannot be fitted: {result.error}")
    partition = task.partition
    val, test = partition.splits["val"], partition.splits["test"]
    scores = result.scores[len(val) :]
    calibration = calibrate([result.scores[: len(val)]], [partition.y[val]])
    y, probabilities = partition.y[test], softmax(scores, temperature=calibration.temperature)
    metrics = measure(y, probabilities, class_names=partition.class_names)
    if audit.copies is None:
        return metrics, None
    new = ~find_copied(cache, partition, audit)
    if new.all() or not new.any():
        return metrics, metrics if new.all() else None
    return metrics, measure(y[new], probabilities[new], class_names=partition.class_names)


def _shift(progress: Progress | None, place: int, n: int) -> Progress | None:
    """Return a function of progress for the search of one of n repeats."""
    if progress is None:
        return None
    return lambda done, total: progress(place * total + done, n * total)
