"""Augmented views of training images: rotated, scaled and mirrored."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from numbers import Integral, Real
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from brainfeat.errors import ParameterError
from brainfeat.extraction.preprocessing import quantize_image

VIEW_LIMIT = int(np.iinfo(np.int16).max)


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """The ranges that augmented views are drawn from.

    Parameters
    ----------
    rotation : float, default=15.0
        The angle is drawn uniformly from ±`rotation` degrees, 0 to 180.
    zoom : float, default=0.1
        The scale is drawn uniformly from [1 − `zoom`, 1 + `zoom`], with `zoom` in [0, 1).
    flip : bool, default=True
        Whether views are mirrored left to right with probability 1/2.
    random_state : int, default=0
        The seed, 0 to 2³² − 1.

    Raises
    ------
    ParameterError
        If a parameter is out of range.

    Examples
    --------
    >>> Augmentation(rotation=10)
    Augmentation(rotation=10.0, zoom=0.1, flip=True, random_state=0)
    """

    rotation: float = 15.0
    zoom: float = 0.1
    flip: bool = True
    random_state: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.flip, (bool, np.bool)):
            raise ParameterError(f"flip {self.flip!r}; expected True or False")
        if not (_is_number(self.rotation, Real) and 0 <= self.rotation <= 180):
            raise ParameterError(f"rotation {self.rotation!r}; expected 0 to 180 degrees")
        if not (_is_number(self.zoom, Real) and 0 <= self.zoom < 1):
            raise ParameterError(f"zoom {self.zoom!r}; expected at least 0 and less than 1")
        if not (_is_number(self.random_state, Integral) and 0 <= self.random_state < 2**32):
            raise ParameterError(
                f"random_state {self.random_state!r}; expected an integer from 0 to {2**32 - 1}"
            )
        # Equal parameters must give the same JSON, whatever their types are.
        object.__setattr__(self, "rotation", float(self.rotation))
        object.__setattr__(self, "zoom", float(self.zoom))
        object.__setattr__(self, "flip", bool(self.flip))
        object.__setattr__(self, "random_state", int(self.random_state))

    def to_dict(self) -> dict[str, Any]:
        """Return the parameters as plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, parameters: Mapping[str, Any]) -> Self:
        """Make an augmentation from the result of `to_dict`.

        Parameters
        ----------
        parameters : mapping
            All four parameters by name.

        Raises
        ------
        ParameterError
            If a parameter is missing, unknown or out of range.
        """
        names = {field.name for field in fields(cls)}
        if set(parameters) != names:
            raise ParameterError(
                f"an augmentation of {sorted(parameters)}; expected {sorted(names)}"
            )
        return cls(**parameters)


def augment_pixels(
    pixels: npt.NDArray[np.uint8], *, sha256: bytes, view: int, augmentation: Augmentation
) -> npt.NDArray[np.uint8]:
    """Make one augmented view of a preprocessed image.

    The image is rotated, scaled and mirrored about its centre in one bilinear step; pixels from
    outside the image are black. The view depends on nothing but the arguments, so it is the same in
    any batch, process or order.

    Parameters
    ----------
    pixels : ndarray of shape (height, width, 3), uint8
        RGB, as `brainfeat.extraction.preprocessing.resize_pixels` returns it.
    sha256 : bytes
        SHA-256 of the image file, 32 bytes.
    view : int
        Number of the view, from 1; view 0 is the image itself.
    augmentation : Augmentation
        The ranges to draw from.

    Returns
    -------
    ndarray of shape (height, width, 3), uint8

    Raises
    ------
    ParameterError
        If a parameter is invalid.

    Examples
    --------
    >>> import hashlib
    >>> import numpy as np
    >>> pixels = np.zeros((4, 4, 3), np.uint8)
    >>> digest = hashlib.sha256(b"the bytes of the file").digest()
    >>> augment_pixels(pixels, sha256=digest, view=1, augmentation=Augmentation()).shape
    (4, 4, 3)
    """
    from PIL import Image

    if not isinstance(sha256, bytes) or len(sha256) != 32:
        raise ParameterError(f"sha256 {sha256!r}; expected 32 bytes")
    if not (_is_number(view, Integral) and 1 <= view <= VIEW_LIMIT):
        raise ParameterError(
            f"view {view!r}; expected 1 to {VIEW_LIMIT:,} (view 0 is the image itself)"
        )
    image = Image.fromarray(quantize_image(pixels))
    transformed = image.transform(
        image.size,
        Image.Transform.AFFINE,
        _matrix(image.size, *_draw(sha256, view, augmentation)),
        Image.Resampling.BILINEAR,
        fillcolor=(0, 0, 0),
    )
    return np.asarray(transformed)


def _is_number(value: object, kind: type) -> bool:
    """Return whether a value is a number of a kind; True and False are not."""
    return isinstance(value, kind) and not isinstance(value, bool)


def _draw(sha256: bytes, view: int, augmentation: Augmentation) -> tuple[float, float, bool]:
    """Draw the angle in degrees, the scale, and whether to mirror."""
    words = np.frombuffer(sha256, ">u4").tolist()
    seed = np.random.SeedSequence([augmentation.random_state, int(view), *words])
    # All three are always drawn, so that a change of one range does not change the other draws.
    turn, scale, flip = np.random.Generator(np.random.PCG64(seed)).random(3).tolist()
    return (
        (2 * turn - 1) * augmentation.rotation,
        1 + (2 * scale - 1) * augmentation.zoom,
        augmentation.flip and flip < 0.5,
    )


def _matrix(
    size: tuple[int, int], angle: float, scale: float, flip: bool
) -> tuple[float, float, float, float, float, float]:
    """Build Pillow's affine matrix, which maps positions in the result to those in the image."""
    cosine = math.cos(math.radians(angle)) / scale
    sine = math.sin(math.radians(angle)) / scale
    sign = -1 if flip else 1
    a, b, d, e = sign * cosine, sign * -sine, sine, cosine
    x, y = size[0] / 2, size[1] / 2
    return a, b, x - a * x - b * y, d, e, y - d * x - e * y
