"""FeatureSpec: what a feature vector means, as canonical JSON with a fingerprint."""

import hashlib
from dataclasses import asdict, dataclass, fields
from typing import Literal, Self

from brainfeat.canonical import canonical_json, parse_json
from brainfeat.errors import CacheFormatError, SpecMismatchError

Scaling = Literal["weights", "unit"]
Precision = Literal["float32", "bfloat16", "float16"]

SCALINGS: tuple[Scaling, ...] = ("weights", "unit")
PRECISIONS: tuple[Precision, ...] = ("float32", "bfloat16", "float16")


@dataclass(frozen=True, kw_only=True)
class FeatureSpec:
    """Everything that changes a feature vector, and nothing else.

    Library versions and hardware are provenance, not identity, and are not here. What makes an
    augmented view is stored beside the spec in a cache, because view 0 does not depend on it.

    Parameters
    ----------
    backbone : str
        Name of the convolutional base, such as ``"vgg16"``.
    layer : str
        Name of the layer whose output is pooled.
    n_features : int
        Length of one feature vector.
    weights_sha256 : str
        SHA-256 (64 hexadecimal digits) over the weight tensors of the base.
    pooling : str
        How the map of the layer becomes a vector: ``"average"``, over all places, in float32.
    input_size : int
        Height and width in pixels of what the base sees.
    resize : str
        How an image is brought to that size: Pillow's antialiased bilinear filter on 8-bit values.
    fit : str
        What happens to the aspect ratio: ``"stretch"`` gives it up.
    colour : str
        ``"rgb"``: grey is repeated three times, transparency is dropped.
    orientation : str
        ``"exif"``: an image is turned as its EXIF tag says.
    scaling : {"weights", "unit"}
        Whether the base is fed what its weights were trained with, or values from 0 to 1.
    precision : {"float32", "bfloat16", "float16"}
        What the convolutions compute in.
    dtype : str
        What a feature is stored as.
    volumes : str
        How images were made of volumes, as :class:`brainfeat.SlicePolicy` says it; ``""`` where
        they are image files, and is then not in the JSON.

    Examples
    --------
    >>> spec = FeatureSpec(backbone="vgg16", layer="block5_pool", n_features=512,
    ...                    weights_sha256="0" * 64)
    >>> FeatureSpec.from_json(spec.to_json()) == spec
    True
    >>> len(spec.fingerprint)
    64
    """

    backbone: str
    layer: str
    n_features: int
    weights_sha256: str
    pooling: str = "average"
    input_size: int = 224
    resize: str = "pillow-bilinear-8bit"
    fit: str = "stretch"
    colour: str = "rgb"
    orientation: str = "exif"
    scaling: Scaling = "weights"
    precision: Precision = "float32"
    dtype: str = "float32"
    volumes: str = ""

    def to_json(self) -> str:
        """Return the canonical JSON: sorted keys, no spaces, ASCII."""
        stored = asdict(self)
        if not self.volumes:
            del stored["volumes"]
        return canonical_json(stored)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read a spec from JSON.

        Raises
        ------
        CacheFormatError
            The text is no JSON object, or its keys or types are not those of a spec.
        """
        stored = parse_json(text)
        if not isinstance(stored, dict):
            raise CacheFormatError("the spec is not a JSON object")
        wanted = {field.name: int if field.type is int else str for field in fields(cls)}
        stored = {"volumes": "", **stored}
        if set(stored) != set(wanted):
            odd = ", ".join(sorted(set(stored) ^ set(wanted)))
            raise CacheFormatError(
                f"the spec has missing or unknown fields ({odd}): "
                "it was written by another version of brainfeat"
            )
        for name, kind in wanted.items():
            if type(stored[name]) is not kind:
                raise CacheFormatError(
                    f"the spec's {name} is {stored[name]!r}, expected {kind.__name__}"
                )
        return cls(**stored)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the canonical JSON, as 64 hexadecimal digits."""
        return hashlib.sha256(self.to_json().encode("ascii")).hexdigest()

    def require(
        self,
        other: Self,
        *,
        here: str,
        there: str,
        remedy: str = "extract again with the same options",
    ) -> None:
        """Refuse a spec that differs from this one.

        Parameters
        ----------
        other : FeatureSpec
            The spec that was offered.
        here, there : str
            What each spec belongs to, for the message.
        remedy : str
            What to do, for the message.

        Raises
        ------
        SpecMismatchError
            The specs differ; the message names each field that does.
        """
        mine, theirs = asdict(self), asdict(other)
        differing = [
            f"{name}: {_brief(mine[name])} and {_brief(theirs[name])}"
            for name in mine
            if mine[name] != theirs[name]
        ]
        if differing:
            raise SpecMismatchError(
                f"{here} and {there} have features of different specs ({'; '.join(differing)}); "
                f"{remedy}"
            )


def _brief(value: object) -> str:
    text = str(value)
    return f"{text[:12]}…" if len(text) == 64 else text or "none"
