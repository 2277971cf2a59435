"""What a head answers, and what it leaves open: refusals, sets, and the risk that is left."""

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from brainfeat.heads.conformal import COVERAGE
from brainfeat.heads.ood import FALSE_ALARM_RATE

if TYPE_CHECKING:
    from brainfeat.heads.bundle import HeadBundle

# Shares of the images that are answered in the risk-coverage curve.
_SHARES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0)


def measure_abstention(
    bundle: "HeadBundle",
    X: NDArray[np.float32],
    y: NDArray[np.intp],
    probabilities: NDArray[np.float64],
) -> dict[str, Any] | None:
    """Measure what a head would answer, at the defaults of :class:`brainfeat.Predictor`.

    Parameters
    ----------
    bundle : HeadBundle
    X : ndarray of shape (n, d), float32
        Features.
    y : ndarray of shape (n,), int
        True classes.
    probabilities : ndarray of shape (n, k), float64
        What the head says of them.

    Returns
    -------
    dict or None
        Shares of the images that are ``answered``, ``uncertain`` and ``refused`` as out of scope;
        ``accuracy`` of those answered, None where there are none; nominal ``coverage`` and
        ``false_refusals``; ``coverage_by_class``, the share of each class's images whose set has
        the class, None without images; ``risk_coverage``: for a ``share`` of the images, the surest
        first, the ``risk``, which is the share of them that is called wrong (El-Yaniv & Wiener
        2010, JMLR 11:1605). None where the head does not hold what tells it.
    """
    if bundle.ood_detector is None or bundle.conformal is None:
        return None
    called = probabilities.argmax(axis=1)
    sets = bundle.conformal.predict_sets(probabilities, coverage=COVERAGE)
    refused = bundle.ood_detector.score(X).scores > bundle.ood_detector.threshold(FALSE_ALARM_RATE)
    alone = (sets.sum(axis=1) == 1) & sets[np.arange(len(y)), called]
    answered = alone & ~refused
    right = called == y
    kept = sets[np.arange(len(y)), y]
    surest = np.argsort(-probabilities.max(axis=1), kind="stable")
    return {
        "answered": float(answered.mean()),
        "uncertain": float((~alone & ~refused).mean()),
        "refused": float(refused.mean()),
        "accuracy": float(right[answered].mean()) if answered.any() else None,
        "coverage": COVERAGE,
        "false_refusals": FALSE_ALARM_RATE,
        "coverage_by_class": {
            name: float(kept[y == label].mean()) if (y == label).any() else None
            for label, name in enumerate(bundle.class_names)
        },
        "risk_coverage": [
            {"share": share, "risk": float(1 - right[surest[: _count(share, len(y))]].mean())}
            for share in _SHARES
        ],
    }


def _count(share: float, n: int) -> int:
    return max(1, round(share * n))
