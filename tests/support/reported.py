"""A head, and volumes for it that are clear, doubtful, or like nothing it was fitted on."""

import numpy as np

from brainfeat import extract, fit_head, read_table
from support.halves import CLASSES, SIZE, Blocks, draw

# How slices are shown, and whose they are.
SHOWN = {"WindowCenter": 128, "WindowWidth": 256}
PERSON = {
    "PatientName": "Doe^Jane",
    "PatientID": "4711",
    "PatientBirthDate": "19700101",
    "PatientSex": "F",
    "StudyDate": "20260102",
    "StudyTime": "101112",
    "StudyID": "7",
    "AccessionNumber": "A7",
}


def fit_halves(folder):
    """Fit a head that abstains, and save it."""
    rng = np.random.default_rng(0)
    for place, name in enumerate(CLASSES):
        (folder / "images" / name).mkdir(parents=True)
        for number in range(240):
            looks = bool(place) if number % 10 else not place
            draw(rng, bright=looks, doubtful=number % 7 == 0).save(
                folder / "images" / name / f"{number}.png"
            )
    extract(read_table(folder / "images"), folder / "f.h5", backbone=Blocks())
    found = fit_head(folder / "f.h5", head="logistic", group_by="none", n_jobs=1)
    return found.save(folder / "head.h5")


def stack(kind, n=4):
    """Draw slices that are a glioma, doubtful, or like nothing in training."""
    rng = np.random.default_rng(5)
    if kind == "odd":
        coarse = rng.integers(0, 256, (n, 8, 8)).astype(np.uint16)
        return coarse.repeat(SIZE // 8, 1).repeat(SIZE // 8, 2)
    slices = [draw(rng, bright=False, doubtful=kind == "doubtful") for _ in range(n)]
    return np.stack([np.asarray(image, np.uint16) for image in slices])
