"""What a run of stage one is asked to do."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from brainfeat.cache.spec import OLD_MEANINGS, FeatureSpec
from brainfeat.errors import SpecMismatchError
from brainfeat.extraction.alterations import Alterations
from brainfeat.extraction.augmentation import Augmentation, augment_pixels
from brainfeat.extraction.styles import Pixels
from brainfeat.tables.origin import Origin
from brainfeat.tables.rows import Row
from brainfeat.tables.table import ImageTable
from brainfeat.tables.volume_table import VolumeTable

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True, kw_only=True)
class Task:
    """What a run is asked to do, as :func:`brainfeat.extract` describes it.

    Parameters
    ----------
    table : ImageTable or VolumeTable
        The images, or the volumes that they are cut from.
    origin : Origin or None
        How the images were made of volumes.
    parts : Path
        The folder of the shards.
    augment : int
        Augmented views of each image that has views.
    augmentation : Augmentation or None
        What augmented views are drawn from; None where there are none.
    alterations : Alterations or None
        Altered views of every image, instead of augmented ones; None where there are none.
    batch_size : int or None
        None takes the batch size of the backbone.
    n_jobs : int
        Threads that read and decode.
    on_error : {"skip", "raise"}
        What happens when an image cannot be read.
    signature : bool
        Whether the signatures of the images are stored.
    value_range : str
        What images of more than 8 bits are divided by, for the spec; `read` does it.
    crop : str
        What images are cropped to, as in the spec.
    read : callable
        Reads an image file.
    random_state : int
        Seed of the images that int8 is calibrated on.
    progress : callable or None
        Reports progress.
    restyle : callable or None
        From pixels, the digest of an image and the number of a view, to pixels in the style of
        another image, before the view is drawn; None leaves them as they are.
    """

    table: ImageTable | VolumeTable
    origin: Origin | None
    parts: Path
    augment: int
    augmentation: Augmentation | None
    alterations: Alterations | None
    batch_size: int | None
    n_jobs: int
    on_error: str
    signature: bool
    value_range: str
    crop: str
    read: Callable[..., NDArray[Any]]
    random_state: int
    progress: Progress | None
    restyle: Callable[..., Pixels] | None = None

    @property
    def reading(self) -> dict[str, Any]:
        """How the images were made of volumes, scaled and cropped, as fields of the spec."""
        return {
            "volumes": self.origin.policy if self.origin else "",
            "value_range": self.value_range,
            "crop": self.crop,
        }

    def complete_spec(self, spec: FeatureSpec) -> FeatureSpec:
        """Add how the images are read to the spec of a backbone.

        Raises
        ------
        SpecMismatchError
            If that spec states another way.
        """
        for name, text in self.reading.items():
            if (stated := getattr(spec, name)) not in (OLD_MEANINGS[name], text):
                raise SpecMismatchError(
                    f"{name} is {text!r} for the images and {stated!r} in the spec of the "
                    f"backbone; leave {name} out of that spec"
                )
        return replace(spec, **self.reading)

    def complete_recipe(self, recipe: Mapping[str, Any]) -> dict[str, Any]:
        """Add how the images are read to the recipe of a backbone."""
        reading = self.reading.items()
        return {**recipe, **{name: text for name, text in reading if text != OLD_MEANINGS[name]}}

    @property
    def ranges(self) -> dict[str, Any] | None:
        """The parameters of the augmented or altered views, as JSON values."""
        drawn = self.alterations or (self.augmentation if self.augment else None)
        return drawn.to_dict() if drawn else None

    @property
    def n_views(self) -> int:
        """Largest number of views of an image."""
        return len(self.alterations.views) if self.alterations else self.augment + 1

    def draw_view(self, pixels: Pixels, *, sha256: bytes, view: int) -> Pixels:
        """Draw a view of an image that is cropped and resized; view 0 is the image itself."""
        if not view or self.augmentation is None:
            return pixels
        if self.restyle is not None:
            pixels = self.restyle(pixels, sha256=sha256, view=view)
        return augment_pixels(pixels, sha256=sha256, view=view, augmentation=self.augmentation)

    def list_views(self, row: Row) -> Sequence[int]:
        """List the views of an image that the cache has: more than one for training images."""
        if self.alterations:
            return self.alterations.views
        train = row.split == "train" if self.table.has_splits else row.label
        return range(self.augment + 1 if train else 1)
