"""How a volume lies in space, and its slices in another plane, without interpolation.

Directions are letters: to the patient's Right or Left, Anterior or Posterior, Superior or Inferior.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from brainfeat.errors import ImageReadError
from brainfeat.readers.volumes import Volume
from brainfeat.readers.windows import Window

# Slices, rows and columns as DICOM images of each plane have them: the patient's right is on the
# left of axial and coronal slices, and anterior on the left of sagittal ones.
PLANES = {"axial": "SPL", "coronal": "PIL", "sagittal": "RIP"}

_PLANE_OF = {"S": "axial", "I": "axial", "A": "coronal", "P": "coronal"}
_OPPOSITE = dict(zip("RLAPSI", "LRPAIS", strict=True))
# The axes of the patient in DICOM point to the left, posterior and superior (PS3.3 C.7.6.2.1.1).
_TOWARDS = ("RL", "AP", "IS")
# Spacings that differ by less are equal; distances of slices that differ by more are not even.
_EQUAL = 0.01
_EVEN = 0.1


def find_plane(axes: str) -> str | None:
    """Return the plane of slices with these axes; None where the axes are not known.

    Examples
    --------
    >>> find_plane("SPL"), find_plane("LIP"), find_plane("")
    ('axial', 'sagittal', None)
    """
    return _PLANE_OF.get(axes[0], "sagittal") if axes else None


def name_axes(row: Sequence[float], column: Sequence[float]) -> str:
    """Name the axes of a stack of DICOM images that are sorted along their normal.

    Parameters
    ----------
    row, column : sequence of 3 floats
        Direction cosines of the rows and the columns (Image Orientation (Patient)).

    Returns
    -------
    str
        The nearest axes of the patient, for slices, rows and columns; ``""`` for directions that
        do not span a plane.

    Examples
    --------
    >>> name_axes([1, 0, 0], [0, 1, 0]), name_axes([0, 1, 0], [0, 0, -1])
    ('SPL', 'RIP')
    """
    # The rows of an image follow each other along its columns.
    directions = np.array([np.cross(row, column), column, row], float)
    if not np.isfinite(directions).all() or abs(np.linalg.det(directions)) < 0.5:
        return ""
    nearness = abs(directions)
    letters = [""] * 3
    # From the strongest to the weakest, as nibabel's io_orientation does.
    for place in np.argsort(-nearness.max(axis=1), kind="stable"):
        axis = int(nearness[place].argmax())
        letters[place] = _TOWARDS[axis][int(directions[place, axis] > 0)]
        nearness[:, axis] = -1
    return "".join(letters)


def place_stack(
    turned: Sequence[float], places: Sequence[float], pixel: Sequence[float]
) -> tuple[str, tuple[float, float, float] | None]:
    """Find how a stack of DICOM images lies in space.

    Parameters
    ----------
    turned : sequence of 6 floats
        Direction cosines of rows and columns (Image Orientation (Patient)); empty if unknown.
    places : sequence of float
        Sorted positions of the images along their normal in mm.
    pixel : sequence of 2 floats
        Distance of rows and columns in mm (Pixel Spacing); empty if unknown.

    Returns
    -------
    axes : str
        As in :class:`brainfeat.readers.volumes.Volume`.
    spacing : tuple of 3 floats or None
        Distance of slices, rows and columns in mm; None where it is not known, and where the
        distances of the slices are not even.

    Examples
    --------
    >>> place_stack([1, 0, 0, 0, 1, 0], [0, 5, 10], [0.5, 0.5])
    ('SPL', (5.0, 0.5, 0.5))
    >>> place_stack([0, 1, 0, 0, 0, -1], [0, 5, 15], [0.5, 0.5])
    ('RIP', None)
    """
    axes = name_axes(turned[:3], turned[3:]) if len(turned) == 6 else ""
    steps = np.diff(places)
    if not axes or len(pixel) != 2 or not steps.size or not np.isfinite(steps).all():
        return axes, None
    middle = float(np.median(steps))
    is_even = middle > 0 and bool((abs(steps - middle) <= _EVEN * middle).all())
    return axes, (middle, pixel[0], pixel[1]) if is_even else None


def find_thickest(axes: str, spacing: Sequence[float]) -> str:
    """Find the plane across the largest spacing, in which a volume was probably acquired.

    Parameters
    ----------
    axes : str
        For slices, rows and columns.
    spacing : sequence of 3 floats
        In mm, in the same order.

    Returns
    -------
    str
        The axes of that plane. Of planes with the same spacing, within a hundredth, axial comes
        before coronal, and coronal before sagittal.

    Examples
    --------
    >>> find_thickest("SPL", [0.9, 0.9, 5]), find_thickest("SPL", [1, 1, 1])
    ('RIP', 'SPL')
    """
    thick = {
        find_plane(axis)
        for axis, size in zip(axes, spacing, strict=True)
        if size >= (1 - _EQUAL) * max(spacing)
    }
    return next(turned for plane, turned in PLANES.items() if plane in thick)


def orient_volume(volume: Volume, orientation: str, *, name: str) -> Volume:
    """Turn a volume, so that its slices are those of an orientation.

    Parameters
    ----------
    volume : Volume
        As its reader returns it.
    orientation : {"auto", "native", "axial"}
        As in :class:`brainfeat.SlicePolicy`.
    name : str
        Name of the volume in error messages.

    Returns
    -------
    Volume
        Its facts have the size of the slices, and their plane.

    Raises
    ------
    ImageReadError
        If axial slices are wanted, and it is not known where they are.
    """
    wanted = {"auto": "", "native": volume.native_axes, "axial": PLANES["axial"]}[orientation]
    if wanted and wanted != volume.axes:
        volume = _turn(volume, wanted, name)
    n, rows, columns = volume.values.shape
    size = {"rows": rows, "columns": columns, "frames": n}
    return replace(volume, facts={**volume.facts, **size, "plane": find_plane(volume.axes)})


def _turn(volume: Volume, wanted: str, name: str) -> Volume:
    if not volume.axes:
        raise ImageReadError(name, 'does not state how it lies in space; pass orientation="native"')
    order = [
        next(place for place, axis in enumerate(volume.axes) if axis in (goal, _OPPOSITE[goal]))
        for goal in wanted
    ]
    if order[0] != 0 and volume.spacing is None:
        raise ImageReadError(
            name,
            "has slices of another plane, whose distances are not known or not even; "
            'pass orientation="native"',
        )
    steps = [
        1 if volume.axes[place] == goal else -1 for place, goal in zip(order, wanted, strict=True)
    ]
    values = volume.values.transpose(order)[tuple(slice(None, None, step) for step in steps)]
    a, b, c = order
    spacing = volume.spacing and (volume.spacing[a], volume.spacing[b], volume.spacing[c])
    return replace(
        volume,
        values=np.ascontiguousarray(values),
        windows=_turn_windows(volume.windows, len(values), order[0], steps[0]),
        axes=wanted,
        spacing=spacing,
    )


def _turn_windows(
    windows: tuple[Window | None, ...], n: int, place: int, step: int
) -> tuple[Window | None, ...]:
    """Reorder the windows of slices; slices across them have a window only if all have the same."""
    if place == 0:
        return windows[::step]
    return (windows[0] if len({*windows}) == 1 else None,) * n
