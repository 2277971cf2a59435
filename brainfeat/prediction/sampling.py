"""Choose labelled images that a head has not seen, evenly over their classes."""

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from brainfeat import runtime
from brainfeat.errors import BundleError, TableError
from brainfeat.heads.bundle import HeadBundle
from brainfeat.prediction.images import InputImage, read_images
from brainfeat.prediction.recognition import recognise
from brainfeat.tables.table import ImageTable

# Images that are read and compared with those of the fit at once.
_BLOCK = 64
_UNREADABLE = "not readable"


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Images that a head has not seen.

    Attributes
    ----------
    table : ImageTable
        These images, in the order of the table that they were chosen from.
    digests : frozenset of bytes
        SHA-256 of their files.
    left_out : dict of str to int
        How many others were looked at and left out, by reason.
    notes : tuple of str
        Which classes have fewer images than their share, a sentence each.
    """

    table: ImageTable
    digests: frozenset[bytes]
    left_out: dict[str, int]
    notes: tuple[str, ...]


def choose_unseen(
    bundle: HeadBundle,
    table: ImageTable,
    *,
    number: int | None,
    split: str = "test",
    random_state: int = 0,
    n_jobs: int | None = None,
) -> Sample:
    """Choose labelled images of a split at random that a head has not seen, nor copies of them.

    Each class has its share of the images of the split. Images are drawn in an order that depends
    on their paths and the seed alone: a larger number adds to the images of a smaller one.

    Parameters
    ----------
    bundle : HeadBundle
        The head.
    table : ImageTable
        The images.
    number : int or None
        How many; None takes all.
    split : {"train", "val", "test", "all"}
        Which images; those of a table without splits are all taken for ``"test"``.
    random_state : int
        Seed.
    n_jobs : int or None
        Threads that read and decode; None takes all cores.

    Returns
    -------
    Sample

    Raises
    ------
    TableError
        The table has no labelled images in the split, or the head has seen them all.
    BundleError
        The table has a class that the head does not have.
    """
    rows = _list_candidates(bundle, table, split)
    sizes = Counter(table.labels[row] for row in rows)
    quotas = _share(sizes, len(rows) if number is None else number)
    left_out: Counter[str] = Counter()
    chosen: dict[int, bytes] = {}
    known: set[bytes] = set()
    notes = []
    for name in sorted(sizes):
        drawn = sorted(
            (row for row in rows if table.labels[row] == name),
            key=lambda row: _hash(random_state, table.paths[row]),
        )
        before, wanted = len(chosen), quotas[name]
        for row, entry, reason in _look_at(bundle, table, drawn, n_jobs=n_jobs):
            if len(chosen) == before + wanted:
                break
            if reason is not None or entry.sha256 is None:
                left_out[reason or _UNREADABLE] += 1
            elif entry.sha256 in known:
                left_out["the same file as another"] += 1
            else:
                known.add(entry.sha256)
                chosen[row] = entry.sha256
        if (found := len(chosen) - before) < wanted and number is not None:
            notes.append(f"The class {name} has {found:,} of {wanted:,} wanted images left.")
    if not chosen:
        reasons = ", ".join(f"{n:,} {reason}" for reason, n in left_out.items())
        raise TableError(
            f"none of the {len(rows):,} images is left ({reasons}); name images that are new to "
            "the head"
        )
    return Sample(
        table=_take(table, sorted(chosen)),
        digests=frozenset(chosen.values()),
        left_out=dict(left_out),
        notes=tuple(notes),
    )


def _list_candidates(bundle: HeadBundle, table: ImageTable, split: str) -> list[int]:
    """List the labelled images of a split, whose classes the head must have."""
    everywhere = split == "all" or not (table.has_splits or split == "train")
    rows = [
        row
        for row, label in enumerate(table.labels)
        if label and (everywhere or table.splits[row] == split)
    ]
    if not rows:
        found = Counter(
            name or "none" for name, label in zip(table.splits, table.labels, strict=True) if label
        )
        if not found:
            raise TableError("the table has no labelled images; name one with the class of each")
        splits = ", ".join(f"{name} ({n:,})" for name, n in sorted(found.items()))
        raise TableError(
            f"the table has no labelled images in split {split!r}; it has {splits}; pass one of "
            "these, or 'all'"
        )
    if unknown := sorted({table.labels[row] for row in rows} - {*bundle.class_names}):
        raise BundleError(
            f"the images have the class{'es' if len(unknown) > 1 else ''} "
            f"{', '.join(map(repr, unknown))}; expected one of the "
            f"head's, {', '.join(map(repr, bundle.class_names))}: name images of these classes, "
            "or list theirs in a CSV file"
        )
    return rows


def _share(sizes: Counter[str], number: int) -> dict[str, int]:
    """Divide a number among classes by their sizes, by largest remainders (Hamilton's method).

    Examples
    --------
    >>> _share(Counter(a=300, b=100), 10)
    {'a': 8, 'b': 2}
    """
    total = sum(sizes.values())
    number = min(number, total)
    exact = {name: number * size / total for name, size in sizes.items()}
    quotas = {name: int(share) for name, share in exact.items()}
    order = sorted(exact, key=lambda name: (quotas[name] - exact[name], name))
    for name in order[: number - sum(quotas.values())]:
        quotas[name] += 1
    return quotas


def _hash(random_state: int, path: str) -> bytes:
    return hashlib.sha256(f"{random_state}\0{path}".encode("utf-8", "surrogateescape")).digest()


def _look_at(
    bundle: HeadBundle, table: ImageTable, rows: Sequence[int], *, n_jobs: int | None
) -> Iterator[tuple[int, InputImage, str | None]]:
    """Read images in blocks; yield each with the reason to leave it out, if there is one."""
    fitted = bundle.fitted_images
    sign = fitted is not None and fitted.signature is not None
    for start in range(0, len(rows), _BLOCK):
        block = rows[start : start + _BLOCK]
        entries = [
            replace(entry, image=None)
            for entry in read_images(
                [table.absolute_path(row) for row in block],
                bundle.spec,
                keep_pixels=False,
                sign=sign,
                n_jobs=n_jobs or runtime.usable_cores(),
            )
        ]
        for row, entry, seen in zip(block, entries, recognise(entries, fitted), strict=True):
            reason = _UNREADABLE if entry.error is not None else None
            if seen is not None:
                reason = "seen by the head, or a copy of such an image"
            yield row, entry, reason


def _take(table: ImageTable, rows: Sequence[int]) -> ImageTable:
    """Return some rows of a table."""
    columns = (table.paths, table.labels, table.splits, table.groups, table.sources)
    paths, labels, splits, groups, sources = (
        tuple(column[row] for row in rows) for column in columns
    )
    return ImageTable(
        root=table.root,
        paths=paths,
        labels=labels,
        splits=splits,
        groups=groups,
        sources=sources,
        class_names=tuple(sorted({*labels})),
        skipped={},
    )
