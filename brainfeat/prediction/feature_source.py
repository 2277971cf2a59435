"""FeatureSource: images and volumes to predict, their features, and how a head has seen them."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from brainfeat.extraction.feature_extractors import FeatureExtractor
from brainfeat.heads.bags import pool_all
from brainfeat.heads.bundle import HeadBundle
from brainfeat.heads.maps import MapRows
from brainfeat.prediction.answers import Seen
from brainfeat.prediction.computed_features import count_columns, take_features
from brainfeat.prediction.images import (
    ImageCounter,
    InputImage,
    compute_features,
    prepare_slices,
    read_images,
)
from brainfeat.prediction.joined_bases import HeadInputs, JoinedBases, compile_bases
from brainfeat.prediction.recognition import recognise
from brainfeat.readers.series import Inputs, Series, read_volume
from brainfeat.readers.volumes import SlicePolicy, cut_slices

Floats = NDArray[np.float32]


class CutVolume(NamedTuple):
    """The slices of a volume, and what identifies its patient by its reader."""

    images: Iterator[InputImage]
    number: int
    patient: str


@dataclass(frozen=True, kw_only=True, eq=False)
class FeatureSource:
    """What reads images and computes their features.

    Attributes
    ----------
    bundle : HeadBundle
        Its specs determine how images are preprocessed.
    backbone : callable
        The base, or several.
    policy : SlicePolicy
        How volumes become images.
    allow_burned_in : bool
        Whether DICOM files that may show a name in their pixels are read.
    n_images : int or None
        The largest number of images, if that is known.
    """

    bundle: HeadBundle
    backbone: FeatureExtractor | JoinedBases
    policy: SlicePolicy
    allow_burned_in: bool
    n_images: int | None

    @property
    def _inputs(self) -> HeadInputs:
        return HeadInputs.of(self.bundle.specs)

    @property
    def _signs(self) -> bool:
        fitted = self.bundle.fitted_images
        return fitted is not None and fitted.signature is not None

    def read(self, inputs: Inputs, *, keep_pixels: bool, n_jobs: int) -> Iterator[InputImage]:
        """Read image files, and images in memory, as in :func:`read_images`."""
        return read_images(
            inputs.images,
            self._inputs,
            keep_pixels=keep_pixels,
            sign=self._signs,
            n_jobs=n_jobs,
        )

    def cut(self, series: Series, counter: ImageCounter, *, keep_pixels: bool = False) -> CutVolume:
        """Cut a volume into slices.

        Raises
        ------
        ImageReadError
            It cannot be read.
        """
        volume = read_volume(series, policy=self.policy, allow_burned_in=self.allow_burned_in)
        slices = list(cut_slices(volume, self.policy))
        counter.total += len(slices)
        images = prepare_slices(
            slices,
            self._inputs,
            name=series.name,
            keep_pixels=keep_pixels,
            sign=self._signs,
        )
        return CutVolume(images, len(slices), volume.patient)

    def compute(
        self, images: Iterable[InputImage], number: int, counter: ImageCounter
    ) -> Iterator[tuple[list[InputImage], Floats | MapRows, list[Seen | None]]]:
        """Compute features in batches.

        Yields
        ------
        list of InputImage
            The next images in their order, those that cannot be read among them.
        ndarray of shape (m, d), float32, or MapRows
            Features of those that can be read; maps for a head of maps.
        list of Seen or None
            How the head has seen each image.
        """
        copies, preferred = compile_bases(self.backbone, n_images=self.n_images)
        batch_size = max(1, min(preferred, number))
        spec = self.bundle.spec
        for entries, rows in compute_features(
            images,
            copies,
            batch_size=batch_size,
            inputs=self._inputs,
            width=count_columns(spec, self.backbone),
        ):
            seen = recognise(entries, self.bundle.fitted_images)
            counter.add(len(rows))
            yield entries, take_features(spec, self.backbone, rows), seen

    def compute_each(
        self, images: Iterable[InputImage], number: int, counter: ImageCounter
    ) -> Iterator[tuple[InputImage, Floats | None, Seen | None]]:
        """Yield each image with its vector, None where it cannot be read, and how it was seen."""
        for entries, features, seen in self.compute(images, number, counter):
            vectors = iter(pool_all(features))
            for entry, how in zip(entries, seen, strict=True):
                yield entry, None if entry.error is not None else next(vectors), how
