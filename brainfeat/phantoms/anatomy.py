"""Seeded synthetic brain slices of the four classes: for the demo, the tests and the docs.

A patient is a head (outline, cortex, ventricles, contrast, coil) and, in three classes, a tumour
in it. Both are functions of head coordinates, so any slice can be drawn at any size: `u` (left to
right) and `v` (front to back) are -1 and 1 at the edge of the brain; the height is 0 at the sella
and 1 near the vertex. Brightness is 0 for air and about 1 for fat, as in an axial T1 slice with
contrast agent. The numbers were chosen by eye.

The slices are close enough to try a pipeline on. A score on them says nothing about patients.
"""

import csv
import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainfeat.errors import TableError

CLASS_NAMES = ("glioma", "meningioma", "notumor", "pituitary")
LEVELS = 16  # slices that can be drawn of each patient

_SAVE_OPTIONS: dict[str, dict[str, Any]] = {".png": {"compress_level": 1}, ".jpg": {"quality": 92}}
_SMALLEST_SIZE = 32
_TEXTURE_SIZE = 128
_TEXTURE_SPAN = 3.0
# One unit of u is about 65 mm, one unit of height about 110 mm.
_HEIGHT_PER_UNIT = 0.6

_Field = NDArray[np.floating[Any]]
_Texture = NDArray[np.complexfloating[Any, Any]]
_Point = tuple[float, float]


@dataclass(frozen=True)
class _Head:
    """What the slices of one patient share: lengths in head units, tissues in brightness."""

    tilt: float
    zoom: float
    shift: _Point
    half_axes: _Point
    egg: float
    corners: float
    skull: float
    scalp: float
    ventricles: float
    atrophy: float
    csf: float
    grey: float
    white: float
    fat: float
    gain: float
    noise: float
    bias: tuple[float, ...]
    folds: _Texture
    grain: _Texture


@dataclass(frozen=True)
class _Tumour:
    """A lumpy ball that does not grow beyond `limit` (1 is the skull), and how it is painted."""

    u: float
    v: float
    height: float
    radius: float
    push: float
    lumps: float
    body: float
    limit: float = 1.0
    rim: float = 0.0
    core: float = 0.0
    oedema: float = 0.0
    tail: float = 0.0


@dataclass(frozen=True)
class _Patient:
    key: tuple[int, int, int]
    head: _Head
    tumour: _Tumour | None
    heights: tuple[float, ...]

    @property
    def class_name(self) -> str:
        return CLASS_NAMES[self.key[1]]


@dataclass(frozen=True)
class _Plane:
    """The pixels of one slice that lie in the head: each field has shape (n_inside,).

    `u` and `v` belong to the tissue, which a tumour pushes aside; `r` (1 at the edge of the
    brain) does not move. `extent` is above zero in the tumour.
    """

    height: float
    u: _Field
    v: _Field
    r: _Field
    folds: _Field
    depths: _Field
    grain: _Field
    extent: _Field


def draw_slice(
    class_name: str, *, patient: int, level: int, size: int = 224, random_state: int = 0
) -> NDArray[np.uint8]:
    """Draw one slice of one synthetic patient.

    The slices of a patient share head, tumour and coil; they differ in height and noise. The same
    number in two classes is two persons.

    Parameters
    ----------
    class_name : str
        One of `CLASS_NAMES`.
    patient : int
        Number of the patient in this class, from 0.
    level : int
        Which slice of the patient, from 0 (lowest) to ``LEVELS - 1``. Each cuts the tumour.
    size : int
        Width and height in pixels, at least 32. The anatomy does not depend on it.
    random_state : int
        Seed of all patients, from 0.

    Returns
    -------
    ndarray of uint8, shape (size, size)
        The slice, grey, nose up. It depends on the arguments alone.

    Raises
    ------
    TableError
        If the class is not one of `CLASS_NAMES`.
    ValueError
        If a number is out of its range.

    Examples
    --------
    >>> from brainfeat.phantoms import draw_slice
    >>> image = draw_slice("glioma", patient=3, level=8)
    >>> image.shape, image.dtype
    ((224, 224), dtype('uint8'))
    """
    _check_slice(class_name, patient, level, size, random_state)
    return _scan(_make_patient(class_name, patient, random_state), level, size)


def draw_mask(
    class_name: str, *, patient: int, level: int, size: int = 224, random_state: int = 0
) -> NDArray[np.bool_]:
    """Draw where the tumour lies in the slice that `draw_slice` draws from the same arguments.

    Parameters
    ----------
    class_name, patient, level, size, random_state
        As in `draw_slice`.

    Returns
    -------
    ndarray of bool, shape (size, size)
        True in the tumour, without its oedema; False everywhere for ``"notumor"``.

    Raises
    ------
    TableError
        If the class is not one of `CLASS_NAMES`.
    ValueError
        If a number is out of its range.

    Examples
    --------
    >>> from brainfeat.phantoms import draw_mask
    >>> draw_mask("meningioma", patient=0, level=8).any()
    np.True_
    >>> draw_mask("notumor", patient=0, level=8).any()
    np.False_
    """
    _check_slice(class_name, patient, level, size, random_state)
    inside, plane = _cut(_make_patient(class_name, patient, random_state), level, size)
    mask = np.zeros((size, size), np.bool_)
    mask[inside] = plane.extent > 0.0
    return mask


def write_phantoms(
    folder: str | os.PathLike[str],
    *,
    patients_per_class: int = 10,
    slices_per_patient: int = 4,
    test_fraction: float = 0.2,
    size: int = 224,
    suffix: str = ".png",
    random_state: int = 0,
) -> Path:
    """Write a folder of synthetic slices and the table that describes them.

    The slices lie in ``Training/<class>/`` and ``Testing/<class>/``, those of one patient on one
    side. ``table.csv`` beside them has the columns ``path`` (relative to the table), ``label``,
    ``split`` (``train`` or ``test``), ``group`` (the patient, such as ``glioma-003``) and
    ``source`` (``phantom``). It is written last: where it exists, the set is whole.

    Parameters
    ----------
    folder : path
        A folder that does not exist yet, or is empty.
    patients_per_class : int
        Number of patients of each class.
    slices_per_patient : int
        Number of slices of each patient, 1 to `LEVELS`, spread evenly over its levels.
    test_fraction : float
        Fraction of each class's patients that are held out, from 0 to below 1. If it is above 0,
        each side has at least one patient of each class.
    size : int
        Width and height of a slice in pixels, at least 32.
    suffix : {".png", ".jpg"}
        The format of the slices.
    random_state : int
        Seed of all patients, from 0.

    Returns
    -------
    pathlib.Path
        The table.

    Raises
    ------
    TableError
        If `folder` is a file or is not empty.
    ValueError
        If another argument is out of its range.

    Examples
    --------
    >>> import tempfile
    >>> from brainfeat.phantoms import write_phantoms
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     table = write_phantoms(folder, patients_per_class=2, slices_per_patient=1, size=64)
    ...     for line in table.read_text().splitlines()[:2]:
    ...         print(line)
    path,label,split,group,source
    Training/glioma/glioma-000-08.png,glioma,train,glioma-000,phantom
    """
    _check_seeds(size, random_state)
    levels = _spread_levels(slices_per_patient)
    n_test = _count_test(patients_per_class, test_fraction)
    if suffix not in _SAVE_OPTIONS:
        raise ValueError(f"suffix must be one of {', '.join(_SAVE_OPTIONS)}; got {suffix!r}.")
    root = _claim(Path(folder))
    rows = []
    for class_name in CLASS_NAMES:
        for patient in range(patients_per_class):
            split = "train" if patient < patients_per_class - n_test else "test"
            group = f"{class_name}-{patient:03d}"
            stem = root / {"train": "Training", "test": "Testing"}[split] / class_name / group
            stem.parent.mkdir(parents=True, exist_ok=True)
            who = _make_patient(class_name, patient, random_state)
            for level in levels:
                path = stem.with_name(f"{group}-{level:02d}{suffix}")
                _save(_scan(who, level, size), path)
                rows.append((path.relative_to(root).as_posix(), class_name, split, group))
    return _write_table(rows, root / "table.csv")


def _check_seeds(size: int, random_state: int) -> None:
    if size < _SMALLEST_SIZE:
        raise ValueError(f"size must be at least {_SMALLEST_SIZE} pixels; got {size}.")
    if random_state < 0:
        raise ValueError(f"random_state must not be negative; got {random_state}.")


def _check_slice(class_name: str, patient: int, level: int, size: int, random_state: int) -> None:
    if class_name not in CLASS_NAMES:
        raise TableError(f"class_name must be one of {', '.join(CLASS_NAMES)}; got {class_name!r}.")
    if patient < 0:
        raise ValueError(f"patient must not be negative; got {patient}.")
    if not 0 <= level < LEVELS:
        raise ValueError(f"level must lie between 0 and {LEVELS - 1}; got {level}.")
    _check_seeds(size, random_state)


def _spread_levels(count: int) -> list[int]:
    if not 1 <= count <= LEVELS:
        raise ValueError(f"slices_per_patient must lie between 1 and {LEVELS}; got {count}.")
    return [(2 * index + 1) * LEVELS // (2 * count) for index in range(count)]


def _count_test(patients_per_class: int, test_fraction: float) -> int:
    if patients_per_class < 1:
        raise ValueError(f"patients_per_class must be at least 1; got {patients_per_class}.")
    if not 0.0 <= test_fraction < 1.0:
        raise ValueError(f"test_fraction must be at least 0 and below 1; got {test_fraction}.")
    if test_fraction == 0.0:
        return 0
    if patients_per_class == 1:
        raise ValueError(
            "patients_per_class must be at least 2 to hold one out; got 1. "
            "Ask for more patients, or set test_fraction=0."
        )
    return min(max(round(test_fraction * patients_per_class), 1), patients_per_class - 1)


def _claim(folder: Path) -> Path:
    if folder.exists() and not folder.is_dir():
        raise TableError(f"{folder} is a file; name a folder that is new or empty.")
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise TableError(f"{folder} is not empty; name a folder that is new or empty.")
    return folder


def _save(image: NDArray[np.uint8], path: Path) -> None:
    from PIL import Image

    Image.fromarray(image).save(path, **_SAVE_OPTIONS[path.suffix])


def _write_table(rows: list[tuple[str, str, str, str]], path: Path) -> Path:
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(("path", "label", "split", "group", "source"))
        writer.writerows((*row, "phantom") for row in rows)
    return path


def _make_patient(class_name: str, patient: int, random_state: int) -> _Patient:
    key = (random_state, CLASS_NAMES.index(class_name), patient)
    rng = np.random.default_rng([*key, 0])
    head = _make_head(rng)
    if class_name == "notumor":
        tumour = None
        middle, half = rng.uniform(0.05, 0.95), rng.uniform(0.05, 0.14)
    else:
        tumour = _MAKE[class_name](rng)
        middle, half = tumour.height, 0.65 * tumour.radius * _HEIGHT_PER_UNIT
    heights = np.linspace(max(middle - half, 0.0), min(middle + half, 1.0), LEVELS)
    return _Patient(key, head, tumour, tuple(heights.tolist()))


def _make_head(rng: np.random.Generator) -> _Head:
    draw = rng.uniform
    width = draw(0.57, 0.63)
    return _Head(
        tilt=rng.normal(0.0, 0.06),
        zoom=draw(0.93, 1.03),
        shift=(rng.normal(0.0, 0.02), rng.normal(0.0, 0.02)),
        half_axes=(width, width * draw(1.15, 1.27)),
        egg=draw(0.02, 0.1),
        corners=draw(-0.008, 0.02),
        skull=draw(0.07, 0.1),
        scalp=draw(0.07, 0.11),
        ventricles=draw(0.7, 1.4),
        atrophy=draw(0.7, 1.2),
        csf=draw(0.07, 0.13),
        grey=draw(0.3, 0.36),
        white=draw(0.43, 0.49),
        fat=draw(0.85, 1.0),
        gain=draw(0.92, 1.06),
        noise=draw(0.015, 0.03),
        bias=tuple(rng.normal(0.0, 0.07, size=5).tolist()),
        folds=_make_texture(rng, 0.3),
        grain=_make_texture(rng, 0.13),
    )


def _make_texture(rng: np.random.Generator, wavelength: float) -> _Texture:
    """Draw a periodic random field of one wavelength; turning its phase moves it up and down."""
    shape = (_TEXTURE_SIZE, _TEXTURE_SIZE)
    axis = np.fft.fftfreq(_TEXTURE_SIZE, d=_TEXTURE_SPAN / _TEXTURE_SIZE).astype(np.float32)
    waves = np.hypot(axis[:, None], axis) * wavelength
    real, imaginary = rng.standard_normal((2, *shape), dtype=np.float32)
    spectrum = (real + np.complex64(1j) * imaginary) * np.exp(-0.5 * ((waves - 1.0) / 0.3) ** 2)
    texture: _Texture = np.fft.ifft2(spectrum)
    return texture / float(texture.real.std())


def _make_glioma(rng: np.random.Generator) -> _Tumour:
    draw = rng.uniform
    angle, reach = draw(0.0, 2.0 * math.pi), draw(0.25, 0.68)
    enhancing = rng.random() < 0.85
    return _Tumour(
        u=reach * math.sin(angle),
        v=-reach * math.cos(angle),
        height=draw(0.2, 0.8),
        radius=draw(0.3, 0.46),
        push=draw(0.2, 0.4),
        lumps=draw(0.15, 0.3),
        body=draw(0.5, 0.75) if enhancing else draw(0.2, 0.3),
        limit=0.96,
        rim=draw(0.8, 1.0) if enhancing else draw(0.25, 0.45),
        core=draw(0.12, 0.24),
        oedema=draw(0.5, 1.0),
    )


def _make_meningioma(rng: np.random.Generator) -> _Tumour:
    draw = rng.uniform
    side, end = (1.0 if rng.random() < 0.5 else -1.0 for _ in range(2))
    if rng.random() < 0.2:  # at the falx, otherwise at the convexity
        u, v, height = 0.1 * side, draw(0.45, 0.8) * end, draw(0.45, 0.92)
    else:
        angle, reach = draw(0.15, math.pi - 0.15), draw(0.82, 0.94)
        u, v, height = reach * side * math.sin(angle), -reach * math.cos(angle), draw(0.06, 0.92)
    return _Tumour(
        u=u,
        v=v,
        height=height,
        radius=draw(0.3, 0.46),
        push=draw(0.3, 0.45),
        lumps=draw(0.02, 0.07),
        body=draw(0.78, 0.98),
        oedema=draw(0.0, 0.5),
        tail=draw(0.1, 0.35),
    )


def _make_pituitary(rng: np.random.Generator) -> _Tumour:
    draw = rng.uniform
    return _Tumour(
        u=draw(-0.05, 0.05),
        v=draw(-0.2, -0.08),
        height=draw(0.03, 0.13),
        radius=draw(0.16, 0.26),
        push=draw(0.25, 0.4),
        lumps=draw(0.04, 0.14),
        body=draw(0.65, 0.9),
        core=draw(-0.5, 0.15),
    )


def _cut(who: _Patient, level: int, size: int) -> tuple[NDArray[np.bool_], _Plane]:
    head, tumour, height = who.head, who.tumour, who.heights[level]
    u, v, r = _locate(head, height, size)
    inside = r < 1.04 + head.skull + head.scalp
    u, v, r = u[inside], v[inside], r[inside]
    distance = np.full_like(r, np.inf)
    if tumour is not None:
        offset = (height - tumour.height) / (tumour.radius * _HEIGHT_PER_UNIT)
        radius = tumour.radius * math.sqrt(1.0 - offset * offset)
        du, dv = u - tumour.u, v - tumour.v
        distance = np.sqrt(du * du + dv * dv) / radius
        # What is seen here lay nearer to the tumour's centre; the skull gives no way.
        free = np.clip(1.6 * (1.0 - r * r), 0.0, 1.0)
        push = tumour.push * np.exp(-0.25 * distance * distance) * free
        u, v = u - push * du, v - push * dv
    folds = _look_up(head.folds, u, v, phase=7.0 * height)
    grain = _look_up(head.grain, u, v, phase=14.0 * height).real
    extent = 1.0 - distance
    if tumour is not None:
        extent += tumour.lumps * (np.tanh(0.7 * folds.imag) + 0.25 * grain)
        extent = np.minimum(extent, 8.0 * (tumour.limit - r))
    return inside, _Plane(height, u, v, r, folds.real, folds.imag, grain, extent)


def _locate(head: _Head, height: float, size: int) -> tuple[_Field, _Field, _Field]:
    axis = (np.arange(size, dtype=np.float32) + 0.5) * (2.0 / size) - 1.0
    x, y = (axis - head.shift[0]) / head.zoom, (axis[:, None] - head.shift[1]) / head.zoom
    cos, sin = math.cos(head.tilt), math.sin(head.tilt)
    dome = math.sqrt(1.0 - max(height - 0.3, 0.0) ** 2 / 0.95)
    taper = dome * (1.0 - 0.4 * max(0.25 - height, 0.0))
    v = (cos * y - sin * x) / (head.half_axes[1] * taper)
    width = head.half_axes[0] * taper * (1.0 + head.egg * np.clip(v, -1.3, 1.3))
    u = (cos * x + sin * y) / width
    uu, vv = u * u, v * v
    square = uu + vv
    fourfold = 1.0 - 8.0 * uu * vv / (square * square + 1e-6)  # cosine of four times the angle
    return u, v, np.sqrt(square) * (1.0 + head.corners * fourfold)


def _look_up(texture: _Texture, u: _Field, v: _Field, *, phase: float) -> _Texture:
    """Interpolate linearly; the texture spans more than a head, so no index leaves it."""
    turn = np.complex64(complex(math.cos(phase), math.sin(phase)))
    scale = _TEXTURE_SIZE / _TEXTURE_SPAN
    x, y = u * scale + _TEXTURE_SIZE / 2, v * scale + _TEXTURE_SIZE / 2
    column, row = x.astype(np.intp), y.astype(np.intp)
    right, below = x - column.astype(x.dtype), y - row.astype(y.dtype)
    corner = row * _TEXTURE_SIZE + column
    flat = (turn * texture).ravel()
    upper = flat[corner] * (1.0 - right) + flat[corner + 1] * right
    lower = flat[corner + _TEXTURE_SIZE] * (1.0 - right) + flat[corner + _TEXTURE_SIZE + 1] * right
    found: _Texture = upper * (1.0 - below) + lower * below
    return found


def _paint(who: _Patient, level: int, size: int) -> _Field:
    inside, plane = _cut(who, level, size)
    image = _paint_base(who.head, plane, _paint_brain(who.head, plane))
    if who.tumour is not None:
        image = _PAINT[who.class_name](who.tumour, who.head, plane, image)
    canvas = np.zeros((size, size), np.float32)
    canvas[inside] = _paint_shell(who.head, plane, image)
    return canvas


def _scan(who: _Patient, level: int, size: int) -> NDArray[np.uint8]:
    """Paint a slice; add the coil's bias field, the point spread, Rician noise and the gain."""
    from scipy.ndimage import gaussian_filter

    head = who.head
    x = np.linspace(-1.0, 1.0, size, dtype=np.float32)
    y = x[:, None]
    bias = head.bias
    field = bias[0] * x + bias[1] * y + bias[2] * x * x + bias[3] * y * y + bias[4] * x * y
    signal = gaussian_filter(_paint(who, level, size) * np.exp(field), 0.003 * size)
    rng = np.random.default_rng([*who.key, 1 + level])
    real, imaginary = head.noise * rng.standard_normal((2, size, size), dtype=np.float32)
    magnitude = np.sqrt((signal + real) ** 2 + imaginary**2)
    grey: NDArray[np.uint8] = (np.clip(head.gain * magnitude, 0.0, 1.0) * 255.0 + 0.5).astype("u1")
    return grey


def _paint_brain(head: _Head, plane: _Plane) -> _Field:
    folds, r = plane.folds, plane.r
    # Up to the ventricles' roof, the halves are joined in the middle.
    joined = 0.33 - 0.4 * _rise(plane.height, 0.5, 0.7) - np.abs(plane.v + 0.05)
    fissure = np.abs(plane.u - 0.02 * folds) + 0.6 * np.maximum(joined, 0.0)
    surface = np.minimum(1.0 - r, 1.2 * fissure)
    cortex = np.sqrt(np.clip(1.0 - surface / (0.4 + 0.06 * plane.depths), 0.0, 1.0))
    # Sulci run where the folds change sign, with a ribbon of grey matter on both banks.
    bank = np.abs(folds)
    ribbon = _edge(1.1 * cortex - bank, 0.5) * _edge(cortex * cortex - 0.12, 0.25)
    ribbon = np.maximum(ribbon, _edge(0.09 - surface + 0.02 * folds, 0.06))
    opening = head.atrophy * (0.32 + 0.16 * plane.depths) * cortex
    sulcus = _edge(opening - bank - 0.12, 0.3) * cortex
    image = _blend(head.white + 0.012 * plane.grain, head.grey, ribbon)
    image = _paint_nuclei(head, plane, image)
    image = _blend(image, head.csf, 0.9 * sulcus)
    image = _blend(image, 0.75, sulcus * _edge(plane.grain - 1.8, 0.6))  # vessels
    image = _blend(image, head.csf, _edge(0.006 + 0.01 * head.atrophy - fissure, 0.025))
    image = _paint_ventricles(head, plane, image)
    return _blend(image, head.csf, _edge(r - 0.985 + 0.012 * head.atrophy, 0.03))


def _paint_nuclei(head: _Head, plane: _Plane, image: _Field) -> _Field:
    weight = _rise(plane.height, 0.2, 0.34) * (1.0 - _rise(plane.height, 0.5, 0.62))
    if weight == 0.0:
        return image
    side, v = np.abs(plane.u), plane.v
    thalamus = _ball(side, v, centre=(0.13, 0.08), radii=(0.12, 0.18))
    putamen = _ball(side + 0.3 * v, v, centre=(0.33, -0.1), radii=(0.08, 0.24))
    caudate = _ball(side, v, centre=(0.18, -0.24), radii=(0.06, 0.12))
    nuclei = np.maximum(np.maximum(thalamus, putamen), caudate)
    return _blend(image, 1.05 * head.grey, weight * _edge(nuclei + 0.1 * plane.grain, 0.5))


def _paint_ventricles(head: _Head, plane: _Plane, image: _Field) -> _Field:
    wide, height = head.ventricles, plane.height
    low = _rise(height, 0.3, 0.38) * (1.0 - _rise(height, 0.5, 0.56))
    high = _rise(height, 0.48, 0.55) * (1.0 - _rise(height, 0.64, 0.72))
    side, v = np.abs(plane.u) + 0.015 * plane.depths, plane.v + 0.015 * plane.folds
    if low > 0.0:
        horn = _tube(side, v, start=(0.05, -0.14), stop=(0.17, -0.38), radius=0.045 * wide)
        atrium = _tube(side, v, start=(0.22, 0.28), stop=(0.3, 0.54), radius=0.05 * wide)
        third = _tube(side, v, start=(0.0, -0.05), stop=(0.0, 0.16), radius=0.014 * wide)
        fluid = np.maximum(np.maximum(horn, atrium), third)
        image = _blend(image, head.csf, low * _edge(fluid, 0.03))
    if high > 0.0:
        front = _tube(side, v, start=(0.16, -0.4), stop=(0.09, -0.05), radius=0.045 * wide)
        back = _tube(side, v, start=(0.09, -0.05), stop=(0.23, 0.36), radius=0.055 * wide)
        image = _blend(image, head.csf, high * _edge(np.maximum(front, back), 0.03))
    return image


def _paint_base(head: _Head, plane: _Plane, image: _Field) -> _Field:
    """Paint the posterior fossa, and below it the base of the skull."""
    low = 1.0 - _rise(plane.height, 0.16, 0.28)
    if low == 0.0:
        return image
    u, v = plane.u, plane.v
    radii = (0.86 - 1.1 * plane.height, 0.46)
    cerebellum = _ball(u, v, centre=(0.0, 0.66), radii=radii) + 0.02 * plane.depths
    folia = np.sin(48.0 * np.sqrt(u * u + (v - 0.2) ** 2) + 2.0 * plane.folds)
    leaves = head.grey + 0.05 + 0.035 * folia + 0.02 * plane.grain
    stem = _ball(u, v, centre=(0.0, 0.13), radii=(0.21, 0.17)) + 0.03 * plane.depths
    cistern = np.maximum(_ball(u, v, centre=(0.0, -0.1), radii=(0.2, 0.13)), stem + 0.3)
    fourth = _ball(u, v, centre=(0.0, 0.35), radii=(0.1, 0.06))
    image = _blend(image, head.csf, low * 0.8 * _edge(0.03 - np.abs(cerebellum), 0.06))
    image = _blend(image, leaves, low * _edge(cerebellum - 0.03, 0.05))
    image = _blend(image, head.csf, low * 0.9 * _edge(cistern + 0.05 * plane.folds, 0.2))
    image = _blend(image, 0.97 * head.white, low * _edge(stem, 0.12))
    image = _blend(image, head.csf, low * _edge(fourth, 0.4))
    return _paint_skull_base(head, plane, image)


def _paint_skull_base(head: _Head, plane: _Plane, image: _Field) -> _Field:
    near = 1.0 - _rise(plane.height, 0.1, 0.2)
    if near == 0.0:
        return image
    u, v, side = plane.u, plane.v, np.abs(plane.u)
    outer = _tube(side, v, start=(0.95, 0.3), stop=(0.6, 0.22), radius=0.1)
    inner = _tube(side, v, start=(0.6, 0.22), stop=(0.32, 0.08), radius=0.05)
    petrous = np.maximum(outer, inner) + 0.02 * plane.folds
    bone = 0.08 + 0.14 * np.maximum(plane.grain, 0.0)
    image = _blend(image, bone, near * _edge(petrous, 0.05))
    # The wall between brain and face reaches back to the sella only near the middle.
    wall = -1.3 + 0.95 * near - 0.32 * np.clip((side - 0.18) / 0.3, 0.0, 1.0) - v
    image = _blend(image, 0.07, _edge(wall + 0.05, 0.04))
    image = _blend(image, _draw_face(head, plane), _edge(wall, 0.04))
    gland = _ball(u, v, centre=(0.0, -0.17), radii=(0.055, 0.045))
    carotids = _ball(side, v, centre=(0.16, -0.2), radii=(0.035, 0.035))
    return _blend(image, 0.72, near * _edge(np.maximum(gland, carotids), 0.6))


def _draw_face(head: _Head, plane: _Plane) -> _Field:
    side, v = np.abs(plane.u), plane.v
    nerve = _tube(side, v, start=(0.46, -0.7), stop=(0.2, -0.35), radius=0.028)
    eye = _ball(side, v, centre=(0.46, -0.9), radii=(0.24, 0.21))
    face: _Field = 0.62 * head.fat + 0.05 * plane.grain
    face = _blend(face, 0.36, _edge(nerve, 0.03))
    face = _blend(face, 0.5, _edge(eye + 0.1, 0.1))
    face = _blend(face, 0.17, _edge(eye, 0.1))
    air_cells = 0.4 - 0.34 * _edge(np.abs(plane.grain) - 0.3, 0.5)
    return _blend(face, air_cells, _edge(0.19 - side + 0.04 * v, 0.04))


def _paint_shell(head: _Head, plane: _Plane, image: _Field) -> _Field:
    """Paint skull, marrow, the sagittal sinus and scalp."""
    r = plane.r
    inner, outer = 1.0 + head.skull, 1.0 + head.skull + head.scalp
    marrow = 0.22 * head.skull - np.abs(r - 1.0 - 0.5 * head.skull)
    sinus = _ball(plane.u, plane.v, centre=(0.0, 0.985), radii=(0.05, 0.035))
    scalp = head.fat * (0.88 + 0.05 * plane.grain + 0.08 * plane.v)
    image = _blend(image, 0.05, _edge(r - 1.0, 0.025))
    image = _blend(image, 0.72, _edge(sinus, 0.5))
    image = _blend(image, 0.3 * head.fat, 0.8 * _edge(marrow, 0.02))
    image = _blend(image, scalp, _edge(r - inner, 0.03))
    image = _blend(image, 0.42, _edge(r - outer + 0.025, 0.015))
    return _blend(image, 0.0, _edge(r - outer, 0.025))


def _paint_glioma(tumour: _Tumour, head: _Head, plane: _Plane, image: _Field) -> _Field:
    extent, grain, folds = plane.extent, plane.grain, plane.folds
    fingers = _edge(extent + 0.75 + 0.35 * folds, 0.9) * _edge(0.97 - plane.r, 0.04)
    patches = 0.65 + 0.35 * np.clip(grain + folds, -1.0, 1.0)
    ring = patches * np.exp(-(((extent - 0.22 - 0.05 * folds) / 0.16) ** 2))
    necrosis = tumour.core * (1.0 + 0.2 * grain)
    mass: _Field = tumour.body * (1.0 + 0.15 * grain + 0.1 * folds)
    mass = _blend(mass, necrosis, _edge(extent - 0.45 + 0.12 * grain, 0.25))
    mass = _blend(mass, tumour.rim, ring)
    image = _blend(image, 0.68 * head.grey, tumour.oedema * fingers)
    return _blend(image, mass, _edge(extent, 0.15))


def _paint_meningioma(tumour: _Tumour, head: _Head, plane: _Plane, image: _Field) -> _Field:
    extent, r = plane.extent, plane.r
    brain = _edge(1.0 - r, 0.03)
    oedema = tumour.oedema * _edge(extent + 0.4 + 0.15 * plane.folds, 0.6)
    cleft = 0.6 * _edge(extent + 0.1, 0.1)
    tail = _edge(0.028 - np.abs(r - 0.985), 0.02) * _edge(extent + 2.0 * tumour.tail, 0.3)
    image = _blend(image, 0.72 * head.grey, brain * oedema)
    image = _blend(image, head.csf, brain * cleft)
    image = _blend(image, tumour.body, 0.8 * tail)
    return _blend(image, tumour.body * (1.0 + 0.03 * plane.grain), _edge(extent, 0.1))


def _paint_pituitary(tumour: _Tumour, _: _Head, plane: _Plane, image: _Field) -> _Field:
    extent = plane.extent
    mass: _Field = tumour.body * (1.0 + 0.05 * plane.grain + 0.05 * plane.folds)
    cyst = 0.6 * _edge(extent - 0.6 + tumour.core + 0.25 * plane.depths, 0.5)
    mass = _blend(mass, 0.6 * tumour.body, cyst)
    return _blend(image, mass, _edge(extent, 0.15))


def _rise(value: float, start: float, stop: float) -> float:
    return min(max((value - start) / (stop - start), 0.0), 1.0)


def _edge(distance: _Field, width: float) -> _Field:
    """Map a distance across a border to 0 (outside) … 1 (inside), soft over `width`."""
    inside: _Field = np.clip(0.5 + distance / width, 0.0, 1.0)
    return inside


def _blend(image: _Field, value: float | _Field, weight: _Field) -> _Field:
    return image + (value - image) * weight


def _ball(u: _Field, v: _Field, *, centre: _Point, radii: _Point) -> _Field:
    """Give 1 at the centre of an ellipse, 0 on its edge, less outside."""
    square = ((u - centre[0]) / radii[0]) ** 2 + ((v - centre[1]) / radii[1]) ** 2
    return 1.0 - np.sqrt(square)


def _tube(u: _Field, v: _Field, *, start: _Point, stop: _Point, radius: float) -> _Field:
    """Give the depth within a round-ended bar: 0 on its edge, negative outside."""
    du, dv = stop[0] - start[0], stop[1] - start[1]
    along = ((u - start[0]) * du + (v - start[1]) * dv) / (du * du + dv * dv)
    along = np.clip(along, 0.0, 1.0)
    return radius - np.sqrt((u - start[0] - along * du) ** 2 + (v - start[1] - along * dv) ** 2)


_MAKE: dict[str, Callable[[np.random.Generator], _Tumour]] = {
    "glioma": _make_glioma,
    "meningioma": _make_meningioma,
    "pituitary": _make_pituitary,
}
_PAINT: dict[str, Callable[[_Tumour, _Head, _Plane, _Field], _Field]] = {
    "glioma": _paint_glioma,
    "meningioma": _paint_meningioma,
    "pituitary": _paint_pituitary,
}
