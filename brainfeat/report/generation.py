"""Rows that were generated for a fit, in sentences."""

from typing import TYPE_CHECKING

from brainfeat.heads.generation import explain_skipped
from brainfeat.text import count, name_some

if TYPE_CHECKING:
    from brainfeat.heads.record import FitRecord


def list_generated(training: "FitRecord") -> list[str]:
    """List a sentence on the generated rows that a head was also fitted on, if any."""
    found = training.generation
    if found is None:
        return []
    rows = [f"{name} {number:,}" for name, number in found.rows.items()]
    total = count(sum(found.rows.values()), "generated row")
    return [f"also fitted on {total} ({found.method}): {name_some(rows)}"]


def list_skipped(training: "FitRecord") -> list[str]:
    """List a sentence on classes that were too small to generate rows of, for each fit."""
    found = training.generation
    if found is None:
        return []
    fits = [("", found.skipped)]
    fits += [(f"fold {place}: ", skipped) for place, skipped in enumerate(found.folds, 1)]
    return [f"{fit}{explain_skipped(skipped)}" for fit, skipped in fits if skipped]
