"""Phantom slices of several modalities of the same patients, and heads that were fitted on them."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from brainfeat import FeatureCache, extract, fit_head, read_table
from brainfeat.heads.bundle import HeadBundle
from brainfeat.phantoms import draw_slice

CLASSES = ("glioma", "notumor")
# Size and base of each modality, which differ.
BASES: Mapping[str, tuple[str, int]] = {"t1": ("mobilenet-0.75", 32), "flair": ("mobilenet", 40)}


def draw_modalities(folder: Path, *, patients: int = 24, slices: int = 2) -> dict[str, Path]:
    """Draw a folder of slices for each patient and modality; FLAIR is inverted.

    Patients of the classes alternate; the last of each class has no FLAIR.
    """
    for name in BASES:
        for patient in range(patients):
            if name == "flair" and patient >= patients - 2:
                continue
            place = folder / name / f"p{patient:02}"
            place.mkdir(parents=True)
            for number in range(slices):
                level = 6 + 3 * number
                pixels = draw_slice(CLASSES[patient % 2], patient=patient, level=level, size=48)
                pixels = 255 - pixels if name == "flair" else pixels
                Image.fromarray(pixels).save(place / f"{number}.png")
    return {name: folder / name for name in BASES}


def extract_modalities(folder: Path, roots: Mapping[str, Path]) -> list[Path]:
    """Extract a cache of each modality, with random weights."""
    caches = []
    for name, root in roots.items():
        rows = ["path,label,group"]
        for path in sorted(root.rglob("*.png")):
            patient = path.parent.name
            rows.append(f"{path.relative_to(folder)},{CLASSES[int(patient[1:]) % 2]},{patient}")
        table = folder / f"{name}.csv"
        table.write_text("\n".join(rows))
        backbone, size = BASES[name]
        result = extract(
            read_table(table),
            folder / f"{name}.h5",
            backbone=backbone,
            weights="random",
            input_size=size,
        )
        caches.append(result.output)
    return caches


def fit_modalities(caches: list[Path]) -> HeadBundle:
    """Fit a head on all modalities."""
    return fit_head(caches, head="logistic", join="groups", group_by="column")


def pool_features(path: Path, patient: str) -> np.ndarray:
    """Return the mean vector of a patient in a cache."""
    with FeatureCache.open(path) as cache:
        mean: np.ndarray = cache.X[np.flatnonzero(cache.groups == patient)].mean(axis=0)
        return mean
