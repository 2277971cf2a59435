"""Reporting guidelines: the items that software can answer from the files, and all others.

Topics are abridged. CLAIM: Tejani et al. 2024, Radiology: Artificial Intelligence
6(4):e240300. TRIPOD+AI: Collins et al. 2024, BMJ 385:e078378.
"""

from dataclasses import asdict
from typing import Literal, get_args

from brainfeat.errors import ParameterError
from brainfeat.evaluation.bootstrap import MIN_GROUPS
from brainfeat.report.blocks import Section, Table, estimate_metric
from brainfeat.report.provenance import name_grouping
from brainfeat.report.robustness import (
    describe_failures,
    describe_robustness,
    describe_size,
)
from brainfeat.report.study import Study
from brainfeat.report.wording import METRIC_NAMES, name_base, name_headline, name_subset
from brainfeat.text import count, format_metric, format_number

Checklist = Literal["claim2024", "tripod-ai"]

UNANSWERED = "not answerable by software"

# Number, topic, and the key of the evidence that answers it, if any.
Item = tuple[str, str, str | None]

CLAIM_2024: tuple[Item, ...] = (
    ("1", "Title: names the use of AI and its kind", "technology"),
    ("2", "Abstract: structured summary", None),
    ("3", "Background, intended use and clinical role", None),
    ("4", "Aims, objectives and hypotheses", None),
    ("5", "Prospective or retrospective design", None),
    ("6", "Goal of the study", None),
    ("7", "Sources of the data", "sources"),
    ("8", "Inclusion and exclusion criteria", "exclusions"),
    ("9", "Preprocessing of the data", "preprocessing"),
    ("10", "Selection of subsets of the data", "selection"),
    ("11", "De-identification", None),
    ("12", "Missing data", "missing"),
    ("13", "Image acquisition protocol", None),
    ("14", "How the reference standard was obtained", None),
    ("15", "Why that reference standard", None),
    ("16", "Who annotated, and their qualifications", None),
    ("17", "How the test images were annotated", None),
    ("18", "Variability between and within annotators", "conflicts"),
    ("19", "How data were assigned to partitions", "partitions"),
    ("20", "Level at which partitions are disjoint", "disjoint"),
    ("21", "Intended sample size", "size"),
    ("22", "Description of the model", "model"),
    ("23", "Software and its versions", "software"),
    ("24", "Initial parameters, transfer learning", "initialisation"),
    ("25", "Training: procedure, augmentation, hyperparameters", "training"),
    ("26", "How the final model was selected", "selected"),
    ("27", "Ensembling", "ensemble"),
    ("28", "Performance metrics", "metrics"),
    ("29", "Uncertainty and significance", "uncertainty"),
    ("30", "Robustness or sensitivity analysis", "robustness"),
    ("31", "Explainability", None),
    ("32", "Evaluation on internal data", "internal"),
    ("33", "Testing on external data", "external"),
    ("34", "Clinical trial registration", None),
    ("35", "Numbers included and excluded", "flow"),
    ("36", "Demographic and clinical characteristics by partition", None),
    ("37", "Performance on the partitions and subgroups", "performance"),
    ("38", "Diagnostic accuracy with its precision", "accuracy"),
    ("39", "Failure analysis", "failures"),
    ("40", "Limitations", "limits"),
    ("41", "Implications for practice", None),
    ("42", "Where the full protocol is", None),
    ("43", "Availability of software, model and data", "availability"),
    ("44", "Funding", None),
)

TRIPOD_AI: tuple[Item, ...] = (
    ("1", "Title: development or evaluation, population, outcome", None),
    ("2", "Abstract", None),
    ("3a", "Healthcare context and rationale", None),
    ("3b", "Target population, purpose and users", None),
    ("3c", "Known health inequalities", None),
    ("4", "Objectives", None),
    ("5a", "Sources of data and how representative they are", "sources"),
    ("5b", "Dates of the data", None),
    ("6a", "Study setting and centres", None),
    ("6b", "Eligibility criteria", "exclusions"),
    ("6c", "Treatments received", None),
    ("7", "Preparation and quality checks of the data", "preprocessing"),
    ("8a", "Outcome and how it was assessed", None),
    ("8b", "Qualifications of those who assessed it", None),
    ("8c", "Blinding of its assessment", None),
    ("9a", "Choice of initial predictors", "predictors"),
    ("9b", "Definition of the predictors", "predictors"),
    ("9c", "Subjective interpretation of predictors", "objective"),
    ("10", "Sample size", "size"),
    ("11", "Missing data", "missing"),
    ("12a", "Use and partition of the data", "partitions"),
    ("12b", "Handling of predictors", "preprocessing"),
    ("12c", "Type of model, building and internal validation", "training"),
    ("12d", "Heterogeneity between clusters", "heterogeneity"),
    ("12e", "Measures and plots of performance", "metrics"),
    ("12f", "Updating of the model", "updating"),
    ("12g", "How predictions were calculated", "model"),
    ("13", "Class imbalance", "imbalance"),
    ("14", "Fairness: approaches", None),
    ("15", "Output of the model and thresholds", "output"),
    ("16", "Differences between development and evaluation data", "external"),
    ("17", "Ethical approval and consent", None),
    ("18a", "Funding", None),
    ("18b", "Conflicts of interest", None),
    ("18c", "Protocol", None),
    ("18d", "Registration", None),
    ("18e", "Data sharing", None),
    ("18f", "Code sharing", "availability"),
    ("19", "Patient and public involvement", None),
    ("20a", "Flow of participants", "flow"),
    ("20b", "Characteristics of participants", None),
    ("20c", "Comparison with the development data", "classes"),
    ("21", "Numbers in each analysis", "flow"),
    ("22", "Full specification of the model", "specification"),
    ("23a", "Performance with confidence intervals", "accuracy"),
    ("23b", "Heterogeneity of performance", "heterogeneity"),
    ("24", "Results of updating", "updating"),
    ("25", "Interpretation, with fairness", None),
    ("26", "Limitations", "limits"),
    ("27a", "Input of poor quality or unavailable", "missing"),
    ("27b", "What users must do and know", None),
    ("27c", "Next steps for research", None),
)

_TITLES = {
    "claim2024": "Checklist: CLAIM 2024",
    "tripod-ai": "Checklist: TRIPOD+AI",
}
_ITEMS = {"claim2024": CLAIM_2024, "tripod-ai": TRIPOD_AI}
_SOURCES = {
    "claim2024": "Tejani et al., Radiology: Artificial Intelligence 2024;6(4):e240300",
    "tripod-ai": "Collins et al., BMJ 2024;385:e078378",
}


def make_checklist(study: Study, name: str) -> Section:
    """Answer the items of a guideline from the files, as far as software can.

    Raises
    ------
    ParameterError
        The checklist is unknown.
    """
    if name not in _ITEMS:
        raise ParameterError(
            f"checklist must be one of {', '.join(get_args(Checklist))}, got {name!r}"
        )
    evidence = collect_evidence(study)
    rows = [
        (number, topic, UNANSWERED if key is None else evidence[key] or UNANSWERED)
        for number, topic, key in _ITEMS[name]
    ]
    answered = sum(row[2] != UNANSWERED for row in rows)
    return Section(
        name="checklist",
        title=_TITLES[name],
        blocks=[
            (f"{answered} of {len(rows)} items have an answer, or a part of one, in the files. The "
            "authors must answer the others, and check these. Topics are abridged; the binding "
            f"wording is that of {_SOURCES[name]}."),
            Table(
                title="Items and answers", head=("item", "topic", "answer"), rows=rows,
                numeric=False,
            ),
        ],
    )  # fmt: skip


def collect_evidence(study: Study) -> dict[str, str | None]:
    """Collect the answers of the files by key; None where they have no answer."""
    return {
        **_describe_data(study),
        **_describe_model(study),
        **_describe_fit(study),
        **_describe_measuring(study),
    }


def _describe_data(study: Study) -> dict[str, str | None]:
    cache, audit = study.cache, study.audit
    sources = sorted({str(source) for source in cache.sources} - {""})
    rejected = len(cache.rejected)
    listed = int(cache.is_image.sum()) + rejected
    unread = f"{count(rejected, 'file')} of {listed:,} could not be read"
    counts = [entry.support for entry in study.evaluation.per_class]
    split = study.bundle.training.split
    conflicts = len(audit.label_conflicts)
    groups = name_grouping(study.bundle.training.group_by)
    near = audit.near_duplicates
    across = f"{count(audit.exact_duplicates.cross_split_groups, 'set')} of exact duplicates"
    if audit.copies is not None:
        across += f", {count(audit.copies.cross_split_groups, 'set')} of copies"
    if near is not None:
        across += f" and {count(near.cross_split_clusters, 'set')} of near duplicates"
    return {
        "sources": f"Sources named by the table: {', '.join(sources[:10])}; the authors must "
        "describe them (section Data)." if sources else None,
        "exclusions": f"In part: {unread} (section Data has the reasons). The authors must state "
        "the criteria of the study.",
        "preprocessing": f"Each image is turned upright, made RGB"
        f"{', cropped to its foreground' if cache.spec.crop else ''} and resized to "
        f"{cache.spec.input_size} × {cache.spec.input_size} pixels (section Features).",
        "selection": f"{count(study.evaluation.n, study.noun)}: {study.split_name} (section Data).",
        "missing": f"{unread}; no value is imputed.",
        "conflicts": f"In part: {count(conflicts, 'set')} of copies of one image have different "
        "labels (section Leakage).",
        "partitions": "; ".join(
            f"{name} {format_number(size)}" for name, size in asdict(split).items()
        ) + f"; kept together: {groups} (section Data)." if split else None,
        "disjoint": f"Across splits: {across}; groups of the table: "
        f"{audit.groups_across_splits:,} (section Leakage).",
        "size": describe_size(study),
        "flow": f"From {listed:,} images listed to {study.n_images:,} evaluated (section Data).",
        "classes": "In part: images by class and split (section Data).",
        "imbalance": f"From {min(counts):,} to {max(counts):,} {study.noun}s of a class were "
        f"evaluated; class weights: {study.bundle.training.class_weight or 'none'}.",
    }  # fmt: skip


def _describe_model(study: Study) -> dict[str, str | None]:
    bundle, spec, base = study.bundle, study.cache.spec, name_base(study.bundle)
    layer = f", layer {spec.layer}" if bundle.blocks is None else ""
    return {
        "technology": f"A {bundle.head} classifier on features of a frozen {base}, a "
        "convolutional network.",
        "model": f"Pooled output of {base}{layer}: {spec.n_features} "
        f"numbers; then a head of the kind {bundle.head} (sections Features and Training).",
        "predictors": f"All {spec.n_features} features of the base; none is chosen by hand.",
        "objective": "Features are computed; nobody interprets an image.",
        "software": "Versions of all libraries in section Provenance.",
        "output": "A probability of each class; metrics are of the most probable class, without a "
        "threshold."
        + (
            ""
            if study.evaluation.abstention is None
            else " Predictions can abstain (section Answers and abstention)."
        ),
        "specification": f"The head file holds all parameters; it takes features of fingerprint "
        f"{study.cache.fingerprint[:16]}….",
        "updating": (
            None
            if bundle.temperature == 1.0
            else f"Scores are divided by one temperature, {format_metric(bundle.temperature)} "
            "(section Calibration)."
        ),
        "availability": "In part: brainfeat is open source (MIT); section Provenance has the "
        "commands. The authors must share data and model.",
    }


def _describe_fit(study: Study) -> dict[str, str | None]:
    bundle, training = study.bundle, study.bundle.training
    augmentation = "none" if study.cache.augmentation is None else "yes (section Features)"
    return {
        "initialisation": f"Base: weights with SHA-256 {study.cache.spec.weights_sha256[:16]}…, "
        f"frozen. Head: random state {training.random_state}.",
        "training": f"Head {bundle.head}, random state {training.random_state}, "
        f"augmentation {augmentation}; parameters and curves in section Training.",
        "selected": (
            f"Best mean {METRIC_NAMES['balanced_accuracy']} over {training.search.n_folds} folds "
            "among the candidates in section Training; no test image took part."
            if training.search
            else "One head was fitted; this software compared it with no others."
        ),
        "ensemble": (
            "The head itself is an ensemble of trees."
            if bundle.head in {"random-forest", "hist-gradient-boosting"}
            else "None."
        ),
        "internal": (
            (f"{training.cv.n_folds}-fold cross-validation and a" if training.cv else "A")
            + " validation split (section Training)."
            if training.val
            else None
        ),
        "external": _describe_external(study),
    }


def _describe_external(study: Study) -> str:
    others = [] if study.sets is None else [e for e in study.sets.sets if not e.is_test_part]
    if others:
        return (
            f"{count(len(others), 'set')} beside the test part of the fit (section What it is "
            "worth on each set); the authors must state where they come from."
        )
    if study.is_same_cache:
        return "None: the images evaluated are of the feature file of the fit."
    return (
        "The images evaluated are of another feature file than that of the fit; the authors must "
        "state where they come from."
    )


def _describe_measuring(study: Study) -> dict[str, str | None]:
    evaluation = study.evaluation
    everything = evaluation.subsets.all
    found = name_headline(evaluation.subsets)
    new = getattr(evaluation.subsets, found)
    intervals = bool(everything.intervals)
    accuracies = [
        f"{estimate_metric(subset, 'accuracy')} {title}"
        for subset, title in (
            (new, name_subset(found, study.evaluation)),
            (everything, f"on {name_subset('all', study.evaluation)}"),
        )
        if subset is everything or (subset.accuracy is not None and subset.n < everything.n)
    ]
    parts = (
        f"by value of a column, {count(len(evaluation.by), 'value')} (section Metrics by value of "
        "a column)"
    )
    return {
        "metrics": "Accuracy, balanced accuracy, F1, sensitivity, specificity, predictive values, "
        "ROC and precision–recall curves, calibration (sections Overall metrics, Metrics by class "
        "and Calibration).",
        "uncertainty": (
            f"95 % intervals from {evaluation.bootstrap.n_resamples:,} bootstrap resamples of "
            "groups; no significance test."
            if intervals
            else f"No intervals: {everything.reason or f'fewer than {MIN_GROUPS} groups'}."
        ),
        "robustness": describe_robustness(study),
        "performance": "In part: the splits of the fit (section Training)"
        + (f"; {parts}." if evaluation.by else "."),
        "accuracy": f"Accuracy {'; '.join(accuracies)}. By class in section Metrics by class.",
        "failures": describe_failures(study),
        "limits": "In part: section Intended use and limits.",
        "heterogeneity": f"In part: {parts}." if evaluation.by else None,
    }
