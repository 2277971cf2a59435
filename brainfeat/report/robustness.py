"""How far results can be relied on, for checklists: what was done to find out, and what was not.

Each answer names the command that would do what was not done.
"""

from brainfeat.evaluation.results import Results
from brainfeat.report.study import Study
from brainfeat.report.wording import list_parts
from brainfeat.text import count, format_metric


def describe_size(study: Study) -> str:
    """Say how many images and independent groups were evaluated, of which classes."""
    evaluation, subsets = study.evaluation, study.evaluation.subsets
    classes = ", ".join(f"{entry.name} {entry.support:,}" for entry in evaluation.per_class)
    new, noun = subsets.without_copies, study.noun
    independent = (
        f"{count(subsets.all.n_groups, 'group')} that share no copy and no patient of the table"
    )
    if new.n and new.n < subsets.all.n:
        independent += (
            f"; {count(new.n, noun)} in {count(new.n_groups, 'group')} are new to the head"
        )
    _, part = list_parts(evaluation)[0]
    few = part.few if isinstance(part, Results) else {}
    names = [f"{name} ({number:,})" for name, number in few.items()]
    return (
        f"In part: {classes} {noun}s evaluated, in {independent}"
        + (f"; too few groups: {', '.join(names)}. " if few else ". ")
        + f"What more {noun}s would bring, fit-head --learning-curve reports on its own. The "
        "authors must state the intended size, and how it was chosen."
    )


def describe_robustness(study: Study) -> str:
    """Say what was varied: copies, seeds and partitions, sources, sets."""
    training = study.bundle.training
    repeats, cv = training.repeats, training.cv
    sources = None if cv is None else cv.sources
    done = ["metrics with and without copies of seen images", "controls (section Leakage)"]
    missing = []
    if repeats is None:
        missing.append("other seeds and partitions (fit-head --repeats)")
    else:
        spread = repeats.test.metrics.get("accuracy")
        done.append(
            f"{count(repeats.n, 'fit')} with other seeds and partitions"
            + (
                f", accuracy {format_metric(spread.mean)} ± {format_metric(spread.std)}, from "
                f"{format_metric(spread.low)} to {format_metric(spread.high)}"
                if spread
                else ""
            )
        )
    if sources is None:
        missing.append("sources left out one at a time (fit-head --cv leave-one-source-out)")
    else:
        accuracies = [fold.accuracy for fold in sources.folds if fold.accuracy is not None]
        done.append(
            f"{count(len(sources.folds), 'source')} left out one at a time"
            + (
                f", accuracy from {format_metric(min(accuracies))} to "
                f"{format_metric(max(accuracies))}"
                if accuracies
                else ""
            )
        )
    if study.sets is None:
        missing.append("images from elsewhere (evaluate HEAD with several feature files)")
    else:
        done.append(f"{count(len(study.sets.sets), 'set')} (section What it is worth on each set)")
    missing.append("altered images, which stress HEAD DATA reports on its own")
    return f"In part: {'; '.join(done)}. Not here: {'; '.join(missing)}."


def describe_failures(study: Study) -> str:
    """Say which predictions are wrong, and how many of them a reader would have believed."""
    found = ["confusion matrices (section Metrics by class)"]
    errors = study.evaluation.confident_errors
    if errors is not None:
        confident = errors.describe()
        found.append(
            confident or f"no wrong prediction has a probability above {errors.threshold:g}"
        )
    abstention = study.evaluation.abstention
    if abstention is not None:
        risks = {entry.fraction: entry.risk for entry in abstention.risk_coverage}
        found.append(
            f"of the most confident 80 % of the {study.noun}s, {100 * risks[0.8]:.1f} % are wrong"
        )
    return (
        f"In part: {'; '.join(found)}. The images themselves are in a report that was written with "
        "--include-images; images whose label is in doubt, in the file of audit --labels."
    )
