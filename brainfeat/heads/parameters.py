"""Checks of the heads that Keras trains: constructor parameters, and the arrays when fitted."""

from collections.abc import Callable, Mapping, Sequence
from numbers import Integral, Real
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from brainfeat.errors import HeadError

# Side of the convolution of CBAM.
SPATIAL_SIZE = 7

_GATED: Mapping[str, tuple[int | str, ...]] = {"V": ("d", "p"), "U": ("d", "p"), "w": ("p",)}
_EXCITED: Mapping[str, tuple[int | str, ...]] = {"squeeze": ("d", "p"), "excite": ("p", "d")}
# What each kind of attention has learned: arrays by name, with the sizes of their dimensions, where
# d is the number of features, and p any width.
GATE_SHAPES: Mapping[str, Mapping[str, tuple[int | str, ...]]] = {
    "attention": _GATED,
    "attention-pool": _GATED,
    "se": _EXCITED,
    "cbam": {
        **_EXCITED,
        "spatial": (SPATIAL_SIZE, SPATIAL_SIZE, 2),
        "spatial_bias": (1,),
    },
}


def _is_count(value: object, *, least: int = 1) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= least


def _is_between(value: object, low: float, high: float) -> bool:
    """Return whether a value is a number above `low` and below `high`."""
    return isinstance(value, Real) and not isinstance(value, bool) and low < float(value) < high


def _is_class_weight(value: object) -> bool:
    if isinstance(value, Mapping):
        return all(weight == 0 or _is_between(weight, 0, np.inf) for weight in value.values())
    return value is None or (isinstance(value, str) and value == "balanced")


_CONSTRAINTS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "attention_units": ("a positive integer", _is_count),
    "attention": (
        "'attention-pool', 'se' or 'cbam'",
        lambda value: value in ("attention-pool", "se", "cbam"),
    ),
    "reduction": ("a positive integer", _is_count),
    "max_instances": ("a positive integer", _is_count),
    "hidden_units": (
        "a tuple or list of positive integers, nine at most",
        lambda value: (
            isinstance(value, tuple | list) and len(value) < 10 and all(map(_is_count, value))
        ),
    ),
    "dropout": (
        "a number from 0 to below 1",
        lambda value: value == 0 or _is_between(value, 0, 1),
    ),
    "learning_rate": ("a positive number", lambda value: _is_between(value, 0, np.inf)),
    "batch_size": ("a positive integer", _is_count),
    "epochs": ("a positive integer", _is_count),
    "patience": ("a positive integer", _is_count),
    "validation_fraction": (
        "a number between 0 and 1, or None",
        lambda value: value is None or _is_between(value, 0, 1),
    ),
    "class_weight": (
        "'balanced', a dict from label to a weight that is not negative, or None",
        _is_class_weight,
    ),
    "mixup": (
        "a number of 0 or more",
        lambda value: not isinstance(value, bool) and (value == 0 or _is_between(value, 0, np.inf)),
    ),
    "random_state": (
        "an integer that is not negative, a NumPy random generator, or None",
        lambda value: (
            value is None
            or _is_count(value, least=0)
            or isinstance(value, np.random.Generator | np.random.RandomState)
        ),
    ),
    "verbose": ("0, 1 or 2", lambda value: value in {0, 1, 2}),
}


def check_params(params: Mapping[str, Any], *, head: str = "dense") -> None:
    """Refuse a constructor parameter of a head that Keras trains that is out of range.

    Parameters
    ----------
    params : mapping of str to object
        Parameters by name, each one of the constructor's.
    head : str
        For the message, such as ``"dense"``.

    Raises
    ------
    HeadError
        Names the first parameter that is out of range, the values that it may have, and its own.

    Examples
    --------
    >>> check_params({"dropout": 0.5, "hidden_units": (128, 64)})
    >>> check_params({"dropout": 1.5})
    Traceback (most recent call last):
    brainfeat.errors.HeadError: The 'dropout' parameter of the dense head must be a number ...
    """
    for name, value in params.items():
        expected, is_valid = _CONSTRAINTS[name]
        if not is_valid(value):
            raise HeadError(
                f"The {name!r} parameter of the {head} head must be {expected}. "
                f"Got {value!r} instead."
            )


def to_finite(values: ArrayLike, dtype: Any, *, ndim: int) -> NDArray[Any]:
    """Copy an array of a dense head, with `ndim` dimensions, to a data type.

    Raises
    ------
    HeadError
        The array has another number of dimensions, or a number that is not finite.
    """
    array = np.array(values, dtype)
    if array.ndim != ndim or not np.isfinite(array).all():
        raise HeadError(
            f"an array of a dense head must have {ndim} dimension(s) and finite numbers only; got "
            f"shape {array.shape}"
        )
    return array


def check_layers(
    layers: Sequence[tuple[NDArray[Any], ...]],
    *,
    mean: NDArray[Any],
    scale: NDArray[Any],
    classes: NDArray[Any],
) -> None:
    """Check that arrays make one network from features to classes.

    Parameters
    ----------
    layers : sequence of (ndarray, shape (m, p); ndarray, shape (p,))
        Kernel and bias of each layer.
    mean, scale : ndarray, shape (d,)
        Standardise the features.
    classes : ndarray, shape (k,)
        Labels of the columns of the last layer.

    Raises
    ------
    HeadError
        The layers do not follow each other, there are fewer than two classes, or a scale is not
        positive.
    """
    widths = [mean.size]
    for kernel, bias in layers:
        if kernel.shape != (widths[-1], bias.size):
            raise HeadError(
                f"a dense head's kernel must have shape ({widths[-1]}, {bias.size}) to match the "
                f"layer before it and its bias; got {kernel.shape}"
            )
        widths.append(bias.size)
    if classes.ndim != 1 or classes.size < 2 or np.unique(classes).size != classes.size:
        raise HeadError(f"a dense head needs two distinct classes or more; got {classes.tolist()}")
    if len(widths) == 1 or widths[-1] != classes.size:
        raise HeadError(f"a dense head of widths {widths} has no output for {classes.size} classes")
    if scale.shape != mean.shape or (scale <= 0).any():
        raise HeadError("a dense head needs a positive scale for each feature's mean")


def check_gates(kind: str, gates: Sequence[NDArray[Any]], *, n_features: int) -> None:
    """Check that arrays are the gates of a head with attention.

    Parameters
    ----------
    kind : str
        A key of :data:`GATE_SHAPES`.
    gates : sequence of ndarray
        In its order.
    n_features : int
        d.

    Raises
    ------
    HeadError
        Their shapes do not match.
    """
    shapes = GATE_SHAPES[kind]
    sizes = {"d": n_features, "p": gates[0].shape[-1] if gates[0].ndim else 0}
    expected = [tuple(sizes.get(str(size), size) for size in shape) for shape in shapes.values()]
    if not sizes["p"] or [gate.shape for gate in gates] != expected:
        texts = {name: ", ".join(map(str, shape)) for name, shape in shapes.items()}
        wanted = ", ".join(f"{name} of shape ({text})" for name, text in texts.items())
        wanted = wanted.replace("d,", f"{n_features},").replace("d)", f"{n_features})")
        found = ", ".join(str(gate.shape) for gate in gates)
        raise HeadError(f"a head of {kind} has {wanted}; got {found}")
