"""The base that a head takes features of."""

from dataclasses import replace
from typing import Protocol

from brainfeat.cache.spec import FeatureSpec
from brainfeat.errors import SpecMismatchError, WeightsError

# Significant bits of a number.
_PRECISION_BITS = {"int8": 7, "bfloat16": 8, "float16": 11, "float32": 24}


_REMEDY = "pass the weights that the head was fitted with"


class _Base(Protocol):
    @property
    def spec(self) -> FeatureSpec: ...


def read_spec(base: _Base) -> FeatureSpec:
    """Read the weights of the base that a head is to be used with, and return its spec.

    Parameters
    ----------
    base : object with a `spec`
        Such as a :class:`brainfeat.extraction.backbones.Backbone`.

    Returns
    -------
    FeatureSpec

    Raises
    ------
    WeightsError
        The weights are missing or wrong; where any would do for other tasks, those of the head are
        asked for.
    """
    try:
        return base.spec
    except WeightsError as error:
        if not error.remedy:
            raise
        raise WeightsError(error.problem, f"{_REMEDY}, with weights=PATH") from error


def select_maps(found: FeatureSpec) -> FeatureSpec:
    """Return the spec of the maps of a base; of one that pools them, its own spec."""
    return found.select(maps=True) if found.pooling == "none" else found


def require_base(wanted: FeatureSpec, found: FeatureSpec, *, any_precision: bool = False) -> None:
    """Refuse another base than that of a head's spec; a higher precision is allowed.

    How images were made of volumes, scaled to [0, 1] and cropped is not compared, as the base does
    not know it.

    Parameters
    ----------
    wanted, found : FeatureSpec
        Of the head, and of the base.
    any_precision : bool
        Whether a lower precision is allowed, too.

    Raises
    ------
    SpecMismatchError
        The message names each field that differs.
    """
    is_lower = _PRECISION_BITS[found.precision] < _PRECISION_BITS[wanted.precision]
    if is_lower and not any_precision:
        raise SpecMismatchError(
            f"the base computes in {found.precision}, which is lower than the {wanted.precision} "
            "that the head was fitted in; take this or a higher precision"
        )
    wanted.require(
        replace(
            select_maps(found) if wanted.pooling == "none" else found,
            precision=wanted.precision,
            quantization=wanted.quantization,
            volumes=wanted.volumes,
            value_range=wanted.value_range,
            crop=wanted.crop,
        ),
        here="the head",
        there="the base",
        remedy=_REMEDY,
    )
