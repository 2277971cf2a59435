"""How numbers become 8-bit integers in an int8 base: what the spec says of it."""

from dataclasses import dataclass
from typing import Self

from brainfeat.canonical import canonical_json, parse_json
from brainfeat.errors import ParameterError

METHOD = "minimum-maximum, one range a layer, one scale a filter, first layer in floating point"


@dataclass(frozen=True, kw_only=True)
class Quantization:
    """How numbers become 8-bit integers in an int8 base.

    Attributes
    ----------
    images : int
        Number of images that the ranges were taken from.
    images_sha256 : str
        SHA-256 over the digests of their files, in the order of these.
    ranges : dict of str to tuple of float
        The least and the largest output of each layer that an int8 convolution reads.

    Examples
    --------
    >>> found = Quantization(images=1, images_sha256="0" * 64, ranges={"block1_conv1": (0.0, 9.5)})
    >>> Quantization.parse(found.text) == found
    True
    """

    images: int
    images_sha256: str
    ranges: dict[str, tuple[float, float]]

    @property
    def text(self) -> str:
        """The canonical JSON, as the spec has it."""
        ranges = {name: list(limits) for name, limits in self.ranges.items()}
        return canonical_json(
            {
                "images": self.images,
                "images_sha256": self.images_sha256,
                "method": METHOD,
                "ranges": ranges,
            }
        )

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read the text of a spec.

        Raises
        ------
        ParameterError
            If it is not one that this version wrote.
        """
        stored = parse_json(text, error=ParameterError)
        if not isinstance(stored, dict) or stored.get("method") != METHOD:
            raise ParameterError(
                "the quantization of the spec is not one of this version of brainfeat; extract the "
                "features again"
            )
        ranges = {name: (float(low), float(high)) for name, (low, high) in stored["ranges"].items()}
        return cls(images=stored["images"], images_sha256=stored["images_sha256"], ranges=ranges)
