"""What a report has and in which order, in every output format."""

from dataclasses import replace
from typing import TYPE_CHECKING

from brainfeat.evaluation.results import Evaluation
from brainfeat.evaluation.set_results import SetsEvaluation
from brainfeat.report.blocks import Section
from brainfeat.report.checklists import Checklist, make_checklist
from brainfeat.report.classes import make_classes
from brainfeat.report.probabilities import make_abstention, make_calibration
from brainfeat.report.provenance import (
    make_data,
    make_features,
    make_leakage,
    make_limits,
    make_provenance,
)
from brainfeat.report.results import make_overall, make_summary, make_values
from brainfeat.report.sets import make_set, make_sets, name_sets
from brainfeat.report.study import Study
from brainfeat.report.training import make_training
from brainfeat.report.wording import name_base
from brainfeat.text import count

if TYPE_CHECKING:
    from collections.abc import Sequence

    from brainfeat.heads.calibration import Calibration
    from brainfeat.metrics import Metrics

NOT_A_DEVICE = "Not a medical device."
PURPOSE = "For research and teaching; nothing here is a diagnosis."

# What the title of every report starts with.
TITLE = "Evaluation of a brain MRI classifier"


def list_results(
    metrics: "Metrics | SetsEvaluation",
    *,
    findings: "Sequence[str]" = (),
    fitted: "Calibration | None" = None,
) -> list[Section]:
    """List the sections that metrics or an evaluation fill; those without content are absent.

    Parameters
    ----------
    metrics : Metrics or SetsEvaluation
        An evaluation fills more sections than metrics of bare probabilities.
    findings : sequence of str
        Those of an audit, for the summary.
    fitted : Calibration or None
        As in :func:`brainfeat.report.probabilities.make_calibration`.
    """
    if isinstance(metrics, SetsEvaluation):
        names = name_sets(metrics)
        return [
            make_sets(metrics),
            *(
                make_set(entry, name, place)
                for place, (entry, name) in enumerate(zip(metrics.sets, names, strict=True), 1)
            ),
        ]
    sections = [
        make_summary(metrics, findings=findings),
        make_overall(metrics),
        make_classes(metrics),
    ]
    if isinstance(metrics, Evaluation):
        if metrics.by:
            sections.append(make_values(metrics))
        sections.append(make_calibration(metrics, fitted=fitted))
        if metrics.abstention:
            sections.append(make_abstention(metrics))
    return sections


def list_sections(study: Study, *, checklist: Checklist | None) -> list[Section]:
    """List the sections of a full report: the results, and what they are based on."""
    table, others = _list_sets(study)
    sections = [
        *table,
        *list_results(
            study.evaluation,
            findings=study.audit.findings,
            fitted=study.bundle.training.calibration,
        ),
        *others,
        make_leakage(study),
        make_training(study),
        make_data(study),
        make_features(study),
        make_provenance(study),
        make_limits(study),
    ]
    return [*sections, make_checklist(study, checklist)] if checklist else sections


def _list_sets(study: Study) -> tuple[list[Section], list[Section]]:
    """List the table of all sets, and the sections of those that the report is not about."""
    if study.sets is None:
        return [], []
    first, *sections = list_results(study.sets)
    whole = next(
        name
        for name, entry in zip(name_sets(study.sets), study.sets.sets, strict=True)
        if entry.evaluation is study.evaluation
    )
    what = f"What follows is about {whole}, but for the results that are named after another set."
    return [replace(first, blocks=[*first.blocks, what])], [
        section
        for section, entry in zip(sections, study.sets.sets, strict=True)
        if entry.evaluation is not study.evaluation
    ]


def make_title(study: Study) -> str:
    """Name the report."""
    return f"{TITLE}: {study.bundle.head} on {name_base(study.bundle)}"


def make_subtitle(study: Study) -> str:
    """State in a line what was measured."""
    names = ", ".join(study.evaluation.class_names)
    sets = "" if study.sets is None else f"{count(len(study.sets.sets), 'set')}; in full: "
    return f"{sets}{count(study.evaluation.n, study.noun)} ({study.split_name}), {names}"
