"""The anatomy of a synthetic patient: a head, perhaps a tumour in it, and planes that cut both.

A patient is a head (outline, cortex, ventricles, contrast, coil) and, in three classes, a tumour
in it. Both are functions of head coordinates, so that any slice can be drawn at any size: `u` (left
to right) and `v` (front to back) are -1 and 1 at the edge of the brain; the height is 0 at the
sella and 1 near the vertex. Brightness is 0 for air and about 1 for fat, as in an axial T1 slice
with contrast agent. All numbers were chosen by eye.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

CLASS_NAMES = ("glioma", "meningioma", "notumor", "pituitary")
LEVELS = 16  # slices that can be drawn of each patient

Field = NDArray[np.floating[Any]]
Texture = NDArray[np.complexfloating[Any, Any]]
Point = tuple[float, float]

_TEXTURE_SIZE = 128
_TEXTURE_SPAN = 3.0
# One unit of u is about 65 mm, one unit of height about 110 mm.
_HEIGHT_PER_UNIT = 0.6


@dataclass(frozen=True)
class Head:
    """What the slices of one patient share: lengths in head units, tissues in brightness."""

    tilt: float
    zoom: float
    shift: Point
    half_axes: Point
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
    folds: Texture
    grain: Texture


@dataclass(frozen=True)
class Tumour:
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
class Patient:
    """A patient: the key of its random numbers, a head, perhaps a tumour, a height per level."""

    key: tuple[int, int, int]
    head: Head
    tumour: Tumour | None
    heights: tuple[float, ...]

    @property
    def class_name(self) -> str:
        """One of `CLASS_NAMES`."""
        return CLASS_NAMES[self.key[1]]


@dataclass(frozen=True)
class Plane:
    """The pixels of one slice that lie in the head; each field has the shape (n_inside,).

    `u` and `v` belong to the tissue, which a tumour pushes aside; `r` (1 at the edge of the
    brain) does not move. `extent` is positive within the tumour.
    """

    height: float
    u: Field
    v: Field
    r: Field
    folds: Field
    depths: Field
    grain: Field
    extent: Field


def make_patient(class_name: str, patient: int, random_state: int) -> Patient:
    """Make a patient of a class from its number and the seed."""
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
    return Patient(key, head, tumour, tuple(heights.tolist()))


def _make_head(rng: np.random.Generator) -> Head:
    draw = rng.uniform
    width = draw(0.57, 0.63)
    return Head(
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


def _make_texture(rng: np.random.Generator, wavelength: float) -> Texture:
    """Draw a periodic random field of one wavelength; its phase moves with the height."""
    shape = (_TEXTURE_SIZE, _TEXTURE_SIZE)
    axis = np.fft.fftfreq(_TEXTURE_SIZE, d=_TEXTURE_SPAN / _TEXTURE_SIZE).astype(np.float32)
    waves = np.hypot(axis[:, None], axis) * wavelength
    real, imaginary = rng.standard_normal((2, *shape), dtype=np.float32)
    spectrum = (real + np.complex64(1j) * imaginary) * np.exp(-0.5 * ((waves - 1.0) / 0.3) ** 2)
    texture: Texture = np.fft.ifft2(spectrum)
    return texture / float(texture.real.std())


def _make_glioma(rng: np.random.Generator) -> Tumour:
    draw = rng.uniform
    angle, reach = draw(0.0, 2.0 * math.pi), draw(0.25, 0.68)
    enhancing = rng.random() < 0.85
    return Tumour(
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


def _make_meningioma(rng: np.random.Generator) -> Tumour:
    draw = rng.uniform
    side, end = (1.0 if rng.random() < 0.5 else -1.0 for _ in range(2))
    if rng.random() < 0.2:  # at the falx, otherwise at the convexity
        u, v, height = 0.1 * side, draw(0.45, 0.8) * end, draw(0.45, 0.92)
    else:
        angle, reach = draw(0.15, math.pi - 0.15), draw(0.82, 0.94)
        u, v, height = reach * side * math.sin(angle), -reach * math.cos(angle), draw(0.06, 0.92)
    return Tumour(
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


def _make_pituitary(rng: np.random.Generator) -> Tumour:
    draw = rng.uniform
    return Tumour(
        u=draw(-0.05, 0.05),
        v=draw(-0.2, -0.08),
        height=draw(0.03, 0.13),
        radius=draw(0.16, 0.26),
        push=draw(0.25, 0.4),
        lumps=draw(0.04, 0.14),
        body=draw(0.65, 0.9),
        core=draw(-0.5, 0.15),
    )


def cut_plane(patient: Patient, level: int, size: int) -> tuple[NDArray[np.bool_], Plane]:
    """Cut a patient at a level.

    Parameters
    ----------
    patient : Patient
        Who is cut.
    level, size : int
        As in `brainfeat.phantoms.draw_slice`.

    Returns
    -------
    inside : ndarray of shape (size, size), bool
        The pixels that lie in the head.
    plane : Plane
        Where each of them lies in the anatomy.
    """
    head, tumour, height = patient.head, patient.tumour, patient.heights[level]
    u, v, r = _locate(head, height, size)
    inside = r < 1.04 + head.skull + head.scalp
    u, v, r = u[inside], v[inside], r[inside]
    distance = np.full_like(r, np.inf)
    if tumour is not None:
        offset = (height - tumour.height) / (tumour.radius * _HEIGHT_PER_UNIT)
        radius = tumour.radius * math.sqrt(1.0 - offset * offset)
        du, dv = u - tumour.u, v - tumour.v
        distance = np.sqrt(du * du + dv * dv) / radius
        # What is seen here came from nearer to the centre of the tumour; the skull does not yield.
        free = np.clip(1.6 * (1.0 - r * r), 0.0, 1.0)
        push = tumour.push * np.exp(-0.25 * distance * distance) * free
        u, v = u - push * du, v - push * dv
    folds = _look_up(head.folds, u, v, phase=7.0 * height)
    grain = _look_up(head.grain, u, v, phase=14.0 * height).real
    extent = 1.0 - distance
    if tumour is not None:
        extent += tumour.lumps * (np.tanh(0.7 * folds.imag) + 0.25 * grain)
        extent = np.minimum(extent, 8.0 * (tumour.limit - r))
    return inside, Plane(height, u, v, r, folds.real, folds.imag, grain, extent)


def _locate(head: Head, height: float, size: int) -> tuple[Field, Field, Field]:
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


def _look_up(texture: Texture, u: Field, v: Field, *, phase: float) -> Texture:
    """Interpolate linearly; the texture spans more than a head, so that no index leaves it."""
    turn = np.complex64(complex(math.cos(phase), math.sin(phase)))
    scale = _TEXTURE_SIZE / _TEXTURE_SPAN
    x, y = u * scale + _TEXTURE_SIZE / 2, v * scale + _TEXTURE_SIZE / 2
    column, row = x.astype(np.intp), y.astype(np.intp)
    right, below = x - column.astype(x.dtype), y - row.astype(y.dtype)
    corner = row * _TEXTURE_SIZE + column
    flat = (turn * texture).ravel()
    upper = flat[corner] * (1.0 - right) + flat[corner + 1] * right
    lower = flat[corner + _TEXTURE_SIZE] * (1.0 - right) + flat[corner + _TEXTURE_SIZE + 1] * right
    found: Texture = upper * (1.0 - below) + lower * below
    return found


_MAKE: dict[str, Callable[[np.random.Generator], Tumour]] = {
    "glioma": _make_glioma,
    "meningioma": _make_meningioma,
    "pituitary": _make_pituitary,
}
