"""A full report as one HTML file that loads nothing else; needs Jinja (the extra ``report``)."""

from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from brainfeat.errors import MissingDependencyError
from brainfeat.report import charts
from brainfeat.report.blocks import FEW_CLASSES, Cell, Chart, Estimate
from brainfeat.report.checklists import UNANSWERED, Checklist
from brainfeat.report.gallery import ReadImage, make_gallery
from brainfeat.report.outline import (
    NOT_A_DEVICE,
    PURPOSE,
    list_sections,
    make_subtitle,
    make_title,
)
from brainfeat.report.study import make_study
from brainfeat.text import make_printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from brainfeat.cache.cache import FeatureCache
    from brainfeat.evaluation.results import Evaluation
    from brainfeat.evaluation.set_results import SetsEvaluation
    from brainfeat.heads.bundle import HeadBundle
    from brainfeat.leakage.results import Audit
    from brainfeat.report.blocks import Section


def to_html(
    evaluation: "Evaluation",
    *,
    bundle: "HeadBundle",
    cache: "FeatureCache",
    audit: "Audit | None" = None,
    command: str | None = None,
    images: ReadImage | None = None,
    checklist: Checklist | None = None,
    sets: "SetsEvaluation | None" = None,
) -> str:
    """Write an evaluation as one HTML page.

    The page loads nothing and runs no code: styles and charts are part of it. It shows no image and
    names no file unless `images` is given.

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
    images : callable or None
        Returns the pixels of an image by its path in the cache: shape (h, w) or (h, w, 3), float in
        [0, 1]. With it, the worst errors and some copies are shown.
    checklist : {"claim2024", "tripod-ai"} or None
        A reporting guideline whose items are answered as far as software can answer them.
    sets : SetsEvaluation or None
        The result of :func:`brainfeat.evaluate` for several caches, of which `evaluation` is one:
        the table of all comes first, and the others have a section each.

    Returns
    -------
    str
        The page; equal arguments give equal pages.

    Raises
    ------
    ParameterError
        The evaluation has no predictions of images of a cache, or the checklist is unknown.
    MissingDependencyError
        Jinja or matplotlib is not installed.
    """
    study = make_study(
        evaluation, bundle=bundle, cache=cache, audit=audit, command=command, sets=sets
    )
    sections = list_sections(study, checklist=checklist)
    if images is not None:
        place = next(i for i, section in enumerate(sections) if section.name == "training")
        sections.insert(place, make_gallery(study, images))
    return render_page(sections, title=make_title(study), subtitle=make_subtitle(study))


def render_page(sections: "Sequence[Section]", *, title: str, subtitle: str) -> str:
    """Write sections as one HTML page; the first section is the summary.

    Parameters
    ----------
    sections : sequence of Section
    title, subtitle : str

    Returns
    -------
    str

    Raises
    ------
    MissingDependencyError
        Jinja or matplotlib is not installed.
    """
    template = make_environment().get_template("report.html.j2")
    page: str = template.render(
        title=title,
        subtitle=subtitle,
        sections=sections,
        version=version("brainfeat"),
        not_a_device=NOT_A_DEVICE,
        purpose=PURPOSE,
    )
    return page


def make_environment() -> Any:
    """Make what renders the templates of this package.

    Raises
    ------
    MissingDependencyError
        Jinja is not installed.
    """
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined
    except ImportError as error:
        raise MissingDependencyError(
            "an HTML page needs Jinja, which is not installed: pip install 'brainfeat[report]'"
        ) from error
    environment = Environment(
        loader=PackageLoader("brainfeat.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        finalize=_finalize,
    )
    environment.globals.update(
        dashes=charts.DASHES, n_colours=charts.N_COLOURS, unanswered=UNANSWERED, few=FEW_CLASSES
    )
    environment.filters.update(draw=_draw, parts=_break_cell)
    return environment


def _finalize(value: Any) -> Any:
    """Make a text printable; markup, which is a text too, is left as it is."""
    if hasattr(value, "__html__") or not isinstance(value, str):
        return value
    # A per cent sign stays beside its number.
    return make_printable(value).replace(" %", "\N{NO-BREAK SPACE}%")


def _draw(chart: Chart, name: str) -> Any:
    from markupsafe import Markup

    svg = charts.describe_svg(
        chart.draw(), name=name, title=chart.title, description=chart.description
    )
    # The drawing comes from this package, which escapes the names in it.
    return Markup(svg)  # noqa: S704


def _break_cell(cell: Cell) -> Any:
    """Keep a metric and its interval whole, each on its line where there is little room."""
    from markupsafe import Markup

    if isinstance(cell, Estimate) and cell.interval:
        return Markup('<span class="part">{}</span> <span class="part">({})</span>').format(
            cell.value, cell.interval
        )
    return _finalize(str(cell))
