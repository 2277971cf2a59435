"""PatientImages: the images of a patient, which a bag head takes together."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from brainfeat.heads.bags import Bags
from brainfeat.prediction.answers import Prediction, Seen
from brainfeat.prediction.images import InputImage


@dataclass(kw_only=True)
class PatientImages:
    """The images of a patient that are known so far.

    Attributes
    ----------
    name : str
        The folder, or the volume.
    entries : list of (InputImage, Seen or None)
        Those that can be read, without pixels, and how the head has seen each.
    vectors : list of ndarray of shape (d,), float32
        Their features.
    refused : list of Prediction
        Those that cannot be read.
    volumes : list of str
        Names of the volumes that they are slices of.
    """

    name: str
    entries: list[tuple[InputImage, Seen | None]] = field(default_factory=list)
    vectors: list[NDArray[np.float32]] = field(default_factory=list)
    refused: list[Prediction] = field(default_factory=list)
    volumes: list[str] = field(default_factory=list)

    def add(self, entry: InputImage, vector: NDArray[np.float32] | None, seen: Seen | None) -> None:
        """Add an image; its vector is None where it cannot be read."""
        if vector is None:
            self.refused.append(Prediction(path=entry.name, error=entry.error))
        else:
            self.entries.append((entry, seen))
            self.vectors.append(vector)

    @property
    def path(self) -> str:
        """What the patient is called in output: one image, a folder, or the volumes."""
        if self.volumes:
            return " + ".join(self.volumes)
        alone = len(self.entries) + len(self.refused) == 1
        return self.entries[0][0].name if alone and self.entries else self.name

    @property
    def seen(self) -> Seen | None:
        """How the head has seen any of the images; the same file counts most."""
        found = {how for _, how in self.entries if how is not None}
        return "exact-duplicate" if "exact-duplicate" in found else next(iter(found), None)

    def collect(self) -> Bags:
        """Return the bag of the vectors; there must be one."""
        return Bags.collect([np.stack(self.vectors)])
