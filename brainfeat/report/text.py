"""An evaluation as plain text for a terminal of 80 columns."""

import textwrap
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from brainfeat.evaluation.results import Evaluation
from brainfeat.report.tables import (
    UNDEFINED,
    by_rows,
    class_rows,
    describe_abstention,
    describe_subsets,
    headline,
    interval_rows,
    prevalence_rows,
    subset_rows,
)
from brainfeat.text import count_columns, make_printable, shorten

if TYPE_CHECKING:
    from brainfeat.metrics import Metrics

_WIDTH = 80
_NAME_WIDTH = 30


def to_text(evaluation: "Metrics") -> str:
    r"""Write an evaluation as tables for people.

    Parameters
    ----------
    evaluation : Metrics or Evaluation
        What :func:`brainfeat.metrics.measure` or :func:`brainfeat.evaluate` returned.

    Returns
    -------
    str
        Lines of at most 80 columns, without a line break at the end. Long class names are shortened
        in their middle; control characters in them are written as escapes.

    Examples
    --------
    >>> from brainfeat.metrics import measure
    >>> evaluation = measure([0, 1], [[0.9, 0.1], [0.2, 0.8]], class_names=["none", "glioma"])
    >>> print(to_text(evaluation))
    images                  2
    accuracy           1.0000
    balanced accuracy  1.0000
    macro F1           1.0000
    ROC AUC            1.0000  one class against the rest, mean over classes
    log loss           0.1643
    Brier score        0.0250  0 best, 1 worst
    Matthews corr.     1.0000
    <BLANKLINE>
    class          precision  recall      F1  images
    none              1.0000  1.0000  1.0000       1
    glioma            1.0000  1.0000  1.0000       1
    macro mean        1.0000  1.0000  1.0000       2
    weighted mean     1.0000  1.0000  1.0000       2
    <BLANKLINE>
    confusion matrix (images)
    true \ predicted  none  glioma
    none                 1       0
    glioma               0       1
    """
    sections = [
        _format_headline(evaluation),
        *_format_subsets(evaluation),
        _format_classes(evaluation),
        *_format_intervals(evaluation),
        *_format_prevalence(evaluation),
        *_format_abstention(evaluation),
        *_format_matrix(evaluation),
        *_format_parts(evaluation),
    ]
    return "\n\n".join("\n".join(line.rstrip() for line in section) for section in sections)


def _align(rows: Sequence[Sequence[str]]) -> list[str]:
    """Align columns, the first one to the left and the others to the right."""
    widths = [max(map(count_columns, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        pads = [
            " " * (width - count_columns(cell)) for cell, width in zip(row, widths, strict=True)
        ]
        cells = [
            row[0] + pads[0],
            *(pad + cell for pad, cell in zip(pads[1:], row[1:], strict=True)),
        ]
        lines.append("  ".join(cells))
    return lines


def _format_headline(evaluation: "Metrics") -> list[str]:
    entries = headline(evaluation)
    lines = _align([(name, value) for name, value, _ in entries])
    return [f"{line}  {remark}" for line, (_, _, remark) in zip(lines, entries, strict=True)]


def _format_subsets(evaluation: "Metrics") -> list[list[str]]:
    if not isinstance(evaluation, Evaluation):
        return []
    lines = _align(subset_rows(evaluation, separate=True))
    return [lines + _wrap(describe_subsets(evaluation))]


def _format_intervals(evaluation: "Metrics") -> list[list[str]]:
    """Lay seven figures of each class out as two tables, each interval below its figure."""
    if not isinstance(evaluation, Evaluation):
        return []
    head, *rows = interval_rows(evaluation)
    tables = []
    for columns in (slice(1, 5), slice(5, 8)):
        table = [("class", *head[columns])]
        for name, *cells in rows:
            pairs = [
                cell.partition(" ")[::2] for cell in cells[columns.start - 1 : columns.stop - 1]
            ]
            table.append((_label(name, _NAME_WIDTH - 6), *(figure for figure, _ in pairs)))
            if any(interval for _, interval in pairs):
                table.append(("", *(interval.strip("()") for _, interval in pairs)))
        tables.append(_align(table))
    return tables


def _format_prevalence(evaluation: "Metrics") -> list[list[str]]:
    if not isinstance(evaluation, Evaluation):
        return []
    rows = [(_label(row[0]), *row[1:]) for row in prevalence_rows(evaluation)]
    return [_align([("class", "prevalence", "PPV", "NPV"), *rows])] if rows else []


def _format_abstention(evaluation: "Metrics") -> list[list[str]]:
    if not isinstance(evaluation, Evaluation):
        return []
    lines = _wrap(map(make_printable, describe_abstention(evaluation)))
    return [lines] if lines else []


def _format_parts(evaluation: "Metrics") -> list[list[str]]:
    if not isinstance(evaluation, Evaluation):
        return []
    head, *rows = by_rows(evaluation)
    table = [(_label(row[0], _NAME_WIDTH - 8), *row[1:]) for row in rows]
    return [_align([head, *table])] if rows else []


def _wrap(sentences: Iterable[str]) -> list[str]:
    return [line for sentence in sentences for line in textwrap.wrap(sentence, _WIDTH)]


def _format_classes(evaluation: "Metrics") -> list[str]:
    rows = [(_label(row[0]), *row[1:]) for row in class_rows(evaluation)]
    lines = _align([("class", "precision", "recall", "F1", "images"), *rows])
    if any(UNDEFINED in row for row in rows):
        lines.append(f"{UNDEFINED}: not defined, as no image is of the class or was called so")
    return lines


def _format_matrix(evaluation: "Metrics") -> list[list[str]]:
    """Lay the confusion matrix out in as many blocks of columns as 80 columns need."""
    counts = [[str(count) for count in row] for row in evaluation.confusion_matrix]
    title = "confusion matrix (images)"
    corner = "true \\ predicted"
    names = [_label(name) for name in evaluation.class_names]
    whole = _align([(corner, *names), *((n, *row) for n, row in zip(names, counts, strict=True))])
    if max(map(count_columns, whole)) <= _WIDTH:
        return [[title, *whole]]
    numbers = [str(index) for index in range(1, len(names) + 1)]
    digits = len(numbers[-1])
    cell = 2 + max(digits, *(len(count) for row in counts for count in row))
    # Names are cut further where that saves a second block of columns.
    room = max(len(corner), _WIDTH - cell * len(names)) - digits - 1
    rows = [
        f"{number:>{digits}} {shorten(name, room)}"
        for number, name in zip(numbers, names, strict=True)
    ]
    left = max(map(count_columns, [corner, *rows]))
    step = max(1, (_WIDTH - left) // cell)
    blocks = []
    for start in range(0, len(names), step):
        shown = slice(start, start + step)
        table = [(corner, *numbers[shown])]
        table += [(name, *row[shown]) for name, row in zip(rows, counts, strict=True)]
        blocks.append(_align(table))
    blocks[0].insert(0, f"{title}; columns are numbered as rows")
    return blocks


def _label(name: str, width: int = _NAME_WIDTH) -> str:
    return shorten(make_printable(name), width)
