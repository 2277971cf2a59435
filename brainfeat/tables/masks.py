"""Which images below a folder are masks of others, by their names: no pixel is read."""

import re
from collections import defaultdict
from collections.abc import Iterable

from brainfeat.tables.rows import Parts
from brainfeat.text import count

MASK = "mask beside images"
# Why masks are left out, for `describe_masks`.
BY_NAME = "having the name of a mask"
BY_PLACE = "being in a folder 'derivatives' of BIDS, which has what was computed from others"
BY_VALUES = "having two values only, as masks have, beside images of the same size"

_FOLDERS = frozenset(("mask", "masks", "seg", "segmentation", "segmentations"))
_WORD = r"(?:masks?|seg|segmentation)"
# "scan_mask", "scan-seg", "benign (1)_mask_2"; or "mask_scan".
_NAME = re.compile(rf"(?P<base>.+)[ _.-]{_WORD}(?:[ _-]?\d+)?|{_WORD}[ _.-](?P<rest>.+)")
_SEPARATOR = re.compile(r"[ _.-]")


def is_mask_folder(name: str) -> bool:
    """Return whether a folder is named as one of masks.

    Examples
    --------
    >>> is_mask_folder("Masks"), is_mask_folder("unmasked")
    (True, False)
    """
    return name.lower() in _FOLDERS


def describe_masks(number: int, noun: str, reason: str) -> str:
    """Describe how many masks were left out, and how they are kept.

    Examples
    --------
    >>> describe_masks(2, "image", BY_NAME)
    '2 images left out for having the name of a mask; if that is wrong, pass keep_masks=True'
    """
    return f"{count(number, noun)} left out for {reason}; if that is wrong, pass keep_masks=True"


def find_masks(images: Iterable[Parts]) -> set[Parts]:
    """Find the images in folders of masks, and those that are named as masks of others beside them.

    Parameters
    ----------
    images : iterable of tuple of str
        Parts of the path of each image.

    Returns
    -------
    set of tuple of str
        The images whose folder, or a folder above it, is called ``mask``, ``masks``, ``seg``,
        ``segmentation`` or ``segmentations``; and those whose name is that of another image of
        their folder, or the first words of it, with ``mask``, ``masks``, ``seg`` or
        ``segmentation`` after it or before it. Upper and lower case are the same.

    Examples
    --------
    >>> sorted(find_masks([("a", "1.png"), ("a", "1_mask.png"), ("a", "2_mask.png")]))
    [('a', '1_mask.png')]
    >>> sorted(find_masks([("p", "p_t1.png"), ("p", "p_seg.png"), ("Masks", "p.png")]))
    [('Masks', 'p.png'), ('p', 'p_seg.png')]
    """
    masks: set[Parts] = set()
    named: defaultdict[Parts, list[tuple[Parts, str]]] = defaultdict(list)
    others: defaultdict[Parts, set[str]] = defaultdict(set)
    for parts in images:
        folder, stem = parts[:-1], parts[-1].lower().rpartition(".")[0]
        if any(map(is_mask_folder, folder)):
            masks.add(parts)
        elif match := _NAME.fullmatch(stem):
            named[folder].append((parts, match["base"] or match["rest"]))
        else:
            others[folder].add(stem)
            others[folder].update(stem[: end.start()] for end in _SEPARATOR.finditer(stem))
    for folder, candidates in named.items():
        masks.update(parts for parts, base in candidates if base in others[folder])
    return masks
