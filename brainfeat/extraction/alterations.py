"""Altered views of images, as scanners, exports and people alter them: what a head is tried on."""

import io
import math
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from numbers import Integral
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from brainfeat.errors import ParameterError
from brainfeat.extraction.cropping import crop_pixels

if TYPE_CHECKING:
    from PIL.Image import Image

Pixels = NDArray[np.uint8]
Generator = np.random.Generator
Alter = Callable[["Image", float, Generator], "Image"]

# Of an image whose longer side is more than this many times that of the base's input, a copy that
# is this large is altered: more detail cannot be seen after it is resized.
_LARGEST = 4
_BIAS_ORDER = 3


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A kind of alteration.

    Attributes
    ----------
    strengths : tuple of float
        From the smallest number to the largest.
    unit : str
        Of the strengths; ``""`` for a factor or an exponent, or where there is one strength.
    alter : callable
        From a Pillow image (L or RGB), a strength and a random generator to the altered image.
    resized : bool
        Whether it acts on the image that the base sees, after it was resized; otherwise on the
        image of the file.
    """

    strengths: tuple[float, ...]
    unit: str
    alter: Alter
    resized: bool = False


@dataclass(frozen=True, kw_only=True)
class Alteration:
    """One kind of alteration in one strength.

    Attributes
    ----------
    kind : str
    strength : float
    unit : str
        Of the strength; ``""`` for a factor or an exponent, or where there is one strength.
    """

    kind: str
    strength: float
    unit: str


@dataclass(frozen=True, kw_only=True)
class Alterations:
    """Which altered views are made of each image.

    What people and exports do to a file is done to the decoded 8-bit pixels of the file, before
    they are resized; what a scanner does is done to the resized pixels, so that a strength means
    the same for images of all sizes.

    Parameters
    ----------
    kinds : collection of str, optional
        ``"rotation"``, ``"shift"``, ``"crop"``, ``"scale"``, ``"aspect"``, ``"padding"``,
        ``"mirrored"``, ``"inverted"``, ``"jpeg"``, ``"gamma"``, ``"contrast"``, ``"bias-field"``,
        ``"noise"``, ``"blur"`` or ``"resolution"``; all without it.
    random_state : int, default=0
        The seed, 0 to 2³² − 1.

    Raises
    ------
    ParameterError
        A kind is unknown or there is none, or the seed is out of range.

    Examples
    --------
    >>> chosen = Alterations(kinds=["blur"])
    >>> [f"{one.kind} {one.strength:g} {one.unit}" for one in chosen.listed.values()][:2]
    ['blur 0.5 px', 'blur 1 px']
    """

    kinds: Collection[str] = ()
    random_state: int = 0

    def __post_init__(self) -> None:
        kinds = [self.kinds] if isinstance(self.kinds, str) else list(self.kinds)
        if unknown := [kind for kind in kinds if kind not in KINDS]:
            raise ParameterError(
                f"unknown kind of alteration {', '.join(map(repr, unknown))}; expected some of "
                f"{', '.join(KINDS)}"
            )
        seed = self.random_state
        is_number = isinstance(seed, Integral) and not isinstance(seed, bool)
        if not (is_number and 0 <= seed < 2**32):
            raise ParameterError(
                f"random_state {seed!r}; expected an integer from 0 to {2**32 - 1}"
            )
        object.__setattr__(self, "kinds", tuple(kind for kind in KINDS if kind in (kinds or KINDS)))
        object.__setattr__(self, "random_state", int(seed))

    @property
    def listed(self) -> dict[int, Alteration]:
        """The alteration of each view, by its number; a view has its number whatever is chosen."""
        return {view: one for view, one in _list_all().items() if one.kind in self.kinds}

    @property
    def views(self) -> tuple[int, ...]:
        """Number of each view that an image has; 0 is the image itself."""
        return (0, *self.listed)

    def to_dict(self) -> dict[str, Any]:
        """Describe all views for a cache, as plain values for JSON, whichever are chosen.

        Returns
        -------
        dict
            ``alterations``, a list of all alterations, of which the first is view 1; and
            ``random_state``.
        """
        return {
            "alterations": [vars(one) for one in _list_all().values()],
            "random_state": self.random_state,
        }

    def draw(
        self,
        pixels: Pixels,
        small: Pixels,
        *,
        sha256: bytes,
        views: Collection[int],
        crop: str = "",
    ) -> Iterator[tuple[int, Pixels]]:
        """Draw views of an image.

        A view depends on the image, its kind, its strength and the seed alone, so that it is the
        same in any order, thread or batch. All strengths of a kind share what is drawn at random.

        Parameters
        ----------
        pixels : ndarray of shape (height, width, 3), uint8
            The image as it was decoded.
        small : ndarray of shape (size, size, 3), uint8
            The image as the base sees it.
        sha256 : bytes
            SHA-256 of the image file, 32 bytes.
        views : collection of int
            Numbers of `views`.
        crop : str, default=""
            What is kept of an image before it is resized, as in the spec; it is searched in the
            altered image.

        Yields
        ------
        int
            The number of the view.
        ndarray of shape (size, size, 3), uint8
        """
        seen = _to_image(small)
        original = _reduce(pixels, largest=_LARGEST * len(small))
        words = np.frombuffer(sha256, ">u4").tolist()
        for view in views:
            if not view:
                yield view, small
                continue
            one = _list_all()[view]
            kind = KINDS[one.kind]
            seed = [self.random_state, *one.kind.encode(), *words]
            rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed)))
            altered = kind.alter(seen if kind.resized else original, one.strength, rng)
            if crop and not kind.resized:
                altered = _to_image(crop_pixels(np.asarray(altered.convert("RGB")), crop))
            yield view, _to_pixels(altered, side=len(small))


def _list_all() -> dict[int, Alteration]:
    """List all alterations, by the number of the view that is altered so."""
    return dict(
        enumerate(
            (
                Alteration(kind=name, strength=strength, unit=kind.unit)
                for name, kind in KINDS.items()
                for strength in kind.strengths
            ),
            start=1,
        )
    )


def _to_image(pixels: Pixels) -> "Image":
    """Make a Pillow image, one of a single channel where all three are equal, which is faster."""
    from PIL import Image

    grey = pixels[..., 0]
    is_grey = np.array_equal(grey, pixels[..., 1]) and np.array_equal(grey, pixels[..., 2])
    return Image.fromarray(np.ascontiguousarray(grey) if is_grey else pixels)


def _reduce(pixels: Pixels, *, largest: int) -> "Image":
    from PIL import Image

    image = _to_image(pixels)
    image.thumbnail((largest, largest), Image.Resampling.BILINEAR, reducing_gap=None)
    return image


def _to_pixels(image: "Image", *, side: int) -> Pixels:
    from PIL import Image

    if image.size != (side, side):
        image = image.resize((side, side), Image.Resampling.BILINEAR)
    return np.asarray(image.convert("RGB"))


# What people and exports do to a file.


def _rotate(image: "Image", degrees: float, rng: Generator) -> "Image":
    """Rotate about the centre, to either side; black comes in at the corners."""
    from PIL import Image

    side = 1 if rng.random() < 0.5 else -1
    return image.rotate(side * degrees, Image.Resampling.BICUBIC)


def _frame(image: "Image", left: float, top: float, width: float, height: float) -> "Image":
    """Show a window, given in widths and heights of the image; what is outside of it is black."""
    edges = (left, top, left + width, top + height)
    sides = (*image.size, *image.size)
    x, y, right, bottom = (round(edge * side) for edge, side in zip(edges, sides, strict=True))
    return image.crop((x, y, max(right, x + 1), max(bottom, y + 1)))


def _shift(image: "Image", percent: float, rng: Generator) -> "Image":
    """Move the image in any direction, by a percentage of its width and height."""
    angle, distance = 2 * math.pi * rng.random(), percent / 100
    return _frame(image, distance * math.cos(angle), distance * math.sin(angle), 1, 1)


def _crop(image: "Image", percent: float, rng: Generator) -> "Image":
    """Cut a percentage of the width and of the height away, divided between the sides."""
    cut = percent / 100
    left, top = cut * rng.random(2)
    return _frame(image, left, top, 1 - cut, 1 - cut)


def _pad(image: "Image", percent: float, rng: Generator) -> "Image":
    """Add a percentage of the width and of the height in black, divided between the sides."""
    added = percent / 100
    left, top = added * rng.random(2)
    return _frame(image, -left, -top, 1 + added, 1 + added)


def _scale(image: "Image", percent: float, _: Generator) -> "Image":
    """Show the image at a percentage of its size, centred in a frame that keeps its size."""
    side = 100 / percent
    return _frame(image, (1 - side) / 2, (1 - side) / 2, side, side)


def _squeeze(image: "Image", percent: float, rng: Generator) -> "Image":
    """Narrow the image to a percentage of its width or of its height, in the same frame."""
    side = 100 / percent
    if rng.random() < 0.5:
        return _frame(image, (1 - side) / 2, 0, side, 1)
    return _frame(image, 0, (1 - side) / 2, 1, side)


def _compress(image: "Image", quality: float, _: Generator) -> "Image":
    """Write the image as JPEG of a quality of 1 to 95, and read it again."""
    from PIL import Image

    written = io.BytesIO()
    image.save(written, "JPEG", quality=int(quality))
    return Image.open(written, formats=["JPEG"])


def _mirror(image: "Image", _: float, __: Generator) -> "Image":
    """Mirror left to right."""
    from PIL import ImageOps

    return ImageOps.mirror(image)


def _invert(image: "Image", _: float, __: Generator) -> "Image":
    """Show black as white and white as black."""
    from PIL import ImageChops

    return ImageChops.invert(image)


# What scanners and viewers do, on the pixels that the base sees.


def _raise(image: "Image", gamma: float, _: Generator) -> "Image":
    """Raise grey values in [0, 1] to a power."""
    curve = np.rint(255 * (np.arange(256) / 255) ** gamma).astype(int).tolist()
    return image.point(curve * len(image.getbands()))


def _stretch(image: "Image", factor: float, _: Generator) -> "Image":
    """Multiply the distances of grey values from their mean."""
    from PIL import ImageEnhance

    return ImageEnhance.Contrast(image).enhance(factor)


def _shade(image: "Image", percent: float, rng: Generator) -> "Image":
    """Multiply by a smooth field, a polynomial of order 3 in both coordinates.

    The field of a receive coil is commonly modelled by a polynomial of low order (Van Leemput et
    al. 1999, IEEE Trans Med Imaging 18:885). As in BrainWeb (Kwan et al. 1999, IEEE Trans Med
    Imaging 18:1085), 40 % is a field from 0.8 to 1.2.
    """
    width, height = image.size
    x, y = np.linspace(-1, 1, width), np.linspace(-1, 1, height)
    n = _BIAS_ORDER + 1
    weights = rng.standard_normal((n, n))
    weights[np.add.outer(np.arange(n), np.arange(n)) > _BIAS_ORDER] = 0
    weights[0, 0] = 0
    field = np.polynomial.polynomial.polygrid2d(y, x, weights)
    low, high = field.min(), field.max()
    field = 1 + percent / 100 * ((field - low) / max(high - low, 1e-12) - 0.5)
    return _change(image, lambda values: values * field.astype(np.float32))


def _add_noise(image: "Image", percent: float, rng: Generator) -> "Image":
    """Add the noise of a magnitude image, with a percentage of the range as standard deviation.

    The magnitude of a signal A with Gaussian noise in both channels, sqrt((A + n₁)² + n₂²), has
    the distribution of Rice (Gudbjartsson & Patz 1995, MRM 34:910, eq. 1), whose mean
    is σ·sqrt(π/2) where there is no signal.
    """
    sigma = np.float32(255 * percent / 100)
    real, imaginary = sigma * rng.standard_normal((2, *image.size[::-1]), np.float32)
    return _change(image, lambda values: np.hypot(values + real, imaginary))


def _change(image: "Image", function: Callable[[Any], Any]) -> "Image":
    """Change the values of each channel by a function, and round them to 8 bits."""
    from PIL import Image

    values = np.asarray(image, np.float32)
    channels = values if values.ndim == 2 else np.moveaxis(values, -1, 0)
    changed = np.clip(np.rint(function(channels)), 0, 255).astype(np.uint8)
    whole = changed if values.ndim == 2 else np.moveaxis(changed, 0, -1)
    return Image.fromarray(np.ascontiguousarray(whole))


def _blur(image: "Image", pixels: float, _: Generator) -> "Image":
    """Blur with a Gaussian of a standard deviation in pixels of the base's input."""
    from PIL import ImageFilter

    return image.filter(ImageFilter.GaussianBlur(pixels))


def _coarsen(image: "Image", percent: float, _: Generator) -> "Image":
    """Reduce to a percentage of the base's input in both directions, and enlarge again."""
    from PIL import Image

    width, height = (max(1, round(side * percent / 100)) for side in image.size)
    reduced = image.resize((width, height), Image.Resampling.BILINEAR)
    return reduced.resize(image.size, Image.Resampling.BILINEAR)


# A new kind, or a change of strengths, changes the numbers of views and with them `to_dict`; rows
# of caches that were drawn otherwise are then computed again.
KINDS: dict[str, Kind] = {
    "rotation": Kind(strengths=(3, 5, 10, 15, 30), unit="°", alter=_rotate),
    "shift": Kind(strengths=(3, 5, 10, 15, 20), unit="%", alter=_shift),
    "crop": Kind(strengths=(5, 10, 15, 20, 30), unit="%", alter=_crop),
    "scale": Kind(strengths=(60, 75, 90, 110, 125), unit="%", alter=_scale),
    "aspect": Kind(strengths=(60, 70, 80, 90, 95), unit="%", alter=_squeeze),
    "padding": Kind(strengths=(5, 10, 20, 40, 60), unit="%", alter=_pad),
    "mirrored": Kind(strengths=(1,), unit="", alter=_mirror),
    "inverted": Kind(strengths=(1,), unit="", alter=_invert),
    "jpeg": Kind(strengths=(10, 20, 30, 50, 70), unit="quality", alter=_compress),
    "gamma": Kind(strengths=(0.5, 0.7, 0.85, 1.4, 2), unit="", alter=_raise, resized=True),
    "contrast": Kind(strengths=(0.6, 0.75, 0.9, 1.25, 1.5), unit="", alter=_stretch, resized=True),
    "bias-field": Kind(strengths=(20, 40, 60, 80, 100), unit="%", alter=_shade, resized=True),
    "noise": Kind(strengths=(1, 3, 5, 7, 9), unit="%", alter=_add_noise, resized=True),
    "blur": Kind(strengths=(0.5, 1, 1.5, 2, 3), unit="px", alter=_blur, resized=True),
    "resolution": Kind(strengths=(10, 25, 40, 50, 75), unit="%", alter=_coarsen, resized=True),
}
