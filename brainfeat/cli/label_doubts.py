"""Labels in doubt as ``brainfeat audit`` finds and describes them."""

from typing import TYPE_CHECKING

from brainfeat.cli import options
from brainfeat.text import align, count, format_metric, make_printable, shorten

if TYPE_CHECKING:
    from collections.abc import Iterator

    from brainfeat.cache.cache import FeatureCache
    from brainfeat.leakage.results import Audit
    from brainfeat.training.label_doubts import LabelDoubt, LabelDoubts

_SHOWN = 10
_NAME_WIDTH = 30
# In place of a suggested class that is the label itself: that of a copy may be the wrong one.
_CONFLICT = "the copies have different labels"
# In the order of a table; an image of a table without splits has none.
_SPLITS = {"train": "train", "val": "val", "test": "test", "": "images"}


def check_labels(cache: "FeatureCache") -> None:
    """Refuse labels that cannot be checked, before anything is computed."""
    from brainfeat.training.units import check_labels

    check_labels(cache, cache.y[cache.mask()])


def find_doubts(cache: "FeatureCache", audit: "Audit", *, random_state: int) -> "LabelDoubts":
    """Find the labels in doubt, with progress on stderr."""
    from brainfeat.training.label_doubts import find_label_doubts

    with options.ProgressLine("checking labels", "folds") as progress:
        return find_label_doubts(cache, audit=audit, random_state=random_state, progress=progress)


def try_doubts(cache: "FeatureCache", audit: "Audit", *, random_state: int) -> "LabelDoubts | None":
    """Find the labels in doubt for a map; where that cannot be done, say why on stderr."""
    from brainfeat.errors import HeadError, TableError

    try:
        return find_doubts(cache, audit, random_state=random_state)
    except (TableError, HeadError) as reason:
        options.say(f"warning: the map is not coloured by error: {reason}", err=True)
        return None


def describe_doubts(found: "LabelDoubts") -> "Iterator[str]":
    """Describe the labels in doubt: how many of which class and split, and the first of them."""
    yield f"Labels in doubt: {found.in_doubt:,} of {count(found.images, 'image')}"
    yield (
        f"Predictions of logistic regression, out of {found.n_folds} folds, agree with "
        f"{format_metric(found.accuracy)} of the labels."
    )
    for name, number in found.not_checked.items():
        yield f"Not checked: {count(number, 'image')} of {name}, which has too few groups."
    if found.unlabelled:
        yield f"Not checked: {count(found.unlabelled, 'image')} without a label."
    if found.in_doubt:
        yield from ("", *_count_by_class(found), "", "The first of them:")
        yield from align([_name(doubt) for doubt in found.doubts[:_SHOWN]], left=(1, 2, 3))
        yield "Nothing was changed: look at the images before you change a label."


def _count_by_class(found: "LabelDoubts") -> list[str]:
    """Lay out the number of labels in doubt of each class by split."""
    present = {pair.split for pair in found.pairs}
    splits = {name: title for name, title in _SPLITS.items() if name in present}
    classes = dict.fromkeys((pair.label, pair.suggested) for pair in found.pairs)
    images = {(pair.label, pair.suggested, pair.split): pair.images for pair in found.pairs}
    rows = [
        [
            _shorten(label),
            _shorten(suggested) if suggested not in ("", label) else _CONFLICT,
            *(f"{images.get((label, suggested, split), 0):,}" for split in splits),
        ]
        for label, suggested in classes
    ]
    return align([["label", "suggested", *splits.values()], *rows], left=(0, 1))


def _name(doubt: "LabelDoubt") -> list[str]:
    label = f"{_shorten(doubt.label)}{f' ({doubt.split})' if doubt.split else ''}"
    if doubt.copy:
        return [f"{doubt.rank}", doubt.path, label, f"has a copy of another label: {doubt.copy}"]
    probability = doubt.probabilities[doubt.suggested]
    return [f"{doubt.rank}", doubt.path, label, f"{_shorten(doubt.suggested)} ({probability:.2f})"]


def _shorten(name: str) -> str:
    return shorten(make_printable(name), _NAME_WIDTH)
