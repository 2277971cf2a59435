"""Feature caches with the signatures of images that are said to show this or that."""

import numpy as np

from brainfeat.cache.signature import SIGNATURE_SIZE, orient_signatures
from support.caches import write_vectors

CLASSES = ("glioma", "meningioma", "notumor", "pituitary")
SHOWN = np.random.default_rng(0).integers(-127, 128, (12, SIGNATURE_SIZE)).astype(np.int8)


def sign(what):
    """Return the signature of image 3 for "3", turned to orientation 1 for "3/1", blank for ""."""
    if not what:
        return np.zeros(SIGNATURE_SIZE, np.int8)
    number, _, turn = what.partition("/")
    return orient_signatures(SHOWN[int(number)], int(turn or 0))


def write_signed(folder, name, shows, *, labels=None, class_names=CLASSES, **columns):
    """Write the cache ``name.h5`` of the images ``name-0.png``, …, each with its own content."""
    y = [class_names.index(label) if label else -1 for label in labels or [""] * len(shows)]
    return write_vectors(
        folder,
        np.zeros((len(shows), 4)),
        np.array(y),
        name=f"{name}.h5",
        class_names=class_names,
        paths=[f"{name}-{row}.png" for row in range(len(shows))],
        contents=columns.pop("contents", [f"{name} {row}" for row in range(len(shows))]),
        signature=np.array([sign(what) for what in shows]),
        **columns,
    )
