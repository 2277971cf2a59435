"""The answers of a predictor, volume by volume, with the one slice that is shown."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from brainfeat.errors import ParameterError
from brainfeat.prediction.answers import Answer, Prediction
from brainfeat.readers.series import Series


@dataclass(frozen=True, kw_only=True, eq=False)
class PredictedVolume:
    """A volume and what is predicted for it.

    Attributes
    ----------
    prediction : Prediction
        For the volume, or why it cannot be read.
    series : Series or None
        Its files; None for a file whose series is not known.
    shown : Answer or None
        The most confident slice of the class that is predicted for the volume, or that is the most
        probable one where the head abstains; None where the volume cannot be read. It has no
        pixels where images are not kept.
    """

    prediction: Prediction
    series: Series | None = field(default=None, repr=False)
    shown: Answer | None = field(default=None, repr=False)

    @property
    def target(self) -> str:
        """The decision where it is a class, and otherwise the most probable class."""
        p = self.prediction.probabilities
        decision = self.prediction.decision
        return str(decision) if decision in p else max(p, key=p.__getitem__)


def collect_volumes(answers: Iterable[Answer]) -> list[PredictedVolume]:
    """Collect the answers for volumes, and keep one slice of each.

    Parameters
    ----------
    answers : iterable of Answer
        As :meth:`brainfeat.Predictor.predict_inputs` yields them, for volumes alone. Images are
        dropped as soon as they are not those of the slice that is kept.

    Returns
    -------
    list of PredictedVolume
        In their order.

    Raises
    ------
    ParameterError
        An answer is for an image that is not of a volume.
    """
    volumes: list[PredictedVolume] = []
    for answer in answers:
        prediction = answer.prediction
        if prediction.slices is not None or prediction.error is not None:
            volumes.append(PredictedVolume(prediction=prediction, series=answer.series))
        elif answer.series is None or not volumes:
            raise ParameterError(
                f"{prediction.path} is not a volume; DICOM results are of DICOM volumes alone"
            )
        elif _is_better(answer, volumes[-1]):
            volumes[-1] = replace(volumes[-1], shown=answer)
    return volumes


def _is_better(answer: Answer, volume: PredictedVolume) -> bool:
    """Return whether a slice is to be shown instead of what was kept before."""
    if volume.shown is None:
        return True
    target, slices = volume.target, volume.prediction.slices
    carriers = () if slices is None else slices.carried_by.get(target, ())
    if carriers:
        return answer.prediction.frame == carriers[0]
    p = answer.prediction.probabilities
    return p[target] > volume.shown.prediction.probabilities[target]
