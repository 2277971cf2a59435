"""Variants of a head: the options of a fit in which each differs from the plain one."""

import os
import tomllib
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from brainfeat.cache.cache import FeatureCache
from brainfeat.errors import ParameterError
from brainfeat.text import make_printable

# The name of the head that variants are compared with.
PLAIN = "plain"
# Variants that are compared at most.
LIMIT = 100

_Features = (str, os.PathLike, FeatureCache, Sequence)
# Options of fit_head in which a variant may differ, and what each must be.
_KEYS: dict[str, tuple[Any, str]] = {
    "head": (str, "a text"),
    "params": (Mapping, "a table"),
    "search": (bool, "true or false"),
    "n_iter": (int, "a number"),
    "features": (_Features, "a path, or several"),
    "join": (str, "a text"),
    "names": (Sequence, "several texts"),
    "layer": (str, "a text"),
    "how": (str, "a text"),
    "generate": (int, "a number"),
    "bag": (str, "a text"),
}
# What a variant with another head, or other features, does not take from the plain head.
_OF_HEAD = ("head", "params", "search", "n_iter")
_OF_FEATURES = ("features", "join", "names", "how")

_BYTES = 1_000_000

Variants = Mapping[str, Mapping[str, Any]]


def read_variants(path: str | os.PathLike[str]) -> dict[str, dict[str, Any]]:
    r"""Read variants from a TOML file.

    Parameters
    ----------
    path : path-like
        A table for each variant; paths of features are relative to the file.

    Returns
    -------
    dict of str to dict
        Options by the name of each variant, checked.

    Raises
    ------
    ParameterError
        The file cannot be read, is not TOML, or an option is unknown or of another type.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder) / "variants.toml"
    ...     _ = path.write_text("[strong]\nparams = {C = 10}\n[other]\nhead = 'lda'\n")
    ...     found = read_variants(path)
    >>> found
    {'strong': {'params': {'C': 10}}, 'other': {'head': 'lda'}}
    """
    file = Path(path)
    found = check_variants(_read_toml(file))
    for options in found.values():
        features = options.get("features")
        if isinstance(features, str):
            options["features"] = file.parent / features
        elif features is not None:
            options["features"] = [file.parent / name for name in features]
    return found


def check_variants(variants: Variants) -> dict[str, dict[str, Any]]:
    """Check the names and the options of variants.

    Parameters
    ----------
    variants : mapping of str to mapping

    Returns
    -------
    dict of str to dict
        Copies.

    Raises
    ------
    ParameterError
        There are none or too many, one has the name of the plain head, or an option is unknown or
        of another type.

    Examples
    --------
    >>> check_variants({"a": {"heads": "svm"}})
    Traceback (most recent call last):
    brainfeat.errors.ParameterError: variant 'a' has the key 'heads'; did you mean 'head'?
    """
    if not 0 < len(variants) <= LIMIT:
        raise ParameterError(f"{len(variants):,} variants; expected 1 to {LIMIT}")
    if PLAIN in variants:
        raise ParameterError(f"{PLAIN!r} is the head that variants are compared with; rename it")
    for name, options in variants.items():
        shown = repr(make_printable(str(name)))
        if not isinstance(options, Mapping):
            raise ParameterError(
                f"{shown} is not a variant; expected a table of options, such as [{PLAIN}er] with "
                'head = "svm" below it'
            )
        for key, value in options.items():
            _check_option(f"variant {shown}", key, value)
    return {str(name): dict(options) for name, options in variants.items()}


def change_options(plain: Mapping[str, Any], variant: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of the plain head with those that a variant changes.

    With another head, a variant has none of the parameters of the plain one; with other features,
    it joins those alone.

    Examples
    --------
    >>> change_options({"head": "svm", "params": {"C": 10}, "bag": "mean"}, {"head": "lda"})
    {'bag': 'mean', 'head': 'lda'}
    """
    dropped: set[str] = set()
    for changed in (_OF_HEAD, _OF_FEATURES):
        if changed[0] in variant:
            dropped.update(changed)
    return {key: plain[key] for key in plain if key not in dropped} | dict(variant)


def describe_options(variant: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a variant as what JSON can hold; of features, the names of the files.

    Examples
    --------
    >>> describe_options({"features": [Path("caches/a.h5"), Path("caches/b.h5")]})
    {'features': ['a.h5', 'b.h5']}
    """
    shown = dict(variant)
    if (features := variant.get("features")) is not None:
        several = isinstance(features, Sequence) and not isinstance(features, str)
        names = [_name_file(one) for one in (features if several else [features])]
        shown["features"] = names if several else names[0]
    return shown


def _name_file(features: Any) -> str:
    return Path(features.path if isinstance(features, FeatureCache) else features).name


def _check_option(where: str, key: str, value: Any) -> None:
    if key not in _KEYS:
        near = get_close_matches(str(key), _KEYS, n=1)
        advice = f"did you mean {near[0]!r}?" if near else f"expected one of {', '.join(_KEYS)}"
        raise ParameterError(f"{where} has the key {make_printable(str(key))!r}; {advice}")
    kind, expected = _KEYS[key]
    is_number = isinstance(value, int) and not isinstance(value, bool)
    if not isinstance(value, kind) or (kind is int and not is_number):
        raise ParameterError(f"{where}: {key} must be {expected}, got {value!r:.50}")
    if isinstance(value, Sequence) and not isinstance(value, str):
        kinds = (str,) if key == "names" else (str, os.PathLike, FeatureCache)
        if not value or not all(isinstance(entry, kinds) for entry in value):
            raise ParameterError(f"{where}: {key} must be {expected}, got {value!r:.50}")


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            content = file.read(_BYTES + 1)
    except OSError as error:
        raise ParameterError(f"{path} cannot be read ({error.strerror})") from error
    if len(content) > _BYTES:
        raise ParameterError(f"{path} has more than {_BYTES:,} bytes; expected a list of variants")
    try:
        return tomllib.loads(content.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise ParameterError(f"{path} is not UTF-8 at byte {error.start:,}") from error
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ParameterError(f"{path} is not TOML: {error}") from error
