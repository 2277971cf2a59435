"""Which images below a folder are masks of others, by their pixels: few files are opened."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from brainfeat.errors import ImageReadError
from brainfeat.readers import ImageBytes, read_bytes, read_header, read_image
from brainfeat.tables.rows import Parts

TWO_VALUED = "two values beside images"

# What stores a mask as it is; JPEG adds values to it.
_FORMATS = ("PNG", "TIFF", "BMP", "GIF")
_SUFFIXES = (".png", ".tif", ".tiff", ".bmp", ".gif")
_SAMPLE = 32  # files of a folder that are looked at, and as many possible partners of a mask
_FOLDERS = 1_000  # folders in which they are
_PIXELS = 4_000_000  # of a file that is decoded
_BYTES = 4 * _PIXELS
# Two values take an eighth of a byte for each pixel where they are noise, and less in a mask;
# a slice takes half a byte. A palette and metadata are added to that.
_BYTES_PER_PIXEL, _BYTES_BESIDES = 0.25, 4_096


class _Look(NamedTuple):
    """Size of an image, and whether it has one value, two, or (3) more or unknown ones."""

    size: tuple[int, int] | None
    values: int


def find_two_valued(root: Path, images: Iterable[Parts]) -> set[Parts]:
    """Find images of two values beside images of the same size that have more.

    Only PNG, TIFF, BMP and GIF files of up to 4 million pixels are decoded, and of PNG and GIF only
    those with at most a quarter of a byte for each pixel. Of each folder 32 such files are looked
    at, which are drawn at random with a fixed seed; where one of them is a mask, all are looked at.
    Pictures of one value are taken for masks in folders that have masks, and in folders without
    other pictures that have the name of one that has masks. Of more than 1,000 folders, 1,000 are
    looked at.

    Parameters
    ----------
    root : Path
        The folder.
    images : iterable of tuple of str
        Parts of the path of each image below it.

    Returns
    -------
    set of tuple of str
        Those with an image of the same size and more values in their own folder, or with the same
        name but for its suffix in a folder whose path differs in one part.

    Examples
    --------
    >>> find_two_valued(Path("."), [("glioma", "1.jpg"), ("glioma", "2.jpg")])
    set()
    """
    folders: defaultdict[Parts, list[Parts]] = defaultdict(list)
    for parts in sorted(images):
        folders[parts[:-1]].append(parts)
    candidates = {
        folder: found
        for folder, files in folders.items()
        if (found := [parts for parts in files if parts[-1].lower().endswith(_SUFFIXES)])
    }
    masks = _Masks(root, folders)
    drawn = _draw(sorted(candidates), _FOLDERS)
    for folder in drawn:
        masks.search(candidates[folder])
    names = {parts[-2] for parts in masks.found if len(parts) > 2}
    for folder in drawn:
        if folder and folder[-1] in names:
            masks.search_blank(candidates[folder])
    return masks.found


class _Masks:
    """The masks that were found so far."""

    def __init__(self, root: Path, folders: dict[Parts, list[Parts]]) -> None:
        self.found: set[Parts] = set()
        self._root = root
        self._folders = folders
        self._counterparts: defaultdict[tuple[str, Parts], list[Parts]] = defaultdict(list)
        self._look = lru_cache(maxsize=None)(self._open)

    def search(self, files: list[Parts]) -> None:
        """Search the files of one folder."""
        if any(self._look(parts).values == 2 for parts in _draw(files, _SAMPLE)):
            self._take(files)

    def search_blank(self, files: list[Parts]) -> None:
        """Search the files of a folder that is named as one of masks, where no mask has a shape."""
        if all(self._look(parts).values == 1 for parts in _draw(files, _SAMPLE)):
            self._take(files)

    def _take(self, files: list[Parts]) -> None:
        simple = [parts for parts in files if self._look(parts).values <= 2]
        self.found.update(parts for parts in simple if self._has_partner(parts))

    def _has_partner(self, mask: Parts) -> bool:
        size = self._look(mask).size
        return any(
            look.values > 2 and look.size == size
            for parts in self._list_partners(mask)
            for look in (self._look(parts),)
        )

    def _list_partners(self, mask: Parts) -> Iterator[Parts]:
        """Yield images that may be what a mask belongs to."""
        if not self._counterparts:
            for files in self._folders.values():
                for parts in files:
                    for key in _list_places(parts):
                        self._counterparts[key].append(parts)
        for key in _list_places(mask):
            yield from self._counterparts[key][:_SAMPLE]
        yield from _draw(self._folders[mask[:-1]], 4 * _SAMPLE)

    def _open(self, parts: Parts) -> _Look:
        try:
            data = read_bytes(self._root.joinpath(*parts), byte_limit=_BYTES)
            file = ImageBytes(data)
            header = read_header(file)
            size = header.width, header.height
            pixels = header.width * header.height
            if header.format not in _FORMATS or pixels > _PIXELS:
                return _Look(size, 3)
            likely = len(data) <= _BYTES_PER_PIXEL * pixels + _BYTES_BESIDES
            if header.format in ("PNG", "GIF") and not likely:
                return _Look(size, 3)
            return _Look(size, _count_values(read_image(file)))
        except ImageReadError:  # extraction says why
            return _Look(None, 3)


def _list_places(parts: Parts) -> Iterator[tuple[str, Parts]]:
    """Yield what a path has in common with those whose folders differ in one part."""
    *folders, name = parts
    stem = name.lower().rpartition(".")[0]
    for level in range(len(folders)):
        yield stem, (*folders[:level], "/", *folders[level + 1 :])


def _draw(entries: list[Parts], number: int) -> list[Parts]:
    """Draw some entries, the same ones each time."""
    if len(entries) <= number:
        return entries
    places = np.random.default_rng(0).choice(len(entries), number, replace=False)
    return [entries[place] for place in places]


def _count_values(image: np.ndarray) -> int:
    """Count the colours of an image; 3 stands for more than two."""
    colours = image.reshape(-1, image.shape[2])
    others = colours[(colours != colours[0]).any(axis=1)]
    if not len(others):
        return 1
    return 2 if (others == others[0]).all() else 3
