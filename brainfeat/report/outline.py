"""What a report says and in which order, whatever it is written as."""

from typing import TYPE_CHECKING

from brainfeat.errors import ParameterError
from brainfeat.evaluation.results import Evaluation
from brainfeat.leakage.auditing import audit_duplicates
from brainfeat.report.blocks import Section
from brainfeat.report.checklists import Checklist, make_checklist
from brainfeat.report.provenance import (
    make_data,
    make_features,
    make_leakage,
    make_limits,
    make_provenance,
)
from brainfeat.report.results import (
    Study,
    make_classes,
    make_comparison,
    make_parts,
    make_summary,
)
from brainfeat.report.training import make_abstention, make_calibration, make_training

if TYPE_CHECKING:
    from brainfeat.cache.cache import FeatureCache
    from brainfeat.heads.bundle import HeadBundle
    from brainfeat.leakage.results import Audit


def make_study(
    evaluation: Evaluation,
    *,
    bundle: "HeadBundle",
    cache: "FeatureCache",
    audit: "Audit | None",
    command: str | None,
) -> Study:
    """Put together what a report is about.

    Raises
    ------
    ParameterError
        The evaluation is not one of a cache.
    """
    if not isinstance(evaluation, Evaluation) or evaluation.predictions is None:
        raise ParameterError(
            "a report takes what brainfeat.evaluate returned; this has no predictions of images of "
            "a cache"
        )
    return Study(
        evaluation=evaluation,
        predictions=evaluation.predictions,
        bundle=bundle,
        cache=cache,
        audit=audit_duplicates(cache) if audit is None else audit,
        command=command,
    )


def list_sections(study: Study, *, checklist: Checklist | None) -> list[Section]:
    """List all that a report says, in its order."""
    sections = [
        make_summary(study),
        make_comparison(study),
        make_classes(study),
        *make_parts(study),
        make_calibration(study),
        *make_abstention(study),
        make_leakage(study),
        make_training(study),
        make_data(study),
        make_features(study),
        make_provenance(study),
        make_limits(study),
    ]
    return [*sections, make_checklist(study, checklist)] if checklist else sections


def make_title(study: Study) -> str:
    """Name the report."""
    return (
        f"Evaluation of a brain MRI classifier: {study.bundle.head} on {study.cache.spec.backbone}"
    )


def make_subtitle(study: Study) -> str:
    """Say in a line what was measured."""
    names = ", ".join(study.bundle.class_names)
    return f"{study.evaluation.n:,} images ({study.split_name}), {names}"
