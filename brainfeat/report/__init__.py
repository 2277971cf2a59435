"""Evaluations for people and programs: text, Markdown, JSON, an HTML page, a model card."""

import json
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from brainfeat.evaluation.set_results import SetsEvaluation
    from brainfeat.metrics import Metrics
    from brainfeat.report.card import to_card
    from brainfeat.report.chai_card import to_chai_card
    from brainfeat.report.html import to_html
    from brainfeat.report.map import to_map
    from brainfeat.report.markdown import to_markdown
    from brainfeat.report.text import to_text

__all__ = [
    "to_card",
    "to_chai_card",
    "to_html",
    "to_json",
    "to_map",
    "to_markdown",
    "to_text",
]

# Imported on first use: JSON needs none of them.
_HOMES = {
    "to_card": "card",
    "to_chai_card": "chai_card",
    "to_html": "html",
    "to_map": "map",
    "to_markdown": "markdown",
    "to_text": "text",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'brainfeat.report' has no attribute {name!r}")
    return getattr(import_module(f"brainfeat.report.{_HOMES[name]}"), name)


def to_json(evaluation: "Metrics | SetsEvaluation") -> str:
    """Write an evaluation as one JSON document.

    Parameters
    ----------
    evaluation : Metrics or SetsEvaluation
        The result of :func:`brainfeat.evaluate`, or of :func:`brainfeat.metrics.measure`.

    Returns
    -------
    str
        ASCII, indented; the keys are those of ``evaluation.to_dict()``, and undefined metrics are
        null.

    Examples
    --------
    >>> from brainfeat.metrics import measure
    >>> evaluation = measure([0, 1], [[0.9, 0.1], [0.2, 0.8]], class_names=["none", "glioma"])
    >>> json.loads(to_json(evaluation))["accuracy"]
    1.0
    """
    return json.dumps(evaluation.to_dict(), indent=2, allow_nan=False)
