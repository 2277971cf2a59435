"""Image files and slices on their way through a base: each is read once, and keeps its place."""

import hashlib
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from brainfeat.cache.signature import compute_signature
from brainfeat.cache.spec import FeatureSpec
from brainfeat.errors import ImageReadError, SpecMismatchError
from brainfeat.extraction.inputs import hash_slice
from brainfeat.extraction.pipeline import BatchComputer, map_ahead
from brainfeat.extraction.preprocessing import quantize_image
from brainfeat.prediction.joined_bases import HeadInputs
from brainfeat.readers import ImageBytes, read_bytes, read_pixels
from brainfeat.readers.held import HeldImage
from brainfeat.readers.series import Inputs
from brainfeat.readers.volumes import Slice, SlicePolicy, grey_image
from brainfeat.runtime import Forward

# Images that are decoded ahead of the base.
_AHEAD = 16

Floats = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, eq=False)
class InputImage:
    """An image or a slice, or why it cannot be read.

    Attributes
    ----------
    name : str
        The path, or the number of the volume or of the image in memory.
    frame : int or None
        Number of the slice in its volume.
    image : ndarray of shape (s, s, 3), float32, or None
        As the base sees it, RGB in [0, 1]; for bases that see different things, (p, 3), the pixels
        of one after another.
    pixels : ndarray of shape (h, w, 3), uint8, or None
        As it was read; None where that is not kept.
    sha256 : bytes or None
        Digest of the file or slice; None for an image in memory.
    signature : ndarray of shape (1936,), int8, or None
        As in :func:`brainfeat.cache.signature.compute_signature`; None where it was not wanted.
    error : str or None
        Why it cannot be read.
    """

    name: str
    frame: int | None = None
    image: Floats | None = None
    pixels: NDArray[np.uint8] | None = None
    sha256: bytes | None = None
    signature: NDArray[np.int8] | None = None
    error: str | None = None


@dataclass
class ImageCounter:
    """Counts images that are done, and those that are known."""

    progress: Callable[[int, int], None] | None
    total: int = 0
    done: int = 0

    def add(self, number: int) -> None:
        """Report that some more are done."""
        self.done += number
        if self.progress is not None:
            self.progress(self.done, self.total)


def choose_policy(
    spec: FeatureSpec,
    *,
    slices: str | None = None,
    window: str | None = None,
    orientation: str | None = None,
    volume: int | None = None,
) -> SlicePolicy:
    """Choose how volumes become images: as those that the head was fitted on.

    Parameters
    ----------
    spec : FeatureSpec
        Of the head.
    slices, window, orientation : str or None
    volume : int or None
        As in :class:`brainfeat.SlicePolicy`; None takes what the spec has. Other slices than those
        of the spec may be chosen, and another volume of several, since the same sequence can be
        in another place. Another window or orientation changes the pixels, and is refused where
        the spec has one.

    Returns
    -------
    SlicePolicy

    Raises
    ------
    SpecMismatchError
        The window or the orientation is another one.
    ParameterError
        An option is not valid.

    Examples
    --------
    >>> from brainfeat.cache.spec import FeatureSpec
    >>> spec = FeatureSpec(
    ...     backbone="vgg16", layer="block5_pool", n_features=512, weights_sha256="0" * 64
    ... )
    >>> choose_policy(spec, slices="middle").slices
    'middle'
    """
    fitted = SlicePolicy.parse(spec.volumes) if spec.volumes else SlicePolicy()
    policy = SlicePolicy(
        slices=slices or fitted.slices,
        window=window or fitted.window,
        orientation=orientation or fitted.orientation,
        volume=fitted.volume if volume is None else volume,
    )
    for name in ("window", "orientation") if spec.volumes else ():
        given, kept = getattr(policy, name), getattr(fitted, name)
        if given != kept:
            raise SpecMismatchError(
                f"the {name} is {given}, and the head was fitted on slices in the {name} {kept}; "
                f"leave the {name} out"
            )
    return policy


def count_images(inputs: Inputs) -> int | None:
    """Return the number of images, or None where there are volumes: their slices are not known."""
    return None if inputs.series else len(inputs.images)


def read_images(
    sources: Sequence[Path | HeldImage],
    inputs: HeadInputs,
    *,
    keep_pixels: bool,
    sign: bool,
    n_jobs: int,
) -> Iterator[InputImage]:
    """Read and preprocess image files, and images in memory, in threads, in their order.

    Parameters
    ----------
    sources : sequence of Path or HeldImage
    inputs : HeadInputs
        How images are preprocessed.
    keep_pixels : bool
        Whether the pixels are kept, besides what the base sees.
    sign : bool
        Whether signatures are computed.
    n_jobs : int
        Threads.

    Yields
    ------
    InputImage
    """

    def read(place: int) -> InputImage:
        source, digest = sources[place], None
        name = source.name if isinstance(source, HeldImage) else os.fspath(source)
        try:
            if isinstance(source, HeldImage):
                image = source.read(value_range=inputs.value_range)
            else:
                data = read_bytes(source, name=name)
                digest = hashlib.sha256(data).digest()
                image = read_pixels(ImageBytes(data), name=name, value_range=inputs.value_range)
        except ImageReadError as error:
            return InputImage(name=name, error=error.reason)
        # As bytes, which pictures show: many images wait for the base at once.
        pixels = quantize_image(image)
        return InputImage(
            name=name,
            image=inputs.prepare(pixels),
            pixels=pixels if keep_pixels else None,
            sha256=digest,
            signature=compute_signature(pixels) if sign else None,
        )

    return map_ahead(read, range(len(sources)), n_jobs=n_jobs, ahead=_AHEAD)


def prepare_slices(
    slices: Iterable[Slice], inputs: HeadInputs, *, name: str, keep_pixels: bool, sign: bool
) -> Iterator[InputImage]:
    """Preprocess the slices of a volume, as :func:`read_images` does with their PNG files.

    Parameters
    ----------
    slices : iterable of Slice
    inputs : HeadInputs
    name : str
        Of the volume.
    keep_pixels, sign : bool

    Yields
    ------
    InputImage
    """
    for frame, pixels in slices:
        yield InputImage(
            name=name,
            frame=frame,
            image=inputs.prepare(grey_image(pixels)),
            pixels=np.repeat(pixels[..., None], 3, axis=2) if keep_pixels else None,
            sha256=hash_slice(pixels),
            signature=compute_signature(pixels) if sign else None,
        )


def compute_features(
    images: Iterable[InputImage],
    copies: Sequence[Forward],
    *,
    batch_size: int,
    inputs: HeadInputs,
    width: int,
) -> Iterator[tuple[list[InputImage], Floats]]:
    """Compute features in batches, and yield each as soon as it is known.

    Parameters
    ----------
    images : iterable of InputImage
    copies : sequence of callable
        As :func:`brainfeat.extraction.feature_extractors.compile_copies` returns them.
    batch_size : int
        Images that are computed at once.
    inputs : HeadInputs
        How images were preprocessed.
    width : int
        Columns of a row that the base computes.

    Yields
    ------
    list of InputImage
        The next images in their order, those that cannot be read among them. What the base sees is
        dropped from those whose pixels were not kept.
    ndarray of shape (m, width), float32
        What the base computes of those that can be read.
    """
    order: deque[InputImage] = deque()
    ready: deque[tuple[list[InputImage], Floats]] = deque()

    def receive(batch: list[InputImage], features: Floats) -> None:
        group = [order.popleft()]
        while group[-1] is not batch[-1]:
            group.append(order.popleft())
        ready.append((group, features))

    computer: BatchComputer[InputImage] = BatchComputer(
        copies,
        batch_size=batch_size,
        image_shape=inputs.shape,
        n_features=width,
        receive=receive,
    )
    try:
        for entry in images:
            kept = entry if entry.pixels is not None else replace(entry, image=None)
            order.append(kept)
            if entry.image is not None:
                computer.add(kept, quantize_image(entry.image))
            while ready:
                yield ready.popleft()
        computer.finish()
    finally:
        computer.close()
    yield from ready
    if order:
        yield list(order), np.empty((0, width), np.float32)
