"""The card in XML has the elements of the schema in its order, and claims what was measured."""

import dataclasses
import json
import shutil
from xml.etree import ElementTree as ET

import pytest
from support.studies import draw_study

from brainfeat.report import to_chai_card
from brainfeat.report.chai_card import NAMESPACE, TO_FILL_IN

# Elements of version 0.2 of the schema in their order; "?" marks those that may be absent, "*"
# those that may come any number of times, and "+" those that come once or more. The signature that
# the schema allows at the end is of another namespace: who answers for a card signs it.
METRIC = {
    "MetricGoal": None,
    "Results": {"MetricResult+": {"Label": None, "ValueJson": None}},
    "Interpretation": None,
    "TestType": None,
    "TestingDataDescription": None,
    "ValidationProcessAndJustification": None,
}
SCHEMA = {
    "BasicInfo": {"ModelName": None, "ModelDeveloper": None, "DeveloperContact": None},
    "ReleaseInfo": {
        "ReleaseStage": None,
        "ReleaseDate": None,
        "ReleaseVersion": None,
        "GlobalAvailability": None,
        "EHRCompatibility?": {"EHR*": None},  # codespell:ignore
        "RegulatoryApproval?": None,
    },
    "ModelSummary": {"Summary": None, "Keywords": {"Keyword*": None}},
    "UsesAndDirections": {
        "IntendedUseAndWorkflow": None,
        "PrimaryIntendedUsers": None,
        "HowToUse": None,
        "TargetedPatientPopulation": None,
        "CautionedOutOfScopeSettings": None,
    },
    "Warnings": {
        "KnownRisksAndLimitations": None,
        "KnownBiasesOrEthicalConsiderations": None,
        "ClinicalRiskLevel": None,
    },
    "TrustIngredients": {
        "AISystemFacts": {
            "OutcomesAndOutputs": None,
            "ModelType": None,
            "FoundationModels?": None,
            "InputDataSource": None,
            "OutputAndInputDataTypes": None,
            "DevelopmentDataCharacterization": None,
            "BiasMitigationApproaches": None,
            "OngoingMaintenance": None,
            "Security?": None,
            "Transparency?": None,
        },
        "TransparencyInformation": {
            "FundingSource": None,
            "ThirdPartyInformation?": None,
            "StakeholdersConsulted": None,
        },
    },
    "KeyMetrics": {
        "UsefulnessUsabilityEfficacy": METRIC,
        "FairnessEquity": METRIC,
        "SafetyReliability": METRIC,
    },
    "Resources": {
        "EvaluationReferences?": None,
        "ClinicalTrial?": None,
        "PeerReviewedPublications": None,
        "ReimbursementStatus?": None,
        "PatientConsentOrDisclosure": None,
    },
    "Bibliography": None,
}


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    from support.caches import write_vectors

    folder = tmp_path_factory.mktemp("card")
    found = draw_study(lambda *args, **rest: write_vectors(folder, *args, **rest))
    yield found
    found.cache.close()


def write(study, **changes):
    evaluation = changes.pop("evaluation", study.evaluation)
    options = {"bundle": study.bundle, "audit": study.audit, **changes}
    return to_chai_card(evaluation, cache=study.cache, **options)


@pytest.fixture(scope="module")
def card(study):
    return ET.fromstring(write(study, command="brainfeat evaluate a b"))


def check(element, children):
    """Compare an element with the schema: names, order, numbers; text only where nothing is in."""
    if children is None:
        assert len(element) == 0
        assert element.text
        return
    assert not (element.text or "").strip()
    rest = list(element)
    for name, below in children.items():
        tag, number = f"{{{NAMESPACE}}}{name.rstrip('?*+')}", 0
        while rest and rest[0].tag == tag:
            check(rest.pop(0), below)
            number += 1
        allowed = {"?": (0, 1), "*": (0, 999), "+": (1, 999)}.get(name[-1], (1, 1))
        assert allowed[0] <= number <= allowed[1], name
    assert not rest, rest[0].tag


def texts(card, name):
    return [element.text for element in card.iter(f"{{{NAMESPACE}}}{name}")]


def test_the_card_has_the_elements_of_the_schema(card):
    assert card.tag == f"{{{NAMESPACE}}}AppliedModelCard"
    check(card, SCHEMA)


@pytest.mark.parametrize("changes", [{"abstention": None}, {"copy_free": None}, {"by": {}}])
def test_it_has_them_whatever_was_measured(study, changes):
    evaluation = dataclasses.replace(study.evaluation, **changes)
    check(ET.fromstring(write(study, evaluation=evaluation)), SCHEMA)


def test_metrics_are_those_of_the_evaluation_with_their_intervals(study, card):
    values = dict(zip(texts(card, "Label"), map(json.loads, texts(card, "ValueJson")), strict=True))
    new = study.evaluation.subsets.without_copies
    low, high = new.intervals.accuracy
    assert values["accuracy, without copies"] == {
        "kind": "estimate_ci",
        "estimate": new.accuracy,
        "lower": low,
        "upper": high,
        "level": 95,
        "unit": "",
    }
    everything = study.evaluation
    ece = values["expected calibration error, all images"]["value"]
    assert ece == everything.calibration.after.ece
    assert values["risk at 80 %, all images"]["value"] == next(
        entry.risk for entry in everything.abstention.risk_coverage if entry.fraction == 0.8
    )


def test_what_no_file_knows_is_left_to_a_person(card):
    for name in (
        *("ModelDeveloper", "DeveloperContact", "ReleaseDate", "GlobalAvailability"),
        *("ClinicalRiskLevel", "FundingSource", "StakeholdersConsulted", "OngoingMaintenance"),
        *("PeerReviewedPublications", "PatientConsentOrDisclosure"),
    ):
        (text,) = texts(card, name)
        assert text.startswith(TO_FILL_IN), name
    (stage,) = texts(card, "ReleaseStage")
    assert "Not a medical device." in stage


def test_fairness_that_was_not_measured_is_said_and_has_no_number(study):
    evaluation = dataclasses.replace(study.evaluation, by={})
    root = ET.fromstring(write(study, evaluation=evaluation))
    fairness = root.find(f".//{{{NAMESPACE}}}FairnessEquity")
    (value,) = texts(fairness, "ValueJson")
    assert json.loads(value)["value"] is None
    assert "--by COLUMN" in texts(fairness, "Interpretation")[0]


def test_names_are_neither_xml_nor_markdown(study):
    text = write(study)
    assert "<script>" not in text
    root = ET.fromstring(text)
    assert any("&lt;script&gt;" in (keyword or "") for keyword in texts(root, "Keyword"))


def test_control_characters_in_names_are_valid_xml(study):
    names = ("a\x00b", "c\x1bd", "e￾f", "g\ud800h")
    bundle = dataclasses.replace(study.bundle, class_names=names[: len(study.bundle.class_names)])
    root = ET.fromstring(write(study, bundle=bundle))
    assert r"a\x00b" in {text.replace("\\\\", "\\") for text in texts(root, "Keyword")}


def test_no_answer_refers_to_a_section_that_the_card_lacks(card):
    assert "(section" not in "".join(card.itertext())
    assert "section Data" not in "".join(card.itertext())


def test_equal_evaluations_have_equal_cards(study):
    assert write(study) == write(study)


def test_the_command_writes_a_card_of_several_sets_and_keeps_it(study, run, tmp_path):
    head, card = tmp_path / "head.h5", tmp_path / "card.xml"
    study.bundle.save(head)
    other = shutil.copy(study.path, tmp_path / "other.h5")
    line = ["evaluate", head, study.path, other, "--card", card]
    result = run(*line)
    assert result.code == 0, result.err
    written = card.read_bytes()
    root = ET.fromstring(written)
    check(root, SCHEMA)
    assert f"accuracy on {study.path.name}" in texts(root, "Label")
    assert "accuracy on other.h5" in texts(root, "Label")
    assert str(tmp_path).encode() not in written
    result = run(*line)
    assert result.code == 1
    assert "--overwrite" in result.err
    assert card.read_bytes() == written
