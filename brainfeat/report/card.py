"""An evaluation as a model card in Markdown, with the facts of the HTML page."""

from typing import TYPE_CHECKING, Any

from brainfeat.report.blocks import (
    Block,
    Chart,
    Columns,
    Commands,
    Gallery,
    Items,
    Matrix,
    Table,
    Tiles,
)
from brainfeat.report.checklists import Checklist
from brainfeat.report.markdown import escape, make_table
from brainfeat.report.outline import list_sections, make_study, make_subtitle, make_title
from brainfeat.text import make_printable

if TYPE_CHECKING:
    from brainfeat.cache.cache import FeatureCache
    from brainfeat.evaluation.results import Evaluation
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
) -> str:
    """Write an evaluation as a model card.

    It says what :func:`brainfeat.report.to_html` says, without charts and images.

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
    checklist : {"claim2024", "tripod-ai"} or None
        A reporting guideline whose items are answered as far as software can.

    Returns
    -------
    str
        GitHub-flavoured Markdown; names of classes and all other texts are escaped.

    Raises
    ------
    ParameterError
        The evaluation is one of bare probabilities, or the checklist is unknown.
    """
    study = make_study(evaluation, bundle=bundle, cache=cache, audit=audit, command=command)
    parts = [
        f"# {escape(make_title(study))}",
        escape(make_subtitle(study)),
        "**Not a medical device.** For research and teaching; nothing here is a diagnosis.",
    ]
    for section in list_sections(study, checklist=checklist):
        parts.append(f"## {escape(section.title)}")
        parts += [text for block in section.blocks if (text := _write(block))]
    return "\n\n".join(parts) + "\n"


def _write(block: Block) -> str:
    if isinstance(block, str):
        return escape(block)
    text: str = _WRITERS[type(block)](block)
    return text


def _write_table(block: Table) -> str:
    cells = [[escape(cell) for cell in row] for row in (block.head, *block.rows)]
    table = f"**{escape(block.title)}**\n\n{make_table(cells[0], cells[1:], numeric=block.numeric)}"
    return f"{table}\n\n{escape(block.note)}" if block.note else table


def _write_matrix(block: Matrix) -> str:
    names = [escape(name) for name in block.names]
    rows = [
        (name, *(f"{number:,}" for number in row))
        for name, row in zip(names, block.counts, strict=True)
    ]
    return f"**{escape(block.title)}**\n\n{make_table(('true, then called', *names), rows)}"


def _write_tiles(block: Tiles) -> str:
    return make_table(
        ("figure", "value", "of"), [[escape(cell) for cell in entry] for entry in block.entries]
    )


def _write_items(block: Items) -> str:
    return "\n".join(f"- {escape(entry)}" for entry in block.entries)


def _write_commands(block: Commands) -> str:
    return "\n".join(f"    {make_printable(line)}" for line in block.lines)


def _write_columns(block: Columns) -> str:
    return "\n\n".join(text for part in block.parts for each in part if (text := _write(each)))


def _write_nothing(_: Chart | Gallery) -> str:
    return ""


_WRITERS: dict[type, Any] = {
    Table: _write_table,
    Matrix: _write_matrix,
    Tiles: _write_tiles,
    Items: _write_items,
    Commands: _write_commands,
    Columns: _write_columns,
    Chart: _write_nothing,
    Gallery: _write_nothing,
}
