"""The bases of a head: what they see of an image, and their features as the head takes them."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from brainfeat import runtime
from brainfeat.cache.spec import FeatureSpec
from brainfeat.errors import ParameterError
from brainfeat.extraction.backbones import Backbone
from brainfeat.extraction.feature_extractors import FeatureExtractor, compile_copies
from brainfeat.extraction.preprocessing import preprocess_image
from brainfeat.heads.base import require_base
from brainfeat.heads.bundle import HeadBundle
from brainfeat.prediction.bases import load_base

Floats = NDArray[np.float32]
Pixels = NDArray[np.float32 | np.uint8]
# Where weights are; of a head of several blocks, also by the name of the block.
Weights = str | os.PathLike[str] | Mapping[str, str | os.PathLike[str]]


class InputKind(NamedTuple):
    """How an image is prepared for a base, as in a spec."""

    size: int
    fit: str
    crop: str


@dataclass(frozen=True, kw_only=True)
class HeadInputs:
    """What the bases of a head see of an image, which is decoded once.

    Attributes
    ----------
    kinds : tuple of InputKind
        Each of them once.
    value_range : str
        As in a spec.

    Examples
    --------
    >>> spec = FeatureSpec(
    ...     backbone="vgg16", layer="block5_pool", n_features=512, weights_sha256="0" * 64
    ... )
    >>> HeadInputs.of([spec, spec]).shape
    (224, 224, 3)
    """

    kinds: tuple[InputKind, ...]
    value_range: str

    @classmethod
    def of(cls, specs: Sequence[FeatureSpec]) -> "HeadInputs":
        """Find what the bases of some specs see."""
        kinds = dict.fromkeys(_find_kind(spec) for spec in specs)
        return cls(kinds=tuple(kinds), value_range=specs[0].value_range)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of a prepared image: (s, s, 3); of several kinds, (p, 1, 3), pixel by pixel."""
        sizes = [kind.size for kind in self.kinds]
        return (sizes[0], sizes[0], 3) if len(sizes) == 1 else (sum(s * s for s in sizes), 1, 3)

    def prepare(self, pixels: Pixels) -> Floats:
        """Prepare an image (h, w, 3), as :func:`preprocess_image` does, for all bases."""
        found = [
            preprocess_image(pixels, size=kind.size, fit=kind.fit, crop=kind.crop)
            for kind in self.kinds
        ]
        return (
            found[0]
            if len(found) == 1
            else np.concatenate([one.reshape(-1, 1, 3) for one in found])
        )

    def split(self, images: Pixels) -> list[Pixels]:
        """Return the images (n, s, s, 3) of each kind, of images (n, …) that were prepared."""
        if len(self.kinds) == 1:
            return [images]
        ends = np.cumsum([kind.size**2 for kind in self.kinds])
        parts = np.split(images, ends[:-1], axis=1)
        return [
            part.reshape(len(part), kind.size, kind.size, 3)
            for part, kind in zip(parts, self.kinds, strict=True)
        ]


@dataclass(frozen=True, kw_only=True)
class BasePart:
    """A base of several, and where its features are in the joined vector.

    Attributes
    ----------
    backbone : Backbone
    kind : int
        Place of what it sees among the kinds of the inputs.
    columns : tuple of (slice, slice)
        Columns of its own features, and those of the joined vector that take them.
    """

    backbone: Backbone
    kind: int
    columns: tuple[tuple[slice, slice], ...]


@dataclass(frozen=True, kw_only=True)
class JoinedBases:
    """The bases of a head that was joined on images, each of which is computed once an image.

    Attributes
    ----------
    spec : FeatureSpec
        That of the joined features.
    inputs : HeadInputs
    parts : tuple of BasePart
    """

    spec: FeatureSpec
    inputs: HeadInputs
    parts: tuple[BasePart, ...]

    @property
    def recipe(self) -> dict[str, Any]:
        """What determines the spec, of each base."""
        return {"joined": [part.backbone.recipe for part in self.parts]}

    @property
    def precision(self) -> str:
        """The precisions of the bases, each once."""
        return ", ".join(dict.fromkeys(part.backbone.precision for part in self.parts))

    @property
    def engine(self) -> str:
        """The engines of the bases, each once."""
        return ", ".join(dict.fromkeys(part.backbone.engine for part in self.parts))

    @property
    def input_size(self) -> int:
        """Height and width of the input, of bases that see the same."""
        return self.inputs.kinds[0].size

    def __call__(self, images: Pixels) -> Floats:
        """Compute joined features (n, Σd), float32, of prepared images (n, …)."""
        return self._join([part.backbone for part in self.parts], images)

    def compile(self, *, n_images: int | None) -> tuple[list[runtime.Forward], int]:
        """Prepare to compute batches, as :func:`compile_copies` does of one base."""
        compiled = [compile_copies(part.backbone, n_images=n_images) for part in self.parts]
        copies = zip(*(copies for copies, _ in compiled), strict=False)
        return [partial(self._join, own) for own in copies], min(size for _, size in compiled)

    def build_network(self) -> Any:
        """Build one Keras model, from images (n, s, s, 3) in [0, 1] to joined features (n, Σd)."""
        keras = runtime.import_keras()
        images = keras.Input((self.input_size, self.input_size, 3), dtype="float32")
        placed = []
        for number, part in enumerate(self.parts):
            network = part.backbone.build_network()
            # Two bases of one architecture have one name.
            network.name = f"base_{number}"
            features = network(images)
            placed += [(target.start, features[:, own]) for own, target in part.columns]
        ordered = [features for _, features in sorted(placed, key=lambda pair: pair[0])]
        return keras.Model(images, keras.layers.Concatenate()(ordered))

    def _join(self, forwards: Sequence[Any], images: Pixels) -> Floats:
        shown = self.inputs.split(images)
        joined = np.empty((len(images), self.spec.n_features), np.float32)
        for part, forward in zip(self.parts, forwards, strict=True):
            features = forward(shown[part.kind])
            for own, target in part.columns:
                joined[:, target] = features[:, own]
        return joined


def load_bases(bundle: HeadBundle, *, weights: Weights = "imagenet", **options: Any) -> Any:
    """Load the base of a head, or the bases of one that was joined on images.

    Parameters
    ----------
    bundle : HeadBundle
        Of one cache, or of several or their layers that were joined on images.
    weights : {"imagenet", "random"}, path-like, or mapping of str to these
        Those of the base; or by the name of a block.
    **options
        As of :func:`brainfeat.prediction.bases.load_base`.

    Returns
    -------
    Backbone or JoinedBases

    Raises
    ------
    ParameterError
        Weights of one base are given for several, or of a block that the head does not have.
    BrainfeatError
        As in :func:`brainfeat.prediction.bases.load_base`.
    """
    blocks = bundle.blocks
    if blocks is None:
        if isinstance(weights, Mapping):
            raise ParameterError(
                f"weights of {', '.join(weights)}, and this head has one base without a name; pass "
                "weights=PATH"
            )
        return load_base(bundle.spec, weights=weights, **options)
    inputs, starts = HeadInputs.of(blocks.specs), np.cumsum([0, *blocks.widths])
    parts = []
    for places in blocks.bases:
        specs = [blocks.specs[place] for place in places]
        own = choose_weights(weights, blocks.names, places, n_bases=len(blocks.bases))
        backbone = load_base(*specs, weights=own, **options)
        widths = backbone.spec.widths
        ends = dict(zip(widths, np.cumsum([*widths.values()]).tolist(), strict=True))
        columns = tuple(
            (
                slice(ends[spec.layer] - spec.n_features, ends[spec.layer]),
                slice(int(starts[place]), int(starts[place + 1])),
            )
            for place, spec in zip(places, specs, strict=True)
        )
        kind = inputs.kinds.index(_find_kind(specs[0]))
        parts.append(BasePart(backbone=backbone, kind=kind, columns=columns))
    return JoinedBases(spec=bundle.spec, inputs=inputs, parts=tuple(parts))


def choose_weights(
    weights: Weights, names: Sequence[str], places: Sequence[int], *, n_bases: int
) -> str | os.PathLike[str]:
    """Choose the weights of a base of several, by the names of its blocks.

    Parameters
    ----------
    weights : {"imagenet", "random"}, path-like, or mapping of str to these
    names : sequence of str
        Name of each block of the head.
    places : sequence of int
        The blocks of the base.
    n_bases : int
        Number of bases of the head.

    Returns
    -------
    str or path-like
        ``"imagenet"`` where a mapping has none.

    Raises
    ------
    ParameterError
        A path is given for several bases, a block has another name, or two blocks of one base have
        different weights.
    """
    if not isinstance(weights, Mapping):
        if n_bases > 1 and weights not in ("imagenet", "random"):
            raise ParameterError(
                f"weights of one base, and the head has {n_bases}; pass those of each by the name "
                f"of a block, of {', '.join(names)}"
            )
        return weights
    if unknown := [name for name in weights if name not in names]:
        raise ParameterError(
            f"weights of {unknown[0]}, and the head has the blocks {', '.join(names)}; name one of "
            "these"
        )
    own = [names[place] for place in places]
    chosen = {os.fspath(weights[name]) for name in own if name in weights}
    if len(chosen) > 1:
        raise ParameterError(
            f"{' and '.join(own)} are layers of one base, and two weights are given; pass one"
        )
    return chosen.pop() if chosen else "imagenet"


def compile_bases(
    base: FeatureExtractor | JoinedBases, *, n_images: int | None
) -> tuple[Sequence[runtime.Forward], int]:
    """Prepare one base, or several, to compute batches, as :func:`compile_copies` does."""
    if isinstance(base, JoinedBases):
        return base.compile(n_images=n_images)
    return compile_copies(base, n_images=n_images)


def require_bases(
    bundle: HeadBundle, base: FeatureExtractor | JoinedBases, *, any_precision: bool = False
) -> None:
    """Refuse other bases than those of a head, as :func:`require_base` does.

    Raises
    ------
    SpecMismatchError
        The message names each field that differs.
    """
    if not isinstance(base, JoinedBases):
        require_base(bundle.spec, base.spec, any_precision=any_precision)
    else:
        # The precision of each was checked when they were loaded.
        bundle.check_spec(base.spec)


def _find_kind(spec: FeatureSpec) -> InputKind:
    return InputKind(spec.input_size, spec.fit, spec.crop)
