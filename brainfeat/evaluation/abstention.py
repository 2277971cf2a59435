"""What a head answers and when it abstains: prediction sets, out-of-distribution images, risk."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from brainfeat.evaluation.results import Abstention, RiskCoverage
from brainfeat.heads.conformal import COVERAGE
from brainfeat.heads.ood import FALSE_ALARM_RATE

if TYPE_CHECKING:
    from brainfeat.heads.bundle import HeadBundle

# Fractions of the images that are answered in the risk-coverage curve.
_FRACTIONS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0)


def measure_abstention(
    bundle: "HeadBundle",
    X: NDArray[np.float32],
    y: NDArray[np.intp],
    probabilities: NDArray[np.float64],
) -> Abstention | None:
    """Measure what a head answers at the defaults of :class:`brainfeat.Predictor`.

    Parameters
    ----------
    bundle : HeadBundle
    X : ndarray of shape (n, d), float32
        Features.
    y : ndarray of shape (n,), int
        True classes.
    probabilities : ndarray of shape (n, k), float64
        What the head predicts for them.

    Returns
    -------
    Abstention or None
        None where the head has no conformal quantiles or no out-of-distribution detector.
    """
    if bundle.ood_detector is None or bundle.conformal is None:
        return None
    predicted = probabilities.argmax(axis=1)
    sets = bundle.conformal.predict_sets(probabilities, coverage=COVERAGE)
    flagged = bundle.ood_detector.score(X).scores > bundle.ood_detector.threshold(FALSE_ALARM_RATE)
    alone = is_sole(sets, predicted)
    answered = alone & ~flagged
    right = predicted == y
    covered = sets[np.arange(len(y)), y]
    ranked = np.argsort(-probabilities.max(axis=1), kind="stable")
    return Abstention(
        answered=float(answered.mean()),
        uncertain=float((~alone & ~flagged).mean()),
        out_of_distribution=float(flagged.mean()),
        accuracy=float(right[answered].mean()) if answered.any() else None,
        target_coverage=COVERAGE,
        false_alarm_rate=FALSE_ALARM_RATE,
        coverage_by_class={
            name: float(covered[y == label].mean()) if (y == label).any() else None
            for label, name in enumerate(bundle.class_names)
        },
        risk_coverage=tuple(
            RiskCoverage(
                fraction=fraction, risk=float(1 - right[ranked[: _count(fraction, len(y))]].mean())
            )
            for fraction in _FRACTIONS
        ),
    )


def is_sole(sets: NDArray[np.bool_], predicted: NDArray[np.intp]) -> NDArray[np.bool_]:
    """Return for which images the prediction set has the predicted class alone.

    Parameters
    ----------
    sets : ndarray of shape (n, k), bool
        Whether the prediction set of each image has each class.
    predicted : ndarray of shape (n,), int
        The most probable class.

    Returns
    -------
    ndarray of shape (n,), bool
    """
    sole: NDArray[np.bool_] = (sets.sum(axis=1) == 1) & sets[np.arange(len(sets)), predicted]
    return sole


def _count(fraction: float, n: int) -> int:
    return max(1, round(fraction * n))
