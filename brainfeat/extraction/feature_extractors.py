"""What computes features: a base, or any function that says what its features mean."""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from brainfeat import runtime
from brainfeat.cache.spec import FeatureSpec
from brainfeat.extraction.backbones import Backbone
from brainfeat.extraction.preprocessing import scale_pixels

Image = NDArray[np.float32]

# Batch size of a backbone that is a function and does not state one.
_BATCH_SIZE = 32


class FeatureExtractor(Protocol):
    """What stage one needs of a backbone: a callable that also describes its features.

    A function of NumPy arrays with these attributes can take the place of a convolutional base. If
    its spec has several `layers`, a row of what it computes is their vectors side by side. If its
    `pooling` is ``"none"``, the map of the deepest layer follows, row by row with the channels
    last, and an attribute ``map_shape`` is its height and width.
    """

    @property
    def spec(self) -> FeatureSpec:
        """What the features mean; how images were made of volumes need not be in it."""
        ...

    @property
    def recipe(self) -> dict[str, Any]:
        """What determines the spec, as JSON values, known without loading anything."""
        ...

    def __call__(self, images: Image, /) -> Image:
        """Compute rows (n, d), float32, of images (n, h, w, 3), float32 in [0, 1]."""
        ...


def compile_copies(
    backbone: FeatureExtractor, *, n_images: int | None
) -> tuple[Sequence[runtime.Forward], int]:
    """Prepare a backbone to compute batches.

    Parameters
    ----------
    backbone : FeatureExtractor
        A :class:`Backbone`, or any other callable.
    n_images : int or None
        As in :meth:`Backbone.compile`.

    Returns
    -------
    copies : sequence of callable
        Functions from 8-bit images (n, h, w, 3) to features that can run at the same time: one for
        each device or stream of a :class:`Backbone`, or else the backbone itself, which gets them
        in [0, 1].
    batch_size : int
        A batch size that suits them.
    """
    if isinstance(backbone, Backbone):
        return backbone.compile(n_images=n_images), backbone.batch_size
    return [lambda pixels: backbone(scale_pixels(pixels))], _BATCH_SIZE
