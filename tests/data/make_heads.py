"""Write ``head-format-*.h5``: heads that every later version must load.

Those of format 1 were written by the version before the training record had types and before its
names changed; ``head-format-2-votes.h5`` by the last one whose ``svm`` head scored by votes; those
of format 3, which are heads of groups, of blocks, of maps and an ensemble, by the first versions
that wrote them.
Run once for each new version of the format, under new names, and commit what it wrote; never run
it again for a version that was released.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from support.caches import write_vectors
from support.layered import write_layered

from brainfeat import fit_head

N_FEATURES = 8
CLASS_NAMES = ("glioma", "meningioma", "notumor", "pituitary")


def write(folder: Path) -> None:
    """Write a head of a search with out-of-distribution examples, a dense one and an svm."""
    rng = np.random.default_rng(0)
    y = np.arange(240) % 4
    X = 2 * rng.standard_normal((4, N_FEATURES))[y] + rng.standard_normal((240, N_FEATURES))
    cache = write_vectors(folder, X, y, class_names=CLASS_NAMES)
    odd = write_vectors(folder, X[:60] + 5, y[:60], class_names=CLASS_NAMES, name="odd.h5")
    searched = fit_head(
        cache, head="logistic", search=True, n_iter=3, cv=3, ood_examples=odd, n_jobs=1
    )
    searched.save(folder / "head-format-1-logistic.h5")
    dense = fit_head(cache, head="dense", params={"epochs": 3}, cv=2, n_jobs=1)
    dense.save(folder / "head-format-1-dense.h5")
    fit_head(cache, head="svm", n_jobs=1).save(folder / "head-format-2-votes.h5")


def write_groups(folder: Path) -> None:
    """Write heads of groups: of their means, of weighed images, and of two joined caches."""
    rng = np.random.default_rng(0)
    y = np.arange(60) % 2
    X = 3 * rng.standard_normal((2, N_FEATURES))[y] + rng.standard_normal((60, N_FEATURES))
    rows, patients = np.repeat(X, 3, axis=0), [f"patient-{number:02}" for number in range(60)]
    shown: dict[str, Any] = {"class_names": CLASS_NAMES[:2], "groups": np.repeat(patients, 3)}
    for name in ("t1", "flair"):
        X_block = rows + rng.standard_normal(rows.shape)
        paths = [f"{name}-{row}.png" for row in range(len(rows))]
        write_vectors(folder, X_block, np.repeat(y, 3), name=f"{name}.h5", paths=paths, **shown)
    t1, flair = folder / "t1.h5", folder / "flair.h5"
    fit_head(t1, head="lda", bag="mean", n_jobs=1).save(folder / "head-format-3-mean.h5")
    weighed = fit_head(t1, bag="attention", params={"epochs": 3}, n_jobs=1)
    weighed.save(folder / "head-format-3-attention.h5")
    joined = fit_head([t1, flair], join="groups", head="lda", n_jobs=1)
    joined.save(folder / "head-format-3-joined.h5")


def write_attention(folder: Path) -> None:
    """Write a head of maps."""
    params = {"epochs": 3, "reduction": 4, "hidden_units": (8,)}
    bundle = fit_head(write_layered(folder), head="cbam", params=params, n_jobs=1)
    bundle.save(folder / "head-format-3-cbam.h5")


def write_ensemble(folder: Path) -> None:
    """Write a stack of a dense head, a skops archive and trees."""
    rng = np.random.default_rng(0)
    y = np.arange(120) % 4
    X = 2 * rng.standard_normal((4, N_FEATURES))[y] + rng.standard_normal((120, N_FEATURES))
    cache = write_vectors(folder, X, y, class_names=CLASS_NAMES, name="stacked.h5")
    params = {"dense.epochs": 3, "random-forest.n_estimators": 3}
    stack = fit_head(cache, head="stack:dense+lda+random-forest", params=params, n_jobs=1)
    stack.save(folder / "head-format-3-stack.h5")


def write_images(folder: Path) -> None:
    """Write a head of two bases of the same images."""
    rng = np.random.default_rng(0)
    y = np.arange(120) % 2
    for number, name in enumerate(("a", "b")):
        X = 3 * rng.standard_normal((2, N_FEATURES))[y] + rng.standard_normal((120, N_FEATURES))
        base = {"backbone": f"base-{number}", "class_names": CLASS_NAMES[:2]}
        write_vectors(folder, X, y, name=f"{name}.h5", **base)
    pair = [folder / "a.h5", folder / "b.h5"]
    joined = fit_head(pair, join="images", head="lda", n_jobs=1)
    joined.save(folder / "head-format-3-images.h5")


if __name__ == "__main__":
    write(Path(sys.argv[1]))
    write_groups(Path(sys.argv[1]))
    write_attention(Path(sys.argv[1]))
    write_ensemble(Path(sys.argv[1]))
    write_images(Path(sys.argv[1]))
