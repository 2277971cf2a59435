"""An evaluation as one HTML file that asks for nothing else; needs Jinja (the extra ``report``)."""

from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from brainfeat.errors import MissingDependencyError
from brainfeat.report import charts
from brainfeat.report.blocks import FEW_CLASSES
from brainfeat.report.checklists import UNANSWERED, Checklist
from brainfeat.report.gallery import ReadImage, make_gallery
from brainfeat.report.outline import list_sections, make_study, make_subtitle, make_title
from brainfeat.text import make_printable

if TYPE_CHECKING:
    from brainfeat.cache.cache import FeatureCache
    from brainfeat.evaluation.results import Evaluation
    from brainfeat.heads.bundle import HeadBundle
    from brainfeat.leakage.results import Audit


def to_html(
    evaluation: "Evaluation",
    *,
    bundle: "HeadBundle",
    cache: "FeatureCache",
    audit: "Audit | None" = None,
    command: str | None = None,
    images: ReadImage | None = None,
    checklist: Checklist | None = None,
) -> str:
    """Write an evaluation as one HTML page.

    The page loads nothing and runs nothing: styles and charts are in it. It shows no image, and
    names no file, unless `images` is given.

    Parameters
    ----------
    evaluation : Evaluation
        What :func:`brainfeat.evaluate` returned for `bundle` and `cache`.
    bundle : HeadBundle
        The head.
    cache : FeatureCache
        The features, open.
    audit : Audit or None
        What :func:`brainfeat.audit` found in the cache; None looks for copies alone.
    command : str or None
        The command line, to be shown.
    images : callable or None
        Gives the pixels of an image by its path in the cache: (h, w) or (h, w, 3), float in [0, 1].
        With it, the worst errors and some duplicates are shown.
    checklist : {"claim2024", "tripod-ai"} or None
        A reporting guideline whose items are answered as far as software can.

    Returns
    -------
    str
        Equal arguments give equal texts.

    Raises
    ------
    ParameterError
        The evaluation is one of bare probabilities, or the checklist is unknown.
    MissingDependencyError
        Jinja or matplotlib is not installed.
    """
    study = make_study(evaluation, bundle=bundle, cache=cache, audit=audit, command=command)
    sections = list_sections(study, checklist=checklist)
    if images is not None:
        place = next(i for i, section in enumerate(sections) if section.name == "training")
        sections.insert(place, make_gallery(study, images))
    template = _make_environment().get_template("report.html.j2")
    page: str = template.render(
        title=make_title(study),
        subtitle=make_subtitle(study),
        sections=sections,
        version=version("brainfeat"),
    )
    return page


def _make_environment() -> Any:
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined
    except ImportError as error:
        raise MissingDependencyError(
            "an HTML report needs Jinja, which is not installed: pip install 'brainfeat[report]'"
        ) from error
    from markupsafe import Markup

    def draw(chart: Any, name: str) -> Any:
        # The drawing is ours, and what it names is escaped in it.
        return Markup(  # noqa: S704
            charts.describe_svg(
                chart.draw(), name=name, title=chart.title, description=chart.description
            )
        )

    def parts(cell: str) -> Any:
        """Keep a figure and its interval whole, each on its line where there is little room."""
        figure, bracket, interval = str(finalize(cell)).partition(" (")
        if not bracket:
            return figure
        return Markup('<span class="part">{}</span> <span class="part">({}</span>').format(
            figure, interval
        )

    def finalize(value: Any) -> Any:
        if isinstance(value, Markup) or not isinstance(value, str):
            return value
        # A per cent sign stays beside its number.
        return make_printable(value).replace(" %", "\N{NO-BREAK SPACE}%")

    environment = Environment(
        loader=PackageLoader("brainfeat.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        finalize=finalize,
    )
    environment.globals.update(
        dashes=charts.DASHES, n_colours=charts.N_COLOURS, unanswered=UNANSWERED, few=FEW_CLASSES
    )
    environment.filters.update(draw=draw, parts=parts)
    return environment
