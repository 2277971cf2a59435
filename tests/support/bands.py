"""A table of six images, and a backbone whose features are the means of bands of pixels."""

import numpy as np
from PIL import Image

from brainfeat.cache.spec import FeatureSpec
from brainfeat.tables.table import read_table

SIZE = 32
N_FEATURES = 8
SPEC = FeatureSpec(
    backbone="blocks",
    layer="rows",
    n_features=N_FEATURES,
    weights_sha256="0" * 64,
    input_size=SIZE,
)
ROWS = [
    "c/3.png,notumor,test,p3,siteB",
    "a/1.png,glioma,train,p1,siteA",
    "a/2.png,glioma,train,p1,siteA",
    "b/4.png,pituitary,val,p4,",
    "b/5.png,,test,,",
    "b/6.png,notumor,train,,siteB",
]


def block_means(images):
    """Give the means of 8 bands of pixels: features that need no base."""
    return images.reshape(len(images), N_FEATURES, -1).mean(axis=2)


class Blocks:
    """A backbone of NumPy that counts what it is asked for, and can fail on the way."""

    def __init__(self, *, fail_at=None, error=RuntimeError, spec=SPEC):
        self.fail_at, self.error, self._spec = fail_at, error, spec
        self.batches = []
        self.specs_asked = 0

    @property
    def spec(self):
        self.specs_asked += 1
        return self._spec

    @property
    def recipe(self):
        return {"blocks": self._spec.fingerprint}

    def __call__(self, images):
        if len(self.batches) == self.fail_at:
            raise self.error("the plug was pulled")
        self.batches.append(images.copy())
        return block_means(images)


def draw(path, seed, *, size=(40, 36), mode="RGB"):
    """Draw one image file of noise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = size[::-1] if mode == "L" else (*size[::-1], 3)
    pixels = np.random.default_rng(seed).integers(0, 256, shape, np.uint8)
    Image.fromarray(pixels).save(path)


def describe(root, rows=ROWS):
    """Write a CSV over the images and read it."""
    csv = root / "table.csv"
    csv.write_text("\n".join(["path,label,split,group,source", *rows]) + "\n")
    return read_table(csv)
