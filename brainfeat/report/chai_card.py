"""A full report as an Applied Model Card of the Coalition for Health AI, in XML.

Its schema is version 0.2 of https://github.com/coalition-for-health-ai/mc-schema, whose texts are
Markdown. What the files do not hold is left to the developer of the model by name, never invented.
"""

import json
import re
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

from brainfeat.evaluation.results import Results
from brainfeat.report.blocks import Section, find_interval
from brainfeat.report.checklists import collect_evidence
from brainfeat.report.markdown import escape, write_sections
from brainfeat.report.outline import NOT_A_DEVICE, PURPOSE, TITLE
from brainfeat.report.provenance import (
    make_data,
    make_features,
    make_leakage,
    make_limits,
    make_provenance,
)
from brainfeat.report.results import summarise
from brainfeat.report.sets import name_sets
from brainfeat.report.study import Study, make_study
from brainfeat.report.wording import (
    CLASS_METRIC_NAMES,
    METRIC_NAMES,
    SUBSET_METRICS,
    list_parts,
    name_base,
    name_subset,
)

if TYPE_CHECKING:
    from brainfeat.cache.cache import FeatureCache
    from brainfeat.evaluation.results import Evaluation
    from brainfeat.evaluation.set_results import SetsEvaluation
    from brainfeat.heads.bundle import HeadBundle
    from brainfeat.leakage.results import Audit

NAMESPACE = "https://mc.chai.org/v0.2/schema.xsd"
# The card has no sections of the names that answers refer to.
_SECTIONS = re.compile(r" \(sections? [^)]*\)")
TO_FILL_IN = "To be filled in by the developer of the model"

# A text, an element with others inside, or several elements of one name.
Content = str | dict[str, Any] | list[Any]
Labelled = Iterator[tuple[str, dict[str, Any]]]


def to_chai_card(
    evaluation: "Evaluation",
    *,
    bundle: "HeadBundle",
    cache: "FeatureCache",
    audit: "Audit | None" = None,
    command: str | None = None,
    sets: "SetsEvaluation | None" = None,
) -> str:
    """Write an evaluation as an Applied Model Card of the Coalition for Health AI.

    Parameters
    ----------
    evaluation : Evaluation
        The result of :func:`brainfeat.evaluate` for `bundle` and `cache`.
    bundle : HeadBundle
        The fitted head.
    cache : FeatureCache
        The features, open.
    audit : Audit or None
        The result of :func:`brainfeat.audit` for the cache; None looks only for copies.
    command : str or None
        The command line that made the evaluation, to be shown.
    sets : SetsEvaluation or None
        The result of :func:`brainfeat.evaluate` for several caches, of which `evaluation` is one.

    Returns
    -------
    str
        XML of version 0.2 of the schema; its texts are Markdown, in which names are escaped. What
        software cannot know says who has to fill it in.

    Raises
    ------
    ParameterError
        The evaluation has no predictions of images of a cache.
    """
    study = make_study(
        evaluation, bundle=bundle, cache=cache, audit=audit, command=command, sets=sets
    )
    evidence = {
        key: found and _SECTIONS.sub("", found) for key, found in collect_evidence(study).items()
    }
    root = ET.Element("AppliedModelCard", xmlns=NAMESPACE)
    root.append(ET.Comment(f" {TITLE}, written by brainfeat {version('brainfeat')} "))
    _fill(
        root,
        {
            **_describe_release(study),
            **_describe_use(study),
            **_describe_warnings(study),
            "TrustIngredients": {
                "AISystemFacts": _describe_system(study, evidence),
                "TransparencyInformation": {
                    "FundingSource": _leave("the funding"),
                    "StakeholdersConsulted": _leave("who was consulted"),
                },
            },
            "KeyMetrics": _list_metrics(study, evidence),
            "Resources": {
                "PeerReviewedPublications": _leave("publications on this model"),
                "PatientConsentOrDisclosure": _leave("consent and what patients are told"),
            },
            "Bibliography": f"@software{{brainfeat, title = {{brainfeat}}, version = "
            f"{{{version('brainfeat')}}}}}",
        },
    )
    ET.indent(root)
    text = ET.tostring(root, encoding="unicode")
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{text}\n'


def _fill(parent: ET.Element, content: dict[str, Content]) -> None:
    """Add elements in the order given, which is that of the schema."""
    for name, value in content.items():
        for entry in value if isinstance(value, list) else [value]:
            element = ET.SubElement(parent, name)
            if isinstance(entry, dict):
                _fill(element, entry)
            else:
                element.text = entry


def _leave(what: str) -> str:
    return f"{TO_FILL_IN}: {what}."


def _describe_release(study: Study) -> dict[str, Content]:
    bundle = study.bundle
    digest = bundle.content_sha256
    return {
        "BasicInfo": {
            "ModelName": escape(f"{bundle.head} head on {name_base(bundle)}"),
            "ModelDeveloper": _leave("who developed the model"),
            "DeveloperContact": _leave("how to reach them"),
        },
        "ReleaseInfo": {
            "ReleaseStage": f"{_leave('the stage')} {NOT_A_DEVICE} {PURPOSE}",
            "ReleaseDate": _leave("the date"),
            "ReleaseVersion": f"SHA-256 of the content of the head file: {digest}"
            if digest
            else _leave("the version; the head was not read from a file"),
            "GlobalAvailability": _leave("where it is available"),
        },
    }


def _describe_use(study: Study) -> dict[str, Content]:
    names, size = study.bundle.class_names, study.cache.spec.input_size
    task = f"Classification of single slices of brain MRI as one of: {', '.join(names)}."
    return {
        "ModelSummary": {
            "Summary": _write([task, *_list_findings(study)]),
            "Keywords": {"Keyword": ["brain MRI", "image classification", *map(escape, names)]},
        },
        "UsesAndDirections": {
            "IntendedUseAndWorkflow": _write(
                [f"{task} {NOT_A_DEVICE} {PURPOSE}", _leave("the place in a workflow, if any")]
            ),
            "PrimaryIntendedUsers": "People who do research or teach. "
            + _leave("other users, if any"),
            "HowToUse": "`brainfeat predict HEAD IMAGES` gives a class, its probability and the "
            "prediction set of each image, or abstains. It needs the weights of the base; each "
            f"image is resized to {size} × {size} pixels.",
            "TargetedPatientPopulation": "The files record neither age nor sex nor diagnosis. "
            + _leave("the patients that the model is meant for"),
            "CautionedOutOfScopeSettings": "Any use on patients. Images of another kind, body "
            "part, sequence, scanner or hospital than those it was measured on.",
        },
    }


def _list_findings(study: Study) -> Iterator[str]:
    yield " ".join(summarise(study.evaluation))
    if study.sets is not None:
        for name, found in zip(name_sets(study.sets), study.sets.sets, strict=True):
            yield from (f"{name}: {finding}." for finding in found.findings)


def _describe_warnings(study: Study) -> dict[str, Content]:
    shortcut = study.audit.shortcut
    bias = (
        ""
        if shortcut is None
        else f"A random forest on {', '.join(shortcut.columns)}, without pixels, is right on "
        f"{shortcut.accuracy:.3f} of the images, where chance is {shortcut.chance:.3f}: the more "
        "it is above that, the more of the class the kind of file gives away. "
    )
    return {
        "Warnings": {
            "KnownRisksAndLimitations": _write_section(make_limits(study)),
            "KnownBiasesOrEthicalConsiderations": escape(
                f"{bias}Age, sex, ethnicity and scanner are not recorded, so fairness between "
                "groups of patients is not known. "
            )
            + _leave("ethical considerations"),
            "ClinicalRiskLevel": _leave("the level of risk, by the use and the law that applies"),
        }
    }


def _describe_system(study: Study, evidence: dict[str, str | None]) -> dict[str, Content]:
    bundle, training = study.bundle, study.bundle.training
    blocks, given = bundle.blocks, "one image" if bundle.bag is None else "the images of a patient"
    weights = [spec.weights_sha256 for spec in ([bundle.spec] if blocks is None else blocks.specs)]
    return {
        "OutcomesAndOutputs": _answer(evidence, "output"),
        "ModelType": _answer(evidence, "model"),
        "FoundationModels": escape(
            f"{name_base(bundle)}, frozen; SHA-256 of the weights: {' and '.join(weights)}"
        ),
        "InputDataSource": _answer(evidence, "sources"),
        "OutputAndInputDataTypes": _write(
            [
                f"Input: {given}. {evidence['preprocessing']}",
                f"Output: {evidence['output']}",
            ]
        ),
        "DevelopmentDataCharacterization": _write_section(make_data(study)),
        "BiasMitigationApproaches": _write(
            [
                f"{evidence['imbalance']} {evidence['disjoint']}",
                "Metrics without copies of images that the head has seen come first.",
                f"The head was fitted with random state {training.random_state}.",
            ]
        ),
        "OngoingMaintenance": _leave("who maintains the model and watches it in use"),
        "Transparency": "\n\n".join(
            _write_section(section)
            for section in (make_features(study), make_leakage(study), make_provenance(study))
        ),
    }


def _answer(evidence: dict[str, str | None], key: str) -> str:
    found = evidence[key]
    return _leave("the files do not answer it") if found is None else escape(found)


def _write(paragraphs: Sequence[str]) -> str:
    return "\n\n".join(map(escape, paragraphs))


def _write_section(section: Section) -> str:
    _, *paragraphs = write_sections([section])
    return "\n\n".join(paragraphs)


def _list_metrics(study: Study, evidence: dict[str, str | None]) -> dict[str, Content]:
    common: dict[str, Content] = {
        "TestType": _answer(evidence, "external"),
        "TestingDataDescription": _write(
            [f"{evidence['selection']} {evidence['exclusions']}", str(evidence["size"])]
        ),
        "ValidationProcessAndJustification": _write(
            [f"{evidence['uncertainty']} {evidence['partitions'] or ''}", str(evidence["disjoint"])]
        ),
    }
    noun = study.noun
    by_column = (
        "By the values of one column. Age, sex and ethnicity of patients are not recorded."
        if study.evaluation.by
        else f"Not measured: `brainfeat evaluate --by COLUMN` does. {_leave('the rest')}"
    )
    return {
        "UsefulnessUsabilityEfficacy": {
            "MetricGoal": "How often the class is right: on new images, and on all.",
            "Results": _list_results(_list_usefulness(study)),
            "Interpretation": _write(list(_list_findings(study))),
            **common,
        },
        "FairnessEquity": {
            "MetricGoal": "Whether the class is as often right in each group of images.",
            "Results": _list_results(_list_fairness(study)),
            "Interpretation": by_column,
            **common,
        },
        "SafetyReliability": {
            "MetricGoal": "Whether probabilities can be believed, and what is left unanswered.",
            "Results": _list_results(_list_reliability(study)),
            "Interpretation": "The expected calibration error is 0 where probabilities are right "
            "on average. The risk at 80 % is the fraction of wrong predictions among the most "
            f"confident 80 % of the {noun}s. Coverage is the fraction of {noun}s whose prediction "
            "set has the true class.",
            **common,
        },
    }


def _list_results(results: Labelled) -> dict[str, Content]:
    entries = [
        {"Label": escape(label), "ValueJson": json.dumps(value, allow_nan=False)}
        for label, value in results
    ]
    return {"MetricResult": entries}


def _list_usefulness(study: Study) -> Labelled:
    for name, part in list_parts(study.evaluation):
        subset, words = getattr(study.evaluation.subsets, name), name_subset(name, study.evaluation)
        for metric in SUBSET_METRICS:
            yield (
                f"{METRIC_NAMES[metric]}, {words}",
                _value(getattr(subset, metric), find_interval(subset, metric)),
            )
        for entry in part.per_class:
            for metric in ("recall", "specificity"):
                label = f"{CLASS_METRIC_NAMES[metric]} of {entry.name}, {words}"
                yield label, _value(getattr(entry, metric), find_interval(entry, metric))
    if study.sets is not None:
        for name, found in zip(name_sets(study.sets), study.sets.sets, strict=True):
            yield f"accuracy on {name}", _value(found.row.accuracy, found.row.accuracy_interval)


def _list_fairness(study: Study) -> Labelled:
    for value, subset in study.evaluation.by.items():
        interval = find_interval(subset, "accuracy")
        yield (
            f"accuracy, {study.noun}s of {value}",
            _value(subset.accuracy, interval),
        )
    if not study.evaluation.by:
        yield "accuracy by group of patients: not measured", _value(None)


def _list_reliability(study: Study) -> Labelled:
    for name, part in list_parts(study.evaluation):
        if not isinstance(part, Results):
            continue
        words, found = name_subset(name, part), part.abstention
        yield f"{METRIC_NAMES['ece']}, {words}", _value(part.calibration.after.ece)
        if found is None:
            continue
        for entry in found.risk_coverage:
            if entry.fraction == 0.8:
                yield f"risk at 80 %, {words}", _value(entry.risk)
        yield f"AUROC of the confidence for being right, {words}", _value(found.auroc)
        yield f"answered with one class, {words}", _value(found.answered)
        yield f"accuracy of these, {words}", _value(found.accuracy)
        yield (
            f"coverage (target {found.target_coverage:g}), {words}",
            _value(found.coverage, found.coverage_interval),
        )


def _value(estimate: float | None, interval: tuple[float, float] | None = None) -> dict[str, Any]:
    """Write a metric as the cards that the schema comes with do; null where it is not defined."""
    if estimate is None or interval is None:
        return {"kind": "single", "value": estimate, "unit": ""}
    lower, upper = interval
    return {
        "kind": "estimate_ci",
        "estimate": estimate,
        "lower": lower,
        "upper": upper,
        "level": 95,
        "unit": "",
    }
