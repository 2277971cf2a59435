"""One image to the grid of pixels that a backbone takes."""

import numpy as np
import numpy.typing as npt

from brainfeat.errors import ParameterError

FITS = ("stretch",)

_BLOCK_VALUES = 1_000_000  # rounded at once: a large image needs no second copy in float32


def preprocess_image(
    image: npt.NDArray[np.float32], *, size: int = 224, fit: str = "stretch"
) -> npt.NDArray[np.float32]:
    """Resize an image to a square of `size` pixels.

    The image is rounded to 8 bits and resized as RGB by Pillow, bilinear and antialiased, without
    regard to its proportions. For an 8-bit file this gives exactly the pixels of
    ``keras.utils.load_img(file, target_size=(size, size), interpolation="bilinear")`` divided by
    255.

    Parameters
    ----------
    image : ndarray of shape (height, width, 3), float32
        RGB in [0, 1], as `brainfeat.readers.read_image` gives it.
    size : int, default=224
        Height and width of the result in pixels.
    fit : {"stretch"}, default="stretch"
        How an image that is not square is made so.

    Returns
    -------
    ndarray of shape (size, size, 3), float32
        RGB in [0, 1].

    Raises
    ------
    ParameterError
        If a parameter is not as said above.

    Examples
    --------
    >>> import numpy as np
    >>> image = np.ones((300, 200, 3), np.float32)
    >>> preprocess_image(image, size=96).shape
    (96, 96, 3)
    """
    from PIL import Image

    if isinstance(size, bool) or not isinstance(size, (int, np.integer)) or size < 1:
        raise ParameterError(
            f"The size must be a whole number of pixels, at least 1. Got {size!r} instead."
        )
    if fit not in FITS:
        raise ParameterError(f"The fit must be one of {', '.join(FITS)}. Got {fit!r} instead.")
    pixels = quantize_image(image)
    if pixels.shape[:2] != (size, size):
        resized = Image.fromarray(pixels).resize((size, size), Image.Resampling.BILINEAR)
        pixels = np.asarray(resized)
    return scale_pixels(pixels)


def quantize_image(image: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """Round an image in [0, 1] to 8 bits.

    Parameters
    ----------
    image : ndarray of shape (height, width, 3), float32
        RGB in [0, 1].

    Returns
    -------
    ndarray of shape (height, width, 3), uint8

    Raises
    ------
    ParameterError
        If the image is not as said above.

    Examples
    --------
    >>> import numpy as np
    >>> quantize_image(np.full((1, 1, 3), 0.2, np.float32))
    array([[[51, 51, 51]]], dtype=uint8)
    """
    if not isinstance(image, np.ndarray) or image.dtype != np.float32:
        kind = image.dtype if isinstance(image, np.ndarray) else type(image).__name__
        raise ParameterError(f"The image must be an array of float32. Got {kind} instead.")
    if image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise ParameterError(
            f"The image must have the shape (height, width, 3). Got {image.shape} instead."
        )
    lowest, highest = image.min(), image.max()
    if not (lowest >= 0 and highest <= 1):  # not the other way round: a NaN must not pass
        raise ParameterError(
            f"The image must lie in [0, 1]. Got {lowest:g} to {highest:g} instead."
        )
    pixels = np.empty(image.shape, np.uint8)
    rows = max(1, _BLOCK_VALUES // (image.shape[1] * 3))
    for top in range(0, len(image), rows):
        block = image[top : top + rows] * np.float32(255)
        np.rint(block, out=block)
        pixels[top : top + rows] = block
    return pixels


def scale_pixels(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Scale 8-bit pixels to [0, 1].

    Parameters
    ----------
    pixels : ndarray, uint8

    Returns
    -------
    ndarray of the same shape, float32

    Examples
    --------
    >>> import numpy as np
    >>> scale_pixels(np.array([0, 255], np.uint8))
    array([0., 1.], dtype=float32)
    """
    return pixels.astype(np.float32) / np.float32(255)
