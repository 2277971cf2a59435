"""Calibrated fits: a head on its training images, measured, and calibrated on others."""

from dataclasses import dataclass, replace

from brainfeat.heads.calibration import Calibration, calibrate
from brainfeat.heads.conformal import Conformal
from brainfeat.heads.generation import Generated
from brainfeat.heads.kinds import needs_validation
from brainfeat.heads.recipe import FittedHead, HeadRecipe
from brainfeat.metrics import Metrics, measure
from brainfeat.training.fits import Progress, fit_images
from brainfeat.training.partition import Partition
from brainfeat.training.selection import CrossValidation, Selection, cross_validate

# Folds that the temperature of a head is fitted on, where every class has as many groups.
CALIBRATION_FOLDS = 5


@dataclass(frozen=True, kw_only=True)
class CalibratedFit:
    """A fitted and calibrated head.

    Attributes
    ----------
    head : FittedHead
        Refitted on train and val, unless val decided when to stop.
    val : Metrics
        Metrics of val, of the head that was fitted on train alone.
    calibration : Calibration
    conformal : Conformal
        Calibrated on images that the head had not seen.
    generated : Generated or None
        Rows that were added to those of the head; None without any.
    """

    head: FittedHead
    val: Metrics
    calibration: Calibration
    conformal: Conformal
    generated: Generated | None = None


def fit_calibrated(
    chosen: Selection,
    partition: Partition,
    *,
    n_jobs: int | None,
    progress: Progress | None = None,
) -> CalibratedFit:
    """Fit on train, measure on val, refit on both; calibrate on images that were not fitted on.

    The temperature of a head that val stops is fitted on val; that of other heads on the folds of a
    cross-validation, or on val where a class has images of only one group.
    """
    recipe = chosen.recipe
    train, val = partition.splits["train"], partition.splits["val"]
    if needs_validation(recipe.head):
        head = fit_images(recipe, partition, train, val=val)
        return replace(_calibrate(head, partition), generated=_record(head, chosen.cv))
    fit = fit_images(recipe, partition, train)
    # Sources that are left out only evaluate a head: it is the same one without them.
    found = chosen.cv if partition.left_out is None else None
    found = found or _cross_validate_for_calibration(
        recipe, partition, n_jobs=n_jobs, progress=progress
    )
    first = _calibrate(fit, partition, found)
    refitted = fit_images(recipe, partition, partition.fitted_images)
    return replace(
        first,
        head=replace(refitted, temperature=first.head.temperature),
        generated=_record(refitted, chosen.cv or found),
    )


def _record(head: FittedHead, found: CrossValidation | None) -> Generated | None:
    """Record what was generated for a head, and skipped in the folds of its cross-validation."""
    if head.generated is None or found is None:
        return head.generated
    return replace(head.generated, folds=found.skipped)


def _cross_validate_for_calibration(
    recipe: HeadRecipe, partition: Partition, *, n_jobs: int | None, progress: Progress | None
) -> CrossValidation | None:
    """Cross-validate in as many folds as can be made; None where a class has only one group."""
    n_folds = partition.limit_folds(CALIBRATION_FOLDS)
    if n_folds < 2:
        return None
    folded = partition.with_folds(n_folds, random_state=recipe.random_state)
    return cross_validate(recipe, folded, n_jobs=n_jobs, progress=progress)


def _calibrate(
    head: FittedHead, partition: Partition, found: CrossValidation | None = None
) -> CalibratedFit:
    """Calibrate a head by its cross-validation, or on val, and measure it on val."""
    val = partition.splits["val"]
    X, y = partition.X[val], partition.y[val]
    calibration = calibrate([head.scores(X)], [y]) if found is None else found.calibration
    calibrated = replace(head, temperature=calibration.temperature)
    probabilities = calibrated.predict_proba(X)
    return CalibratedFit(
        head=calibrated,
        val=measure(y, probabilities, class_names=partition.class_names),
        calibration=calibration,
        conformal=Conformal.fit(probabilities, y) if found is None else found.conformal,
    )
