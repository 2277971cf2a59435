"""What several caches have in common, as ``brainfeat audit`` prints it."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from brainfeat.cache.signature import ORIENTATIONS
from brainfeat.text import align

if TYPE_CHECKING:
    from brainfeat.leakage.cross_audit import CacheOverlap, CrossAudit

_SHOWN = 5


def describe_overlaps(audit: "CrossAudit") -> list[str]:
    """Describe each two caches in a table, then list what is wrong.

    Parameters
    ----------
    audit : CrossAudit

    Returns
    -------
    list of str
        Lines.
    """
    findings = [f"- {finding}" for finding in audit.findings]
    return [
        *(line for overlap in audit.overlaps for line in _describe_overlap(overlap)),
        "Copies within one cache were not looked for; run brainfeat audit on it alone.",
        "",
        "Found:" if findings else "Nothing was found.",
        *findings,
    ]


def _describe_overlap(overlap: "CacheOverlap") -> Iterator[str]:
    sides = (overlap.first, overlap.second)
    yield f"first   {overlap.first.cache}"
    yield f"second  {overlap.second.cache}"
    yield ""
    turns = [name for name in ORIENTATIONS if any(name in side.by_orientation for side in sides)]
    yield from align(
        [
            ("", "first", "second"),
            ("images", *(f"{side.images:,}" for side in sides)),
            ("with an exact duplicate in the other", *(f"{s.exact_duplicates:,}" for s in sides)),
            ("with a copy in the other", *(f"{side.copies:,}" for side in sides)),
            *(
                (
                    f"  {name.replace('_', ' ')}",
                    *(f"{side.by_orientation.get(name, 0):,}" for side in sides),
                )
                for name in turns
            ),
        ]
    )
    yield f"label conflicts: {len(overlap.label_conflicts):,}"
    for conflict in overlap.label_conflicts[:_SHOWN]:
        how = (conflict.orientation or conflict.kind).replace("_", " ").replace("-", " ")
        images = zip(conflict.paths, conflict.labels, strict=True)
        yield f"  {how}: {', '.join(f'{path} ({label})' for path, label in images)}"
    if (rest := len(overlap.label_conflicts) - _SHOWN) > 0:
        yield f"  and {rest:,} more, which --json lists"
    yield ""
