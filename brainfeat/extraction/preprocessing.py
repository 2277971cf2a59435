"""Images become the square grid of pixels that a backbone takes."""

import numpy as np
import numpy.typing as npt

from brainfeat.errors import ParameterError
from brainfeat.extraction.cropping import crop_pixels

FITS = ("stretch",)

_BLOCK_VALUES = 1_000_000  # rounded at once, so that no second copy in float32 is needed


def preprocess_image(
    image: npt.NDArray[np.float32 | np.uint8],
    *,
    size: int = 224,
    fit: str = "stretch",
    crop: str = "",
) -> npt.NDArray[np.float32]:
    """Resize an image to a square of `size` pixels.

    The image is rounded to 8 bits, cropped, and resized by Pillow as RGB, bilinear and antialiased;
    its aspect ratio is not kept. Without a crop, this gives for an 8-bit file exactly the pixels of
    ``keras.utils.load_img(file, target_size=(size, size), interpolation="bilinear")`` divided by
    255.

    Parameters
    ----------
    image : ndarray of shape (height, width, 3), float32 or uint8
        RGB in [0, 1], as `brainfeat.readers.read_image` returns it, or in 8 bits.
    size : int, default=224
        Height and width of the result in pixels.
    fit : {"stretch"}, default="stretch"
        How an image that is not square becomes square.
    crop : str, default=""
        What the image is cropped to, as the spec has it; see
        :data:`brainfeat.extraction.cropping.CROPS`.

    Returns
    -------
    ndarray of shape (size, size, 3), float32
        RGB in [0, 1].

    Raises
    ------
    ParameterError
        If a parameter is invalid.

    Examples
    --------
    >>> import numpy as np
    >>> image = np.ones((300, 200, 3), np.float32)
    >>> preprocess_image(image, size=96).shape
    (96, 96, 3)
    """
    pixels = crop_pixels(quantize_image(image), crop)
    return scale_pixels(resize_pixels(pixels, size=size, fit=fit))


def resize_pixels(
    pixels: npt.NDArray[np.uint8], *, size: int, fit: str = "stretch"
) -> npt.NDArray[np.uint8]:
    """Resize 8-bit pixels to a square, as `preprocess_image` does.

    Parameters
    ----------
    pixels : ndarray of shape (height, width, 3), uint8
        As `quantize_image` returns them.
    size : int
        Height and width of the result in pixels.
    fit : {"stretch"}, default="stretch"
        How an image that is not square becomes square.

    Returns
    -------
    ndarray of shape (size, size, 3), uint8
        `pixels` itself where it has that shape.

    Raises
    ------
    ParameterError
        If a parameter is invalid.

    Examples
    --------
    >>> import numpy as np
    >>> resize_pixels(np.zeros((300, 200, 3), np.uint8), size=96).shape
    (96, 96, 3)
    """
    from PIL import Image

    if isinstance(size, bool) or not isinstance(size, (int, np.integer)) or size < 1:
        raise ParameterError(f"size {size!r}; expected a whole number of pixels, at least 1")
    if fit not in FITS:
        raise ParameterError(f"unknown fit {fit!r}; expected one of {', '.join(FITS)}")
    if pixels.shape[:2] == (size, size):
        return pixels
    # Channels are resized one by one; where all are equal, as in most slices, one is enough.
    grey = pixels[..., 0]
    is_grey = np.array_equal(grey, pixels[..., 1]) and np.array_equal(grey, pixels[..., 2])
    image = Image.fromarray(np.ascontiguousarray(grey) if is_grey else pixels)
    small = np.asarray(image.resize((size, size), Image.Resampling.BILINEAR))
    return repeat_grey(small) if is_grey else small


def repeat_grey(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Show a grey image as RGB, without a copy: the three channels are one array.

    Each channel is resized alike, so that `resize_pixels` resizes such an image once.

    Parameters
    ----------
    pixels : ndarray of shape (height, width), uint8

    Returns
    -------
    ndarray of shape (height, width, 3), uint8
        A view that cannot be written to.

    Examples
    --------
    >>> import numpy as np
    >>> repeat_grey(np.array([[7]], np.uint8))
    array([[[7, 7, 7]]], dtype=uint8)
    """
    return np.broadcast_to(pixels[..., None], (*pixels.shape, 3))


def quantize_image(image: npt.NDArray[np.float32 | np.uint8]) -> npt.NDArray[np.uint8]:
    """Round an image in [0, 1] to 8 bits.

    Parameters
    ----------
    image : ndarray of shape (height, width, 3), float32 or uint8
        RGB in [0, 1]; or in 8 bits, which is returned as it is.

    Returns
    -------
    ndarray of shape (height, width, 3), uint8

    Raises
    ------
    ParameterError
        If the image is of another type or shape, or has values outside [0, 1].

    Examples
    --------
    >>> import numpy as np
    >>> quantize_image(np.full((1, 1, 3), 0.2, np.float32))
    array([[[51, 51, 51]]], dtype=uint8)
    """
    if not isinstance(image, np.ndarray) or image.dtype not in (np.float32, np.uint8):
        kind = image.dtype if isinstance(image, np.ndarray) else type(image).__name__
        raise ParameterError(f"an image of {kind}; expected an array of float32 or uint8")
    if image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise ParameterError(f"an image of shape {image.shape}; expected (height, width, 3)")
    if image.dtype == np.uint8:
        return image.view(np.uint8)
    lowest, highest = image.min(), image.max()
    if not (lowest >= 0 and highest <= 1):  # written so that a NaN does not pass
        raise ParameterError(
            f"an image with values from {lowest:g} to {highest:g}; expected [0, 1]"
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
