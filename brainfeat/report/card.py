"""A full report as a model card in Markdown."""

from typing import TYPE_CHECKING

from brainfeat.report.checklists import Checklist
from brainfeat.report.markdown import escape, write_sections
from brainfeat.report.outline import (
    NOT_A_DEVICE,
    PURPOSE,
    list_sections,
    make_subtitle,
    make_title,
)
from brainfeat.report.study import make_study

if TYPE_CHECKING:
    from brainfeat.cache.cache import FeatureCache
    from brainfeat.evaluation.results import Evaluation
    from brainfeat.evaluation.set_results import SetsEvaluation
    from brainfeat.heads.bundle import HeadBundle
    from brainfeat.leakage.results import Audit


def to_card(
    evaluation: "Evaluation",
    *,
    bundle: "HeadBundle",
    cache: "FeatureCache",
    audit: "Audit | None" = None,
    command: str | None = None,
    checklist: Checklist | None = None,
    sets: "SetsEvaluation | None" = None,
) -> str:
    """Write an evaluation as a model card.

    It has the sections of :func:`brainfeat.report.to_html`, without charts and images.

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
    checklist : {"claim2024", "tripod-ai"} or None
        A reporting guideline whose items are answered as far as software can answer them.
    sets : SetsEvaluation or None
        The result of :func:`brainfeat.evaluate` for several caches, of which `evaluation` is one:
        the table of all comes first, and the others have a section each.

    Returns
    -------
    str
        GitHub-flavoured Markdown; class names and all other texts are escaped.

    Raises
    ------
    ParameterError
        The evaluation has no predictions of images of a cache, or the checklist is unknown.
    """
    study = make_study(
        evaluation, bundle=bundle, cache=cache, audit=audit, command=command, sets=sets
    )
    paragraphs = [
        f"# {escape(make_title(study))}",
        escape(make_subtitle(study)),
        f"**{NOT_A_DEVICE}** {PURPOSE}",
        *write_sections(list_sections(study, checklist=checklist)),
    ]
    return "\n\n".join(paragraphs) + "\n"
