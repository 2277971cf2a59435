"""Evaluations for people and programs: terminal text, Markdown, JSON, pictures."""

import json
from typing import TYPE_CHECKING

from brainfeat.report.markdown import to_markdown
from brainfeat.report.text import to_text

if TYPE_CHECKING:
    from brainfeat.figures import Evaluation

__all__ = ["to_json", "to_markdown", "to_text"]


def to_json(evaluation: "Evaluation") -> str:
    """Write an evaluation as one JSON document.

    Parameters
    ----------
    evaluation : Evaluation
        What :func:`brainfeat.evaluate` returned.

    Returns
    -------
    str
        ASCII, indented; the keys are those of ``evaluation.to_dict()``, undefined figures are null.

    Examples
    --------
    >>> from brainfeat.figures import measure
    >>> evaluation = measure([0, 1], [[0.9, 0.1], [0.2, 0.8]], class_names=["none", "glioma"])
    >>> json.loads(to_json(evaluation))["accuracy"]
    1.0
    """
    return json.dumps(evaluation.to_dict(), indent=2, allow_nan=False)
