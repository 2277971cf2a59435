"""The feature spec: what a feature vector means, as canonical JSON with a fingerprint."""

import hashlib
import re
from dataclasses import asdict, dataclass, fields, replace
from typing import Literal, Self

from brainfeat.canonical import canonical_json, parse_json
from brainfeat.errors import CacheError, CacheFormatError, SpecMismatchError

Scaling = Literal["weights", "unit"]
Precision = Literal["float32", "bfloat16", "float16", "int8"]
# How features are asked for; a spec says "average" for the mean.
Pooling = Literal["mean", "max", "none"]

SCALINGS: tuple[Scaling, ...] = ("weights", "unit")
POOLINGS: tuple[Pooling, ...] = ("mean", "max", "none")
# Precisions of floating point, and all.
FLOATS: tuple[Precision, ...] = ("float32", "bfloat16", "float16")
PRECISIONS: tuple[Precision, ...] = (*FLOATS, "int8")
_LAYERS = re.compile(r"[\w.-]+:[1-9]\d{0,6}(,[\w.-]+:[1-9]\d{0,6})+", re.ASCII)

# Fields that are younger than the format: what specs without them mean.
OLD_MEANINGS = {
    "volumes": "",
    "value_range": "dtype",
    "quantization": "",
    "crop": "",
    "layers": "",
}


@dataclass(frozen=True, kw_only=True)
class FeatureSpec:
    """Everything that changes a feature vector, and nothing else.

    Library versions and hardware are provenance, not identity, and are not part of it. A cache
    stores the ranges of augmentation beside the spec, because view 0 does not depend on them.

    Parameters
    ----------
    backbone : str
        Name of the convolutional base, such as ``"vgg16"``.
    layer : str
        Name of the layer whose output is pooled; of several, the deepest.
    n_features : int
        Length of one feature vector of that layer.
    weights_sha256 : str
        SHA-256 over the weight tensors of the base, 64 hexadecimal digits.
    pooling : str
        How the layer's map becomes a vector: ``"average"`` over all positions, in float32;
        ``"max"``, the largest value of each channel; ``"none"`` for the map itself. A cache that
        states ``"none"`` holds the map of its deepest layer, and averages.
    input_size : int
        Height and width of the base's input in pixels.
    resize : str
        How an image is resized: with Pillow's antialiased bilinear filter on 8-bit values.
    fit : str
        What happens to the aspect ratio: ``"stretch"`` does not keep it.
    colour : str
        ``"rgb"``: grey values are repeated three times, transparency is dropped
        unless it is the picture.
    orientation : str
        ``"exif"``: an image is rotated and mirrored as its EXIF tag asks for.
    scaling : {"weights", "unit"}
        Whether the input is scaled as it was when the weights were trained, or to 0…1.
    precision : {"float32", "bfloat16", "float16", "int8"}
        The number format in which the convolutions compute.
    dtype : str
        The number format in which features are stored.
    volumes : str
        How images were cut from volumes, as the text of a :class:`brainfeat.SlicePolicy`; ``""``
        for image files, and then left out of the JSON.
    value_range : str
        What images of more than 8 bits are divided by, as in
        :func:`brainfeat.readers.read_image`; left out of the JSON where it is ``"dtype"``.
    quantization : str
        For int8, how numbers become 8-bit integers, as the text of a
        :class:`brainfeat.extraction.quantization.Quantization`; ``""`` otherwise, and then left out
        of the JSON.
    crop : str
        What an image is cropped to before it is resized, as
        :data:`brainfeat.extraction.cropping.CROPS` has it; ``""`` for the whole image, and then
        left out of the JSON.
    layers : str
        Of a cache with several layers, their names in the order of the network with their numbers
        of features, such as ``"block4_pool:512,block5_pool:512"``; ``""`` otherwise, and then left
        out of the JSON.

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
    value_range: str = "dtype"
    quantization: str = ""
    crop: str = ""
    layers: str = ""

    @property
    def widths(self) -> dict[str, int]:
        """Number of features of each layer by its name, in the order of the network.

        Raises
        ------
        CacheFormatError
            The field `layers` is not a list of different names with numbers, the last of which are
            `layer` and `n_features`.

        Examples
        --------
        >>> FeatureSpec(
        ...     backbone="vgg16", layer="block5_pool", n_features=512, weights_sha256="0" * 64,
        ...     layers="block3_pool:256,block5_pool:512",
        ... ).widths
        {'block3_pool': 256, 'block5_pool': 512}
        """
        last = self.layer, self.n_features
        if not self.layers:
            return dict([last])
        entries = _LAYERS.fullmatch(self.layers) and self.layers.split(",")
        pairs = [entry.split(":") for entry in entries or ()]
        found = {name: int(width) for name, width in pairs}
        if not 2 <= len(found) == len(pairs) or [*found.items()][-1] != last:
            raise CacheFormatError(
                f"layers of the spec are {self.layers!r:.80}; expected different names with numbers"
                f" of features, the last of them {self.layer}:{self.n_features}"
            )
        return found

    def select(self, layer: str | None = None, *, maps: bool = False) -> Self:
        """Return the spec of what a cache of this spec has of one layer.

        Parameters
        ----------
        layer : str or None
            Name of the layer; None takes the deepest.
        maps : bool
            Whether its maps are meant, in place of its vectors.

        Returns
        -------
        FeatureSpec
            That of features that were extracted of this layer alone.

        Raises
        ------
        CacheError
            A cache of this spec does not have them.

        Examples
        --------
        >>> spec = FeatureSpec(
        ...     backbone="vgg16", layer="block5_pool", n_features=512, weights_sha256="0" * 64,
        ...     layers="block3_pool:256,block5_pool:512",
        ... )
        >>> spec.select("block3_pool").n_features, spec.select().layers
        (256, '')
        """
        layer = self.layer if layer is None else layer
        widths = self.widths
        if layer not in widths:
            raise CacheError(
                f"there are no features of layer {layer!r}; expected one of {', '.join(widths)}; "
                "extract again with layers=NAMES to have it"
            )
        if maps and (self.pooling != "none" or layer != self.layer):
            has = f"of layer {self.layer} alone" if self.pooling == "none" else "of no layer"
            raise CacheError(
                f"there are maps {has}, and those of {layer} are needed; extract again with "
                f'pooling="none" and {layer} as the deepest of layers'
            )
        pooling = "average" if self.pooling == "none" and not maps else self.pooling
        dtype = "float16" if maps else "float32"
        return replace(
            self, layer=layer, n_features=widths[layer], pooling=pooling, dtype=dtype, layers=""
        )

    def to_json(self) -> str:
        """Return the canonical JSON: sorted keys, no spaces, ASCII."""
        stored = asdict(self)
        for name, old in OLD_MEANINGS.items():
            if stored[name] == old:
                del stored[name]
        return canonical_json(stored)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read a spec from JSON.

        Raises
        ------
        CacheFormatError
            The text is not a JSON object with the keys and types of a spec.
        """
        stored = parse_json(text)
        if not isinstance(stored, dict):
            raise CacheFormatError("the spec is not a JSON object")
        wanted = {field.name: int if field.type is int else str for field in fields(cls)}
        stored = {**OLD_MEANINGS, **stored}
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
            The spec of the features that are to be used.
        here, there : str
            What this spec and the other belong to, for the message.
        remedy : str
            What the user can do, for the message.

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
    return f"{text[:12]}…" if len(text) >= 64 else text or "none"
