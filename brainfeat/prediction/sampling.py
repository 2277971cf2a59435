"""Choose labelled images that a head has not seen, evenly over their classes."""

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from brainfeat import runtime
from brainfeat.cache.groups import read_groups
from brainfeat.errors import BundleError, TableError
from brainfeat.evaluation.stress import SEEN
from brainfeat.evaluation.units import IMAGE, IMAGES, UnitRule, name_unit
from brainfeat.heads.bundle import HeadBundle
from brainfeat.prediction.images import InputImage, read_images
from brainfeat.prediction.joined_bases import HeadInputs
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
    rule: UnitRule = IMAGES,
    random_state: int = 0,
    n_jobs: int | None = None,
) -> Sample:
    """Choose labelled images of a split at random that a head has not seen, nor copies of them.

    Each class has its share of the images of the split. Images are drawn in an order that depends
    on their paths and the seed alone: a larger number adds to the images of a smaller one. Where
    groups are measured, these are drawn as a whole, in an order that depends on their names; those
    of which the head has seen an image are left out.

    Parameters
    ----------
    bundle : HeadBundle
        The head.
    table : ImageTable
        The images.
    number : int or None
        How many images, or groups where these are measured; None takes all.
    split : {"train", "val", "test", "all"}
        Which images; those of a table without splits are all taken for ``"test"``.
    rule : UnitRule
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
        The table has no labelled images in the split, or the head has seen them all; groups are
        measured, and there are none, or one is in several splits or classes.
    BundleError
        The table has a class that the head does not have.
    """
    rows = _list_candidates(bundle, table, split)
    units = _list_units(table, rows, rule)
    sizes = Counter(unit.label for unit in units)
    quotas = _share(sizes, len(units) if number is None else number)
    left_out: Counter[str] = Counter()
    chosen: dict[int, bytes] = {}
    known: set[bytes] = set()
    notes = []
    for name in sorted(sizes):
        drawn = sorted(
            (unit for unit in units if unit.label == name),
            key=lambda unit: _hash(random_state, unit.name),
        )
        found, wanted = 0, quotas[name]
        looked = _look_at_units(bundle, table, drawn, left_out, rule=rule, n_jobs=n_jobs)
        while found < wanted and (images := next(looked, None)) is not None:
            new = dict[int, bytes]()
            for row, digest in images.items():
                if digest in known:
                    left_out["the same file as another"] += 1
                else:
                    known.add(digest)
                    new[row] = digest
            chosen |= new
            found += bool(new)
        if found < wanted and number is not None:
            what = f"{name_unit(rule.unit)}s"
            notes.append(f"The class {name} has {found:,} of {wanted:,} wanted {what} left.")
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


@dataclass(frozen=True, kw_only=True)
class _Unit:
    """An image or a group that may be chosen: its class, and its rows of the table."""

    name: str
    label: str
    rows: tuple[int, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class _Columns:
    """The columns of a table as a cache has them."""

    path: str
    class_names: tuple[str, ...]
    groups: NDArray[np.str_]
    splits: NDArray[np.str_]
    y: NDArray[np.int64]


def _list_units(table: ImageTable, rows: Sequence[int], rule: UnitRule) -> list[_Unit]:
    """List the images, or the groups that they form, which must be among them as a whole."""
    if rule.unit == IMAGE:
        return [_Unit(name=table.paths[row], label=table.labels[row], rows=(row,)) for row in rows]
    names = {table.groups[row] for row in rows}
    everything = [
        row for row, label in enumerate(table.labels) if label and table.groups[row] in names
    ]
    place = {name: number for number, name in enumerate(table.class_names)}
    columns = _Columns(
        path=str(table.root),
        class_names=table.class_names,
        groups=np.array(table.groups),
        splits=np.array(table.splits),
        y=np.array([place.get(label, -1) for label in table.labels], np.int64),
    )
    groups = read_groups(columns, np.array(everything), label=rule.label)
    return [
        _Unit(name=str(name), label=table.class_names[label], rows=tuple(found.tolist()))
        for name, label, found in zip(
            groups.names, groups.y, np.split(groups.rows, groups.offsets[1:-1]), strict=True
        )
    ]


def _list_candidates(bundle: HeadBundle, table: ImageTable, split: str) -> list[int]:
    """List the labelled images of a split, whose classes the head must have."""
    everywhere = split == "all" or not (table.has_splits or split == "train")
    rows = [
        row
        for row, label in enumerate(table.labels)
        if label and not table.origins[row] and (everywhere or table.splits[row] == split)
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
) -> Iterator[tuple[int, InputImage, bool]]:
    """Read images in blocks; yield each, and whether the head has seen it or a copy."""
    fitted = bundle.fitted_images
    sign = fitted is not None and fitted.signature is not None
    for start in range(0, len(rows), _BLOCK):
        block = rows[start : start + _BLOCK]
        entries = [
            replace(entry, image=None)
            for entry in read_images(
                [table.absolute_path(row) for row in block],
                HeadInputs.of(bundle.specs),
                keep_pixels=False,
                sign=sign,
                n_jobs=n_jobs or runtime.usable_cores(),
            )
        ]
        for row, entry, seen in zip(block, entries, recognise(entries, fitted), strict=True):
            yield row, entry, seen is not None


def _look_at_units(
    bundle: HeadBundle,
    table: ImageTable,
    units: Sequence[_Unit],
    left_out: Counter[str],
    *,
    rule: UnitRule,
    n_jobs: int | None,
) -> Iterator[dict[int, bytes]]:
    """Yield the images of each unit that the head has not seen, by row, and count the others."""
    place = {row: number for number, unit in enumerate(units) for row in unit.rows}
    looked = _look_at(bundle, table, list(place), n_jobs=n_jobs)
    for _, found in groupby(looked, key=lambda image: place[image[0]]):
        new: dict[int, bytes] = {}
        seen = 0
        for row, entry, is_seen in found:
            if entry.error is not None or entry.sha256 is None:
                left_out[_UNREADABLE] += 1
            elif is_seen:
                seen += 1
            else:
                new[row] = entry.sha256
        if seen:
            left_out[SEEN[rule.unit]] += seen + len(new)
        elif new:
            yield new


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
