"""From the probabilities of a head to its decisions, for images and for volumes."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from brainfeat.errors import BundleError
from brainfeat.heads.bags import ATTENTION, Bags, Features
from brainfeat.heads.bundle import HeadBundle
from brainfeat.heads.conformal import COVERAGE
from brainfeat.heads.ood import FALSE_ALARM_RATE, OODScores
from brainfeat.prediction.answers import (
    OUT_OF_DISTRIBUTION,
    UNCERTAIN,
    Neighbour,
    OutOfDistribution,
    Prediction,
    SliceSummary,
    WeightedSlice,
    average_slices,
    decide,
    pool_slices,
)
from brainfeat.prediction.patient_images import PatientImages
from brainfeat.text import count

# Slices of a patient that are named with their weights.
_MOST_WEIGHTED = 5


def make_decision_rule(
    bundle: HeadBundle,
    *,
    coverage: float | None = None,
    false_alarm_rate: float | None = None,
    force: bool = False,
) -> "DecisionRule":
    """Make the rule by which a head decides.

    Parameters
    ----------
    bundle : HeadBundle
    coverage, false_alarm_rate : float or None
        As of :class:`brainfeat.Predictor`; None takes its defaults.
    force : bool

    Returns
    -------
    DecisionRule

    Raises
    ------
    BundleError
        A class has the name of an abstention.
    ParameterError
        The coverage or the rate is out of range.
    """
    if taken := {UNCERTAIN, OUT_OF_DISTRIBUTION} & {*bundle.class_names}:
        raise BundleError(
            f"a class has the name {', '.join(sorted(taken))}, which stands for an abstention; "
            "fit the head on a table with another name for it"
        )
    chosen = COVERAGE if coverage is None else coverage
    rate = FALSE_ALARM_RATE if false_alarm_rate is None else false_alarm_rate
    detector = bundle.ood_detector
    if bundle.conformal is not None:
        bundle.conformal.quantiles(len(bundle.class_names), coverage=chosen)
    threshold = None if detector is None else detector.threshold(rate)
    return DecisionRule(bundle, coverage=chosen, threshold=threshold, force=force)


@dataclass(frozen=True)
class DecisionRule:
    """How a head decides, or abstains.

    Attributes
    ----------
    bundle : HeadBundle
        The fitted head.
    coverage : float
        Target coverage of the prediction set, per class.
    threshold : float or None
        Score above which an image is out of distribution; None for a head without a detector.
    force : bool
        Whether the most probable class is the decision although the head would abstain.
    """

    bundle: HeadBundle
    coverage: float
    threshold: float | None
    force: bool

    def predict(self, X: Features, paths: Sequence[str]) -> list[Prediction]:
        """Predict from the features of images, or of patients.

        Parameters
        ----------
        X : ndarray of shape (n, d), float32, or Bags
            Features of the bundle's spec.
        paths : sequence of str
            The name of each image.

        Returns
        -------
        list of Prediction
            One for each image, in their order.
        """
        names, bundle = self.bundle.class_names, self.bundle
        probabilities = bundle.predict_proba(X)
        sets = None
        if bundle.conformal is not None:
            sets = bundle.conformal.predict_sets(probabilities, coverage=self.coverage)
        scores = (
            None if bundle.ood_detector is None else bundle.ood_detector.score(bundle.vectors(X))
        )
        answers = []
        for row, path in enumerate(paths):
            p = probabilities[row]
            ranked = np.argsort(-p, kind="stable")
            kept = None if sets is None else tuple(names[k] for k in ranked if sets[row, k])
            ood = self._detect(scores, row)
            decision = decide(names[ranked[0]], kept, ood)
            forced = self.force and decision in (UNCERTAIN, OUT_OF_DISTRIBUTION)
            answers.append(
                Prediction(
                    path=path,
                    decision=names[ranked[0]] if forced else decision,
                    probabilities=dict(zip(names, map(float, p), strict=True)),
                    prediction_set=kept,
                    out_of_distribution=ood,
                    forced=forced,
                    nearest=self._name_nearest(scores, row),
                )
            )
        return answers

    def pool(self, answers: Sequence[Prediction]) -> Prediction:
        """Make one prediction of those for the slices of a volume.

        Parameters
        ----------
        answers : sequence of Prediction
            For the slices.

        Returns
        -------
        Prediction
            As :func:`brainfeat.prediction.answers.pool_slices` makes it.
        """
        names, kept = self.bundle.class_names, None
        if self.bundle.conformal is not None:
            p = average_slices(answers, names).probabilities
            [found] = self.bundle.conformal.predict_sets(p, coverage=self.coverage)
            kept = [name for name, is_kept in zip(names, found, strict=True) if is_kept]
        return pool_slices(answers, names, prediction_set=kept, force=self.force)

    def predict_patient(self, patient: PatientImages) -> Prediction:
        """Predict a patient from all of its images, by a bag head.

        Parameters
        ----------
        patient : PatientImages

        Returns
        -------
        Prediction
            With an error where none of the images can be read.
        """
        if not patient.vectors:
            reason = f"none of its {count(len(patient.refused), 'image')} can be read"
            return Prediction(path=patient.path, error=reason)
        bags = patient.collect()
        (answer,) = self.predict(bags, [patient.path])
        pooling = None if self.bundle.bag is None else self.bundle.bag.pooling
        summary = SliceSummary(
            n=len(patient.entries),
            decisions={},
            carried_by={},
            seen=sum(how is not None for _, how in patient.entries),
            pooling=pooling,
            most_weighted=self._weigh(patient, bags) if pooling == ATTENTION else (),
        )
        return replace(answer, seen=patient.seen, slices=summary)

    def _weigh(self, patient: PatientImages, bags: Bags) -> tuple[WeightedSlice, ...]:
        weights = self.bundle.attention(bags)
        most = np.argsort(-weights, kind="stable")[:_MOST_WEIGHTED]
        entries = [entry for entry, _ in patient.entries]
        return tuple(
            WeightedSlice(
                path=entries[row].name, frame=entries[row].frame, weight=float(weights[row])
            )
            for row in most
        )

    def _detect(self, scores: OODScores | None, row: int) -> OutOfDistribution | None:
        if scores is None or self.threshold is None:
            return None
        score = float(scores.scores[row])
        return OutOfDistribution(
            score=score,
            threshold=self.threshold if np.isfinite(self.threshold) else None,
            flagged=score > self.threshold,
        )

    def _name_nearest(self, scores: OODScores | None, row: int) -> tuple[Neighbour, ...]:
        if scores is None or self.bundle.ood_detector is None:
            return ()
        labels = self.bundle.ood_detector.labels[scores.neighbours[row]]
        return tuple(
            Neighbour(label=self.bundle.class_names[label], distance=float(distance))
            for label, distance in zip(labels, scores.distances[row], strict=True)
        )
