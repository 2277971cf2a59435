"""What a table of images holds and leaves out, and what in it is probably a mistake."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import compress
from typing import Any, Self

from brainfeat.tables.layout import EMPTY
from brainfeat.tables.masks import BY_NAME, BY_VALUES, MASK, describe_masks
from brainfeat.tables.patients import suspect_patients
from brainfeat.tables.rows import SPLITS, LeftOut, quote, some
from brainfeat.tables.table import ImageTable
from brainfeat.tables.two_valued import TWO_VALUED
from brainfeat.tables.volume_table import VolumeTable
from brainfeat.text import align, count, fold_spelling

# A head is calibrated on five folds, each of which needs images of every class.
FEW_IMAGES = 10
# Lines of the table of classes that are shown, and class folders that a line names.
_SHOWN_CLASSES = 30
_SHOWN = 5
# Folders that stand beside the classes of public sets and hold images without a class.
_NO_CLASSES = frozenset(
    ("data", "dataset", "images", "pred", "predict", "prediction", "unlabeled", "unlabelled")
)
_WITHOUT = "without"


@dataclass(frozen=True)
class Inventory:
    """The images of a table by class and split, and what was left out.

    Attributes
    ----------
    classes : dict of str to dict of str to int
        Number of images of each class by split: ``train``, ``val``, ``test``, and ``without`` a
        split.
    unlabelled : int
        Number of images without a class.
    left_out : dict of LeftOut to int
        As in :class:`brainfeat.tables.table.ImageTable`.
    groups, ungrouped : int
        Number of groups, and of images that are in none.
    notes : tuple of str
        What of patients and their labels is probably a mistake.
    noun : {"image", "volume"}
        What was counted.
    generated : int
        Number of images that a program made, which are in no other number.
    """

    classes: dict[str, dict[str, int]]
    unlabelled: int
    left_out: Mapping[LeftOut, int]
    groups: int = 0
    ungrouped: int = 0
    notes: tuple[str, ...] = ()
    noun: str = "image"
    generated: int = 0

    @classmethod
    def of(cls, table: ImageTable | VolumeTable) -> Self:
        """Count the images of a table, or its volumes.

        Examples
        --------
        >>> from pathlib import Path
        >>> columns = [("1.png", "2.png"), ("glioma", ""), ("", ""), ("", ""), ("", "")]
        >>> inventory = Inventory.of(ImageTable(Path("."), *columns, ("glioma",), {}))
        >>> inventory.classes, inventory.unlabelled
        ({'glioma': {'train': 0, 'val': 0, 'test': 0, 'without': 1}}, 1)
        """
        images = table if isinstance(table, ImageTable) else None
        origins = splits = ("",) * len(table)
        if images is not None:
            origins, splits = images.origins, images.splits
        own = [not origin for origin in origins]
        numbers = Counter(compress(zip(table.labels, splits, strict=True), own))
        suspected: Iterable[str] = ()
        if images is not None:
            suspected = suspect_patients(images.paths, images.labels, images.groups)
        classes = {
            name: {split or _WITHOUT: numbers[name, split] for split in (*SPLITS, "")}
            for name in table.class_names
        }
        return cls(
            classes,
            unlabelled=list(compress(table.labels, own)).count(""),
            left_out={} if images is None else images.left_out,
            groups=len(set(table.groups) - {""}),
            ungrouped=list(compress(table.groups, own)).count(""),
            notes=(*table.notes, *suspected),
            noun="volume" if images is None else "image",
            generated=own.count(False),
        )

    @property
    def warnings(self) -> list[str]:
        """What is probably a mistake, a line each with its remedy."""
        return [
            *self.notes,
            *self._find_alike(),
            *self._find_untrained(),
            *(self._find_small() if self.noun == "image" else ()),
            *self._find_empty(),
            *self._find_no_classes(),
            *self._find_masks(),
        ]

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers and the warnings as plain values for JSON."""
        return {
            "classes": self.classes,
            "unlabelled": self.unlabelled,
            "groups": self.groups,
            "generated": self.generated,
            "left_out": [{**kind._asdict(), "number": n} for kind, n in self.left_out.items()],
            "warnings": self.warnings,
        }

    def describe_classes(self) -> list[str]:
        """Lay the numbers of images out by class and split; the first classes if there are many."""
        used = [
            split
            for split in (*SPLITS, _WITHOUT)
            if any(numbers[split] for numbers in self.classes.values())
        ]
        rows = [
            (name, *(f"{numbers[split]:,}" for split in used))
            for name, numbers in list(self.classes.items())[:_SHOWN_CLASSES]
        ]
        header = ("class", *(f"{self.noun}s" if split == _WITHOUT else split for split in used))
        lines = align([header, *rows]) if rows else []
        if more := len(self.classes) - len(rows):
            lines.append(f"and {more:,} more classes")
        if self.unlabelled:
            lines.append(f"{count(self.unlabelled, self.noun)} without a class")
        if self.groups:
            without = f"; {count(self.ungrouped, self.noun)} in none" if self.ungrouped else ""
            lines.append(f"{count(self.groups, 'group')} that no split should divide{without}")
        if self.generated:
            lines.append(f"{count(self.generated, 'generated image')} to train on, in no split")
        return lines

    def describe_left_out(self) -> list[str]:
        """Describe what was left out, a line for each reason."""
        reasons: defaultdict[str, list[tuple[int, LeftOut]]] = defaultdict(list)
        for kind, number in self.left_out.items():
            if kind.reason != EMPTY:
                reasons[kind.reason].append((-number, kind))
        return [_describe(reason, sorted(found)) for reason, found in sorted(reasons.items())]

    def _find_alike(self) -> Iterator[str]:
        """Find classes whose names differ only in case, spaces, ``_`` and ``-``."""
        spellings: defaultdict[str, list[str]] = defaultdict(list)
        for name in self.classes:
            spellings[fold_spelling(name)].append(name)
        for names in spellings.values():
            if len(names) > 1:
                yield (
                    f"the classes {self._locate(names)} differ only in case, spaces, '_' or '-';"
                    " if they are one class, write them the same way"
                )

    def _locate(self, names: list[str]) -> str:
        """Name classes, with their splits where there are any."""
        shown = [
            quote(name) + (f" (in {' and '.join(splits)})" if splits else "")
            for name in names[:_SHOWN]
            for splits in ([split for split in SPLITS if self.classes[name][split]],)
        ]
        more = len(names) - len(shown)
        return " and ".join(shown) + (f" and {more:,} more" if more else "")

    def _find_untrained(self) -> Iterator[str]:
        """Find the classes that a split leaves without training images."""
        if any(numbers["train"] for numbers in self.classes.values()):
            without = [
                name
                for name, numbers in self.classes.items()
                if not numbers["train"] and (numbers["val"] or numbers["test"])
            ]
            if without:
                yield (
                    f"no images in train of {some(without)}, which no head can learn then; add"
                    " some, or write a new split"
                )

    def _find_small(self) -> Iterator[str]:
        """Find the classes with too few images to divide them into folds."""
        fitted = {name: sum(n.values()) - n["test"] for name, n in self.classes.items()}
        small = [name for name, number in fitted.items() if 0 < number < FEW_IMAGES]
        if small:
            shown = ", ".join(f"{quote(name)} ({fitted[name]})" for name in small[:_SHOWN])
            if (more := len(small) - _SHOWN) > 0:
                shown += f" and {more:,} more"
            yield (
                f"few images to fit a head on of {shown};"
                f" it takes {FEW_IMAGES} of each class or more to validate and calibrate one"
            )

    def _find_empty(self) -> Iterator[str]:
        empty = [kind.folder for kind in self.left_out if kind.reason == EMPTY]
        if empty:
            yield (
                f"no images in the class folder{'s' * (len(empty) > 1)} {some(empty)}; add some, or"
                " remove what is no class"
            )

    def _find_no_classes(self) -> Iterator[str]:
        for name in self.classes:
            if name.casefold() in _NO_CLASSES:
                yield (
                    f"the class {quote(name)} is named as a folder of images without a class; if"
                    " it is one, move it away"
                )

    def _find_masks(self) -> Iterator[str]:
        for kind, reason in ((MASK, BY_NAME), (TWO_VALUED, BY_VALUES)):
            number = sum(n for left, n in self.left_out.items() if left.reason == kind)
            if number:
                yield describe_masks(number, "image", reason)


def _describe(reason: str, found: list[tuple[int, LeftOut]]) -> str:
    """Describe what was left out for one reason, the most frequent kinds first."""
    total = -sum(number for number, _ in found)
    kinds = [
        " ".join(
            part
            for part in (
                f"{-number:,}",
                kind.suffix,
                kind.folder and f"in {quote(kind.folder)}",
            )
            if part
        )
        for number, kind in found
        if kind.suffix or kind.folder
    ]
    more = len(kinds) - _SHOWN
    shown = ", ".join(kinds[:_SHOWN]) + (f" and {more:,} more" if more > 0 else "")
    noun = (
        "folder" if reason.startswith("folder") else "row" if reason == "listed twice" else "file"
    )
    return f"skipped {count(total, noun)}: {reason}" + (f" ({shown})" if shown else "")
