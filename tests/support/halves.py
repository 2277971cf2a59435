"""Slices with one bright half, and a backbone whose features are the brightness of 64 blocks."""

import numpy as np
from PIL import Image

from brainfeat.cache.spec import FeatureSpec

SIZE = 32
CLASSES = ("glioma", "notumor")


class Blocks:
    """A base whose features are the mean brightness of 64 blocks of the image."""

    def __init__(self, precision="float32", weights="0" * 64):
        self.spec = FeatureSpec(
            backbone="mobilenet",
            layer="conv_pw_13_relu",
            n_features=64,
            weights_sha256=weights,
            input_size=SIZE,
            precision=precision,
        )
        self.recipe = {"blocks": precision}
        self.shapes = []

    def __call__(self, images):
        self.shapes.append(images.shape)
        blocks = images.mean(axis=3).reshape(len(images), 8, SIZE // 8, 8, SIZE // 8)
        return blocks.mean(axis=(2, 4)).reshape(len(images), 64)

    def release(self):
        """Do nothing: nothing was compiled."""


def draw(rng, *, bright, doubtful=False):
    """Draw a slice of which the upper half is bright, or the lower; or neither."""
    pixels = rng.normal(90, 12, (SIZE, SIZE))
    half = slice(0, SIZE // 2) if bright else slice(SIZE // 2, SIZE)
    pixels[half] += 0 if doubtful else 25
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
