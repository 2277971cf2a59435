"""Feature caches of several modalities of the same patients, without images or a backbone."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from support.caches import write_vectors

WIDTHS = {"t1": 6, "flair": 4, "pet": 3}


def write_modalities(
    folder: Path,
    *,
    patients: int = 80,
    lacks: Mapping[str, slice] | None = None,
    widths: Mapping[str, int] = WIDTHS,
    split: bool = True,
    noise: float = 1.5,
    **changes: Any,
) -> list[Path]:
    """Write a cache for each modality, with one to three images of each patient of two classes.

    Patients of the classes alternate; every fifth is in val and every fifth in test. `lacks` says
    which patients a modality does not have.
    """
    rng, paths = np.random.default_rng(0), []
    for number, (name, width) in enumerate(widths.items()):
        missing = (lacks or {}).get(name, slice(0, 0))
        kept = np.delete(np.arange(patients), missing)
        patient = np.repeat(kept, 1 + kept % 3)
        centre = rng.normal(size=(2, width)) + 0.5
        own = rng.normal(size=(patients, width))
        X = centre[patient % 2] + own[patient] + rng.normal(size=(len(patient), width)) * noise
        splits = np.array(["train", "train", "train", "val", "test"])[patient // 2 % 5]
        given: dict[str, Any] = {
            "name": f"{name}.h5",
            "class_names": ("glioma", "notumor"),
            "groups": [f"patient {row:03}" for row in patient],
            "paths": [f"{row}.png" for row in range(len(patient))],
            "contents": [f"{name} {row}" for row in range(len(patient))],
            "splits": splits.tolist() if split else None,
            "backbone": f"base-{number}",
            **changes,
        }
        paths.append(write_vectors(folder, X.astype(np.float32), patient % 2, **given))
    return paths
