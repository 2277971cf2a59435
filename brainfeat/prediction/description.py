"""A prediction in words: one line for a terminal, a page or a picture."""

from brainfeat.prediction.answers import Prediction


def describe(prediction: Prediction) -> str:
    """Describe a prediction in one line: the class with its probability, or why there is none."""
    if prediction.error is not None:
        return f"cannot be read: {prediction.error}"
    name = str(prediction.decision)
    if name not in prediction.probabilities:
        return _explain_abstention(prediction)
    predicted = f"{name} ({prediction.probabilities[name]:.2f})"
    if prediction.forced:
        return f"{predicted}, FORCED: {_explain_abstention(prediction)}"
    if prediction.prediction_set is None:
        return f"{predicted}; this head has no prediction sets"
    _, second = sorted(prediction.probabilities, key=lambda name: -prediction.probabilities[name])[
        :2
    ]
    return f"{predicted}; next {second} ({prediction.probabilities[second]:.2f}), ruled out"


def describe_caveats(prediction: Prediction) -> list[str]:
    """Describe what else must be read with the prediction for a volume, a sentence for each."""
    found = []
    if prediction.forced:
        found.append("The head abstains; the class was forced, and is not a finding.")
    summary = prediction.slices
    if summary is not None and summary.seen:
        found.append(
            f"The head was fitted or validated on {summary.seen:,} of {summary.n:,} slices, or on "
            "copies of them; this says nothing about new images."
        )
    return found


def _explain_abstention(prediction: Prediction) -> str:
    ood = prediction.out_of_distribution
    if ood is not None and ood.flagged:
        return f"out of distribution: score {ood.score:.1f}, above {ood.threshold:.1f}"
    names = [
        f"{name} ({prediction.probabilities[name]:.2f})" for name in prediction.prediction_set or ()
    ]
    if not names:
        return "uncertain: no class is probable enough"
    if len(names) == 1:
        return f"uncertain: only {names[0]} is not ruled out, and another class is more probable"
    return f"uncertain between {', '.join(names[:-1])} and {names[-1]}"
