"""Brightness of the tissues in a plane of a synthetic patient."""

from collections.abc import Callable

import numpy as np

from brainfeat.phantoms.anatomy import Field, Head, Patient, Plane, Point, Tumour, cut_plane


def paint_tissues(patient: Patient, level: int, size: int) -> Field:
    """Paint the tissues of one slice.

    Parameters
    ----------
    patient : Patient
        Whose slice it is.
    level, size : int
        As in `brainfeat.phantoms.draw_slice`.

    Returns
    -------
    ndarray of shape (size, size), float32
        Brightness: 0 for air, about 1 for fat.
    """
    inside, plane = cut_plane(patient, level, size)
    image = _paint_base(patient.head, plane, _paint_brain(patient.head, plane))
    if patient.tumour is not None:
        image = _PAINT[patient.class_name](patient.tumour, patient.head, plane, image)
    canvas = np.zeros((size, size), np.float32)
    canvas[inside] = _paint_shell(patient.head, plane, image)
    return canvas


def _paint_brain(head: Head, plane: Plane) -> Field:
    folds, r = plane.folds, plane.r
    # The hemispheres are joined in the middle up to the roof of the ventricles.
    joined = 0.33 - 0.4 * _rise(plane.height, 0.5, 0.7) - np.abs(plane.v + 0.05)
    fissure = np.abs(plane.u - 0.02 * folds) + 0.6 * np.maximum(joined, 0.0)
    surface = np.minimum(1.0 - r, 1.2 * fissure)
    cortex = np.sqrt(np.clip(1.0 - surface / (0.4 + 0.06 * plane.depths), 0.0, 1.0))
    # Sulci run where the folds change sign, with a ribbon of grey matter on either bank.
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


def _paint_nuclei(head: Head, plane: Plane, image: Field) -> Field:
    weight = _rise(plane.height, 0.2, 0.34) * (1.0 - _rise(plane.height, 0.5, 0.62))
    if weight == 0.0:
        return image
    side, v = np.abs(plane.u), plane.v
    thalamus = _ball(side, v, centre=(0.13, 0.08), radii=(0.12, 0.18))
    putamen = _ball(side + 0.3 * v, v, centre=(0.33, -0.1), radii=(0.08, 0.24))
    caudate = _ball(side, v, centre=(0.18, -0.24), radii=(0.06, 0.12))
    nuclei = np.maximum(np.maximum(thalamus, putamen), caudate)
    return _blend(image, 1.05 * head.grey, weight * _edge(nuclei + 0.1 * plane.grain, 0.5))


def _paint_ventricles(head: Head, plane: Plane, image: Field) -> Field:
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


def _paint_base(head: Head, plane: Plane, image: Field) -> Field:
    """Paint the posterior fossa, and the base of the skull below it."""
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


def _paint_skull_base(head: Head, plane: Plane, image: Field) -> Field:
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


def _draw_face(head: Head, plane: Plane) -> Field:
    side, v = np.abs(plane.u), plane.v
    nerve = _tube(side, v, start=(0.46, -0.7), stop=(0.2, -0.35), radius=0.028)
    eye = _ball(side, v, centre=(0.46, -0.9), radii=(0.24, 0.21))
    face: Field = 0.62 * head.fat + 0.05 * plane.grain
    face = _blend(face, 0.36, _edge(nerve, 0.03))
    face = _blend(face, 0.5, _edge(eye + 0.1, 0.1))
    face = _blend(face, 0.17, _edge(eye, 0.1))
    air_cells = 0.4 - 0.34 * _edge(np.abs(plane.grain) - 0.3, 0.5)
    return _blend(face, air_cells, _edge(0.19 - side + 0.04 * v, 0.04))


def _paint_shell(head: Head, plane: Plane, image: Field) -> Field:
    """Paint the skull, its marrow, the sagittal sinus and the scalp."""
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


def _paint_glioma(tumour: Tumour, head: Head, plane: Plane, image: Field) -> Field:
    extent, grain, folds = plane.extent, plane.grain, plane.folds
    fingers = _edge(extent + 0.75 + 0.35 * folds, 0.9) * _edge(0.97 - plane.r, 0.04)
    patches = 0.65 + 0.35 * np.clip(grain + folds, -1.0, 1.0)
    ring = patches * np.exp(-(((extent - 0.22 - 0.05 * folds) / 0.16) ** 2))
    necrosis = tumour.core * (1.0 + 0.2 * grain)
    mass: Field = tumour.body * (1.0 + 0.15 * grain + 0.1 * folds)
    mass = _blend(mass, necrosis, _edge(extent - 0.45 + 0.12 * grain, 0.25))
    mass = _blend(mass, tumour.rim, ring)
    image = _blend(image, 0.68 * head.grey, tumour.oedema * fingers)
    return _blend(image, mass, _edge(extent, 0.15))


def _paint_meningioma(tumour: Tumour, head: Head, plane: Plane, image: Field) -> Field:
    extent, r = plane.extent, plane.r
    brain = _edge(1.0 - r, 0.03)
    oedema = tumour.oedema * _edge(extent + 0.4 + 0.15 * plane.folds, 0.6)
    cleft = 0.6 * _edge(extent + 0.1, 0.1)
    tail = _edge(0.028 - np.abs(r - 0.985), 0.02) * _edge(extent + 2.0 * tumour.tail, 0.3)
    image = _blend(image, 0.72 * head.grey, brain * oedema)
    image = _blend(image, head.csf, brain * cleft)
    image = _blend(image, tumour.body, 0.8 * tail)
    return _blend(image, tumour.body * (1.0 + 0.03 * plane.grain), _edge(extent, 0.1))


def _paint_pituitary(tumour: Tumour, _: Head, plane: Plane, image: Field) -> Field:
    extent = plane.extent
    mass: Field = tumour.body * (1.0 + 0.05 * plane.grain + 0.05 * plane.folds)
    cyst = 0.6 * _edge(extent - 0.6 + tumour.core + 0.25 * plane.depths, 0.5)
    mass = _blend(mass, 0.6 * tumour.body, cyst)
    return _blend(image, mass, _edge(extent, 0.15))


def _rise(value: float, start: float, stop: float) -> float:
    """Map a value to 0 (up to `start`) … 1 (from `stop` on)."""
    return min(max((value - start) / (stop - start), 0.0), 1.0)


def _edge(distance: Field, width: float) -> Field:
    """Map the signed distance from a border to 0 (outside) … 1 (inside), soft over `width`."""
    inside: Field = np.clip(0.5 + distance / width, 0.0, 1.0)
    return inside


def _blend(image: Field, value: float | Field, weight: Field) -> Field:
    return image + (value - image) * weight


def _ball(u: Field, v: Field, *, centre: Point, radii: Point) -> Field:
    """Return the depth within an ellipse: 1 at its centre, 0 on its edge, negative outside."""
    square = ((u - centre[0]) / radii[0]) ** 2 + ((v - centre[1]) / radii[1]) ** 2
    return 1.0 - np.sqrt(square)


def _tube(u: Field, v: Field, *, start: Point, stop: Point, radius: float) -> Field:
    """Return the depth within a bar with round ends: 0 on its edge, negative outside."""
    du, dv = stop[0] - start[0], stop[1] - start[1]
    along = ((u - start[0]) * du + (v - start[1]) * dv) / (du * du + dv * dv)
    along = np.clip(along, 0.0, 1.0)
    return radius - np.sqrt((u - start[0] - along * du) ** 2 + (v - start[1] - along * dv) ** 2)


_PAINT: dict[str, Callable[[Tumour, Head, Plane, Field], Field]] = {
    "glioma": _paint_glioma,
    "meningioma": _paint_meningioma,
    "pituitary": _paint_pituitary,
}
