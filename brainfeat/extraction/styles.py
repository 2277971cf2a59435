"""Styles of images: the low frequencies, or the grey values, of one image are given to another."""

import math
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt

from brainfeat.errors import ParameterError

FOURIER = "fourier"
HISTOGRAM = "histogram"
KINDS = (FOURIER, HISTOGRAM)

Pixels = npt.NDArray[np.uint8]
# What of a target image its style consists of, as `Style.read_target` returns it.
Target = npt.NDArray[np.float64]

_LEVELS = 256


class Style(NamedTuple):
    """How an image is given the style of a target image.

    Attributes
    ----------
    kind : {"fourier", "histogram"}
        The amplitudes of low frequencies, or the histogram.
    beta : float
        Of a Fourier style: half the width of the window of frequencies whose amplitudes are those
        of the target, as a fraction of the height and of the width, above 0 and up to 0.5; 0 for
        histograms.

    Examples
    --------
    >>> Style.parse("fourier:0.05")
    Style(kind='fourier', beta=0.05)
    >>> str(Style.parse("histogram"))
    'histogram'
    """

    kind: str
    beta: float = 0.0

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a style from its text.

        Parameters
        ----------
        text : str
            ``"fourier:BETA"`` or ``"histogram"``.

        Raises
        ------
        ParameterError
            If it is not such a text.
        """
        kind, colon, number = text.partition(":") if isinstance(text, str) else ("", "", "")
        if kind == HISTOGRAM and not colon:
            return cls(kind)
        try:
            beta = float(number)
        except ValueError:
            beta = math.nan
        if kind != FOURIER or not 0 < beta <= 0.5:
            raise ParameterError(
                f"style {text!r:.80}; expected histogram, or fourier:BETA with a BETA above 0 and"
                " up to 0.5, such as fourier:0.05"
            )
        return cls(kind, beta)

    def __str__(self) -> str:
        return f"{self.kind}:{self.beta!r}" if self.kind == FOURIER else self.kind

    def check_size(self, size: int) -> None:
        """Refuse a window without a frequency, which would leave images as they are.

        Parameters
        ----------
        size : int
            Height and width of the images in pixels.

        Raises
        ------
        ParameterError
            If there is none.
        """
        if self.kind == FOURIER and not math.floor(self.beta * size):
            raise ParameterError(
                f"style {self} changes no frequency of images of {size} pixels; expected a BETA of"
                f" 1/{size} or more, {1 / size:.2g}"
            )

    def read_target(self, pixels: Pixels) -> Target:
        """Take what a style needs of a target image, which is little.

        Parameters
        ----------
        pixels : ndarray of shape (height, width, 3), uint8

        Returns
        -------
        ndarray of shape (c, …), float64
            Of one channel where all three are equal.
        """
        channels = _split_channels(pixels)
        if self.kind == HISTOGRAM:
            return np.stack([_count_values(channel) for channel in channels])
        return np.stack([_measure_amplitudes(channel, self.beta) for channel in channels])

    def apply(self, pixels: Pixels, target: Target) -> Pixels:
        """Give an image the style of a target image of the same shape.

        Parameters
        ----------
        pixels : ndarray of shape (height, width, 3), uint8
        target : ndarray
            As `read_target` returns it.

        Returns
        -------
        ndarray of shape (height, width, 3), uint8
            New pixels, or a view of one channel as three.
        """
        channels = _split_channels(pixels)
        number = max(len(channels), len(target))
        pairs = [(channels[n % len(channels)], target[n % len(target)]) for n in range(number)]
        if self.kind == HISTOGRAM:
            changed = [_match(channel, counts) for channel, counts in pairs]
        else:
            changed = [_replace(channel, amplitudes, self.beta) for channel, amplitudes in pairs]
        if number == 1:
            return np.broadcast_to(changed[0][..., None], pixels.shape)
        return np.stack(changed, axis=-1)


def transfer_fourier(pixels: Pixels, target: Pixels, *, beta: float) -> Pixels:
    """Give an image the amplitudes of a target's low frequencies, and keep its phases.

    With the discrete Fourier transform of each channel, the amplitudes at the frequencies
    ``|u| ≤ ⌊beta · height⌋`` and ``|v| ≤ ⌊beta · width⌋`` become those of the target. The result is
    rounded and clipped to 8 bits. Where both are below 1, the image stays as it is.

    Parameters
    ----------
    pixels, target : ndarray of shape (height, width, 3), uint8
        The image and the one whose style it is given, of one shape.
    beta : float
        Above 0 and up to 0.5.

    Returns
    -------
    ndarray of shape (height, width, 3), uint8

    Raises
    ------
    ParameterError
        If `beta` is out of range, or the shapes differ.

    References
    ----------
    Y. Yang and S. Soatto, "FDA: Fourier Domain Adaptation for Semantic Segmentation", CVPR 2020,
    equations 1 to 3.

    Examples
    --------
    >>> pixels = np.full((8, 8, 3), 40, np.uint8)
    >>> int(transfer_fourier(pixels, pixels * 3, beta=0.2).max())
    120
    """
    return _transfer(pixels, target, Style.parse(f"{FOURIER}:{beta!r}"))


def match_histogram(pixels: Pixels, target: Pixels) -> Pixels:
    """Give an image the histogram of a target image, channel by channel.

    A value becomes the one at its quantile in the target, linearly interpolated between the values
    that the target has, and rounded. Values of one pixel stay in their order.

    Parameters
    ----------
    pixels, target : ndarray of shape (height, width, 3), uint8
        The image and the one whose histogram it is given, of one shape.

    Returns
    -------
    ndarray of shape (height, width, 3), uint8

    Raises
    ------
    ParameterError
        If the shapes differ.

    References
    ----------
    R. C. Gonzalez and R. E. Woods, "Digital Image Processing", section "Histogram matching".

    Examples
    --------
    >>> pixels = np.repeat(np.uint8([[0, 10], [20, 30]])[..., None], 3, axis=2)
    >>> match_histogram(pixels, pixels + 100)[..., 0].tolist()
    [[100, 110], [120, 130]]
    """
    return _transfer(pixels, target, Style(HISTOGRAM))


def _transfer(pixels: Pixels, target: Pixels, style: Style) -> Pixels:
    for image in (pixels, target):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
            raise ParameterError(
                f"an image of {image.dtype} and shape {image.shape}; expected uint8 and"
                " (height, width, 3)"
            )
    if pixels.shape != target.shape:
        raise ParameterError(
            f"an image of shape {pixels.shape} and a target of shape {target.shape}; expected the"
            " same; resize the target"
        )
    return style.apply(pixels, style.read_target(target))


def _split_channels(pixels: Pixels) -> Pixels:
    """Return the channels of an image, or one where all are equal, as in most slices."""
    channels = np.moveaxis(pixels, 2, 0)
    is_grey = (channels[0] == channels[1]).all() and (channels[0] == channels[2]).all()
    return channels[:1] if is_grey else channels


def _count_values(channel: Pixels) -> Target:
    return np.bincount(channel.ravel(), minlength=_LEVELS).astype(np.float64)


def _match(channel: Pixels, counts: Target) -> Pixels:
    quantiles = np.cumsum(_count_values(channel)) / channel.size
    values = np.flatnonzero(counts)
    expected = (np.cumsum(counts) / counts.sum())[values]
    matched: Pixels = np.rint(np.interp(quantiles, expected, values)).astype(np.uint8)[channel]
    return matched


def _measure_amplitudes(channel: Pixels, beta: float) -> Target:
    rows, columns = _find_window(channel.shape, beta)
    return np.abs(_transform(channel)[rows, :columns])


def _replace(channel: Pixels, amplitudes: Target, beta: float) -> Pixels:
    rows, columns = _find_window(channel.shape, beta)
    if len(rows) == columns == 1:
        return channel
    transformed = _transform(channel)
    window = transformed[rows, :columns]
    own = np.abs(window)
    # Where an amplitude is 0, there is no phase; it is taken as 0.
    phases = np.divide(window, own, out=np.ones_like(window), where=own > 0)
    transformed[rows, :columns] = amplitudes * phases
    restored = np.fft.irfft2(transformed, channel.shape)
    return np.clip(np.rint(restored, out=restored), 0, _LEVELS - 1).astype(np.uint8)


def _transform(channel: Pixels) -> npt.NDArray[np.complex128]:
    """Transform a channel; the frequencies of the other half mirror those of this one."""
    # In float64, so that what differs between machines is far below what rounding to 8 bits shows.
    return np.fft.rfft2(channel.astype(np.float64))


def _find_window(shape: tuple[int, ...], beta: float) -> tuple[npt.NDArray[np.intp], int]:
    """Find the rows of the low frequencies in a transformed channel, and how many columns."""
    height, width = shape
    frequencies = np.fft.fftfreq(height, 1 / height)
    rows = np.flatnonzero(np.abs(frequencies) <= math.floor(beta * height))
    return rows, math.floor(beta * width) + 1
