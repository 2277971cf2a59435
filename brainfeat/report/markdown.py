"""An evaluation as GitHub-flavoured Markdown."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from brainfeat.evaluation.results import Evaluation
from brainfeat.report.tables import (
    by_rows,
    class_rows,
    describe_abstention,
    describe_subsets,
    headline,
    interval_rows,
    prevalence_rows,
    subset_rows,
)
from brainfeat.text import make_printable

if TYPE_CHECKING:
    from brainfeat.metrics import Metrics

_ESCAPES = str.maketrans(
    {character: f"\\{character}" for character in "\\`*_[]~|$"}
    | {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
)


def to_markdown(evaluation: "Metrics") -> str:
    """Write an evaluation as Markdown tables.

    Parameters
    ----------
    evaluation : Metrics or Evaluation
        What :func:`brainfeat.metrics.measure` or :func:`brainfeat.evaluate` returned.

    Returns
    -------
    str
        Tables without headings, so that they go under any. Class names are escaped.

    Examples
    --------
    >>> from brainfeat.metrics import measure
    >>> evaluation = measure([0, 1], [[0.9, 0.1], [0.2, 0.8]], class_names=["none", "glioma"])
    >>> print(to_markdown(evaluation).splitlines()[2])
    | images | 2 |
    """
    figures = [
        (f"{name} ({remark})" if remark else name, value)
        for name, value, remark in headline(evaluation)
    ]
    scores = [(escape(row[0]), *row[1:]) for row in class_rows(evaluation)]
    names = [escape(name) for name in evaluation.class_names]
    counts = zip(names, evaluation.confusion_matrix, strict=True)
    tables = [
        make_table(("figure", "value"), figures),
        *_describe_subsets(evaluation),
        make_table(("class", "precision", "recall", "F1", "images"), scores),
        *_describe_classes(evaluation),
        make_table(
            ("true \\\\ predicted", *names), [(name, *map(str, row)) for name, row in counts]
        ),
    ]
    if isinstance(evaluation, Evaluation):
        tables += _describe_parts(evaluation)
        if sentences := describe_abstention(evaluation):
            tables.append(" ".join(map(escape, sentences)))
    return "\n\n".join(tables)


def escape(name: str) -> str:
    r"""Escape what Markdown or HTML would read as markup; control characters become escapes.

    Examples
    --------
    >>> print(escape("a|b <i>"))
    a\|b &lt;i&gt;
    """
    return make_printable(name).translate(_ESCAPES)


def _describe_subsets(evaluation: "Metrics") -> list[str]:
    if not isinstance(evaluation, Evaluation):
        return []
    head, *rows = subset_rows(evaluation)
    return [make_table(head, rows), " ".join(map(escape, describe_subsets(evaluation)))]


def _describe_classes(evaluation: "Metrics") -> list[str]:
    if not isinstance(evaluation, Evaluation):
        return []
    head, *rows = interval_rows(evaluation)
    tables = [make_table(head, [(escape(row[0]), *row[1:]) for row in rows])]
    shares = [(escape(row[0]), *row[1:]) for row in prevalence_rows(evaluation)]
    return tables + ([make_table(("class", "prevalence", "PPV", "NPV"), shares)] if shares else [])


def _describe_parts(evaluation: Evaluation) -> list[str]:
    head, *rows = by_rows(evaluation)
    return [make_table(head, [(escape(row[0]), *row[1:]) for row in rows])] if rows else []


def make_table(head: Sequence[str], rows: Sequence[Sequence[str]], *, numeric: bool = True) -> str:
    """Write a table with the first column to the left, and the others to the right if numeric."""
    rule = ("---", *("---:" if numeric else "---" for _ in head[1:]))
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, rule, *rows))
