"""Augmented views of training images: rotated, scaled, mirrored, and in the style of others."""

import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from numbers import Integral, Real
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from brainfeat.errors import ParameterError
from brainfeat.extraction.preprocessing import quantize_image
from brainfeat.extraction.styles import Style

VIEW_LIMIT = int(np.iinfo(np.int16).max)

SOURCE = "source"

# What the record of an augmentation without a style has.
_PLAIN = ("rotation", "zoom", "flip", "random_state")
_DIGEST = re.compile(r"[0-9a-f]{64}")


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
    style : str or None
        The style that views are given before they are rotated, scaled and mirrored:
        ``"fourier:BETA"`` or ``"histogram"``
        (:class:`brainfeat.extraction.styles.Style`); None leaves them as they are.
    style_from : str, default="source"
        Whose style: ``"source"``, a training image of another source; ``"source:NAME"``, one of
        the source of this name.
    style_targets : str or None
        SHA-256 of the set of these images, which :func:`brainfeat.extract` fills in; if it is
        given, they must be these.

    Raises
    ------
    ParameterError
        If a parameter is out of range.

    Examples
    --------
    >>> Augmentation(rotation=10).to_dict()
    {'rotation': 10.0, 'zoom': 0.1, 'flip': True, 'random_state': 0}
    """

    rotation: float = 15.0
    zoom: float = 0.1
    flip: bool = True
    random_state: int = 0
    style: str | None = None
    style_from: str = SOURCE
    style_targets: str | None = None

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
        if self.style is not None:
            object.__setattr__(self, "style", str(Style.parse(self.style)))
        self._check_style()

    def _check_style(self) -> None:
        kind, colon, name = str(self.style_from).partition(":")
        if kind != SOURCE or bool(colon) != bool(name):
            raise ParameterError(
                f"style_from {self.style_from!r:.80}; expected source, or source:NAME"
            )
        if self.style is None and (self.style_from, self.style_targets) != (SOURCE, None):
            raise ParameterError(
                'style_from or style_targets is given without a style; pass style="histogram" or '
                'style="fourier:BETA", too'
            )
        if not (self.style_targets is None or _DIGEST.fullmatch(str(self.style_targets))):
            raise ParameterError(
                f"style_targets {self.style_targets!r:.80}; expected 64 hexadecimal digits, or None"
            )

    def to_dict(self) -> dict[str, Any]:
        """Return the parameters as plain values for JSON; those of a style where there is one."""
        found = asdict(self)
        return found if self.style is not None else {name: found[name] for name in _PLAIN}

    @classmethod
    def from_dict(cls, parameters: Mapping[str, Any]) -> Self:
        """Make an augmentation from the result of `to_dict`.

        Parameters
        ----------
        parameters : mapping
            All parameters by name, without those of a style where there is none.

        Raises
        ------
        ParameterError
            If a parameter is missing, unknown or out of range.
        """
        names = {field.name for field in fields(cls)} if "style" in parameters else {*_PLAIN}
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
