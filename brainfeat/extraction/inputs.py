"""The images of a run in their order: files of a table, or slices that volumes are cut into.

Both are iterators of images that are still to be opened. Whatever else holds images, such as files
elsewhere, is one more.
"""

import hashlib
from collections.abc import Callable, Generator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from brainfeat.cache.schema import Measured, Rejected
from brainfeat.errors import ImageReadError
from brainfeat.extraction.preprocessing import quantize_image, repeat_grey
from brainfeat.extraction.sights import Sight
from brainfeat.readers import ImageBytes, ImageHeader, read_bytes, read_header
from brainfeat.tables.cutting import Cutting, RefusedVolume
from brainfeat.tables.rows import Row
from brainfeat.tables.table import ImageTable
from brainfeat.tables.volume_table import VolumeTable

Pixels = NDArray[np.uint8]
Read = Callable[..., NDArray[Any]]


class OpenImage(Protocol):
    """An image whose content is known, and which is decoded when it is needed."""

    sha256: bytes

    def measure(self) -> Measured:
        """Measure it, without its pixels.

        Raises
        ------
        ImageReadError
            If it is damaged.
        """

    def read(self) -> tuple[Pixels, Sight]:
        """Read its pixels (h, w, 3), and what was seen of them; called after `measure`.

        Raises
        ------
        ImageReadError
            If it is damaged.
        """


class Input(NamedTuple):
    """An image that is still to be opened, in any thread.

    Attributes
    ----------
    place : int
        Of its row in the table that `Inputs.build_table` returns; of a volume that is refused, any.
    number : int
        Of its file or volume, from 0.
    done : int
        How many files or volumes are finished with it.
    row : Row
        What is known of it.
    open : callable
        Opens it, or raises ImageReadError.
    """

    place: int
    number: int
    done: int
    row: Row
    open: Callable[[], OpenImage]


class Inputs(Protocol):
    """The images of a run.

    Attributes
    ----------
    noun : str
        What is counted: ``"image"`` or ``"volume"``.
    n_images : int or None
        How many images there are; None where that is not known before they are read.
    refused : list of Rejected
        What is known to be unreadable before.
    """

    noun: str
    n_images: int | None
    refused: list[Rejected]

    def __len__(self) -> int: ...

    def __iter__(self) -> Generator[Input, None, None]: ...

    def build_table(self) -> ImageTable:
        """Return the table of the images so far."""

    def describe(self) -> list[str]:
        """Describe what of the images so far is probably a mistake."""


def list_inputs(table: ImageTable | VolumeTable, read: Read) -> Inputs:
    """List the images of a table.

    Parameters
    ----------
    table : ImageTable or VolumeTable
    read : callable
        Reads an image file, as for :func:`brainfeat.extract`.

    Returns
    -------
    Inputs
    """
    return ImageFiles(table, read) if isinstance(table, ImageTable) else VolumeSlices(table)


class ImageFiles:
    """The image files of a table."""

    noun = "image"

    def __init__(self, table: ImageTable, read: Read) -> None:
        self.n_images: int | None = len(table)
        self.refused: list[Rejected] = []
        self._table, self._read = table, read

    def __len__(self) -> int:
        return len(self._table)

    def __iter__(self) -> Generator[Input, None, None]:
        for place in range(len(self._table)):
            row = self._table.row(place)
            yield Input(place, place, place + 1, row, partial(self._open, place))

    def build_table(self) -> ImageTable:
        """Return the table."""
        return self._table

    def describe(self) -> list[str]:
        """Return nothing: what is seen of an image is told by itself."""
        return []

    def _open(self, place: int) -> OpenImage:
        path = self._table.absolute_path(place)
        return _OpenFile(path, name=self._table.paths[place], read=self._read)


class _OpenFile:
    """A file that is read once, so that the bytes that are hashed are those that are decoded."""

    def __init__(self, path: Path, *, name: str, read: Read) -> None:
        data = read_bytes(path, name=name)
        self.sha256 = hashlib.sha256(data).digest()
        self._size, self._name, self._read = len(data), name, read
        self._file = ImageBytes(data)
        self._header: ImageHeader

    def measure(self) -> Measured:
        self._header = header = read_header(self._file, name=self._name)
        return Measured(
            width=header.width,
            height=header.height,
            channels=header.channels,
            file_bytes=self._size,
        )

    def read(self) -> tuple[Pixels, Sight]:
        image = self._read(self._file, name=self._name)
        sight = Sight.of(image, self._header, in_alpha=self._file.in_alpha)
        return quantize_image(image), sight


class VolumeSlices:
    """The slices that volumes are cut into, of which one at a time is decoded.

    That is done in the thread that iterates: what silences the libraries that decode volumes
    belongs to the process, so that no two threads can do it at once.
    """

    noun = "volume"

    def __init__(self, table: VolumeTable) -> None:
        self.refused = [Rejected(path=entry.name, reason=entry.reason) for entry in table.refused]
        self.n_images: int | None = None
        self._table = table
        self._cutting: Cutting = table.cut()
        self._rows: list[Row] = []

    def __len__(self) -> int:
        return len(self._table)

    def __iter__(self) -> Generator[Input, None, None]:
        self._cutting, self._rows = self._table.cut(), []
        for number, volume in enumerate(self._cutting):
            if isinstance(volume, RefusedVolume):
                row = Row(path=volume.name)
                yield Input(-1, number, number + 1, row, partial(_refuse, volume))
                continue
            for row, _, pixels in volume.slices:
                self._rows.append(row)
                place = len(self._rows) - 1
                yield Input(place, number, number, row, partial(OpenSlice, pixels))

    def build_table(self) -> ImageTable:
        """Return the table that `write_slices` makes of these volumes."""
        paths, labels, splits, groups, sources, _ = zip(*self._rows, strict=True)
        return ImageTable(
            root=Path(),
            paths=paths,
            labels=labels,
            splits=splits,
            groups=groups,
            sources=sources,
            class_names=tuple(sorted({*labels} - {""})),
            skipped={},
        )

    def describe(self) -> list[str]:
        """Describe what of the volumes so far is probably a mistake."""
        return self._cutting.describe()


def _refuse(volume: RefusedVolume) -> OpenImage:
    raise ImageReadError(volume.name, volume.reason)


def hash_slice(pixels: Pixels) -> bytes:
    """Compute the SHA-256 of the binary PGM file (Netpbm) that a slice would be.

    Parameters
    ----------
    pixels : ndarray of shape (height, width), uint8

    Returns
    -------
    bytes
        32 of them. Equal slices have equal digests, whatever volumes they are cut from.

    Examples
    --------
    >>> hash_slice(np.zeros((2, 3), np.uint8)).hex()[:16]
    'bda3e979fb27380f'
    """
    return hashlib.sha256(_start_pgm(pixels) + pixels.tobytes()).digest()


def _start_pgm(pixels: Pixels) -> bytes:
    height, width = pixels.shape
    return f"P5\n{width} {height}\n255\n".encode("ascii")


class OpenSlice:
    """A slice of a volume, which is identified by `hash_slice`.

    Parameters
    ----------
    pixels : ndarray of shape (height, width), uint8

    Examples
    --------
    >>> OpenSlice(np.zeros((2, 3), np.uint8)).measure()
    Measured(width=3, height=2, channels=1, file_bytes=17)
    """

    def __init__(self, pixels: Pixels) -> None:
        self._pixels = pixels
        self.sha256 = hash_slice(pixels)

    def measure(self) -> Measured:
        """Measure it, and the PGM file that it would be."""
        height, width = self._pixels.shape
        size = len(_start_pgm(self._pixels)) + self._pixels.size
        return Measured(width=width, height=height, channels=1, file_bytes=size)

    def read(self) -> tuple[Pixels, Sight]:
        """Return the pixels as a PNG file of them is read."""
        return repeat_grey(self._pixels), Sight(peak=None, in_alpha=False)
