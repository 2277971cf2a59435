"""Taps: the layers of a base whose maps become features, and how they are pooled."""

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any

from brainfeat.cache.spec import POOLINGS, FeatureSpec, Pooling
from brainfeat.errors import ParameterError
from brainfeat.extraction.architectures import BACKBONES
from brainfeat.extraction.graph import find_channels, find_lengths, list_maps, read_graph
from brainfeat.text import name_some

# HDF5's guard knows no file of more objects.
_MOST_LAYERS = 32
# What a spec says of each way of pooling.
_STATED: dict[Pooling, str] = {"mean": "average", "max": "max", "none": "none"}


@dataclass(frozen=True, kw_only=True)
class Taps:
    """Layers of a base, and how their maps become features.

    Parameters
    ----------
    backbone : str
        Name of the base.
    layers : tuple of str
        In the order of the network; the last is the deepest.
    pooling : {"mean", "max", "none"}
        ``"none"`` keeps the map of the deepest layer beside the means of all.

    Examples
    --------
    >>> taps = choose_taps("vgg16", ["block5_pool", "block3_pool"], pooling="none")
    >>> taps.layers, taps.widths, taps.find_map_shape(224)
    (('block3_pool', 'block5_pool'), {'block3_pool': 256, 'block5_pool': 512}, (7, 7))
    """

    backbone: str
    layers: tuple[str, ...]
    pooling: Pooling

    @property
    def deepest(self) -> str:
        """The last layer."""
        return self.layers[-1]

    @property
    def widths(self) -> dict[str, int]:
        """Number of features by layer."""
        channels = find_channels(read_graph(self.backbone))
        return {layer: channels[layer] for layer in self.layers}

    @property
    def stated(self) -> dict[str, str]:
        """What a spec says of them, besides its `layer` and `n_features`."""
        listed = ",".join(f"{layer}:{width}" for layer, width in self.widths.items())
        return {
            "pooling": _STATED[self.pooling],
            "layers": listed if len(self.layers) > 1 else "",
        }

    @property
    def recipe(self) -> dict[str, Any]:
        """What a recipe says of them: nothing of the mean of the last layer."""
        last = self.layers == (BACKBONES[self.backbone].layer,)
        return {
            **({} if last else {"layers": list(self.layers)}),
            **({} if self.pooling == "mean" else {"pooling": self.pooling}),
        }

    def find_map_shape(self, input_size: int) -> tuple[int, int]:
        """Find height and width of the deepest maps of images of a size."""
        length = find_lengths(read_graph(self.backbone), input_size)[self.deepest]
        return length, length


def choose_taps(backbone: str, layers: Sequence[str], *, pooling: Pooling) -> Taps:
    """Choose layers of a base.

    Parameters
    ----------
    backbone : str
        A key of :data:`brainfeat.extraction.architectures.BACKBONES`.
    layers : sequence of str
        Names of layers that have a map, as Keras names them, in any order; none takes the last.
    pooling : {"mean", "max", "none"}

    Returns
    -------
    Taps

    Raises
    ------
    ParameterError
        The base does not have one of the layers, a layer is named twice, or the pooling is unknown.
    """
    if pooling not in POOLINGS:
        raise ParameterError(f"unknown pooling {pooling!r}; expected one of {', '.join(POOLINGS)}")
    if isinstance(layers, str):
        raise ParameterError(f"layers {layers!r}; expected a sequence of names, such as a tuple")
    known = list_maps(read_graph(backbone))
    chosen = list(layers) or [BACKBONES[backbone].layer]
    if unknown := [layer for layer in chosen if layer not in known]:
        nearest = sorted(known, key=lambda name: -_compare(name, unknown[0]))
        raise ParameterError(
            f"{backbone} has no layer {unknown[0]!r} with a map; expected one of its layers: "
            f"{name_some(nearest)}"
        )
    if len(set(chosen)) < len(chosen):
        twice = next(layer for layer in chosen if chosen.count(layer) > 1)
        raise ParameterError(f"layer {twice} is named twice; name each layer once")
    if len(chosen) > _MOST_LAYERS:
        raise ParameterError(f"{len(chosen)} layers; expected at most {_MOST_LAYERS}")
    return Taps(backbone=backbone, layers=tuple(sorted(chosen, key=known.index)), pooling=pooling)


def read_taps(spec: FeatureSpec) -> tuple[tuple[str, ...], Pooling]:
    """Return the layers and the pooling that a base of a spec is loaded with.

    Parameters
    ----------
    spec : FeatureSpec

    Returns
    -------
    layers : tuple of str
    pooling : {"mean", "max", "none"}

    Raises
    ------
    ParameterError
        The spec states a pooling that is unknown here.
    """
    found = next((name for name, stated in _STATED.items() if stated == spec.pooling), None)
    if found is None:
        raise ParameterError(
            f"the spec states pooling {spec.pooling!r}; expected one of "
            f"{', '.join(_STATED.values())}"
        )
    return tuple(spec.widths), found


def _compare(name: str, wanted: str) -> float:
    return SequenceMatcher(None, str(wanted), name).ratio()
