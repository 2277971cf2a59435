"""What is given for prediction: images and volumes, without the masks that folders hold."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from brainfeat.errors import ParameterError
from brainfeat.files import is_so
from brainfeat.readers.held import HeldImage, list_given
from brainfeat.readers.series import Inputs, find_inputs
from brainfeat.tables.masks import find_masks
from brainfeat.tables.two_valued import find_two_valued
from brainfeat.tables.volume_patients import find_mask_volumes
from brainfeat.text import count

if TYPE_CHECKING:
    from brainfeat.readers.held import Given


def take_inputs(
    given: "Given | Iterable[Given]", *, keep_masks: bool = False
) -> tuple[Inputs, int]:
    """Find the images and volumes in what was given, without masks of others.

    Masks are what :func:`brainfeat.read_table` and :func:`brainfeat.write_slices` leave out of a
    folder; a file that was named stays.

    Parameters
    ----------
    given : path-like, ndarray, PIL.Image.Image, or iterable of these
        As :func:`brainfeat.readers.held.list_given` takes them.
    keep_masks : bool, default=False
        Whether masks are kept.

    Returns
    -------
    inputs : Inputs
        As :func:`brainfeat.readers.series.find_inputs` returns them.
    masks : int
        How many images and volumes were left out.

    Raises
    ------
    ParameterError
        Something else was given, or all that was found are masks.
    MissingDependencyError
        If there are DICOM files and pydicom is not installed.

    Examples
    --------
    >>> inputs, masks = take_inputs("scan.png")
    >>> inputs.images, masks
    ([PosixPath('scan.png')], 0)
    """
    listed = list_given(given)
    inputs = find_inputs(listed)
    if keep_masks:
        return inputs, 0
    named = [entry for entry in listed if isinstance(entry, Path)]
    masks = _find_masks(inputs, named)
    images = [
        image for image in inputs.images if isinstance(image, HeldImage) or image not in masks
    ]
    left_out = {*find_mask_volumes(inputs.series, {*named})}
    series = [entry for entry in inputs.series if entry not in left_out]
    number = len(inputs.images) - len(images) + len(left_out)
    if number and not (images or series or inputs.unreadable):
        raise ParameterError(
            f"{count(number, 'file')} in what was given, and all are masks by their names or"
            " their two values; if that is wrong, pass keep_masks=True"
        )
    return Inputs(images, series, inputs.unreadable), number


def _find_masks(inputs: Inputs, named: list[Path]) -> set[Path]:
    files = [image for image in inputs.images if isinstance(image, Path)]
    masks: set[Path] = set()
    for root in named:
        if is_so(root.is_dir):
            below = {
                file.relative_to(root).parts: file for file in files if file.is_relative_to(root)
            }
            found = find_masks(below)
            found |= find_two_valued(root, [parts for parts in below if parts not in found])
            masks.update(below[parts] for parts in found)
    return masks.difference(named)
