"""The base of a head, loaded as its spec says."""

import os
from typing import Literal

from brainfeat.cache.spec import FeatureSpec, Precision
from brainfeat.extraction.backbones import Backbone, load_backbone
from brainfeat.extraction.engines import Engine
from brainfeat.extraction.taps import read_taps
from brainfeat.heads.base import read_spec, require_base


def load_base(
    spec: FeatureSpec,
    *others: FeatureSpec,
    weights: str | os.PathLike[str],
    precision: Precision | None = None,
    device: str = "auto",
    engine: Engine | Literal["auto"] = "auto",
) -> Backbone:
    """Load the base of a spec, with the layer and the pooling that it states.

    Parameters
    ----------
    spec : FeatureSpec
        Of a head, or of a block of one.
    *others : FeatureSpec
        Of further blocks, which are other layers of the same base.
    weights : {"imagenet", "random"} or path-like
        As in :func:`brainfeat.extraction.backbones.load_backbone`.
    precision : {"float32", "bfloat16", "float16", "int8"} or None
        None takes that of the spec.
    device, engine
        As in :func:`brainfeat.extraction.backbones.load_backbone`.

    Returns
    -------
    Backbone

    Raises
    ------
    SpecMismatchError
        The base is another one than that of the spec, such as one with other weights, or computes
        in a lower precision.
    WeightsError
        The weights are missing or wrong.
    ParameterError
        One of the other arguments is out of range.
    """
    precision = precision or spec.precision
    layers, pooling = read_taps(spec)
    layers += tuple(other.layer for other in others)
    backbone = load_backbone(
        spec.backbone,
        weights=weights,
        scaling=spec.scaling,
        input_size=spec.input_size,
        precision=precision,
        quantization=spec.quantization if precision == "int8" else "",
        device=device,
        engine=engine,
        layers=layers,
        pooling=pooling,
    )
    found = read_spec(backbone)
    for one in (spec, *others):
        require_base(one, found.select(one.layer) if others else found)
    return backbone
