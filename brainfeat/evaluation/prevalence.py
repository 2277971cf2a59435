"""Predictive values of a head where a class is more, or less, common than in the images."""

from collections.abc import Mapping, Sequence

from brainfeat.errors import ParameterError
from brainfeat.evaluation.results import PredictiveValues
from brainfeat.metrics import Metrics


def check_prevalence(
    prevalence: Mapping[str, float] | None, class_names: Sequence[str]
) -> dict[str, float]:
    """Refuse a prevalence of an unknown class, or one out of range.

    Parameters
    ----------
    prevalence : mapping of str to float, or None
        Fraction of each class among the people examined.
    class_names : sequence of str
        The classes.

    Returns
    -------
    dict of str to float
        The same; empty for None.

    Raises
    ------
    ParameterError
        A class is unknown, or a prevalence is not above 0 and below 1.
    """
    for name, fraction in (prevalence or {}).items():
        if name not in class_names:
            raise ParameterError(
                f"prevalence of {name!r}; expected one of {', '.join(map(repr, class_names))}"
            )
        if not 0 < fraction < 1:
            raise ParameterError(
                f"the prevalence of {name!r} is {fraction}; expected above 0, below 1"
            )
    return dict(prevalence or {})


def find_predictive_values(
    metrics: Metrics, prevalence: Mapping[str, float]
) -> dict[str, PredictiveValues]:
    """Find the predictive values of classes at other prevalences.

    Parameters
    ----------
    metrics : Metrics
        Of the images, which give sensitivity and specificity.
    prevalence : mapping of str to float
        As :func:`check_prevalence` returns it.

    Returns
    -------
    dict of str to PredictiveValues
        By class.
    """
    scores = {entry.name: entry for entry in metrics.per_class}
    values = {}
    for name, fraction in prevalence.items():
        sensitivity, specificity = scores[name].recall, scores[name].specificity
        ppv, npv = (
            (None, None)
            if sensitivity is None or specificity is None
            else predictive_values(sensitivity, specificity, fraction)
        )
        values[name] = PredictiveValues(prevalence=fraction, ppv=ppv, npv=npv)
    return values


def predictive_values(
    sensitivity: float, specificity: float, prevalence: float
) -> tuple[float | None, float | None]:
    """Return PPV and NPV at a prevalence, by Bayes's rule (Altman & Bland 1994, BMJ 309:102).

    Parameters
    ----------
    sensitivity, specificity : float
        Of the class against the rest.
    prevalence : float
        Fraction of the class among the people examined, above 0 and below 1.

    Returns
    -------
    tuple of float or None
        PPV and NPV; None where no image would be predicted so.

    Examples
    --------
    >>> ppv, npv = predictive_values(0.9, 0.9, 0.01)
    >>> round(ppv, 3), round(npv, 4)
    (0.083, 0.9989)
    """
    true_positives, false_negatives = sensitivity * prevalence, (1 - sensitivity) * prevalence
    false_positives = (1 - specificity) * (1 - prevalence)
    true_negatives = specificity * (1 - prevalence)
    positives, negatives = true_positives + false_positives, true_negatives + false_negatives
    return (
        true_positives / positives if positives else None,
        true_negatives / negatives if negatives else None,
    )
